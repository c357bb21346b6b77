"""enforce-retention: what is over is deleted on time."""

import time
from collections import Counter
from contextlib import suppress
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
_LISTED_MAX: Final = 1_000
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
        ended = _enforce(settings, clock_is_right=clock_is_right)
    except ClockJumpedError as error:
        raise_alert(AlertKind.CLOCK_JUMPED, error.seen_at.isoformat())
        return failed(error.line)
    except Exception:
        _tell_failure()
        raise
    if ended.is_failed():
        _tell_failure()
    return ended


def _tell_failure() -> None:
    # Where the database is away no alert can be written down either: the run's own end is what is told.
    with suppress(DrivepostError):
        raise_alert(AlertKind.RETENTION_FAILED, tell_time().isoformat())


def _enforce(settings: Settings, *, clock_is_right: bool) -> Ended:
    at = look_at_time(timedelta(seconds=settings.clock_step_seconds_max), is_confirmed=clock_is_right)
    began = time.monotonic()
    intake = _finish_requests(settings)
    sweep, cut = _sweep(at, settings.retention_batch_rows)
    _report(sweep, look_ahead(at), time.monotonic() - began)
    reasons = Counter(sweep.stuck.values())
    stuck = ", ".join(f"{count:,} jobs could not be deleted: {reason}" for reason, count in reasons.items())
    gave_up = "too many to go on" if sweep.gave_up else ""
    faults = [fault for fault in (stuck, gave_up, cut, intake) if fault]
    told = f"deleted {sweep.deleted.total():,} jobs"
    if faults:
        return failed("; ".join([*faults, told]))
    forgotten = forget_runs(settings.history_runs_max)
    for _ in range(_TASKS_MAX):
        if close_finished_receipts(settings.retention_batch_rows, _ROWS_PER_TASK) < _ROWS_PER_TASK:
            break
    return done(f"{told}; forgot {forgotten:,} runs of deleted jobs")


def _finish_requests(settings: Settings) -> str:
    """Remove request files whose job is made already, so that none outlives its job; gives what is wrong."""
    try:
        finish_taken_requests(settings.intake, settings.locations_file, _FILES_MAX)
    except DrivepostError as error:
        # The sweep goes on: a deletion remembers the request, so that what is left of it makes no job anew.
        return error.line
    return ""


def _sweep(at: datetime, batch_rows: int) -> tuple[Sweep, str]:
    """Delete what is due; gives what was deleted, and what stopped it before its end."""
    sweep = Sweep()
    try:
        for _ in range(_TASKS_MAX):
            batch = delete_expired(at, batch_rows, _ROWS_PER_TASK, sweep.stuck)
            sweep.merge(batch)
            if batch.is_over:
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
    _show(
        "retention-outlook",
        [*_held(outlook), *_ahead(outlook)],
        f"What legal holds keep, and what comes due in the {DAYS_AHEAD} days after that",
    )
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
        *_held(outlook),
        {"what": "the sweep took", "figure": f"{seconds:.1f} s"},
        *_ahead(outlook),
    ]
    _show("retention-report", rows, "What the last sweep deleted, and what comes next")


def _held(outlook: Outlook) -> list[dict[str, str]]:
    rows = [
        {"what": f"under legal hold, {reason}", "figure": f"{count:,}"} for reason, count in outlook.held.items()
    ]
    return [{"what": "due, and kept by a legal hold", "figure": f"{outlook.held_due:,}"}, *rows]


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
