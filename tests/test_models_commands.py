"""`dream_layer.py models`: add, remove and list files."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from launcher.arguments import build_parser
from launcher.models import library
from launcher.models.commands import run_models
from launcher.models.download import remove_unfinished
from launcher.models.library import check_name, install_file, list_models
from launcher.models.sources import Download, resolve_source
from launcher.terminal import size_text
from shared.errors import SetupError
from shared.models.downloadable import DOWNLOADABLE_MODELS
from shared.models.storage import RESERVED_BYTES
from shared.settings import PREFIX, PROJECT_DIR
from shared.site_keys import KeyRing
from tests import safetensors_factory as factory
from tests.file_server import File, FileServer, file_server


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models folder of these tests."""
    monkeypatch.setenv(f"{PREFIX}DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data" / "models"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        yield running


def write_embedding(folder: Path, name: str = "mine.safetensors") -> Path:
    return factory.write(folder / name, {"emb_params": (2, 768)})


def command(*arguments: str) -> int:
    return run_models(build_parser().parse_args(["models", *arguments]))


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert command(*arguments) == 1
    return capsys.readouterr().err


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_added_without_using_more_disk_space(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = factory.write(tmp_path / "big.safetensors", factory.sdxl_checkpoint())
    assert command("add", str(source)) == 0
    added = models / "checkpoints" / "big.safetensors"
    assert added.samefile(source)
    assert "checkpoints/big.safetensors (SDXL, " in capsys.readouterr().out
    assert files(models) == {"checkpoints/big.safetensors"}


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.EPERM])
def test_a_file_that_cannot_be_linked_is_copied(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    """The file is on another disk, or the disk does not support links."""
    source = write_embedding(tmp_path)

    def no_links(*_: object, **__: object) -> None:
        raise OSError(reason, os.strerror(reason))

    def copy(source: Path, target: Path) -> None:
        shutil.copyfile(source, target)
        # An interrupted copy would leave this file; a copy in progress is not removed.
        assert [path.suffix for path in (models / library.DOWNLOADS).glob("*.part")] == [".part"]
        assert remove_unfinished(models / library.DOWNLOADS) == []

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr("launcher.models.commands.copy_file", copy)
    assert command("add", str(source)) == 0
    assert (models / "embeddings" / source.name).read_bytes() == source.read_bytes()
    assert files(models) == {"embeddings/mine.safetensors"}


def test_a_file_that_does_not_fit_on_the_disk_is_not_copied(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_embedding(tmp_path)

    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", no_links)
    usage = type(shutil.disk_usage(tmp_path))(10**12, 10**12, RESERVED_BYTES + 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert command("add", str(source)) == 1
    assert "1 kB available" in capsys.readouterr().err
    assert files(models) == set()


def test_nothing_is_overwritten_unless_forced(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = write_embedding(tmp_path / "old")
    new = factory.write(tmp_path / "new" / "mine.safetensors", {"emb_params": (3, 768)})
    assert command("add", str(old)) == 0
    error = error_of(capsys, "add", str(new))
    assert "embeddings/mine.safetensors" in error
    assert "--force" in error
    installed = models / "embeddings" / "mine.safetensors"
    assert installed.read_bytes() == old.read_bytes()
    assert command("add", str(new), "--name", "other.safetensors") == 0
    assert command("add", str(new), "--force") == 0
    assert installed.read_bytes() == new.read_bytes()
    assert "until the engine restarts" in capsys.readouterr().out
    # --force with the same file: both names are links to it.
    assert command("add", str(new), "--force") == 0
    assert files(models) == {"embeddings/mine.safetensors", "embeddings/other.safetensors"}
    assert "is already in the models folder" in error_of(capsys, "add", str(installed), "--force")


def test_a_file_created_at_the_last_moment_is_not_overwritten(tmp_path: Path) -> None:
    aside, target = write_embedding(tmp_path, "aside.safetensors"), tmp_path / "loras" / "x.safetensors"
    target.parent.mkdir()
    target.write_bytes(b"theirs")
    with pytest.raises(SetupError, match="already"):
        install_file(aside, target, force=False)
    assert target.read_bytes() == b"theirs"
    assert aside.is_file()


@pytest.mark.parametrize(
    ("typed", "kind"),
    [
        *(
            (spelling, "loras")
            for spelling in ("lora", "LoRA", "Loras", "loras/", "models/Lora", r"C:\ComfyUI\models\loras", "lycoris")
        ),
        *(("checkpoint", "checkpoints"), ("Stable-diffusion", "checkpoints"), ("ckpt", "checkpoints")),
        *(("upscaler", "upscale_models"), ("ESRGAN", "upscale_models"), ("upscale models", "upscale_models")),
        *(("text-encoder", "text_encoders"), ("clip", "text_encoders"), ("UNET", "diffusion_models")),
        *(("ControlNets", "controlnet"), ("embedding", "embeddings"), ("VAE", "vae"), ("clip_vision", "clip_vision")),
    ],
)
def test_a_kind_is_accepted_in_any_spelling(typed: str, kind: str, models: Path, tmp_path: Path) -> None:
    unclear = factory.write(tmp_path / "unclear.safetensors", {"weight": (4, 4)})
    assert command("add", str(unclear), "--kind", typed) == 0
    assert (models / kind / "unclear.safetensors").is_file()


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("lorra", "did you mean loras? the kinds are"),
        ("chekpoint", "did you mean checkpoints?"),
        ("controllnet", "did you mean controlnet?"),
        ("../loras", "the kinds are checkpoints"),
        ("models", "the kinds are checkpoints"),
        ("", "the kinds are checkpoints"),
    ],
)
def test_an_unknown_kind_is_refused_with_a_suggestion(
    typed: str, hint: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unclear = factory.write(tmp_path / "unclear.safetensors", {"weight": (4, 4)})
    error = error_of(capsys, "add", str(unclear), "--kind", typed)
    assert f"there is no kind {typed}" in error
    assert hint in error
    assert not models.exists()


def test_files_that_are_not_models_are_refused(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = write_embedding(tmp_path, "cut.safetensors")
    cut.write_bytes(cut.read_bytes()[:200])
    assert "not a complete .safetensors file" in error_of(capsys, "add", str(cut))
    unclear = factory.write(tmp_path / "unclear.safetensors", {"weight": (4, 4)})
    assert "--kind" in error_of(capsys, "add", str(unclear))
    assert command("add", str(unclear), "--kind", "loras") == 0
    pickle = tmp_path / "old.pth"
    pickle.write_bytes(b"...")
    assert "--allow-pickle" in error_of(capsys, "add", str(pickle))
    assert command("add", str(pickle), "--allow-pickle", "--kind", "upscale_models") == 0
    assert "does not have the extension of a model file" in error_of(capsys, "add", str(unclear), "--name", "a.txt")
    assert "is not the expected one" in error_of(capsys, "add", str(write_embedding(tmp_path)), "--sha256", "0" * 64)
    assert "64 hexadecimal" in error_of(capsys, "add", str(write_embedding(tmp_path)), "--sha256", "abc")
    assert "is a folder" in error_of(capsys, "add", str(tmp_path))
    assert files(models) == {"loras/unclear.safetensors", "upscale_models/old.pth"}


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a\\b", ".x", "x.", "con", "NUL.safetensors", "a\nb", "C:x", "x" * 300]
)
def test_an_unsafe_file_name_is_refused(name: str) -> None:
    with pytest.raises(SetupError, match="is not a valid file name"):
        check_name(f"{name}.safetensors" if len(name) == 300 else name, pickle=True)


def test_a_url_is_downloaded_and_added(
    models: Path, tmp_path: Path, server: FileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    content = write_embedding(tmp_path).read_bytes()
    server.files["/a file.safetensors"] = server.files["/a%20file.safetensors"] = File(content, breaks=[100])
    url = f"{server.url}/a%20file.safetensors?token=secret"
    assert command("add", url, "--sha256", hashlib.sha256(content).hexdigest()) == 0
    assert files(models) == {"embeddings/a file.safetensors"}
    assert "secret" not in "".join(capsys.readouterr())
    # The file exists, but only its header determines its folder. The download is kept for a command with --name.
    assert "--name" in error_of(capsys, "add", url)
    count = len(server.seen)
    assert command("add", url, "--name", "second.safetensors") == 0
    assert len(server.seen) == count
    assert files(models) == {"embeddings/a file.safetensors", "embeddings/second.safetensors"}
    # With --kind, the conflict is detected before the download.
    assert "already" in error_of(capsys, "add", url, "--kind", "embeddings")
    assert len(server.seen) == count


def test_a_download_that_is_not_a_model_is_downloaded_again(
    models: Path, tmp_path: Path, server: FileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    content = write_embedding(tmp_path).read_bytes()
    server.files["/x.safetensors"] = File(content[:-1])
    assert "not a complete" in error_of(capsys, "add", f"{server.url}/x.safetensors")
    assert files(models) == set()
    server.files["/x.safetensors"] = File(content)
    assert command("add", f"{server.url}/x.safetensors") == 0


@pytest.mark.slow
def test_a_closed_output_pipe_is_not_an_error(tmp_path: Path) -> None:
    environ = {**os.environ, f"{PREFIX}DATA_DIR": str(tmp_path)}
    read, write = os.pipe()
    os.close(read)
    listing = subprocess.run(
        [sys.executable, "dream_layer.py", "models", "list"],
        cwd=PROJECT_DIR,
        env=environ,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert (listing.returncode, listing.stderr) == (0, "")


def test_a_url_without_a_file_name_needs_a_name(
    models: Path, tmp_path: Path, server: FileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["/api/17"] = File(write_embedding(tmp_path).read_bytes())
    assert "--name" in error_of(capsys, "add", f"{server.url}/api/17")
    assert command("add", f"{server.url}/api/17", "--name", "x.safetensors") == 0
    server.files["/api/18"] = File(
        b"x" * 8 + b"{" * 99, headers={"Content-Disposition": 'attachment; filename="../../x.safetensors"'}
    )
    assert "is not a valid file name" in error_of(capsys, "add", f"{server.url}/api/18")
    (part,) = (models / library.DOWNLOADS).glob("*.part")
    with FileLock(part.with_suffix(".lock")):
        assert command("remove", "--unfinished", "--yes") == 0
        assert part.is_file()
    assert "--yes" in error_of(capsys, "remove", "--unfinished")
    assert command("remove", "--unfinished", "--yes") == 0
    assert files(models) == {"embeddings/x.safetensors"}


@pytest.mark.slow
def test_a_hub_url_is_downloaded_with_the_token(tmp_path: Path, server: FileServer) -> None:
    """In a separate process, because huggingface_hub reads its endpoint and token on import."""
    content = factory.write(tmp_path / "x.safetensors", {"emb_params": (2, 768)}).read_bytes()
    headers = {"X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
    server.files["/me/mine/resolve/main/deep/x.safetensors"] = File(content, headers=headers)
    environ = {
        **os.environ,
        f"{PREFIX}DATA_DIR": str(tmp_path / "data"),
        "HF_ENDPOINT": server.url,
        "HF_TOKEN": "hf_secret",
        "HF_HOME": str(tmp_path / "home"),
    }

    def run_process(*arguments: str) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, "-W", "error", "dream_layer.py", "models", *arguments]
        return subprocess.run(line, cwd=PROJECT_DIR, env=environ, capture_output=True, text=True, timeout=60)

    added = run_process("add", f"{server.url}/me/mine/blob/main/deep/x.safetensors")
    assert added.returncode == 0, added.stderr
    assert server.seen == [("/me/mine/resolve/main/deep/x.safetensors", None, "Bearer hf_secret")]
    assert "hf_secret" not in added.stdout + added.stderr
    # A known model is requested from the same host, which does not have the file.
    absent = run_process("add", "sdxl turbo")
    assert absent.returncode == 1
    assert (
        server.seen[-1][0]
        == f"/{DOWNLOADABLE_MODELS['sdxl-turbo'].repository}/resolve/main/{DOWNLOADABLE_MODELS['sdxl-turbo'].file}"
    )
    assert "answered 404" in absent.stderr
    assert "Traceback" not in absent.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows sends a Ctrl-C to a whole terminal")
def test_a_download_interrupted_by_ctrl_c_is_resumed_by_the_same_command(tmp_path: Path, server: FileServer) -> None:
    content = factory.write(tmp_path / "x.safetensors", {"emb_params": (20, 768)}).read_bytes()
    server.files["/x.safetensors"] = File(content, stalls=[5000])
    line = [sys.executable, "dream_layer.py", "models", "add", f"{server.url}/x.safetensors"]
    environ = {**os.environ, f"{PREFIX}DATA_DIR": str(tmp_path / "data")}
    first = subprocess.Popen(line, cwd=PROJECT_DIR, env=environ, stderr=subprocess.PIPE, text=True)
    folder = tmp_path / "data" / "models"
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in folder.glob(f"{library.DOWNLOADS}/*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    errors = first.communicate(timeout=30)[1]
    assert first.returncode == 130
    assert "run the same command to continue" in errors
    assert "Traceback" not in errors
    subprocess.run(line, cwd=PROJECT_DIR, env=environ, check=True, timeout=60)
    assert server.ranges[1] is not None
    assert (folder / "embeddings" / "x.safetensors").read_bytes() == content
    assert files(folder) == {"embeddings/x.safetensors"}


def test_an_unknown_name_is_refused_with_a_suggestion(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean sdxl-turbo?" in error_of(capsys, "add", "sdxl-trubo")
    assert "the names are" in error_of(capsys, "add", "zzz")
    assert "no host" in error_of(capsys, "add", "http://")


def test_the_list_shows_family_size_and_state(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list") == 0
    assert "no models yet" in capsys.readouterr().out
    factory.write(models / "checkpoints" / "sub" / "big.safetensors", factory.sdxl_checkpoint())
    factory.write(models / "diffusion_models" / "paint.safetensors", factory.sd1_unet(9))
    factory.write(models / "text_encoders" / "t5.safetensors", factory.t5xxl())
    factory.write(models / "vae" / "ae.safetensors", factory.autoencoder(16))
    (models / "checkpoints" / DOWNLOADABLE_MODELS["sd15"].file).write_bytes(b"cut off")
    (models / library.DOWNLOADS).mkdir()
    (models / library.DOWNLOADS / "abc.part").write_bytes(b"x" * 5_000_000)
    assert command() == 0
    output = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in output.splitlines()]
    size = size_text((models / "checkpoints" / "sub" / "big.safetensors").stat().st_size)
    assert f"sub/big.safetensors SDXL {size}" in lines
    assert any(line.startswith("paint.safetensors SD 1, inpainting") for line in lines)
    assert any(line.startswith("t5.safetensors t5xxl") for line in lines)
    assert any(line.startswith("ae.safetensors 16 channels") for line in lines)
    assert f"{DOWNLOADABLE_MODELS['sd15'].file} unreadable header 1 kB" in lines
    assert "unfinished: 1 file, 5 MB" in output
    assert any(line.startswith("sd15 Stable Diffusion 1.5 4.3 GB") and "installed" in line for line in lines)
    assert max(map(len, output.splitlines()[2:])) <= 120


def test_models_are_removed_by_name_after_confirmation(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("loras/ink.safetensors", "vae/ink.safetensors", "loras/style/Glow.safetensors"):
        write_embedding(models, name)
    assert "may be any of vae/ink.safetensors, loras/ink.safetensors" in error_of(capsys, "remove", "ink", "--yes")
    assert "did you mean ink" in error_of(capsys, "remove", "imk", "--yes")
    assert "--yes" in error_of(capsys, "remove", "vae/ink")
    assert "name the model to remove" in error_of(capsys, "remove")
    assert command("remove", "vae/ink", "--yes") == 0
    assert command("remove", "glow", "--yes") == 0
    assert files(models) == {"loras/ink.safetensors"}

    answers = iter(["\n", "y\n"])
    monkeypatch.setattr(
        sys, "stdin", type("Terminal", (), {"isatty": lambda _: True, "readline": lambda _: next(answers)})()
    )
    assert "nothing was removed" in error_of(capsys, "remove", "ink")
    assert command("remove", "ink") == 0
    assert list_models(models) == []


def test_a_leftover_hard_link_of_a_killed_run_is_never_written_to(models: Path, tmp_path: Path) -> None:
    source = write_embedding(tmp_path)
    content = source.read_bytes()
    leftover = models / library.DOWNLOADS / f"{os.getpid()}-{source.name}.part"
    leftover.parent.mkdir(parents=True)
    os.link(source, leftover)
    assert command("add", str(source)) == 0
    assert source.read_bytes() == (models / "embeddings" / source.name).read_bytes() == content


def test_an_exact_match_of_case_comes_first(models: Path) -> None:
    for name in ("loras/Ink.safetensors", "loras/ink.safetensors"):
        write_embedding(models, name)
    assert command("remove", "loras/ink.safetensors", "--yes") == 0
    assert files(models) == {"loras/Ink.safetensors"}


def test_linked_folders_are_searched_once(models: Path, tmp_path: Path) -> None:
    write_embedding(tmp_path, "large/one.safetensors")
    write_embedding(models, "loras/two.safetensors")
    (models / "loras" / "linked").symlink_to(tmp_path / "large", target_is_directory=True)
    (tmp_path / "large" / "back").symlink_to(models / "loras", target_is_directory=True)
    assert [model.name for model in list_models(models)] == ["linked/one.safetensors", "two.safetensors"]
    assert command("remove", "one", "--yes") == 0
    assert files(tmp_path / "large") == set()


@pytest.mark.parametrize("link", ["a/sub", "z/sub"])
def test_a_folder_and_a_link_to_it_are_both_listed(models: Path, tmp_path: Path, link: str) -> None:
    other = {"a/sub": "z", "z/sub": "a"}[link]
    for name in ("a", "z"):
        (models / "loras" / name).mkdir(parents=True)
    write_embedding(models, f"loras/{other}/one.safetensors")
    (models / "loras" / link).symlink_to(models / "loras" / other, target_is_directory=True)
    names = {model.name for model in list_models(models)}
    assert names == {f"{other}/one.safetensors", f"{link}/one.safetensors"}


@pytest.mark.parametrize("source", ["~nobody-of-that-name/x.safetensors", "https://a..b/x.safetensors"])
def test_an_invalid_source_is_refused(source: str, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "models" in error_of(capsys, "add", source)
    assert list_models(models) == []


def test_a_damaged_key_file_is_reported_only_where_a_key_is_needed(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models.parent.mkdir(parents=True)
    (models.parent / "api-keys.json").write_text('{"civitai": "x",}')
    assert "api-keys.json cannot be read" in error_of(capsys, "add", "https://civitai.com/x.safetensors")
    assert isinstance(resolve_source("https://example.org/x.safetensors", KeyRing(models.parent)), Download)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "nothing"), (7, "1 kB"), (340_000_000, "340 MB"), (999_600_000, "1.0 GB"), (6_938_078_334, "6.9 GB")],
)
def test_sizes_are_readable(size: int, text: str) -> None:
    assert size_text(size) == text
