"""The engine's smoke test at startup."""

from pathlib import Path

import pytest

from shared.engine import smoke_test
from shared.engine.client import EngineClient
from tests.fake_engine import FakeEngine
from tests.harness import new_job, wait_for


def test_the_smoke_test_does_not_wait_for_a_busy_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke_test, "PATIENCE", 0.2)
    fake, job = FakeEngine(tmp_path), new_job()
    fake.seconds = 30
    fake.start()
    try:
        engine = EngineClient(fake.address)
        engine.submit(job.id, job.spec.graph, "me", 1)
        wait_for(lambda: fake.running, "the job is not drawn")
        assert not smoke_test.draw_test_picture(engine)
        # The test picture is removed from the engine's queue.
        assert len(fake.cancelled) == 1
        assert engine.get_queue() == ({job.id}, frozenset())
    finally:
        fake.stop()
