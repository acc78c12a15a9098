"""POST /api/report-bundle and GET /api/report-bundle/download: runs as a zip file."""

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
from shared.web.body import read_optional_fields
from shared.web.openapi.components import BINARY, BODY_ERRORS
from shared.web.openapi.operation import BodySpec, Example, ParameterSpec, ReplySpec, describe
from shared.web.routes.runs import find_run, measure, run_body
from shared.web.urls import REPORT

COLUMNS = (
    *("run_id", "timestamp", "generation_type", "model", "vae", "prompt", "negative_prompt", "seed", "sampler"),
    *("steps", "cfg_scale", "width", "height", "batch_size", "batch_count", "loras", "controlnets"),
    *("generated_images", "version"),
)
# Spreadsheets compute what begins so, in some countries in the wide letters too: a prompt could fetch or send things.
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%", "\uff1d", "\uff0b", "\uff0d", "\uff20")

Run = Mapping[str, Any]


def runs_csv(runs: Sequence[Run]) -> bytes:
    """A row for each run, with a mark in front by which spreadsheets know that it is UTF-8."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for run in runs:
        writer.writerow([cell(_flat(name, run[name])) for name in COLUMNS])
    return buffer.getvalue().encode("utf-8-sig", errors="replace")


def cell(value: Any) -> str:
    """The value as a cell that no spreadsheet takes for a formula: such texts get an apostrophe in front."""
    if isinstance(value, int | float):
        return str(value)
    text = str(value).replace("\0", "")
    return f"'{text}" if text.lstrip(" ").startswith(FORMULAS) else text


def readme(runs: Sequence[Run], missing: Sequence[str], made: datetime) -> bytes:
    """What is in the bundle, and what could not be put into it."""
    models = sorted({run["model"] for run in runs if run["model"]})
    pictures = sum(len(run["generated_images"]) for run in runs) - len(missing)
    lines = [
        "# Dream Layer report",
        "",
        f"Made on {made:%Y-%m-%d} at {made:%H:%M}: {len(runs)} runs with {pictures} pictures.",
        "",
        "- `runs.csv`: a row for each run, with everything that it was made with. Texts that a spreadsheet would take",
        "  for a formula have an apostrophe in front.",
        "- `images/`: the pictures, named as in the column `generated_images`. Each PNG holds the ComfyUI graph that",
        "  drew it: ComfyUI opens it when the picture is dropped on its page.",
        "",
        f"Models: {', '.join(models) or 'none that is known by name'}.",
    ]
    if missing:
        lines += ["", "Not there any more:", "", *(f"- {name}" for name in missing)]
    return ("\n".join(lines) + "\n").encode(errors="replace")


def _flat(name: str, value: Any) -> Any:
    match name:
        case "loras":
            return "; ".join(f"{each['name']}:{each['strength']:g}" for each in value)
        case "controlnets":
            return "; ".join(f"{each['model']}:{each['strength']:g}" for each in value if each["enabled"])
        case "generated_images":
            return "; ".join(value)
    return value


log = logging.getLogger(__name__)

NAME = re.compile(r"report-\d{19}\.zip", re.ASCII)
KEPT = 2


class Bundles:
    """The folder. Only one report is written at a time."""

    # One for all, as each request has its own instance.
    _turn = threading.Lock()

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, fill: Callable[[zipfile.ZipFile], None]) -> Path:
        """The new report that `fill` writes. Raises StorageFailed, and what `fill` raises; then nothing is left."""
        with self._turn, self._translated():
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"report-{max(time.time_ns(), self._number() + 1):019}.zip"
            aside = path.with_suffix(".part")
            try:
                # PNGs are packed already.
                with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
                    fill(archive)
                aside.replace(path)
            finally:
                aside.unlink(missing_ok=True)
            self._tidy()
        return path

    def newest(self) -> Path | None:
        """The report that was made last."""
        return max(self._reports(), default=None)

    def find(self, name: str) -> Path | None:
        """The report of that name, which may come from outside."""
        return next((path for path in self._reports() if path.name == name), None)

    def _number(self) -> int:
        """That of the newest report: the clock may have been set back since."""
        newest = self.newest()
        return 0 if newest is None else int(newest.stem.removeprefix("report-"))

    def _reports(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        named = (path for path in self._folder.iterdir() if NAME.fullmatch(path.name))
        return [path for path in named if is_within(path, self._folder)]

    def _tidy(self) -> None:
        """Removes older reports, and what a process that died left half written."""
        for path in [*sorted(self._reports())[:-KEPT], *self._folder.glob("report-*.part")]:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                # Windows keeps a file that somebody is downloading; it goes the next time.
                log.info("an old report stays for now: %s", error)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_error("the report", error, self._folder) from error


PATH = "/api/report-bundle"
MOST_RUNS = 500
LARGEST = 1_000_000_000
FEWER = "choose fewer runs"


report_routes = Blueprint("report", __name__)


class ReportBody(RequestBody):
    """Which runs the report is of."""

    run_ids: Annotated[
        list[str], Field(default_factory=list, description="the newest 500 if left out or empty", max_length=500)
    ]


@report_routes.post(PATH)
@describe(
    "Web page",
    ReplySpec("it is ready", ReportReply),
    examples=(Example("Of all runs", {"run_ids": []}),),
    body=BodySpec(ReportBody, required=False),
    errors=(*BODY_ERRORS, NotFound, EngineUnavailable, StorageFailed),
)
def make_report() -> Response:
    """Make a zip file of runs: a README, a table, the pictures."""
    backend = current_backend()
    values = read_optional_fields(request, "run_ids").values
    rows = _chosen(backend, run_ids(values.get("run_ids")))
    if sum(backend.jobs.files.pictures.size(row.images) for row in rows) > LARGEST:
        raise _too_large()
    report = Report(backend, rows)
    path = Bundles(backend.settings.reports_dir).make(report.write)
    count = f"{len(rows)} run{'' if len(rows) == 1 else 's'}"
    lost = f"; {len(report.missing)} pictures were not there any more" if report.missing else ""
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


@report_routes.get(REPORT)
@describe(
    "Web page",
    ReplySpec("the file", types={"application/zip": BINARY}),
    examples=(Example("The newest"),),
    parameters=(ParameterSpec("bundle", "query", "the name of another that is still there"),),
    errors=(NotFound,),
)
def download_report() -> Response:
    """The zip file that was made last."""
    bundles, name = Bundles(current_settings().reports_dir), request.args.get("bundle")
    path = bundles.newest() if name is None else bundles.find(name)
    if path is None:
        raise NotFound("there is no such report (any more)", hint=f"POST {PATH} makes one")
    response = send_file(path, mimetype="application/zip", as_attachment=True, download_name="dream-layer-report.zip")
    # The next report will be at the same address.
    response.headers["Cache-Control"] = "no-store"
    return response


def run_ids(value: Any) -> list[str]:
    """The ids that were sent, each once; none means all. Raises InvalidValue. Pure."""
    ids = [] if value is None else value
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise InvalidValue("run_ids must be a list of ids", field="run_ids", hint="GET /api/runs lists them")
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
        # The report is kept and handed on: an address in it is no way in.
        self._urls = backend.urls().unsigned()

    def write(self, archive: zipfile.ZipFile) -> None:
        """Pictures first, for only then it is known which are missing. Raises InvalidValue if they are too large."""
        size = 0
        for row in self._rows:
            for image in row.images:
                size += self._write_picture(archive, SavedImage(**image))
                if size > LARGEST:
                    raise _too_large()
        runs = [run_body(row, self._urls, measure(row, self._backend.jobs.files.pictures)) for row in self._rows]
        archive.writestr("runs.csv", runs_csv(runs), zipfile.ZIP_DEFLATED)
        archive.writestr("README.md", readme(runs, self.missing, datetime.now()))

    def _write_picture(self, archive: zipfile.ZipFile, image: SavedImage) -> int:
        """Its bytes; 0 if it is not there. The names of pictures are ours, and lead nowhere."""
        name = f"images/{image.filename}"
        path = self._backend.jobs.files.pictures.find(image.filename)
        if path is not None:
            try:
                archive.write(path, name)
                return archive.getinfo(name).file_size
            except FileNotFoundError:
                pass
        # An engine elsewhere keeps its pictures itself.
        png = self._backend.engine.download_image(image) if self._backend.settings.engine_url is not None else None
        if png is None:
            self.missing.append(image.filename)
            return 0
        archive.writestr(name, png)
        return len(png)


def _chosen(backend: Backend, ids: Sequence[str]) -> list[JobRow]:
    """The runs of those ids; without any, the newest there are. Raises NotFound."""
    rows = list(_completed(backend, ids))
    if ids:
        found = {row.id: row for row in rows}
        return [found.get(each) or find_run(backend, each) for each in ids]
    if not rows:
        raise NotFound("there are no runs yet", hint="a run is a picture that was made: POST /api/txt2img makes one")
    return rows


def _completed(backend: Backend, ids: Sequence[str]) -> Iterator[JobRow]:
    """Those of the ids, or the newest MOST_RUNS, without the graphs of those whose graphs are large."""
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
