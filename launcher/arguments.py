"""The command line of `dream_layer.py`. Standard library only: it is parsed before there is an environment."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from launcher.terminal import cut_middle, strip_controls

# The logs in data/logs, by file name; `setup` is the output of pip.
LOGS = ("launcher", "engine", "txt2img", "img2img", "setup")
DEFAULT_LINES, MAX_LINES = 20, 100_000


class CommandLineParser(argparse.ArgumentParser):
    """Reports a wrong command line in two lines: what is wrong, and where to find help."""

    def __init__(self, **options: Any) -> None:
        # An abbreviated option is a typing error here: `up --no-i` must not start everything.
        super().__init__(**{"allow_abbrev": False, **options})

    def options_of(self, arguments: Sequence[str]) -> list[str]:
        """Return the options of the given command and of its action, such as those of `models add`."""
        options = [name for action in self._actions for name in action.option_strings]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                names = [argument for argument in arguments if argument in action.choices]
                options += [option for name in names[:1] for option in action.choices[name].options_of(arguments)]
        return options

    def error(self, message: str) -> NoReturn:
        """Write the error and how to get help, and exit with code 2."""
        sys.stderr.write(f"{self.prog}: {cut_middle(strip_controls(message))}\n  -> python {self.prog} --help\n")
        raise SystemExit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Suggest the closest choice for one that does not exist."""
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            closest = difflib.get_close_matches(str(value), names, n=1)
            hint = f"did you mean {closest[0]}?" if closest else f"choose from {', '.join(names)}"
            raise argparse.ArgumentError(None, f"there is no {str(value)!r}; {hint}")


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the command with its options, and the remaining arguments for pytest.

    Raises SystemExit with code 2 for a wrong command line, 0 after --help and --version.
    """
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "test":
        closest = difflib.get_close_matches(rest[0].partition("=")[0], parser.options_of(arguments), n=1)
        hint = f"; did you mean {closest[0]}?" if closest else ""
        parser.error(f"unknown arguments: {' '.join(rest)}{hint}")
    return options, rest


def build_parser() -> CommandLineParser:
    """Return the parser of all commands."""
    parser = CommandLineParser(
        prog="dream_layer.py",
        description="Generates pictures with ComfyUI through a plain REST API. The default command is run.",
        epilog="Settings are environment variables DREAM_LAYER_*, or lines of a file .env; see docs/settings.md.",
    )
    parser.set_defaults(no_install=False, no_starter=False, command="run")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    up = commands.add_parser("up", help="install what is missing, then start everything")
    run = commands.add_parser("run", help="start the engine and the control service only, without installing packages")
    commands.add_parser(
        "status",
        help="show what is running",
        description="Shows what is running: addresses, processes, the engine, the queue. The exit code is 0 if "
        "everything answers, 1 if only a part of it does, and 3 if nothing is running.",
    )
    commands.add_parser(
        "stop",
        help="stop what `up` or `run` started",
        description="Stops what `up` or `run` started in another terminal. Unfinished jobs are kept and continue "
        "after the next start. The exit code is 0 if nothing is running any more.",
    )
    _add_log_arguments(commands.add_parser("logs", help="show the logs; -f follows them"))
    opening = commands.add_parser("open", help="open the web page in a browser, or show its address")
    opening.add_argument(
        "page", nargs="?", choices=("engine",), metavar="PAGE", help="engine: ComfyUI's own page, if it is installed"
    )
    _add_job_arguments(commands.add_parser("jobs", help="list and cancel jobs, whether or not anything is running"))
    _add_model_arguments(commands.add_parser("models", help="list, add and remove model files"))
    test = commands.add_parser(
        "test",
        help="run the test suite; further arguments go to pytest",
        description="Runs the whole test suite: first the tests that need no engine, on all cores, then the others. "
        "With arguments that select tests, such as a file or -k, pytest runs once.",
    )
    test.add_argument("--fast", action="store_true", help="run only what takes seconds; needs no engine and no torch")
    up.add_argument("--no-install", action="store_true", help="use the environment as it is")
    for command in (up, run):
        command.add_argument("--no-starter", action="store_true", help="do not create the starter model")
    return parser


def _add_log_arguments(logs: argparse.ArgumentParser) -> None:
    logs.add_argument(
        "name", nargs="?", choices=LOGS, metavar="NAME", help=f"one of {', '.join(LOGS)} (default: all of them)"
    )
    logs.add_argument("-f", "--follow", action="store_true", help="show new lines as they are written, until Ctrl-C")
    logs.add_argument(
        "-n",
        "--lines",
        type=_line_count,
        default=DEFAULT_LINES,
        metavar="N",
        help=f"last lines to show of each log, 0 to {MAX_LINES} (default: {DEFAULT_LINES})",
    )


def _add_job_arguments(jobs: argparse.ArgumentParser) -> None:
    jobs.set_defaults(action="list", all=False)
    actions = jobs.add_subparsers(dest="action", metavar="ACTION", title="actions")
    listing = actions.add_parser("list", help="list unfinished jobs in the order in which they run")
    listing.add_argument("--all", action="store_true", help="also list the newest finished jobs")
    cancel = actions.add_parser("cancel", help="cancel one job, or all unfinished ones")
    cancel.add_argument("id", metavar="ID|all", help="the job's id or its first characters (4 or more), or: all")


def _add_model_arguments(models: argparse.ArgumentParser) -> None:
    models.set_defaults(action="list")
    actions = models.add_subparsers(dest="action", metavar="{list,add,remove}")
    actions.add_parser("list", help="list the models folder, and the models that can be added by name")
    add = actions.add_parser(
        "add",
        help="add a model by file, URL or name",
        description="Private and gated files of the Hugging Face hub need a token in HF_TOKEN. An interrupted download "
        "continues when the same command is run again.",
    )
    add.add_argument("source", metavar="FILE|URL|NAME", help="a file, a URL, or a name that `models list` shows")
    add.add_argument("--kind", help="the kind of model, such as lora or checkpoint (default: read from the file)")
    add.add_argument("--name", help="the file name to store it under")
    add.add_argument("--sha256", help="the expected hash; a file with another one is refused")
    add.add_argument("--force", action="store_true", help="replace a file of the same name")
    add.add_argument(
        "--allow-pickle",
        action="store_true",
        help="accept .ckpt, .pt, .pth and .bin, which can contain programs: only from people you trust",
    )
    remove = actions.add_parser("remove", help="remove a model by name")
    remove.add_argument("name", metavar="NAME", nargs="?", help="its name, with or without folder and extension")
    remove.add_argument("--unfinished", action="store_true", help="remove unfinished downloads")
    remove.add_argument("--yes", action="store_true", help="do not ask for confirmation")


def _line_count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and int(text) <= MAX_LINES):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {MAX_LINES}, not {text!r}")
    return int(text)


class _Version(argparse.Action):
    """Shows the version, which is only imported when needed."""

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        from shared import __version__

        version = ".".join(map(str, sys.version_info[:3]))
        sys.stdout.write(f"Dream Layer {__version__} (Python {version})\n")
        raise SystemExit(0)
