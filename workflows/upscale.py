"""The recipe for upscale a finished picture."""

from shared.schema.request import ExtrasRequest, UpscaleRequest
from workflows import nodes
from workflows.finishing import enlarge, keep_transparency, restore_faces
from workflows.graph import Graph, Image
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


def extras(request: ExtrasRequest, filename_prefix: str) -> Graph:
    """The graph for `request`; its picture is saved under `filename_prefix`.

    Each layer shows as far as its visibility says, and below it what was there before: the first lies on the picture
    plainly enlarged. What a layer hides wholly is left out. Faces come first, for there are fewer pixels then.
    """
    graph = Graph()
    source = input_name(request.source)
    image = nodes.load_image(graph, source)
    for restored in request.faces:
        image = _over(graph, image, restore_faces(graph, image, restored.how), restored.visibility)
    hiding = [number for number, layer in enumerate(request.layers) if layer.visibility >= 1]
    if hiding:
        bottom, above = request.layers[hiding[-1]].how, request.layers[hiding[-1] + 1 :]
    else:
        bottom, above = request.ground, request.layers
    result = image if bottom.model is None and bottom.size == request.source.size else enlarge(graph, image, bottom)
    for layer in above:
        result = _over(graph, result, enlarge(graph, image, layer.how), layer.visibility)
    if request.transparent:
        result = keep_transparency(graph, result, source, request.source.size, bottom)
    nodes.save_image(graph, result, filename_prefix)
    return graph


def _over(graph: Graph, below: Image, above: Image, visibility: float) -> Image:
    return above if visibility >= 1 else nodes.blend(graph, below, above, visibility)
