"""Dashboards: which jobs one shows, by its filter."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import Field, StrictBool, StringConstraints, model_validator
from sqlalchemy import ColumnElement, case, delete
from sqlmodel import Session, col, func, select

from models.errors import DashboardNotFoundError, RequestError
from models.jobs import Job
from models.lifecycle import JobState, JobType
from models.portal import Dashboard, lock_settings, settings_to_write
from models.requests import OpaqueId, ResourceGroupName, Shape, SubscriptionId

DASHBOARDS_MAX: Final = 100
"""Dashboards that one user may have."""

# A full set of dashboards, exported, stays below what a request file may hold.
_Some = Field(min_length=1, max_length=20)
_NO_CONTROL: Final = r"^[^\x00-\x1f\x7f]*$"
_Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, pattern=_NO_CONTROL)]
_Location = Annotated[_Line, StringConstraints(max_length=50)]
_Name = Annotated[_Line, StringConstraints(max_length=256)]


class DashboardFilter(Shape):
    """`filter`: which jobs a dashboard shows. What is absent shows all; of a list, any will do."""

    states: Annotated[list[JobState], _Some] | None = None
    job_types: Annotated[list[JobType], _Some] | None = None
    subscription_ids: Annotated[list[SubscriptionId], _Some] | None = None
    resource_groups: Annotated[list[ResourceGroupName], _Some] | None = None
    locations: Annotated[list[_Location], _Some] | None = None

    @model_validator(mode="before")
    @classmethod
    def _knows_its_members(cls, value: Any) -> Any:
        # Read over, a misspelt one would show all jobs.
        names = [str(field.alias) for field in cls.model_fields.values()]
        known = {name.lower() for name in names} | cls.model_fields.keys()
        if isinstance(value, dict) and {str(name).lower() for name in value} - known:
            raise ValueError(f"may hold {', '.join(names)} and nothing else")
        return value


class DashboardShape(Shape):
    """One entry of `dashboards`; the two times are the service's, and read over when it comes in."""

    id: OpaqueId | None = None
    name: _Name
    shared: StrictBool = False
    filter: DashboardFilter = Field(default_factory=DashboardFilter)
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ShownJob:
    """A job as a dashboard shows it: without names."""

    job_id: UUID
    job_type: JobType
    state: JobState
    state_since: datetime


def jobs_of_dashboard(
    session: Session, dashboard_id: UUID, rows_max: int, *, lock: bool = False
) -> tuple[int, Sequence[ShownJob]]:
    """Find the jobs that a dashboard shows, the latest change of state first.

    Args:
        session: an open session; with `lock`, one that writes.
        dashboard_id: the dashboard.
        rows_max: how many at most.
        lock: keep the jobs found from being changed or deleted until the transaction ends.

    Returns:
        How many jobs the filter finds, and at most `rows_max` of them.

    Raises:
        DashboardNotFoundError: there is no such dashboard.
    """
    dashboard = session.get(Dashboard, dashboard_id)
    if dashboard is None:
        raise DashboardNotFoundError
    found = finds(DashboardFilter.model_validate(dashboard.filter))
    chosen = (
        select(Job.id, Job.job_type, Job.state, Job.state_since)
        .where(*found)
        .order_by(col(Job.state_since).desc(), col(Job.id))
        .limit(rows_max)
    )
    rows = session.exec(chosen.with_for_update(read=True) if lock else chosen).all()
    count = session.exec(select(func.count()).select_from(Job).where(*found)).one()
    return count, [ShownJob(row[0], JobType(row[1]), JobState(row[2]), row[3]) for row in rows]


def finds(wanted: DashboardFilter) -> Sequence[ColumnElement[bool]]:
    """Tell what a filter asks of a job; names compare without regard to case, locations also to spaces."""
    location = func.lower(func.replace(col(Job.location), " ", ""))
    columns: tuple[tuple[Any, Sequence[str] | None], ...] = (
        (col(Job.state), wanted.states),
        (col(Job.job_type), wanted.job_types),
        (func.lower(col(Job.subscription_id)), _lower(wanted.subscription_ids)),
        (func.lower(col(Job.resource_group)), _lower(wanted.resource_groups)),
        (location, _lower(wanted.locations)),
    )
    return [column.in_(values) for column, values in columns if values is not None]


def _lower(names: Sequence[str] | None) -> Sequence[str] | None:
    return names and [name.replace(" ", "").lower() for name in names]


def shape_of(dashboard: Dashboard) -> DashboardShape:
    """Tell a dashboard as documents and answers have it."""
    return DashboardShape(
        id=dashboard.id,
        name=dashboard.name,
        shared=dashboard.is_shared,
        filter=DashboardFilter.model_validate(dashboard.filter),
        created_at=dashboard.created_at,
        updated_at=dashboard.updated_at,
    )


def columns_of(shape: DashboardShape) -> dict[str, Any]:
    """Tell which columns a shape fills: column -> value."""
    kept = shape.filter.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"name": shape.name, "is_shared": shape.shared, "filter": kept}


def dashboards_for(session: Session, user_id: UUID, rows_max: int) -> Sequence[Dashboard]:
    """Find the dashboards that a user sees, their own and then the shared ones, by name, at most `rows_max`."""
    seen = (col(Dashboard.user_id) == user_id) | col(Dashboard.is_shared)
    chosen = (
        select(Dashboard)
        .where(seen)
        .order_by(case((col(Dashboard.user_id) == user_id, 0), else_=1), col(Dashboard.name), col(Dashboard.id))
    )
    return session.exec(chosen.limit(rows_max)).all()


def read_dashboard(session: Session, dashboard_id: UUID, user_id: UUID, *, own: bool = False) -> Dashboard:
    """Read a dashboard that a user sees; with `own`, one of theirs.

    Raises:
        DashboardNotFoundError: there is none, or it is not for them.
    """
    dashboard = session.get(Dashboard, dashboard_id)
    if dashboard is None or not (dashboard.user_id == user_id or (dashboard.is_shared and not own)):
        raise DashboardNotFoundError
    return dashboard


def create_dashboard(session: Session, user_id: UUID, shape: DashboardShape, *, at: datetime) -> Dashboard:
    """Create a dashboard of a user's.

    Raises:
        RequestError: the user has as many as one may have.
    """
    settings_to_write(session, user_id, at=at)
    own = session.exec(select(func.count()).select_from(Dashboard).where(col(Dashboard.user_id) == user_id)).one()
    if own >= DASHBOARDS_MAX:
        raise RequestError([("", f"a user has at most {DASHBOARDS_MAX} dashboards; delete one first")])
    dashboard = Dashboard(user_id=user_id, created_at=at, updated_at=at, **columns_of(shape))
    session.add(dashboard)
    session.flush()
    return dashboard


def update_dashboard(
    session: Session, dashboard_id: UUID, user_id: UUID, shape: DashboardShape, *, at: datetime
) -> Dashboard:
    """Change a dashboard of a user's to what a shape says.

    Raises:
        DashboardNotFoundError: they have none of that id.
    """
    settings_to_write(session, user_id, at=at)
    session.expire_all()
    dashboard = read_dashboard(session, dashboard_id, user_id, own=True)
    dashboard.sqlmodel_update({**columns_of(shape), "updated_at": at})
    session.flush()
    return dashboard


def delete_dashboard(session: Session, dashboard_id: UUID, user_id: UUID | None) -> None:
    """Delete a dashboard: a user's own, or for an operator (None) a shared one, whoever made it.

    Raises:
        DashboardNotFoundError: there is none of that id that they may delete.
    """
    dashboard = session.get(Dashboard, dashboard_id)
    if dashboard is None or not (dashboard.is_shared if user_id is None else dashboard.user_id == user_id):
        raise DashboardNotFoundError
    if dashboard.user_id is not None:
        lock_settings(session, dashboard.user_id)
    gone = delete(Dashboard).where(col(Dashboard.id) == dashboard_id).returning(col(Dashboard.id))
    if session.connection().execute(gone).one_or_none() is None:
        raise DashboardNotFoundError
    session.expire_all()
