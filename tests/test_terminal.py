"""Terminal output: colours and progress lines on a terminal, plain lines elsewhere."""

import io
import sys
import time

import pytest

from launcher import terminal
from launcher.terminal import (
    BOLD,
    activity,
    can_overwrite,
    os_error_text,
    paint,
    prepare_output,
    print_error,
    print_status,
    strip_controls,
)
from tests.screen import on_screen


def test_colours_are_used_only_on_terminals_that_support_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_screen() as screen:
        assert paint("x", BOLD) == "\033[1mx\033[0m"
        assert paint("x", BOLD, stream=io.StringIO()) == "x"
        monkeypatch.setenv("NO_COLOR", "1")
        assert paint("x", BOLD) == "x"
        monkeypatch.setenv("NO_COLOR", "")
        assert paint("x", BOLD) != "x"
        monkeypatch.setenv("TERM", "dumb")
        assert paint("x", BOLD) == "x"
        assert not can_overwrite(screen)


def test_a_progress_line_is_erased_before_a_status_line() -> None:
    with on_screen() as screen:
        with activity("engine", "starting"):
            deadline = time.monotonic() + 20
            while "starting (0 s)" not in screen.getvalue():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            print_status("jobs", "three")
        output = screen.getvalue()
    assert f"{terminal.ERASE}  jobs         three\n" in output
    assert output.endswith(terminal.ERASE)


def test_without_a_terminal_only_whole_lines_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    with activity("engine", "starting"):
        print_status("jobs", "three")
    assert capsys.readouterr().out == "  jobs         three\n"


def test_control_characters_from_other_programs_are_removed(capsys: pytest.CaptureFixture[str]) -> None:
    assert strip_controls("a\x1b[31mb\x1b[0m\x1b]0;title\x07c\r\nd\u202e") == "ab ]0;title c  d "
    print_error("engine", "it ended:\n\x1b[2Jlast line", None)
    assert capsys.readouterr().err == "\n  engine failed: it ended:\nlast line\n"


def test_characters_that_the_terminal_cannot_encode_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    prepare_output()
    print_status("added", "größe 圓 \udcff")
    ascii_only.seek(0)
    assert ascii_only.read() == "  added        gr\\xf6\\xdfe \\u5713 \\udcff\n"


def test_an_os_error_is_reported_with_its_file() -> None:
    assert os_error_text(FileExistsError(17, "File exists", "/etc/hostname")) == "File exists: /etc/hostname"
    assert os_error_text(OSError(28, "No space left on device")) == "No space left on device"
    assert os_error_text(OSError("of our own")) == "of our own"
