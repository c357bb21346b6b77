"""export-blobs: what the job asks for comes out of the storage account, onto its drives."""

from uuid import UUID

from flows.copies import copy_job
from flows.promises import Ended, JobReference, promise
from models.lifecycle import JobType
from models.settings import Settings
from tasks.exporting import export_drive, list_what_fits_nowhere
from tasks.pulse import CopyLimits


@promise(
    "export-blobs",
    "Copies the blobs that an Export job asks for onto its drives, drive by drive, each with a manifest; what "
    "fits on none is listed. Started by advance-jobs; run again after a crash, it goes on where it was.",
)
def export_blobs(job: JobReference) -> Ended:
    """Fill the drives of a job.

    Args:
        job: The job: its id, or subscription/resourceGroup/name.
    """
    return copy_job(job, JobType.EXPORT, _export_drive, _list_rest)


def _export_drive(job_id: UUID, number: int, token: int, store: str, limits: CopyLimits) -> bool:
    return export_drive(job_id, number, token, Settings().bay, store, limits)


def _list_rest(job_id: UUID, token: int, store: str, limits: CopyLimits) -> bool:
    return list_what_fits_nowhere(job_id, token, store, limits)
