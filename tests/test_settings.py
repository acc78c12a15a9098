"""Settings from the environment and from .env, and their errors."""

from pathlib import Path

import pytest

from shared.errors import SetupError
from shared.settings import PROJECT_DIR, Settings, is_loopback, load_settings


def load(monkeypatch: pytest.MonkeyPatch, **environ: str) -> Settings:
    for name, value in environ.items():
        monkeypatch.setenv(f"DREAM_LAYER_{name}", value)
    return load_settings()


def test_values_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch, TXT2IMG_PORT="6001", ALLOWED_ORIGINS="http://a, http://b", DATA_DIR="/tmp/x", API_KEY=""
    )
    assert settings.txt2img_port == 6001
    assert settings.allowed_origins == ("http://a", "http://b")
    assert settings.data_dir == Path("/tmp/x")
    assert settings.api_key is None
    assert settings.engine_address == "http://127.0.0.1:8188"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"TXT2IMG_PORT": "70000"}, "DREAM_LAYER_TXT2IMG_PORT"),
        ({"DEVICE": "tpu"}, "DREAM_LAYER_DEVICE"),
        ({"WAITERS": "120"}, "must leave 4 of the threads"),
        ({"KEEP_JOBS": "-1"}, "DREAM_LAYER_KEEP_JOBS"),
        ({"DATABASE_URL": "jobs.sqlite"}, "DREAM_LAYER_DATABASE_URL"),
        ({"HOST": "0.0.0.0"}, "API_KEY must be set"),
        ({"HOST": "192.168.1.5", "API_KEY": "short"}, "DREAM_LAYER_API_KEY"),
        ({"API_KEY": "correct horse battery "}, "must not begin or end with a space"),
        ({"API_KEY": "fifteen letters"}, "DREAM_LAYER_API_KEY: String should have at least 16 characters"),
        ({"API_KEY": "x" * 40}, "too easy to guess"),
        ({"API_KEY": "1234567890123456"}, "too easy to guess"),
        ({"API_KEY": "passwordpassword"}, "too easy to guess"),
        ({"TRUSTED_PROXIES": "localhost"}, "DREAM_LAYER_TRUSTED_PROXIES"),
        ({"ENGINE_URL": "localhost:8188"}, "DREAM_LAYER_ENGINE_URL"),
        ({"ENGINE_TOKEN": "two lines\nX-Other: 1"}, "DREAM_LAYER_ENGINE_TOKEN"),
        ({"ENGINE_URL": "localhost:8188"}, "ENGINE_URL: must begin with http:// or https://"),
        ({"DATABASE_URL": "jobs.sqlite"}, "must begin with a scheme, such as sqlite:///"),
        ({"TXT2IMG_PORT": "abc"}, "TXT2IMG_PORT: must be a whole number, not 'abc'"),
        ({"REQUEST_TIMEOUT": "soon"}, "must be a number, not 'soon'"),
        ({"ENGINE_PAGE": "perhaps"}, "must be true or false, not 'perhaps'"),
        ({"TXT2IMG_PORT": "5004"}, "TXT2IMG_PORT and DREAM_LAYER_IMG2IMG_PORT are both 5004"),
        ({"TXT2IMG_PORT": "5002"}, "CONTROL_PORT and DREAM_LAYER_TXT2IMG_PORT are both 5002"),
        ({"RUNS_PORT": "5004"}, "RUNS_PORT and DREAM_LAYER_IMG2IMG_PORT are both 5004"),
        ({"ENGINE_PORT": "5001"}, "TXT2IMG_PORT and DREAM_LAYER_ENGINE_PORT are both 5001"),
        ({"ENGINE_PORT": "5005"}, "RUNS_PORT and DREAM_LAYER_ENGINE_PORT are both 5005"),
        ({"TXT2IMGPORT": "6001"}, "DREAM_LAYER_TXT2IMGPORT is not a setting"),
    ],
)
def test_invalid_settings_are_reported_by_name(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], message: str
) -> None:
    with pytest.raises(SetupError, match=message):
        load(monkeypatch, **environ)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_the_env_file_is_read_in_common_encodings(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".env"
    lines = "DREAM_LAYER_TXT2IMG_PORT=6001\r\nexport dream_layer_data_dir='/tmp/Träume'\r\nOTHER\r\n# DREAM_LAYER_X\r\n"
    path.write_bytes(lines.encode(encoding))
    settings = load_settings(env_file=path)
    assert (settings.txt2img_port, settings.data_dir) == (6001, Path("/tmp/Träume"))
    monkeypatch.setenv("DREAM_LAYER_TXT2IMG_PORT", "6002")
    assert load_settings(env_file=path).txt2img_port == 6002


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"A=1\nDREAM_LAYER_DATA_DIR=/tmp/Tr\xe4ume\n", "line 2 of .* is not valid UTF-8"),
        ("DREAM_LAYER_TXT2IMG_PORT=6001".encode("utf-16-le"), "zero bytes"),
        (b"\xff\xfeD", "not valid UTF-16"),
        (b"DREAM_LAYER_TXT2IMGPORT=6001", r"DREAM_LAYER_TXT2IMGPORT is not a setting \(in "),
        (b"DREAM_LAYER_TXT2IMG_PORT=port", "DREAM_LAYER_TXT2IMG_PORT"),
        (b"\nset DREAM_LAYER_API_KEY=secret", "line 2 of .* is not understood: set DREAM_LAYER_API_KEY$"),
        (b'$env:DREAM_LAYER_API_KEY="secret"', r"is not understood: \$env:DREAM_LAYER_API_KEY$"),
        (b"DREAM_LAYER_API_KEY: secret", "is not understood"),
        (b"DREAM_LAYER_API_KEY", "is not understood"),
    ],
)
def test_errors_in_the_env_file_have_a_reason_and_a_hint(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(content)
    with pytest.raises(SetupError, match=message) as error:
        load_settings(env_file=path)
    assert error.value.hint


def test_an_env_file_that_is_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be read"):
        load_settings(env_file=tmp_path)


def test_the_ports_of_the_control_service_may_be_equal() -> None:
    assert Settings(extras_port=5002, runs_port=5002).runs_port == 5002
    # engine_port is not checked if engine_url selects another engine.
    assert Settings(engine_url="http://127.0.0.1:1", engine_port=5001).txt2img_port == 5001


def test_a_misspelled_setting_gets_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError) as error:
        load(monkeypatch, TXT2IMGPORT="6001")
    assert error.value.hint == "did you mean DREAM_LAYER_TXT2IMG_PORT?"


def test_relative_folders_are_resolved_from_the_project_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(monkeypatch, DATA_DIR="elsewhere", COMFYUI_DIR="~/ComfyUI")
    assert settings.data_dir == PROJECT_DIR / "elsewhere"
    assert settings.comfyui_dir == Path.home() / "ComfyUI"


def test_a_public_address_with_a_key_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, HOST="0.0.0.0", API_KEY="correct horse battery").host == "0.0.0.0"


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "correct horse battery" not in repr(load(monkeypatch, API_KEY="correct horse battery"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_loopback_addresses_are_recognized(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
