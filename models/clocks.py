"""The clock as it was last seen: a clock that jumps must not delete what is not due."""

from datetime import datetime, timedelta
from typing import Final

from sqlmodel import Field, Session, SQLModel, select

from models.columns import UtcDateTime
from models.errors import ClockJumpedError
from models.personal_data import impersonal

_CLOCK: Final = 1


class Clock(SQLModel, table=True):
    """The latest moment at which somebody looked at the database's clock; one row, never set back."""

    id: int = Field(default=_CLOCK, primary_key=True, sa_column_kwargs={"autoincrement": False, **impersonal()})
    seen_at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())


def look_at_clock(session: Session, now: datetime, step_max: timedelta, *, is_confirmed: bool = False) -> None:
    """Compare the clock with what it showed when last looked at, and remember what it shows now.

    Args:
        session: a session that writes.
        now: what it shows, aware UTC.
        step_max: how far on it may be.
        is_confirmed: an operator says that it is right, though it is further on.

    Raises:
        ClockJumpedError: it is further on, or behind; nothing is remembered, so that the next look says so too.
    """
    found = select(Clock).where(Clock.id == _CLOCK).execution_options(populate_existing=True)
    clock = session.exec(found.with_for_update()).one_or_none()
    if clock is None:
        session.merge(Clock(seen_at=now))
        return
    if now < clock.seen_at:
        raise ClockJumpedError(clock.seen_at, now)
    if now > clock.seen_at + step_max and not is_confirmed:
        raise ClockJumpedError(clock.seen_at, now)
    clock.seen_at = now
    session.add(clock)
