"""The guarded writes of a job: who loses is told, and what is written down goes with what is done."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from itertools import product
from time import sleep
from typing import Final
from uuid import UUID, uuid4

import pytest
from sqlmodel import Session

from models.database import reading, writing
from models.deletion import delete_job
from models.errors import (
    ActorNotAllowedError,
    CancelAcceptedError,
    JobChangedError,
    JobNotFoundError,
    JobStateConflictError,
    MoveNotAllowedError,
    NotYetClosableError,
)
from models.events import EventKind
from models.jobs import (
    Job,
    close_job,
    find_job,
    finish_cancel,
    move,
    read_job,
    read_named_job,
    request_cancel,
)
from models.lifecycle import Actor, JobState, Outcome
from models.runs import record_run, runs_to_forget
from tests.builders import NOON, at_once, events_of, job_in, job_request, put, rows_of, set_columns, with_every_row

MICROSECOND: Final = timedelta(microseconds=1)
LATER: Final = NOON + timedelta(hours=1)
# Section 3, copied by hand.
CANCEL_ACCEPTED_IN: Final = ["Creating", "Shipping", "Received", "Transferring"]
CANCEL_REFUSED_IN: Final = ["Packaging", "Completed", "Closed"]


def new_job(state: str, *, cancelled: bool = False, name: str = "job1") -> UUID:
    """Make a job in a state, in a transaction of its own."""
    with writing() as session:
        return job_in(session, JobState(state), name, cancelled=cancelled)


def read(job_id: UUID) -> Job:
    """Read a job as everyone sees it now."""
    with reading() as session:
        return read_job(session, job_id)


def cancel(job_id: UUID) -> Outcome:
    """Ask for a cancel in a transaction of its own."""
    with writing() as session:
        return request_cancel(session, job_id, at=LATER, by=Actor.CUSTOMER)


def move_as_read(job: Job, target: JobState, by: Actor = Actor.SERVICE) -> JobState:
    """Move a job that was read some time before."""
    with writing() as session:
        attached = session.merge(job, load=False)
        move(session, attached, target, at=LATER, by=by)
        return attached.state


# Moving.


def test_a_move_and_its_event_are_written_together(any_database: str) -> None:
    """State, moment and event; the event says from where, whither, when and by whom."""
    job_id = new_job("Received")
    with writing() as session:
        move(session, read_job(session, job_id), JobState.TRANSFERRING, at=LATER, by=Actor.SERVICE)
    job = read(job_id)
    assert (job.state, job.state_since, job.expires_at) == (JobState.TRANSFERRING, LATER, None)
    with reading() as session:
        told = events_of(session, job_id, EventKind.MOVED)[-1]
    assert (told.source, told.target, told.at, told.by) == ("Received", "Transferring", LATER, Actor.SERVICE)


def test_a_move_undone_leaves_no_event(any_database: str) -> None:
    """One transaction: what fails after the move takes both back."""
    job_id = new_job("Received")
    before = read(job_id)

    def move_and_fail() -> None:
        with writing() as session:
            move(session, read_job(session, job_id), JobState.TRANSFERRING, at=LATER, by=Actor.SERVICE)
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        move_and_fail()
    assert read(job_id) == before
    with reading() as session:
        assert [event.target for event in events_of(session, job_id, EventKind.MOVED)] == ["Shipping", "Received"]


def test_a_move_that_is_none_or_not_theirs_changes_nothing(sqlite: str) -> None:
    """Refused by the table of moves, or by who asks."""
    job_id = new_job("Received")
    with pytest.raises(MoveNotAllowedError, match="Received job cannot become Closed"):
        move_as_read(read(job_id), JobState.CLOSED)
    with pytest.raises(ActorNotAllowedError, match="'copy' is not for the customer"):
        move_as_read(read(job_id), JobState.TRANSFERRING, by=Actor.CUSTOMER)
    assert read(job_id).state is JobState.RECEIVED


def test_a_move_of_a_cancel_is_possible_only_after_one_was_accepted(sqlite: str) -> None:
    """Completed is not to be had from Creating without a cancel, nor Shipping after one."""
    job_id = new_job("Creating")
    with pytest.raises(JobChangedError):
        move_as_read(read(job_id), JobState.COMPLETED)
    cancel(job_id)
    with pytest.raises(CancelAcceptedError, match="'ship' is over"):
        move_as_read(read(job_id), JobState.SHIPPING, by=Actor.CUSTOMER)
    assert read(job_id).state is JobState.CREATING


def test_the_loser_of_a_race_is_told(any_database: str) -> None:
    """Who read before another moved, or deleted, may not move."""
    job_id = new_job("Creating")
    as_read = read(job_id)
    with writing() as session:
        move(session, read_job(session, job_id), JobState.SHIPPING, at=NOON, by=Actor.CUSTOMER)
    with pytest.raises(JobChangedError, match=f"job {job_id} was changed by someone else"):
        move_as_read(as_read, JobState.SHIPPING, by=Actor.CUSTOMER)
    with reading() as session:
        assert len(events_of(session, job_id, EventKind.MOVED)) == 1
    gone = new_job("Creating", name="job2")
    as_read = read(gone)
    with writing() as session:
        delete_job(session, gone, at=NOON, by=Actor.CUSTOMER)
    with pytest.raises(JobNotFoundError):
        move_as_read(as_read, JobState.SHIPPING, by=Actor.CUSTOMER)


def test_of_many_that_move_at_once_one_does(any_database: str) -> None:
    """Four threads, one event."""
    job_id = new_job("Received")
    as_read = [read(job_id) for _ in range(4)]
    ends = at_once(*[partial(move_as_read, job, JobState.TRANSFERRING) for job in as_read])
    assert sorted(type(end).__name__ for end in ends) == ["JobChangedError"] * 3 + ["JobState"]
    with reading() as session:
        moved = events_of(session, job_id, EventKind.MOVED)
    assert [event.target for event in moved].count("Transferring") == 1


# Finding.


def test_a_job_is_found_by_its_id_and_by_its_name_in_any_case(sqlite: str) -> None:
    """And by nothing else."""
    job_id = new_job("Creating")
    with reading() as session:
        for reference in (str(job_id), str(job_id).upper(), "s1/g1/job1", "S1/G1/JOB1"):
            assert find_job(session, reference) == job_id
        for reference in (str(uuid4()), "s1/g1/job2", "job1", "", "s1/g1/job1/"):
            with pytest.raises(JobNotFoundError):
                find_job(session, reference)


def test_a_job_is_read_by_its_three_names_in_any_case(any_database: str) -> None:
    """And by no others: a slash in one does not make it the next, and signs stand for themselves."""
    with writing() as session:
        request = {**job_request("My-Job_1"), "subscriptionId": "Sub-1", "resourceGroupName": "G.1_(x)"}
        job_id = put(session, request)
        put(session, {**request, "jobName": "My-Job-1"})
    with reading() as session:
        for names in (
            ("Sub-1", "G.1_(x)", "My-Job_1"),
            ("sub-1", "g.1_(x)", "my-job_1"),
            ("SUB-1", "G.1_(X)", "MY-JOB_1"),
        ):
            found = read_named_job(session, *names)
            assert found.id == job_id
            assert (found.subscription_id, found.resource_group, found.name) == ("Sub-1", "G.1_(x)", "My-Job_1")
        for names in (
            *(("sub-2", "g.1_(x)", "my-job_1"), ("sub-1", "g.1_", "my-job_1"), ("sub-1", "g.1_(x)", "my-job")),
            *(("sub-1", "g.1_(x)", "my-job%1"), ("sub-1", "g.1_(x)", "my-job?1"), ("sub-1", "g.1_(x)", "%")),
            *(("sub-1", "g.1_(x)", "my-job_1 "), ("sub-1", "g.1_(x)", "my-job_1/"), ("", "", "")),
            *(("sub-1", "g.1_(x)", "my-job_1\0"), ("\0", "g", "a"), ("größe", "g.1_(x)", "my-job_1")),
            ("' OR 1=1 --", "g.1_(x)", "my-job_1"),
        ):
            with pytest.raises(JobNotFoundError):
                read_named_job(session, *names)


def test_a_name_that_was_deleted_names_nothing_and_then_another(any_database: str) -> None:
    """It is free at once."""
    job_id = new_job("Creating")
    with writing() as session:
        delete_job(session, job_id, at=LATER, by=Actor.CUSTOMER)
        with pytest.raises(JobNotFoundError):
            read_named_job(session, "s1", "g1", "job1")
    again = new_job("Creating")
    with reading() as session:
        assert read_named_job(session, "s1", "g1", "job1").id == again != job_id


# Cancelling.


@pytest.mark.parametrize("state", CANCEL_ACCEPTED_IN)
def test_a_cancel_is_accepted_before_packaging(any_database: str, state: str) -> None:
    """Done, then nothing to do; carried out it ends in Completed, for 90 days, and answers the same."""
    job_id = new_job(state)
    assert cancel(job_id) is Outcome.DONE
    accepted = read(job_id)
    assert (accepted.state, accepted.cancel_requested_at, accepted.expires_at) == (state, LATER, None)
    with writing() as session:
        assert request_cancel(session, job_id, at=LATER + MICROSECOND, by=Actor.OPERATOR) is Outcome.NOTHING_TO_DO
        assert finish_cancel(session, job_id, at=LATER + MICROSECOND) is Outcome.DONE
        assert finish_cancel(session, job_id, at=LATER + timedelta(days=1)) is Outcome.NOTHING_TO_DO
        assert request_cancel(session, job_id, at=LATER, by=Actor.CUSTOMER) is Outcome.NOTHING_TO_DO
    ended = read(job_id)
    assert (ended.state, ended.state_since) == (JobState.COMPLETED, LATER + MICROSECOND)
    assert ended.expires_at == LATER + MICROSECOND + timedelta(days=90)
    assert ended.cancel_requested_at == LATER
    with reading() as session:
        assert len(events_of(session, job_id, EventKind.CANCEL_ACCEPTED)) == 1


@pytest.mark.parametrize("state", CANCEL_REFUSED_IN)
def test_a_cancel_is_refused_from_packaging_on(any_database: str, state: str) -> None:
    """The text names the state; nothing is written."""
    job_id = new_job(state)
    before = read(job_id)
    with pytest.raises(JobStateConflictError, match=f"a {state} job cannot take 'cancel'; .+"):
        cancel(job_id)
    with pytest.raises(JobStateConflictError, match="no cancel was accepted"), writing() as session:
        finish_cancel(session, job_id, at=LATER)
    assert read(job_id) == before


def test_a_cancel_not_accepted_cannot_be_carried_out(sqlite: str) -> None:
    """Nor one of a job that is not there, nor asked by nobody."""
    job_id = new_job("Received")
    with pytest.raises(JobStateConflictError), writing() as session:
        finish_cancel(session, job_id, at=LATER)
    with pytest.raises(JobNotFoundError), writing() as session:
        finish_cancel(session, uuid4(), at=LATER)
    with pytest.raises(JobNotFoundError):
        cancel(uuid4())
    assert read(job_id).state is JobState.RECEIVED


@pytest.mark.parametrize("state", ["Packaging", "Closed"])
def test_a_cancelled_job_cannot_enter_packaging_or_closed(sqlite: str, state: str) -> None:
    """The move is refused on the cancel's account."""
    source = "Transferring" if state == "Packaging" else "Shipping"
    job_id = new_job(source, cancelled=True)
    with pytest.raises(CancelAcceptedError):
        move_as_read(read(job_id), JobState(state), by=Actor.OPERATOR)
    assert read(job_id).state == source


# Cancel against Packaging: one winner.


def told_after_waiting(first: Callable[[Session], object], second: Callable[[], object]) -> object:
    """Let a second connection act while the first has written and not yet committed.

    Returns:
        What the second returned or raised, once the first had committed.
    """
    with ThreadPoolExecutor(1) as pool:
        with writing() as session:
            first(session)
            session.flush()
            waiting = pool.submit(second)
            sleep(0.15)
            assert not waiting.done(), "the second did not wait for the first"
        return waiting.exception(timeout=30) or waiting.result()


def test_packaging_is_refused_when_a_cancel_came_first(any_database: str) -> None:
    """Two connections, the cancel written first: the last byte has lost."""
    job_id = new_job("Transferring")
    as_read = read(job_id)
    told = told_after_waiting(
        lambda session: request_cancel(session, job_id, at=LATER, by=Actor.CUSTOMER),
        lambda: move_as_read(as_read, JobState.PACKAGING),
    )
    assert isinstance(told, CancelAcceptedError)
    job = read(job_id)
    assert (job.state, job.cancel_requested) == (JobState.TRANSFERRING, True)


def test_a_cancel_is_refused_when_packaging_came_first(any_database: str) -> None:
    """Two connections, Packaging written first: the cancel has lost and hears what to wait for."""
    job_id = new_job("Transferring")
    as_read = read(job_id)
    told = told_after_waiting(
        lambda session: move(
            session, session.merge(as_read, load=False), JobState.PACKAGING, at=LATER, by=Actor.SERVICE
        ),
        lambda: cancel(job_id),
    )
    assert isinstance(told, JobStateConflictError)
    assert "a Packaging job cannot take 'cancel'; its copy is over" in str(told)
    job = read(job_id)
    assert (job.state, job.cancel_requested) == (JobState.PACKAGING, False)


def test_a_cancel_that_is_undone_lets_packaging_through(any_database: str) -> None:
    """Only what is committed counts: the waiting move goes on when the cancel is rolled back."""
    job_id = new_job("Transferring")
    as_read = read(job_id)
    with ThreadPoolExecutor(1) as pool:
        with writing() as session:
            request_cancel(session, job_id, at=LATER, by=Actor.CUSTOMER)
            waiting = pool.submit(move_as_read, as_read, JobState.PACKAGING)
            sleep(0.15)
            assert not waiting.done()
            session.rollback()
        assert waiting.result(timeout=30) is JobState.PACKAGING


def test_cancel_and_packaging_at_the_same_moment_have_one_winner(any_database: str, thorough: bool) -> None:
    """Again and again, truly at once: one is done, the other is told, and the row says which."""
    for number in range(200 if thorough else 6):
        job_id = new_job("Transferring", name=f"job{number}")
        as_read = read(job_id)
        ends = at_once(partial(cancel, job_id), partial(move_as_read, as_read, JobState.PACKAGING))
        job = read(job_id)
        if job.cancel_requested:
            assert job.state is JobState.TRANSFERRING
            assert ends[0] is Outcome.DONE
            assert isinstance(ends[1], CancelAcceptedError)
        else:
            assert isinstance(ends[0], JobStateConflictError)
            assert ends[1] is job.state is JobState.PACKAGING


# Closing.


def test_an_operator_closes_a_job_30_days_after_it_shipped(any_database: str) -> None:
    """A microsecond before it is refused and told when; at the moment it is done; again, nothing to do."""
    job_id = new_job("Shipping")
    due = NOON + timedelta(days=30)
    with pytest.raises(NotYetClosableError, match="2026-07-01 12:00 UTC"), writing() as session:
        close_job(session, job_id, at=due - MICROSECOND, by=Actor.OPERATOR)
    with writing() as session:
        assert close_job(session, job_id, at=due, by=Actor.OPERATOR) is Outcome.DONE
        assert close_job(session, job_id, at=due + MICROSECOND, by=Actor.OPERATOR) is Outcome.NOTHING_TO_DO
    job = read(job_id)
    assert (job.state, job.expires_at) == (JobState.CLOSED, due + timedelta(days=90))
    other = new_job("Shipping", name="job2")
    with writing() as session:
        assert close_job(session, other, at=due + timedelta(days=99), by=Actor.OPERATOR) is Outcome.DONE


@pytest.mark.parametrize("state", ["Creating", "Received", "Transferring", "Packaging", "Completed"])
def test_only_a_job_on_its_way_to_us_is_closed(sqlite: str, state: str) -> None:
    """However long ago; nor by a customer, nor after a cancel."""
    job_id = new_job(state)
    late = NOON + timedelta(days=31)
    with pytest.raises(JobStateConflictError, match=f"a {state} job cannot take 'close'"), writing() as session:
        close_job(session, job_id, at=late, by=Actor.OPERATOR)
    shipped = new_job("Shipping", name="job2", cancelled=True)
    with pytest.raises(CancelAcceptedError), writing() as session:
        close_job(session, shipped, at=late, by=Actor.OPERATOR)
    with pytest.raises(ActorNotAllowedError), writing() as session:
        close_job(session, shipped, at=late, by=Actor.CUSTOMER)


# Deleting by hand.


@pytest.mark.parametrize("state", ["Creating", "Completed"])
@pytest.mark.parametrize("cancelled", [False, True])
def test_deletes_by_hand_every_row_of_a_job(any_database: str, state: str, cancelled: bool) -> None:
    """Every table that speaks of jobs is empty of it; its runs are to be forgotten; another's rows stay."""
    job_id = new_job(state, cancelled=cancelled)
    other = new_job(state, name="job2")
    with writing() as session:
        with_every_row(session, job_id)
        with_every_row(session, other)
        before = rows_of(session, other)
        assert all(rows_of(session, job_id).values()), "a table has no row of the job, so that nothing is proven"
        assert runs_to_forget(session, 10) == []
    with writing() as session:
        delete_job(session, job_id, at=NOON, by=Actor.CUSTOMER)
    with reading() as session:
        left = rows_of(session, job_id)
        assert left.pop("job_run") == 1
        assert not any(left.values())
        assert len(runs_to_forget(session, 10, job_id)) == len(runs_to_forget(session, 10)) == 1
        assert rows_of(session, other) == before
    with pytest.raises(JobNotFoundError), writing() as session:
        delete_job(session, job_id, at=NOON, by=Actor.CUSTOMER)
    again = new_job("Creating")
    assert again != job_id, "the name is free again, and the id is another"


@pytest.mark.parametrize(
    ("state", "cancelled"),
    [*((state, False) for state in ("Packaging", "Closed")), *product(CANCEL_ACCEPTED_IN[1:], (False, True))],
)
def test_keeps_a_job_that_may_not_be_deleted_by_hand(any_database: str, state: str, cancelled: bool) -> None:
    """The text names the state and a way out; every row stays."""
    job_id = new_job(state, cancelled=cancelled)
    with writing() as session:
        with_every_row(session, job_id)
        before = rows_of(session, job_id)
    with (
        pytest.raises(JobStateConflictError, match=f"a {state} job cannot take 'delete'; .+"),
        writing() as session,
    ):
        delete_job(session, job_id, at=NOON, by=Actor.CUSTOMER)
    with reading() as session:
        assert rows_of(session, job_id) == before


def test_a_delete_by_hand_is_not_the_services(sqlite: str) -> None:
    """The service deletes by time alone."""
    job_id = new_job("Completed")
    with pytest.raises(ActorNotAllowedError), writing() as session:
        delete_job(session, job_id, at=NOON, by=Actor.SERVICE)
    assert read(job_id)


def test_of_two_that_delete_at_once_one_wins(any_database: str) -> None:
    """The other hears that there is no such job, and nothing is broken."""
    job_id = new_job("Completed")
    with writing() as session:
        with_every_row(session, job_id)

    def delete() -> str:
        with writing() as session:
            delete_job(session, job_id, at=NOON, by=Actor.CUSTOMER)
        return "deleted"

    ends = at_once(*[delete] * 4)
    assert ends.count("deleted") == 1
    assert sum(isinstance(end, JobNotFoundError) for end in ends) == 3


def test_a_delete_against_a_shipment_has_one_winner(any_database: str) -> None:
    """Both orders: who comes second is told, and no half of a job is left."""
    shipped, deleted = new_job("Creating"), new_job("Creating", name="job2")
    as_read = read(deleted)

    def delete(job_id: UUID) -> None:
        with writing() as session:
            delete_job(session, job_id, at=NOON, by=Actor.CUSTOMER)

    told = told_after_waiting(
        lambda session: move(session, read_job(session, shipped), JobState.SHIPPING, at=LATER, by=Actor.CUSTOMER),
        lambda: delete(shipped),
    )
    assert isinstance(told, JobStateConflictError)
    assert read(shipped).state is JobState.SHIPPING
    told = told_after_waiting(
        lambda session: delete_job(session, deleted, at=NOON, by=Actor.CUSTOMER),
        lambda: move_as_read(as_read, JobState.SHIPPING, by=Actor.CUSTOMER),
    )
    assert isinstance(told, JobNotFoundError)
    with reading() as session:
        assert not any(rows_of(session, deleted).values())


# The lease goes with the copy.


def test_a_job_that_is_no_longer_copied_has_no_lease(sqlite: str) -> None:
    """Kept while it is copied, gone at Packaging."""
    job_id = new_job("Received")
    with writing() as session:
        set_columns(session, job_id, copy_lease_until=LATER)
        record_run(session, job_id, uuid4())
    move_as_read(read(job_id), JobState.TRANSFERRING)
    assert read(job_id).copy_lease_until == LATER
    move_as_read(read(job_id), JobState.PACKAGING)
    assert read(job_id).copy_lease_until is None
