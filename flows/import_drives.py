"""import-drives: what is on the drives comes into the storage account."""

from uuid import UUID

from flows.promises import Ended, JobReference, done, promise, run_id, say, stopped
from flows.stopped_copies import complete_stopped_job
from models.errors import CancelAcceptedError, DrivepostError, JobChangedError, UnexpectedError
from models.requests import DRIVES_MAX
from models.settings import Settings
from tasks.drives import (
    copy_drive,
    drives_to_copy,
    give_up_drive,
    pack_job,
    release_lease,
    take_lease,
)
from tasks.jobs import open_job, storage_account_of
from tasks.pulse import CopyLimits


@promise(
    "import-drives",
    "Copies every received drive of an Import job, drive by drive, each block checked against the drive's "
    "manifest. Started by advance-jobs; run again after a crash, it goes on where it was.",
)
def import_drives(job: JobReference) -> Ended:
    """Copy the drives of a job.

    Args:
        job: The job: its id, or subscription/resourceGroup/name.
    """
    settings = Settings()
    job_id = open_job(job, run_id())
    store = settings.store_address(storage_account_of(job_id))
    try:
        token = take_lease(job_id, settings.copy_lease_seconds)
    except CancelAcceptedError:
        return stopped(f"nothing is copied: a cancel was accepted for job {job_id}, and cancel-job carries it out")
    if token is None:
        return done(f"nothing to do: the copy of job {job_id} is over")
    if _copy(job_id, token, settings, store):
        return done(f"job {job_id} is copied, and its drives wait to be sent back")
    return stopped(complete_stopped_job(job_id, store))


def _copy(job_id: UUID, token: int, settings: Settings, store: str) -> bool:
    """Copy drive by drive until all are over; False when a cancel was heard."""
    limits = CopyLimits(
        lease_seconds=settings.copy_lease_seconds,
        poll_seconds=settings.copy_poll_seconds,
        batch_blobs=settings.copy_batch_blobs,
        requests_at_once=settings.copy_requests_at_once,
        memory_bytes=settings.copy_memory_mebibytes * 2**20,
        reads_back=settings.copy_reads_back,
    )
    try:
        # Once more than there can be drives, because each may turn up while another is copied.
        for _ in range(DRIVES_MAX + 1):
            for number in drives_to_copy(job_id):
                try:
                    if not copy_drive(job_id, number, token, settings.bay, store, limits):
                        return False
                except UnexpectedError as error:
                    say(f"drive {number} of job {job_id}: {error.line}")
                    give_up_drive(job_id, number, token, store, limits)
            if pack_job(job_id, token):
                return True
        raise JobChangedError(job_id)
    except CancelAcceptedError:
        return False
    except DrivepostError:
        # Nobody need wait for the lease to run out before trying again.
        release_lease(job_id, token)
        raise
