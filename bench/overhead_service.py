"""The txt2img service with two additional routes; `bench.overhead` starts it.

POST /api/blank generates a picture of one colour, without a model. Only its graph differs from POST /api/txt2img: the
engine has almost nothing to do, so our overhead is visible. GET /bench/spans returns when the engine started and
finished each job since the last call, by the engine's clock. The service reads this from the engine's history, but
normally keeps only the start, and clears the history soon after.
"""

import sys

from flask import Blueprint, Flask, Response, jsonify

from shared.engine.client import Outcome
from shared.schema.request import Txt2ImgRequest
from shared.web.app import txt2img_app
from shared.web.backend import Backend
from shared.web.parsing.generation import parse_txt2img
from shared.web.routes.generate import generate
from shared.web.run_service import main
from workflows import nodes
from workflows.graph_builder import Graph, Image

COLOURS = 2**24


def blank(request: Txt2ImgRequest, filename_prefix: str) -> Graph:
    """Build the graph of a picture in the seed's colour, so that each seed misses ComfyUI's cache."""
    graph = Graph()
    width, height = request.size
    node = graph.add("EmptyImage", width=width, height=height, batch_size=1, color=request.seeds[0] % COLOURS)
    nodes.save_image(graph, Image(node, 0), filename_prefix)
    return graph


def build(backend: Backend) -> Flask:
    """The service's application."""
    app = txt2img_app(backend)
    app.add_url_rule("/api/blank", "blank", lambda: generate("blank", parse_txt2img, blank), methods=["POST"])
    app.register_blueprint(_span_routes(backend))
    return app


def _span_routes(backend: Backend) -> Blueprint:
    routes = Blueprint("bench", __name__)
    spans: list[tuple[float, float]] = []
    ask = backend.engine.get_outcome

    def get_outcome(job_id: str) -> Outcome | None:
        """Get the outcome, and record the span."""
        found = ask(job_id)
        if found is not None and found.started is not None and found.finished is not None:
            spans.append((found.started, found.finished))
        return found

    backend.engine.get_outcome = get_outcome  # type: ignore[method-assign]

    @routes.get("/bench/spans")
    def get_spans() -> Response:
        taken = list(spans)
        del spans[: len(taken)]
        return jsonify(taken)

    return routes


if __name__ == "__main__":
    sys.exit(main(build, lambda settings: settings.txt2img_port, "DREAM_LAYER_TXT2IMG_PORT"))
