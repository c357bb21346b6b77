"""enforce-retention: what is over is deleted on time."""

import time
from datetime import datetime
from typing import Final

from prefect.artifacts import create_table_artifact

from flows.promises import Ended, done, promise, run_id, say
from models.deletion import Expired
from models.lifecycle import KEPT, JobState
from models.settings import Settings
from tasks.intake import finish_taken_requests
from tasks.receipts import close_finished_receipts
from tasks.retention import Sweep, delete_expired, list_expired, tell_time
from tasks.run_history import forget_runs

_ROWS_PER_TASK: Final = 10_000
_TASKS_MAX: Final = 1_000
_LISTED_MAX: Final = 10_000
_FILES_MAX: Final = 10_000


@promise(
    "enforce-retention",
    "Deletes what the service keeps no longer: Completed and Closed jobs 90 days after they became so, Creating "
    "ones after 14 days without an update. With dry_run it lists by id what it would delete at this moment.",
)
def enforce_retention(dry_run: bool = False) -> Ended:  # noqa: FBT001, FBT002  a checkbox in the form
    """Delete jobs whose time is over.

    Args:
        dry_run: List what would be deleted, and delete nothing.
    """
    settings = Settings()
    at = tell_time()
    if dry_run:
        return _list(at)
    began = time.monotonic()
    # A request file whose job is made already would make it anew once the job is gone.
    finish_taken_requests(settings.intake, settings.locations_file, _FILES_MAX)
    sweep = Sweep()
    for _ in range(_TASKS_MAX):
        batch = delete_expired(at, settings.retention_batch_rows, _ROWS_PER_TASK)
        sweep.merge(batch)
        if batch.deleted.total() < _ROWS_PER_TASK:
            break
    forgotten = forget_runs(settings.history_runs_max)
    for _ in range(_TASKS_MAX):
        if close_finished_receipts(settings.retention_batch_rows, _ROWS_PER_TASK) < _ROWS_PER_TASK:
            break
    _report(sweep, time.monotonic() - began)
    return done(f"deleted {sweep.deleted.total():,} jobs; forgot {forgotten:,} runs of deleted jobs")


def _list(at: datetime) -> Ended:
    count, due = list_expired(at, _LISTED_MAX, run_id())
    _show(
        "retention-dry-run",
        [_row(expired, at) for expired in due],
        f"Due for deletion at {at:%Y-%m-%d %H:%M:%S} UTC",
    )
    listed = f"; the {len(due):,} longest overdue are listed" if count > len(due) else ""
    return done(f"would delete {count:,} jobs{listed}; nothing was deleted")


def _row(expired: Expired, at: datetime) -> dict[str, str]:
    return {
        "job": str(expired.job_id),
        "state": expired.state,
        "reason": _reason(expired.state),
        "late": _duration((at - expired.expires_at).total_seconds()),
    }


def _reason(state: JobState) -> str:
    if state is JobState.CREATING:
        return f"{KEPT[state].days} days without an update"
    return f"{KEPT[state].days} days {state}"


def _duration(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours} h {rest // 60:02} min {rest % 60:02} s"


def _report(sweep: Sweep, seconds: float) -> None:
    total = sweep.deleted.total()
    rows = [{"what": f"deleted, {_reason(state)}", "figure": f"{sweep.deleted[state]:,}"} for state in KEPT]
    rows += [
        {"what": "deleted in all", "figure": f"{total:,}"},
        {"what": "late, on average", "figure": _duration(sweep.late_seconds_sum / total if total else 0)},
        {"what": "late, at most", "figure": _duration(sweep.late_seconds_max)},
        {"what": "the sweep took", "figure": f"{seconds:.1f} s"},
    ]
    _show("retention-report", rows, "What the last sweep deleted")


def _show(key: str, rows: list[dict[str, str]], description: str) -> None:
    say(f"{description}: {len(rows):,} rows")
    if run_id():
        create_table_artifact(table=rows, key=key, description=description)
