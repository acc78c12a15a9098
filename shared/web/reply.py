"""Results and errors as the native API writes them: JSON with the field names that the web page reads, or a picture."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Request, Response, jsonify, request

from shared.errors import DreamLayerError
from shared.images.encode import OutputFormat
from shared.jobs.files import PictureFiles
from shared.jobs.job import JobRow
from shared.jobs.picture_names import picture_index, picture_number, saving_node
from shared.settings import Settings
from shared.web.urls import ReplyUrls
from workflows.outputs import last_output, node_title, seed_of, seeds_in

# Characters of the header X-Warnings, and of one warning in it.
LONGEST_HEADER, LONGEST_WARNING = 3500, 1500
FORMATS: dict[str, OutputFormat] = {
    "image/png": "png",
    "image/webp": "webp",
    "image/jpeg": "jpeg",
}
# No type of that name is registered, but many send it.
ALSO_CALLED: dict[str, OutputFormat] = {"image/jpg": "jpeg"}


def base_address(settings: Settings) -> str:
    """What addresses in the reply to the request at hand begin with."""
    return (settings.public_url or request.root_url).rstrip("/")


def wanted_format(request: Request) -> OutputFormat | None:
    """The picture format that the Accept header asks for; None for JSON, which is also the answer to */*."""
    formats = FORMATS | ALSO_CALLED
    return formats.get(request.accept_mimetypes.best_match(["application/json", *formats]) or "")


def result_body(row: JobRow, urls: ReplyUrls, pictures: PictureFiles) -> dict[str, Any]:
    """Everything about a completed job, with the field names that the web page reads; `pictures` are measured."""
    request = row.spec.parameters
    images = [
        {"url": urls.image(image["filename"]), **image, **picture_facts(row, image["filename"], pictures)}
        for image in row.images
    ]
    times = timings(row)
    count = f"{len(images)} picture{'' if len(images) == 1 else 's'}"
    return {
        "status": "success",
        "message": f"{count} in {times['waited_s'] + times['ran_s']:.1f} s",
        "job_id": row.id,
        "run_id": row.id,
        **({} if (seed := job_seed(row)) is None else {"seed": seed}),
        "parameters": request,
        "comfy_response": {"prompt_id": row.id, "generated_images": images},
        "timings": times,
        "warnings": row.spec.warnings,
        "workflow": {"prompt": row.spec.graph},
    }


def job_seed(row: JobRow) -> int | None:
    """The seed that a job began with; of a graph of the client's own, the one that was sent, if the graph has it."""
    seed = row.spec.parameters.get("seed")
    return None if row.has_imported_graph and seed not in seeds_in(row.spec.graph) else seed


def shown_picture(row: JobRow) -> dict[str, str] | None:
    """The picture that is the whole answer where one is asked for; None if there is none.

    It is the first; of a graph of the client's own, the first of its last stage, or of the node that was asked for.
    """
    if not row.has_imported_graph:
        return row.images[0] if row.images else None
    by_node: dict[str | None, dict[str, str]] = {}
    for image in row.images:
        by_node.setdefault(saving_node(row.spec.graph, image["filename"]), image)
    asked = row.spec.output_node
    return by_node.get(asked or last_output(row.spec.graph, {node for node in by_node if node is not None}))


def picture_facts(row: JobRow, filename: str, pictures: PictureFiles) -> dict[str, Any]:
    """What is known of one picture of a job: its place among them, its seed, its size in pixels as its file says."""
    facts = (
        _facts_of_a_graph(row.spec.graph, filename) if row.has_imported_graph else _facts_of_a_request(row, filename)
    )
    measured = pictures.dimensions(filename)
    if measured is not None:
        facts["width"], facts["height"] = measured
    return facts


def _facts_of_a_graph(graph: dict[str, Any], filename: str) -> dict[str, Any]:
    """Which node saved it, and as which of its pictures. Only of the first of a batch is the seed known."""
    index, node = picture_index(filename), saving_node(graph, filename)
    facts: dict[str, Any] = {"batch_index": index, "index": index}
    if node is not None:
        facts |= {"node": node, "title": node_title(graph, node), "seed": seed_of(graph, node) if index == 0 else None}
    return {name: value for name, value in facts.items() if value is not None}


def _facts_of_a_request(row: JobRow, filename: str) -> dict[str, Any]:
    index = picture_number(filename) - 1
    seeds, size = row.spec.seeds, row.spec.size
    request = row.spec.parameters
    facts = {name: request[name] for name in ("width", "height", "seed") if request.get(name) is not None}
    if index < len(seeds):
        facts["seed"] = seeds[index]
    if size is not None:
        facts["width"], facts["height"] = size
    return {"batch_index": index, **facts}


def job_body(row: JobRow, urls: ReplyUrls) -> dict[str, Any]:
    """A job as a list of jobs tells it: without its graph. What is too large for a list is named in `left_out`."""
    body = {
        "job_id": row.id,
        "url": urls.job(row.id),
        "events_url": urls.events(row.id),
        "kind": row.kind,
        "state": row.state.value,
        "created": row.created,
        "started": row.started,
        "finished": row.finished,
        "timings": timings(row),
        "seed": job_seed(row),
        "parameters": row.spec.parameters,
        "images": [urls.image(image["filename"]) for image in row.images],
        "error": None if row.error is None else {"message": row.error["message"], **row.error["error"]},
        "left_out": ["parameters"] if "parameters" in row.spec.left_out else None,
    }
    return {name: value for name, value in body.items() if value is not None}


def timings(row: JobRow) -> dict[str, float | int]:
    """Seconds that a job waited and ran so far, and how often the engine was given it."""
    ended = row.finished or time.time()
    started = row.started or ended
    waited, ran = max(0.0, started - row.created), max(0.0, ended - started)
    return {"waited_s": round(waited, 3), "ran_s": round(ran, 3), "attempts": row.attempts + 1}


def tell_picture(response: Response, row: JobRow, urls: ReplyUrls, name: str, facts: Mapping[str, Any]) -> Response:
    """The picture of that name itself; what JSON would have told of it stands in headers. `facts` are its own."""
    others = [urls.image(image["filename"]) for image in row.images if image["filename"] != name]
    response.headers["Content-Location"] = urls.image(name)
    response.headers["X-Job-Id"] = row.id
    if "seed" in facts:
        response.headers["X-Seed"] = str(facts["seed"])
    if others:
        response.headers["Link"] = ", ".join(f'<{url}>; rel="alternate"' for url in others)
    return response


def tell_warnings(response: Response, row: JobRow) -> Response:
    """The reply, with the job's warnings in its header X-Warnings."""
    if row.spec.warnings:
        response.headers["X-Warnings"] = warnings_header(row.spec.warnings)
    return response


def warnings_header(warnings: Sequence[str]) -> str:
    """A JSON list of at most LONGEST_HEADER ASCII characters: long warnings are cut, and of many the last are counted.

    Servers and proxies refuse headers of more than 4 to 8 kB; headers are Latin-1 and one line.
    """
    kept: list[str] = []
    for index, warning in enumerate(warnings):
        left = len(warnings) - index - 1
        more = [f"{left} more"] if left else []
        if len(_ascii([*kept, _cut(warning), *more])) > LONGEST_HEADER:
            kept.append(f"{left + 1} more")
            break
        kept.append(_cut(warning))
    return _ascii(kept)


def _cut(text: str) -> str:
    """A text of at most LONGEST_WARNING characters, counted as they are in the header."""
    cut = text
    while len(_ascii([cut])) > LONGEST_WARNING:
        cut = cut[: len(cut) * 3 // 4]
    return cut if cut == text else f"{cut}..."


def _ascii(texts: Sequence[str]) -> str:
    # JSON escapes all control characters but this one.
    return json.dumps(texts).replace("\x7f", "\\u007f")


def error_reply(error: DreamLayerError) -> Response:
    """The one error shape, with the error's own status."""
    response = jsonify(error.as_dict())
    response.status_code = error.status
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response
