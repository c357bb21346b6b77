"""import-drives: what is on the drives comes into the storage account."""

from flows.copies import copy_job
from flows.promises import Ended, JobReference, promise
from models.lifecycle import JobType
from tasks.drives import copy_drive


@promise(
    "import-drives",
    """Copies every received drive of an Import job into the customer's storage account.

- **When:** by itself, within a minute after check-in. By hand only to try again sooner.
- **Takes:** the job.
- **Ends** *Completed* with the job in *Packaging*, or *Cancelled* where a cancel was accepted meanwhile. What was
  wrong with single files is in the copy logs, in the storage account. Progress is an artifact of the run.
- **Never** lets a block count that differs from the drive's manifest. Run again after a crash, it goes on where
  it was.""",
)
def import_drives(job: JobReference) -> Ended:
    """Copy the drives of a job.

    Args:
        job: The job: its id, or subscription/resourceGroup/name.
    """
    return copy_job(job, JobType.IMPORT, copy_drive)
