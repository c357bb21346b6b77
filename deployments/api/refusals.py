"""What an error of ours is as an answer: its status, and the body that ARM's clients know.

Source: `ErrorResponse` of Microsoft.ImportExport; the specification, section 8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from deployments.api.answers import Answer
from models import errors
from models.errors import (
    DrivepostError,
    NoSuchPathError,
    NotReadyToShipError,
    PropertyNotUpdatableError,
    RequestError,
    TokenError,
    TooManyRequestsError,
)
from models.request_faults import plain_text

STATUS: Final[Mapping[type[DrivepostError], int]] = {
    errors.AccessError: 403,
    errors.ActorNotAllowedError: 403,
    errors.AddressNeededError: 409,
    errors.ApiVersionMissingError: 400,
    errors.ApiVersionUnknownError: 400,
    errors.BayError: 409,
    errors.CancelAcceptedError: 409,
    errors.DashboardNotFoundError: 404,
    errors.DatabaseError: 503,
    errors.IssuerAwayError: 503,
    errors.JobChangedError: 409,
    errors.JobHeldError: 409,
    errors.JobNotFoundError: 404,
    errors.JobStateConflictError: 409,
    errors.LocationNotFoundError: 404,
    errors.NoSuchPathError: 404,
    errors.WrongJobTypeError: 409,
    errors.NotReadyToShipError: 400,
    errors.NotYetClosableError: 409,
    errors.PersonalDataErasedError: 409,
    errors.PortalSettingsNotFoundError: 404,
    errors.PrefectAwayError: 503,
    errors.PropertyNotUpdatableError: 409,
    errors.RequestError: 400,
    errors.TokenError: 401,
    errors.TooManyRequestsError: 429,
}
"""The status of each error, and of those below it in the tree; any other is a fault of ours, 500."""

FAULT_OF_OURS: Final = 500
"""The status from which on it is not the caller who can mend it."""

_BUSY: Final = 503
_METHOD_NOT_ALLOWED: Final = 405
_TRY_AGAIN_SECONDS: Final = 5


@dataclass(slots=True, kw_only=True)
class FaultAnswer(Answer):
    """One fault of a request."""

    code: str
    message: str
    target: str


@dataclass(slots=True, kw_only=True)
class ErrorDetailAnswer(Answer):
    """What was refused, and what would have worked."""

    code: str
    message: str
    target: str | None = None
    details: list[FaultAnswer] | None = None


@dataclass(slots=True, kw_only=True)
class ErrorAnswer(Answer):
    """A refusal."""

    error: ErrorDetailAnswer


def status_of(error: DrivepostError) -> int:
    """Tell the status of an error's answer."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), FAULT_OF_OURS)


def answer(error: DrivepostError) -> Response:
    """Make the answer to a request that is refused."""
    status = status_of(error)
    faults = _faults(error)
    told = ErrorDetailAnswer(
        code=error.code, message=str(error), target=faults[0].target if faults else None, details=faults or None
    )
    response = ErrorAnswer(error=told).as_response(status)
    if isinstance(error, TokenError):
        response.headers["WWW-Authenticate"] = 'Bearer realm="drivepost", error="invalid_token"'
    if isinstance(error, TooManyRequestsError):
        response.headers["Retry-After"] = str(error.seconds)
    elif status == _BUSY:
        response.headers["Retry-After"] = str(_TRY_AGAIN_SECONDS)
    return response


def _faults(error: DrivepostError) -> list[FaultAnswer]:
    """Name every fault by the place where it stands."""
    if isinstance(error, RequestError):
        named: Sequence[tuple[str, str]] = error.faults
    elif isinstance(error, PropertyNotUpdatableError):
        named = [(_place(name), "cannot be changed in this state") for name in error.properties]
    elif isinstance(error, NotReadyToShipError):
        named = [(_place(name), "is needed to ship the job") for name in error.missing]
    else:
        return []
    return [FaultAnswer(code=error.code, message=text, target=target or "body") for target, text in named]


def _place(name: str) -> str:
    return name if name == "tags" else f"properties.{name}"


def of_query(error: RequestValidationError) -> RequestError:
    """Tell what is wrong with a request's query or path, without repeating its values."""
    return RequestError([(str(fault["loc"][-1]), plain_text(str(fault["msg"]))) for fault in error.errors()])


def of_routing(error: HTTPException) -> Response:
    """Make the answer to a request that no route takes."""
    methods = (error.headers or {}).get("Allow", "")
    told = answer(NoSuchPathError(methods))
    if error.status_code == _METHOD_NOT_ALLOWED:
        told.status_code = _METHOD_NOT_ALLOWED
        told.headers["Allow"] = methods
    return told
