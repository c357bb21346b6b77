"""Acts on a job's row: opened, shipped, cancelled, closed, deleted."""

from pathlib import Path
from uuid import UUID

from sqlmodel import Session

from models.database import database_time, reading, return_free_pages, writing
from models.deletion import delete_job, require_deletable
from models.deletion_preview import DeletionPreview, preview_deletion
from models.errors import JobNotFoundError, RequestError
from models.holds import ReleaseReason, place_hold, release_hold
from models.jobs import HoldReason, close_job, find_job, finish_cancel, read_job, request_cancel
from models.lifecycle import Actor, JobState, Outcome
from models.receipts import was_job_deleted
from models.requests import ShipRequest, parse
from models.runs import record_run, record_run_of_deleted_job
from models.updates import update_job
from tasks.acts import act
from tasks.intake import is_gone, read_request_file


@act
def open_job(reference: str, flow_run_id: UUID | None) -> UUID:
    """Find the job that an operator names, and write down that this run works on it.

    A run that names a job deleted meanwhile is written down as one to be forgotten.

    Args:
        reference: its opaque id, or `subscription/resourceGroup/name`.
        flow_run_id: the run, to be forgotten with the job; None outside of one.

    Raises:
        JobNotFoundError: there is no such job.
    """
    job_id, is_here = _open(reference, flow_run_id)
    if not is_here:
        raise JobNotFoundError
    return job_id


@act
def open_job_or_its_traces(reference: str, flow_run_id: UUID | None) -> UUID:
    """Find the job that is to be deleted, or one that was: REST deletes the rows, and leaves the traces to a run.

    Args:
        reference: its opaque id, or `subscription/resourceGroup/name`; a deleted one goes by its id alone.
        flow_run_id: the run, to be forgotten with the job; None outside of one.

    Raises:
        JobNotFoundError: there is no such job, and none was deleted.
    """
    return _open(reference, flow_run_id)[0]


def _open(reference: str, flow_run_id: UUID | None) -> tuple[UUID, bool]:
    """Find a job that is here (True), or was deleted."""
    with writing() as session:
        try:
            job_id = find_job(session, reference)
        except JobNotFoundError:
            job_id = _deleted(session, reference)
            if flow_run_id is not None:
                record_run_of_deleted_job(session, job_id, flow_run_id)
            return job_id, False
        if flow_run_id is not None:
            read_job(session, job_id, lock=True)
            record_run(session, job_id, flow_run_id)
        return job_id, True


def _deleted(session: Session, reference: str) -> UUID:
    try:
        job_id = UUID(reference)
    except ValueError:
        raise JobNotFoundError from None
    if not was_job_deleted(session, job_id):
        raise JobNotFoundError
    return job_id


@act
def require_second_name(job_id: UUID, again: str) -> None:
    """Refuse to delete a job that may not be deleted, or that is not named a second time.

    A job whose rows are gone needs no second name: REST deleted them, and asks for its traces to go.

    Args:
        job_id: the job, as it was found by its first name.
        again: its opaque id, or `subscription/resourceGroup/name`.

    Raises:
        JobStateConflictError: it may not be deleted in its state.
        JobHeldError: it is under legal hold.
        RequestError: it is not named again, or by what names another job or none.
    """
    with reading() as session:
        try:
            require_deletable(read_job(session, job_id))
        except JobNotFoundError:
            return
        if not again:
            raise RequestError([("confirm", "name the job a second time, or tick dry_run to see what would go")])
        if not _names(session, again, job_id):
            raise RequestError([("confirm", "does not name the same job as above; nothing was deleted")])


def _names(session: Session, reference: str, job_id: UUID) -> bool:
    try:
        return find_job(session, reference) == job_id
    except JobNotFoundError:
        return False


@act
def look_at_deletion(job_id: UUID) -> DeletionPreview:
    """Tell what deleting a job by hand would do now; nothing is changed.

    Raises:
        JobNotFoundError: there is no such job.
    """
    with reading(of_one_moment=True) as session:
        return preview_deletion(session, job_id)


@act
def storage_account_of(job_id: UUID) -> str:
    """Read the resource id of the storage account that a job's blobs go to."""
    with reading() as session:
        return read_job(session, job_id).storage_account_id


@act
def mark_as_shipped(job_id: UUID, request_file: Path | None) -> Outcome:
    """Mark a job as shipped, with what a request file of the intake changes at the same time.

    Raises:
        IntakeError: the file cannot be read.
        RequestError: the file is no body of Update Job Properties, or what it ticks to be saved is not all there.
        NotReadyToShipError: return address or delivery package is missing.
        JobStateConflictError: it is too late.
    """
    if request_file and is_gone(request_file):
        with reading() as session:
            if read_job(session, job_id).state is JobState.SHIPPING:
                # A run that was cut after its last act removed the file; what it asked for was done.
                return Outcome.NOTHING_TO_DO
    request = parse(ShipRequest, read_request_file(request_file)) if request_file else ShipRequest()
    request.properties.state = JobState.SHIPPING.value
    with writing() as session:
        return update_job(
            session,
            job_id,
            request,
            at=database_time(session),
            by=Actor.OPERATOR,
            saves_as_default=request.save_carrier_and_return_address_as_default,
        )


@act
def accept_cancel(job_id: UUID) -> Outcome:
    """Accept a cancel as an operator's wish; NOTHING_TO_DO when one was accepted before.

    Raises:
        JobStateConflictError: Packaging or an end has been entered.
    """
    with writing() as session:
        return request_cancel(session, job_id, at=database_time(session), by=Actor.OPERATOR)


@act
def complete_cancelled_job(job_id: UUID) -> Outcome:
    """Make a job whose copy has stopped Completed; NOTHING_TO_DO when it is.

    Raises:
        JobStateConflictError: no cancel was accepted for it.
    """
    with writing() as session:
        return finish_cancel(session, job_id, at=database_time(session))


@act
def close_unanswered_job(job_id: UUID) -> Outcome:
    """Close a job whose customer did not answer for 30 days; NOTHING_TO_DO when it is Closed.

    Raises:
        NotYetClosableError: the 30 days are not over.
        JobStateConflictError: the job is not Shipping.
    """
    with writing() as session:
        return close_job(session, job_id, at=database_time(session), by=Actor.OPERATOR)


@act
def hold_job(job_id: UUID, reason: HoldReason) -> Outcome:
    """Place a legal hold on a job; NOTHING_TO_DO when it is held for that reason."""
    with writing() as session:
        return place_hold(session, job_id, reason, at=database_time(session), by=Actor.OPERATOR)


@act
def release_job(job_id: UUID, reason: ReleaseReason) -> Outcome:
    """Release the legal hold of a job; NOTHING_TO_DO when it is under none."""
    with writing() as session:
        return release_hold(session, job_id, reason, at=database_time(session), by=Actor.OPERATOR)


@act
def delete_rows_of_job(job_id: UUID) -> None:
    """Delete a job by hand: all its rows go in one transaction, and its runs are to be forgotten.

    Raises:
        JobNotFoundError: somebody else deleted it first.
        JobStateConflictError: it may not be deleted in its state.
        JobHeldError: it is under legal hold.
    """
    with writing() as session:
        delete_job(session, job_id, at=database_time(session), by=Actor.OPERATOR)
    return_free_pages()
