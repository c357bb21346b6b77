"""delete-job: nothing of the job can be read any more."""

from contextlib import suppress
from typing import Final
from uuid import UUID

from flows.promises import AnyJobReference, Ended, JobReference, done, promise, run_id
from models.deletion_preview import DeletionPreview
from models.errors import JobNotFoundError
from models.settings import Settings
from tasks.artifacts import show_table
from tasks.intake import remove_spent_requests, set_aside_taken_requests
from tasks.jobs import delete_rows_of_job, look_at_deletion, open_job, open_job_or_its_traces, require_second_name
from tasks.run_history import forget_runs, hide_parameters

_KEY: Final = "delete-job-dry-run"


@promise(
    "delete-job",
    """Deletes one job with everything the service keeps of it: its rows, and every run, log and artifact here.
This cannot be undone.

- **When:** in *Creating* or *Completed*. Any other state is refused, and the message says what would work: a
  *Shipping* job is cancelled first, a *Closed* one goes by itself 90 days after it was closed. A job under legal
  hold stays.
- **First look:** tick **dry_run**; nothing is deleted, and an artifact of the run lists what would go.
- **To delete:** name the job twice, in **job** and in **confirm**. One may be the id and the other the three
  names.
- **Ends** *Completed* when nothing is left but a receipt without names; this run goes too, about a minute later.
- **Never** touches data in the customer's storage account.""",
)
def delete_job(
    job: JobReference,
    confirm: AnyJobReference = "",
    dry_run: bool = False,  # noqa: FBT001, FBT002  a checkbox in the form
) -> Ended:
    """Delete a job by hand.

    Args:
        job: The job: its id, or subscription/resourceGroup/name.
        confirm: The same job a second time, by its id or by subscription/resourceGroup/name. A dry run needs none.
        dry_run: Show what would be deleted, and delete nothing.
    """
    try:
        return _look(open_job(job, run_id())) if dry_run else _delete(job, confirm)
    finally:
        # The second name may be of another job: its names would stay here when it is deleted.
        hide_parameters(run_id())


def _delete(job: str, confirm: str) -> Ended:
    settings = Settings()
    job_id = open_job_or_its_traces(job, run_id())
    require_second_name(job_id, confirm)
    set_aside_taken_requests(settings.intake, job_id)
    # REST's delete has come before, or somebody else's comes in between; what is left to do is the same.
    with suppress(JobNotFoundError):
        delete_rows_of_job(job_id)
    remove_spent_requests(settings.intake)
    forgotten = forget_runs(settings.history_runs_max, job_id, run_id())
    return done(f"the job is deleted, and {forgotten} of its runs are forgotten; this one will be, too")


def _look(job_id: UUID) -> Ended:
    found = look_at_deletion(job_id)
    _show(job_id, found)
    would = f"would be refused: {found.refusal}" if found.refusal else "would be done"
    return done(
        f"nothing was deleted; deleting job {job_id}, which is {found.state}, {would}; with it go "
        f"{sum(found.rows.values()):,} rows and {found.runs:,} runs"
    )


def _show(job_id: UUID, found: DeletionPreview) -> None:
    rows = [{"what": f"rows of {table}", "count": count} for table, count in sorted(found.rows.items())]
    rows.append({"what": "runs here, with their logs and artifacts", "count": found.runs})
    show_table(run_id(), _KEY, rows, f"What goes when job {job_id} is deleted")
