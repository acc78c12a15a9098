"""Child processes: readiness, restarts and stopping, without orphans."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from shared.errors import SetupError
from shared.process.supervisor import PARENT_WATCH, Child, Supervisor
from tests.stack import wait_until_gone


def make_child(folder: Path, code: str) -> Child:
    script = folder / "script.py"
    script.write_text(code)
    return Child("thing", [script, "argument"], python=sys.executable, folder=folder, log_path=folder / "thing.log")


def wait_for(condition: "object", failure: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, failure
        time.sleep(0.02)


def test_a_child_runs_as_if_started_directly(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("NAME = 'beside'\n")
    child = make_child(tmp_path, "import sys, beside\nprint(__name__, sys.argv[1:], beside.NAME, sys.path[0])\n")
    child.start()
    assert child.wait(20) == 0
    assert child.tail_log() == f"__main__ ['argument'] beside {tmp_path}"
    child.stop()


def test_a_module_runs_as_if_started_directly(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("import sys\nprint(__name__, sys.argv, sys.path[0])\n")
    command = [sys.executable, str(PARENT_WATCH), "-m", "beside", "argument"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        # Read before standard input is closed, which ends the process.
        output = process.stdout.read()
        assert process.wait(20) == 0
    assert output == f"__main__ ['{tmp_path / 'beside.py'}', 'argument'] {tmp_path}\n"


def test_a_child_that_exits_during_startup_is_reported_with_its_log(tmp_path: Path) -> None:
    supervisor = Supervisor(
        make_child(tmp_path, "print('one')\nraise SystemExit('no such model')\n"), lambda: False, 60
    )
    started = time.monotonic()
    supervisor.start()
    with pytest.raises(SetupError) as failed:
        supervisor.wait_ready()
    assert time.monotonic() - started < 10
    assert failed.value.step == "thing"
    assert failed.value.message.endswith("exit code 1. Its last lines:\none\nno such model")
    supervisor.stop()


def test_a_child_that_never_answers_times_out(tmp_path: Path) -> None:
    supervisor = Supervisor(make_child(tmp_path, "import time\ntime.sleep(60)\n"), lambda: False, 0.5)
    supervisor.start()
    with pytest.raises(SetupError, match="does not answer after"):
        supervisor.wait_ready()
    supervisor.stop()
    assert supervisor.child.pid is None


def test_a_child_that_exits_later_is_restarted(tmp_path: Path) -> None:
    supervisor = Supervisor(
        make_child(tmp_path, "import time\ntime.sleep(60)\n"), lambda: supervisor.child.pid is not None, 20
    )
    supervisor.start()
    supervisor.wait_ready()
    first = supervisor.child.pid
    assert first is not None
    psutil.Process(first).kill()
    wait_for(lambda: supervisor.restarts == 1 and supervisor.state == "ready", "the child was not restarted")
    assert supervisor.child.pid not in (None, first)
    supervisor.stop()
    assert supervisor.child.pid is None
    assert supervisor.state == "stopped"


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.process.supervisor.GRACE", 0.5)
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('deaf', flush=True)\n"
        "time.sleep(60)\n"
    )
    child = make_child(tmp_path, code)
    child.start()
    wait_for(lambda: "deaf" in child.tail_log(), "the child did not start")
    child.stop()
    assert child.pid is None


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(60)\n")
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, {str(PARENT_WATCH)!r}, 'sleeper.py'], stdin=subprocess.PIPE)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        orphan = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    wait_until_gone([orphan])


def test_a_large_log_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.process.supervisor.MAX_LOG_BYTES", 10)
    (tmp_path / "thing.log").write_text("much too long for the limit")
    child = make_child(tmp_path, "print('new')\n")
    child.start()
    child.wait(20)
    child.stop()
    assert (tmp_path / "thing.log").read_text().strip() == "new"
    assert (tmp_path / "thing.previous.log").exists()


def test_a_child_exits_with_its_worker_thread(tmp_path: Path) -> None:
    code = (
        "import threading, time\n"
        "def other():\n"
        "    raise ValueError('of no importance')\n"
        "def work():\n"
        "    raise ValueError('deadly')\n"
        "for target in (other, work):\n"
        "    time.sleep(0.1)\n"
        "    threading.Thread(target=target).start()\n"
        "time.sleep(60)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    child = Child(
        "thing",
        [script],
        python=sys.executable,
        folder=tmp_path,
        log_path=tmp_path / "thing.log",
        exit_with_thread="work",
    )
    child.start()
    assert child.wait(20) == 70
    assert "of no importance" in child.tail_log(30)
    assert child.tail_log(1) == "the thread of work died, so this process exits"
    child.stop()


def test_a_child_that_stops_answering_is_restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.process.supervisor.CHECK_INTERVAL", 0.05)
    monkeypatch.setattr("shared.process.supervisor.ANSWER_TIMEOUT", 0.3)
    hangs = False
    supervisor = Supervisor(make_child(tmp_path, "import time\ntime.sleep(60)\n"), lambda: not hangs, 20)
    supervisor.start()
    supervisor.wait_ready()
    first = supervisor.child.pid
    time.sleep(0.5)
    assert supervisor.child.pid == first
    hangs = True
    wait_for(lambda: supervisor.child.pid != first, "the child was not stopped")
    hangs = False
    wait_for(lambda: supervisor.restarts == 1 and supervisor.state == "ready", "the child was not restarted")
    supervisor.stop()
