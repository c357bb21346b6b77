"""Acts of retention: find what is due, delete it in batches, tell how it went."""

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from models.database import (
    acts_of_others,
    database_time,
    does_one_write_at_a_time,
    reading,
    return_free_pages,
    writing,
)
from models.deletion import Expired, count_expired_jobs, delete_expired_jobs, expired_jobs
from models.due import Due, count_held_due, due_by_day, oldest_expired
from models.errors import JobsNotDeletedError
from models.holds import count_held_jobs
from models.jobs import HoldReason
from models.lifecycle import JobState
from models.runs import record_run_of_jobs
from tasks.acts import act
from tasks.pace import Pace

_STUCK_MAX: Final = 1_000
_AT_ONCE_MAX: Final = 2
"""While one batch waits for Python or for the disk, another has the database's time."""


@dataclass(slots=True)
class Sweep:
    """What a sweep deleted: how many jobs by state, and by how many seconds they were late.

    `stuck` are the jobs that are due and could not be deleted, each with the reason that the database's driver
    gave; `gave_up` says that they were too many to go on. `is_over` says that there is no more to delete, or that
    the sweep gave up.
    """

    deleted: Counter[JobState] = field(default_factory=Counter)
    stuck: dict[UUID, str] = field(default_factory=dict)
    gave_up: bool = False
    is_over: bool = False
    late_seconds_max: float = 0
    late_seconds_sum: float = 0

    def add(self, expired: Expired, at: datetime) -> None:
        """Count one job deleted at a moment."""
        late = (at - expired.expires_at).total_seconds()
        self.deleted[expired.state] += 1
        self.late_seconds_max = max(self.late_seconds_max, late)
        self.late_seconds_sum += late

    def merge(self, other: "Sweep") -> None:
        """Count what another sweep deleted too."""
        self.deleted += other.deleted
        self.stuck |= other.stuck
        self.gave_up |= other.gave_up
        self.late_seconds_max = max(self.late_seconds_max, other.late_seconds_max)
        self.late_seconds_sum += other.late_seconds_sum


@act
def tell_time() -> datetime:
    """Tell what time it is in the database, aware UTC; a sweep is measured against this one moment."""
    with reading() as session:
        return database_time(session)


@act
def delete_expired(at: datetime, batch_rows: int, rows_max: int, stuck: Collection[UUID] = ()) -> Sweep:
    """Delete jobs whose time was over at a moment: at most `rows_max`, up to `batch_rows` in one transaction.

    Safe to repeat, and by several at once: what is gone, or taken by another, is not found. A job that the
    database refuses to delete keeps none of the others; after 1,000 of them the sweep gives up. What else goes
    wrong ends it early, with what it did; it is raised where that is nothing.

    Args:
        at: the moment, aware UTC.
        batch_rows: jobs in one transaction, at most.
        rows_max: jobs in all, at most.
        stuck: jobs that could not be deleted before, and are passed over.

    Returns:
        What was deleted.
    """
    sweep = Sweep()
    try:
        at_once_max = 1 if does_one_write_at_a_time() else _AT_ONCE_MAX
        _Batches(sweep, at, batch_rows, rows_max, stuck, at_once_max).delete()
        return_free_pages()
    except Exception:
        if not (sweep.deleted or sweep.stuck):
            raise
    return sweep


class _Batches:
    """The batches of a sweep: two at once while nobody else is at work, where the database can; else one by one.

    What they do is counted by one thread alone, which also says how many rows the next one takes.
    """

    def __init__(
        self, sweep: Sweep, at: datetime, batch_rows: int, rows_max: int, stuck: Collection[UUID], at_once_max: int
    ) -> None:
        self._sweep = sweep
        self._at = at
        self._batch_rows = self._careful_rows = batch_rows
        self._rows_left = rows_max
        self._stuck = stuck
        self._at_once_max = at_once_max
        self._pace = Pace(batch_rows, one_at_a_time=at_once_max == 1)
        self._undone = 0
        self._failure: BaseException | None = None

    def delete(self) -> None:
        """Delete until nothing is left, or a limit or a fault ends it; that is raised once no batch is at work.

        Who is cut meanwhile waits for what is at work, which may wait for a lock itself, and tells it no more.
        """
        begun: dict[Future[_Deleted], _Begun] = {}
        with ThreadPoolExecutor(self._at_once_max) as threads:
            while begun or self._goes_on:
                while len(begun) < self._at_once and self._goes_on:
                    rows = min(self._pace.rows, self._careful_rows, self._rows_left)
                    self._rows_left -= rows
                    but = {*self._stuck, *self._sweep.stuck}
                    batch = threads.submit(_delete_batch, self._at, rows, but)
                    begun[batch] = _Begun(rows, self._undone)
                for batch in wait(begun, return_when=FIRST_COMPLETED).done:
                    self._count(batch, begun.pop(batch))
        if self._failure is not None:
            raise self._failure

    @property
    def _goes_on(self) -> bool:
        return self._rows_left > 0 and not self._sweep.is_over and self._failure is None

    @property
    def _at_once(self) -> int:
        return self._at_once_max if self._pace.is_alone and self._careful_rows == self._batch_rows else 1

    def _count(self, batch: "Future[_Deleted]", begun: "_Begun") -> None:
        match batch.exception():
            case None:
                self._count_deleted(batch.result(), begun)
            case JobsNotDeletedError() as error:
                self._count_refused(error)
                self._count_undone(begun)
            case failure:
                self._count_undone(begun)
                self._failure = self._failure or failure

    def _count_undone(self, begun: "_Begun") -> None:
        # A batch beside it passed over its jobs, which are there again: no end was seen.
        self._undone += 1
        self._rows_left += begun.rows
        self._sweep.is_over = self._sweep.gave_up

    def _count_deleted(self, deleted: "_Deleted", begun: "_Begun") -> None:
        for expired in deleted.jobs:
            self._sweep.add(expired, self._at)
        if len(deleted.jobs) < begun.rows:
            self._rows_left += begun.rows - len(deleted.jobs)
            # It passed over the jobs of a batch beside it: where that was undone they are still there.
            self._sweep.is_over |= begun.undone == self._undone
            return
        # Where one is stuck the next often is: trust comes back little by little.
        self._careful_rows = min(2 * self._careful_rows, self._batch_rows)
        self._pace.end(begun.rows, deleted.seconds, acts_of_others())

    def _count_refused(self, error: JobsNotDeletedError) -> None:
        if len(error.job_ids) == 1:
            self._sweep.stuck[error.job_ids[0]] = error.reason
        self._careful_rows = min(self._careful_rows, max(1, len(error.job_ids) // 2))
        self._sweep.gave_up = len(self._stuck) + len(self._sweep.stuck) >= _STUCK_MAX


class _Begun(NamedTuple):
    """A batch at work: how many rows it is to take, and how many batches had been undone when it began."""

    rows: int
    undone: int


class _Deleted(NamedTuple):
    """What a batch deleted, and how long it took from when it might write."""

    jobs: Sequence[Expired]
    seconds: float


def _delete_batch(at: datetime, rows: int, but: Collection[UUID]) -> _Deleted:
    with writing() as session:
        began = time.monotonic()
        jobs = delete_expired_jobs(session, at, rows, now=database_time(session), but=but)
    return _Deleted(jobs, time.monotonic() - began)


@act
def list_expired(at: datetime, rows_max: int, flow_run_id: UUID | None) -> tuple[int, list[Expired]]:
    """List what a sweep at a moment would delete, and write down that this run spoke of it.

    Returns:
        How many jobs it would delete, and the longest overdue of them, at most `rows_max`.
    """
    with writing() as session:
        due = list(expired_jobs(session, at, rows_max, lock=flow_run_id is not None))
        if flow_run_id is not None:
            record_run_of_jobs(session, [expired.job_id for expired in due], flow_run_id)
        return count_expired_jobs(session, at), due


@dataclass(frozen=True, slots=True)
class Outlook:
    """What retention has before it.

    Attributes:
        oldest_overdue_seconds: by how much the longest overdue job is late; 0 when none is due.
        held_due: jobs whose time is over and that a legal hold keeps.
        held: jobs under legal hold, by reason.
        ahead: what comes due in the next days, day by day.
    """

    oldest_overdue_seconds: float
    held_due: int
    held: Mapping[HoldReason, int]
    ahead: Sequence[Due]


@act
def look_ahead(at: datetime) -> Outlook:
    """Tell how late the oldest job is that is due at a moment, what holds keep, and what comes next."""
    with reading() as session:
        oldest = oldest_expired(session, at)
        return Outlook(
            oldest_overdue_seconds=(at - oldest).total_seconds() if oldest else 0,
            held_due=count_held_due(session, at),
            held=count_held_jobs(session),
            ahead=due_by_day(session, at),
        )
