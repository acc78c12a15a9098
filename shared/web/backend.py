"""What the routes of a process work with, made once from the settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from sqlalchemy.exc import ArgumentError

from shared.engine.access import engine_access
from shared.engine.catalog import Catalog
from shared.engine.client import EngineClient, SavedImage
from shared.errors import SetupError, StorageFailed
from shared.images.budget import MEGABYTE, MemoryBudget
from shared.jobs.database import JobRow, NewJob, State, Work
from shared.jobs.estimate import MEASURED, seconds_left
from shared.jobs.files import JobFiles, Retention
from shared.jobs.pictures import Pictures
from shared.jobs.runner import JobRunner
from shared.jobs.store import Store
from shared.jobs.stuck import StuckJobs
from shared.jobs.uploads import Uploads
from shared.paths import PathsFile
from shared.settings import PREFIX, Settings
from shared.web.addresses import Addresses, signer_of
from shared.web.reply import base_address
from shared.web.slots import Slots


class Backend:
    """The engine, its catalog, the jobs, and the places for requests that wait."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._signer = signer_of(settings)
        self.engine = EngineClient(settings.engine_address, engine_access(settings))
        self.catalog = Catalog(self.engine)
        self.paths = PathsFile(settings.data_dir)
        self.store = open_store(settings)
        self.archive = JobFiles(
            self.store,
            Uploads(settings.data_dir / "uploads"),
            Pictures(settings.output_dir, settings.input_dir, self.paths.outputs),
            Retention(settings.keep_jobs, settings.keep_days, settings.keep_mb),
        )
        self.runner = JobRunner(self.store, self.engine, self.archive)
        self._stuck: StuckJobs | None = None
        self.picture_memory = MemoryBudget(settings.picture_memory_mb * MEGABYTE, f"{PREFIX}PICTURE_MEMORY_MB")
        self.waiters = Slots(settings.waiters, "requests are waiting for pictures", f"{PREFIX}WAITERS")
        self.streams = Slots(settings.streams, "event streams are open", f"{PREFIX}STREAMS")

    def start(self, restart_engine: Callable[[str], None] | None = None) -> None:
        """Starts following jobs, those too that were left unfinished when everything was last stopped.

        `restart_engine` is called with a reason when the engine works on a cancelled job and does not let go of it.
        """
        self.runner.start()
        # An engine of others is watched by each process, as nobody else can say that it must be restarted.
        if restart_engine is not None or self.settings.engine_url is not None:
            self._stuck = StuckJobs(self.engine, self.store, self.settings.cancel_timeout, restart_engine)
            self._stuck.start()

    def stop(self) -> None:
        """Hands unfinished jobs over to whoever comes next."""
        if self._stuck is not None:
            self._stuck.stop()
        self.runner.stop()
        self.store.close()

    def accept(self, job: NewJob, uploads: Mapping[str, bytes]) -> tuple[JobRow, bool]:
        """Submits a job; the row, and whether it is new (see `JobRunner.submit`). Raises QueueFull."""
        return self.runner.submit(job, uploads, self.settings.queue_limit)

    def position(self, row: JobRow) -> int | None:
        """How many unfinished jobs are in front of this one; None when it has ended."""
        return None if row.state.finished else self.store.count_unfinished(row.number)

    def eta(self, row: JobRow) -> float | None:
        """Seconds until the job will be done, as far as its progress and other jobs tell; None when it has ended."""
        if row.state.finished:
            return None
        ends_at = self.store.ends_at(row.id) if row.state is State.RUNNING else None
        job = Work(row.model, row.work, row.started, ends_at)
        left = seconds_left(self.store.in_front(row.number), job, self.store.measured(MEASURED), time.time())
        return None if left is None else round(left, 1)

    def picture(self, image: SavedImage) -> bytes | None:
        """A picture's file, or, if the engine runs elsewhere, what it shows; None if there is none."""
        path = self.archive.pictures.find(image.filename)
        if path is not None:
            return path.read_bytes()
        return None if self.archive.pictures.leads_out(image.filename) else self.engine.view(image)

    def addresses(self) -> Addresses:
        """The addresses in the reply to the request at hand."""
        return Addresses(base_address(self.settings), self._signer)


def open_store(settings: Settings) -> Store:
    """The database of the jobs. Raises SetupError that says why it cannot be opened."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        return Store(settings.jobs_url)
    except (OSError, StorageFailed) as error:
        raise SetupError("jobs", str(error), hint=f"{PREFIX}DATA_DIR names another folder") from error
    except (ArgumentError, ImportError) as error:
        # The URL may hold a password, and is not repeated.
        raise SetupError(
            "jobs", f"{PREFIX}DATABASE_URL cannot be used: {error}", hint="a driver may have to be installed with pip"
        ) from error
