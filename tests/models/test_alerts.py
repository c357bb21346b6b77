"""Alerts: what is found is written down once, told until it is heard, and goes with its job."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import pytest
from sqlmodel import Session, select

from models.alerts import (
    ALERT_KEPT,
    Alert,
    AlertKind,
    Found,
    alerts_to_send,
    jobs_to_tell_of,
    raise_alerts,
    record_try,
    remove_old_alerts,
)
from models.bay import check_in, return_drives
from models.board import read_board
from models.concerns import RETURN_DUE, Concern
from models.database import reading, writing
from models.deletion import delete_job
from models.lifecycle import PACKAGE_OVERDUE, Actor, DriveState, JobState
from tests.builders import NOON, job_in, put_on_site, set_columns

LEASE: Final = 60.0
MICROSECOND: Final = timedelta(microseconds=1)
MINUTE: Final = timedelta(minutes=1)


def tell_of(at: datetime, rows_max: int = 10) -> list[tuple[AlertKind, UUID | None]]:
    """Find what is to be told at a moment, and write it down; gives what is new."""
    with writing() as session:
        found = jobs_to_tell_of(session, at, LEASE, rows_max)
        assert raise_alerts(session, found, at) == len(found)
    return [(each.kind, each.job_id) for each in found]


def alerts() -> list[Alert]:
    """Read every alert."""
    with reading() as session:
        return list(session.exec(select(Alert)).all())


def test_a_job_whose_package_does_not_come_is_told_once(any_database: str) -> None:
    """At fourteen days and not before; one whose cancel was accepted is not."""
    with writing() as session:
        job_id = job_in(session, JobState.SHIPPING)
        job_in(session, JobState.SHIPPING, "cancelled", cancelled=True)
        job_in(session, JobState.CREATING, "creating")
    due = NOON + PACKAGE_OVERDUE
    assert tell_of(due - MICROSECOND) == []
    assert tell_of(due) == [(AlertKind.PACKAGE_OVERDUE, job_id)]
    assert tell_of(due + timedelta(days=5)) == []


def test_a_copy_without_a_sign_of_life_is_told_each_time_it_stalls(any_database: str) -> None:
    """At twice its lease; again when the next run dies, too; not while nobody has begun, nor after a cancel."""
    with writing() as session:
        job_id = job_in(session, JobState.TRANSFERRING)
        job_in(session, JobState.RECEIVED, "not-begun")
        cancelled = job_in(session, JobState.TRANSFERRING, "cancelled", cancelled=True)
        for each in (job_id, cancelled):
            set_columns(session, each, copy_token=1, copy_lease_until=NOON)
    stalled = NOON + timedelta(seconds=LEASE)
    assert tell_of(stalled - MICROSECOND) == []
    assert tell_of(stalled) == [(AlertKind.COPY_STALLED, job_id)]
    assert tell_of(stalled + timedelta(hours=1)) == []
    for token, hours in ((2, 2), (2, 5)):
        with writing() as session:
            set_columns(session, job_id, copy_token=token, copy_lease_until=NOON + timedelta(hours=hours))
        assert tell_of(NOON + timedelta(hours=hours + 1)) == [(AlertKind.COPY_STALLED, job_id)]
        assert tell_of(NOON + timedelta(hours=hours + 2)) == []


def test_drives_that_could_go_back_are_told(any_database: str) -> None:
    """Of a job in Packaging, and of a cancelled one whose drives are here; not of one whose drives went back."""
    with writing() as session:
        packaging = job_in(session, JobState.PACKAGING)
        put_on_site(session, packaging, NOON)
        made = {
            state: job_in(session, JobState.COMPLETED, f"cancelled-{state}", cancelled=True)
            for state in (DriveState.RECEIVED, DriveState.SHIPPED_BACK, DriveState.SPECIFIED)
        }
        for state, job_id in made.items():
            put_on_site(session, job_id, NOON, state)
        job_in(session, JobState.COMPLETED, "ended")
    due = NOON + RETURN_DUE
    assert tell_of(due - MICROSECOND) == []
    told = {(AlertKind.RETURN_DUE, packaging), (AlertKind.RETURN_DUE, made[DriveState.RECEIVED])}
    assert set(tell_of(due)) == told
    assert tell_of(due + timedelta(days=1)) == []


@pytest.mark.parametrize("is_extra", [False, True])
@pytest.mark.parametrize("state", [JobState.CLOSED, JobState.COMPLETED])
def test_a_package_that_comes_long_after_the_end_is_told_and_not_forgotten(
    any_database: str, state: JobState, is_extra: bool
) -> None:
    """Three days after it was checked in, however old the end is; not once it went back."""
    came = NOON + timedelta(days=35)
    found = ["unlisted"] if is_extra else ["9CA995BB"]
    with writing() as session:
        job_id = job_in(session, state, cancelled=state is JobState.COMPLETED)
        check_in(session, job_id, found, at=came, by=Actor.OPERATOR)
    for days, told in ((-MICROSECOND, []), (timedelta(0), [(AlertKind.RETURN_DUE, job_id)])):
        assert tell_of(came + RETURN_DUE + days) == told
    with writing() as session:
        assert alone(session, came + RETURN_DUE) == [job_id]
        return_drives(session, job_id, None, at=came + RETURN_DUE, by=Actor.OPERATOR)
        assert alone(session, came + RETURN_DUE) == []


def alone(session: Session, at: datetime) -> list[UUID]:
    """Read the jobs on the board whose drives are due back."""
    return [job.job_id for job in read_board(session, at, LEASE, 10).concerns[Concern.DUE_BACK].oldest]


def test_what_is_of_the_service_is_told_before_a_flood_of_jobs(any_database: str) -> None:
    """Though it was found last."""
    with writing() as session:
        job_id = job_in(session, JobState.SHIPPING)
        raise_alerts(session, [Found(AlertKind.PACKAGE_OVERDUE, str(n), job_id) for n in range(3)], NOON)
        raise_alerts(session, [Found(AlertKind.RETENTION_FAILED, "then")], NOON + MINUTE)
        kinds = [alert.kind for alert in alerts_to_send(session, NOON + MINUTE, 2)]
    assert kinds == [AlertKind.RETENTION_FAILED, AlertKind.PACKAGE_OVERDUE]


def test_many_are_told_over_several_rounds(any_database: str) -> None:
    """Each once, at most so many at a time."""
    with writing() as session:
        jobs = {job_in(session, JobState.PACKAGING, f"job{number}") for number in range(5)}
        for each in jobs:
            put_on_site(session, each, NOON)
    rounds = [tell_of(NOON + RETURN_DUE, rows_max=2) for _ in range(4)]
    assert [len(each) for each in rounds] == [2, 2, 1, 0]
    assert {job_id for each in rounds for _, job_id in each} == jobs


def test_the_same_is_written_down_once_and_has_one_id(any_database: str) -> None:
    """Whoever hears it twice can know."""
    for _ in range(2):
        with writing() as session:
            raise_alerts(session, [Found(AlertKind.RETENTION_OVERDUE, "2026-06-01")] * 2, NOON)
    (alert,) = alerts()
    assert alert.id == Alert(key=alert.key, kind=alert.kind, at=NOON).id
    with writing() as session:
        assert raise_alerts(session, [Found(AlertKind.RETENTION_OVERDUE, "2026-06-02")], NOON) == 1
    assert len({each.id for each in alerts()}) == 2


def test_what_was_not_heard_is_told_again_later_and_later(any_database: str) -> None:
    """After 1, 2, 4 minutes, and so on to an hour; what was heard is told no more."""
    with writing() as session:
        raise_alerts(session, [Found(AlertKind.CLOCK_JUMPED, "then")], NOON)
    at, pauses = NOON, []
    for _ in range(9):
        with writing() as session:
            (alert,) = alerts_to_send(session, at, 10)
            record_try(session, alert.key, at=at, is_event_sent=True, is_told=False)
        (alert,) = alerts()
        assert alert.next_try_at is not None
        assert alert.event_sent
        pauses.append((alert.next_try_at - at) / MINUTE)
        with reading() as session:
            assert list(alerts_to_send(session, alert.next_try_at - MICROSECOND, 10)) == []
        at = alert.next_try_at
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    with writing() as session:
        record_try(session, alert.key, at=at, is_event_sent=False, is_told=True)
        assert list(alerts_to_send(session, at + timedelta(days=400), 10)) == []
    assert alerts()[0].event_sent, "what Prefect has heard stays heard"


def test_an_alert_goes_with_its_job(any_database: str) -> None:
    """And a try to tell it that comes too late writes nothing."""
    with writing() as session:
        job_id = job_in(session, JobState.COMPLETED)
        raise_alerts(session, [Found(AlertKind.RETURN_DUE, str(job_id), job_id)], NOON)
    (alert,) = alerts()
    with writing() as session:
        delete_job(session, job_id, at=NOON, by=Actor.OPERATOR)
        record_try(session, alert.key, at=NOON, is_event_sent=True, is_told=True)
    assert alerts() == []


@pytest.mark.parametrize("heard", [True, False])
def test_old_alerts_are_removed_heard_or_not(any_database: str, heard: bool) -> None:
    """After 90 days, and not before; at most so many at once."""
    with writing() as session:
        raise_alerts(session, [Found(AlertKind.RETENTION_FAILED, str(number)) for number in range(3)], NOON)
        for alert in alerts_to_send(session, NOON, 10):
            record_try(session, alert.key, at=NOON, is_event_sent=heard, is_told=heard)
    for at, removed in ((NOON + ALERT_KEPT, 0), (NOON + ALERT_KEPT + MICROSECOND, 2)):
        with writing() as session:
            assert remove_old_alerts(session, at, 2) == removed
    assert len(alerts()) == 1
