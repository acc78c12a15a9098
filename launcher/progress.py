"""Sizes, times and bars as a terminal shows them. Pure, standard library only."""

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
