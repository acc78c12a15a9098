"""Replies of the control service: models, prompts, uploads, folders, keys, the engine, extras, runs and reports."""

from typing import Annotated, Literal

from pydantic import Field

from shared.schema.body import RequestBody
from shared.schema.replies import JsonReply, ResultReply, WorkflowGraph

Bytes = Annotated[int, Field(ge=0, description="bytes")]
Folder = Annotated[str | None, Field(description="whole path of a folder; null or empty is the default")]


class PathsBody(RequestBody):
    """Folders and habits, in a request and in a reply."""

    outputDirectory: Folder = None
    modelsDirectory: Folder = None
    controlNetModelsPath: Folder = None
    upscalerModelsPath: Folder = None
    vaeModelsPath: Folder = None
    loraEmbeddingsPath: Folder = None
    filenameFormat: Annotated[
        str | None, Field(description="the name for downloads, such as `[date]-[seed]-[model]`")
    ] = None
    saveMetadata: Annotated[bool, Field(description="whether pictures hold what they were made with")] = True


class ModelEntry(JsonReply):
    """A model file."""

    id: str
    name: str
    filename: Annotated[str, Field(description="the name for requests")]


class ModelsReply(JsonReply):
    """The models of a kind."""

    status: Literal["success"]
    models: list[ModelEntry]


class ControlNetsReply(JsonReply):
    """The ControlNets, by their names for requests."""

    status: Literal["success"]
    models: list[str]


class PromptReply(JsonReply):
    """An idea for a prompt."""

    status: Literal["success"]
    type: Literal["positive", "negative"]
    prompt: str


class ModelUploadReply(JsonReply):
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


class DoneReply(JsonReply):
    """It is done."""

    status: Literal["success"]
    message: str


class ShownReply(DoneReply):
    """The file manager is open."""

    filename: str


class SentReply(ShownReply):
    """A picture that is there to go on with."""

    url: str


class PathsReply(JsonReply):
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


class Memory(JsonReply):
    """Of the machine, or of a device; null where the engine does not tell."""

    total: Bytes | None
    free: Bytes | None


class Device(JsonReply):
    """What the engine computes on."""

    name: str | None
    type: str | None
    memory: Memory


class Waiting(JsonReply):
    """The engine's own queue."""

    running: int
    pending: int


class LastRestart(JsonReply):
    """A restart of the engine that was no crash."""

    at: Annotated[float, Field(description="seconds since 1970")]
    reason: str


class Engine(JsonReply):
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
        LastRestart | None,
        Field(description="the last one that was asked for, or that ended what could not be cancelled"),
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


class EngineReply(JsonReply):
    """The engine, and how it does."""

    status: Literal["success"]
    engine: Engine


class RestartReply(DoneReply):
    """The engine will be started again."""

    when_idle: bool


class OutputImage(JsonReply):
    """Where the page looks for the enlarged picture."""

    output_image: Annotated[str | None, Field(description="its absolute address, in the format that was chosen")]


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
    """A completed job; each of these is always there."""

    run_id: str
    timestamp: Annotated[str, Field(description="when it was asked for, in ISO 8601")]
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
    kind: Annotated[str, Field(description="the kind of the job")]
    image_urls: Annotated[list[str], Field(description="addresses of its pictures")]
    left_out: Annotated[
        list[str],
        Field(description="fields that are empty for being too large; `GET /api/runs/<id>` has them"),
    ]


class RunsReply(JsonReply):
    """A page of runs."""

    status: Literal["success"]
    runs: list[Run]
    before: Annotated[int | None, Field(description="leads to the next page; null on the last")]


class RunReply(JsonReply):
    """One run."""

    status: Literal["success"]
    run: Run


class RunRemovedReply(JsonReply):
    """A run is gone."""

    status: Literal["success"]
    message: str
    run_id: str


class ReportReply(JsonReply):
    """A report is ready."""

    status: Literal["success"]
    message: str
    runs: int
    missing: Annotated[list[str], Field(description="names of pictures that are not there any more")]
    size: Annotated[int, Field(description="bytes of the zip file")]
    download_url: Annotated[str, Field(description="its address")]
