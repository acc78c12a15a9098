"""The commands `status`, `stop` and `open`, and the text after a start.

An engine without services may belong to another program.
"""

from pathlib import Path

import pytest

from launcher import commands
from launcher.arguments import parse
from launcher.status import (
    ALL_RUNNING,
    NOT_RUNNING,
    PARTLY_RUNNING,
    Component,
    StackStatus,
    StackUrls,
    example_command,
    query_status,
    ready_text,
    running_text,
)
from shared.engine.client import TOKEN_FILE
from shared.settings import Settings
from tests.fake_engine import FakeEngine


def stack_status(*answering: str) -> StackStatus:
    names = ("txt2img", "img2img", "control", "engine")
    return StackStatus(None, tuple(Component(name, "http://localhost:1", name in answering, "") for name in names))


def test_an_engine_alone_is_not_a_running_stack(capsys: pytest.CaptureFixture[str]) -> None:
    assert stack_status("txt2img", "img2img", "control", "engine").exit_code == ALL_RUNNING
    assert stack_status("control", "engine").exit_code == PARTLY_RUNNING
    assert stack_status("engine").exit_code == stack_status().exit_code == NOT_RUNNING
    assert commands._report_no_launcher(stack_status("engine")) == 0
    assert "nothing was running" in capsys.readouterr().out
    assert commands._report_no_launcher(stack_status("txt2img", "engine")) == 1
    assert "but txt2img answered" in capsys.readouterr().err


def test_status_sends_the_token_to_the_engine(tmp_path: Path, engine: FakeEngine) -> None:
    engine.stop()
    engine.token = "secret"
    engine.start()
    settings = Settings(data_dir=tmp_path, engine_port=int(engine.address.rpartition(":")[2]), control_port=9)
    engine_part = query_status(settings, None).components[-1]
    assert (engine_part.answers, engine_part.description) == (False, "refused our token")
    (tmp_path / TOKEN_FILE).parent.mkdir()
    (tmp_path / TOKEN_FILE).write_text("secret\n")
    engine_part = query_status(settings, None).components[-1]
    assert (engine_part.answers, engine_part.description) == (True, "answers")
    engine.stop()
    assert query_status(settings, None).components[-1].description == "does not answer"


@pytest.mark.parametrize("desktop", [True, False])
def test_open_engine_opens_its_page_with_the_current_token(
    tmp_path: Path,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    desktop: bool,
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(commands, "has_desktop", lambda *_: desktop)
    monkeypatch.setattr(commands.webbrowser, "open", lambda page: opened.append(page) or True)
    monkeypatch.setenv("DREAM_LAYER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DREAM_LAYER_ENGINE_PORT", engine.address.rpartition(":")[2])
    options = parse(["open", "engine"])[0]
    assert commands.run_command(options) == 1
    assert "DREAM_LAYER_ENGINE_PAGE=true" in capsys.readouterr().err
    monkeypatch.setenv("DREAM_LAYER_ENGINE_PAGE", "true")
    (tmp_path / TOKEN_FILE).parent.mkdir()
    (tmp_path / TOKEN_FILE).write_text("secret\n")
    assert commands.run_command(options) == 0
    output = capsys.readouterr().out
    assert opened == ([f"{engine.address}/?token=secret"] if desktop else [])
    # The output may be kept in a log, so it has the token only if no browser can open the page.
    assert ("secret" in output) is not desktop
    engine.stop()
    assert commands.run_command(options) == NOT_RUNNING
    with pytest.raises(SystemExit):
        parse(["open", "the engine"])


@pytest.mark.parametrize(
    ("host", "page"),
    [
        ("127.0.0.1", "http://localhost:5001/"),
        ("0.0.0.0", "http://localhost:5001/"),
        ("::1", "http://[::1]:5001/"),
        ("192.168.1.5", "http://192.168.1.5:5001/"),
    ],
)
def test_the_printed_address_can_be_opened(host: str, page: str) -> None:
    urls = StackUrls.from_settings(Settings(host=host, api_key="a secret that is long"))
    output = ready_text(urls, services=True, windows=False, paint=lambda text, *_: text)
    assert f"Dream Layer is ready. Open {page}\n" in output
    assert page.removeprefix("http://").removesuffix("/") + "/api/txt2img -H" in output


def test_the_example_command_can_be_pasted() -> None:
    """It works in every shell and never shows the API key."""
    urls = StackUrls.from_settings(Settings(api_key="a secret that is long"))
    command = example_command(urls, windows=False)
    assert command.startswith("curl -sS --fail-with-body localhost:5001/api/txt2img -H ")
    assert '-H "X-API-Key: YOUR-KEY"' in command
    assert "'" not in command
    assert "secret" not in command
    assert example_command(urls, windows=True).startswith("curl.exe ")


def test_without_services_the_text_has_the_command_that_starts_one() -> None:
    urls = StackUrls.from_settings(Settings())
    output = ready_text(urls, services=False, windows=False, paint=lambda text, *_: text)
    assert "python txt2img_server.py" in output
    assert "5001" not in output
    assert "5001" not in running_text(urls, services=False, paint=lambda text, *_: text)


def test_the_engine_page_is_mentioned_only_if_enabled() -> None:
    for has_page in (True, False):
        urls = StackUrls.from_settings(Settings(engine_page=has_page))
        for output in (
            ready_text(urls, services=True, windows=False, paint=lambda text, *_: text),
            running_text(urls, services=False, paint=lambda text, *_: text),
        ):
            assert ("python dream_layer.py open engine" in output) is has_page
