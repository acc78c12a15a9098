"""Runs a Python script that ends when its parent process ends.

    python parent_watch.py [OPTION ...] SCRIPT [ARGUMENT ...]

`-m MODULE` in place of SCRIPT runs a module. The parent holds the other end of standard input. However the parent ends,
even by SIGKILL, that pipe closes and this process exits, so there are no orphans on any operating system. This file
uses the standard library only, because the script may run in another environment.

    --exit-with-thread NAME   exit, too, when a thread that runs a function of that name dies of an exception. ComfyUI's
                              server goes on answering after its worker thread has died, but runs no more jobs.
    --guard FILE              call `install` of that Python file before the script. Its argument is the first line of
                              standard input: a secret, which other users could read in arguments and environment.
"""

import os
import runpy
import sys
import threading
from pathlib import Path


def _exit_with_parent() -> None:
    try:
        while os.read(0, 1024):
            pass
    except OSError:
        pass  # a closed or broken pipe means the same as its end
    os._exit(1)


def _read_first_line() -> str:
    line = b""
    # Byte by byte, so that nothing after the line is consumed; and bounded.
    while len(line) < 1024 and (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode("ascii")


def _exit_with_thread(function: str) -> None:
    default_hook = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        default_hook(args)
        # Python names an unnamed thread after its function: "Thread-3 (prompt_worker)".
        if args.thread is not None and args.thread.name.endswith(f"({function})"):
            sys.stderr.write(f"the thread of {function} died, so this process exits\n")
            sys.stderr.flush()
            os._exit(70)

    threading.excepthook = hook


if __name__ == "__main__":
    del sys.argv[0]
    guard = None
    while sys.argv[0] in ("--exit-with-thread", "--guard"):
        if sys.argv[0] == "--exit-with-thread":
            _exit_with_thread(sys.argv[1])
        else:
            guard = sys.argv[1]
        del sys.argv[:2]
    is_module = sys.argv[0] == "-m"
    if is_module:
        del sys.argv[0]
    # As if Python had started the script itself: its folder (or the current one) comes first, ours is not on the path.
    sys.path[0] = str(Path.cwd() if is_module else Path(sys.argv[0]).resolve().parent)
    secret = _read_first_line() if guard else ""
    threading.Thread(target=_exit_with_parent, name="parent-watch", daemon=True).start()
    if guard:
        runpy.run_path(guard)["install"](secret)
    if is_module:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
