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
    node, kind = str(failure.get("node_type")), str(failure.get("exception_type"))
    text = str(failure.get("exception_message"))
    if "OutOfMemory" in kind or "out of memory" in text.lower():
        return GenerationFailed(
            f"{node} failed: the engine ran out of memory", hint="a smaller size or batch_size needs less", node=node
        )
    number = re.search(r"\[Errno (\d+)\]", text)
    if number is not None:
        return StorageFailed(
            f"{node} failed: {os.strerror(int(number[1]))}",
            hint="the engine's disk is full" if int(number[1]) in FULL else "the engine may not write or read there",
            node=node,
        )
    return GenerationFailed(f"{node} failed: {kind}", hint=LOG_HINT, node=str(failure.get("node_id")))
