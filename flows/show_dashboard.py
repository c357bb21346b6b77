"""show-dashboard: the jobs that a dashboard's filter finds."""

from typing import Final
from uuid import UUID

from flows.promises import DashboardReference, Ended, done, promise, run_id, say
from models.dashboards import ShownJob
from tasks.artifacts import show_table
from tasks.portal import list_jobs_of_dashboard

_ROWS_MAX: Final = 1_000


@promise(
    "show-dashboard",
    """Lists the jobs that a user's dashboard shows.

- **Takes:** the dashboard's id.
- **Ends** *Completed* with how many there are, and a table: id, type, state, since when; the latest 1,000 at
  most.
- **Never** names a person or a job. The run goes when one of these jobs is deleted.

For all jobs at once see **show-board**.""",
)
def show_dashboard(dashboard: DashboardReference) -> Ended:
    """Show a dashboard.

    Args:
        dashboard: The dashboard: its id, never its name.
    """
    count, shown = list_jobs_of_dashboard(UUID(dashboard), _ROWS_MAX, run_id())
    _show([_row(job) for job in shown])
    listed = f"; the {len(shown):,} latest are listed" if count > len(shown) else ""
    return done(f"{count:,} jobs{listed}")


def _row(job: ShownJob) -> dict[str, str]:
    return {
        "job": str(job.job_id),
        "type": job.job_type,
        "state": job.state,
        "since": f"{job.state_since:%Y-%m-%d %H:%M:%S} UTC",
    }


def _show(rows: list[dict[str, str]]) -> None:
    say(f"Jobs of a dashboard: {len(rows):,} rows")
    show_table(run_id(), "dashboard", rows, "Jobs of a dashboard")
