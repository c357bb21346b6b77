"""close-job: nobody answered."""

from flows.promises import Ended, JobReference, done, promise, run_id
from models.lifecycle import Outcome
from tasks.jobs import close_unanswered_job, open_job


@promise(
    "close-job",
    """Closes a job whose package did not come.

- **When:** it has been *Shipping* for 30 days, and its customer does not answer.
- **Takes:** the job.
- **Ends** *Completed* with the job in *Closed*, or *Failed* with the day from which it may be closed.
- **Never** deletes: a *Closed* job goes by itself after 90 days, and not by hand.""",
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
