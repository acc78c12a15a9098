"""Two ways to a picture, for `bench.front`: straight from ComfyUI, and through our service.

Both use the requests library, with connections that are kept alive and no proxies; both end with the picture's bytes.
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
from shared.web.body import Fields
from shared.web.parsing.generation import parse_txt2img
from shared.web.parsing.model_catalog import ModelCatalog
from shared.web.parsing.parser import ParsingContext
from starter import CHECKPOINT_NAME
from workflows.graph import Graph

# Seconds; more than any job waits.
TIMEOUT = 300
PNG = b"\x89PNG"


@dataclass(frozen=True)
class Drawing:
    """What is drawn: its name in the table, our route, the fields of a request, and the recipe of the same graph."""

    name: str
    route: str
    fields: Mapping[str, Any]
    recipe: Callable[[Txt2ImgRequest, str], Graph]

    def graph(self, inventory: ModelCatalog, job_id: str, seed: int) -> dict[str, Any]:
        """The graph that our service would send, but for the folder of the picture."""
        fields = Fields({**self.fields, "seed": seed}, {})
        request = parse_txt2img(fields, ParsingContext(CHECKPOINT_NAME, inventory, lambda _: None)).request
        return self.recipe(request, f"bare-{filename_prefix(job_id, datetime.now())}").to_api()


class Client(Protocol):
    """One client, for one thread, connected when it exists."""

    def prepare(self, drawing: Drawing, seed: int) -> Callable[[], bytes]:
        """A job, ready to be asked for: what is returned does all that takes part in the measurement."""

    def queue(self, drawing: Drawing, seed: int) -> str:
        """Sends a job, and does not wait; its id."""

    def wait(self, job_id: str) -> None:
        """Waits for a job's end."""

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Cancels jobs, the last ones that were queued."""

    def spans(self) -> list[tuple[float, float]]:
        """When the engine began and ended each job since this was asked last, in seconds by its own clock."""

    def close(self) -> None:
        """Hangs up."""


class Bare:
    """A client of ComfyUI, as its own examples are: it hears of the job's end, looks it up, gets the picture."""

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
            # Otherwise it looks at each byte, for a millisecond of each job: a bare client is to be a quick one.
            skip_utf8_validation=True,
        )

    def prepare(self, drawing: Drawing, seed: int) -> Callable[[], bytes]:
        """POST /prompt, a wait for the message that the job is done, GET /history/<id>, GET /view."""
        job_id = str(uuid.uuid4())
        graph = drawing.graph(self._catalog, job_id, seed)
        return lambda: self._draw(job_id, graph)

    def queue(self, drawing: Drawing, seed: int) -> str:
        """Sends a job, and does not wait; its id."""
        job_id = str(uuid.uuid4())
        self._send(job_id, drawing.graph(self._catalog, job_id, seed))
        return job_id

    def wait(self, job_id: str) -> None:
        """Waits for a job's end."""
        while True:
            message = self._socket.recv()
            if not isinstance(message, str):
                continue
            told = json.loads(message)
            if told["type"] == "executing" and told["data"]["node"] is None and told["data"]["prompt_id"] == job_id:
                return

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Out of the queue; the first one may have begun."""
        self._session.post(f"{self._url}/queue", json={"delete": list(job_ids)}, timeout=TIMEOUT).raise_for_status()

    def spans(self) -> list[tuple[float, float]]:
        """From the engine's history, which is cleared."""
        entries = self._session.get(f"{self._url}/history", timeout=TIMEOUT).json().values()
        self._session.post(f"{self._url}/history", json={"clear": True}, timeout=TIMEOUT)
        stamps = [{name: body["timestamp"] / 1000 for name, body in entry["status"]["messages"]} for entry in entries]
        return [(each["execution_start"], each["execution_success"]) for each in stamps if "execution_success" in each]

    def close(self) -> None:
        """Hangs up."""
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


class Ours:
    """A client of our service: one request, which is answered with the picture."""

    def __init__(self, service_url: str) -> None:
        self._url = service_url
        self._session = _session(f"{service_url}/health")

    def prepare(self, drawing: Drawing, seed: int) -> Callable[[], bytes]:
        """POST, with `Accept: image/png`."""
        fields, headers = {**drawing.fields, "seed": seed}, {"Accept": "image/png"}
        return lambda: _picture(
            self._session.post(f"{self._url}{drawing.route}", json=fields, headers=headers, timeout=TIMEOUT)
        )

    def queue(self, drawing: Drawing, seed: int) -> str:
        """Sends a job, and does not wait; its id."""
        fields, headers = {**drawing.fields, "seed": seed}, {"Prefer": "respond-async"}
        reply = self._session.post(f"{self._url}{drawing.route}", json=fields, headers=headers, timeout=TIMEOUT)
        reply.raise_for_status()
        return str(reply.json()["job_id"])

    def wait(self, job_id: str) -> None:
        """Waits for a job's end, on its stream of events, which ends then."""
        self._session.get(f"{self._url}/api/jobs/{job_id}/events", timeout=TIMEOUT).raise_for_status()

    def cancel(self, job_ids: Sequence[str]) -> None:
        """One by one, from the last one on, so that none begins for lack of others."""
        for job_id in reversed(job_ids):
            self._session.delete(f"{self._url}/api/jobs/{job_id}", timeout=TIMEOUT).raise_for_status()

    def spans(self) -> list[tuple[float, float]]:
        """From what our service has read of that history."""
        told = self._session.get(f"{self._url}/bench/spans", timeout=TIMEOUT).json()
        return [(began, ended) for began, ended in told]

    def close(self) -> None:
        """Hangs up."""
        self._session.close()


def _session(url: str, headers: Mapping[str, str] | None = None) -> requests.Session:
    """A session, connected by a first request, which sends these headers with each."""
    session = requests.Session()
    session.headers.update(headers or {})
    # Proxies are for the internet; looking for them takes time, too.
    session.trust_env = False
    session.get(url, timeout=TIMEOUT).raise_for_status()
    return session


def _picture(response: requests.Response) -> bytes:
    response.raise_for_status()
    if not response.content.startswith(PNG):
        raise ValueError(f"{response.url} did not answer with a picture")
    return response.content
