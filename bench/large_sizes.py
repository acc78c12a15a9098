"""Measures two passes against one at large sizes: `python -m bench.large_sizes [--side 512] [--count 24]`.

Each prompt is generated twice with the same seed, in two passes and in one (`large_sizes` direct), in alternating
order. The prompts are the held-out ones of `starter.evaluate`, which also checks the pictures: one is correct if the
colour of the background, the shape and its colour are. Compare the shares of correct pictures, and the ratios of the
times pair by pair: of the whole request, and of the engine's processor time, which is reliable on a busy machine too.
`--first` skips prompts, so that a long measurement can be split; `--only` measures one way.
"""

import argparse
import logging
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from bench.stack import BenchStack, running_stack
from starter.evaluate import EvaluationRow, contact_sheet, make_prompt, request_picture, score
from starter.shape_detection import Picture, detect_shapes

log = logging.getLogger(__name__)

WAYS = ("two_passes", "direct")
# The seed of a first picture that loads the model; any other would be in the engine's cache afterwards.
WARM_UP = 1_000_000


@dataclass
class Way:
    """The pictures of one way, each with its scores (background, colours, all), its seconds and the engine's."""

    marks: list[tuple[bool, bool, bool]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def measure(stack: BenchStack, side: int, numbers: range, names: Sequence[str]) -> dict[str, Way]:
    """Generate the prompts with these numbers in these ways, at `side` x `side` pixels."""
    rng = np.random.default_rng(side)
    asked = [make_prompt(rng, 1) for _ in range(numbers.stop)]
    ways = {name: Way() for name in names}
    row = EvaluationRow("", side=side)
    request_picture(stack.service_url, asked[0][0], EvaluationRow("", side=128), WARM_UP)
    for number in numbers:
        prompt, background, things = asked[number]
        for name in names if number % 2 else reversed(names):
            way, before = ways[name], stack.engine_processor_seconds()
            picture, seconds = request_picture(stack.service_url, prompt, row, number, large_sizes=name)
            way.processor.append(stack.engine_processor_seconds() - before)
            way.seconds.append(seconds)
            way.pictures.append(picture)
            way.marks.append(score(detect_shapes(picture), background, things))
            log.info("%3d %-10s %6.2f s %6.2f s %s", number, name, seconds, way.processor[-1], way.marks[-1])
    return ways


def report(ways: dict[str, Way]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield f"{'':12}{'asked':>6}{'ground':>8}{'colours':>9}{'all':>5}{'median s':>10}{'processor s':>13}"
    for name, way in ways.items():
        ground, colours, right = (sum(marks) for marks in zip(*way.marks, strict=True))
        times = f"{statistics.median(way.seconds):10.2f}{statistics.median(way.processor):13.2f}"
        yield f"{name:12}{len(way.marks):6}{ground:8}{colours:9}{right:5}{times}"
    if len(ways) == len(WAYS):
        for measure_name in ("seconds", "processor"):
            pairs = zip(*(getattr(ways[name], measure_name) for name in WAYS), strict=True)
            ratios = sorted(two / one for two, one in pairs)
            middle = statistics.median(ratios)
            yield f"two_passes / direct, {measure_name}: median {middle:.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512, help="pixels")
    parser.add_argument("--count", type=int, default=24, help="prompts")
    parser.add_argument("--first", type=int, default=0, help="number of the first prompt")
    parser.add_argument("--only", choices=WAYS, help="measure only this way")
    parser.add_argument("--pictures", type=Path, help="save a contact sheet of each way in this folder")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with running_stack() as stack:
        numbers = range(args.first, args.first + args.count)
        ways = measure(stack, args.side, numbers, [args.only] if args.only else WAYS)
        stack.check()
    for name, way in ways.items() if args.pictures else ():
        args.pictures.mkdir(parents=True, exist_ok=True)
        Image.fromarray(contact_sheet(way.pictures)).save(args.pictures / f"{args.side}-{args.first}-{name}.png")
    sys.stdout.writelines(f"{line}\n" for line in report(ways))


if __name__ == "__main__":
    main()
