"""advance-jobs: what is due is done, and what was lost on the way is picked up."""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY

from flows.promises import Ended, done, failed, promise, run_id
from flows.rotate_keys import finish_rotation
from models.alerts import AlertKind
from models.errors import ClockJumpedError, DrivepostError
from models.portal import EXPORT_KEPT
from models.setting_checks import interval_of
from models.settings import Settings
from models.turns import turn_to_advance
from tasks.alerts import find_alerts, look_at_time, raise_alert, send_alerts
from tasks.dead_runs import bury_dead_runs, drop_late_runs, record_unbegun_runs
from tasks.drives import carry_out_cancels, copies_to_start, find_lost_cancels, tell_of_overdue_packages
from tasks.erasure import carry_out_erasures
from tasks.intake import finish_taken_requests
from tasks.portal import remove_old_exports
from tasks.receipts import close_finished_receipts
from tasks.run_history import forget_runs, hide_names, start_copies
from tasks.sealing import destroy_retired_keys, find_dropped_rotation

IDLE: Final = "nothing was done"
"""How a run ends that has not had its turn."""

_FILES_MAX: Final = 100
_RECEIPTS_MAX: Final = 10_000
_ROTATION_IDLE: Final = timedelta(hours=1)
_ALERTS_MAX: Final = 100
_SWEEPS_MISSED: Final = 2
_BEATS_MISSED: Final = 3
_BEAT_SECONDS: Final = 1200
"""Without heartbeats a run is believed to be alive for an hour."""


@promise(
    "advance-jobs",
    """Does every minute what is due, so that nothing that was accepted is lost:

- carries out cancels whose run was lost, starts copies and takes up those whose worker died;
- finishes what create-job began, erases personal data once the drives are back;
- removes the last traces of what was deleted, closes its receipts, goes on with a cut key rotation;
- ends runs whose process was killed;
- raises alerts (packages that did not come, copies without a sign of life, drives due back) and sends them.

Running it by hand is harmless. It never deletes a job. One kind of step goes on when another fails; the run
then ends Failed, and its message says which.
""",
)
def advance_jobs() -> Ended:
    """Do what is due, and pick up what was lost; one kind of step goes on when another fails."""
    with turn_to_advance() as is_ours:
        if not is_ours:
            return done(f"{IDLE}: another run of advance-jobs is at work")
        return _advance(Settings())


def _advance(settings: Settings) -> Ended:
    told: list[str] = []
    faults: list[str] = []
    # What counts days counts none by a clock that jumped.
    is_time_right = _look_at_clock(settings, faults)
    for step in (
        _cancels,
        _dead,
        _copies,
        _requests,
        *((_overdue, _exports, _find_alerts, _erasures) if is_time_right else ()),
        _history,
        _receipts,
        _rotation,
        _send_alerts,
    ):
        _try(step, settings, told, faults)
    if faults:
        return failed("; ".join([*faults, *told]))
    return done("; ".join(told) or "nothing was due")


def _try(
    step: Callable[[Settings, list[str], list[str]], None],
    settings: Settings,
    told: list[str],
    faults: list[str],
) -> None:
    try:
        step(settings, told, faults)
    except DrivepostError as error:
        faults.append(error.line)


def _look_at_clock(settings: Settings, faults: list[str]) -> bool:
    try:
        look_at_time(timedelta(seconds=settings.clock_step_seconds_max))
    except ClockJumpedError as error:
        raise_alert(AlertKind.CLOCK_JUMPED, error.seen_at.isoformat())
        faults.append(error.line)
        return False
    return True


def _find_alerts(settings: Settings, told: list[str], _faults: list[str]) -> None:
    overdue_after = _SWEEPS_MISSED * interval_of(settings.retention_cron)
    found = find_alerts(settings.copy_lease_seconds, overdue_after, settings.advance_rows)
    if found:
        told.append(f"{found} alerts raised")


def _send_alerts(settings: Settings, _told: list[str], faults: list[str]) -> None:
    in_vain = send_alerts(settings.alert_webhook_url, settings.alert_webhook_token, _ALERTS_MAX)
    if in_vain:
        faults.append(f"{in_vain} alerts could not be sent, and are sent again later")


def _dead(_settings: Settings, told: list[str], _faults: list[str]) -> None:
    drop_late_runs(advance_jobs.name)
    buried = bury_dead_runs(_BEATS_MISSED * (PREFECT_FLOWS_HEARTBEAT_FREQUENCY.value() or _BEAT_SECONDS), run_id())
    if buried:
        told.append(f"{buried} runs whose process is gone ended")


def _cancels(settings: Settings, told: list[str], faults: list[str]) -> None:
    due = [
        (job_id, settings.store_address(account)) for job_id, account in find_lost_cancels(settings.advance_rows)
    ]
    cancels = carry_out_cancels(due, settings.bay)
    if cancels.done:
        told.append(f"{cancels.done} lost cancels carried out")
    # No ids: this run would tell of jobs that are deleted later.
    faults += [f"{count} cancels not carried out: {code}" for code, count in cancels.failed.items()]


def _copies(settings: Settings, told: list[str], _faults: list[str]) -> None:
    due, under_way = copies_to_start(settings.advance_rows, settings.copies_per_site_max)
    started = start_copies(due, under_way, settings.copies_at_once_max, settings.copy_lease_seconds)
    if started:
        told.append(f"{len(started)} copies started")


def _requests(settings: Settings, told: list[str], faults: list[str]) -> None:
    created = finish_taken_requests(settings.intake, settings.locations_file, _FILES_MAX)
    if created.job_ids:
        told.append(f"{len(created.job_ids)} jobs created of requests left by a run that was cut")
    faults += created.refused


def _overdue(settings: Settings, told: list[str], _faults: list[str]) -> None:
    overdue = tell_of_overdue_packages(settings.advance_rows)
    if overdue:
        told.append(f"{overdue} packages did not come in 14 days")


def _history(settings: Settings, told: list[str], _faults: list[str]) -> None:
    hide_names()
    record_unbegun_runs()
    forgotten = forget_runs(settings.history_runs_max)
    if forgotten:
        told.append(f"{forgotten} runs of deleted jobs forgotten")


def _erasures(settings: Settings, told: list[str], _faults: list[str]) -> None:
    erased = carry_out_erasures(settings.advance_rows)
    if erased:
        told.append(f"personal data of {erased} jobs erased")


def _exports(settings: Settings, _told: list[str], _faults: list[str]) -> None:
    remove_old_exports(settings.exports, EXPORT_KEPT.total_seconds(), _FILES_MAX)


def _receipts(settings: Settings, told: list[str], _faults: list[str]) -> None:
    closed = close_finished_receipts(settings.retention_batch_rows, _RECEIPTS_MAX)
    if closed:
        told.append(f"{closed:,} deletion receipts closed")


def _rotation(settings: Settings, told: list[str], faults: list[str]) -> None:
    dropped = find_dropped_rotation(_ROTATION_IDLE)
    if dropped is None:
        destroy_retired_keys()
        return
    ended = finish_rotation(dropped, settings.resealing_batch_rows)
    (told if ended.is_completed() else faults).append(str(ended.message))
