"""The timeline of a job: what happened to it in order, how its drives are, and what may be done with it now.

Nothing in it is personal: drives go by their numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import select as select_columns
from sqlmodel import Session, col, func, select

from models.copy_logs import DriveStatus
from models.deletion import require_deletable
from models.drives import Drive
from models.errors import JobError
from models.events import JobEvent
from models.jobs import Job, read_job
from models.lifecycle import CLOSABLE, DRIVE_ON_SITE, DriveState, JobState, Operation, Outcome, decide

_ASKED: Final = (
    Operation.SHIP,
    Operation.CHECK_IN,
    Operation.CANCEL,
    Operation.RETURN_DRIVES,
    Operation.CLOSE,
    Operation.DELETE,
    Operation.ERASE,
)
"""What an operator may want to do with a job; a copy begins by itself, and a hold is always possible."""

_AWAITED: Final = frozenset({DriveState.SPECIFIED, DriveState.NEVER_RECEIVED})


@dataclass(frozen=True, slots=True)
class DriveLine:
    """How a drive is, in bytes and aware UTC; the total is None before its copy began."""

    number: int
    state: DriveState
    state_since: datetime
    bytes_succeeded: int
    bytes_total: int | None
    copy_status: DriveStatus | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """What is told of a job.

    Attributes:
        job: the job as it was read.
        at: when it was read, aware UTC.
        drives: in the order of their numbers.
        events: the latest, oldest first.
        earlier: events before those.
        possible: what an operator may do now.
    """

    job: Job
    at: datetime
    drives: Sequence[DriveLine]
    events: Sequence[JobEvent]
    earlier: int
    possible: Sequence[Operation]


def read_timeline(session: Session, job_id: UUID, at: datetime, events_max: int) -> Timeline:
    """Read the timeline of a job.

    Args:
        session: an open session; it should see one state throughout.
        job_id: the job.
        at: now, aware UTC.
        events_max: how many events, the latest.

    Raises:
        JobNotFoundError: there is no such job.
    """
    job = read_job(session, job_id)
    # Columns, not entities: what is sealed stays so.
    told = select_columns(*(getattr(Drive, each.name) for each in fields(DriveLine)))
    rows = session.execute(told.where(col(Drive.job_id) == job_id).order_by(col(Drive.number)))
    drives = [DriveLine(*row) for row in rows]
    of_job = col(JobEvent.job_id) == job_id
    count = session.exec(select(func.count()).select_from(JobEvent).where(of_job)).one()
    latest = session.exec(
        select(JobEvent).where(of_job).order_by(col(JobEvent.number).desc()).limit(events_max)
    ).all()
    return Timeline(job, at, drives, latest[::-1], count - len(latest), _possible(job, drives, at))


def _possible(job: Job, drives: Sequence[DriveLine], at: datetime) -> list[Operation]:
    return [operation for operation in _ASKED if _may(operation, job) and _makes_sense(operation, job, drives, at)]


def _may(operation: Operation, job: Job) -> bool:
    try:
        if operation is Operation.DELETE:
            require_deletable(job)
        return decide(operation, job.state, cancel_accepted=job.cancel_requested) is Outcome.DONE
    except JobError:
        return False


def _makes_sense(operation: Operation, job: Job, drives: Sequence[DriveLine], at: datetime) -> bool:
    states = {drive.state for drive in drives}
    if operation is Operation.CHECK_IN:
        return job.state is JobState.SHIPPING or bool(states & _AWAITED)
    if operation is Operation.RETURN_DRIVES:
        return bool(states & DRIVE_ON_SITE)
    if operation is Operation.CLOSE:
        return at >= job.state_since + CLOSABLE
    if operation is Operation.ERASE:
        return job.erased_at is None and job.erasure_wished_at is None
    return True
