"""What SQLite needs to be shared by several threads and processes."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

# Seconds that a write waits for other processes.
PATIENCE = 30.0


def tune(engine: Engine, journal_pages: int) -> None:
    """Readers never wait for the writer, and writers for each other. The journal has about so many pages at most."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        # Transactions are begun by us below: the driver would begin them as readers, and two readers that both want to
        # write then block each other for good.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={PATIENCE * 1000:.0f}")
        connection.execute("PRAGMA foreign_keys=ON")
        # Some builds write zeros over all that is deleted: on a full disk there is no room for that in the journal.
        connection.execute("PRAGMA secure_delete=FAST")
        _use_wal(connection)
        connection.execute(f"PRAGMA wal_autocheckpoint={journal_pages}")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        # Reads are of one statement each, and need no transaction.
        options = connection.get_execution_options()
        driver = connection.connection.driver_connection
        if options.get("writes") and driver is not None:
            # FULL waits for the disk, so that an accepted job outlives a power cut. What else could be lost is found
            # out again: a job whose end was not written is looked up in the engine, or run again.
            driver.execute(f"PRAGMA synchronous={'FULL' if options.get('durable') else 'NORMAL'}")
            driver.execute("BEGIN IMMEDIATE")


def empty_journal(connection: Connection) -> None:
    """Brings what stands in the journal into the database, so that it is written anew in the room that it has."""
    connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switches to WAL, which the file remembers. Unlike a write, this does not wait for another process to finish."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
