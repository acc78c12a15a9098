"""The control service's own routes: models, prompts, folders, keys, and the engine."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from shared.errors import AlreadyThere, EngineUnavailable, InvalidValue, NotFound, NotPossible, StorageFailed
from shared.models.detect import MODEL_KINDS
from shared.schema.body import Body as Fields
from shared.schema.control_replies import (
    ControlNetsReply,
    DoneReply,
    EngineReply,
    KeyReply,
    ModelsReply,
    ModelUploadReply,
    PathsKeptReply,
    PathsReply,
    PromptReply,
    RestartReply,
    SentReply,
    ShownReply,
)
from shared.schema.paths import PathsBody
from shared.web.openapi.drawing import BODY_ERRORS, File
from shared.web.openapi.operation import Body, Example, Operation, Parameter, Reply
from shared.web.routes.fetch_prompt import KINDS as PROMPTS
from shared.web.routes.models import LISTS
from shared.web.routes.pictures import TABS

THAT: Mapping[str, Any] = {"filename": "20261122-143210-3f2a9c1e0b7d_00001_.png"}


class PictureName(Fields):
    """A picture of ours."""

    filename: Annotated[str, Field(description="`filename` of a picture in a reply")]


class ModelUploadForm(Fields):
    """A model file."""

    file: Annotated[File, Field(description="a safetensors file")]
    model_type: Annotated[
        str, Field(description="the folder it belongs in", json_schema_extra={"enum": list(MODEL_KINDS)})
    ]


class NewKey(Fields):
    """A key for a service of others."""

    alias: str
    api_key: Annotated[str, Field(alias="api-key", description="never shown again; `api-key` is understood too")]


class Restart(Fields):
    """When the engine is started again."""

    when_idle: Annotated[bool, Field(description="not before no job is left")] = False


OPERATIONS = (
    *(
        Operation(
            "GET",
            f"/api/{route}",
            "Models",
            f"What the engine has in {folder}",
            (Reply("the models", ModelsReply),),
            (Example("Ask"),),
            errors=(EngineUnavailable,),
        )
        for route, folder in LISTS.items()
    ),
    Operation(
        "GET",
        "/api/controlnet/models",
        "Models",
        "What the engine has in controlnet",
        (Reply("the models", ControlNetsReply),),
        (Example("Ask"),),
        errors=(EngineUnavailable,),
    ),
    Operation(
        "POST",
        "/api/upload-model",
        "Models",
        "Put a model file where the engine finds it",
        (Reply("it is there", ModelUploadReply),),
        (Example("A LoRA", {"file": "example.safetensors", "model_type": "loras"}, form=True),),
        body=Body(ModelUploadForm, only_form=True),
        errors=(*BODY_ERRORS, AlreadyThere, StorageFailed),
    ),
    Operation(
        "GET",
        "/api/fetch-prompt",
        "Web page",
        "An idea for a prompt",
        (Reply("a prompt", PromptReply),),
        (Example("What to avoid", query={"type": "negative", "seed": "7"}),),
        parameters=(
            Parameter("type", "query", "what for; positive if left out", {"type": "string", "enum": list(PROMPTS)}),
            Parameter("seed", "query", "the same one gives the same prompt"),
        ),
        errors=(InvalidValue,),
    ),
    Operation(
        "POST",
        "/api/show-in-folder",
        "Web page",
        "Open the file manager at a picture, on the machine of the service",
        (Reply("it is open", ShownReply),),
        (Example("A picture of a reply", THAT, status=409),),
        body=Body(PictureName),
        errors=(*BODY_ERRORS, NotFound, NotPossible),
    ),
    *(
        Operation(
            "POST",
            f"/api/send-to-{tab}",
            "Web page",
            f"Ask for a picture to go on with in {tab}",
            (Reply("it is there", SentReply),),
            (Example("A picture of a reply", THAT),),
            body=Body(PictureName),
            errors=(*BODY_ERRORS, NotFound),
        )
        for tab in TABS
    ),
    Operation(
        "GET",
        "/api/settings/paths",
        "Web page",
        "Which folders and habits were chosen",
        (Reply("the choice", PathsReply),),
        (Example("Ask"),),
    ),
    Operation(
        "POST",
        "/api/settings/paths",
        "Web page",
        "Choose folders and habits",
        (Reply("it is kept", PathsKeptReply),),
        (Example("Names for downloads", {"filenameFormat": "[date]-[seed]"}),),
        description="What is left out gets its default. Other folders take effect when the engine is started again, "
        "which happens by itself as soon as no job is left.",
        body=Body(PathsBody),
        errors=(*BODY_ERRORS, NotPossible, StorageFailed),
    ),
    Operation(
        "POST",
        "/api/add-api-key",
        "Web page",
        "Keep a key for a service of others",
        (Reply("it is kept", KeyReply),),
        (Example("A key", {"alias": "example", "api_key": "no real key"}),),
        body=Body(NewKey),
        errors=(*BODY_ERRORS, StorageFailed),
    ),
    Operation(
        "GET",
        "/api/engine",
        "Engine",
        "The engine, and how it does",
        (Reply("its version, device, memory, uptime, restarts and queue", EngineReply),),
        (Example("Ask"),),
    ),
    Operation(
        "POST",
        "/api/engine/restart",
        "Engine",
        "Start the engine again",
        (Reply("it will be started", RestartReply, status=202),),
        (Example("When no job is left", {"when_idle": True}, status=202),),
        description="No job is lost: what it was drawing is drawn anew.",
        body=Body(Restart, required=False),
        errors=(*BODY_ERRORS, NotPossible, EngineUnavailable),
    ),
    Operation(
        "POST",
        "/api/engine/free",
        "Engine",
        "Have the engine drop its models from memory",
        (Reply("it will, as soon as no job runs", DoneReply),),
        (Example("Ask"),),
        errors=(EngineUnavailable,),
    ),
)
