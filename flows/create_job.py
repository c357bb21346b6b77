"""create-job: jobs come from request files of the intake."""

from typing import Final

from flows.promises import Ended, RequestFile, done, failed, promise, run_id
from models.settings import Settings
from tasks.intake import create_jobs

_FILES_MAX: Final = 1_000
_SHOWN_MAX: Final = 10


@promise(
    "create-job",
    """Makes jobs of the request files that wait in the intake folder.

- **When:** a customer's order came on paper or by mail, not by the REST API.
- **Takes:** the name of one file; empty takes all that wait. Names and addresses stand in the file, never in this
  form.
- **Ends** *Completed* with the ids of the new jobs, or *Failed* with what is wrong in each file that was refused;
  those stay in the folder, the others are removed.
- **Never** replaces a job that has left *Creating*; one that has not is replaced by a file of the same name.""",
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
