"""The memory that an imported graph needs, estimated before it runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared.engine.check_graph import check_graph
from shared.engine.graph_formulas import evaluate
from shared.engine.graph_memory import check_memory, check_texts
from shared.engine.node_policy import check_limits
from shared.web.imported_graph_checks import loaded_names
from tests.engine_nodes import reviewed
from tests.imported_graphs import ShortGraph, to_api

NODES = reviewed()


def empty(width: Any, height: Any, batch: Any = 1) -> tuple[str, dict[str, Any]]:
    return "EmptyImage", {"width": width, "height": height, "batch_size": batch, "color": 0}


def latent(width: Any, height: Any, batch: Any = 1) -> tuple[str, dict[str, Any]]:
    return "EmptyLatentImage", {"width": width, "height": height, "batch_size": batch}


def scaled(source: str, factor: Any) -> tuple[str, dict[str, Any]]:
    return "ImageScaleBy", {"image": [source, 0], "upscale_method": "area", "scale_by": factor}


def refused(nodes: ShortGraph, size: tuple[int, int, int] = (1, 2048, 2048)) -> list[str]:
    """Return the refused nodes if each loaded file has `size`: pictures, height and width."""
    graph = to_api(nodes)
    # The snapshot has no lists of choices, so the value of each combo is a problem.
    assert not [problem for problem in check_graph(graph, NODES) if problem.kind != "not_in_list"]
    loaded = dict.fromkeys(loaded_names(graph, NODES), size)
    return [problem.node for problem in check_texts(graph, NODES) or check_memory(graph, NODES, loaded)]


def chain(first: tuple[str, dict[str, Any]], count: int, link: Any) -> ShortGraph:
    return {"n0": first} | {f"n{i}": link(f"n{i - 1}") for i in range(1, count + 1)}


def resized(source: str, kind: str, **inputs: Any) -> tuple[str, dict[str, Any]]:
    more = {f"resize_type.{key}": value for key, value in inputs.items()}
    return "ResizeImageMaskNode", {"input": [source, 0], "scale_method": "area", "resize_type": kind, **more}


STITCH = {"match_image_size": True, "spacing_width": 0, "spacing_color": "white"}
VAE = {"vae": ("VAELoader", {"vae_name": "x"})}
PAD = {"left": 16384, "right": 0, "top": 16384, "bottom": 0, "feathering": 0}
FORMULA = {"f": ("ComfyMathExpression", {"expression": "a * 2", "values.a": 8192})}

TOO_LARGE: list[tuple[ShortGraph, str]] = [
    ({"e": empty(16384, 16384)}, "e"),
    ({"e": empty(64, 64, 4096 * 64)} | {"n": ("PrimitiveInt", {"value": 5})}, "e"),
    ({"n": ("PrimitiveInt", {"value": 2**60}), "e": empty(["n", 0], 8)}, "e"),
    ({**FORMULA, "e": empty(["f", 1], ["f", 1])}, "e"),
    ({"f": ("ComfyMathExpression", {"expression": "a * a + 16384 - a * a", "values.a": 2**53}),
      "e": empty(["f", 1], ["f", 1])}, "e"),
    ({"n": ("PrimitiveInt", {"value": 16384}), "e": empty(["s", 0], ["s", 0]),
      "s": ("ComfySwitchNode", {"switch": True, "on_true": ["n", 0], "on_false": 1})}, "e"),
    ({"m": ("SolidMask", {"value": 1.0, "width": 16384, "height": 16384}), "n": ("InvertMask", {"mask": ["m", 0]}),
      "o": ("InvertMask", {"mask": ["n", 0]}), "p": ("InvertMask", {"mask": ["o", 0]})}, "p"),
    ({"e": empty(1024, 1024), "r": ("RepeatImageBatch", {"image": ["e", 0], "amount": 4096})}, "r"),
    ({"e": empty(1024, 1024), "a": scaled("e", 8.0), "b": scaled("a", 8.0)}, "b"),
    ({"e": empty(512, 512), "a": ("ImageScale", {"image": ["e", 0], "upscale_method": "area", "width": 16384,
      "height": 0, "crop": "disabled"})}, "a"),
    ({"l": latent(16384, 16384), **VAE, "d": ("VAEDecode", {"samples": ["l", 0], "vae": ["vae", 0]})}, "d"),
    ({"l": latent(512, 512, 4096), **VAE, "d": ("VAEDecode", {"samples": ["l", 0], "vae": ["vae", 0]})}, "d"),
    ({"l": latent(512, 512), "u": ("LatentUpscaleBy", {"samples": ["l", 0], "upscale_method": "area",
      "scale_by": 8.0}), "v": ("LatentUpscaleBy", {"samples": ["u", 0], "upscale_method": "area", "scale_by": 8.0}),
      "r": ("RepeatLatentBatch", {"samples": ["v", 0], "amount": 64})}, "r"),
    ({"e": empty(512, 512), "p": ("ImagePadForOutpaint", {"image": ["e", 0], **PAD})}, "p"),
    ({"e": empty(512, 512), "r": resized("e", "scale shorter dimension", shorter_size=16384)}, "r"),
    ({"e": empty(2048, 2048), "r": resized("e", "scale by multiplier", multiplier=8.0)}, "r"),
    ({"e": empty(64, 64), "r": resized("e", "scale to multiple", multiple=16384)}, "r"),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "guilty"), TOO_LARGE)
def test_pictures_that_do_not_fit_are_refused_at_the_first_such_node(nodes: ShortGraph, guilty: str) -> None:
    graph = to_api(nodes)
    [problem] = check_memory(graph, NODES)
    assert (problem.node, problem.kind) == (guilty, "too_large")
    assert "4.0 GiB are allowed" in problem.message


@pytest.mark.parametrize(
    "link",
    [
        lambda last: ("ImageBatch", {"image1": [last, 0], "image2": [last, 0]}),
        lambda last: ("BatchImagesNode", {"images.image0": [last, 0], "images.image1": [last, 0]}),
        lambda last: ("ImageStitch", {"image1": [last, 0], "image2": [last, 0], "direction": "right", **STITCH}),
        lambda last: ("ImageStitch", {"image1": [last, 0], "image2": [last, 0], "direction": "down", **STITCH}),
        lambda last: ("RepeatImageBatch", {"image": [last, 0], "amount": 2}),
        lambda last: scaled(last, 1.5),
    ],
)
def test_chains_that_grow_are_refused_and_short_ones_are_not(link: Any) -> None:
    assert refused(chain(empty(512, 512), 4, link)) == []
    assert len(refused(chain(empty(512, 512), 40, link))) == 1


def test_a_long_chain_of_large_pictures_adds_up() -> None:
    def inverted(last: str) -> tuple[str, dict[str, Any]]:
        return "ImageInvert", {"image": [last, 0]}

    assert refused(chain(empty(2048, 2048), 10, inverted)) == []
    assert refused(chain(empty(4096, 4096), 30, inverted)) == ["n20"]


LOAD: ShortGraph = {"i": ("LoadImage", {"image": "x.png"})}


@pytest.mark.parametrize(
    "nodes",
    [
        {"e": empty(4096, 4096)},
        {"l": latent(1024, 1024, 16), **VAE, "d": ("VAEDecode", {"samples": ["l", 0], "vae": ["vae", 0]})},
        {**LOAD, "s": scaled("i", 4.0), "t": scaled("s", 0.5)},
        {**LOAD, "g": ("GetImageSize", {"image": ["i", 0]}), "l": latent(["g", 0], ["g", 1], ["g", 2])},
        {**LOAD, "g": ("GetImageSize", {"image": ["i", 0]}), "l": latent(["f", 1], ["f", 1]),
         "f": ("ComfyMathExpression", {"expression": "floor(a / 8) * 8", "values.a": ["g", 0]})},
        {"r": ("ResolutionSelector", {"aspect_ratio": "1:1", "megapixels": 1.0, "multiple": 8}),
         "l": latent(["r", 0], ["r", 1])},
        {**LOAD, "m": ("UpscaleModelLoader", {"model_name": "x"}),
         "u": ("ImageUpscaleWithModel", {"upscale_model": ["m", 0], "image": ["i", 0]})},
        {**LOAD, "c": ("ImageCrop", {"image": ["i", 0], "width": 16384, "height": 16384, "x": 0, "y": 0})},
        {**LOAD, "b": ("ImageFromBatch", {"image": ["i", 0], "batch_index": 0, "length": 4096})},
        {f"s{i}": ("ComfySwitchNode", {"switch": True, "on_true": "a", "on_false": "b"}) for i in range(100)},
        {**LOAD, "b": ("RebatchImages", {"images": ["i", 0], "batch_size": 4096})},
    ],
)  # fmt: skip
def test_usual_graphs_fit(nodes: ShortGraph) -> None:
    assert refused(nodes) == []


def test_our_own_graphs_fit() -> None:
    graphs = [json.loads(path.read_text(encoding="utf-8")) for path in Path("tests/golden").glob("*.json")]
    known = [graph for graph in graphs if all(node["class_type"] in NODES for node in graph.values())]
    assert len(known) > 5
    loaded = [dict.fromkeys(loaded_names(graph, NODES), (1, 2048, 2048)) for graph in known]
    checked = zip(known, loaded, strict=True)
    assert [problem for graph, sizes in checked if (problem := check_memory(graph, NODES, sizes))] == []
    assert [problems for graph in known if (problems := check_texts(graph, NODES) + check_limits(graph, NODES))] == []


def test_a_size_from_an_unsupported_computation_is_refused() -> None:
    nodes: ShortGraph = {"s": ("StringLength", {"string": "a" * 20_000}), "e": empty(["s", 0], 8)}
    [problem] = check_memory(to_api(nodes), NODES)
    assert (problem.node, problem.input, problem.kind) == ("e", "width", "bad_link")
    # Sizes from nodes that the settings allow are not checked.
    own = {**NODES, "Sizes": {"input": {}, "output": ["INT"]}}
    assert check_memory(to_api({"s": ("Sizes", {}), "e": empty(["s", 0], 8)}), own) == []


def joined(a: Any, b: Any, between: str = "") -> tuple[str, dict[str, Any]]:
    return "StringConcatenate", {"string_a": a, "string_b": b, "delimiter": between}


def replaced(text: Any, find: str, new: Any) -> tuple[str, dict[str, Any]]:
    return "StringReplace", {"string": text, "find": find, "replace": new}


def test_growing_texts_are_refused_at_the_first_node_over_the_limit() -> None:
    text = ("PrimitiveString", {"value": "a" * 1000})
    assert refused(chain(text, 4, lambda last: joined([last, 0], [last, 0]))) == []
    assert refused(chain(text, 40, lambda last: joined([last, 0], [last, 0]))) == ["n5"]
    assert refused(chain(text, 2, lambda last: replaced([last, 0], "", [last, 0]))) == ["n1"]
    assert refused(chain(text, 2, lambda last: replaced([last, 0], "a", "b" * 21))) == ["n1"]
    assert refused({"t": text, "u": ("CaseConverter", {"string": ["t", 0], "mode": "UPPERCASE"}),
                    "r": replaced(["u", 0], "A", "b" * 21)}) == ["r"]  # fmt: skip


def test_templates_with_replacements_fit() -> None:
    nodes: ShortGraph = {"t0": ("PrimitiveString", {"value": "{a}, {b}, {c}, {d}" + " words" * 200})}
    for i, letter in enumerate("abcd"):
        nodes[f"t{i + 1}"] = replaced([f"t{i}", 0], f"{{{letter}}}", "some more words" * 20)
    assert refused(nodes) == []


def test_formulas_have_the_values_that_the_engine_computes() -> None:
    names = {"a": 512, "b": 3}
    for text, value in {
        "a * 2 + b": 1027, "max(a, b) // 7": 73, "-b ** 2": -9, "sum(values)": 515, "round(a / b)": 171,
        "a if a < b else b": 3, "a > b > 1": 1,
        "a and b": 3, "0 or b": 3, "max(values) - min(values)": 509, "a ** 8 * a ** 8 + 5 - a ** 8 * a ** 8": 5,
        "pow(b, 2)": 9, "int(sqrt(a))": 22,
    }.items():  # fmt: skip
        assert evaluate(text, names) == value
    assert evaluate("a / 0", names) is evaluate("c", names) is evaluate("sqrt(-1)", names) is None
    assert evaluate("1e308 * 10 - 1e308 * 10", names) is None
