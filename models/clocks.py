"""The clock as it was last seen: a clock that jumps must not delete what is not due."""

from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Field, Session, SQLModel, select

from models.columns import UtcDateTime
from models.database import database_time
from models.errors import ClockJumpedError
from models.personal_data import impersonal

_CLOCK: Final = 1
_BEHIND_MAX: Final = timedelta(seconds=10)
"""Clocks are set right by a little all the time, and a database may move to another machine."""


class Clock(SQLModel, table=True):
    """The latest moment at which somebody looked at the database's clock; one row, set back by operators alone."""

    id: int = Field(default=_CLOCK, primary_key=True, sa_column_kwargs={"autoincrement": False, **impersonal()})
    seen_at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())


def look_at_clock(session: Session, step_max: timedelta, *, is_confirmed: bool = False) -> datetime:
    """Tell what time it is in the database, and compare it with what it was when somebody last looked.

    Args:
        session: a session that writes.
        step_max: how far on the clock may be; more than a day, because a daily sweep may be all that looks.
        is_confirmed: an operator says that it is right, though it is further on, or behind because it was wrong
            before.

    Returns:
        The moment, aware UTC.

    Raises:
        ClockJumpedError: it is further on, or more than 10 seconds behind. Nothing is remembered: whoever looks
            next is told too.
    """
    found = select(Clock).where(Clock.id == _CLOCK).execution_options(populate_existing=True)
    clock = session.exec(found.with_for_update()).one_or_none()
    # After the lock: two that look at once do not see each other's time as one to come.
    now = database_time(session)
    if clock is None:
        session.merge(Clock(seen_at=now))
        return now
    if is_confirmed:
        clock.seen_at = now
    elif clock.seen_at - _BEHIND_MAX <= now <= clock.seen_at + step_max:
        clock.seen_at = max(now, clock.seen_at)
    else:
        raise ClockJumpedError(clock.seen_at, now)
    session.add(clock)
    return now
