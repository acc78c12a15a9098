"""What was typed after `models add`: a file of the user's, an address, or a name of the list."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants, get_token, hf_hub_url
from huggingface_hub.errors import HFValidationError

from shared.errors import SetupError
from shared.keys import KeyRing
from shared.models.downloadable import DOWNLOADABLE_MODELS, find_downloadable

STEP = "models"
SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
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


def read_source(text: str, keys: KeyRing) -> Path | Download:
    """What `text` means. A file that exists comes before a name of the list. Raises SetupError.

    `keys` are the user's, each for its own host.
    """
    if re.match(r"https?://", text, re.IGNORECASE):
        return _from_url(text, keys)
    if (scheme := SCHEME.match(text)) is not None:
        raise SetupError(STEP, f"{scheme[1]} addresses cannot be fetched", hint="give an https:// address, or a file")
    if not text.strip():
        raise SetupError(STEP, "that names nothing", hint="give a file, an https:// address, or a name of the list")
    path = _path_of(text)
    if path.is_file():
        return path.resolve()
    known = find_downloadable(text)
    if known is not None:
        found = _on_hub(known.repository, known.file, "main", keys)
        return replace(found, kind=known.kind, sha256=known.sha256, size=known.size)
    if path.is_dir():
        raise SetupError(STEP, f"{text} is a folder", hint="name the file in it")
    near = difflib.get_close_matches(text.lower(), DOWNLOADABLE_MODELS, n=1)
    hint = (
        f"did you mean {near[0]}?"
        if near
        else f"the names are {', '.join(DOWNLOADABLE_MODELS)}; or give an https:// address"
    )
    raise SetupError(STEP, f"there is no file {text}, and no model of that name in the list", hint=hint)


def _path_of(text: str) -> Path:
    """The path that was typed. Raises SetupError if this system can have no such file, or does not show it."""
    try:
        path = Path(text).expanduser()
        path.lstat()
    except RuntimeError as error:
        raise SetupError(STEP, f"{text} is in the home of nobody here") from error
    except (FileNotFoundError, NotADirectoryError):
        return path
    except OSError as error:
        raise SetupError(STEP, f"{text} cannot be read: {error.strerror}") from error
    # Half a character, or a NUL.
    except ValueError as error:
        raise SetupError(STEP, f"{text} can be no file's name") from error
    return path


def _from_url(text: str, keys: KeyRing) -> Download:
    if not text.isprintable():
        raise SetupError(STEP, "that is no address: it holds characters that cannot be shown")
    try:
        parts = urlsplit(text)
        hub = urlsplit(constants.ENDPOINT)
        same = (parts.hostname, parts.port) == (hub.hostname, hub.port)
    except ValueError as error:
        raise SetupError(STEP, f"that is no address: {error}") from error
    if not parts.hostname:
        raise SetupError(STEP, "that address has no host")
    _check_host(parts.hostname)
    match = HUB_PATH.fullmatch(parts.path)
    if same and match is not None:
        return _on_hub(match["repository"], unquote(match["file"]), unquote(match["revision"]), keys)
    name = PurePosixPath(unquote(parts.path)).name
    # Never in the clear.
    key = keys.for_host(parts.hostname) if parts.scheme.lower() == "https" else None
    return Download(text, name if PurePosixPath(name).suffix else None, headers=_bearer(key))


def _check_host(host: str) -> None:
    """Raises SetupError for what can be no host, as urllib3 would only when it connects."""
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise SetupError(STEP, f"that is no address: {host} can be no host", hint="is the address right?") from error


def _on_hub(repository: str, file: str, revision: str, keys: KeyRing) -> Download:
    """With the user's token, from where huggingface_hub looks for one, or else from the keys."""
    try:
        url = hf_hub_url(repository, file, revision=revision, endpoint=constants.ENDPOINT)
    except HFValidationError as error:
        raise SetupError(STEP, f"{repository} can be no repository of the hub", hint="is the address right?") from error
    token = get_token() or keys.for_host(urlsplit(url).hostname or "")
    return Download(url, PurePosixPath(file).name, headers=_bearer(token), hub=True)


def _bearer(token: str | None) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}
