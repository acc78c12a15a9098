"""Custom nodes that show what a node of somebody else could do in the engine: put into one by a test."""

import json
import os
import time

import torch


class ShowEnviron:
    """A picture of one row, whose bytes are the environment as JSON, filled up with blanks."""

    INPUT_TYPES = classmethod(lambda _: {"required": {}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "run", "test"

    def run(self):
        text = json.dumps(dict(os.environ)).encode()
        text += b" " * (-len(text) % 3)
        return (torch.tensor(list(text), dtype=torch.float32).reshape(1, 1, -1, 3) / 255 + 0.001,)


class HoldOn:
    """Works for so many seconds without a look at whether it was interrupted."""

    INPUT_TYPES = classmethod(lambda _: {"required": {"seconds": ("INT", {"min": 1, "max": 600})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "run", "test"

    def run(self, seconds):
        time.sleep(seconds)
        return (torch.zeros(1, 8, 8, 3),)


NODE_CLASS_MAPPINGS = {"ShowEnviron": ShowEnviron, "HoldOn": HoldOn}
