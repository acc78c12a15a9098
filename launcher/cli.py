"""The commands of dream_layer.py. Standard library only, until the environment is known to be complete."""

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
    find_environment,
    go_on_in,
    stop_setup,
)
from launcher.terminal import interrupt_on_stop_signals, prepare_output, print_error, print_status

# These make or complete the environment; the others use it as it is, for who asks for a log wants no download.
INSTALLING = ("up", "models", "test")


def main(arguments: Sequence[str]) -> int:
    """Runs a command and returns its exit code: 0, 1 when a step failed, 130 after Ctrl-C, others as --help tells.

    Raises SystemExit with 2 for a wrong command line.
    """
    prepare_output()
    try:
        options, rest = parse(arguments)
        interrupt_on_stop_signals()
        if options.command == "stop" and (process := stop_setup()) is not None:
            print_status("stopped", f"the set-up of process {process}; the next `up` does it again")
            return 0
        install = options.command in INSTALLING and not options.no_install
        python = find_environment(_requirements(options), install=install)
        # By name, not by file: the Python of a virtual environment is a link to the one that made it.
        if python != Path(sys.executable):
            return go_on_in(python, [str(PROJECT_DIR / "dream_layer.py"), *arguments])
        # From here on all packages are there.
        code = _command(options, rest)()
        sys.stdout.flush()
        return code
    except SetupIncompleteError as problem:
        print_error("environment", problem.message, problem.hint)
        return 1
    except BrokenPipeError:
        # `| head` has read enough; what is still to be written at exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        sys.stderr.write("\n  stopped; the same command goes on where this one was\n")
        return 130


def _requirements(options: argparse.Namespace) -> list[str]:
    if options.command != "test":
        return RUNTIME
    return DEVELOPMENT_WITHOUT_TORCH if options.fast else DEVELOPMENT


def _command(options: argparse.Namespace, rest: Sequence[str]) -> Callable[[], int]:
    """What the command does. Imported here, for each needs packages that the others may not."""
    if options.command == "test":
        from launcher.testing import run_tests

        return lambda: run_tests(rest, fast=options.fast)
    if options.command == "models":
        from launcher.models.commands import run_models

        return lambda: run_models(options)
    if options.command in ("status", "stop", "logs", "open", "jobs"):
        from launcher.operating import run_operation

        return lambda: run_operation(options)
    from launcher.stack import run_stack

    return lambda: run_stack(services=options.command == "up", starter=not options.no_starter)
