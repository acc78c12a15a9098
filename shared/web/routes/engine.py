"""The engine: its state, restart and memory."""

from __future__ import annotations

from typing import Annotated

from flask import Blueprint, Response, jsonify, request
from pydantic import Field

from shared.errors import EngineUnavailable, InvalidValue, NotPossible
from shared.schema.body import RequestBody
from shared.schema.control_replies import DoneReply, EngineReply, RestartReply
from shared.web.backend import current_manager
from shared.web.openapi.components import BODY_ERRORS
from shared.web.openapi.operation import BodySpec, Example, ReplySpec, describe
from shared.web.request_body import read_optional_fields

engine_routes = Blueprint("engine", __name__)


class Restart(RequestBody):
    """When to restart the engine."""

    when_idle: Annotated[bool, Field(description="wait until all jobs are finished")] = False


@engine_routes.get("/api/engine")
@describe(
    "Engine",
    ReplySpec("its version, device, memory, uptime, restarts and queue", EngineReply),
    examples=(Example("The engine"),),
)
def get_engine() -> Response:
    """Get the state of the engine."""
    return jsonify({"status": "success", "engine": current_manager().state()})


@engine_routes.post("/api/engine/restart")
@describe(
    "Engine",
    ReplySpec("the engine will restart", RestartReply, status=202),
    examples=(Example("Once all jobs are finished", {"when_idle": True}, status=202),),
    body=BodySpec(Restart, required=False),
    errors=(*BODY_ERRORS, NotPossible, EngineUnavailable),
)
def restart_engine() -> tuple[Response, int]:
    """Restart the engine.

    No job is lost: the running job starts again.
    """
    when_idle = _read_flag("when_idle")
    current_manager().restart(when_idle=when_idle)
    message = (
        "the engine restarts as soon as all jobs are finished"
        if when_idle
        else "the engine restarts now; its job starts again"
    )
    return jsonify({"status": "success", "message": message, "when_idle": when_idle}), 202


@engine_routes.post("/api/engine/free")
@describe(
    "Engine",
    ReplySpec("the engine will free its memory as soon as no job runs", DoneReply),
    examples=(Example("Free the memory"),),
    errors=(EngineUnavailable,),
)
def free_engine() -> Response:
    """Unload the engine's models from memory."""
    read_optional_fields(request)
    current_manager().free_memory()
    return jsonify({"status": "success", "message": "the engine unloads its models as soon as no job runs"})


def _read_flag(name: str) -> bool:
    """Read a switch from the body, which is optional, else from the query. Raises InvalidValue."""
    sent = read_optional_fields(request, name).values
    value = sent.get(name, request.args.get(name, False))
    if value in (True, "true", "1", 1):
        return True
    if value in (False, "false", "0", 0):
        return False
    raise InvalidValue(f"{name} must be true or false", field=name)
