"""check-in-drives: the package has come."""

from flows.promises import Ended, JobReference, done, promise, run_id
from models.settings import Settings
from tasks.drives import check_in_drives as look_into_bay
from tasks.jobs import open_job


@promise(
    "check-in-drives",
    "Looks at the drives mounted in the bay and compares them with the job's list: Received, NeverReceived, or "
    "extra. Nobody types a serial number. Run again later, it takes in a drive that turned up after all.",
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
