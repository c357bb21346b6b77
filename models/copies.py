"""The lease on a job's copy, and the record of how far the copy has come.

One run at a time copies a job. It holds a lease with a token that grows by one at every taking; whatever it
writes here is written only while its token is the newest, so that a worker that was thought dead and wakes
up again cannot spoil the work of its successor.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, BigInteger, ColumnElement, ForeignKeyConstraint, and_, func, or_, update
from sqlmodel import Field, Session, SQLModel, col, select

from models.columns import UtcDateTime, words
from models.copy_logs import (
    AttachedStatus,
    BlobStatus,
    BlockStatus,
    DispositionStatus,
    DriveStatus,
    LoggedBlob,
    LoggedBlock,
)
from models.drives import drives_of
from models.errors import CopyHeldElsewhereError, LeaseLostError, WrongJobTypeError
from models.jobs import Job, cancel_waits, read_job
from models.lifecycle import (
    RULES,
    Actor,
    JobType,
    Operation,
    Outcome,
    decide,
    require_actor,
)
from models.manifests import ImportDisposition
from models.personal_data import impersonal


def _drive_key() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["job_id", "drive_number"], ["drive.job_id", "drive.number"], ondelete="CASCADE")


class DriveCopy(SQLModel, table=True):
    """How far the copy of one drive has come; there is a row once it has begun.

    Blobs are begun in the order of the manifest: the first `blobs_done` of them are over, well or badly.
    `planned` holds what was settled for the next ones before their first byte is written, so that a run that
    was cut finds there what was its predecessor's own; each as `{path, status, upload, over}`: the blob's final
    path, what becomes of a blob that has it already, the store's handle of a blob that is being written ("" before
    that), and whether it is over, out of order. What is not whole lies in `staging_containers`.

    Of an export the journal on the drive tells how far it came. Here `planned` is the last blob of the job's list
    that this drive saw to, so that the next drive begins behind it; none where it saw to none.
    """

    __tablename__ = "drive_copy"
    __table_args__ = (_drive_key(),)

    job_id: UUID = Field(primary_key=True, sa_column_kwargs=impersonal())
    drive_number: int = Field(primary_key=True, sa_column_kwargs=impersonal())
    started_at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    blobs_done: int = Field(default=0, sa_column_kwargs=impersonal())
    bytes_committed: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs=impersonal())
    planned: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON, sa_column_kwargs=impersonal())
    staging_containers: list[str] = Field(default_factory=list, sa_type=JSON, sa_column_kwargs=impersonal())


class BlobReport(SQLModel, table=True):
    """What is to be said in the copy log of a blob that did not simply go well.

    `blocks` holds the blocks or page ranges that did not go well, each as offset, length, hash, status and, where
    it has one, id. An exported blob has no disposition, and tells when it was last modified.
    """

    __tablename__ = "blob_report"
    __table_args__ = (_drive_key(),)

    job_id: UUID = Field(primary_key=True, sa_column_kwargs=impersonal())
    drive_number: int = Field(primary_key=True, sa_column_kwargs=impersonal())
    blob_number: int = Field(primary_key=True, sa_column_kwargs=impersonal())
    blob_path: str = Field(sa_column_kwargs=impersonal())
    file_path: str = Field(sa_column_kwargs=impersonal())
    length: int = Field(sa_type=BigInteger, sa_column_kwargs=impersonal())
    disposition: ImportDisposition | None = Field(
        default=None, sa_type=words(ImportDisposition), nullable=True, sa_column_kwargs=impersonal()
    )
    status: BlobStatus = Field(sa_type=words(BlobStatus), sa_column_kwargs=impersonal())
    disposition_status: DispositionStatus | None = Field(
        default=None, sa_type=words(DispositionStatus), nullable=True, sa_column_kwargs=impersonal()
    )
    blocks: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON, sa_column_kwargs=impersonal())
    metadata_status: AttachedStatus | None = Field(
        default=None, sa_type=words(AttachedStatus), nullable=True, sa_column_kwargs=impersonal()
    )
    properties_status: AttachedStatus | None = Field(
        default=None,
        sa_type=words(AttachedStatus, "propertiesstatus"),
        nullable=True,
        sa_column_kwargs=impersonal(),
    )
    is_page_blob: bool = Field(default=False, sa_column_kwargs=impersonal())
    last_modified: datetime | None = Field(default=None, sa_type=UtcDateTime, sa_column_kwargs=impersonal())

    @property
    def is_error(self) -> bool:
        """Whether the blob is not where it was to be, or not as it was to be."""
        return self.status is not BlobStatus.COMPLETED

    def logged(self) -> LoggedBlob:
        """Make the entry of the copy log."""
        return LoggedBlob(
            blob_path=self.blob_path,
            file_path=self.file_path,
            length=self.length,
            status=self.status,
            disposition=self.disposition,
            disposition_status=self.disposition_status,
            last_modified=self.last_modified,
            blocks=tuple(
                LoggedBlock(
                    offset=block["offset"],
                    length=block["length"],
                    hash=block["hash"],
                    status=BlockStatus(block["status"]),
                    id=block.get("id"),
                )
                for block in self.blocks
            ),
            metadata_status=self.metadata_status,
            properties_status=self.properties_status,
            is_page_blob=self.is_page_blob,
        )


def take_copy_lease(
    session: Session,
    job_id: UUID,
    *,
    seconds: float,
    at: datetime,
    by: Actor,
    job_type: JobType,
) -> int | None:
    """Take the lease on a job's copy.

    Args:
        session: of the transaction.
        job_id: the job.
        seconds: how long the lease is good.
        at: now.
        by: who asks.
        job_type: of the jobs that the caller copies.

    Returns:
        The token, 1 or more; None when the copy is over and there is nothing to do.

    Raises:
        JobNotFoundError: there is no such job.
        JobStateConflictError: it is not checked in yet.
        CancelAcceptedError: a cancel was accepted; nothing more is copied.
        WrongJobTypeError: it is not of that type.
        CopyHeldElsewhereError: another run holds a lease that has not run out.
    """
    require_actor(Operation.COPY, by)
    job = read_job(session, job_id, lock=True)
    if job.job_type is not job_type:
        raise WrongJobTypeError(job.job_type)
    if decide(Operation.COPY, job.state, cancel_accepted=job.cancel_requested) is Outcome.NOTHING_TO_DO:
        return None
    if job.copy_lease_until is not None and job.copy_lease_until > at:
        raise CopyHeldElsewhereError(job_id, job.copy_lease_until)
    job.copy_token += 1
    job.copy_lease_until = at + timedelta(seconds=seconds)
    session.add(job)
    session.flush()
    return job.copy_token


def renew_copy_lease(session: Session, job_id: UUID, token: int, *, seconds: float, at: datetime) -> None:
    """Hold on to the lease; first act of every write of the copy, so that a lost lease undoes the write.

    Raises:
        LeaseLostError: another run has taken it, or the job is no longer being copied.
    """
    renewed = session.connection().execute(
        update(Job)
        .where(
            col(Job.id) == job_id,
            col(Job.copy_token) == token,
            col(Job.state).in_(RULES[Operation.COPY].done),
        )
        .values(copy_lease_until=at + timedelta(seconds=seconds))
    )
    if renewed.rowcount != 1:
        raise LeaseLostError(job_id)


def release_copy_lease(session: Session, job_id: UUID, token: int) -> None:
    """Give the lease back; harmless when it was lost."""
    session.connection().execute(
        update(Job).where(col(Job.id) == job_id, col(Job.copy_token) == token).values(copy_lease_until=None)
    )


def seize_copy_lease(session: Session, job_id: UUID, *, at: datetime) -> datetime | None:
    """End every claim on a copy whose lease has run out, so that a late worker cannot write any more.

    Returns:
        None when nobody holds the copy now; else until when somebody does.

    Raises:
        JobNotFoundError: there is no such job.
    """
    job = read_job(session, job_id, lock=True)
    if job.copy_lease_until is not None and job.copy_lease_until > at:
        return job.copy_lease_until
    if job.copy_lease_until is not None:
        job.copy_token += 1
        job.copy_lease_until = None
        session.add(job)
        session.flush()
    return None


def is_copy_cancelled(session: Session, job_id: UUID, token: int) -> bool:
    """Tell a copy whether to stop; one small read, asked between two blocks.

    Raises:
        LeaseLostError: the copy is no longer this run's.
    """
    row = session.exec(select(Job.copy_token, Job.cancel_requested_at).where(col(Job.id) == job_id)).one_or_none()
    if row is None or row[0] != token:
        raise LeaseLostError(job_id)
    return row[1] is not None


def reports_of(
    session: Session, job_id: UUID, drive_number: int, *, after: int, rows_max: int
) -> Sequence[BlobReport]:
    """Read what is to be said of a drive's blobs behind the number `after`, in the order of its manifest."""
    return session.exec(
        select(BlobReport)
        .where(
            col(BlobReport.job_id) == job_id,
            col(BlobReport.drive_number) == drive_number,
            col(BlobReport.blob_number) > after,
        )
        .order_by(col(BlobReport.blob_number))
        .limit(rows_max)
    ).all()


def drive_status_of(session: Session, job_id: UUID, drive_number: int) -> DriveStatus:
    """Tell how the copy of a drive ended, by what is to be said of its blobs."""
    reports = select(BlobReport.blob_number).where(
        col(BlobReport.job_id) == job_id, col(BlobReport.drive_number) == drive_number
    )
    if session.exec(reports.where(col(BlobReport.status) != BlobStatus.COMPLETED).limit(1)).first() is not None:
        return DriveStatus.COMPLETED_WITH_ERRORS
    is_any = session.exec(reports.limit(1)).first() is not None
    return DriveStatus.COMPLETED_WITH_WARNINGS if is_any else DriveStatus.COMPLETED


def copied_bytes(session: Session, job_id: UUID) -> tuple[int, int]:
    """Tell how much of a job was copied: bytes committed, and bytes listed by the drives begun."""
    drives = drives_of(session, job_id)
    return sum(drive.bytes_succeeded for drive in drives), sum(drive.bytes_total or 0 for drive in drives)


def _nobody_copies(at: datetime) -> ColumnElement[bool]:
    return or_(col(Job.copy_lease_until).is_(None), col(Job.copy_lease_until) <= at)


def copy_is_stalled(at: datetime, lease_seconds: float) -> ColumnElement[bool]:
    """Tell of a job, as a condition, whether its copy was begun and gave no sign of life for twice its lease.

    Args:
        at: now, aware UTC.
        lease_seconds: for how long a copy that does not report is believed to be alive.
    """
    # A run that ends gives its lease back; one that ran out is a worker that died.
    return and_(
        col(Job.state).in_(RULES[Operation.COPY].done),
        col(Job.cancel_requested_at).is_(None),
        col(Job.copy_lease_until) <= at - timedelta(seconds=lease_seconds),
    )


def lost_cancels(session: Session, at: datetime, rows_max: int) -> list[tuple[UUID, str]]:
    """Find jobs whose cancel was accepted and not carried out, and that nobody copies, the oldest wish first.

    Returns:
        Of each its id and its storage account's resource id.
    """
    rows = session.exec(
        select(Job.id, Job.storage_account_id)
        .where(cancel_waits(), _nobody_copies(at))
        .order_by(col(Job.cancel_requested_at))
        .limit(rows_max)
    ).all()
    return [(row[0], row[1]) for row in rows]


def due_copies(session: Session, at: datetime, rows_max: int, per_site_max: int) -> list[tuple[UUID, JobType]]:
    """Find jobs that are checked in or half copied and that nobody copies.

    Those that were tried least come first, so that one that fails every time keeps nobody waiting. Of the jobs
    that ship to one location there are as many as may be copied there beside those that are copied now, so that
    a location with no room keeps no other waiting.

    Returns:
        Of each its id, and its type, which tells which flow copies it.
    """
    site, order = col(Job.shipping_location), (col(Job.copy_token), col(Job.state_since))
    busy = (
        select(site, func.count().label("copies")).where(col(Job.copy_lease_until) > at).group_by(site).subquery()
    )
    due = (
        select(Job.id, func.row_number().over(partition_by=site, order_by=order).label("place"))
        .where(
            col(Job.state).in_(RULES[Operation.COPY].done),
            col(Job.cancel_requested_at).is_(None),
            _nobody_copies(at),
        )
        .subquery()
    )
    rows = session.exec(
        select(Job.id, Job.job_type)
        .join(due, due.c.id == col(Job.id))
        .outerjoin(busy, busy.c.shipping_location == site)
        .where(due.c.place <= per_site_max - func.coalesce(busy.c.copies, 0))
        .order_by(*order)
        .limit(rows_max)
    ).all()
    return [(row[0], JobType(row[1])) for row in rows]


def copies_under_way(session: Session, at: datetime) -> Sequence[UUID]:
    """Find the jobs that somebody copies now; as many as there are copies."""
    return session.exec(select(Job.id).where(col(Job.copy_lease_until) > at)).all()
