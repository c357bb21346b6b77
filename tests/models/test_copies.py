"""The lease on a copy: one holder at a time, and who has lost it writes nothing."""

from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from models.copies import (
    BlobReport,
    copied_bytes,
    copies_under_way,
    due_copies,
    is_copy_cancelled,
    lost_cancels,
    release_copy_lease,
    renew_copy_lease,
    reports_of,
    seize_copy_lease,
    take_copy_lease,
)
from models.copy_logs import BlobStatus, BlockStatus, DispositionStatus, LoggedBlock
from models.database import reading, writing
from models.drives import drives_of
from models.errors import (
    ActorNotAllowedError,
    CancelAcceptedError,
    CopyHeldElsewhereError,
    JobNotFoundError,
    JobStateConflictError,
    LeaseLostError,
    WrongJobTypeError,
)
from models.jobs import finish_cancel, move, read_job, request_cancel
from models.lifecycle import Actor, JobState, JobType
from models.manifests import ImportDisposition
from tests.builders import ACCOUNT, DRIVE, NOON, at_once, job_in, set_columns

SECONDS: Final = 60
MICROSECOND: Final = timedelta(microseconds=1)
RUN_OUT: Final = NOON + timedelta(seconds=SECONDS)
EXPORT: Final[dict[str, Any]] = {
    "jobType": "Export",
    "driveList": None,
    "export": {"blobList": {"blobPathPrefix": ["/"]}},
}


def new_job(state: str = "Received", name: str = "job1", *, cancelled: bool = False, **properties: Any) -> UUID:
    """Make a job in a state."""
    with writing() as session:
        return job_in(session, JobState(state), name, cancelled=cancelled, **properties)


def take(job_id: UUID, after: timedelta = timedelta(0)) -> int | None:
    """Take the lease at a time after NOON."""
    with writing() as session:
        return take_copy_lease(
            session, job_id, seconds=SECONDS, at=NOON + after, by=Actor.SERVICE, job_type=JobType.IMPORT
        )


def renew(job_id: UUID, token: int, after: timedelta = timedelta(0)) -> None:
    """Renew it at a time after NOON."""
    with writing() as session:
        renew_copy_lease(session, job_id, token, seconds=SECONDS, at=NOON + after)


def test_a_lease_is_taken_once_until_it_has_run_out(any_database: str) -> None:
    """A microsecond before it is still held; at its end it is another's, with a larger token."""
    job_id = new_job()
    assert take(job_id) == 1
    with pytest.raises(CopyHeldElsewhereError, match="until 12:01:00 UTC"):
        take(job_id, timedelta(seconds=SECONDS) - MICROSECOND)
    assert take(job_id, timedelta(seconds=SECONDS)) == 2


def test_who_lost_the_lease_can_neither_renew_nor_read_on(any_database: str) -> None:
    """The old token writes nothing, and gives nothing back that is another's."""
    job_id = new_job("Transferring")
    old = take(job_id)
    new = take(job_id, timedelta(seconds=SECONDS))
    assert old is not None
    assert new is not None
    with pytest.raises(LeaseLostError, match=str(job_id)):
        renew(job_id, old)
    with pytest.raises(LeaseLostError), reading() as session:
        is_copy_cancelled(session, job_id, old)
    with writing() as session:
        release_copy_lease(session, job_id, old)
    with pytest.raises(CopyHeldElsewhereError):
        take(job_id, timedelta(seconds=SECONDS))
    renew(job_id, new, timedelta(seconds=SECONDS))
    with reading() as session:
        assert not is_copy_cancelled(session, job_id, new)
        assert read_job(session, job_id).copy_lease_until == NOON + 2 * timedelta(seconds=SECONDS)


def test_a_lost_lease_undoes_the_write_that_began_with_it(any_database: str) -> None:
    """Renewing comes first in the transaction, so that nothing of the write stays."""
    job_id = new_job("Transferring")
    take(job_id)

    def write_with(token: int) -> None:
        with writing() as session:
            set_columns(session, job_id, diagnostics_path="spoilt")
            renew_copy_lease(session, job_id, token, seconds=SECONDS, at=NOON)

    with pytest.raises(LeaseLostError):
        write_with(7)
    with reading() as session:
        assert read_job(session, job_id).diagnostics_path == "waimportexport"


def test_a_lease_given_back_is_free_at_once(any_database: str) -> None:
    """And the next token is larger all the same."""
    job_id = new_job()
    with writing() as session:
        release_copy_lease(
            session,
            job_id,
            take_copy_lease(session, job_id, seconds=9, at=NOON, by=Actor.SERVICE, job_type=JobType.IMPORT) or 0,
        )
    assert take(job_id) == 2


def test_a_lease_is_renewed_after_a_cancel_and_not_taken_anew(any_database: str) -> None:
    """The copy hears of the cancel, tidies up and reports; nobody begins another."""
    job_id = new_job("Transferring")
    token = take(job_id)
    assert token is not None
    with writing() as session:
        request_cancel(session, job_id, at=NOON, by=Actor.CUSTOMER)
    with reading() as session:
        assert is_copy_cancelled(session, job_id, token)
    renew(job_id, token)
    with pytest.raises(CancelAcceptedError, match="'copy' is over"):
        take(job_id, timedelta(days=1))
    with writing() as session:
        finish_cancel(session, job_id, at=NOON)
    with pytest.raises(LeaseLostError):
        renew(job_id, token)
    assert take(job_id) is None


@pytest.mark.parametrize("state", ["Creating", "Shipping"])
def test_nothing_is_copied_before_it_is_checked_in(sqlite: str, state: str) -> None:
    """The text names the state and what to do."""
    with pytest.raises(JobStateConflictError, match=f"a {state} job cannot take 'copy'; .* first"):
        take(new_job(state))


@pytest.mark.parametrize("state", ["Packaging", "Completed", "Closed"])
def test_a_copy_that_is_over_has_no_lease_to_take(sqlite: str, state: str) -> None:
    """Nothing to do is no error."""
    assert take(new_job(state)) is None


def test_a_copy_is_not_for_customers_nor_of_a_job_that_is_gone(sqlite: str) -> None:
    """Refused by name."""
    job_id = new_job()
    with pytest.raises(ActorNotAllowedError), writing() as session:
        take_copy_lease(session, job_id, seconds=1, at=NOON, by=Actor.CUSTOMER, job_type=JobType.IMPORT)
    with pytest.raises(JobNotFoundError):
        take(uuid4())
    with pytest.raises(JobNotFoundError):
        seize(uuid4(), NOON)
    with pytest.raises(LeaseLostError):
        renew(uuid4(), 1)
    with pytest.raises(LeaseLostError), reading() as session:
        is_copy_cancelled(session, uuid4(), 1)


def test_of_many_that_take_the_lease_at_once_one_has_it(any_database: str) -> None:
    """The others hear who has it."""
    job_id = new_job()
    ends = at_once(*[partial(take, job_id)] * 4)
    assert ends.count(1) == 1
    assert sum(isinstance(end, CopyHeldElsewhereError) for end in ends) == 3


def seize(job_id: UUID, at: datetime) -> datetime | None:
    """End every claim on a copy."""
    with writing() as session:
        return seize_copy_lease(session, job_id, at=at)


def test_a_lease_is_seized_only_once_it_has_run_out(any_database: str) -> None:
    """Before, the answer is until when; after, the old holder is out though nobody took it over."""
    job_id = new_job("Transferring")
    assert seize(job_id, NOON) is None
    token = take(job_id)
    assert token is not None
    assert seize(job_id, RUN_OUT - MICROSECOND) == RUN_OUT
    renew(job_id, token)
    assert seize(job_id, RUN_OUT) is None
    with pytest.raises(LeaseLostError):
        renew(job_id, token)
    assert seize(job_id, RUN_OUT) is None


def test_due_copies_are_those_that_nobody_copies_the_least_tried_first(any_database: str) -> None:
    """Checked in or half copied, of either type, not cancelled, no living lease; one that fails starves nobody."""
    half, fresh = new_job("Transferring", "half"), new_job("Received", "fresh")
    for state in ("Creating", "Shipping", "Packaging", "Completed", "Closed"):
        new_job(state, f"is-{state}")
    new_job("Received", "cancelled", cancelled=True)
    export = new_job("Received", "export", **EXPORT)
    held = new_job("Received", "held")
    take(held)
    with writing() as session:
        set_columns(session, half, state_since=NOON - timedelta(days=1))
        set_columns(session, held, state_since=NOON - timedelta(hours=1))
        set_columns(session, export, state_since=NOON + timedelta(hours=1))
    with reading() as session:
        untried = [(half, JobType.IMPORT), (fresh, JobType.IMPORT), (export, JobType.EXPORT)]
        assert due_copies(session, NOON, 10, 10) == untried
        assert due_copies(session, NOON, 1, 10) == untried[:1]
        assert due_copies(session, RUN_OUT - MICROSECOND, 10, 10) == untried
        assert due_copies(session, RUN_OUT, 10, 10) == [*untried, (held, JobType.IMPORT)]
        assert copies_under_way(session, NOON) == [held]
        assert copies_under_way(session, RUN_OUT) == []


def test_lost_cancels_are_those_accepted_and_not_carried_out(any_database: str) -> None:
    """In every state before Packaging; not while the copy still runs, not when it is over."""
    waiting = [new_job(state, f"in-{state}", cancelled=True) for state in ("Creating", "Shipping", "Received")]
    copying = new_job("Transferring", "copying")
    take(copying)
    with writing() as session:
        request_cancel(session, copying, at=NOON - MICROSECOND, by=Actor.CUSTOMER)
    new_job("Completed", "done", cancelled=True)
    new_job("Received", "not-cancelled")
    with reading() as session:
        assert {job_id for job_id, _ in lost_cancels(session, NOON, 10)} == set(waiting)
        assert {account for _, account in lost_cancels(session, NOON, 10)} == {ACCOUNT}
        assert len(lost_cancels(session, NOON, 2)) == 2
        assert lost_cancels(session, RUN_OUT, 10)[0] == (copying, ACCOUNT), "the oldest wish comes first"


def test_a_job_tells_how_much_of_it_was_copied(any_database: str) -> None:
    """Bytes committed and bytes listed, over the drives begun."""
    job_id = new_job(driveList=[{**DRIVE, "driveId": name} for name in ("A", "B", "C")])
    with writing() as session:
        first, second, _ = drives_of(session, job_id)
        first.bytes_total, first.bytes_succeeded = 2**40, 2**39
        second.bytes_total, second.bytes_succeeded = 10, 10
    with reading() as session:
        assert copied_bytes(session, job_id) == (2**39 + 10, 2**40 + 10)
        assert copied_bytes(session, new_job(name="job2")) == (0, 0)


def test_a_report_becomes_the_entry_of_the_copy_log(any_database: str) -> None:
    """In the order of the manifest, blocks and all."""
    job_id = new_job()
    with writing() as session:
        for number in (2, 1):
            session.add(
                BlobReport(
                    job_id=job_id,
                    drive_number=1,
                    blob_number=number,
                    blob_path=f"data/{number}",
                    file_path=f"{number}",
                    length=2**41,
                    disposition=ImportDisposition.OVERWRITE,
                    status=BlobStatus.FAILED if number == 1 else BlobStatus.COMPLETED,
                    disposition_status=DispositionStatus.OVERWRITTEN,
                    blocks=[{"offset": 0, "length": 5, "hash": "A" * 32, "status": "Corrupted"}],
                )
            )
    with reading() as session:
        first, second = reports_of(session, job_id, 1, after=-1, rows_max=10)
    assert (first.blob_number, first.is_error, second.is_error) == (1, True, False)
    logged = first.logged()
    assert logged.blocks == (LoggedBlock(0, 5, "A" * 32, BlockStatus.CORRUPTED),)
    assert (logged.blob_path, logged.length, logged.metadata_status) == ("data/1", 2**41, None)


def test_packaging_ends_the_lease_and_what_its_holder_may_write(any_database: str) -> None:
    """The last write of a copy is its move."""
    job_id = new_job("Transferring")
    token = take(job_id)
    assert token is not None
    with writing() as session:
        renew_copy_lease(session, job_id, token, seconds=SECONDS, at=NOON)
        move(session, read_job(session, job_id), JobState.PACKAGING, at=NOON, by=Actor.SERVICE)
    with pytest.raises(LeaseLostError):
        renew(job_id, token)


def test_an_export_job_is_not_imported(any_database: str) -> None:
    """Its drives are written to, not read; the job stays where it is."""
    job_id = new_job("Received", "export", **EXPORT)
    with (
        pytest.raises(WrongJobTypeError, match="this is an Export job, whose drives export-blobs copies"),
        writing() as session,
    ):
        take_copy_lease(session, job_id, seconds=60, at=NOON, by=Actor.OPERATOR, job_type=JobType.IMPORT)
    with reading() as session:
        assert read_job(session, job_id).state is JobState.RECEIVED
    with writing() as session:
        told = take_copy_lease(session, job_id, seconds=60, at=NOON, by=Actor.OPERATOR, job_type=JobType.EXPORT)
        assert told == 1


def test_an_import_job_is_not_exported(any_database: str) -> None:
    """Its drives are read, not written to; the job stays where it is."""
    job_id = new_job()
    with (
        pytest.raises(WrongJobTypeError, match="this is an Import job, whose drives import-drives copies"),
        writing() as session,
    ):
        take_copy_lease(session, job_id, seconds=60, at=NOON, by=Actor.OPERATOR, job_type=JobType.EXPORT)
    with reading() as session:
        assert read_job(session, job_id).copy_token == 0
