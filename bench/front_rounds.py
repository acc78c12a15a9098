"""How `bench.front` measures: two kinds of clients in turns, then a queue of jobs, then many jobs."""

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from bench.front_clients import Bare, Client, Drawing, Ours
from bench.front_stack import Stack

# Seconds; a pause of the engine that is longer is likely ComfyUI's own.
LONG = 0.05


@dataclass(frozen=True)
class Load:
    """So many clients, and so many jobs for each side in a block, of which there are so many; no further job of a
    block is begun after `limit` seconds."""

    drawing: Drawing
    clients: int
    jobs: int
    blocks: int = 1
    limit: float = 15.0


@dataclass
class Side:
    """What one way took: seconds of each job, of all of them together, and of the service's processor."""

    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0
    processor: float = 0.0

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return len(self.seconds) / self.wall

    def percentile(self, share: int) -> float:
        """The milliseconds that `share` per cent of the jobs did not exceed."""
        return percentile(self.seconds, share) * 1000


@dataclass(frozen=True)
class Pauses:
    """Seconds between the end of each job and the beginning of the next, short ones and long ones, and of all this
    together."""

    short: Sequence[float]
    long: Sequence[float]
    wall: float


class Rounds:
    """Measures one stack. Each job has a seed of its own."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._seeds = itertools.count(1)

    def warm_up(self, drawings: Sequence[Drawing], clients: int) -> None:
        """Loads the model, opens pools, fills caches: by each kind of job, and as many at once as there will be."""
        for drawing in drawings:
            self.compare(Load(drawing, 1, 1))
        self.compare(Load(drawings[0], clients, 2 * clients))

    def compare(self, load: Load, rounds: int = 1) -> tuple[Side, Side]:
        """Bare and ours, in turns; who is first changes."""
        bare, ours = Side(), Side()
        for number in range(rounds * load.blocks):
            if load.clients == 1:
                self._job_by_job(load, bare, ours)
                continue
            ways: list[tuple[Callable[[], Client], Side]] = [(self._bare, bare), (self._ours, ours)]
            for connect, side in reversed(ways) if number % 2 else ways:
                used = self._stack.processor()
                self._block(load, connect, side)
                side.processor += self._stack.processor() - used
        return bare, ours

    def pauses(self, drawing: Drawing, queued: int, limit: float) -> tuple[Pauses, Pauses]:
        """The engine's, between jobs that wait together: queued in it directly, and by way of our service.

        Of as many jobs as are `queued`, those that are done in `limit` seconds; the others are cancelled.
        """
        (pace, *_) = self.compare(Load(drawing, 1, 2))[0].seconds
        last = max(1, min(queued, int(limit / pace)) - 1)
        found = []
        for connect in (self._bare, self._ours):
            with _closed(connect()) as client:
                client.spans()
                jobs = [client.queue(drawing, next(self._seeds)) for _ in range(queued)]
                client.wait(jobs[last])
                spans = sorted(set(client.spans()))
                client.cancel(jobs[last + 1 :])
            self._stack.wait_idle()
            seconds = [begun - ended for (_, ended), (begun, _) in itertools.pairwise(spans)]
            found.append(
                Pauses(
                    short=[each for each in seconds if each <= LONG],
                    long=[each for each in seconds if each > LONG],
                    wall=spans[-1][1] - spans[0][0],
                )
            )
        return found[0], found[1]

    def growth(self, drawing: Drawing, few: int, many: int, limit: float) -> list[tuple[int, float]]:
        """A fresh service's jobs and memory in MB: at its start, after few jobs, after many; fewer if `limit` seconds
        do not suffice."""
        self._stack.renew_service()
        side, found = Side(), [(0, self._stack.memory())]
        for jobs in (few, many - few):
            self._block(Load(drawing, 8, jobs, limit=limit), self._ours, side)
            found.append((len(side.seconds), self._stack.memory()))
        return found

    def _bare(self) -> Client:
        return Bare(self._stack.engine_url, self._stack.access)

    def _ours(self) -> Client:
        return Ours(self._stack.service_url)

    def _job_by_job(self, load: Load, bare: Side, ours: Side) -> None:
        used, until = self._stack.processor(), time.perf_counter() + load.limit
        with _closed(self._bare()) as one, _closed(self._ours()) as other:
            ways = [(one, bare), (other, ours)]
            for _ in range(load.jobs):
                for client, side in ways:
                    side.seconds.append(_timed(client.prepare(load.drawing, next(self._seeds))))
                    side.wall += side.seconds[-1]
                ways.reverse()
                if time.perf_counter() > until:
                    break
        ours.processor += self._stack.processor() - used

    def _block(self, load: Load, connect: Callable[[], Client], side: Side) -> None:
        """All clients at the same time, each with one job after the other, until there are no more."""
        tickets, lock = iter(range(load.jobs)), threading.Lock()
        until = 0.0

        def work(client: Client) -> list[float]:
            taken = []
            while time.perf_counter() < until:
                with lock:
                    if next(tickets, None) is None:
                        break
                    seed = next(self._seeds)
                taken.append(_timed(client.prepare(load.drawing, seed)))
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
                # If one failed, or somebody pressed Ctrl-C, the others begin no more, and fail when the stack is down.
                until = 0.0
                pool.shutdown(wait=False, cancel_futures=True)


def percentile(values: Sequence[float], share: int) -> float:
    """The value that `share` per cent of them do not exceed."""
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
