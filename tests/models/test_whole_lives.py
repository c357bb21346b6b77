"""Whole lives of jobs, in any order of acts, against a small model of its own written from the specification."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import delete
from sqlmodel import Session, SQLModel, col, select

from models.bay import check_in, return_drives, tell_overdue_packages
from models.copies import renew_copy_lease, take_copy_lease
from models.copy_logs import DriveStatus
from models.database import reading, writing
from models.deletion import delete_expired_jobs, delete_job, expired_jobs
from models.drives import Drive, drives_of, move_drive
from models.erasure import carry_out_wish, due_erasures, wish_erasure
from models.errors import (
    AddressNeededError,
    BayError,
    CancelAcceptedError,
    CopyHeldElsewhereError,
    DrivepostError,
    JobStateConflictError,
    LeaseLostError,
    MoveNotAllowedError,
    NotReadyToShipError,
    NotYetClosableError,
    PersonalDataErasedError,
    PropertyNotUpdatableError,
)
from models.events import EventKind, JobEvent
from models.jobs import (
    Job,
    close_job,
    finish_cancel,
    move,
    read_job,
    request_cancel,
)
from models.lifecycle import Actor, DriveState, JobState, JobType, Outcome
from models.personal_data import places
from models.receipts import ReceiptEntry, verify_receipts
from models.requests import ReturnPackageShape, UpdateJobBody, parse
from models.runs import JobRun
from models.updates import update_job
from tests.builders import DRIVE, NOON, PACKAGE, job_request, put, rows_of, set_columns

NAMES: Final = st.sampled_from(["a1", "a1", "b2"])
DAY: Final = timedelta(days=1)
MICROSECOND: Final = timedelta(microseconds=1)
LEASE: Final = timedelta(seconds=60)
JUMPS: Final = st.sampled_from([MICROSECOND, timedelta(seconds=59), LEASE, DAY, 14 * DAY, 16 * DAY, 60 * DAY])

# Copied by hand from the specification: sections 3, 5 and 4.
BEFORE_PACKAGING: Final = {"Creating", "Shipping", "Received", "Transferring"}
UPDATED_IN: Final = {
    "logLevel": BEFORE_PACKAGING,
    "backupDriveManifest": BEFORE_PACKAGING,
    "deliveryPackage": {"Creating", "Shipping"},
    "driveList": {"Creating"},
    "tags": {*BEFORE_PACKAGING, "Packaging", "Completed", "Closed"},
}
ON_SITE: Final = {"Received", "Completed", "CompletedMoreInfo", "Transferring"}
ENDS: Final = {"Completed", "Closed"}

USER: Final = UUID("77777777-1234-4321-8888-999999999999")
RETURN_PACKAGE: Final = ReturnPackageShape(
    carrier_name="UPS", tracking_number="BACK1", drive_count=2, ship_date="2026-06-20"
)
PERSONAL: Final = {
    table: [place.column for place in places(SQLModel.metadata) if place.table == table.name]
    for table in SQLModel.metadata.sorted_tables
    if "job_id" in table.c and any(place.table == table.name for place in places(SQLModel.metadata))
}
"""Tables of jobs with personal data, and which of their columns hold it."""


@dataclass
class Life:
    """What the specification says of one job."""

    job_id: UUID
    state: str
    entered: datetime
    updated: datetime
    drives: list[str]
    has_package: bool
    cancelled: bool = False
    is_overdue_told: bool = False
    had_errors: bool = False
    token: int = 0
    lease_until: datetime | None = None
    wished: datetime | None = None
    erased: datetime | None = None
    path: list[str] = field(default_factory=lambda: ["Creating"])

    def enter(self, state: str, at: datetime) -> None:
        """Move on."""
        self.state, self.entered = state, at
        self.path.append(state)
        if state not in {"Received", "Transferring"}:
            self.lease_until = None

    @property
    def expires_at(self) -> datetime | None:
        """When the service deletes it."""
        if self.state in {"Completed", "Closed"}:
            return self.entered + 90 * DAY
        return self.updated + 14 * DAY if self.state == "Creating" and not self.cancelled else None

    def needs_address(self, at: datetime) -> bool:
        """Whether drives are still to go back: section 6."""
        if self.state not in ENDS or any(state in ON_SITE for state in self.drives):
            return True
        is_awaited = "Shipping" in self.path and "Specified" in self.drives
        return is_awaited and at < self.entered + 14 * DAY

    def is_to_be_erased(self, at: datetime) -> bool:
        """Whether a wish is to be carried out."""
        return self.wished is not None and self.erased is None and not self.needs_address(at)


class WholeLives(RuleBasedStateMachine):
    """Acts in any order; what each gives, and what is there afterwards, is as the model of the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.lives: dict[str, Life] = {}
        self.gone: list[UUID] = []
        self.receipts: list[tuple[UUID, str, str, datetime, datetime]] = []
        self.changes = 0
        with writing() as session:
            session.connection().execute(delete(Job))
            session.connection().execute(delete(JobRun))

    def do(self, act: Callable[[Session], Any], refusal: type[DrivepostError] | None = None) -> Any:
        """Act in one transaction; where the model expects a refusal, it must be that one."""
        self.now += MICROSECOND
        if refusal is None:
            with writing() as session:
                return act(session)
        with pytest.raises(refusal) as refused, writing() as session:
            act(session)
        assert refused.type is refusal
        return None

    def forget(self, name: str) -> None:
        """The job is gone."""
        self.gone.append(self.lives.pop(name).job_id)

    @rule(name=NAMES, has_package=st.sampled_from([True, True, True, False]))
    def put(self, name: str, has_package: bool) -> None:
        """Create, or replace while Creating."""
        drives = [{**DRIVE, "driveId": f"{name}-{number}"} for number in range(2)]
        request = job_request(name, driveList=drives, deliveryPackage=PACKAGE if has_package else None)
        life = self.lives.get(name)
        refusal: type[DrivepostError] | None = None
        if life is not None and life.state != "Creating":
            refusal = JobStateConflictError
        elif life is not None and life.cancelled:
            refusal = CancelAcceptedError
        job_id = self.do(lambda session: put(session, request, self.now), refusal)
        if refusal:
            return
        if life is None:
            assert job_id not in self.gone
            with writing() as session:
                set_columns(session, job_id, user_id=USER)
            life = Life(job_id, "Creating", self.now, self.now, ["Specified"] * 2, has_package)
            self.lives[name] = life
        assert job_id == life.job_id
        life.updated, life.has_package, life.drives = self.now, has_package, ["Specified"] * 2

    def patch(self, life: Life, body: dict[str, Any], refusal: type[DrivepostError] | None) -> Any:
        """Update as a customer does."""
        parsed = parse(UpdateJobBody, json.dumps(body))
        return self.do(
            lambda session: update_job(session, life.job_id, parsed, at=self.now, by=Actor.CUSTOMER), refusal
        )

    @rule(name=NAMES)
    def ship(self, name: str) -> None:
        """The customer says so."""
        if not (life := self.lives.get(name)):
            return
        refusal: type[DrivepostError] | None = None
        if life.state not in {"Creating", "Shipping"}:
            refusal = JobStateConflictError
        elif life.state == "Creating" and life.cancelled:
            refusal = CancelAcceptedError
        elif life.state == "Creating" and not life.has_package:
            refusal = NotReadyToShipError
        outcome = self.patch(life, {"properties": {"state": "Shipping", "cancelRequested": False}}, refusal)
        if refusal is None:
            assert outcome is (Outcome.DONE if life.state == "Creating" else Outcome.NOTHING_TO_DO)
            if life.state == "Creating":
                life.enter("Shipping", self.now)

    @rule(name=NAMES, what=st.sampled_from(sorted(UPDATED_IN)))
    def update(self, name: str, what: str) -> None:
        """Change one property to what it never was."""
        if not (life := self.lives.get(name)):
            return
        self.changes += 1
        with reading() as session:
            job = read_job(session, life.job_id)
        value: Any = {
            "logLevel": "Verbose" if job.log_level == "Error" else "Error",
            "backupDriveManifest": not job.backup_drive_manifest,
            "deliveryPackage": {**PACKAGE, "trackingNumber": f"TRACK{self.changes}x"},
            "driveList": [
                {**DRIVE, "driveId": f"{name}-{number}", "manifestFile": f"m{self.changes}"} for number in range(2)
            ],
            "tags": {"change": str(self.changes)},
        }[what]
        may = life.state in UPDATED_IN[what]
        body = {"tags": value} if what == "tags" else {"properties": {what: value}}
        # What a client sends by default with every update undoes nothing, and is nowhere refused.
        is_default = what == "backupDriveManifest" and value is False and not may
        outcome = self.patch(life, body, None if may or is_default else PropertyNotUpdatableError)
        if is_default:
            assert outcome is Outcome.NOTHING_TO_DO
        if may:
            assert outcome is Outcome.DONE
            life.updated = self.now
            life.has_package |= what == "deliveryPackage"

    @rule(name=NAMES)
    def cancel(self, name: str) -> None:
        """Ask for a cancel, first or again."""
        if not (life := self.lives.get(name)):
            return
        refused = life.state not in BEFORE_PACKAGING and not life.cancelled
        outcome = self.do(
            lambda session: request_cancel(session, life.job_id, at=self.now, by=Actor.CUSTOMER),
            JobStateConflictError if refused else None,
        )
        if not refused:
            assert outcome is (Outcome.NOTHING_TO_DO if life.cancelled else Outcome.DONE)
            life.cancelled = True

    @rule(name=NAMES)
    def finish_cancel(self, name: str) -> None:
        """Carry the cancel out, when the copy has stopped and its drives with it."""
        if not (life := self.lives.get(name)):
            return

        def act(session: Session) -> Outcome:
            for drive in drives_of(session, life.job_id):
                if drive.state is DriveState.TRANSFERRING:
                    move_drive(session, drive, DriveState.COMPLETED_MORE_INFO, at=self.now, by=Actor.SERVICE)
            return finish_cancel(session, life.job_id, at=self.now)

        outcome = self.do(act, None if life.cancelled else JobStateConflictError)
        if life.cancelled:
            life.drives = ["CompletedMoreInfo" if state == "Transferring" else state for state in life.drives]
            assert outcome is (Outcome.NOTHING_TO_DO if life.state == "Completed" else Outcome.DONE)
            if life.state != "Completed":
                life.enter("Completed", self.now)

    @rule(name=NAMES, found=st.sampled_from([(0, 1), (0,), (1,), ()]))
    def check_in(self, name: str, found: tuple[int, ...]) -> None:
        """Look into the bay."""
        if not (life := self.lives.get(name)):
            return
        refusal: type[DrivepostError] | None = None
        if life.state == "Creating":
            refusal = JobStateConflictError
        elif life.erased is not None:
            refusal = PersonalDataErasedError
        elif life.state == "Shipping" and not found:
            refusal = BayError
        serials = [f"{name.upper()}-{number}" for number in found]
        self.do(lambda s: check_in(s, life.job_id, serials, at=self.now, by=Actor.OPERATOR), refusal)
        if refusal:
            return
        for number, state in enumerate(life.drives):
            if number in found and state in {"Specified", "NeverReceived"}:
                life.drives[number] = "Received"
            elif state == "Specified" and life.state == "Shipping":
                life.drives[number] = "NeverReceived"
        if life.state == "Shipping" and not life.cancelled:
            life.enter("Received", self.now)

    @rule(name=NAMES)
    def begin_copy(self, name: str) -> None:
        """Take the lease, and begin with the first drive."""
        if not (life := self.lives.get(name)):
            return
        refusal: type[DrivepostError] | None = None
        if life.state in {"Creating", "Shipping"}:
            refusal = JobStateConflictError
        elif life.state in {"Received", "Transferring"} and life.cancelled:
            refusal = CancelAcceptedError
        elif life.lease_until is not None and life.lease_until > self.now + MICROSECOND:
            refusal = CopyHeldElsewhereError
        token = self.do(self._begin_copy(life), refusal)
        if refusal:
            return
        if life.state not in {"Received", "Transferring"}:
            assert token is None
            return
        life.token += 1
        assert token == life.token
        if life.state == "Received":
            life.enter("Transferring", self.now)
        life.lease_until = self.now + LEASE
        life.drives = ["Transferring" if state == "Received" else state for state in life.drives]

    def _begin_copy(self, life: Life) -> Callable[[Session], int | None]:
        def act(session: Session) -> int | None:
            seconds = LEASE.total_seconds()
            token = take_copy_lease(
                session, life.job_id, seconds=seconds, at=self.now, by=Actor.SERVICE, job_type=JobType.IMPORT
            )
            if token is None:
                return None
            job = read_job(session, life.job_id)
            if job.state is JobState.RECEIVED:
                move(session, job, JobState.TRANSFERRING, at=self.now, by=Actor.SERVICE)
            for drive in drives_of(session, life.job_id):
                if drive.state is DriveState.RECEIVED:
                    move_drive(session, drive, DriveState.TRANSFERRING, at=self.now, by=Actor.SERVICE)
            return token

        return act

    @rule(name=NAMES, behind=st.integers(0, 2))
    def write_copy(self, name: str, behind: int) -> None:
        """Write with the newest token, or with an older one."""
        if not (life := self.lives.get(name)):
            return
        is_holder = behind == 0 and life.state in {"Received", "Transferring"}
        self.do(
            lambda session: renew_copy_lease(
                session, life.job_id, life.token - behind, seconds=LEASE.total_seconds(), at=self.now
            ),
            None if is_holder else LeaseLostError,
        )
        if is_holder:
            life.lease_until = self.now + LEASE

    @rule(name=NAMES, errors=st.booleans())
    def pack(self, name: str, errors: bool) -> None:
        """The last byte is written: drives are done, and the job is to be packed."""
        if not (life := self.lives.get(name)):
            return
        refusal: type[DrivepostError] | None = None
        if life.state != "Transferring":
            refusal = MoveNotAllowedError
        elif life.cancelled:
            refusal = CancelAcceptedError
        end = DriveState.COMPLETED_MORE_INFO if errors else DriveState.COMPLETED
        status = DriveStatus.COMPLETED_WITH_ERRORS if errors else DriveStatus.COMPLETED

        def act(session: Session) -> None:
            for drive in drives_of(session, life.job_id):
                if drive.state is DriveState.TRANSFERRING:
                    move_drive(session, drive, end, at=self.now, by=Actor.SERVICE)
                    drive.copy_status = status
            job = read_job(session, life.job_id)
            move(session, job, JobState.PACKAGING, at=self.now, by=Actor.SERVICE)

        self.do(act, refusal)
        if refusal is None:
            life.had_errors = errors or any(state != "Transferring" for state in life.drives)
            life.drives = [str(end) if state == "Transferring" else state for state in life.drives]
            life.enter("Packaging", self.now)

    @rule(name=NAMES, has_package=st.booleans())
    def return_drives(self, name: str, has_package: bool) -> None:
        """Send the drives back; what was wished to be erased then, is."""
        if not (life := self.lives.get(name)):
            return
        refusal: type[DrivepostError] | None = None
        if life.state in BEFORE_PACKAGING:
            refusal = JobStateConflictError
        elif has_package and life.erased is not None:
            refusal = PersonalDataErasedError
        package = RETURN_PACKAGE if has_package else None
        returned = self.do(
            lambda session: return_drives(session, life.job_id, package, at=self.now, by=Actor.OPERATOR), refusal
        )
        if refusal:
            return
        assert returned.drives == sum(state in ON_SITE for state in life.drives)
        if life.state == "Packaging":
            life.enter("Closed" if life.had_errors else "Completed", self.now)
        life.drives = ["ShippedBack" if state in ON_SITE else state for state in life.drives]
        assert returned.state == life.state
        if life.is_to_be_erased(self.now):
            self.erase(life)

    def erase(self, life: Life) -> None:
        """The personal data of a job is gone."""
        life.erased, life.wished = self.now, life.wished or self.now
        self.receipts.append((life.job_id, "personal data of a job", "wish", life.wished, self.now))

    @rule(name=NAMES, at_once=st.sampled_from([False, False, True]))
    def wish_erasure(self, name: str, at_once: bool) -> None:
        """Be forgotten: now, or when the drives are back."""
        if not (life := self.lives.get(name)):
            return
        needed = life.needs_address(self.now + MICROSECOND)
        refusal: type[DrivepostError] | None = None
        if life.state == "Creating":
            refusal = JobStateConflictError
        elif life.erased is None and needed and at_once:
            refusal = AddressNeededError
        outcome = self.do(
            lambda s: wish_erasure(s, life.job_id, at=self.now, by=Actor.OPERATOR, at_once=at_once), refusal
        )
        if refusal:
            return
        if life.erased is not None or (needed and life.wished is not None):
            assert outcome is Outcome.NOTHING_TO_DO
        elif needed:
            assert outcome is Outcome.WISHED
            life.wished = self.now
        else:
            assert outcome is Outcome.DONE
            self.erase(life)

    @rule()
    def carry_out_wishes(self) -> None:
        """The clock finds wishes whose time has come, and no others."""
        for life in list(self.lives.values()):
            is_due = life.is_to_be_erased(self.now + MICROSECOND)
            assert self.do(self._carry_out(life)) == (is_due, is_due)
            if is_due:
                self.erase(life)

    def _carry_out(self, life: Life) -> Callable[[Session], tuple[bool, bool]]:
        def act(session: Session) -> tuple[bool, bool]:
            found = life.job_id in due_erasures(session, self.now, 100)
            return found, carry_out_wish(session, read_job(session, life.job_id, lock=True), at=self.now)

        return act

    @rule(name=NAMES)
    def close(self, name: str) -> None:
        """An operator closes what was not answered."""
        if not (life := self.lives.get(name)):
            return
        refusal: type[DrivepostError] | None = None
        if life.state not in {"Shipping", "Closed"}:
            refusal = JobStateConflictError
        elif life.cancelled:
            refusal = CancelAcceptedError
        elif life.state == "Shipping" and self.now + MICROSECOND < life.entered + 30 * DAY:
            refusal = NotYetClosableError
        self.do(lambda session: close_job(session, life.job_id, at=self.now, by=Actor.OPERATOR), refusal)
        if refusal is None and life.state == "Shipping":
            life.enter("Closed", self.now)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        """Delete by hand."""
        if not (life := self.lives.get(name)):
            return
        may = life.state in {"Creating", "Completed"}
        self.do(
            lambda session: delete_job(session, life.job_id, at=self.now, by=Actor.CUSTOMER),
            None if may else JobStateConflictError,
        )
        if may:
            self.receipts.append((life.job_id, "job", "by hand", self.now, self.now))
            self.forget(name)

    @rule(name=NAMES, errors=st.booleans())
    def go_on(self, name: str, errors: bool) -> None:
        """The ordinary next step, so that lives come to their ends and not only to their middles."""
        life = self.lives.get(name)
        if life is None:
            self.put(name, has_package=True)
        elif life.state == "Creating":
            self.ship(name)
        elif life.state == "Shipping":
            self.check_in(name, found=(0, 1))
        elif life.state == "Received":
            self.begin_copy(name)
        elif life.state == "Transferring":
            self.pack(name, errors=errors)
        else:
            self.return_drives(name, has_package=errors)

    @rule(name=NAMES, state=st.sampled_from(["Received", "Transferring", "Transferring", "Packaging"]))
    def come_to(self, name: str, state: str) -> None:
        """As many ordinary steps as lead there, if any do."""
        beyond = ENDS if state in ENDS else ENDS | {"Packaging"}
        for _ in range(6):
            life = self.lives.get(name)
            if life is not None and (life.state == state or life.cancelled or life.state in beyond):
                return
            self.go_on(name, errors=False)

    @rule(name=NAMES, state=st.sampled_from(["Shipping", "Transferring", "Packaging", "Completed"]))
    def wish_and_come_to_the_end(self, name: str, state: str) -> None:
        """A wish from somewhere on the way, or from the end itself, and who has not heard of it."""
        self.come_to(name, state)
        self.wish_erasure(name, at_once=False)
        self.come_to(name, "Completed")
        self.check_in(name, found=(0,))

    @rule(name=NAMES, before=st.sampled_from([timedelta(0), MICROSECOND, 2 * MICROSECOND]))
    def wish_and_cancel_before_the_package_came(self, name: str, before: timedelta) -> None:
        """The 14 days in which it may still come, and their end."""
        self.come_to(name, "Shipping")
        self.wish_erasure(name, at_once=False)
        self.cancel(name)
        self.finish_cancel(name)
        self.let_time_pass_to_the_brink(name, before=before, first=True)
        self.carry_out_wishes()

    @rule(name=NAMES)
    def cancel_and_go_on(self, name: str) -> None:
        """A cancel, and who has not heard of it."""
        self.cancel(name)
        self.go_on(name, errors=False)

    @rule(jump=JUMPS)
    def let_time_pass(self, jump: timedelta) -> None:
        """Nothing happens by itself."""
        self.now += jump

    @rule(name=NAMES, before=st.sampled_from([timedelta(0), MICROSECOND, 2 * MICROSECOND]), first=st.booleans())
    def let_time_pass_to_the_brink(self, name: str, before: timedelta, first: bool) -> None:
        """To where an act, which takes a microsecond, comes just in time or just too early."""
        life = self.lives.get(name)
        if life is None:
            return
        brinks = [life.entered + 14 * DAY] if life.state in ENDS and first else [life.expires_at]
        self.now = max([self.now, *(brink - before for brink in brinks if brink is not None)])

    @rule()
    def sweep(self) -> None:
        """The service deletes what is due, and that alone."""
        at = self.now + MICROSECOND
        due = {name for name, life in self.lives.items() if life.expires_at and life.expires_at <= at}
        with reading() as session:
            listed = expired_jobs(session, at, 100)
        deleted = self.do(lambda session: delete_expired_jobs(session, at, 100))
        assert list(listed) == list(deleted)
        assert {expired.job_id for expired in deleted} == {self.lives[name].job_id for name in due}
        for name in sorted(due, key=lambda name: str(self.lives[name].expires_at)):
            life = self.lives[name]
            reason = "expiry" if life.state == "Creating" else "retention"
            assert life.expires_at is not None
            self.receipts.append((life.job_id, "job", reason, life.expires_at, at))
            self.forget(name)

    @rule()
    def tell_overdue(self) -> None:
        """Operators hear of packages that did not come, once."""
        at = self.now + MICROSECOND
        late = [
            life
            for life in self.lives.values()
            if life.state == "Shipping"
            and not life.cancelled
            and not life.is_overdue_told
            and life.entered + 14 * DAY <= at
        ]
        told = self.do(lambda session: tell_overdue_packages(session, at, 100))
        assert set(told) == {life.job_id for life in late}
        for life in late:
            life.is_overdue_told = True
            life.drives = ["NeverReceived" if state == "Specified" else state for state in life.drives]

    @invariant()
    def the_rows_are_as_the_specification_says(self) -> None:
        """States, moments, drives, lease, and an event for each change of state."""
        with reading() as session:
            jobs = {job.name: job for job in session.exec(select(Job))}
            assert set(jobs) == set(self.lives)
            for name, life in self.lives.items():
                job = jobs[name]
                assert (job.id, job.state, job.state_since) == (life.job_id, life.state, life.entered)
                assert (job.expires_at, job.cancel_requested) == (life.expires_at, life.cancelled)
                assert (job.copy_token, job.copy_lease_until) == (life.token, life.lease_until)
                assert (job.erasure_wished_at, job.erased_at) == (life.wished, life.erased)
                moved = session.exec(
                    select(JobEvent.source, JobEvent.target, JobEvent.at)
                    .where(col(JobEvent.job_id) == life.job_id, col(JobEvent.kind) == EventKind.MOVED)
                    .order_by(col(JobEvent.number))
                ).all()
                assert [(source, target) for source, target, _ in moved] == list(pairwise(life.path))
                assert not moved or moved[-1][2] == life.entered
                drives = session.exec(
                    select(Drive.state).where(col(Drive.job_id) == life.job_id).order_by(col(Drive.number))
                ).all()
                assert list(drives) == life.drives

    @invariant()
    def a_cancelled_job_goes_to_completed_alone(self) -> None:
        """Never Packaging, never Closed, whatever came first."""
        with reading() as session:
            wrong = select(Job.id).where(
                col(Job.cancel_requested_at).is_not(None),
                col(Job.state).in_([JobState.PACKAGING, JobState.CLOSED]),
            )
            assert session.exec(wrong).all() == []

    @invariant()
    def personal_data_is_there_until_it_is_erased(self) -> None:
        """Then no query gives any of it; before, every drive has its number, and the job its address and user."""
        with reading() as session:
            for name, life in self.lives.items():
                told = {
                    table.name: session.connection().execute(
                        select(*(table.c[column] for column in columns)).where(table.c["job_id"] == life.job_id)
                    )
                    for table, columns in PERSONAL.items()
                }
                found = {table: [value for row in rows for value in row if value] for table, rows in told.items()}
                user = read_job(session, life.job_id).user_id
                if life.erased is not None:
                    assert (user, {table for table, values in found.items() if values}) == (None, set())
                else:
                    assert user == USER
                    assert sorted(found["drive"]) == [f"{name}-{number}" for number in range(2)]
                    assert "Ada Example" in found["return_address"]
                    assert found["return_shipping"] == ["ACCOUNT1"]
                    assert bool(found["package"]) >= life.has_package

    @invariant()
    def a_deleted_job_leaves_no_row(self) -> None:
        """In no table."""
        with reading() as session:
            for job_id in self.gone[-2:]:
                assert not any(rows_of(session, job_id).values())

    def teardown(self) -> None:
        """In the end there is one receipt for each deletion and each erasure, and their chain is whole."""
        with reading() as session:
            assert verify_receipts(session).faults == ()
            ours = {opaque_id for opaque_id, *_ in self.receipts} | {life.job_id for life in self.lives.values()}
            entries = session.exec(select(ReceiptEntry).order_by(col(ReceiptEntry.number))).all()
        told = [(e.opaque_id, e.subject, e.reason, e.due_at, e.at) for e in entries if e.opaque_id in ours]
        assert told == self.receipts


def test_whole_lives_are_as_the_specification_says(any_database: str, thorough: bool) -> None:
    """Any order of acts, on both databases."""
    effort = settings(
        max_examples=300 if thorough else 15,
        stateful_step_count=60 if thorough else 35,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(WholeLives, settings=effort)
