"""A place of its own for a measurement: free ports, a data folder that goes afterwards, the engine that is there."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.engine.process import find_engine
from shared.settings import PREFIX, Settings, load_settings

PORTS = (
    *("TXT2IMG_PORT", "IMG2IMG_PORT", "CONTROL_PORT", "ENGINE_PORT"),
    *("EXTRAS_PORT", "RUNS_PORT", "REPORT_PORT", "IMG2TXT_PORT"),
)


@contextmanager
def own_place() -> Iterator[tuple[Settings, Path]]:
    """Settings for processes of our own, set in the environment too, and the folder of their ComfyUI.

    The data folder is new and empty, and lies where TMPDIR says: what waits for the disk is as quick as that one is.
    """
    comfyui_dir = find_engine(load_settings())
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="dream-layer-bench-") as folder:
        os.environ.update({f"{PREFIX}{name}": str(port) for name, port in zip(PORTS, _free_ports(), strict=True)})
        os.environ[f"{PREFIX}DATA_DIR"] = folder
        os.environ[f"{PREFIX}COMFYUI_DIR"] = str(comfyui_dir)
        try:
            yield load_settings(), comfyui_dir
        finally:
            os.environ.clear()
            os.environ.update(before)


def _free_ports() -> list[int]:
    """As many ports as there are names of them, that nothing listens on."""
    sockets = [socket.socket() for _ in PORTS]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
