"""What can be typed after `dream_layer.py`. Standard library only, for it is read before there is an environment."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from launcher.models.arguments import add_arguments as add_model_arguments
from launcher.terminal import plain, shorten

# The logs below data/logs, by the names of their files; `setup` is what pip wrote.
LOGS = ("launcher", "engine", "txt2img", "img2img", "setup")
LINES, MOST_LINES = 20, 100_000


class Parser(argparse.ArgumentParser):
    """A wrong command line is one line that says what is wrong, and one that says where help is."""

    def __init__(self, **options: Any) -> None:
        # The beginning of an option is a typing error here, not the option: `up --no-i` must not start everything.
        super().__init__(**{"allow_abbrev": False, **options})

    def options_of(self, arguments: Sequence[str]) -> list[str]:
        """The options of the command that was typed, and of its action, such as those of `models add`."""
        known = [name for action in self._actions for name in action.option_strings]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                names = [each for each in arguments if each in action.choices]
                known += [name for each in names[:1] for name in action.choices[each].options_of(arguments)]
        return known

    def error(self, message: str) -> NoReturn:
        """Writes both, and ends with exit code 2."""
        sys.stderr.write(f"{self.prog}: {shorten(plain(message))}\n  -> python {self.prog} --help\n")
        raise SystemExit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """As the base class; of a choice that does not exist, the nearest ones are named."""
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            near = difflib.get_close_matches(str(value), names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(names)}"
            raise argparse.ArgumentError(None, f"there is no {str(value)!r}; {hint}")


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command and its options, and what is left over for pytest. Raises SystemExit: 2 for a wrong command line."""
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "test":
        near = difflib.get_close_matches(rest[0].partition("=")[0], parser.options_of(arguments), n=1)
        parser.error(f"not understood: {' '.join(rest)}" + (f"; did you mean {near[0]}?" if near else ""))
    return options, rest


def build_parser() -> Parser:
    """The parser of every command."""
    parser = Parser(
        prog="dream_layer.py",
        description="Pictures from ComfyUI through a plain REST API. Without a command: run.",
        epilog="Settings are environment variables DREAM_LAYER_* or lines of a file .env; docs/settings.md lists them.",
    )
    parser.set_defaults(no_install=False, no_starter=False, command="run")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version, and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    up = commands.add_parser("up", help="set up what is missing, then start everything")
    run = commands.add_parser("run", help="start the engine and the control service alone, install no packages")
    commands.add_parser(
        "status",
        help="show what runs",
        description="Shows what runs: addresses, processes, the engine, the queue. The exit code is 0 if everything "
        "answers, 1 if only a part of it does, and 3 if nothing runs.",
    )
    commands.add_parser(
        "stop",
        help="stop what `up` or `run` started",
        description="Stops what `up` or `run` started in another terminal. Unfinished jobs are kept and go on after "
        "the next start. The exit code is 0 if nothing runs any more.",
    )
    _add_log_arguments(commands.add_parser("logs", help="show the logs, and follow them with -f"))
    opening = commands.add_parser("open", help="open the page in the browser, or show its address")
    opening.add_argument(
        "page", nargs="?", choices=("engine",), metavar="PAGE", help="engine: ComfyUI's own page, where it is installed"
    )
    _add_job_arguments(commands.add_parser("jobs", help="list and cancel jobs, whether or not anything runs"))
    add_model_arguments(commands.add_parser("models", help="list, add and remove model files"))
    test = commands.add_parser(
        "test",
        help="run the test suite; further arguments go to pytest",
        description="Runs the whole test suite: first the tests that need no engine, on all cores, then the others. "
        "With arguments that select tests, such as a file or -k, pytest runs once.",
    )
    test.add_argument("--fast", action="store_true", help="run only what takes seconds; needs no engine and no torch")
    up.add_argument("--no-install", action="store_true", help="use the environment as it is")
    for command in (up, run):
        command.add_argument("--no-starter", action="store_true", help="do without the starter model")
    return parser


def _add_log_arguments(logs: argparse.ArgumentParser) -> None:
    logs.add_argument("name", nargs="?", choices=LOGS, metavar="NAME", help=f"one of {', '.join(LOGS)}; else all")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what is written later, until Ctrl-C")
    logs.add_argument(
        "-n", "--lines", type=_line_count, default=LINES, metavar="N", help=f"how many lines of each, 0 to {MOST_LINES}"
    )


def _add_job_arguments(jobs: argparse.ArgumentParser) -> None:
    jobs.set_defaults(action="list", all=False)
    actions = jobs.add_subparsers(dest="action", metavar="ACTION", title="actions")
    listing = actions.add_parser("list", help="unfinished jobs, in the order in which they run")
    listing.add_argument("--all", action="store_true", help="the newest finished ones too")
    cancel = actions.add_parser("cancel", help="cancel a job, or all that are unfinished")
    cancel.add_argument("id", metavar="ID|all", help="its id or how that begins (4 characters or more); or: all")


def _line_count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and int(text) <= MOST_LINES):
        raise argparse.ArgumentTypeError(f"a whole number from 0 to {MOST_LINES} is needed, not {text!r}")
    return int(text)


class _Version(argparse.Action):
    """Shows the version, which is looked up only when it is asked for."""

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        from shared import __version__

        version = ".".join(map(str, sys.version_info[:3]))
        sys.stdout.write(f"Dream Layer {__version__} (Python {version})\n")
        raise SystemExit(0)
