"""What both copies have in common, onto drives and off them: the lease, drive by drive, and how a cancel ends."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from flows.promises import Ended, done, run_id, say, stopped
from models.errors import CancelAcceptedError, DrivepostError, JobChangedError, StoreError, UnexpectedError
from models.lifecycle import JobType
from models.requests import DRIVES_MAX
from models.settings import Settings
from tasks.copy_slots import copy_places, limit_name, site_of
from tasks.drives import (
    bytes_copied,
    discard_half_written_blobs,
    drives_to_copy,
    end_stopped_drives,
    give_up_drive,
    pack_job,
    release_lease,
    take_lease,
)
from tasks.jobs import complete_cancelled_job, open_job, storage_account_of
from tasks.pulse import CopyLimits

CopyDrive = Callable[[UUID, int, int, Path, str, CopyLimits], bool]
"""Copies one drive: job, the drive's number, token, bay, store address, limits; False when a cancel was heard."""
ListRest = Callable[[UUID, int, str, CopyLimits], bool]
"""What is to be done after the drives: job, token, store address, limits; False when a cancel was heard."""


def copy_job(job: str, job_type: JobType, copy_drive: CopyDrive, list_rest: ListRest | None = None) -> Ended:
    """Copy a job drive by drive, from where an earlier run came to, and pack it.

    Args:
        job: its id, or subscription/resourceGroup/name.
        job_type: which jobs the flow is for.
        copy_drive: copies one drive.
        list_rest: does what comes after the drives, where something does.
    """
    settings = Settings()
    job_id = open_job(job, run_id())
    limits = {
        limit_name("machine", settings.machine): settings.copies_per_machine_max,
        limit_name("site", site_of(job_id)): settings.copies_per_site_max,
    }
    with copy_places(run_id(), limits) as full:
        if full:
            return stopped(f"job {job_id} is not copied yet: {full}; advance-jobs starts its copy later")
        return _copy_in_its_place(job_id, job_type, settings, copy_drive, list_rest)


def _copy_in_its_place(
    job_id: UUID, job_type: JobType, settings: Settings, copy_drive: CopyDrive, list_rest: ListRest | None
) -> Ended:
    store = settings.store_address(storage_account_of(job_id))
    try:
        token = take_lease(job_id, job_type, settings.copy_lease_seconds)
    except CancelAcceptedError:
        return stopped(f"nothing is copied: a cancel was accepted for job {job_id}, and cancel-job carries it out")
    if token is None:
        return done(f"nothing to do: the copy of job {job_id} is over")
    try:
        is_over = _copy(job_id, token, settings.bay, store, _limits(settings), copy_drive, list_rest)
    except CancelAcceptedError:
        is_over = False
    except DrivepostError:
        # Nobody need wait for the lease to run out before trying again.
        release_lease(job_id, token)
        raise
    if is_over:
        return done(f"job {job_id} is copied, and its drives wait to be sent back")
    return stopped(complete_stopped_job(job_id, settings.bay, store))


def _limits(settings: Settings) -> CopyLimits:
    return CopyLimits(
        lease_seconds=settings.copy_lease_seconds,
        poll_seconds=settings.copy_poll_seconds,
        batch_blobs=settings.copy_batch_blobs,
        requests_at_once=settings.copy_requests_at_once,
        memory_bytes=settings.copy_memory_mebibytes * 2**20,
        reads_back=settings.copy_reads_back,
    )


def _copy(
    job_id: UUID,
    token: int,
    bay: Path,
    store: str,
    limits: CopyLimits,
    copy_drive: CopyDrive,
    list_rest: ListRest | None,
) -> bool:
    """Copy drive by drive until all are over; False when a cancel was heard."""
    # Once more than there can be drives, because each may turn up while another is copied.
    for _ in range(DRIVES_MAX + 1):
        for number in drives_to_copy(job_id):
            try:
                if not copy_drive(job_id, number, token, bay, store, limits):
                    return False
            except UnexpectedError as error:
                say(f"drive {number} of job {job_id}: {error.line}")
                give_up_drive(job_id, number, token, bay, store, limits)
        if list_rest is not None and not list_rest(job_id, token, store, limits):
            return False
        if pack_job(job_id, token):
            return True
    raise JobChangedError(job_id)


def complete_stopped_job(job_id: UUID, bay: Path, store: str) -> str:
    """Leave nothing half written, and make the job Completed; a store that is away does not keep it from that.

    Args:
        job_id: a job whose cancel was accepted and whose copy has stopped.
        bay: where drives are mounted.
        store: its store's address, with `{container}` still open.

    Returns:
        The outcome in one line, with how much was copied.
    """
    try:
        discard_half_written_blobs(job_id, bay, store)
    except StoreError as error:
        say(f"{error.line}; what lies aside there stays")
        end_stopped_drives(job_id, bay, store)
    copied, listed = bytes_copied(job_id)
    # The state changes last: until nothing is half done, the old state is the truth.
    complete_cancelled_job(job_id)
    return f"job {job_id} was cancelled and is Completed; {copied:,} of {listed:,} bytes were copied"
