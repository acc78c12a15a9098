"""The recipe for upscale a finished picture."""

from shared.schema.request import UpscaleRequest
from workflows import nodes
from workflows.finishing import enlarge, keep_transparency, restore_faces
from workflows.graph import Graph
from workflows.loading import input_name


def upscale(request: UpscaleRequest, filename_prefix: str) -> Graph:
    """The graph for `request`; its picture is saved under `filename_prefix`."""
    graph = Graph()
    source = input_name(request.source)
    image = restore_faces(graph, nodes.load_image(graph, source), request.faces)
    image = enlarge(graph, image, request.upscale)
    if request.transparent:
        image = keep_transparency(graph, image, source, request.source.size, request.upscale)
    nodes.save_image(graph, image, filename_prefix)
    return graph
