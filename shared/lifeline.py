"""Runs a Python script that ends when its parent does: `python lifeline.py [--vital NAME] SCRIPT [ARGUMENT ...]`.

The parent holds the other end of standard input. However it dies, even by SIGKILL, that pipe closes and this process
ends: no orphan, on any operating system. Standard library only, for the script may run in another environment.

With `--vital NAME` the process ends, too, when a thread that runs a function of that name dies of an exception. ComfyUI
goes on answering HTTP when the thread that does its work is dead, and would never draw a picture again.
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


def _end_with_thread(function: str) -> None:
    usual = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        usual(args)
        # Python names a thread without a name after its function: "Thread-3 (prompt_worker)".
        if args.thread is not None and args.thread.name.endswith(f"({function})"):
            sys.stderr.write(f"the thread of {function} is dead, and this process with it\n")
            sys.stderr.flush()
            os._exit(70)

    threading.excepthook = hook


if __name__ == "__main__":
    del sys.argv[0]
    if sys.argv[0] == "--vital":
        _end_with_thread(sys.argv[1])
        del sys.argv[:2]
    # As if the script had been started directly: its own folder first, and ours not at all.
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()
    runpy.run_path(sys.argv[0], run_name="__main__")
