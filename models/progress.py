"""How far the copy of a job has come, drive by drive, as one light read for whoever looks again and again."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select as select_columns
from sqlmodel import Session, col

from models.drives import Drive
from models.job_facts import DriveFacts, percent_of_all
from models.jobs import read_job
from models.lifecycle import JobState, JobType


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Where a job and its drives are; nothing personal is in it.

    Attributes:
        job_id: the job.
        job_type: whether its drives are read or written.
        state: of the job.
        cancel_requested: whether a cancel was accepted.
        drives: drive number -> what shows how far it has come, in the order of the numbers.
    """

    job_id: UUID
    job_type: JobType
    state: JobState
    cancel_requested: bool
    drives: Mapping[int, DriveFacts]

    @property
    def percent_complete(self) -> int | None:
        """How much of the job's transfer is done, 0 to 100, rounded down; None before its first copy began."""
        return percent_of_all(self.drives.values())


def read_progress(session: Session, job_id: UUID) -> JobProgress:
    """Read how far a job has come, without opening anything that is sealed.

    Raises:
        JobNotFoundError: there is no such job.
    """
    job = read_job(session, job_id)
    columns = select_columns(  # type: ignore[call-overload]  five columns are more than sqlmodel's types know
        Drive.number, Drive.job_id, Drive.state, Drive.bytes_total, Drive.bytes_succeeded
    )
    rows = session.execute(columns.where(col(Drive.job_id) == job_id).order_by(col(Drive.number)))
    drives = {number: DriveFacts(*told) for number, *told in rows}
    return JobProgress(job.id, job.job_type, job.state, job.cancel_requested, drives)
