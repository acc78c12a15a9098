"""Every setting once: its name, default, range and help.

A setting is an environment variable `DREAM_LAYER_<NAME>`, or a line of a file `.env` in the project folder; the
environment wins. The tables of docs/settings.md are generated from the class Settings (docs/tables.py).
"""

import codecs
import difflib
import io
import ipaddress
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.errors import SetupError
from shared.schema.words import AnySpelling

STEP = "settings"
# Notepad and PowerShell put these marks in front. UTF-32 comes first, for its mark begins with that of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_env_file(path: Path, prefix: str) -> dict[str, str]:
    """The values whose names begin with `prefix`, in any case, by name; empty if there is no such file.

    Raises SetupError for a file that cannot be read, and for a line that names such a setting without setting it.
    """
    try:
        text = _decode_env_file(path.read_bytes(), path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SetupError(STEP, f"{path} cannot be read: {error.strerror}", hint="it has lines NAME=value") from error
    for binding in parse_stream(io.StringIO(text)):
        # Only what stands before the value is looked at and shown: the value may be a secret.
        begin = binding.original.string
        name = begin.strip().partition("=")[0].strip()
        is_set = (binding.key or "").upper().startswith(prefix) and binding.value is not None
        if prefix in name.upper() and not name.startswith("#") and not is_set:
            line = binding.original.line + begin.count("\n", 0, len(begin) - len(begin.lstrip()))
            raise SetupError(
                STEP,
                f"line {line} of {path} is not understood: {name[:60]}",
                hint="write NAME=value, with nothing in front",
            )
    values = dotenv_values(stream=io.StringIO(text))
    return {name: value for name, value in values.items() if name.upper().startswith(prefix) and value is not None}


def _decode_env_file(content: bytes, path: Path) -> str:
    encoding = next((encoding for mark, encoding in BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SetupError(
            STEP,
            f"line {line} of {path} is not valid {encoding.upper().removesuffix('-SIG')}",
            hint="save the file as UTF-8",
        ) from error
    if "\0" in text:
        raise SetupError(STEP, f"{path} is not UTF-8: it has zero bytes", hint="save the file as UTF-8")
    return text


PROJECT_DIR = Path(__file__).resolve().parents[1]
PREFIX = "DREAM_LAYER_"
ENV_FILE = PROJECT_DIR / ".env"
# Threads of a service that never wait for pictures.
FREE_THREADS = 4


def _split_commas(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _empty_to_none(value: Any) -> Any:
    """`DREAM_LAYER_API_KEY=` in a shell or `.env` means: not set."""
    return None if value == "" else value


def _as_suffixes(words: tuple[str, ...]) -> tuple[str, ...]:
    """`ckpt` and `.CKPT` mean `.ckpt`."""
    return tuple("." + word.lower().lstrip(".") for word in words)


def _absolute(path: Path) -> Path:
    """Relative paths start at the project folder, wherever a process was started."""
    return PROJECT_DIR / path.expanduser()


Port = Annotated[int, Field(ge=1, le=65535)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]
Suffixes = Annotated[Words, AfterValidator(_as_suffixes)]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_split_commas)]
OptionalInt = Annotated[int | None, BeforeValidator(_empty_to_none)]
OptionalFloat = Annotated[float | None, BeforeValidator(_empty_to_none)]
OptionalText = Annotated[str | None, BeforeValidator(_empty_to_none)]
Folder = Annotated[Path, AfterValidator(_absolute)]
OptionalPath = Annotated[Folder | None, BeforeValidator(_empty_to_none)]


class Settings(BaseSettings):
    """The settings of all processes. Immutable: made once at the edge and handed inwards."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="ignore",
        frozen=True,
    )

    data_dir: Folder = Field(
        default=PROJECT_DIR / "data",
        description="Everything the program downloads or makes: engine, models, pictures, logs.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address that the services listen on. Any other than loopback demands `DREAM_LAYER_API_KEY`.",
    )
    txt2img_port: Port = Field(default=5001, description="Port of the txt2img service.")
    img2img_port: Port = Field(default=5004, description="Port of the img2img service.")
    control_port: Port = Field(default=5002, description="Port of the control service.")
    extras_port: Port = Field(
        default=5003, description="Port on which the web page asks the control service to enlarge pictures."
    )
    runs_port: Port = Field(default=5005, description="Port on which it asks the control service for past runs.")
    report_port: Port = Field(default=5006, description="Port on which it asks the control service for reports.")
    img2txt_port: Port = Field(
        default=5007, description="Port on which a newer web page asks for Img2Txt, and is told that there is none."
    )
    engine_port: Port = Field(default=8188, description="Port of the engine that the launcher starts (loopback only).")
    engine_url: OptionalText = Field(
        default=None,
        pattern=r"^https?://",
        description="Address of a ComfyUI that already runs; then none is installed or started.",
    )
    engine_token: OptionalText = Field(
        default=None,
        pattern=r"^[!-~]+$",
        repr=False,
        description="Sent to `DREAM_LAYER_ENGINE_URL` as `Authorization: Bearer`, for a proxy before that ComfyUI that "
        "asks for one.",
    )
    comfyui_dir: OptionalPath = Field(
        default=None,
        description="Folder of your own ComfyUI to start, in place of the one that set-up fetches.",
    )
    engine_python: OptionalPath = Field(
        default=None,
        description="Python that runs the engine, if your own ComfyUI has an environment of its own.",
    )
    engine_args: Words = Field(
        default=(),
        description="Further ComfyUI arguments, separated by commas, such as `--lowvram,--fp16-vae`.",
    )
    engine_env: Words = Field(
        default=(),
        description="Environment variables that the engine gets beyond those that Python and torch need, separated by "
        "commas. Nodes can read what it gets.",
    )
    engine_page: bool = Field(
        default=False,
        description="Install and serve ComfyUI's own web page too (0.5 GB), on the engine's port; "
        "`python dream_layer.py open engine` opens it.",
    )
    device: Annotated[Literal["auto", "cpu", "gpu"], AnySpelling({"automatic": "auto", "cuda": "gpu"})] = Field(
        default="auto", description="`auto` uses a GPU when there is a usable one, else the CPU."
    )
    checkpoint: OptionalText = Field(
        default=None,
        description="Checkpoint used when a request names none. Default: the first of your own, else the starter.",
    )
    request_timeout: float = Field(
        default=1800,
        gt=0,
        le=86400,
        description="Seconds that a request waits for its pictures before it gets a 504.",
    )
    database_url: OptionalText = Field(
        default=None,
        pattern=r"^[a-z0-9+]+://",
        description="Database of the jobs, as an SQLAlchemy URL. Default: `jobs.sqlite` in the data folder.",
    )
    queue_limit: int = Field(default=1000, ge=1, description="Jobs that may be unfinished before new ones get a 429.")
    cancel_timeout: float = Field(
        default=120,
        ge=1,
        le=86400,
        description="Seconds after which the engine is restarted when it still works on a job that was cancelled. "
        "Loading a model cannot be interrupted: give it more time where that takes minutes.",
    )
    keep_jobs: OptionalInt = Field(
        default=None, ge=0, description="Finished jobs that are kept; older ones go, with their pictures. Default: all."
    )
    keep_days: OptionalFloat = Field(
        default=None,
        ge=0,
        description="Days that finished jobs and their pictures are kept, and pictures that were "
        "uploaded alone. Default: for ever.",
    )
    keep_mb: OptionalInt = Field(
        default=None, ge=0, description="Megabytes of pictures that are kept; the oldest go first. Default: all."
    )
    threads: int = Field(default=128, ge=8, le=1024, description="Threads of each service.")
    waiters: int = Field(
        default=80,
        ge=1,
        description="Requests that may wait for pictures at once; with the streams at least 4 below the threads, so "
        "that /health, job status and cancel always answer.",
    )
    streams: int = Field(default=40, ge=1, description="Event streams that may be open at once.")
    max_body_mb: int = Field(default=64, ge=1, le=1024, description="Largest request body, in MB.")
    picture_memory_mb: int = Field(
        default=1200,
        ge=16,
        le=1_048_576,
        description="Memory that the pictures of all requests to one service may take while they are read, in MB.",
    )
    max_model_mb: int = Field(
        default=32768, ge=1, le=1_048_576, description="Largest model file that may be uploaded, in MB."
    )
    model_suffixes: Suffixes = Field(
        default=(".safetensors",),
        description="Kinds of model files that may be uploaded, separated by commas. Others than `.safetensors`, such "
        "as `.ckpt`, can run code when they are loaded.",
    )
    allow_nodes: Words = Field(
        default=(),
        description="Node classes that graphs of clients may use beyond ComfyUI's harmless own, separated by commas; "
        "`*` lets in all, and with them whatever custom nodes do.",
    )
    allowed_origins: Words = Field(
        default=("http://localhost:8080", "http://127.0.0.1:8080"),
        description="Web pages that a browser may call from (CORS), separated by commas.",
    )
    public_url: OptionalText = Field(
        default=None,
        pattern=r"^https?://",
        description="Base of the addresses in replies, behind a proxy; it may have a path. Default: as the client "
        "called.",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="Addresses or networks of reverse proxies, separated by commas, whose `X-Forwarded-For`, `-Host`, "
        "`-Proto`, `-Port` and `-Prefix` are believed.",
    )
    api_key: OptionalText = Field(
        default=None,
        min_length=16,
        repr=False,
        description="If set, every request but /, /health and /docs must bring it as `X-API-Key` or "
        "`Authorization: Bearer`. 16 characters or more; `openssl rand -hex 32` makes a good one.",
    )

    signature_lifetime: int = Field(
        default=3600,
        ge=10,
        le=604_800,
        description="Seconds for which the signed addresses in replies are good, where an API key is set.",
    )

    @model_validator(mode="after")
    def _check_together(self) -> "Settings":
        if self.waiters + self.streams > self.threads - FREE_THREADS:
            raise ValueError(
                f"waiters ({self.waiters}) and streams ({self.streams}) must leave {FREE_THREADS} of the threads "
                f"({self.threads}) free: those keep /health, job status and cancel answering"
            )
        shared_port = self._shared_port()
        if shared_port is not None:
            raise ValueError(f"{shared_port}: two services cannot listen on one port")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ValueError(f"{PREFIX}API_KEY must be printable ASCII: in others, no two clients write a header alike")
        if self.api_key is not None and is_guessable(self.api_key):
            raise ValueError(
                f"{PREFIX}API_KEY is too easy to guess: it repeats itself; `openssl rand -hex 32` makes a good one"
            )
        if self.api_key is not None and self.api_key != self.api_key.strip():
            raise ValueError(f"{PREFIX}API_KEY must not begin or end with a blank: in a header, those are lost")
        if not is_loopback(self.host) and self.api_key is None:
            raise ValueError(
                f"host {self.host} is open to other machines, so {PREFIX}API_KEY must be set "
                "(16 characters or more), or the host be 127.0.0.1"
            )
        return self

    def _shared_port(self) -> str | None:
        """Settings that name one port for two programs, in words; None if there are none. The control service may have
        several ports, also the same one."""
        ports = {"txt2img_port": self.txt2img_port, "img2img_port": self.img2img_port}
        if self.engine_url is None:
            ports["engine_port"] = self.engine_port
        seen = {self.control_port: "control_port"}
        seen |= {port: name.removeprefix(PREFIX).lower() for name, port in self.page_ports.items()}
        for name, port in ports.items():
            other = seen.setdefault(port, name)
            if other != name:
                return f"{PREFIX}{other.upper()} and {PREFIX}{name.upper()} are both {port}"
        return None

    @property
    def engine_address(self) -> str:
        """Base URL of the engine, without a slash at its end."""
        return (self.engine_url or f"http://127.0.0.1:{self.engine_port}").rstrip("/")

    @property
    def page_ports(self) -> dict[str, int]:
        """The ports that only the web page knows, by the names of their settings."""
        names = ("extras_port", "runs_port", "report_port", "img2txt_port")
        return {f"{PREFIX}{name.upper()}": getattr(self, name) for name in names}

    @property
    def has_own_data_dir(self) -> bool:
        """Whether the data folder is the one in the project folder, and not one that the user chose."""
        return self.data_dir == PROJECT_DIR / "data" and not self.data_dir.is_symlink()

    @property
    def reports_dir(self) -> Path:
        """Where reports lie until newer ones replace them."""
        return self.data_dir / "reports"

    @property
    def output_dir(self) -> Path:
        """Where the engine that we start saves its pictures."""
        return self.data_dir / "output"

    @property
    def input_dir(self) -> Path:
        """Where that engine keeps uploads."""
        return self.data_dir / "input"

    @property
    def jobs_url(self) -> str:
        """The database of the jobs."""
        return self.database_url or f"sqlite:///{(self.data_dir.resolve() / 'jobs.sqlite').as_posix()}"

    @property
    def models_dir(self) -> Path:
        """Where users put models of their own, by kind, and set-up the starter."""
        return self.data_dir / "models"

    @property
    def workflows_dir(self) -> Path:
        """Where users put workflows that are to be routes."""
        return self.data_dir / "workflows"

    @property
    def log_dir(self) -> Path:
        """Logs of the engine and of services that the launcher started."""
        return self.data_dir / "logs"


def is_guessable(key: str) -> bool:
    """Whether a key has few characters again and again, or in their order, such as `1234567890123456`."""
    steps = {ord(after) - ord(before) for before, after in itertools.pairwise(key)}
    return len(set(key)) < 6 or len(steps) < 4 or key in (key + key)[1:-1]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_settings(environ: Mapping[str, str] = os.environ, env_file: Path | None = None) -> Settings:
    """The settings from the environment and `.env`; raises SetupError that names every wrong one.

    A variable with our prefix that is no setting is an error too: a typing error must not pass in silence.
    """
    in_file = read_env_file(env_file or ENV_FILE, PREFIX)
    names = {PREFIX + name.upper() for name in Settings.model_fields}
    for variable in sorted({*environ, *in_file}):
        if variable.upper().startswith(PREFIX) and variable.upper() not in names:
            near = difflib.get_close_matches(variable.upper(), names, n=1)
            raise SetupError(
                "settings",
                f"{variable} is not a setting" + ("" if variable in environ else f" (in {env_file or ENV_FILE})"),
                hint=f"did you mean {near[0]}?" if near else "docs/settings.md has the table of settings",
            )
    in_environment = {name.upper() for name in environ}
    values: dict[str, Any] = {
        name.upper().removeprefix(PREFIX).lower(): value
        for name, value in in_file.items()
        if name.upper() not in in_environment
    }
    try:
        return Settings(**values)
    except ValidationError as error:
        reasons = [
            (PREFIX + str(item["loc"][0]).upper() + ": " if item["loc"] else "")
            + _reason(item["type"], item["msg"], item["input"])
            for item in error.errors()
        ]
        raise SetupError("settings", "; ".join(reasons), hint="docs/settings.md has the table of settings") from error


def _reason(kind: str, said: str, value: object) -> str:
    """What is wrong with a value, which is shown where it can be no secret."""
    if kind in ("int_parsing", "float_parsing"):
        return f"must be a {'whole ' if kind == 'int_parsing' else ''}number, not {str(value)[:60]!r}"
    if kind == "bool_parsing":
        return f"must be true or false, not {str(value)[:60]!r}"
    if kind == "string_pattern_mismatch" and "https?" in said:
        return "must begin with http:// or https://"
    if kind == "string_pattern_mismatch":
        return "must begin with a scheme, such as sqlite:///"
    return said.removeprefix("Value error, ")
