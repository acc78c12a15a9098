"""Runs the commands of dream_layer.py. Standard library only, until the environment is complete."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from launcher.arguments import parse
from launcher.environment import (
    DEVELOPMENT,
    DEVELOPMENT_WITHOUT_TORCH,
    PROJECT_DIR,
    RUNTIME,
    SetupIncompleteError,
    continue_in,
    find_environment,
    stop_setup,
)
from launcher.terminal import interrupt_on_stop_signals, prepare_output, print_error, print_status

# Commands that create or complete the environment. The others use it as it is: showing a log must not install packages.
INSTALLING = ("up", "models", "test")


def main(arguments: Sequence[str]) -> int:
    """Run a command. Returns its exit code: 0, 1 if a step failed, 130 after Ctrl-C, others as --help describes.

    Raises SystemExit with code 2 for a wrong command line.
    """
    prepare_output()
    try:
        options, rest = parse(arguments)
        interrupt_on_stop_signals()
        if options.command == "stop" and (pid := stop_setup()) is not None:
            print_status("stopped", f"the installation of packages (process {pid}); the next `up` starts it again")
            return 0
        install = options.command in INSTALLING and not options.no_install
        python = find_environment(_requirements(options), install=install)
        # Compared by path, not by file: a virtual environment's Python is a link to the one that created it.
        if python != Path(sys.executable):
            return continue_in(python, [str(PROJECT_DIR / "dream_layer.py"), *arguments])
        # All packages are installed from here on.
        code = _command(options, rest)()
        sys.stdout.flush()
        return code
    except SetupIncompleteError as error:
        print_error("environment", error.message, error.hint)
        return 1
    except BrokenPipeError:
        # The reader has closed the pipe, as `| head` does; send what is written at exit nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        sys.stderr.write("\n  stopped; run the same command to continue\n")
        return 130


def _requirements(options: argparse.Namespace) -> list[str]:
    """Return the names of the requirement files whose packages the command needs."""
    if options.command != "test":
        return RUNTIME
    return DEVELOPMENT_WITHOUT_TORCH if options.fast else DEVELOPMENT


def _command(options: argparse.Namespace, rest: Sequence[str]) -> Callable[[], int]:
    """Return the function that runs the command. The imports here need packages that are only now installed."""
    if options.command == "test":
        from launcher.run_tests import run_tests

        return lambda: run_tests(rest, fast=options.fast)
    if options.command == "models":
        from launcher.models.commands import run_models

        return lambda: run_models(options)
    if options.command in ("status", "stop", "logs", "open", "jobs"):
        from launcher.commands import run_command

        return lambda: run_command(options)
    from launcher.stack import run_stack

    return lambda: run_stack(services=options.command == "up", starter=not options.no_starter)
