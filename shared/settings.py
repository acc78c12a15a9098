"""Every setting once: its name, type, default, range and help text.

A setting is an environment variable `DREAM_LAYER_<NAME>` or a line of the file `.env` in the project folder; the
environment wins. To add one, add a field to `Settings`; docs/tables.py writes the tables of docs/settings.md from it.
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
from shared.schema.choices import AnySpelling

PROJECT_DIR = Path(__file__).resolve().parents[1]
PREFIX = "DREAM_LAYER_"
ENV_FILE = PROJECT_DIR / ".env"
STEP = "settings"
TABLE_HINT = "docs/settings.md lists the settings"
# Threads of a service that must never wait for pictures, so that health checks and cancel requests get through.
FREE_THREADS = 4
# Notepad and PowerShell start files with a byte order mark. UTF-32 comes first: its mark begins with that of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def _split_commas(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _empty_to_none(value: Any) -> Any:
    """Treat an empty value, such as `DREAM_LAYER_API_KEY=` in `.env`, as not set."""
    return None if value == "" else value


def _normalise_suffixes(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """Turn `ckpt` and `.CKPT` into `.ckpt`."""
    return tuple("." + suffix.lower().lstrip(".") for suffix in suffixes)


def _resolve_in_project(path: Path) -> Path:
    """Resolve a relative path against the project folder, whatever the current folder is."""
    return PROJECT_DIR / path.expanduser()


Port = Annotated[int, Field(ge=1, le=65535)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]
Suffixes = Annotated[Words, AfterValidator(_normalise_suffixes)]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_split_commas)]
OptionalInt = Annotated[int | None, BeforeValidator(_empty_to_none)]
OptionalFloat = Annotated[float | None, BeforeValidator(_empty_to_none)]
OptionalText = Annotated[str | None, BeforeValidator(_empty_to_none)]
Folder = Annotated[Path, AfterValidator(_resolve_in_project)]
OptionalPath = Annotated[Folder | None, BeforeValidator(_empty_to_none)]


class Settings(BaseSettings):
    """The settings of all processes. Immutable: loaded once at startup and passed down."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="ignore",
        frozen=True,
    )

    data_dir: Folder = Field(
        default=PROJECT_DIR / "data",
        description="Folder for everything that is downloaded or made: engine, models, pictures, logs.",
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address that the services listen on. Any but loopback requires `DREAM_LAYER_API_KEY`.",
    )
    txt2img_port: Port = Field(default=5001, description="Port of the txt2img service.")
    img2img_port: Port = Field(default=5004, description="Port of the img2img service.")
    control_port: Port = Field(default=5002, description="Port of the control service.")
    extras_port: Port = Field(default=5003, description="Port of the control service for the web page's extras.")
    runs_port: Port = Field(default=5005, description="Port of the control service for the web page's runs.")
    report_port: Port = Field(default=5006, description="Port of the control service for the web page's reports.")
    img2txt_port: Port = Field(
        default=5007,
        description="Port of the control service for the web page's Img2Txt, which is not supported.",
    )
    engine_port: Port = Field(default=8188, description="Port of the engine (loopback only).")
    engine_url: OptionalText = Field(
        default=None,
        pattern=r"^https?://",
        description="URL of a ComfyUI that already runs. None is installed or started then.",
    )
    engine_token: OptionalText = Field(
        default=None,
        pattern=r"^[!-~]+$",
        repr=False,
        description="Sent to `DREAM_LAYER_ENGINE_URL` as `Authorization: Bearer`, for a proxy in front of it.",
    )
    comfyui_dir: OptionalPath = Field(
        default=None,
        description="Folder of your own ComfyUI, started in place of the installed one.",
    )
    engine_python: OptionalPath = Field(
        default=None,
        description="Python that runs the engine, if your ComfyUI has its own environment.",
    )
    engine_args: Words = Field(
        default=(),
        description="More arguments for ComfyUI, separated by commas, such as `--lowvram,--fp16-vae`.",
    )
    engine_env: Words = Field(
        default=(),
        description="Environment variables that the engine gets as well, separated by commas. Nodes can read them.",
    )
    engine_page: bool = Field(
        default=False,
        description="Install and serve ComfyUI's own web page (0.5 GB). `python dream_layer.py open engine` opens it.",
    )
    device: Annotated[Literal["auto", "cpu", "gpu"], AnySpelling({"automatic": "auto", "cuda": "gpu"})] = Field(
        default="auto", description="`auto`, `cpu` or `gpu`. `auto` uses a GPU if there is a usable one."
    )
    checkpoint: OptionalText = Field(
        default=None,
        description="Default checkpoint. Without it: your first one, else the built-in one.",
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
        description="SQLAlchemy URL of the jobs' database. Default: `jobs.sqlite` in the data folder.",
    )
    queue_limit: int = Field(default=1000, ge=1, description="Unfinished jobs beyond which new ones get a 429.")
    cancel_timeout: float = Field(
        default=120,
        ge=1,
        le=86400,
        description="Seconds after which an engine that still works on a cancelled job is "
        "restarted. Increase it if models take minutes to load: loading cannot be "
        "interrupted.",
    )
    keep_jobs: OptionalInt = Field(
        default=None,
        ge=0,
        description="Finished jobs to keep. Older ones are deleted with their pictures. Default: all.",
    )
    keep_days: OptionalFloat = Field(
        default=None,
        ge=0,
        description="Days to keep finished jobs with their pictures, and uploads without a job. Default: for ever.",
    )
    keep_mb: OptionalInt = Field(
        default=None, ge=0, description="Megabytes of pictures to keep. The oldest are deleted first. Default: all."
    )
    threads: int = Field(default=128, ge=8, le=1024, description="Threads of each service.")
    waiters: int = Field(
        default=80,
        ge=1,
        description="Requests that may wait for pictures at once. With `DREAM_LAYER_STREAMS` at "
        "least 4 below `DREAM_LAYER_THREADS`, so that /health, job status and "
        "cancelling always answer.",
    )
    streams: int = Field(default=40, ge=1, description="Event streams that may be open at once.")
    max_body_mb: int = Field(default=64, ge=1, le=1024, description="Largest request body, in MB.")
    picture_memory_mb: int = Field(
        default=1200,
        ge=16,
        le=1_048_576,
        description="Memory for decoding the pictures of all requests to one service, in MB.",
    )
    max_model_mb: int = Field(
        default=32768, ge=1, le=1_048_576, description="Largest model file that may be uploaded, in MB."
    )
    model_suffixes: Suffixes = Field(
        default=(".safetensors",),
        description="Extensions of model files that may be uploaded, separated by commas. All but "
        "`.safetensors` can run code when they are loaded.",
    )
    allow_nodes: Words = Field(
        default=(),
        description="Node classes that imported graphs may use as well, separated by commas. `*` "
        "allows all, with everything that custom nodes do.",
    )
    allowed_origins: Words = Field(
        default=("http://localhost:8080", "http://127.0.0.1:8080"),
        description="Origins of web pages that may call the services (CORS), separated by commas.",
    )
    public_url: OptionalText = Field(
        default=None,
        pattern=r"^https?://",
        description="Base URL of the URLs in responses, behind a proxy. It may have a path. "
        "Default: as the client called.",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="Addresses or networks of reverse proxies, separated by commas, whose "
        "`X-Forwarded-For`, `-Host`, `-Proto`, `-Port` and `-Prefix` are trusted.",
    )
    api_key: OptionalText = Field(
        default=None,
        min_length=16,
        repr=False,
        description="Key that every request but /, /health and /docs must send, as `X-API-Key` or "
        "`Authorization: Bearer`. At least 16 characters; `openssl rand -hex 32` makes "
        "one.",
    )
    signature_lifetime: int = Field(
        default=3600,
        ge=10,
        le=604_800,
        description="Seconds for which the signed URLs in responses are valid, if an API key is set.",
    )

    @model_validator(mode="after")
    def _check_threads(self) -> "Settings":
        if self.waiters + self.streams > self.threads - FREE_THREADS:
            raise ValueError(
                f"waiters ({self.waiters}) and streams ({self.streams}) must leave {FREE_THREADS} of the threads "
                f"({self.threads}) free, so that /health, job status and cancel always answer"
            )
        return self

    @model_validator(mode="after")
    def _check_ports(self) -> "Settings":
        """Refuse one port for two programs. The ports of the control service may be equal."""
        ports = {"txt2img_port": self.txt2img_port, "img2img_port": self.img2img_port}
        if self.engine_url is None:
            ports["engine_port"] = self.engine_port
        names = {self.control_port: "control_port"}
        names |= {port: name.removeprefix(PREFIX).lower() for name, port in self.page_ports.items()}
        for name, port in ports.items():
            other = names.setdefault(port, name)
            if other != name:
                raise ValueError(
                    f"{PREFIX}{other.upper()} and {PREFIX}{name.upper()} are both {port}: "
                    "two services cannot listen on one port"
                )
        return self

    @model_validator(mode="after")
    def _check_api_key(self) -> "Settings":
        if self.api_key is None:
            if not is_loopback(self.host):
                raise ValueError(
                    f"other machines can reach host {self.host}, so {PREFIX}API_KEY must be set (16 characters or "
                    "more), or the host be 127.0.0.1"
                )
            return self
        if not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ValueError(
                f"{PREFIX}API_KEY must be printable ASCII: clients encode other characters in different ways"
            )
        if is_guessable(self.api_key):
            raise ValueError(
                f"{PREFIX}API_KEY is too easy to guess: it repeats itself; `openssl rand -hex 32` makes a good one"
            )
        if self.api_key != self.api_key.strip():
            raise ValueError(f"{PREFIX}API_KEY must not begin or end with a space: headers lose it")
        return self

    @property
    def engine_address(self) -> str:
        """Base URL of the engine, without a trailing slash."""
        return (self.engine_url or f"http://127.0.0.1:{self.engine_port}").rstrip("/")

    @property
    def page_ports(self) -> dict[str, int]:
        """The ports that only the web page uses, by the names of their environment variables."""
        names = ("extras_port", "runs_port", "report_port", "img2txt_port")
        return {f"{PREFIX}{name.upper()}": getattr(self, name) for name in names}

    @property
    def has_own_data_dir(self) -> bool:
        """Whether the data folder is the default one, not one that the user chose."""
        return self.data_dir == PROJECT_DIR / "data" and not self.data_dir.is_symlink()

    @property
    def reports_dir(self) -> Path:
        """Folder of reports, which newer reports replace."""
        return self.data_dir / "reports"

    @property
    def output_dir(self) -> Path:
        """Folder in which the engine that we start saves pictures."""
        return self.data_dir / "output"

    @property
    def input_dir(self) -> Path:
        """Folder in which that engine stores uploads."""
        return self.data_dir / "input"

    @property
    def jobs_url(self) -> str:
        """SQLAlchemy URL of the jobs' database."""
        return self.database_url or f"sqlite:///{(self.data_dir.resolve() / 'jobs.sqlite').as_posix()}"

    @property
    def models_dir(self) -> Path:
        """Folder of model files, one subfolder for each kind; setup puts the starter model there."""
        return self.data_dir / "models"

    @property
    def workflows_dir(self) -> Path:
        """Folder of named workflows: each file becomes a route."""
        return self.data_dir / "workflows"

    @property
    def log_dir(self) -> Path:
        """Folder for the logs of the engine and of the services that the launcher starts."""
        return self.data_dir / "logs"


def is_guessable(key: str) -> bool:
    """Whether a key has few different characters, repeats itself, or counts up or down like `1234567890123456`."""
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
    """Read the settings from the environment and `.env`. Raises SetupError that names every wrong one.

    A variable with our prefix that is not a setting is an error too, so that no typing error goes unnoticed.
    """
    in_file = read_env_file(env_file or ENV_FILE, PREFIX)
    names = {PREFIX + name.upper() for name in Settings.model_fields}
    for variable in sorted({*environ, *in_file}):
        if variable.upper().startswith(PREFIX) and variable.upper() not in names:
            near = difflib.get_close_matches(variable.upper(), names, n=1)
            raise SetupError(
                STEP,
                f"{variable} is not a setting" + ("" if variable in environ else f" (in {env_file or ENV_FILE})"),
                hint=f"did you mean {near[0]}?" if near else TABLE_HINT,
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
            + _explain_invalid(item["type"], item["msg"], item["input"])
            for item in error.errors()
        ]
        raise SetupError(STEP, "; ".join(reasons), hint=TABLE_HINT) from error


def _explain_invalid(error_type: str, message: str, value: object) -> str:
    """Say what is wrong with a value. Shows the value only where it cannot be a secret."""
    if error_type in ("int_parsing", "float_parsing"):
        return f"must be a {'whole ' if error_type == 'int_parsing' else ''}number, not {str(value)[:60]!r}"
    if error_type == "bool_parsing":
        return f"must be true or false, not {str(value)[:60]!r}"
    if error_type == "string_pattern_mismatch" and "https?" in message:
        return "must begin with http:// or https://"
    if error_type == "string_pattern_mismatch":
        return "must begin with a scheme, such as sqlite:///"
    return message.removeprefix("Value error, ")


def read_env_file(path: Path, prefix: str) -> dict[str, str]:
    """Read the values whose names begin with `prefix`, in any case; empty if the file does not exist.

    Raises SetupError if the file cannot be read, or if a line names such a setting without assigning it.
    """
    try:
        text = _decode_env_file(path.read_bytes(), path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SetupError(
            STEP, f"{path} cannot be read: {error.strerror}", hint="make it a text file with lines NAME=value"
        ) from error
    for binding in parse_stream(io.StringIO(text)):
        # Messages show only the part before the value, which may be a secret.
        line = binding.original.string
        name = line.strip().partition("=")[0].strip()
        is_set = (binding.key or "").upper().startswith(prefix) and binding.value is not None
        if prefix in name.upper() and not name.startswith("#") and not is_set:
            number = binding.original.line + line.count("\n", 0, len(line) - len(line.lstrip()))
            raise SetupError(
                STEP,
                f"line {number} of {path} is not understood: {name[:60]}",
                hint="write NAME=value, with nothing in front",
            )
    values = dotenv_values(stream=io.StringIO(text))
    return {name: value for name, value in values.items() if name.upper().startswith(prefix) and value is not None}


def _decode_env_file(content: bytes, path: Path) -> str:
    encoding = next((encoding for mark, encoding in BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise SetupError(
            STEP,
            f"line {number} of {path} is not valid {encoding.upper().removesuffix('-SIG')}",
            hint="save the file as UTF-8",
        ) from error
    if "\0" in text:
        raise SetupError(STEP, f"{path} is not UTF-8: it has zero bytes", hint="save the file as UTF-8")
    return text
