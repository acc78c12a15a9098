"""The routes of workflows that are files."""

from typing import Annotated

from pydantic import Field

from shared.errors import InvalidValue, NotFound
from shared.schema.body import Body as Fields
from shared.schema.replies import WorkflowReply, WorkflowsReply
from shared.web.openapi.drawing import ACCEPTED, DRAWING_ERRORS, DRAWING_HEADERS, RESULT
from shared.web.openapi.operation import Body, Example, Operation, Parameter, Reply

NAME = Parameter(
    "name", "path", "the file's name without `.json`", {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"}
)
THAT = {"name": "shape"}


class WorkflowBody(Fields, extra="allow"):
    """The parameters that GET of the same address tells, as `schema`."""

    output_node: Annotated[
        str | None,
        Field(description="the `SaveImage`, by its id or title, whose picture is the answer to `Accept: image/...`"),
    ] = None


OPERATIONS = (
    Operation(
        "GET",
        "/api/workflows",
        "Workflows",
        "The workflows that are routes",
        (Reply("all files, and what is wrong with those that are broken", WorkflowsReply),),
        (Example("All"),),
    ),
    Operation(
        "GET",
        "/api/workflows/<name>",
        "Workflows",
        "A workflow: its parameters and its graph",
        (Reply("the workflow", WorkflowReply),),
        (Example("A workflow", path=THAT),),
        parameters=(NAME,),
        errors=(NotFound, InvalidValue),
    ),
    Operation(
        "POST",
        "/api/workflows/<name>",
        "Workflows",
        "Draw with a workflow",
        (RESULT, ACCEPTED),
        (Example("With what the file says", {"seed": 7}, path=THAT),),
        body=Body(WorkflowBody),
        parameters=(NAME, *DRAWING_HEADERS),
        errors=(NotFound, *DRAWING_ERRORS),
    ),
)
