"""What is said of a job's abilities is so: over whole lives, before each act, nothing contradicts it."""

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import pytest
from sqlmodel import Session

from models.abilities import Abilities, abilities_of
from models.bay import check_in, return_drives, tell_overdue_packages
from models.copies import renew_copy_lease, take_copy_lease
from models.copy_logs import DriveStatus
from models.database import writing
from models.deletion import delete_expired_jobs, delete_job, expired_jobs
from models.drives import drives_of, move_drive
from models.erasure import carry_out_wish, wish_erasure
from models.errors import (
    BayError,
    CancelAcceptedError,
    DrivepostError,
    JobError,
    JobNotFoundError,
    JobStateConflictError,
)
from models.jobs import close_job, find_job, finish_cancel, move, read_job, read_named_job, request_cancel
from models.lifecycle import Actor, DriveState, JobState, JobType, Outcome
from models.requests import ReturnPackageShape, UpdateJobBody, parse
from models.updates import update_job
from tests.builders import DRIVE, NOON, PACKAGE, job_in, job_request, put

DAY: Final = timedelta(days=1)
MICROSECOND: Final = timedelta(microseconds=1)
LEASE: Final = timedelta(seconds=60)
STEPS_OF_A_TRANSACTION: Final = 40

# Copied by hand from the specification, sections 2 to 4: state -> cancellable, deletable, kept for so many days.
SAID: Final[dict[str, tuple[bool, bool, int | None]]] = {
    "Creating": (True, True, 14),
    "Shipping": (True, False, None),
    "Received": (True, False, None),
    "Transferring": (True, False, None),
    "Packaging": (False, False, None),
    "Completed": (False, True, 90),
    "Closed": (False, False, 90),
}
# The same where a cancel was accepted: it cannot be accepted anew, and what is not over yet does not expire.
SAID_AFTER_A_CANCEL: Final[dict[str, tuple[bool, bool, int | None]]] = {
    "Creating": (False, True, None),
    "Shipping": (False, False, None),
    "Received": (False, False, None),
    "Transferring": (False, False, None),
    "Completed": (False, True, 90),
}
CASES: Final = [(state, False, *said) for state, said in SAID.items()] + [
    (state, True, *said) for state, said in SAID_AFTER_A_CANCEL.items()
]
RETURN_PACKAGE: Final = ReturnPackageShape(
    carrier_name="UPS", tracking_number="BACK1", drive_count=2, ship_date="2026-06-20"
)

NAMES: Final = ("a1", "b2", "c3")
FORTH: Final = {
    JobState.CREATING: "ship",
    JobState.SHIPPING: "check in",
    JobState.RECEIVED: "begin copy",
    JobState.TRANSFERRING: "pack",
    JobState.PACKAGING: "return drives",
}
"""The ordinary next act in each state."""

OFTEN: Final = {
    "put": 1.0,
    "update": 1.0,
    "ship": 1.0,
    "cancel": 0.7,
    "cancel by update": 1.0,
    "finish cancel": 1.5,
    "check in": 1.0,
    "begin copy": 1.0,
    "write copy": 0.5,
    "pack": 1.0,
    "return drives": 1.0,
    "close": 1.5,
    "overdue": 0.5,
    "wish": 0.5,
    "carry out wish": 0.5,
    "delete": 0.3,
    "sweep": 1.0,
    "leap": 2.0,
}
"""Every act, and how often it is chosen beside the others."""


@pytest.mark.parametrize(("state", "cancelled", "cancellable", "deletable", "days"), CASES)
def test_a_job_says_what_the_specification_says_of_its_state(
    sqlite: str, state: str, cancelled: bool, cancellable: bool, deletable: bool, days: int | None
) -> None:
    """Each state, and each that a cancelled job can be in."""
    with writing() as session:
        job_id = job_in(session, JobState(state), cancelled=cancelled)
        told = abilities_of(read_job(session, job_id))
    assert told == Abilities(cancellable, deletable, None if days is None else NOON + days * DAY)


@pytest.mark.parametrize(("state", "cancelled"), [case[:2] for case in CASES])
def test_no_ability_of_any_state_is_contradicted(any_database: str, state: str, cancelled: bool) -> None:
    """Every state a job can be in, tried out one by one."""
    with writing() as session:
        job_id = job_in(session, JobState(state), cancelled=cancelled)
        told = abilities_of(read_job(session, job_id))
        assert told == tried(session, job_id, told.expires_at, NOON + DAY)


def would(session: Session, act: Callable[[], object]) -> object:
    """Act and take it back; gives what it returned, or the refusal."""
    savepoint = session.begin_nested()
    try:
        outcome = act()
        session.flush()
    except DrivepostError as refusal:
        outcome = refusal
    savepoint.rollback()
    session.expunge_all()
    return outcome


def tried(session: Session, job_id: UUID, expected: datetime | None, now: datetime) -> Abilities:
    """Find a job's abilities by trying: ask for the cancel, delete it, and let the service look for it.

    Args:
        session: a session that writes; nothing stays of what is tried.
        job_id: the job.
        expected: when the service is said to delete it, and when it is therefore looked for.
        now: the moment of what is tried.

    Returns:
        What may be done. `expires_at` is `expected` only if the service finds the job at that moment and not a
        microsecond before; for None, only if it does not find it in a century either.
    """
    cancel = would(session, lambda: request_cancel(session, job_id, at=now, by=Actor.CUSTOMER))
    assert cancel in {Outcome.DONE, Outcome.NOTHING_TO_DO} or isinstance(cancel, JobStateConflictError), cancel

    deletion = would(session, lambda: delete_job(session, job_id, at=now, by=Actor.CUSTOMER))
    assert deletion is None or isinstance(deletion, JobStateConflictError | CancelAcceptedError), deletion

    def is_found(at: datetime) -> bool:
        return job_id in {expired.job_id for expired in expired_jobs(session, at, 100)}

    if expected is None:
        assert not is_found(now + 36_500 * DAY), "it does not expire, and would be deleted"
    else:
        assert not is_found(expected - MICROSECOND), "it would be deleted before its time"
        assert is_found(expected), "its time is over, and it would stay"
    return Abilities(cancel is Outcome.DONE, deletion is None, expected)


@dataclass
class Walk:
    """A walk over whole lives of a few jobs: an act by chance, and before it a look at what is said.

    Attributes:
        dice: what chooses.
        now: the clock, which goes on by a microsecond with each act and with leaps between them.
        steps: acts so far, refused ones as well.
        seen: how often a job was looked at in each state, with and without a cancel.
        done: how often each act was not refused.
    """

    dice: random.Random
    now: datetime = NOON
    steps: int = 0
    seen: Counter[tuple[str, bool]] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)

    def step(self, session: Session) -> None:
        """Look at a job, try out what is said of it, then act on it; look whether the act bears it out."""
        self.steps += 1
        self.now += MICROSECOND
        name = self.dice.choice(NAMES)
        try:
            job = read_named_job(session, "s1", "g1", name)
        except JobNotFoundError:
            self.put(session, name)
            return
        job_id, state, cancelled, told = job.id, job.state, job.cancel_requested, abilities_of(job)
        session.expunge_all()
        self.seen[state, cancelled] += 1
        assert told == tried(session, job_id, told.expires_at, self.now), (state, cancelled)
        kind = self.chosen(state, cancelled)
        outcome = self.act(session, kind, name, job_id)
        is_over = told.expires_at is not None and told.expires_at <= self.now
        match kind:
            case "cancel":
                assert (outcome is Outcome.DONE) is told.is_cancellable
            case "delete":
                assert self.is_gone(session, job_id) is told.is_deletable
            case "sweep":
                assert self.is_gone(session, job_id) is is_over

    def act(self, session: Session, kind: str, name: str, job_id: UUID) -> object:
        """Act, all of it or nothing; gives what came of it, or the refusal."""
        acts: dict[str, Callable[[], object]] = {
            "put": lambda: self.put(session, name),
            "update": lambda: self.update(session, job_id, self.change()),
            "ship": lambda: self.update(session, job_id, {"properties": {"state": "Shipping"}}),
            "cancel": lambda: request_cancel(session, job_id, at=self.now, by=Actor.CUSTOMER),
            "cancel by update": lambda: self.update(session, job_id, {"properties": {"cancelRequested": True}}),
            "finish cancel": lambda: self.finish_cancel(session, job_id),
            "check in": lambda: self.check_in(session, name, job_id),
            "begin copy": lambda: self.begin_copy(session, job_id),
            "write copy": lambda: renew_copy_lease(
                session, job_id, read_job(session, job_id).copy_token, seconds=60, at=self.now
            ),
            "pack": lambda: self.pack(session, job_id),
            "return drives": lambda: return_drives(
                session, job_id, self.dice.choice([None, RETURN_PACKAGE]), at=self.now, by=Actor.OPERATOR
            ),
            "close": lambda: close_job(session, job_id, at=self.now, by=Actor.OPERATOR),
            "overdue": lambda: tell_overdue_packages(session, self.now, 100),
            "wish": lambda: wish_erasure(session, job_id, at=self.now, by=Actor.OPERATOR),
            "carry out wish": lambda: carry_out_wish(session, read_job(session, job_id, lock=True), at=self.now),
            "delete": lambda: delete_job(session, job_id, at=self.now, by=Actor.CUSTOMER),
            "sweep": lambda: delete_expired_jobs(session, self.now, 100),
            "leap": lambda: self.leap(session, job_id),
        }
        try:
            with session.begin_nested():
                outcome = acts[kind]()
        except (JobError, BayError) as refusal:
            session.expunge_all()
            return refusal
        session.expunge_all()
        self.done[kind] += 1
        return outcome

    def chosen(self, state: JobState, cancelled: bool) -> str:
        """Choose an act: any, or the ordinary next one, so that lives come to their ends."""
        if self.dice.random() < 0.4 and not cancelled and state in FORTH:
            return FORTH[state]
        return self.dice.choices([*OFTEN], [*OFTEN.values()])[0]

    def is_gone(self, session: Session, job_id: UUID) -> bool:
        """Tell whether a job is there no more."""
        try:
            return find_job(session, str(job_id)) != job_id
        except JobNotFoundError:
            return True

    def put(self, session: Session, name: str) -> UUID:
        """Create it, or replace it; now and then without a package."""
        drives = [{**DRIVE, "driveId": f"{name}-{number}"} for number in range(2)]
        package = self.dice.choice([PACKAGE, PACKAGE, None])
        return put(session, job_request(name, driveList=drives, deliveryPackage=package), self.now)

    def update(self, session: Session, job_id: UUID, body: dict[str, Any]) -> Outcome:
        """Update it as a customer does."""
        parsed = parse(UpdateJobBody, json.dumps(body))
        return update_job(session, job_id, parsed, at=self.now, by=Actor.CUSTOMER)

    def change(self) -> dict[str, Any]:
        """Give a body that changes one property, or nothing."""
        return self.dice.choice(
            [
                {"tags": {"step": str(self.steps)}},
                {"properties": {"logLevel": self.dice.choice(["Error", "Verbose"])}},
                {"properties": {"deliveryPackage": {**PACKAGE, "trackingNumber": f"TRACK{self.steps}"}}},
                {"properties": {"state": "", "cancelRequested": False}},
            ]
        )

    def finish_cancel(self, session: Session, job_id: UUID) -> Outcome:
        """Carry a cancel out, when the copy has stopped and its drives with it."""
        for drive in drives_of(session, job_id):
            if drive.state is DriveState.TRANSFERRING:
                move_drive(session, drive, DriveState.COMPLETED_MORE_INFO, at=self.now, by=Actor.SERVICE)
        return finish_cancel(session, job_id, at=self.now)

    def check_in(self, session: Session, name: str, job_id: UUID) -> None:
        """Find some of its drives in the bay."""
        found = self.dice.choice([(0, 1), (0, 1), (1,), ()])
        check_in(session, job_id, [f"{name}-{number}" for number in found], at=self.now, by=Actor.OPERATOR)

    def begin_copy(self, session: Session, job_id: UUID) -> None:
        """Take the lease, and begin with every drive that is here."""
        if (
            take_copy_lease(session, job_id, seconds=60, at=self.now, by=Actor.SERVICE, job_type=JobType.IMPORT)
            is None
        ):
            return
        job = read_job(session, job_id)
        if job.state is JobState.RECEIVED:
            move(session, job, JobState.TRANSFERRING, at=self.now, by=Actor.SERVICE)
        for drive in drives_of(session, job_id):
            if drive.state is DriveState.RECEIVED:
                move_drive(session, drive, DriveState.TRANSFERRING, at=self.now, by=Actor.SERVICE)

    def pack(self, session: Session, job_id: UUID) -> None:
        """The last byte is written, now and then with errors."""
        errors = self.dice.random() < 0.3
        end = DriveState.COMPLETED_MORE_INFO if errors else DriveState.COMPLETED
        for drive in drives_of(session, job_id):
            if drive.state is DriveState.TRANSFERRING:
                move_drive(session, drive, end, at=self.now, by=Actor.SERVICE)
                drive.copy_status = DriveStatus.COMPLETED_WITH_ERRORS if errors else DriveStatus.COMPLETED
        move(session, read_job(session, job_id), JobState.PACKAGING, at=self.now, by=Actor.SERVICE)

    def leap(self, session: Session, job_id: UUID) -> None:
        """Let time pass: by some leap, or to where the next act comes just in time or just too early."""
        job = read_job(session, job_id)
        brinks = [moment for moment in (job.expires_at, job.state_since + 30 * DAY) if moment is not None]
        leaps = [self.now + leap for leap in (MICROSECOND, LEASE, DAY, 5 * DAY)]
        to = [*leaps, *(brink - self.dice.randrange(3) * MICROSECOND for brink in brinks)]
        self.now = max(self.now, self.dice.choice(to))


def test_abilities_are_never_contradicted(any_database: str, thorough: bool) -> None:
    """Any order of all acts on three jobs, the clock in the test's hand; half of the steps on each database."""
    steps, seed = (50_000, 20260601) if thorough else (1_000, 4)
    walk = Walk(random.Random(seed))  # noqa: S311  no secret
    while walk.steps < steps:
        with writing() as session:
            for _ in range(STEPS_OF_A_TRANSACTION):
                try:
                    walk.step(session)
                except AssertionError as error:
                    error.add_note(f"seed {seed}, step {walk.steps}")
                    raise
    assert set(walk.seen) == {(JobState(state), cancelled) for state, cancelled, *_ in CASES}
    assert set(walk.done) == set(OFTEN)
