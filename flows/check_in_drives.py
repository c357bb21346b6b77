"""check-in-drives: the package has come."""

from flows.promises import Ended, JobReference, done, promise, run_id
from models.settings import Settings
from tasks.drives import check_in_drives as look_into_bay
from tasks.jobs import open_job


@promise(
    "check-in-drives",
    """Compares the drives mounted in the bay with the job's list.

- **When:** the package is here and its drives are mounted, one folder per drive, named by serial number.
- **Takes:** the job. Nobody types a serial number.
- **Ends** *Completed* with how many were received, never received, or extra. Once every drive is told of, the job
  is *Received*, and its copy begins within a minute. A drive that turns up later is taken in by running this
  again.
- **Never** writes to a drive.""",
)
def check_in_drives(job: JobReference) -> Ended:
    """Check in the drives of a job's package.

    Args:
        job: The job: its id, or subscription/resourceGroup/name.
    """
    job_id = open_job(job, run_id())
    found = look_into_bay(job_id, Settings().bay)
    return done(
        f"job {job_id}: {found.received} received, {found.never_received} never received, {found.extra} extra"
    )
