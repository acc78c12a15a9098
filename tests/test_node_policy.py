"""The nodes that imported graphs may use, the limits on their inputs, and the environment of the engine."""

import json
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from shared.engine import check_graph as module
from shared.engine.catalog import EngineCatalog
from shared.engine.check_graph import check_graph
from shared.engine.graph_formulas import why_refused_formula
from shared.engine.node_policy import FORMULAS, LIMITS, REFUSED, TEXT_LIMITS, check_files, check_limits, why_refused
from shared.engine.process import engine_environ
from shared.engine.reviewed_nodes import REVIEWED
from shared.errors import InvalidValue
from shared.settings import PREFIX
from shared.web.imported_graph_checks import check_imported_graph
from tests.engine_nodes import SNAPSHOT, reviewed, without_files
from tests.imported_graphs import ShortGraph, to_api
from tests.stack import PLANTED, TestStack

NODES = reviewed()


def test_every_class_of_the_engine_has_been_reviewed(stack: TestStack, update_golden: bool) -> None:
    """A new ComfyUI adds nodes and inputs: review them before `--update-golden` updates the snapshot, and
    add the classes to shared/engine/reviewed_nodes.py."""
    definitions = stack.ask_engine("GET", "/object_info").json()
    current = without_files(definitions)
    if update_golden:
        lines = (f"{json.dumps(name)}:{json.dumps(node, separators=(',', ':'))}" for name, node in current.items())
        SNAPSHOT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    assert sorted(current.keys() - NODES.keys()) == []
    assert [name for name in current if current[name] != NODES[name]] == []


def test_the_reviewed_classes_are_those_of_the_snapshot() -> None:
    assert NODES.keys() == REVIEWED
    assert set(REFUSED) <= REVIEWED
    for name, key in [*LIMITS, *TEXT_LIMITS, *FORMULAS]:
        groups = NODES[name]["input"]
        assert key in {**groups.get("required", {}), **groups.get("optional", {})}, (name, key)


STOCK_NODE = {"python_module": "nodes", "output_node": False}


@pytest.mark.parametrize(
    ("name", "definition", "expected"),
    [
        ("KSampler", STOCK_NODE, None),
        ("SaveImage", {"python_module": "nodes", "output_node": True}, None),
        ("FluxGuidance", {"python_module": "comfy_extras.nodes_flux"}, None),
        ("CheckpointSave", {"python_module": "comfy_extras.nodes_model_merging", "output_node": True}, "writes"),
        ("RegexMatch", {"python_module": "comfy_extras.nodes_string"}, "never end"),
        ("LoadImageOutput", STOCK_NODE, "of other clients"),
        ("Shell", {"python_module": "custom_nodes.shell"}, "custom node"),
        ("Shell", {"python_module": "nodes_evil"}, "custom node"),
        ("OpenAIDalle3", {"python_module": "comfy_api_nodes.nodes_openai"}, "custom node"),
        ("Shell", {}, "custom node"),
    ],
)
def test_only_harmless_nodes_are_allowed(name: str, definition: dict[str, Any], expected: str | None) -> None:
    reason = why_refused(name, definition, ())
    assert (reason is None) == (expected is None)
    assert expected is None or expected in str(reason)
    assert why_refused(name, definition, ("*",)) is None
    assert why_refused(name, definition, (name,)) is None


@pytest.mark.parametrize("value", ["x.png [output]", "dream_layer/../x.png", "../x.png", "/etc/passwd", "b.png", 5])
def test_pictures_are_loaded_from_the_input_folder_only(value: Any) -> None:
    definitions = {"LoadImage": {"input": {"required": {"image": [["a.png"], {"image_upload": True}]}}}}
    assert [problem.kind for problem in check_files(to_api({"a": ("LoadImage", {"image": value})}), definitions)] == [
        "not_in_list"
    ]
    for known in ("a.png", f"dream_layer/{'0' * 64}.png"):
        assert check_files(to_api({"a": ("LoadImage", {"image": known})}), definitions) == []


def test_a_class_that_has_not_been_reviewed_is_refused() -> None:
    definition = {"python_module": "comfy_extras.nodes_string", "output_node": False}
    assert "newer than this version" in str(why_refused("StringEvaluate", definition, ()))
    assert why_refused("StringEvaluate", definition, ("StringEvaluate",)) is None


@pytest.mark.parametrize("name", ["StringFormat", "RegexMatch", "GLSLShader", "LoadImageOutput", "SplatToMesh"])
def test_a_node_that_runs_code_formats_text_or_reads_files_is_refused(name: str) -> None:
    assert why_refused(name, NODES[name], ()) == REFUSED[name]


@pytest.mark.parametrize(
    "name", ["KSampler", "StringConcatenate", "GrowMask", "ComfyMathExpression", "ImageScaleBy", "TextOverlay"]
)
def test_common_nodes_are_allowed(name: str) -> None:
    assert why_refused(name, NODES[name], ()) is None


def problems(nodes: ShortGraph) -> list[tuple[str | None, str]]:
    return [(problem.input, problem.kind) for problem in check_graph(to_api(nodes), NODES)]


EMPTY = ("EmptyImage", {"width": 8, "height": 8, "batch_size": 1, "color": 0})


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"resize_type": "scale width", "resize_type.width": 64}, []),
        ({"resize_type": "scale width", "resize_type.width": 10**9}, [("resize_type.width", "out_of_range")]),
        ({"resize_type": "scale width", "resize_type.width": ["e", 3]}, [("resize_type.width", "bad_link")]),
        ({"resize_type": "scale width", "resize_type.depth": 1}, [("resize_type.depth", "unknown_input")]),
        ({"resize_type": "scale everything"}, [("resize_type", "not_in_list")]),
        ({"resize_type": ["e", 0]}, [("resize_type", "bad_link")]),
        ({}, [("resize_type", "missing_input")]),
    ],
)
def test_inputs_of_a_dynamic_combo_are_checked(more: dict[str, Any], expected: list[Any]) -> None:
    actual = problems({"e": EMPTY, "r": ("ResizeImageMaskNode", {"input": ["e", 0], "scale_method": "area", **more})})
    # The snapshot has no lists of choices, so the value of each combo is a problem.
    assert [problem for problem in actual if problem[0] != "scale_method"] == expected


def test_inputs_of_a_growing_list_are_checked() -> None:
    def batch_problems(**inputs: Any) -> list[tuple[str | None, str]]:
        return problems(
            {"e": EMPTY, "b": ("BatchImagesNode", {f"images.{key}": value for key, value in inputs.items()})}
        )

    assert batch_problems(image0=["e", 0], image1=["e", 0]) == []
    assert batch_problems(image0=["e", 1]) == [("images.image0", "bad_link")]
    assert batch_problems(image0=5) == [("images.image0", "wrong_type")]
    assert batch_problems(image50=["e", 0]) == [("images.image50", "unknown_input")]


@pytest.mark.parametrize("source", ["string", "switch", "list", "preview"])
def test_a_computed_file_name_is_refused(source: str) -> None:
    """The engine compares values with its lists of files, but not links."""
    graph: ShortGraph = {
        "string": ("PrimitiveString", {"value": "/etc/passwd"}),
        "switch": ("ComfySwitchNode", {"switch": True, "on_true": ["string", 0], "on_false": ["string", 0]}),
        "list": ("CreateList", {"inputs.input0": ["string", 0]}),
        "preview": ("PreviewAny", {"source": ["string", 0]}),
        "load": ("LoadVideo", {"file": [source, 0]}),
    }
    assert problems(graph) == [("file", "bad_link")]


def test_an_input_may_accept_several_types() -> None:
    for value in (5, 0.5, "5", True):
        assert problems({"n": ("ComfyNumberConvert", {"value": value})}) == []
    assert problems({"n": ("ComfyNumberConvert", {"value": {}})}) == [("value", "wrong_type")]


def test_the_engine_gets_no_secret_from_the_environment() -> None:
    needed = {"PATH": "/bin", "HOME": "/home", "CUDA_VISIBLE_DEVICES": "0", "SystemRoot": "C:\\Windows", "LC_ALL": "C"}
    secret = {
        f"{PREFIX}API_KEY": "key",
        "HF_TOKEN": "token",
        "AWS_SECRET_ACCESS_KEY": "key",
        "HTTPS_PROXY": "http://user:password@proxy",
        "PYTHON_KEYRING_PASSWORD": "word",
        "COMFYUI_API_KEY": "key",
        "DATABASE_URL": "postgres://user:word@host",
    }
    assert engine_environ({**needed, **secret}) == needed
    assert engine_environ({**needed, **secret}, ("hf_token",)) == {**needed, "HF_TOKEN": "token"}


def test_the_running_engine_gets_only_the_variables_it_needs(stack: TestStack) -> None:
    environ = psutil.Process(stack.engine_state()["pid"]).environ()
    assert "PATH" in environ
    assert not [name for name in environ if name.upper().startswith(PREFIX)]
    assert not PLANTED.keys() & environ.keys()
    assert not [value for value in environ.values() if value in PLANTED.values()]


def limit_problems(nodes: ShortGraph) -> list[tuple[str, str | None, str]]:
    graph = to_api(nodes)
    assert not [problem for problem in check_graph(graph, NODES) if problem.kind != "not_in_list"]
    return [(problem.node, problem.input, problem.kind) for problem in check_limits(graph, NODES)]


MASK_NODES = {"e": EMPTY, "mask": ("ImageToMask", {"image": ["e", 0], "channel": "red"})}


def grow_mask_graph(expand: Any, **more: tuple[str, dict[str, Any]]) -> ShortGraph:
    return {**MASK_NODES, **more, "g": ("GrowMask", {"mask": ["mask", 0], "expand": expand, "tapered_corners": True})}


@pytest.mark.parametrize("value", [64, -512, 512])
def test_a_number_within_its_limit_is_allowed_as_a_value_or_from_a_primitive(value: int) -> None:
    assert (
        limit_problems(grow_mask_graph(value))
        == limit_problems(grow_mask_graph(["n", 0], n=("PrimitiveInt", {"value": value})))
        == []
    )


@pytest.mark.parametrize("value", [513, 16384, -16384])
def test_a_number_beyond_its_limit_is_refused_as_a_value_or_from_a_primitive(value: int) -> None:
    assert limit_problems(grow_mask_graph(value)) == [("g", "expand", "out_of_range")]
    assert limit_problems(grow_mask_graph(["n", 0], n=("PrimitiveInt", {"value": value}))) == [
        ("g", "expand", "out_of_range")
    ]


def test_a_computed_value_for_a_limited_number_is_refused() -> None:
    computed = ("ComfyMathExpression", {"expression": "a * a", "values.a": 128})
    assert limit_problems(grow_mask_graph(["n", 1], n=computed)) == [("g", "expand", "bad_link")]
    # An input that the node does not declare is ignored.
    assert limit_problems(grow_mask_graph(["n", 0], n=("SeedNode", {"seed": 9000}))) == [("g", "expand", "bad_link")]
    several = {"n": ("PrimitiveInt", {"value": ["m", 0]}), "m": ("PrimitiveInt", {"value": 16384})}
    assert limit_problems(grow_mask_graph(["n", 0], **several)) == [("g", "expand", "out_of_range")]


def test_each_limit_is_enforced_with_node_input_and_range() -> None:
    for (name, key), limit in LIMITS.items():
        for value in (limit.low, limit.high):
            assert check_limits(to_api({"n": (name, {key: value})}), NODES) == []
        for value in (limit.low - 1, limit.high + 1):
            [problem] = check_limits(to_api({"n": (name, {key: value})}), NODES)
            assert (problem.node, problem.class_type, problem.input) == ("n", name, key)
            assert f"{key} must be from {limit.low:g} to {limit.high:g}" in problem.message
    for (name, key), longest in TEXT_LIMITS.items():
        assert check_limits(to_api({"n": (name, {key: "1" * longest})}), NODES) == []
        [problem] = check_limits(to_api({"n": (name, {key: "1" * (longest + 1)})}), NODES)
        assert (problem.input, problem.kind) == (key, "too_long")


def test_a_computed_value_for_a_limited_text_is_refused() -> None:
    joined = ("StringConcatenate", {"string_a": "1", "string_b": "0", "delimiter": ","})
    graph: ShortGraph = {"t": joined, "s": ("ManualSigmas", {"sigmas": ["t", 0]})}
    assert limit_problems(graph) == [("s", "sigmas", "bad_link")]
    assert limit_problems({**graph, "t": ("PrimitiveString", {"value": "1, 0.5, 0"})}) == []


@pytest.mark.parametrize(
    "text",
    [
        "a + b", "(a + 2) * 3.5 // b % 7 - -1", "a ** 2", "pow(a, 8)", "a ** -0.5", "min(a, b, 1024)", "sum(values)",
        "round(a / 8) * 8", "round(a, 2)", "a if a > b else b", "int(sqrt(a * b))", " floor(log2(a)) ", "max(values)",
    ],
)  # fmt: skip
def test_common_formulas_are_allowed(text: str) -> None:
    assert why_refused_formula(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9 ** 9 ** 9", "exponent"),
        ("9 ** a", "exponent"),
        ("a ** 9", "exponent"),
        ("pow(9, 4000)", "exponent"),
        ("pow(2, a)", "exponent"),
        ("((((((a ** 8) ** 8) ** 8) ** 8) ** 8) ** 8)", "bits"),
        ("pow(pow(pow(a, 8), 8), 8)", "bits"),
        ("round(5, -1000000000)", "rounds"),
        ("round(5, a)", "digits"),
        ("'x' * 2000000000", "more than numbers"),
        ("'%2000000000d' % 1", "more than numbers"),
        ("values * 1000000000", "more than numbers"),
        ("max(values, values) * 1000000000", "more than numbers"),
        ("[0] * 1000000000", "more than numbers"),
        ("a.__class__", "more than numbers"),
        ("a << 1000000", "more than numbers"),
        ("sum(x for x in values)", "more than numbers"),
        ("exec(1)", "more than numbers"),
        ("sum(*values)", "more than numbers"),
        ("round(5, ndigits=-1000000000)", "more than numbers"),
        ("", "is not a formula"),
        ("a +", "is not a formula"),
        ("a\x00", "is not a formula"),
        ("(" * 490 + "a" + ")" * 490, ""),
        ("-" * 999 + "a", ""),
        ("a+" * 500 + "a", "characters"),
    ],
)
def test_formulas_that_may_never_end_are_refused(text: str, expected: str) -> None:
    assert expected in str(why_refused_formula(text))
    assert limit_problems({"f": ("ComfyMathExpression", {"expression": text, "values.a": 5})}) == [
        ("f", "expression", "bad_formula")
    ]


def backend() -> Any:
    """A backend whose engine has the nodes of the snapshot."""
    engine = SimpleNamespace(get_node_schema=NODES.get, list_models=lambda _: [], list_model_folders=dict)
    return SimpleNamespace(catalog=EngineCatalog(cast(Any, engine)), settings=SimpleNamespace(allow_nodes=()))


def test_an_exceeded_limit_is_reported_with_node_input_and_limit() -> None:
    graph = to_api({"f": ("ComfyMathExpression", {"expression": "a ** 99", "values.a": 5})})
    with pytest.raises(InvalidValue, match=r"expression is not allowed.*up to 8 is allowed.*node f") as refused:
        check_imported_graph(backend(), graph, "custom_workflow", {})
    assert (refused.value.status, refused.value.field) == (422, "custom_workflow")
    check_imported_graph(
        backend(), to_api({"f": ("ComfyMathExpression", {"expression": "9 ** 2", "values.a": 5})}), "x", {}
    )


def test_a_formula_is_a_literal_and_takes_only_numbers() -> None:
    text = ("PrimitiveString", {"value": "9 ** 9 ** 9"})
    assert limit_problems({"t": text, "f": ("ComfyMathExpression", {"expression": ["t", 0], "values.a": 5})}) == [
        ("f", "expression", "bad_link")
    ]
    switch = ("ComfySwitchNode", {"switch": True, "on_true": ["t", 0], "on_false": ["t", 0]})
    product = {"expression": "a * 2000000000", "values.a": ["s", 0]}
    through_a_switch: ShortGraph = {"t": text, "s": switch, "f": ("ComfyMathExpression", product)}
    assert problems(through_a_switch) == [("values.a", "bad_link")]
    assert [
        (problem.node, problem.input, problem.kind) for problem in check_limits(to_api(through_a_switch), NODES)
    ] == [("f", "values.a", "bad_link")]
    size = ("GetImageSize", {"image": ["e", 0]})
    assert (
        limit_problems({"e": EMPTY, "s": size, "f": ("ComfyMathExpression", {**product, "expression": "a * 2"})}) == []
    )


SAMPLING = {"model": ["x", 0], "positive": ["x", 1], "negative": ["x", 1], "latent_image": ["x", 2], "seed": 1,
            "steps": 20, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}  # fmt: skip
SCHEMAS = {**NODES, "Source": {"input": {}, "output": ["MODEL", "CONDITIONING", "LATENT"]}}


def linked_problems(
    key: str, link: list[Any], **nodes: tuple[str, dict[str, Any]]
) -> list[tuple[str, str | None, str]]:
    """The problems of a KSampler with an input linked to another node."""
    graph = to_api({"x": ("Source", {}), "k": ("KSampler", {**SAMPLING, key: link}), **nodes})
    return [(problem.node, problem.input, problem.kind) for problem in check_limits(graph, SCHEMAS)]


def computed(text: str, **values: Any) -> tuple[str, dict[str, Any]]:
    return "ComfyMathExpression", {"expression": text, **{f"values.{key}": value for key, value in values.items()}}


@pytest.mark.parametrize(
    ("link", "nodes"),
    [
        (["n", 0], {"n": ("PrimitiveInt", {"value": 10_001})}),
        (["n", 0], {"n": ("PrimitiveInt", {"value": 0})}),
        (["n", 0], {"n": ("PrimitiveInt", {"value": ["m", 0]}), "m": ("PrimitiveInt", {"value": 2**60})}),
        (["n", 0], {"n": ("SeedNode", {"seed": 99_999})}),
        (["n", 1], {"n": computed("a * a", a=5000)}),
        (["n", 1], {"n": computed("a * a", a=["m", 0]), "m": ("PrimitiveInt", {"value": 101})}),
        (["n", 1], {"n": computed("a", a=["m", 1]), "m": computed("1e300 * a", a=1e5)}),
        (["n", 1], {"n": ("ComfyNumberConvert", {"value": "99999"})}),
        (["n", 1], {"n": ("ComfyNumberConvert", {"value": ["t", 0]}), "t": ("PrimitiveString", {"value": "1e5"})}),
        (["n", 0], {"n": ("ColorToRGBInt", {"color": "#ffffff"})}),
        (["n", 0], {"n": ("ComfySwitchNode", {"switch": True, "on_true": ["m", 0], "on_false": 5}),
                    "m": ("PrimitiveInt", {"value": 99_999})}),
        (["n", 0], {"n": ("ComfySwitchNode", {"switch": ["b", 0], "on_true": 5, "on_false": 99_999}),
                    "b": ("PrimitiveBoolean", {"value": False})}),
        (["n", 0], {"n": ("ComfySwitchNode", {"switch": ["b", 0], "on_true": 5, "on_false": 99_999}),
                    "b": ("StringContains", {"string": "a", "substring": "a", "case_sensitive": True})}),
    ],
)  # fmt: skip
def test_a_linked_number_out_of_range_is_refused(link: list[Any], nodes: ShortGraph) -> None:
    assert linked_problems("steps", link, **nodes)[:1] == [("k", "steps", "out_of_range")]


@pytest.mark.parametrize(
    ("key", "link", "nodes"),
    [
        ("steps", ["n", 0], {"n": ("PrimitiveInt", {"value": 10_000})}),
        ("steps", ["n", 1], {"n": computed("a * 2", a=10)}),
        ("seed", ["n", 0], {"n": ("SeedNode", {"seed": 2**63 - 1})}),
        ("cfg", ["n", 0], {"n": ("PrimitiveFloat", {"value": 7.5})}),
        ("cfg", ["n", 0], {"n": computed("a / 4", a=30)}),
        ("denoise", ["n", 0], {"n": ("ComfyNumberConvert", {"value": "0.5"})}),
        # As floats, this is 1.0000000000000002.
        ("denoise", ["n", 0], {"n": computed("a * 3 * 10 / 3", a=0.1)}),
        ("steps", ["n", 0], {"n": ("ComfySwitchNode", {"switch": False, "on_true": 99_999, "on_false": 5})}),
    ],
)
def test_a_linked_number_in_range_is_allowed(key: str, link: list[Any], nodes: ShortGraph) -> None:
    assert linked_problems(key, link, **nodes) == []


def test_the_steps_of_a_sampler_must_be_known() -> None:
    tiny = computed("a / 10000", a=0.5)
    assert linked_problems("denoise", ["n", 0], n=tiny) == [("k", "denoise", "out_of_range")]
    width: ShortGraph = {"e": EMPTY, "s": ("GetImageSize", {"image": ["e", 0]})}
    assert linked_problems("steps", ["s", 0], **width) == [("k", "steps", "bad_link")]
    assert linked_problems("denoise", ["n", 0], **width, n=computed("1 / a", a=["s", 0])) == [
        ("k", "denoise", "bad_link")
    ]
    # The operator is responsible for nodes that a setting allows.
    assert linked_problems("steps", ["x", 0]) == []


def test_every_declared_range_applies_to_links() -> None:
    checked = 0
    for name, node in NODES.items():
        if why_refused(name, node, ()) is not None:
            continue
        for key, (kind, *extra) in {**node["input"].get("required", {}), **node["input"].get("optional", {})}.items():
            high = extra[0].get("max") if extra else None
            if kind not in ("INT", "FLOAT") or high is None or high > 2**62 or (name, key) in LIMITS:
                continue
            source = ("PrimitiveInt" if kind == "INT" else "PrimitiveFloat", {"value": high + 1})
            actual = check_limits(to_api({"n": source, "x": (name, {key: ["n", 0]})}), NODES)
            assert [(problem.node, problem.input, problem.kind) for problem in actual] == [("x", key, "out_of_range")]
            checked += 1
    assert checked > 500


def test_a_refused_formula_is_never_evaluated() -> None:
    assert ("n", "expression", "bad_formula") in linked_problems("steps", ["n", 1], n=computed("9 ** 9 ** 9", a=1))


@pytest.mark.parametrize("name", ["WebcamCapture", "RecordAudio"])
def test_a_file_name_from_a_switch_is_refused(name: str) -> None:
    """`x.png [output]` is another client's picture, and the engine loads such a name wherever it comes from."""
    assert why_refused(name, NODES[name], ()) == REFUSED[name]
    key = "image" if name == "WebcamCapture" else "audio"
    other_inputs = {} if name == "RecordAudio" else {"width": 0, "height": 0, "capture_on_queue": True}
    for source in (
        ("ComfySwitchNode", {"switch": True, "on_true": "x.png [output]", "on_false": "x"}),
        ("ComfySwitchNode", {"switch": True, "on_true": ["text", 0], "on_false": ["text", 0]}),
        ("CreateList", {"inputs.input0": ["text", 0]}),
        ("ComfySwitchNode", {"switch": True, "on_true": ["other", 0], "on_false": ["other", 0]}),
    ):
        nodes: ShortGraph = {
            "text": ("PrimitiveString", {"value": "x.png [output]"}),
            "other": ("CreateList", {"inputs.input0": ["text", 0]}),
            "switch": source,
            "reads": (name, {key: ["switch", 0], **other_inputs}),
        }
        assert problems(nodes) == [(key, "bad_link")]


def test_the_mask_of_a_painter_is_a_listed_file_or_an_upload() -> None:
    def mask_problems(mask: Any) -> list[str]:
        nodes: ShortGraph = {
            "t": ("PrimitiveString", {"value": "x.png [output]"}),
            "p": ("Painter", {"mask": mask, "width": 64, "height": 64, "bg_color": "#000000"}),
        }
        return [problem.kind for problem in check_files(to_api(nodes), NODES)]

    assert mask_problems("") == mask_problems(f"dream_layer/{'a' * 64}.png") == []
    for mask in (["t", 0], "x.png [output]", "../x.png", "somebody.png"):
        assert mask_problems(mask) == ["not_in_list"]


def test_text_from_a_switch_may_only_feed_text_inputs() -> None:
    switch = ("ComfySwitchNode", {"switch": True, "on_true": "x.png [output]", "on_false": "x"})
    checked = 0
    for name, node in NODES.items():
        for key, (kind, *_) in {**node["input"].get("required", {}), **node["input"].get("optional", {})}.items():
            if str(kind).startswith("COMFY_") or kind == "*" or "STRING" in str(kind).split(","):
                continue
            actual = check_graph(to_api({"s": switch, "n": (name, {key: ["s", 0]})}), NODES)
            assert (key, "bad_link") in [(problem.input, problem.kind) for problem in actual], (name, key)
            checked += 1
    assert checked > 1500


def test_the_output_of_a_switch_has_the_type_of_its_inputs() -> None:
    chosen = ("ComfySwitchNode", {"switch": True, "on_true": ["e", 0], "on_false": ["e", 0]})
    assert problems({"e": EMPTY, "s": chosen, "n": ("ImageInvert", {"image": ["s", 0]})}) == []
    assert problems({"e": EMPTY, "s": chosen, "n": ("InvertMask", {"mask": ["s", 0]})}) == [("mask", "bad_link")]
    width = ("ComfySwitchNode", {"switch": True, "on_true": 64, "on_false": 128})
    assert problems({"s": width, "n": ("EmptyImage", {**EMPTY[1], "width": ["s", 0]})}) == []
    # Another check reports cycles.
    a, b = (("ComfySwitchNode", {"switch": True, "on_true": [name, 0], "on_false": [name, 0]}) for name in "ba")
    assert problems({"a": a, "b": b, "n": ("ImageInvert", {"image": ["a", 0]})}) == []


def test_a_long_chain_of_switches_is_visited_once(monkeypatch: pytest.MonkeyPatch) -> None:
    visits = 0
    original = module.declared_inputs

    def count_visits(*args: Any) -> Any:
        nonlocal visits
        visits += 1
        return original(*args)

    monkeypatch.setattr(module, "declared_inputs", count_visits)
    nodes: ShortGraph = {"n0": ("ComfySwitchNode", {"switch": True, "on_true": "a", "on_false": "b"})}
    for i in range(1, 300):
        nodes[f"n{i}"] = ("ComfySwitchNode", {"switch": True, "on_true": [f"n{i - 1}", 0], "on_false": "b"})
        nodes[f"i{i}"] = ("ImageInvert", {"image": [f"n{i}", 0]})
    assert problems(dict(reversed(nodes.items()))) == [("image", "bad_link")] * 299
    # Once for their output types, and once for their inputs.
    assert visits == 2 * 300 + 299
