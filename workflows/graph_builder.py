"""Builds a ComfyUI graph from nodes and typed sockets.

Each output of a node is a socket whose class is its type, so that a type checker refuses a mask where a latent belongs.
"""

from dataclasses import dataclass

from shared.graph_walk import ApiGraph


@dataclass(frozen=True)
class Socket:
    """One output of a node."""

    node: str
    output: int


class Model(Socket):
    """A diffusion model."""


class Clip(Socket):
    """A text encoder."""


class Vae(Socket):
    """A variational autoencoder, which turns pictures into latents and back."""


class Conditioning(Socket):
    """An encoded prompt."""


class Latent(Socket):
    """Latents, batch x channels x height/8 x width/8; they may carry a noise mask."""


class Image(Socket):
    """Pictures, batch x height x width x 3 (4 with an alpha channel), from 0 to 1."""


class Mask(Socket):
    """Masks, batch x height x width, from 0 (keep) to 1 (repaint)."""


class ControlNet(Socket):
    """A network that guides a diffusion model by a control map."""


class UpscaleModel(Socket):
    """A network that enlarges pictures."""


class FaceModel(Socket):
    """A network that restores faces (from a custom node)."""


class Sampler(Socket):
    """A sampling method with its own parameters."""


class Sigmas(Socket):
    """The noise levels of a sampler's steps."""


class Graph:
    """Nodes in the order in which they were added, with readable ids: KSampler, KSampler_2, ...

    Two nodes of the same class with the same inputs are one node, so that pictures share what they have in common.
    """

    def __init__(self) -> None:
        self._nodes: ApiGraph = {}

    def add(self, class_type: str, **inputs: Socket | str | int | float | bool) -> str:
        """Adds a node, unless there is an equal one, and returns its id.

        The id has the name of the class, so that an engine error says which stage failed.
        """
        node = {
            "class_type": class_type,
            "inputs": {
                name: [value.node, value.output] if isinstance(value, Socket) else value
                for name, value in inputs.items()
            },
        }
        same_class = [node_id for node_id, other in self._nodes.items() if other["class_type"] == class_type]
        for node_id in same_class:
            if self._nodes[node_id] == node:
                return node_id
        node_id = class_type if not same_class else f"{class_type}_{len(same_class) + 1}"
        self._nodes[node_id] = node
        return node_id

    def to_api(self) -> ApiGraph:
        """The graph in the format of POST /prompt."""
        return self._nodes
