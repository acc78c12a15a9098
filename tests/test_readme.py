"""What README.md says to type, typed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from shared.settings import PREFIX, PROJECT_DIR
from tests.house import TIMEOUT, TestHouse

README = (PROJECT_DIR / "README.md").read_text(encoding="utf-8")
PORTS = {"5001": "TXT2IMG", "5002": "CONTROL", "5004": "IMG2IMG"}


def block(heading: str) -> str:
    """The first shell block below a heading."""
    match = re.search(rf"^## {heading}$.*?^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert match is not None, heading
    return match[1]


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl")
def test_the_first_pictures(house: TestHouse, tmp_path: Path) -> None:
    script = block("The first pictures").replace(".venv/bin/python", sys.executable)
    for port, name in PORTS.items():
        script = script.replace(f"localhost:{port}", f"localhost:{house.environ[f'{PREFIX}{name}_PORT']}")
    subprocess.run(["bash", "-euxc", script], cwd=tmp_path, check=True, timeout=TIMEOUT)
    red, green, half = (Image.open(tmp_path / f"{name}.png").convert("RGB") for name in ("red", "green", "half"))
    assert red.size == green.size == half.size == (128, 128)
    assert ImageChops.difference(red, green).getbbox() is not None
    # The mask is white on the right: only that half was repainted.
    changed = ImageChops.difference(red, half).getbbox()
    assert changed is not None
    assert changed[0] == 64


@pytest.mark.parametrize("path", ["ARCHITECTURE.md", "README.md"])
def test_every_file_that_is_named_exists(path: str) -> None:
    text = (PROJECT_DIR / path).read_text(encoding="utf-8")
    for name in re.findall(r"`((?:shared|workflows|launcher|starter|tests|bench)/[\w./]+)`", text):
        assert (PROJECT_DIR / name).exists(), name
