"""The recipes for finished pictures: enlarged, and the web page's extras."""

from shared.schema.request import ExtrasRequest, UpscaleRequest
from workflows import nodes
from workflows.finishing import enlarge, keep_transparency, restore_faces
from workflows.graph_builder import Graph, Image
from workflows.loading import input_name


def upscale(request: UpscaleRequest, filename_prefix: str) -> Graph:
    """The graph that enlarges a picture; the result is saved under `filename_prefix`."""
    graph = Graph()
    source = input_name(request.source)
    image = restore_faces(graph, nodes.load_image(graph, source), request.faces)
    image = enlarge(graph, image, request.upscale)
    if request.transparent:
        image = keep_transparency(graph, image, source, request.source.size, request.upscale)
    nodes.save_image(graph, image, filename_prefix)
    return graph


def extras(request: ExtrasRequest, filename_prefix: str) -> Graph:
    """The graph that blends several enlarged layers of a picture; the result is saved under `filename_prefix`.

    The first layer is blended over the plainly enlarged picture, and each further one over the result. Layers that
    another one hides are left out. Faces are restored first, because the picture has fewer pixels then.
    """
    graph = Graph()
    source = input_name(request.source)
    image = nodes.load_image(graph, source)
    for restored in request.faces:
        image = _blend_over(graph, image, restore_faces(graph, image, restored.how), restored.visibility)
    opaque = [index for index, layer in enumerate(request.layers) if layer.visibility >= 1]
    if opaque:
        bottom, above = request.layers[opaque[-1]].how, request.layers[opaque[-1] + 1 :]
    else:
        bottom, above = request.ground, request.layers
    result = image if bottom.model is None and bottom.size == request.source.size else enlarge(graph, image, bottom)
    for layer in above:
        result = _blend_over(graph, result, enlarge(graph, image, layer.how), layer.visibility)
    if request.transparent:
        result = keep_transparency(graph, result, source, request.source.size, bottom)
    nodes.save_image(graph, result, filename_prefix)
    return graph


def _blend_over(graph: Graph, below: Image, above: Image, visibility: float) -> Image:
    return above if visibility >= 1 else nodes.blend(graph, below, above, visibility)
