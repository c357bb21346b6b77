"""show-job: what happened to a job, and what may be done with it."""

from flows.promises import Ended, JobReference, done, promise, run_id
from tasks.jobs import open_job
from tasks.timeline import key_of, show_timeline


@promise(
    "show-job",
    """Shows what happened to one job, as an artifact of this run.

- **When:** somebody asks how a job is. Every other run of a job leaves the same artifact when it ends.
- **Takes:** the job.
- **Ends** *Completed*; the artifact *job-* and the job's id tells in order what happened, when and by whom, how
  its drives are, when the job is deleted, and what may be done with it now.
- **Never** shows a name, an address or a serial number, and changes nothing. The run goes with the job.""",
    leaves_timeline=False,
)
def show_job(job: JobReference) -> Ended:
    """Show a job.

    Args:
        job: The job: its id, or subscription/resourceGroup/name.
    """
    job_id = open_job(job, run_id())
    told = show_timeline(job_id, run_id())
    return done(f"job {job_id} is {told.job.state}; see the artifact {key_of(job_id)}")
