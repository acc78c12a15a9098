"""Computes the numbers in a graph and the sizes of its pictures, masks, latents and sounds before it runs. Pure.

The engine checks the numbers in a graph, but not those that links bring. So they are computed here as the engine
computes them, and sizes follow from them. A size is an estimate that is never too small: one that is not known counts
as the largest possible.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from shared.engine.graph_formulas import VARIABLES, evaluate, why_refused_formula
from shared.engine.reviewed_nodes import REVIEWED
from shared.graph_walk import is_link, links_of, run_order

# Nodes that return their one value unchanged.
CONSTANT_NODES = {"PrimitiveInt", "PrimitiveFloat", "PrimitiveBoolean", "PrimitiveString", "PrimitiveStringMultiline"}

Numbers = tuple[float | None, ...]
"""The outputs of a node as numbers, None where one is not known; the last one stands for all further outputs."""

UNKNOWN: Numbers = (None,)
# Longer texts are not read as numbers.
LONGEST_NUMBER = 100


def known_numbers(graph: Mapping[str, Any]) -> dict[str, Numbers]:
    """The outputs of each node that follow from numbers in the graph alone."""
    known: dict[str, Numbers] = {}
    for name in run_order(graph):
        known[name] = returned_numbers(graph[name]["class_type"], graph[name]["inputs"], known)
    return known


def number(value: Any, known: Mapping[str, Numbers]) -> float | None:
    """The number that an input has, itself or over a link; None if it is not a number or not known."""
    if is_link(value):
        outputs = known[value[0]]
        linked: float | None = outputs[min(value[1], len(outputs) - 1)]
        return linked
    if isinstance(value, str):
        return _parse_number(value)
    return value if isinstance(value, int | float) and _is_finite(value) else None


def returned_numbers(
    class_type: str, inputs: Mapping[str, Any], known: Mapping[str, Numbers], size: Sequence[float] | None = None
) -> Numbers:
    """The outputs of a node of this class, given those of the nodes that feed it.

    `size` is the number, width and height of the pictures that it gets.
    """

    def value_of(key: str) -> float | None:
        return number(inputs.get(key), known)

    match class_type:
        case _ if class_type in CONSTANT_NODES:
            return (value_of("value"),)
        case "SeedNode":
            return (value_of("seed"),)
        case "ColorToRGBInt":
            return _color(inputs.get("color"))
        case "GetImageSize" if size is not None:
            batch, width, height = size
            return width, height, batch
        case "ComfySwitchNode":
            branches = [value_of(key) for key in ("on_false", "on_true") if key in inputs]
            return (_switch(value_of("switch"), branches),)
        case "ComfyNumberConvert":
            value = value_of("value")
            return value, None if value is None else int(value)
        case "ComfyMathExpression":
            return _evaluate(inputs, known)
    return UNKNOWN


def _switch(condition: float | None, branches: Sequence[float | None]) -> float | None:
    """The branch that a switch returns; the larger one if the condition is not known."""
    if len(branches) < 2 or condition is not None:
        return branches[int(bool(condition)) if len(branches) > 1 else 0] if branches else None
    return None if None in branches else max(value for value in branches if value is not None)


def _evaluate(inputs: Mapping[str, Any], known: Mapping[str, Numbers]) -> Numbers:
    text = inputs.get("expression")
    linked = {
        key.partition(".")[2]: number(value, known) for key, value in inputs.items() if key.startswith(f"{VARIABLES}.")
    }
    variables = {name: value for name, value in linked.items() if value is not None}
    # A formula that is not allowed may never end.
    if len(variables) < len(linked) or not isinstance(text, str) or why_refused_formula(text) is not None:
        return UNKNOWN
    value = evaluate(text, variables)
    return UNKNOWN if value is None else (value, int(value), bool(value))


def _color(text: Any) -> Numbers:
    try:
        digits = str(text).removeprefix("#")
        return int(digits[:6], 16), None, int(digits[6:8] or "ff", 16) / 255
    except ValueError:
        return UNKNOWN


def _parse_number(text: str) -> float | None:
    if len(text) > LONGEST_NUMBER:
        return None
    for parse in (int, float):
        try:
            value = parse(text.strip())
        except ValueError:
            continue
        return value if _is_finite(value) else None
    return None


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


# The type of an output that has the type of one of its node's inputs.
ANY = "COMFY_MATCHTYPE_V3"
PICTURES = {"IMAGE", "MASK", "LATENT", "VIDEO", "WAN_CAMERA_EMBEDDING", "MOGE_GEOMETRY", "DA3_GEOMETRY", ANY}
SOUND = "AUDIO"
JOINING = {"ImageBatch", "LatentBatch", "BatchImagesNode", "BatchLatentsNode", "BatchMasksNode", "LTXVConcatAVLatent"}
CROPPING = {"ImageCrop", "LatentCrop", "CropMask", "CenterCropImages", "RandomCropImages"}
TAKING = {"ImageFromBatch", "LatentFromBatch"}
REPEATING = {"RepeatImageBatch": "amount", "RepeatLatentBatch": "amount", "FrameInterpolate": "multiplier"}
# The largest factor of models that enlarge.
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
# Inputs that set both sides.
SQUARE = {"TripoSplatPreprocessImage": "size", "MoGePanoramaInference": "merge_resolution"}
# Bytes per pixel of latents that do not have 16 channels for 8 x 8 pixels, some of which are pixels themselves.
DENSITIES = {
    "EmptyChromaRadianceLatentImage": 12.0,
    "EmptyHiDreamO1LatentImage": 12.0,
    "StableCascade_EmptyLatentImage": 4.0,
    "StableCascade_StageC_VAEEncode": 4.0,
    "EmptyFlux2LatentImage": 2.0,
}
# The longer side of the widest picture of a ResolutionSelector (21:9), as a multiple of a square's side.
WIDEST = 1.6
# Samples per second, and the seconds of a sound of unknown length.
RATE = 48_000
UNKNOWN_SECONDS = 600


class Size(NamedTuple):
    """A batch of pictures, masks or latents: their number, sides in pixels, and for latents bytes per pixel."""

    batch: float
    width: float
    height: float
    density: float = 1.0

    @property
    def pixels(self) -> float:
        """The pixels of the whole batch."""
        return self.batch * self.width * self.height

    def scaled(self, factor: float) -> "Size":
        """This size with both sides multiplied."""
        return self._replace(width=self.width * factor, height=self.height * factor)


class Sound(NamedTuple):
    """The length of a sound and its samples per second."""

    seconds: float
    rate: float

    @property
    def samples(self) -> float:
        """The samples of one channel."""
        return self.seconds * self.rate


LOADED = Size(1, 2048, 2048)
# The largest picture that a client may send.
LARGEST = Size(1, 8000, 8000)


@dataclass
class Measurements:
    """The outputs of a graph's nodes that have been measured so far, by node id.

    `loaded` has the number of pictures, width and height of each file that the graph loads, by its name. `items` is the
    length of the lists that a node returns: the nodes that it feeds run once for each element.
    """

    graph: Mapping[str, Any]
    definitions: Mapping[str, Any]
    loaded: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    numbers: dict[str, Numbers] = field(default_factory=dict)
    sizes: dict[str, Size] = field(default_factory=dict)
    sounds: dict[str, Sound] = field(default_factory=dict)
    items: dict[str, float] = field(default_factory=dict)

    def type_of(self, link: list[Any]) -> str:
        """The type of an output."""
        return str(self.definitions[self.graph[link[0]]["class_type"]]["output"][link[1]])


class MeasuredNode:
    """Measures one node after those that feed it. `unknown` is an input that decides a size but is not known."""

    def __init__(self, known: Measurements, name: str) -> None:
        self._known = known
        self.class_type: str = known.graph[name]["class_type"]
        self.inputs: Mapping[str, Any] = known.graph[name]["inputs"]
        self.outputs = [str(output) for output in known.definitions[self.class_type]["output"]]
        self.unknown: str | None = None
        self._takes_lists = bool(known.definitions[self.class_type].get("is_input_list"))
        self._links = [link for _, link in links_of(known.graph, name)]
        self._pictures = [
            self._whole_list(known.sizes[link[0]], link)
            for link in self._links
            if link[0] in known.sizes and known.type_of(link) in PICTURES
        ]
        self._sounds = [
            known.sounds[link[0]] for link in self._links if link[0] in known.sounds and known.type_of(link) == SOUND
        ]

    def _whole_list(self, size: Size, link: list[Any]) -> Size:
        """The size that a node gets at once, which is that of all elements if the node takes whole lists."""
        return size._replace(batch=size.batch * self._known.items[link[0]]) if self._takes_lists else size

    @property
    def returns_pictures(self) -> bool:
        """Whether the node returns pictures, masks or latents, by its output types or because it returns its inputs."""
        kinds = set(self.outputs) & PICTURES
        return bool(kinds - {ANY}) or (ANY in kinds and bool(self._pictures))

    @property
    def returns_sound(self) -> bool:
        """Whether the node returns sound, in the same way."""
        return SOUND in self.outputs or (ANY in self.outputs and bool(self._sounds))

    @property
    def draws_inside(self) -> bool:
        """Whether the node makes pictures of the size of its latent in order to encode them."""
        return "LATENT" in self.outputs and "vae" in self.inputs

    def numbers(self) -> Numbers:
        """The outputs that are numbers and known, or the largest that they can be."""
        if self.class_type == "ResolutionSelector":
            area, multiple = self._number("megapixels"), self._number("multiple")
            return UNKNOWN if area is None or multiple is None else (WIDEST * math.sqrt(area * 2**20) + multiple,)
        size = self._pictures[0] if self._pictures else None
        return returned_numbers(self.class_type, self.inputs, self._known.numbers, None if size is None else size[:3])

    def sound(self) -> Sound:
        """The sound that the node returns."""
        if self.class_type == "EmptyAudio":
            return Sound(self.measure("duration") or 0.0, self.measure("sample_rate") or RATE)
        if not self._sounds:
            # Decoded from a latent, or loaded from a file.
            samples = (
                sum(size.pixels for size in self._pictures) if "VAE" in self.class_type else UNKNOWN_SECONDS * RATE
            )
            return Sound(samples / RATE, RATE)
        # All are resampled to the highest rate before they are joined.
        seconds = [sound.seconds for sound in self._sounds]
        return Sound(
            sum(seconds) if self.class_type == "AudioConcat" else max(seconds),
            max(sound.rate for sound in self._sounds),
        )

    def size(self) -> Size:
        """The size of the pictures, masks and latents that the node returns at once."""
        if self.class_type == "ImageGrid":
            return self._grid()
        size = self._scaled(self._joined(self._first()))
        if self.class_type == "ImagePadForOutpaint":
            left, top, right, bottom = (self.measure(key) or 0.0 for key in ("left", "top", "right", "bottom"))
            size = size._replace(width=size.width + left + right, height=size.height + top + bottom)
        density = DENSITIES.get(self.class_type, size.density)
        return size._replace(batch=self._batch(size.batch), density=density)

    def items(self, size: Size | None) -> tuple[float, Size | None]:
        """The length of the lists that the node returns, and the size of each element, given `size`.

        A node that returns no lists runs once for each element that it gets, and its outputs count as often.
        """
        of_links = [self._known.items[link[0]] for link in self._links]
        runs = 1.0 if self._takes_lists else max([1.0, *of_links])
        if not any(self._known.definitions[self.class_type].get("output_is_list") or ()):
            return runs, size
        batch = 1.0 if size is None else size.batch
        match self.class_type:
            case "RebatchImages" | "RebatchLatents":
                whole = sum(size.batch for size in self._pictures)
                runs = math.ceil(whole / max(self.measure("batch_size") or 1.0, 1.0))
                batch = whole / max(runs, 1.0)
            case "SplitImageToTileList" if size is not None:
                size = self._tiles(size)
                runs, batch = runs * size.batch, 1.0
            case "WanDancerPadKeyframesList":
                runs *= self.measure("num_segments") or 1.0
            case "SeedVR2TemporalChunk":
                runs, batch = runs * self._chunks(batch), self.measure("chunking_mode.frames_per_chunk") or batch
            case _ if self._takes_lists:
                # It returns a list of everything that it gets.
                runs = sum(of_links) + sum(not is_link(value) for value in self.inputs.values())
                # Each element keeps its own batch.
                batch = max((size.batch for size in self._sizes_of_links()), default=1.0)
        return runs, None if size is None else size._replace(batch=batch)

    def _sizes_of_links(self) -> Iterator[Size]:
        return (self._known.sizes[link[0]] for link in self._links if link[0] in self._known.sizes)

    def _chunks(self, frames: float) -> float:
        """The number of overlapping pieces into which SeedVR2TemporalChunk cuts frames, four of which make a latent."""
        piece = self.measure("chunking_mode.frames_per_chunk") or frames
        step = max(piece - 4 * (self.measure("temporal_overlap") or 0.0), 4.0)
        return max(math.ceil(frames / step), 1.0)

    def _number(self, key: str) -> float | None:
        return number(self.inputs.get(key), self._known.numbers)

    def measure(self, key: str) -> float | None:
        """The number of an input that decides a size, at least 0; None if the input is missing or not known."""
        if key not in self.inputs:
            return None
        value = self._number(key)
        if value is None:
            # The operator is responsible for a custom node that a setting allows.
            source = self.inputs[key]
            if self.class_type in REVIEWED and is_link(source) and self._class_of(source) in REVIEWED:
                self.unknown = key
            return None
        return float(max(min(value, 10**12), 0))

    def _class_of(self, link: list[Any]) -> str:
        class_type: str = self._known.graph[link[0]]["class_type"]
        return class_type

    def _first_of(self, keys: tuple[str, ...]) -> float | None:
        return next((value for key in keys if (value := self.measure(key))), None)

    def _first(self) -> Size:
        """The size of what the node gets, loads or makes, before it changes it."""
        if self._pictures:
            return Size(*map(max, zip(*self._pictures, strict=True)))
        if self._sounds:
            return Size(1, max(sound.samples for sound in self._sounds), 1)
        file = self.inputs.get("image")
        if isinstance(file, str):
            return Size(*self._known.loaded[file]) if file in self._known.loaded else LARGEST
        if seconds := self.measure("seconds") or self._seconds_of_frames():
            return Size(1, seconds * RATE, 1)
        if resolution := self.measure("resolution"):
            # The latent of a 3D shape: 64 channels for each of its points.
            return Size(1, resolution * 256, 1)
        return LOADED

    def _seconds_of_frames(self) -> float:
        return (self.measure("frames_number") or 0.0) / max(self.measure("frame_rate") or 1.0, 1.0)

    def _joined(self, size: Size) -> Size:
        """The size after inputs are joined into a batch, side by side, or one above the other."""
        key = {"ImageStitch": "direction", "LatentConcat": "dim"}.get(self.class_type)
        direction = str(self.inputs.get(key, "")).strip("-") if key else ""
        if self.class_type in JOINING or direction == "t":
            return size._replace(batch=sum(part.batch for part in self._pictures))
        spacing = self.measure("spacing_width") or 0.0
        if direction in ("right", "left", "x"):
            # ImageStitch scales both to the same height.
            tallest = size.height if direction != "x" else 0
            widths = [part.width * max(1.0, tallest / part.height) for part in self._pictures]
            return size._replace(width=sum(widths) + spacing)
        if direction in ("down", "up", "y"):
            widest = size.width if direction != "y" else 0
            heights = [part.height * max(1.0, widest / part.width) for part in self._pictures]
            return size._replace(height=sum(heights) + spacing)
        return size

    def _scaled(self, size: Size) -> Size:
        """The size after the inputs for sides, factors and areas."""
        for width_key, height_key in SIDES:
            width, height = self.measure(width_key), self.measure(height_key)
            if not width and not height:
                continue
            # A side that is 0 or missing keeps the aspect ratio.
            width = width or size.width * (height or 0) / size.height
            height = height or size.height * width / size.width
            if self.class_type in CROPPING:
                width, height = min(width, size.width), min(height, size.height)
            size = size._replace(width=max(width, 1.0), height=max(height, 1.0))
        for factor in (self._first_of(FACTORS), ENLARGING.get(self.class_type)):
            size = size.scaled(factor or 1.0)
        if longer := self._first_of(LONGER):
            size = size.scaled(longer / max(size.width, size.height))
        if shorter := self._first_of(SHORTER):
            size = size.scaled(shorter / min(size.width, size.height))
        if area := self._first_of(AREAS):
            size = size.scaled(math.sqrt(area * 2**20 / (size.width * size.height)))
        if side := self.measure(SQUARE.get(self.class_type, "")):
            size = size._replace(width=side, height=side)
        multiple = self.measure("resize_type.multiple") or 0.0
        return size._replace(width=max(size.width, multiple, 1.0), height=max(size.height, multiple, 1.0))

    def _batch(self, batch: float) -> float:
        frames = self._first_of(FRAMES)
        if self.class_type in TAKING:
            return min(batch, frames or batch)
        if self.class_type in REPEATING:
            return batch * (self.measure(REPEATING[self.class_type]) or 1.0)
        if self.class_type == "ImageMergeTileList":
            return 1.0
        several = None if self.class_type.startswith("Rebatch") else self.measure("batch_size")
        layers = 1.0 + (self.measure("layers") or 0.0)
        return max(batch, (several or 1.0) * (frames or 1.0) * layers)

    def _grid(self) -> Size:
        columns = self.measure("columns") or 1.0
        padding = self.measure("padding") or 0.0
        width, height = ((self.measure(key) or 0.0) + padding for key in ("cell_width", "cell_height"))
        return Size(1, columns * width, math.ceil(sum(part.batch for part in self._pictures) / columns) * height)

    def _tiles(self, size: Size) -> Size:
        overlap = self.measure("overlap") or 0.0
        count, sides = size.batch, []
        for side, key in ((size.width, "tile_width"), (size.height, "tile_height")):
            tile = min(self.measure(key) or side, side)
            sides.append(tile)
            count *= math.ceil(side / max(tile / 4, tile - overlap, 1.0))
        return Size(count, *sides)
