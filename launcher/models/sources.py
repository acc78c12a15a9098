"""What was typed after `models add`: a file of the user's, an address, or a name of the list."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants, get_token, hf_hub_url

from launcher.models.known import KNOWN, find_known
from shared.errors import SetupError

STEP = "models"
HUB_PATH = re.compile(r"/(?P<repository>[^/]+/[^/]+)/(?:resolve|blob)/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass(frozen=True)
class Download:
    """A file to fetch. `headers` may hold a token, and an address one too: neither is ever shown.

    `hub`: the server is the hub, whose replies tell the file's hash.
    """

    url: str = field(repr=False)
    name: str | None
    kind: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    sha256: str | None = None
    size: int | None = None
    hub: bool = False

    @property
    def host(self) -> str:
        """Where it comes from, as it may be shown."""
        return urlsplit(self.url).hostname or ""


def read_source(text: str) -> Path | Download:
    """What `text` means. A file that exists comes before a name of the list. Raises SetupError."""
    if re.match(r"https?://", text, re.IGNORECASE):
        return _from_url(text)
    path = Path(text).expanduser()
    if path.is_file():
        return path.resolve()
    known = find_known(text)
    if known is not None:
        return _on_hub(known.repository, known.file, "main", kind=known.kind, sha256=known.sha256, size=known.size)
    if path.is_dir():
        raise SetupError(STEP, f"{text} is a folder", hint="name the file in it")
    near = difflib.get_close_matches(text.lower(), KNOWN, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the names are {', '.join(KNOWN)}; or give an https:// address"
    raise SetupError(STEP, f"there is no file {text}, and no model of that name in the list", hint=hint)


def _from_url(text: str) -> Download:
    try:
        parts = urlsplit(text)
        hub = urlsplit(constants.ENDPOINT)
        same = (parts.hostname, parts.port) == (hub.hostname, hub.port)
    except ValueError as error:
        raise SetupError(STEP, f"that is no address: {error}") from error
    if not parts.hostname:
        raise SetupError(STEP, "that address has no host")
    match = HUB_PATH.fullmatch(parts.path)
    if same and match is not None:
        return _on_hub(match["repository"], unquote(match["file"]), unquote(match["revision"]))
    name = PurePosixPath(unquote(parts.path)).name
    return Download(text, name if PurePosixPath(name).suffix else None)


def _on_hub(
    repository: str,
    file: str,
    revision: str,
    *,
    kind: str | None = None,
    sha256: str | None = None,
    size: int | None = None,
) -> Download:
    """With the user's token, from where huggingface_hub looks for one."""
    token = get_token()
    return Download(
        hf_hub_url(repository, file, revision=revision, endpoint=constants.ENDPOINT),
        PurePosixPath(file).name,
        kind=kind,
        headers={"Authorization": f"Bearer {token}"} if token else {},
        sha256=sha256,
        size=size,
        hub=True,
    )
