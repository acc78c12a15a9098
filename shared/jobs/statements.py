"""The statements that every job needs, built once: SQLAlchemy takes longer to build one than SQLite to run it.

Parameters of conditions are named `the_...`; those of an update's values like their columns.
"""

from __future__ import annotations

import sqlalchemy as sa

from shared.jobs.tables import UNFINISHED, events, jobs, owners

_unfinished = jobs.c.state.in_(UNFINISHED)

COUNT = sa.select(sa.func.count()).select_from(jobs).where(_unfinished)
COUNT_BEFORE = COUNT.where(jobs.c.number < sa.bindparam("the_number"))

ADD = jobs.insert()
GET = sa.select(jobs).where(jobs.c.id == sa.bindparam("the_id"))
STATE = sa.select(jobs.c.state).where(jobs.c.id == sa.bindparam("the_id"))
# The one way in which an unfinished job changes: by its owner. Only the end may come from anybody.
MOVE = jobs.update().where(jobs.c.id == sa.bindparam("the_id"), jobs.c.owner == sa.bindparam("the_owner"), _unfinished)
END = jobs.update().where(jobs.c.id == sa.bindparam("the_id"), _unfinished)

TELL = events.insert()
TOLD = (
    sa.select(events)
    .where(events.c.job_id == sa.bindparam("the_id"), events.c.number > sa.bindparam("the_number"))
    .order_by(events.c.number)
)
# What was told of an earlier attempt stands before the newest start, which tells nothing of progress.
NEWEST_PROGRESS = (
    sa.select(events.c.data)
    .where(events.c.job_id == sa.bindparam("the_id"), events.c.name.in_(("started", "progress")))
    .order_by(events.c.number.desc())
    .limit(1)
)
UNTELL = events.delete().where(events.c.job_id == sa.bindparam("the_id"), events.c.name == sa.bindparam("the_name"))

BEAT = owners.update().where(owners.c.id == sa.bindparam("the_owner"))
