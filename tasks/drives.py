"""Acts on the drives of a job: the look into the bay, the copy, and the way back."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlmodel import Session

from models.bay import CheckIn, Returned, check_in, extra_drives_of, return_drives, tell_overdue_packages
from models.copies import (
    copied_bytes,
    copies_under_way,
    due_copies,
    lost_cancels,
    release_copy_lease,
    seize_copy_lease,
    take_copy_lease,
)
from models.copy_logs import DriveStatus
from models.database import database_time, reading, writing
from models.drives import Drive, drives_of, serial
from models.errors import (
    BayError,
    CopyStillRunningError,
    JobNotFoundError,
    LeaseLostError,
    StoreError,
)
from models.faults import without_data
from models.jobs import finish_cancel, move, read_job
from models.lifecycle import DRIVE_TO_COPY, ENDS, Actor, DriveState, JobState, JobType
from models.requests import ReturnRequest, parse
from tasks.acts import act
from tasks.copying import DriveCopying
from tasks.export_journal import tidy_up
from tasks.intake import is_gone, read_request_file
from tasks.mounts import drives_in, mounted_in
from tasks.pulse import CopyLimits, Pulse

_LOOK_SECONDS: Final = 0.1
_CANCELS_TOGETHER: Final = 50


@act
def check_in_drives(job_id: UUID, bay: Path) -> CheckIn:
    """Look at the drives in the bay and compare them with the job's list.

    Raises:
        BayError: the bay cannot be read, or holds nothing for this job.
        JobStateConflictError: the job was not marked as shipped.
    """
    found = drives_in(bay)
    with writing() as session:
        return check_in(session, job_id, found, at=database_time(session), by=Actor.OPERATOR)


@act
def send_drives_back(job_id: UUID, request_file: Path | None) -> Returned:
    """Record that the drives were sent back, and end the job if its copy is over.

    Args:
        job_id: the job.
        request_file: a file of the intake that tells of the package, `{"returnPackage": {…}}`.

    Raises:
        IntakeError: the file cannot be read.
        RequestError: the file tells of no package.
        JobStateConflictError: the copy is not over.
    """
    package = None
    if request_file and not (is_gone(request_file) and _is_everything_sent(job_id)):
        package = parse(ReturnRequest, read_request_file(request_file)).return_package
    with writing() as session:
        return return_drives(session, job_id, package, at=database_time(session), by=Actor.OPERATOR)


def _is_everything_sent(job_id: UUID) -> bool:
    """Whether a run before, cut after it removed its file, can have done all there was to do."""
    with reading() as session:
        job = read_job(session, job_id)
        drives = drives_of(session, job_id)
        return job.state in ENDS and not any(d.is_on_site for d in drives) and not extra_drives_of(session, job_id)


@act
def take_lease(job_id: UUID, job_type: JobType, lease_seconds: float) -> int | None:
    """Take the lease on the copy of a job of this type; None when there is nothing to copy any more.

    Raises:
        WrongJobTypeError: it is of the other type.
        CopyHeldElsewhereError: another run holds it.
        CancelAcceptedError: the job is being cancelled.
        JobStateConflictError: its drives were not checked in.
    """
    with writing() as session:
        now = database_time(session)
        return take_copy_lease(session, job_id, seconds=lease_seconds, at=now, by=Actor.SERVICE, job_type=job_type)


@act
def release_lease(job_id: UUID, token: int) -> None:
    """Give the lease back, so that nobody waits for it to run out."""
    with writing() as session:
        release_copy_lease(session, job_id, token)


@act
def wait_for_copy_to_stop(job_id: UUID, seconds_max: float) -> None:
    """Wait until nobody copies the job any more; whoever wakes up later cannot write.

    Raises:
        CopyStillRunningError: somebody still does after `seconds_max`.
    """
    give_up = time.monotonic() + seconds_max
    while _seize_lease(job_id):
        if time.monotonic() >= give_up:
            raise CopyStillRunningError(job_id, seconds_max)
        time.sleep(_LOOK_SECONDS)


def _seize_lease(job_id: UUID) -> datetime | None:
    with writing() as session:
        return seize_copy_lease(session, job_id, at=database_time(session))


@act
def drives_to_copy(job_id: UUID) -> list[int]:
    """Read the numbers of the drives whose copy is not over."""
    with reading() as session:
        return [drive.number for drive in drives_of(session, job_id) if drive.state in DRIVE_TO_COPY]


@act
def copy_drive(job_id: UUID, number: int, token: int, bay: Path, store_address: str, limits: CopyLimits) -> bool:
    """Copy one drive, from where an earlier run came to; its logs are written when it is over.

    What is wrong with this drive alone ends it as CompletedMoreInfo, and its log says so.

    Returns:
        Whether it is over; False when a cancel was heard.

    Raises:
        LeaseLostError: another run copies the job now.
        StoreError: the store does not answer.
    """
    pulse = Pulse(job_id, token, limits)
    return DriveCopying(job_id, number, store_address, pulse).copy(bay)


@act
def give_up_drive(
    job_id: UUID, number: int, token: int, bay: Path, store_address: str, limits: CopyLimits
) -> None:
    """End a drive whose copy met a fault of ours, so that the job's other drives go on."""
    pulse = Pulse(job_id, token, limits)
    with writing() as session:
        pulse.renew(session)  # else the drive is another run's
    _tidy_up_export(job_id, number, bay)
    DriveCopying(job_id, number, store_address, pulse).fail(DriveStatus.INTERNAL_ERROR, bay)


@act
def discard_half_written_blobs(job_id: UUID, bay: Path, store_address: str) -> None:
    """After the copy has stopped: remove what is not whole, and end the drive that was being copied.

    Raises:
        StoreError: the store does not answer; `end_stopped_drives` does without it.
    """
    _end_stopped_drives(job_id, bay, store_address, without_store=False)


@act
def end_stopped_drives(job_id: UUID, bay: Path, store_address: str) -> None:
    """After the copy has stopped, and where the store does not answer: end the drive that was being copied.

    A cancel always ends in Completed. What lies aside in the store stays there, under names of ours.
    """
    _end_stopped_drives(job_id, bay, store_address, without_store=True)


def _end_stopped_drives(job_id: UUID, bay: Path, store_address: str, *, without_store: bool) -> None:
    with reading() as session:
        stopped = [drive.number for drive in drives_of(session, job_id) if drive.state is DriveState.TRANSFERRING]
    for number in stopped:
        _tidy_up_export(job_id, number, bay)
        DriveCopying(job_id, number, store_address, None).finish(
            DriveStatus.COMPLETED_WITH_ERRORS, bay=bay, without_store=without_store
        )


def _tidy_up_export(job_id: UUID, number: int, bay: Path) -> None:
    """Remove what is ours from a drive that was being filled; what comes with an import is its customer's."""
    with reading() as session:
        is_export = read_job(session, job_id).job_type is JobType.EXPORT
        drive_id = session.get_one(Drive, (job_id, number)).drive_id
    # A drive that was taken out, or a bay that cannot be read, keeps no job from its end.
    with suppress(BayError):
        folder = mounted_in(bay).get(serial(drive_id)) if is_export else None
        if folder is not None:
            tidy_up(folder)


@act
def bytes_copied(job_id: UUID) -> tuple[int, int]:
    """Tell how much of a job was copied: bytes in the store, and bytes listed by the drives begun."""
    with reading() as session:
        return copied_bytes(session, job_id)


@dataclass(slots=True)
class Advanced:
    """What came of a batch of due steps: how many were done, and how many failed by error code."""

    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)


@act
def find_lost_cancels(rows_max: int) -> list[tuple[UUID, str]]:
    """Find accepted cancels whose run was lost: each job's id, and its storage account's resource id."""
    with reading() as session:
        return lost_cancels(session, database_time(session), rows_max)


@act
def carry_out_cancels(due: Sequence[tuple[UUID, str]], bay: Path) -> Advanced:
    """Carry out accepted cancels; one job's failure does not stop the others.

    Args:
        due: each job's id, and its storage account's store address.
        bay: where drives are mounted.
    """
    advanced = Advanced()
    left: list[tuple[UUID, str]] = []
    for start in range(0, len(due), _CANCELS_TOGETHER):
        left += _carry_out_together(due[start : start + _CANCELS_TOGETHER], advanced)
    for job_id, store_address in left:
        try:
            advanced.done += _carry_out_cancel(job_id, bay, store_address)
        except JobNotFoundError:
            continue  # deleted meanwhile
        except Exception as error:  # noqa: BLE001  whatever is wrong with one job, the others' wishes stand
            advanced.failed[without_data(error).code] += 1
    return advanced


def _carry_out_together(due: Sequence[tuple[UUID, str]], advanced: Advanced) -> list[tuple[UUID, str]]:
    """Carry out, in one transaction, the cancels of jobs of which no drive is being copied; gives the others."""
    done = 0
    left = []
    with writing() as session:
        for job_id, store_address in due:
            try:
                with session.begin_nested():
                    if not _finish_idle(session, job_id):
                        left.append((job_id, store_address))
                        continue
            except Exception:  # noqa: BLE001  told when it is tried again, alone
                left.append((job_id, store_address))
            else:
                done += 1
    advanced.done += done
    return left


def _finish_idle(session: Session, job_id: UUID) -> bool:
    now = database_time(session)
    if seize_copy_lease(session, job_id, at=now) is not None:
        return False
    if any(drive.state is DriveState.TRANSFERRING for drive in drives_of(session, job_id)):
        return False
    finish_cancel(session, job_id, at=now)
    return True


def _carry_out_cancel(job_id: UUID, bay: Path, store_address: str) -> bool:
    if _seize_lease(job_id) is not None:
        return False
    try:
        _end_stopped_drives(job_id, bay, store_address, without_store=False)
    except StoreError:
        _end_stopped_drives(job_id, bay, store_address, without_store=True)
    with writing() as session:
        finish_cancel(session, job_id, at=database_time(session))
    return True


@act
def copies_to_start(rows_max: int, per_site_max: int) -> tuple[list[tuple[UUID, JobType]], list[UUID]]:
    """Find jobs whose copy is due and has room at its site, by type; and those copied now."""
    with reading() as session:
        now = database_time(session)
        return due_copies(session, now, rows_max, per_site_max), list(copies_under_way(session, now))


@act
def pack_job(job_id: UUID, token: int) -> bool:
    """Make a job whose drives are all over Packaging; False when one turned up meanwhile.

    Raises:
        CancelAcceptedError: a cancel came before the last byte was told of.
        LeaseLostError: another run copies the job now.
    """
    with writing() as session:
        job = read_job(session, job_id, lock=True)
        if job.copy_token != token:
            raise LeaseLostError(job_id)
        if any(drive.state in DRIVE_TO_COPY for drive in drives_of(session, job_id)):
            return False
        now = database_time(session)
        if job.state is JobState.RECEIVED:
            # None of its drives came, so there was nothing to begin with.
            move(session, job, JobState.TRANSFERRING, at=now, by=Actor.SERVICE)
        if job.state is JobState.TRANSFERRING:
            move(session, job, JobState.PACKAGING, at=now, by=Actor.SERVICE)
        return True


@act
def tell_of_overdue_packages(rows_max: int) -> int:
    """Find jobs whose package has not come in 14 days, and write it down; tells how many are new."""
    with writing() as session:
        return len(tell_overdue_packages(session, database_time(session), rows_max))
