"""A small request, a small source picture and comparisons of pictures, for tests over HTTP."""

from typing import Any

import requests
from PIL import Image, ImageChops

from tests.stack import TIMEOUT, TestStack

SOURCE = Image.new("RGB", (64, 64), (200, 10, 0))
SMALL = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 2, "seed": 7}


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and ImageChops.difference(one, other).getbbox() is None


def alike(one: Image.Image, other: Image.Image) -> bool:
    """Return whether no channel differs by more than one level."""
    return max(high for _, high in ImageChops.difference(one, other).getextrema()) <= 1


def post(stack: TestStack, path: str, body: Any, **headers: str) -> requests.Response:
    return requests.post(f"{stack.txt2img}{path}", json=body, headers=headers, timeout=TIMEOUT)
