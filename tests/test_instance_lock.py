"""The instance lock: one process holds it until it ends, even if a killed launcher leaves its files."""

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


def start_holder(folder: Path) -> "subprocess.Popen[str]":
    """Start another process that holds the lock."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(command, cwd=PROJECT_DIR, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    deadline = time.monotonic() + 20
    while (record := InstanceLock(folder).holder()) is None or not record.ready:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_one_process_holds_the_lock_and_records_its_details(folder: Path) -> None:
    assert InstanceLock(folder).holder() is None
    other = start_holder(folder)
    try:
        record = InstanceLock(folder).holder()
        assert record is not None
        assert (record.pid, record.command, record.ready) == (other.pid, "up", True)
        assert record.addresses == {"txt2img": "http://localhost:1"}
        assert not InstanceLock(folder).acquire("run")
        # The refused attempt changed nothing.
        assert InstanceLock(folder).holder() == record
    finally:
        kill(other)


def test_the_record_of_a_killed_process_is_ignored(folder: Path) -> None:
    other = start_holder(folder)
    kill(other)
    assert (folder / "launcher.json").exists()
    assert InstanceLock(folder).holder() is None
    # As if another program had got that process id since.
    record = json.loads((folder / "launcher.json").read_text())
    (folder / "launcher.json").write_text(json.dumps({**record, "pid": os.getpid()}))
    assert InstanceLock(folder).holder() is None
    lock = InstanceLock(folder)
    assert lock.acquire("run")
    lock.release()
    assert [path.name for path in folder.iterdir()] == ["launcher.lock"]


@pytest.mark.parametrize("by_file", [False, True])
def test_a_stop_request_ends_the_process(folder: Path, by_file: bool) -> None:
    """By a signal, or by a file on systems without signals."""
    other = start_holder(folder)
    try:
        instance = InstanceLock(folder)
        record = instance.holder()
        assert record is not None
        assert not instance.wait_for_end(0.1)
        instance.request_stop(record, None if by_file else terminate)
        assert instance.wait_for_end(20)
        assert other.wait(20) == 0
        # A stop request that comes too late does not stop the next process.
        instance.request_stop(record, None)
        assert instance.acquire("up")
        assert not instance.stop_requested
        instance.release()
    finally:
        kill(other)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"pid": "x", "command": "up", "started": 0}', "\xff"])
def test_a_damaged_record_is_ignored(folder: Path, text: str) -> None:
    lock = InstanceLock(folder)
    assert lock.acquire("up")
    (folder / "launcher.json").write_text(text, encoding="latin-1")
    assert InstanceLock(folder).holder() is None
    lock.release()


def test_children_do_not_inherit_the_lock(folder: Path) -> None:
    lock = InstanceLock(folder)
    assert lock.acquire("up")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        lock.release()
        assert InstanceLock(folder).holder() is None
    finally:
        child.communicate(b"\n")
