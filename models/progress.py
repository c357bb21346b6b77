"""How far the copy of a job has come, drive by drive, as one light read for whoever looks again and again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import select as select_columns
from sqlmodel import Session, col

from models.drives import Drive, has_errors
from models.job_facts import DriveFacts, percent_of_all
from models.jobs import read_job
from models.lifecycle import RULES, JobState, Operation

_TOLD: Final = ("job_id", "state", "bytes_total", "bytes_succeeded", "copy_status")


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Where a job and its drives are; nothing personal is in it.

    Attributes:
        job_id: the job.
        state: of the job.
        cancel_requested: whether a cancel was accepted.
        drives: drive number -> what shows how far it has come, in the order of the numbers.
    """

    job_id: UUID
    state: JobState
    cancel_requested: bool
    drives: Mapping[int, DriveFacts]

    @property
    def percent_complete(self) -> int | None:
        """How much of the job's transfer is done, 0 to 100, rounded down; None before its first copy began."""
        return percent_of_all(self.drives.values())

    @property
    def is_over(self) -> bool:
        """Whether nothing more is copied, ever."""
        return self.state in RULES[Operation.COPY].nothing

    @property
    def is_whole(self) -> bool:
        """Whether everything was copied as it was listed: no cancel, and no drive with errors."""
        is_bad = any(has_errors(drive.state, drive.copy_status) for drive in self.drives.values())
        return self.is_over and bool(self.drives) and not self.cancel_requested and not is_bad


def read_progress(session: Session, job_id: UUID) -> JobProgress:
    """Read how far a job has come, without opening anything that is sealed.

    Raises:
        JobNotFoundError: there is no such job.
    """
    job = read_job(session, job_id)
    columns = select_columns(*(getattr(Drive, name) for name in ("number", *_TOLD)))
    rows = session.execute(columns.where(col(Drive.job_id) == job_id).order_by(col(Drive.number)))
    drives = {number: DriveFacts(**dict(zip(_TOLD, told, strict=True))) for number, *told in rows}
    return JobProgress(job.id, job.state, job.cancel_requested, drives)
