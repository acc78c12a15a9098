"""What the API answers, as the OpenAPI document tells it. Routes write plain JSON; a test holds it against these."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0)]
Choices = list[str]


class JsonReply(BaseModel):
    """A JSON object that the API answers with."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class ErrorDetail(JsonReply):
    """What a program wants to know of an error; some errors tell more, such as `nearest`, `problems` or `job_id`."""

    model_config = ConfigDict(extra="allow")

    code: Annotated[str, Field(description="stable, for programs")]
    field: Annotated[str | None, Field(description="the field that is wrong")] = None
    hint: Annotated[str | None, Field(description="what would be right")] = None


class ErrorReply(JsonReply):
    """The one shape of all errors."""

    status: Literal["error"]
    message: Annotated[str, Field(description="what is wrong, for people")]
    error: ErrorDetail


class Image(JsonReply):
    """A picture that was drawn."""

    url: Annotated[str, Field(description="absolute URL")]
    filename: str
    subfolder: str
    type: str
    batch_index: Annotated[
        int, Field(description="index of the picture in the job, from 0; for custom graphs, `index`")
    ]
    node: Annotated[str | None, Field(description="custom graphs: id of the node that saved it")] = None
    title: Annotated[str | None, Field(description="custom graphs: title of that node, if it has one")] = None
    index: Annotated[int | None, Field(description="custom graphs: index among the pictures of that node, from 0")] = (
        None
    )
    seed: Annotated[int | None, Field(description="absent if unknown")] = None
    width: Annotated[int | None, Field(description="pixels, from the file; absent if unknown")] = None
    height: Annotated[int | None, Field(description="pixels, from the file; absent if unknown")] = None


class ComfyResponse(JsonReply):
    """The pictures, under the names that ComfyUI uses."""

    prompt_id: str
    generated_images: list[Image]


class Timings(JsonReply):
    """How long a job waited and ran so far; `attempts` is one more than how often the engine died of it."""

    waited_s: Seconds
    ran_s: Seconds
    attempts: Annotated[int, Field(ge=1)]


class WorkflowGraph(JsonReply):
    """The graph exactly as it was queued, for ComfyUI or for `custom_workflow`."""

    prompt: dict[str, Any]


class ResultReply(JsonReply):
    """A completed job."""

    status: Literal["success"]
    message: str
    job_id: str
    run_id: Annotated[str, Field(description="the same")]
    seed: Annotated[int | None, Field(description="the first picture's")] = None
    parameters: Annotated[dict[str, Any], Field(description="what was asked, with what was chosen for it")]
    comfy_response: ComfyResponse
    timings: Timings
    warnings: Annotated[list[str], Field(description="what was ignored, rounded or unusual")]
    workflow: WorkflowGraph


class AcceptedReply(JsonReply):
    """A job that nobody waits for."""

    status: Literal["accepted"]
    job_id: str
    url: Annotated[str, Field(description="where it can be looked at")]
    events_url: Annotated[str, Field(description="where it can be watched")]
    position: Annotated[int | None, Field(description="unfinished jobs in front of it")]
    eta_s: Annotated[float | None, Field(description="seconds until it is done; null if nothing was measured yet")]
    warnings: Annotated[list[str], Field(description="what was ignored, rounded or unusual")]


class JobError(ErrorDetail):
    """Why a job failed or was cancelled."""

    message: str


class Job(JsonReply):
    """A job as a list tells it. Times are seconds since 1970; what is not known yet is left out."""

    job_id: str
    url: str
    events_url: str
    kind: Annotated[str, Field(description="`txt2img`, `img2img`, `upscale`, `extras` or `workflow`")]
    state: Literal["queued", "running", "completed", "failed", "cancelled"]
    created: float
    started: float | None = None
    finished: float | None = None
    timings: Timings
    seed: int | None = None
    parameters: dict[str, Any]
    images: Annotated[list[str], Field(description="addresses of its pictures")]
    error: JobError | None = None
    left_out: Annotated[list[str] | None, Field(description="fields that are too large for a list; `url` has them")] = (
        None
    )


class JobReply(Job):
    """A job with all that is known of it."""

    status: Literal["success"]
    warnings: Annotated[list[str], Field(description="what was ignored, rounded or unusual")]
    position: Annotated[int | None, Field(description="unfinished jobs in front of it")] = None
    eta_s: Annotated[float | None, Field(description="seconds until it is done")] = None
    progress: Annotated[dict[str, Any] | None, Field(description="its last event `progress`")] = None
    result: Annotated[ResultReply | None, Field(description="once it is completed")] = None


class JobsReply(JsonReply):
    """A page of jobs, the newest first."""

    status: Literal["success"]
    jobs: list[Job]
    before: Annotated[int | None, Field(description="leads to the next page; null on the last")]


class DeletedReply(JsonReply):
    """What became of a job."""

    status: Literal["success"]
    message: str
    job_id: str
    done: Literal["cancelled", "removed"]


class InterruptReply(JsonReply):
    """Whether a job was cancelled."""

    status: Literal["success"]
    message: str
    cancelled: bool
    job_id: str | None = None


class UploadReply(JsonReply):
    """A picture that later requests may name."""

    status: Literal["success"]
    message: str
    filename: Annotated[str, Field(description="the name for `input_image`")]
    width: int
    height: int


class PngInfoReply(JsonReply):
    """What a picture was made with."""

    status: Literal["success"]
    message: str
    kind: Annotated[str | None, Field(description="the route that `parameters` belong to, such as `txt2img`")]
    parameters: Annotated[dict[str, Any], Field(description="sent to that route, they make the picture again")]
    infotext: Annotated[str | None, Field(description="the text as the Stable Diffusion world writes it")]
    workflow: Annotated[dict[str, Any] | None, Field(description="the ComfyUI graph")]
    warnings: list[str]


class HealthReply(JsonReply):
    """The service lives."""

    status: Literal["ok"]
    service: str
    version: str


class IndexReply(HealthReply):
    """What answers here, and where it is described."""

    docs: Annotated[str, Field(description="the address of the page to try it on")]
    openapi: Annotated[str, Field(description="the address of the OpenAPI document")]


class ServiceEntry(JsonReply):
    """A service of ours, on one of its ports."""

    name: str
    service: Annotated[str, Field(description="which service answers there")]
    port: int
    running: bool
    docs: Annotated[str | None, Field(description="the address of its page; null where only a proxy knows it")]


class ServicesReply(JsonReply):
    """The services."""

    status: Literal["success"]
    services: list[ServiceEntry]


class ReadyReply(JsonReply):
    """Whether a picture can be made now."""

    status: Literal["ok", "error"]
    ready: bool
    reason: Annotated[str | None, Field(description="what is in the way")]
    jobs: Annotated[int, Field(description="unfinished ones")]


class Defaults(JsonReply):
    """What suits a model."""

    width: int
    height: int
    steps: int
    cfg_scale: float
    guidance: float | None
    sampler_name: str
    scheduler: str


class ModelOption(JsonReply):
    """A checkpoint or diffusion model, with what it is."""

    name: str
    family: str
    inpainting: bool
    defaults: Defaults


class VaeOption(JsonReply):
    """A VAE."""

    name: str
    latent_channels: int | None


class TextEncoderOption(JsonReply):
    """A text encoder."""

    name: str
    kind: str


class ControlNetOption(JsonReply):
    """A ControlNet; a union takes maps of several kinds."""

    name: str
    family: str
    union: bool


class FaceOptions(JsonReply):
    """Whether faces can be restored, and with what."""

    available: bool
    models: Choices


class TilingOptions(JsonReply):
    """Whether seamless pictures can be drawn."""

    available: bool


class ChosenDefaults(JsonReply):
    """What a request gets that names nothing but a prompt; of a `model_name` null, nothing more is known."""

    model_name: str | None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    guidance: float | None = None
    sampler_name: str | None = None
    scheduler: str | None = None


class Limits(JsonReply):
    """Bounds from the settings."""

    max_body_mb: int
    queue_limit: int
    request_timeout_s: float


class OptionsReply(JsonReply):
    """All there is to choose from, now."""

    status: Literal["success"]
    samplers: Choices
    schedulers: Choices
    checkpoints: list[ModelOption]
    diffusion_models: list[ModelOption]
    loras: Choices
    vaes: list[VaeOption]
    text_encoders: list[TextEncoderOption]
    upscalers: Choices
    hires_upscalers: Choices
    controlnets: list[ControlNetOption]
    embeddings: Choices
    preprocessors: Choices
    face_restoration: FaceOptions
    seamless_tiling: TilingOptions
    defaults: ChosenDefaults
    limits: Limits
    parameters: Annotated[dict[str, Any], Field(description="JSON Schemas of the fields, by kind")]


class BrokenWorkflow(JsonReply):
    """What is wrong with a file."""

    message: str
    hint: str | None


class WorkflowEntry(JsonReply):
    """A file that is a route, or what is wrong with it."""

    name: str
    title: str | None = None
    description: str | None = None
    parameters: Annotated[
        dict[str, Any] | None, Field(alias="schema", description="the JSON Schema of its parameters")
    ] = None
    error: BrokenWorkflow | None = None


class WorkflowsReply(JsonReply):
    """The workflows that are routes."""

    status: Literal["success"]
    workflows: list[WorkflowEntry]


class WorkflowReply(WorkflowEntry):
    """A workflow with its graph."""

    status: Literal["success"]
    graph: dict[str, Any]


JobId = Annotated[str, Field(description="the job's id")]
Attempt = Annotated[int, Field(ge=1, description="1, plus 1 for each crash of the engine during the job")]


class QueuedEvent(JsonReply):
    """The job waits. Sent again when its position changes, and after a crash of the engine."""

    job_id: JobId
    position: Annotated[int, Field(ge=0, description="unfinished jobs ahead of it")]
    eta_s: Annotated[float | None, Field(description="seconds until it is done; null while nothing was measured")] = (
        None
    )
    attempt: Attempt | None = None


class StartedEvent(JsonReply):
    """The engine has started the job."""

    job_id: JobId
    attempt: Attempt


class ProgressEvent(JsonReply):
    """The job has progressed."""

    job_id: JobId
    stage: Annotated[str, Field(description="node of the graph")]
    step: Annotated[int | None, Field(ge=0, description="step of the stage")] = None
    steps: Annotated[int | None, Field(ge=1, description="number of its steps")] = None
    fraction: Annotated[float | None, Field(ge=0, le=1, description="share of the stage that is done")] = None
    eta_s: Annotated[
        float | None, Field(ge=0, description="seconds until the job is done; from the second step on")
    ] = None
    ends_at: Annotated[float | None, Field(description="time at which the job will be done, in seconds since 1970")] = (
        None
    )


class PreviewEvent(JsonReply):
    """A picture of the work in progress."""

    job_id: JobId
    image: Annotated[
        str, Field(pattern="^data:image/jpeg;base64,", description="JPEG of at most 256 pixels, as a data URL")
    ]


class ImageEvent(Image):
    """A picture is ready."""

    job_id: JobId


class CompletedEvent(ResultReply):
    """The job is complete."""


class FailedEvent(ErrorReply):
    """The job failed."""

    job_id: JobId


class CancelledEvent(ErrorReply):
    """The job was cancelled."""

    job_id: JobId


EVENTS: Mapping[str, type[JsonReply]] = {
    "queued": QueuedEvent,
    "started": StartedEvent,
    "progress": ProgressEvent,
    "preview": PreviewEvent,
    "image": ImageEvent,
    "completed": CompletedEvent,
    "failed": FailedEvent,
    "cancelled": CancelledEvent,
}
