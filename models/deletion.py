"""Deletion of whole jobs, by hand and when their time is over: every row at once, with a receipt.

What is left of a deleted job are the ids of its runs, until Prefect has forgotten them, and the receipt.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Final
from uuid import UUID

from sqlalchemy import Table, delete, func
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import Session, SQLModel, col, select

import models.alerts  # importing a module of tables makes its tables known
import models.copies
import models.drives
import models.shipping  # noqa: F401  as above
from models.batches import among
from models.due import is_over
from models.errors import JobHeldError, JobsNotDeletedError
from models.jobs import Job, read_job
from models.lifecycle import Actor, JobState, Operation, decide, require_actor
from models.receipts import Deletion, Reason, Subject, begin_receipts
from models.runs import mark_runs_of_deleted_jobs
from models.spent_requests import remember_spent_requests

_REASONS: Final[Mapping[JobState, Reason]] = {
    JobState.CREATING: Reason.EXPIRY,
    JobState.COMPLETED: Reason.RETENTION,
    JobState.CLOSED: Reason.RETENTION,
}
"""Why the service deletes a job, by its state: its 14 idle days, or its 90 days, are over."""


def delete_job(
    session: Session, job_id: UUID, *, at: datetime, by: Actor, reason: Reason = Reason.BY_HAND
) -> None:
    """Delete a job by hand, with every row of it; its runs are put on the list of what is to be forgotten.

    Raises:
        JobNotFoundError: there is none, or somebody else deleted it first.
        JobStateConflictError: it is in none of the states in which it may be deleted by hand.
        JobHeldError: it is under legal hold.
        JobsNotDeletedError: the database keeps it without a word.

    Source: the seed document; the specification, section 4.
    """
    require_actor(Operation.DELETE, by)
    job = read_job(session, job_id, lock=True)
    require_deletable(job)
    _delete(session, {job_id: (reason, at)}, at)


def require_deletable(job: Job) -> None:
    """Refuse to delete a job by hand as it was read.

    Raises:
        JobStateConflictError: it is in none of the states in which it may be deleted by hand.
        JobHeldError: it is under legal hold.
    """
    decide(Operation.DELETE, job.state, cancel_accepted=job.cancel_requested)
    if job.held_since is not None:
        raise JobHeldError


@dataclass(frozen=True, slots=True)
class Expired:
    """A job whose time is over: which, in what state, and since when it should be gone."""

    job_id: UUID
    state: JobState
    expires_at: datetime


def expired_jobs(
    session: Session, at: datetime, rows_max: int, *, lock: bool = False, but: Collection[UUID] = ()
) -> Sequence[Expired]:
    """Find jobs whose time is over at a moment, the longest overdue first.

    Args:
        session: an open session; with `lock`, one that writes.
        at: the moment, aware UTC; a job due at exactly this moment is found.
        rows_max: how many at most.
        lock: take the rows, and pass over those that another sweep has taken (PostgreSQL; on SQLite one
            sweep waits for the other).
        but: jobs that are passed over, some at most.
    """
    chosen = (
        select(Job.id, Job.state, Job.expires_at)
        .where(*is_over(session, at), col(Job.id).not_in(but))
        .order_by(col(Job.expires_at))
        .limit(rows_max)
    )
    rows = session.exec(chosen.with_for_update(skip_locked=True) if lock else chosen).all()
    return [
        Expired(job_id=row[0], state=JobState(row[1]), expires_at=row[2]) for row in rows if row[2] is not None
    ]


def count_expired_jobs(session: Session, at: datetime) -> int:
    """Count the jobs whose time is over at a moment."""
    return session.exec(select(func.count()).select_from(Job).where(*is_over(session, at))).one()


def delete_expired_jobs(
    session: Session, at: datetime, rows_max: int, *, now: datetime | None = None, but: Collection[UUID] = ()
) -> Sequence[Expired]:
    """Delete jobs whose time is over, at most `rows_max`, with every row of them.

    Args:
        session: a session that writes.
        at: the moment of the sweep, aware UTC.
        rows_max: how many at most.
        now: what the receipts say, where the sweep has taken a while; the moment itself by default.
        but: jobs that are passed over, some at most.

    Returns:
        What was deleted; fewer than `rows_max` means that nothing more is due, or another sweep has it.

    Raises:
        JobsNotDeletedError: the database refuses to delete one of them.

    Source: the specification, section 4: at 90 (14) days exactly and not a second before.
    """
    require_actor(Operation.EXPIRE, Actor.SERVICE)
    due = expired_jobs(session, at, rows_max, lock=True, but=but)
    try:
        _delete(session, {job.job_id: (_REASONS[job.state], job.expires_at) for job in due}, now or at)
    except DBAPIError as error:
        if isinstance(error, OperationalError) or error.connection_invalidated:
            raise
        raise JobsNotDeletedError([job.job_id for job in due], type(error.orig).__name__) from error
    return due


def _delete(session: Session, doomed: Mapping[UUID, tuple[Reason, datetime]], at: datetime) -> None:
    """Delete jobs that are locked, each with its receipt: why, and since when it should be gone."""
    if not doomed:
        return
    job_ids = list(doomed)
    remember_spent_requests(session, job_ids, at=at)
    mark_runs_of_deleted_jobs(session, job_ids)
    counts = _delete_rows(session, job_ids)
    begin_receipts(
        session,
        [
            Deletion(job_id, Subject.JOB, reason, due_at, counts[job_id])
            for job_id, (reason, due_at) in doomed.items()
        ],
        at=at,
    )


def _delete_rows(session: Session, job_ids: Collection[UUID]) -> Mapping[UUID, Mapping[str, int]]:
    """Delete jobs with every row of them; gives the rows by job and table, as `count_rows` tells them.

    Raises:
        JobsNotDeletedError: the database kept one without a word, as a trigger of somebody else's may.
    """
    counts = count_rows(session, job_ids)
    connection = session.connection()
    gone = connection.execute(delete(Job).where(among(connection, col(Job.id), job_ids))).rowcount
    if gone < len(job_ids):
        raise JobsNotDeletedError(list(job_ids), "KeptWithoutAnError")
    return counts


def count_rows(session: Session, job_ids: Collection[UUID]) -> Mapping[UUID, Mapping[str, int]]:
    """Count the rows of jobs in every table whose rows go with their job: job id -> table -> rows, 1 or more."""
    session.flush()
    connection = session.connection()
    of_job = [select(func.count()).where(table.columns["job_id"] == col(Job.id)) for table in _tables_of_job()]
    rows = connection.execute(
        select(col(Job.id), *(each.scalar_subquery() for each in of_job)).where(
            among(connection, col(Job.id), job_ids)
        )
    )
    return {job_id: _named(tuple(counted)) for job_id, *counted in rows}


@lru_cache(1024)
def _named(counted: tuple[int, ...]) -> Mapping[str, int]:
    """Name numbers of rows by their table; one and the same for the many jobs that have as many of each."""
    names = [table.name for table in _tables_of_job()]
    named = {name: count for name, count in zip(names, counted, strict=True) if count}
    return MappingProxyType({"job": 1, **named})


@cache
def _tables_of_job() -> Sequence[Table]:
    """Tell which tables have rows that go with their job; runs stay until Prefect has forgotten them."""
    tables = SQLModel.metadata.sorted_tables
    return [table for table in tables if "job_id" in table.columns and table.foreign_keys]
