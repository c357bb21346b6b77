"""Alerts as a real Prefect server keeps them: as events, each once."""

from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.filters import EventFilter, EventResourceFilter
from pydantic import SecretStr
from sqlalchemy import update
from sqlmodel import col

from models.alerts import Alert, AlertKind, Found, raise_alerts
from models.database import database_time, writing
from models.lifecycle import JobState
from tasks.alerts import send_alerts
from tests.builders import job_in
from tests.journeys.one_machine import awaited

pytestmark = pytest.mark.usefixtures("sqlite")


def send() -> None:
    """Tell Prefect alone."""
    assert send_alerts.fn("", SecretStr(""), 100) == 0


def raised(kind: AlertKind, job_id: UUID) -> None:
    """Write down an alert of a job."""
    with writing() as session:
        assert raise_alerts(session, [Found(kind, str(job_id), job_id)], database_time(session)) == 1


def test_an_alert_that_is_told_twice_is_one_event(prefect: SyncPrefectClient) -> None:
    """By its job's opaque id; the server takes the second for the first, and goes on with what comes next."""
    with writing() as session:
        job_id = job_in(session, JobState.PACKAGING, at=database_time(session))
    raised(AlertKind.RETURN_DUE, job_id)
    send()
    with writing() as session:
        # As if the machine had died before it wrote down that it was told.
        session.connection().execute(update(Alert).values(event_sent=False, next_try_at=col(Alert.at)))
    send()
    raised(AlertKind.COPY_STALLED, job_id)
    send()
    of_job = EventFilter(resource=EventResourceFilter(id=[f"drivepost.job.{job_id}"]))

    def told() -> list[str]:
        return [each.event for each in prefect.read_events(of_job, limit=50).events]

    awaited(lambda: f"drivepost.{AlertKind.COPY_STALLED}" in told())
    assert sorted(told()) == sorted(f"drivepost.{kind}" for kind in (AlertKind.RETURN_DUE, AlertKind.COPY_STALLED))
