"""Limits on concurrent requests."""

import pytest

from shared.errors import Busy
from shared.web.backend import ConcurrencyLimit


def test_slots_are_limited_and_freed() -> None:
    slots = ConcurrencyLimit(2, "requests are waiting", "SETTING")
    with slots.slot():
        with slots.slot(), pytest.raises(Busy, match="2 requests are waiting already") as busy, slots.slot():
            pass
        assert busy.value.retry_after == 10
        assert "SETTING" in str(busy.value.hint)
        with slots.slot(), pytest.raises(Busy), slots.slot():
            pass
