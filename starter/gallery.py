"""Generates the pictures of the README: `python -m starter.gallery FILE`, while the services are running."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from starter import PASTEL_NAME
from starter.evaluate import contact_sheet

PROMPTS = (
    "a red circle on a blue background",
    "a yellow star on a black background",
    "a pink heart on a white background",
    "a white ring on a green background",
    "an orange triangle on a purple background",
    "a black cross on a cyan background",
    "a small green diamond on the left on a gray background",
    "a large brown square on a pink background",
    "a red circle and a yellow square on a white background",
    "a green star left of a pink heart on a black background",
    "a cyan circle above an orange triangle on a blue background",
    "a white and red striped background",
    "a black heart on a yellow background with orange dots",
    "a house on a hill in the day with the sun",
    "a tree in a field at sunset with the sun",
    "a sea at night with the moon",
)
COLUMNS = 8
SEED = 3


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--service", default="http://localhost:5001")
    args = parser.parse_args()
    pictures = []
    for index, prompt in enumerate((*PROMPTS, *PROMPTS[:COLUMNS])):
        # The last row shows the second checkpoint.
        model = {"model_name": PASTEL_NAME} if index >= len(PROMPTS) else {}
        fields = {"prompt": prompt, "seed": SEED, **model}
        reply = requests.post(f"{args.service}/api/txt2img", json=fields, headers={"Accept": "image/png"}, timeout=600)
        reply.raise_for_status()
        pictures.append(np.asarray(Image.open(io.BytesIO(reply.content)).convert("RGB")))
    Image.fromarray(contact_sheet(pictures, COLUMNS)).save(args.file, optimize=True)


if __name__ == "__main__":
    main()
