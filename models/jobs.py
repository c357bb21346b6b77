"""The job, and every guarded write that changes its state."""

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import JSON, ColumnElement, Index, and_, func, text, update
from sqlmodel import Field, Session, SQLModel, col, select

from models.columns import UtcDateTime, plain_order, words
from models.errors import (
    CancelAcceptedError,
    JobChangedError,
    JobNotFoundError,
    JobStateConflictError,
    NotYetClosableError,
)
from models.events import EventKind, JobEvent
from models.lifecycle import (
    CANCELLABLE,
    CLOSABLE,
    RULES,
    Actor,
    JobState,
    JobType,
    Operation,
    Outcome,
    decide,
    expiry,
    require_actor,
    require_move,
)
from models.personal_data import impersonal


class LogLevel(StrEnum):
    """How much the copy log tells."""

    ERROR = "Error"
    VERBOSE = "Verbose"


class KekType(StrEnum):
    """Whose key wraps the BitLocker keys."""

    MICROSOFT_MANAGED = "MicrosoftManaged"
    CUSTOMER_MANAGED = "CustomerManaged"


class HoldReason(StrEnum):
    """Why a job is under legal hold."""

    LITIGATION = "litigation"
    INVESTIGATION = "investigation"
    REGULATOR = "regulator"
    AUDIT = "audit"


_DUE: Final = text("expires_at IS NOT NULL AND held_since IS NULL")


def _rare(column: str, but: str = "") -> Index:
    """Make the index of a column that few jobs have a value in; SQLite takes a whole index for `IS NULL`, too."""
    there = text(f"{column} IS NOT NULL{but}")
    return Index(f"ix_job_{column}", column, sqlite_where=there, postgresql_where=there)


class Job(SQLModel, table=True):
    """One customer's order to carry data in or out on drives sent by post.

    Its id is opaque and the only name that travels outside this database. Names are kept as they were
    written; `resource_key` holds them in the form in which two compare.
    """

    __table_args__ = (
        # A sweep's work follows what is due, not what is there.
        Index("ix_job_due", "expires_at", sqlite_where=_DUE, postgresql_where=_DUE),
        # How many are in each state, and the oldest of each, for the board.
        Index("ix_job_state_since", "state", "state_since"),
        *(_rare(column) for column in ("held_since", "erasure_wished_at", "copy_lease_until")),
        # Of cancels those alone that were not carried out: the end of a job has a day on which it is deleted.
        _rare("cancel_requested_at", " AND expires_at IS NULL"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True, sa_column_kwargs=impersonal())
    subscription_id: str = Field(sa_column_kwargs=impersonal())
    resource_group: str = Field(sa_column_kwargs=impersonal())
    name: str = Field(sa_column_kwargs=impersonal())
    resource_key: str = Field(unique=True, sa_type=plain_order(), sa_column_kwargs=impersonal())

    # Whose job it is, by the id that the user's directory gave; None where nobody said, or where it was erased.
    user_id: UUID | None = Field(default=None, index=True, sa_column_kwargs=impersonal())

    job_type: JobType = Field(sa_type=words(JobType), sa_column_kwargs=impersonal())
    location: str = Field(sa_column_kwargs=impersonal())
    shipping_location: str = Field(sa_column_kwargs=impersonal())
    storage_account_id: str = Field(sa_column_kwargs=impersonal())
    diagnostics_path: str = Field(default="waimportexport", sa_column_kwargs=impersonal())
    log_level: LogLevel = Field(default=LogLevel.ERROR, sa_type=words(LogLevel), sa_column_kwargs=impersonal())
    backup_drive_manifest: bool = Field(default=False, sa_column_kwargs=impersonal())
    tags: dict[str, str] = Field(default_factory=dict, sa_type=JSON, sa_column_kwargs=impersonal())
    kek_type: KekType = Field(
        default=KekType.MICROSOFT_MANAGED, sa_type=words(KekType), sa_column_kwargs=impersonal()
    )
    kek_url: str | None = Field(default=None, sa_column_kwargs=impersonal())
    kek_vault_resource_id: str | None = Field(default=None, sa_column_kwargs=impersonal())
    export_blob_paths: list[str] = Field(default_factory=list, sa_type=JSON, sa_column_kwargs=impersonal())
    export_blob_path_prefixes: list[str] = Field(default_factory=list, sa_type=JSON, sa_column_kwargs=impersonal())
    export_blob_list_blob_path: str | None = Field(default=None, sa_column_kwargs=impersonal())
    # Where the blobs are named that fit on no drive.
    incomplete_blob_list_uri: str | None = Field(default=None, sa_column_kwargs=impersonal())

    state: JobState = Field(default=JobState.CREATING, sa_type=words(JobState), sa_column_kwargs=impersonal())
    state_since: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    created_at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    updated_at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    # A legal hold: the database itself deletes no row that has one. See models.holds.
    held_since: datetime | None = Field(default=None, sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    hold_reason: HoldReason | None = Field(default=None, sa_type=words(HoldReason), sa_column_kwargs=impersonal())
    cancel_requested_at: datetime | None = Field(default=None, sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    erasure_wished_at: datetime | None = Field(default=None, sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    erased_at: datetime | None = Field(default=None, sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    # The copy's lease: who holds the newest token may write, until the lease has run out.
    copy_token: int = Field(default=0, sa_column_kwargs=impersonal())
    copy_lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime, sa_column_kwargs=impersonal())

    @property
    def cancel_requested(self) -> bool:
        """Whether a cancel was accepted, carried out or not; it is never withdrawn."""
        return self.cancel_requested_at is not None


def resource_key(subscription_id: str, resource_group: str, name: str) -> str:
    """Bring a job's three names to the form in which two compare, without regard to case."""
    return f"{subscription_id}/{resource_group}/{name}".lower()


def cancel_waits() -> ColumnElement[bool]:
    """Tell of a job, as a condition, whether a cancel was accepted and not carried out; by the index of such."""
    # Not by the index on states: most jobs on their way have no cancel.
    is_on_its_way = func.coalesce(col(Job.state), "").in_(CANCELLABLE)
    return and_(col(Job.cancel_requested_at).is_not(None), col(Job.expires_at).is_(None), is_on_its_way)


def read_job(session: Session, job_id: UUID, *, lock: bool = False) -> Job:
    """Read a job; `lock` keeps others from changing it until the transaction ends.

    Raises:
        JobNotFoundError: there is none.
    """
    chosen = select(Job).where(col(Job.id) == job_id).execution_options(populate_existing=True)
    job = session.exec(chosen.with_for_update() if lock else chosen).one_or_none()
    if job is None:
        raise JobNotFoundError
    return job


def read_named_job(
    session: Session, subscription_id: str, resource_group: str, name: str, *, lock: bool = False
) -> Job:
    """Read a job by its three names, without regard to case; `lock` as `read_job` does.

    Raises:
        JobNotFoundError: there is none.
    """
    key = resource_key(subscription_id, resource_group, name)
    if "\x00" in key:  # PostgreSQL keeps none, and would refuse to look for it
        raise JobNotFoundError
    chosen = select(Job).where(col(Job.resource_key) == key)
    job = session.exec(chosen.with_for_update() if lock else chosen).one_or_none()
    if job is None:
        raise JobNotFoundError
    return job


def find_job(session: Session, reference: str) -> UUID:
    """Find a job by its opaque id or by `subscription/resourceGroup/name`.

    Raises:
        JobNotFoundError: neither names one.
    """
    try:
        named = col(Job.id) == UUID(reference)
    except ValueError:
        named = col(Job.resource_key) == reference.lower()
    found = session.exec(select(Job.id).where(named)).one_or_none()
    if found is None:
        raise JobNotFoundError
    return found


def move(session: Session, job: Job, target: JobState, *, at: datetime, by: Actor) -> None:
    """Move a job on, if it still is where it was read, and write down the event.

    One guarded UPDATE: a step other than a cancel's is possible only while no cancel was accepted, so that
    a cancel and the last byte have one winner.

    Raises:
        MoveNotAllowedError: no such move.
        ActorNotAllowedError: the move is not theirs to cause.
        CancelAcceptedError: a cancel came first.
        JobChangedError: somebody else moved the job meanwhile.
        JobNotFoundError: somebody deleted it meanwhile.

    Source: the specification, sections 2 and 3.
    """
    source = job.state
    step = require_move(source, target)
    require_actor(step.operation, by)
    cancel = col(Job.cancel_requested_at)
    moved = session.connection().execute(
        update(Job)
        .where(
            col(Job.id) == job.id,
            col(Job.state) == source,
            cancel.is_not(None) if step.cancelled else cancel.is_(None),
        )
        .values(
            state=target,
            state_since=at,
            expires_at=expiry(target, entered=at, updated=at, cancel_accepted=step.cancelled),
            copy_lease_until=col(Job.copy_lease_until) if target in RULES[Operation.COPY].done else None,
        )
    )
    if moved.rowcount != 1:
        raise _why_not_moved(session, job.id, source, step.operation)
    session.refresh(job)
    session.add(JobEvent(job_id=job.id, at=at, kind=EventKind.MOVED, by=by, source=source, target=target))


def _why_not_moved(
    session: Session, job_id: UUID, source: JobState, operation: Operation
) -> CancelAcceptedError | JobChangedError:
    now = read_job(session, job_id)
    if now.state is source and now.cancel_requested:
        return CancelAcceptedError(operation)
    return JobChangedError(job_id)


def request_cancel(session: Session, job_id: UUID, *, at: datetime, by: Actor) -> Outcome:
    """Accept a cancel, or say that one was accepted before; carrying it out is cancel-job's.

    Returns:
        DONE when this request was the one accepted, NOTHING_TO_DO when an earlier one was.

    Raises:
        JobNotFoundError: there is no such job.
        JobStateConflictError: Packaging or an end has been entered.

    Source: the specification, section 3.
    """
    require_actor(Operation.CANCEL, by)
    accepted = session.connection().execute(
        update(Job)
        .where(
            col(Job.id) == job_id,
            col(Job.state).in_(CANCELLABLE),
            col(Job.cancel_requested_at).is_(None),
        )
        .values(cancel_requested_at=at, updated_at=at, expires_at=None)
    )
    if accepted.rowcount == 1:
        session.add(JobEvent(job_id=job_id, at=at, kind=EventKind.CANCEL_ACCEPTED, by=by))
        return Outcome.DONE
    now = read_job(session, job_id)
    return decide(Operation.CANCEL, now.state, cancel_accepted=now.cancel_requested)


def finish_cancel(session: Session, job_id: UUID, *, at: datetime) -> Outcome:
    """Make a job whose cancel was accepted Completed; the copy has stopped before this is called.

    Returns:
        NOTHING_TO_DO when it is Completed already.

    Raises:
        JobNotFoundError: there is no such job.
        JobStateConflictError: no cancel was accepted for it.
    """
    job = read_job(session, job_id, lock=True)
    if not job.cancel_requested:
        raise JobStateConflictError(Operation.CANCEL, job.state, "no cancel was accepted for it")
    if job.state is JobState.COMPLETED:
        return Outcome.NOTHING_TO_DO
    move(session, job, JobState.COMPLETED, at=at, by=Actor.SERVICE)
    return Outcome.DONE


def close_job(session: Session, job_id: UUID, *, at: datetime, by: Actor) -> Outcome:
    """Close a job whose customer did not answer for 30 days.

    Raises:
        JobNotFoundError: there is no such job.
        JobStateConflictError: it is not Shipping.
        CancelAcceptedError: a cancel was accepted for it.
        NotYetClosableError: the 30 days are not over; the text says when they are.
    """
    require_actor(Operation.CLOSE, by)
    job = read_job(session, job_id, lock=True)
    if decide(Operation.CLOSE, job.state, cancel_accepted=job.cancel_requested) is Outcome.NOTHING_TO_DO:
        return Outcome.NOTHING_TO_DO
    if at < job.state_since + CLOSABLE:
        raise NotYetClosableError(job.state_since + CLOSABLE)
    move(session, job, JobState.CLOSED, at=at, by=by)
    return Outcome.DONE
