"""The starter model: the layout of its files, their assembly, and the vocabulary."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from shared.settings import PROJECT_DIR
from starter import CHECKPOINT_NAME, INPAINTING_NAME
from starter.assemble import FINGERPRINT, KIT, STARTER, assemble, current_fingerprint, is_up_to_date
from starter.builders import FINGERPRINT_KEY, WEIGHTS, weights_fingerprint
from starter.layout import checkpoint_shapes
from starter.quantisation import load_quantised, save_quantised
from starter.scenes import (
    COLOURS,
    PALETTE,
    SHAPES,
    Background,
    Mix,
    Scene,
    SceneShape,
    held_out,
    render,
    sample_scene,
)
from starter.shape_detection import detect_shapes
from starter.training.captions import FILLERS, caption, encode_caption
from starter.vocabulary import TOKEN_IDS
from starter.widening import WIDTHS, widen, widen_factors


@pytest.fixture(scope="module")
def starter_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    assert assemble(folder) == [folder / file.folder / file.name for file in (STARTER, *KIT)]
    return folder


@pytest.mark.parametrize(("name", "inputs"), [(CHECKPOINT_NAME, 4), (INPAINTING_NAME, 9)])
def test_a_checkpoint_has_every_tensor_of_the_layout(starter_models: Path, name: str, inputs: int) -> None:
    path = starter_models / "checkpoints" / name
    with safe_open(path, "np") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
        assert shapes == checkpoint_shapes(inputs)
        assert file.metadata()[FINGERPRINT] == current_fingerprint()
        assert all(np.isfinite(file.get_tensor(name)).all() for name in shapes)
    assert path.stat().st_size < 400e6


def test_complete_files_are_not_rewritten(starter_models: Path) -> None:
    assert assemble(starter_models) == []
    assert not list(starter_models.rglob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "empty", "other recipe", "no safetensors"])
def test_damaged_and_outdated_files_are_rebuilt(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "checkpoints" / CHECKPOINT_NAME
    fingerprint = "0" * 64 if damage == "other recipe" else current_fingerprint()
    header = json.dumps(
        {"__metadata__": {FINGERPRINT: fingerprint}, "x": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}}
    ).encode()
    whole = struct.pack("<Q", len(header)) + header + bytes(8)
    path.parent.mkdir()
    path.write_bytes({"cut": whole[:-1], "empty": b"", "other recipe": whole, "no safetensors": b"x" * 99}[damage])
    assert not is_up_to_date(path, current_fingerprint())
    assert assemble(tmp_path, (STARTER,)) == [path]
    assert is_up_to_date(path, current_fingerprint())


def test_a_file_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="taken"):
        assemble(tmp_path / "taken", (STARTER,))


@pytest.mark.slow
def test_assembly_runs_as_a_command_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, runpy; sys.modules['torch'] = None; sys.argv = ['assemble', sys.argv[1]];"
        "runpy.run_module('starter.assemble', run_name='__main__')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=PROJECT_DIR, check=True, capture_output=True)
    assert is_up_to_date(tmp_path / "checkpoints" / CHECKPOINT_NAME, current_fingerprint())


@pytest.mark.parametrize("path", sorted(WEIGHTS.glob("*.safetensors")), ids=lambda path: path.stem)
def test_weights_were_trained_for_this_code(path: Path) -> None:
    with safe_open(path, "np") as file:
        assert file.metadata()[FINGERPRINT_KEY] == weights_fingerprint()
    assert all(np.isfinite(weight).all() for weight in load_quantised(path).values())


def test_weights_are_small_enough_for_the_repository() -> None:
    sizes = {path.stem: path.stat().st_size for path in WEIGHTS.glob("*.safetensors")}
    base = sizes.pop("model") + sizes.pop("autoencoder")
    assert base < 25e6
    assert sum(sizes.values()) < 25e6


def test_quantised_weights_are_close_to_the_original(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((6, 4, 3, 3)).astype(np.float32)
    save_quantised({"w": weight, "b": weight[:, 0, 0, 0]}, tmp_path / "x.safetensors", {})
    restored = load_quantised(tmp_path / "x.safetensors")
    assert np.abs(restored["w"] - weight).max() < 0.02
    assert np.allclose(restored["b"], weight[:, 0, 0, 0], atol=2e-3)


def test_a_narrow_layer_padded_with_zeros_computes_the_same() -> None:
    rng = np.random.default_rng(0)
    narrow = rng.standard_normal((WIDTHS[0], 2 * WIDTHS[0], 1, 1)).astype(np.float16).astype(np.float32)
    wide = widen("output_blocks.5.0.skip_connection.weight", narrow).astype(np.float32)
    first, second = rng.standard_normal((2, WIDTHS[0]))
    joined = np.zeros(640)
    joined[: WIDTHS[0]], joined[320 : 320 + WIDTHS[0]] = first, second
    result = wide[..., 0, 0] @ joined
    assert np.allclose(result[: WIDTHS[0]], narrow[..., 0, 0] @ np.concatenate([first, second]))
    assert not result[WIDTHS[0] :].any()


@pytest.mark.parametrize(
    "name", ["output_blocks.2.0.in_layers.2.weight", "input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight"]
)
def test_the_product_of_widened_factors_is_the_widened_product(name: str) -> None:
    shape = load_quantised(WEIGHTS / "model.safetensors")[name].shape
    # Small whole numbers, so that half precision is exact.
    rng = np.random.default_rng(0)
    up, down = (rng.integers(-3, 4, size).astype(np.float32) for size in ((shape[0], 2), (2, int(np.prod(shape[1:])))))
    wide_up, wide_down = widen_factors(name, shape, up, down)
    product = wide_up.reshape(len(wide_up), -1).astype(np.float32) @ wide_down.reshape(2, -1).astype(np.float32)
    assert np.array_equal(product.reshape(len(wide_up), *wide_down.shape[1:]), widen(name, (up @ down).reshape(shape)))


def test_synonyms_are_encoded_alike_and_unknown_words_are_fillers() -> None:
    assert (encode_caption("a crimson disc") == encode_caption("a red circle")).all()
    assert list(encode_caption("xylophone", 4)) == [1, 0, 2, 2]
    assert encode_caption("red " * 100).shape == (77,)


def test_every_word_of_a_caption_is_known_or_a_filler() -> None:
    rng = np.random.default_rng(0)
    words = {word for _ in range(500) for word in caption(sample_scene(rng, Mix()), rng).split()}
    assert words - set(TOKEN_IDS) <= {*FILLERS, "by"}


def test_a_rendered_shape_is_detected() -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        scene = sample_scene(rng, Mix(two=0, empty=0, landscape=0, patterned=0))
        detected = detect_shapes((render(scene, 128, 128) * 255).astype(np.uint8))
        thing = scene.things[0]
        assert detected.background == scene.background.colour
        assert detected.shows(thing.colour, thing.shape)
    assert detect_shapes(np.full((64, 64, 3), 255, np.uint8)).things == ()


def test_two_rendered_shapes_are_detected() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        scene = sample_scene(rng, Mix(one=0, empty=0, landscape=0, patterned=0))
        detected = detect_shapes((render(scene, 128, 128) * 255).astype(np.uint8))
        assert len(detected.things) == 2
        assert all(detected.shows(thing.colour, thing.shape) for thing in scene.things)


@pytest.mark.parametrize("side", [64, 128, 256, 512])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_detected_at_every_size(shape: str, side: int) -> None:
    scene = Scene(Background("plain", "white", "white"), (SceneShape(shape, "blue", 0.45, 0.55, 0.3),))
    (thing,) = detect_shapes((render(scene, side, side) * 255).astype(np.uint8)).things
    assert (thing.shape, thing.colour) == (shape, "blue")
    assert thing.match > 0.9


@pytest.mark.parametrize("side", [128, 512])
def test_a_square_with_bent_sides_is_a_square_and_a_rectangle_is_not(side: int) -> None:
    y, x = (axis / side * 2 - 1 for axis in np.mgrid[:side, :side] + 0.5)
    bent = np.maximum(np.abs(x) / (0.4 + 0.3 * y**2), np.abs(y) / (0.4 + 0.3 * x**2)) < 1
    rectangle = (np.abs(x) < 0.8) & (np.abs(y) < 0.4)
    squares = [
        detect_shapes(np.where(mask[..., None], PALETTE["blue"], PALETTE["white"]).astype(np.uint8)).shows(
            "blue", "square"
        )
        for mask in (bent, rectangle)
    ]
    assert squares == [True, False]


def test_held_out_combinations_never_occur_in_training() -> None:
    rng = np.random.default_rng(3)
    scenes = [sample_scene(rng, Mix()) for _ in range(2000)]
    shown = {(thing.shape, thing.colour, scene.background.colour) for scene in scenes for thing in scene.things}
    out = {(s, c, b) for s in SHAPES for c in COLOURS for b in COLOURS if c != b and held_out(s, c, b)}
    assert len(out) == 96
    assert not shown & out
    assert len(shown) > 800


def test_the_same_seed_gives_the_same_scene() -> None:
    scenes = [sample_scene(np.random.default_rng(5), Mix()) for _ in range(2)]
    assert scenes[0] == scenes[1]
    assert render(scenes[0], 48, 64).shape == (48, 64, 3)
