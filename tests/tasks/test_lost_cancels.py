"""Lost cancels are carried out many in a transaction, and each stands for itself."""

from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import event
from sqlmodel import Session

from models.database import engine, reading, writing
from models.errors import JobChangedError
from models.jobs import finish_cancel, read_job
from models.lifecycle import JobState
from tasks import drives
from tasks.drives import carry_out_cancels
from tests.builders import NOON, job_in

JOBS: Final = 12


def cancelled_jobs(count: int) -> list[UUID]:
    """Make jobs whose cancel was accepted and whose run was lost, each in a state of its own."""
    states = (JobState.CREATING, JobState.SHIPPING, JobState.RECEIVED)
    with writing() as session:
        return [job_in(session, states[n % 3], f"job{n}", NOON, cancelled=True) for n in range(count)]


def states_of(jobs: list[UUID]) -> list[str]:
    """Read where jobs have come to."""
    with reading() as session:
        return [read_job(session, job_id).state for job_id in jobs]


def carry_out(jobs: list[UUID], folder: Path) -> Any:
    """Carry out cancels as advance-jobs does."""
    return carry_out_cancels.fn([(job_id, f"file://{folder}") for job_id in jobs], folder)


def test_many_are_carried_out_in_few_transactions(
    any_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve in three, of five each at most; carried out again, nothing is left to do."""
    jobs = cancelled_jobs(JOBS)
    monkeypatch.setattr(drives, "_CANCELS_TOGETHER", 5)
    commits: list[object] = []

    def note(connection: object) -> None:
        commits.append(connection)

    event.listen(engine(), "commit", note)
    advanced = carry_out(jobs, tmp_path)
    event.remove(engine(), "commit", note)
    assert (advanced.done, dict(advanced.failed)) == (JOBS, {})
    assert len(commits) == 3
    assert set(states_of(jobs)) == {"Completed"}
    carry_out(jobs, tmp_path)
    assert set(states_of(jobs)) == {"Completed"}


def test_one_that_fails_stops_no_other_of_its_transaction(
    any_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again alone, and counted by its code; nothing of it is written."""
    jobs = cancelled_jobs(3)

    def fail_second(session: Session, job_id: UUID, **options: Any) -> Any:
        done = finish_cancel(session, job_id, **options)
        if job_id == jobs[1]:
            session.flush()
            raise JobChangedError(job_id)
        return done

    monkeypatch.setattr(drives, "finish_cancel", fail_second)
    advanced = carry_out(jobs, tmp_path)
    assert (advanced.done, dict(advanced.failed)) == (2, {JobChangedError.code: 1})
    assert states_of(jobs) == ["Completed", "Shipping", "Completed"]


def test_one_that_is_gone_is_passed_over(any_database: str, tmp_path: Path) -> None:
    """Deleted meanwhile; the other is done."""
    jobs = cancelled_jobs(2)
    with writing() as session:
        session.delete(read_job(session, jobs[0]))
    advanced = carry_out(jobs, tmp_path)
    assert (advanced.done, dict(advanced.failed)) == (1, {})
    assert states_of(jobs[1:]) == ["Completed"]
