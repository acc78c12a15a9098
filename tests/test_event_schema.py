"""The events of real streams against their schemas in the OpenAPI document."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator

from shared.jobs.job import JobRow, State
from shared.schema.replies import EVENTS
from shared.settings import Settings
from shared.web.app import txt2img_app
from shared.web.backend import Backend
from shared.web.event_stream import FINAL_EVENTS
from tests.fake_engine import FakeEngine
from tests.harness import new_job, wait_for
from tests.job_factory import REQUEST, finish

SPEC = {"parameters": REQUEST, "warnings": ["steps was rounded"], "seeds": [42, 43], "size": (8, 8), "previews": True}


class Service:
    """The txt2img service, connected to a fake engine."""

    def __init__(self, folder: Path, engine: FakeEngine) -> None:
        self.backend = Backend(Settings(engine_url=engine.address, data_dir=folder))
        self.client: FlaskClient = txt2img_app(self.backend).test_client()
        self.backend.start()
        wait_for(lambda: self.backend.jobs.runner._listener.connected, "the websocket is not connected")

    def submit(self) -> JobRow:
        return self.backend.jobs.submit(new_job(spec=SPEC), {})[0]

    def watch(self, job_id: str) -> Iterator[dict[str, Any]]:
        """The events of a job as they arrive, as the fields of text/event-stream."""
        for frame in self.client.get(f"/api/jobs/{job_id}/events").iter_encoded():
            if frame.startswith((b"id: ", b"event: ")):
                yield dict(line.split(": ", 1) for line in frame.decode().strip().split("\n"))

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """All events of a job, once it is finished."""
        return list(self.watch(job_id))

    def validate(self, event: dict[str, Any]) -> None:
        """Raise ValidationError if the document does not describe the event or one of its fields."""
        document = self.client.get("/openapi.json").json
        assert document is not None
        response = document["paths"]["/api/jobs/{job_id}/events"]["get"]["responses"]["200"]
        variants = response["content"]["text/event-stream"]["schema"]["oneOf"]
        variant = next(schema for schema in variants if schema["properties"]["event"]["const"] == event["event"])
        Draft202012Validator({**variant, "components": document["components"]}).validate(event)
        data = variant["properties"]["data"]["contentSchema"]
        Draft202012Validator({**data, "components": document["components"]}).validate(json.loads(event["data"]))
        # The schema allows other fields, so compare them with the model.
        model = EVENTS[event["event"]]
        known = {field.alias or name for name, field in model.model_fields.items()}
        assert set(json.loads(event["data"])) <= known, event


@pytest.fixture
def service(tmp_path: Path, engine: FakeEngine) -> Iterator[Service]:
    created = Service(tmp_path, engine)
    yield created
    created.backend.stop()


def test_the_events_of_a_completed_job_match_the_schema(service: Service, engine: FakeEngine) -> None:
    # Previews are deleted when the job ends.
    engine.seconds = 6
    events = []
    for event in service.watch(service.submit().id):
        events.append(event)
        if event["event"] == "preview":
            engine.seconds = 0
    assert {event["event"] for event in events} >= {"queued", "started", "progress", "preview", "image", "completed"}
    for event in events:
        service.validate(event)


def test_the_events_of_a_cancelled_job_match_the_schema(service: Service, engine: FakeEngine) -> None:
    engine.seconds = 60
    job = service.submit()
    wait_for(lambda: service.backend.jobs.store.state(job.id) is State.RUNNING, "the job does not run")
    service.backend.jobs.runner.cancel(job.id)
    events = service.events(job.id)
    assert events[-1]["event"] == "cancelled"
    for event in events:
        service.validate(event)


def test_the_final_event_of_a_failed_job_matches_the_schema(service: Service, engine: FakeEngine) -> None:
    engine.node_errors = {"KSampler": {"errors": [{"message": "no", "details": "steps"}], "class_type": "KSampler"}}
    events = service.events(service.submit().id)
    assert events[-1]["event"] == "failed"
    for event in events:
        service.validate(event)


def test_a_mismatched_event_is_detected(service: Service) -> None:
    event = service.events(finish(service.backend).id)[-1]
    service.validate(event)
    data = json.loads(event["data"])
    for wrong in ({**data, "timings": None}, {**data, "unknown": 1}, {}):
        with pytest.raises(Exception, match=r"None|unknown|required"):
            service.validate({**event, "data": json.dumps(wrong)})


def test_every_event_that_ends_a_stream_is_described() -> None:
    assert set(FINAL_EVENTS) < set(EVENTS)


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "1e3", "٣", "9" * 30, " "])
def test_an_invalid_last_event_id_is_rejected(service: Service, text: str) -> None:
    job = finish(service.backend)
    for field, sent in (
        ("after", {"query_string": {"after": text}}),
        ("Last-Event-ID", {"headers": {"Last-Event-ID": text}} if text.isascii() else {}),
    ):
        if sent and text.strip():
            refused = service.client.get(f"/api/jobs/{job.id}/events", **sent)
            assert (refused.status_code, refused.json["error"]["field"]) == (422, field), refused.text


@pytest.mark.parametrize("text", ["-1", "0", "x", "9" * 30])
@pytest.mark.parametrize("name", ["limit", "before"])
def test_invalid_pages_of_jobs_are_rejected(service: Service, name: str, text: str) -> None:
    refused = service.client.get("/api/jobs", query_string={name: text})
    assert (refused.status_code, refused.json["error"]["field"]) == (422, name)


def test_a_stream_resumes_after_the_last_event_id(service: Service) -> None:
    job = finish(service.backend)
    events = service.events(job.id)
    url = f"/api/jobs/{job.id}/events"
    assert "event: queued" not in service.client.get(url, query_string={"after": events[0]["id"]}).text
    assert "event: queued" in service.client.get(url, query_string={"after": "0"}).text
    assert service.client.get(url, headers={"Last-Event-ID": events[-1]["id"]}).status_code == 204
