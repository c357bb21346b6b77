"""Erasure of personal data out of a job that stays, as a skeleton, until its 90 days are over.

At once where the job is at its end and no drive has to go back any more; until then it is a wish, because the
drives go back to the very address. Source: the specification, section 6.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, func, or_, update
from sqlmodel import Session, SQLModel, col, select

from models.deletion import count_rows, delete_job
from models.drives import Drive, ExtraDrive
from models.errors import AddressNeededError, JobHeldError, PersonalDataErasedError
from models.events import EventKind, JobEvent
from models.jobs import Job, read_job
from models.lifecycle import (
    DRIVE_ON_SITE,
    ENDS,
    PACKAGE_OVERDUE,
    RULES,
    Actor,
    DriveState,
    JobState,
    JobType,
    Operation,
    Outcome,
    decide,
    require_actor,
)
from models.personal_data import places
from models.receipts import Deletion, Reason, Subject, begin_receipts

_SKELETON: Final = frozenset({Drive.__tablename__})
"""Tables whose rows stay, emptied: how many drives a job had, and what came of them, is nobody's data."""


def wish_erasure(session: Session, job_id: UUID, *, at: datetime, by: Actor, at_once: bool = False) -> Outcome:
    """Erase the personal data of a job now, or write down the wish and do it when the drives are back.

    Args:
        session: a session that writes.
        job_id: the job.
        at: now, aware UTC.
        by: who asks.
        at_once: refuse where it would be a wish.

    Returns:
        DONE when it is erased, WISHED when the wish is written down, NOTHING_TO_DO when either was so before.

    Raises:
        JobNotFoundError: there is no such job.
        JobStateConflictError: it is Creating, and can be deleted whole.
        AddressNeededError: `at_once`, and drives still go back to the address; the text says why.
    """
    require_actor(Operation.ERASE, by)
    job = read_job(session, job_id, lock=True)
    decide(Operation.ERASE, job.state, cancel_accepted=job.cancel_requested)
    if job.erased_at is not None:
        return Outcome.NOTHING_TO_DO
    reason = _why_needed(session, job_id, at)
    if reason is None:
        _erase(session, job, at=at, by=by)
        return Outcome.DONE
    if at_once:
        raise AddressNeededError(reason)
    if job.erasure_wished_at is not None:
        return Outcome.NOTHING_TO_DO
    _write_wish(session, job, at=at, by=by)
    return Outcome.WISHED


def _write_wish(session: Session, job: Job, *, at: datetime, by: Actor) -> None:
    job.erasure_wished_at = at
    session.add(job)
    session.add(JobEvent(job_id=job.id, at=at, kind=EventKind.ERASURE_WISHED, by=by))
    session.flush()


def carry_out_wish(session: Session, job: Job, *, at: datetime) -> bool:
    """Erase a job's personal data if that was wished and its address is not needed any more.

    A job that was not sent yet, which a legal hold kept from being deleted whole, is deleted now.
    """
    if job.erasure_wished_at is None or job.erased_at is not None:
        return False
    session.flush()
    if _why_needed(session, job.id, at) is not None:
        return False
    if job.state in RULES[Operation.ERASE].done:
        _erase(session, job, at=at, by=Actor.SERVICE)
    else:
        # For whoever wished it, and might have deleted it but for the hold.
        delete_job(session, job.id, at=at, by=Actor.OPERATOR, reason=Reason.WISH)
    return True


def due_erasures(session: Session, at: datetime, rows_max: int) -> Sequence[UUID]:
    """Find jobs whose erasure was wished and can be carried out now, the oldest wish first."""
    return session.exec(
        select(Job.id)
        .where(
            col(Job.erasure_wished_at).is_not(None),
            col(Job.erased_at).is_(None),
            ~or_(*(needed for needed, _ in _needs(at))),
        )
        .order_by(col(Job.erasure_wished_at))
        .limit(rows_max)
    ).all()


def jobs_to_erase(
    session: Session, user_id: UUID, rows_max: int, subscriptions: Collection[str] | None = None
) -> Sequence[tuple[UUID, JobState]]:
    """Find a user's jobs whose erasure was not wished yet: each job's id and state, at most `rows_max`.

    `subscriptions`, in lower case, are those in which the user may still act; None is every one.
    """
    chosen = select(Job.id, Job.state).where(col(Job.user_id) == user_id, col(Job.erasure_wished_at).is_(None))
    if subscriptions is not None:
        chosen = chosen.where(func.lower(col(Job.subscription_id)).in_(subscriptions))
    rows = session.exec(chosen.order_by(col(Job.created_at), col(Job.id)).limit(rows_max)).all()
    return [(row[0], JobState(row[1])) for row in rows]


def erase_job_of_person(
    session: Session, job_id: UUID, state: JobState, *, at: datetime, by: Actor
) -> Outcome | None:
    """Erase one job of a person who wants to be forgotten; one that was not sent yet is deleted whole.

    Args:
        session: a session that writes.
        job_id: the job.
        state: its state as `jobs_to_erase` found it.
        at: now, aware UTC.
        by: who asks.

    Returns:
        What `wish_erasure` says; None when the job was deleted, WISHED when a legal hold keeps it for now.

    Raises:
        JobError: it went on, or was deleted, meanwhile; what is left of it is found again.
    """
    if state is not JobState.CREATING:
        return wish_erasure(session, job_id, at=at, by=by)
    try:
        delete_job(session, job_id, at=at, by=by, reason=Reason.WISH)
    except JobHeldError:
        _write_wish(session, read_job(session, job_id), at=at, by=by)
        return Outcome.WISHED
    return None


def require_not_erased(job: Job, operation: Operation) -> None:
    """Refuse what would write personal data to a job whose own was erased.

    Raises:
        PersonalDataErasedError: it was.
    """
    if job.erased_at is not None:
        raise PersonalDataErasedError(operation)


def _why_needed(session: Session, job_id: UUID, at: datetime) -> str | None:
    """Tell why a job's address is still needed; None if it is not."""
    for needed, reason in _needs(at):
        if session.exec(select(Job.id).where(col(Job.id) == job_id, needed)).one_or_none() is not None:
            return reason
    return None


def _needs(at: datetime) -> Sequence[tuple[ColumnElement[bool], str]]:
    """Tell of a job for what its personal data is still needed, as conditions and texts."""
    of_job = col(Drive.job_id) == col(Job.id)
    here = select(Drive.job_id).where(of_job, col(Drive.state).in_(DRIVE_ON_SITE))
    extra = select(ExtraDrive.id).where(
        col(ExtraDrive.job_id) == col(Job.id), col(ExtraDrive.shipped_back_at).is_(None)
    )
    awaited = select(Drive.job_id).where(of_job, col(Drive.state) == DriveState.SPECIFIED)
    known = select(Drive.job_id).where(of_job)
    overdue = select(JobEvent.number).where(
        col(JobEvent.job_id) == col(Job.id), col(JobEvent.kind) == EventKind.PACKAGE_OVERDUE
    )
    # The drives of an Export job are made known when they come.
    unknown = and_(col(Job.job_type) == JobType.EXPORT, ~known.exists(), ~overdue.exists())
    shipped = select(JobEvent.number).where(
        col(JobEvent.job_id) == col(Job.id),
        col(JobEvent.kind) == EventKind.MOVED,
        col(JobEvent.target) == JobState.SHIPPING,
    )
    return (
        (col(Job.held_since).is_not(None), "the job is under legal hold, until an operator releases it"),
        (
            ~col(Job.state).in_(ENDS | {JobState.CREATING}),
            "the job is on its way, and its drives go back to its address",
        ),
        (or_(here.exists(), extra.exists()), "drives of it are here, and go back to its address"),
        (
            and_(or_(awaited.exists(), unknown), shipped.exists(), col(Job.state_since) > at - PACKAGE_OVERDUE),
            "its package was sent and may still come, and its drives go back to its address",
        ),
    )


def _erase(session: Session, job: Job, *, at: datetime, by: Actor) -> None:
    columns: dict[str, list[str]] = defaultdict(list)
    for place in places(SQLModel.metadata):
        columns[place.table].append(place.column)
    tables = [table for table in SQLModel.metadata.sorted_tables if table.name in columns and "job_id" in table.c]
    counted = count_rows(session, [job.id])[job.id]
    counts = {table.name: counted[table.name] for table in tables if table.name in counted}
    due_at = job.erasure_wished_at or at
    begin_receipts(session, [Deletion(job.id, Subject.PERSONAL_DATA, Reason.WISH, due_at, counts)], at=at)
    for table in tables:
        of_job = table.c["job_id"] == job.id
        if table.name in _SKELETON:
            nothing = {name: None if table.c[name].nullable else "" for name in columns[table.name]}
            session.connection().execute(update(table).where(of_job).values(nothing))
        else:
            session.connection().execute(delete(table).where(of_job))
    job.user_id = None
    job.erasure_wished_at = job.erasure_wished_at or at
    job.erased_at = at
    session.add(job)
    session.add(JobEvent(job_id=job.id, at=at, kind=EventKind.ERASED, by=by))
    session.flush()
    session.expire_all()
