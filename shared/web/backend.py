"""What the routes of a service work with, made once from the settings."""

import contextlib
import threading
from collections.abc import Iterator

from shared.engine.catalog import Catalog
from shared.engine.client import EngineClient
from shared.engine.listener import Listener
from shared.errors import Busy
from shared.jobs.runner import Runner
from shared.settings import Settings


class Backend:
    """The engine, its catalog, the runner, and the places for requests that wait. Connects to nothing by itself."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = EngineClient(settings.engine_address)
        self.catalog = Catalog(self.engine)
        self.runner = Runner(self.engine, Listener(settings.engine_address))
        self._places = threading.BoundedSemaphore(settings.waiters)

    @contextlib.contextmanager
    def waiting_place(self) -> Iterator[None]:
        """One of the places for requests that wait for pictures; raises Busy at once when all are taken.

        Each such request holds a thread of the server. Keeping some threads free keeps the rest of the API answering.
        """
        if not self._places.acquire(blocking=False):
            raise Busy(
                f"{self.settings.waiters} requests are waiting for pictures already",
                hint="try again when some of them are done, or raise DREAM_LAYER_THREADS and DREAM_LAYER_WAITERS",
                retry_after=10,
            )
        try:
            yield
        finally:
            self._places.release()
