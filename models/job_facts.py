"""All that is known of jobs, read together: what an answer about a job is made of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from models.copy_logs import DriveStatus
from models.drives import Drive
from models.jobs import Job
from models.lifecycle import DriveState
from models.shipping import Direction, Package, ReturnAddress, ReturnShipping

_WHOLE: Final = 100


@dataclass(slots=True)
class DriveFacts:
    """What is told of a drive: its columns, but for its BitLocker key, which one call alone gives out."""

    job_id: UUID
    state: DriveState
    bytes_total: int | None
    bytes_succeeded: int
    drive_id: str = ""
    manifest_file: str = ""
    manifest_hash: str = ""
    drive_header_hash: str = ""
    copy_status: DriveStatus | None = None
    error_log_uri: str | None = None
    verbose_log_uri: str | None = None
    manifest_uri: str | None = None


_PROGRESS: Final = 4
"""How many of these, the first ones, show how far a drive has come."""

_COLUMNS: Final[tuple[Any, ...]] = tuple(getattr(Drive, each.name) for each in fields(DriveFacts))


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A job with the rows that belong to it; `drives` are in the order of their numbers."""

    job: Job
    return_address: ReturnAddress | None
    return_shipping: ReturnShipping | None
    delivery_package: Package | None
    return_package: Package | None
    drives: Sequence[DriveFacts]

    @property
    def percent_complete(self) -> int | None:
        """How much of the job's transfer is done, 0 to 100, rounded down; None before its first copy began."""
        return percent_of_all(self.drives)


def percent_of_all(drives: Iterable[DriveFacts]) -> int | None:
    """Tell how much of the transfer of a job with these drives is done, 0 to 100, rounded down.

    Every drive counts alike, because how much lies on one is known only when its copy begins; a drive that
    never came does not count. None before the first copy began.
    """
    here = [drive for drive in drives if drive.state is not DriveState.NEVER_RECEIVED]
    shares = [share for drive in here if (share := _share_of(drive)) is not None]
    return int(sum(shares) * _WHOLE / len(here)) if shares else None


def percent_of(drive: DriveFacts) -> int | None:
    """Tell how much of a drive's transfer is done, 0 to 100, rounded down; None before its copy began."""
    share = _share_of(drive)
    return None if share is None else int(share * _WHOLE)


def _share_of(drive: DriveFacts) -> Fraction | None:
    """Tell a drive's share, 0 to 1, exactly: rounded up to 1, it would say that all is done."""
    if drive.bytes_total is None:
        return None
    if drive.bytes_total == 0:
        return Fraction(1)
    return min(Fraction(1), Fraction(drive.bytes_succeeded, drive.bytes_total))


def read_facts(session: Session, jobs: Sequence[Job], *, with_drives: bool = True) -> Sequence[JobFacts]:
    """Read what belongs to jobs, in one statement per table, however many they are.

    Args:
        session: an open session; it should see one state throughout.
        jobs: the jobs, as read in this session.
        with_drives: whether all of their drives is read; else only what shows how far they have come.
    """
    ids = [job.id for job in jobs]
    addresses = _by_job(session, ReturnAddress, ids)
    shippings = _by_job(session, ReturnShipping, ids)
    packages: dict[tuple[UUID, Direction], Package] = {
        (package.job_id, package.direction): package
        for package in session.exec(select(Package).where(col(Package.job_id).in_(ids)))
    }
    drives: dict[UUID, list[DriveFacts]] = {job_id: [] for job_id in ids}
    # Columns, not entities: half the time, where there are a thousand.
    told = select_columns(*(_COLUMNS if with_drives else _COLUMNS[:_PROGRESS]))
    for row in session.execute(told.where(col(Drive.job_id).in_(ids)).order_by(col(Drive.number))):
        drive = DriveFacts(*row)
        drives[drive.job_id].append(drive)
    return [
        JobFacts(
            job,
            addresses.get(job.id),
            shippings.get(job.id),
            packages.get((job.id, Direction.DELIVERY)),
            packages.get((job.id, Direction.RETURN)),
            drives[job.id],
        )
        for job in jobs
    ]


_OfJob = TypeVar("_OfJob", ReturnAddress, ReturnShipping)


def _by_job(session: Session, table: type[_OfJob], ids: Sequence[UUID]) -> Mapping[UUID, _OfJob]:
    return {row.job_id: row for row in session.exec(select(table).where(col(table.job_id).in_(ids)))}
