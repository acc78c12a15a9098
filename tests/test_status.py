"""What `status` and `stop` make of what they find: an engine alone is nobody's to stop."""

import pytest

from launcher import operating
from launcher.status import ALL_RUNS, NOTHING_RUNS, PART_RUNS, Part, Status


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
