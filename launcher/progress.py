"""Sizes, times and bars as a terminal shows them. Pure, standard library only."""

FILLED, EMPTY = "#", "."
BAR = 24


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


def bar(fraction: float) -> str:
    """How much is done, 0 to 1, as a bar with its percentage."""
    part = min(1.0, max(0.0, fraction))
    filled = int(part * BAR)
    return f"[{FILLED * filled}{EMPTY * (BAR - filled)}] {int(part * 100):3d} %"
