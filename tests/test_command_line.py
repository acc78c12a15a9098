"""Any command line ends with an exit code and, if it failed, one clear line without a traceback."""

import contextlib
import io
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from launcher import cli
from launcher.arguments import LOGS
from launcher.models import download
from launcher.terminal import MAX_LINE
from shared.jobs.store import Store
from shared.models.detect import MODEL_KINDS
from shared.settings import PREFIX
from tests.file_server import File, FileServer, file_server
from tests.harness import new_job

LONG = "x" * 5000
# No program listens on port 1.
CLOSED = "127.0.0.1:1"
ODD_TEXTS = (
    "",
    " ",
    ".",
    "..",
    "/",
    "-",
    "--",
    "\0",
    "a\0b",
    "\n",
    "\x1b[31mred",
    "\udcff",
    "\u202e",
    "²",
    LONG,
    "~\0",
    "~x y",
)
HOSTS = (CLOSED, "a..b", ".a", "[::1", "[::1]:99999", "", "\udcff", "*", "%00", "xn--", "127.0.0.1 ", "x" * 70, "ⓐ.b")
PATHS = (
    "",
    "x.safetensors",
    f"{LONG}.safetensors",
    "%00.safetensors",
    "\udcff",
    "a b/c/resolve/main/x",
    "?\0",
    "#\udcff",
)
texts = st.sampled_from(ODD_TEXTS) | st.text(st.characters(codec=None), max_size=20)
addresses = st.builds(
    "{}{}/{}".format,
    st.sampled_from(("http://", "https://", "HTTP://u:p@", "http:", "ftp://", "file:///")),
    st.sampled_from(HOSTS) | texts,
    st.sampled_from(PATHS) | texts,
)
names = texts | st.just("mine.safetensors")
options = st.lists(
    st.sampled_from(("--force", "--allow-pickle", "--all", "-f=", "--nothing"))
    | st.builds("--name={}".format, names)
    | st.builds("--kind={}".format, texts | st.sampled_from(MODEL_KINDS))
    | st.builds("--sha256={}".format, texts),
    max_size=2,
)
commands = st.one_of(
    st.tuples(st.just("models"), st.just("add"), addresses | names),
    st.tuples(st.just("models"), st.just("remove"), names),
    st.tuples(st.just("models"), st.just("remove"), st.just("--yes"), names),
    st.tuples(st.just("models"), texts),
    st.tuples(st.just("jobs"), st.just("cancel"), texts),
    st.tuples(st.just("jobs"), texts),
    st.tuples(st.just("logs"), texts | st.sampled_from(LOGS)),
    st.tuples(st.just("logs"), st.just("-n"), texts),
    st.tuples(texts),
    # A lone `--` only ends the options, so the command would be valid.
    st.tuples(
        st.sampled_from(("up", "run", "status", "stop", "open")), texts.filter(lambda text: text not in ("", "--"))
    ),
)


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder with one job. Downloads are tried once, and no request leaves this machine."""
    monkeypatch.setenv(f"{PREFIX}DATA_DIR", str(tmp_path))
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(proxy, f"http://{CLOSED}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "RETRY_DELAYS", ())
    # `models` would install packages that are missing, such as torch where only the fast tests are run.
    monkeypatch.setattr(cli, "find_environment", lambda *_, **__: Path(sys.executable))
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite")
    store.add(new_job(), "somebody", 10)
    store.close()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run_command(*arguments: str) -> tuple[int, str]:
    """Run the command line and return its exit code and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: object = cli.main(arguments)
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return code, err.getvalue()


def assert_clear_failure(*arguments: str) -> str:
    code, errors = run_command(*arguments)
    assert code in (1, 2), (arguments, errors)
    lines = errors.strip().splitlines()
    assert 1 <= len(lines) <= 2, errors
    assert all(line.isprintable() and len(line) < MAX_LINE + 100 for line in lines), errors
    return errors


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands, options)
@example(("models", "add", "http://a..b/"), [])
@example(("models", "add", f"http://{CLOSED}/\udcff"), [])
@example(("models", "add", f"http://{CLOSED}/x"), ["--name=\udcff.safetensors"])
@example(("models", "add", f"{LONG}.safetensors"), [])
@example(("models", "add", "https://huggingface.co/../b/resolve/main/x"), [])
@example(("models", "add", "http:\n/"), [])
@example(("jobs", "cancel", "\udcff"), [])
def test_any_command_line_fails_with_a_clear_error(command: tuple[str, ...], more: list[str]) -> None:
    if {"-h", "--help", "--version"} & {argument.strip() for argument in command}:
        return
    if command == ("jobs", "cancel", "all") or command in (("models", "list"), ("jobs", "list"), ("logs", "setup")):
        return
    assert_clear_failure(*command, *more)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("up", "--no-instal"), "--no-install"),
        (("up", "--nostarter"), "--no-starter"),
        (("run", "--no-start"), "--no-starter"),
        (("logs", "--follo"), "--follow"),
        (("jobs", "list", "--al"), "--all"),
        (("models", "add", "x", "--kin=loras"), "--kind"),
        (("models", "remove", "x", "--ye"), "--yes"),
        (("--versio",), "--version"),
        (("up", "--hlep"), "--help"),
    ],
)
def test_an_abbreviated_option_gets_a_suggestion(command: tuple[str, ...], option: str) -> None:
    errors = assert_clear_failure(*command)
    assert f"did you mean {option}?" in errors


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        yield running


REDIRECTS = (
    *("http://a..b/", "http://[::1", "http://127.0.0.1:99999/", "http://", "ftp://x/", "file:///etc/passwd", "\x01"),
    *(
        "http://\xff/",
        "http://127.0.0.1:1/x",
        "/round",
        "javascript:1",
        "//",
        f"http://{'a' * 70}/",
        "/%00",
        "http://*/",
    ),
)


@pytest.mark.parametrize("target", REDIRECTS)
def test_redirects_to_an_invalid_address_fail_clearly(target: str, server: FileServer, data_dir: Path) -> None:
    server.files["/begin"] = File(b"", redirect=target)
    server.files["/round"] = File(b"", redirect="/round")
    errors = assert_clear_failure("models", "add", f"{server.url}/begin?token=secret", "--name", "mine.safetensors")
    assert errors.startswith("\n  models failed: ")
    assert "secret" not in errors
    assert list(data_dir.glob("models/**/*.safetensors")) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "\xb2"},
        {"Retry-After": "9" * 5000},
        {"Content-Disposition": "attachment; filename*=utf-8''%00.safetensors"},
        {"Content-Disposition": "attachment; filename*=bogus''%ff"},
        {"Content-Disposition": f"attachment; filename={'a' * 3000}.safetensors"},
        {"Content-Range": f"bytes {'9' * 5000}-"},
        {"ETag": "\xff"},
    ],
)
@pytest.mark.parametrize("status", [200, 206, 429])
def test_invalid_response_headers_fail_clearly(headers: dict[str, str], status: int, server: FileServer) -> None:
    server.files["/file"] = File(b"x" * 100, headers=headers, answers=[status] if status != 200 else [])
    assert_clear_failure("models", "add", f"{server.url}/file")
