"""The parser of pip's output, and the progress bar."""

import re
import sys
from pathlib import Path

import pytest

from launcher import packages, terminal
from launcher.packages import CUDA_MEGABYTES, MEGABYTES, PipOutput, expected_sizes
from launcher.terminal import progress_bar, time_text
from shared.settings import PROJECT_DIR
from tests.screen import on_screen

# Output of pip 26.3 with `--progress-bar raw`.
RECORDED = """\
Looking in indexes: https://index.example/simple
Collecting torch==2.11.0 (from -r requirements.txt (line 93))
  Downloading torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (29 kB)
Collecting numpy==2.4.6
  Using cached numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.whl (16.9 MB)
Processing /wheels/nvidia_cublas-13.1.0.3-py3-none-manylinux_2_27_x86_64.whl (from torch==2.11.0->-r requirements.txt)
Downloading torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl (530.6 MB)
Progress 0 of 530600000
Progress 265300000 of 530600000
"""
INSTALLING = "Installing collected packages: numpy, torch, nvidia-cublas"


def read(output: PipOutput, text: str) -> list[str]:
    return [line for line in text.splitlines() if output.parse(line)]


def test_the_total_is_estimated_and_then_corrected_by_sizes_from_pip() -> None:
    output = PipOutput(expected_sizes(["torch", "NumPy", "flask"], cuda=True))
    expected = 530.6e6 + 16.9e6 + sum(CUDA_MEGABYTES.values()) * 1e6
    assert output.total == pytest.approx(expected)
    log_lines = read(output, RECORDED)
    assert not [line for line in log_lines if line.startswith("Progress")]
    assert len(log_lines) == 7
    assert output.current.startswith("torch-2.11.0")
    assert output.downloaded == pytest.approx(16.9e6 + 265.3e6)
    # A local file is not downloaded.
    assert output.total == pytest.approx(expected - CUDA_MEGABYTES["nvidia-cublas"] * 1e6)
    assert output.phase == "downloading"
    read(output, INSTALLING)
    assert (output.phase, output.packages) == ("installing", ["numpy", "torch", "nvidia-cublas"])
    # Expected packages that pip does not install are no longer counted.
    assert output.downloaded == output.total == pytest.approx(16.9e6 + 530.6e6)


def test_the_build_of_torch_decides_the_expected_size() -> None:
    assert sum(expected_sizes(["torch"], cuda=False).values()) == pytest.approx(120e6)
    output = PipOutput(expected_sizes(["torch"], cuda=True))
    read(output, "  Downloading https://index.example/whl/torch-2.11.0%2Bcpu-cp311-cp311-linux_x86_64.whl (190.0 MB)")
    assert output.total == pytest.approx(190e6)


def test_an_old_pip_reports_files_only() -> None:
    output = PipOutput({})
    read(output, "  Downloading a-1.0-py3-none-any.whl (2.0 MB)\n  Downloading b-1.0.tar.gz (512 bytes)")
    assert (output.downloaded, output.total) == (2e6, 2e6 + 512)


def test_packages_for_other_pythons_and_systems_are_not_counted(tmp_path: Path) -> None:
    major, minor = sys.version_info[:2]
    lock = tmp_path / "requirements.txt"
    lock.write_text(
        "there==1.0 \\\n    --hash=sha256:0\nneeded==1.0 \\\n"
        f"newer==2.0 ; python_full_version >= '{major}.{minor + 1}' \\\n"
        f"older==2.0 ; python_full_version < '{major}.{minor}' and sys_platform != 'emscripten' \\\n"
        f"this==2.0 ; python_full_version == '{major}.{minor}.*' \\\n"
        f"since==2.0 ; python_full_version >= '{major}.{minor}' and sys_platform != 'emscripten' \\\n"
        f"here==2.0 ; sys_platform == '{sys.platform}' \\\n"
        "elsewhere==2.0 ; sys_platform == 'elsewhere' \\\n"
        "machine==2.0 ; platform_machine == 'x86_64' or platform_machine == 'arm64' \\\n"
    )
    assert packages._missing([lock], ["there-1.0"]) == ["here", "machine", "needed", "since", "this"]


def test_packages_with_an_expected_size_are_in_the_lock_file() -> None:
    lock = (PROJECT_DIR / "requirements.txt").read_text(encoding="utf-8")
    pinned = {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}
    assert MEGABYTES.keys() <= pinned


def test_a_terminal_shows_a_bar_and_completed_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (terminal, packages):
        monkeypatch.setattr(module, "columns", lambda: 200)
    clock = iter([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    monkeypatch.setattr(packages.time, "monotonic", lambda: next(clock))
    python = tmp_path / "bin" / "python"
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    with on_screen() as screen:
        output = PipOutput(expected_sizes(["torch"], cuda=False))
        display = packages._ProgressDisplay(output, python)
        display.update()
        read(output, "Downloading torch-2.11.0-cp311-none-win_amd64.whl (100.0 MB)\nProgress 50000000 of 100000000")
        display.update()
        drawn = screen.getvalue().split(terminal.ERASE)
        assert "0 %  nothing of 120 MB" in drawn[-2]
        assert drawn[-1].endswith("50 %  50 MB of 100 MB, 50 MB/s, 0:01 left, torch")
        assert "\n" not in screen.getvalue()
        read(output, "Progress 100000000 of 100000000\nInstalling collected packages: a, torch")
        (site / "a-1.0.dist-info").mkdir()
        display.update()
        drawn = screen.getvalue().split(terminal.ERASE)
        assert drawn[-2].startswith("  packages     downloaded 100 MB in 0:0")
        assert drawn[-2].endswith("\n")
        assert drawn[-1].endswith("50 %  installing 1 of 2 packages")


def test_the_time_left_is_reported_once_it_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (terminal, packages):
        monkeypatch.setattr(module, "columns", lambda: 200)
    with on_screen() as screen:
        output = PipOutput(expected_sizes(["torch"], cuda=False))
        display = packages._ProgressDisplay(output, tmp_path / "bin" / "python")
        display.update()
        read(output, "Downloading torch-2.11.0-cp311-none-win_amd64.whl (100.0 MB)\nProgress 1000000 of 100000000")
        display.update()
        assert "1 MB of 100 MB" in screen.getvalue()
        assert "left" not in screen.getvalue()
        read(output, "Progress 3000000 of 100000000")
        display.update()
    assert "left" in screen.getvalue()


def test_progress_bars_and_times() -> None:
    assert progress_bar(0) == f"[{'.' * 24}]   0 %"
    assert progress_bar(0.5) == f"[{'#' * 12}{'.' * 12}]  50 %"
    assert progress_bar(7) == f"[{'#' * 24}] 100 %"
    # Text next to the bar makes the bar shorter.
    assert progress_bar(0.5, 80) == f"[{'#' * 5}{'.' * 5}]  50 %"
    assert progress_bar(0.5, 40) == " 50 %"
    assert [time_text(seconds) for seconds in (0, 61, 3723)] == ["0:00", "1:01", "1:02:03"]


def test_error_lines_of_a_failure_are_extracted_from_the_log(tmp_path: Path) -> None:
    log = tmp_path / "setup.log"
    log.write_text("one\n\nERROR: no \x1b[31mversion\x1b[0m\nnoise\nERROR: none matches\n")
    assert packages.error_lines(log) == ["ERROR: no version", "ERROR: none matches"]
    log.write_text("".join(f"{number}\n" for number in range(20)))
    assert packages.error_lines(log) == [str(number) for number in range(12, 20)]
