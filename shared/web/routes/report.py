"""Reports: runs as a zip file with a README, a table and the pictures."""

from __future__ import annotations

import csv
import io
import logging
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify, request, send_file
from pydantic import Field

from shared.engine.client import SavedImage
from shared.errors import EngineUnavailable, InvalidValue, NotFound, StorageFailed
from shared.files import is_within, write_error
from shared.jobs.job import JobRow, State
from shared.schema.body import RequestBody
from shared.schema.control_replies import ReportReply
from shared.web.backend import Backend, current_backend, current_settings
from shared.web.openapi.components import BINARY, BODY_ERRORS
from shared.web.openapi.operation import BodySpec, Example, ParameterSpec, ReplySpec, describe
from shared.web.request_body import read_optional_fields
from shared.web.routes.runs import find_run, measure, run_body
from shared.web.urls import REPORT_PATH

COLUMNS = (
    *("run_id", "timestamp", "generation_type", "model", "vae", "prompt", "negative_prompt", "seed", "sampler"),
    *("steps", "cfg_scale", "width", "height", "batch_size", "batch_count", "loras", "controlnets"),
    *("generated_images", "version"),
)
# Spreadsheets evaluate texts that begin with these, in some locales also full-width ones: a prompt could send data.
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "\uff1d", "\uff0b", "\uff0d", "\uff20")

Run = Mapping[str, Any]


def runs_csv(runs: Sequence[Run]) -> bytes:
    """Write a table with a row for each run, and the byte order mark by which spreadsheets detect UTF-8."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for run in runs:
        writer.writerow([cell(_flat(name, run[name])) for name in COLUMNS])
    return buffer.getvalue().encode("utf-8-sig", errors="replace")


def cell(value: Any) -> str:
    """Write a value as a cell. A text that a spreadsheet would take for a formula gets an apostrophe in front."""
    if isinstance(value, int | float):
        return str(value)
    text = str(value).replace("\0", "")
    return f"'{text}" if text.lstrip(" ").startswith(FORMULAS) else text


def readme(runs: Sequence[Run], missing: Sequence[str], made: datetime) -> bytes:
    """Describe the contents of a report, and list the pictures that are missing from it."""
    models = sorted({run["model"] for run in runs if run["model"]})
    pictures = sum(len(run["generated_images"]) for run in runs) - len(missing)
    lines = [
        "# Dream Layer report",
        "",
        f"Created on {made:%Y-%m-%d} at {made:%H:%M}: {len(runs)} runs with {pictures} pictures.",
        "",
        "- `runs.csv`: a row for each run, with all its parameters. Texts that a spreadsheet would take for a formula",
        "  have an apostrophe in front.",
        "- `images/`: the pictures, named as in the column `generated_images`. Each PNG contains its ComfyUI graph:",
        "  drop it on ComfyUI's page to open the graph.",
        "",
        f"Models: {', '.join(models) or 'unknown'}.",
    ]
    if missing:
        lines += ["", "Missing pictures, which were deleted:", "", *(f"- {name}" for name in missing)]
    return ("\n".join(lines) + "\n").encode(errors="replace")


def _flat(name: str, value: Any) -> Any:
    match name:
        case "loras":
            return "; ".join(f"{lora['name']}:{lora['strength']:g}" for lora in value)
        case "controlnets":
            return "; ".join(f"{unit['model']}:{unit['strength']:g}" for unit in value if unit["enabled"])
        case "generated_images":
            return "; ".join(value)
    return value


log = logging.getLogger(__name__)

NAME = re.compile(r"report-\d{19}\.zip", re.ASCII)
KEPT_REPORTS = 2


class ReportFolder:
    """The folder of reports. One report is written at a time."""

    # Shared, because each request makes its own instance.
    _lock = threading.Lock()

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, fill: Callable[[zipfile.ZipFile], None]) -> Path:
        """Create a report with the contents that `fill` writes. Raises StorageFailed and the errors of `fill`."""
        with self._lock, self._translate_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"report-{max(time.time_ns(), self._number() + 1):019}.zip"
            part = path.with_suffix(".part")
            try:
                # PNGs are compressed already.
                with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
                    fill(archive)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
            self._remove_old()
        return path

    def newest(self) -> Path | None:
        """The newest report; None if there is none."""
        return max(self._reports(), default=None)

    def find(self, name: str) -> Path | None:
        """The report of this name, which a client sent; None if there is none."""
        return next((path for path in self._reports() if path.name == name), None)

    def _number(self) -> int:
        """The number of the newest report. The next one is higher, even if the clock was set back."""
        newest = self.newest()
        return 0 if newest is None else int(newest.stem.removeprefix("report-"))

    def _reports(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        paths = (path for path in self._folder.iterdir() if NAME.fullmatch(path.name))
        return [path for path in paths if is_within(path, self._folder)]

    def _remove_old(self) -> None:
        """Remove older reports, and the partial ones of processes that crashed."""
        for path in [*sorted(self._reports())[:-KEPT_REPORTS], *self._folder.glob("report-*.part")]:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                # Windows cannot remove a file during its download. The next report removes it.
                log.info("an old report was not removed: %s", error)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_error("the report", error, self._folder) from error


PATH = "/api/report-bundle"
MOST_RUNS = 500
LARGEST = 1_000_000_000
FEWER = "select fewer runs"


report_routes = Blueprint("report", __name__)


class ReportBody(RequestBody):
    """The runs of the report."""

    run_ids: Annotated[list[str], Field(default_factory=list, description="default: the newest 500", max_length=500)]


@report_routes.post(PATH)
@describe(
    "Web page",
    ReplySpec("the report is ready", ReportReply),
    examples=(Example("All runs", {"run_ids": []}),),
    body=BodySpec(ReportBody, required=False),
    errors=(*BODY_ERRORS, NotFound, EngineUnavailable, StorageFailed),
)
def make_report() -> Response:
    """Create a zip file of runs with a README, a table and the pictures."""
    backend = current_backend()
    values = read_optional_fields(request, "run_ids").values
    rows = _select_runs(backend, parse_run_ids(values.get("run_ids")))
    if sum(backend.jobs.disk_usage(row) for row in rows) > LARGEST:
        raise _too_large()
    report = Report(backend, rows)
    path = ReportFolder(backend.settings.reports_dir).make(report.write)
    count = f"{len(rows)} run{'' if len(rows) == 1 else 's'}"
    lost = f"; {len(report.missing)} pictures are missing" if report.missing else ""
    return jsonify(
        {
            "status": "success",
            "message": f"the report of {count} is ready{lost}",
            "runs": len(rows),
            "missing": report.missing,
            "size": path.stat().st_size,
            "download_url": backend.urls().report(path.name),
        }
    )


@report_routes.get(REPORT_PATH)
@describe(
    "Web page",
    ReplySpec("the report", types={"application/zip": BINARY}),
    examples=(Example("The newest report"),),
    parameters=(ParameterSpec("bundle", "query", "the name of another report; default: the newest"),),
    errors=(NotFound,),
)
def download_report() -> Response:
    """Download the newest report."""
    folder, name = ReportFolder(current_settings().reports_dir), request.args.get("bundle")
    path = folder.newest() if name is None else folder.find(name)
    if path is None:
        raise NotFound("there is no such report (any more)", hint=f"create one with POST {PATH}")
    response = send_file(path, mimetype="application/zip", as_attachment=True, download_name="dream-layer-report.zip")
    # The next report has the same URL.
    response.headers["Cache-Control"] = "no-store"
    return response


def parse_run_ids(value: Any) -> list[str]:
    """Read a list of run ids without duplicates; an empty one means all runs. Raises InvalidValue."""
    ids = [] if value is None else value
    if not isinstance(ids, list) or not all(isinstance(run_id, str) for run_id in ids):
        raise InvalidValue("run_ids must be a list of ids", field="run_ids", hint="use ids of GET /api/runs")
    if len(ids) > MOST_RUNS:
        raise InvalidValue(
            f"run_ids has {len(ids)} ids, more than {MOST_RUNS}", field="run_ids", hint=FEWER, value=len(ids)
        )
    return list(dict.fromkeys(ids))


class Report:
    """The contents of one report."""

    def __init__(self, backend: Backend, rows: Sequence[JobRow]) -> None:
        self.missing: list[str] = []
        self._backend = backend
        self._rows = rows
        # A report is passed on, so its URLs must not grant access.
        self._urls = backend.urls().unsigned()

    def write(self, archive: zipfile.ZipFile) -> None:
        """Write the pictures first, to know which are missing. Raises InvalidValue if they are too large."""
        size = 0
        for row in self._rows:
            for image in row.images:
                size += self._write_picture(archive, SavedImage(**image))
                if size > LARGEST:
                    raise _too_large()
        runs = [run_body(row, self._urls, measure(row, self._backend.jobs)) for row in self._rows]
        archive.writestr("runs.csv", runs_csv(runs), zipfile.ZIP_DEFLATED)
        archive.writestr("README.md", readme(runs, self.missing, datetime.now()))

    def _write_picture(self, archive: zipfile.ZipFile, image: SavedImage) -> int:
        """Write a picture and return its size in bytes; 0 if it is missing. Its name has our format, so it is safe."""
        name = f"images/{image.filename}"
        path = self._backend.jobs.picture_path(image.filename)
        if path is not None:
            try:
                archive.write(path, name)
                return archive.getinfo(name).file_size
            except FileNotFoundError:
                pass
        # An engine on another machine stores its pictures there.
        png = self._backend.engine.download_image(image) if self._backend.settings.engine_url is not None else None
        if png is None:
            self.missing.append(image.filename)
            return 0
        archive.writestr(name, png)
        return len(png)


def _select_runs(backend: Backend, ids: Sequence[str]) -> list[JobRow]:
    """The runs of these ids; without ids, the newest runs. Raises NotFound."""
    rows = list(_completed(backend, ids))
    if ids:
        by_id = {row.id: row for row in rows}
        return [by_id.get(run_id) or find_run(backend, run_id) for run_id in ids]
    if not rows:
        raise NotFound("there are no runs yet", hint="generate a picture with POST /api/txt2img")
    return rows


def _completed(backend: Backend, ids: Sequence[str]) -> Iterator[JobRow]:
    """The completed jobs of these ids, or the newest MOST_RUNS, without large graphs."""
    page = backend.jobs.list(states=[State.COMPLETED], ids=ids, limit=MOST_RUNS)
    count = len(page.rows)
    yield from page.rows
    while page.before is not None and count < MOST_RUNS:
        page = backend.jobs.list(states=[State.COMPLETED], ids=ids, limit=MOST_RUNS - count, before=page.before)
        count += len(page.rows)
        yield from page.rows


def _too_large() -> InvalidValue:
    return InvalidValue(
        f"the pictures of these runs are larger than {LARGEST // 1_000_000} MB", field="run_ids", hint=FEWER
    )
