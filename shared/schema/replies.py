"""Models of the replies and events, for the OpenAPI document. Routes write plain JSON; tests compare it with these."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0)]
Choices = list[str]


class JsonReply(BaseModel):
    """Base of all JSON replies."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class ErrorDetail(JsonReply):
    """The details of an error; some errors add more, such as `nearest`, `problems` or `job_id`."""

    model_config = ConfigDict(extra="allow")

    code: Annotated[str, Field(description="stable code for programs")]
    field: Annotated[str | None, Field(description="the wrong field")] = None
    hint: Annotated[str | None, Field(description="what to do")] = None


class ErrorReply(JsonReply):
    """An error."""

    status: Literal["error"]
    message: Annotated[str, Field(description="what is wrong")]
    error: ErrorDetail


class Image(JsonReply):
    """A picture of a job."""

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
    """The pictures, with the field names of ComfyUI."""

    prompt_id: str
    generated_images: list[Image]


class Timings(JsonReply):
    """The time that a job waited and ran so far; `attempts` is 1, plus 1 for each crash of the engine during it."""

    waited_s: Seconds
    ran_s: Seconds
    attempts: Annotated[int, Field(ge=1)]


class WorkflowGraph(JsonReply):
    """The graph as it was queued, for ComfyUI or for `custom_workflow`."""

    prompt: dict[str, Any]


class ResultReply(JsonReply):
    """A completed job."""

    status: Literal["success"]
    message: str
    job_id: str
    run_id: Annotated[str, Field(description="the same as `job_id`")]
    seed: Annotated[int | None, Field(description="seed of the first picture")] = None
    parameters: Annotated[dict[str, Any], Field(description="the request with all defaults resolved")]
    comfy_response: ComfyResponse
    timings: Timings
    warnings: Annotated[list[str], Field(description="values that were ignored, changed or are unusual")]
    workflow: WorkflowGraph


class AcceptedReply(JsonReply):
    """A job that was queued."""

    status: Literal["accepted"]
    job_id: str
    url: Annotated[str, Field(description="URL of the job")]
    events_url: Annotated[str, Field(description="URL of its events")]
    position: Annotated[int | None, Field(description="unfinished jobs ahead of it")]
    eta_s: Annotated[float | None, Field(description="seconds until it is done; null while nothing was measured")]
    warnings: Annotated[list[str], Field(description="values that were ignored, changed or are unusual")]


class JobError(ErrorDetail):
    """The reason why a job failed or was cancelled."""

    message: str


class Job(JsonReply):
    """A job in a list. Times are seconds since 1970; unknown values are missing."""

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
    images: Annotated[list[str], Field(description="URLs of its pictures")]
    error: JobError | None = None
    left_out: Annotated[list[str] | None, Field(description="fields that are too large for a list; see `url`")] = None


class JobReply(Job):
    """A job with all details."""

    status: Literal["success"]
    warnings: Annotated[list[str], Field(description="values that were ignored, changed or are unusual")]
    position: Annotated[int | None, Field(description="unfinished jobs ahead of it")] = None
    eta_s: Annotated[float | None, Field(description="seconds until it is done")] = None
    progress: Annotated[dict[str, Any] | None, Field(description="its last `progress` event")] = None
    result: Annotated[ResultReply | None, Field(description="present once it is completed")] = None


class JobsReply(JsonReply):
    """A page of jobs, newest first."""

    status: Literal["success"]
    jobs: list[Job]
    before: Annotated[int | None, Field(description="argument for the next page; null on the last")]


class DeletedReply(JsonReply):
    """The result of deleting a job."""

    status: Literal["success"]
    message: str
    job_id: str
    done: Literal["cancelled", "removed"]


class InterruptReply(JsonReply):
    """The result of an interrupt."""

    status: Literal["success"]
    message: str
    cancelled: bool
    job_id: str | None = None


class UploadReply(JsonReply):
    """An upload that later requests can name."""

    status: Literal["success"]
    message: str
    filename: Annotated[str, Field(description="name to send as `input_image`")]
    width: int
    height: int


class PngInfoReply(JsonReply):
    """The metadata of a picture."""

    status: Literal["success"]
    message: str
    kind: Annotated[str | None, Field(description="route of `parameters`, such as `txt2img`")]
    parameters: Annotated[dict[str, Any], Field(description="request that makes the picture again")]
    infotext: Annotated[str | None, Field(description="parameters in the text format of AUTOMATIC1111")]
    workflow: Annotated[dict[str, Any] | None, Field(description="ComfyUI graph")]
    warnings: list[str]


class HealthReply(JsonReply):
    """The service is alive."""

    status: Literal["ok"]
    service: str
    version: str


class IndexReply(HealthReply):
    """The service, and where it is documented."""

    docs: Annotated[str, Field(description="URL of the /docs page")]
    openapi: Annotated[str, Field(description="URL of the OpenAPI document")]


class ServiceEntry(JsonReply):
    """A service on one of its ports."""

    name: str
    service: Annotated[str, Field(description="the service on this port")]
    port: int
    running: bool
    docs: Annotated[str | None, Field(description="URL of its /docs page; null if only a proxy knows it")]


class ServicesReply(JsonReply):
    """The services."""

    status: Literal["success"]
    services: list[ServiceEntry]


class ReadyReply(JsonReply):
    """Whether pictures can be generated now."""

    status: Literal["ok", "error"]
    ready: bool
    reason: Annotated[str | None, Field(description="why not")]
    jobs: Annotated[int, Field(description="number of unfinished jobs")]


class Defaults(JsonReply):
    """The defaults of a model."""

    width: int
    height: int
    steps: int
    cfg_scale: float
    guidance: float | None
    sampler_name: str
    scheduler: str


class ModelOption(JsonReply):
    """A checkpoint or diffusion model."""

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
    """A ControlNet; a union accepts several types of control maps."""

    name: str
    family: str
    union: bool


class FaceOptions(JsonReply):
    """Face restoration: whether it is available, and its models."""

    available: bool
    models: Choices


class TilingOptions(JsonReply):
    """Whether seamless tiling is available."""

    available: bool


class ChosenDefaults(JsonReply):
    """The values of a request with a prompt alone; if `model_name` is null, the others are missing."""

    model_name: str | None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    guidance: float | None = None
    sampler_name: str | None = None
    scheduler: str | None = None


class Limits(JsonReply):
    """The limits in the settings."""

    max_body_mb: int
    queue_limit: int
    request_timeout_s: float


class OptionsReply(JsonReply):
    """All choices that are available now."""

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
    parameters: Annotated[dict[str, Any], Field(description="JSON Schemas of the fields, by route")]


class BrokenWorkflow(JsonReply):
    """The error in a file."""

    message: str
    hint: str | None


class WorkflowEntry(JsonReply):
    """A named workflow, or the error in its file."""

    name: str
    title: str | None = None
    description: str | None = None
    parameters: Annotated[dict[str, Any] | None, Field(alias="schema", description="JSON Schema of its parameters")] = (
        None
    )
    error: BrokenWorkflow | None = None


class WorkflowsReply(JsonReply):
    """The named workflows."""

    status: Literal["success"]
    workflows: list[WorkflowEntry]


class WorkflowReply(WorkflowEntry):
    """A named workflow with its graph."""

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
