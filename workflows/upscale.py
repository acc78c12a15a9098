"""The recipe for enlarging a finished picture."""

from shared.schema.request import UpscaleRequest
from workflows import nodes
from workflows.finishing import enlarge, restore_faces
from workflows.graph import Graph
from workflows.loading import input_name


def upscale(request: UpscaleRequest, filename_prefix: str) -> Graph:
    """The graph for `request`; its picture is saved under `filename_prefix`."""
    graph = Graph()
    image = nodes.load_image(graph, input_name(request.source))
    image = restore_faces(graph, image, request.faces)
    nodes.save_image(graph, enlarge(graph, image, request.enlarging), filename_prefix)
    return graph
