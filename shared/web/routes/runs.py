"""The runs that the web page lists: completed jobs in the page's own form.

What the request does not say, because the graph was the client's own, is read out of the graph as far as it tells.

Those that failed or were cancelled are left out: a run is shown by its pictures, and they have none to be relied on.
GET /api/jobs has them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from flask import Blueprint, Response, jsonify

from shared import __version__
from shared.errors import InvalidValue, NotFinished, NotFound, StorageFailed
from shared.graphs import chain, class_of, inputs_of
from shared.jobs.files import PictureFiles
from shared.jobs.job import JobRow, State
from shared.jobs.picture_names import saving_node
from shared.schema.control_replies import RunRemovedReply, RunReply, RunsReply
from shared.web.backend import Backend, current_backend
from shared.web.body import check_arguments, number_argument
from shared.web.openapi.components import NUMBER, UUID
from shared.web.openapi.operation import Example, ParameterSpec, ReplySpec, describe
from shared.web.reply import shown_picture
from shared.web.urls import ReplyUrls
from workflows.bindings import find_bindings
from workflows.outputs import shared_seed

# The page knows these two; another job counts as the one of them that it is nearest to.
TYPES = ("txt2img", "img2img")
LORA_LOADERS = ("LoraLoader", "LoraLoaderModelOnly")
CONTROL_APPLIERS = ("ControlNetApplyAdvanced", "ControlNetApply", "ControlNetApplySD3")
# By the page's keys: the request's fields, and what stands for a value that nobody knows.
FIELDS: Mapping[str, tuple[str, Any]] = {
    "model": ("model_name", ""),
    "prompt": ("prompt", ""),
    "negative_prompt": ("negative_prompt", ""),
    "seed": ("seed", 0),
    "sampler": ("sampler_name", ""),
    "steps": ("steps", 0),
    "cfg_scale": ("cfg_scale", 0),
    "width": ("width", 0),
    "height": ("height", 0),
    "batch_size": ("batch_size", 1),
}

# Which of the page's keys tell less when a list has left out that part of the job.
LEFT_OUT = {"parameters": ("prompt", "negative_prompt", "controlnets"), "graph": ("workflow", "loras", "controlnets")}


def run_body(row: JobRow, urls: ReplyUrls, measured: tuple[int, int] | None = None) -> dict[str, Any]:
    """The run that `row` is; `measured` is the size of its picture in pixels, if its file is at hand.

    Of a graph of the client's own, the size is that or unknown, and the seed the one that all of its pictures share.
    Of a row that a list has read, what was too large is named in `left_out`.
    """
    request, graph = row.spec.parameters, row.spec.graph
    told = {key: request.get(name) for key, (name, _) in FIELDS.items()}
    if any(value is None for value in told.values()):
        held = _held(graph)
        told = {key: held.get(FIELDS[key][0]) if value is None else value for key, value in told.items()}
    size = measured or row.spec.size or (None, None)
    if row.has_imported_graph:
        nodes = {node for image in row.images if (node := saving_node(graph, image["filename"])) is not None}
        told = {**told, "width": None, "height": None, "seed": shared_seed(graph, nodes)}
    told = {**told, "width": told["width"] or size[0], "height": told["height"] or size[1]}
    return {
        "run_id": row.id,
        "timestamp": datetime.fromtimestamp(row.created, timezone.utc).isoformat(timespec="milliseconds"),
        **{key: _typed(key, value) for key, value in told.items()},
        "vae": request.get("vae_name") or "",
        "loras": _loras(graph),
        "controlnets": _controlnets(request, graph),
        "batch_count": request.get("batch_count") or 1,
        "workflow": {"prompt": graph},
        "version": __version__,
        "generated_images": [image["filename"] for image in row.images],
        "generation_type": row.kind if row.kind in TYPES else TYPES[bool(row.spec.uploads)],
        # Beyond what the page reads.
        "kind": row.kind,
        "image_urls": [urls.image(image["filename"]) for image in row.images],
        "left_out": [key for part in row.spec.left_out for key in LEFT_OUT[part]],
    }


def _typed(key: str, value: Any) -> Any:
    """The value, if it is of the type that the page reads: ComfyUI takes "64" and 64.0 for 64, and graphs hold them."""
    neutral = FIELDS[key][1]
    if isinstance(neutral, str):
        return _text(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return neutral
    return value if key == "cfg_scale" else int(value)


def _held(graph: Mapping[str, Any]) -> dict[str, Any]:
    """The values in the graph itself, by the names of a request's fields."""
    values = {
        name: inputs_of(graph[targets[0][0]]).get(targets[0][1])
        for name, targets in find_bindings(dict(graph)).targets.items()
        if targets
    }
    return {name: value for name, value in values.items() if isinstance(value, str | int | float)}


def _loras(graph: Mapping[str, Any]) -> list[dict[str, Any]]:
    loaders = [inputs_of(node) for node in graph.values() if class_of(node) in LORA_LOADERS]
    return [
        {"name": _text(inputs.get("lora_name")), "strength": _number(inputs.get("strength_model"))}
        for inputs in loaders
    ]


def _controlnets(request: Mapping[str, Any], graph: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The units of the request; of a graph of the client's own, the nodes that apply one."""
    units: Sequence[Mapping[str, Any]] = (request.get("controlnet") or {}).get("units", ())
    if units:
        return [
            {
                "model": _text(unit.get("model")),
                "strength": _number(unit.get("weight", 1.0)),
                "enabled": bool(unit.get("enabled", True)),
            }
            for unit in units
        ]
    return [
        {
            "model": _control_model(graph, name),
            "strength": _number(inputs_of(node).get("strength")),
            "enabled": True,
        }
        for name, node in graph.items()
        if class_of(node) in CONTROL_APPLIERS
    ]


def _control_model(graph: Mapping[str, Any], applier: str) -> str:
    """The file of the ControlNet that a node applies, perhaps through nodes that set its type."""
    loaders = (inputs_of(graph[name]) for name in chain(graph, applier, ("control_net",)))
    return next((_text(inputs["control_net_name"]) for inputs in loaders if "control_net_name" in inputs), "")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 1.0


# The page asks for all runs at once, each with its graph.
PAGE = 200
LARGEST_PAGE = 500


run_routes = Blueprint("runs", __name__)
RUN_ID = ParameterSpec("run_id", "path", "the run's id", UUID)
SAMPLE = {"run_id": "3f2a9c1e-0b7d-4c5e-9a51-7d0f6f0e2b11"}


@run_routes.get("/api/runs")
@describe(
    "Web page",
    ReplySpec("a page of runs", RunsReply),
    examples=(Example("The newest two", query={"limit": "2"}), Example("All")),
    parameters=(
        ParameterSpec("limit", "query", "at most so many", {**NUMBER, "maximum": LARGEST_PAGE, "default": PAGE}),
        ParameterSpec("before", "query", "the `before` of the page in front of this one", NUMBER),
    ),
    errors=(InvalidValue, StorageFailed),
)
def list_runs() -> Response:
    """The completed jobs, the newest first."""
    check_arguments("limit", "before")
    backend = current_backend()
    limit = number_argument("limit", LARGEST_PAGE) or PAGE
    page = backend.jobs.list(states=[State.COMPLETED], limit=limit, before=number_argument("before", 2**53))
    urls = backend.urls()
    runs = [run_body(row, urls, measure(row, backend.jobs.files.pictures)) for row in page.rows]
    return jsonify({"status": "success", "runs": runs, "before": page.before})


@run_routes.get("/api/runs/<run_id>")
@describe(
    "Web page",
    ReplySpec("the run", RunReply),
    examples=(Example("A run", path=SAMPLE),),
    parameters=(RUN_ID,),
    errors=(NotFound, StorageFailed),
)
def get_run(run_id: str) -> Response:
    """A completed job."""
    backend = current_backend()
    row = find_run(backend, run_id)
    run = run_body(row, backend.urls(), measure(row, backend.jobs.files.pictures))
    return jsonify({"status": "success", "run": run})


@run_routes.delete("/api/runs/<run_id>")
@describe(
    "Web page",
    ReplySpec("it is gone", RunRemovedReply),
    examples=(Example("A run", path=SAMPLE),),
    parameters=(RUN_ID,),
    errors=(NotFound, NotFinished, StorageFailed),
)
def delete_run(run_id: str) -> Response:
    """Remove a finished job, with its pictures."""
    jobs = current_backend().jobs
    row = jobs.find(run_id)
    if row is None:
        raise _unknown(run_id)
    if not row.state.finished:
        raise NotFinished(f"the job is {row.state.value}", hint=f"DELETE /api/jobs/{run_id} cancels it")
    jobs.delete(row)
    return jsonify({"status": "success", "message": "the run and its pictures are removed", "run_id": run_id})


def measure(row: JobRow, pictures: PictureFiles) -> tuple[int, int] | None:
    """The size of a run's picture, if its request does not decide it and its file is here.

    Of a graph of the client's own it is the last stage's, or that of the node that was asked for.
    """
    image = shown_picture(row)
    asked = not row.has_imported_graph and row.spec.parameters.get("width") is not None
    return None if asked or image is None else pictures.dimensions(image["filename"])


def find_run(backend: Backend, run_id: str) -> JobRow:
    """The completed job of that id. Raises NotFound."""
    row = backend.jobs.find(run_id)
    if row is None or row.state is not State.COMPLETED:
        raise _unknown(run_id)
    return row


def _unknown(run_id: str) -> NotFound:
    return NotFound(f"there is no run {run_id}", hint="GET /api/runs lists them")
