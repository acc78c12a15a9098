"""Replies of the generation API: results and jobs as JSON, the headers of pictures, warnings, and errors."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Request, Response, jsonify, request

from shared.errors import DreamLayerError
from shared.images.encode import OutputFormat
from shared.jobs.job import JobRow
from shared.jobs.picture_names import picture_index, picture_number, saving_node
from shared.jobs.service import Jobs
from shared.settings import Settings
from shared.web.urls import ReplyUrls
from workflows.outputs import last_output, node_title, seed_of, seeds_in

# Characters of the X-Warnings header, and of one warning in it.
LONGEST_HEADER, LONGEST_WARNING = 3500, 1500
FORMATS: dict[str, OutputFormat] = {
    "image/png": "png",
    "image/webp": "webp",
    "image/jpeg": "jpeg",
}
# Not a registered type, but common.
FORMAT_ALIASES: dict[str, OutputFormat] = {"image/jpg": "jpeg"}


def base_url(settings: Settings) -> str:
    """The start of all URLs in the reply to the current request, without a slash at its end."""
    return (settings.public_url or request.root_url).rstrip("/")


def wanted_format(asked: Request) -> OutputFormat | None:
    """The picture format that the Accept header prefers; None for JSON, which also answers */*."""
    formats = FORMATS | FORMAT_ALIASES
    return formats.get(asked.accept_mimetypes.best_match(["application/json", *formats]) or "")


def result_body(row: JobRow, urls: ReplyUrls, jobs: Jobs) -> dict[str, Any]:
    """A completed job as JSON, with the field names that the web page reads."""
    images = [
        {"url": urls.image(image["filename"]), **image, **picture_facts(row, image["filename"], jobs)}
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
        "parameters": row.spec.parameters,
        "comfy_response": {"prompt_id": row.id, "generated_images": images},
        "timings": times,
        "warnings": row.spec.warnings,
        "workflow": {"prompt": row.spec.graph},
    }


def job_seed(row: JobRow) -> int | None:
    """The seed of a job's first picture; with an imported graph, the seed in the request, if the graph uses it."""
    seed = row.spec.parameters.get("seed")
    return None if row.has_imported_graph and seed not in seeds_in(row.spec.graph) else seed


def main_picture(row: JobRow) -> dict[str, str] | None:
    """The picture that answers a request for a single one; None if there is none.

    It is the first picture; with an imported graph, the first of the requested output node, or of the last stage.
    """
    if not row.has_imported_graph:
        return row.images[0] if row.images else None
    by_node: dict[str | None, dict[str, str]] = {}
    for image in row.images:
        by_node.setdefault(saving_node(row.spec.graph, image["filename"]), image)
    nodes = {node for node in by_node if node is not None}
    return by_node.get(row.spec.output_node or last_output(row.spec.graph, nodes))


def picture_facts(row: JobRow, filename: str, jobs: Jobs) -> dict[str, Any]:
    """The known facts of a job's picture: its index, its seed, and its size in pixels, from its file if possible."""
    if row.has_imported_graph:
        facts = _facts_from_graph(row.spec.graph, filename)
    else:
        facts = _facts_from_parameters(row, filename)
    size = jobs.picture_size(filename)
    if size is not None:
        facts["width"], facts["height"] = size
    return facts


def _facts_from_graph(graph: dict[str, Any], filename: str) -> dict[str, Any]:
    """The node that saved the picture, and the index among its pictures. Only the first of a batch has a known seed."""
    index, node = picture_index(filename), saving_node(graph, filename)
    facts: dict[str, Any] = {"batch_index": index, "index": index}
    if node is not None:
        facts |= {"node": node, "title": node_title(graph, node), "seed": seed_of(graph, node) if index == 0 else None}
    return {name: value for name, value in facts.items() if value is not None}


def _facts_from_parameters(row: JobRow, filename: str) -> dict[str, Any]:
    index = picture_number(filename) - 1
    parameters, seeds, size = row.spec.parameters, row.spec.seeds, row.spec.size
    facts = {name: parameters[name] for name in ("width", "height", "seed") if parameters.get(name) is not None}
    if index < len(seeds):
        facts["seed"] = seeds[index]
    if size is not None:
        facts["width"], facts["height"] = size
    return {"batch_index": index, **facts}


def job_body(row: JobRow, urls: ReplyUrls) -> dict[str, Any]:
    """A job as JSON in lists, without its graph. `left_out` names fields that are too large for a list."""
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
    """Seconds that a job has waited and run so far, and how often it was sent to the engine."""
    ended = row.finished or time.time()
    started = row.started or ended
    waited, ran = max(0.0, started - row.created), max(0.0, ended - started)
    return {"waited_s": round(waited, 3), "ran_s": round(ran, 3), "attempts": row.attempts + 1}


def with_picture_headers(
    response: Response, row: JobRow, urls: ReplyUrls, filename: str, facts: Mapping[str, Any]
) -> Response:
    """The picture's response with headers for the job's id, the seed in `facts`, and the URLs of all its pictures."""
    others = [urls.image(image["filename"]) for image in row.images if image["filename"] != filename]
    response.headers["Content-Location"] = urls.image(filename)
    response.headers["X-Job-Id"] = row.id
    if "seed" in facts:
        response.headers["X-Seed"] = str(facts["seed"])
    if others:
        response.headers["Link"] = ", ".join(f'<{url}>; rel="alternate"' for url in others)
    return response


def with_warnings(response: Response, row: JobRow) -> Response:
    """The response with the job's warnings in the X-Warnings header."""
    if row.spec.warnings:
        response.headers["X-Warnings"] = warnings_header(row.spec.warnings)
    return response


def warnings_header(warnings: Sequence[str]) -> str:
    """The warnings as a JSON list of at most LONGEST_HEADER ASCII characters.

    Long warnings are truncated; those that do not fit become "n more". Servers and proxies reject headers above 4 to
    8 kB, and headers are a single line of Latin-1.
    """
    shown: list[str] = []
    for index, warning in enumerate(warnings):
        left = len(warnings) - index - 1
        more = [f"{left} more"] if left else []
        if len(_ascii_json([*shown, _truncated(warning), *more])) > LONGEST_HEADER:
            shown.append(f"{left + 1} more")
            break
        shown.append(_truncated(warning))
    return _ascii_json(shown)


def _truncated(text: str) -> str:
    """The text, in at most LONGEST_WARNING characters of the header."""
    cut = text
    while len(_ascii_json([cut])) > LONGEST_WARNING:
        cut = cut[: len(cut) * 3 // 4]
    return cut if cut == text else f"{cut}..."


def _ascii_json(texts: Sequence[str]) -> str:
    # JSON escapes all control characters but DEL.
    return json.dumps(texts).replace("\x7f", "\\u007f")


def error_reply(error: DreamLayerError) -> Response:
    """The error as JSON, with its status and its Retry-After header."""
    response = jsonify(error.as_dict())
    response.status_code = error.status
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response
