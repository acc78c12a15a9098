"""What a request means when it leaves something out: the checkpoint, and settings that suit that checkpoint. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from starter import CHECKPOINT_NAME as STARTER
from starter import CHECKPOINT_NAMES as SMALL

# The starter and its kin are small models: made for small pictures, which they draw in seconds on a CPU.
STARTER_DEFAULTS: Mapping[str, Any] = {"width": 128, "height": 128, "steps": 10, "cfg_scale": 3.0}


def choose_checkpoint(preferred: str | None, available: Sequence[str]) -> str | None:
    """The checkpoint for a request that names none: the preferred one (a setting), else the first of the user's own,
    else the starter; None when there is nothing to choose from."""
    if preferred is not None:
        return preferred
    own = sorted(name for name in available if name not in SMALL)
    if own:
        return own[0]
    return STARTER if STARTER in available else None


def defaults_for(checkpoint: str) -> Mapping[str, Any]:
    """Values that suit `checkpoint`, where they differ from those of the schema."""
    return STARTER_DEFAULTS if checkpoint in SMALL else {}


def usual_pixels(checkpoint: str) -> int:
    """Pixels of the largest picture that `checkpoint` should draw unless a size was asked for."""
    return 256 * 256 if checkpoint in SMALL else 1024 * 1024
