"""Lists of jobs, runs and reports: bounded in size, whatever the size of the jobs."""

import argparse
import csv
import io
import sqlite3
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy.engine import Connection

from launcher.jobs_command import run_jobs
from shared.errors import InvalidValue
from shared.jobs import database as jobs_database
from shared.jobs.database import LARGEST_PAGE, LARGEST_PART
from shared.jobs.job import JobSpec, State
from shared.web.app import create_app
from shared.web.backend import Backend
from shared.web.routes.jobs import job_routes
from shared.web.routes.report import report_routes
from shared.web.routes.runs import run_routes
from tests.golden_graphs import LORAS, draw
from tests.job_factory import REQUEST, finish
from tests.test_store import new
from workflows.imported_graph import MOST_TEXT, read_graph


@pytest.fixture
def client(backend: Backend) -> FlaskClient:
    routes = [job_routes, run_routes, report_routes]
    return create_app("control", backend.settings, routes, backend).test_client()


def large_graph(characters: int) -> dict[str, Any]:
    return {**draw(loras=LORAS), "note": {"class_type": "Note", "inputs": {"text": "x" * characters}}}


def every_page(client: FlaskClient, path: str, key: str) -> Iterator[list[dict[str, Any]]]:
    before = ""
    while True:
        answer = client.get(f"{path}?limit=500{before}")
        assert len(answer.data) < 2 * LARGEST_PAGE
        assert answer.json is not None
        yield answer.json[key]
        if answer.json["before"] is None:
            return
        before = f"&before={answer.json['before']}"


@pytest.mark.parametrize(("path", "key"), [("/api/jobs", "jobs"), ("/api/runs", "runs")])
def test_a_list_reads_no_large_graph_from_the_database(
    backend: Backend, client: FlaskClient, path: str, key: str
) -> None:
    for _ in range(20):
        finish(backend, graph=large_graph(300_000))
    queries: list[tuple[str, Any]] = []

    def record_query(_connection: Connection, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        queries.append((statement, parameters))

    sa.event.listen(backend.jobs.store._engine, "before_cursor_execute", record_query)
    listed = [item for page in every_page(client, path, key) for item in page]
    sa.event.remove(backend.jobs.store._engine, "before_cursor_execute", record_query)
    assert len(listed) == 20
    database = sqlite3.connect(backend.settings.data_dir / "jobs.sqlite")
    read = sum(len(str(value)) for query in queries for row in database.execute(*query) for value in row)
    database.close()
    assert read < 20 * 5_000


@pytest.mark.slow
@pytest.mark.parametrize(("path", "key"), [("/api/jobs", "jobs"), ("/api/runs", "runs")])
@pytest.mark.parametrize("part", ["request", "graph", "images"])
def test_pages_of_large_jobs_are_limited_in_size_and_skip_none(
    backend: Backend, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, path: str, key: str, part: str
) -> None:
    monkeypatch.setattr(jobs_database, "LARGEST_PAGE", 100_000)
    # Every part is below LARGEST_PART, so nothing is left out.
    request = {**REQUEST, "prompt": "x" * 30_000} if part == "request" else REQUEST
    graph = large_graph(30_000) if part == "graph" else None
    ids = [finish(backend, request, graph, pictures=300 if part == "images" else 1).id for _ in range(8)]
    pages = list(every_page(client, path, key))
    assert len(pages) > 1
    assert [item["run_id" if key == "runs" else "job_id"] for page in pages for item in page] == ids[::-1]
    assert not any(item.get("left_out") for page in pages for item in page)


def test_left_out_names_the_large_parts_and_the_job_itself_returns_them(backend: Backend, client: FlaskClient) -> None:
    prompt = "a red circle " * (LARGEST_PART // 10)
    graph = large_graph(LARGEST_PART)
    row = finish(backend, {**REQUEST, "prompt": prompt}, graph)
    (job,) = next(every_page(client, "/api/jobs", "jobs"))
    assert (job["parameters"], job["left_out"]) == ({}, ["parameters"])
    (run,) = next(every_page(client, "/api/runs", "runs"))
    assert (run["workflow"], run["loras"], run["prompt"]) == ({"prompt": {}}, [], "")
    assert {"workflow", "loras", "prompt"} <= set(run["left_out"])
    whole = client.get(f"/api/jobs/{row.id}").get_json()
    assert (whole["parameters"]["prompt"], whole["result"]["workflow"]["prompt"]) == (prompt, graph)
    assert "left_out" not in whole
    run = client.get(f"/api/runs/{row.id}").get_json()["run"]
    assert (run["prompt"], run["workflow"]["prompt"], run["left_out"]) == (prompt, graph, [])
    assert len(run["loras"]) == len(LORAS)


def test_a_list_reports_the_same_values_as_the_job(backend: Backend, client: FlaskClient) -> None:
    seed = 2**64 - 1
    finish(backend, {**REQUEST, "seed": seed}, draw(loras=LORAS), seeds=[seed], size=(64, 96), uploads={"a.png": None})
    graph = {**draw(), "note": {"class_type": "Note", "inputs": {"text": 'ü "{}"'}}}
    finish(backend, {"seed": 42}, graph, kind="workflow", repeatable=False, output_node="SaveImage")
    finish(backend, state=State.FAILED, pictures=0)
    for job in client.get("/api/jobs").get_json()["jobs"]:
        whole = client.get(f"/api/jobs/{job['job_id']}").get_json()
        assert {name: whole[name] for name in job} == job
    for run in client.get("/api/runs").get_json()["runs"]:
        assert client.get(f"/api/runs/{run['run_id']}").get_json()["run"] == run


def test_the_last_page_has_no_before(backend: Backend, client: FlaskClient) -> None:
    for _ in range(4):
        finish(backend)
    first = client.get("/api/jobs?limit=2").get_json()
    last = client.get(f"/api/jobs?limit=2&before={first['before']}").get_json()
    assert (len(last["jobs"]), last["before"]) == (2, None)


def test_a_report_of_many_large_runs_lists_all_of_them_in_order(
    backend: Backend, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_database, "LARGEST_PAGE", 40_000)
    ids = [finish(backend, {**REQUEST, "prompt": "x" * 15_000}).id for _ in range(5)]
    for chosen, expected in (([], ids[::-1]), (ids[1:4], ids[1:4])):
        report = client.post("/api/report-bundle", json={"run_ids": chosen}).get_json()
        assert report["runs"] == len(expected)
        with zipfile.ZipFile(io.BytesIO(client.get("/api/report-bundle/download", buffered=True).data)) as archive:
            table = io.StringIO(archive.read("runs.csv").decode("utf-8-sig"))
            assert [row["run_id"] for row in csv.DictReader(table)] == expected


def test_the_launcher_lists_and_cancels_jobs_beyond_one_page(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs_database, "LARGEST_PAGE", 20_000)
    for _ in range(5):
        spec = JobSpec({"prompt": "x" * 9_000})
        backend.jobs.store.add(new(spec=spec), "me", 1000)
    run_jobs(backend.settings, argparse.Namespace(action="list", all=True), running=False)
    assert "5 jobs unfinished" in capsys.readouterr().out
    run_jobs(backend.settings, argparse.Namespace(action="cancel", id="all"), running=False)
    assert backend.jobs.store.count_unfinished() == 0


def test_a_graph_with_texts_that_are_too_long_is_never_stored() -> None:
    texts = {f"text{number}": "x" * 19_000 for number in range(60)}
    graph = {**draw(), "note": {"class_type": "Note", "inputs": texts}}
    with pytest.raises(InvalidValue, match=f"{MOST_TEXT}"):
        read_graph(graph)
