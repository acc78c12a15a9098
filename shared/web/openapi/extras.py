"""The routes that the web page asks for on ports of its own."""

from typing import Annotated

from pydantic import Field

from shared.errors import EngineUnavailable, InvalidValue, NotFinished, NotFound, NotSupported, StorageFailed
from shared.schema.body import Body as Fields
from shared.schema.body import ExtrasBody
from shared.schema.page_replies import ExtrasReply, ReportReply, RunRemovedReply, RunReply, RunsReply
from shared.schema.units import PictureText
from shared.web.openapi.drawing import (
    ACCEPTED,
    BINARY,
    BODY_ERRORS,
    DRAWING_ERRORS,
    DRAWING_HEADERS,
    PICTURE,
    RESULT,
    PictureFile,
)
from shared.web.openapi.operation import Body, Example, Operation, Parameter, Reply
from shared.web.routes.runs import LARGEST_PAGE, PAGE

RUN_ID = Parameter("run_id", "path", "the run's id", {"type": "string", "format": "uuid"})
THAT = {"run_id": "3f2a9c1e-0b7d-4c5e-9a51-7d0f6f0e2b11"}
NUMBER = {"type": "integer", "minimum": 1}


class ExtrasPicture(ExtrasBody):
    """A picture, and what is done with it."""

    image: Annotated[PictureText, Field(description="data URL, base64, or the name that an upload was given")]


class ExtrasForm(Fields):
    """A picture as a file, and what is done with it."""

    image: Annotated[PictureFile, Field(description="the picture")]
    params: Annotated[str, Field(description="the other fields, as JSON")] = "{}"


class ReportBody(Fields):
    """Which runs the report is of."""

    run_ids: Annotated[
        list[str], Field(default_factory=list, description="the newest 500 if left out or empty", max_length=500)
    ]


class Img2TxtBody(Fields):
    """A picture to describe, as the web page sends it."""

    input_image: Annotated[PictureText, Field(description="data URL")] = ""
    prompt: str = ""
    model: str = ""
    seed: int = -1


OPERATIONS = (
    Operation(
        "POST",
        "/api/extras/upscale",
        "Web page",
        "Enlarge a picture with one or two upscalers, and restore faces",
        (
            Reply(RESULT.description, ExtrasReply, RESULT.types, RESULT.headers, parts=RESULT.parts),
            ACCEPTED,
        ),
        (Example("Twice as large", {"image": PICTURE, "upscaler_model": "Lanczos", "output_format": "webp"}),),
        body=Body(ExtrasPicture, ExtrasForm),
        parameters=DRAWING_HEADERS,
        errors=DRAWING_ERRORS,
    ),
    Operation(
        "GET",
        "/api/runs",
        "Web page",
        "The completed jobs, the newest first",
        (Reply("a page of runs", RunsReply),),
        (Example("The newest two", query={"limit": "2"}), Example("All")),
        parameters=(
            Parameter("limit", "query", "at most so many", {**NUMBER, "maximum": LARGEST_PAGE, "default": PAGE}),
            Parameter("before", "query", "the `before` of the page in front of this one", NUMBER),
        ),
        errors=(InvalidValue, StorageFailed),
    ),
    Operation(
        "GET",
        "/api/runs/<run_id>",
        "Web page",
        "A completed job",
        (Reply("the run", RunReply),),
        (Example("A run", path=THAT),),
        parameters=(RUN_ID,),
        errors=(NotFound, StorageFailed),
    ),
    Operation(
        "DELETE",
        "/api/runs/<run_id>",
        "Web page",
        "Remove a finished job, with its pictures",
        (Reply("it is gone", RunRemovedReply),),
        (Example("A run", path=THAT),),
        parameters=(RUN_ID,),
        errors=(NotFound, NotFinished, StorageFailed),
    ),
    Operation(
        "POST",
        "/api/report-bundle",
        "Web page",
        "Make a zip file of runs: a README, a table, the pictures",
        (Reply("it is ready", ReportReply),),
        (Example("Of all runs", {"run_ids": []}),),
        body=Body(ReportBody, required=False),
        errors=(*BODY_ERRORS, NotFound, EngineUnavailable, StorageFailed),
    ),
    Operation(
        "GET",
        "/api/report-bundle/download",
        "Web page",
        "The zip file that was made last",
        (Reply("the file", types={"application/zip": BINARY}),),
        (Example("The newest"),),
        parameters=(Parameter("bundle", "query", "the name of another that is still there"),),
        errors=(NotFound,),
    ),
    Operation(
        "POST",
        "/api/img2txt",
        "Web page",
        "Describe a picture: there is no model for that",
        (),
        (Example("A picture", {"input_image": PICTURE, "prompt": "what is this?"}, status=501),),
        body=Body(Img2TxtBody, required=False),
        errors=(NotSupported,),
    ),
)
