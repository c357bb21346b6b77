"""Which Prefect runs worked on which job, so that a deleted job's runs can be found and forgotten.

The rows hold opaque ids alone and outlive their job on purpose: they are the list of what is still to be
forgotten, and go when Prefect has forgotten the run.
"""

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import Index, delete, text, update
from sqlmodel import Field, Session, SQLModel, col, select

from models.batches import among
from models.personal_data import impersonal

TAG: Final = "drivepost"
"""On every deployment of ours, and so on every run of it."""

OPERATOR: Final = "operator"
"""On those alone that people and the REST API trigger: what runs by the clock names nobody."""


class JobRun(SQLModel, table=True):
    """One flow run that worked on, or spoke of, one job; `is_job_deleted` says that it is to be forgotten."""

    __tablename__ = "job_run"
    __table_args__ = (
        Index(
            "ix_job_run_to_forget",
            "flow_run_id",
            # As SQLAlchemy asks SQLite for it; another form it would not know again.
            sqlite_where=text("is_job_deleted = 1"),
            postgresql_where=text("is_job_deleted"),
        ),
        # SQLite keeps the rows in the order of their key, and no index of it. Not so where personal data is: rows
        # are moved more often then, and each time leave their bytes behind.
        {"sqlite_with_rowid": False},
    )

    job_id: UUID = Field(primary_key=True, sa_column_kwargs=impersonal())
    flow_run_id: UUID = Field(primary_key=True, index=True, sa_column_kwargs=impersonal())
    is_job_deleted: bool = Field(default=False, sa_column_kwargs=impersonal())


def record_run(session: Session, job_id: UUID, flow_run_id: UUID) -> None:
    """Write down that a run works on a job; safe to repeat.

    The caller holds the job's row locked, so that no deletion comes between.
    """
    session.merge(JobRun(job_id=job_id, flow_run_id=flow_run_id))


def record_run_of_jobs(session: Session, job_ids: Collection[UUID], flow_run_id: UUID) -> None:
    """Write down that a run speaks of many jobs, in few statements; else as `record_run`."""
    known = set(session.exec(select(JobRun.job_id).where(col(JobRun.flow_run_id) == flow_run_id)).all())
    session.add_all(JobRun(job_id=job_id, flow_run_id=flow_run_id) for job_id in job_ids if job_id not in known)


def record_run_of_deleted_job(session: Session, job_id: UUID, flow_run_id: UUID) -> None:
    """Write down that a run works on what is left of a deleted job, and is to be forgotten too; safe to repeat."""
    session.merge(JobRun(job_id=job_id, flow_run_id=flow_run_id, is_job_deleted=True))


def mark_runs_of_deleted_jobs(session: Session, job_ids: Collection[UUID]) -> None:
    """Put every run of these jobs on the list of what is to be forgotten; part of their deletion."""
    connection = session.connection()
    of_jobs = among(connection, col(JobRun.job_id), job_ids)
    connection.execute(update(JobRun).where(of_jobs).values(is_job_deleted=True))


def runs_to_forget(session: Session, runs_max: int, job_id: UUID | None = None) -> Sequence[UUID]:
    """Read which runs worked on jobs that are gone, at most `runs_max`; of one job where it is named."""
    chosen = select(JobRun.flow_run_id).where(col(JobRun.is_job_deleted))
    if job_id is not None:
        chosen = chosen.where(col(JobRun.job_id) == job_id)
    return session.exec(chosen.distinct().limit(runs_max)).all()


def recorded_runs(session: Session, flow_run_ids: Collection[UUID]) -> Collection[UUID]:
    """Find which of these runs are written down as some job's."""
    chosen = select(JobRun.flow_run_id).where(col(JobRun.flow_run_id).in_(flow_run_ids))
    return set(session.exec(chosen).all())


def strike_run(session: Session, flow_run_id: UUID) -> None:
    """Strike a run that Prefect has forgotten off the list; safe to repeat."""
    session.connection().execute(delete(JobRun).where(col(JobRun.flow_run_id) == flow_run_id))
