"""cancel-job: stop, and leave nothing half done."""

from flows.promises import Ended, JobReference, done, promise, run_id, say
from models.errors import StoreError
from models.settings import Settings
from tasks.drives import bytes_copied, discard_half_written_blobs, end_stopped_drives, wait_for_copy_to_stop
from tasks.jobs import accept_cancel, complete_cancelled_job, open_job, storage_account_of


@promise(
    "cancel-job",
    "Cancels a job before Packaging: what is being copied stops, a half-written blob is discarded, and the job is "
    "Completed and kept for 90 days. A cancel cannot be withdrawn; asking again is harmless.",
)
def cancel_job(job: JobReference) -> Ended:
    """Cancel a job.

    Cut short anywhere, it may be run again from the top; advance-jobs does so.

    Args:
        job: The job: its id, or subscription/resourceGroup/name.
    """
    settings = Settings()
    job_id = open_job(job, run_id())
    accept_cancel(job_id)
    wait_for_copy_to_stop(job_id, settings.copy_stop_seconds_max)
    store = settings.store_address(storage_account_of(job_id))
    try:
        discard_half_written_blobs(job_id, store)
    except StoreError as error:
        say(f"{error.line}; what lies aside there stays")
        end_stopped_drives(job_id, store)
    copied, listed = bytes_copied(job_id)
    # The state changes last: until nothing is half done, the old state is the truth.
    complete_cancelled_job(job_id)
    return done(f"job {job_id} was cancelled and is Completed; {copied:,} of {listed:,} bytes were copied")
