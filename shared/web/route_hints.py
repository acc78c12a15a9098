"""Where to find what was asked for at a wrong path, port or method. Pure."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable

from shared.settings import Settings
from shared.web.openapi.operation import Route
from shared.web.route_table import routes_by_service

LONGEST = 100
# What other programs call it, and what it is here. AUTOMATIC1111 and Forge, OpenAI, ComfyUI, Stability, others.
ELSEWHERE = {
    "/sdapi/v1/txt2img": "POST /api/txt2img",
    "/sdapi/v1/img2img": "POST /api/img2img",
    "/sdapi/v1/extra-single-image": "POST /api/extras/upscale",
    "/sdapi/v1/extra-batch-images": "POST /api/extras/upscale",
    "/sdapi/v1/png-info": "POST /api/png-info",
    "/sdapi/v1/interrupt": "POST /api/txt2img/interrupt",
    "/sdapi/v1/skip": "POST /api/txt2img/interrupt",
    "/sdapi/v1/progress": "GET /api/jobs",
    "/sdapi/v1/sd-models": "GET /api/models",
    "/sdapi/v1/loras": "GET /api/lora-models",
    "/sdapi/v1/refresh-checkpoints": "GET /api/models",
    "/sdapi": "GET /api/options",
    "/controlnet": "GET /api/controlnet/models",
    "/v1/images/generations": "POST /api/txt2img",
    "/v1/images/edits": "POST /api/img2img",
    "/v1/images/variations": "POST /api/img2img",
    "/v1/models": "GET /api/models",
    "/v1/generation": "POST /api/txt2img",
    "/v1/predictions": "POST /api/txt2img",
    "/v2beta/stable-image/generate": "POST /api/txt2img",
    "/v2beta/stable-image/edit": "POST /api/img2img",
    "/prompt": "POST /api/txt2img",
    "/queue": "GET /api/jobs",
    "/history": "GET /api/jobs",
    "/interrupt": "POST /api/txt2img/interrupt",
    "/object_info": "GET /api/options",
    "/embeddings": "GET /api/options",
    "/models": "GET /api/models",
    "/system_stats": "GET /api/engine",
    "/free": "POST /api/engine/free",
    "/view": "GET /api/images/<name>",
    "/upload/image": "POST /api/img2img",
    "/upload/mask": "POST /api/img2img",
    "/ws": "GET /api/jobs/<job_id>/events",
    "/generate": "POST /api/txt2img",
    "/run/predict": "POST /api/txt2img",
    "/call": "POST /api/txt2img",
    "/gradio_api": "POST /api/txt2img",
    "/predictions": "POST /api/txt2img",
    "/text-to-image": "POST /api/txt2img",
    "/image-to-image": "POST /api/img2img",
    "/inpaint": "POST /api/img2img",
    "/outpaint": "POST /api/img2img",
    "/edit": "POST /api/img2img",
    "/generatetext2image": "POST /api/txt2img",
    "/generatetext2imagews": "POST /api/txt2img",
    "/listmodels": "GET /api/models",
    "/cancel": "POST /api/txt2img/interrupt",
    "/stop": "POST /api/txt2img/interrupt",
    "/progress": "GET /api/jobs",
    "/tasks": "GET /api/jobs",
    "/samplers": "GET /api/options",
    "/schedulers": "GET /api/options",
    "/upscalers": "GET /api/options",
    "/vaes": "GET /api/options",
    "/checkpoints": "GET /api/models",
    "/loras": "GET /api/lora-models",
    "/version": "GET /health",
    "/api": "GET /docs",
    "/index.html": "GET /docs",
    "/help": "GET /docs",
    "/swagger.json": "GET /openapi.json",
    "/openapi": "GET /openapi.json",
    "/openapi.yaml": "GET /openapi.json",
    "/swagger": "GET /docs",
    "/redoc": "GET /docs",
    "/api-docs": "GET /docs",
    "/healthz": "GET /health",
    "/livez": "GET /health",
    "/readyz": "GET /ready",
    "/status": "GET /ready",
    "/ping": "GET /health",
}
# Fields that mean something else there.
FIELDS = {
    "/prompt": "a graph goes into custom_workflow",
    "/v1": "size is width and height, n is batch_size",
    "/sdapi/v1": "the fields have the same names, pictures are addresses",
}
NOWHERE = "GET /docs shows the routes"


def services_of(path: str) -> list[str]:
    """The services that have this route."""
    return [name for name, routes in routes_by_service().items() if any(route.path == path for route in routes)]


def way_to(path: str, service: str, settings: Settings) -> str:
    """A hint for who asked `service` for a path that it does not have: where it is, or what is nearest."""
    tidy = re.sub(r"/+", "/", f"/{path[:LONGEST]}").rstrip("/").lower()
    for known in _paths():
        if _fits(known, tidy):
            return _said(_methods(known), known, service, settings, _difference(path))
    # The longest of the programs' paths that it begins with, with or without the prefix of ours.
    bare = tidy.removeprefix("/api")
    for start in sorted(ELSEWHERE, key=len, reverse=True):
        if any(each == start or (each.startswith(f"{start}/") and start != "/api") for each in (tidy, bare)):
            method, _, here = ELSEWHERE[start].partition(" ")
            note = next((note for prefix, note in FIELDS.items() if start.startswith(prefix)), "")
            return _said([method], here, service, settings, note)
    # Without the prefix, which would make all of them alike.
    paths = {known.removeprefix("/api"): known for known in _paths()}
    near = difflib.get_close_matches(bare, paths, n=1, cutoff=0.75)
    if not near:
        return NOWHERE
    meant = paths[near[0]]
    return f"did you mean {_said(_methods(meant), meant, service, settings, '')}?"


def _difference(path: str) -> str:
    """How a path is written otherwise than the route that it means."""
    if "//" in path:
        return "with single slashes"
    return "without a slash at its end" if path.endswith("/") else "in small letters" if path != path.lower() else ""


def way_to_call(path: str, methods: Iterable[str], base: str) -> str:
    """A hint for who called a path by a method that it does not take: `methods` are those that it does."""
    taken = [method for method in ("GET", "POST", "DELETE") if method in methods]
    for route in _all_routes():
        operation = route.operation
        if operation is None or operation.body is None or route.method not in taken:
            continue
        if _fits(route.path, path.lower()):
            value = json.dumps(operation.examples[0].body) if operation.examples else "{}"
            if operation.body.only_form or "base64," in value or "'" in value:
                return f"{route.method} a form; {base}/docs has an example"
            return f"curl -sS {base}{path} -H 'content-type: application/json' -d '{value}'"
    return f"call it by {' or '.join(taken)}; {base}/docs shows how"


def _all_routes() -> list[Route]:
    """The routes of all services, each once."""
    return list(
        {(route.method, route.path): route for routes in routes_by_service().values() for route in routes}.values()
    )


def _paths() -> list[str]:
    return sorted({route.path for route in _all_routes()}, key=len)


def _methods(path: str) -> list[str]:
    return [route.method for route in _all_routes() if route.path == path]


def _fits(known: str, path: str) -> bool:
    """Whether a path is that of a route, in whose path `<...>` stands for any name."""
    return re.fullmatch(re.sub(r"<\w+>", "[^/]+", known), path) is not None


def _said(methods: list[str], path: str, service: str, settings: Settings, note: str) -> str:
    services = services_of(path)
    ports = {"txt2img": settings.txt2img_port, "img2img": settings.img2img_port, "control": settings.control_port}
    there = "" if not services or service in services else f" on port {ports[services[0]]} ({services[0]})"
    return f"{' or '.join(methods)} {path}{there}{f', {note}' if note else ''}"
