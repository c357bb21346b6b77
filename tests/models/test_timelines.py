"""A timeline tells what happened to a job in order, and what may be done with it now."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import pytest
from sqlmodel import Session, col, update

from models.bay import check_in
from models.database import writing
from models.drives import Drive
from models.erasure import wish_erasure
from models.errors import JobNotFoundError
from models.events import EventKind
from models.holds import place_hold
from models.jobs import HoldReason
from models.lifecycle import Actor, DriveState, JobState, Operation
from models.timelines import Timeline, read_timeline
from tests.builders import ADDRESS, DRIVE, NOON, PACKAGE, RETURN_SHIPPING, job_in

pytestmark = pytest.mark.usefixtures("sqlite")

_O: Final = Operation
_S: Final = JobState

POSSIBLE: Final = {
    # state: with a drive here, with it gone back
    _S.CREATING: ({_O.SHIP, _O.CANCEL, _O.DELETE}, {_O.SHIP, _O.CANCEL, _O.DELETE}),
    _S.SHIPPING: ({_O.CHECK_IN, _O.CANCEL, _O.ERASE}, {_O.CHECK_IN, _O.CANCEL, _O.ERASE}),
    _S.RECEIVED: ({_O.CANCEL, _O.ERASE}, {_O.CANCEL, _O.ERASE}),
    _S.TRANSFERRING: ({_O.CANCEL, _O.ERASE}, {_O.CANCEL, _O.ERASE}),
    _S.PACKAGING: ({_O.RETURN_DRIVES, _O.ERASE}, {_O.ERASE}),
    _S.COMPLETED: ({_O.RETURN_DRIVES, _O.DELETE, _O.ERASE}, {_O.DELETE, _O.ERASE}),
    _S.CLOSED: ({_O.RETURN_DRIVES, _O.ERASE}, {_O.ERASE}),
}
"""What an operator may do; by hand from the specification, sections 2 to 6."""


def told(session: Session, job_id: UUID, at: datetime = NOON, events_max: int = 100) -> Timeline:
    """Read the timeline of a job, with what was written meanwhile."""
    session.flush()
    return read_timeline(session, job_id, at, events_max)


def set_drives(session: Session, job_id: UUID, state: DriveState) -> None:
    """Write the state of a job's drives past every rule."""
    session.connection().execute(update(Drive).where(col(Drive.job_id) == job_id).values(state=state))


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("is_here", [True, False])
def test_a_timeline_tells_what_may_be_done_now(state: JobState, is_here: bool) -> None:
    """In each state, with a drive that lies here and with one that went back."""
    with writing() as session:
        job_id = job_in(session, state)
        set_drives(session, job_id, DriveState.RECEIVED if is_here else DriveState.SHIPPED_BACK)
        assert set(told(session, job_id).possible) == POSSIBLE[state][0 if is_here else 1]


def test_a_job_is_closed_after_30_days_and_not_before() -> None:
    """At 30 days exactly."""
    with writing() as session:
        job_id = job_in(session, _S.SHIPPING)
        end = NOON + timedelta(days=30)
        assert _O.CLOSE not in told(session, job_id, end - timedelta(seconds=1)).possible
        assert _O.CLOSE in told(session, job_id, end).possible


def test_what_was_done_or_is_forbidden_is_not_offered() -> None:
    """A second cancel, a second erasure, the deletion of a held job."""
    with writing() as session:
        cancelled = job_in(session, _S.SHIPPING, "job1", cancelled=True)
        assert set(told(session, cancelled).possible) == {_O.CHECK_IN, _O.ERASE}
        wish_erasure(session, cancelled, at=NOON, by=Actor.OPERATOR)
        assert set(told(session, cancelled).possible) == {_O.CHECK_IN}
        held = job_in(session, _S.COMPLETED, "job2")
        assert _O.DELETE in told(session, held).possible
        place_hold(session, held, HoldReason.AUDIT, at=NOON, by=Actor.OPERATOR)
        assert _O.DELETE not in told(session, held).possible


def test_a_timeline_tells_events_in_order_and_drives_by_number() -> None:
    """Of this job alone; a missing drive can still be checked in."""
    with writing() as session:
        entries = [{**DRIVE, "driveId": serial} for serial in ("SERIAL1", "SERIAL2")]
        job_id = job_in(session, _S.SHIPPING, driveList=entries)
        job_in(session, _S.COMPLETED, "other")
        check_in(session, job_id, ["SERIAL2"], at=NOON + timedelta(hours=1), by=Actor.OPERATOR)
        timeline = told(session, job_id)
    assert [(event.kind, event.source, event.target) for event in timeline.events][:2] == [
        (EventKind.CREATED, None, "Creating"),
        (EventKind.MOVED, "Creating", "Shipping"),
    ]
    assert {event.job_id for event in timeline.events} == {job_id}
    numbers = [event.number or 0 for event in timeline.events]
    assert numbers == sorted(numbers)
    assert [(drive.number, drive.state) for drive in timeline.drives] == [
        (1, DriveState.NEVER_RECEIVED),
        (2, DriveState.RECEIVED),
    ]
    assert _O.CHECK_IN in timeline.possible


def test_the_latest_events_are_told_where_there_are_too_many() -> None:
    """And how many came before."""
    with writing() as session:
        job_id = job_in(session, _S.COMPLETED)
        everything = told(session, job_id).events
        some = told(session, job_id, events_max=2)
    assert len(everything) > 2
    assert list(some.events) == list(everything[-2:])
    assert some.earlier == len(everything) - 2


def test_there_is_no_timeline_of_no_job() -> None:
    """It may be gone."""
    with writing() as session, pytest.raises(JobNotFoundError):
        told(session, uuid4())


def test_nothing_personal_is_in_a_timeline() -> None:
    """Drives go by their numbers."""
    with writing() as session:
        job_id = job_in(session, _S.PACKAGING)
        timeline = told(session, job_id)
    drives_and_events = repr((timeline.drives, timeline.events))
    for source in (ADDRESS, PACKAGE, RETURN_SHIPPING, DRIVE):
        for value in map(str, source.values()):
            assert len(value) < 5 or value not in drives_and_events
