"""delete-job: nothing of the job can be read any more."""

from contextlib import suppress

from flows.promises import Ended, JobReference, done, promise, run_id
from models.errors import JobNotFoundError
from models.settings import Settings
from tasks.intake import remove_spent_requests, set_aside_taken_requests
from tasks.jobs import delete_rows_of_job, open_job_or_its_traces
from tasks.run_history import forget_runs, hide_parameters


@promise(
    "delete-job",
    "Deletes a job in Creating or Completed with everything the service keeps of it: rows, and every run, log and "
    "artifact here. This run too is gone a minute after it ended. Data in the storage account stays.",
)
def delete_job(job: JobReference) -> Ended:
    """Delete a job by hand.

    Args:
        job: The job: its id, or subscription/resourceGroup/name.
    """
    settings = Settings()
    job_id = open_job_or_its_traces(job, run_id())
    set_aside_taken_requests(settings.intake, job_id)
    # REST's delete has come before, or somebody else's comes in between; what is left to do is the same.
    with suppress(JobNotFoundError):
        delete_rows_of_job(job_id)
    remove_spent_requests(settings.intake)
    hide_parameters(run_id())
    forgotten = forget_runs(settings.history_runs_max, job_id, run_id())
    return done(f"the job is deleted, and {forgotten} of its runs are forgotten; this one will be, too")
