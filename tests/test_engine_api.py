"""The engine as the control service tells of it, and as it is started again."""

import requests

from tests.house import TIMEOUT, TestHouse

SMALL = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}


def test_the_engine_is_described(house: TestHouse) -> None:
    told = house.engine_state()
    assert told["version"].startswith("0.")
    assert told["devices"][0]["type"] == "cpu"
    assert told["memory"]["total"] > 0
    assert told["queue"] == {"running": 0, "pending": 0}
    assert told["uptime_s"] > 0


def test_the_engines_memory_is_freed(house: TestHouse) -> None:
    assert requests.post(f"{house.control}/api/engine/free", timeout=TIMEOUT).json()["status"] == "success"
    assert house.picture(house.draw(**SMALL)).size == (64, 64)


def test_the_engine_is_started_again_and_loses_no_job(own_house: TestHouse) -> None:
    before = own_house.engine_state()
    job = own_house.submit(prompt="a red circle", width=128, height=128, steps=40)
    own_house.wait_for_job(job, "running")
    assert requests.post(f"{own_house.control}/api/engine/restart", timeout=TIMEOUT).status_code == 202
    after = own_house.wait_for_engine(lambda told: told["restarts"] == before["restarts"] + 1)
    assert after["pid"] != before["pid"]
    assert own_house.wait_for_job(job)["state"] == "completed"
