"""The control service without an engine: nothing listens on its port, 9."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from shared.engine.manager import EngineManager
from shared.models.detect import ModelFile
from shared.web.app import control_app
from shared.web.backend import Backend
from shared.web.routes.models import ModelUploads

PICTURE = "20261122-143210-3f2a9c1e0b7d_00001_.png"


@dataclass
class Control:
    """The control service, with model files defined by the test.

    `files` lists the names in each folder; `known` describes files by their headers.
    """

    backend: Backend
    uploads: ModelUploads
    manager: "Managed"
    files: dict[str, list[str]] = field(default_factory=dict)
    known: dict[str, ModelFile] = field(default_factory=dict)

    @property
    def client(self) -> FlaskClient:
        return control_app(self.backend, self.manager, self.uploads).test_client()

    @property
    def models(self) -> Path:
        return self.backend.settings.models_dir


class Managed(EngineManager):
    """A manager of an engine of our own. It only counts restarts."""

    is_ours = True
    restarts = 0

    def restart(self, *, when_idle: bool, reason: str = "") -> None:
        self.restarts += 1


def body(response: Any) -> dict[str, Any]:
    values = response.json
    assert isinstance(values, dict)
    return values


def picture(control: Control) -> Path:
    path = control.backend.settings.output_dir / "20261122" / PICTURE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"png")
    return path
