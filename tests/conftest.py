"""Shared fixtures, and markers derived from the fixtures of a test.

Tests that use `stack` run against a real one: launcher, engine, services and starter model.
"""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from shared.jobs import disk_reserve
from shared.models.detect import ModelFile
from shared.settings import PREFIX, Settings
from shared.web.backend import Backend
from shared.web.routes.models import ModelUploads
from tests.control import Control, Managed
from tests.engine_prompts import EnginePrompts
from tests.fake_engine import FakeEngine
from tests.harness import Harness, OpenHarness
from tests.stack import COMFYUI_DIR, TestStack, launched, launcher_environment

# A test that uses one of these fixtures, directly or through another fixture, has the marker.
MARKERS = {
    "live": {"engine_source", "stack"},
    "fake_engine": {"engine"},
    "slow": {"browser", "project", "starter_models"},
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden graphs and the node snapshot")


def pytest_configure() -> None:
    # A background job of a shell ignores SIGINT, and under nohup SIGHUP. Child processes inherit ignored signals, but
    # not handlers, and our children must not ignore them.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)
    # A proxy must not be used for our own services.
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        for marker, names in MARKERS.items():
            if not names.isdisjoint(fixtures):
                item.add_marker(marker)


def pytest_collection_finish() -> None:
    if "torch" in sys.modules:
        raise pytest.UsageError("a test module imports torch, which is not installed everywhere: use a fixture")


@pytest.fixture(autouse=True)
def no_torch(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that imports torch without the fixture that marks it `live`."""
    allowed = "torch" in sys.modules or request.node.get_closest_marker("live") is not None
    yield
    assert allowed or "torch" not in sys.modules, "use the fixture `engine_source`: torch is not installed everywhere"


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session", autouse=True)
def default_settings() -> Iterator[None]:
    """Remove the settings of the user's shell, so that tests use the defaults, and make new databases small."""
    with pytest.MonkeyPatch.context() as environment:
        for name in list(os.environ):
            if name.upper().startswith(PREFIX):
                environment.delenv(name)
        # Each new database writes a reserve of 8 MB, and a run creates about a thousand databases.
        environment.setattr(disk_reserve, "LARGEST", 400_000)
        yield


@pytest.fixture(scope="session")
def engine_source() -> Path:
    """The folder of the installed ComfyUI, for tests that run its code or read its files."""
    assert (COMFYUI_DIR / "main.py").is_file(), f"there is no ComfyUI in {COMFYUI_DIR}"
    return COMFYUI_DIR


@pytest.fixture(scope="session")
def engine_prompts(engine_source: Path) -> EnginePrompts:
    """ComfyUI's own parser of prompts."""
    return EnginePrompts(engine_source)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestStack]:
    """The stack shared by most tests."""
    folder = tmp_path_factory.mktemp("stack")
    with launched(folder, launcher_environment(folder / "data")) as running:
        yield running
    for url in (running.txt2img, running.img2img, running.control, running.engine):
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=2)


@pytest.fixture
def own_stack(tmp_path: Path, stack: TestStack) -> Iterator[TestStack]:
    """A stack for one test that damages it, with the models of the shared one."""
    environ = launcher_environment(tmp_path / "data")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "models").symlink_to(stack.data_dir / "models", target_is_directory=True)
    with launched(tmp_path, environ) as running:
        yield running


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    """The backend of a service whose engine does not run."""
    backend = Backend(Settings(data_dir=tmp_path, engine_port=9))
    yield backend
    backend.stop()


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    """A control service without an engine, with small limits and model files defined by the test."""
    settings = Settings(engine_url="http://127.0.0.1:9", data_dir=tmp_path, max_model_mb=4, max_body_mb=1)
    backend = Backend(settings)
    manager = Managed(backend.engine, None, list, backend.jobs.store.count_unfinished)
    control = Control(backend, ModelUploads(settings, backend.catalog), manager)
    monkeypatch.setattr(backend.catalog, "names", lambda folder, _age=1.0: control.files.get(folder, []))
    monkeypatch.setattr(backend.catalog, "model_file", lambda _folder, name: control.known.get(name, ModelFile(name)))
    yield control
    backend.stop()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    """A fake engine, for faults that the real one does not show on demand."""
    engine = FakeEngine(tmp_path / "output")
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def open_harness(tmp_path: Path, engine: FakeEngine) -> Iterator[OpenHarness]:
    """A function that opens harnesses of one stack, without starting them."""
    harnesses = []

    def open_harness() -> Harness:
        harnesses.append(Harness(tmp_path, engine))
        return harnesses[-1]

    yield open_harness
    for harness in harnesses:
        harness.close()


@pytest.fixture
def harness(open_harness: OpenHarness) -> Harness:
    """A started harness."""
    harness = open_harness()
    harness.start()
    return harness
