"""What `status` and `stop` make of what they find: an engine alone is nobody's to stop."""

from pathlib import Path

import pytest

from launcher import operating
from launcher.arguments import parse
from launcher.status import ALL_RUNS, NOTHING_RUNS, PART_RUNS, Part, Status, probe
from shared.engine.client import TOKEN_FILE
from shared.settings import Settings
from tests.fake_engine import FakeEngine


def found(*answering: str) -> Status:
    names = ("txt2img", "img2img", "control", "engine")
    return Status(None, tuple(Part(name, "http://localhost:1", name in answering, "") for name in names))


def test_an_engine_alone_is_not_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert found("txt2img", "img2img", "control", "engine").exit_code == ALL_RUNS
    assert found("control", "engine").exit_code == PART_RUNS
    assert found("engine").exit_code == found().exit_code == NOTHING_RUNS
    assert operating._nothing_to_stop(found("engine")) == 0
    assert "nothing was running" in capsys.readouterr().out
    assert operating._nothing_to_stop(found("txt2img", "engine")) == 1
    assert "but txt2img answered" in capsys.readouterr().err


def test_status_asks_the_engine_with_its_token(tmp_path: Path, engine: FakeEngine) -> None:
    engine.stop()
    engine.token = "secret"
    engine.start()
    settings = Settings(data_dir=tmp_path, engine_port=int(engine.address.rpartition(":")[2]), control_port=9)
    engine_part = probe(settings, None).parts[-1]
    assert (engine_part.answers, engine_part.about) == (False, "refused our token")
    (tmp_path / TOKEN_FILE).parent.mkdir()
    (tmp_path / TOKEN_FILE).write_text("secret\n")
    engine_part = probe(settings, None).parts[-1]
    assert (engine_part.answers, engine_part.about) == (True, "answers")
    engine.stop()
    assert probe(settings, None).parts[-1].about == "does not answer"


@pytest.mark.parametrize("desktop", [True, False])
def test_open_engine_opens_its_page_with_the_token_of_now(
    tmp_path: Path,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    desktop: bool,
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(operating, "has_desktop", lambda *_: desktop)
    monkeypatch.setattr(operating.webbrowser, "open", lambda page: opened.append(page) or True)
    monkeypatch.setenv("DREAM_LAYER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DREAM_LAYER_ENGINE_PORT", engine.address.rpartition(":")[2])
    options = parse(["open", "engine"])[0]
    assert operating.run_operation(options) == 1
    assert "DREAM_LAYER_ENGINE_PAGE=true" in capsys.readouterr().err
    monkeypatch.setenv("DREAM_LAYER_ENGINE_PAGE", "true")
    (tmp_path / TOKEN_FILE).parent.mkdir()
    (tmp_path / TOKEN_FILE).write_text("secret\n")
    assert operating.run_operation(options) == 0
    shown = capsys.readouterr().out
    assert opened == ([f"{engine.address}/?token=secret"] if desktop else [])
    # What is shown may be kept in a log.
    assert ("secret" in shown) is not desktop
    engine.stop()
    assert operating.run_operation(options) == NOTHING_RUNS
    with pytest.raises(SystemExit):
        parse(["open", "the engine"])
