"""What the control service answers: models, prompts, uploads, folders, keys, and the engine."""

from typing import Annotated, Literal

from pydantic import Field

from shared.schema.paths import PathsBody
from shared.schema.replies import Reply

Bytes = Annotated[int, Field(ge=0, description="bytes")]


class ModelEntry(Reply):
    """A model file."""

    id: str
    name: str
    filename: Annotated[str, Field(description="the name for requests")]


class ModelsReply(Reply):
    """The models of a kind."""

    status: Literal["success"]
    models: list[ModelEntry]


class ControlNetsReply(Reply):
    """The ControlNets, by their names for requests."""

    status: Literal["success"]
    models: list[str]


class PromptReply(Reply):
    """An idea for a prompt."""

    status: Literal["success"]
    type: Literal["positive", "negative"]
    prompt: str


class ModelUploadReply(Reply):
    """A model that was taken."""

    status: Literal["success"]
    message: str
    filename: Annotated[str, Field(description="its name for requests")]
    original_filename: str
    display_name: str
    model_type: str
    filepath: Annotated[str, Field(description="below the models folder")]
    size: Bytes
    listed: Annotated[bool, Field(description="whether the engine has it already")]
    warnings: list[str]


class DoneReply(Reply):
    """It is done."""

    status: Literal["success"]
    message: str


class ShownReply(DoneReply):
    """The file manager is open."""

    filename: str


class SentReply(ShownReply):
    """A picture that is there to go on with."""

    url: str


class PathsReply(Reply):
    """What was chosen."""

    status: Literal["success"]
    paths: PathsBody
    restart_pending: Annotated[bool, Field(description="whether the engine has yet to be started again for it")]


class PathsKeptReply(DoneReply):
    """What was chosen is kept."""

    restart: Annotated[bool, Field(description="whether the engine is started again for it, once it is idle")]
    paths: PathsBody
    warnings: list[str]


class KeyReply(DoneReply):
    """A key is kept."""

    alias: str


class Memory(Reply):
    """Of the machine, or of a device; null where the engine does not tell."""

    total: Bytes | None
    free: Bytes | None


class Device(Reply):
    """What the engine computes on."""

    name: str | None
    type: str | None
    memory: Memory


class Waiting(Reply):
    """The engine's own queue."""

    running: int
    pending: int


class Restart(Reply):
    """A restart of the engine that was no crash."""

    at: Annotated[float, Field(description="seconds since 1970")]
    reason: str


class Engine(Reply):
    """The engine. What only itself knows is left out while it does not answer, and what only its supervisor knows is
    for one that was not started here."""

    state: Annotated[
        Literal["stopped", "starting", "ready", "restarting", "external"],
        Field(description="`external` if it was not started here"),
    ]
    pid: int | None = None
    restarts: int | None = None
    uptime_s: float | None = None
    restart_pending: bool | None = None
    last_restart: Annotated[
        Restart | None, Field(description="the last one that was asked for, or that ended what could not be cancelled")
    ] = None
    address: str
    answers: bool
    unfinished_jobs: int
    message: Annotated[str | None, Field(description="why it does not answer")] = None
    version: Annotated[str | None, Field(description="ComfyUI's")] = None
    python: str | None = None
    torch: str | None = None
    memory: Memory | None = None
    devices: tuple[Device, ...] = ()
    queue: Waiting | None = None


class EngineReply(Reply):
    """The engine, and how it does."""

    status: Literal["success"]
    engine: Engine


class RestartReply(DoneReply):
    """The engine will be started again."""

    when_idle: bool
