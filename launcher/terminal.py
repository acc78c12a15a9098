"""What a person at the terminal reads, and how they end it all. Standard library only."""

import signal
import sys
from types import FrameType


def say(topic: str, text: str) -> None:
    """One line: what it is about, and what happened."""
    sys.stdout.write(f"  {topic:<12} {text}\n")
    sys.stdout.flush()


def complain(step: str, message: str, hint: str | None) -> None:
    """A step that failed: which, why, and what to do."""
    sys.stdout.flush()
    sys.stderr.write(f"\n  {step} failed: {message}\n" + (f"  -> {hint}\n" if hint else ""))
    sys.stderr.flush()


def stop_signals() -> list[signal.Signals]:
    """Ctrl-C, a request to end, a closed terminal: as far as this system has them."""
    return [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


def interrupt_on_stop_signals() -> None:
    """Makes each of them a KeyboardInterrupt in the main thread, so that whatever runs is ended in good order."""
    for number in stop_signals():
        # A program that was started to ignore a signal (nohup, a script's background) goes on ignoring it.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
