"""What a job is to draw. It is typed everywhere; only the database holds it as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class JobSpec:
    """A request that was understood, and the graph that draws it.

    `parameters` is what replies repeat: the API's fields as they were understood. `label_parameters` replaces some of
    them in the text that other programs read, for programs that lack our fields.

    `uploads` are the pictures that the job needs, by name, each with the folder of the engine that it goes to; None if
    it is only kept, as it was sent. `seeds`, and `size` in pixels, are those of the pictures to come, as far as they
    are known. `output_node` is the node whose picture is the answer where that is one picture.

    With `previews` the engine sends pictures of unfinished latents. Only a job that is `repeatable` can be repeated
    from its parameters alone; its pictures hold them if it `embeds_parameters`. A list of jobs may have `left_out`
    fields that are too large for it: these are empty then.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    graph: dict[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    uploads: Mapping[str, str | None] = field(default_factory=dict)
    seeds: Sequence[int] = ()
    size: tuple[int, int] | None = None
    previews: bool = False
    repeatable: bool = True
    output_node: str | None = None
    label_parameters: Mapping[str, Any] = field(default_factory=dict)
    embeds_parameters: bool = True
    left_out: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """The spec as the database holds it."""
        stored = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "left_out"}
        return stored | {"warnings": list(self.warnings), "seeds": list(self.seeds)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> JobSpec:
        """The spec that `to_json` made; what it lacks has its default."""
        size = stored.get("size")
        lists = {name: tuple(stored.get(name, ())) for name in ("warnings", "seeds", "left_out")}
        return cls(**{**stored, **lists, "size": None if size is None else (size[0], size[1])})
