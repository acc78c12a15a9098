"""Finished pictures in other formats: the limits of formats and memory are reported, and no job is lost."""

import io
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image

from shared.errors import Busy, InvalidValue, NotAcceptable
from shared.images.budget import MemoryBudget
from shared.images.encode import BYTES_TO_ENCODE, MAX_PIXELS, MAX_SIDES, OutputFormat, convert_png, format_limits
from shared.jobs.job import JobRow, NewJob, State
from shared.schema.ranges import Picture
from shared.settings import Settings
from shared.web.app import create_app
from shared.web.backend import Backend
from shared.web.routes.pictures import picture_routes
from shared.web.routes.upscale import upscale_routes
from tests.stack import encoded
from tests.test_extras import StockCatalog, read

SETTING = "DREAM_LAYER_PICTURE_MEMORY_MB"
SMALL = encoded(Image.new("RGB", (100, 100), "red"))
SIZES: list[tuple[OutputFormat, int]] = [("webp", 16_383), ("jpeg", 65_500)]


@pytest.mark.parametrize(("output", "side"), SIZES)
def test_the_largest_side_of_a_format_is_the_encoders_own(output: OutputFormat, side: int) -> None:
    for size in ((side, 1), (1, side)):
        assert Image.open(io.BytesIO(convert_png(encoded(Image.new("L", size)), output).content)).size == size
    for size in ((side + 1, 1), (1, side + 1)):
        with pytest.raises(NotAcceptable, match=f"at most {side} pixels a side") as refused:
            convert_png(encoded(Image.new("L", size)), output)
        assert "PNG" in str(refused.value.hint)


@pytest.mark.parametrize("output", BYTES_TO_ENCODE)
def test_encoding_reserves_memory_first(output: OutputFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = 100 * 100 * BYTES_TO_ENCODE[output]
    budget = MemoryBudget(cost, SETTING, patience=0.01)
    reserved: list[int] = []
    monkeypatch.setattr("shared.images.encode._encode", lambda *_: reserved.append(budget.used))
    convert_png(SMALL, output, budget=budget)
    assert (reserved, budget.used) == ([cost], 0)
    with budget.reserve(1, "another"), pytest.raises(Busy) as busy:
        convert_png(SMALL, output, budget=budget)
    assert busy.value.retry_after
    with pytest.raises(NotAcceptable) as refused:
        convert_png(SMALL, output, budget=MemoryBudget(cost - 1, SETTING))
    assert SETTING in str(refused.value.hint)
    assert len(reserved) == 1


def test_a_conversion_waits_for_memory() -> None:
    budget = MemoryBudget(100 * 100 * BYTES_TO_ENCODE["webp"], SETTING, patience=60)
    converted: list[bytes] = []
    with budget.reserve(budget.limit, "another"):
        waiting = threading.Thread(target=lambda: converted.append(convert_png(SMALL, "webp", budget=budget).content))
        waiting.start()
        waiting.join(0.2)
        assert converted == []
    waiting.join(30)
    assert len(converted) == 1


def test_an_incomplete_png_is_rejected(tmp_path: Path) -> None:
    noise = encoded(Image.effect_noise((64, 64), 90))
    for number, broken in enumerate((b"", b"png", noise[:40], noise[:1500])):
        path = tmp_path / f"{number}.png"
        path.write_bytes(broken)
        with pytest.raises(NotAcceptable, match="cannot be written as webp") as refused:
            convert_png(path, "webp")
        assert str(tmp_path) not in str(refused.value)


def test_limits_follow_the_budget() -> None:
    assert format_limits("png") is None
    small = format_limits("webp", MemoryBudget(28_000_000, SETTING))
    assert small is not None
    assert (small.pixels, small.setting, small.side) == (1_000_000, SETTING, MAX_SIDES["webp"])
    assert "limited to 1 megapixels" in str(small.explain_excess((2000, 1000)))
    large = format_limits("webp", MemoryBudget(10**10, SETTING))
    assert large is not None
    assert (large.pixels, large.setting) == (MAX_PIXELS, None)


def test_extras_reject_a_size_that_the_format_cannot_hold() -> None:
    for output in ("webp", "jpg"):
        with pytest.raises(InvalidValue) as refused:
            read(source=Picture(b"x", 4000, 4000), output_format=output, upscale_factor=2.5)
        assert refused.value.field == "output_format"
    read(source=Picture(b"x", 4000, 4000), output_format="png", upscale_factor=2.5)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FlaskClient, Backend, dict[str, Any]]]:
    """POST /api/upscale without an engine: jobs complete at once with the picture `state["picture"]`."""
    backend = Backend(Settings(data_dir=tmp_path))
    state: dict[str, Any] = {"picture": SMALL, "jobs": []}

    def accept(job: NewJob, _uploads: Mapping[str, bytes]) -> tuple[JobRow | None, bool]:
        row, new = backend.jobs.store.add(job, "me", 1000)
        folder, _, prefix = row.spec.graph["SaveImage"]["inputs"]["filename_prefix"].partition("/")
        path = backend.settings.output_dir / folder / f"{prefix}_00001_.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(state["picture"])
        state["jobs"].append(row.id)
        image = {"filename": path.name, "subfolder": folder, "type": "output"}
        return backend.jobs.store.finish(row, "me", State.COMPLETED, images=[image]), new

    monkeypatch.setattr(backend.jobs, "submit", accept)
    monkeypatch.setattr(backend, "catalog", StockCatalog())
    routes = [upscale_routes, picture_routes]
    yield create_app("txt2img", backend.settings, routes, backend).test_client(), backend, state
    backend.stop()


def post_upscale(client: FlaskClient, accept: str, size: tuple[int, int] = (20, 10), **fields: Any) -> Any:
    body = {"image": (io.BytesIO(encoded(Image.new("RGB", size, "red"))), "a.png"), **fields}
    return client.post("/api/upscale", data=body, headers={"Accept": accept}, buffered=True)


Served = tuple[FlaskClient, Backend, dict[str, Any]]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("image/png", "PNG"),
        ("image/webp", "WEBP"),
        ("image/jpeg", "JPEG"),
        ("image/jpg", "JPEG"),
        ("image/*", "PNG"),
        ("image/avif,image/webp,image/apng,image/*,*/*;q=0.8", "WEBP"),
    ],
)
def test_the_accept_header_chooses_the_format(served: Served, accept: str, kind: str) -> None:
    result = post_upscale(served[0], accept)
    assert result.status_code == 200, result.text
    assert result.mimetype == f"image/{kind.lower()}"
    assert Image.open(io.BytesIO(result.data)).format == kind
    assert result.headers["X-Job-Id"] == served[2]["jobs"][0]
    assert "Cache-Control" not in result.headers or "max-age" not in result.headers["Cache-Control"]


@pytest.mark.parametrize(("output", "side"), SIZES)
def test_a_finished_picture_that_the_format_cannot_hold_is_still_available(
    served: Served, output: str, side: int
) -> None:
    client, _, state = served
    state["picture"] = encoded(Image.new("RGB", (side + 1, 1), "red"))
    refused = post_upscale(client, f"image/{output}")
    assert refused.status_code == 406, refused.text
    reply = refused.get_json()
    assert f"at most {side} pixels a side" in reply["message"]
    error = reply["error"]
    assert (error["code"], error["job_id"]) == ("not_acceptable", state["jobs"][0])
    (address,) = error["images"]
    assert Image.open(io.BytesIO(client.get(address, buffered=True).data)).size == (side + 1, 1)
    named = client.get(address.replace(".png", f".{output}"))
    assert (named.status_code, named.get_json()["error"]["field"]) == (422, "name")
    assert f"at most {side} pixels a side" in named.get_json()["message"]


def test_a_client_that_accepts_png_gets_it_with_a_warning(served: Served) -> None:
    client, _, state = served
    state["picture"] = encoded(Image.new("RGB", (16_384, 1), "red"))
    result = post_upscale(client, "image/webp, image/png;q=0.5")
    assert (result.status_code, result.mimetype) == (200, "image/png")
    (warning,) = json.loads(result.headers["X-Warnings"])
    assert "at most 16383 pixels a side" in warning
    assert warning.endswith("sent as PNG")


def test_a_known_size_is_rejected_before_the_job(served: Served) -> None:
    client, _, state = served
    refused = post_upscale(client, "image/webp", (2048, 1), upscale_factor="8")
    assert (refused.status_code, state["jobs"]) == (406, [])
    assert post_upscale(client, "application/json", (2048, 1), upscale_factor="8").status_code == 200
    assert post_upscale(client, "image/webp, image/*;q=0.1", (2048, 1), upscale_factor="8").status_code == 200


def test_busy_reports_the_url_of_the_picture(served: Served) -> None:
    client, backend, state = served
    backend.picture_memory = MemoryBudget(1_000_000, SETTING, patience=0.01)
    cost = 100 * 100 * BYTES_TO_ENCODE["webp"]
    with backend.picture_memory.reserve(1_000_000 - cost + 1, "another"):
        busy = post_upscale(client, "image/webp")
        by_name = client.get(busy.get_json()["error"]["images"][0].replace(".png", ".webp"))
    assert (busy.status_code, by_name.status_code) == (503, 503)
    assert busy.get_json()["error"]["job_id"] == state["jobs"][0]
    assert busy.headers["Retry-After"]
    assert post_upscale(client, "image/webp").status_code == 200


def test_jpeg_warns_about_the_background_of_transparency(served: Served) -> None:
    client, _, state = served
    image = Image.new("RGBA", (40, 10), (200, 16, 32, 255))
    image.paste((0, 0, 0, 0), (0, 0, 10, 10))
    state["picture"] = encoded(image)
    result = post_upscale(client, "image/jpeg")
    (warning,) = json.loads(result.headers["X-Warnings"])
    assert warning == (
        "the picture is transparent (25.0% of it): those parts are taken as white, because jpeg has no transparency"
    )
    assert min(Image.open(io.BytesIO(result.data)).getpixel((2, 5))) >= 250  # type: ignore[type-var,arg-type]
    webp = post_upscale(client, "image/webp")
    assert "X-Warnings" not in webp.headers
    assert Image.open(io.BytesIO(webp.data)).convert("RGBA").getpixel((2, 5))[3] == 0  # type: ignore[index]


def test_extensions_are_case_insensitive(served: Served) -> None:
    client, _, _ = served
    address = post_upscale(client, "application/json").get_json()["comfy_response"]["generated_images"][0]["url"]
    for ending, kind in (("PNG", "PNG"), ("JPG", "JPEG"), ("WebP", "WEBP")):
        assert (
            Image.open(io.BytesIO(client.get(address.replace(".png", f".{ending}"), buffered=True).data)).format == kind
        )


@pytest.mark.parametrize("accept", ["image/png", "image/webp"])
def test_a_picture_deleted_meanwhile_is_gone(
    served: Served, accept: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client, backend, state = served
    monkeypatch.setattr(backend.jobs.files.pictures, "find", lambda _: tmp_path / "removed.png")
    response = post_upscale(client, accept)
    assert (response.status_code, response.get_json()["error"]["code"]) == (500, "generation_failed")
    assert str(tmp_path) not in response.text
    row = backend.jobs.store.get(state["jobs"][0])
    assert row is not None
    name = row.images[0]["filename"]
    assert client.get(f"/api/images/{name[:-4]}.{accept[6:]}").status_code == 404
