"""Deletions leave a receipt each: with the rows there were, why, since when; refused ones leave nothing."""

import subprocess
import sys
from datetime import datetime, timedelta
from itertools import product
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import DBAPIError
from sqlmodel import col, select

from models.database import reading, writing
from models.deletion import count_expired_jobs, count_rows, delete_expired_jobs, delete_job
from models.errors import ActorNotAllowedError, JobNotFoundError, JobStateConflictError
from models.jobs import read_job
from models.lifecycle import Actor, JobState
from models.receipts import OpenReceipt, Reason, ReceiptEntry, verify_receipts
from models.runs import record_run
from tests.builders import DRIVE, NOON, at_once, job_in, rows_of, set_columns, with_every_row

MICROSECOND: Final = timedelta(microseconds=1)
LATER: Final = NOON + timedelta(hours=1)
# Sections 2 and 4, copied by hand: why the service deletes a job of a state, and how many days it keeps one.
SERVICE_DELETES: Final = {"Creating": ("expiry", 14), "Completed": ("retention", 90), "Closed": ("retention", 90)}
BY_HAND_IN: Final = ["Creating", "Completed"]
REFUSED_IN: Final = ["Shipping", "Received", "Transferring", "Packaging", "Closed"]


def new_job(state: str, name: str = "job1", **options: Any) -> UUID:
    """Make a job that came into its state at NOON, with a row in every table."""
    with writing() as session:
        job_id = job_in(session, JobState(state), name, **options)
        with_every_row(session, job_id)
        return job_id


def rows(job_id: UUID) -> dict[str, int]:
    """Count the rows of a job."""
    with reading() as session:
        return rows_of(session, job_id)


def going(job_id: UUID) -> dict[str, int]:
    """Count the rows that go with a job: of every table but that of its runs, which Prefect forgets first."""
    return {table: count for table, count in rows(job_id).items() if table != "job_run"}


def delete(job_id: UUID, at: datetime = LATER, by: Actor = Actor.OPERATOR) -> None:
    """Delete a job by hand in a transaction of its own."""
    with writing() as session:
        delete_job(session, job_id, at=at, by=by)


def entries() -> list[ReceiptEntry]:
    """Read every receipt's entry, and see that each is begun, open and verifies."""
    with reading() as session:
        found = list(session.exec(select(ReceiptEntry).order_by(col(ReceiptEntry.number))))
        opened = session.exec(select(OpenReceipt).order_by(col(OpenReceipt.begun))).all()
        assert verify_receipts(session).faults == ()
    assert [entry.step for entry in found] == ["begun"] * len(found)
    assert [(entry.receipt_id, entry.opaque_id, entry.number) for entry in found] == [
        (each.receipt_id, each.opaque_id, each.begun) for each in opened
    ]
    return found


@pytest.mark.parametrize("state", BY_HAND_IN)
@pytest.mark.parametrize("cancelled", [False, True])
def test_a_deletion_by_hand_leaves_a_receipt_of_every_row(any_database: str, state: str, cancelled: bool) -> None:
    """Its counts are the rows there were, table by table; it was due when it was asked for."""
    drives = [{**DRIVE, "driveId": f"SERIAL{number}"} for number in range(3)]
    job_id = new_job(state, driveList=drives, cancelled=cancelled)
    other = new_job(state, "job2")
    before, others = going(job_id), rows(other)
    assert all(rows(job_id).values())
    assert before["drive"] == 3
    delete(job_id, by=Actor.CUSTOMER)
    (entry,) = entries()
    assert entry.counts == before
    assert (entry.opaque_id, entry.subject, entry.reason) == (job_id, "job", "by hand")
    assert entry.due_at == entry.at == LATER
    assert rows(other) == others


def test_a_table_without_a_row_is_not_counted(any_database: str) -> None:
    """A job of little has a receipt of little."""
    with writing() as session:
        job_id = job_in(session, JobState.CREATING, returnAddress=None, returnShipping=None, deliveryPackage=None)
        before = {table: count for table, count in rows_of(session, job_id).items() if count}
        record_run(session, job_id, uuid4())
        assert count_rows(session, [job_id]) == {job_id: before}
    delete(job_id)
    assert entries()[0].counts == before == {"job": 1, "drive": 1, "job_event": 1}


def test_what_else_a_process_imports_changes_no_count(any_database: str) -> None:
    """One that imports the deletion alone still counts in every table of the job."""
    with writing() as session:
        job_id = job_in(session, JobState.COMPLETED, "job1")
        with_every_row(session, job_id)
        before = rows_of(session, job_id)
        del before["job_run"]
    assert all(before.values())
    alone = f"""
from uuid import UUID
from models.deletion import delete_job
from models.database import database_time, writing
from models.lifecycle import Actor
with writing() as session:
    delete_job(session, UUID("{job_id}"), at=database_time(session), by=Actor.OPERATOR)
"""
    subprocess.run([sys.executable, "-c", alone], check=True)
    assert entries()[0].counts == before


@pytest.mark.parametrize("state", SERVICE_DELETES)
@pytest.mark.parametrize("late", [timedelta(0), timedelta(days=3)])
def test_a_deletion_by_the_service_says_since_when_it_was_due(
    any_database: str, state: str, late: timedelta
) -> None:
    """Its 14 or 90 days, however late the sweep; its counts are the rows there were."""
    reason, days = SERVICE_DELETES[state]
    job_id, other = new_job(state), new_job("Shipping", "job2")
    before, others = going(job_id), rows(other)
    due = NOON + timedelta(days=days)
    with writing() as session:
        assert len(delete_expired_jobs(session, due + late, 10)) == 1
    (entry,) = entries()
    assert entry.counts == before
    assert (entry.opaque_id, entry.subject, entry.reason) == (job_id, "job", reason)
    assert (entry.due_at, entry.at) == (due, due + late)
    assert rows(other) == others


def test_a_sweep_that_takes_a_while_says_when_each_was_deleted(any_database: str) -> None:
    """Due is measured against the sweep's moment, done is told by the clock."""
    job_id = new_job("Creating")
    due = NOON + timedelta(days=14)
    with writing() as session:
        assert delete_expired_jobs(session, due - MICROSECOND, 10, now=due + timedelta(minutes=9)) == []
        delete_expired_jobs(session, due, 10, now=due + timedelta(minutes=9))
    (entry,) = entries()
    assert (entry.opaque_id, entry.due_at, entry.at) == (job_id, due, due + timedelta(minutes=9))


def test_a_sweep_leaves_a_receipt_for_each_job_with_its_own_counts(any_database: str) -> None:
    """The longest overdue first; no more than were deleted."""
    made = []
    for place, (state, days) in enumerate((("Closed", 9), ("Creating", 1), ("Completed", 3), ("Creating", 5))):
        drives = [{**DRIVE, "driveId": f"SERIAL{number}"} for number in range(place + 1)]
        made.append(new_job(state, f"job{place}", at=NOON - timedelta(days=100 + days), driveList=drives))
    kept = new_job("Creating", "kept")
    before = {job_id: going(job_id) for job_id in made}
    assert len({told["drive"] for told in before.values()}) == 4
    with reading() as session:
        assert count_expired_jobs(session, NOON) == 4
    with writing() as session:
        deleted = delete_expired_jobs(session, NOON, 3)
    told = entries()
    # Due: Creating 1 and 5 at -87 and -91 days, Closed at -19, Completed at -13.
    assert [entry.opaque_id for entry in told] == [made[3], made[1], made[0]]
    assert [entry.opaque_id for entry in told] == [expired.job_id for expired in deleted]
    assert [entry.reason for entry in told] == ["expiry", "expiry", "retention"]
    assert {entry.opaque_id: entry.counts for entry in told} == {
        each: before[each] for each in made if each != made[2]
    }
    with reading() as session:
        assert count_expired_jobs(session, NOON) == 1
        assert read_job(session, kept)
    with writing() as session:
        delete_expired_jobs(session, NOON, 3)
        assert delete_expired_jobs(session, NOON, 3) == []
    assert [entry.opaque_id for entry in entries()][3:] == [made[2]]


def test_a_deletion_by_wish_says_so(any_database: str) -> None:
    """A person's job that was not sent yet."""
    job_id = new_job("Creating")
    with writing() as session:
        delete_job(session, job_id, at=LATER, by=Actor.OPERATOR, reason=Reason.WISH)
    assert [(entry.subject, entry.reason, entry.due_at) for entry in entries()] == [("job", "wish", LATER)]


@pytest.mark.parametrize("state", [*BY_HAND_IN, "Closed"])
def test_a_receipt_is_begun_when_the_rows_go_and_not_a_moment_before_or_after(
    any_database: str, state: str
) -> None:
    """In the one transaction of the deletion: until it is over others see every row, and no receipt."""
    job_id = new_job(state)
    before = rows(job_id)
    with writing() as session:
        if state == "Closed":
            assert delete_expired_jobs(session, NOON + timedelta(days=90), 1)
        else:
            delete_job(session, job_id, at=LATER, by=Actor.OPERATOR)
        assert rows(job_id) == before
        assert entries() == []
    assert not any(going(job_id).values())
    assert [entry.opaque_id for entry in entries()] == [job_id]


@pytest.mark.parametrize(("state", "cancelled"), [*product(REFUSED_IN, [False]), *product(REFUSED_IN[:3], [True])])
def test_a_refused_deletion_leaves_neither_receipt_nor_change(
    any_database: str, state: str, cancelled: bool
) -> None:
    """Nor does one by the service, nor of a job that is not there, nor a sweep too early."""
    job_id = new_job(state, cancelled=cancelled)
    before = rows(job_id)
    with reading() as session:
        job = read_job(session, job_id).model_dump()
    with pytest.raises(JobStateConflictError, match=f"a {state} job cannot take 'delete'"):
        delete(job_id)
    with pytest.raises(ActorNotAllowedError):
        delete(job_id, by=Actor.SERVICE)
    with pytest.raises(JobNotFoundError):
        delete(uuid4())
    with writing() as session:
        assert delete_expired_jobs(session, NOON + timedelta(days=90) - MICROSECOND, 10) == []
    assert entries() == []
    assert rows(job_id) == before
    with reading() as session:
        assert read_job(session, job_id).model_dump() == job


def test_a_second_deletion_leaves_no_second_receipt(any_database: str) -> None:
    """One after the other, and at once."""
    first, second = new_job("Completed"), new_job("Completed", "job2")
    delete(first)
    with pytest.raises(JobNotFoundError):
        delete(first)
    ends = at_once(*[lambda: delete(second)] * 3)
    assert sorted(type(end).__name__ for end in ends) == ["JobNotFoundError"] * 2 + ["NoneType"]
    assert [entry.opaque_id for entry in entries()] == [first, second]


def test_a_deletion_by_hand_and_a_sweep_at_once_leave_one_receipt(any_database: str) -> None:
    """Whoever was first says why."""
    made = [new_job("Completed", f"job{number}") for number in range(4)]
    due = NOON + timedelta(days=90)

    def sweep() -> int:
        with writing() as session:
            return len(delete_expired_jobs(session, due, 10))

    ends = at_once(sweep, *(lambda job_id=job_id: delete(job_id, due) for job_id in made))
    by_hand = sum(end is None for end in ends[1:])
    assert isinstance(ends[0], int)
    assert ends[0] + by_hand == 4
    assert all(end is None or isinstance(end, JobNotFoundError) for end in ends[1:])
    told = entries()
    assert sorted(entry.opaque_id.hex for entry in told) == sorted(job_id.hex for job_id in made)
    assert [entry.reason for entry in told].count(Reason.BY_HAND) == by_hand


def test_a_job_that_somebody_holds_is_not_deleted(any_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delete by hand waits as long as the setting says, and leaves nothing half done; later it is done."""
    monkeypatch.setenv("DRIVEPOST_DATABASE_WAIT_SECONDS_MAX", "0.2")
    job_id = new_job("Completed")
    before = rows(job_id)
    with writing() as holder:
        read_job(holder, job_id, lock=True)
        with pytest.raises(DBAPIError):
            delete(job_id)
        assert rows(job_id) == before
    assert entries() == []
    delete(job_id)
    assert len(entries()) == 1


def test_a_sweep_leaves_no_receipt_of_a_job_that_somebody_holds(postgresql: str) -> None:
    """It passes over it, deletes the others, and finds it later."""
    held, free = new_job("Creating"), new_job("Creating", "job2")
    due = NOON + timedelta(days=14)
    with writing() as holder:
        read_job(holder, held, lock=True)
        with writing() as session:
            assert [expired.job_id for expired in delete_expired_jobs(session, due, 10)] == [free]
    assert [entry.opaque_id for entry in entries()] == [free]
    with writing() as session:
        delete_expired_jobs(session, due, 10)
    assert [entry.opaque_id for entry in entries()] == [free, held]


def test_an_end_of_its_own_making_is_not_swept(any_database: str) -> None:
    """A moment to expire at, on a job that is under way, is nobody's reason to delete it."""
    job_id = new_job("Transferring")
    with writing() as session:
        set_columns(session, job_id, expires_at=NOON)
    with writing() as session:
        assert delete_expired_jobs(session, LATER, 10) == []
    with reading() as session:
        assert count_expired_jobs(session, LATER) == 0
    assert entries() == []
