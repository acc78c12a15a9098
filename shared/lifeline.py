"""Runs a Python script that ends when its parent does: `python lifeline.py SCRIPT [ARGUMENT ...]`.

The parent holds the other end of standard input. However it dies, even by SIGKILL, that pipe closes and this process
ends: no orphan, on any operating system. Standard library only, for the script may run in another environment.
"""

import os
import runpy
import sys
import threading
from pathlib import Path


def _end_with_parent() -> None:
    try:
        while os.read(0, 1024):
            pass
    except OSError:
        pass  # a closed or broken pipe says the same as its end
    os._exit(1)


if __name__ == "__main__":
    del sys.argv[0]
    # As if the script had been started directly: its own folder first, and ours not at all.
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()
    runpy.run_path(sys.argv[0], run_name="__main__")
