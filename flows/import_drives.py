"""import-drives: what is on the drives comes into the storage account."""

from uuid import UUID

from flows.copies import copy_job
from flows.promises import Ended, JobReference, promise
from models.lifecycle import JobType
from models.settings import Settings
from tasks.drives import copy_drive
from tasks.pulse import CopyLimits


@promise(
    "import-drives",
    "Copies every received drive of an Import job, drive by drive, each block checked against the drive's "
    "manifest. Started by advance-jobs; run again after a crash, it goes on where it was.",
)
def import_drives(job: JobReference) -> Ended:
    """Copy the drives of a job.

    Args:
        job: The job: its id, or subscription/resourceGroup/name.
    """
    return copy_job(job, JobType.IMPORT, _copy_drive, _list_nothing)


def _copy_drive(job_id: UUID, number: int, token: int, store: str, limits: CopyLimits) -> bool:
    return copy_drive(job_id, number, token, Settings().bay, store, limits)


def _list_nothing(_job_id: UUID, _token: int, _store: str, _limits: CopyLimits) -> bool:
    return True
