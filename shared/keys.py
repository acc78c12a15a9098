"""Keys for services of others, by their aliases: kept with owner-only rights, and never shown again."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

from shared.errors import InvalidValue, StorageFailed
from shared.files import write_atomic

FILE = "api-keys.json"
ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
LONGEST_KEY = 4096
MOST = 100
# Hosts that models are fetched from, and how the aliases of their keys begin, as letters and digits alone.
HOSTS = {"huggingface.co": ("huggingface", "hftoken"), "civitai.com": ("civitai",)}


class KeyRing:
    """The file of keys in the data folder. No message, log line or `repr` ever holds a key."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE
        self._lock = threading.Lock()

    def add(self, alias: object, key: object) -> bool:
        """Keeps a key, in place of an earlier one of that alias; whether there was one.

        Raises InvalidValue, which tells nothing of the key, and StorageFailed.
        """
        if not isinstance(alias, str) or not ALIAS.fullmatch(alias.strip()):
            raise InvalidValue(
                "alias must be 1 to 64 letters, digits, spaces or ._-, and start with a letter or digit", field="alias"
            )
        trimmed = key.strip() if isinstance(key, str) else ""
        if not 1 <= len(trimmed) <= LONGEST_KEY or not (trimmed.isascii() and trimmed.isprintable()):
            raise InvalidValue(
                f"api-key must be 1 to {LONGEST_KEY} printable ASCII characters in one line", field="api-key"
            )
        with self._lock:
            keys = self._read()
            known = alias.strip() in keys
            if not known and len(keys) >= MOST:
                raise InvalidValue(
                    f"there are {MOST} keys already", field="alias", hint=f"remove some from data/{FILE}"
                )
            keys[alias.strip()] = trimmed
            write_atomic(self._path, json.dumps(keys, indent=2).encode(), FILE)
        return known

    def for_host(self, host: str) -> str | None:
        """The key for a host of models, by what its alias begins with: `civitai`, `HF_TOKEN`; None if there is none.

        Raises StorageFailed if the file of keys is damaged.
        """
        beginnings = HOSTS.get(host)
        if beginnings is None:
            return None
        return next((key for alias, key in self._read().items() if _plain(alias).startswith(beginnings)), None)

    def _read(self) -> dict[str, str]:
        try:
            kept = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            kept = None
        if not isinstance(kept, dict):
            # What the file holds is not repeated, nor written over.
            raise StorageFailed(f"{FILE} cannot be read", hint=f"mend data/{FILE}, or move it away")
        return {str(name): str(key) for name, key in kept.items()}


def _plain(alias: str) -> str:
    return "".join(letter for letter in alias.lower() if letter.isalnum())
