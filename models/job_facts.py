"""All that is known of jobs, read together: what an answer about a job is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy.orm import load_only
from sqlmodel import Session, col, select

from models.drives import Drive
from models.jobs import Job
from models.lifecycle import DriveState
from models.shipping import Direction, Package, ReturnAddress, ReturnShipping

_WHOLE: Final = 100
_PROGRESS: Final[tuple[Any, ...]] = (Drive.state, Drive.bytes_total, Drive.bytes_succeeded)


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A job with the rows that belong to it; `drives` are in the order of their numbers."""

    job: Job
    return_address: ReturnAddress | None
    return_shipping: ReturnShipping | None
    delivery_package: Package | None
    return_package: Package | None
    drives: Sequence[Drive]

    @property
    def percent_complete(self) -> int | None:
        """How much of the job's transfer is done, 0 to 100, rounded down; None before its first copy began.

        Every drive counts alike, because how much lies on one is known only when its copy begins; a drive that
        never came does not count.
        """
        here = [drive for drive in self.drives if drive.state is not DriveState.NEVER_RECEIVED]
        known = [percent for drive in here if (percent := percent_of(drive)) is not None]
        return sum(known) // len(here) if known else None


def percent_of(drive: Drive) -> int | None:
    """Tell how much of a drive's transfer is done, 0 to 100, rounded down; None before its copy began."""
    if drive.bytes_total is None:
        return None
    if drive.bytes_total == 0:
        return _WHOLE
    return min(_WHOLE, drive.bytes_succeeded * _WHOLE // drive.bytes_total)


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
    drives: dict[UUID, list[Drive]] = {job_id: [] for job_id in ids}
    of_jobs = select(Drive).where(col(Drive.job_id).in_(ids)).order_by(col(Drive.number))
    if not with_drives:
        of_jobs = of_jobs.options(load_only(*_PROGRESS, raiseload=True))
    for drive in session.exec(of_jobs):
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
