"""The drives of a job, and the guarded write that moves one."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, BindParameter, ColumnElement, Index, bindparam, text, update
from sqlmodel import Field, Session, SQLModel, col, select

from models.columns import UtcDateTime, of_job, personal_text, secret_text, words
from models.copy_logs import DriveStatus
from models.errors import JobChangedError
from models.events import EventKind, JobEvent
from models.lifecycle import DRIVE_ON_SITE, Actor, DriveState, require_drive_move
from models.personal_data import Kind, impersonal

WITHOUT_ERRORS: Final = frozenset({DriveStatus.COMPLETED, DriveStatus.COMPLETED_WITH_WARNINGS})
"""How a copy ends that did all it was asked."""


_HERE: Final = text("state IN ('{}')".format("', '".join(sorted(DRIVE_ON_SITE))))
_EXTRA_HERE: Final = text("shipped_back_at IS NULL")


class Drive(SQLModel, table=True):
    """One disk of a job.

    Within its job a drive goes by its number, 1 to 10: that is what runs, logs and events say. Its serial
    number (`drive_id`, as the service's API calls it) is personal data and stays in the row.
    """

    __table_args__ = (Index("ix_drive_here", "state_since", sqlite_where=_HERE, postgresql_where=_HERE),)

    job_id: UUID = of_job()
    number: int = Field(primary_key=True, sa_column_kwargs=impersonal())
    drive_id: str = personal_text(Kind.DRIVE_ID)
    bit_locker_key: str | None = secret_text(default=None)
    manifest_file: str = Field(default="", sa_column_kwargs=impersonal())
    manifest_hash: str = Field(default="", sa_column_kwargs=impersonal())
    drive_header_hash: str = Field(default="", sa_column_kwargs=impersonal())
    state: DriveState = Field(sa_type=words(DriveState), sa_column_kwargs=impersonal())
    state_since: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    copy_status: DriveStatus | None = Field(
        default=None, sa_type=words(DriveStatus), nullable=True, sa_column_kwargs=impersonal()
    )
    bytes_total: int | None = Field(default=None, sa_type=BigInteger, sa_column_kwargs=impersonal())
    bytes_succeeded: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs=impersonal())
    # The names of logs and of the manifest's copy hold the serial number.
    error_log_uri: str | None = personal_text(Kind.DRIVE_ID, default=None)
    verbose_log_uri: str | None = personal_text(Kind.DRIVE_ID, default=None)
    manifest_uri: str | None = personal_text(Kind.DRIVE_ID, default=None)

    @property
    def is_on_site(self) -> bool:
        """Whether the drive lies with us and must go back."""
        return self.state in DRIVE_ON_SITE

    @property
    def has_errors(self) -> bool:
        """Whether its job cannot end without errors on this drive's account."""
        return has_errors(self.state, self.copy_status)


class ExtraDrive(SQLModel, table=True):
    """A drive that came with a job's package and is on no list: not processed, and sent back with the job."""

    __tablename__ = "extra_drive"
    __table_args__ = (
        Index("ix_extra_drive_here", "found_at", sqlite_where=_EXTRA_HERE, postgresql_where=_EXTRA_HERE),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True, sa_column_kwargs=impersonal())
    job_id: UUID = Field(foreign_key="job.id", ondelete="CASCADE", index=True, sa_column_kwargs=impersonal())
    drive_id: str = personal_text(Kind.DRIVE_ID)
    found_at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    shipped_back_at: datetime | None = Field(default=None, sa_type=UtcDateTime, sa_column_kwargs=impersonal())


def drive_is_here() -> ColumnElement[bool]:
    """Tell of a drive, as a condition, whether it lies with us; by the index of such."""
    # Written out: a database does not know what a parameter will be when it chooses an index.
    here: BindParameter[Any] = bindparam(None, sorted(DRIVE_ON_SITE), expanding=True, literal_execute=True)
    return col(Drive.state).in_(here)


def has_errors(state: DriveState, copy_status: DriveStatus | None) -> bool:
    """Tell whether a job cannot end without errors on account of a drive that is so."""
    return state is DriveState.NEVER_RECEIVED or copy_status not in WITHOUT_ERRORS


def serial(drive_id: str) -> str:
    """Bring a serial number to the form in which two compare: no spaces, no case."""
    return "".join(drive_id.split()).casefold()


def drives_of(session: Session, job_id: UUID) -> Sequence[Drive]:
    """Read the drives of a job, in the order of their numbers."""
    return session.exec(select(Drive).where(col(Drive.job_id) == job_id).order_by(col(Drive.number))).all()


def give_out_keys(session: Session, job_id: UUID, *, at: datetime, by: Actor) -> Sequence[Drive]:
    """Read the drives of a job whose BitLocker keys are known, and write down that the keys were given out.

    The one call that gives them out. Source: the specification, sections 6 and 8.
    """
    drives = [drive for drive in drives_of(session, job_id) if drive.bit_locker_key is not None]
    session.add(JobEvent(job_id=job_id, at=at, kind=EventKind.KEYS_GIVEN_OUT, by=by))
    return drives


def move_drive(session: Session, drive: Drive, target: DriveState, *, at: datetime, by: Actor) -> None:
    """Move a drive on, if it still is where it was read, and write down the event.

    Raises:
        MoveNotAllowedError: no such move.
        JobChangedError: somebody else moved it meanwhile.
    """
    require_drive_move(drive.state, target)
    source = drive.state
    moved = session.connection().execute(
        update(Drive)
        .where(
            col(Drive.job_id) == drive.job_id,
            col(Drive.number) == drive.number,
            col(Drive.state) == source,
        )
        .values(state=target, state_since=at)
    )
    if moved.rowcount != 1:
        raise JobChangedError(drive.job_id)
    session.refresh(drive)
    session.add(
        JobEvent(
            job_id=drive.job_id,
            at=at,
            kind=EventKind.DRIVE_MOVED,
            by=by,
            drive_number=drive.number,
            source=source,
            target=target,
        )
    )
