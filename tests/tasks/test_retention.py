"""The batches of a sweep: two at once on PostgreSQL, and what becomes of one ends nothing that the other left."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import count
from threading import Barrier, Event
from typing import Any, Final

import pytest
from sqlmodel import Session

from models.database import reading, writing
from models.deletion import Expired, count_expired_jobs, delete_expired_jobs, expired_jobs
from models.errors import DatabaseError, JobsNotDeletedError
from models.lifecycle import JobState
from tasks.retention import _Batches, _delete_batch, delete_expired
from tests.builders import NOON, job_in

AT: Final = NOON + timedelta(days=14)
WAIT_SECONDS: Final = 10


def make_due(jobs: int) -> None:
    """Make jobs that are due at AT."""
    with writing() as session:
        for number in range(jobs):
            job_in(session, JobState.CREATING, f"job{number}")


def due() -> int:
    """Count what is due."""
    with reading() as session:
        return count_expired_jobs(session, AT)


@pytest.fixture
def beginnings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect, when a batch begins, how many are at work with it."""
    told, at_work = list[int](), list[int]()

    def noted(*args: Any) -> Any:
        at_work.append(1)
        told.append(len(at_work))
        try:
            return _delete_batch(*args)
        finally:
            at_work.pop()

    monkeypatch.setattr("tasks.retention._delete_batch", noted)
    return told


def test_two_batches_are_at_work_at_once_on_postgresql(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its jobs and waits for the other in the middle of its transaction."""
    both = Barrier(2)

    def meet(session: Session, at: datetime, rows: int, **options: Any) -> Sequence[Expired]:
        taken = expired_jobs(session, at, rows, lock=True)
        if taken:
            both.wait(WAIT_SECONDS)
        return delete_expired_jobs(session, at, rows, **options)

    monkeypatch.setattr("tasks.retention.delete_expired_jobs", meet)
    make_due(8)
    swept = delete_expired.fn(AT, 2, 100)
    assert (swept.deleted.total(), swept.is_over, due()) == (8, True, 0)


def test_one_batch_at_a_time_is_at_work_on_sqlite(sqlite: str, beginnings: list[int]) -> None:
    """A second one would only wait for the first."""
    make_due(6)
    assert delete_expired.fn(AT, 2, 100).deleted.total() == 6
    assert beginnings == [1, 1, 1, 1]


def test_beside_others_one_batch_at_a_time_is_at_work(
    postgresql: str, beginnings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether there are others is known when two batches are over; by then a third has begun."""
    monkeypatch.setattr("tasks.retention.acts_of_others", count().__next__)
    make_due(12)
    assert delete_expired.fn(AT, 2, 100).deleted.total() == 12
    assert beginnings[3:] == [1, 1, 1, 1]


def test_two_batches_at_once_delete_no_more_than_asked(postgresql: str) -> None:
    """What one is to take is not left for the other."""
    make_due(5)
    swept = delete_expired.fn(AT, 2, 3)
    assert (swept.deleted.total(), swept.is_over, due()) == (3, False, 2)


@pytest.fixture
def undo_first(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception, bool], None]:
    """Let the first batch of two take its jobs and fail, the other one pass over them; one is counted first."""

    def undo(fault: Exception, is_counted_first: bool) -> None:
        taken, passed_over, counted, numbers = Event(), Event(), Event(), count()

        def delete(session: Session, at: datetime, rows: int, **options: Any) -> Sequence[Expired]:
            number = next(numbers)
            if number == 0:
                expired_jobs(session, at, rows, lock=True)
                taken.set()
                passed_over.wait(WAIT_SECONDS)
                if not is_counted_first:
                    counted.wait(WAIT_SECONDS)
                raise fault
            if number == 1:
                taken.wait(WAIT_SECONDS)
            deleted = delete_expired_jobs(session, at, rows, **options)
            passed_over.set()
            if number == 1 and is_counted_first:
                counted.wait(WAIT_SECONDS)
            return deleted

        def count_and_tell(self: _Batches, *args: Any) -> None:
            count_one(self, *args)
            counted.set()

        count_one = _Batches._count
        monkeypatch.setattr(_Batches, "_count", count_and_tell)
        monkeypatch.setattr("tasks.retention.delete_expired_jobs", delete)

    return undo


@pytest.mark.parametrize("is_counted_first", [True, False])
def test_a_refused_batch_beside_a_short_one_does_not_end_the_sweep(
    postgresql: str, undo_first: Callable[[Exception, bool], None], is_counted_first: bool
) -> None:
    """The short one passed over jobs that are there again."""
    make_due(3)
    with reading() as session:
        ids = [job.job_id for job in expired_jobs(session, AT, 2)]
    undo_first(JobsNotDeletedError(ids, "Odd"), is_counted_first)
    swept = delete_expired.fn(AT, 2, 100)
    assert (swept.deleted.total(), swept.is_over, swept.stuck, due()) == (3, True, {}, 0)


@pytest.mark.parametrize("is_counted_first", [True, False])
def test_a_failed_batch_beside_a_short_one_does_not_make_the_sweep_over(
    postgresql: str, undo_first: Callable[[Exception, bool], None], is_counted_first: bool
) -> None:
    """What the other one deleted counts, and the next act finds the rest."""
    make_due(3)
    undo_first(DatabaseError("the database refused: it"), is_counted_first)
    swept = delete_expired.fn(AT, 2, 100)
    assert (swept.deleted.total(), swept.is_over, due()) == (1, False, 2)
    swept = delete_expired.fn(AT, 2, 100)
    assert (swept.deleted.total(), swept.is_over, due()) == (2, True, 0)


@pytest.mark.parametrize("is_counted_first", [True, False])
def test_a_sweep_that_gave_up_begins_no_batch_any_more(
    postgresql: str,
    undo_first: Callable[[Exception, bool], None],
    beginnings: list[int],
    monkeypatch: pytest.MonkeyPatch,
    is_counted_first: bool,
) -> None:
    """Whatever the batch beside the last refused one found."""
    monkeypatch.setattr("tasks.retention._STUCK_MAX", 1)
    make_due(1)
    with reading() as session:
        (job,) = expired_jobs(session, AT, 2)
    undo_first(JobsNotDeletedError([job.job_id], "Odd"), is_counted_first)
    swept = delete_expired.fn(AT, 2, 100)
    assert (swept.gave_up, swept.is_over, due()) == (True, True, 1)
    assert len(beginnings) == 2
