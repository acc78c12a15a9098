"""The routes that tell how things stand, and what there is."""

from shared.errors import EngineUnavailable, NotFound
from shared.schema.replies import HealthReply, IndexReply, OptionsReply, ReadyReply, ServicesReply
from shared.web.openapi.operation import JSON, Example, Operation, Parameter, Reply

TEXT = {"type": "string"}
OPERATIONS = (
    Operation(
        "GET",
        "/",
        "System",
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
        "System",
        "Whether the service lives, whatever the engine does",
        (Reply("it lives", HealthReply),),
        (Example("Ask"),),
        open=True,
    ),
    Operation(
        "GET",
        "/ready",
        "System",
        "Whether a picture can be made now",
        (Reply("yes", ReadyReply), Reply("no, and why", ReadyReply, status=503)),
        (Example("Ask"),),
    ),
    Operation(
        "GET",
        "/api/options",
        "System",
        "All there is to choose from, now",
        (Reply("models, samplers, limits, fields", OptionsReply),),
        (Example("Ask"),),
        errors=(EngineUnavailable,),
    ),
    Operation(
        "GET",
        "/api/services",
        "System",
        "The services, where each has its page, and which of them run",
        (Reply("all of them, with the ports of the web page", ServicesReply),),
        (Example("Ask"),),
    ),
    Operation(
        "GET",
        "/openapi.json",
        "System",
        "This document",
        (Reply("OpenAPI 3.1", types={JSON: {"type": "object"}}),),
        (Example("Ask"),),
    ),
    Operation(
        "GET",
        "/docs",
        "System",
        "This document as a page",
        (Reply("the page", types={"text/html": {"type": "string"}}),),
        (Example("Ask"),),
        open=True,
    ),
    Operation(
        "GET",
        "/docs/<file>",
        "System",
        "A file of that page",
        (Reply("the file", types={f"text/{kind}": TEXT for kind in ("javascript", "css", "html")}),),
        (Example("Its style", path={"file": "style.css"}),),
        parameters=(Parameter("file", "path", "its name"),),
        errors=(NotFound,),
        open=True,
    ),
)
