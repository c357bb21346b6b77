"""A sweep has two batches at work at once where the database can, and loses count of none of them."""

import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Final

import pytest
from sqlmodel import Session

from models.database import database_time, reading, writing
from models.deletion import Expired, count_expired_jobs, delete_expired_jobs, expired_jobs
from models.errors import DatabaseError, DrivepostError, JobsNotDeletedError
from models.lifecycle import JobState
from tasks.retention import Sweep, delete_expired
from tests.builders import job_in

JOBS: Final = 6
BATCH_ROWS: Final = 4
SECONDS_MAX: Final = 20.0
COUNTED_WITHIN_SECONDS: Final = 0.2


@pytest.fixture
def at(any_database: str) -> datetime:
    """A moment at which some jobs are due."""
    with writing() as session:
        now = database_time(session)
        for number in range(JOBS):
            job_in(session, JobState.COMPLETED, f"job{number}", now - timedelta(days=91))
    return now


def sweep_with(monkeypatch: pytest.MonkeyPatch, deletes: object, at: datetime) -> tuple[Sweep, int]:
    """Sweep, with batches that delete as they are told; gives what the sweep tells, and how many are due still."""
    monkeypatch.setattr("tasks.retention.delete_expired_jobs", deletes)
    sweep = delete_expired.fn(at, BATCH_ROWS, 100)
    with reading() as session:
        return sweep, count_expired_jobs(session, at)


def test_two_batches_are_at_work_at_once_but_on_sqlite(
    at: datetime, any_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There one waits for the other all the time."""
    at_once = 1 if any_database.startswith("sqlite") else 2
    together = threading.Barrier(at_once, timeout=SECONDS_MAX)
    calls = count()
    at_work = set[int]()
    most = 0

    def deletes(session: Session, moment: datetime, rows: int, **given: Any) -> Sequence[Expired]:
        nonlocal most
        at_work.add(id(session))
        most = max(most, len(at_work))
        if next(calls) < at_once:
            together.wait()
        deleted = delete_expired_jobs(session, moment, rows, **given)
        at_work.discard(id(session))
        return deleted

    sweep, left = sweep_with(monkeypatch, deletes, at)
    assert (most, sweep.deleted.total(), sweep.is_over, left) == (at_once, JOBS, True, 0)


class Beside:
    """A batch that takes its jobs and fails, beside one that finds fewer than it asks for; either ends first."""

    def __init__(self, fault: type[DrivepostError], *, fails_first: bool) -> None:
        self._fault = fault
        self._fails_first = fails_first
        self._calls = iter(("fails", "beside"))
        self._has_taken, self._has_deleted = threading.Event(), threading.Event()

    def __call__(self, session: Session, at: datetime, rows: int, **given: Any) -> Sequence[Expired]:
        """Delete jobs, or fail, in the order agreed."""
        call = next(self._calls, "later")
        if call == "fails":
            taken = [expired.job_id for expired in expired_jobs(session, at, rows, lock=True)]
            self._has_taken.set()
            assert self._has_deleted.wait(SECONDS_MAX)
            self._wait_for_the_other(is_first=self._fails_first)
            raise JobsNotDeletedError(taken, "Test") if self._fault is JobsNotDeletedError else self._fault("it")
        if call == "beside":
            assert self._has_taken.wait(SECONDS_MAX)
        deleted = delete_expired_jobs(session, at, rows, **given)
        if call == "beside":
            self._has_deleted.set()
            self._wait_for_the_other(is_first=not self._fails_first)
        return deleted

    def _wait_for_the_other(self, *, is_first: bool) -> None:
        if not is_first:
            time.sleep(COUNTED_WITHIN_SECONDS)


@pytest.mark.parametrize("any_database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("fails_first", [True, False])
def test_a_batch_that_finds_little_beside_one_that_is_refused_does_not_end_a_sweep(
    at: datetime, fails_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passed over the jobs of the other, which are due still, and are tried again."""
    beside = Beside(JobsNotDeletedError, fails_first=fails_first)
    sweep, left = sweep_with(monkeypatch, beside, at)
    assert (sweep.deleted.total(), sweep.stuck, sweep.is_over, left) == (JOBS, {}, True, 0)


@pytest.mark.parametrize("any_database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("fails_first", [True, False])
def test_what_a_batch_deleted_beside_one_that_failed_is_counted(
    at: datetime, fails_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the fault ends the sweep."""
    sweep, left = sweep_with(monkeypatch, Beside(DatabaseError, fails_first=fails_first), at)
    assert (sweep.deleted.total(), left) == (JOBS - BATCH_ROWS, BATCH_ROWS)
