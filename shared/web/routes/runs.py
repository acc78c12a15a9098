"""Runs: the completed jobs in the format of the web page.

A value that the request of an imported graph does not have is read from the graph, if the graph has it. Failed and
cancelled jobs are left out, because they may have no pictures; GET /api/jobs lists all jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from flask import Blueprint, Response, jsonify

from shared import __version__
from shared.errors import InvalidValue, NotFinished, NotFound, StorageFailed
from shared.graph_walk import chain, class_of, inputs_of
from shared.jobs.job import JobRow, State
from shared.jobs.picture_names import saving_node
from shared.jobs.service import Jobs
from shared.schema.control_replies import RunRemovedReply, RunReply, RunsReply
from shared.web.backend import Backend, current_backend
from shared.web.openapi.components import NUMBER, UUID
from shared.web.openapi.operation import Example, ParameterSpec, ReplySpec, describe
from shared.web.reply import main_picture
from shared.web.request_body import check_arguments, number_argument
from shared.web.urls import ReplyUrls
from workflows.bindings import find_bindings
from workflows.outputs import shared_seed

# The types of the web page. Another kind of job counts as img2img if it has pictures as inputs, else as txt2img.
TYPES = ("txt2img", "img2img")
LORA_LOADERS = ("LoraLoader", "LoraLoaderModelOnly")
CONTROL_APPLIERS = ("ControlNetApplyAdvanced", "ControlNetApply", "ControlNetApplySD3")
# By the keys of the web page: the field of the request, and the value if it is unknown.
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

# The keys of the web page that are incomplete if a list leaves out this part of the job.
LEFT_OUT = {"parameters": ("prompt", "negative_prompt", "controlnets"), "graph": ("workflow", "loras", "controlnets")}


def run_body(row: JobRow, urls: ReplyUrls, measured: tuple[int, int] | None = None) -> dict[str, Any]:
    """Write a job as a run. `measured` is the size of its picture in pixels, if its file exists.

    The size of an imported graph is that or unknown, and its seed the one that all its pictures share. If a list has
    left out large parts of the job, `left_out` names their keys.
    """
    parameters, graph = row.spec.parameters, row.spec.graph
    values = {key: parameters.get(name) for key, (name, _) in FIELDS.items()}
    if any(value is None for value in values.values()):
        in_graph = _graph_values(graph)
        values = {key: in_graph.get(FIELDS[key][0]) if value is None else value for key, value in values.items()}
    size = measured or row.spec.size or (None, None)
    if row.has_imported_graph:
        nodes = {node for image in row.images if (node := saving_node(graph, image["filename"])) is not None}
        values = {**values, "width": None, "height": None, "seed": shared_seed(graph, nodes)}
    values = {**values, "width": values["width"] or size[0], "height": values["height"] or size[1]}
    return {
        "run_id": row.id,
        "timestamp": datetime.fromtimestamp(row.created, timezone.utc).isoformat(timespec="milliseconds"),
        **{key: _typed(key, value) for key, value in values.items()},
        "vae": parameters.get("vae_name") or "",
        "loras": _loras(graph),
        "controlnets": _controlnets(parameters, graph),
        "batch_count": parameters.get("batch_count") or 1,
        "workflow": {"prompt": graph},
        "version": __version__,
        "generated_images": [image["filename"] for image in row.images],
        "generation_type": row.kind if row.kind in TYPES else TYPES[bool(row.spec.uploads)],
        # Keys that the web page does not use.
        "kind": row.kind,
        "image_urls": [urls.image(image["filename"]) for image in row.images],
        "left_out": [key for part in row.spec.left_out for key in LEFT_OUT[part]],
    }


def _typed(key: str, value: Any) -> Any:
    """Convert a value to the type of its key, else return its neutral value. ComfyUI accepts 64.0 for 64."""
    neutral = FIELDS[key][1]
    if isinstance(neutral, str):
        return _text(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return neutral
    return value if key == "cfg_scale" else int(value)


def _graph_values(graph: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a graph, by the names of the request's fields."""
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


def _controlnets(parameters: Mapping[str, Any], graph: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The ControlNet units of the request, else the nodes of the graph that apply one."""
    units: Sequence[Mapping[str, Any]] = (parameters.get("controlnet") or {}).get("units", ())
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


# The web page requests all runs at once, with their graphs.
PAGE = 200
LARGEST_PAGE = 500


run_routes = Blueprint("runs", __name__)
RUN_ID = ParameterSpec("run_id", "path", "the id of the run", UUID)
SAMPLE = {"run_id": "3f2a9c1e-0b7d-4c5e-9a51-7d0f6f0e2b11"}


@run_routes.get("/api/runs")
@describe(
    "Web page",
    ReplySpec("a page of runs", RunsReply),
    examples=(Example("The two newest runs", query={"limit": "2"}), Example("All runs")),
    parameters=(
        ParameterSpec(
            "limit", "query", "the largest number of runs", {**NUMBER, "maximum": LARGEST_PAGE, "default": PAGE}
        ),
        ParameterSpec("before", "query", "the value of `before` in the previous page", NUMBER),
    ),
    errors=(InvalidValue, StorageFailed),
)
def list_runs() -> Response:
    """List the completed jobs, newest first."""
    check_arguments("limit", "before")
    backend = current_backend()
    limit = number_argument("limit", LARGEST_PAGE) or PAGE
    page = backend.jobs.list(states=[State.COMPLETED], limit=limit, before=number_argument("before", 2**53))
    urls = backend.urls()
    runs = [run_body(row, urls, measure(row, backend.jobs)) for row in page.rows]
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
    """Get a completed job."""
    backend = current_backend()
    row = find_run(backend, run_id)
    run = run_body(row, backend.urls(), measure(row, backend.jobs))
    return jsonify({"status": "success", "run": run})


@run_routes.delete("/api/runs/<run_id>")
@describe(
    "Web page",
    ReplySpec("the run was removed", RunRemovedReply),
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
        raise NotFinished(f"the job is {row.state.value}", hint=f"cancel it with DELETE /api/jobs/{run_id}")
    jobs.delete(row)
    return jsonify({"status": "success", "message": "the run and its pictures are removed", "run_id": run_id})


def measure(row: JobRow, jobs: Jobs) -> tuple[int, int] | None:
    """Measure the picture of a run whose request does not decide the size; None if its file is missing.

    Of an imported graph, it is the picture of the last stage or of the requested output node.
    """
    image = main_picture(row)
    is_known = not row.has_imported_graph and row.spec.parameters.get("width") is not None
    return None if is_known or image is None else jobs.picture_size(image["filename"])


def find_run(backend: Backend, run_id: str) -> JobRow:
    """The completed job of this id. Raises NotFound."""
    row = backend.jobs.find(run_id)
    if row is None or row.state is not State.COMPLETED:
        raise _unknown(run_id)
    return row


def _unknown(run_id: str) -> NotFound:
    return NotFound(f"there is no run {run_id}", hint="see GET /api/runs")
