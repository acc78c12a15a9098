"""Measures the overhead of our service over a bare ComfyUI client: `python -m bench.overhead [--rounds N] [--quick]`.

Both sides run the same graphs on the same engine, alternately within one run, and end with the picture's bytes. The
bare client uses POST /prompt, its own websocket, GET /history/<id> and GET /view; ours sends one POST with `Accept:
image/png`. Compare the differences and the ratio of the medians: absolute times, and the noise, depend on the machine,
because clients, service and engine share its cores. A single client changes sides after each job; several clients
change after a block of jobs and reconnect, so that no websocket receives events of the other side's jobs. Latencies are
measured at the clients; with many clients they are mostly the wait for the engine. A picture of one colour needs no
model and almost no time in the engine, so it shows the overhead best. Many bare clients slow each other down, because
ComfyUI reports each change of its queue to every websocket. Our service has one websocket for all clients, so it can be
faster.

The second part measures how long the engine is idle between two jobs while others wait, by the engine's own clock: from
`execution_success` of a job to `execution_start` of the next one in its history (see `bench.overhead_service`). Part of
it is the engine's own work, as the same jobs queued directly show: every 10 s or so, ComfyUI collects garbage between
two jobs, which takes tenths of a second. Long pauses are therefore counted separately; both sides should have equally
many.

The last part measures the memory of a new service after few and after many jobs: it should not grow.

Run it in the project's environment, with nothing else running. TMPDIR determines the disk to which jobs are written.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench.overhead_clients import BenchJob
from bench.overhead_rounds import LONG, Load, Measurements, Pauses, Result, percentile
from bench.overhead_service import blank
from bench.stack import BenchStack, running_stack
from launcher.terminal import interrupt_on_stop_signals
from workflows.txt2img import txt2img

CIRCLE = {"prompt": "a red circle on a blue background"}
BLANK = BenchJob("one colour 64 px", "/api/blank", {"prompt": "", "width": 64, "height": 64}, blank)
ONE_STEP = BenchJob("starter 128 px, 1 step", "/api/txt2img", {**CIRCLE, "steps": 1}, txt2img)
TEN_STEPS = BenchJob("starter 128 px, 10 steps", "/api/txt2img", {**CIRCLE, "steps": 10}, txt2img)
SMALL = BenchJob("starter 64 px, 10 steps", "/api/txt2img", {**CIRCLE, "width": 64, "height": 64, "steps": 10}, txt2img)
MOST_CLIENTS = 64


@dataclass(frozen=True)
class BenchPlan:
    """All measurements.

    `pauses`: the number of queued jobs (more than the 64 in the engine's own queue) and a limit in seconds. `growth`:
    few jobs, many jobs, and a limit in seconds.
    """

    loads: Sequence[Load]
    pauses: tuple[int, float]
    growth: tuple[int, int, float]


WHOLE = BenchPlan(
    loads=(
        Load(BLANK, 1, 150),
        Load(BLANK, 8, 100, blocks=4),
        Load(BLANK, MOST_CLIENTS, 192, blocks=2),
        Load(ONE_STEP, 1, 30),
        Load(ONE_STEP, 8, 24),
        Load(ONE_STEP, MOST_CLIENTS, 64),
        Load(TEN_STEPS, 1, 5),
        # More clients would wait for the engine for minutes, without new information.
        Load(TEN_STEPS, 8, 8),
    ),
    pauses=(90, 24.0),
    growth=(100, 1000, 40.0),
)
QUICK = BenchPlan(
    loads=(
        Load(BLANK, 1, 60),
        Load(BLANK, 8, 60, blocks=2),
        Load(BLANK, MOST_CLIENTS, 128),
        Load(ONE_STEP, 1, 8),
        Load(ONE_STEP, 8, 8),
    ),
    pauses=(70, 6.0),
    growth=(50, 250, 8.0),
)
TAKEN = ("p95", "p99", "/s")
HEADS = ("graph", "clients", "jobs", "bare", *TAKEN, "ours", *TAKEN, "added", "p95", "ratio", "cpu")
WIDTHS = (25, 7, 6, *(9, 7, 7, 7), *(9, 7, 7, 7), 8, 7, 7, 6)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1, help="repetitions of each load; more are more precise")
    parser.add_argument("--quick", action="store_true", help="fewer loads and jobs: less than a minute on two cores")
    asked = parser.parse_args()
    interrupt_on_stop_signals()
    try:
        with running_stack() as stack:
            measure(stack, QUICK if asked.quick else WHOLE, max(1, asked.rounds))
            stack.check()
    except KeyboardInterrupt:
        sys.exit(130)


def measure(stack: BenchStack, plan: BenchPlan, times: int) -> None:
    """Carry out the plan; writes each line as soon as it is measured."""
    rounds = Measurements(stack)
    rounds.warm_up(list({load.job.name: load.job for load in plan.loads}.values()), MOST_CLIENTS)
    _write(f"engine on the {'CPU' if stack.on_cpu else 'GPU'}; times in ms; cpu: the service's, for each job")
    _write(_row(HEADS))
    for load in plan.loads:
        bare, ours = rounds.compare(load, times)
        _write(_compared(load, bare, ours))
    _write(f"\nmemory of the service after these: {stack.memory():.1f} MB")
    for name, pauses in zip(("bare", "ours"), rounds.pauses(SMALL, *plan.pauses), strict=True):
        _write(_paused(name, pauses))
    grown = [f"{megabytes:.1f} MB after {jobs} jobs" for jobs, megabytes in rounds.growth(BLANK, *plan.growth)]
    _write(f"memory of a fresh service: {', '.join(grown)}")


def _compared(load: Load, bare: Result, ours: Result) -> str:
    cells = [load.job.name, str(load.clients), str(len(ours.seconds))]
    for side in (bare, ours):
        cells += [*(f"{side.percentile(share):.1f}" for share in (50, 95, 99)), f"{side.rate:.1f}"]
    added = [f"{ours.percentile(share) - bare.percentile(share):+.1f}" for share in (50, 95)]
    ratio = ours.percentile(50) / bare.percentile(50)
    return _row([*cells, *added, f"{ratio:.2f}", f"{ours.processor / len(ours.seconds) * 1000:.1f}"])


def _paused(name: str, pauses: Pauses) -> str:
    median, most = (percentile(pauses.short, share) * 1000 for share in (50, 95))
    short, long = (sum(each) / pauses.wall for each in (pauses.short, pauses.long))
    return (
        f"pauses of the engine while jobs wait, {name}: {len(pauses.short)}, median {median:.1f}, p95 {most:.1f}, "
        f"{short:.2%} of the time; and {len(pauses.long)} over {LONG * 1000:.0f}, {long:.2%} of the time"
    )


def _row(cells: Sequence[str]) -> str:
    return f"{cells[0]:{WIDTHS[0]}}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(cells[1:], WIDTHS[1:], strict=True)
    )


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
