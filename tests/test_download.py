"""Downloads from a local server, with interruptions and errors."""

import errno
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from launcher.models import download
from launcher.models.download import RETRY_DELAYS, Downloader
from launcher.models.sources import Download
from shared.errors import SetupError
from tests import safetensors_factory as factory
from tests.file_server import File, FileServer, file_server

NAME = "model.safetensors"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = factory.write_safetensors(
        tmp_path_factory.mktemp("content") / NAME, {"body.0.weight": ("F16", (64, 3, 30, 30))}
    )
    return path.read_bytes()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        yield running


class RecordedWaits:
    """Records the seconds to wait, and returns at once."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def make_downloader(server: FileServer, folder: Path, waits: RecordedWaits | None = None, **known: Any) -> Downloader:
    return Downloader(Download(f"{server.url}/{NAME}", NAME, **known), folder, waits or RecordedWaits())


def part_sizes(folder: Path, suffix: str = ".part") -> list[int]:
    return [path.stat().st_size for path in folder.glob(f"*{suffix}")]


def test_a_file_is_downloaded_and_checked(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content)
    downloader = make_downloader(server, tmp_path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    assert downloader.run().read_bytes() == content
    # A complete file is not downloaded again.
    assert make_downloader(server, tmp_path).run().read_bytes() == content
    assert len(server.seen) == 1
    downloader.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_download_resumes_after_a_broken_connection(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content, breaks=[1000, 50_000])
    waits = RecordedWaits()
    assert make_downloader(server, tmp_path, waits).run().read_bytes() == content
    assert server.ranges == [None, "bytes=1000-", "bytes=51000-"]
    assert waits.seconds == [1.0, 1.0]


def test_the_next_command_resumes_an_interrupted_download(server: FileServer, tmp_path: Path, content: bytes) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    server.files[f"/{NAME}"] = File(content, breaks=[1000])
    with pytest.raises(KeyboardInterrupt):
        Downloader(Download(f"{server.url}/{NAME}", NAME), tmp_path, interrupt).run()
    assert part_sizes(tmp_path) == [1000]
    assert make_downloader(server, tmp_path).run().read_bytes() == content
    assert server.ranges == [None, "bytes=1000-"]


def test_a_file_that_has_changed_is_downloaded_from_the_start(
    server: FileServer, tmp_path: Path, content: bytes
) -> None:
    server.files[f"/{NAME}"] = File(content, breaks=[1000])
    source = Download(f"{server.url}/{NAME}", NAME)
    with pytest.raises(SetupError, match="answered 404"):
        Downloader(source, tmp_path, lambda _seconds: server.files.clear()).run()
    assert part_sizes(tmp_path) == [1000]
    other = content[:-1] + b"x"
    server.files[f"/{NAME}"] = File(other, etag='"two"')
    assert make_downloader(server, tmp_path).run().read_bytes() == other


def test_without_ranges_the_download_starts_over(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content, breaks=[1000], ranges=False)
    assert make_downloader(server, tmp_path).run().read_bytes() == content


def test_retries_are_limited_for_a_server_without_ranges(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content, breaks=[2000, 500, 1000, 700] * 5, ranges=False)
    with pytest.raises(SetupError, match=r"6 times in a row"):
        make_downloader(server, tmp_path).run()


def test_progress_resets_the_retries_of_a_changed_file(server: FileServer, tmp_path: Path, content: bytes) -> None:
    source = Download(f"{server.url}/{NAME}", NAME)
    server.files[f"/{NAME}"] = File(content, breaks=[len(content) // 2])
    with pytest.raises(SetupError, match="answered 404"):
        Downloader(source, tmp_path, lambda _seconds: server.files.clear()).run()
    pieces = [len(content) // 20] * 19
    other = content[:-1] + b"x"
    server.files[f"/{NAME}"] = File(other, etag='"two"', breaks=pieces)
    assert make_downloader(server, tmp_path).run().read_bytes() == other


def test_a_part_without_a_record_is_not_resumed(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content)
    downloader = make_downloader(server, tmp_path)
    downloader.part.write_bytes(b"rubbish")
    assert downloader.run().read_bytes() == content
    assert server.ranges == [None]


def test_a_busy_server_is_retried(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content, answers=[503, 429])
    waits = RecordedWaits()
    assert make_downloader(server, tmp_path, waits).run().read_bytes() == content
    assert waits.seconds == [1.0, 2.0]


def test_the_part_is_kept_after_the_last_retry(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content, breaks=[1000, *[0] * 20])
    waits = RecordedWaits()
    with pytest.raises(SetupError, match=r"6 times in a row") as failed:
        make_downloader(server, tmp_path, waits).run()
    assert "the same command continues it" in str(failed.value.hint)
    assert part_sizes(tmp_path) == [1000]
    assert waits.seconds == [1.0, *RETRY_DELAYS]


def test_a_refused_connection_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="the connection failed"):
        Downloader(Download(f"http://127.0.0.1:1/{NAME}", NAME), tmp_path, RecordedWaits()).run()


def test_a_file_with_the_wrong_hash_is_deleted(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content)
    with pytest.raises(SetupError, match="sha256 is not the expected one"):
        make_downloader(server, tmp_path, sha256="0" * 64).run()
    assert part_sizes(tmp_path) == []


def test_a_wrong_size_is_an_error(server: FileServer, tmp_path: Path, content: bytes) -> None:
    # With Content-Encoding, the response has no usable size, so the size in the list counts.
    server.files[f"/{NAME}"] = File(content, headers={"Content-Encoding": "x"})
    with pytest.raises(SetupError, match="bytes instead of 5"):
        make_downloader(server, tmp_path, size=5).run()


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><p>log in", b'{"error": "no"}'])
def test_a_response_that_is_not_a_model_is_refused(server: FileServer, tmp_path: Path, page: bytes) -> None:
    server.files[f"/{NAME}"] = File(page)
    with pytest.raises(SetupError, match="not a model file"):
        make_downloader(server, tmp_path).run()
    assert part_sizes(tmp_path) == []


@pytest.mark.parametrize(("code", "hint"), [(404, "check the URL"), (401, "requires a login"), (400, None)])
def test_a_refusal_is_final(server: FileServer, tmp_path: Path, code: int, hint: str | None) -> None:
    server.files[f"/{NAME}"] = File(b"", answers=[code])
    with pytest.raises(SetupError, match=f"answered {code}") as refused:
        make_downloader(server, tmp_path).run()
    assert (hint or "") in (refused.value.hint or "")
    assert len(server.seen) == 1


def test_the_error_for_a_gated_file_names_the_token_variable(server: FileServer, tmp_path: Path) -> None:
    server.files[f"/{NAME}"] = File(b"", answers=[403])
    with pytest.raises(SetupError) as refused:
        make_downloader(server, tmp_path, hub=True).run()
    assert "HF_TOKEN" in str(refused.value.hint)


def test_too_little_room_is_reported_before_the_download(
    server: FileServer, tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files[f"/{NAME}"] = File(content)
    usage = type(shutil.disk_usage(tmp_path))(10**12, 10**12, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(SetupError, match="nothing available") as refused:
        make_downloader(server, tmp_path).run()
    assert "DREAM_LAYER_DATA_DIR" in str(refused.value.hint)
    assert part_sizes(tmp_path) == []


def test_a_disk_that_fills_up_leaves_the_part(
    server: FileServer, tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files[f"/{NAME}"] = File(content)

    def full(chunks: Iterator[bytes], file: Any, *_: object) -> None:
        file.write(next(chunks)[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(download, "_copy", full)
        with pytest.raises(SetupError, match="disk is full"):
            make_downloader(server, tmp_path).run()
    assert part_sizes(tmp_path) == [1000]
    assert make_downloader(server, tmp_path).run().read_bytes() == content
    assert server.ranges[-1] == "bytes=1000-"


def test_two_commands_do_not_download_the_same_file(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content)
    downloader = make_downloader(server, tmp_path)
    with FileLock(downloader.part.with_suffix(".lock")), pytest.raises(SetupError, match="already downloading"):
        downloader.run()


def test_the_server_names_the_file(server: FileServer, tmp_path: Path, content: bytes) -> None:
    disposition = 'attachment; filename="from header.safetensors"'
    server.files["/api/17"] = File(content, headers={"Content-Disposition": disposition})
    downloader = Downloader(Download(f"{server.url}/api/17", None), tmp_path, RecordedWaits())
    downloader.run()
    assert downloader.name == "from header.safetensors"


def test_the_hash_comes_from_the_hub_and_only_the_hub_gets_the_token(
    server: FileServer, tmp_path: Path, content: bytes
) -> None:
    with file_server() as store:
        # Another host name, as for the store of the hub.
        elsewhere = store.url.replace("127.0.0.1", "localhost")
        linked = {"X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        server.files[f"/{NAME}"] = File(b"", redirect=f"{elsewhere}/store", headers=linked)
        store.files["/store"] = File(content, breaks=[1000])
        headers = {"Authorization": "Bearer secret"}
        assert make_downloader(server, tmp_path, hub=True, headers=headers).run().read_bytes() == content
        assert [request[2] for request in server.seen] == ["Bearer secret"] * 2
        assert store.seen == [("/store", None, None), ("/store", "bytes=1000-", None)]

        store.files["/store"] = File(content[:-1] + b"x")
        with pytest.raises(SetupError, match="sha256"):
            make_downloader(server, tmp_path / "other", hub=True, headers=headers).run()
        # A file whose hash differs from the list is not downloaded.
        count = len(store.seen)
        with pytest.raises(SetupError, match="has changed"):
            make_downloader(server, tmp_path / "third", hub=True, sha256="0" * 64).run()
        assert len(store.seen) == count + 1
        assert part_sizes(tmp_path / "third") == []


def test_errors_do_not_show_secrets_in_the_address(server: FileServer, tmp_path: Path) -> None:
    for url in (f"{server.url}/{NAME}?token=secret", f"http://127.0.0.1:1/{NAME}?token=secret", "http://[::1/?secret"):
        with pytest.raises(SetupError) as refused:
            Downloader(Download(url, NAME), tmp_path, RecordedWaits()).run()
        assert "secret" not in f"{refused.value.message} {refused.value.hint}"
        assert "secret" not in repr(Download(url, NAME))
