"""`drivepost watch`: how far a job has come, second by second, from its rows alone."""

import json
import sys
from collections.abc import Iterator
from datetime import timedelta
from time import monotonic, sleep
from typing import Final, Self
from uuid import UUID

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, Task, TaskID, TextColumn
from sqlalchemy.exc import SQLAlchemyError

from models.database import reading
from models.errors import DatabaseError, JobNotFoundError
from models.faults import without_data
from models.job_facts import DriveFacts, percent_of
from models.jobs import find_job
from models.lifecycle import DriveState
from models.progress import JobProgress, read_progress
from models.tables import require_current_tables

_LOOK_SECONDS: Final = 1.0
_AWAY_SECONDS_MAX: Final = 600.0
_JOB: Final = 0
"""The row of the job itself; drives are numbered from 1."""
_WHOLE: Final = 100

_NOT_WHOLE: Final = 3
_DELETED: Final = 4


def watch_job(console: Console, reference: str, *, as_json: bool = False, once: bool = False) -> int:
    """Show how far a job has come until nothing more is copied: bars on a terminal, else a line at each change.

    Args:
        console: takes bars and lines.
        reference: the job: its id, or subscription/resourceGroup/name.
        as_json: print one JSON object at each change on the standard output instead.
        once: tell what is now, and wait for nothing.

    Returns:
        The exit code: 0 copied as listed, or told `once`; 3 over, but not all was copied; 4 the job was deleted.

    Raises:
        JobNotFoundError: there is no such job.
        DatabaseError: the database did not answer for ten minutes, or from the beginning.
    """
    require_current_tables()
    with reading() as session:
        job_id = find_job(session, reference)
    with _View(console, is_live=console.is_terminal and not (as_json or once)) as view:
        for progress in _changes(job_id, view):
            if progress is None:
                if as_json:
                    _print({"job": str(job_id), "isDeleted": True})
                console.print(f"job {job_id} was deleted")
                return _DELETED
            view.take_in(progress)
            if as_json:
                _print(view.document(progress))
            else:
                view.show()
            if once:
                return 0
            if progress.is_over:
                return 0 if progress.is_whole else _NOT_WHOLE
    raise AssertionError("changes end with a job that is over or gone")


def _print(document: dict[str, object]) -> None:
    sys.stdout.write(f"{json.dumps(document)}\n")
    sys.stdout.flush()


def _changes(job_id: UUID, view: "_View") -> Iterator[JobProgress | None]:
    """Look once a second, and tell what differs from the look before; None when the job is gone."""
    told: JobProgress | None = None
    away_since: float | None = None
    while True:
        try:
            with reading() as session:
                found = read_progress(session, job_id)
        except JobNotFoundError:
            yield None
            return
        except SQLAlchemyError as error:
            fault = without_data(error)
            away_since = away_since or monotonic()
            if not isinstance(fault, DatabaseError) or monotonic() - away_since > _AWAY_SECONDS_MAX:
                raise fault from None
            view.tell_away(fault)
        else:
            away_since = None
            view.tell_back()
            if found != told:
                told = found
                yield found
        sleep(_LOOK_SECONDS)


class _View:
    """Keeps the speeds, and shows bars if it `is_live`, else lines."""

    def __init__(self, console: Console, *, is_live: bool) -> None:
        self._console = console
        self._is_live = is_live
        self._is_away = False
        self._rows: dict[int, TaskID] = {}
        columns = [TextColumn(f"{{task.fields[{field}]}}") for field in ("name", "state", "percent", "told")]
        self._bars = Progress(*columns[:2], BarColumn(), *columns[2:], console=console, disable=not is_live)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def take_in(self, progress: JobProgress) -> None:
        """Bring the rows to what was read."""
        percent = progress.percent_complete
        self._set(_JOB, "job", _state_of(progress), percent, _WHOLE, percent or 0)
        for number, drive in progress.drives.items():
            # Of a drive not begun it is not known how much is on it; its bar is empty.
            total = _WHOLE if drive.bytes_total is None else drive.bytes_total
            state = " ".join([drive.state, *([f"({drive.copy_status})"] if drive.copy_status else [])])
            self._set(number, f"drive {number}", state, percent_of(drive), total, drive.bytes_succeeded)
            task = self._task(number)
            self._bars.update(task.id, told=_bytes_told(drive, task))

    def _set(self, row: int, name: str, state: str, percent: int | None, total: int, completed: int) -> None:
        if row not in self._rows:
            # With what was done before, so that it does not count as speed.
            self._rows[row] = self._bars.add_task(
                "", total=total, completed=completed, name=name, state="", percent="", told=""
            )
        told = "" if percent is None else f"{percent} %"
        self._bars.update(self._rows[row], total=total, completed=completed, state=state, percent=told)

    def _task(self, row: int) -> Task:
        return next(task for task in self._bars.tasks if task.id == self._rows[row])

    def show(self) -> None:
        """Tell what was taken in, where bars do not do it by themselves."""
        if not self._is_live:
            rows = [task.fields for task in self._bars.tasks]
            told = [" ".join([row["name"], row["state"]]) + _listed(row["percent"], row["told"]) for row in rows]
            self._console.print("; ".join(told), markup=False, soft_wrap=True)

    def document(self, progress: JobProgress) -> dict[str, object]:
        """Make the JSON object of what was taken in."""
        return {
            "job": str(progress.job_id),
            "state": progress.state,
            "cancelRequested": progress.cancel_requested,
            "percentComplete": progress.percent_complete,
            "drives": [
                {
                    "number": number,
                    "state": drive.state,
                    "copyStatus": drive.copy_status,
                    "percentComplete": percent_of(drive),
                    "bytesSucceeded": drive.bytes_succeeded,
                    "bytesTotal": drive.bytes_total,
                    **_pace(drive, self._task(number)),
                }
                for number, drive in progress.drives.items()
            ],
        }

    def tell_away(self, fault: DatabaseError) -> None:
        """Say once that the database is away."""
        if not self._is_away:
            self._console.print(f"{fault}; trying again", style="yellow", markup=False, soft_wrap=True)
        self._is_away = True

    def tell_back(self) -> None:
        """Say that it is back, if it was away."""
        if self._is_away:
            self._console.print("the database answers again")
        self._is_away = False


def _state_of(progress: JobProgress) -> str:
    is_stopping = progress.cancel_requested and not progress.is_over
    return f"{progress.state} (cancel accepted)" if is_stopping else progress.state


def _pace(drive: DriveFacts, task: Task) -> dict[str, int | None]:
    """Tell how fast a drive is copied, over the last half minute, and how long it will take at that."""
    is_copied = drive.state is DriveState.TRANSFERRING
    speed = int(task.speed) if is_copied and task.speed else None
    left = int(task.time_remaining) if speed and task.time_remaining is not None else None
    return {"bytesPerSecond": speed, "secondsLeft": left}


def _bytes_told(drive: DriveFacts, task: Task) -> str:
    if drive.bytes_total is None:
        return ""
    pace = _pace(drive, task)
    speed, left = pace["bytesPerSecond"], pace["secondsLeft"]
    return f"{drive.bytes_succeeded:,} of {drive.bytes_total:,} bytes" + _listed(
        f"{decimal(speed)}/s" if speed else "", f"{timedelta(seconds=left)} left" if left is not None else ""
    )


def _listed(*told: str) -> str:
    return "".join(f", {each}" for each in told if each)
