"""cancel-job: stop, and leave nothing half done."""

from flows.copies import complete_stopped_job
from flows.promises import Ended, JobReference, done, promise, run_id
from models.settings import Settings
from tasks.drives import wait_for_copy_to_stop
from tasks.jobs import accept_cancel, open_job, storage_account_of


@promise(
    "cancel-job",
    """Cancels a job before *Packaging*.

- **When:** the customer does not want it any more.
- **Takes:** the job.
- **Ends** *Completed* with the job in *Completed*, and how much was copied. A copy stops within about a second;
  blobs that are whole stay, half a blob is removed. The job is then kept for 90 days; its drives still go back.
- **Cannot** be withdrawn. Asking again is harmless.""",
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
    return done(complete_stopped_job(job_id, settings.bay, store))
