"""Notifications of changes of jobs."""

import dataclasses
import threading
from typing import Any

from shared.jobs.job import JobRow, JobSpec
from shared.jobs.notify import JobNotifier


def row(**values: Any) -> JobRow:
    return JobRow(
        **{**{field.name: None for field in dataclasses.fields(JobRow)}, "id": "j", "spec": JobSpec(), **values}
    )


def test_a_notification_wakes_all_subscribers_of_its_job_only() -> None:
    notifier = JobNotifier()
    notifier.notify("no subscriber")
    with notifier.subscribe("a") as one, notifier.subscribe("a") as two, notifier.subscribe("b") as other:
        notifier.notify("a")
        assert (one.wait(0), two.wait(0), other.wait(0)) == (True, True, False)
        assert not one.wait(0)
        notifier.notify("a")
        assert one.wait(0)
    notifier.notify("a")
    assert not one.wait(0)
    assert not notifier._subscriptions


def test_a_notification_carries_the_finished_job() -> None:
    notifier, ended = JobNotifier(), row()
    with notifier.subscribe("a") as subscription:
        notifier.notify("a")
        assert subscription.row is None
        notifier.notify("a", ended)
        notifier.notify("a")
        assert subscription.row is ended


def test_a_notification_wakes_another_thread() -> None:
    notifier = JobNotifier()
    with notifier.subscribe("a") as subscription:
        threading.Timer(0.05, notifier.notify, ["a"]).start()
        assert subscription.wait(5)
