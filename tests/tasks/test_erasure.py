"""Acts of erasure: done again they do nothing, cut they are finished by the next, and one job stops no other."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlmodel import Session, col, select, update

import models.erasure
import tasks.erasure
from models.database import database_time, reading, writing
from models.deletion import delete_job
from models.drives import Drive
from models.erasure import carry_out_wish, wish_erasure
from models.errors import AddressNeededError, JobNotFoundError, JobStateConflictError
from models.jobs import Job, move, read_job
from models.lifecycle import Actor, DriveState, JobState, Outcome
from models.receipts import ReceiptEntry, verify_receipts
from models.settings import Settings
from models.shipping import ReturnAddress
from tasks.erasure import PersonErased, carry_out_erasures, erase_job, erase_jobs_of_user
from tests.builders import NOON, at_once, job_in, set_columns

USER: Final = UUID("77777777-1234-4321-8888-999999999999")


def new_job(
    state: str = "Completed", name: str = "job1", *, drives: str = "ShippedBack", user: UUID | None = USER
) -> UUID:
    """Make a job of a user, its drive in a state."""
    with writing() as session:
        job_id = job_in(session, JobState(state), name)
        session.connection().execute(
            update(Drive).where(col(Drive.job_id) == job_id).values(state=DriveState(drives))
        )
        set_columns(session, job_id, user_id=user)
        return job_id


def wished_job(name: str = "job1", *, drives: str = "ShippedBack") -> UUID:
    """Make a Completed job whose erasure was wished while its drive was here."""
    job_id = new_job(name=name, drives="Received")
    with writing() as session:
        assert wish_erasure(session, job_id, at=NOON, by=Actor.OPERATOR) is Outcome.WISHED
        session.connection().execute(
            update(Drive).where(col(Drive.job_id) == job_id).values(state=DriveState(drives))
        )
    return job_id


def read(job_id: UUID) -> Job:
    """Read a job as everyone sees it now."""
    with reading() as session:
        return read_job(session, job_id)


def is_erased(job_id: UUID) -> bool:
    """Tell whether a job's personal data is gone; no half of it may be."""
    job = read(job_id)
    with reading() as session:
        address = session.get(ReturnAddress, job_id)
        receipts = session.exec(select(ReceiptEntry).where(col(ReceiptEntry.opaque_id) == job_id)).all()
    told = {job.erased_at is not None, address is None, len(receipts) == 1}
    assert len(told) == 1, (job, address, receipts)
    return told.pop()


def log_ahead_bytes() -> int:
    """Tell how long SQLite's log ahead is."""
    log = Settings().data_directory / "drivepost.db-wal"
    return log.stat().st_size if log.exists() else 0


# One job.


def test_a_job_at_its_end_is_erased_once(any_database: str) -> None:
    """At the database's time; again, there is nothing to do; nothing is left in SQLite's log ahead."""
    job_id, other = new_job(), new_job(name="job2")
    with reading() as session:
        before = database_time(session)
    assert erase_job.fn(job_id, at_once=True) is Outcome.DONE
    if any_database.startswith("sqlite"):
        assert log_ahead_bytes() == 0
    assert [erase_job.fn(job_id, at_once=once) for once in (True, False)] == [Outcome.NOTHING_TO_DO] * 2
    assert is_erased(job_id)
    assert not is_erased(other)
    erased_at = read(job_id).erased_at
    with reading() as session:
        assert erased_at is not None
        assert before <= erased_at <= database_time(session)


def test_a_job_whose_drives_are_here_is_wished_or_refused(any_database: str) -> None:
    """As was asked; the wish is carried out when they are back, by asking again or by the clock."""
    job_id = new_job(drives="Completed")
    with pytest.raises(AddressNeededError):
        erase_job.fn(job_id, at_once=True)
    assert read(job_id).erasure_wished_at is None
    assert erase_job.fn(job_id, at_once=False) is Outcome.WISHED
    assert erase_job.fn(job_id, at_once=False) is Outcome.NOTHING_TO_DO
    assert not is_erased(job_id)
    with writing() as session:
        session.connection().execute(update(Drive).values(state=DriveState.SHIPPED_BACK))
    assert erase_job.fn(job_id, at_once=False) is Outcome.DONE
    assert is_erased(job_id)


def test_a_job_that_is_not_there_or_not_sent_is_refused(any_database: str) -> None:
    """With the errors that the flow tells."""
    with pytest.raises(JobNotFoundError):
        erase_job.fn(uuid4(), at_once=False)
    creating = new_job("Creating", drives="Specified")
    with pytest.raises(JobStateConflictError, match="delete it"):
        erase_job.fn(creating, at_once=False)
    assert not is_erased(creating)


# By the clock.


def test_wishes_are_carried_out_when_their_time_has_come(any_database: str) -> None:
    """Those whose drives are back, the oldest wish first, no more than asked for; again, none."""
    here = wished_job("here", drives="Received")
    unwished = new_job(name="unwished")
    due = [wished_job(f"job{number}") for number in range(5)]
    with writing() as session:
        for place, job_id in enumerate(due):
            set_columns(session, job_id, erasure_wished_at=NOON + timedelta(minutes=place))
    assert carry_out_erasures.fn(0) == 0
    assert carry_out_erasures.fn(2) == 2
    assert [is_erased(job_id) for job_id in due] == [True, True, False, False, False]
    assert [carry_out_erasures.fn(100), carry_out_erasures.fn(100)] == [3, 0]
    assert all(map(is_erased, due))
    assert not is_erased(here)
    assert not is_erased(unwished)
    with reading() as session:
        assert verify_receipts(session).faults == ()


def meanwhile(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], None]) -> None:
    """Let something happen after an act has looked, and before it does anything."""
    look: Callable[..., Sequence[Any]] = getattr(tasks.erasure, name)

    def look_and_wait(*args: Any) -> Sequence[Any]:
        found = look(*args)
        monkeypatch.undo()
        act()
        return found

    monkeypatch.setattr(tasks.erasure, name, look_and_wait)


def delete(job_id: UUID) -> None:
    """Delete a job by hand."""
    with writing() as session:
        delete_job(session, job_id, at=NOON, by=Actor.CUSTOMER)


def erase(job_id: UUID) -> None:
    """Erase the personal data of a job whose drives are back."""
    with writing() as session:
        assert wish_erasure(session, job_id, at=database_time(session), by=Actor.CUSTOMER) is Outcome.DONE


def test_what_happens_to_one_job_meanwhile_stops_no_other(any_database: str) -> None:
    """The first is deleted, the second's drive turns up, the third is erased by somebody else."""
    gone, back, erased, *others = (wished_job(f"job{number}") for number in range(5))

    def happen() -> None:
        delete(gone)
        erase(erased)
        with writing() as session:
            of_job = col(Drive.job_id) == back
            session.connection().execute(update(Drive).where(of_job).values(state=DriveState.RECEIVED))

    with pytest.MonkeyPatch.context() as patch:
        meanwhile(patch, "due_erasures", happen)
        assert carry_out_erasures.fn(100) == 2
    assert all(map(is_erased, [*others, erased]))
    assert not is_erased(back)
    with pytest.raises(JobNotFoundError):
        read(gone)


@pytest.mark.parametrize("after", [False, True])
def test_cut_between_two_jobs_the_rest_is_done_by_the_next(any_database: str, after: bool) -> None:
    """Each job in a transaction of its own: what was erased stays so, what was begun is undone."""
    due = [wished_job(f"job{number}") for number in range(3)]
    with writing() as session:
        for place, job_id in enumerate(due):
            set_columns(session, job_id, erasure_wished_at=NOON + timedelta(minutes=place))
    calls: list[UUID] = []

    def cut_at_the_second(session: Session, job: Job, *, at: datetime) -> bool:
        calls.append(job.id)
        if len(calls) == 2:
            if after:
                carry_out_wish(session, job, at=at)
            raise KeyboardInterrupt
        return carry_out_wish(session, job, at=at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.erasure, "carry_out_wish", cut_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            carry_out_erasures.fn(100)
    assert [is_erased(job_id) for job_id in due] == [True, False, False]
    assert carry_out_erasures.fn(100) == 2
    assert all(map(is_erased, due))


def test_several_that_carry_out_at_once_erase_each_once(any_database: str) -> None:
    """Together they tell of each job once."""
    due = [wished_job(f"job{number}") for number in range(4)]
    ends = at_once(*[lambda: carry_out_erasures.fn(100)] * 3)
    assert all(isinstance(end, int) for end in ends), ends
    assert sum(end for end in ends if isinstance(end, int)) == 4
    assert all(map(is_erased, due))


# A person.


def jobs_of_every_kind() -> dict[UUID, str]:
    """Make a user's jobs in every state; gives what is to become of each."""
    return {
        new_job("Creating", "job1", drives="Specified"): "deleted",
        new_job("Creating", "job2", drives="Specified"): "deleted",
        new_job("Shipping", "job3", drives="Specified"): "wished",
        new_job("Received", "job4", drives="Received"): "wished",
        new_job("Transferring", "job5", drives="Transferring"): "wished",
        new_job("Packaging", "job6", drives="Completed"): "wished",
        new_job("Completed", "job7", drives="Completed"): "wished",
        new_job("Completed", "job8"): "erased",
        new_job("Closed", "job9", drives="NeverReceived"): "erased",
    }


def require(job_id: UUID, became: str) -> None:
    """See that of a job became what was to."""
    if became == "deleted":
        with pytest.raises(JobNotFoundError):
            read(job_id)
        return
    assert is_erased(job_id) is (became == "erased")
    assert read(job_id).user_id == (None if became == "erased" else USER)
    assert read(job_id).erasure_wished_at is not None


@pytest.mark.parametrize("rows_max", [1, 4, 100])
def test_all_jobs_of_a_person_are_erased(any_database: str, rows_max: int) -> None:
    """Deleted, erased, or to be erased, as far as each may be; somebody else's and nobody's stay as they are."""
    made = jobs_of_every_kind()
    strangers = [new_job(name="another", user=uuid4()), new_job(name="nobody", user=None)]
    before = [read(job_id).model_dump() for job_id in strangers]
    told, calls = PersonErased(), 0
    while (batch := erase_jobs_of_user.fn(USER, rows_max)).found:
        assert batch.found <= rows_max
        told.merge(batch)
        calls += 1
    assert calls == -(-len(made) // rows_max)
    assert told == PersonErased(found=9, **Counter(made.values()))
    for job_id, became in made.items():
        require(job_id, became)
    assert [read(job_id).model_dump() for job_id in strangers] == before
    assert not any(map(is_erased, strangers))
    assert erase_jobs_of_user.fn(USER, rows_max) == PersonErased()
    if any_database.startswith("sqlite"):
        assert log_ahead_bytes() == 0
    with reading() as session:
        assert verify_receipts(session).faults == ()
        told_of = session.exec(select(ReceiptEntry.subject, ReceiptEntry.reason)).all()
    assert Counter(told_of) == {("job", "wish"): 2, ("personal data of a job", "wish"): 2}


def test_nobody_has_nothing_to_erase(any_database: str) -> None:
    """Nor is a job of no user anybody's."""
    kept = new_job(user=None)
    assert erase_jobs_of_user.fn(uuid4(), 100) == PersonErased()
    assert erase_jobs_of_user.fn(USER, 0) == PersonErased()
    assert not is_erased(kept)


def test_a_persons_jobs_that_go_on_meanwhile_are_found_again(any_database: str) -> None:
    """One is shipped, one deleted, one erased between the look and the act: none stops another."""
    shipped, gone, erased = (
        new_job(*each) for each in (("Creating", "job1"), ("Completed", "job2"), ("Closed", "job3"))
    )
    others = [new_job("Closed", f"other{number}") for number in range(2)]

    def happen() -> None:
        with writing() as session:
            move(session, read_job(session, shipped), JobState.SHIPPING, at=NOON, by=Actor.CUSTOMER)
        delete(gone)
        erase(erased)

    with pytest.MonkeyPatch.context() as patch:
        meanwhile(patch, "jobs_to_erase", happen)
        first = erase_jobs_of_user.fn(USER, 100)
    assert first == PersonErased(found=5, erased=2)
    assert erase_jobs_of_user.fn(USER, 100) == PersonErased(found=1, wished=1)
    assert erase_jobs_of_user.fn(USER, 100) == PersonErased()
    require(shipped, "wished")
    assert all(map(is_erased, [erased, *others]))


def test_cut_between_two_jobs_of_a_person_the_rest_is_done_by_the_next(any_database: str) -> None:
    """What became of the first stays so."""
    made = jobs_of_every_kind()
    calls: list[object] = []

    def cut_at_the_third(*args: Any, **told: Any) -> Outcome:
        calls.append(args)
        outcome = wish_erasure(*args, **told)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.erasure, "wish_erasure", cut_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            erase_jobs_of_user.fn(USER, 100)
    left = erase_jobs_of_user.fn(USER, 100)
    assert 5 <= left.found <= 7
    for job_id, became in made.items():
        require(job_id, became)
    with reading() as session:
        assert len(session.exec(select(ReceiptEntry)).all()) == 4


def test_what_became_of_several_batches_is_counted_together() -> None:
    """Kind by kind."""
    told = PersonErased(found=1, deleted=2, erased=3, wished=4)
    told.merge(PersonErased(found=10, deleted=20, erased=30, wished=40))
    assert told == PersonErased(found=11, deleted=22, erased=33, wished=44)
