"""What the service deletes and keeps: a microsecond each side of the line, twice, beside another's rows."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final
from uuid import UUID

import pytest

from models.database import reading, writing
from models.deletion import delete_expired_jobs, expired_jobs
from models.errors import JobNotFoundError
from models.holds import ReleaseReason, place_hold, release_hold
from models.jobs import HoldReason, close_job, finish_cancel, read_job, request_cancel
from models.lifecycle import Actor, JobState
from models.runs import runs_to_forget
from tests.builders import NOON, at_once, job_in, rows_of, with_every_row

MICROSECOND: Final = timedelta(microseconds=1)
# Sections 2 and 4, copied by hand: days from the moment the state was entered, or the job last updated.
DAYS: Final = {"Completed": 90, "Closed": 90, "Creating": 14}
ONWARDS: Final = ["Shipping", "Received", "Transferring", "Packaging"]


@pytest.fixture
def somebody_else(any_database: str) -> UUID:
    """A job of somebody else, a day younger than NOON, with a row in every table."""
    with writing() as session:
        job_id = job_in(session, JobState.COMPLETED, "somebody-else", NOON + timedelta(days=1))
        with_every_row(session, job_id)
        return job_id


def new_job(state: str, name: str = "job1", *, cancelled: bool = False) -> UUID:
    """Make a job that came into its state at NOON, with a row in every table."""
    with writing() as session:
        job_id = job_in(session, JobState(state), name, NOON, cancelled=cancelled)
        with_every_row(session, job_id)
        return job_id


def rows(job_id: UUID) -> dict[str, int]:
    """Count the rows of a job."""
    with reading() as session:
        return rows_of(session, job_id)


def hold(job_id: UUID) -> None:
    """Place a legal hold."""
    with writing() as session:
        place_hold(session, job_id, HoldReason.AUDIT, at=NOON, by=Actor.OPERATOR)


def sweep_alone(after: timedelta) -> list[UUID]:
    """Delete what is due at a time after NOON."""
    with writing() as session:
        return [expired.job_id for expired in delete_expired_jobs(session, NOON + after, 100)]


def sweep(after: timedelta, rows_max: int = 100) -> list[UUID]:
    """Delete what is due at a time after NOON, after having listed the very same."""
    with reading() as session:
        listed = expired_jobs(session, NOON + after, rows_max)
    with writing() as session:
        deleted = delete_expired_jobs(session, NOON + after, rows_max)
    assert list(listed) == list(deleted)
    return [expired.job_id for expired in deleted]


@pytest.mark.parametrize("state", DAYS)
def test_keeps_a_job_until_a_microsecond_before_its_time(somebody_else: UUID, state: str) -> None:
    """Swept twice, every row is there."""
    job_id = new_job(state)
    before = rows(job_id)
    for _ in range(2):
        assert sweep(timedelta(days=DAYS[state]) - MICROSECOND) == []
    assert rows(job_id) == before
    assert all(rows(somebody_else).values())


@pytest.mark.parametrize("late", [timedelta(0), MICROSECOND, timedelta(hours=23)])
@pytest.mark.parametrize("state", DAYS)
def test_deletes_a_job_at_its_time_and_later(somebody_else: UUID, state: str, late: timedelta) -> None:
    """Swept twice, it is deleted once, with every row; its run is to be forgotten; somebody else's rows stay."""
    job_id = new_job(state)
    others = rows(somebody_else)
    assert all(rows(job_id).values())
    assert sweep(timedelta(days=DAYS[state]) + late) == [job_id]
    assert sweep(timedelta(days=DAYS[state]) + late) == []
    left = rows(job_id)
    assert left.pop("job_run") == 1
    assert not any(left.values())
    with reading() as session:
        assert len(runs_to_forget(session, 10, job_id)) == len(runs_to_forget(session, 10)) == 1
    assert rows(somebody_else) == others


def test_keeps_a_job_that_is_under_way_for_ever(any_database: str) -> None:
    """Years later, cancelled or not; a job on its way is nobody's to delete."""
    made = [new_job(state, f"job-{state}") for state in ONWARDS]
    made += [new_job(state, f"cut-{state}", cancelled=True) for state in ONWARDS[:-1]]
    assert sweep(timedelta(days=9999)) == []
    assert all(all(rows(job_id).values()) for job_id in made)


def test_keeps_an_idle_job_whose_cancel_was_accepted(any_database: str) -> None:
    """Until it is Completed by it, and 90 days from then."""
    job_id = new_job("Creating")
    with writing() as session:
        request_cancel(session, job_id, at=NOON, by=Actor.CUSTOMER)
    assert sweep(timedelta(days=400)) == []
    with writing() as session:
        finish_cancel(session, job_id, at=NOON + timedelta(days=400))
    assert sweep(timedelta(days=490) - MICROSECOND) == []
    assert sweep(timedelta(days=490)) == [job_id]


def test_deletes_the_longest_overdue_first_and_no_more_than_asked(any_database: str) -> None:
    """Batches end; what is over stays for the next."""
    with writing() as session:
        made = [
            job_in(session, JobState.CREATING, f"job{day}", NOON - timedelta(days=day)) for day in (1, 3, 2, 5, 4)
        ]
    due = [made[3], made[4], made[1], made[2], made[0]]
    assert sweep(timedelta(days=14), rows_max=2) == due[:2]
    assert sweep(timedelta(days=14), rows_max=2) == due[2:4]
    assert sweep(timedelta(days=14), rows_max=2) == due[4:]
    assert sweep(timedelta(days=14), rows_max=2) == []


def test_tells_of_each_job_its_state_and_since_when_it_should_be_gone(any_database: str) -> None:
    """What the report is made of."""
    new_job("Closed")
    with writing() as session:
        (found,) = delete_expired_jobs(session, NOON + timedelta(days=91), 10)
    assert (found.state, found.expires_at) == (JobState.CLOSED, NOON + timedelta(days=90))


def test_keeps_a_job_closed_late_for_90_days_from_then(any_database: str) -> None:
    """The clock of an end begins when it is entered."""
    job_id = new_job("Shipping")
    with writing() as session:
        close_job(session, job_id, at=NOON + timedelta(days=200), by=Actor.OPERATOR)
    assert sweep(timedelta(days=290) - MICROSECOND) == []
    assert sweep(timedelta(days=290)) == [job_id]


def test_two_sweeps_at_once_delete_each_job_exactly_once(any_database: str, thorough: bool) -> None:
    """Three threads in small batches: every job is in one of their reports, none in two."""
    count = 300 if thorough else 40
    with writing() as session:
        made = {job_in(session, JobState.CREATING, f"job{number}") for number in range(count)}
        kept = job_in(session, JobState.CREATING, "kept", NOON + MICROSECOND)

    def sweep_all() -> list[UUID]:
        gone: list[UUID] = []
        empty = 0
        while empty < 3:  # rows that another sweep has taken look like none
            with writing() as session:
                batch = delete_expired_jobs(session, NOON + timedelta(days=14), 5)
            gone += [expired.job_id for expired in batch]
            empty = 0 if batch else empty + 1
        return gone

    reports = at_once(*[sweep_all] * 3)
    told = [job_id for report in reports if isinstance(report, list) for job_id in report]
    assert all(isinstance(report, list) for report in reports), reports
    assert sorted(told, key=str) == sorted(made, key=str)
    with reading() as session:
        assert read_job(session, kept)
        assert not expired_jobs(session, NOON + timedelta(days=14), 1)


def test_a_sweep_passes_over_what_another_has_taken(postgresql: str) -> None:
    """On PostgreSQL the second does not wait; what the first gives up is found again."""
    job_id = new_job("Creating")
    at = NOON + timedelta(days=14)
    with writing() as first:
        assert len(expired_jobs(first, at, 10, lock=True)) == 1
        with writing() as second:
            assert delete_expired_jobs(second, at, 10) == []
    assert sweep(timedelta(days=14)) == [job_id]


def test_keeps_a_held_job_and_deletes_those_beside_it(any_database: str) -> None:
    """Swept twice; once it is released it is due."""
    held, other = new_job("Completed", "held"), new_job("Completed", "other")
    hold(held)
    before = rows(held)
    assert sweep(timedelta(days=91), rows_max=1) == [other], "a held job takes no place in a batch"
    assert sweep(timedelta(days=91)) == []
    assert rows(held) == before
    with writing() as session:
        release_hold(session, held, ReleaseReason.MATTER_ENDED, at=NOON + timedelta(days=92), by=Actor.OPERATOR)
    assert sweep(timedelta(days=92)) == [held]


def test_a_hold_that_comes_just_before_the_sweep_keeps_the_job(postgresql: str) -> None:
    """The sweep passes over it while the hold is being placed, and after; the rest of its batch goes."""
    held, other = new_job("Completed", "held"), new_job("Completed", "other")
    with writing() as session:
        place_hold(session, held, HoldReason.AUDIT, at=NOON, by=Actor.OPERATOR)
        assert sweep_alone(timedelta(days=91)) == [other]
    assert sweep(timedelta(days=91)) == []


def test_a_hold_that_comes_just_after_the_sweep_finds_no_job(any_database: str) -> None:
    """It waits for the sweep, and says that there is none."""
    job_id = new_job("Completed")
    with writing() as session:
        assert delete_expired_jobs(session, NOON + timedelta(days=91), 10)
        with ThreadPoolExecutor(1) as pool:
            placed = pool.submit(hold, job_id)
            session.commit()
            with pytest.raises(JobNotFoundError):
                placed.result(timeout=30)


def test_an_update_just_before_the_sweep_saves_the_job(postgresql: str) -> None:
    """The sweep deletes only what is still due when it has the row."""
    job_id = new_job("Creating")
    with writing() as session:
        request_cancel(session, job_id, at=NOON, by=Actor.CUSTOMER)
        session.flush()
        with writing() as other:
            assert delete_expired_jobs(other, NOON + timedelta(days=14), 10) == []
    assert sweep(timedelta(days=14)) == []
