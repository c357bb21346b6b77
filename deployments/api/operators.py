"""For operators: what holds personal data, and therefore cannot be typed into the Prefect UI."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from sqlmodel import Session, col, select
from starlette.responses import Response

from deployments.api.answers import Answer
from deployments.api.bodies import body_of, described
from deployments.api.callers import admitted
from deployments.api.means import errands_of, locations_of
from deployments.api.portal import DashboardId, JobId, PortalJobAnswer, about
from deployments.api.tokens import Caller
from models.bay import return_drives
from models.dashboards import delete_dashboard
from models.database import database_time, reading, writing
from models.drives import ExtraDrive
from models.jobs import Job, close_job
from models.locations import Locations
from models.requests import ReturnRequest

router: Final = APIRouter(prefix="/operator", tags=["operator"])


async def _operator(caller: Annotated[Caller, Depends(admitted)]) -> Caller:
    caller.require_operator()
    return caller


_Operator = Annotated[Caller, Depends(_operator)]


@dataclass(slots=True, kw_only=True)
class ExtraDriveAnswer(Answer):
    """A drive that came with a job's package and is on no list."""

    drive_id: str | None = None
    found_at: datetime
    shipped_back_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class OperatorJobAnswer(PortalJobAnswer):
    """A job as operators need it: with the drives that nobody listed, and whose it is."""

    user_id: UUID | None = None
    extra_drives: list[ExtraDriveAnswer]


def _about(session: Session, job_id: UUID, locations: Locations) -> OperatorJobAnswer:
    told = about(session, job_id, locations)
    shallow = {each.name: getattr(told, each.name) for each in fields(told)}
    chosen = select(ExtraDrive).where(col(ExtraDrive.job_id) == job_id).order_by(col(ExtraDrive.found_at))
    extra = [
        ExtraDriveAnswer(
            drive_id=drive.drive_id or None, found_at=drive.found_at, shipped_back_at=drive.shipped_back_at
        )
        for drive in session.exec(chosen)
    ]
    return OperatorJobAnswer(**shallow, user_id=session.get_one(Job, job_id).user_id, extra_drives=extra)


@router.get("/jobs/{jobId}", operation_id="OperatorJobs_Get", response_model=OperatorJobAnswer)
def get_job(request: Request, _caller: _Operator, job_id: JobId) -> Response:
    """Read a job, with the drives that came with it and are on no list."""
    with reading(of_one_moment=True) as session:
        return _about(session, job_id, locations_of(request)).as_response()


@router.post(
    "/jobs/{jobId}/returnPackage",
    operation_id="OperatorJobs_ReturnPackage",
    response_model=OperatorJobAnswer,
    openapi_extra=described(ReturnRequest),
)
def return_package(
    request: Request,
    caller: _Operator,
    job_id: JobId,
    body: Annotated[ReturnRequest, Depends(body_of(ReturnRequest))],
) -> Response:
    """Record that a job's drives were sent back, in which package; a job in Packaging ends by it."""
    with writing() as session:
        return_drives(
            session, job_id, body.return_package, at=database_time(session), by=caller.require_operator()
        )
        answer = _about(session, job_id, locations_of(request))
    if answer.erased_at is not None:
        errands_of(request).return_free_pages()
    return answer.as_response()


@router.post("/jobs/{jobId}/close", operation_id="OperatorJobs_Close", response_model=OperatorJobAnswer)
def close(request: Request, caller: _Operator, job_id: JobId) -> Response:
    """Close a job that nobody answered for in 30 days of Shipping."""
    with writing() as session:
        close_job(session, job_id, at=database_time(session), by=caller.require_operator())
        return _about(session, job_id, locations_of(request)).as_response()


@router.delete("/dashboards/{dashboardId}", operation_id="OperatorDashboards_Delete", response_class=Response)
def delete_shared_dashboard(_caller: _Operator, dashboard_id: DashboardId) -> Response:
    """Delete a shared dashboard, whoever made it; /portal/dashboards lists them."""
    with writing() as session:
        delete_dashboard(session, dashboard_id, None)
    return Response(status_code=200)
