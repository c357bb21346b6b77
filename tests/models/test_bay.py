"""Drives come in and go back: what a look into the bay, and a parcel sent, make of a job."""

from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from models.bay import CheckIn, check_in, extra_drives_of, return_drives, tell_overdue_packages
from models.copy_logs import DriveStatus
from models.database import reading, writing
from models.drives import drives_of, move_drive
from models.errors import ActorNotAllowedError, BayError, JobHeldError, JobNotFoundError, JobStateConflictError
from models.events import EventKind
from models.holds import ReleaseReason, place_hold, release_hold
from models.jobs import HoldReason, finish_cancel, move, read_job, request_cancel
from models.lifecycle import Actor, DriveState, JobState
from models.requests import ReturnPackageShape
from models.shipping import Direction, Package
from tests.builders import DRIVE, NOON, events_of, job_in

LATER: Final = NOON + timedelta(days=1)
EXPORT: Final[dict[str, Any]] = {
    "jobType": "Export",
    "driveList": None,
    "export": {"blobList": {"blobPathPrefix": ["/"]}},
}
BACK: Final = ReturnPackageShape(
    carrier_name="UPS", tracking_number="BACK1", drive_count=2, ship_date="2026-06-20"
)


def new_job(
    *serials: str, state: str = "Shipping", name: str = "job1", cancelled: bool = False, **properties: Any
) -> UUID:
    """Make a job of these drives."""
    if serials:
        properties["driveList"] = [{**DRIVE, "driveId": serial} for serial in serials]
    with writing() as session:
        return job_in(session, JobState(state), name, cancelled=cancelled, **properties)


def look(job_id: UUID, *found: str) -> CheckIn:
    """Check in what is in the bay."""
    with writing() as session:
        return check_in(session, job_id, found, at=LATER, by=Actor.OPERATOR)


def states(job_id: UUID) -> list[str]:
    """The job's state, then those of its drives."""
    with reading() as session:
        return [read_job(session, job_id).state, *(drive.state for drive in drives_of(session, job_id))]


def extras(job_id: UUID) -> list[str]:
    """Serial numbers of the job's extra drives still here."""
    with reading() as session:
        return sorted(extra.drive_id for extra in extra_drives_of(session, job_id))


def copy(job_id: UUID, *ends: tuple[DriveState, DriveStatus]) -> None:
    """Copy the received drives of a job, each with its end, and pack the job."""
    with writing() as session:
        job = read_job(session, job_id)
        if job.state is JobState.RECEIVED:
            move(session, job, JobState.TRANSFERRING, at=LATER, by=Actor.SERVICE)
        received = [drive for drive in drives_of(session, job_id) if drive.state is DriveState.RECEIVED]
        for drive, (state, status) in zip(received, ends, strict=True):
            move_drive(session, drive, DriveState.TRANSFERRING, at=LATER, by=Actor.SERVICE)
            move_drive(session, drive, state, at=LATER, by=Actor.SERVICE)
            drive.copy_status = status
        move(session, job, JobState.PACKAGING, at=LATER, by=Actor.SERVICE)


WELL: Final = (DriveState.COMPLETED, DriveStatus.COMPLETED)
WARNED: Final = (DriveState.COMPLETED_MORE_INFO, DriveStatus.COMPLETED_WITH_WARNINGS)
BADLY: Final = (DriveState.COMPLETED_MORE_INFO, DriveStatus.COMPLETED_WITH_ERRORS)


def send_back(job_id: UUID, package: ReturnPackageShape | None = BACK) -> tuple[int, str]:
    """Send a job's drives back: how many, and where the job stands then."""
    with writing() as session:
        returned = return_drives(session, job_id, package, at=LATER, by=Actor.OPERATOR)
        return returned.drives, returned.state


# Coming in.


def test_all_drives_of_the_package_are_received(any_database: str) -> None:
    """Serial numbers compare without case and spaces; each drive and the job have their event."""
    job_id = new_job("WD-1", "WD-2")
    assert look(job_id, "wd-2", " WD -1") == CheckIn(received=2, never_received=0, extra=0)
    assert states(job_id) == ["Received", "Received", "Received"]
    with reading() as session:
        told = events_of(session, job_id, EventKind.DRIVE_MOVED)
        assert {(event.drive_number, event.source, event.target) for event in told} == {
            (1, "Specified", "Received"),
            (2, "Specified", "Received"),
        }
        assert "WD" not in repr([event.model_dump() for event in events_of(session, job_id)])


def test_a_drive_that_did_not_come_with_the_package_was_never_received(any_database: str) -> None:
    """The job goes on without it; looking again changes nothing."""
    job_id = new_job("WD-1", "WD-2")
    for _ in range(2):
        assert look(job_id, "WD-1") == CheckIn(received=1, never_received=1, extra=0)
        assert states(job_id) == ["Received", "Received", "NeverReceived"]


@pytest.mark.parametrize("state", ["Received", "Transferring", "Packaging"])
def test_a_drive_that_turns_up_late_is_taken_in(any_database: str, state: str) -> None:
    """The job stays where it is."""
    job_id = new_job("WD-1", "WD-2")
    look(job_id, "WD-1")
    with writing() as session:
        job = read_job(session, job_id)
        for target in ("Transferring", "Packaging")[: ["Received", "Transferring", "Packaging"].index(state)]:
            move(session, job, JobState(target), at=LATER, by=Actor.SERVICE)
    assert look(job_id, "WD-1", "WD-2") == CheckIn(received=2, never_received=0, extra=0)
    assert states(job_id) == [state, "Received", "Received"]


def test_a_drive_on_no_list_is_recorded_once_and_not_processed(any_database: str) -> None:
    """However often one looks."""
    job_id = new_job("WD-1")
    for _ in range(2):
        assert look(job_id, "WD-1", "STRANGER") == CheckIn(received=1, never_received=0, extra=1)
    assert extras(job_id) == ["STRANGER"]
    assert states(job_id) == ["Received", "Received"]
    with reading() as session:
        assert len(events_of(session, job_id, EventKind.EXTRA_DRIVE_FOUND)) == 1


def test_a_package_of_strangers_alone_is_a_package(any_database: str) -> None:
    """It came, without the drives that were told."""
    job_id = new_job("WD-1")
    assert look(job_id, "STRANGER") == CheckIn(received=0, never_received=1, extra=1)
    assert states(job_id) == ["Received", "NeverReceived"]


def test_drives_of_other_jobs_are_passed_over(any_database: str) -> None:
    """Awaited, here, or extra elsewhere: only what is nobody's is extra."""
    job_id = new_job("WD-1")
    other = new_job("OTHER-1", "OTHER-2", name="other")
    look(other, "other-1", "EXTRA-OF-OTHER")
    assert look(job_id, "WD-1", "OTHER-1", "OTHER-2", "extra-of-other", "NOBODYS") == CheckIn(1, 0, 1)
    assert extras(job_id) == ["NOBODYS"]
    assert states(other) == ["Received", "Received", "NeverReceived"]
    assert extras(other) == ["EXTRA-OF-OTHER"]


def test_a_drive_that_went_back_may_come_again_with_another_job(any_database: str) -> None:
    """The first job keeps its own; the second's list has it."""
    first = new_job("WD-1")
    look(first, "WD-1", "EXTRA-1")
    copy(first, WELL)
    send_back(first)
    second = new_job("WD-1", name="second")
    assert look(second, "WD-1", "EXTRA-1") == CheckIn(received=1, never_received=0, extra=1)
    assert states(first) == ["Completed", "ShippedBack"]


def test_an_empty_bay_is_no_package(any_database: str) -> None:
    """Nor is one with other jobs' drives alone: nothing is marked as never received by mistake."""
    job_id = new_job("WD-1")
    new_job("OTHER-1", name="other")
    for found in ((), ("OTHER-1",)):
        with pytest.raises(BayError, match="mount its package's drives first"):
            look(job_id, *found)
        assert states(job_id) == ["Shipping", "Specified"]
    look(job_id, "WD-1")
    assert look(job_id) == CheckIn(received=1, never_received=0, extra=0), "later on an empty bay says nothing"


def test_the_drives_of_an_export_job_are_made_known(any_database: str) -> None:
    """Received, numbered in order of their names; what comes beyond ten is extra."""
    job_id = new_job(**EXPORT)
    assert look(job_id, "E-2", "E-1") == CheckIn(received=2, never_received=0, extra=0)
    with reading() as session:
        assert [(d.number, d.drive_id) for d in drives_of(session, job_id)] == [(1, "E-1"), (2, "E-2")]
    many = [f"F-{number:02}" for number in range(11)]
    assert look(job_id, "E-1", "E-2", *many) == CheckIn(received=10, never_received=0, extra=3)
    assert look(job_id, "E-1", "E-2", *many) == CheckIn(received=10, never_received=0, extra=3)
    assert states(job_id) == ["Received", *["Received"] * 10]


@pytest.mark.parametrize("name", ["WD 123", "x" * 65, "x\x01"], ids=["white space", "too long", "no XML"])
def test_a_drive_of_an_export_has_a_serial_number_that_its_manifest_can_hold(sqlite: str, name: str) -> None:
    """Else nothing is taken in, and the line does not name it; the extra drive of an import may be called so."""
    export = {"blobList": {"blobPathPrefix": ["/"]}}
    with writing() as session:
        job_id = job_in(session, JobState.SHIPPING, jobType="Export", driveList=None, export=export)
        imported = job_in(session, JobState.SHIPPING, "job2")
    with pytest.raises(BayError, match="1 to 64 characters without white space") as refused, writing() as session:
        check_in(session, job_id, ["E1", name], at=NOON, by=Actor.OPERATOR)
    assert name not in str(refused.value)
    with writing() as session:
        assert drives_of(session, job_id) == []
        assert check_in(session, imported, [name], at=NOON, by=Actor.OPERATOR).extra == 1


def test_a_job_not_yet_shipped_is_not_checked_in(sqlite: str) -> None:
    """Nor one that is gone, nor by a customer."""
    job_id = new_job("WD-1", state="Creating")
    with pytest.raises(JobStateConflictError, match="a Creating job cannot take 'check in'; mark it as shipped"):
        look(job_id, "WD-1")
    with pytest.raises(JobNotFoundError):
        look(uuid4(), "WD-1")
    with pytest.raises(ActorNotAllowedError), writing() as session:
        check_in(session, job_id, ["WD-1"], at=LATER, by=Actor.CUSTOMER)
    assert states(job_id) == ["Creating", "Specified"]


def test_the_drives_of_a_cancelled_job_are_taken_in_and_go_back(any_database: str) -> None:
    """Whether they come before the cancel is carried out or after; only drives move."""
    job_id = new_job("WD-1", "WD-2", cancelled=True)
    look(job_id, "WD-1")
    assert states(job_id) == ["Shipping", "Received", "NeverReceived"]
    with writing() as session:
        finish_cancel(session, job_id, at=LATER)
    expires_at = LATER + timedelta(days=90)
    assert send_back(job_id) == (1, "Completed")
    look(job_id, "WD-1", "WD-2", "STRANGER")
    assert states(job_id) == ["Completed", "ShippedBack", "Received"]
    assert send_back(job_id) == (2, "Completed")
    assert send_back(job_id) == (0, "Completed")
    assert states(job_id) == ["Completed", "ShippedBack", "ShippedBack"]
    with reading() as session:
        assert read_job(session, job_id).expires_at == expires_at
        assert len(events_of(session, job_id, EventKind.MOVED)) == 2


# Going back.


@pytest.mark.parametrize(
    ("found", "ends", "end"),
    [
        (("WD-1", "WD-2"), (WELL, WELL), "Completed"),
        (("WD-1", "WD-2"), (WELL, WARNED), "Completed"),
        (("WD-1", "WD-2"), (WELL, BADLY), "Closed"),
        (("WD-1",), (WELL,), "Closed"),
    ],
    ids=["all well", "with warnings", "with errors", "one never received"],
)
def test_a_job_ends_completed_without_errors_and_closed_with_some(
    any_database: str, found: tuple[str, ...], ends: tuple[tuple[DriveState, DriveStatus], ...], end: str
) -> None:
    """And is kept for 90 days from then; the parcel back is written down."""
    job_id = new_job("WD-1", "WD-2")
    look(job_id, *found)
    copy(job_id, *ends)
    assert send_back(job_id) == (len(found), end)
    back = ["ShippedBack"] * len(found) + ["NeverReceived"] * (2 - len(found))
    assert states(job_id) == [end, *back]
    with reading() as session:
        assert read_job(session, job_id).expires_at == LATER + timedelta(days=90)
        package = session.get(Package, (job_id, Direction.RETURN))
        delivery = session.get(Package, (job_id, Direction.DELIVERY))
    assert package is not None
    assert package.tracking_number == "BACK1"
    assert delivery is not None
    assert delivery.tracking_number == "TRACK1"


def test_a_drive_received_too_late_to_be_copied_goes_back_unopened(any_database: str) -> None:
    """And the job ends Closed on its account."""
    job_id = new_job("WD-1", "WD-2")
    look(job_id, "WD-1")
    copy(job_id, WELL)
    look(job_id, "WD-1", "WD-2")
    assert send_back(job_id) == (2, "Closed")


def test_extra_drives_go_back_with_the_job_once(any_database: str) -> None:
    """Each with an event that does not name it."""
    job_id = new_job("WD-1")
    look(job_id, "WD-1", "STRANGER")
    copy(job_id, WELL)
    assert send_back(job_id, None) == (2, "Completed")
    assert send_back(job_id, None) == (0, "Completed")
    assert extras(job_id) == []
    with reading() as session:
        assert len(events_of(session, job_id, EventKind.EXTRA_DRIVE_SHIPPED_BACK)) == 1
        assert session.get(Package, (job_id, Direction.RETURN)) is None


def test_another_package_overwrites_none_of_a_held_job(any_database: str) -> None:
    """The same may be told again, and none; another one once the job is released."""
    job_id = new_job("WD-1", state="Packaging")
    another = BACK.model_copy(update={"tracking_number": "BACK2"})

    def tracking_number() -> str:
        with reading() as session:
            return session.get_one(Package, (job_id, Direction.RETURN)).tracking_number

    with writing() as session:
        place_hold(session, job_id, HoldReason.AUDIT, at=LATER, by=Actor.OPERATOR)
    for package in (BACK, BACK, None):
        send_back(job_id, package)
    with pytest.raises(JobHeldError):
        send_back(job_id, another)
    assert tracking_number() == "BACK1"
    with writing() as session:
        release_hold(session, job_id, ReleaseReason.MATTER_ENDED, at=LATER, by=Actor.OPERATOR)
    send_back(job_id, another)
    assert tracking_number() == "BACK2"


@pytest.mark.parametrize("state", ["Creating", "Shipping", "Received", "Transferring"])
@pytest.mark.parametrize("cancelled", [False, True])
def test_nothing_goes_back_before_the_copy_is_over(sqlite: str, state: str, cancelled: bool) -> None:
    """Nor of a job that is gone, nor by the service."""
    job_id = new_job("WD-1", state=state, cancelled=cancelled)
    with pytest.raises(JobStateConflictError, match=f"a {state} job cannot take 'return drives'; .+"):
        send_back(job_id)
    with pytest.raises(JobNotFoundError):
        send_back(uuid4())
    with pytest.raises(ActorNotAllowedError), writing() as session:
        return_drives(session, job_id, BACK, at=LATER, by=Actor.SERVICE)
    assert states(job_id) == [state, "Specified"]


# Packages that do not come.


def overdue(at_days: float, rows_max: int = 10) -> list[UUID]:
    """Tell of overdue packages at so many days after NOON."""
    with writing() as session:
        return list(tell_overdue_packages(session, NOON + timedelta(days=at_days), rows_max))


def test_operators_are_told_of_a_package_once_14_days_after_it_was_sent(any_database: str) -> None:
    """A microsecond before, nothing; at the moment, its drives are NeverReceived; never again."""
    job_id = new_job("WD-1", "WD-2")
    microsecond = timedelta(microseconds=1) / timedelta(days=1)
    with writing() as session:
        assert not tell_overdue_packages(session, NOON + timedelta(days=14, microseconds=-1), 10)
    assert states(job_id) == ["Shipping", "Specified", "Specified"]
    assert overdue(14) == [job_id]
    assert states(job_id) == ["Shipping", "NeverReceived", "NeverReceived"]
    assert overdue(14 + microsecond) == overdue(99) == []
    assert look(job_id, "WD-2") == CheckIn(received=1, never_received=1, extra=0)
    assert states(job_id) == ["Received", "NeverReceived", "Received"]


def test_nobody_is_told_of_packages_that_came_or_were_not_sent(any_database: str) -> None:
    """Every other state, and cancelled ones; and no more at a time than asked."""
    for state in [state for state in JobState if state != "Shipping"]:
        new_job("WD-1", state=state, name=f"job-{state}")
    new_job("WD-1", name="cancelled", cancelled=True)
    late = {new_job("WD-2", name=f"late{number}") for number in range(3)}
    first = overdue(14, rows_max=2)
    assert len(first) == 2
    assert {*first, *overdue(14, rows_max=2)} == late
    assert overdue(14) == []


def test_a_cancel_on_the_way_spares_the_alarm(sqlite: str) -> None:
    """Nobody waits for the package any more."""
    job_id = new_job("WD-1")
    with writing() as session:
        request_cancel(session, job_id, at=LATER, by=Actor.CUSTOMER)
    assert overdue(14) == []
    assert states(job_id) == ["Shipping", "Specified"]
