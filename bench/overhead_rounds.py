"""The measurements of `bench.overhead`: two kinds of clients alternately, pauses of the engine, growth of memory."""

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from bench.overhead_clients import BareClient, BenchJob, Client, ServiceClient
from bench.stack import BenchStack

# Seconds; longer pauses of the engine are probably ComfyUI's own.
LONG = 0.05


@dataclass(frozen=True)
class Load:
    """Clients, jobs per block and side, and blocks; no job starts after `limit` seconds of a block."""

    job: BenchJob
    clients: int
    jobs: int
    blocks: int = 1
    limit: float = 15.0


@dataclass
class Result:
    """The times of one side in seconds: of each job, of all together, and of the service's processor."""

    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0
    processor: float = 0.0

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return len(self.seconds) / self.wall

    def percentile(self, share: int) -> float:
        """The given percentile of the jobs, in milliseconds."""
        return percentile(self.seconds, share) * 1000


@dataclass(frozen=True)
class Pauses:
    """Seconds between the end of a job and the start of the next one, short and long ones, and the total time."""

    short: Sequence[float]
    long: Sequence[float]
    wall: float


class Measurements:
    """Measures one stack. Each job has its own seed."""

    def __init__(self, stack: BenchStack) -> None:
        self._stack = stack
        self._seeds = itertools.count(1)

    def warm_up(self, drawings: Sequence[BenchJob], clients: int) -> None:
        """Load the model, open connections and fill caches, with each kind of job and the largest number of clients."""
        for job in drawings:
            self.compare(Load(job, 1, 1))
        self.compare(Load(drawings[0], clients, 2 * clients))

    def compare(self, load: Load, rounds: int = 1) -> tuple[Result, Result]:
        """Measure the bare client and ours alternately; the first one changes."""
        bare, ours = Result(), Result()
        for number in range(rounds * load.blocks):
            if load.clients == 1:
                self._job_by_job(load, bare, ours)
                continue
            ways: list[tuple[Callable[[], Client], Result]] = [(self._bare, bare), (self._ours, ours)]
            for connect, side in reversed(ways) if number % 2 else ways:
                used = self._stack.processor_seconds()
                self._block(load, connect, side)
                side.processor += self._stack.processor_seconds() - used
        return bare, ours

    def pauses(self, job: BenchJob, queued: int, limit: float) -> tuple[Pauses, Pauses]:
        """Measure the engine's pauses between waiting jobs: queued directly, and through our service.

        Of the `queued` jobs, those that do not finish within `limit` seconds are cancelled.
        """
        (pace, *_) = self.compare(Load(job, 1, 2))[0].seconds
        last = max(1, min(queued, int(limit / pace)) - 1)
        results = []
        for connect in (self._bare, self._ours):
            with _closed(connect()) as client:
                client.spans()
                jobs = [client.queue(job, next(self._seeds)) for _ in range(queued)]
                client.wait(jobs[last])
                spans = sorted(set(client.spans()))
                client.cancel(jobs[last + 1 :])
            self._stack.wait_idle()
            seconds = [started - finished for (_, finished), (started, _) in itertools.pairwise(spans)]
            results.append(
                Pauses(
                    short=[pause for pause in seconds if pause <= LONG],
                    long=[pause for pause in seconds if pause > LONG],
                    wall=spans[-1][1] - spans[0][0],
                )
            )
        return results[0], results[1]

    def growth(self, job: BenchJob, few: int, many: int, limit: float) -> list[tuple[int, float]]:
        """Return (jobs, memory in MB) of a new service: at the start, after few and after many jobs.

        There are fewer jobs if `limit` seconds are too short.
        """
        self._stack.restart_service()
        side, found = Result(), [(0, self._stack.memory())]
        for jobs in (few, many - few):
            self._block(Load(job, 8, jobs, limit=limit), self._ours, side)
            found.append((len(side.seconds), self._stack.memory()))
        return found

    def _bare(self) -> Client:
        return BareClient(self._stack.engine_url, self._stack.access)

    def _ours(self) -> Client:
        return ServiceClient(self._stack.service_url)

    def _job_by_job(self, load: Load, bare: Result, ours: Result) -> None:
        used, until = self._stack.processor_seconds(), time.perf_counter() + load.limit
        with _closed(self._bare()) as one, _closed(self._ours()) as other:
            ways = [(one, bare), (other, ours)]
            for _ in range(load.jobs):
                for client, side in ways:
                    side.seconds.append(_timed(client.prepare(load.job, next(self._seeds))))
                    side.wall += side.seconds[-1]
                ways.reverse()
                if time.perf_counter() > until:
                    break
        ours.processor += self._stack.processor_seconds() - used

    def _block(self, load: Load, connect: Callable[[], Client], side: Result) -> None:
        """Run all clients at the same time, each with one job after the other."""
        tickets, lock = iter(range(load.jobs)), threading.Lock()
        until = 0.0

        def work(client: Client) -> list[float]:
            taken = []
            while time.perf_counter() < until:
                with lock:
                    if next(tickets, None) is None:
                        break
                    seed = next(self._seeds)
                taken.append(_timed(client.prepare(load.job, seed)))
            return taken

        pool = ThreadPoolExecutor(load.clients)
        with ExitStack() as stack:
            clients = [stack.enter_context(_closed(connect())) for _ in range(load.clients)]
            try:
                begun = time.perf_counter()
                until = begun + load.limit
                for taken in [pool.submit(work, client) for client in clients]:
                    side.seconds += taken.result()
                side.wall += time.perf_counter() - begun
            finally:
                # After an error or Ctrl-C, the other clients start no more jobs.
                until = 0.0
                pool.shutdown(wait=False, cancel_futures=True)


def percentile(values: Sequence[float], share: int) -> float:
    """Return the percentile of the values."""
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1] if len(values) > 1 else values[0]


@contextmanager
def _closed(client: Client) -> Iterator[Client]:
    try:
        yield client
    finally:
        client.close()


def _timed(job: Callable[[], bytes]) -> float:
    begun = time.perf_counter()
    job()
    return time.perf_counter() - begun
