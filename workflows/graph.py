"""A ComfyUI graph under construction, and the typed sockets that connect its nodes.

A graph in ComfyUI's API format is {node id: {"class_type": ..., "inputs": {name: literal or [node id, output index]}}}.
Sockets carry the type of an output, so that a type checker refuses to feed a mask where a latent belongs.
"""

from dataclasses import dataclass

from shared.graphs import ApiGraph


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
    """A variational autoencoder, between pictures and latents."""


class Conditioning(Socket):
    """An encoded prompt."""


class Latent(Socket):
    """Latents, batch x 4 x height/8 x width/8 for SD 1.x; may carry a noise mask."""


class Image(Socket):
    """Pictures, batch x height x width x 3 (4 with an alpha channel), 0 to 1."""


class Mask(Socket):
    """Masks, batch x height x width, 0 (keep) to 1 (repaint)."""


class ControlNet(Socket):
    """A network that guides a diffusion model by a picture."""


class UpscaleModel(Socket):
    """A network that enlarges pictures."""


class FaceModel(Socket):
    """A network that restores faces (a custom node's)."""


class Sampler(Socket):
    """A sampling method with parameters of its own."""


class Sigmas(Socket):
    """The noise levels that a sampler passes through."""


class Graph:
    """Nodes in the order in which they were added, under readable ids: KSampler, KSampler_2, ...

    A node of the same class with the same inputs is the same node: what several pictures need, is there once.
    """

    def __init__(self) -> None:
        self._nodes: ApiGraph = {}

    def add(self, class_type: str, **inputs: Socket | str | int | float | bool) -> str:
        """Adds a node, unless it is there, and returns its id.

        The id names the class, so an engine error says which stage failed.
        """
        node = {
            "class_type": class_type,
            "inputs": {
                name: [value.node, value.output] if isinstance(value, Socket) else value
                for name, value in inputs.items()
            },
        }
        of_its_class = [node_id for node_id, each in self._nodes.items() if each["class_type"] == class_type]
        for node_id in of_its_class:
            if self._nodes[node_id] == node:
                return node_id
        node_id = class_type if not of_its_class else f"{class_type}_{len(of_its_class) + 1}"
        self._nodes[node_id] = node
        return node_id

    def to_api(self) -> ApiGraph:
        """The graph as POST /prompt takes it."""
        return self._nodes
