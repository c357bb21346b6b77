"""Requests of Create Job, read with what stands outside of their bodies: names, and the locations there are."""

from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import from_json

from models.errors import RequestError
from models.request_faults import refusal
from models.requests import CreateJobBody, JobNames, JobRequest, parse


def parse_create(
    names: Mapping[str, str], document: bytes, user_id: UUID | None, require_location: Callable[[str], object]
) -> JobRequest:
    """Read a request of Create Job whose names stand apart from its body, and name every fault of both at once.

    Args:
        names: `subscriptionId`, `resourceGroupName`, `jobName`.
        document: the body.
        user_id: whose job it is; None where nobody says.
        require_location: raises RequestError for a location that is none.

    Raises:
        RequestError: something is wrong; every fault is named by its place.
    """
    faults: list[tuple[str, str]] = []
    try:
        JobNames.model_validate(names)
    except ValidationError as error:
        faults += refusal(error).faults
    body: CreateJobBody | None = None
    try:
        body = parse(CreateJobBody, document)
        location: object = body.location
    except RequestError as error:
        faults += error.faults
        location = _location_in(document)
    faults += _faults_of_location(location, require_location, faults)
    if body is None or faults:
        raise RequestError(faults)
    return JobRequest.model_validate({**names, "userId": user_id, "body": body})


def parse_job_request(document: bytes, require_location: Callable[[str], object]) -> JobRequest:
    """Read a whole request, and name every fault of it at once, an unknown location among them.

    Raises:
        RequestError: something is wrong; every fault is named by its place.
    """
    try:
        request = parse(JobRequest, document)
    except RequestError as error:
        known = [(place.removeprefix("body."), text) for place, text in error.faults]
        unknown = _faults_of_location(_location_in(document, "body"), require_location, known)
        raise RequestError([*error.faults, *((f"body.{place}", text) for place, text in unknown)]) from None
    unknown = _faults_of_location(request.body.location, require_location)
    if unknown:
        raise RequestError([(f"body.{place}", text) for place, text in unknown])
    return request


def _faults_of_location(
    location: object, require_location: Callable[[str], object], known: Sequence[tuple[str, str]] = ()
) -> Sequence[tuple[str, str]]:
    """Tell that a location is none, unless something else is wrong with it."""
    if not isinstance(location, str):
        return []
    try:
        require_location(location)
    except RequestError as error:
        return [fault for fault in error.faults if fault[0] not in dict(known)]
    return []


def _location_in(document: bytes, *within: str) -> object:
    """Find the location in a body that is wrong elsewhere; None where there is none."""
    try:
        found = from_json(document)
    except ValueError:
        return None
    for wanted in (*within, "location"):
        members = found if isinstance(found, dict) else {}
        # Of several the last one counts, as everywhere.
        found = {name.lower(): member for name, member in members.items()}.get(wanted)
    return found
