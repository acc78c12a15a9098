"""The routes that tell how things stand, and what there is."""

from shared.errors import EngineUnavailable
from shared.schema.replies import HealthReply, IndexReply, OptionsReply, ReadyReply
from shared.web.openapi.operation import JSON, Example, Operation, Reply

OPERATIONS = (
    Operation(
        "GET",
        "/",
        "House",
        "What this is; for a browser, the way to /docs",
        (
            Reply("where it is described", IndexReply),
            Reply("for `Accept: text/html`", status=302, headers=("Location",)),
        ),
        (Example("Ask"),),
        open=True,
    ),
    Operation(
        "GET",
        "/health",
        "House",
        "Whether the service lives, whatever the engine does",
        (Reply("it lives", HealthReply),),
        (Example("Ask"),),
        open=True,
    ),
    Operation(
        "GET",
        "/ready",
        "House",
        "Whether a picture can be made now",
        (Reply("yes", ReadyReply), Reply("no, and why", ReadyReply, status=503)),
        (Example("Ask"),),
    ),
    Operation(
        "GET",
        "/api/options",
        "House",
        "All there is to choose from, now",
        (Reply("models, samplers, limits, fields", OptionsReply),),
        (Example("Ask"),),
        errors=(EngineUnavailable,),
    ),
    Operation(
        "GET",
        "/openapi.json",
        "House",
        "This document",
        (Reply("OpenAPI 3.1", types={JSON: {"type": "object"}}),),
        (Example("Ask"),),
    ),
    Operation(
        "GET",
        "/docs",
        "House",
        "This document as a page",
        (Reply("the page", types={"text/html": {"type": "string"}}),),
        (Example("Ask"),),
        open=True,
    ),
)
