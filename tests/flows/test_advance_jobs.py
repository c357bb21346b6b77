"""advance-jobs finds what operators must hear of, and counts no days by a clock that jumped."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlmodel import select

from flows.advance_jobs import advance_jobs
from models.alerts import Alert
from models.clocks import Clock
from models.database import database_time, reading, writing
from models.erasure import wish_erasure
from models.events import EventKind
from models.jobs import finish_cancel
from models.lifecycle import Actor, JobState
from models.settings import Settings
from tests.builders import age, events_of, job_in

pytestmark = pytest.mark.usefixtures("plain_acts", "sqlite")

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Let Prefect have nothing to do; gives with what alerts were sent."""
    for name in ("_dead", "_copies", "_history"):
        monkeypatch.setattr(f"flows.advance_jobs.{name}", lambda *_: None)
    given: list[tuple[Any, ...]] = []

    def send(*values: object) -> int:
        given.append(values)
        return 0

    monkeypatch.setattr("flows.advance_jobs.send_alerts", send)
    return given


def made(state: JobState, name: str, old: timedelta) -> UUID:
    """Make a job that has been in a state for some time."""
    with writing() as session:
        job_id = job_in(session, state, name, database_time(session))
    age(job_id, old)
    return job_id


def kinds() -> list[str]:
    """Read which alerts were raised."""
    with reading() as session:
        return sorted(alert.kind for alert in session.exec(select(Alert)))


def test_by_a_clock_that_jumped_no_days_are_counted() -> None:
    """Twice; operators are told of the clock alone. By a clock that is right the same job is told, by no id.

    Nor is an address erased to which the drives of a package may go back that is still awaited for some days.
    """
    job_id = made(JobState.SHIPPING, "job1", timedelta(days=15))
    with writing() as session:
        now = database_time(session)
        awaited = job_in(session, JobState.SHIPPING, "job2", now - timedelta(days=15), cancelled=True)
        finish_cancel(session, awaited, at=now - timedelta(days=15))
        # By then, and for a day more, it was to be kept.
        wish_erasure(session, awaited, at=now - timedelta(days=2), by=Actor.CUSTOMER)
        session.merge(Clock(id=1, seen_at=database_time(session) - timedelta(days=3)))
    for _ in range(2):
        ended = advance_jobs.fn()
        assert ended.is_failed()
        assert (ended.message or "").startswith("ClockJumped: ")
    assert kinds() == ["clock-jumped"]
    with writing() as session:
        assert not events_of(session, job_id, EventKind.PACKAGE_OVERDUE)
        assert not events_of(session, awaited, EventKind.ERASED)
        session.merge(Clock(id=1, seen_at=database_time(session)))
    ended = advance_jobs.fn()
    told = "1 packages did not come in 14 days; 1 alerts raised; personal data of 1 jobs erased"
    assert (ended.message or "").startswith(told)
    assert kinds() == ["clock-jumped", "package-overdue"]


@pytest.mark.parametrize(("late", "told"), [(-HOUR, []), (HOUR, ["retention-overdue"])])
def test_retention_is_overdue_after_two_sweeps_that_did_not_come(
    monkeypatch: pytest.MonkeyPatch, late: timedelta, told: list[str]
) -> None:
    """By the interval of the sweeps, here of two days; told once."""
    monkeypatch.setenv("DRIVEPOST_RETENTION_CRON", "0 3 */2 * *")
    made(JobState.COMPLETED, "job1", timedelta(days=90 + 2 * 2) + late)
    for _ in range(2):
        assert advance_jobs.fn().is_completed()
        assert kinds() == told


def test_alerts_are_sent_where_the_settings_say(
    monkeypatch: pytest.MonkeyPatch, sent: list[tuple[Any, ...]]
) -> None:
    """The webhook and its token reach the act; the token as a secret."""
    monkeypatch.setenv("DRIVEPOST_ALERT_WEBHOOK_URL", "https://hooks.example.com/drivepost")
    monkeypatch.setenv("DRIVEPOST_ALERT_WEBHOOK_TOKEN", "the token")
    assert advance_jobs.fn().is_completed()
    settings = Settings()
    assert [values[:2] for values in sent] == [(settings.alert_webhook_url, settings.alert_webhook_token)]
    assert (sent[0][0], sent[0][1].get_secret_value()) == ("https://hooks.example.com/drivepost", "the token")
