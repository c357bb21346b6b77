"""A legal hold: nothing deletes the job, whoever asks and however, until an operator releases it."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from models.abilities import abilities_of
from models.database import engine, reading, writing
from models.deletion import delete_expired_jobs, delete_job, expired_jobs
from models.due import count_held_due, oldest_expired
from models.erasure import due_erasures, erase_job_of_person, wish_erasure
from models.errors import ActorNotAllowedError, AddressNeededError, JobHeldError, JobNotFoundError
from models.events import EventKind
from models.holds import ReleaseReason, count_held_jobs, place_hold, release_hold
from models.jobs import HoldReason, move, read_job, request_cancel
from models.lifecycle import Actor, JobState, Outcome
from models.requests import UpdateJobBody
from models.updates import update_job
from tasks.erasure import carry_out_erasures
from tests.builders import (
    ADDRESS,
    DRIVE,
    NOON,
    PACKAGE,
    RETURN_SHIPPING,
    at_once,
    events_of,
    job_in,
    job_request,
    put,
    rows_of,
    with_every_row,
)

LATE: Final = NOON + timedelta(days=400)
ENDS: Final = (JobState.CREATING, JobState.COMPLETED, JobState.CLOSED)
STATEMENTS: Final = ("DELETE FROM job", "DELETE FROM job WHERE state = 'Completed'")


def held_job(state: JobState = JobState.COMPLETED, name: str = "job1") -> UUID:
    """Make a job under hold, with a row in every table."""
    with writing() as session:
        job_id = job_in(session, state, name)
        with_every_row(session, job_id)
        place_hold(session, job_id, HoldReason.LITIGATION, at=NOON, by=Actor.OPERATOR)
    return job_id


def rows(job_id: UUID) -> dict[str, int]:
    """Count the rows of a job."""
    with reading() as session:
        return rows_of(session, job_id)


def released(job_id: UUID) -> None:
    """Release the hold of a job, long after."""
    with writing() as session:
        release_hold(session, job_id, ReleaseReason.MATTER_ENDED, at=LATE, by=Actor.OPERATOR)


def sweep() -> list[UUID]:
    """Delete what is due long after."""
    with writing() as session:
        return [each.job_id for each in delete_expired_jobs(session, LATE, 100)]


def test_a_held_job_is_not_replaced_until_it_is_released(any_database: str) -> None:
    """A replacement takes its drives and its address away; asked twice, every row is there."""
    job_id = held_job(JobState.CREATING)
    before = rows(job_id)
    for _ in range(2):
        with writing() as session, pytest.raises(JobHeldError):
            put(session, job_request("job1"), LATE)
        assert rows(job_id) == before
    released(job_id)
    with writing() as session:
        assert put(session, job_request("job1"), LATE) == job_id


@pytest.mark.parametrize("state", ENDS)
def test_no_sweep_deletes_a_held_job_until_it_is_released(any_database: str, state: JobState) -> None:
    """Swept twice, every row is there; another goes; released, it goes, and the second sweep finds none."""
    job_id = held_job(state)
    before = rows(job_id)
    with writing() as session:
        other = job_in(session, state, "other")
    assert sweep() == [other]
    assert sweep() == []
    assert rows(job_id) == before
    with reading() as session:
        assert (count_held_due(session, LATE), oldest_expired(session, LATE)) == (1, None)
        assert count_held_jobs(session) == {HoldReason.LITIGATION: 1}
    released(job_id)
    assert sweep() == [job_id]
    assert sweep() == []
    assert not any(count for table, count in rows(job_id).items() if table != "job_run")


def test_nobody_is_late_with_a_job_that_had_to_stay(any_database: str) -> None:
    """It is due from its release on."""
    job_id = held_job()
    released(job_id)
    with reading() as session:
        assert [each.expires_at for each in expired_jobs(session, LATE, 10)] == [LATE]


@pytest.mark.parametrize("by", [Actor.CUSTOMER, Actor.OPERATOR])
def test_nobody_deletes_a_held_job_by_hand(any_database: str, by: Actor) -> None:
    """Refused twice with all rows there; released, it is deleted."""
    job_id = held_job()
    before = rows(job_id)
    for _ in range(2):
        with pytest.raises(JobHeldError, match="release-hold"), writing() as session:
            delete_job(session, job_id, at=LATE, by=by)
    assert rows(job_id) == before
    with reading() as session:
        told = abilities_of(read_job(session, job_id))
    assert (told.is_deletable, told.expires_at) == (False, None)
    released(job_id)
    with writing() as session:
        delete_job(session, job_id, at=LATE, by=by)
    assert rows(job_id)["job"] == 0


@pytest.mark.parametrize("statement", STATEMENTS)
def test_the_database_itself_keeps_a_held_job(any_database: str, statement: str) -> None:
    """A statement that knows no rule of ours is refused whole; without the hold it deletes."""
    job_id = held_job()
    with writing() as session:
        job_in(session, JobState.COMPLETED, "other")
    for _ in range(2):
        with (
            pytest.raises(DBAPIError, match="JobHeld"),
            engine().execution_options(writes=True).begin() as connection,
        ):
            connection.execute(text(statement))
    assert rows(job_id)["job"] == 1
    released(job_id)
    with engine().execution_options(writes=True).begin() as connection:
        assert connection.execute(text(statement)).rowcount == 2


def test_a_shell_of_sqlite_without_foreign_keys_is_refused(sqlite: str) -> None:
    """A trigger asks nobody's settings."""
    job_id = held_job()
    with (
        sqlite3.connect(sqlite.removeprefix("sqlite:///")) as shell,
        pytest.raises(sqlite3.Error, match="JobHeld"),
    ):
        shell.execute("DELETE FROM job WHERE id = ?", [job_id.hex])
    shell.close()
    assert rows(job_id)["job"] == 1


@pytest.mark.parametrize("column", ["id", "resource_key", "rowid"])
@pytest.mark.parametrize("act", ["INSERT", "UPDATE"])
def test_sqlite_does_not_replace_a_held_job_away(sqlite: str, act: str, column: str) -> None:
    """A row that takes the place of another tells no trigger of its deletion; a job that is not held goes."""
    job_id = held_job()
    with writing() as session:
        other = job_in(session, JobState.COMPLETED, "other")
    with closing(sqlite3.connect(sqlite.removeprefix("sqlite:///"))) as shell:
        (key,) = shell.execute(f"SELECT {column} FROM job WHERE id = ?", [job_id.hex]).fetchone()  # noqa: S608  a name of a column
        rest = ", ".join(row[1] for row in shell.execute("PRAGMA table_info(job)") if row[1] != column)
        replaced = f"INSERT OR REPLACE INTO job ({column}, {rest}) SELECT ?, {rest} FROM job WHERE id = ?"  # noqa: S608  as above
        moved = f"UPDATE OR REPLACE job SET {column} = ? WHERE id = ?"  # noqa: S608  as above
        statement = replaced if act == "INSERT" else moved
        for _ in range(2):
            with pytest.raises(sqlite3.Error, match="JobHeld"):
                shell.execute(statement, [key, other.hex])
            shell.rollback()
            assert rows(job_id)["job"] == 1
        released(job_id)
        shell.execute(statement, [key, other.hex])
        shell.rollback()


CHANGES: Final = {
    "driveList": [{**DRIVE, "driveId": "another"}],
    "returnAddress": {**ADDRESS, "city": "Elsewhere"},
    "returnShipping": {**RETURN_SHIPPING, "carrierName": "another"},
    "deliveryPackage": {**PACKAGE, "trackingNumber": "another"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_update_overwrites_nothing_of_a_held_job(any_database: str, name: str) -> None:
    """Twice; what is as it was, what was not there and what overwrites nothing is taken; released, all is."""
    job_id = held_job(JobState.CREATING)
    for _ in range(2):
        with pytest.raises(JobHeldError), writing() as session:
            change(session, job_id, {name: CHANGES[name]})
    with writing() as session:
        assert change(session, job_id, {"driveList": [DRIVE], "logLevel": "Verbose"}) is Outcome.DONE
    released(job_id)
    with writing() as session:
        assert change(session, job_id, {name: CHANGES[name]}) is Outcome.DONE


def test_what_a_held_job_lacks_may_be_added_and_it_may_be_sent(any_database: str) -> None:
    """Address and package that were not there; then it goes its way."""
    with writing() as session:
        job_id = job_in(session, JobState.CREATING, returnAddress=None, deliveryPackage=None)
        place_hold(session, job_id, HoldReason.AUDIT, at=NOON, by=Actor.OPERATOR)
    added = {"returnAddress": ADDRESS, "deliveryPackage": PACKAGE, "state": "Shipping"}
    with writing() as session:
        assert change(session, job_id, added) is Outcome.DONE
        assert change(session, job_id, {"cancelRequested": True}) is Outcome.DONE


def change(session: Session, job_id: UUID, properties: dict[str, Any]) -> Outcome:
    """Update a job as its customer does."""
    body = UpdateJobBody.model_validate({"properties": properties})
    return update_job(session, job_id, body, at=LATE, by=Actor.CUSTOMER)


def test_postgresql_does_not_truncate_a_held_job_away(postgresql: str) -> None:
    """Refused while one job is held; allowed when none is."""
    job_id = held_job()
    with pytest.raises(DBAPIError, match="JobHeld"), engine().begin() as connection:
        connection.execute(text("TRUNCATE job CASCADE"))
    assert rows(job_id)["job"] == 1
    released(job_id)
    with engine().begin() as connection:
        connection.execute(text("TRUNCATE job CASCADE"))
    assert rows(job_id)["job"] == 0


def test_an_erasure_waits_for_the_release(any_database: str) -> None:
    """At once it is refused; as a wish it is kept, and due when the hold is gone."""
    job_id = held_job(JobState.COMPLETED)
    with writing() as session:
        other = job_in(session, JobState.CLOSED, "other", NOON - timedelta(days=30))
    for each in (job_id, other):
        with writing() as session:
            session.connection().execute(
                text("UPDATE drive SET state = 'ShippedBack' WHERE job_id = :job"),
                {"job": each.hex if any_database.startswith("sqlite") else each},
            )
            session.connection().execute(text("UPDATE extra_drive SET shipped_back_at = found_at"))
    with writing() as session, pytest.raises(AddressNeededError, match="legal hold"):
        wish_erasure(session, job_id, at=LATE, by=Actor.CUSTOMER, at_once=True)
    with writing() as session:
        assert wish_erasure(session, job_id, at=LATE, by=Actor.CUSTOMER) is Outcome.WISHED
        assert wish_erasure(session, other, at=LATE, by=Actor.CUSTOMER) is Outcome.DONE
        assert list(due_erasures(session, LATE, 10)) == []
    released(job_id)
    with reading() as session:
        assert list(due_erasures(session, LATE, 10)) == [job_id]


def test_a_person_is_not_erased_out_of_a_held_job_that_was_never_sent(any_database: str) -> None:
    """It would be deleted whole; so it is a wish, everything of it stays, and goes when it is released."""
    with writing() as session:
        job_id = job_in(session, JobState.CREATING)
        place_hold(session, job_id, HoldReason.LITIGATION, at=NOON, by=Actor.OPERATOR)
    before = rows(job_id)
    with writing() as session:
        outcome = erase_job_of_person(session, job_id, JobState.CREATING, at=LATE, by=Actor.OPERATOR)
    assert outcome is Outcome.WISHED
    assert {**rows(job_id), "job_event": 0} == {**before, "job_event": 0}
    assert carry_out_erasures.fn(10) == 0
    assert rows(job_id)["job"] == 1
    released(job_id)
    assert carry_out_erasures.fn(10) == 1
    assert rows(job_id)["job"] == 0
    assert carry_out_erasures.fn(10) == 0


def test_a_person_is_erased_out_of_a_job_that_was_sent_while_it_was_held(any_database: str) -> None:
    """The wish goes with the job: it is not deleted, and erased once nothing goes back to the address."""
    job_id = held_job(JobState.CREATING)
    with writing() as session:
        erase_job_of_person(session, job_id, JobState.CREATING, at=NOON, by=Actor.OPERATOR)
        move(session, read_job(session, job_id), JobState.SHIPPING, at=NOON, by=Actor.CUSTOMER)
    released(job_id)
    assert carry_out_erasures.fn(10) == 0
    assert rows(job_id)["job"] == 1


def test_holds_are_operators_alone_and_each_is_told(any_database: str) -> None:
    """Placed twice it is one; another reason replaces the first; released twice it is released once."""
    with writing() as session:
        job_id = job_in(session, JobState.SHIPPING)
        for by in (Actor.CUSTOMER, Actor.SERVICE):
            with pytest.raises(ActorNotAllowedError):
                place_hold(session, job_id, HoldReason.AUDIT, at=NOON, by=by)
            with pytest.raises(ActorNotAllowedError):
                release_hold(session, job_id, ReleaseReason.MATTER_ENDED, at=NOON, by=by)
        outcomes = [
            place_hold(session, job_id, HoldReason.AUDIT, at=NOON, by=Actor.OPERATOR),
            place_hold(session, job_id, HoldReason.AUDIT, at=LATE, by=Actor.OPERATOR),
            place_hold(session, job_id, HoldReason.REGULATOR, at=LATE, by=Actor.OPERATOR),
        ]
        assert outcomes == [Outcome.DONE, Outcome.NOTHING_TO_DO, Outcome.DONE]
        assert read_job(session, job_id).held_since == NOON
        outcomes = [
            release_hold(session, job_id, ReleaseReason.PLACED_IN_ERROR, at=LATE, by=Actor.OPERATOR)
            for _ in range(2)
        ]
        assert outcomes == [Outcome.DONE, Outcome.NOTHING_TO_DO]
        told = [(event.kind, event.what) for event in events_of(session, job_id)][-3:]
    assert told == [
        (EventKind.HOLD_PLACED, "audit"),
        (EventKind.HOLD_PLACED, "regulator"),
        (EventKind.HOLD_RELEASED, "placed in error"),
    ]


@pytest.fixture
def raced(any_database: str) -> Iterator[UUID]:
    """Give a job that is due."""
    with writing() as session:
        job_id = job_in(session, JobState.COMPLETED)
        with_every_row(session, job_id)
    yield job_id
    engine().dispose()


@pytest.mark.parametrize("attempt", range(5))
def test_a_hold_and_a_sweep_at_once_have_one_winner(raced: UUID, attempt: int) -> None:
    """Either the job is held and whole, or it is gone and the operator is told so."""

    def hold() -> object:
        with writing() as session:
            return place_hold(session, raced, HoldReason.AUDIT, at=NOON, by=Actor.OPERATOR)

    held, swept = at_once(hold, sweep)
    left = rows(raced)
    if held is Outcome.DONE:
        assert swept == []
        assert all(left.values())
    else:
        assert isinstance(held, JobNotFoundError)
        assert swept == [raced]
        assert left["job"] == 0


def _by_hand(job_id: UUID) -> None:
    with writing() as session:
        delete_job(session, job_id, at=NOON, by=Actor.CUSTOMER)


def _by_replacement(job_id: UUID) -> object:
    with writing() as session:
        return put(session, job_request("job1"), NOON)


def _by_erasure(job_id: UUID) -> object:
    with writing() as session:
        return erase_job_of_person(session, job_id, JobState.CREATING, at=NOON, by=Actor.OPERATOR)


def _by_cancel(job_id: UUID) -> object:
    with writing() as session:
        return request_cancel(session, job_id, at=NOON, by=Actor.CUSTOMER)


@pytest.mark.parametrize("act", [_by_hand, _by_replacement, _by_erasure, _by_cancel])
def test_a_hold_and_whoever_takes_the_job_away_at_once_have_one_winner(
    any_database: str, act: Callable[[UUID], object]
) -> None:
    """A job that is held is whole, whatever was asked at the same moment; else the operator is told it is gone."""
    with writing() as session:
        job_id = job_in(session, JobState.CREATING)
        before = rows_of(session, job_id)

    def hold() -> object:
        with writing() as session:
            return place_hold(session, job_id, HoldReason.AUDIT, at=NOON, by=Actor.OPERATOR)

    held, taken = at_once(hold, lambda: act(job_id))
    left = rows(job_id)
    if held is Outcome.DONE:
        assert isinstance(taken, JobHeldError | Outcome | UUID)
        assert {**left, "job_event": 0} == {**before, "job_event": 0}
    else:
        assert isinstance(held, JobNotFoundError)
        assert taken is None
        assert left["job"] == 0
    engine().dispose()


def test_a_hold_placed_while_a_sweep_chooses_is_seen(postgresql: str) -> None:
    """PostgreSQL's sweep passes over the row that is being held, and over the held one."""
    with writing() as session:
        job_id = job_in(session, JobState.COMPLETED)
        other = job_in(session, JobState.COMPLETED, "other")
    with writing() as session:
        place_hold(session, job_id, HoldReason.AUDIT, at=NOON, by=Actor.OPERATOR)
        assert sweep_beside(session) == [other]
    assert sweep() == []
    assert rows(job_id)["job"] == 1


def sweep_beside(_holding: Session) -> list[UUID]:
    """Sweep while another transaction is open."""
    return sweep()
