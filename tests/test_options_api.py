"""GET /api/options on the real engine: the complete lists, the family of each model, and new files."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from shared.engine.catalog import EngineCatalog, TtlCache
from shared.engine.client import EngineClient
from shared.errors import EngineUnavailable
from shared.models.detect import Family
from starter import CHECKPOINT_NAME, INPAINTING_NAME, PASTEL_NAME
from tests import safetensors_factory as factory
from tests.stack import TIMEOUT, TestStack


def options(url: str) -> dict[str, Any]:
    response = requests.get(f"{url}/api/options", timeout=TIMEOUT)
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def by_name(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in entries}


@contextmanager
def added(path: Path, source: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.hardlink_to(source)
    try:
        yield
    finally:
        path.unlink()


def test_every_service_lists_all_options(stack: TestStack) -> None:
    listed = options(stack.txt2img)
    assert "euler" in listed["samplers"]
    assert "karras" in listed["schedulers"]
    small = {"width": 128, "height": 128, "steps": 10, "cfg_scale": 3.0, "guidance": None}
    defaults = {**small, "sampler_name": "euler", "scheduler": "normal"}
    models = by_name(listed["checkpoints"])
    for name in (CHECKPOINT_NAME, PASTEL_NAME, INPAINTING_NAME):
        assert models[name] == {
            "name": name, "family": "sd1", "inpainting": name == INPAINTING_NAME, "defaults": defaults,
        }  # fmt: skip
    assert listed["loras"] == ["dream-layer-outline.safetensors"]
    assert {"name": "dream-layer-canny.safetensors", "family": "sd1", "union": False} in listed["controlnets"]
    assert listed["upscalers"][0] == "dream-layer-2x.safetensors"
    assert "Latent (bicubic)" in listed["hires_upscalers"]
    assert listed["embeddings"] == ["dream-layer-ruby"]
    assert by_name(listed["vaes"])["dream-layer-sepia.safetensors"]["latent_channels"] == 4
    assert listed["preprocessors"] == ["none", "canny"]
    assert listed["face_restoration"] == {"available": False, "models": []}
    assert listed["seamless_tiling"] == {"available": False}
    assert listed["defaults"] == {"model_name": CHECKPOINT_NAME, **defaults}
    assert listed["checkpoints"][0]["name"] == CHECKPOINT_NAME
    assert listed["limits"]["queue_limit"] == 1000
    assert options(stack.img2img) == options(stack.control) == listed


def test_a_new_file_is_listed_within_a_second(stack: TestStack) -> None:
    folder = stack.data_dir / "models" / "checkpoints"
    name = "added-later.safetensors"
    options(stack.txt2img)
    with added(folder / name, folder / CHECKPOINT_NAME):
        added_at = time.monotonic()
        while True:
            asked_at = time.monotonic()
            if name in by_name(options(stack.txt2img)["checkpoints"]):
                break
            assert asked_at - added_at < 1.0
            time.sleep(0.05)


def test_a_file_is_detected_by_its_header_in_any_folder(stack: TestStack, tmp_path: Path) -> None:
    folder = stack.data_dir / "models" / "diffusion_models"
    source = factory.write(folder.parent / "source.safetensors", factory.flux_transformer(guided=True))
    catalog = EngineCatalog(stack.engine_client())
    try:
        with added(folder / "deeper" / "sd15.safetensors", source):
            (name,) = catalog.names("diffusion_models")
            file = catalog.model_file("diffusion_models", name)
            assert (file.name, file.family) == (name, Family.FLUX_DEV)
    finally:
        source.unlink()


@pytest.mark.parametrize("name", ["../checkpoints/" + CHECKPOINT_NAME, "/etc/passwd", "no-such.safetensors", ""])
def test_a_name_that_the_engine_does_not_list_is_not_read(stack: TestStack, name: str) -> None:
    catalog = EngineCatalog(stack.engine_client())
    file = catalog.model_file("loras", name)
    assert (file.family, file.known) == (Family.UNKNOWN, False)


def test_missing_folders_nodes_and_inputs_have_empty_lists(stack: TestStack) -> None:
    catalog = EngineCatalog(stack.engine_client())
    assert catalog.names("no_such_folder") == []
    assert catalog.has_node("KSampler")
    assert not catalog.has_node("OpenposePreprocessor")
    assert catalog.choices("KSampler", "no_such_input") == catalog.choices("NoSuchNode", "x") == []


def test_cached_names_are_used_while_the_engine_is_unavailable() -> None:
    unreachable = EngineCatalog(EngineClient("http://127.0.0.1:9"))
    with pytest.raises(EngineUnavailable):
        unreachable.names("loras")
    answers: list[list[str] | Exception] = [["a"], EngineUnavailable("gone"), ["b"]]

    def ask(_: str) -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    cache = TtlCache(ask)
    assert cache.get("x", 60) == cache.get("x", 60) == ["a"]
    cache.expire()
    assert cache.get("x", 60) == ["a"]
    assert cache.get("x", 60) == ["b"]
