"""The structure of the code: direction of imports, packages loaded at startup, and the style tools."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared import __version__
from shared.settings import PROJECT_DIR

# The parts that each part may import, from the bottom up: only parts above it in this table.
MAY_IMPORT: dict[str, set[str]] = {
    "starter": set(),
    "shared": set(),
    "shared.errors": set(),
    "shared.graph_walk": set(),
    "shared.json_limits": set(),
    "shared.schema": set(),
    "shared.files": {"shared.errors"},
    "shared.settings": {"shared.errors", "shared.schema"},
    "shared.site_keys": {"shared.errors", "shared.files"},
    "shared.paths": {"shared.files", "shared.schema"},
    "shared.process": {"shared.errors"},
    "shared.images": {"shared.errors", "shared.schema"},
    "shared.models": {"shared.errors", "shared.files", "shared.json_limits", "shared.schema", "starter"},
    "shared.metadata": {"shared", "shared.graph_walk", "shared.models", "shared.schema"},
    "shared.engine": {
        *("shared.errors", "shared.files", "shared.graph_walk", "shared.paths", "shared.schema", "shared.settings"),
        *("shared.models", "shared.process"),
    },
    "shared.jobs": {
        *("shared", "shared.errors", "shared.files", "shared.graph_walk", "shared.settings"),
        *("shared.engine", "shared.images", "shared.metadata"),
    },
    "workflows": {"shared.errors", "shared.graph_walk", "shared.schema"},
    "shared.web": {
        *("shared", "shared.errors", "shared.files", "shared.graph_walk", "shared.json_limits", "shared.site_keys"),
        *("shared.paths", "shared.schema", "shared.settings"),
        *("shared.engine", "shared.images", "shared.jobs", "shared.metadata", "shared.models", "workflows", "starter"),
    },
    "launcher": {
        *("shared", "shared.errors", "shared.files", "shared.site_keys", "shared.settings"),
        *("shared.engine", "shared.images", "shared.jobs", "shared.models", "shared.process", "shared.web", "starter"),
    },
    "dream_layer": {"launcher"},
    "txt2img_server": {"launcher", "shared.web"},
    "img2img_server": {"launcher", "shared.web"},
}
TOP_LEVEL = ("shared", "workflows", "launcher", "starter", "dream_layer", "txt2img_server", "img2img_server")
PRODUCT = [
    *PROJECT_DIR.glob("*.py"),
    *(path for part in ("shared", "workflows", "launcher", "starter") for path in (PROJECT_DIR / part).rglob("*.py")),
]


def part_of(module: str) -> str:
    """Return the part of a module: a package or module in `shared`, or a folder or script at the top level."""
    names = module.split(".")
    return ".".join(names[:2]) if names[0] == "shared" else names[0]


def module_of(path: Path) -> str:
    relative = path.relative_to(PROJECT_DIR).with_suffix("")
    return ".".join(relative.parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "shared":
            modules |= {"shared" if alias.name == "__version__" else f"shared.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return modules


def imported_parts(part: str) -> set[str]:
    """Return the other parts that a part imports."""
    modules = {name for path in PRODUCT if part_of(module_of(path)) == part for name in imports(path)}
    return {part_of(name) for name in modules if name.split(".")[0] in TOP_LEVEL} - {part}


def test_every_part_is_in_the_table() -> None:
    assert {part_of(module_of(path)) for path in PRODUCT} == set(MAY_IMPORT)


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_only_what_the_table_allows(part: str) -> None:
    assert imported_parts(part) <= MAY_IMPORT[part]


# The modules of shared.jobs that shared.web may import: the interface and the types.
JOBS_INTERFACE = {f"shared.jobs.{name}" for name in ("service", "job", "picture_names", "picture_metadata")}


def test_the_web_uses_jobs_only_through_their_service() -> None:
    for path in (PROJECT_DIR / "shared/web").rglob("*.py"):
        modules = {name for name in imports(path) if part_of(name) == "shared.jobs"}
        assert modules <= JOBS_INTERFACE, path.relative_to(PROJECT_DIR)
        source = path.read_text(encoding="utf-8").replace("shared.jobs.", "")
        private_uses = re.findall(r"\bjobs\.(?:store|files|runner|_\w+)\b", source)
        assert not private_uses, f"{path.relative_to(PROJECT_DIR)} reaches through the service: {private_uses}"


def test_imports_have_no_cycles() -> None:
    above: set[str] = set()
    for part, allowed in MAY_IMPORT.items():
        assert allowed <= above, f"{part} imports from parts below it: {allowed - above}"
        above.add(part)


@pytest.mark.parametrize("name", ["cli", "arguments", "environment", "packages", "terminal", "instance_lock"])
def test_the_bootstrap_needs_only_the_standard_library(name: str) -> None:
    code = f"import launcher.{name}, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=PROJECT_DIR, capture_output=True, text=True, check=True
    )
    third_party = (
        {module.split(".")[0] for module in loaded.stdout.split()} - set(sys.stdlib_module_names) - {"launcher"}
    )
    assert third_party <= {"__main__"}


@pytest.mark.slow
@pytest.mark.parametrize("service", ["txt2img_server", "img2img_server"])
def test_a_service_loads_no_heavy_packages_at_startup(service: str) -> None:
    code = f"import {service}, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_DIR, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "scipy", "transformers", "requests"} & set(loaded.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=["ruff-check", "ruff-format", "mypy"],
)
def test_the_tools_agree(command: list[str]) -> None:
    finished = subprocess.run([sys.executable, "-m", *command], cwd=PROJECT_DIR, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_the_version_is_the_same_everywhere() -> None:
    project = (PROJECT_DIR / "pyproject.toml").read_text(encoding="utf-8")
    changes = (PROJECT_DIR / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f'version = "{__version__}"' in project
    assert re.search(r"^## ([\d.]+) \(\d{4}-\d\d-\d\d\)$", changes, re.MULTILINE)[1] == __version__  # type: ignore[index]
    assert 'requires-python = ">=3.10"' in project
