"""Replies of the control service: models, prompts, uploads, folders, keys, the engine, extras, runs and reports."""

from typing import Annotated, Literal

from pydantic import Field

from shared.schema.body import RequestBody
from shared.schema.replies import JsonReply, ResultReply, WorkflowGraph

Bytes = Annotated[int, Field(ge=0, description="bytes")]
Folder = Annotated[str | None, Field(description="absolute path of a folder; null or empty for the default")]


class PathsBody(RequestBody):
    """The folders and options of the settings tab, in requests and replies."""

    outputDirectory: Folder = None
    modelsDirectory: Folder = None
    controlNetModelsPath: Folder = None
    upscalerModelsPath: Folder = None
    vaeModelsPath: Folder = None
    loraEmbeddingsPath: Folder = None
    filenameFormat: Annotated[str | None, Field(description="name of downloads, such as `[date]-[seed]-[model]`")] = (
        None
    )
    saveMetadata: Annotated[bool, Field(description="whether pictures contain their parameters")] = True


class ModelEntry(JsonReply):
    """A model file."""

    id: str
    name: str
    filename: Annotated[str, Field(description="name to send in requests")]


class ModelsReply(JsonReply):
    """The models of one kind."""

    status: Literal["success"]
    models: list[ModelEntry]


class ControlNetsReply(JsonReply):
    """The names of the ControlNets."""

    status: Literal["success"]
    models: list[str]


class PromptReply(JsonReply):
    """A suggested prompt."""

    status: Literal["success"]
    type: Literal["positive", "negative"]
    prompt: str


class ModelUploadReply(JsonReply):
    """A model that was uploaded."""

    status: Literal["success"]
    message: str
    filename: Annotated[str, Field(description="name to send in requests")]
    original_filename: str
    display_name: str
    model_type: str
    filepath: Annotated[str, Field(description="path below the models folder")]
    size: Bytes
    listed: Annotated[bool, Field(description="whether the engine lists it already")]
    warnings: list[str]


class DoneReply(JsonReply):
    """The request was carried out."""

    status: Literal["success"]
    message: str


class ShownReply(DoneReply):
    """The file manager was opened."""

    filename: str


class SentReply(ShownReply):
    """A picture that was passed on to another tab."""

    url: str


class PathsReply(JsonReply):
    """The folders and options."""

    status: Literal["success"]
    paths: PathsBody
    restart_pending: Annotated[bool, Field(description="whether a restart of the engine is pending")]


class PathsKeptReply(DoneReply):
    """The folders and options were saved."""

    restart: Annotated[bool, Field(description="whether the engine will restart when it is idle")]
    paths: PathsBody
    warnings: list[str]


class KeyReply(DoneReply):
    """A key was saved."""

    alias: str


class Memory(JsonReply):
    """The memory of the machine or of a device; null if the engine does not report it."""

    total: Bytes | None
    free: Bytes | None


class Device(JsonReply):
    """A device that the engine computes on."""

    name: str | None
    type: str | None
    memory: Memory


class Waiting(JsonReply):
    """The engine's own queue."""

    running: int
    pending: int


class LastRestart(JsonReply):
    """The last deliberate restart of the engine."""

    at: Annotated[float, Field(description="seconds since 1970")]
    reason: str


class Engine(JsonReply):
    """The state of the engine.

    Its own data is missing while it does not answer; data of the supervisor is missing if it was not started here.
    """

    state: Annotated[
        Literal["stopped", "starting", "ready", "restarting", "external"],
        Field(description="`external` if it was not started here"),
    ]
    pid: int | None = None
    restarts: int | None = None
    uptime_s: float | None = None
    restart_pending: bool | None = None
    last_restart: Annotated[
        LastRestart | None,
        Field(description="the last restart on request, or to stop a job that could not be cancelled"),
    ] = None
    address: str
    answers: bool
    unfinished_jobs: int
    message: Annotated[str | None, Field(description="why it does not answer")] = None
    version: Annotated[str | None, Field(description="version of ComfyUI")] = None
    python: str | None = None
    torch: str | None = None
    memory: Memory | None = None
    devices: tuple[Device, ...] = ()
    queue: Waiting | None = None


class EngineReply(JsonReply):
    """The state of the engine."""

    status: Literal["success"]
    engine: Engine


class RestartReply(DoneReply):
    """The engine will restart."""

    when_idle: bool


class OutputImage(JsonReply):
    """The picture for the extras tab."""

    output_image: Annotated[str | None, Field(description="absolute URL, in the requested format")]


class ExtrasReply(ResultReply):
    """An enlarged picture."""

    data: OutputImage


class RunLora(JsonReply):
    """A LoRA of a run."""

    name: str
    strength: float


class RunControlNet(JsonReply):
    """A ControlNet of a run."""

    model: str
    strength: float
    enabled: bool


class Run(JsonReply):
    """A completed job. All fields are always present."""

    run_id: str
    timestamp: Annotated[str, Field(description="time of the request, in ISO 8601")]
    model: str
    prompt: str
    negative_prompt: str
    seed: int
    sampler: str
    steps: int
    cfg_scale: float
    width: int
    height: int
    batch_size: int
    vae: str
    loras: list[RunLora]
    controlnets: list[RunControlNet]
    batch_count: int
    workflow: WorkflowGraph
    version: str
    generated_images: Annotated[list[str], Field(description="names of its pictures")]
    generation_type: Literal["txt2img", "img2img"]
    kind: Annotated[str, Field(description="kind of the job")]
    image_urls: Annotated[list[str], Field(description="URLs of its pictures")]
    left_out: Annotated[
        list[str],
        Field(description="fields that are empty because they are too large; see `GET /api/runs/<id>`"),
    ]


class RunsReply(JsonReply):
    """A page of runs."""

    status: Literal["success"]
    runs: list[Run]
    before: Annotated[int | None, Field(description="argument for the next page; null on the last")]


class RunReply(JsonReply):
    """One run."""

    status: Literal["success"]
    run: Run


class RunRemovedReply(JsonReply):
    """A run was deleted."""

    status: Literal["success"]
    message: str
    run_id: str


class ReportReply(JsonReply):
    """A report was created."""

    status: Literal["success"]
    message: str
    runs: int
    missing: Annotated[list[str], Field(description="names of pictures that no longer exist")]
    size: Annotated[int, Field(description="size of the zip file in bytes")]
    download_url: Annotated[str, Field(description="URL of the zip file")]
