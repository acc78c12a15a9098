"""Renames owners to workers, and the keys of a job's spec to the names of its fields (see `shared.jobs.job`)."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

KEYS = {"request": "parameters", "spelled_out": "label_parameters", "recipe": "embeds_parameters"}
jobs = sa.table("jobs", sa.column("number", sa.Integer), sa.column("spec", sa.JSON))


def upgrade() -> None:
    """Rename the table, the column and the keys."""
    op.rename_table("owners", "workers")
    # Alembic's own operation would copy the whole table in SQLite.
    op.execute("ALTER TABLE jobs RENAME COLUMN owner TO worker")
    op.execute("DELETE FROM about WHERE key = 'schema_version'")
    connection = op.get_bind()
    # One at a time, since a graph has up to a million characters.
    for number in connection.scalars(sa.select(jobs.c.number).order_by(jobs.c.number)).all():
        spec = connection.execute(sa.select(jobs.c.spec).where(jobs.c.number == number)).scalar_one()
        connection.execute(jobs.update().where(jobs.c.number == number).values(spec=_renamed(spec)))


def _renamed(spec: dict[str, Any]) -> dict[str, Any]:
    renamed = {KEYS.get(key, key): value for key, value in spec.items()}
    # A picture that is both stored and loaded by the graph was listed twice; its folder in the engine counts.
    pairs = sorted(spec.get("uploads", ()), key=lambda pair: pair[1] is not None)
    return renamed | {"uploads": dict(pairs)}
