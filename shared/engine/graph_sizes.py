"""How large the pictures, masks, latents and sounds are that a node returns, from the numbers in the graph. Pure.

An estimate, and no smaller than what comes: where a size is not known, it is the largest that it can be.
"""

import graphlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from shared.engine.formula import evaluate, why_no_formula
from shared.engine.reviewed_nodes import REVIEWED

# Nodes that hand on their one value, so that what is linked to them is known.
LITERALS = {"PrimitiveInt", "PrimitiveFloat", "PrimitiveBoolean", "PrimitiveString", "PrimitiveStringMultiline"}

Given = tuple[float | None, ...]
"""What the outputs of a node are, as far as they are numbers that are known; the last one stands for all further."""

UNKNOWN: Given = (None,)
# The longest text that is read as a number.
LONGEST_NUMBER = 100


def in_order(graph: Mapping[str, Any]) -> list[str]:
    """The nodes of a graph that has no circle, each after all that it is fed by."""
    feeds = {
        name: [value[0] for value in node["inputs"].values() if isinstance(value, list)] for name, node in graph.items()
    }
    return list(graphlib.TopologicalSorter(feeds).static_order())


def known_numbers(graph: Mapping[str, Any]) -> dict[str, Given]:
    """What each node gives, where that follows from numbers in the graph alone."""
    known: dict[str, Given] = {}
    for name in in_order(graph):
        known[name] = given_by(graph[name]["class_type"], graph[name]["inputs"], known)
    return known


def number(value: Any, known: Mapping[str, Given]) -> float | None:
    """The number that an input has, itself or from another node; None for anything else, and where it is not known."""
    if isinstance(value, list):
        outputs = known[value[0]]
        found: float | None = outputs[min(value[1], len(outputs) - 1)]
        return found
    if isinstance(value, str):
        return _read(value)
    return value if isinstance(value, int | float) and _is_finite(value) else None


def given_by(
    kind: str, inputs: Mapping[str, Any], known: Mapping[str, Given], size: Sequence[float] | None = None
) -> Given:
    """What a node of this class gives, after the numbers of those that feed it.

    `size` is that of the pictures which it is given: how many, their width and height.
    """

    def of(key: str) -> float | None:
        return number(inputs.get(key), known)

    match kind:
        case _ if kind in LITERALS:
            return (of("value"),)
        case "SeedNode":
            return (of("seed"),)
        case "ColorToRGBInt":
            return _color(inputs.get("color"))
        case "GetImageSize" if size is not None:
            batch, width, height = size
            return width, height, batch
        case "ComfySwitchNode":
            return (_switched(of("switch"), [of(key) for key in ("on_false", "on_true") if key in inputs]),)
        case "ComfyNumberConvert":
            value = of("value")
            return value, None if value is None else int(value)
        case "ComfyMathExpression":
            return _computed(inputs, known)
    return UNKNOWN


def _switched(on: float | None, both: Sequence[float | None]) -> float | None:
    """What a switch hands on; the larger one, where it is not known which."""
    if len(both) < 2 or on is not None:
        return both[int(bool(on)) if len(both) > 1 else 0] if both else None
    return None if None in both else max(each for each in both if each is not None)


def _computed(inputs: Mapping[str, Any], known: Mapping[str, Given]) -> Given:
    text = inputs.get("expression")
    given = {key.partition(".")[2]: number(each, known) for key, each in inputs.items() if key.startswith("values.")}
    names = {key: each for key, each in given.items() if each is not None}
    # One that is not let in may never end.
    if len(names) < len(given) or not isinstance(text, str) or why_no_formula(text) is not None:
        return UNKNOWN
    value = evaluate(text, names)
    return UNKNOWN if value is None else (value, int(value), bool(value))


def _color(text: Any) -> Given:
    try:
        digits = str(text).removeprefix("#")
        return int(digits[:6], 16), None, int(digits[6:8] or "ff", 16) / 255
    except ValueError:
        return UNKNOWN


def _read(text: str) -> float | None:
    if len(text) > LONGEST_NUMBER:
        return None
    for kind in (int, float):
        try:
            value = kind(text.strip())
        except ValueError:
            continue
        return value if _is_finite(value) else None
    return None


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


# The type of an output that is of the type of an input.
ANY = "COMFY_MATCHTYPE_V3"
PICTURES = {"IMAGE", "MASK", "LATENT", "VIDEO", "WAN_CAMERA_EMBEDDING", "MOGE_GEOMETRY", "DA3_GEOMETRY", ANY}
SOUND = "AUDIO"
JOINING = {"ImageBatch", "LatentBatch", "BatchImagesNode", "BatchLatentsNode", "BatchMasksNode", "LTXVConcatAVLatent"}
CROPPING = {"ImageCrop", "LatentCrop", "CropMask", "CenterCropImages", "RandomCropImages"}
TAKING = {"ImageFromBatch", "LatentFromBatch"}
REPEATING = {"RepeatImageBatch": "amount", "RepeatLatentBatch": "amount", "FrameInterpolate": "multiplier"}
# Models that enlarge: most by four.
ENLARGING = {"ImageUpscaleWithModel": 4.0, "LTXVLatentUpsampler": 2.0, "HunyuanVideo15LatentUpscaleWithModel": 2.0}
SIDES = (
    *(("width", "height"), ("target_width", "target_height"), ("final_width", "final_height")),
    *(("output_width", "output_height"), ("resize_type.width", "resize_type.height")),
)
FACTORS = ("scale_by", "scale_ratio", "resize_type.multiplier")
LONGER = ("largest_size", "longer_edge", "resize_type.longer_size")
SHORTER = ("shorter_edge", "resize_type.shorter_size")
AREAS = ("megapixels", "resize_type.megapixels")
FRAMES = ("length", "video_frames", "num_frames", "frames", "segment_length")
# Sides that are said as one number.
SQUARE = {"TripoSplatPreprocessImage": "size", "MoGePanoramaInference": "merge_resolution"}
# Bytes for each pixel of a latent that has not 16 channels for 8 x 8 pixels, and of those that are pixels themselves.
DENSITIES = {
    "EmptyChromaRadianceLatentImage": 12.0,
    "EmptyHiDreamO1LatentImage": 12.0,
    "StableCascade_EmptyLatentImage": 4.0,
    "StableCascade_StageC_VAEEncode": 4.0,
    "EmptyFlux2LatentImage": 2.0,
}
# The widest picture of an area that a ResolutionSelector makes is 21:9.
WIDEST = 1.6
# Samples of a second, and seconds of a sound whose length nobody knows.
RATE = 48_000
UNKNOWN_SECONDS = 600


class Size(NamedTuple):
    """Of pictures, masks or latents: how many there are at once, the pixels of each side, and bytes for a pixel of a
    latent."""

    batch: float
    width: float
    height: float
    density: float = 1.0

    @property
    def pixels(self) -> float:
        """Of all of them."""
        return self.batch * self.width * self.height

    def scaled(self, factor: float) -> "Size":
        """With both sides multiplied."""
        return self._replace(width=self.width * factor, height=self.height * factor)


class Sound(NamedTuple):
    """How long a sound is, and how many samples each second has."""

    seconds: float
    rate: float

    @property
    def samples(self) -> float:
        """Of one channel."""
        return self.seconds * self.rate


LOADED = Size(1, 2048, 2048)
# As large as a picture may be that a client sends.
LARGEST = Size(1, 8000, 8000)


@dataclass
class Known:
    """What is known of the nodes of a graph so far, by node. `loaded` are the sizes of files, by their names.

    `items` is how often what a node feeds is run: once for each element of a list.
    """

    graph: Mapping[str, Any]
    definitions: Mapping[str, Any]
    loaded: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    numbers: dict[str, Given] = field(default_factory=dict)
    sizes: dict[str, Size] = field(default_factory=dict)
    sounds: dict[str, Sound] = field(default_factory=dict)
    items: dict[str, float] = field(default_factory=dict)

    def type_of(self, link: list[Any]) -> str:
        """The type of an output."""
        return str(self.definitions[self.graph[link[0]]["class_type"]]["output"][link[1]])


class Node:
    """One node, after all that it is fed by; `unknown` is an input that is a size and is not known."""

    def __init__(self, known: Known, name: str) -> None:
        self._known = known
        self.kind: str = known.graph[name]["class_type"]
        self.inputs: Mapping[str, Any] = known.graph[name]["inputs"]
        self.outputs = [str(output) for output in known.definitions[self.kind]["output"]]
        self.unknown: str | None = None
        self._gathers = bool(known.definitions[self.kind].get("is_input_list"))
        links = list(self.links())
        self._given = [
            self._gathered(known.sizes[link[0]], link)
            for link in links
            if link[0] in known.sizes and known.type_of(link) in PICTURES
        ]
        self._heard = [
            known.sounds[link[0]] for link in links if link[0] in known.sounds and known.type_of(link) == SOUND
        ]

    def links(self) -> Iterator[list[Any]]:
        """Its inputs that are fed by other nodes."""
        return (value for value in self.inputs.values() if isinstance(value, list))

    def _gathered(self, size: Size, link: list[Any]) -> Size:
        """What a node that takes whole lists gets of a size at once."""
        return size._replace(batch=size.batch * self._known.items[link[0]]) if self._gathers else size

    @property
    def returns_pictures(self) -> bool:
        """Whether it returns pictures, masks or latents: by what it says, or since it returns what it is given."""
        kinds = set(self.outputs) & PICTURES
        return bool(kinds - {ANY}) or (ANY in kinds and bool(self._given))

    @property
    def returns_sound(self) -> bool:
        """Whether it returns sound, in the same way."""
        return SOUND in self.outputs or (ANY in self.outputs and bool(self._heard))

    @property
    def draws_inside(self) -> bool:
        """Whether it makes pictures of the size of its latent, to encode them."""
        return "LATENT" in self.outputs and "vae" in self.inputs

    def numbers(self) -> Given:
        """What its outputs are, as far as they are numbers that are known, or are at most."""
        if self.kind == "ResolutionSelector":
            area, multiple = self._number("megapixels"), self._number("multiple")
            return UNKNOWN if area is None or multiple is None else (WIDEST * math.sqrt(area * 2**20) + multiple,)
        size = self._given[0] if self._given else None
        return given_by(self.kind, self.inputs, self._known.numbers, None if size is None else size[:3])

    def sound(self) -> Sound:
        """The sound that it returns."""
        if self.kind == "EmptyAudio":
            return Sound(self.measure("duration") or 0.0, self.measure("sample_rate") or RATE)
        if not self._heard:
            # Decoded of a latent, or of a file.
            samples = sum(size.pixels for size in self._given) if "VAE" in self.kind else UNKNOWN_SECONDS * RATE
            return Sound(samples / RATE, RATE)
        # Before they are put together, all get the samples of the best.
        seconds = [each.seconds for each in self._heard]
        return Sound(
            sum(seconds) if self.kind == "AudioConcat" else max(seconds), max(each.rate for each in self._heard)
        )

    def size(self) -> Size:
        """The size of each picture, mask and latent that it returns, at once."""
        if self.kind == "ImageGrid":
            return self._grid()
        size = self._scaled(self._joined(self._first()))
        if self.kind == "ImagePadForOutpaint":
            left, top, right, bottom = (self.measure(key) or 0.0 for key in ("left", "top", "right", "bottom"))
            size = size._replace(width=size.width + left + right, height=size.height + top + bottom)
        density = DENSITIES.get(self.kind, size.density)
        return size._replace(batch=self._batch(size.batch), density=density)

    def items(self, size: Size | None) -> tuple[float, Size | None]:
        """How many elements its lists have, or how often it is run; and the size of what each has, after `size`."""
        of_links = [self._known.items[link[0]] for link in self.links()]
        runs = 1.0 if self._gathers else max([1.0, *of_links])
        if not any(self._known.definitions[self.kind].get("output_is_list") or ()):
            return runs, size
        batch = 1.0 if size is None else size.batch
        match self.kind:
            case "RebatchImages" | "RebatchLatents":
                whole = sum(each.batch for each in self._given)
                runs = math.ceil(whole / max(self.measure("batch_size") or 1.0, 1.0))
                batch = whole / max(runs, 1.0)
            case "SplitImageToTileList" if size is not None:
                size = self._tiles(size)
                runs, batch = runs * size.batch, 1.0
            case "WanDancerPadKeyframesList":
                runs *= self.measure("num_segments") or 1.0
            case "SeedVR2TemporalChunk":
                runs, batch = runs * self._chunks(batch), self.measure("chunking_mode.frames_per_chunk") or batch
            case _ if self._gathers:
                # A list of all that it is given.
                runs = sum(of_links) + sum(not isinstance(value, list) for value in self.inputs.values())
                # Of the lists that it got, each element has its own batch.
                batch = max([self._known.sizes[link[0]].batch for link in self._sized_links()], default=1.0)
        return runs, None if size is None else size._replace(batch=batch)

    def _sized_links(self) -> Iterator[list[Any]]:
        return (link for link in self.links() if link[0] in self._known.sizes)

    def _chunks(self, frames: float) -> float:
        """Into how many pieces SeedVR2TemporalChunk cuts so many frames, which overlap, four to a latent."""
        piece = self.measure("chunking_mode.frames_per_chunk") or frames
        step = max(piece - 4 * (self.measure("temporal_overlap") or 0.0), 4.0)
        return max(math.ceil(frames / step), 1.0)

    def _number(self, key: str) -> float | None:
        return number(self.inputs.get(key), self._known.numbers)

    def measure(self, key: str) -> float | None:
        """A number that a size follows from; None where the input is not there, or says nothing. At least 0."""
        if key not in self.inputs:
            return None
        value = self._number(key)
        if value is None:
            # A node that whoever runs this service let in is theirs to answer for.
            source = self.inputs[key]
            if self.kind in REVIEWED and isinstance(source, list) and self._class_of(source) in REVIEWED:
                self.unknown = key
            return None
        return float(max(min(value, 10**12), 0))

    def _class_of(self, link: list[Any]) -> str:
        class_type: str = self._known.graph[link[0]]["class_type"]
        return class_type

    def _first_of(self, keys: tuple[str, ...]) -> float | None:
        return next((found for key in keys if (found := self.measure(key))), None)

    def _first(self) -> Size:
        """What it is given, or loads, or makes of nothing."""
        if self._given:
            return Size(*map(max, zip(*self._given, strict=True)))
        if self._heard:
            return Size(1, max(each.samples for each in self._heard), 1)
        named = self.inputs.get("image")
        if isinstance(named, str):
            return Size(*self._known.loaded[named]) if named in self._known.loaded else LARGEST
        if seconds := self.measure("seconds") or self._seconds_of_frames():
            return Size(1, seconds * RATE, 1)
        if resolution := self.measure("resolution"):
            # Of a shape: 64 channels for each point of it.
            return Size(1, resolution * 256, 1)
        return LOADED

    def _seconds_of_frames(self) -> float:
        return (self.measure("frames_number") or 0.0) / max(self.measure("frame_rate") or 1.0, 1.0)

    def _joined(self, size: Size) -> Size:
        """With all that is put side by side, or one after the other."""
        along = {"ImageStitch": "direction", "LatentConcat": "dim"}.get(self.kind)
        where = str(self.inputs.get(along, "")).strip("-") if along else ""
        if self.kind in JOINING or where == "t":
            return size._replace(batch=sum(each.batch for each in self._given))
        spacing = self.measure("spacing_width") or 0.0
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
            width, height = self.measure(across), self.measure(down)
            if not width and not height:
                continue
            # A side that is 0 or missing follows from the other.
            width = width or size.width * (height or 0) / size.height
            height = height or size.height * width / size.width
            if self.kind in CROPPING:
                width, height = min(width, size.width), min(height, size.height)
            size = size._replace(width=max(width, 1.0), height=max(height, 1.0))
        for factor in (self._first_of(FACTORS), ENLARGING.get(self.kind)):
            size = size.scaled(factor or 1.0)
        if longer := self._first_of(LONGER):
            size = size.scaled(longer / max(size.width, size.height))
        if shorter := self._first_of(SHORTER):
            size = size.scaled(shorter / min(size.width, size.height))
        if area := self._first_of(AREAS):
            size = size.scaled(math.sqrt(area * 2**20 / (size.width * size.height)))
        if side := self.measure(SQUARE.get(self.kind, "")):
            size = size._replace(width=side, height=side)
        multiple = self.measure("resize_type.multiple") or 0.0
        return size._replace(width=max(size.width, multiple, 1.0), height=max(size.height, multiple, 1.0))

    def _batch(self, batch: float) -> float:
        frames = self._first_of(FRAMES)
        if self.kind in TAKING:
            return min(batch, frames or batch)
        if self.kind in REPEATING:
            return batch * (self.measure(REPEATING[self.kind]) or 1.0)
        if self.kind == "ImageMergeTileList":
            return 1.0
        several = None if self.kind.startswith("Rebatch") else self.measure("batch_size")
        layers = 1.0 + (self.measure("layers") or 0.0)
        return max(batch, (several or 1.0) * (frames or 1.0) * layers)

    def _grid(self) -> Size:
        columns = self.measure("columns") or 1.0
        padding = self.measure("padding") or 0.0
        width, height = ((self.measure(key) or 0.0) + padding for key in ("cell_width", "cell_height"))
        return Size(1, columns * width, math.ceil(sum(each.batch for each in self._given) / columns) * height)

    def _tiles(self, size: Size) -> Size:
        overlap = self.measure("overlap") or 0.0
        count, sides = size.batch, []
        for side, key in ((size.width, "tile_width"), (size.height, "tile_height")):
            tile = min(self.measure(key) or side, side)
            sides.append(tile)
            count *= math.ceil(side / max(tile / 4, tile - overlap, 1.0))
        return Size(count, *sides)
