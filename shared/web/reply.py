"""Results and errors as the native API writes them: JSON with the field names that the web page reads, or a picture."""

import json
import time
from collections.abc import Sequence
from typing import Any

from flask import Request, Response, jsonify, request

from shared.errors import DreamLayerError
from shared.images import OutputFormat, convert_png
from shared.jobs.names import picture_number
from shared.jobs.recipes import infotext, with_recipe
from shared.jobs.tables import JobRow
from shared.settings import Settings
from shared.web.addresses import Addresses

# Characters of the header X-Warnings, and of one warning in it.
LONGEST_HEADER, LONGEST_WARNING = 3500, 1500
FORMATS: dict[str, OutputFormat] = {"image/png": "png", "image/webp": "webp", "image/jpeg": "jpeg"}


def base_address(settings: Settings) -> str:
    """What addresses in the reply to the request at hand begin with."""
    return (settings.public_url or request.root_url).rstrip("/")


def wanted_format(request: Request) -> OutputFormat | None:
    """The picture format that the Accept header asks for; None for JSON, which is also the answer to */*."""
    best = request.accept_mimetypes.best_match(["application/json", *FORMATS])
    return FORMATS.get(best or "")


def result_body(row: JobRow, addresses: Addresses) -> dict[str, Any]:
    """Everything about a completed job, with the field names that the web page reads."""
    request = row.spec["request"]
    images = [
        {"url": addresses.image(image["filename"]), **image, **picture_facts(row, image["filename"])}
        for image in row.images
    ]
    times = timings(row)
    count = f"{len(images)} picture{'' if len(images) == 1 else 's'}"
    return {
        "status": "success",
        "message": f"{count} in {times['waited_s'] + times['ran_s']:.1f} s",
        "job_id": row.id,
        "run_id": row.id,
        **({"seed": request["seed"]} if request.get("seed") is not None else {}),
        "parameters": request,
        "comfy_response": {"prompt_id": row.id, "generated_images": images},
        "timings": times,
        "warnings": row.spec["warnings"],
        "workflow": {"prompt": row.spec["graph"]},
    }


def picture_facts(row: JobRow, filename: str) -> dict[str, Any]:
    """What is known of one picture of a job: its place among them, its seed, its size in pixels."""
    index = picture_number(filename) - 1
    seeds, size = row.spec.get("seeds", ()), row.spec.get("size")
    # A graph of the client's own may not say what size it draws, or with which seed.
    request = row.spec["request"]
    facts = {name: request[name] for name in ("width", "height", "seed") if request.get(name) is not None}
    if index < len(seeds):
        facts["seed"] = seeds[index]
    if size is not None:
        facts["width"], facts["height"] = size
    return {"batch_index": index, **facts}


def job_body(row: JobRow, addresses: Addresses) -> dict[str, Any]:
    """A job as a list of jobs tells it: without its graph."""
    body = {
        "job_id": row.id,
        "url": addresses.job(row.id),
        "events_url": addresses.events(row.id),
        "kind": row.kind,
        "state": row.state.value,
        "created": row.created,
        "started": row.started,
        "finished": row.finished,
        "timings": timings(row),
        "seed": row.spec["request"].get("seed"),
        "parameters": row.spec["request"],
        "images": [addresses.image(image["filename"]) for image in row.images],
        "error": None if row.error is None else {"message": row.error["message"], **row.error["error"]},
    }
    return {name: value for name, value in body.items() if value is not None}


def timings(row: JobRow) -> dict[str, float | int]:
    """Seconds that a job waited and ran so far, and how often the engine was given it."""
    ended = row.finished or time.time()
    started = row.started or ended
    waited, ran = max(0.0, started - row.created), max(0.0, ended - started)
    return {"waited_s": round(waited, 3), "ran_s": round(ran, 3), "attempts": row.attempts + 1}


def picture_reply(row: JobRow, addresses: Addresses, png: bytes, output: OutputFormat) -> Response:
    """The first picture itself; what JSON would have told of it stands in headers."""
    name = row.images[0]["filename"]
    whole = with_recipe(png, row, name) if output == "png" else convert_png(png, output, infotext(row, name))
    response = Response(whole, mimetype=f"image/{output}")
    urls = [addresses.image(image["filename"]) for image in row.images]
    response.headers["Content-Location"] = urls[0]
    response.headers["X-Job-Id"] = row.id
    if row.spec["request"].get("seed") is not None:
        response.headers["X-Seed"] = str(row.spec["request"]["seed"])
    if urls[1:]:
        response.headers["Link"] = ", ".join(f'<{url}>; rel="alternate"' for url in urls[1:])
    return response


def tell_warnings(response: Response, row: JobRow) -> Response:
    """The reply, with the job's warnings in its header X-Warnings."""
    if row.spec["warnings"]:
        response.headers["X-Warnings"] = warnings_header(row.spec["warnings"])
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
