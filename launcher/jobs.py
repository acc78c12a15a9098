"""`jobs list` and `jobs cancel`: by the database, so that they work whether or not anything runs."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from launcher.terminal import plain, print_status
from shared.errors import Cancelled, SetupError
from shared.jobs.job import JobRow, State
from shared.jobs.store import Store
from shared.settings import Settings
from shared.web.backend import open_store

STEP = "jobs"
# Rows that are asked for at a time, finished jobs that are shown, and letters of a prompt.
PAGE, FINISHED, SHOWN = 200, 20, 60
SHORTEST_ID = 4
UNFINISHED = (State.QUEUED, State.RUNNING)


def run_jobs(settings: Settings, options: argparse.Namespace, *, running: bool) -> int:
    """Does what was typed, and returns the exit code. `running`: a launcher runs. Raises DreamLayerError."""
    if not _exists(settings):
        if options.action == "cancel" and options.id != "all":
            raise SetupError(STEP, "there are no jobs")
        print_status(STEP, "there are no jobs")
        return 0
    with _opened(settings) as store:
        if options.action == "cancel":
            _cancel(store, options.id)
        else:
            _list(store, finished=options.all, running=running)
    return 0


def _list(store: Store, *, finished: bool, running: bool) -> None:
    unfinished = list(reversed(list(_unfinished(store))))
    ended = [row for row in store.page(limit=FINISHED).rows if row.state.finished] if finished else []
    if unfinished:
        sys.stdout.write(f"\n  {_count(len(unfinished))} unfinished, the next one first:\n\n{job_table(unfinished)}\n")
        sys.stdout.write("" if running else "\n  nothing runs: they go on after the next `python dream_layer.py up`")
        sys.stdout.write("\n  `python dream_layer.py jobs cancel ID` drops one of them, `jobs cancel all` drops all\n")
    else:
        sys.stdout.write("\n  no unfinished jobs\n")
    if ended:
        sys.stdout.write(f"\n  finished, the newest first:\n\n{job_table(ended)}\n")
    sys.stdout.write("\n")


def _cancel(store: Store, wanted: str) -> None:
    if wanted == "all":
        cancelled = sum(_cancel_one(store, row) for row in _unfinished(store))
        print_status(STEP, f"{_count(cancelled)} cancelled" if cancelled else "there was no unfinished job")
        return
    row = _find(store, wanted)
    if not _cancel_one(store, row):
        raise SetupError(STEP, f"job {row.id} is finished", hint="python dream_layer.py jobs list shows what is not")
    print_status(STEP, f"{row.id} is cancelled")


def _cancel_one(store: Store, row: JobRow) -> bool:
    return store.cancel(row.id, Cancelled("the job was cancelled", job_id=row.id).as_dict())


def _find(store: Store, wanted: str) -> JobRow:
    """The job of that id, or the only unfinished one whose id begins so. Raises SetupError."""
    beginning = wanted.strip().lower()
    # Ids are hexadecimal; a database takes no text with a NUL or half a character.
    exact = store.get(beginning) if beginning.isascii() and beginning.isprintable() else None
    if exact is not None:
        return exact
    found = [row for row in _unfinished(store) if row.id.startswith(beginning)] if len(beginning) >= SHORTEST_ID else []
    if len(found) == 1:
        return found[0]
    if found:
        raise SetupError(
            STEP, f"{len(found)} unfinished jobs begin with {plain(beginning)}", hint="give more of the id"
        )
    raise SetupError(
        STEP, f"there is no unfinished job {plain(wanted)}", hint="python dream_layer.py jobs list shows what there is"
    )


def job_table(rows: Sequence[JobRow]) -> str:
    """A line for each job. Prompts come from anybody, so they are shown without control characters."""
    lines = []
    for row in rows:
        request = row.spec.parameters
        prompt = plain(str(request.get("prompt") or "") if isinstance(request, dict) else "")
        shown = prompt if len(prompt) <= SHOWN else f"{prompt[: SHOWN - 3]}..."
        when = f"{datetime.fromtimestamp(row.created):%Y-%m-%d %H:%M}"
        lines.append(f"    {row.id[:8]}  {when}  {row.state.value:<9}  {plain(row.kind):<8}  {shown}".rstrip())
    return "\n".join(lines)


def _unfinished(store: Store) -> Iterator[JobRow]:
    """The newest first."""
    page = store.page(states=UNFINISHED, limit=PAGE)
    yield from page.rows
    while page.before is not None:
        page = store.page(states=UNFINISHED, limit=PAGE, before=page.before)
        yield from page.rows


def _exists(settings: Settings) -> bool:
    """Whether there is a database: to look for jobs makes none."""
    if settings.database_url is None:
        return (settings.data_dir / "jobs.sqlite").exists()
    return True


@contextmanager
def _opened(settings: Settings) -> Iterator[Store]:
    store = open_store(settings)
    try:
        yield store
    finally:
        store.close()


def _count(number: int) -> str:
    return f"{number} job" + "s" * (number != 1)
