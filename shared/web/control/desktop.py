"""The file manager of the desktop that this process runs on, if there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from shared.errors import NotPossible


def file_manager(path: Path, platform: str, environ: Mapping[str, str]) -> list[str] | None:
    """The command that shows the file in its folder; None where there is no desktop to show it on."""
    if platform == "darwin":
        return ["open", "-R", str(path)]
    if platform == "win32":
        return ["explorer", f"/select,{path}"]
    if environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"):
        opener = shutil.which("xdg-open", path=environ.get("PATH"))
        # It knows of no way to select a file.
        return None if opener is None else [opener, str(path.parent)]
    return None


def show(path: Path) -> None:
    """Opens the file manager at a file of ours. Raises NotPossible, with the file's place, where that cannot be."""
    command = file_manager(path, sys.platform, os.environ)
    try:
        if command is None:
            raise NotPossible("there is no desktop on this machine", hint=f"the picture is {path}", path=str(path))
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # It may stay open for as long as it likes; somebody has to hear of its end all the same.
        threading.Thread(target=process.wait, name="file-manager", daemon=True).start()
    except OSError as error:
        raise NotPossible(
            f"the file manager could not be opened: {error.strerror}", hint=f"the picture is {path}", path=str(path)
        ) from error
