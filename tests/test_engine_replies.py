"""Parsing of the engine's replies: websocket frames, refusals, history entries and file names."""

import json
import struct
import uuid
from datetime import datetime

import pytest

from shared.engine.client import SavedImage, _outcome, _problems, explain_node_failure
from shared.engine.websocket import (
    ImagesSaved,
    JobCached,
    JobEnded,
    JobEvent,
    JobProgress,
    JobStarted,
    Preview,
    parse_frame,
)
from shared.errors import GenerationFailed
from shared.jobs.picture_names import filename_prefix, locate

SAVED = {"filename": "a.png", "subfolder": "d", "type": "output"}
IMAGE = SavedImage("a.png", "d", "output")


def preview(kind: int, metadata: dict[str, str]) -> bytes:
    text = json.dumps(metadata).encode()
    return struct.pack(">II", kind, len(text)) + text + b"jpeg"


def frame(kind: str, **data: object) -> str:
    return json.dumps({"type": kind, "data": data})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (frame("execution_start", prompt_id="j"), JobStarted("j")),
        (frame("executing", node="KSampler", prompt_id="j"), JobProgress("j", "KSampler")),
        (frame("progress", node="KSampler", value=3, max=10, prompt_id="j"), JobProgress("j", "KSampler", 3, 10)),
        (frame("executed", node="Save", output={"images": [SAVED]}, prompt_id="j"), ImagesSaved("j", (IMAGE,))),
        (frame("executed", node="P", output={"images": [{**SAVED, "type": "temp"}]}, prompt_id="j"), None),
        (frame("executed", node="P", output=None, prompt_id="j"), None),
        (frame("executing", node=None, prompt_id="j"), JobEnded("j")),
        (frame("execution_success", prompt_id="j"), None),
        (frame("status", status={}), None),
        (frame("execution_cached", prompt_id="j", nodes=["3", "4"]), JobCached("j", frozenset({"3", "4"}))),
        (frame("execution_cached", prompt_id="j"), None),
        (preview(4, {"prompt_id": "j"}), Preview("j", b"jpeg")),
        (preview(1, {"prompt_id": "j"}), None),
        (preview(4, {}), None),
        (b"\x00\x00\x00\x04\x7f\xff\xff\xff", None),
        (b"", None),
        ("not json", None),
        ("[]", None),
        (json.dumps({"type": "executing"}), None),
    ],
)
def test_frames_are_parsed_or_ignored(text: str | bytes, expected: JobEvent | None) -> None:
    assert parse_frame(text) == expected


def test_a_refusal_is_reported_without_traceback_and_paths() -> None:
    refusal = {
        "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"},
        "node_errors": {
            "KSampler": {
                "class_type": "KSampler",
                "errors": [
                    {
                        "type": "value_not_in_list",
                        "message": "Value not in list",
                        "details": "/home/me/secret",
                        "extra_info": {"input_name": "sampler_name", "traceback": ["File /home/me"]},
                    }
                ],
            }
        },
    }
    assert _problems(refusal) == [
        {"node": "KSampler", "type": "value_not_in_list", "message": "Value not in list", "input": "sampler_name"}
    ]
    assert _problems({"error": {"type": "no_prompt", "message": "No prompt"}, "node_errors": {}}) == [
        {"type": "no_prompt", "message": "No prompt"}
    ]
    assert _problems({"prompt_id": "x", "node_errors": {}}) == []


def test_a_history_entry_becomes_pictures_and_times() -> None:
    outcome = _outcome(
        {
            "outputs": {"SaveImage": {"images": [{"filename": "a.png", "subfolder": "d", "type": "output"}]}},
            "status": {
                "status_str": "success",
                "messages": [
                    ["execution_start", {"timestamp": 1000}],
                    ["execution_cached", {"timestamp": 1100}],
                    ["execution_success", {"timestamp": 3500}],
                ],
            },
        }
    )
    assert outcome.images == (SavedImage("a.png", "d", "output"),)
    assert outcome.error is None
    assert (outcome.started, outcome.finished) == (1.0, 3.5)


def test_an_error_in_a_node_names_the_node_and_no_paths() -> None:
    outcome = _outcome(
        {
            "outputs": {},
            "status": {
                "status_str": "error",
                "messages": [
                    ["execution_start", {"timestamp": 1000}],
                    [
                        "execution_error",
                        {
                            "timestamp": 2000,
                            "node_id": "KSampler",
                            "node_type": "KSampler",
                            "exception_type": "RuntimeError",
                            "exception_message": "/home/me/model.safetensors",
                            "traceback": ["File /home/me"],
                        },
                    ],
                ],
            },
        }
    )
    assert isinstance(outcome.error, GenerationFailed)
    assert outcome.error.message == "KSampler failed: RuntimeError"
    assert "/home" not in json.dumps(outcome.error.as_dict())


@pytest.mark.parametrize(
    ("kind", "text", "code", "message"),
    [
        (
            "OSError",
            "[Errno 28] No space left on device: '/home/me/a.png'",
            "storage_failed",
            "No space left on device",
        ),
        ("PermissionError", "[Errno 13] Permission denied: '/home/me'", "storage_failed", "Permission denied"),
        ("torch.OutOfMemoryError", "Allocation on device", "generation_failed", "the engine ran out of memory"),
        ("RuntimeError", "CUDA error: out of memory\nat /home/me", "generation_failed", "the engine ran out of memory"),
        ("RuntimeError", "/home/me/model.safetensors", "generation_failed", "RuntimeError"),
    ],
)
def test_a_node_failure_is_reported_without_paths(kind: str, text: str, code: str, message: str) -> None:
    failure = {"node_id": "Save", "node_type": "SaveImage", "exception_type": kind, "exception_message": text}
    error = explain_node_failure(failure)
    assert (error.code, error.message) == (code, f"SaveImage failed: {message}")
    assert error.details["node"] == "Save"
    assert "/home" not in json.dumps(error.as_dict())
    assert ("disk is full" in str(error.hint)) == ("No space" in message)


def test_an_interrupted_job_is_an_error() -> None:
    outcome = _outcome({"outputs": {}, "status": {"status_str": "error", "messages": [["execution_interrupted", {}]]}})
    assert outcome.error is not None
    assert "interrupted" in outcome.error.message


def test_a_picture_is_located_by_its_name() -> None:
    job_id = str(uuid.UUID("3f2a9c1e-0b7d-4e63-9f55-0123456789ab"))
    prefix = filename_prefix(job_id, datetime(2026, 11, 22, 14, 32, 10))
    assert prefix == "20261122/20261122-143210-3f2a9c1e0b7d"
    name = prefix.split("/")[1] + "_00001_.png"
    assert locate(name) == SavedImage(name, "20261122", "output")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a.png",
        "../20261122-143210-3f2a9c1e0b7d_00001_.png",
        "20261122-143210-3f2a9c1e0b7d_00001_.png\n",
        "\uff120261122-143210-3f2a9c1e0b7d_00001_.png",
        "20261122-143210-3f2a9c1e0b7d_00001_.png/..",
    ],
)
def test_other_names_are_not_located(name: str) -> None:
    assert locate(name) is None
