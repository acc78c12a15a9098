"""What runs, as a person asks for it: each part asked where it should listen."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import requests

from launcher.greeting import Paint
from launcher.instance import Record
from launcher.terminal import GREEN, RED, plain
from shared import __version__
from shared.engine.client import EngineClient, engine_access
from shared.errors import EngineDenied, EngineError, EngineUnavailable
from shared.settings import Settings
from shared.web.server.ports import url_host

# Exit codes: everything answers, a part of it does, nothing runs (as LSB's init scripts print_status it).
ALL_RUNS, PART_RUNS, NOTHING_RUNS = 0, 1, 3
TIMEOUT = 5.0


@dataclass(frozen=True)
class Part:
    """A service or the engine: where it should be, and what was found there. `pid` where it is the launcher's child."""

    name: str
    address: str
    answers: bool
    about: str
    pid: int | None = None


@dataclass(frozen=True)
class Status:
    """The launcher, if one runs, and every part."""

    record: Record | None
    parts: tuple[Part, ...]

    @property
    def services(self) -> tuple[str, ...]:
        """The names of ours that answer. An engine alone may be one that somebody else runs."""
        return tuple(part.name for part in self.parts if part.answers and part.name != "engine")

    @property
    def exit_code(self) -> int:
        """As --help tells."""
        if all(part.answers for part in self.parts):
            return ALL_RUNS
        return PART_RUNS if self.services or self.record is not None else NOTHING_RUNS


def probe(settings: Settings, record: Record | None) -> Status:
    """Asks every part at once."""
    ports = {"txt2img": settings.txt2img_port, "img2img": settings.img2img_port, "control": settings.control_port}
    pids = {} if record is None else _children(record.pid)
    base = f"http://{url_host(settings.host)}"
    headers = {} if settings.api_key is None else {"X-API-Key": settings.api_key}

    def service(name: str) -> Part:
        address = f"{base}:{ports[name]}"
        said = _get(f"{address}/health", {})
        ours = said is not None and said.get("service") == name
        about = "answers" if ours else "nothing listens" if said is None else "another program listens"
        return Part(name, address, ours, about, pids.get(name))

    def engine() -> Part:
        told = _get(f"{base}:{ports['control']}/api/engine", headers)
        about = (told or {}).get("engine")
        if isinstance(about, dict):
            return Part(
                "engine", settings.engine_address, bool(about.get("answers")), _of_engine(about), about.get("pid")
            )
        found, said = _ask_engine(EngineClient(settings.engine_address, engine_access(settings)))
        return Part("engine", settings.engine_address, found, said)

    with ThreadPoolExecutor(len(ports) + 1) as pool:
        found = [pool.submit(service, name) for name in ports]
        return Status(record, (*(each.result() for each in (*found, pool.submit(engine))),))


def status_text(status: Status, log_dir: Path, paint: Paint) -> str:
    """The whole of it, ending in a newline."""
    record = status.record
    if record is None and status.exit_code == NOTHING_RUNS:
        return f"\n  Dream Layer {__version__} does not run; python dream_layer.py up starts it\n\n"
    if record is None:
        head = "runs, started by hand"
    else:
        since = f"{datetime.fromtimestamp(record.started):%Y-%m-%d %H:%M:%S}"
        head = f"{'runs' if record.ready else 'is starting'}: process {record.pid}, `{record.command}`, since {since}"
    width = max(len(part.address) for part in status.parts)
    lines = "\n".join(f"    {part.name:<8} {part.address:<{width}}  {_found(part, paint)}" for part in status.parts)
    return f"\n  Dream Layer {__version__} {plain(head)}\n\n{lines}\n\n    logs     {log_dir}\n\n"


def _found(part: Part, paint: Paint) -> str:
    process = f", process {part.pid}" if part.pid and part.answers else ""
    return paint(f"{part.about}{process}", GREEN if part.answers else RED)


def _of_engine(about: Mapping[str, Any]) -> str:
    """What the control service tells of the engine, in one line."""
    words = [str(about.get("state", ""))]
    if not about.get("answers"):
        words.append("does not answer")
    if about.get("version"):
        words.append(f"ComfyUI {about['version']}")
    devices = about.get("devices")
    if isinstance(devices, list) and devices and isinstance(devices[0], dict):
        words.append(str(devices[0].get("name") or devices[0].get("type")))
    unfinished = about.get("unfinished_jobs")
    if isinstance(unfinished, int):
        words.append("no jobs" if unfinished == 0 else f"{unfinished} unfinished job" + "s" * (unfinished != 1))
    if about.get("restarts"):
        words.append(f"started again {about['restarts']} times")
    return plain(", ".join(word for word in words if word))


def _ask_engine(client: EngineClient) -> tuple[bool, str]:
    """Whether an engine answers, and that in words."""
    try:
        found = "system" in client.get_system_stats(TIMEOUT)
    except EngineDenied:
        return False, "refused our token"
    except EngineUnavailable:
        return False, "does not answer"
    except EngineError:
        found = False
    return found, "answers" if found else "something listens"


def _get(url: str, headers: Mapping[str, str]) -> dict[str, Any] | None:
    """The JSON object there; {} if something else answers, None if nothing does."""
    try:
        with requests.Session() as session:
            # The way to our own services leads through no proxy.
            session.trust_env = False
            response = session.get(url, headers=dict(headers), timeout=TIMEOUT, allow_redirects=False)
            said = response.json()
    except (requests.ConnectionError, requests.Timeout):
        return None
    except (requests.RequestException, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _children(pid: int) -> dict[str, int]:
    """The process ids of the services that a launcher started, by their names."""
    found = {}
    try:
        for child in psutil.Process(pid).children():
            for argument in child.cmdline():
                name = Path(argument).name
                if name.endswith("_server.py"):
                    found[name.removesuffix("_server.py")] = child.pid
    except psutil.Error:
        return found
    return found
