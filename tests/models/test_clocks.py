"""A clock that jumps is told, and nothing is remembered of it."""

from datetime import datetime, timedelta
from typing import Final

import pytest

from models.clocks import Clock, look_at_clock
from models.database import database_time, reading, writing
from models.errors import ClockJumpedError
from tests.builders import at_once

DAY: Final = timedelta(days=1)


def seen() -> datetime | None:
    """Read when somebody last looked."""
    with reading() as session:
        clock = session.get(Clock, 1)
        return clock.seen_at if clock else None


def last_seen(ago: timedelta) -> datetime:
    """Let the clock have been looked at some time ago, or some time to come."""
    with writing() as session:
        at = database_time(session) - ago
        session.merge(Clock(id=1, seen_at=at))
    return at


def look(*, is_confirmed: bool = False) -> datetime:
    """Look at the clock; a day on is right."""
    with writing() as session:
        return look_at_clock(session, DAY, is_confirmed=is_confirmed)


@pytest.mark.parametrize("ago", [timedelta(), timedelta(minutes=1), timedelta(hours=23, minutes=59)])
def test_a_clock_that_went_on_is_right(any_database: str, ago: timedelta) -> None:
    """The first look ever is right, too; each is remembered."""
    assert look() == seen()
    last_seen(ago)
    assert look() == seen()


@pytest.mark.parametrize("ago", [timedelta(days=1, minutes=1), timedelta(days=400)])
def test_a_clock_far_ahead_is_told_until_somebody_says_it_is_right(any_database: str, ago: timedelta) -> None:
    """Looking again does not make it right."""
    at = last_seen(ago)
    for _ in range(2):
        with pytest.raises(ClockJumpedError, match="clock_is_right"):
            look()
        assert seen() == at
    assert look(is_confirmed=True) == seen()
    assert look() == seen()


@pytest.mark.parametrize("to_come", [timedelta(minutes=1), timedelta(days=400)])
def test_a_clock_that_went_back_is_told_until_somebody_says_it_is_right(
    any_database: str, to_come: timedelta
) -> None:
    """Whoever confirmed a wrong clock need not wait until the right one has caught up."""
    at = last_seen(-to_come)
    for _ in range(2):
        with pytest.raises(ClockJumpedError, match=r"was wrong before, run .* clock_is_right"):
            look()
        assert seen() == at
    assert at > look(is_confirmed=True) == seen()
    assert look() == seen()


def test_a_clock_that_is_set_right_by_a_little_is_no_jump(any_database: str) -> None:
    """What was seen stays, so that many little steps are one large one in the end."""
    at = last_seen(-timedelta(seconds=8))
    assert look() < at
    assert seen() == at


def test_several_that_look_at_once_see_no_jump(any_database: str) -> None:
    """Each reads the time after it has the row."""
    look()
    for _ in range(5):
        found = at_once(*[look] * 4)
        assert all(isinstance(each, datetime) for each in found), found
