"""Proof that an engine works and is understood: a picture of one random colour, drawn without any model."""

import io
import random
import time
import uuid

from PIL import Image

from shared.engine.client import EngineClient
from shared.errors import EngineError

# Seconds for the picture, and before it is asked whether something else is being drawn.
TIMEOUT = 60.0
PATIENCE = 3.0


def draw_test_picture(engine: EngineClient) -> bool:
    """Has the engine draw a small picture and reads its colour. Raises EngineError that says what did not fit.

    False if it has other jobs to do first, such as those left unfinished: they may take long, and prove as much.

    An HTTP answer alone proves little: ComfyUI's worker thread can be dead while its server answers.
    """
    # Random, for a picture of a known colour might come from the engine's cache.
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
    begun = time.monotonic()
    while (outcome := engine.outcome(job_id)) is None:
        waited = time.monotonic() - begun
        if waited > PATIENCE and engine.queue()[0] - {job_id}:
            engine.cancel(job_id)
            return False
        if waited > TIMEOUT:
            raise EngineError(f"the engine takes jobs but did not draw a small picture in {TIMEOUT:.0f} s")
        time.sleep(0.02)
    if outcome.error is not None:
        raise outcome.error
    png = engine.view(outcome.images[0]) if outcome.images else None
    if png is None:
        raise EngineError("the engine says that it drew a picture, but does not show it")
    engine.forget([job_id])
    with Image.open(io.BytesIO(png)) as picture:
        drawn = picture.convert("RGB").getpixel((8, 8))
    if drawn != colour:
        raise EngineError(f"the engine drew the colour {drawn} where {colour} was asked for")
    return True
