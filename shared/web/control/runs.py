"""The runs that the web page lists: jobs that were completed, in its own form.

Those that failed or were cancelled are left out: a run is shown by its pictures, and they have none to be relied on.
GET /api/jobs has them all.
"""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from shared.errors import NotFinished, NotFound
from shared.jobs.pictures import Pictures
from shared.jobs.tables import JobRow, State
from shared.web.backend import Backend
from shared.web.control.run_form import run_body
from shared.web.paging import check_arguments, number_argument
from shared.web.reply import shown_picture

# The page asks for all runs at once, each with its graph.
PAGE = 200
LARGEST_PAGE = 500


def run_routes(backend: Backend) -> Blueprint:
    """GET /api/runs; GET and DELETE /api/runs/<id>."""
    routes = Blueprint("runs", __name__)

    @routes.get("/api/runs")
    def list_runs() -> Response:
        check_arguments("limit", "before")
        limit = number_argument("limit", LARGEST_PAGE) or PAGE
        page = backend.store.page(states=[State.COMPLETED], limit=limit, before=number_argument("before", 2**53))
        addresses = backend.addresses()
        runs = [run_body(row, addresses, measure(row, backend.archive.pictures)) for row in page.rows]
        return jsonify({"status": "success", "runs": runs, "before": page.before})

    @routes.get("/api/runs/<run_id>")
    def get_run(run_id: str) -> Response:
        row = find_run(backend, run_id)
        return jsonify(
            {"status": "success", "run": run_body(row, backend.addresses(), measure(row, backend.archive.pictures))}
        )

    @routes.delete("/api/runs/<run_id>")
    def delete_run(run_id: str) -> Response:
        row = backend.store.get(run_id)
        if row is None:
            raise _unknown(run_id)
        if not row.state.finished:
            raise NotFinished(f"the job is {row.state.value}", hint=f"DELETE /api/jobs/{run_id} cancels it")
        backend.archive.forget(row)
        return jsonify({"status": "success", "message": "the run and its pictures are removed", "run_id": run_id})

    return routes


def measure(row: JobRow, pictures: Pictures) -> tuple[int, int] | None:
    """The size of a run's picture, if its request does not decide it and its file is here.

    Of a graph of the client's own it is the last stage's, or that of the node that was asked for.
    """
    image = shown_picture(row)
    asked = not row.foreign and row.spec["request"].get("width") is not None
    return None if asked or image is None else pictures.dimensions(image["filename"])


def find_run(backend: Backend, run_id: str) -> JobRow:
    """The completed job of that id. Raises NotFound."""
    row = backend.store.get(run_id)
    if row is None or row.state is not State.COMPLETED:
        raise _unknown(run_id)
    return row


def _unknown(run_id: str) -> NotFound:
    return NotFound(f"there is no run {run_id}", hint="GET /api/runs lists them")
