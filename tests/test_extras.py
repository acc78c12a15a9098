"""The extras of the web page: parameters, sizes and warnings, and the pixels that the real engine draws."""

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from flask.testing import FlaskClient
from PIL import Image, ImageDraw

from shared.engine.check_graph import Problem, check_graph
from shared.errors import InvalidValue, RequestError
from shared.jobs.job import JobRow, NewJob, State
from shared.schema.body import ExtrasBody
from shared.schema.ranges import Picture
from shared.schema.request import EnlargedLayer, ExtrasRequest, FaceRestoration, FacesLayer, Upscale
from shared.settings import Settings
from shared.web.app import create_app
from shared.web.backend import Backend
from shared.web.parsing.extras import CODEFORMER, GFPGAN, parse_extras
from shared.web.parsing.parser import Parser, ParsingContext
from shared.web.parsing.upscale import factor_in_name
from shared.web.request_body import Fields
from shared.web.routes.extras import extras_routes, extras_values
from shared.web.routes.jobs import job_routes
from tests.model_library import NODES, ModelLibrary
from tests.stack import TIMEOUT, TestStack, encoded, open_rgb
from workflows.upscale import extras

SOURCE = Picture(b"source", 100, 61)
# The body that the page sends. Its default upscaler may not be installed.
PAGE = {
    "upscaler_model": "4x-ultrasharp", "upscaler_visibility": 1, "upscaler_model_2": "none", "upscaler_visibility_2": 0,
    "gfpgan_visibility": 0, "codeformer_visibility": 0, "codeformer_weight": 0, "output_format": "png",
}  # fmt: skip
# The values of its boxes before any change.
DEFAULTS = {
    "upscaler_model": "Real_ESRGAN_x4plus", "upscaler_model_2": "4x-ultrasharp", "upscaler_visibility_2": 0.25,
    "gfpgan_visibility": 0.8, "codeformer_visibility": 0.7, "codeformer_weight": 0.2,
}  # fmt: skip
LIBRARY = ModelLibrary(upscale_models=("4x-UltraSharp.pth", "anime/2x_Soft.safetensors"))


def read(
    *, library: ModelLibrary = LIBRARY, faces: list[str] | None = None, source: Picture = SOURCE, **params: Any
) -> tuple[ExtrasRequest, list[str]]:
    parser = Parser(Fields({}, {}), ParsingContext(None, library, {}.get))
    return parse_extras(parser, ExtrasBody(**{**PAGE, **params}), source, faces), parser.warnings


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("4x-UltraSharp", 4), ("RealESRGAN_x4plus.pth", 4), ("2x_Soft", 2), ("dream-layer-2x", 2), ("1x-DeJPEG", 1),
        ("4xNomos8k", 4), ("8X_NMKD", 8), ("Lanczos", None), ("swin2sr", None), ("24x7", None), ("flux4", None),
    ],
)  # fmt: skip
def test_the_factor_is_read_from_the_name(name: str, factor: float | None) -> None:
    assert factor_in_name(name) == factor


def test_the_pages_upscaler_is_found_in_any_spelling() -> None:
    request, warnings = read()
    upscale = Upscale((400, 244), model="4x-UltraSharp.pth")
    assert request == ExtrasRequest(SOURCE, Upscale((400, 244)), (EnlargedLayer(upscale, 1.0),))
    assert warnings == []


def test_a_missing_upscaler_is_replaced_with_a_warning() -> None:
    request, warnings = read(library=ModelLibrary(upscale_models=()))
    assert request.layers == (EnlargedLayer(Upscale((400, 244)), 1.0),)
    assert warnings == [
        "upscaler_model '4x-ultrasharp' does not exist, so Lanczos was used; no upscale model is installed"
    ]
    assert "use 4x-UltraSharp.pth" in read(upscaler_model="4x-ultrashrap")[1][0]


def test_two_upscalers_share_the_size_and_have_their_own_visibility() -> None:
    request, warnings = read(upscaler_model_2="2x_soft", upscaler_visibility_2=0.25, upscale_factor=3)
    assert [(layer.how.model, layer.how.size, layer.visibility) for layer in request.layers] == [
        ("4x-UltraSharp.pth", (300, 183), 1.0),
        ("anime/2x_Soft.safetensors", (300, 183), 0.25),
    ]
    assert warnings == []
    assert "nothing of the first upscaler is visible" in read(upscaler_model_2="2x_soft", upscaler_visibility_2=1)[1][0]


@pytest.mark.parametrize(
    ("params", "size"),
    [
        ({"upscaler_model": "Lanczos"}, (200, 122)),
        ({"upscaler_model": "nearest", "upscale_factor": 1.5}, (150, 92)),
        ({"upscaler_visibility": 0, "upscaler_model_2": "2x_soft", "upscaler_visibility_2": 1}, (200, 122)),
        ({"upscaler_model": "none", "upscale_factor": 2}, (200, 122)),
        ({"upscaler_model": "none", "upscale_factor": 2, "source": Picture(b"x", 100, 4)}, (200, 8)),
    ],
)
def test_the_factor_sets_the_size_of_the_result(params: dict[str, Any], size: tuple[int, int]) -> None:
    request, warnings = read(**params)
    assert request.ground.size == size
    assert warnings == []


def test_without_an_upscaler_the_size_stays_with_a_warning() -> None:
    for params in ({"upscaler_model": "none"}, {"upscaler_visibility": 0}):
        request, warnings = read(**params)
        assert (request.ground.size, request.layers) == ((100, 61), ())
        assert "keeps its size" in warnings[0]
        assert [node["class_type"] for node in extras(request, "x").to_api().values()] == ["LoadImage", "SaveImage"]


@pytest.mark.parametrize(
    ("source", "params", "field"),
    [
        ((5000, 100), {}, "upscale_factor"),
        ((4096, 100), {"output_format": "webp"}, "upscale_factor"),
        ((4000, 4000), {"output_format": "jpg"}, "output_format"),
    ],
)
def test_a_result_that_is_too_large_is_refused(source: tuple[int, int], params: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidValue) as wrong:
        read(source=Picture(b"x", *source), **params)
    assert wrong.value.field == field


def test_the_largest_factor_is_reported_and_accepted() -> None:
    wide, huge = Picture(b"x", 5000, 100), Picture(b"x", 20000, 3000)
    with pytest.raises(InvalidValue) as wrong:
        read(source=wide)
    assert wrong.value.hint == "use 3.27 or less"
    assert read(source=wide, upscale_factor=3.27)[0].ground.size == (16350, 327)
    with pytest.raises(InvalidValue) as wrong:
        read(source=huge, upscaler_model="none")
    assert wrong.value.hint == "send a smaller picture"


def test_faces_are_restored_with_the_installed_models() -> None:
    visibilities = {"gfpgan_visibility": 0.5, "codeformer_visibility": 1, "codeformer_weight": 0.7}
    request, warnings = read(faces=[CODEFORMER, GFPGAN], **visibilities)
    assert request.faces == (
        FacesLayer(FaceRestoration(GFPGAN, 0.5), 0.5),
        FacesLayer(FaceRestoration(CODEFORMER, 0.7), 1.0),
    )
    assert warnings == []
    request, warnings = read(faces=[CODEFORMER], **visibilities)
    assert len(request.faces) == 1
    assert warnings == [f"gfpgan_visibility has no effect: the face model {GFPGAN} does not exist"]
    request, warnings = read(**visibilities)
    assert request.faces == ()
    assert [warning.split()[0] for warning in warnings] == ["gfpgan_visibility", "codeformer_visibility"]


def test_a_hidden_layer_is_not_drawn() -> None:
    request, _ = read(upscaler_visibility=0.5, upscaler_model_2="2x_soft", upscaler_visibility_2=1)
    graph = extras(request, "x").to_api()
    assert "ImageBlend" not in graph
    assert graph["UpscaleModelLoader"]["inputs"]["model_name"] == "anime/2x_Soft.safetensors"
    assert "UpscaleModelLoader_2" not in graph


def test_parameters_are_read_from_params_or_the_form_fields() -> None:
    assert extras_values({"params": '{"upscaler_model": "a"}', "upscaler_model": "b", "output_format": "webp"}) == {
        "upscaler_model": "a",
        "output_format": "webp",
    }
    assert extras_values({"image": "x"}) == {}
    for params in ("{", "[1]", 5, "[" * 100_000, "[" * 900 + "]" * 900):
        with pytest.raises(InvalidValue) as wrong:
            extras_values({"params": params})
        assert wrong.value.field == "params"
    with pytest.raises(RequestError, match="'upscale_factor' was sent twice"):
        extras_values({"params": '{"upscale_factor": 2, "upscale_factor": 3}'})


class StockCatalog(ModelLibrary):
    """The nodes of a stock engine, without any upscale model."""

    def __init__(self) -> None:
        super().__init__(upscale_models=())

    def has_node(self, class_type: str, _max_age: float = 1.0) -> bool:
        return class_type in NODES

    def check(self, graph: dict[str, Any]) -> list[Problem]:
        # Only an engine knows the list of pictures.
        return [problem for problem in check_graph(graph, NODES) if problem.input != "image"]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    """The route without an engine: each accepted job completes at once."""
    backend = Backend(Settings(data_dir=tmp_path))

    def accept(job: NewJob, _uploads: Mapping[str, bytes]) -> tuple[JobRow | None, bool]:
        row, new = backend.jobs.store.add(job, "me", 1000)
        prefix = row.spec.graph["SaveImage"]["inputs"]["filename_prefix"]
        name = f"{prefix.rpartition('/')[2]}_00001_.png"
        images = [{"filename": name, "subfolder": name[:8], "type": "output"}]
        return backend.jobs.store.finish(row, "me", State.COMPLETED, images=images), new

    monkeypatch.setattr(backend.jobs, "submit", accept)
    monkeypatch.setattr(backend, "catalog", StockCatalog())
    yield create_app("control", backend.settings, [extras_routes, job_routes], backend).test_client()
    backend.stop()


def form(**params: Any) -> dict[str, Any]:
    """Return the body of the page's request."""
    return {"image": (io.BytesIO(encoded(small())), "a.png"), "params": json.dumps({**PAGE, **params})}


def test_the_reply_has_the_address_in_data_output_image(client: FlaskClient) -> None:
    response = client.post("/api/extras/upscale", data=form(output_format="webp", gfpgan_visibility=1))
    assert response.status_code == 200, response.text
    reply = response.get_json()
    assert reply["status"] == "success"
    (image,) = reply["comfy_response"]["generated_images"]
    assert (image["width"], image["height"]) == (360, 244)
    assert reply["data"] == {"output_image": f"http://localhost/api/images/{image['filename'][:-4]}.webp"}
    assert [warning.split()[0] for warning in reply["warnings"]] == ["upscaler_model", "gfpgan_visibility"]
    assert client.get(f"/api/jobs/{reply['job_id']}").get_json()["kind"] == "extras"


@pytest.mark.parametrize(
    ("sent", "ending"),
    [("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp"), ("image/webp", "webp"), (".png", "png"), (".JPG", "jpg")],
)
def test_the_web_pages_defaults_are_accepted(client: FlaskClient, sent: str, ending: str) -> None:
    response = client.post("/api/extras/upscale", data=form(**DEFAULTS, output_format=sent))
    assert response.status_code == 200, response.text
    reply = response.get_json()
    (image,) = reply["comfy_response"]["generated_images"]
    # Both names mean a factor of four, although neither model is installed.
    assert (image["width"], image["height"]) == (360, 244)
    assert reply["data"]["output_image"].endswith(f".{ending}")
    assert reply["parameters"]["output_format"] == ending
    # One warning for each model of the page that a stock engine lacks.
    assert [warning.split()[0] for warning in reply["warnings"]] == [
        *("upscaler_model", "upscaler_model_2", "gfpgan_visibility", "codeformer_visibility"),
    ]


def test_the_web_pages_defaults_with_all_models_installed() -> None:
    library = ModelLibrary(upscale_models=("RealESRGAN_x4plus.pth", "4x-UltraSharp.pth"))
    request, warnings = read(library=library, faces=[GFPGAN, CODEFORMER], **DEFAULTS, output_format="PNG")
    assert [(layer.how.model, layer.visibility) for layer in request.layers] == [
        ("RealESRGAN_x4plus.pth", 1.0),
        ("4x-UltraSharp.pth", 0.25),
    ]
    assert [layer.visibility for layer in request.faces] == [0.8, 0.7]
    assert request.faces[1].how == FaceRestoration(CODEFORMER, 0.2)
    assert warnings == []


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"upscaler_visibility": 2}, "upscaler_visibility"),
        ({"output_format": "exe"}, "output_format"),
        ({"upscale_factor": 0}, "upscale_factor"),
    ],
)
def test_an_invalid_parameter_is_named(client: FlaskClient, params: dict[str, Any], field: str) -> None:
    refused = client.post("/api/extras/upscale", data=form(**params))
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, field)


def test_a_missing_or_damaged_picture_is_reported(client: FlaskClient) -> None:
    damaged = {**form(), "image": (io.BytesIO(b"no picture"), "a.png")}
    for body in ({"params": "{}"}, damaged):
        refused = client.post("/api/extras/upscale", data=body, content_type="multipart/form-data")
        assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "image")


def test_unknown_fields_are_reported(client: FlaskClient) -> None:
    reply = client.post("/api/extras/upscale", data=form(upscaler_model="Lanczos", upscaler_modl_2="x")).get_json()
    assert reply["warnings"] == ["ignored unknown fields: upscaler_modl_2 (did you mean upscaler_model_2?)"]


def test_a_transparent_picture_stays_transparent_without_a_warning(client: FlaskClient) -> None:
    erased = small().convert("RGBA")
    erased.paste((0, 0, 0, 0), (0, 0, 30, 61))
    body = {
        "image": (io.BytesIO(encoded(erased)), "a.png"),
        "params": json.dumps({**PAGE, "upscaler_model": "Lanczos"}),
    }
    reply = client.post("/api/extras/upscale", data=body).get_json()
    assert reply["warnings"] == []
    graph = reply["workflow"]["prompt"]
    assert graph["SaveImage"]["inputs"]["images"] == ["JoinImageWithAlpha", 0]
    params = json.dumps({**PAGE, "upscaler_model": "Lanczos", "output_format": "JPEG"})
    as_jpeg = client.post(
        "/api/extras/upscale", data={"image": (io.BytesIO(encoded(erased)), "a.png"), "params": params}
    )
    (warning,) = as_jpeg.get_json()["warnings"]
    assert warning.startswith("image is transparent (33.3% of it): those parts are taken as white; png and webp keep")


def small() -> Image.Image:
    image = Image.new("RGB", (90, 61), "blue")
    ImageDraw.Draw(image).ellipse((20, 10, 60, 50), fill="red")
    return image


def send(stack: TestStack, **params: Any) -> requests.Response:
    files = {"image": ("a.png", encoded(small()), "image/png")}
    data = {"params": json.dumps({**PAGE, **params})}
    headers = {"Origin": "http://localhost:8080"}
    return requests.post(f"{stack.extras}/api/extras/upscale", files=files, data=data, headers=headers, timeout=TIMEOUT)


def levels(image: Image.Image) -> "np.ndarray[Any, Any]":
    return np.asarray(image, dtype=float)


def test_the_reply_has_the_address_of_the_enlarged_picture(stack: TestStack) -> None:
    response = send(stack)
    assert response.status_code == 200, response.text
    assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:8080"
    reply = response.json()
    assert reply["status"] == "success"
    assert "Lanczos was used" in reply["warnings"][0]
    url = reply["data"]["output_image"]
    assert url.startswith(f"{stack.extras}/api/images/")
    picture = open_rgb(requests.get(url, timeout=TIMEOUT).content)
    assert picture.size == (360, 244)
    assert abs(levels(picture.resize((90, 61), Image.Resampling.BOX)) - levels(small())).mean() < 6
    # It is recorded as a job, and the other services serve its picture, too.
    assert stack.job(reply["job_id"])["kind"] == "extras"
    name = url.rpartition("/")[2]
    assert requests.get(f"{stack.txt2img}/api/images/{name}", timeout=TIMEOUT).ok


@pytest.mark.parametrize(("output", "start"), [("webp", b"RIFF"), ("jpg", b"\xff\xd8"), ("png", b"\x89PNG")])
def test_the_picture_has_the_chosen_format(stack: TestStack, output: str, start: bytes) -> None:
    reply = send(stack, upscaler_model="dream-layer-2x", output_format=output).json()
    assert reply["warnings"] == []
    url = reply["data"]["output_image"]
    assert url.endswith(f".{output}")
    content = requests.get(url, timeout=TIMEOUT).content
    assert content.startswith(start)
    assert open_rgb(content).size == (180, 122)


def test_two_upscalers_are_blended_by_visibility(stack: TestStack) -> None:
    def drawn(**params: Any) -> "np.ndarray[Any, Any]":
        reply = send(stack, upscale_factor=2, **params).json()
        return levels(open_rgb(requests.get(reply["data"]["output_image"], timeout=TIMEOUT).content))

    model, nearest = drawn(upscaler_model="dream-layer-2x"), drawn(upscaler_model="Nearest")
    assert abs(model - nearest).max() > 20
    both = drawn(upscaler_model="dream-layer-2x", upscaler_model_2="Nearest", upscaler_visibility_2=0.25)
    # Rounding changes a level by at most one.
    assert abs(both - (0.75 * model + 0.25 * nearest)).max() <= 1.5


def test_face_restoration_without_its_models_adds_warnings(stack: TestStack) -> None:
    reply = send(stack, upscaler_model="Lanczos", gfpgan_visibility=1, codeformer_visibility=0.5).json()
    assert [warning.split()[0] for warning in reply["warnings"]] == ["gfpgan_visibility", "codeformer_visibility"]


def test_the_parameters_of_a_reply_can_be_sent_again(stack: TestStack) -> None:
    reply = send(stack, upscaler_model="dream-layer-2x").json()
    repeated = requests.post(f"{stack.extras}/api/extras/upscale", json=reply["parameters"], timeout=TIMEOUT).json()
    assert stack.picture(repeated).tobytes() == stack.picture(reply).tobytes()
