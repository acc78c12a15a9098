"""The control service's routes for the engine: its state, restarts and memory."""

import requests

from tests.stack import TIMEOUT, TestStack

SMALL = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}


def test_the_state_of_the_engine_is_reported(stack: TestStack) -> None:
    state = stack.engine_state()
    assert state["version"].startswith("0.")
    assert state["devices"][0]["type"] == "cpu"
    assert state["memory"]["total"] > 0
    assert state["queue"] == {"running": 0, "pending": 0}
    assert state["uptime_s"] > 0


def test_the_engines_memory_is_freed(stack: TestStack) -> None:
    assert requests.post(f"{stack.control}/api/engine/free", timeout=TIMEOUT).json()["status"] == "success"
    assert stack.picture(stack.draw(**SMALL)).size == (64, 64)


def test_a_restart_of_the_engine_loses_no_job(stack: TestStack) -> None:
    before = stack.engine_state()
    job = stack.submit(prompt="a red circle", width=128, height=128, steps=40)
    stack.wait_for_job(job, "running")
    assert requests.post(f"{stack.control}/api/engine/restart", timeout=TIMEOUT).status_code == 202
    after = stack.wait_for_engine(lambda state: state["restarts"] == before["restarts"] + 1)
    assert after["pid"] != before["pid"]
    assert stack.wait_for_job(job)["state"] == "completed"
