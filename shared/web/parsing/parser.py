"""The parser of one request: what it reads from, and the warnings that it adds."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from shared.images.budget import MemoryBudget
from shared.schema.body import RequestBody
from shared.web.parsing.model_catalog import ModelCatalog
from shared.web.parsing.pictures import PictureReader
from shared.web.parsing.unused_fields import disable_parts_without_model, unknown_fields, unswitched_fields
from shared.web.parsing.validate_fields import clean_values, validate
from shared.web.request_body import Fields

B = TypeVar("B", bound=RequestBody)

# Fields that hold pictures. A form may send them as files, so they are read apart from the other values.
PICTURE_FIELDS = ("input_image", "mask", "image")


@dataclass(frozen=True)
class GraphAlpha:
    """How a custom graph uses transparency.

    `source`: the graph reads that of input_image; `mask`: the mask is passed as transparency; `shared`: the mask
    becomes the transparency of input_image.
    """

    source: bool = False
    mask: bool = False
    shared: bool = False


@dataclass(frozen=True)
class ParsingContext:
    """What parsing needs besides the fields of a request.

    `default_checkpoint` comes from the settings. `find_upload` returns the content of an earlier upload by its name.
    `budget` limits the memory of decoded pictures. `custom_graph` is set if the request brings its own graph: then its
    nodes decide which fields have an effect, and at which size they work.
    """

    default_checkpoint: str | None
    catalog: ModelCatalog
    find_upload: Callable[[str], bytes | None]
    budget: MemoryBudget | None = None
    custom_graph: GraphAlpha | None = None


class Parser:
    """The parser of one request: its fields, the engine's catalog, its pictures, and the warnings so far."""

    def __init__(self, fields: Fields, context: ParsingContext) -> None:
        self.fields = fields
        self.catalog = context.catalog
        self.default_checkpoint = context.default_checkpoint
        self.custom_graph = context.custom_graph
        self.budget = context.budget
        self.warnings: list[str] = []
        self.pictures = PictureReader(fields, context.find_upload, context.budget, self.warnings)

    def warn(self, *warnings: str) -> None:
        """Add warnings, which the reply repeats."""
        self.warnings += warnings

    def read_body(
        self,
        model: type[B],
        documented: type[RequestBody],
        *,
        values: Mapping[str, Any] | None = None,
        known: Collection[str] = (),
    ) -> B:
        """Validate the fields as `model`, and warn of those that have no effect. Raises InvalidValue.

        `documented` is the model with the names of all fields, also of those that `model` lacks because they are read
        apart. `values` replace the fields' own. `known` names cause no warning.
        """
        values = clean_values(self.fields.values if values is None else values)
        plain = {name: value for name, value in values.items() if name not in PICTURE_FIELDS}
        body, warnings = disable_parts_without_model(validate(model, plain, documented))
        self.warn(*warnings)
        self.warn(*unknown_fields({**values, **self.fields.files}, documented, known))
        self.warn(*unswitched_fields(body))
        return body
