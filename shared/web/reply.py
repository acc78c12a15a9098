"""Results and errors as the native API writes them: JSON with the field names that the web page reads, or a picture."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import Request, Response, jsonify

from shared.engine.client import SavedImage
from shared.errors import DreamLayerError
from shared.images import OutputFormat, convert_png
from shared.jobs.runner import Result
from shared.schema import GenerationRequest

FORMATS: dict[str, OutputFormat] = {"image/png": "png", "image/webp": "webp", "image/jpeg": "jpeg"}


@dataclass(frozen=True)
class Generation:
    """A finished request with all that a reply tells of it."""

    job_id: str
    request: GenerationRequest
    graph: dict[str, Any]
    result: Result
    warnings: Sequence[str]
    base_url: str

    def url(self, image: SavedImage) -> str:
        """The absolute address of a picture."""
        return f"{self.base_url.rstrip('/')}/api/images/{image.filename}"


def wanted_format(request: Request) -> OutputFormat | None:
    """The picture format that the Accept header asks for; None for JSON, which is also the answer to */*."""
    best = request.accept_mimetypes.best_match(["application/json", *FORMATS])
    return FORMATS.get(best or "")


def json_reply(generation: Generation) -> Response:
    """Everything about the result, as JSON."""
    result, request = generation.result, generation.request
    images = [
        {
            "url": generation.url(image),
            "filename": image.filename,
            "subfolder": image.subfolder,
            "type": image.type,
            "width": request.width,
            "height": request.height,
            "seed": request.seed,
            "batch_index": index,
        }
        for index, image in enumerate(result.images)
    ]
    count = f"{len(images)} picture{'' if len(images) == 1 else 's'}"
    return jsonify(
        {
            "status": "success",
            "message": f"{count} in {result.waited + result.ran:.1f} s",
            "job_id": generation.job_id,
            "run_id": generation.job_id,
            "seed": request.seed,
            "parameters": request.model_dump(exclude={"input_image", "mask"}),
            "comfy_response": {"prompt_id": generation.job_id, "generated_images": images},
            "timings": {
                "waited_s": round(result.waited, 3),
                "ran_s": round(result.ran, 3),
                "attempts": result.attempts,
            },
            "warnings": list(generation.warnings),
            "workflow": {"prompt": generation.graph},
        }
    )


def picture_reply(generation: Generation, png: bytes, output: OutputFormat) -> Response:
    """The first picture itself; what JSON would have told of it stands in headers."""
    response = Response(convert_png(png, output), mimetype=f"image/{output}")
    first = generation.result.images[0]
    response.headers["Content-Location"] = generation.url(first)
    response.headers["X-Job-Id"] = generation.job_id
    response.headers["X-Seed"] = str(generation.request.seed)
    if generation.warnings:
        # Headers are Latin-1 and one line; JSON with its escapes is both.
        response.headers["X-Warnings"] = json.dumps(list(generation.warnings))
    others = [f'<{generation.url(image)}>; rel="alternate"' for image in generation.result.images[1:]]
    if others:
        response.headers["Link"] = ", ".join(others)
    return response


def error_reply(error: DreamLayerError) -> Response:
    """The one error shape, with the error's own status."""
    response = jsonify(error.as_dict())
    response.status_code = error.status
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response
