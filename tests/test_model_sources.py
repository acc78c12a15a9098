"""The argument of `models add`: files, URLs and names, and which host receives which key."""

from pathlib import Path

import pytest

from launcher.models.commands import downloadable_table
from launcher.models.sources import Download, resolve_source
from shared.models.detect import MODEL_KINDS
from shared.models.downloadable import DOWNLOADABLE_MODELS, find_downloadable
from shared.site_keys import KeyRing


def download(text: str, keys: KeyRing) -> Download:
    source = resolve_source(text, keys)
    assert isinstance(source, Download)
    return source


def test_the_token_is_sent_only_to_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert download("sdxl", KeyRing(tmp_path)).headers == {"Authorization": "Bearer hf_secret"}
    other = download("https://example.org/a/b/resolve/main/x.safetensors", KeyRing(tmp_path))
    assert (other.headers, other.hub) == ({}, False)


def test_a_stored_key_is_sent_only_to_its_own_host_over_https(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("launcher.models.sources.get_token", lambda: None)
    keys = KeyRing(tmp_path)
    assert download("sdxl", keys).headers == {}
    keys.add("HF_TOKEN", "of the hub")
    keys.add("Civitai API key", "of the other")
    keys.add("OPENAI_API_KEY", "of nobody here")
    address = "civitai.com/api/download/models/1"
    sent_headers = [download(text, keys).headers for text in ("sdxl", f"https://{address}", f"http://{address}")]
    assert sent_headers == [{"Authorization": "Bearer of the hub"}, {"Authorization": "Bearer of the other"}, {}]
    for text in ("https://civitai.com.example.org/x", "https://example.org/civitai.com"):
        assert download(text, keys).headers == {}
    assert "of the" not in repr(download("sdxl", keys))


@pytest.mark.parametrize(("text", "name"), [("SD 1.5", "sd15"), ("sdxl_base", "sdxl"), ("SDXL-Turbo", "sdxl-turbo")])
def test_known_models_are_found_by_similar_names(text: str, name: str) -> None:
    assert find_downloadable(text) == DOWNLOADABLE_MODELS[name]


def test_known_models_are_complete() -> None:
    for model in DOWNLOADABLE_MODELS.values():
        assert model.kind in MODEL_KINDS
        assert model.file.endswith(".safetensors")
        assert model.licence
        assert model.sha256 is None or len(model.sha256) == 64
        assert len(model.repository.split("/")) == 2


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_the_list_fits_a_narrow_terminal(columns: int) -> None:
    wide = downloadable_table(DOWNLOADABLE_MODELS, [], 200)
    assert wide == downloadable_table(DOWNLOADABLE_MODELS, [])
    assert len(wide.splitlines()) == 1 + len(DOWNLOADABLE_MODELS)
    narrow = downloadable_table(DOWNLOADABLE_MODELS, [DOWNLOADABLE_MODELS["sd15"].file], columns).splitlines()
    assert len(narrow) == 2 * len(DOWNLOADABLE_MODELS)
    assert max(map(len, narrow)) < 80
    assert narrow[0].split() == ["sd15", "Stable", "Diffusion", "1.5"]
    assert narrow[1].strip().endswith("known sha256, installed")
