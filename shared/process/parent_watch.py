"""Runs a Python script that ends when its parent does: `python parent_watch.py [OPTION ...] SCRIPT [ARGUMENT ...]`, or
with `-m MODULE` in place of SCRIPT.

The parent holds the other end of standard input. However it dies, even by SIGKILL, that pipe closes and this process
ends: no orphan, on any operating system. Standard library only, for the script may run in another environment.

With `--exit-with-thread NAME` the process ends, too, when a thread that runs a function of that name dies of an
exception. ComfyUI goes on answering HTTP when the thread that does its work is dead, and would never draw a picture
again.

With `--guard FILE` that Python file's `install` is called before the script, with the first line of standard input: a
secret that nobody reads there, as others could in arguments and environment.
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


def _first_line() -> str:
    line = b""
    # Byte by byte, for the rest is not ours to read here; and bounded, whoever writes.
    while len(line) < 1024 and (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode("ascii")


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
    guard = None
    while sys.argv[0] in ("--exit-with-thread", "--guard"):
        if sys.argv[0] == "--exit-with-thread":
            _end_with_thread(sys.argv[1])
        else:
            guard = sys.argv[1]
        del sys.argv[:2]
    is_module = sys.argv[0] == "-m"
    if is_module:
        del sys.argv[0]
    # As if it had been started directly: the script's folder first, or the current one, and ours not at all.
    sys.path[0] = str(Path.cwd() if is_module else Path(sys.argv[0]).resolve().parent)
    secret = _first_line() if guard else ""
    threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()
    if guard:
        runpy.run_path(guard)["install"](secret)
    if is_module:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
