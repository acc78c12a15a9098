"""The tables in docs/ that are generated from the code are complete and up to date."""

import re
import subprocess
import sys

import pytest
from pydantic import BaseModel

from docs import tables
from shared.schema import body
from shared.settings import PREFIX, PROJECT_DIR, Settings
from shared.web.route_table import routes_by_service

PAGES = sorted(path.relative_to(PROJECT_DIR).as_posix() for path in PROJECT_DIR.glob("docs/*.md"))
MODELS = [
    model
    for model in vars(body).values()
    if isinstance(model, type) and issubclass(model, body.RequestBody) and model is not body.RequestBody
]


def read(page: str) -> str:
    return (PROJECT_DIR / page).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_tables_are_up_to_date() -> None:
    command = [sys.executable, "-m", "cogapp", "--check", "README.md", *PAGES]
    finished = subprocess.run(command, cwd=PROJECT_DIR, capture_output=True, text=True)
    rewrite = "run `python -m cogapp -r README.md docs/*.md` and commit what it changes"
    assert finished.returncode == 0, f"{rewrite}\n{finished.stdout}{finished.stderr}"


@pytest.mark.parametrize("model", MODELS)
def test_every_field_has_a_row(model: type[BaseModel]) -> None:
    page = read("docs/api.md")
    for name, field in model.model_fields.items():
        assert field.description, name
        assert f"\n| `{name}`" in page, f"add {name} to a table of docs/api.md"


def test_every_setting_has_one_row() -> None:
    rows = re.findall(rf"^\| `{PREFIX}(\w+)` \|", read("docs/settings.md"), re.MULTILINE)
    assert sorted(rows) == sorted(name.upper() for name in Settings.model_fields)


def test_every_route_has_a_row() -> None:
    pages = "".join(map(read, PAGES))
    for route in (route for routes in routes_by_service().values() for route in routes):
        assert f"\n| `{route.method} {route.path}` |" in pages


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no_setting_\\* matches nothing"):
        tables.settings("no_setting_*")


@pytest.mark.parametrize(
    "row",
    [
        "| `prompt` | text | required | ",
        "| `width` | whole number, 16 to 4096 |  | ",
        "| `seed` | whole number, -1 to 2^64-1 | `-1` | ",
        "| `cfg_scale` | number, 0 to 100 |  | ",
        "| `hires_fix` or `hires_fix_enabled` | true or false | `false` | ",
        "| `loras` | list of at most 16 |  | ",
        "| `input_image` | text | required | ",
        "| `custom_workflow` | object |  | ",
    ],
)
def test_types_and_ranges_are_in_words(row: str) -> None:
    assert f"\n{row}" in tables.fields(body.Img2ImgBody)


@pytest.mark.parametrize(
    ("model", "row"),
    [
        (body.ControlUnitBody, "| `control_mode` | `balanced`, `prompt`, `control` | `balanced` | "),
        (body.LoraBody, "| `strength_model` | number, -10 to 10 | `1` | "),
    ],
)
def test_choices_and_defaults_are_in_words(model: type[BaseModel], row: str) -> None:
    assert f"\n{row}" in tables.fields(model)
