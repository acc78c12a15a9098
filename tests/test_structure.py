"""The shape of the stack: which way imports run, and that the style tools agree."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared import __version__
from shared.settings import PROJECT_DIR

# What each part may import of the others, from the bottom up. All may use these modules and the request's schema.
COMMON = {
    "shared",
    *(
        f"shared.{name}"
        for name in ("schema", "errors", "graphs", "settings", "files", "json_limits", "paths", "keys", "rights")
    ),
}
MAY_IMPORT = {
    "shared.schema": {"shared.errors"},
    "shared.images": COMMON,
    "shared.process": COMMON,
    "shared.models": {*COMMON, "starter"},
    "shared.metadata": {*COMMON, "shared.models"},
    "shared.engine": {*COMMON, "shared.models", "shared.process"},
    "shared.jobs": {*COMMON, "shared.engine", "shared.images", "shared.metadata"},
    "workflows": {"shared.schema", "shared.errors", "shared.graphs"},
    "shared.web": {
        *COMMON,
        *(f"shared.{name}" for name in ("images", "metadata", "models", "process", "engine", "jobs")),
        *("workflows", "starter"),
    },
    "launcher": {
        *COMMON,
        *(f"shared.{name}" for name in ("images", "models", "process", "engine", "jobs", "web")),
        "starter",
    },
    "starter": set(),
}
OURS = ("shared", "workflows", "launcher", "starter", "dream_layer", "txt2img_server", "img2img_server")
PRODUCT = [
    *PROJECT_DIR.glob("*.py"),
    *(path for part in ("shared", "workflows", "launcher", "starter") for path in (PROJECT_DIR / part).rglob("*.py")),
]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_run_one_way(part: str) -> None:
    for path in (PROJECT_DIR / part.replace(".", "/")).rglob("*.py"):
        for name in imports(path):
            if name.split(".")[0] not in OURS:
                continue
            allowed = any(
                name == each or name.startswith(f"{each}.") for each in {part, *MAY_IMPORT[part]} - {"shared"}
            )
            assert allowed or name in MAY_IMPORT[part], f"{path.relative_to(PROJECT_DIR)} imports {name}"


# What the web may know of jobs: their interface and their types. `jobs` is a `shared.jobs.service.Jobs` there.
JOBS_INTERFACE = {f"shared.jobs.{name}" for name in ("service", "job", "picture_names", "picture_metadata")}


def test_the_web_knows_jobs_by_their_service_alone() -> None:
    for path in (PROJECT_DIR / "shared/web").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        used = {name for name in imports(path) if name.startswith("shared.jobs")}
        assert used <= JOBS_INTERFACE, path
        reached = re.findall(r"\bjobs\.(?:store|files|runner|_\w+)\b", source.replace("shared.jobs.", ""))
        assert not reached, f"{path.relative_to(PROJECT_DIR)} reaches through the service: {reached}"


@pytest.mark.slow
def test_nothing_imports_a_server() -> None:
    for path in PRODUCT:
        assert not imports(path) & {"dream_layer", "txt2img_server", "img2img_server"}, path


@pytest.mark.parametrize("name", ["cli", "arguments", "environment", "packages", "terminal", "instance_lock"])
def test_the_bootstrap_needs_the_standard_library_alone(name: str) -> None:
    code = f"import launcher.{name}, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=PROJECT_DIR, capture_output=True, text=True, check=True
    )
    foreign = {module.split(".")[0] for module in loaded.stdout.split()} - set(sys.stdlib_module_names) - {"launcher"}
    assert foreign <= {"__main__"}


@pytest.mark.slow
@pytest.mark.parametrize("service", ["txt2img_server", "img2img_server"])
def test_a_service_is_light(service: str) -> None:
    code = f"import {service}, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_DIR, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "scipy", "transformers"} & set(loaded.stdout.split())


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
