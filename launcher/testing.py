"""The test command: the whole suite, on the real engine."""

import subprocess
import sys
from collections.abc import Sequence

from launcher.environment import PROJECT_DIR
from launcher.terminal import print_error, print_status
from shared.engine.process import find_engine
from shared.errors import SetupError
from shared.settings import load_settings


def run_tests(pytest_arguments: Sequence[str]) -> int:
    """Makes sure that there is an engine to test with, and runs pytest; returns its exit code."""
    try:
        engine = find_engine(load_settings())
    except SetupError as error:
        print_error(error.step, error.message, error.hint)
        return 1
    print_status("engine", str(engine))
    return subprocess.run([sys.executable, "-m", "pytest", *pytest_arguments], cwd=PROJECT_DIR, check=False).returncode
