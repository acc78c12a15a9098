"""GET /api/services: our services, their addresses as the caller reaches them, and which of them run."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from flask import Blueprint, Response, jsonify

from shared.settings import Settings
from shared.web.reply import base_address
from shared.web.server.run import reachable

# Seconds within which a service on this machine says that it lives; its threads for that are never busy.
TIMEOUT = 2.0
LONGEST_ANSWER = 10_000


def service_routes(settings: Settings) -> Blueprint:
    """GET /api/services."""
    routes = Blueprint("services", __name__)

    @routes.get("/api/services")
    def list_services() -> Response:
        ports, base = ports_of(settings), base_address(settings)
        with ThreadPoolExecutor(len(ports)) as pool:
            found = list(pool.map(lambda each: runs(settings.host, each[2], each[1]), ports))
        services = [
            {"name": name, "service": service, "port": port, "running": running}
            | {"docs": docs_address(base, port, ports)}
            for (name, service, port), running in zip(ports, found, strict=True)
        ]
        return jsonify({"status": "success", "services": services})

    return routes


def ports_of(settings: Settings) -> list[tuple[str, str, int]]:
    """Name, service and port of each. The control service answers on those that the web page has built in too. Pure."""
    return [
        ("txt2img", "txt2img", settings.txt2img_port),
        ("img2img", "img2img", settings.img2img_port),
        ("control", "control", settings.control_port),
        ("extras", "control", settings.extras_port),
        ("runs", "control", settings.runs_port),
        ("report", "control", settings.report_port),
        ("img2txt", "control", settings.img2txt_port),
    ]


def docs_address(base: str, port: int, ports: list[tuple[str, str, int]]) -> str | None:
    """The address of the page of the service on `port`, for who reached one of ours at `base`. Pure.

    None behind a proxy: only who has set it up knows under which address it hands on to the others.
    """
    called = urlsplit(base)
    if called.path or called.port not in [each for _, _, each in ports]:
        return None
    host = called.netloc.rpartition(":")[0]
    return f"{called.scheme}://{host}:{port}/docs"


def runs(host: str, port: int, service: str) -> bool:
    """Whether this service of ours answers on a port of this machine; `host` is what it was told to listen on."""
    connection = http.client.HTTPConnection(reachable(host).strip("[]"), port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/health")
        said = json.loads(connection.getresponse().read(LONGEST_ANSWER))
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return isinstance(said, dict) and said.get("service") == service
