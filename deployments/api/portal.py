"""What a portal needs beside the ten operations: what may be done with a job now, settings, dashboards.

A job goes by its opaque id here. One that is not the caller's to see is answered as one that is not there.
"""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from sqlalchemy import ColumnElement, and_, true
from sqlmodel import Session, col, select
from starlette.responses import Response

from deployments.api.answers import Answer, JobAnswer, job_answer
from deployments.api.bodies import body_of, described
from deployments.api.callers import admitted
from deployments.api.envelope import read_body
from deployments.api.means import answer_about, ask_to_cancel, errands_of, locations_of
from deployments.api.pages import Paging
from deployments.api.tokens import Caller, Role
from models.abilities import abilities_of
from models.dashboards import DashboardFilter, finds, read_dashboard
from models.database import database_time, reading, writing
from models.deletion import delete_job
from models.erasure import wish_erasure
from models.errors import JobNotFoundError, RequestError
from models.events import EventKind, JobEvent
from models.job_facts import read_facts
from models.job_requests import parse_job_request
from models.jobs import Job, read_job, request_cancel
from models.lifecycle import Actor, Outcome
from models.locations import Locations
from models.requests import JobRequest, OpaqueId, ShipRequest
from models.updates import put_job, update_job

router: Final = APIRouter(prefix="/portal", tags=["portal"])

_Caller = Annotated[Caller, Depends(admitted)]

JobId = Annotated[OpaqueId, Path(alias="jobId")]
DashboardId = Annotated[OpaqueId, Path(alias="dashboardId")]

_SAVE: Final = "saveCarrierAndReturnAddressAsDefault"
_USE: Final = "useSavedCarrierAndReturnAddress"
_EVENTS_MAX: Final = 1_000


@dataclass(slots=True, kw_only=True)
class CallerAnswer(Answer):
    """Who asks, as we know them: by an opaque id."""

    user_id: UUID
    roles: list[Role]
    subscriptions: list[str] | None = None


@dataclass(slots=True, kw_only=True)
class PortalJobAnswer(Answer):
    """A job, and what may be done with it now.

    Attributes:
        job_id: the opaque id, which operators and runs call it by.
        is_cancellable: whether a cancel would be accepted.
        is_deletable: whether it may be deleted by hand.
        expires_at: when the service deletes it; left out while it does not.
        erasure_outcome: what came of the request, where it asked for an erasure.
    """

    job_id: UUID
    job: JobAnswer
    state_since: datetime
    is_cancellable: bool
    is_deletable: bool
    expires_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    erasure_wished_at: datetime | None = None
    erased_at: datetime | None = None
    erasure_outcome: Outcome | None = None


@dataclass(slots=True, kw_only=True)
class PortalJobListAnswer(Answer):
    """A page of jobs, and where the next one is."""

    value: list[PortalJobAnswer]
    next_link: str | None = None


@dataclass(slots=True, kw_only=True)
class EventAnswer(Answer):
    """One thing that happened to a job."""

    number: int
    at: datetime
    kind: EventKind
    by: Actor
    drive_number: int | None = None
    source: str | None = None
    target: str | None = None
    what: str | None = None


@dataclass(slots=True, kw_only=True)
class EventListAnswer(Answer):
    """What happened to a job, the oldest first."""

    value: list[EventAnswer]


def read_own_job(session: Session, caller: Caller, job_id: UUID) -> Job:
    """Read a job that the caller may see.

    Raises:
        JobNotFoundError: there is none, or it is not theirs to see.
    """
    job = read_job(session, job_id)
    if not caller.sees(job.subscription_id):
        raise JobNotFoundError
    return job


def portal_answer(job: Job, answer: JobAnswer) -> PortalJobAnswer:
    """Say beside the answer about a job what may be done with it now."""
    able = abilities_of(job)
    return PortalJobAnswer(
        job_id=job.id,
        job=answer,
        state_since=job.state_since,
        is_cancellable=able.is_cancellable,
        is_deletable=able.is_deletable,
        expires_at=able.expires_at,
        cancel_requested_at=job.cancel_requested_at,
        erasure_wished_at=job.erasure_wished_at,
        erased_at=job.erased_at,
    )


def about(session: Session, job_id: UUID, locations: Locations) -> PortalJobAnswer:
    """Tell of a job as it is now, also where it was written to past the session's objects."""
    session.flush()
    session.expire_all()
    job = read_job(session, job_id)
    return portal_answer(job, answer_about(session, job, locations))


def _require_own_tick(actor: Actor, name: str, *, ticked: bool) -> None:
    """Refuse an operator's tick: a default is a customer's, saved and used by their own wish alone."""
    if ticked and actor is not Actor.CUSTOMER:
        fault = "is for a customer's own request; leave it out, and give returnAddress and returnShipping"
        raise RequestError([(name, fault)])


@router.get("/me", operation_id="Portal_Me", response_model=CallerAnswer)
async def me(caller: _Caller) -> Response:
    """Tell who asks."""
    subscriptions = None if caller.subscriptions is None else sorted(caller.subscriptions)
    return CallerAnswer(
        user_id=caller.user_id, roles=sorted(caller.roles), subscriptions=subscriptions
    ).as_response()


@router.get("/jobs", operation_id="PortalJobs_List", response_model=PortalJobListAnswer)
def list_own_jobs(request: Request, caller: _Caller, paging: Annotated[Paging, Depends()]) -> Response:
    """List the jobs of the caller's subscriptions, by name; an operator's are all."""
    with reading(of_one_moment=True) as session:
        return list_of_jobs(session, request, caller, paging).as_response()


def list_of_jobs(
    session: Session,
    request: Request,
    caller: Caller,
    paging: Paging,
    found_by: ColumnElement[bool] | None = None,
) -> PortalJobListAnswer:
    """Make a page of the jobs that the caller sees, and that are found by a condition where there is one."""
    page, next_link = paging.read(session, caller.scopes, found_by)
    jobs = [
        portal_answer(facts.job, job_answer(facts, locations_of(request)))
        for facts in read_facts(session, page.jobs)
    ]
    return PortalJobListAnswer(value=jobs, next_link=next_link)


@router.get(
    "/dashboards/{dashboardId}/jobs", operation_id="Dashboards_ListJobs", response_model=PortalJobListAnswer
)
def list_jobs_of_dashboard(
    request: Request, caller: _Caller, dashboard_id: DashboardId, paging: Annotated[Paging, Depends()]
) -> Response:
    """List the jobs that a dashboard shows, of those that the caller sees."""
    with reading(of_one_moment=True) as session:
        dashboard = read_dashboard(session, dashboard_id, caller.user_id)
        shown = and_(true(), *finds(DashboardFilter.model_validate(dashboard.filter)))
        return list_of_jobs(session, request, caller, paging, shown).as_response()


@router.post(
    "/jobs",
    operation_id="PortalJobs_Create",
    response_model=PortalJobAnswer,
    openapi_extra=described(JobRequest),
)
def create(request: Request, caller: _Caller, document: Annotated[bytes, Depends(read_body)]) -> Response:
    """Create a job, or replace it while it is Creating, with the ticks of the portal's form.

    What is ticked to be saved as default is kept in the caller's portal settings, and nothing else is.
    """
    body = parse_job_request(document, locations_of(request).find)
    actor = caller.acts_in(body.subscription_id)
    if body.user_id not in {None, caller.user_id}:
        raise RequestError([("userId", "is another's; leave it out, it is yours")])
    _require_own_tick(actor, _SAVE, ticked=body.save_carrier_and_return_address_as_default)
    _require_own_tick(actor, _USE, ticked=body.use_saved_carrier_and_return_address)
    asked = body.model_copy(update={"user_id": caller.owner_as(actor)})
    with writing() as session:
        job_id = put_job(session, asked, locations_of(request), at=database_time(session), by=actor)
        return about(session, job_id, locations_of(request)).as_response()


@router.get("/jobs/{jobId}", operation_id="PortalJobs_Get", response_model=PortalJobAnswer)
def get(request: Request, caller: _Caller, job_id: JobId) -> Response:
    """Read a job and what may be done with it now."""
    with reading(of_one_moment=True) as session:
        job = read_own_job(session, caller, job_id)
        return portal_answer(job, answer_about(session, job, locations_of(request))).as_response()


@router.patch(
    "/jobs/{jobId}",
    operation_id="PortalJobs_Update",
    response_model=PortalJobAnswer,
    openapi_extra=described(ShipRequest),
)
def update(
    request: Request,
    caller: _Caller,
    job_id: JobId,
    body: Annotated[ShipRequest, Depends(body_of(ShipRequest))],
) -> Response:
    """Change a job's properties as Update Job Properties does, with the tick of the portal's form."""
    with writing() as session:
        job = read_own_job(session, caller, job_id)
        actor = caller.acts_in(job.subscription_id)
        _require_own_tick(actor, _SAVE, ticked=body.save_carrier_and_return_address_as_default)
        update_job(
            session,
            job_id,
            body,
            at=database_time(session),
            by=actor,
            saves_as_default=body.save_carrier_and_return_address_as_default,
            asked_by=caller.user_id,
        )
        session.flush()
        answer = portal_answer(job, answer_about(session, job, locations_of(request)))
    ask_to_cancel(request, job)
    return answer.as_response()


@router.post("/jobs/{jobId}/cancel", operation_id="PortalJobs_Cancel", response_model=PortalJobAnswer)
def cancel(request: Request, caller: _Caller, job_id: JobId) -> Response:
    """Cancel a job before Packaging; asked again, it answers as the first time."""
    with writing() as session:
        job = read_own_job(session, caller, job_id)
        request_cancel(session, job_id, at=database_time(session), by=caller.acts_in(job.subscription_id))
        answer = about(session, job_id, locations_of(request))
    ask_to_cancel(request, job)
    return answer.as_response()


@router.delete("/jobs/{jobId}", operation_id="PortalJobs_Delete", response_class=Response)
def delete(request: Request, caller: _Caller, job_id: JobId) -> Response:
    """Delete a job in Creating or Completed."""
    with writing() as session:
        actor = caller.acts_in(read_own_job(session, caller, job_id).subscription_id)
        delete_job(session, job_id, at=database_time(session), by=actor)
    errands_of(request).return_free_pages()
    errands_of(request).ask("delete-job", job_id)
    return Response(status_code=200)


@router.post("/jobs/{jobId}/erasePersonalData", operation_id="PortalJobs_Erase", response_model=PortalJobAnswer)
def erase(
    request: Request,
    caller: _Caller,
    job_id: JobId,
    at_once: Annotated[  # noqa: FBT002  of the query, by its name
        bool, Query(alias="atOnce", description="Refuse rather than wait until the drives are back.")
    ] = False,
) -> Response:
    """Erase the personal data of a job, at once or as soon as its drives are back; the job stays until its end."""
    with writing() as session:
        actor = caller.acts_in(read_own_job(session, caller, job_id).subscription_id)
        outcome = wish_erasure(session, job_id, at=database_time(session), by=actor, at_once=at_once)
        answer = about(session, job_id, locations_of(request))
    if outcome is Outcome.DONE:
        errands_of(request).return_free_pages()
    answer.erasure_outcome = outcome
    return answer.as_response()


@router.get("/jobs/{jobId}/events", operation_id="PortalJobs_ListEvents", response_model=EventListAnswer)
def list_events(
    caller: _Caller,
    job_id: JobId,
    after: Annotated[int, Query(ge=0, le=2**53, description="Only events of a higher number.")] = 0,
) -> Response:
    """List what happened to a job, the oldest first, at most 1,000 events."""
    with reading(of_one_moment=True) as session:
        read_own_job(session, caller, job_id)
        chosen = select(JobEvent).where(col(JobEvent.job_id) == job_id, col(JobEvent.number) > after)
        events = session.exec(chosen.order_by(col(JobEvent.number)).limit(_EVENTS_MAX)).all()
        told = [
            EventAnswer(**{each.name: getattr(event, each.name) for each in fields(EventAnswer)})
            for event in events
        ]
    return EventListAnswer(value=told).as_response()
