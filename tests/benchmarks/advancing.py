"""How many due jobs one run of advance-jobs takes up, beside one flow run for each of them.

    python -m tests.benchmarks.advancing [--jobs 10000] [--alone 30] [--databases sqlite postgresql]

Not a test: it prints figures. As many jobs of each kind are due: a lost cancel, a package that did not come, an
erasure whose drives are back, a receipt to be closed; all in one flow run, by a Prefect server of its own. It is
compared with cancel-job, run for a few jobs one after the other in this process: no worker has to start for it.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, TaskRun
from prefect.testing.utilities import prefect_test_harness
from rich.console import Console
from rich.table import Table
from sqlmodel import col, delete, select

from flows.advance_jobs import advance_jobs
from flows.cancel_job import cancel_job
from models.database import database_time, reading, writing
from models.deletion import delete_expired_jobs
from models.jobs import Job
from models.lifecycle import JobState
from models.runs import JobRun
from tests.benchmarks.many_jobs import Cohort, make_jobs, real_job
from tests.benchmarks.retention import BATCH_ROWS, DAY, KINDS, Databases

_SERVER_SECONDS_MAX: Final = 180
_DONE_BY: Final = {
    "lost cancels": ("find_lost_cancels", "carry_out_cancels"),
    "overdue packages": ("tell_of_overdue_packages",),
    "due erasures": ("carry_out_erasures",),
    "receipts to close": ("close_finished_receipts",),
}


def fill(jobs: int) -> None:
    """Fill the open database with so many due jobs of each kind, and as many receipts that can be closed."""
    with reading() as session:
        now = database_time(session)
    year = timedelta(days=365)
    likes = {
        "cancelled": real_job(JobState.SHIPPING, "cancelled", now, cancel_requested_at=now),
        "overdue": real_job(JobState.SHIPPING, "overdue", now - 20 * DAY),
        "wished": real_job(JobState.CLOSED, "wished", now - 20 * DAY, erasure_wished_at=now - DAY),
        "ended": real_job(JobState.CREATING, "ended", now - 20 * DAY),
    }
    due = (now - 20 * DAY, now - 19 * DAY)
    kept = (now + DAY, now + year)
    make_jobs(
        [
            Cohort(likes["cancelled"], jobs - 1, *due),
            Cohort(likes["overdue"], jobs - 1, *due),
            Cohort(likes["wished"], jobs - 1, *kept),
            Cohort(likes["ended"], jobs - 1, *due),
        ]
    )
    for _ in range(0, jobs, BATCH_ROWS):
        with writing() as session:
            delete_expired_jobs(session, now, BATCH_ROWS)
    with writing() as session:
        session.connection().execute(delete(JobRun).where(col(JobRun.is_job_deleted)))


def advance() -> tuple[float, Sequence[TaskRun]]:
    """Run advance-jobs once; gives its seconds, and its task runs."""
    began = time.perf_counter()
    ended = advance_jobs(return_state=True)
    seconds = time.perf_counter() - began
    assert ended.is_completed(), ended.message
    return seconds, task_runs_of([ended])


def task_runs_of(ended: Sequence[State[Any]]) -> Sequence[TaskRun]:
    """Read the task runs of flow runs that have ended; Prefect hears of the last ones a while later."""
    ids = [state.state_details.flow_run_id for state in ended if state.state_details.flow_run_id]
    told: Sequence[TaskRun] = []
    with get_client(sync_client=True) as client:
        for _ in range(30):
            time.sleep(1)
            before, told = (
                told,
                client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)), limit=200),
            )
            if told and len(told) == len(before) and all(run.end_time for run in told):
                break
    return told


def cancel_alone(jobs: int) -> tuple[float, int]:
    """Run cancel-job for some jobs, each in a run of its own; gives the seconds, and the task runs of all."""
    with reading() as session:
        shipping = select(Job.id).where(
            col(Job.state) == JobState.SHIPPING, col(Job.cancel_requested_at).is_(None)
        )
        ids = session.exec(shipping.limit(jobs)).all()
    states = []
    began = time.perf_counter()
    for job_id in ids:
        ended = cancel_job(str(job_id), return_state=True)
        assert ended.is_completed(), ended.message
        states.append(ended)
    seconds = time.perf_counter() - began
    return seconds, len(task_runs_of(states))


def measure(databases: Databases, jobs: int, alone: int, console: Console) -> None:
    """Measure on one kind of database, and print it."""
    databases.open("due")
    fill(jobs)
    with prefect_test_harness(server_startup_timeout=_SERVER_SECONDS_MAX):
        seconds, task_runs = advance()
        seconds_alone, task_runs_alone = cancel_alone(alone)
    drawn = Table(title=f"{databases.kind}: {jobs:,} due jobs of each kind", title_justify="left")
    for number, column in enumerate(("", "jobs/s", "task runs per 1,000 jobs")):
        drawn.add_column(column, justify="right" if number else "left")
    for kind, names in _DONE_BY.items():
        took = [run for run in task_runs if run.name.rsplit("-", 1)[0] in names]
        rate = jobs / sum(run.total_run_time.total_seconds() for run in took)
        drawn.add_row(kind, f"{rate:,.0f}", f"{len(took) / jobs * 1000:.1f}")
    every = jobs * len(_DONE_BY)
    drawn.add_row("the run as a whole", f"{every / seconds:,.0f}", f"{len(task_runs) / every * 1000:.1f}")
    drawn.add_row(
        f"cancel-job, one flow run per job ({alone} jobs)",
        f"{alone / seconds_alone:,.1f}",
        f"{task_runs_alone / alone * 1000:,.0f}",
    )
    console.print(drawn)


def main() -> None:
    """Measure on the databases asked for."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--jobs", type=int, default=10_000)
    asked.add_argument("--alone", type=int, default=30)
    asked.add_argument("--databases", nargs="+", default=KINDS, choices=KINDS)
    given = asked.parse_args()
    console = Console(highlight=False, width=150)
    for kind in given.databases:
        with tempfile.TemporaryDirectory(prefix="drivepost-benchmark-") as folder:
            os.environ["PREFECT_HOME"] = str(Path(folder) / "prefect")
            os.environ["DRIVEPOST_ADVANCE_ROWS"] = str(given.jobs)
            databases = Databases(kind, Path(folder))
            try:
                measure(databases, given.jobs, given.alone, console)
            finally:
                databases.stop()


if __name__ == "__main__":
    main()
