"""The two clients of `bench.overhead`: directly of ComfyUI, and of our service.

Both use the requests library with keep-alive connections and without proxies, and both end with the picture's bytes.
"""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import requests
import websocket

from shared.engine.catalog import EngineCatalog
from shared.engine.client import EngineAccess, EngineClient
from shared.jobs.picture_names import filename_prefix
from shared.schema.request import Txt2ImgRequest
from shared.web.parsing.generation import parse_txt2img
from shared.web.parsing.model_catalog import ModelCatalog
from shared.web.parsing.parser import ParsingContext
from shared.web.request_body import Fields
from starter import CHECKPOINT_NAME
from workflows.graph_builder import Graph

# Seconds; longer than any job takes.
TIMEOUT = 300
PNG = b"\x89PNG"


@dataclass(frozen=True)
class BenchJob:
    """A kind of job: its name in the table, our route, the request's fields, and the function that builds its graph."""

    name: str
    route: str
    fields: Mapping[str, Any]
    build_graph: Callable[[Txt2ImgRequest, str], Graph]

    def graph(self, inventory: ModelCatalog, job_id: str, seed: int) -> dict[str, Any]:
        """Build the graph that our service would send, except for the picture's folder."""
        fields = Fields({**self.fields, "seed": seed}, {})
        request = parse_txt2img(fields, ParsingContext(CHECKPOINT_NAME, inventory, lambda _: None)).request
        return self.build_graph(request, f"bare-{filename_prefix(job_id, datetime.now())}").to_api()


class Client(Protocol):
    """A client for one thread, connected from the start."""

    def prepare(self, job: BenchJob, seed: int) -> Callable[[], bytes]:
        """Prepare a job; the returned function does everything that is measured."""

    def queue(self, job: BenchJob, seed: int) -> str:
        """Send a job without waiting; returns its id."""

    def wait(self, job_id: str) -> None:
        """Wait until the job ends."""

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Cancel the most recently queued jobs."""

    def spans(self) -> list[tuple[float, float]]:
        """Return when the engine started and finished each job since the last call, in seconds by its clock."""

    def close(self) -> None:
        """Disconnect."""


class BareClient:
    """A client of ComfyUI like its own examples: waits for the end of the job, then gets history and picture."""

    def __init__(self, engine_url: str, access: EngineAccess) -> None:
        self._url = engine_url
        self._catalog = EngineCatalog(EngineClient(engine_url, access))
        self._id = str(uuid.uuid4())
        self._session = _session(f"{engine_url}/prompt", access.headers())
        self._socket = websocket.create_connection(
            f"{engine_url.replace('http', 'ws', 1)}/ws?clientId={self._id}",
            timeout=TIMEOUT,
            header=access.headers(),
            http_no_proxy=["*"],
            # Validation would take a millisecond per job; the bare client should be fast.
            skip_utf8_validation=True,
        )

    def prepare(self, job: BenchJob, seed: int) -> Callable[[], bytes]:
        """POST /prompt, wait for the event of the end, GET /history/<id>, GET /view."""
        job_id = str(uuid.uuid4())
        graph = job.graph(self._catalog, job_id, seed)
        return lambda: self._draw(job_id, graph)

    def queue(self, job: BenchJob, seed: int) -> str:
        """Send a job without waiting; returns its id."""
        job_id = str(uuid.uuid4())
        self._send(job_id, job.graph(self._catalog, job_id, seed))
        return job_id

    def wait(self, job_id: str) -> None:
        """Wait until the job ends."""
        while True:
            message = self._socket.recv()
            if not isinstance(message, str):
                continue
            event = json.loads(message)
            data = event["data"]
            if event["type"] == "executing" and data["node"] is None and data["prompt_id"] == job_id:
                return

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Remove jobs from the queue; the first one may be running."""
        self._session.post(f"{self._url}/queue", json={"delete": list(job_ids)}, timeout=TIMEOUT).raise_for_status()

    def spans(self) -> list[tuple[float, float]]:
        """Read the spans from the engine's history, and clear it."""
        entries = self._session.get(f"{self._url}/history", timeout=TIMEOUT).json().values()
        self._session.post(f"{self._url}/history", json={"clear": True}, timeout=TIMEOUT)
        stamps = [{name: body["timestamp"] / 1000 for name, body in entry["status"]["messages"]} for entry in entries]
        return [
            (events["execution_start"], events["execution_success"])
            for events in stamps
            if "execution_success" in events
        ]

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()
        self._session.close()

    def _send(self, job_id: str, graph: dict[str, Any]) -> None:
        body = {"prompt": graph, "prompt_id": job_id, "client_id": self._id}
        self._session.post(f"{self._url}/prompt", json=body, timeout=TIMEOUT).raise_for_status()

    def _draw(self, job_id: str, graph: dict[str, Any]) -> bytes:
        self._send(job_id, graph)
        self.wait(job_id)
        entry = self._session.get(f"{self._url}/history/{job_id}", timeout=TIMEOUT).json()[job_id]
        (image,) = (image for output in entry["outputs"].values() for image in output["images"])
        return _picture(self._session.get(f"{self._url}/view", params=image, timeout=TIMEOUT))


class ServiceClient:
    """A client of our service: one request whose response is the picture."""

    def __init__(self, service_url: str) -> None:
        self._url = service_url
        self._session = _session(f"{service_url}/health")

    def prepare(self, job: BenchJob, seed: int) -> Callable[[], bytes]:
        """POST, with `Accept: image/png`."""
        fields, headers = {**job.fields, "seed": seed}, {"Accept": "image/png"}
        return lambda: _picture(
            self._session.post(f"{self._url}{job.route}", json=fields, headers=headers, timeout=TIMEOUT)
        )

    def queue(self, job: BenchJob, seed: int) -> str:
        """Send a job without waiting; returns its id."""
        fields, headers = {**job.fields, "seed": seed}, {"Prefer": "respond-async"}
        reply = self._session.post(f"{self._url}{job.route}", json=fields, headers=headers, timeout=TIMEOUT)
        reply.raise_for_status()
        return str(reply.json()["job_id"])

    def wait(self, job_id: str) -> None:
        """Wait until the job's event stream ends."""
        self._session.get(f"{self._url}/api/jobs/{job_id}/events", timeout=TIMEOUT).raise_for_status()

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Cancel one by one from the last, so that none of them starts."""
        for job_id in reversed(job_ids):
            self._session.delete(f"{self._url}/api/jobs/{job_id}", timeout=TIMEOUT).raise_for_status()

    def spans(self) -> list[tuple[float, float]]:
        """Read the spans from `bench.overhead_service`."""
        spans = self._session.get(f"{self._url}/bench/spans", timeout=TIMEOUT).json()
        return [(started, finished) for started, finished in spans]

    def close(self) -> None:
        """Disconnect."""
        self._session.close()


def _session(url: str, headers: Mapping[str, str] | None = None) -> requests.Session:
    """Create a session with these headers, connected by a first request."""
    session = requests.Session()
    session.headers.update(headers or {})
    # Looking for proxies would take time.
    session.trust_env = False
    session.get(url, timeout=TIMEOUT).raise_for_status()
    return session


def _picture(response: requests.Response) -> bytes:
    response.raise_for_status()
    if not response.content.startswith(PNG):
        raise ValueError(f"{response.url} did not answer with a picture")
    return response.content
