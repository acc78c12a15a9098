"""Migrates the jobs' database to this version of its tables.

A change of the tables in `shared.jobs.database` needs a new file in `versions/`. Set HEAD to its number.
"""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

HEAD = "0002"
# The first version did not use Alembic. It recorded its version under this key of the table `about`.
FIRST, FIRST_KEY = "0001", "schema_version"


class UnknownVersionError(Exception):
    """The database has a version that this program does not know, as a later one made it."""


def upgrade(connection: Connection) -> None:
    """Create or migrate the tables, in the transaction of `connection`. Raises UnknownVersionError."""
    tables = sa.inspect(connection).get_table_names()
    version = _version(connection, tables)
    if version == HEAD:
        return
    # Alembic logs each of its plugins while it is imported.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Imported late, so that a service without a migration to run does not load it.
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        if version is None and _is_first(connection, tables):
            command.stamp(config, FIRST)
        command.upgrade(config, "head")
    except CommandError as error:
        raise UnknownVersionError(
            f"the jobs' database has version {version}, but this program supports {HEAD}"
        ) from error


def _version(connection: Connection, tables: list[str]) -> str | None:
    if "alembic_version" not in tables:
        return None
    version: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return version


def _is_first(connection: Connection, tables: list[str]) -> bool:
    """Whether these are the tables of the first version."""
    if "about" not in tables:
        return False
    query = sa.text("SELECT value FROM about WHERE key = :key")
    return connection.scalar(query, {"key": FIRST_KEY}) is not None
