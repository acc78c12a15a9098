"""The folders and habits that are chosen on the web page, by its own names for them."""

from typing import Annotated

from pydantic import Field

from shared.schema.body import Body

Folder = Annotated[str | None, Field(description="whole path of a folder; null or empty is the default")]


class PathsBody(Body):
    """Folders and habits, in a request and in a reply."""

    outputDirectory: Folder = None
    modelsDirectory: Folder = None
    controlNetModelsPath: Folder = None
    upscalerModelsPath: Folder = None
    vaeModelsPath: Folder = None
    loraEmbeddingsPath: Folder = None
    filenameFormat: Annotated[
        str | None, Field(description="the name for downloads, such as `[date]-[seed]-[model]`")
    ] = None
    saveMetadata: Annotated[bool, Field(description="whether pictures hold what they were made with")] = True
