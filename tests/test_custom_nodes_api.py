"""What needs custom nodes works in an engine that has nodes of those names and inputs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from PIL import Image, ImageDraw

from tests.conftest import launched, launcher_environment
from tests.house import TIMEOUT, TestHouse, data_url

NODES = Path(__file__).parent / "data" / "known_nodes.py"
QUICK = {"prompt": "a red circle on a blue background", "seed": 5, "steps": 2, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def rich_house(house: TestHouse, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestHouse]:
    """A house whose user has put custom nodes where README says."""
    folder = tmp_path_factory.mktemp("rich")
    (folder / "data" / "custom_nodes").mkdir(parents=True)
    shutil.copy(NODES, folder / "data" / "custom_nodes")
    (folder / "data" / "models").symlink_to(house.data_dir / "models", target_is_directory=True)
    with launched(folder, launcher_environment(folder / "data")) as running:
        yield running


def test_the_options_tell_that_they_are_there(rich_house: TestHouse) -> None:
    options = requests.get(f"{rich_house.txt2img}/api/options", timeout=TIMEOUT).json()
    assert "lineart" in options["preprocessors"]
    assert options["face_restoration"] == {"available": True, "models": ["codeformer.pth"]}
    assert options["seamless_tiling"] == {"available": True}


def test_seamless_tiling_and_face_restoration(rich_house: TestHouse) -> None:
    reply = rich_house.draw(**QUICK, tiling=True, restore_faces=True, codeformer_weight=0.8)
    picture = rich_house.picture(reply)
    assert picture.getpixel((10, 0)) == (255, 0, 0)
    assert picture.getpixel((10, 63)) == (204, 204, 204)
    assert reply["warnings"] == []


def test_a_preprocessor_of_custom_nodes(rich_house: TestHouse) -> None:
    lines = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(lines).rectangle((8, 22, 40, 56), outline="black", width=3)
    inverted = lines.point(lambda level: 255 - level)
    unit = {"model": "dream-layer-canny", "input_image": data_url(lines), "preprocessor": "lineart"}
    ready = {**unit, "input_image": data_url(inverted), "preprocessor": "none"}
    pictures = [rich_house.picture(rich_house.draw(**QUICK, controlnet={"units": [each]})) for each in (unit, ready)]
    assert pictures[0].tobytes() == pictures[1].tobytes()


def test_a_face_model_that_is_not_there_is_a_422(rich_house: TestHouse) -> None:
    response = requests.post(
        f"{rich_house.txt2img}/api/txt2img",
        json={**QUICK, "restore_faces": True, "face_restoration_model": "other.pth"},
        timeout=TIMEOUT,
    )
    assert response.status_code == 422
    assert response.json()["error"]["field"] == "face_restoration_model"
    assert response.json()["error"]["nearest"] == ["codeformer.pth"]
