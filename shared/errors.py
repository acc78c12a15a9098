"""Every error that this project raises on purpose, each with its HTTP status and a stable code.

    DreamLayerError                  500  internal_error
    ├── RequestError                 400  malformed_request     the client can correct the request
    │   ├── Unauthorized             401  unauthorized          the API key is missing or wrong
    │   ├── OriginNotAllowed         403  origin_not_allowed    a web page that is not on the allow-list
    │   ├── NotFound                 404  not_found
    │   ├── NotAcceptable            406  not_acceptable        the picture cannot be written in that format
    │   ├── Cancelled                409  cancelled             the job was cancelled before it finished
    │   ├── NotFinished              409  not_finished          only a finished job can be retried
    │   ├── CallerUnclear            409  caller_unclear        the job may be another caller's
    │   ├── AlreadyThere             409  already_there         a file of that name exists and is not overwritten
    │   ├── NotPossible              409  not_possible          not on this machine, or not with this engine
    │   ├── BodyTooLarge             413  body_too_large
    │   ├── HeadersTooLarge          431  headers_too_large
    │   ├── UnsupportedBody          415  unsupported_body      neither JSON nor a form
    │   ├── InvalidValue             422  invalid_value         one field of the request is wrong
    │   ├── InvalidPicture           422  invalid_picture       an uploaded picture or mask cannot be used
    │   ├── QueueFull                429  queue_full            too many unfinished jobs
    │   └── TooManyTries             429  too_many_tries        too many wrong API keys from one address
    ├── NotSupported                 501  not_supported         a feature of the web page that this backend lacks
    ├── Busy                         503  busy                  all slots are taken
    ├── StorageFailed                507  storage_failed        the disk is full, or a folder is not writable
    ├── EngineError                  502  engine_error          ComfyUI gave an unexpected reply
    │   ├── EngineUnavailable        503  engine_unavailable    no reply: it is starting, restarting or not running
    │   │   └── EngineDenied         503  engine_denied         it, or a proxy in front of it, refused our token
    │   ├── EngineRejected           502  engine_rejected       it refused the graph
    │   ├── GenerationFailed         500  generation_failed     a node raised an exception
    │   └── WaitExpired              504  wait_expired          the wait timed out; the job continues
    └── SetupError                   500  setup_failed          a step of the launcher failed; never sent over HTTP

The web layer turns any of them into the one error shape of the API:

    {"status": "error", "message": ..., "error": {"code": ..., "field": ..., "hint": ..., ...}}
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class DreamLayerError(Exception):
    """Base of all errors above.

    `message` says what is wrong, `field` names the request field (or is None), and `hint` says what to do.
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
        """Return the API's error shape, without the parts that are None."""
        error: dict[str, Any] = {"code": self.code, "field": self.field, "hint": self.hint, **self.details}
        return {
            "status": "error",
            "message": self.message,
            "error": {key: value for key, value in error.items() if value is not None},
        }

    @classmethod
    def from_dict(cls, recorded: Mapping[str, Any]) -> "DreamLayerError":
        """Rebuild an error, with its own class, from the output of `as_dict`: failed jobs record their error so."""
        details = dict(recorded["error"])
        code = details.pop("code")
        classes = [cls]
        for error_class in classes:
            classes += error_class.__subclasses__()
        error_class = next((error_class for error_class in classes if error_class.code == code), cls)
        return error_class(recorded["message"], **details)


class RequestError(DreamLayerError):
    """The request is wrong, and the client can correct it."""

    status = 400
    code = "malformed_request"


class Unauthorized(RequestError):
    """An API key is set, and the request carries none or a wrong one."""

    status = 401
    code = "unauthorized"


class OriginNotAllowed(RequestError):
    """A browser sent the request from a page that is not on the allow-list."""

    status = 403
    code = "origin_not_allowed"


class NotFound(RequestError):
    """No such route, picture or job."""

    status = 404
    code = "not_found"


class NotAcceptable(RequestError):
    """The picture exists but cannot be written in the requested format."""

    status = 406
    code = "not_acceptable"


class Cancelled(RequestError):
    """The job was cancelled, by its own client or by another one that knew its id."""

    status = 409
    code = "cancelled"


class QueueFull(RequestError):
    """The number of unfinished jobs is at the limit of the settings."""

    status = 429
    code = "queue_full"


class TooManyTries(RequestError):
    """The caller's address sent too many wrong API keys."""

    status = 429
    code = "too_many_tries"


class CallerUnclear(RequestError):
    """The request names no job, and the jobs that it may mean can be another caller's."""

    status = 409
    code = "caller_unclear"


class NotFinished(RequestError):
    """The operation needs a finished job."""

    status = 409
    code = "not_finished"


class AlreadyThere(RequestError):
    """A file of that name exists; users' files are never overwritten."""

    status = 409
    code = "already_there"


class NotPossible(RequestError):
    """The operation is not possible here: there is no desktop, or this launcher did not start the engine."""

    status = 409
    code = "not_possible"


class NotSupported(DreamLayerError):
    """The web page offers this feature, but this backend does not implement it."""

    status = 501
    code = "not_supported"


class BodyTooLarge(RequestError):
    """The body exceeds the limit of the settings."""

    status = 413
    code = "body_too_large"


class HeadersTooLarge(RequestError):
    """The request line and headers exceed the server's limit."""

    status = 431
    code = "headers_too_large"


class UnsupportedBody(RequestError):
    """The body is neither JSON nor a form."""

    status = 415
    code = "unsupported_body"


class InvalidValue(RequestError):
    """A field is missing, has the wrong type, is out of range, or names something that does not exist."""

    status = 422
    code = "invalid_value"


class InvalidPicture(RequestError):
    """A picture or mask cannot be decoded, or does not suit the request."""

    status = 422
    code = "invalid_picture"


class Busy(DreamLayerError):
    """All slots for waiting requests are taken; the rest of the API still answers."""

    status = 503
    code = "busy"


class StorageFailed(DreamLayerError):
    """A file or the database cannot be read or written. `disk_full` in its details is set if that is the reason."""

    status = 507
    code = "storage_failed"


class EngineError(DreamLayerError):
    """ComfyUI answered with something unexpected."""

    status = 502
    code = "engine_error"


class EngineUnavailable(EngineError):
    """ComfyUI does not answer: it is starting, restarting or not running."""

    status = 503
    code = "engine_unavailable"
    reached: bool = True
    """False if the request certainly did not reach the engine."""


class EngineDenied(EngineUnavailable):
    """The engine, or a proxy in front of it, refused our token or requires one."""

    status = 503
    code = "engine_denied"
    reached = False


class EngineRejected(EngineError):
    """ComfyUI refused the graph. `problems` in its details lists the reasons, without paths and tracebacks."""

    status = 502
    code = "engine_rejected"


class GenerationFailed(EngineError):
    """A node of the graph raised an exception while it ran."""

    status = 500
    code = "generation_failed"


class WaitExpired(EngineError):
    """The client waited as long as the settings allow. The job itself continues."""

    status = 504
    code = "wait_expired"


class SetupError(DreamLayerError):
    """A step of the launcher failed. `step` names it, `message` says why, `hint` says what to do."""

    code = "setup_failed"

    def __init__(self, step: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.step = step
