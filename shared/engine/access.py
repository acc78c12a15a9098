"""The token that lets us call the engine.

The launcher makes one at each start of an engine (see `shared.engine.guard`), and leaves it where the services of the
same data folder find it; an engine of others, or a proxy before it, may ask for one of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from shared.errors import SetupError, StorageFailed
from shared.files import write_whole
from shared.settings import PREFIX, Settings

# Below the data folder. ComfyUI serves and loads files from other folders of it, never from there.
TOKEN_FILE = Path("run") / "engine.token"
TOKEN_BYTES = 32


class EngineAccess:
    """The header that an engine asks for. Safe to share between threads.

    `token` is one that stays, `file` holds one that changes with each start of the engine. Without both, none is sent.
    """

    def __init__(self, token: str | None = None, file: Path | None = None) -> None:
        self._token = token
        self._file = file

    @property
    def token(self) -> str | None:
        """The token, as it was read last; None while there is none."""
        if self._token is None:
            self._token = self._read()
        return self._token

    def headers(self) -> dict[str, str]:
        """What to send with a request."""
        token = self.token
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    def renewed(self, refused: Mapping[str, str]) -> dict[str, str] | None:
        """What to send after the engine refused these headers; None if there is nothing else to try."""
        self._token = self._read() or self._token
        headers = self.headers()
        return None if headers == refused else headers

    @property
    def advice(self) -> str:
        """What to do when the engine refuses the token."""
        if self._file is None:
            return (
                f"set {PREFIX}ENGINE_TOKEN, which is sent as Authorization: Bearer. If our launcher started this "
                f"engine, unset {PREFIX}ENGINE_URL and use the launcher's {PREFIX}DATA_DIR"
            )
        return (
            f"use the {PREFIX}DATA_DIR of the launcher that started it, and see that {self._file} can be read; "
            f"for an engine of your own, set {PREFIX}ENGINE_URL"
        )

    def page(self, address: str) -> str:
        """The address at which a browser opens the engine's own page.

        If we started the engine, that address sets a cookie, which holds until the engine is started again.
        """
        token = None if self._file is None else self._read()
        return f"{address}/" if token is None else f"{address}/?token={quote(token)}"

    def _read(self) -> str | None:
        if self._file is None:
            return self._token
        try:
            token = self._file.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        # What could not stand in a header is not ours.
        return token if token and token.isprintable() else None


def engine_access(settings: Settings) -> EngineAccess:
    """The way into the engine of these settings."""
    if settings.engine_url is not None:
        return EngineAccess(token=settings.engine_token)
    return EngineAccess(file=settings.data_dir.resolve() / TOKEN_FILE)


def new_token(data_dir: Path) -> str:
    """A token for the engine that is about to be started, left for the services. Raises SetupError."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    try:
        write_whole(data_dir / TOKEN_FILE, f"{token}\n".encode(), "the engine's token")
    except StorageFailed as error:
        raise SetupError("engine", error.message, hint=error.hint) from error
    return token
