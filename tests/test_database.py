"""The database of jobs: migrations, a full disk, concurrency, and statements for PostgreSQL."""

import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateIndex, CreateTable

from shared.errors import SetupError, StorageFailed
from shared.jobs import migrations
from shared.jobs.database import metadata
from shared.jobs.job import JobSpec, JobUpdate, NewJob, State
from shared.jobs.store import Store
from shared.settings import PROJECT_DIR

MANY = 10_000


def new_job(**spec: Any) -> NewJob:
    return NewJob(str(uuid.uuid4()), "txt2img", "127.0.0.1", "txt2img", JobSpec(**spec))


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/jobs.sqlite"


def open_first_version(folder: Path) -> Store:
    """Open a database of the first version, with a completed job and an orphan."""
    connection = sqlite3.connect(folder / "jobs.sqlite")
    connection.executescript((Path(__file__).parent / "data" / "jobs_1.sql").read_text(encoding="utf-8"))
    connection.close()
    return Store(url(folder))


def test_jobs_of_the_first_version_are_migrated(tmp_path: Path) -> None:
    store = open_first_version(tmp_path)
    row = store.find_by_key("key")
    assert row is not None
    assert (row.state, row.model, row.work, len(row.images)) == (State.COMPLETED, "model.safetensors", 4096.0, 1)
    assert row.spec == JobSpec(
        parameters={"prompt": "a red circle", "seed": 7, "width": 64, "height": 64},
        graph=row.spec.graph,
        warnings=("steps was rounded",),
        uploads={"a.png": "dream-layer", "b.png": None},
        seeds=(7,),
        size=(64, 64),
        previews=True,
        label_parameters={"scheduler": "karras"},
        embeds_parameters=False,
    )
    assert row.spec.graph.keys() == {"SaveImage"}
    assert [event.name for event in store.events(row.id, 0)] == ["queued", "completed"]
    assert [stored.spec.parameters["seed"] for stored in store.page().rows] == [7, 7]
    (reclaimed,) = store.reclaim_orphans("me", time.time())
    assert (reclaimed.kind, reclaimed.state, reclaimed.worker) == ("img2img", State.QUEUED, "me")
    store.close()


@pytest.mark.parametrize(
    "open_store", [lambda folder: Store(url(folder)), open_first_version], ids=["new", "first version"]
)
def test_migrations_create_the_tables_of_the_module(open_store: Callable[[Path], Store], tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with store._read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == migrations.HEAD
    store.close()
    newest = ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head()
    assert newest == migrations.HEAD


def test_migrations_log_nothing(tmp_path: Path) -> None:
    """Runs in a new process, because Alembic logs its plugins on the first import."""
    code = (
        "import logging\nlogging.basicConfig(level=logging.INFO)\nfrom shared.jobs.store import Store\n"
        f"Store({f'sqlite:///{tmp_path}/jobs.sqlite'!r}).close()\n"
    )
    opened = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_DIR, capture_output=True, text=True)
    assert (opened.returncode, opened.stderr) == (0, "")


def test_a_database_of_a_later_version_is_rejected_unchanged(tmp_path: Path) -> None:
    store = Store(url(tmp_path))
    row, _ = store.add(new_job(), "me", MANY)
    set_version = sa.text("UPDATE alembic_version SET version_num = :version")
    with store._write() as connection:
        connection.execute(set_version, {"version": "9999"})
    with pytest.raises(SetupError, match=f"has version 9999, but this program supports {migrations.HEAD}"):
        Store(url(tmp_path))
    with store._write() as connection:
        connection.execute(set_version, {"version": migrations.HEAD})
    reopened = Store(url(tmp_path))
    assert reopened.get(row.id) == row
    store.close()
    reopened.close()


def test_a_database_that_cannot_be_opened_is_a_setup_error(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"something else" * 1000)
    for path, message in (
        ("", "unable to open"),
        ("/no/such/folder", "unable to open"),
        ("/jobs.sqlite", "not a data"),
    ):
        with pytest.raises(StorageFailed, match=message):
            Store(f"sqlite:///{tmp_path}{path}")


def test_a_full_disk_rejects_new_jobs_and_damages_none(tmp_path: Path) -> None:
    store = Store(url(tmp_path))
    row, _ = store.add(new_job(), "me", MANY)

    def no_more_room(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")

    sa.event.listen(store._engine, "begin", no_more_room)
    with pytest.raises(StorageFailed, match="full"):
        store.add(new_job(parameters={"prompt": "x" * 1_000_000}), "me", MANY)
    sa.event.remove(store._engine, "begin", no_more_room)
    store.close()
    reopened = Store(url(tmp_path))
    assert [row.id for row in reopened.page().rows] == [row.id]
    assert reopened.get(row.id) == row
    assert reopened.add(new_job(parameters={"prompt": "x" * 1_000_000}), "me", MANY)[1]
    reopened.close()


def test_services_started_together_create_one_database(tmp_path: Path) -> None:
    # Another process is creating the same database.
    other = sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE something (a)")
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO something VALUES (1)")
    commit = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    commit.start()
    try:
        Store(url(tmp_path)).close()
    finally:
        commit.join()
        other.close()


def test_many_threads_with_two_stores_lose_nothing(tmp_path: Path) -> None:
    stores = [Store(url(tmp_path)), Store(url(tmp_path))]

    def work(number: int) -> None:
        store, worker = stores[number % 2], f"service {number}"
        for _ in range(20):
            row, _ = store.add(new_job(), worker, MANY)
            store.beat(worker)
            store.save(worker, [JobUpdate(row.id, time.time(), [("started", {}), ("progress", {"step": 1})])])
            assert store.finish(row, worker, State.COMPLETED)
            events = [event.name for event in store.events(row.id, 0)]
            assert events == ["queued", "started", "progress", "completed"]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert stores[0].count_unfinished() == 0
    rows = stores[1].page(limit=MANY).rows
    assert [row.number for row in rows] == list(range(160, 0, -1))
    for store in stores:
        store.close()


def test_every_statement_compiles_for_postgresql(tmp_path: Path) -> None:
    store, dialect = Store(url(tmp_path)), postgresql.dialect()  # type: ignore[no-untyped-call]
    statements: set[str] = set()

    def translate(_connection: Connection, clause: sa.ClauseElement, *_: object) -> None:
        statements.add(str(clause.compile(dialect=dialect)))

    sa.event.listen(store._engine, "before_execute", translate)
    row, _ = store.add(new_job(uploads={"a.png": "in"}), "me", MANY)
    store.beat("me")
    store.save("me", [JobUpdate(row.id, 1.0, [("started", {}), ("preview", {})])])
    store.requeue("me", [(row, 1)])
    store.reclaim_orphans("another", 0.0)
    store.finish(row, "another", State.COMPLETED)
    store.cancel(row.id, {})
    store.delete(row.id, lambda _: None)
    store.unfinished_of("service")
    store.page(states=[State.QUEUED], kind="txt2img", ids=[row.id], before=1)
    store.work_ahead(1)
    store.ends_at(row.id)
    store.measured(1)
    store.finished_before(1, 1)
    store.events(row.id, 0)
    store.last_event(row.id, "image")
    store.still_owned([row.id], "me")
    store.deregister("me")
    store.close()
    assert len(statements) > 20
    for table in metadata.sorted_tables:
        assert str(CreateTable(table).compile(dialect=dialect)).strip().startswith("CREATE TABLE")
        for index in table.indexes:
            assert str(CreateIndex(index).compile(dialect=dialect)).startswith("CREATE INDEX")
