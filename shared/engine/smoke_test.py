"""A smoke test of the engine: it draws a picture of one random colour, without a model, and the colour is checked."""

import io
import random
import time
import uuid

from PIL import Image

from shared.engine.client import EngineClient
from shared.errors import EngineError

# Seconds that the picture may take, and after which other jobs in the engine's queue end the test.
TIMEOUT = 60.0
PATIENCE = 3.0


def draw_test_picture(engine: EngineClient) -> bool:
    """Let the engine draw a small picture and check its colour. Raises EngineError that says what is wrong.

    Returns False if the engine has other jobs to do first, such as unfinished ones from before: those may take long.

    A reply over HTTP is no proof that jobs run: ComfyUI's server answers even after its worker thread has died.
    """
    # A random colour, because the engine caches pictures.
    colour = tuple(random.randrange(256) for _ in range(3))
    red, green, blue = colour
    graph = {
        "EmptyImage": {
            "class_type": "EmptyImage",
            "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": red << 16 | green << 8 | blue},
        },
        "PreviewImage": {"class_type": "PreviewImage", "inputs": {"images": ["EmptyImage", 0]}},
    }
    job_id = str(uuid.uuid4())
    engine.submit(job_id, graph, client_id=job_id, number=0)
    started = time.monotonic()
    while (outcome := engine.get_outcome(job_id)) is None:
        waited = time.monotonic() - started
        if waited > PATIENCE and engine.get_queue()[0] - {job_id}:
            engine.cancel(job_id)
            return False
        if waited > TIMEOUT:
            raise EngineError(f"the engine accepts jobs but did not draw a small picture in {TIMEOUT:.0f} s")
        time.sleep(0.02)
    if outcome.error is not None:
        raise outcome.error
    png = engine.download_image(outcome.images[0]) if outcome.images else None
    if png is None:
        raise EngineError("the engine reports a finished picture but does not return it")
    engine.delete_history([job_id])
    with Image.open(io.BytesIO(png)) as picture:
        drawn = picture.convert("RGB").getpixel((8, 8))
    if drawn != colour:
        raise EngineError(f"the engine drew the colour {drawn} instead of {colour}")
    return True
