"""POST /api/report-bundle and GET /api/report-bundle/download: runs as a zip file to keep or to hand on."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, jsonify, request, send_file

from shared.engine.client import SavedImage
from shared.errors import InvalidValue, NotFound
from shared.jobs.tables import JobRow, State
from shared.web.addresses import REPORT
from shared.web.backend import Backend
from shared.web.body import read_optional_fields
from shared.web.control.bundle import Bundles
from shared.web.control.report_text import readme, runs_csv
from shared.web.control.run_form import run_body
from shared.web.control.runs import find_run, measure

PATH = "/api/report-bundle"
MOST_RUNS = 500
LARGEST = 1_000_000_000
FEWER = "choose fewer runs"


def report_routes(backend: Backend) -> Blueprint:
    """POST /api/report-bundle and GET /api/report-bundle/download."""
    routes = Blueprint("report", __name__)
    bundles = Bundles(backend.settings.reports_dir)

    @routes.post(PATH)
    def make() -> Response:
        values = read_optional_fields(request, "run_ids").values
        rows = _chosen(backend, run_ids(values.get("run_ids")))
        if sum(backend.archive.pictures.size(row.images) for row in rows) > LARGEST:
            raise _too_large()
        report = Report(backend, rows)
        path = bundles.make(report.write)
        count = f"{len(rows)} run{'' if len(rows) == 1 else 's'}"
        lost = f"; {len(report.missing)} pictures were not there any more" if report.missing else ""
        return jsonify(
            {
                "status": "success",
                "message": f"the report of {count} is ready{lost}",
                "runs": len(rows),
                "missing": report.missing,
                "size": path.stat().st_size,
                "download_url": backend.addresses().report(path.name),
            }
        )

    @routes.get(REPORT)
    def download() -> Response:
        name = request.args.get("bundle")
        path = bundles.newest() if name is None else bundles.find(name)
        if path is None:
            raise NotFound("there is no such report (any more)", hint=f"POST {PATH} makes one")
        response = send_file(
            path, mimetype="application/zip", as_attachment=True, download_name="dream-layer-report.zip"
        )
        # The next report will be at the same address.
        response.headers["Cache-Control"] = "no-store"
        return response

    return routes


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
        self._addresses = backend.addresses().unsigned()

    def write(self, archive: zipfile.ZipFile) -> None:
        """Pictures first, for only then it is known which are missing. Raises InvalidValue if they are too large."""
        size = 0
        for row in self._rows:
            for image in row.images:
                size += self._write_picture(archive, SavedImage(**image))
                if size > LARGEST:
                    raise _too_large()
        runs = [run_body(row, self._addresses, measure(row, self._backend.archive.pictures)) for row in self._rows]
        archive.writestr("runs.csv", runs_csv(runs), zipfile.ZIP_DEFLATED)
        archive.writestr("README.md", readme(runs, self.missing, datetime.now()))

    def _write_picture(self, archive: zipfile.ZipFile, image: SavedImage) -> int:
        """Its bytes; 0 if it is not there. The names of pictures are ours, and lead nowhere."""
        name = f"images/{image.filename}"
        path = self._backend.archive.pictures.find(image.filename)
        if path is not None:
            try:
                archive.write(path, name)
                return archive.getinfo(name).file_size
            except FileNotFoundError:
                pass
        # An engine elsewhere keeps its pictures itself.
        png = self._backend.engine.view(image) if self._backend.settings.engine_url is not None else None
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
    page = backend.store.page(states=[State.COMPLETED], ids=ids, limit=MOST_RUNS)
    count = len(page.rows)
    yield from page.rows
    while page.before is not None and count < MOST_RUNS:
        page = backend.store.page(states=[State.COMPLETED], ids=ids, limit=MOST_RUNS - count, before=page.before)
        count += len(page.rows)
        yield from page.rows


def _too_large() -> InvalidValue:
    return InvalidValue(
        f"the pictures of these runs are larger than {LARGEST // 1_000_000} MB", field="run_ids", hint=FEWER
    )
