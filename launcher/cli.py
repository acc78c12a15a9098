"""The commands of dream_layer.py. Standard library only, until the environment is known to be complete."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from launcher.environment import PROJECT_DIR, SetupIncompleteError, find_environment
from launcher.models.arguments import add_arguments
from launcher.terminal import complain, interrupt_on_stop_signals

RUNTIME = ["requirements"]
DEVELOPMENT = ["requirements", "requirements-dev"]


def main(arguments: Sequence[str]) -> int:
    """Runs a command and returns its exit code: 0, 1 when a step failed, 130 after Ctrl-C."""
    options, rest = _parser().parse_known_args(arguments)
    if rest and options.command != "test":
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    testing = options.command == "test"
    interrupt_on_stop_signals()
    try:
        # `run` is for those who look after their environment themselves; the others make one.
        install = options.command != "run" and not options.no_install
        python = find_environment(DEVELOPMENT if testing else RUNTIME, install=install)
        # By name, not by file: the Python of a virtual environment is a link to the one that made it.
        if python != Path(sys.executable):
            return _hand_over(str(python), arguments)
        # From here on all packages are there.
        if testing:
            from launcher.testing import run_tests

            return run_tests(rest)
        if options.command == "models":
            from launcher.models.commands import run_models

            return run_models(options)
        from launcher.house import run_house

        return run_house(services=options.command == "up", starter=not options.no_starter)
    except SetupIncompleteError as problem:
        complain("environment", problem.message, problem.hint)
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\n  stopped; the same command goes on where this one was\n")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dream_layer.py",
        description="Pictures from ComfyUI through a plain REST API.",
        epilog="Settings are environment variables DREAM_LAYER_*, or lines of a file .env; README.md lists them.",
    )
    parser.set_defaults(no_install=False, no_starter=False, command="run")
    commands = parser.add_subparsers(
        dest="command", metavar="{up,run,models,test}", description="Without a command: run."
    )
    up = commands.add_parser("up", help="set up what is missing, then start everything")
    run = commands.add_parser("run", help="start the engine and the control service alone, install no packages")
    commands.add_parser("test", help="run the whole test suite; further arguments go to pytest")
    add_arguments(commands.add_parser("models", help="list, add and remove model files"))
    up.add_argument("--no-install", action="store_true", help="use the environment as it is")
    for command in (up, run):
        command.add_argument("--no-starter", action="store_true", help="do without the starter model")
    return parser


def _hand_over(python: str, arguments: Sequence[str]) -> int:
    """Goes on in the other interpreter."""
    command = [python, str(PROJECT_DIR / "dream_layer.py"), *arguments]
    if os.name != "nt":
        os.execv(python, command)  # noqa: S606 - our own interpreter, no shell
    # Windows has no exec that keeps the terminal waiting.
    child = subprocess.Popen(command)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # the child got the Ctrl-C too, and is stopping everything
