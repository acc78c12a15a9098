"""What is running and at which URLs: the text after a start, and the checks behind `status`."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import requests

from launcher.instance_lock import InstanceRecord
from launcher.terminal import BOLD, CYAN, GREEN, RED, strip_controls
from shared import __version__
from shared.engine.client import EngineClient, engine_access
from shared.errors import EngineDenied, EngineError, EngineUnavailable
from shared.settings import Settings
from shared.web.server.ports import url_host

# Exit codes: everything answers, a part of it does, nothing is running (as LSB init scripts report it).
ALL_RUNNING, PARTLY_RUNNING, NOT_RUNNING = 0, 1, 3
# Seconds within which a component must answer.
TIMEOUT = 5.0
# Hosts that a browser on this machine reaches as localhost.
LOCAL_HOSTS = ("127.0.0.1", "localhost", "0.0.0.0", "::")  # noqa: S104 - names, not a bind

Paint = Callable[..., str]


@dataclass(frozen=True)
class StackUrls:
    """Base URLs without a trailing slash.

    `keyed`: every request except those of /docs needs the API key. `engine_page`: the engine serves ComfyUI's own page.
    """

    txt2img: str
    img2img: str
    control: str
    engine: str
    keyed: bool = False
    engine_page: bool = False

    @classmethod
    def from_settings(cls, settings: Settings) -> "StackUrls":
        """The URLs by which a browser on this machine reaches everything."""
        host = settings.host
        name = "localhost" if host in LOCAL_HOSTS else f"[{host}]" if ":" in host else host
        return cls(
            **{service: f"http://{name}:{port}" for service, port in _service_ports(settings).items()},
            engine=settings.engine_address,
            keyed=settings.api_key is not None,
            engine_page=settings.engine_page and settings.engine_url is None,
        )

    @classmethod
    def from_record(cls, values: Any) -> "StackUrls | None":
        """The URLs in a launcher's record; None if it has a different format."""
        try:
            return cls(**values)
        except TypeError:
            return None

    @property
    def page(self) -> str:
        """The web page to open in a browser."""
        return f"{self.txt2img}/"


def ready_text(urls: StackUrls, *, services: bool, windows: bool, paint: Paint) -> str:
    """The text at the end of a start: with `services` the page to open, else the services that are still to start."""
    if not services:
        return (
            f"\n{_url_table(urls, services=False)}\n\n  Now start the services, each in its own terminal:\n\n"
            f"    python txt2img_server.py\n    python img2img_server.py\n\n  Ctrl-C stops the engine.\n\n"
        )
    ready = paint("Dream Layer is ready.", BOLD, GREEN)
    return (
        f"\n  {ready} {_open_text(urls, paint)}\n\n{_url_table(urls, services=True)}\n\n"
        f"  Or try in another terminal:\n\n    {example_command(urls, windows=windows)}\n\n"
        "  Ctrl-C stops everything.\n\n"
    )


def running_text(urls: StackUrls, *, services: bool, paint: Paint) -> str:
    """The text when everything is already running."""
    page = f"  {_open_text(urls, paint)}\n\n" if services else ""
    return f"\n{page}{_url_table(urls, services=services)}\n\n  `python dream_layer.py stop` stops it.\n\n"


def example_command(urls: StackUrls, *, windows: bool) -> str:
    """A curl command that generates a picture; the same text works in sh, cmd and PowerShell.

    It sends a form, because nested quotes differ between shells. In PowerShell, `curl` is a different program.
    """
    curl = "curl.exe" if windows else "curl"
    host = urls.txt2img.removeprefix("http://")
    key = ' -H "X-API-Key: YOUR-KEY"' if urls.keyed else ""
    return (
        f'{curl} -sS --fail-with-body {host}/api/txt2img{key} -H "accept: image/png"'
        ' -F "prompt=a red circle on a blue background" -o red.png'
    )


def _open_text(urls: StackUrls, paint: Paint) -> str:
    return f"Open {paint(urls.page, BOLD, CYAN)}"


def _url_table(urls: StackUrls, *, services: bool) -> str:
    # Without the engine's token, which changes with each restart.
    engine = f"{urls.engine}   (python dream_layer.py open engine)" if urls.engine_page else urls.engine
    rows = [("control", f"{urls.control}/api/models"), ("engine", engine)]
    if services:
        rows = [("txt2img", f"{urls.txt2img}/api/txt2img"), ("img2img", f"{urls.img2img}/api/img2img"), *rows]
    return "\n".join(f"    {name:<10} {url}" for name, url in rows)


@dataclass(frozen=True)
class Component:
    """A service or the engine, as it was found at its URL. `pid` if it is the launcher's child."""

    name: str
    url: str
    answers: bool
    description: str
    pid: int | None = None


@dataclass(frozen=True)
class StackStatus:
    """The launcher's record, if one is running, and the state of every component."""

    record: InstanceRecord | None
    components: tuple[Component, ...]

    @property
    def services(self) -> tuple[str, ...]:
        """The names of our services that answer. An engine alone may belong to another program."""
        return tuple(found.name for found in self.components if found.answers and found.name != "engine")

    @property
    def exit_code(self) -> int:
        """The exit code of `status`, as its --help describes."""
        if all(component.answers for component in self.components):
            return ALL_RUNNING
        return PARTLY_RUNNING if self.services or self.record is not None else NOT_RUNNING


def query_status(settings: Settings, record: InstanceRecord | None) -> StackStatus:
    """Ask all components at the same time. `record` is that of the running launcher."""
    ports = _service_ports(settings)
    pids = {} if record is None else _child_pids(record.pid)
    base = f"http://{url_host(settings.host)}"
    headers = {} if settings.api_key is None else {"X-API-Key": settings.api_key}

    def query_service(name: str) -> Component:
        url = f"{base}:{ports[name]}"
        health = _get_json(f"{url}/health", {})
        ours = health is not None and health.get("service") == name
        description = "answers" if ours else "not running" if health is None else "another program uses this port"
        return Component(name, url, ours, description, pids.get(name))

    def query_engine() -> Component:
        response = _get_json(f"{base}:{ports['control']}/api/engine", headers)
        engine = (response or {}).get("engine")
        if isinstance(engine, dict):
            answers = bool(engine.get("answers"))
            return Component("engine", settings.engine_address, answers, _describe_engine(engine), engine.get("pid"))
        client = EngineClient(settings.engine_address, engine_access(settings))
        return Component("engine", settings.engine_address, *_ask_engine(client))

    with ThreadPoolExecutor(len(ports) + 1) as pool:
        services = [pool.submit(query_service, name) for name in ports]
        queries = [*services, pool.submit(query_engine)]
        return StackStatus(record, tuple(query.result() for query in queries))


def status_text(status: StackStatus, log_dir: Path, paint: Paint) -> str:
    """The output of `status`."""
    record = status.record
    if record is None and status.exit_code == NOT_RUNNING:
        return f"\n  Dream Layer {__version__} is not running; `python dream_layer.py up` starts it\n\n"
    if record is None:
        state = "is running, started by hand"
    else:
        since = f"{datetime.fromtimestamp(record.started):%Y-%m-%d %H:%M:%S}"
        state = (
            f"is {'running' if record.ready else 'starting'}: process {record.pid}, `{record.command}`, since {since}"
        )
    width = max(len(component.url) for component in status.components)
    lines = "\n".join(
        f"    {component.name:<8} {component.url:<{width}}  {_state_text(component, paint)}"
        for component in status.components
    )
    return f"\n  Dream Layer {__version__} {strip_controls(state)}\n\n{lines}\n\n    logs     {log_dir}\n\n"


def _service_ports(settings: Settings) -> dict[str, int]:
    return {"txt2img": settings.txt2img_port, "img2img": settings.img2img_port, "control": settings.control_port}


def _state_text(component: Component, paint: Paint) -> str:
    process = f", process {component.pid}" if component.pid and component.answers else ""
    return paint(f"{component.description}{process}", GREEN if component.answers else RED)


def _describe_engine(engine: Mapping[str, Any]) -> str:
    """Describe the control service's report on the engine in one line."""
    words = [str(engine.get("state", ""))]
    if not engine.get("answers"):
        words.append("does not answer")
    if engine.get("version"):
        words.append(f"ComfyUI {engine['version']}")
    devices = engine.get("devices")
    if isinstance(devices, list) and devices and isinstance(devices[0], dict):
        words.append(str(devices[0].get("name") or devices[0].get("type")))
    unfinished = engine.get("unfinished_jobs")
    if isinstance(unfinished, int):
        words.append("no jobs" if unfinished == 0 else f"{unfinished} unfinished job" + "s" * (unfinished != 1))
    restarts = engine.get("restarts")
    if restarts:
        words.append(f"restarted {restarts} time" + "s" * (restarts != 1))
    return strip_controls(", ".join(word for word in words if word))


def _ask_engine(client: EngineClient) -> tuple[bool, str]:
    """Whether an engine answers, and a description."""
    try:
        is_engine = "system" in client.get_system_stats(TIMEOUT)
    except EngineDenied:
        return False, "refused our token"
    except EngineUnavailable:
        return False, "does not answer"
    except EngineError:
        is_engine = False
    return is_engine, "answers" if is_engine else "another program uses this port"


def _get_json(url: str, headers: Mapping[str, str]) -> dict[str, Any] | None:
    """GET a JSON object; {} for any other response, None if nothing answers."""
    try:
        with requests.Session() as session:
            # Our own services are never reached through a proxy.
            session.trust_env = False
            response = session.get(url, headers=dict(headers), timeout=TIMEOUT, allow_redirects=False)
            value = response.json()
    except (requests.ConnectionError, requests.Timeout):
        return None
    except (requests.RequestException, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _child_pids(pid: int) -> dict[str, int]:
    """The process ids of the services that a launcher started, by name."""
    pids = {}
    try:
        for child in psutil.Process(pid).children():
            for argument in child.cmdline():
                name = Path(argument).name
                if name.endswith("_server.py"):
                    pids[name.removesuffix("_server.py")] = child.pid
    except psutil.Error:
        return pids
    return pids
