"""The addresses of what runs, and what to try first. Pure."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from launcher.terminal import BOLD, CYAN, GREEN

# Names by which a browser on this machine reaches a server on the loopback or on every address.
LOCAL = ("127.0.0.1", "localhost", "0.0.0.0", "::")  # noqa: S104 - names, not a bind

Paint = Callable[..., str]


@dataclasses.dataclass(frozen=True)
class Addresses:
    """Base URLs, without a slash at their end; `keyed`: every request but those of /docs needs the API key.
    `engine_page`: the engine serves ComfyUI's own page."""

    txt2img: str
    img2img: str
    control: str
    engine: str
    keyed: bool = False
    engine_page: bool = False

    @classmethod
    def of(
        cls, host: str, ports: Mapping[str, int], engine: str, *, keyed: bool, engine_page: bool = False
    ) -> "Addresses":
        """The addresses of services that listen on `host`; `ports` by the names of the services."""
        name = "localhost" if host in LOCAL else f"[{host}]" if ":" in host else host
        urls = {service: f"http://{name}:{port}" for service, port in ports.items()}
        return cls(urls["txt2img"], urls["img2img"], urls["control"], engine, keyed, engine_page)

    @classmethod
    def read(cls, values: Any) -> "Addresses | None":
        """From what `dataclasses.asdict` made of one; None if it is something else."""
        try:
            return cls(**values)
        except TypeError:
            return None

    @property
    def page(self) -> str:
        """What to open in a browser."""
        return f"{self.txt2img}/"


def greeting(addresses: Addresses, *, services: bool, windows: bool, paint: Paint) -> str:
    """What stands at the end of a start: with `services` the address to open, else what is still to be started."""
    if not services:
        return (
            f"\n{_table(addresses, services=False)}\n\n  Start the services next, each in a terminal of its own:\n\n"
            f"    python txt2img_server.py\n    python img2img_server.py\n\n  Ctrl-C stops the engine.\n\n"
        )
    ready = paint("Dream Layer is ready.", BOLD, GREEN)
    return (
        f"\n  {ready} {_open(addresses, paint)}\n\n{_table(addresses, services=True)}\n\n"
        f"  Or try, in another terminal:\n\n    {first_command(addresses, windows=windows)}\n\n"
        "  Ctrl-C stops everything.\n\n"
    )


def running_text(addresses: Addresses, *, services: bool, paint: Paint) -> str:
    """What stands there when everything runs already."""
    shown = f"  {_open(addresses, paint)}\n\n" if services else ""
    return f"\n{shown}{_table(addresses, services=services)}\n\n  python dream_layer.py stop ends it.\n\n"


def _open(addresses: Addresses, paint: Paint) -> str:
    return f"Open {paint(addresses.page, BOLD, CYAN)}"


def _table(addresses: Addresses, *, services: bool) -> str:
    # Without its token, which is new after each restart and would be old here.
    engine = f"{addresses.engine}   (python dream_layer.py open engine)" if addresses.engine_page else addresses.engine
    rows = [("control", f"{addresses.control}/api/models"), ("engine", engine)]
    if services:
        rows = [
            ("txt2img", f"{addresses.txt2img}/api/txt2img"),
            ("img2img", f"{addresses.img2img}/api/img2img"),
            *rows,
        ]
    return "\n".join(f"    {name:<10} {address}" for name, address in rows)


def first_command(addresses: Addresses, *, windows: bool) -> str:
    """A curl line that draws a picture, the same in sh, cmd and PowerShell.

    As a form, for quotes inside quotes are different in every shell. In PowerShell `curl` alone is another program.
    """
    curl = "curl.exe" if windows else "curl"
    address = addresses.txt2img.removeprefix("http://")
    key = ' -H "X-API-Key: YOUR-KEY"' if addresses.keyed else ""
    return (
        f'{curl} -sS --fail-with-body {address}/api/txt2img{key} -H "accept: image/png"'
        ' -F "prompt=a red circle on a blue background" -o red.png'
    )
