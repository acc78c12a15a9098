"""Finished jobs, inserted without an engine."""

import uuid
from datetime import datetime
from typing import Any

from PIL import Image

from shared.graph_walk import ApiGraph
from shared.jobs.job import JobRow, JobSpec, NewJob, State
from shared.jobs.picture_names import filename_prefix
from shared.web.backend import Backend
from tests.golden_graphs import draw
from tests.stack import encoded

REQUEST = {
    "prompt": "a red circle", "negative_prompt": "blue", "model_name": "model.safetensors", "width": 512, "height": 512,
    "steps": 12, "cfg_scale": 6.5, "sampler_name": "dpmpp_2m", "scheduler": "karras", "seed": 42, "batch_size": 1,
    "batch_count": 2,
}  # fmt: skip


def finish(
    backend: Backend,
    request: dict[str, Any] = REQUEST,
    graph: ApiGraph | None = None,
    *,
    kind: str = "txt2img",
    state: State = State.COMPLETED,
    pictures: int = 1,
    **spec: Any,
) -> JobRow:
    """Insert a finished job with pictures, and return it."""
    job_id = str(uuid.uuid4())
    job = NewJob(job_id, kind, "", kind, JobSpec(parameters=request, graph=graph or draw(), **spec))
    # Without a heartbeat, a running backend would reclaim the job.
    backend.jobs.store.beat("me")
    row, _ = backend.jobs.store.add(job, "me", 1000)
    folder, _, prefix = filename_prefix(job_id, datetime.now()).partition("/")
    images = []
    for number in range(1, pictures + 1):
        name = f"{prefix}_{number:05}_.png"
        path = backend.settings.output_dir / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.new("RGB", (8, 8), "red")))
        images.append({"filename": name, "subfolder": folder, "type": "output"})
    ended = backend.jobs.store.finish(row, "me", state, images=images)
    assert ended is not None
    return ended
