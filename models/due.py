"""What retention has before it: how late the oldest is, and what comes due in the days ahead."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, SQLColumnExpression, func
from sqlmodel import Session, col, select

from models.jobs import Job
from models.lifecycle import RULES, JobState, Operation

DAYS_AHEAD: Final = 7


@dataclass(frozen=True, slots=True)
class Due:
    """How many jobs come due on one day, in UTC, by state."""

    day: date
    jobs: Counter[JobState]


def oldest_expired(session: Session, at: datetime) -> datetime | None:
    """Tell since when the longest overdue job should be gone, aware UTC; None when none is due at that moment."""
    return session.exec(
        select(Job.expires_at).where(*is_over(session, at)).order_by(col(Job.expires_at)).limit(1)
    ).one_or_none()


def due_by_day(session: Session, at: datetime, days: int = DAYS_AHEAD) -> list[Due]:
    """Count what comes due after a moment, day by day in UTC; days without any are left out.

    Args:
        session: an open session.
        at: the moment, aware UTC.
        days: how many days of 24 hours ahead.
    """
    day = func.date(col(Job.expires_at))
    rows = session.exec(
        select(day, Job.state, func.count())
        .where(*is_over(session, at + timedelta(days=days)), col(Job.expires_at) > at)
        .group_by(day, col(Job.state))
    ).all()
    counted: dict[date, Counter[JobState]] = {}
    for told, state, count in rows:
        found = told if isinstance(told, date) else date.fromisoformat(told)
        counted.setdefault(found, Counter())[JobState(state)] += count
    return [Due(each, counted[each]) for each in sorted(counted)]


def count_held_due(session: Session, at: datetime) -> int:
    """Count the jobs whose time is over and that a legal hold keeps."""
    held = select(func.count()).select_from(Job).where(col(Job.held_since).is_not(None), col(Job.expires_at) <= at)
    return session.exec(held).one()


def is_over(session: Session, at: datetime) -> Sequence[ColumnElement[bool]]:
    """Tell of a job, as conditions, whether its time is over at a moment and nothing holds it."""
    state: SQLColumnExpression[Any] = col(Job.state)
    if session.get_bind().dialect.name == "sqlite":
        # Else it takes the index on states and reads every Completed job; PostgreSQL knows how few are due.
        state = func.coalesce(state, "")
    return col(Job.expires_at) <= at, col(Job.held_since).is_(None), state.in_(RULES[Operation.EXPIRE].done)
