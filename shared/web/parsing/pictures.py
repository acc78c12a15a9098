"""The pictures of a request: where their bytes come from, and under which names they can be sent again."""

import hashlib
import re
from collections.abc import Callable

from PIL import Image

from shared.errors import InvalidPicture
from shared.images.budget import MemoryBudget
from shared.images.decode import decode_base64, read_picture, read_with_alpha
from shared.images.masks import read_mask
from shared.web.body import Fields, json_kind

UPLOAD_NAME = re.compile(r"[0-9a-f]{64}")


def upload_name(content: bytes) -> str:
    """The name under which an upload is kept, just as it was sent."""
    return hashlib.sha256(content).hexdigest()


class SentPictures:
    """Reads the pictures of one request; `kept` holds those read so far by the names under which they are kept,
    `warnings` what of them could not be used, and how they were understood."""

    def __init__(
        self, fields: Fields, stored: Callable[[str], bytes | None], budget: MemoryBudget | None = None
    ) -> None:
        self.kept: dict[str, bytes] = {}
        self.warnings: list[str] = []
        self._fields = fields
        self._stored = stored
        self._budget = budget

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all fields and files of the request."""
        return (*self._fields.values, *self._fields.files)

    def picture(self, *names: str) -> tuple[Image.Image, str] | None:
        """The picture in the first of these fields that is there, and its name. Raises InvalidPicture."""
        return self._read(
            names, lambda content, field: read_picture(content, field, self.warnings, budget=self._budget)
        )

    def with_alpha(self, *names: str) -> tuple[Image.Image, str] | None:
        """Like `picture`, with its transparency: RGBA if any pixel is not opaque, else RGB."""
        return self._read(names, lambda content, field: read_with_alpha(content, field, self.warnings, self._budget))

    def mask(self, name: str, *, invert: bool, source: Image.Image | None = None) -> tuple[Image.Image, str] | None:
        """The mask in that field, for the picture `source`, and its name. Raises InvalidPicture."""
        return self._read(
            (name,),
            lambda content, field: read_mask(
                content, field, self.warnings, invert=invert, source=source, budget=self._budget
            ),
        )

    def decode(self, value: str, field: str, *, backdrop: str) -> tuple[Image.Image, str]:
        """The picture that a nested field holds, with `backdrop` where it is transparent, and its name.

        Raises InvalidPicture.
        """
        content = self._content(value, field)
        return read_picture(content, field, self.warnings, backdrop=backdrop, budget=self._budget), self._keep(content)

    def _read(
        self, names: tuple[str, ...], read: Callable[[bytes, str], Image.Image]
    ) -> tuple[Image.Image, str] | None:
        for name in names:
            value = self._fields.files.get(name) or self._fields.values.get(name)
            if value is None and name in self._fields.files:
                raise InvalidPicture(f"{name} is an empty file", field=name, hint="is its path right?")
            if value is None or value == "":
                continue
            if not isinstance(value, str | bytes):
                raise InvalidPicture(
                    f"{name} must be text, not {json_kind(value)}",
                    field=name,
                    hint="send a data URL, base64, or a file of a form",
                )
            content = value if isinstance(value, bytes) else self._content(value, name)
            return read(content, name), self._keep(content)
        return None

    def _content(self, value: str, field: str) -> bytes:
        if not UPLOAD_NAME.fullmatch(value):
            return decode_base64(value, field)
        content = self._stored(value)
        if content is None:
            raise InvalidPicture(
                f"{field} names an upload that is not there (any more)", field=field, hint="send the picture itself"
            )
        return content

    def _keep(self, content: bytes) -> str:
        name = upload_name(content)
        self.kept[name] = content
        return name
