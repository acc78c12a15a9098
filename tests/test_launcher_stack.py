"""The launcher's messages about the engine, and a start that is interrupted."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.stack import engine_setup_error, engine_text
from shared.errors import EngineError, EngineUnavailable
from shared.settings import PREFIX, PROJECT_DIR, Settings
from tests.stack import TIMEOUT, launcher_environment

LOCAL, REMOTE = "http://127.0.0.1:8188", "http://10.0.0.9:8188"


def test_an_engine_that_finishes_jobs_is_reported_as_answering() -> None:
    assert engine_text(LOCAL, 6.44, proven=True) == f"generated its first picture after 6.4 s: {LOCAL}"
    assert engine_text(LOCAL, 6.44, proven=False) == f"answers after 6.4 s and is finishing earlier jobs: {LOCAL}"


@pytest.mark.parametrize(
    "error",
    [
        EngineUnavailable(f"the engine does not answer at {REMOTE}", hint="python dream_layer.py starts it"),
        EngineError("the engine takes jobs but did not draw a small picture"),
    ],
)
def test_an_error_of_an_external_engine_names_its_address_once_and_its_setting(error: EngineError) -> None:
    failed = engine_setup_error(error, Settings(engine_url=REMOTE))
    assert failed.message.count(REMOTE) == 1
    assert "is a ComfyUI 0.30 running there? Without DREAM_LAYER_ENGINE_URL" in str(failed.hint)


def test_an_error_of_our_own_engine_keeps_its_hint() -> None:
    failed = engine_setup_error(
        EngineError("it drew another colour", hint="data/logs/engine.log says more"), Settings()
    )
    assert (failed.message, failed.hint) == (f"it drew another colour ({LOCAL})", "data/logs/engine.log says more")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_start_prints_how_to_continue(number: signal.Signals, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(TIMEOUT)
        environ = launcher_environment(tmp_path / "data")
        environ[f"{PREFIX}ENGINE_URL"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        launcher = subprocess.Popen(
            [sys.executable, "dream_layer.py", "run"],
            cwd=PROJECT_DIR, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            # The engine has received a request and never answers it.
            with silent.accept()[0]:
                launcher.send_signal(number)
                _, err = launcher.communicate(timeout=TIMEOUT)
        finally:
            launcher.kill()
    assert launcher.returncode == 130
    assert err.endswith("\n  stopped; run the same command to continue\n")
    assert "Traceback" not in err
