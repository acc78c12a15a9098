"""The device and arguments that the engine is started with."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from shared.engine import process
from shared.engine.process import engine_command, use_cpu
from shared.settings import Settings


def fake_torch(folder: Path, monkeypatch: pytest.MonkeyPatch, version_py: str) -> None:
    package = folder / "site" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "version.py").write_text(version_py)
    monkeypatch.syspath_prepend(package.parent)


@pytest.mark.parametrize(
    ("version_py", "expected"),
    [
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", {"cuda": "13.0"}),
        ('cuda: Optional[str] = None\nhip: Optional[str] = "6.4.1"\n', {"hip": "6.4.1"}),
        ("__version__ = '2.11.0+cpu'\ncuda: Optional[str] = None\nxpu: Optional[str] = None\n", {}),
    ],
)
def test_the_backends_of_torch_are_read_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version_py: str, expected: dict[str, str]
) -> None:
    fake_torch(tmp_path, monkeypatch, version_py)
    assert process.torch_backends() == expected


@pytest.mark.parametrize(("driver", "usable"), [(0, False), (12080, False), (13000, True), (13010, True)])
def test_a_gpu_is_usable_when_its_driver_is_new_enough_for_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: int, usable: bool
) -> None:
    fake_torch(tmp_path, monkeypatch, "cuda: Optional[str] = '13.0'\n")
    monkeypatch.setattr(process.sys, "platform", "linux")
    monkeypatch.setattr(process, "cuda_driver_version", lambda: driver)
    assert process.has_usable_gpu() is usable
    assert use_cpu(Settings()) is not usable


def test_the_device_setting_takes_precedence_over_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.engine.process.has_usable_gpu", lambda: True)
    assert use_cpu(Settings(device="cpu"))
    assert not use_cpu(Settings(device="auto"))
    monkeypatch.setattr("shared.engine.process.has_usable_gpu", lambda: False)
    assert not use_cpu(Settings(device="gpu"))
    assert use_cpu(Settings(device="auto"))


def test_the_engine_uses_only_the_data_folder_and_loopback(tmp_path: Path) -> None:
    command = engine_command(Settings(engine_port=9000), Path("/engine"), tmp_path, cpu=True)
    options = dict(pairwise(command))
    assert command[0] == str(Path("/engine/main.py"))
    assert options["--listen"] == "127.0.0.1"
    assert options["--port"] == "9000"
    for argument in ("--base-directory", "--user-directory", "--front-end-root", "--database-url"):
        assert tmp_path.as_posix() in options[argument].replace("\\", "/")
    assert "--cpu" in command
    assert "--extra-model-paths-config" not in command


def test_the_settings_choose_page_device_and_further_arguments(tmp_path: Path) -> None:
    settings = Settings(engine_page=True, engine_args=("--lowvram",))
    command = engine_command(settings, Path("/engine"), tmp_path, cpu=False)
    assert "--front-end-root" not in command
    assert "--cpu" not in command
    assert command[-1] == "--lowvram"


def test_models_and_nodes_of_the_users_own_comfyui_are_added(tmp_path: Path) -> None:
    own = tmp_path / "ComfyUI"
    (own / "models" / "checkpoints").mkdir(parents=True)
    (own / "models" / "loras").mkdir()
    command = engine_command(Settings(comfyui_dir=own), own, tmp_path / "data", cpu=True)
    config = Path(command[command.index("--extra-model-paths-config") + 1])
    assert json.loads(config.read_text())["own_comfyui"] == {
        "base_path": str(own),
        "custom_nodes": "custom_nodes",
        "checkpoints": "models/checkpoints",
        "loras": "models/loras",
    }


def test_exactly_one_attention_option_is_passed(tmp_path: Path) -> None:
    ours = engine_command(Settings(), tmp_path, tmp_path, cpu=True)
    assert "--use-pytorch-cross-attention" in ours
    assert "--use-pytorch-cross-attention" not in engine_command(Settings(), tmp_path, tmp_path, cpu=False)
    theirs = Settings(engine_args="--use-split-cross-attention")
    command = engine_command(theirs, tmp_path, tmp_path, cpu=True)
    assert [argument for argument in command if "cross-attention" in argument] == ["--use-split-cross-attention"]
