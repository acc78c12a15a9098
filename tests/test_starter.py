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
from starter.assemble import FINGERPRINT, MODEL, assemble_checkpoint, is_complete, recipe_fingerprint
from starter.captions import FILLERS, caption
from starter.layout import checkpoint, unet
from starter.quantise import load_compact, save_compact
from starter.reading import read
from starter.scenes import Mix, render, sample_scene
from starter.text import OWN, USED
from starter.wide import WIDTHS, widen
from starter.words import ROW_COUNT, TOKEN_IDS, encode


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


def test_weights_fit_the_code() -> None:
    """Every tensor of the compact file finds its place, and fills every channel that the code says is in use."""
    model = load_compact(MODEL)
    assert model.pop("table").shape == (ROW_COUNT, OWN)
    assert {name: widen(name, weight, USED).shape for name, weight in model.items()} == unet()
    assert all(np.isfinite(weight).all() for weight in model.values())
    assert sum(path.stat().st_size for path in MODEL.parent.iterdir()) < 25e6


def test_quantised_weights_are_near(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((6, 4, 3, 3)).astype(np.float32)
    save_compact({"w": weight, "b": weight[:, 0, 0, 0]}, tmp_path / "x.safetensors")
    again = load_compact(tmp_path / "x.safetensors")
    assert np.abs(again["w"] - weight).max() < 0.02
    assert np.allclose(again["b"], weight[:, 0, 0, 0], atol=2e-3)


def test_a_narrow_layer_in_zeros_computes_the_same() -> None:
    rng = np.random.default_rng(0)
    narrow = rng.standard_normal((WIDTHS[0], 2 * WIDTHS[0], 1, 1)).astype(np.float16).astype(np.float32)
    wide = widen("output_blocks.5.0.skip_connection.weight", narrow, USED).astype(np.float32)
    first, second = rng.standard_normal((2, WIDTHS[0]))
    joined = np.zeros(640)
    joined[: WIDTHS[0]], joined[320 : 320 + WIDTHS[0]] = first, second
    got = wide[..., 0, 0] @ joined
    assert np.allclose(got[: WIDTHS[0]], narrow[..., 0, 0] @ np.concatenate([first, second]))
    assert not got[WIDTHS[0] :].any()


def test_synonyms_are_the_same_and_unknown_words_are_filler() -> None:
    assert (encode("a crimson disc") == encode("a red circle")).all()
    assert list(encode("xylophone", 4)) == [1, 0, 2, 2]
    assert encode("red " * 100).shape == (77,)


def test_every_word_of_a_caption_is_known_or_a_filler() -> None:
    rng = np.random.default_rng(0)
    words = {word for _ in range(500) for word in caption(sample_scene(rng, Mix()), rng).split()}
    assert words - set(TOKEN_IDS) <= {*FILLERS, "by"}


def test_a_rendered_shape_is_read_back() -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        scene = sample_scene(rng, Mix(two=0, empty=0, landscape=0, patterned=0))
        seen = read((render(scene, 128, 128) * 255).astype(np.uint8))
        thing = scene.things[0]
        assert seen is not None
        assert (seen.background, seen.colour, seen.shape) == (scene.background.colour, thing.colour, thing.shape)
    assert read(np.full((64, 64, 3), 255, np.uint8)) is None


def test_the_same_seed_is_the_same_scene() -> None:
    scenes = [sample_scene(np.random.default_rng(5), Mix()) for _ in range(2)]
    assert scenes[0] == scenes[1]
    assert render(scenes[0], 48, 64).shape == (48, 64, 3)
