"""Resolves the argument of `models add`: a file, a URL, or the name of a downloadable model."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants, get_token, hf_hub_url
from huggingface_hub.errors import HFValidationError

from shared.errors import SetupError
from shared.models.downloadable import DOWNLOADABLE_MODELS, find_downloadable
from shared.site_keys import KeyRing

STEP = "models"
SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
HUB_PATH = re.compile(r"/(?P<repository>[^/]+/[^/]+)/(?:resolve|blob)/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass(frozen=True)
class Download:
    """A file to download. `headers` and `url` may contain a token, so neither is ever shown.

    `hub`: the server is the Hugging Face hub, whose responses contain the file's hash.
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
        """The server's name, which may be shown."""
        return urlsplit(self.url).hostname or ""


def resolve_source(text: str, keys: KeyRing) -> Path | Download:
    """Return the file or download that `text` names; an existing file comes first. Raises SetupError.

    `keys` are the user's API keys by host.
    """
    if re.match(r"https?://", text, re.IGNORECASE):
        return _from_url(text, keys)
    if (scheme := SCHEME.match(text)) is not None:
        raise SetupError(STEP, f"{scheme[1]}:// URLs are not supported", hint="give an https:// URL, or a file")
    if not text.strip():
        raise SetupError(STEP, "the name is empty", hint="give a file, an https:// URL, or a name from `models list`")
    path = _path_of(text)
    if path.is_file():
        return path.resolve()
    model = find_downloadable(text)
    if model is not None:
        download = _hub_download(model.repository, model.file, "main", keys)
        return replace(download, kind=model.kind, sha256=model.sha256, size=model.size)
    if path.is_dir():
        raise SetupError(STEP, f"{text} is a folder", hint="give the path of a file in it")
    closest = difflib.get_close_matches(text.lower(), DOWNLOADABLE_MODELS, n=1)
    hint = (
        f"did you mean {closest[0]}?"
        if closest
        else f"the names are {', '.join(DOWNLOADABLE_MODELS)}; or give an https:// URL"
    )
    raise SetupError(STEP, f"there is no file {text}, and no downloadable model of that name", hint=hint)


def _path_of(text: str) -> Path:
    """Return the path. Raises SetupError if it is invalid on this system, or not readable."""
    try:
        path = Path(text).expanduser()
        path.lstat()
    except RuntimeError as error:
        raise SetupError(STEP, f"{text} is in the home folder of an unknown user") from error
    except (FileNotFoundError, NotADirectoryError):
        return path
    except OSError as error:
        raise SetupError(STEP, f"{text} cannot be read: {error.strerror}") from error
    # A lone surrogate, or a NUL.
    except ValueError as error:
        raise SetupError(STEP, f"{text} is not a valid file name") from error
    return path


def _from_url(text: str, keys: KeyRing) -> Download:
    if not text.isprintable():
        raise SetupError(STEP, "the URL is invalid: it contains unprintable characters")
    try:
        parts = urlsplit(text)
        hub = urlsplit(constants.ENDPOINT)
        same = (parts.hostname, parts.port) == (hub.hostname, hub.port)
    except ValueError as error:
        raise SetupError(STEP, f"the URL is invalid: {error}") from error
    if not parts.hostname:
        raise SetupError(STEP, "the URL has no host")
    _check_host(parts.hostname)
    match = HUB_PATH.fullmatch(parts.path)
    if same and match is not None:
        return _hub_download(match["repository"], unquote(match["file"]), unquote(match["revision"]), keys)
    name = PurePosixPath(unquote(parts.path)).name
    # A key is only sent encrypted.
    key = keys.for_host(parts.hostname) if parts.scheme.lower() == "https" else None
    return Download(text, name if PurePosixPath(name).suffix else None, headers=_bearer(key))


def _check_host(host: str) -> None:
    """Raise SetupError for an invalid host name, which urllib3 would only notice when connecting."""
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise SetupError(STEP, f"the URL is invalid: {host} is not a valid host name", hint="check the URL") from error


def _hub_download(repository: str, file: str, revision: str, keys: KeyRing) -> Download:
    """Return a download from the hub, with the user's token from huggingface_hub or from the keys."""
    try:
        url = hf_hub_url(repository, file, revision=revision, endpoint=constants.ENDPOINT)
    except HFValidationError as error:
        raise SetupError(STEP, f"{repository} is not a valid repository name", hint="check the URL") from error
    token = get_token() or keys.for_host(urlsplit(url).hostname or "")
    return Download(url, PurePosixPath(file).name, headers=_bearer(token), hub=True)


def _bearer(token: str | None) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}
