"""Errors that are recorded as JSON and raised again."""

import pytest

from shared.errors import DreamLayerError, SetupError


def kinds(of: type[DreamLayerError]) -> list[type[DreamLayerError]]:
    return [of, *(kind for child in of.__subclasses__() for kind in kinds(child))]


@pytest.mark.parametrize("kind", [kind for kind in kinds(DreamLayerError) if not issubclass(kind, SetupError)])
def test_a_recorded_error_is_raised_unchanged(kind: type[DreamLayerError]) -> None:
    error = kind("what", field="f", hint="h", job_id="j", problems=[{"node": "n"}]).as_dict()
    again = DreamLayerError.from_dict(error)
    assert type(again) is kind
    assert again.as_dict() == error
    assert (again.message, again.field, again.hint) == ("what", "f", "h")
    assert again.details == {"job_id": "j", "problems": [{"node": "n"}]}


def test_a_recorded_error_of_an_unknown_code_is_still_an_error() -> None:
    error = DreamLayerError.from_dict({"status": "error", "message": "what", "error": {"code": "new_code"}})
    assert (type(error), error.message) == (DreamLayerError, "what")
