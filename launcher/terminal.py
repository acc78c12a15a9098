"""Terminal output (status lines, errors, a progress bar, colours) and stop signals. Standard library only."""

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

FILLED, EMPTY = "#", "."
# The minimum width of a line, and the length of a progress bar in it.
BARS = ((110, 24), (80, 10))


def size_text(size: float) -> str:
    """Format a number of bytes: 340 MB, 6.9 GB."""
    if size <= 0:
        return "nothing"
    if size < 1_000_000:
        return f"{max(1, round(size / 1000))} kB"
    return f"{size / 1e9:.1f} GB" if size >= 999_500_000 else f"{size / 1e6:.0f} MB"


def time_text(seconds: float) -> str:
    """Format a duration: 0:42, 12:05, 1:02:03."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def progress_bar(fraction: float, columns: int = BARS[0][0]) -> str:
    """Return a progress bar with its percentage for a fraction 0 to 1; a line of few `columns` has no bar."""
    part = min(1.0, max(0.0, fraction))
    length = next((length for least, length in BARS if columns >= least), 0)
    filled = int(part * length)
    blocks = f"[{FILLED * filled}{EMPTY * (length - filled)}] " if length else ""
    return f"{blocks}{int(part * 100):3d} %"


# ANSI sequences: return to the first column and clear the line; colours and weights.
ERASE = "\r\033[K"
BOLD, DIM, RED, GREEN, CYAN = "1", "2", "31", "32", "36"
SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
# Seconds between two updates of the progress line.
UPDATE_INTERVAL = 0.2
SPINNER = "|/-\\"
TOPIC_WIDTH = 12
# Characters of an error line that are shown; its middle is cut, because the cause is often at the end.
MAX_LINE = 600


def prepare_output() -> None:
    """Escape characters that the terminal cannot show, so that they raise no error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def can_overwrite(stream: TextIO) -> bool:
    """Whether the stream is a terminal that can overwrite a line."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return False
    return sys.platform != "win32" or _enable_sequences(stream)


def paint(text: str, *codes: str, stream: TextIO | None = None) -> str:
    """Return `text` in a colour if the terminal has colours and NO_COLOR (no-color.org) is not set."""
    if os.environ.get("NO_COLOR") or not can_overwrite(stream or sys.stdout):
        return text
    return f"\033[{';'.join(codes)}m{text}\033[0m"


def strip_controls(text: str) -> str:
    """Return `text` in one line without control characters: untrusted text must not control the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in SEQUENCE.sub("", text))


def os_error_text(error: OSError) -> str:
    """Describe a system error with its file, without its number."""
    if error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"


def cut_middle(text: str) -> str:
    """Cut the middle of a very long `text`: file names and URLs can have any length."""
    half = MAX_LINE // 2
    return text if len(text) <= MAX_LINE else f"{text[:half]} ... {text[-half:]}"


def erase_prefix(stream: TextIO) -> str:
    """Return what a line must start with to replace the progress line."""
    return ERASE if can_overwrite(stream) else ""


def print_status(topic: str, text: str) -> None:
    """Write a line: a topic, and what happened."""
    sys.stdout.write(f"{erase_prefix(sys.stdout)}  {topic:<{TOPIC_WIDTH}} {text}\n")
    sys.stdout.flush()


def print_error(step: str, message: str, hint: str | None) -> None:
    """Write which step failed, why, and what to do."""
    sys.stdout.flush()
    failed = paint(f"{strip_controls(step)} failed:", BOLD, RED, stream=sys.stderr)
    # The message may end with lines of a log.
    message, hint = (
        "\n".join(cut_middle(strip_controls(line)) for line in text.split("\n")) for text in (message, hint or "")
    )
    sys.stderr.write(f"{erase_prefix(sys.stderr)}\n  {failed} {message}\n" + (f"  -> {hint}\n" if hint else ""))
    sys.stderr.flush()


def show_progress_line(line: str) -> None:
    """Replace the progress line. Only where `can_overwrite`."""
    sys.stdout.write(ERASE + line[: columns() - 1])
    sys.stdout.flush()


def clear_progress_line() -> None:
    """Remove the progress line."""
    if can_overwrite(sys.stdout):
        sys.stdout.write(ERASE)
        sys.stdout.flush()


@contextmanager
def activity(topic: str, text: str) -> Iterator[None]:
    """Show a spinner with the elapsed seconds while the block runs, if the output is a terminal."""
    if not can_overwrite(sys.stdout):
        yield
        return
    ended = threading.Event()
    started = time.monotonic()

    def show() -> None:
        turn = 0
        while not ended.wait(UPDATE_INTERVAL):
            show_progress_line(
                f"  {topic:<{TOPIC_WIDTH}} {SPINNER[turn % len(SPINNER)]} {text} ({time.monotonic() - started:.0f} s)"
            )
            turn += 1

    thread = threading.Thread(target=show, name="activity", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        clear_progress_line()


def stop_signals() -> list[signal.Signals]:
    """Return the signals for Ctrl-C, termination and a closed terminal that this system has."""
    return [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


def interrupt_on_stop_signals() -> None:
    """Raise KeyboardInterrupt in the main thread on each stop signal, so that everything is shut down in order."""
    for number in stop_signals():
        # A signal that was ignored at the start (nohup, a script's background process) stays ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    # A second signal, which often follows at once, must not interrupt the shutdown.
    for number in stop_signals():
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def columns() -> int:
    """Return the width of the terminal in characters; 80 without a terminal."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


if sys.platform == "win32":

    def _enable_sequences(stream: TextIO) -> bool:
        """Enable ANSI sequences on Windows; consoles before Windows 10 do not support them."""
        import ctypes
        import msvcrt

        kernel = ctypes.windll.kernel32
        handle, mode = msvcrt.get_osfhandle(stream.fileno()), ctypes.c_uint32()
        # ENABLE_VIRTUAL_TERMINAL_PROCESSING
        return bool(kernel.GetConsoleMode(handle, ctypes.byref(mode)) and kernel.SetConsoleMode(handle, mode.value | 4))
else:

    def _enable_sequences(_stream: TextIO) -> bool:
        return True
