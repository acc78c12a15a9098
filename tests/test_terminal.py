"""What a terminal is sent: colours and moving lines where it has them, plain lines elsewhere."""

import io
import sys
import time

import pytest

from launcher import terminal
from launcher.greeting import Addresses, first_command, greeting, running_text
from launcher.terminal import BOLD, activity, can_move, cause, paint, plain, prepare_output, print_error, print_status
from tests.screen import on_screen

PORTS = {"txt2img": 5001, "img2img": 5004, "control": 5002}


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_screen() as screen:
        assert paint("x", BOLD) == "\033[1mx\033[0m"
        assert paint("x", BOLD, stream=io.StringIO()) == "x"
        monkeypatch.setenv("NO_COLOR", "1")
        assert paint("x", BOLD) == "x"
        monkeypatch.setenv("NO_COLOR", "")
        assert paint("x", BOLD) != "x"
        monkeypatch.setenv("TERM", "dumb")
        assert paint("x", BOLD) == "x"
        assert not can_move(screen)


def test_a_line_that_moves_gives_way_to_one_that_stays() -> None:
    with on_screen() as screen:
        with activity("engine", "starting"):
            deadline = time.monotonic() + 20
            while "starting (0 s)" not in screen.getvalue():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            print_status("jobs", "three")
        shown = screen.getvalue()
    assert f"{terminal.ERASE}  jobs         three\n" in shown
    assert shown.endswith(terminal.ERASE)


def test_without_a_terminal_only_whole_lines_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    with activity("engine", "starting"):
        print_status("jobs", "three")
    assert capsys.readouterr().out == "  jobs         three\n"


def test_what_others_wrote_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert plain("a\x1b[31mb\x1b[0m\x1b]0;title\x07c\r\nd\u202e") == "ab ]0;title c  d "
    print_error("engine", "it ended:\n\x1b[2Jlast line", None)
    assert capsys.readouterr().err == "\n  engine failed: it ended:\nlast line\n"


def test_letters_that_the_terminal_lacks_end_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    prepare_output()
    print_status("added", "größe 圓 \udcff")
    ascii_only.seek(0)
    assert ascii_only.read() == "  added        gr\\xf6\\xdfe \\u5713 \\udcff\n"


@pytest.mark.parametrize(
    ("host", "page"),
    [
        ("127.0.0.1", "http://localhost:5001/"),
        ("0.0.0.0", "http://localhost:5001/"),
        ("::1", "http://[::1]:5001/"),
        ("192.168.1.5", "http://192.168.1.5:5001/"),
    ],
)
def test_the_address_to_open_can_be_opened(host: str, page: str) -> None:
    addresses = Addresses.of(host, PORTS, "http://127.0.0.1:8188", keyed=False)
    shown = greeting(addresses, services=True, windows=False, paint=lambda text, *_: text)
    assert f"Dream Layer is ready. Open {page}\n" in shown
    assert page.removeprefix("http://").removesuffix("/") + "/api/txt2img -H" in shown


def test_the_first_command_works_as_it_stands() -> None:
    """In every shell, also with a key; the key itself is never shown."""
    addresses = Addresses.of("127.0.0.1", PORTS, "http://127.0.0.1:8188", keyed=True)
    command = first_command(addresses, windows=False)
    assert command.startswith("curl -sS --fail-with-body localhost:5001/api/txt2img -H ")
    assert '-H "X-API-Key: YOUR-KEY"' in command
    assert "'" not in command
    assert first_command(addresses, windows=True).startswith("curl.exe ")


def test_without_services_it_is_said_what_to_start() -> None:
    addresses = Addresses.of("127.0.0.1", PORTS, "http://127.0.0.1:8188", keyed=False)
    shown = greeting(addresses, services=False, windows=False, paint=lambda text, *_: text)
    assert "python txt2img_server.py" in shown
    assert "5001" not in shown
    assert "5001" not in running_text(addresses, services=False, paint=lambda text, *_: text)


def test_how_to_open_the_engines_page_is_said_where_there_is_one() -> None:
    for there in (True, False):
        addresses = Addresses.of("127.0.0.1", PORTS, "http://127.0.0.1:8188", keyed=False, engine_page=there)
        for shown in (
            greeting(addresses, services=True, windows=False, paint=lambda text, *_: text),
            running_text(addresses, services=False, paint=lambda text, *_: text),
        ):
            assert ("python dream_layer.py open engine" in shown) is there


def test_an_error_of_the_system_is_told_with_its_file() -> None:
    assert cause(FileExistsError(17, "File exists", "/etc/hostname")) == "File exists: /etc/hostname"
    assert cause(OSError(28, "No space left on device")) == "No space left on device"
    assert cause(OSError("of our own")) == "of our own"
