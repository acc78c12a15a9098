"""The test command: the whole suite, or with --fast what needs no engine and takes seconds."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence

from launcher.environment import PROJECT_DIR
from launcher.terminal import print_error, print_status, time_text
from shared.engine.process import find_engine
from shared.errors import SetupError
from shared.settings import load_settings

# Options that select no tests: they apply to both parts of the whole suite.
FOR_BOTH_PARTS = re.compile(r"-[xvqsl]+|-r\w+|--(exitfirst|verbose|quiet|showlocals|(durations|tb|maxfail|color)=.*)")
STOP_AT_FAILURE = re.compile(r"-[vqsl]*x[xvqsl]*|--exitfirst|--maxfail=.*")
TEST_FAILURES = 1
# Workers of the part with the engine: an engine takes 1.3 GB of memory.
MAX_ENGINES = 2


def run_tests(pytest_arguments: Sequence[str], *, fast: bool) -> int:
    """Runs pytest, once or for each part of the suite; returns its exit code, the first that is not 0."""
    if fast:
        # Those that no longer belong to the fast ones are shown.
        options = ["-m", "not live and not slow", *_on_all_cores(), "--durations=5", "--durations-min=2"]
        return _run_pytest([*options, *pytest_arguments])
    try:
        engine = find_engine(load_settings())
    except SetupError as error:
        print_error(error.step, error.message, error.hint)
        return 1
    print_status("engine", str(engine))
    if all(FOR_BOTH_PARTS.fullmatch(argument) for argument in pytest_arguments):
        return _run_parts(pytest_arguments)
    return _run_pytest(pytest_arguments)


def _run_parts(pytest_arguments: Sequence[str]) -> int:
    """Runs the tests without an engine on all cores, then the others; reports both parts at the end."""
    parts = {
        "without the engine": ["-m", "not live", *_on_all_cores()],
        "with the engine": ["-m", "live", *_with_engines()],
    }
    codes: list[int] = []
    reports: list[str] = []
    for name, options in parts.items():
        begun = time.monotonic()
        code = _run_pytest([*options, *pytest_arguments])
        codes.append(code)
        result = {0: "passed", TEST_FAILURES: "FAILED"}.get(code, f"ended with exit code {code}")
        reports.append(f"{name}: {result} after {time_text(time.monotonic() - begun)}")
        if code and (code != TEST_FAILURES or any(map(STOP_AT_FAILURE.fullmatch, pytest_arguments))):
            break
    for report in reports:
        print_status("tests", report)
    return next(filter(None, codes), 0)


def _on_all_cores() -> list[str]:
    return ["-n", str(os.cpu_count() or 1), "--dist", "worksteal"]


def _with_engines() -> list[str]:
    """Each worker starts an engine; the tests of a file stay together, because they share what they start."""
    return ["-n", str(min(MAX_ENGINES, os.cpu_count() or 1)), "--dist", "loadfile"]


def _run_pytest(arguments: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=PROJECT_DIR, check=False).returncode
