"""Reports: the contents of the zip file, formulas in spreadsheets, and how many reports are kept."""

import csv
import io
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient

from shared.errors import InvalidValue, StorageFailed
from shared.jobs.job import State
from shared.web.app import create_app
from shared.web.backend import Backend
from shared.web.routes import report
from shared.web.routes.report import (
    COLUMNS,
    KEPT_REPORTS,
    ReportFolder,
    cell,
    parse_run_ids,
    readme,
    report_routes,
    runs_csv,
)
from shared.web.routes.runs import run_body
from shared.web.urls import ReplyUrls
from tests.golden_graphs import LORAS, draw
from tests.job_factory import REQUEST, finish
from tests.stack import TIMEOUT, TestStack

POST, GET = "/api/report-bundle", "/api/report-bundle/download"


@pytest.fixture
def client(backend: Backend) -> FlaskClient:
    return create_app("control", backend.settings, [report_routes], backend).test_client()


def opened(content: bytes) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert archive.testzip() is None
    return archive


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-cmd", "@SUM(A1)", "\t=1", "\r=1", "  =HYPERLINK(1)", "|calc", "%x", "\uff1d1+1", "\0=1"],
)
def test_texts_never_become_formulas(text: str) -> None:
    assert cell(text).startswith("'")


@pytest.mark.parametrize(("value", "text"), [(-1, "-1"), (-0.5, "-0.5"), ("a = b", "a = b"), ("", ""), ("'x", "'x")])
def test_other_cells_are_unchanged(value: Any, text: str) -> None:
    assert cell(value) == text


def test_the_table_has_a_row_for_each_run(backend: Backend) -> None:
    hostile = '=HYPERLINK("http://evil.example"),"x"\nsecond line \ud800'
    runs = [
        run_body(finish(backend, {**REQUEST, "prompt": hostile}, draw(loras=LORAS), pictures=2), ReplyUrls("")),
        run_body(finish(backend, {**REQUEST, "prompt": "ein Löwe 圓"}), ReplyUrls("")),
    ]
    first, second = rows_of(runs_csv(runs))
    assert tuple(first) == COLUMNS
    assert first["prompt"] == '\'=HYPERLINK("http://evil.example"),"x"\nsecond line ?'
    assert first["loras"] == "one.safetensors:0.8; two.safetensors:-0.5"
    assert first["generated_images"] == "; ".join(runs[0]["generated_images"])
    assert (second["prompt"], second["seed"], second["cfg_scale"]) == ("ein Löwe 圓", "42", "6.5")


def test_the_readme_lists_missing_pictures(backend: Backend) -> None:
    run = run_body(finish(backend, pictures=2), ReplyUrls(""))
    text = readme([run], run["generated_images"][:1], datetime(2026, 11, 22, 14, 30)).decode()
    assert "Created on 2026-11-22 at 14:30: 1 runs with 1 pictures." in text
    assert "Models: model.safetensors." in text
    assert f"- {run['generated_images'][0]}" in text


@pytest.mark.parametrize("value", ["x", {"a": 1}, [1], ["a", None], [["a"]], ["a"] * 501])
def test_ids_of_the_wrong_shape_are_refused(value: Any) -> None:
    with pytest.raises(InvalidValue) as wrong:
        parse_run_ids(value)
    assert wrong.value.field == "run_ids"


def test_the_zip_contains_the_selected_runs_and_their_pictures(backend: Backend, client: FlaskClient) -> None:
    rows = [finish(backend, pictures=2) for _ in range(3)]
    chosen = [rows[2].id, rows[0].id, rows[2].id]
    reply = client.post(POST, json={"run_ids": chosen}).get_json()
    assert (reply["status"], reply["runs"], reply["missing"]) == ("success", 2, [])
    downloaded = client.get(GET, buffered=True)
    assert downloaded.mimetype == "application/zip"
    assert "dream-layer-report.zip" in downloaded.headers["Content-Disposition"]
    assert reply["size"] == len(downloaded.data)
    archive = opened(downloaded.data)
    pictures = [image["filename"] for row in (rows[2], rows[0]) for image in row.images]
    assert archive.namelist() == [*(f"images/{name}" for name in pictures), "runs.csv", "README.md"]
    assert archive.read(f"images/{pictures[0]}").startswith(b"\x89PNG")
    assert [row["run_id"] for row in rows_of(archive.read("runs.csv"))] == [rows[2].id, rows[0].id]
    again = client.get(reply["download_url"].removeprefix("http://localhost"), buffered=True)
    assert again.data == downloaded.data


def test_without_ids_the_report_contains_every_run(backend: Backend, client: FlaskClient) -> None:
    assert client.post(POST, json={"run_ids": []}).status_code == 404
    finish(backend)
    finish(backend, state=State.FAILED, pictures=0)
    assert client.post(POST, json={"run_ids": []}).get_json()["runs"] == 1
    assert client.post(POST).get_json()["runs"] == 1


def test_an_unknown_run_is_reported(backend: Backend, client: FlaskClient) -> None:
    refused = client.post(POST, json={"run_ids": [finish(backend).id, "no-such-run"]})
    assert refused.status_code == 404
    assert "no-such-run" in refused.get_json()["message"]
    assert client.get(GET).status_code == 404
    assert client.get(f"{GET}?bundle=../jobs.sqlite").status_code == 404


def test_a_missing_picture_is_listed_and_the_others_are_included(backend: Backend, client: FlaskClient) -> None:
    row = finish(backend, pictures=2)
    missing, present = (image["filename"] for image in row.images)
    (backend.settings.output_dir / row.images[0]["subfolder"] / missing).unlink()
    assert client.post(POST, json={"run_ids": [row.id]}).get_json()["missing"] == [missing]
    archive = opened(client.get(GET, buffered=True).data)
    assert archive.namelist() == [f"images/{present}", "runs.csv", "README.md"]
    assert missing in archive.read("README.md").decode()


def test_a_report_that_would_be_too_large_is_refused(
    backend: Backend, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "LARGEST", 10)
    refused = client.post(POST, json={"run_ids": [finish(backend).id]})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "run_ids")
    assert not backend.settings.reports_dir.exists()


def test_only_the_newest_reports_are_kept(tmp_path: Path) -> None:
    bundles = ReportFolder(tmp_path)
    (tmp_path / "report-0000000000000000001.part").write_bytes(b"half")
    (tmp_path / "notes.txt").write_bytes(b"not ours")
    paths = [bundles.make(lambda archive: archive.writestr("a", "b")) for _ in range(KEPT_REPORTS + 2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "notes.txt",
        *(path.name for path in paths[-KEPT_REPORTS:]),
    ]
    assert bundles.newest() == paths[-1]
    assert bundles.find(paths[0].name) is None
    assert bundles.find("notes.txt") is None


def test_a_report_is_the_newest_even_after_the_clock_was_set_back(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"report-{9 * 10**18 + number}.zip").write_bytes(b"of the future")
    bundles = ReportFolder(tmp_path)
    path = bundles.make(lambda archive: archive.writestr("a", "b"))
    assert bundles.newest() == path


def test_a_failed_report_leaves_no_file(tmp_path: Path) -> None:
    def raise_disk_full(_archive: zipfile.ZipFile) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageFailed, match="No space left"):
        ReportFolder(tmp_path).make(raise_disk_full)
    assert list(tmp_path.iterdir()) == []


def test_a_report_of_generated_pictures(stack: TestStack) -> None:
    reply = stack.draw(prompt="=a red circle", width=64, height=64, steps=1)
    created = requests.post(f"{stack.report}{POST}", json={"run_ids": [reply["run_id"]]}, timeout=TIMEOUT)
    assert created.status_code == 200, created.text
    downloaded = requests.get(f"{stack.report}{GET}", headers={"Origin": "http://localhost:8080"}, timeout=TIMEOUT)
    assert downloaded.headers["Access-Control-Allow-Origin"] == "http://localhost:8080"
    archive = opened(downloaded.content)
    (row,) = rows_of(archive.read("runs.csv"))
    assert row["prompt"] == "'=a red circle"
    entry = reply["comfy_response"]["generated_images"][0]
    assert archive.read(f"images/{entry['filename']}") == requests.get(entry["url"], timeout=TIMEOUT).content
