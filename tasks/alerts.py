"""Acts of alerts: find what operators must hear of, write it down, and tell it until it is heard."""

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import httpx
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from pydantic import SecretStr

from models.alerts import (
    TEXTS,
    Alert,
    AlertKind,
    Found,
    alerts_to_send,
    jobs_to_tell_of,
    raise_alerts,
    record_try,
    remove_old_alerts,
)
from models.clocks import look_at_clock
from models.database import database_time, reading, writing
from models.due import oldest_expired
from models.errors import PrefectAwayError
from tasks.acts import act
from tasks.prefect_api import prefect_client

_OLD_ALERTS_MAX: Final = 1_000
_ANSWER_SECONDS_MAX: Final = 10.0
_IN_VAIN_MAX: Final = 3
_SENDING_SECONDS_MAX: Final = 20.0


@act
def look_at_time(step_max: timedelta, *, is_confirmed: bool = False) -> datetime:
    """Tell what time it is in the database, aware UTC; a sweep is measured against this one moment.

    Raises:
        ClockJumpedError: the clock is more than `step_max` on since somebody last looked, or behind.
    """
    with writing() as session:
        return look_at_clock(session, step_max, is_confirmed=is_confirmed)


@act
def raise_alert(kind: AlertKind, which: str) -> bool:
    """Write down something of the service that is to be told; False when it was before.

    Args:
        kind: what it is.
        which: what tells it apart from others of its kind, such as a day.
    """
    with writing() as session:
        return bool(raise_alerts(session, [Found(kind, which)], database_time(session)))


@act
def find_alerts(lease_seconds: float, overdue_after: timedelta, rows_max: int) -> int:
    """Find what operators must hear of, and write it down; tells how many are new.

    Args:
        lease_seconds: of a copy.
        overdue_after: retention is overdue when the oldest job that is due has been for longer.
        rows_max: jobs of each kind.
    """
    with reading() as session:
        now = database_time(session)
        found = jobs_to_tell_of(session, now, lease_seconds, rows_max)
        oldest = oldest_expired(session, now)
    if oldest is not None and now - oldest > overdue_after:
        found.append(Found(AlertKind.RETENTION_OVERDUE, f"{now:%Y-%m-%d}"))
    with writing() as session:
        remove_old_alerts(session, now, _OLD_ALERTS_MAX)
        return raise_alerts(session, found, now)


@act
def send_alerts(webhook_url: str, webhook_token: SecretStr, rows_max: int) -> int:
    """Tell alerts as events of Prefect's, and then to a webhook, each at least once.

    Whoever does not answer is asked again later; who did not three times is asked no more this time. After 20
    seconds nobody is told any more this time, because other work waits, and slow answers may be many.

    Args:
        webhook_url: where alerts are posted; empty for nowhere.
        webhook_token: sent as bearer token; empty for none.
        rows_max: how many at most.

    Returns:
        How many could not be told.
    """
    with reading() as session:
        due = alerts_to_send(session, database_time(session), rows_max)
    deadline = time.monotonic() + _SENDING_SECONDS_MAX
    events = _tell((alert for alert in due if not alert.event_sent), _send_event, deadline)
    told = {alert.key: True for alert in due if alert.event_sent or events.get(alert.key)}
    if webhook_url:
        heard = (alert for alert in due if alert.key in told)
        told = _tell(heard, lambda alert: asyncio.run(_post(alert, webhook_url, webhook_token)), deadline)
    for key in events | told:
        with writing() as session:
            record_try(
                session,
                key,
                at=database_time(session),
                is_event_sent=events.get(key, False),
                is_told=told.get(key, False),
            )
    return len(due) - sum(told.values())


def _tell(alerts: Iterable[Alert], tell: Callable[[Alert], bool], deadline: float) -> dict[str, bool]:
    """Tell alerts one after the other until three were in vain or it is too late; key -> whether it was heard."""
    told: dict[str, bool] = {}
    for alert in alerts:
        if list(told.values()).count(False) == _IN_VAIN_MAX or time.monotonic() >= deadline:
            break
        told[alert.key] = tell(alert)
    return told


def _send_event(alert: Alert) -> bool:
    """Send an event; by a request that is answered, because Prefect's own way tells nobody whether it arrived."""
    job = f"drivepost.job.{alert.job_id}" if alert.job_id else "drivepost.service"
    event = {
        "id": str(alert.id),
        "occurred": alert.at.isoformat(),
        "event": f"drivepost.{alert.kind}",
        "resource": {"prefect.resource.id": job},
        "payload": _told(alert),
    }
    # It is told again a minute later: Prefect's own waits between its tries would add up to minutes for each.
    hasty = {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: _ANSWER_SECONDS_MAX}
    try:
        with temporary_settings(hasty), prefect_client() as client:
            client.request("POST", "/events", json=[event])
    except PrefectAwayError:
        return False
    return True


async def _post(alert: Alert, url: str, token: SecretStr) -> bool:
    headers = {"Idempotency-Key": str(alert.id)}
    if token.get_secret_value():
        headers["Authorization"] = f"Bearer {token.get_secret_value()}"
    try:
        # The whole of it has a limit, and the body is not read: an answer may drip for ever.
        async with (
            asyncio.timeout(_ANSWER_SECONDS_MAX),
            httpx.AsyncClient(timeout=_ANSWER_SECONDS_MAX) as client,
            client.stream("POST", url, json=_told(alert), headers=headers) as answer,
        ):
            return answer.is_success
    except (httpx.HTTPError, httpx.InvalidURL, OSError):
        return False


def _told(alert: Alert) -> dict[str, Any]:
    return {
        "id": str(alert.id),
        "kind": alert.kind,
        "job": str(alert.job_id) if alert.job_id else None,
        "at": alert.at.isoformat(),
        "text": TEXTS[alert.kind],
    }
