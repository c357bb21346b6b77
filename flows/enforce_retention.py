"""enforce-retention: what is over is deleted on time."""

import time
from collections import Counter
from datetime import datetime, timedelta
from typing import Final

from flows.promises import Ended, done, failed, promise, run_id, say
from models.alerts import AlertKind
from models.deletion import Expired
from models.due import DAYS_AHEAD
from models.errors import ClockJumpedError, DrivepostError
from models.lifecycle import KEPT, JobState
from models.settings import Settings
from tasks.alerts import look_at_time, raise_alert
from tasks.artifacts import show_table
from tasks.intake import finish_taken_requests
from tasks.receipts import close_finished_receipts
from tasks.retention import Outlook, Sweep, delete_expired, list_expired, look_ahead, tell_time
from tasks.run_history import forget_runs

_ROWS_PER_TASK: Final = 100_000
_TASKS_MAX: Final = 1_000
_LISTED_MAX: Final = 10_000
_FILES_MAX: Final = 10_000


@promise(
    "enforce-retention",
    """Deletes what the service keeps no longer, every night and whenever you run it:

- **Completed** and **Closed** jobs after 90 days, **Creating** ones 14 days after their last update;
- never a job under **legal hold**, and none by a clock that jumped.

With **dry_run** it deletes nothing: it lists by id what is due now, and tells how much comes due in 7 days. What a
sweep did is in the artifact *retention-report*. A sweep that could not delete all that is due ends Failed, and
says what it left.
""",
)
def enforce_retention(
    dry_run: bool = False,  # noqa: FBT001, FBT002  a checkbox in the form
    clock_is_right: bool = False,  # noqa: FBT001, FBT002  as above
) -> Ended:
    """Delete jobs whose time is over.

    Args:
        dry_run: List what would be deleted, and delete nothing.
        clock_is_right: The clock is further on than a sweep takes on trust, because the service was away, or is
            behind, because it was wrong before: go on.
    """
    settings = Settings()
    if dry_run:
        return _list(tell_time())
    try:
        at = look_at_time(timedelta(seconds=settings.clock_step_seconds_max), is_confirmed=clock_is_right)
    except ClockJumpedError as error:
        raise_alert(AlertKind.CLOCK_JUMPED, error.seen_at.isoformat())
        return failed(error.line)
    began = time.monotonic()
    # A request file whose job is made already would make it anew once the job is gone.
    finish_taken_requests(settings.intake, settings.locations_file, _FILES_MAX)
    sweep, fault = _sweep(at, settings.retention_batch_rows)
    _report(sweep, look_ahead(at), time.monotonic() - began)
    told = f"deleted {sweep.deleted.total():,} jobs"
    if sweep.stuck or fault:
        raise_alert(AlertKind.RETENTION_FAILED, at.isoformat())
        reasons = Counter(sweep.stuck.values())
        stuck = ", ".join(f"{count:,} jobs could not be deleted: {reason}" for reason, count in reasons.items())
        gave_up = "too many to go on" if sweep.gave_up else ""
        return failed("; ".join(part for part in (stuck, gave_up, fault, told) if part))
    forgotten = forget_runs(settings.history_runs_max)
    for _ in range(_TASKS_MAX):
        if close_finished_receipts(settings.retention_batch_rows, _ROWS_PER_TASK) < _ROWS_PER_TASK:
            break
    return done(f"{told}; forgot {forgotten:,} runs of deleted jobs")


def _sweep(at: datetime, batch_rows: int) -> tuple[Sweep, str]:
    """Delete what is due; gives what was deleted, and what stopped it before its end."""
    sweep = Sweep()
    try:
        for _ in range(_TASKS_MAX):
            batch = delete_expired(at, batch_rows, _ROWS_PER_TASK, sweep.stuck)
            sweep.merge(batch)
            if batch.deleted.total() < _ROWS_PER_TASK:
                break
    except DrivepostError as error:
        return sweep, error.line
    return sweep, ""


def _list(at: datetime) -> Ended:
    count, due = list_expired(at, _LISTED_MAX, run_id())
    outlook = look_ahead(at)
    _show(
        "retention-dry-run",
        [_row(expired, at) for expired in due],
        f"Due for deletion at {at:%Y-%m-%d %H:%M:%S} UTC",
    )
    _show("retention-outlook", _ahead(outlook), f"What comes due in the {DAYS_AHEAD} days after that")
    listed = f"; the {len(due):,} longest overdue are listed" if count > len(due) else ""
    ahead = sum(each.jobs.total() for each in outlook.ahead)
    return done(
        f"would delete {count:,} jobs{listed}; {ahead:,} more come due in {DAYS_AHEAD} days; nothing was deleted"
    )


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


def _report(sweep: Sweep, outlook: Outlook, seconds: float) -> None:
    total = sweep.deleted.total()
    rows = [{"what": f"deleted, {_reason(state)}", "figure": f"{sweep.deleted[state]:,}"} for state in KEPT]
    rows += [
        {"what": "deleted in all", "figure": f"{total:,}"},
        {"what": "late, on average", "figure": _duration(sweep.late_seconds_sum / total if total else 0)},
        {"what": "late, at most", "figure": _duration(sweep.late_seconds_max)},
        {"what": "could not be deleted", "figure": f"{len(sweep.stuck):,}"},
        {"what": "oldest_overdue_seconds", "figure": f"{outlook.oldest_overdue_seconds:.0f}"},
        {"what": "due, and kept by a legal hold", "figure": f"{outlook.held_due:,}"},
        *_held(outlook),
        {"what": "the sweep took", "figure": f"{seconds:.1f} s"},
        *_ahead(outlook),
    ]
    _show("retention-report", rows, "What the last sweep deleted, and what comes next")


def _held(outlook: Outlook) -> list[dict[str, str]]:
    return [
        {"what": f"under legal hold, {reason}", "figure": f"{count:,}"} for reason, count in outlook.held.items()
    ]


def _ahead(outlook: Outlook) -> list[dict[str, str]]:
    whole = sum((each.jobs for each in outlook.ahead), Counter[JobState]())
    rows = [{"what": f"due on {each.day:%Y-%m-%d}", "figure": _by_state(each.jobs)} for each in outlook.ahead]
    return [{"what": f"due in the next {DAYS_AHEAD} days", "figure": _by_state(whole)}, *rows]


def _by_state(jobs: Counter[JobState]) -> str:
    told = ", ".join(f"{count:,} {state}" for state, count in sorted(jobs.items()))
    return f"{jobs.total():,}" + (f" ({told})" if told else "")


def _show(key: str, rows: list[dict[str, str]], description: str) -> None:
    say(f"{description}: {len(rows):,} rows")
    show_table(run_id(), key, rows, description)
