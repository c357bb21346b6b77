"""Drives come in and go back: what a look into the bay, and a package sent, make of the rows.

Source: the specification, sections 2 and 3.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlmodel import Session, col, select

from models.concerns import package_is_overdue
from models.drives import Drive, ExtraDrive, drives_of, move_drive, serial
from models.erasure import carry_out_wish, require_not_erased
from models.errors import BayError, JobHeldError, ManifestError
from models.events import EventKind, JobEvent
from models.jobs import Job, move, read_job
from models.lifecycle import (
    Actor,
    DriveState,
    JobState,
    JobType,
    Operation,
    decide,
    require_actor,
)
from models.manifests import require_drive_id
from models.requests import DRIVES_MAX, ReturnPackageShape
from models.shipping import Direction, Package

_COMES_IN: Final = frozenset({DriveState.SPECIFIED, DriveState.NEVER_RECEIVED})


@dataclass(frozen=True, slots=True)
class CheckIn:
    """What a look into the bay found: how many drives of the job, and how many on no list."""

    received: int
    never_received: int
    extra: int


def check_in(session: Session, job_id: UUID, found: Collection[str], *, at: datetime, by: Actor) -> CheckIn:
    """Compare the drives in the bay with a job's list.

    The first time, a drive that did not come with the package is NeverReceived, and the job Received; later
    on a drive that turns up is taken in, and the job stays where it is. Drives of other jobs are passed over.

    Args:
        session: a session that writes.
        job_id: the job.
        found: the serial numbers in the bay.
        at: now, aware UTC.
        by: who looked.

    Raises:
        JobNotFoundError: there is no such job.
        JobStateConflictError: it was not marked as shipped.
        BayError: the bay holds nothing for this job, so that its package cannot be here; or what would be a drive
            of an Export job has a name that no manifest can hold as its serial number.
        PersonalDataErasedError: its personal data was erased.
    """
    require_actor(Operation.CHECK_IN, by)
    job = read_job(session, job_id, lock=True)
    decide(Operation.CHECK_IN, job.state, cancel_accepted=job.cancel_requested)
    require_not_erased(job, Operation.CHECK_IN)
    in_bay = {serial(name): name for name in found}
    drives = drives_of(session, job_id)
    listed = {serial(drive.drive_id) for drive in drives}
    unlisted = [name for key, name in in_bay.items() if key not in listed | _claimed_by_others(session, job_id)]
    if job.state is JobState.SHIPPING and not unlisted and not listed & in_bay.keys():
        raise BayError("no drive of this job and no unlisted one is in the bay; mount its package's drives first")
    for drive in drives:
        if drive.state in _COMES_IN and serial(drive.drive_id) in in_bay:
            move_drive(session, drive, DriveState.RECEIVED, at=at, by=by)
        elif drive.state is DriveState.SPECIFIED and job.state is JobState.SHIPPING:
            move_drive(session, drive, DriveState.NEVER_RECEIVED, at=at, by=by)
    _take_in_unlisted(session, job, unlisted, at=at, by=by)
    if job.state is JobState.SHIPPING and not job.cancel_requested:
        move(session, job, JobState.RECEIVED, at=at, by=by)
    states = [drive.state for drive in drives_of(session, job_id)]
    return CheckIn(
        received=sum(state not in _COMES_IN for state in states),
        never_received=states.count(DriveState.NEVER_RECEIVED),
        extra=len(extra_drives_of(session, job_id)),
    )


def _claimed_by_others(session: Session, job_id: UUID) -> set[str]:
    """Find the serial numbers of drives that other jobs await, have here, or found as extra."""
    awaited = session.exec(
        select(Drive.drive_id).where(col(Drive.job_id) != job_id, col(Drive.state) != DriveState.SHIPPED_BACK)
    )
    extra = session.exec(
        select(ExtraDrive.drive_id).where(
            col(ExtraDrive.job_id) != job_id, col(ExtraDrive.shipped_back_at).is_(None)
        )
    )
    return {serial(name) for name in (*awaited, *extra)}


def extra_drives_of(session: Session, job_id: UUID) -> Sequence[ExtraDrive]:
    """Read the extra drives of a job that are still here."""
    return session.exec(
        select(ExtraDrive).where(col(ExtraDrive.job_id) == job_id, col(ExtraDrive.shipped_back_at).is_(None))
    ).all()


def _take_in_unlisted(session: Session, job: Job, unlisted: Sequence[str], *, at: datetime, by: Actor) -> None:
    """Make unlisted drives known: of an Export job as its drives, else as extra ones."""
    known = {serial(extra.drive_id) for extra in extra_drives_of(session, job.id)}
    number = len(drives_of(session, job.id))
    for name in sorted(unlisted):
        if serial(name) in known:
            continue
        if job.job_type is JobType.EXPORT and number < DRIVES_MAX:
            _require_serial_number(name)
            number += 1
            session.add(
                Drive(job_id=job.id, number=number, drive_id=name, state=DriveState.RECEIVED, state_since=at)
            )
            kind, told, state = EventKind.DRIVE_MOVED, number, DriveState.RECEIVED
        else:
            session.add(ExtraDrive(job_id=job.id, drive_id=name, found_at=at))
            kind, told, state = EventKind.EXTRA_DRIVE_FOUND, None, None
        session.add(JobEvent(job_id=job.id, at=at, kind=kind, by=by, drive_number=told, target=state))
    session.flush()


def _require_serial_number(name: str) -> None:
    try:
        require_drive_id(name)
    except ManifestError:
        raise BayError(
            "a folder of the bay that is on no job's list would be a drive of this one, and its name is no serial "
            "number that a manifest can hold: 1 to 64 characters without white space; name it by the drive's, or "
            "take it out"
        ) from None


@dataclass(frozen=True, slots=True)
class Returned:
    """What was sent back: how many drives, extra ones among them, and where the job stands now."""

    drives: int
    state: JobState


def return_drives(
    session: Session, job_id: UUID, package: ReturnPackageShape | None, *, at: datetime, by: Actor
) -> Returned:
    """Record that the drives of a job were sent back.

    A job in Packaging ends: Completed when all its drives were copied without errors, else Closed. At an end
    only drives move: those of a cancelled job, or such as turned up late. An erasure that was wished is carried
    out: nothing goes back to the address any more.

    Raises:
        JobNotFoundError: there is no such job.
        JobStateConflictError: its copy is not over.
        PersonalDataErasedError: a package is told of after its personal data was erased.
        JobHeldError: it is under legal hold, and another package is told of than before.
    """
    require_actor(Operation.RETURN_DRIVES, by)
    job = read_job(session, job_id, lock=True)
    decide(Operation.RETURN_DRIVES, job.state, cancel_accepted=job.cancel_requested)
    if package is not None:
        require_not_erased(job, Operation.RETURN_DRIVES)
    drives = drives_of(session, job_id)
    sent = [drive for drive in drives if drive.is_on_site]
    extra = extra_drives_of(session, job_id)
    for drive in sent:
        move_drive(session, drive, DriveState.SHIPPED_BACK, at=at, by=by)
    for each in extra:
        each.shipped_back_at = at
        session.add(each)
        session.add(JobEvent(job_id=job_id, at=at, kind=EventKind.EXTRA_DRIVE_SHIPPED_BACK, by=by))
    if package is not None:
        _record_package(session, job, package)
    if job.state is JobState.PACKAGING:
        ended = JobState.CLOSED if any(drive.has_errors for drive in drives) else JobState.COMPLETED
        move(session, job, ended, at=at, by=by)
    ended_as = job.state
    carry_out_wish(session, job, at=at)
    return Returned(drives=len(sent) + len(extra), state=ended_as)


def _record_package(session: Session, job: Job, package: ReturnPackageShape) -> None:
    told = Package(job_id=job.id, direction=Direction.RETURN, **package.model_dump())
    before = session.get(Package, (job.id, Direction.RETURN))
    if job.held_since is not None and before is not None and before.model_dump() != told.model_dump():
        raise JobHeldError  # what was told before may be evidence
    session.merge(told)


def tell_overdue_packages(session: Session, at: datetime, rows_max: int) -> Sequence[UUID]:
    """Find jobs whose package has not come in 14 days, mark their drives NeverReceived, and tell it once.

    Returns:
        Ids of the jobs found now, at most `rows_max`; a job that was told of is not found again.
    """
    told = select(JobEvent.number).where(
        col(JobEvent.job_id) == col(Job.id), col(JobEvent.kind) == EventKind.PACKAGE_OVERDUE
    )
    overdue = session.exec(
        select(Job)
        .where(package_is_overdue(at), ~told.exists())
        .order_by(col(Job.state_since))
        .limit(rows_max)
        .with_for_update(skip_locked=True)
    ).all()
    for job in overdue:
        for drive in drives_of(session, job.id):
            if drive.state is DriveState.SPECIFIED:
                move_drive(session, drive, DriveState.NEVER_RECEIVED, at=at, by=Actor.SERVICE)
        session.add(JobEvent(job_id=job.id, at=at, kind=EventKind.PACKAGE_OVERDUE, by=Actor.SERVICE))
    return [job.id for job in overdue]
