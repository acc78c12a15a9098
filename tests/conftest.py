"""What tests share. Those that take `stack` run against the real thing: launcher, engine, services, starter model."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from shared.engine.install import engine_dir
from shared.models.detect import ModelFile
from shared.settings import PREFIX, PROJECT_DIR, Settings
from shared.web.backend import Backend
from shared.web.routes.models import ModelUploads
from tests.control import Control, Managed
from tests.fake_engine import FakeEngine
from tests.harness import Harness, OpenHarness
from tests.stack import TestStack, wait_until_gone

START_TIMEOUT = 240
# Secrets in the user's shell, which are not for the engine.
PLANTED = {"EXAMPLE_TOKEN": "planted-example-token", "HTTPS_PROXY_PASSWORD": "planted-password"}
# As the user's shell says it; while a test runs, settings of the shell are out of sight.
COMFYUI_DIR = os.environ.get(f"{PREFIX}COMFYUI_DIR") or str(
    engine_dir(Path(os.environ.get(f"{PREFIX}DATA_DIR") or PROJECT_DIR / "data"))
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden graphs and the node snapshot")


def pytest_configure() -> None:
    # What a shell starts in the background ignores Ctrl-C, and under nohup a lost terminal, and hands that on; our
    # children must not. A handler is not handed on.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)
    # Where the way out leads through a proxy, the way to our own services does not.
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see the defaults, whatever the user's shell sets."""
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def launcher_environment(data_dir: Path) -> dict[str, str]:
    """An environment for dream_layer.py with free ports, its own data folder, and the engine that is installed."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
    # No window is to open on the desktop of who tests.
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        kept.pop(name, None)
    txt2img, img2img, control, engine_port, extras, runs, report, img2txt = free_ports(8)
    return {
        **kept,
        **PLANTED,
        f"{PREFIX}DATA_DIR": str(data_dir),
        f"{PREFIX}COMFYUI_DIR": COMFYUI_DIR,
        f"{PREFIX}DEVICE": "cpu",
        f"{PREFIX}TXT2IMG_PORT": str(txt2img),
        f"{PREFIX}IMG2IMG_PORT": str(img2img),
        f"{PREFIX}CONTROL_PORT": str(control),
        f"{PREFIX}EXTRAS_PORT": str(extras),
        f"{PREFIX}RUNS_PORT": str(runs),
        f"{PREFIX}REPORT_PORT": str(report),
        f"{PREFIX}IMG2TXT_PORT": str(img2txt),
        f"{PREFIX}ENGINE_PORT": str(engine_port),
    }


@contextmanager
def launched(folder: Path, environ: dict[str, str]) -> Iterator[TestStack]:
    """Everything, started as a user starts it; stopped by SIGTERM and seen to be gone."""
    output = folder / "launcher.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "dream_layer.py", "up", "--no-install"],
            cwd=PROJECT_DIR,
            env=environ,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    running = TestStack(process, environ, Path(environ[f"{PREFIX}DATA_DIR"]), output)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while "Ctrl-C stops everything" not in running.output():
            assert process.poll() is None, f"the launcher ended:\n{running.output()}"
            assert time.monotonic() < deadline, f"the launcher did not get ready:\n{running.output()}"
            time.sleep(0.1)
        yield running
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    wait_until_gone(children)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestStack]:
    """The stack that most tests share."""
    folder = tmp_path_factory.mktemp("stack")
    with launched(folder, launcher_environment(folder / "data")) as running:
        yield running
    for url in (running.txt2img, running.img2img, running.control, running.engine):
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=2)


@pytest.fixture
def own_stack(tmp_path: Path, stack: TestStack) -> Iterator[TestStack]:
    """A stack of the test's own, to be ill-treated; with the models of the shared one."""
    environ = launcher_environment(tmp_path / "data")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "models").symlink_to(stack.data_dir / "models", target_is_directory=True)
    with launched(tmp_path, environ) as running:
        yield running


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    """A control service without an engine, small limits, and lists of models that the test makes up."""
    settings = Settings(engine_url="http://127.0.0.1:9", data_dir=tmp_path, max_model_mb=4, max_body_mb=1)
    backend = Backend(settings)
    manager = Managed(backend.engine, None, list, backend.jobs.store.count_unfinished)
    made = Control(backend, ModelUploads(settings, backend.catalog), manager)
    monkeypatch.setattr(backend.catalog, "names", lambda folder, _age=1.0: made.files.get(folder, []))
    monkeypatch.setattr(backend.catalog, "model_file", lambda _folder, name: made.known.get(name, ModelFile(name)))
    yield made
    backend.stop()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    """An engine that errs when a test wants it to. Where the real one can show it, tests take `stack`."""
    engine = FakeEngine(tmp_path / "output")
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def open_harness(tmp_path: Path, engine: FakeEngine) -> Iterator[OpenHarness]:
    """Opens harnesses of one stack, which do not follow their jobs yet."""
    harnesses = []

    def open_harness() -> Harness:
        harnesses.append(Harness(tmp_path, engine))
        return harnesses[-1]

    yield open_harness
    for harness in harnesses:
        harness.close()


@pytest.fixture
def harness(open_harness: OpenHarness) -> Harness:
    """A harness that follows its jobs."""
    harness = open_harness()
    harness.start()
    return harness
