"""What ComfyUI tells of a node that failed becomes an error of ours, without paths and tracebacks. Pure."""

import errno
import os
import re
from collections.abc import Mapping
from typing import Any

from shared.errors import DreamLayerError, GenerationFailed, StorageFailed

LOG_HINT = "data/logs/engine.log has the details"
FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def explain(failure: Mapping[str, Any]) -> DreamLayerError:
    """The error for the data of an `execution_error` message.

    Names the node and, of the exception, its class or the operating system's reason: its text may hold paths.
    """
    failed, node = f"{failure.get('node_type')} failed", str(failure.get("node_id"))
    kind, text = str(failure.get("exception_type")), str(failure.get("exception_message"))
    if "OutOfMemory" in kind or "out of memory" in text.lower():
        hint = "a smaller size or batch_size needs less"
        return GenerationFailed(f"{failed}: the engine ran out of memory", hint=hint, node=node)
    number = re.search(r"\[Errno (\d+)\]", text)
    if number is not None:
        full = int(number[1]) in FULL
        hint = "the engine's disk is full" if full else "may the engine read and write there?"
        return StorageFailed(f"{failed}: {os.strerror(int(number[1]))}", hint=hint, node=node)
    return GenerationFailed(f"{failed}: {kind}", hint=LOG_HINT, node=node)
