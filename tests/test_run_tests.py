"""The test command: the runs of pytest that it starts, and its exit code."""

import os
import subprocess
from collections.abc import Sequence

import pytest

from launcher import run_tests as module
from launcher.arguments import parse
from launcher.run_tests import run_tests

CORES = str(os.cpu_count())


class Runs:
    """A stand-in for pytest. `commands` records the arguments; `codes` are the exit codes of the next runs, then 0."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.codes: list[int] = []

    def run(self, command: Sequence[str], **_: object) -> "subprocess.CompletedProcess[bytes]":
        assert list(command[1:3]) == ["-m", "pytest"]
        self.commands.append(list(command[3:]))
        return subprocess.CompletedProcess(command, self.codes.pop(0) if self.codes else 0)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Replaces pytest and the search for the engine."""
    runs = Runs()
    monkeypatch.setattr(module.subprocess, "run", runs.run)
    monkeypatch.setattr(module, "find_engine", lambda _settings: "the engine")
    return runs


def start(*arguments: str) -> int:
    options, rest = parse(["test", *arguments])
    return run_tests(rest, fast=options.fast)


def test_fast_runs_neither_live_nor_slow_tests_and_looks_for_no_engine(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_engine(_settings: object) -> str:
        raise AssertionError("--fast needs no engine")

    monkeypatch.setattr(module, "find_engine", find_engine)
    assert start("--fast", "-k", "mask", "tests/test_masks.py") == 0
    (command,) = runs.commands
    assert command[:4] == ["-m", "not live and not slow", "-n", CORES]
    assert command[-3:] == ["-k", "mask", "tests/test_masks.py"]


@pytest.mark.parametrize("arguments", [[], ["-x", "-vv"], ["--durations=10", "--tb=short"]])
def test_the_whole_suite_has_two_parts(runs: Runs, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert start(*arguments) == 0
    without_engine, with_engine = runs.commands
    assert without_engine[:4] == ["-m", "not live", "-n", CORES]
    assert with_engine[:4] == ["-m", "live", "-n", str(min(2, os.cpu_count() or 1))]
    assert with_engine[4:6] == ["--dist", "loadfile"]
    for command in (without_engine, with_engine):
        assert command[len(command) - len(arguments) :] == arguments
    shown = capsys.readouterr().out
    assert "without the engine: passed after 0:00" in shown
    assert "with the engine: passed after 0:00" in shown


@pytest.mark.parametrize(
    "arguments", [["tests/test_masks.py"], ["-k", "mask", "-x"], ["-m", "live"], ["--lf"], ["--update-golden"]]
)
def test_arguments_that_select_tests_go_to_one_run(runs: Runs, arguments: list[str]) -> None:
    runs.codes = [5]
    assert start(*arguments) == 5
    assert runs.commands == [arguments]


@pytest.mark.parametrize(
    ("codes", "arguments", "code", "count"),
    [
        ([1, 0], [], 1, 2),
        ([0, 1], [], 1, 2),
        ([1, 0], ["-x"], 1, 1),
        ([1, 0], ["-qx"], 1, 1),
        ([1, 0], ["--maxfail=1"], 1, 1),
        # Ctrl-C, and an internal error of pytest.
        ([2, 0], [], 2, 1),
        ([3, 0], [], 3, 1),
    ],
)
def test_a_failed_part_fails_the_whole_run(
    runs: Runs, capsys: pytest.CaptureFixture[str], codes: list[int], arguments: list[str], code: int, count: int
) -> None:
    runs.codes = list(codes)
    assert start(*arguments) == code
    assert len(runs.commands) == count
    shown = capsys.readouterr().out
    assert ("FAILED" in shown) == (code == 1)
    assert (f"exit code {code}" in shown) == (code > 1)
