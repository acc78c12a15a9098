"""The jobs' database as a whole: of another version, broken, full, crowded, or no SQLite at all."""

import sqlite3
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateIndex, CreateTable

from shared.errors import SetupError, StorageFailed
from shared.jobs.database import SCHEMA_VERSION, JobUpdate, NewJob, State, about, metadata
from shared.jobs.spec import JobSpec
from shared.jobs.store import Store

MANY = 10_000


def new(**spec: Any) -> NewJob:
    return NewJob(str(uuid.uuid4()), "txt2img", "127.0.0.1", "txt2img", JobSpec(**spec))


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/jobs.sqlite"


def test_a_database_of_another_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    store = Store(url(tmp_path))
    row, _ = store.add(new(), "me", MANY)
    with store._write() as connection:
        connection.execute(about.update().values(value=str(SCHEMA_VERSION + 1)))
    with pytest.raises(SetupError, match=f"has version {SCHEMA_VERSION + 1}, this program needs {SCHEMA_VERSION}"):
        Store(url(tmp_path))
    with store._write() as connection:
        connection.execute(about.update().values(value=str(SCHEMA_VERSION)))
    again = Store(url(tmp_path))
    assert again.get(row.id) == row
    store.close()
    again.close()


def test_a_place_where_no_database_can_be_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"something else" * 1000)
    for place, says in (("", "unable to open"), ("/no/such/folder", "unable to open"), ("/jobs.sqlite", "not a data")):
        with pytest.raises(StorageFailed, match=says):
            Store(f"sqlite:///{tmp_path}{place}")


def test_a_full_disk_takes_no_job_and_harms_none(tmp_path: Path) -> None:
    store = Store(url(tmp_path))
    row, _ = store.add(new(), "me", MANY)

    def no_more_room(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")

    sa.event.listen(store._engine, "begin", no_more_room)
    with pytest.raises(StorageFailed, match="full"):
        store.add(new(parameters={"prompt": "x" * 1_000_000}), "me", MANY)
    sa.event.remove(store._engine, "begin", no_more_room)
    store.close()
    again = Store(url(tmp_path))
    assert [each.id for each in again.page().rows] == [row.id]
    assert again.get(row.id) == row
    assert again.add(new(parameters={"prompt": "x" * 1_000_000}), "me", MANY)[1]
    again.close()


def test_services_that_start_at_once_do_not_trip_over_a_new_database(tmp_path: Path) -> None:
    # What another process does while it makes the same database.
    other = sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE something (a)")
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO something VALUES (1)")
    done = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    done.start()
    try:
        Store(url(tmp_path)).close()
    finally:
        done.join()
        other.close()


def test_many_threads_and_two_processes_worth_of_connections_lose_nothing(tmp_path: Path) -> None:
    stores = [Store(url(tmp_path)), Store(url(tmp_path))]

    def work(number: int) -> None:
        store, owner = stores[number % 2], f"service {number}"
        for _ in range(20):
            row, _ = store.add(new(), owner, MANY)
            store.beat(owner)
            store.save(owner, [JobUpdate(row.id, time.time(), [("started", {}), ("progress", {"step": 1})])])
            assert store.finish(row, owner, State.COMPLETED)
            told = [event.name for event in store.events(row.id, 0)]
            assert told == ["queued", "started", "progress", "completed"]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert stores[0].count_unfinished() == 0
    rows = stores[1].page(limit=MANY).rows
    assert [row.number for row in rows] == list(range(160, 0, -1))
    for store in stores:
        store.close()


def test_every_statement_is_one_that_postgresql_takes(tmp_path: Path) -> None:
    store, dialect = Store(url(tmp_path)), postgresql.dialect()  # type: ignore[no-untyped-call]
    statements: set[str] = set()

    def translate(_connection: Connection, clause: sa.ClauseElement, *_: object) -> None:
        statements.add(str(clause.compile(dialect=dialect)))

    sa.event.listen(store._engine, "before_execute", translate)
    row, _ = store.add(new(uploads={"a.png": "in"}), "me", MANY)
    store.beat("me")
    store.save("me", [JobUpdate(row.id, 1.0, [("started", {}), ("preview", {})])])
    store.requeue("me", [(row, 1)])
    store.reclaim("another", 0.0)
    store.finish(row, "another", State.COMPLETED)
    store.cancel(row.id, {})
    store.remove(row.id, lambda _: None)
    store.unfinished_marks("service")
    store.page(states=[State.QUEUED], kind="txt2img", ids=[row.id], before=1)
    store.in_front(1)
    store.ends_at(row.id)
    store.measured(1)
    store.finished_before(1, 1)
    store.events(row.id, 0)
    store.last_event(row.id, "image")
    store.unfinished([row.id], "me")
    store.leave("me")
    store.close()
    assert len(statements) > 20
    for table in metadata.sorted_tables:
        assert str(CreateTable(table).compile(dialect=dialect)).strip().startswith("CREATE TABLE")
        for index in table.indexes:
            assert str(CreateIndex(index).compile(dialect=dialect)).startswith("CREATE INDEX")
