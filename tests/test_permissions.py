"""Permissions of the data folder: new files, files of older versions, and shared folders."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shared.files import restrict_permissions
from shared.settings import PROJECT_DIR, Settings
from tests.stack import TestStack

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has the rights of the user's profile")

SECRETS = (
    *("api-keys.json", "paths.json", "jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm", "launcher.json"),
    *("logs/engine.log", "logs/setup.log", "output/20261122/a.png", "uploads/a.png", "input/dream-layer/a.png"),
    *(
        "jobs.sqlite-reserve",
        "run/engine.token",
        ".k2f9.part",
        "reports/report.zip",
        "user/comfyui.db",
        "temp/a.png",
        "run/txt2img.probe",
        "workflows/shape.json",
    ),
)
SHARED = ("models/loras/a.safetensors", "engine/ComfyUI/main.py", "custom_nodes/mine.py")


def make(folder: Path, *names: str) -> None:
    """Write files as an older version did, with the usual umask."""
    umask = os.umask(0o022)
    try:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"x")
    finally:
        os.umask(umask)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_to_others(folder: Path) -> list[Path]:
    """Return the private paths that other users could read if the folder itself were open."""
    private = [path for path in folder.rglob("*") if path.relative_to(folder).parts[0] not in ("models", "engine")]
    return [path for path in private if not path.is_symlink() and mode(path) & 0o077]


def test_open_files_of_an_older_version_are_restricted_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(data, *SECRETS, *SHARED)
    assert (mode(data), mode(data / "jobs.sqlite")) == (0o755, 0o644)
    assert restrict_permissions(data, ours=False) > len(SECRETS)
    assert mode(data) == 0o700
    for name in SECRETS:
        assert (mode(data / name), mode((data / name).parent)) == (0o600, 0o700), name
    # The closed folder protects shared files, which may belong to other programs.
    for name in SHARED:
        assert mode(data / name) == 0o644
    assert restrict_permissions(data, ours=False) == 0


def test_an_open_file_in_a_closed_folder_is_restricted(tmp_path: Path) -> None:
    make(tmp_path / "data", *SECRETS)
    restrict_permissions(tmp_path / "data", ours=True)
    (tmp_path / "data" / "api-keys.json").chmod(0o640)
    assert restrict_permissions(tmp_path / "data", ours=True) == 1
    assert mode(tmp_path / "data" / "api-keys.json") == 0o600


def test_in_a_folder_with_other_files_only_our_files_are_restricted(tmp_path: Path) -> None:
    make(tmp_path / "home", *SECRETS, "letters/a.txt", "notes.txt")
    restrict_permissions(tmp_path / "home", ours=False)
    assert mode(tmp_path / "home") == 0o755
    assert [mode(tmp_path / "home" / name) for name in ("letters", "letters/a.txt", "notes.txt")] == [
        0o755, 0o644, 0o644,
    ]  # fmt: skip
    assert all(mode(tmp_path / "home" / name) == 0o600 for name in SECRETS)
    # Our own data folder is closed in any case.
    restrict_permissions(tmp_path / "home", ours=True)
    assert mode(tmp_path / "home") == 0o700


def test_links_are_not_followed(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/pictures/a.png", "elsewhere/paths.json", "data/logs/engine.log", "data/output/b.png")
    (tmp_path / "data" / "uploads").symlink_to(tmp_path / "elsewhere" / "pictures", target_is_directory=True)
    (tmp_path / "data" / "output" / "day").symlink_to(tmp_path / "elsewhere" / "pictures", target_is_directory=True)
    (tmp_path / "data" / "paths.json").symlink_to(tmp_path / "elsewhere" / "paths.json")
    # A hard link to another program's file.
    os.link(tmp_path / "elsewhere" / "paths.json", tmp_path / "data" / "workflows")
    restrict_permissions(tmp_path / "data", ours=True)
    assert mode(tmp_path / "data" / "output" / "b.png") == 0o600
    assert mode(tmp_path / "elsewhere" / "pictures") == 0o755
    assert mode(tmp_path / "elsewhere" / "pictures" / "a.png") == 0o644
    assert mode(tmp_path / "elsewhere" / "paths.json") == 0o644


def test_an_interrupted_run_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"output/day/{number}.png" for number in range(9)]
    make(tmp_path / "data", *names)
    calls, change = [], os.chmod

    def fail_after_five(path: str, mode: int) -> None:
        calls.append(path)
        if len(calls) > 5:
            raise KeyboardInterrupt
        change(path, mode)

    monkeypatch.setattr(os, "chmod", fail_after_five)
    with pytest.raises(KeyboardInterrupt):
        restrict_permissions(tmp_path / "data", ours=True)
    monkeypatch.setattr(os, "chmod", change)
    restrict_permissions(tmp_path / "data", ours=True)
    assert open_to_others(tmp_path / "data") == []


def test_permissions_of_the_owner_and_executable_bits_stay(tmp_path: Path) -> None:
    make(tmp_path / "data", "logs/a", "user/script")
    (tmp_path / "data" / "logs" / "a").chmod(0o444)
    (tmp_path / "data" / "user" / "script").chmod(0o755)
    restrict_permissions(tmp_path / "data", ours=True)
    assert (mode(tmp_path / "data/logs/a"), mode(tmp_path / "data/user/script")) == (0o400, 0o700)


def test_a_missing_data_folder_is_no_error(tmp_path: Path) -> None:
    assert restrict_permissions(tmp_path / "data", ours=True) == 0


def test_the_data_folder_is_ours_unless_a_user_chose_it(tmp_path: Path) -> None:
    assert Settings().has_own_data_dir == (Settings().data_dir == PROJECT_DIR / "data")
    assert not Settings(data_dir=tmp_path).has_own_data_dir


@pytest.mark.slow
def test_a_service_started_by_hand_restricts_permissions(tmp_path: Path) -> None:
    make(tmp_path / "data", "api-keys.json", "output/20261122/a.png")
    settings = {"DATA_DIR": str(tmp_path / "data"), "ENGINE_URL": "http://127.0.0.1:9"}
    environ = {**os.environ, **{f"DREAM_LAYER_{name}": value for name, value in settings.items()}}
    # A complete service, except for its port.
    script = (
        "import shared.web.app as app, shared.web.run_service as service, sys\n"
        "service.check_port = lambda *_: None\n"
        "service.run_service = lambda *_: None\n"
        "sys.exit(service.main(app.txt2img_app, lambda settings: settings.txt2img_port, ''))\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=PROJECT_DIR, env=environ, check=True, umask=0o022)
    assert (tmp_path / "data" / "jobs.sqlite").is_file()
    assert (mode(tmp_path / "data"), open_to_others(tmp_path / "data")) == (0o700, [])


def test_the_running_stack_leaves_no_open_files(own_stack: TestStack) -> None:
    own_stack.draw(prompt="a red circle", width=64, height=64, steps=1)
    assert mode(own_stack.data_dir) == 0o700
    assert open_to_others(own_stack.data_dir) == []
    assert list((own_stack.data_dir / "output").rglob("*.png"))
