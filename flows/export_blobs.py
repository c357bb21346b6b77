"""export-blobs: what the job asks for comes out of the storage account, onto its drives."""

from flows.copies import copy_job
from flows.promises import Ended, JobReference, promise
from models.lifecycle import JobType
from tasks.exporting import export_drive, list_what_fits_nowhere


@promise(
    "export-blobs",
    """Copies the blobs that an Export job asks for onto its drives, each with a manifest.

- **When:** by itself, within a minute after check-in. By hand only to try again sooner.
- **Takes:** the job.
- **Ends** *Completed* with the job in *Packaging*, or *Cancelled* where a cancel was accepted meanwhile. What
  fits on no drive is listed in the storage account. Progress is an artifact of the run.
- **Never** changes a blob. Run again after a crash, it goes on where it was.""",
)
def export_blobs(job: JobReference) -> Ended:
    """Fill the drives of a job.

    Args:
        job: The job: its id, or subscription/resourceGroup/name.
    """
    return copy_job(job, JobType.EXPORT, export_drive, list_what_fits_nowhere)
