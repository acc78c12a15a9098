"""What to send in place of a value that was refused, as far as its shape tells what was meant. Pure."""

from collections.abc import Mapping
from typing import Any

from shared.web.json_mistakes import SHELL

LORA = '{"lora_name": "ink", "strength_model": 0.8}'
UNIT = '{"model": "...", "input_image": "..."}'
EXPORT = "a graph belongs into custom_workflow"
OWN_FORMAT = f"{EXPORT}, in the API format: in ComfyUI, Workflow > Export (API)"
BY_SHAPE: Mapping[tuple[str, type], str] = {
    ("prompt", list): "send one text; batch_size draws several pictures of it",
    ("prompt", dict): "send the text itself",
    ("controlnet", list): f'send {{"units": [{UNIT}]}}',
    ("controlnet", str): f'send {{"units": [{UNIT}]}}; in a form, as JSON text',
    ("loras", dict): f"send a list, such as [{LORA}]",
    ("loras", list): f"send {LORA}, or the name with its strength as text: ink:0.8",
    ("lora", list): f"send {LORA}; several go into loras",
}


def shape_hint(field: str, value: Any) -> str | None:
    """What to send as `field`, which may be an item of a list, in place of `value`; None if its shape tells nothing."""
    name = field.partition("[")[0]
    if name == "prompt" and looks_like_graph(value):
        return EXPORT
    if name == "prompt" and isinstance(value, str):
        return f"it has {len(value):,} characters"
    return BY_SHAPE.get((name, type(value)))


def looks_like_graph(value: Any) -> bool:
    """Whether it is a graph of ComfyUI's, in the format of its API or in that of its own files."""
    if not isinstance(value, Mapping):
        return False
    if isinstance(value.get("nodes"), list) and "links" in value:
        return True
    return any(isinstance(node, Mapping) and "class_type" in node for node in value.values())


def graph_hint(sent: Mapping[str, Any]) -> str | None:
    """What to say of a body that is such a graph, or holds one under a name that is not ours; None for all others."""
    if isinstance(sent.get("nodes"), list) and "links" in sent:
        return OWN_FORMAT
    return EXPORT if looks_like_graph(sent) or any(looks_like_graph(value) for value in sent.values()) else None


def text_hint(field: str, value: str, error: ValueError) -> str:
    """What to send as a `field` of structure that came as a text which is no JSON."""
    told: str | None = getattr(error, "hint", None)
    # A text that was never meant as JSON has lost no quotes.
    if told is None or (SHELL in told and not value.lstrip().startswith(("{", "[", "'"))):
        return BY_SHAPE.get((field, str)) or "in a form, send this field as JSON text"
    return told
