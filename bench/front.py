"""What our service adds over a bare ComfyUI client: `python -m bench.front [--rounds N] [--quick]`.

Both draw the same graphs with the same engine, in turns within one run, and have the picture's bytes in hand at the
end: the bare client by POST /prompt, a websocket of its own, GET /history/<id> and GET /view; ours by one POST with
`Accept: image/png`. What counts are the differences and the ratio of the medians: absolute times are the machine's, and
so is the noise, for clients, service and engine share its cores. One client changes sides after each job; several do so
after a block of jobs, and connect anew for each, so that nobody's websocket is told of the other side's jobs. Latencies
are what the clients see; with many clients, that is mostly the wait for the engine. A picture of one colour needs no
model and next to no time in the engine: it shows best what is added. Many bare clients hinder each other, for ComfyUI
tells every websocket of each change of its queue; ours has one for all, and so can be quicker than they are.

Then, how long the engine stands still between two jobs while others wait, by its own clock: from `execution_success` of
one to `execution_start` of the next, as its history has them (see `bench.front_service`; the rows of our jobs have only
their beginning from the engine). Some of it is the engine's own doing, as the same jobs show, queued in it directly:
every 10 s or so ComfyUI collects garbage between two jobs, for tenths of a second. So long pauses are counted apart;
there should be no more of them by our way than by the other.

At last, the memory of a fresh service after a few jobs and after many: it should not grow.

Run it in the project's environment, and nothing beside it. TMPDIR chooses the disk that accepted jobs are written to.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench.front_clients import Drawing
from bench.front_rounds import LONG, Load, Pauses, Rounds, Side, percentile
from bench.front_service import blank
from bench.front_stack import Stack, running_stack
from launcher.terminal import interrupt_on_stop_signals
from workflows.txt2img import txt2img

CIRCLE = {"prompt": "a red circle on a blue background"}
BLANK = Drawing("one colour 64 px", "/api/blank", {"prompt": "", "width": 64, "height": 64}, blank)
ONE_STEP = Drawing("starter 128 px, 1 step", "/api/txt2img", {**CIRCLE, "steps": 1}, txt2img)
TEN_STEPS = Drawing("starter 128 px, 10 steps", "/api/txt2img", {**CIRCLE, "steps": 10}, txt2img)
SMALL = Drawing("starter 64 px, 10 steps", "/api/txt2img", {**CIRCLE, "width": 64, "height": 64, "steps": 10}, txt2img)
MOST_CLIENTS = 64


@dataclass(frozen=True)
class Plan:
    """All that is measured: loads; the engine's pauses while so many jobs are in the queue (more than the 64 that stand
    in its own at once), for so many seconds; memory's growth from a few jobs to many, within as many seconds."""

    loads: Sequence[Load]
    pauses: tuple[int, float]
    growth: tuple[int, int, float]


WHOLE = Plan(
    loads=(
        Load(BLANK, 1, 150),
        Load(BLANK, 8, 100, blocks=4),
        Load(BLANK, MOST_CLIENTS, 192, blocks=2),
        Load(ONE_STEP, 1, 30),
        Load(ONE_STEP, 8, 24),
        Load(ONE_STEP, MOST_CLIENTS, 64),
        Load(TEN_STEPS, 1, 5),
        # With more clients, they would wait for the engine for minutes, and nothing new be seen.
        Load(TEN_STEPS, 8, 8),
    ),
    pauses=(90, 24.0),
    growth=(100, 1000, 40.0),
)
QUICK = Plan(
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
    parser.add_argument("--rounds", type=int, default=1, help="how often each load is put on; more is more exact")
    parser.add_argument("--quick", action="store_true", help="fewer loads and jobs: under a minute on two cores")
    asked = parser.parse_args()
    interrupt_on_stop_signals()
    try:
        with running_stack() as stack:
            measure(stack, QUICK if asked.quick else WHOLE, max(1, asked.rounds))
            stack.check()
    except KeyboardInterrupt:
        sys.exit(130)


def measure(stack: Stack, plan: Plan, times: int) -> None:
    """Carries out the plan, and writes each line when it is known."""
    rounds = Rounds(stack)
    rounds.warm_up(list({load.drawing.name: load.drawing for load in plan.loads}.values()), MOST_CLIENTS)
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


def _compared(load: Load, bare: Side, ours: Side) -> str:
    cells = [load.drawing.name, str(load.clients), str(len(ours.seconds))]
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
