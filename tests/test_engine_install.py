"""The engine's archive: only regular files of its subtree are unpacked, and none outside the target."""

import io
import tarfile
from pathlib import Path

import pytest

from shared.engine.install import ENGINE_VERSION, comfyui_version, engine_dir, install_engine, unpack_subtree
from shared.errors import SetupError

SUBTREE = ("vendor", "ComfyUI")


def archive(folder: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    path = folder / "source.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_only_the_subtree_is_unpacked(tmp_path: Path) -> None:
    source = archive(
        tmp_path,
        ("pkg-1/setup.py", b"evil()"),
        ("pkg-1/vendor/Other/x.py", b""),
        ("pkg-1/vendor/ComfyUI/main.py", b"main"),
        ("pkg-1/vendor/ComfyUI/comfy/a.py", b"a"),
    )
    unpack_subtree(source, SUBTREE, tmp_path / "out")
    assert files(tmp_path / "out") == {"main.py", "comfy/a.py"}


@pytest.mark.parametrize(
    "name", ["p/vendor/ComfyUI/../../../evil", "p/vendor/ComfyUI/..\\evil", "p/vendor/ComfyUI/C:evil"]
)
def test_a_path_outside_the_target_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SetupError, match="unsafe path"):
        unpack_subtree(archive(tmp_path, (name, b"x")), SUBTREE, tmp_path / "a" / "b" / "out")
    assert files(tmp_path) == {"source.tar.gz"}


def test_links_are_not_unpacked(tmp_path: Path) -> None:
    link = tarfile.TarInfo("p/vendor/ComfyUI/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    unpack_subtree(archive(tmp_path, link, ("p/vendor/ComfyUI/main.py", b"")), SUBTREE, tmp_path / "out")
    assert files(tmp_path / "out") == {"main.py"}


def test_a_damaged_or_wrong_archive_is_a_setup_error(tmp_path: Path) -> None:
    truncated = archive(tmp_path, ("p/vendor/ComfyUI/main.py", bytes(range(256)) * 500))
    truncated.write_bytes(truncated.read_bytes()[:300])
    with pytest.raises(SetupError, match="could not be unpacked"):
        unpack_subtree(truncated, SUBTREE, tmp_path / "out")
    with pytest.raises(SetupError, match="no folder vendor/ComfyUI"):
        unpack_subtree(archive(tmp_path, ("p/README", b"")), SUBTREE, tmp_path / "empty")


def test_an_installed_engine_is_not_downloaded_again(tmp_path: Path) -> None:
    engine_dir(tmp_path).mkdir(parents=True)
    assert install_engine(tmp_path) == engine_dir(tmp_path)


@pytest.mark.slow
def test_a_failed_download_is_an_error_and_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SetupError, match="could not download") as failed:
        install_engine(tmp_path)
    assert "DREAM_LAYER_COMFYUI_DIR" in str(failed.value.hint)
    assert list((tmp_path / "engine").iterdir()) == []


def test_the_version_is_read_from_the_folder(tmp_path: Path) -> None:
    assert comfyui_version(tmp_path) is None
    (tmp_path / "comfyui_version.py").write_text(f'__version__ = "{ENGINE_VERSION}"\n')
    assert comfyui_version(tmp_path) == ENGINE_VERSION
