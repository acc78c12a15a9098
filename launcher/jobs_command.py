"""`jobs list` and `jobs cancel`. They use the database, so they work whether or not anything is running."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from launcher.terminal import print_status, strip_controls
from shared.errors import Cancelled, SetupError
from shared.jobs.job import JobRow, State
from shared.jobs.store import Store, open_store
from shared.settings import Settings

STEP = "jobs"
LIST_HINT = "`python dream_layer.py jobs list` shows the unfinished jobs"
# Rows of one query, finished jobs that are shown, characters of a prompt, and of an abbreviated id.
PAGE_SIZE, MAX_FINISHED, MAX_PROMPT = 200, 20, 60
MIN_ID_LENGTH = 4
UNFINISHED = (State.QUEUED, State.RUNNING)


def run_jobs(settings: Settings, options: argparse.Namespace, *, running: bool) -> int:
    """Run `jobs`; returns the exit code. `running`: a launcher is running. Raises DreamLayerError."""
    if not _database_exists(settings):
        if options.action == "cancel" and options.id != "all":
            raise SetupError(STEP, "there are no jobs")
        print_status(STEP, "there are no jobs")
        return 0
    with _open_store(settings) as store:
        if options.action == "cancel":
            _cancel(store, options.id)
        else:
            _list(store, finished=options.all, running=running)
    return 0


def _list(store: Store, *, finished: bool, running: bool) -> None:
    unfinished = list(reversed(list(_unfinished(store))))
    finished_rows = [row for row in store.page(limit=MAX_FINISHED).rows if row.state.finished] if finished else []
    if unfinished:
        sys.stdout.write(f"\n  {_count(len(unfinished))} unfinished, the next one first:\n\n{job_table(unfinished)}\n")
        sys.stdout.write(
            "" if running else "\n  nothing is running: they continue after the next `python dream_layer.py up`"
        )
        sys.stdout.write("\n  `python dream_layer.py jobs cancel ID` cancels one, `jobs cancel all` cancels all\n")
    else:
        sys.stdout.write("\n  no unfinished jobs\n")
    if finished_rows:
        sys.stdout.write(f"\n  finished, the newest first:\n\n{job_table(finished_rows)}\n")
    sys.stdout.write("\n")


def _cancel(store: Store, wanted: str) -> None:
    if wanted == "all":
        cancelled = sum(_cancel_one(store, row) for row in _unfinished(store))
        print_status(STEP, f"{_count(cancelled)} cancelled" if cancelled else "there were no unfinished jobs")
        return
    row = _find(store, wanted)
    if not _cancel_one(store, row):
        raise SetupError(
            STEP,
            f"job {row.id} is already finished",
            hint=LIST_HINT,
        )
    print_status(STEP, f"{row.id} was cancelled")


def _cancel_one(store: Store, row: JobRow) -> bool:
    return store.cancel(row.id, Cancelled("the job was cancelled", job_id=row.id).as_dict())


def _find(store: Store, wanted: str) -> JobRow:
    """Return the job with that id, or the only unfinished one whose id starts with it. Raises SetupError."""
    prefix = wanted.strip().lower()
    # Ids are hexadecimal; databases refuse text with a NUL or a lone surrogate.
    exact = store.get(prefix) if prefix.isascii() and prefix.isprintable() else None
    if exact is not None:
        return exact
    matches = [row for row in _unfinished(store) if row.id.startswith(prefix)] if len(prefix) >= MIN_ID_LENGTH else []
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise SetupError(
            STEP,
            f"the ids of {len(matches)} unfinished jobs start with {strip_controls(prefix)}",
            hint="give more characters of the id",
        )
    raise SetupError(
        STEP,
        f"there is no unfinished job {strip_controls(wanted)}",
        hint=LIST_HINT,
    )


def job_table(rows: Sequence[JobRow]) -> str:
    """Return a line for each job, without control characters: prompts are untrusted text."""
    lines = []
    for row in rows:
        parameters = row.spec.parameters
        prompt = strip_controls(str(parameters.get("prompt") or ""))
        shown = prompt if len(prompt) <= MAX_PROMPT else f"{prompt[: MAX_PROMPT - 3]}..."
        when = f"{datetime.fromtimestamp(row.created):%Y-%m-%d %H:%M}"
        lines.append(f"    {row.id[:8]}  {when}  {row.state.value:<9}  {strip_controls(row.kind):<8}  {shown}".rstrip())
    return "\n".join(lines)


def _unfinished(store: Store) -> Iterator[JobRow]:
    """Yield the unfinished jobs, newest first."""
    page = store.page(states=UNFINISHED, limit=PAGE_SIZE)
    yield from page.rows
    while page.before is not None:
        page = store.page(states=UNFINISHED, limit=PAGE_SIZE, before=page.before)
        yield from page.rows


def _database_exists(settings: Settings) -> bool:
    """Whether there is a database; listing jobs must not create one."""
    if settings.database_url is None:
        return (settings.data_dir / "jobs.sqlite").exists()
    return True


@contextmanager
def _open_store(settings: Settings) -> Iterator[Store]:
    store = open_store(settings)
    try:
        yield store
    finally:
        store.close()


def _count(number: int) -> str:
    return f"{number} job" + "s" * (number != 1)
