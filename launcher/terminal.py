"""What a person at the terminal reads. Standard library only."""

import sys


def say(topic: str, text: str) -> None:
    """One line: what it is about, and what happened."""
    sys.stdout.write(f"  {topic:<12} {text}\n")
    sys.stdout.flush()


def complain(step: str, message: str, hint: str | None) -> None:
    """A step that failed: which, why, and what to do."""
    sys.stdout.flush()
    sys.stderr.write(f"\n  {step} failed: {message}\n" + (f"  -> {hint}\n" if hint else ""))
    sys.stderr.flush()
