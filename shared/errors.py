"""Every error that this project raises on purpose, each with its HTTP status and a stable code.

    DreamLayerError                  500  internal_error
    ├── RequestError                 400  malformed_request     the client can mend it
    │   ├── Unauthorized             401  unauthorized
    │   ├── OriginNotAllowed         403  origin_not_allowed
    │   ├── NotFound                 404  not_found
    │   ├── NotAcceptable            406  not_acceptable        the picture cannot be written in that format
    │   ├── Cancelled                409  cancelled             the job was cancelled before it was done
    │   ├── NotFinished              409  not_finished          only a finished job can be retried
    │   ├── CallerUnclear            409  caller_unclear        the job may be another caller's
    │   ├── AlreadyThere             409  already_there         a file of that name exists, and is not overwritten
    │   ├── NotPossible              409  not_possible          not on this machine, or not with this engine
    │   ├── BodyTooLarge             413  body_too_large
    │   ├── HeadersTooLarge      431  headers_too_large
    │   ├── UnsupportedBody          415  unsupported_body
    │   ├── InvalidValue             422  invalid_value         one field of the request is wrong
    │   ├── InvalidPicture           422  invalid_picture       an uploaded picture or mask cannot be used
    │   ├── QueueFull                429  queue_full            too many jobs are waiting
    │   └── TooManyTries             429  too_many_tries        too many wrong API keys from one address
    ├── NotSupported                 501  not_supported         the page asks for what this backend does not do
    ├── Busy                         503  busy                  every waiting place is taken
    ├── StorageFailed                507  storage_failed        the disk is full, or a folder cannot be written
    ├── EngineError                  502  engine_error          ComfyUI did not do what was asked
    │   ├── EngineUnavailable        503  engine_unavailable    it does not answer (starting, restarting, absent)
    │   │   └── EngineDenied         503  engine_denied         it, or a proxy in front of it, refused our token
    │   ├── EngineRejected           502  engine_rejected       it refused the graph
    │   ├── GenerationFailed         500  generation_failed     a node raised while it ran
    │   └── WaitExpired              504  wait_expired          the job goes on, the client waited long enough
    └── SetupError                   500  setup_failed          the launcher could not do a step; never sent over HTTP

The web layer turns any of them into the one error shape of the API:

    {"status": "error", "message": ..., "error": {"code": ..., "field": ..., "hint": ..., ...}}
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class DreamLayerError(Exception):
    """Base of all errors above.

    `message` says what is wrong; `field` where (a request field, or None); `hint` what would be right.
    `details` are further JSON-serialisable facts for programs, such as `nearest` or `job_id`.
    `retry_after` is in seconds and becomes the Retry-After header.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        hint: str | None = None,
        retry_after: int | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint
        self.retry_after = retry_after
        self.details = details

    def as_dict(self) -> dict[str, Any]:
        """The API's error shape; absent parts are left out."""
        error: dict[str, Any] = {"code": self.code, "field": self.field, "hint": self.hint, **self.details}
        return {
            "status": "error",
            "message": self.message,
            "error": {key: value for key, value in error.items() if value is not None},
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> "DreamLayerError":
        """The error that `as_dict` told, of its own class: how a job failed is written down, and raised to who asks."""
        details = dict(told["error"])
        code = details.pop("code")
        kinds = [cls]
        for kind in kinds:
            kinds += kind.__subclasses__()
        kind = next((kind for kind in kinds if kind.code == code), cls)
        return kind(told["message"], **details)


class RequestError(DreamLayerError):
    """The client sent something that it can mend."""

    status = 400
    code = "malformed_request"


class Unauthorized(RequestError):
    """An API key is set, and the request did not bring it."""

    status = 401
    code = "unauthorized"


class OriginNotAllowed(RequestError):
    """A browser sent this from a page that is not on the allow-list."""

    status = 403
    code = "origin_not_allowed"


class NotFound(RequestError):
    """No such route, picture or job."""

    status = 404
    code = "not_found"


class NotAcceptable(RequestError):
    """The picture is there, and cannot be written in the format that was asked for."""

    status = 406
    code = "not_acceptable"


class Cancelled(RequestError):
    """The job was cancelled, by its client or by another that knew its id."""

    status = 409
    code = "cancelled"


class QueueFull(RequestError):
    """As many jobs are waiting as the settings allow."""

    status = 429
    code = "queue_full"


class TooManyTries(RequestError):
    """Too many wrong API keys came from the caller's address."""

    status = 429
    code = "too_many_tries"


class CallerUnclear(RequestError):
    """The jobs that were meant may be those of another caller."""

    status = 409
    code = "caller_unclear"


class NotFinished(RequestError):
    """What was asked can only be done with a job that has ended."""

    status = 409
    code = "not_finished"


class AlreadyThere(RequestError):
    """There is a file of that name, and files of users are never overwritten."""

    status = 409
    code = "already_there"


class NotPossible(RequestError):
    """What was asked cannot be done here: there is no desktop, or the engine is not ours to restart."""

    status = 409
    code = "not_possible"


class NotSupported(DreamLayerError):
    """The web page has a button for it, and this backend does not do it."""

    status = 501
    code = "not_supported"


class BodyTooLarge(RequestError):
    """The body is over the limit of the settings."""

    status = 413
    code = "body_too_large"


class HeadersTooLarge(RequestError):
    """The first line and the headers of a request are over the server's limit."""

    status = 431
    code = "headers_too_large"


class UnsupportedBody(RequestError):
    """The body is neither JSON nor a form."""

    status = 415
    code = "unsupported_body"


class InvalidValue(RequestError):
    """A field is missing, of the wrong type, out of range, or names something that does not exist."""

    status = 422
    code = "invalid_value"


class InvalidPicture(RequestError):
    """A picture or mask cannot be decoded, or cannot be used for what was asked."""

    status = 422
    code = "invalid_picture"


class Busy(DreamLayerError):
    """As many clients wait as the settings allow; the rest of the API still answers."""

    status = 503
    code = "busy"


class StorageFailed(DreamLayerError):
    """Our own files or database cannot be written or read. Its details have `disk_full` where that is why."""

    status = 507
    code = "storage_failed"


class EngineError(DreamLayerError):
    """ComfyUI answered, but not with what was asked for."""

    status = 502
    code = "engine_error"


class EngineUnavailable(EngineError):
    """ComfyUI does not answer: it is starting, restarting, or was never started."""

    status = 503
    code = "engine_unavailable"
    reached: bool = True
    """False if the request surely did not reach it."""


class EngineDenied(EngineUnavailable):
    """The engine, or a proxy in front of it, refused our token, or needs one."""

    status = 503
    code = "engine_denied"
    reached = False


class EngineRejected(EngineError):
    """ComfyUI refused the graph. `details["problems"]` lists what it said, free of paths and tracebacks."""

    status = 502
    code = "engine_rejected"


class GenerationFailed(EngineError):
    """A node of the graph raised while it ran."""

    status = 500
    code = "generation_failed"


class WaitExpired(EngineError):
    """The client has waited as long as the settings allow. The job itself goes on."""

    status = 504
    code = "wait_expired"


class SetupError(DreamLayerError):
    """A step of the launcher failed: `step` names it, `message` says why, `hint` what to do."""

    code = "setup_failed"

    def __init__(self, step: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.step = step
