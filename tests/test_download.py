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


class Patience:
    """Waits no time, and writes down how long it should have."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)


def fetch(server: FileServer, folder: Path, patience: Patience | None = None, **known: Any) -> Downloader:
    return Downloader(Download(f"{server.url}/{NAME}", NAME, **known), folder, patience or Patience())


def left(folder: Path, suffix: str = ".part") -> list[int]:
    return [path.stat().st_size for path in folder.glob(f"*{suffix}")]


def test_a_file_is_fetched_and_checked(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content)
    one = fetch(server, tmp_path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    assert one.run().read_bytes() == content
    # What is complete is not asked for again.
    assert fetch(server, tmp_path).run().read_bytes() == content
    assert len(server.seen) == 1
    one.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_broken_connection_is_gone_on_with(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content, breaks=[1000, 50_000])
    patience = Patience()
    assert fetch(server, tmp_path, patience).run().read_bytes() == content
    assert server.ranges == [None, "bytes=1000-", "bytes=51000-"]
    assert patience.waits == [1.0, 1.0]


def test_what_was_left_is_gone_on_with_by_the_next_command(server: FileServer, tmp_path: Path, content: bytes) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    server.files[f"/{NAME}"] = File(content, breaks=[1000])
    with pytest.raises(KeyboardInterrupt):
        Downloader(Download(f"{server.url}/{NAME}", NAME), tmp_path, interrupt).run()
    assert left(tmp_path) == [1000]
    assert fetch(server, tmp_path).run().read_bytes() == content
    assert server.ranges == [None, "bytes=1000-"]


def test_a_file_that_changed_meanwhile_is_begun_anew(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content, breaks=[1000])
    source = Download(f"{server.url}/{NAME}", NAME)
    with pytest.raises(SetupError, match="answered 404"):
        Downloader(source, tmp_path, lambda _seconds: server.files.clear()).run()
    assert left(tmp_path) == [1000]
    other = content[:-1] + b"x"
    server.files[f"/{NAME}"] = File(other, etag='"two"')
    assert fetch(server, tmp_path).run().read_bytes() == other


def test_a_server_without_ranges_sends_it_all_again(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content, breaks=[1000], ranges=False)
    assert fetch(server, tmp_path).run().read_bytes() == content


def test_patience_ends_with_a_server_that_always_begins_anew(
    server: FileServer, tmp_path: Path, content: bytes
) -> None:
    server.files[f"/{NAME}"] = File(content, breaks=[2000, 500, 1000, 700] * 5, ranges=False)
    with pytest.raises(SetupError, match=r"6 times in a row"):
        fetch(server, tmp_path).run()


def test_patience_does_not_end_while_a_changed_file_comes_in_pieces(
    server: FileServer, tmp_path: Path, content: bytes
) -> None:
    source = Download(f"{server.url}/{NAME}", NAME)
    server.files[f"/{NAME}"] = File(content, breaks=[len(content) // 2])
    with pytest.raises(SetupError, match="answered 404"):
        Downloader(source, tmp_path, lambda _seconds: server.files.clear()).run()
    pieces = [len(content) // 20] * 19
    other = content[:-1] + b"x"
    server.files[f"/{NAME}"] = File(other, etag='"two"', breaks=pieces)
    assert fetch(server, tmp_path).run().read_bytes() == other


def test_a_part_that_nothing_vouches_for_is_begun_anew(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content)
    one = fetch(server, tmp_path)
    one.part.write_bytes(b"rubbish")
    assert one.run().read_bytes() == content
    assert server.ranges == [None]


def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content, answers=[503, 429])
    patience = Patience()
    assert fetch(server, tmp_path, patience).run().read_bytes() == content
    assert patience.waits == [1.0, 2.0]


def test_patience_ends_and_the_part_is_kept(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content, breaks=[1000, *[0] * 20])
    patience = Patience()
    with pytest.raises(SetupError, match=r"6 times in a row") as failed:
        fetch(server, tmp_path, patience).run()
    assert "the same command continues it" in str(failed.value.hint)
    assert left(tmp_path) == [1000]
    assert patience.waits == [1.0, *RETRY_DELAYS]


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="the connection failed"):
        Downloader(Download(f"http://127.0.0.1:1/{NAME}", NAME), tmp_path, Patience()).run()


def test_a_wrong_hash_is_an_error_and_the_file_goes(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content)
    with pytest.raises(SetupError, match="sha256 is not the expected one"):
        fetch(server, tmp_path, sha256="0" * 64).run()
    assert left(tmp_path) == []


def test_a_wrong_size_is_an_error(server: FileServer, tmp_path: Path, content: bytes) -> None:
    # The server's own word comes first; without it, what the list says.
    server.files[f"/{NAME}"] = File(content, headers={"Content-Encoding": "x"})
    with pytest.raises(SetupError, match="bytes instead of 5"):
        fetch(server, tmp_path, size=5).run()


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><p>log in", b'{"error": "no"}'])
def test_what_is_no_model_is_given_up_at_once(server: FileServer, tmp_path: Path, page: bytes) -> None:
    server.files[f"/{NAME}"] = File(page)
    with pytest.raises(SetupError, match="not a model file"):
        fetch(server, tmp_path).run()
    assert left(tmp_path) == []


@pytest.mark.parametrize(("code", "hint"), [(404, "check the URL"), (401, "requires a login"), (400, None)])
def test_a_refusal_is_final(server: FileServer, tmp_path: Path, code: int, hint: str | None) -> None:
    server.files[f"/{NAME}"] = File(b"", answers=[code])
    with pytest.raises(SetupError, match=f"answered {code}") as refused:
        fetch(server, tmp_path).run()
    assert (hint or "") in (refused.value.hint or "")
    assert len(server.seen) == 1


def test_a_gated_file_says_what_to_do(server: FileServer, tmp_path: Path) -> None:
    server.files[f"/{NAME}"] = File(b"", answers=[403])
    with pytest.raises(SetupError) as refused:
        fetch(server, tmp_path, hub=True).run()
    assert "HF_TOKEN" in str(refused.value.hint)


def test_too_little_room_is_reported_before_the_download(
    server: FileServer, tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files[f"/{NAME}"] = File(content)
    usage = type(shutil.disk_usage(tmp_path))(10**12, 10**12, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(SetupError, match="nothing available") as refused:
        fetch(server, tmp_path).run()
    assert "DREAM_LAYER_DATA_DIR" in str(refused.value.hint)
    assert left(tmp_path) == []


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
            fetch(server, tmp_path).run()
    assert left(tmp_path) == [1000]
    assert fetch(server, tmp_path).run().read_bytes() == content
    assert server.ranges[-1] == "bytes=1000-"


def test_two_commands_do_not_fetch_into_one_file(server: FileServer, tmp_path: Path, content: bytes) -> None:
    server.files[f"/{NAME}"] = File(content)
    one = fetch(server, tmp_path)
    with FileLock(one.part.with_suffix(".lock")), pytest.raises(SetupError, match="already downloading"):
        one.run()


def test_the_server_names_the_file(server: FileServer, tmp_path: Path, content: bytes) -> None:
    disposition = 'attachment; filename="from header.safetensors"'
    server.files["/api/17"] = File(content, headers={"Content-Disposition": disposition})
    one = Downloader(Download(f"{server.url}/api/17", None), tmp_path, Patience())
    one.run()
    assert one.name == "from header.safetensors"


def test_the_hub_says_the_hash_and_the_token_stays_with_it(server: FileServer, tmp_path: Path, content: bytes) -> None:
    with file_server() as store:
        # Another host by its name, as the hub's store is.
        elsewhere = store.url.replace("127.0.0.1", "localhost")
        linked = {"X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        server.files[f"/{NAME}"] = File(b"", redirect=f"{elsewhere}/store", headers=linked)
        store.files["/store"] = File(content, breaks=[1000])
        headers = {"Authorization": "Bearer secret"}
        assert fetch(server, tmp_path, hub=True, headers=headers).run().read_bytes() == content
        assert [each[2] for each in server.seen] == ["Bearer secret"] * 2
        assert store.seen == [("/store", None, None), ("/store", "bytes=1000-", None)]

        store.files["/store"] = File(content[:-1] + b"x")
        with pytest.raises(SetupError, match="sha256"):
            fetch(server, tmp_path / "other", hub=True, headers=headers).run()
        # A known file that is not what the list says is not fetched first.
        count = len(store.seen)
        with pytest.raises(SetupError, match="has changed"):
            fetch(server, tmp_path / "third", hub=True, sha256="0" * 64).run()
        assert len(store.seen) == count + 1
        assert left(tmp_path / "third") == []


def test_no_error_shows_what_is_in_the_address(server: FileServer, tmp_path: Path) -> None:
    for url in (f"{server.url}/{NAME}?token=secret", f"http://127.0.0.1:1/{NAME}?token=secret", "http://[::1/?secret"):
        with pytest.raises(SetupError) as refused:
            Downloader(Download(url, NAME), tmp_path, Patience()).run()
        assert "secret" not in f"{refused.value.message} {refused.value.hint}"
        assert "secret" not in repr(Download(url, NAME))
