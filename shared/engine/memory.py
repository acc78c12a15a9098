"""About how much memory the pictures of a graph take, before it is run. Pure.

The engine keeps what each node returns until the graph is done. So the nodes are walked in order, once, and the bytes
of their pictures, masks and latents are added up. Sizes follow from the numbers in the graph; a picture that is loaded
is taken for one of `LOADED`. It is an estimate: it stops graphs that ask for far too much, by mistake or not.
"""

import graphlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from shared.engine.check import Problem
from shared.engine.formula import evaluate
from shared.engine.node_policy import LITERALS
from shared.engine.reviewed import REVIEWED

MOST_BYTES = 4 * 2**30
# The type of an output that is of the type of an input.
ANY = "COMFY_MATCHTYPE_V3"
# Bytes of a pixel: three or one 32-bit floats; 16 of them for 8 x 8 pixels of a latent. A video is decoded later.
BYTES = {"IMAGE": 12.0, "MASK": 4.0, "LATENT": 1.0, "VIDEO": 0.0, ANY: 12.0}
# While a node works, it holds what it returns about twice.
AT_WORK = 2

JOINING = {"ImageBatch", "LatentBatch", "BatchImagesNode", "BatchLatentsNode", "BatchMasksNode", "CreateList"}
CROPPING = {"ImageCrop", "LatentCrop", "CropMask", "CenterCropImages", "RandomCropImages"}
TAKING = {"ImageFromBatch", "LatentFromBatch"}
REPEATING = {"RepeatImageBatch": "amount", "RepeatLatentBatch": "amount", "FrameInterpolate": "multiplier"}
# Models that enlarge: most by four.
ENLARGING = {"ImageUpscaleWithModel": 4.0, "LTXVLatentUpsampler": 2.0}
SIDES = (
    *(("width", "height"), ("target_width", "target_height"), ("final_width", "final_height")),
    *(("output_width", "output_height"), ("resize_type.width", "resize_type.height")),
)
FACTORS = ("scale_by", "scale_ratio", "resize_type.multiplier")
LONGER = ("largest_size", "longer_edge", "resize_type.longer_size")
SHORTER = ("shorter_edge", "resize_type.shorter_size")
AREAS = ("megapixels", "resize_type.megapixels")
FRAMES = ("length", "video_frames", "num_frames", "frames", "segment_length")
# The widest picture of an area that a ResolutionSelector makes is 21:9.
WIDEST = 1.6


class Size(NamedTuple):
    """Of a picture, a mask or a latent: how many there are, and the pixels of each side."""

    batch: float
    width: float
    height: float

    def scaled(self, factor: float) -> "Size":
        """With both sides multiplied."""
        return Size(self.batch, self.width * factor, self.height * factor)


LOADED = Size(1, 2048, 2048)


def check_memory(
    graph: Mapping[str, Any], definitions: Mapping[str, Any], most_bytes: float = MOST_BYTES
) -> list[Problem]:
    """The first node with which a graph would need more than `most_bytes`, in a graph with which `check_graph` finds no
    problem; and each size that is computed in a way which is not known here."""
    sizes: dict[str, Size] = {}
    numbers: dict[str, tuple[float | None, ...]] = {}
    held = 0.0
    for name in _order(graph):
        class_type = graph[name]["class_type"]
        outputs = definitions[class_type]["output"]
        node = _Node(graph, definitions, sizes, numbers, name)
        numbers[name] = node.numbers()
        if not node.returns_pictures:
            continue
        sizes[name] = size = node.size()
        if node.unknown is not None:
            message = (
                f"{node.unknown} is a size, which must be a number, or computed by PrimitiveInt, GetImageSize, "
                "ResolutionSelector or ComfyMathExpression"
            )
            return [Problem(name, class_type, node.unknown, "bad_link", message)]
        own = sum(BYTES.get(str(each), 0.0) for each in outputs) * math.prod(size)
        needed = held + AT_WORK * own
        if needed > most_bytes:
            message = (
                f"pictures need about {needed / 2**30:.1f} GiB up to here, where there are "
                f"{size.batch:.0f} of {size.width:.0f} x {size.height:.0f}; {most_bytes / 2**30:.1f} GiB are allowed"
            )
            return [Problem(name, class_type, None, "too_large", message)]
        held += own
    return []


def _order(graph: Mapping[str, Any]) -> list[str]:
    """The nodes, each after all that it is fed by."""
    feeds = {
        name: [value[0] for value in node["inputs"].values() if isinstance(value, list)] for name, node in graph.items()
    }
    return list(graphlib.TopologicalSorter(feeds).static_order())


class _Node:
    """One node, after all that it is fed by; `unknown` is an input that is a size and is not known."""

    def __init__(
        self,
        graph: Mapping[str, Any],
        definitions: Mapping[str, Any],
        sizes: Mapping[str, Size],
        numbers: Mapping[str, tuple[float | None, ...]],
        name: str,
    ) -> None:
        self._graph = graph
        self._numbers = numbers
        self._kind: str = graph[name]["class_type"]
        self._inputs: Mapping[str, Any] = graph[name]["inputs"]
        self._outputs = definitions[self._kind]["output"]
        self.unknown: str | None = None
        self._given = [
            sizes[value[0]]
            for value in self._inputs.values()
            if isinstance(value, list)
            and value[0] in sizes
            and str(definitions[graph[value[0]]["class_type"]]["output"][value[1]]) in BYTES
        ]

    @property
    def returns_pictures(self) -> bool:
        """Whether it returns pictures, masks or latents: by what it says, or since it returns what it is given."""
        kinds = {str(output) for output in self._outputs} & BYTES.keys()
        return bool(kinds - {ANY}) or (ANY in kinds and bool(self._given))

    def numbers(self) -> tuple[float | None, ...]:
        """What its outputs are, as far as they are numbers that are known: one number stands for all of them."""
        match self._kind:
            case kind if kind in LITERALS:
                return (self._number("value"),)
            case "GetImageSize" if self._given:
                batch, width, height = self._given[0]
                return width, height, batch
            case "ResolutionSelector":
                area, multiple = self._number("megapixels"), self._number("multiple")
                return (None if area is None or multiple is None else WIDEST * math.sqrt(area * 2**20) + multiple,)
            case "ComfySwitchNode":
                if isinstance(on := self._inputs.get("switch"), bool):
                    return (self._number("on_true" if on else "on_false"),)
                both = [self._number(key) for key in ("on_true", "on_false") if key in self._inputs]
                return (max((each for each in both if each is not None), default=None) if None not in both else None,)
            case "ComfyNumberConvert":
                return (self._number("value"),)
            case "ComfyMathExpression":
                given = {key.partition(".")[2]: self._number(key) for key in self._inputs if key.startswith("values.")}
                known = {key: value for key, value in given.items() if value is not None}
                value = evaluate(str(self._inputs.get("expression")), known) if len(known) == len(given) else None
                return (value, None if value is None else int(value))
        return (None,)

    def _number(self, key: str) -> float | None:
        """The number that an input has, itself or from another node; None for anything else."""
        value = self._inputs.get(key)
        if isinstance(value, list):
            outputs = self._numbers[value[0]]
            found: float | None = outputs[min(value[1], len(outputs) - 1)]
            return found
        if isinstance(value, str) and len(value) < 100:
            try:
                value = float(value)
            except ValueError:
                return None
        return value if isinstance(value, int | float) and abs(value) < 1e300 else None

    def _measure(self, key: str) -> float | None:
        """A number that a size follows from; None where the input is not there, or says nothing. At least 0."""
        if key not in self._inputs:
            return None
        number = self._number(key)
        if number is None:
            # A node that whoever runs this service let in is theirs to answer for.
            source = self._inputs[key]
            if self._kind in REVIEWED and isinstance(source, list) and self._class_of(source) in REVIEWED:
                self.unknown = key
            return None
        return float(max(min(number, 10**12), 0))

    def _class_of(self, link: list[Any]) -> str:
        class_type: str = self._graph[link[0]]["class_type"]
        return class_type

    def _first(self, keys: tuple[str, ...]) -> float | None:
        return next((number for key in keys if (number := self._measure(key))), None)

    def size(self) -> Size:
        """The size of each picture, mask and latent that it returns."""
        if self._kind == "ImageGrid":
            return self._grid()
        size = Size(*map(max, zip(*self._given, strict=True))) if self._given else LOADED
        size = self._scaled(self._joined(size))
        if self._kind == "ImagePadForOutpaint":
            left, top, right, bottom = (self._measure(key) or 0.0 for key in ("left", "top", "right", "bottom"))
            size = Size(size.batch, size.width + left + right, size.height + top + bottom)
        if self._kind == "SplitImageToTileList":
            size = self._tiles(size)
        return size._replace(batch=self._batch(size.batch))

    def _joined(self, size: Size) -> Size:
        """With all that is put side by side, or one after the other."""
        along = {"ImageStitch": "direction", "LatentConcat": "dim"}.get(self._kind)
        where = str(self._inputs.get(along, "")).strip("-") if along else ""
        if self._kind in JOINING or where == "t":
            return size._replace(batch=sum(each.batch for each in self._given))
        spacing = self._measure("spacing_width") or 0.0
        if where in ("right", "left", "x"):
            # Both get the same height, of which the widths follow.
            tallest = size.height if where != "x" else 0
            widths = [each.width * max(1.0, tallest / each.height) for each in self._given]
            return size._replace(width=sum(widths) + spacing)
        if where in ("down", "up", "y"):
            widest = size.width if where != "y" else 0
            heights = [each.height * max(1.0, widest / each.width) for each in self._given]
            return size._replace(height=sum(heights) + spacing)
        return size

    def _scaled(self, size: Size) -> Size:
        """After what is said of sides, factors and areas."""
        for across, down in SIDES:
            width, height = self._measure(across), self._measure(down)
            if not width and not height:
                continue
            # A side that is 0 or missing follows from the other.
            width = width or size.width * (height or 0) / size.height
            height = height or size.height * width / size.width
            if self._kind in CROPPING:
                width, height = min(width, size.width), min(height, size.height)
            size = Size(size.batch, max(width, 1.0), max(height, 1.0))
        for factor in (self._first(FACTORS), ENLARGING.get(self._kind)):
            size = size.scaled(factor or 1.0)
        if longer := self._first(LONGER):
            size = size.scaled(longer / max(size.width, size.height))
        if shorter := self._first(SHORTER):
            size = size.scaled(shorter / min(size.width, size.height))
        if area := self._first(AREAS):
            size = size.scaled(math.sqrt(area * 2**20 / (size.width * size.height)))
        multiple = self._measure("resize_type.multiple") or 0.0
        return Size(size.batch, max(size.width, multiple, 1.0), max(size.height, multiple, 1.0))

    def _batch(self, batch: float) -> float:
        frames = self._first(FRAMES)
        if self._kind in TAKING:
            return min(batch, frames or batch)
        if self._kind in REPEATING:
            return batch * (self._measure(REPEATING[self._kind]) or 1.0)
        several = None if self._kind.startswith("Rebatch") else self._measure("batch_size")
        return max(batch, (several or 1.0) * (frames or 1.0))

    def _grid(self) -> Size:
        columns = self._measure("columns") or 1.0
        padding = self._measure("padding") or 0.0
        width, height = ((self._measure(key) or 0.0) + padding for key in ("cell_width", "cell_height"))
        return Size(1, columns * width, math.ceil(sum(each.batch for each in self._given) / columns) * height)

    def _tiles(self, size: Size) -> Size:
        overlap = self._measure("overlap") or 0.0
        count, sides = size.batch, []
        for side, key in ((size.width, "tile_width"), (size.height, "tile_height")):
            tile = min(self._measure(key) or side, side)
            sides.append(tile)
            count *= math.ceil(side / max(tile / 4, tile - overlap, 1.0))
        return Size(count, *sides)
