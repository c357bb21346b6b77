"""The intake: a folder where request files are put, because what they hold may not be typed into Prefect.

A request file is removed once what it asks for is done; until then it stays, so that nothing is lost. Before it is
overwritten it is given a name by which nobody takes it for a request any more, so that a run that was cut in the
middle leaves no broken request; whoever comes next removes what it left.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from sqlmodel import col, select

from models.database import database_time, reading, writing
from models.errors import DrivepostError, IntakeError, JobNotFoundError
from models.events import JobEvent
from models.jobs import read_job
from models.key_files import erase_file
from models.lifecycle import Actor
from models.locations import load_locations
from models.requests import REQUEST_BYTES_MAX, JobRequest, parse
from models.runs import record_run
from models.spent_requests import was_spent
from models.updates import put_job
from tasks.acts import act

REQUEST_FILE_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.json"
_TAKEN: Final = ".taken"
_SPENT: Final = ".spent"
_SPENT_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Created:
    """What became of request files: ids of the jobs created or replaced, and a line per file refused."""

    job_ids: tuple[UUID, ...]
    refused: tuple[str, ...]


def is_gone(file: Path) -> bool:
    """Tell whether a request file is not there any more; a link that leads nowhere is there."""
    return not os.path.lexists(file)


def read_request_file(file: Path) -> bytes:
    """Read a request file; neither a link nor anything over 1 MiB.

    Raises:
        IntakeError: it cannot be read; the text does not repeat its name.
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise IntakeError("there is no such file in the intake folder") from None
    except OSError as error:
        raise IntakeError(f"the request file cannot be read: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise IntakeError("the request file is no ordinary file")
        with os.fdopen(handle, "rb", closefd=False) as opened:
            document = opened.read(REQUEST_BYTES_MAX + 1)
    finally:
        os.close(handle)
    if len(document) > REQUEST_BYTES_MAX:
        raise IntakeError("the request file is over 1 MiB; split it, or give a blob list as a blob")
    return document


@act
def create_jobs(
    intake: Path, request_file: str, locations_file: Path | None, flow_run_id: UUID | None, files_max: int
) -> Created:
    """Create a job of every request file that waits, or of the one that is named, and remove the file.

    A file is first taken: moved aside under the id of this very act, so that a run that was cut is finished
    by the next one, and done once. A file that is refused is put back.

    Raises:
        IntakeError: the intake cannot be read, or has no such file.
    """
    erase_spent(intake)
    return _create_each(_take(intake, request_file, files_max), intake, locations_file, flow_run_id)


@act
def finish_taken_requests(intake: Path, locations_file: Path | None, files_max: int) -> Created:
    """Finish what a create-job that was cut had taken and not done, and remove what was done and not removed.

    Raises:
        IntakeError: the intake cannot be read.
    """
    erase_spent(intake)
    return _create_each(_taken_before(intake, files_max), intake, locations_file, None)


def _create_each(
    files: Iterable[tuple[UUID, Path]], intake: Path, locations_file: Path | None, flow_run_id: UUID | None
) -> Created:
    job_ids: list[UUID] = []
    refused: list[str] = []
    for place, (intake_id, taken) in enumerate(files, start=1):
        try:
            job_id = _create(taken, intake_id, locations_file, flow_run_id)
            if job_id is not None:
                job_ids.append(job_id)
            _spend(intake, taken)
        except DrivepostError as error:
            if is_gone(taken):
                continue  # another run finished it
            _put_back(intake, taken)
            refused.append(f"file {place}: {error.line}")
    return Created(tuple(job_ids), tuple(refused))


def _create(taken: Path, intake_id: UUID, locations_file: Path | None, flow_run_id: UUID | None) -> UUID | None:
    """Create the job of a request; None if that was done before, and the job deleted since."""
    request = parse(JobRequest, read_request_file(taken))
    with writing() as session:
        if was_spent(session, intake_id):
            return None
        job_id = put_job(
            session,
            request,
            load_locations(locations_file),
            at=database_time(session),
            by=Actor.OPERATOR,
            intake_id=intake_id,
        )
        if flow_run_id is not None:
            try:
                read_job(session, job_id, lock=True)
            except JobNotFoundError:
                return None  # done before, and deleted at this very moment
            record_run(session, job_id, flow_run_id)
    return job_id


def _taken_before(intake: Path, files_max: int) -> list[tuple[UUID, Path]]:
    aside = intake / _TAKEN
    try:
        aside.mkdir(parents=True, exist_ok=True, mode=0o700)
        left = sorted(aside.glob("????????-????-????-????-????????????.*.json"))
    except OSError as error:
        raise IntakeError(f"the intake folder cannot be read: {error.strerror}") from None
    return [(UUID(file.name.partition(".")[0]), file) for file in left[:files_max]]


def _take(intake: Path, request_file: str, files_max: int) -> Iterator[tuple[UUID, Path]]:
    """Take request files one after the other: those left by a run that was cut, then those that wait."""
    left = _taken_before(intake, files_max)
    yield from left
    waiting = [intake / request_file] if request_file else sorted(intake.glob("*.json"))
    for file in waiting[: max(0, files_max - len(left))]:
        intake_id = uuid4()
        taken = intake / _TAKEN / f"{intake_id}.{file.name}"
        try:
            file.rename(taken)
        except FileNotFoundError:
            if request_file and not any(each.name.endswith(f".{request_file}") for _, each in left):
                raise IntakeError("there is no such file in the intake folder") from None
            continue  # taken before: by the run that was cut, or by another one
        except OSError as error:
            if request_file:
                raise IntakeError(f"the request file cannot be taken: {error.strerror}") from None
            continue  # too long a name, or not ours to move: it stays, and keeps no other waiting
        yield intake_id, taken


def _put_back(intake: Path, taken: Path) -> None:
    name = taken.name.partition(".")[2]
    free = intake / name
    if free.exists():
        free = intake / f"{uuid4().hex[:8]}-{name}"
    taken.rename(free)


@act
def set_aside_taken_requests(intake: Path, job_id: UUID) -> None:
    """Set aside what create-job took for a job and did not remove when it was cut; harmless when there is nothing.

    Before the job's rows go: they alone tell which files made it, and without them it would be made again.
    """
    with reading() as session:
        by = col(JobEvent.intake_id)
        made_by = session.exec(select(by).where(col(JobEvent.job_id) == job_id, by.is_not(None))).all()
    for intake_id in made_by:
        for file in (intake / _TAKEN).glob(f"{intake_id}.*"):
            _set_aside(intake, file)


@act
def remove_spent_requests(intake: Path) -> None:
    """Remove request files that were set aside, these and what a run that was cut left of others."""
    erase_spent(intake)


@act
def remove_request_file(file: Path) -> None:
    """Remove a request file whose wish is carried out, and what a run that was cut left of one; safe to repeat."""
    _spend(file.parent, file)
    erase_spent(file.parent)


def _spend(intake: Path, file: Path) -> None:
    """Remove a request file, first under a name by which nobody takes it for one."""
    spent = _set_aside(intake, file)
    if spent is not None:
        erase(spent)


def _set_aside(intake: Path, file: Path) -> Path | None:
    """Give a request file a name by which nobody takes it for one; None if it is gone."""
    taken_as = file.name.partition(".")[0] if file.parent.name == _TAKEN else uuid4()
    spent = intake / _TAKEN / f"{taken_as}{_SPENT}"
    try:
        spent.parent.mkdir(exist_ok=True, mode=0o700)
        file.rename(spent)
    except FileNotFoundError:
        return None
    return spent


def erase_spent(intake: Path) -> None:
    """Remove request files that were carried out and whose removal was cut."""
    for file in sorted((intake / _TAKEN).glob(f"*{_SPENT}"))[:_SPENT_MAX]:
        erase(file)


def erase(file: Path) -> None:
    """Overwrite a file and remove it; harmless when it is gone.

    A link is only removed, and so is a file that has another name somewhere: what is there is not ours. One that
    may not be overwritten is removed all the same.
    """
    with suppress(OSError):
        status = file.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            with suppress(PermissionError):
                file.chmod(0o600)
            erase_file(file)
    file.unlink(missing_ok=True)
