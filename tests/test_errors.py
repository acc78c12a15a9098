"""Errors that are recorded as JSON and raised again."""

import pytest

from shared.errors import DreamLayerError, SetupError


def kinds(base: type[DreamLayerError]) -> list[type[DreamLayerError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in kinds(child))]


@pytest.mark.parametrize("kind", [kind for kind in kinds(DreamLayerError) if not issubclass(kind, SetupError)])
def test_a_recorded_error_is_raised_unchanged(kind: type[DreamLayerError]) -> None:
    error = kind("what", field="f", hint="h", job_id="j", problems=[{"node": "n"}]).as_dict()
    restored = DreamLayerError.from_dict(error)
    assert type(restored) is kind
    assert restored.as_dict() == error
    assert (restored.message, restored.field, restored.hint) == ("what", "f", "h")
    assert restored.details == {"job_id": "j", "problems": [{"node": "n"}]}


def test_a_recorded_error_of_an_unknown_code_is_still_an_error() -> None:
    error = DreamLayerError.from_dict({"status": "error", "message": "what", "error": {"code": "new_code"}})
    assert (type(error), error.message) == (DreamLayerError, "what")
