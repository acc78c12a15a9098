"""What a person at the terminal reads, and how they end it all. Standard library only."""

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
# Characters of a bar, by those of the whole line from which on there is room for it.
BARS = ((110, 24), (80, 10))


def size_text(size: float) -> str:
    """As a person says it: 340 MB, 6.9 GB."""
    if size <= 0:
        return "nothing"
    if size < 1_000_000:
        return f"{max(1, round(size / 1000))} kB"
    return f"{size / 1e9:.1f} GB" if size >= 999_500_000 else f"{size / 1e6:.0f} MB"


def time_text(seconds: float) -> str:
    """As a clock shows it: 0:42, 12:05, 1:02:03."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def bar(fraction: float, columns: int = BARS[0][0]) -> str:
    """How much is done, 0 to 1, as a bar with its percentage, in a line of `columns`; a narrow one has no bar."""
    part = min(1.0, max(0.0, fraction))
    length = next((length for least, length in BARS if columns >= least), 0)
    filled = int(part * length)
    drawn = f"[{FILLED * filled}{EMPTY * (length - filled)}] " if length else ""
    return f"{drawn}{int(part * 100):3d} %"


# ANSI: to the first column and clear the line; colours and weights.
ERASE = "\r\033[K"
BOLD, DIM, RED, GREEN, CYAN = "1", "2", "31", "32", "36"
SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
# Seconds between two drawings of a line that moves.
TICK = 0.2
SPINNER = "|/-\\"
WIDTH = 12
# Characters of a line that are shown; its middle goes, for a cause often stands at the end.
LONGEST_LINE = 600


def prepare_output() -> None:
    """A character that the terminal cannot show is escaped; it ends no command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def can_move(stream: TextIO) -> bool:
    """Whether the stream is a terminal on which a line can be drawn over."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return False
    return sys.platform != "win32" or _switch_sequences_on(stream)


def paint(text: str, *codes: str, stream: TextIO | None = None) -> str:
    """`text` in a colour, where the terminal has colours and NO_COLOR (no-color.org) is not set."""
    if os.environ.get("NO_COLOR") or not can_move(stream or sys.stdout):
        return text
    return f"\033[{';'.join(codes)}m{text}\033[0m"


def plain(text: str) -> str:
    """`text` in one line without colours and control characters: what others wrote must not steer the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in SEQUENCE.sub("", text))


def cause(error: OSError) -> str:
    """What went wrong with which file, without the number that the system has for it."""
    if error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"


def shorten(text: str) -> str:
    """`text` without its middle, if it is longer than a person reads: names and addresses can have any length."""
    half = LONGEST_LINE // 2
    return text if len(text) <= LONGEST_LINE else f"{text[:half]} ... {text[-half:]}"


def erase_prefix(stream: TextIO) -> str:
    """What a whole line begins with, so that it takes the place of one that moves."""
    return ERASE if can_move(stream) else ""


def print_status(topic: str, text: str) -> None:
    """One line: what it is about, and what happened."""
    sys.stdout.write(f"{erase_prefix(sys.stdout)}  {topic:<{WIDTH}} {text}\n")
    sys.stdout.flush()


def print_error(step: str, message: str, hint: str | None) -> None:
    """A step that failed: which, why, and what to do."""
    sys.stdout.flush()
    failed = paint(f"{plain(step)} failed:", BOLD, RED, stream=sys.stderr)
    # The last lines of a log may be part of it.
    message, hint = ("\n".join(shorten(plain(line)) for line in text.split("\n")) for text in (message, hint or ""))
    sys.stderr.write(f"{erase_prefix(sys.stderr)}\n  {failed} {message}\n" + (f"  -> {hint}\n" if hint else ""))
    sys.stderr.flush()


def draw(line: str) -> None:
    """Draws a line that moves in place of the one before. Only where `can_move`."""
    sys.stdout.write(ERASE + line[: columns() - 1])
    sys.stdout.flush()


def erase() -> None:
    """Removes the line that moves."""
    if can_move(sys.stdout):
        sys.stdout.write(ERASE)
        sys.stdout.flush()


@contextmanager
def activity(topic: str, text: str) -> Iterator[None]:
    """While inside, a terminal shows that work goes on, and for how many seconds; elsewhere nothing is written."""
    if not can_move(sys.stdout):
        yield
        return
    ended = threading.Event()
    begun = time.monotonic()

    def show() -> None:
        turn = 0
        while not ended.wait(TICK):
            draw(f"  {topic:<{WIDTH}} {SPINNER[turn % len(SPINNER)]} {text} ({time.monotonic() - begun:.0f} s)")
            turn += 1

    thread = threading.Thread(target=show, name="activity", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        erase()


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
    # A second one, which often comes at once, must not break off what ends everything in good order.
    for number in stop_signals():
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def columns() -> int:
    """Characters of a line of the terminal; 80 where there is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


if sys.platform == "win32":

    def _switch_sequences_on(stream: TextIO) -> bool:
        """Windows takes ANSI sequences after a program asked for it; consoles before Windows 10 never do."""
        import ctypes
        import msvcrt

        kernel = ctypes.windll.kernel32
        handle, mode = msvcrt.get_osfhandle(stream.fileno()), ctypes.c_uint32()
        # ENABLE_VIRTUAL_TERMINAL_PROCESSING
        return bool(kernel.GetConsoleMode(handle, ctypes.byref(mode)) and kernel.SetConsoleMode(handle, mode.value | 4))
else:

    def _switch_sequences_on(_stream: TextIO) -> bool:
        return True
