"""The user's API keys for model sites such as Hugging Face, by alias. Private to the owner, and never shown."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

from shared.errors import InvalidValue, StorageFailed
from shared.files import write_atomic

FILE = "api-keys.json"
ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
MAX_KEY_LENGTH = 4096
MAX_KEYS = 100
# Hosts that serve models, and the prefixes of aliases for their keys, reduced to letters and digits.
HOSTS = {"huggingface.co": ("huggingface", "hftoken"), "civitai.com": ("civitai",)}


class KeyRing:
    """The file of keys in the data folder. No message, log line or `repr` ever contains a key."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE
        self._lock = threading.Lock()

    def add(self, alias: object, key: object) -> bool:
        """Store a key under an alias; return whether it replaced an earlier one.

        Raises InvalidValue, which never quotes the key, and StorageFailed.
        """
        if not isinstance(alias, str) or not ALIAS.fullmatch(alias.strip()):
            raise InvalidValue(
                "alias must be 1 to 64 letters, digits, spaces or ._- and start with a letter or digit", field="alias"
            )
        trimmed = key.strip() if isinstance(key, str) else ""
        if not 1 <= len(trimmed) <= MAX_KEY_LENGTH or not (trimmed.isascii() and trimmed.isprintable()):
            raise InvalidValue(
                f"api-key must be 1 to {MAX_KEY_LENGTH} printable ASCII characters on one line", field="api-key"
            )
        with self._lock:
            keys = self._read()
            exists = alias.strip() in keys
            if not exists and len(keys) >= MAX_KEYS:
                raise InvalidValue(
                    f"{MAX_KEYS} keys are stored already", field="alias", hint=f"remove some from data/{FILE}"
                )
            keys[alias.strip()] = trimmed
            write_atomic(self._path, json.dumps(keys, indent=2).encode(), FILE)
        return exists

    def for_host(self, host: str) -> str | None:
        """Return the key for a model host, found by the start of its alias (`civitai`, `HF_TOKEN`); None without one.

        Raises StorageFailed if the file of keys is damaged.
        """
        prefixes = HOSTS.get(host)
        if prefixes is None:
            return None
        return next((key for alias, key in self._read().items() if _plain(alias).startswith(prefixes)), None)

    def _read(self) -> dict[str, str]:
        try:
            keys = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            keys = None
        if not isinstance(keys, dict):
            # The content may be secret, so it is neither quoted nor overwritten.
            raise StorageFailed(f"{FILE} cannot be read", hint=f"repair data/{FILE} or move it away")
        return {str(name): str(key) for name, key in keys.items()}


def _plain(alias: str) -> str:
    return "".join(letter for letter in alias.lower() if letter.isalnum())
