"""What a deletion by hand would do, before anybody decides on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlmodel import Session, col, func, select

from models.deletion import count_rows, require_deletable
from models.errors import JobError
from models.jobs import read_job
from models.lifecycle import JobState
from models.runs import JobRun


@dataclass(frozen=True, slots=True)
class DeletionPreview:
    """What would go with a job.

    Attributes:
        state: the job's state.
        rows: table -> rows, 1 or more.
        runs: runs in Prefect that would be forgotten, with their logs and artifacts.
        refusal: why it would be refused, in one line with its code; empty where it would be done.
    """

    state: JobState
    rows: Mapping[str, int]
    runs: int
    refusal: str


def preview_deletion(session: Session, job_id: UUID) -> DeletionPreview:
    """Tell what deleting a job by hand would do now; nothing is changed.

    Raises:
        JobNotFoundError: there is no such job.
    """
    job = read_job(session, job_id)
    refusal = ""
    try:
        require_deletable(job)
    except JobError as error:
        refusal = error.line
    runs = session.exec(select(func.count()).select_from(JobRun).where(col(JobRun.job_id) == job_id)).one()
    return DeletionPreview(job.state, count_rows(session, [job_id])[job_id], runs, refusal)
