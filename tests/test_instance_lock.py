"""The instance lock: held until its process ends, whatever files a killed launcher leaves."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.instance_lock import InstanceLock, terminate
from shared.settings import PROJECT_DIR

HOLDER = """
import sys, time
from pathlib import Path
from launcher.instance_lock import InstanceLock
from launcher.terminal import interrupt_on_stop_signals
interrupt_on_stop_signals()
instance = InstanceLock(Path(sys.argv[1]))
print(instance.acquire("up", {"txt2img": "http://localhost:1"}), flush=True)
instance.mark_ready()
try:
    while not instance.stop_requested:
        time.sleep(0.05)
except KeyboardInterrupt:
    pass
instance.release()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def acquire(folder: Path) -> "subprocess.Popen[str]":
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(command, cwd=PROJECT_DIR, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    deadline = time.monotonic() + 20
    while (record := InstanceLock(folder).holder()) is None or not record.ready:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_one_process_at_a_time_holds_it_and_says_what_it_is(folder: Path) -> None:
    assert InstanceLock(folder).holder() is None
    other = acquire(folder)
    try:
        record = InstanceLock(folder).holder()
        assert record is not None
        assert (record.pid, record.command, record.ready) == (other.pid, "up", True)
        assert record.addresses == {"txt2img": "http://localhost:1"}
        assert not InstanceLock(folder).acquire("run")
        # The refused one changed nothing.
        assert InstanceLock(folder).holder() == record
    finally:
        end(other)


def test_what_a_killed_one_left_is_not_taken_for_one_that_runs(folder: Path) -> None:
    other = acquire(folder)
    end(other)
    assert (folder / "launcher.json").exists()
    assert InstanceLock(folder).holder() is None
    # As if another program had that process id by now.
    record = json.loads((folder / "launcher.json").read_text())
    (folder / "launcher.json").write_text(json.dumps({**record, "pid": os.getpid()}))
    assert InstanceLock(folder).holder() is None
    mine = InstanceLock(folder)
    assert mine.acquire("run")
    mine.release()
    assert [path.name for path in folder.iterdir()] == ["launcher.lock"]


@pytest.mark.parametrize("by_file", [False, True])
def test_it_ends_when_it_is_asked_to(folder: Path, by_file: bool) -> None:
    """By a signal; by a file where a system has none."""
    other = acquire(folder)
    try:
        instance = InstanceLock(folder)
        record = instance.holder()
        assert record is not None
        assert not instance.wait_for_end(0.1)
        instance.request_stop(record, None if by_file else terminate)
        assert instance.wait_for_end(20)
        assert other.wait(20) == 0
        # A wish that came too late is not for the next one.
        instance.request_stop(record, None)
        assert instance.acquire("up")
        assert not instance.stop_requested
        instance.release()
    finally:
        end(other)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"pid": "x", "command": "up", "started": 0}', "\xff"])
def test_a_damaged_record_is_none(folder: Path, text: str) -> None:
    mine = InstanceLock(folder)
    assert mine.acquire("up")
    (folder / "launcher.json").write_text(text, encoding="latin-1")
    assert InstanceLock(folder).holder() is None
    mine.release()


def test_children_do_not_inherit_it(folder: Path) -> None:
    mine = InstanceLock(folder)
    assert mine.acquire("up")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        mine.release()
        assert InstanceLock(folder).holder() is None
    finally:
        child.communicate(b"\n")
