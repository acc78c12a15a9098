"""The backend of a process: the objects that its routes work with, created once from the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import current_app
from sqlalchemy.exc import ArgumentError

from shared.engine.catalog import EngineCatalog
from shared.engine.client import EngineClient, engine_access
from shared.errors import SetupError, StorageFailed
from shared.images.budget import MEGABYTE, MemoryBudget
from shared.jobs.files import JobFiles, PictureFiles, Retention, UploadFiles
from shared.jobs.service import Jobs
from shared.jobs.store import Store
from shared.keys import KeyRing
from shared.paths import PathsFile
from shared.settings import PREFIX, Settings
from shared.web.reply import base_address
from shared.web.slots import Slots
from shared.web.urls import ReplyUrls, url_signer
from shared.web.workflow_folder import WorkflowFolder

if TYPE_CHECKING:
    from shared.engine.manager import EngineManager

# The keys of an application's extensions.
SETTINGS, BACKEND, MANAGER = "settings", "backend", "engine_manager"


class Backend:
    """The engine, its catalog, the jobs, the user's files, and the limits on pictures and on waiting requests."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._signer = url_signer(settings)
        self.engine = EngineClient(settings.engine_address, engine_access(settings))
        self.catalog = EngineCatalog(self.engine)
        self.paths = PathsFile(settings.data_dir)
        self.keys = KeyRing(settings.data_dir)
        self.workflows = WorkflowFolder(settings.workflows_dir)
        store = open_store(settings)
        files = JobFiles(
            store,
            UploadFiles(settings.data_dir / "uploads"),
            PictureFiles(settings.output_dir, settings.input_dir, self.paths.outputs),
            Retention(settings.keep_jobs, settings.keep_days, settings.keep_mb),
        )
        self.jobs = Jobs(
            store, self.engine, files, queue_limit=settings.queue_limit, cancel_timeout=settings.cancel_timeout
        )
        self.picture_memory = MemoryBudget(settings.picture_memory_mb * MEGABYTE, f"{PREFIX}PICTURE_MEMORY_MB")
        self.waiters = Slots(settings.waiters, "requests are waiting for pictures", f"{PREFIX}WAITERS")
        self.streams = Slots(settings.streams, "event streams are open", f"{PREFIX}STREAMS")

    def start(self, restart_engine: Callable[[str], None] | None = None) -> None:
        """Start to track jobs, also those that an earlier process left unfinished.

        `restart_engine` is called with a reason if the engine does not stop a job that was cancelled.
        """
        # Each process watches an engine that the launcher does not supervise.
        self.jobs.start(restart_engine, watch=restart_engine is not None or self.settings.engine_url is not None)

    def stop(self) -> None:
        """Stop tracking jobs. Another process reclaims the unfinished ones."""
        self.jobs.stop()

    def urls(self) -> ReplyUrls:
        """The URLs in the reply to the current request."""
        return ReplyUrls(base_address(self.settings), self._signer)


def current_settings() -> Settings:
    """Return the settings of the application that handles the request."""
    settings: Settings = current_app.extensions[SETTINGS]
    return settings


def current_backend() -> Backend:
    """Return the backend of the application that handles the request."""
    backend: Backend = current_app.extensions[BACKEND]
    return backend


def current_manager() -> EngineManager:
    """Return the engine manager, which only the control service has."""
    manager: EngineManager = current_app.extensions[MANAGER]
    return manager


def open_store(settings: Settings) -> Store:
    """Open the database of the jobs. Raises SetupError if it cannot be opened."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        return Store(settings.jobs_url)
    except (OSError, StorageFailed) as error:
        raise SetupError("jobs", str(error), hint=f"set {PREFIX}DATA_DIR to another folder") from error
    except (ArgumentError, ImportError) as error:
        # The URL is not repeated here: it may have a password.
        raise SetupError(
            "jobs", f"{PREFIX}DATABASE_URL cannot be used: {error}", hint="install the driver of this database with pip"
        ) from error
