"""A steady load of small jobs while engine and services are killed at random: `python -m tests.chaos [SECONDS] [SEED]`.

Clients are well-behaved: each request has an Idempotency-Key, and clients repeat it if the connection breaks or
the reply is 503. At the end every accepted job must be completed exactly once, with one picture, and no process
may remain. The tests run `chaos` for a short time.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests
from PIL import Image

from shared.settings import PREFIX
from tests.stack import TestStack, data_url, launched, launcher_environment

log = logging.getLogger(__name__)

CLIENTS = 4
# Seconds between two kills; often less than a restart takes.
PAUSE = (1, 15)
# Seconds after the last kill within which all accepted jobs must be completed.
SETTLE = 240
DELIVERIES: tuple[dict[str, str], ...] = ({}, {"Prefer": "respond-async"}, {"Accept": "text/event-stream"})


@dataclass
class Count:
    """The results of a run."""

    seconds: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    accepted: set[str] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    pictures: int = 0
    wrong: list[str] = field(default_factory=list)
    reclaimed: int = 0
    sent_again: int = 0

    def __str__(self) -> str:
        kills = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        return (
            f"{self.seconds:.0f} s, {sum(self.kills.values())} kills ({kills}); {len(self.accepted)} jobs accepted, "
            f"{dict(self.states)}; {self.pictures} pictures; {self.sent_again} sent again, {self.reclaimed} reclaimed; "
            f"broken or refused meanwhile: {dict(self.refused)}; wrong: {self.wrong or 'nothing'}"
        )


def chaos(stack: TestStack, seconds: float, seed: int) -> Count:
    """Kill processes at random for `seconds`, wait until all jobs have ended, and return the counts."""
    count, over, random_ = Count(), threading.Event(), random.Random(seed)
    start = time.monotonic()
    clients = [threading.Thread(target=_submit, args=(stack, count, over, random_.random())) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    while time.monotonic() - start < seconds:
        time.sleep(random_.uniform(*PAUSE))
        _kill_one(stack, random_, count)
    count.seconds = time.monotonic() - start
    over.set()
    for client in clients:
        client.join()
    _settle(stack, count)
    return count


def _submit(stack: TestStack, count: Count, over: threading.Event, seed: float) -> None:
    """A client: submits one job after another, and repeats each request until it is accepted."""
    random_ = random.Random(seed)
    while not over.is_set():
        fields: dict[str, Any] = {"prompt": "a red circle", "steps": random_.randint(1, 6)}
        headers = {"Idempotency-Key": str(uuid.uuid4()), **random_.choice(DELIVERIES)}
        if random_.random() < 0.5:
            url = f"{stack.txt2img}/api/txt2img"
            fields |= {"width": 64, "height": 64}
        else:
            url = f"{stack.img2img}/api/img2img"
            colour = (random_.randrange(256), random_.randrange(256), random_.randrange(256))
            fields["input_image"] = data_url(Image.new("RGB", (64, 64), colour))
        while not _send(url, count, fields, headers):
            time.sleep(0.3)


def _send(url: str, count: Count, fields: dict[str, Any], headers: dict[str, str]) -> bool:
    """Send a request, and return whether it needs no repetition."""
    try:
        response = requests.post(url, json=fields, headers=headers, timeout=120)
    except requests.RequestException as error:
        count.refused[type(error).__name__] += 1
        return False
    if response.status_code not in (200, 202):
        count.refused[str(response.status_code)] += 1
        if response.status_code != 503:
            count.wrong.append(f"{response.status_code}: {response.text[:200]}")
        return response.status_code != 503
    job_id = response.headers.get("X-Job-Id") or response.json()["job_id"]
    if job_id in count.accepted:
        count.wrong.append(f"two requests got job {job_id}")
    count.accepted.add(job_id)
    return True


def _victims(stack: TestStack) -> dict[str, psutil.Process]:
    """The running child processes of the launcher, by name."""
    victims = {}
    for child in psutil.Process(stack.process.pid).children():
        try:
            command = " ".join(child.cmdline())
        except psutil.Error:
            continue
        for name, script in (("engine", "main.py"), ("txt2img", "txt2img_server"), ("img2img", "img2img_server")):
            if script in command:
                victims[name] = child
    return victims


def _kill_one(stack: TestStack, random_: random.Random, count: Count) -> None:
    victims = _victims(stack)
    if victims:
        name = random_.choice(sorted(victims))
        os.kill(victims[name].pid, signal.SIGKILL)
        count.kills[name] += 1
        log.info("killed %s", name)


def _settle(stack: TestStack, count: Count) -> None:
    """Wait until all jobs have ended and all processes run again, then count the results."""
    deadline = time.monotonic() + SETTLE
    while True:
        try:
            jobs = _all_jobs(stack.control)
            if all(job["state"] in ("completed", "failed", "cancelled") for job in jobs) and len(_victims(stack)) == 3:
                break
        except requests.RequestException:
            pass
        if time.monotonic() > deadline:
            count.wrong.append(f"still unfinished after {SETTLE} s: {stack.output()[-2000:]}")
            break
        time.sleep(0.2)
    count.states = Counter(job["state"] for job in jobs)
    known = {job["job_id"] for job in jobs}
    count.wrong += [f"accepted job {job_id} is lost" for job_id in count.accepted - known]
    count.wrong += [f"job {job['job_id']} has {len(job['images'])} pictures" for job in jobs if len(job["images"]) != 1]
    count.wrong += [f"job {job['job_id']} is {job['state']}: {job}" for job in jobs if job["state"] != "completed"]
    files = list((stack.data_dir / "output").rglob("*.png"))
    count.pictures = len(files)
    named = {url.rsplit("/", 1)[1] for job in jobs for url in job["images"]}
    count.wrong += [f"{path.name} belongs to no job" for path in files if path.name not in named]
    logs = stack.output() + "".join(path.read_text("utf-8") for path in (stack.data_dir / "logs").glob("*2img*.log"))
    count.sent_again, count.reclaimed = logs.count("; sending it again"), logs.count("reclaimed job")
    count.wrong += ["a log contains a traceback"] * logs.count("Traceback")


def _all_jobs(url: str) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = []
    before: int | None = 2**53
    while before is not None:
        page = requests.get(f"{url}/api/jobs", params={"limit": 500, "before": before}, timeout=30).json()
        jobs += page["jobs"]
        before = page["before"]
    return jobs


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=300)
    parser.add_argument("seed", type=int, nargs="?", default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with tempfile.TemporaryDirectory() as folder:
        environ = launcher_environment(Path(folder) / "data")
        environ[f"{PREFIX}REQUEST_TIMEOUT"] = "100"
        with launched(Path(folder), environ) as stack:
            count = chaos(stack, arguments.seconds, arguments.seed)
    sys.stdout.write(f"{count}\n")
    return 1 if count.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
