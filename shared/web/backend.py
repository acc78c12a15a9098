"""What the routes of a process share: the settings, the engine, the jobs, and limits on concurrent requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flask import current_app

from shared.engine.catalog import EngineCatalog
from shared.engine.client import EngineClient, engine_access
from shared.errors import Busy
from shared.images.budget import MEGABYTE, MemoryBudget
from shared.jobs.service import open_jobs
from shared.paths import PathsFile
from shared.settings import PREFIX, Settings
from shared.site_keys import KeyRing
from shared.web.parsing.parser import ParsingContext
from shared.web.reply import base_url
from shared.web.urls import ReplyUrls, url_signer
from shared.web.workflow_folder import WorkflowFolder

if TYPE_CHECKING:
    from shared.engine.manager import EngineManager

# The keys of an application's extensions.
SETTINGS, BACKEND, MANAGER = "settings", "backend", "engine_manager"


class Backend:
    """The shared objects of a process. Raises SetupError if the database cannot be opened."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._signer = url_signer(settings)
        self.engine = EngineClient(settings.engine_address, engine_access(settings))
        self.catalog = EngineCatalog(self.engine)
        self.paths = PathsFile(settings.data_dir)
        self.keys = KeyRing(settings.data_dir)
        self.workflows = WorkflowFolder(settings.workflows_dir)
        self.jobs = open_jobs(settings, self.engine, self.paths.outputs)
        self.picture_memory = MemoryBudget(settings.picture_memory_mb * MEGABYTE, f"{PREFIX}PICTURE_MEMORY_MB")
        self.waiters = ConcurrencyLimit(settings.waiters, "requests are waiting for pictures", f"{PREFIX}WAITERS")
        self.streams = ConcurrencyLimit(settings.streams, "event streams are open", f"{PREFIX}STREAMS")

    def start(self, restart_engine: Callable[[str], None] | None = None) -> None:
        """Start to run jobs, including unfinished ones of workers that no longer run.

        `restart_engine` is called with the reason if the engine keeps running a finished job.
        """
        # If another program started the engine, each process watches it: nothing else would report stuck jobs.
        self.jobs.start(restart_engine, watch=restart_engine is not None or self.settings.engine_url is not None)

    def stop(self) -> None:
        """Stop, and leave unfinished jobs to other workers."""
        self.jobs.stop()

    def parsing_context(self) -> ParsingContext:
        """The context for parsing the current request."""
        return ParsingContext(self.settings.checkpoint, self.catalog, self.jobs.find_upload, self.picture_memory)

    def urls(self) -> ReplyUrls:
        """The URLs for the reply to the current request."""
        return ReplyUrls(base_url(self.settings), self._signer)


class ConcurrencyLimit:
    """Limits the requests that hold a thread of the server for long, so that threads remain for others.

    `usage` describes these requests, and `setting` names the setting of the limit.
    """

    def __init__(self, limit: int, usage: str, setting: str) -> None:
        self._limit = limit
        self._usage = usage
        self._setting = setting
        self._free = threading.Semaphore(limit)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A context manager that holds a slot. Raises Busy if none is free."""
        if not self._free.acquire(blocking=False):
            raise Busy(
                f"{self._limit} {self._usage} already",
                hint=f"send `Prefer: respond-async` and check the job later, or raise {self._setting}",
                retry_after=10,
            )
        try:
            yield
        finally:
            self._free.release()


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
