"""The lock files: a hash for each file that pip may install, and a reason for each version that is behind."""

import re
from pathlib import Path

import pytest

from launcher.packages import _plan_runs, normalise_name
from shared.settings import PROJECT_DIR

# The lock files, by the file that they are compiled from.
LOCKS = {"requirements.in": "requirements.lock.txt", "requirements-dev.in": "requirements-dev.txt",
         "requirements-page.in": "requirements-page.txt"}  # fmt: skip
TORCH = {"torch", "torchaudio", "torchvision"}
PIN = re.compile(r"^([\w.-]+)==([^\s;\\]+)([^\\\n]*)((?: *\\\n +--hash=sha256:[0-9a-f]{64})*)", re.MULTILINE)
BEHIND = re.compile(r"^#   ([\w.-]+) (\S+): (\S.+)$", re.MULTILINE)


def text(name: str) -> str:
    return (PROJECT_DIR / name).read_text(encoding="utf-8")


def pins(name: str) -> list[tuple[str, str, str]]:
    """Name, version and marker of each line."""
    return [(normalise_name(name), version, marker.strip()) for name, version, marker, _ in PIN.findall(text(name))]


def torch_pins() -> list[tuple[str, str]]:
    return re.findall(r"^(torch(?:audio|vision)?)==([\d.]+)", text("requirements.in"), re.MULTILINE)


def behind(name: str) -> dict[str, str]:
    return {normalise_name(name): version for name, version, _ in BEHIND.findall(text(name))}


@pytest.mark.parametrize("lock", [*LOCKS.values(), "requirements-pip.txt"])
def test_each_pin_has_its_hashes(lock: str) -> None:
    content = text(lock)
    matches = PIN.findall(content)
    assert matches
    assert [name for name, _, _, hashes in matches if not hashes] == []
    # The file has nothing else.
    assert re.sub(r"^#.*\n", "", PIN.sub("", content), flags=re.MULTILINE).strip() == ""


def test_requirements_txt_installs_the_locked_versions_and_torch() -> None:
    assert "--hash" not in text("requirements.txt")
    requirements = re.findall(r"^([\w.-]+)==([^\s;]+)(.*)$", text("requirements.txt"), re.MULTILINE)
    wanted = {(normalise_name(name), version, marker.strip()) for name, version, marker in requirements}
    torch = {pin for pin in wanted if pin[0] in TORCH}
    assert wanted - torch == set(pins("requirements.lock.txt"))
    assert torch == {(name, version, "") for name, version in torch_pins()}
    assert {name for name, _, _ in torch} == TORCH
    assert "have no hashes" in text("requirements.in")


@pytest.mark.parametrize(("source", "lock"), LOCKS.items())
def test_the_lock_file_repeats_the_versions_that_are_behind(source: str, lock: str) -> None:
    block = re.search(r"^# Behind .*?\n\n", text(source), re.MULTILINE | re.DOTALL)
    assert block is not None
    assert block[0].strip() in text(lock)
    old_versions = behind(source)
    pinned = {(name, version) for name, version, _ in pins(lock)}
    pinned |= set(torch_pins())
    assert {(name, version) for name, version in old_versions.items()} <= pinned


def test_each_version_that_is_held_back_has_a_reason() -> None:
    exact = {normalise_name(name) for name in re.findall(r"^([\w.-]+)[=<~!]", text("requirements.in"), re.MULTILINE)}
    # torchaudio is at its newest version; torch and torchvision are held back to match it.
    assert exact - behind("requirements.in").keys() == {"torchaudio"}


@pytest.mark.parametrize("lock", LOCKS.values())
def test_several_versions_of_a_package_have_python_markers(lock: str) -> None:
    by_name: dict[str, list[str]] = {}
    for name, _, marker in pins(lock):
        by_name.setdefault(name, []).append(marker)
    for name, markers in by_name.items():
        assert len(markers) == 1 or all("python_full_version" in marker for marker in markers), name


def test_files_with_hashes_are_installed_with_require_hashes(tmp_path: Path) -> None:
    hashed, plain = tmp_path / "a.txt", tmp_path / "a-torch.txt"
    hashed.write_text("a==1 \\\n    --hash=sha256:00\n")
    plain.write_text("torch==1\n")
    assert _plan_runs([hashed, plain]) == [
        (["--require-hashes", "--no-deps", "-r", str(hashed)], [hashed]),
        (["-r", str(plain)], [plain]),
    ]
    assert _plan_runs([plain]) == [(["-r", str(plain)], [plain])]
