"""A stand-in for a terminal, for programs that check whether they write to one."""

import contextlib
import io
import os
from collections.abc import Iterator
from unittest import mock


class Screen(io.StringIO):
    """A terminal that records its output."""

    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def on_screen() -> Iterator[Screen]:
    """Make standard output a terminal with colours inside the block."""
    environ = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    screen = Screen()
    with mock.patch.dict(os.environ, {**environ, "TERM": "xterm"}, clear=True), contextlib.redirect_stdout(screen):
        yield screen
