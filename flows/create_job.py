"""create-job: jobs come from request files of the intake."""

from typing import Final

from flows.promises import Ended, RequestFile, done, failed, promise, run_id
from models.settings import Settings
from tasks.intake import create_jobs

_FILES_MAX: Final = 1_000
_SHOWN_MAX: Final = 10


@promise(
    "create-job",
    "Creates a job of each request file that waits in the intake folder, or of the one named, and removes the "
    "file. A job of the same name is replaced while it is Creating.",
)
def create_job(request_file: RequestFile = "") -> Ended:
    """Create jobs from the intake folder.

    Args:
        request_file: Name of one file in the intake folder; empty takes every file that waits, up to 1,000.
            What is asked for is written in the file, because names and addresses may not be typed here.
    """
    settings = Settings()
    created = create_jobs(settings.intake, request_file, settings.locations_file, run_id(), _FILES_MAX)
    told = f"created {len(created.job_ids)}: {', '.join(map(str, created.job_ids)) or 'none'}"
    if created.refused:
        shown = " | ".join(created.refused[:_SHOWN_MAX])
        more = f" | and {len(created.refused) - _SHOWN_MAX} more" if len(created.refused) > _SHOWN_MAX else ""
        return failed(f"{told}; refused and left in the intake folder: {shown}{more}")
    return done(told)
