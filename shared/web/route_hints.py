"""Hints for requests to a wrong path, port or method: the right one, or the closest match."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable
from functools import cache

from shared.settings import Settings
from shared.web.openapi.operation import Route
from shared.web.route_table import routes_by_service

LONGEST_PATH = 100
# Our routes by the paths of other APIs: AUTOMATIC1111 and Forge, OpenAI, ComfyUI, Stability and others.
FOREIGN_PATHS = {
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
# How the fields of those APIs differ from ours, by the beginnings of their paths.
FIELD_NOTES = {
    "/prompt": "a graph goes into custom_workflow",
    "/v1": "size is width and height, n is batch_size",
    "/sdapi/v1": "the fields have the same names, pictures are addresses",
}
NO_MATCH = "GET /docs lists the routes"


def hint_for_path(path: str, service: str, settings: Settings) -> str:
    """Name the route that a request to an unknown path of `service` may mean."""
    normal = re.sub(r"/+", "/", f"/{path[:LONGEST_PATH]}").rstrip("/").lower()
    for known in _known_paths():
        if _matches(known, normal):
            return _name_route(_methods_of(known), known, service, settings, _spelling_note(path))
    # The longest path of another API that it begins with, with or without our prefix.
    bare = normal.removeprefix("/api")
    for start in sorted(FOREIGN_PATHS, key=len, reverse=True):
        below = f"{start}/"
        if start in (normal, bare) or (start != "/api" and (normal.startswith(below) or bare.startswith(below))):
            method, _, ours = FOREIGN_PATHS[start].partition(" ")
            note = next((note for prefix, note in FIELD_NOTES.items() if start.startswith(prefix)), "")
            return _name_route([method], ours, service, settings, note)
    # Without our prefix, which would make all paths similar.
    paths = {known.removeprefix("/api"): known for known in _known_paths()}
    closest = difflib.get_close_matches(bare, paths, n=1, cutoff=0.75)
    if not closest:
        return NO_MATCH
    meant = paths[closest[0]]
    return f"did you mean {_name_route(_methods_of(meant), meant, service, settings, '')}?"


def hint_for_method(path: str, allowed: Iterable[str], base: str) -> str:
    """Show how to call a path, whose methods are `allowed`, after a request with another method."""
    methods = [method for method in ("GET", "POST", "DELETE") if method in allowed]
    for route in _all_routes():
        operation = route.operation
        if operation is None or operation.body is None or route.method not in methods:
            continue
        if _matches(route.path, path.lower()):
            value = json.dumps(operation.examples[0].body) if operation.examples else "{}"
            if operation.body.only_form or "base64," in value or "'" in value:
                return f"{route.method} a form; {base}/docs has an example"
            return f"curl -sS {base}{path} -H 'content-type: application/json' -d '{value}'"
    return f"use {' or '.join(methods)}; {base}/docs has examples"


def services_of(path: str) -> list[str]:
    """The names of the services that have this route."""
    return [name for name, routes in routes_by_service().items() if any(route.path == path for route in routes)]


def _spelling_note(path: str) -> str:
    """How the spelling of a path differs from that of its route."""
    if "//" in path:
        return "with single slashes"
    return "without a slash at the end" if path.endswith("/") else "in lower case" if path != path.lower() else ""


@cache
def _all_routes() -> Collection[Route]:
    """The routes of all services, without duplicates."""
    routes = (route for routes in routes_by_service().values() for route in routes)
    return {(route.method, route.path): route for route in routes}.values()


def _known_paths() -> list[str]:
    return sorted({route.path for route in _all_routes()}, key=len)


def _methods_of(path: str) -> list[str]:
    return [route.method for route in _all_routes() if route.path == path]


def _matches(known: str, path: str) -> bool:
    """Whether a path matches that of a route, where `<...>` stands for any name."""
    return re.fullmatch(re.sub(r"<\w+>", "[^/]+", known), path) is not None


def _name_route(methods: list[str], path: str, service: str, settings: Settings, note: str) -> str:
    """The route, with its port if `service` does not have it."""
    services = services_of(path)
    ports = {"txt2img": settings.txt2img_port, "img2img": settings.img2img_port, "control": settings.control_port}
    other = "" if not services or service in services else f" on port {ports[services[0]]} ({services[0]})"
    return f"{' or '.join(methods)} {path}{other}{f', {note}' if note else ''}"
