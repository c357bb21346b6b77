"""close-job: nobody answered."""

from flows.promises import Ended, JobReference, done, promise, run_id
from models.lifecycle import Outcome
from tasks.jobs import close_unanswered_job, open_job


@promise(
    "close-job",
    "Closes a Shipping job whose package did not come and whose customer did not answer for 30 days. A Closed job "
    "is deleted by the service after 90 days, never by hand.",
)
def close_job(job: JobReference) -> Ended:
    """Close a job that nobody answers for.

    Args:
        job: The job: its id, or subscription/resourceGroup/name.
    """
    job_id = open_job(job, run_id())
    if close_unanswered_job(job_id) is Outcome.NOTHING_TO_DO:
        return done(f"nothing to do: job {job_id} was Closed before")
    return done(f"job {job_id} is Closed")
