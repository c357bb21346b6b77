"""The board: all jobs at a glance, and those that somebody should look at, by their opaque ids.

Its work follows what is shown, not what is there: counts are read off an index, lists end.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, func, select

from models.concerns import CONCERNS, Concern
from models.due import Due, due_by_day, oldest_expired
from models.holds import count_held_jobs
from models.jobs import HoldReason, Job
from models.lifecycle import JobState


@dataclass(frozen=True, slots=True)
class BoardJob:
    """A job on the board, and since when it is as it is, aware UTC."""

    job_id: UUID
    state: JobState
    since: datetime


@dataclass(frozen=True, slots=True)
class Found:
    """How many jobs there are of a kind, and the oldest of them."""

    count: int
    oldest: Sequence[BoardJob]


@dataclass(frozen=True, slots=True)
class Board:
    """What is told of all jobs.

    Attributes:
        at: when it was read, aware UTC.
        states: every state, with its jobs.
        concerns: every concern, with its jobs.
        due: what comes due for deletion in the next 7 days, day by day.
        overdue_since: since when the longest overdue job should have been deleted; None if none is overdue.
        held: jobs under legal hold, by reason.
    """

    at: datetime
    states: Mapping[JobState, Found]
    concerns: Mapping[Concern, Found]
    due: Sequence[Due]
    overdue_since: datetime | None
    held: Mapping[HoldReason, int]

    def named(self) -> Iterator[UUID]:
        """Give the ids of all jobs on it; one may come more than once."""
        for found in (*self.states.values(), *self.concerns.values()):
            for job in found.oldest:
                yield job.job_id


def read_board(session: Session, at: datetime, lease_seconds: float, rows_max: int) -> Board:
    """Read the board.

    Args:
        session: an open session; it should see one state throughout.
        at: now, aware UTC.
        lease_seconds: for how long a copy that does not report is believed to be alive.
        rows_max: jobs per concern, the oldest; of each state it is one.
    """
    counted = dict(session.exec(select(Job.state, func.count()).group_by(col(Job.state))).all())
    return Board(
        at=at,
        states={
            state: Found(counted.get(state, 0), _oldest(session, col(Job.state) == state, 1)) for state in JobState
        },
        concerns={
            concern: _found(session, condition(at, lease_seconds), rows_max)
            for concern, condition in CONCERNS.items()
        },
        due=due_by_day(session, at),
        overdue_since=oldest_expired(session, at),
        held=count_held_jobs(session),
    )


def _found(session: Session, condition: ColumnElement[bool], rows_max: int) -> Found:
    oldest = _oldest(session, condition, rows_max)
    if len(oldest) < rows_max:
        return Found(len(oldest), oldest)
    return Found(session.exec(select(func.count()).select_from(Job).where(condition)).one(), oldest)


def _oldest(session: Session, condition: ColumnElement[bool], rows_max: int) -> list[BoardJob]:
    rows = session.exec(
        select(Job.id, Job.state, Job.state_since).where(condition).order_by(col(Job.state_since)).limit(rows_max)
    ).all()
    return [BoardJob(row[0], JobState(row[1]), row[2]) for row in rows]
