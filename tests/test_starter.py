"""The starter checkpoint: its layout, and that its file is whole or made anew."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from shared.settings import PROJECT_DIR
from starter import CHECKPOINT_NAME
from starter.assemble import FINGERPRINT, assemble_checkpoint, is_complete, recipe_fingerprint
from starter.layout import checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "checkpoints"
    assert assemble_checkpoint(made) == made / CHECKPOINT_NAME
    return made


def test_the_file_has_every_tensor_of_the_layout(folder: Path) -> None:
    with safe_open(folder / CHECKPOINT_NAME, "np") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
        assert shapes == checkpoint()
        assert file.metadata()[FINGERPRINT] == recipe_fingerprint()
        assert all(np.isfinite(file.get_tensor(name)).all() for name in shapes if "taesd" in name)
    assert (folder / CHECKPOINT_NAME).stat().st_size < 400e6


def test_a_whole_file_is_left_alone(folder: Path) -> None:
    before = (folder / CHECKPOINT_NAME).stat()
    assemble_checkpoint(folder)
    assert (folder / CHECKPOINT_NAME).stat().st_mtime_ns == before.st_mtime_ns
    assert [path.name for path in folder.iterdir()] == [CHECKPOINT_NAME]


@pytest.mark.parametrize("damage", ["cut", "empty", "other recipe", "no safetensors"])
def test_any_other_file_of_that_name_is_made_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / CHECKPOINT_NAME
    fingerprint = "0" * 64 if damage == "other recipe" else recipe_fingerprint()
    header = json.dumps(
        {"__metadata__": {FINGERPRINT: fingerprint}, "x": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}}
    ).encode()
    whole = struct.pack("<Q", len(header)) + header + bytes(8)
    path.write_bytes({"cut": whole[:-1], "empty": b"", "other recipe": whole, "no safetensors": b"x" * 99}[damage])
    assert not is_complete(path, recipe_fingerprint())
    assemble_checkpoint(tmp_path)
    assert is_complete(path, recipe_fingerprint())


def test_a_file_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="taken"):
        assemble_checkpoint(tmp_path / "taken")


def test_it_runs_as_a_command_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, runpy; sys.modules['torch'] = None; sys.argv = ['assemble', sys.argv[1]];"
        "runpy.run_module('starter.assemble', run_name='__main__')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=PROJECT_DIR, check=True, capture_output=True)
    assert is_complete(tmp_path / CHECKPOINT_NAME, recipe_fingerprint())
