"""Legal holds: a job that may be evidence is not deleted, whoever asks, until an operator releases it.

The database itself keeps a held job (triggers of migrations 0005 and 0006); what is here tells why it stays,
before anybody runs into that.
"""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlmodel import Session, col, func, select

from models.events import EventKind, JobEvent
from models.jobs import HoldReason, Job, read_job
from models.lifecycle import Actor, Operation, Outcome, require_actor


class ReleaseReason(StrEnum):
    """Why a legal hold is released."""

    MATTER_ENDED = "matter ended"
    PLACED_IN_ERROR = "placed in error"


def place_hold(session: Session, job_id: UUID, reason: HoldReason, *, at: datetime, by: Actor) -> Outcome:
    """Place a legal hold on a job, or change the reason of the one it has.

    Returns:
        NOTHING_TO_DO when it is held for that reason already.

    Raises:
        JobNotFoundError: there is no such job; a deletion came first.
        ActorNotAllowedError: only operators place holds.
    """
    require_actor(Operation.HOLD, by)
    job = read_job(session, job_id, lock=True)
    if job.hold_reason is reason:
        return Outcome.NOTHING_TO_DO
    job.held_since = job.held_since or at
    job.hold_reason = reason
    session.add(job)
    session.add(JobEvent(job_id=job_id, at=at, kind=EventKind.HOLD_PLACED, by=by, what=reason))
    session.flush()
    return Outcome.DONE


def release_hold(session: Session, job_id: UUID, reason: ReleaseReason, *, at: datetime, by: Actor) -> Outcome:
    """Release a job's legal hold; a job whose days were over meanwhile is due from now on.

    Returns:
        NOTHING_TO_DO when it is not held.

    Raises:
        JobNotFoundError: there is no such job.
        ActorNotAllowedError: only operators release holds.
    """
    require_actor(Operation.HOLD, by)
    job = read_job(session, job_id, lock=True)
    if job.held_since is None:
        return Outcome.NOTHING_TO_DO
    job.held_since = job.hold_reason = None
    # Nobody was late with a job that had to stay.
    job.expires_at = job.expires_at and max(job.expires_at, at)
    session.add(job)
    session.add(JobEvent(job_id=job_id, at=at, kind=EventKind.HOLD_RELEASED, by=by, what=reason))
    session.flush()
    return Outcome.DONE


def count_held_jobs(session: Session) -> dict[HoldReason, int]:
    """Count the jobs under legal hold, by reason; reasons of none are left out."""
    rows = session.exec(
        select(Job.hold_reason, func.count())
        .where(col(Job.held_since).is_not(None))
        .group_by(col(Job.hold_reason))
    )
    return {HoldReason(reason): count for reason, count in rows if reason is not None}
