"""What the web page's extras, runs and reports are answered."""

from typing import Annotated, Literal

from pydantic import Field

from shared.schema.replies import Reply, ResultReply, WorkflowGraph


class OutputImage(Reply):
    """Where the page looks for the enlarged picture."""

    output_image: Annotated[str | None, Field(description="its absolute address, in the format that was chosen")]


class ExtrasReply(ResultReply):
    """An enlarged picture."""

    data: OutputImage


class RunLora(Reply):
    """A LoRA of a run."""

    name: str
    strength: float


class RunControlNet(Reply):
    """A ControlNet of a run."""

    model: str
    strength: float
    enabled: bool


class Run(Reply):
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


class RunsReply(Reply):
    """A page of runs."""

    status: Literal["success"]
    runs: list[Run]
    before: Annotated[int | None, Field(description="leads to the next page; null on the last")]


class RunReply(Reply):
    """One run."""

    status: Literal["success"]
    run: Run


class RunRemovedReply(Reply):
    """A run is gone."""

    status: Literal["success"]
    message: str
    run_id: str


class ReportReply(Reply):
    """A report is ready."""

    status: Literal["success"]
    message: str
    runs: int
    missing: Annotated[list[str], Field(description="names of pictures that are not there any more")]
    size: Annotated[int, Field(description="bytes of the zip file")]
    download_url: Annotated[str, Field(description="its address")]
