"""What a list reads of each job: small columns, and of its spec the parts that a list shows. Pure.

A graph has up to a million characters of text, and a page hundreds of jobs. So SQL takes the spec apart, a long request
or graph stays in the database, and a page ends where it would become too large.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from shared.jobs.database import JobRow, State, jobs
from shared.jobs.spec import JobSpec

# Characters, as they stand in the database: of one job's request or graph, and of all that a page holds.
LARGEST_PART = 50_000
LARGEST_PAGE = 4_000_000

_PLAIN = [column for column in jobs.c if not isinstance(column.type, sa.JSON)]
# Parts of a spec that are always short.
_SMALL = ("seeds", "size", "repeatable", "output_node", "uploads")
_LARGE = ("parameters", "graph")


def _if_short(text: sa.ColumnElement[str]) -> sa.ColumnElement[str | None]:
    """The text, or an empty one in place of one that is too long; NULL where there is none."""
    long = sa.func.length(text) > LARGEST_PART
    return sa.case((long, sa.literal("", sa.Text)), else_=text)


QUERY = sa.select(
    *_PLAIN,
    *(sa.cast(jobs.c[name], sa.Text).label(name) for name in ("images", "error")),
    *(jobs.c.spec[name].label(name) for name in _SMALL),
    *(_if_short(jobs.c.spec[name].as_string()).label(name) for name in _LARGE),
).order_by(jobs.c.number.desc())


@dataclass(frozen=True)
class Page:
    """Jobs of a list, the newest first; `before` is the number that leads to the next page, None on the last.

    Their specs are `abridged`: they hold what lists show. A request or graph of more than LARGEST_PART characters is an
    empty object there, and named in `left_out`.
    """

    rows: list[JobRow]
    before: int | None = None


def read_page(found: Iterable[sa.Row[Any]], limit: int) -> Page:
    """The first `limit` rows of what QUERY found, or fewer: at most LARGEST_PAGE characters, but one row at least.

    Rows beyond are not asked for.
    """
    rows: list[JobRow] = []
    size = 0
    for row in found:
        size += sum(len(text) for text in (row.images, row.error, row.parameters, row.graph) if text)
        if rows and (len(rows) == limit or size > LARGEST_PAGE):
            return Page(rows, rows[-1].number)
        rows.append(_abridged(row))
    return Page(rows)


def _abridged(row: sa.Row[Any]) -> JobRow:
    told = row._mapping
    spec = {name: told[name] for name in _SMALL if told[name] is not None}
    spec |= {name: json.loads(told[name] or "{}") for name in _LARGE}
    spec["left_out"] = [name for name in _LARGE if told[name] == ""]
    plain = {column.name: told[column.name] for column in _PLAIN}
    texts = {name: None if told[name] is None else json.loads(told[name]) for name in ("images", "error")}
    return JobRow(**{**plain, **texts, "spec": JobSpec.from_json(spec), "state": State(told["state"])})
