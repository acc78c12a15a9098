"""Brings the database of jobs to the tables of this version, and keeps what is in it.

A change of `shared.jobs.database` needs a new file in `versions/`, whose name becomes HEAD here.
"""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

HEAD = "0002"
# What the first version wrote into its table `about`, in place of Alembic's own table.
FIRST, FIRST_MARK = "0001", "schema_version"


class UnknownVersionError(Exception):
    """The database is of a version that this program does not know: a later one made it."""


def upgrade(connection: Connection) -> None:
    """Makes or changes the tables, inside the transaction of `connection`. Raises UnknownVersionError."""
    tables = sa.inspect(connection).get_table_names()
    version = _version(connection, tables)
    if version == HEAD:
        return
    # Imported only when there is something to do: services start often, and stay small.
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    # It tells of each of its plugins.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        if version is None and _is_first(connection, tables):
            command.stamp(config, FIRST)
        command.upgrade(config, "head")
    except CommandError as error:
        raise UnknownVersionError(f"the database has version {version}, this program knows {HEAD}") from error


def _version(connection: Connection, tables: list[str]) -> str | None:
    if "alembic_version" not in tables:
        return None
    version: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return version


def _is_first(connection: Connection, tables: list[str]) -> bool:
    """Whether these are the tables of the first version, which did without Alembic."""
    if "about" not in tables:
        return False
    query = sa.text("SELECT value FROM about WHERE key = :key")
    return connection.scalar(query, {"key": FIRST_MARK}) is not None
