"""The tables of the API's fields in docs/api.md: true, and complete."""

import subprocess
import sys

import pytest
from pydantic import BaseModel

from shared.schema import body
from shared.schema.table import markdown_tables
from shared.settings import PROJECT_DIR

MODELS = [
    each for each in vars(body).values() if isinstance(each, type) and issubclass(each, body.Body) and each != body.Body
]


def test_the_tables_in_the_readme_are_true() -> None:
    tables = subprocess.run(
        [sys.executable, "-m", "shared.schema"], cwd=PROJECT_DIR, capture_output=True, text=True, check=True
    ).stdout
    assert tables in (PROJECT_DIR / "docs/api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("model", MODELS)
def test_every_field_is_told_with_what_it_does(model: type[BaseModel]) -> None:
    table = markdown_tables()
    for name, field in model.model_fields.items():
        assert field.description, name
        assert f"`{name}`" in table


@pytest.mark.parametrize(
    "row",
    [
        "| `prompt` | text | required | what",
        "| `width` | whole number, 16 to 4096 |  | ",
        "| `seed` | whole number, -1 to 2^64-1 | `-1` | ",
        "| `cfg_scale` | number, 0 to 100 |  | ",
        "| `hires_fix` or `hires_fix_enabled` | true or false | `false` | ",
        "| `control_mode` | `balanced`, `prompt`, `control` | `balanced` | ",
        "| `loras` | list of at most 16 |  | ",
        "| `input_image` | text | required | ",
        "| `strength_model` | number, -10 to 10 | `1` | ",
        "| `custom_workflow` | object |  | ",
    ],
)
def test_types_and_ranges_are_in_words(row: str) -> None:
    assert f"\n{row}" in f"\n{markdown_tables()}"
