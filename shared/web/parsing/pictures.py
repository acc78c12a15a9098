"""Reads the pictures of a request: files of a form, data URLs, base64, or the names of earlier uploads."""

import hashlib
import re
from collections.abc import Callable

from PIL import Image

from shared.errors import InvalidPicture
from shared.images.budget import MemoryBudget
from shared.images.decode import decode_base64, read_picture, read_with_alpha
from shared.images.masks import read_mask
from shared.web.request_body import Fields, json_kind

UPLOAD_NAME = re.compile(r"[0-9a-f]{64}")


def upload_name(content: bytes) -> str:
    """Return the name under which an upload is stored: the SHA-256 of its bytes."""
    return hashlib.sha256(content).hexdigest()


class PictureReader:
    """A reader of the pictures of one request.

    `raw_uploads` holds the bytes of the pictures read so far, by upload name; `upload_names` holds those names by
    field. `warnings` says what of the files could not be used, and how they were understood.
    """

    def __init__(
        self,
        fields: Fields,
        find_upload: Callable[[str], bytes | None],
        budget: MemoryBudget | None = None,
        warnings: list[str] | None = None,
    ) -> None:
        self.raw_uploads: dict[str, bytes] = {}
        self.upload_names: dict[str, str] = {}
        self.warnings: list[str] = [] if warnings is None else warnings
        self._fields = fields
        self._find_upload = find_upload
        self._budget = budget

    @property
    def field_names(self) -> tuple[str, ...]:
        """The names of all fields and files of the request."""
        return (*self._fields.values, *self._fields.files)

    def read_with_alpha(self, field: str, *other_names: str) -> Image.Image | None:
        """Return the picture in a field, RGBA if any pixel is not opaque, else RGB; None if it is missing.

        The first of `field` and `other_names` that was sent counts. Raises InvalidPicture.
        """
        for name in (field, *other_names):
            content = self._content(name)
            if content is not None:
                image = read_with_alpha(content, name, self.warnings, self._budget)
                self._record(field, content)
                return image
        return None

    def read_mask(self, field: str, *, invert: bool, source: Image.Image | None = None) -> Image.Image | None:
        """Return the mask in a field, for the picture `source`; None if it is missing. Raises InvalidPicture."""
        content = self._content(field)
        if content is None:
            return None
        mask = read_mask(content, field, self.warnings, invert=invert, source=source, budget=self._budget)
        self._record(field, content)
        return mask

    def decode(self, value: str, field: str, *, backdrop: str) -> Image.Image:
        """Decode the text of a nested field; `backdrop` replaces transparency. Raises InvalidPicture."""
        content = self._decode_text(value, field)
        image = read_picture(content, field, self.warnings, backdrop=backdrop, budget=self._budget)
        self._record(field, content)
        return image

    def _content(self, name: str) -> bytes | None:
        value = self._fields.files.get(name) or self._fields.values.get(name)
        if value is None and name in self._fields.files:
            raise InvalidPicture(f"{name} is an empty file", field=name, hint="check the path of the file")
        if value is None or value == "":
            return None
        if not isinstance(value, str | bytes):
            raise InvalidPicture(
                f"{name} must be text, not {json_kind(value)}",
                field=name,
                hint="send a data URL, base64, or a file of a form",
            )
        return value if isinstance(value, bytes) else self._decode_text(value, name)

    def _decode_text(self, value: str, field: str) -> bytes:
        if not UPLOAD_NAME.fullmatch(value):
            return decode_base64(value, field)
        content = self._find_upload(value)
        if content is None:
            raise InvalidPicture(
                f"{field} names an upload that does not exist or was deleted",
                field=field,
                hint="send the picture itself",
            )
        return content

    def _record(self, field: str, content: bytes) -> None:
        name = upload_name(content)
        self.raw_uploads[name] = content
        self.upload_names[field] = name
