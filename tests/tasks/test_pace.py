"""A long work leaves room: batches of about a twelfth of a second, small ones with pauses while others act."""

from dataclasses import dataclass, field

import pytest
from sqlalchemy import text

from models.database import acts_of_others, open_engine, reading, writing
from models.lifecycle import JobState
from tasks.pace import Pace
from tests.builders import job_in


@dataclass
class Watch:
    """A clock that stands still unless it is told to go on, and the pauses that were asked for."""

    now: float = 128.0
    pauses: list[float] = field(default_factory=list)

    def pace(self, rows_max: int, *, one_at_a_time: bool = False) -> Pace:
        """Make a pace by this clock."""
        return Pace(rows_max, one_at_a_time=one_at_a_time, clock=lambda: self.now, sleep=self.pauses.append)

    def work(self, pace: Pace, seconds_per_row: float, batches: int = 20, others: int | None = 1) -> list[int]:
        """Do batches; others act between each and the next where `others` is None. Gives the rows of each."""
        done = []
        for number in range(batches):
            done.append(pace.rows)
            seconds = seconds_per_row * pace.rows
            self.now += seconds
            pace.end(pace.rows, seconds, number if others is None else others)
        return done


def test_batches_grow_to_what_is_allowed_while_they_are_fast() -> None:
    """Step by step, from fifty rows on; nobody pauses."""
    watch = Watch()
    assert watch.work(watch.pace(500), 0.0001, 5) == [50, 62, 77, 96, 120]
    assert watch.work(watch.pace(500), 0.0001)[-1] == 500
    assert watch.pauses == []


def test_batches_shrink_until_they_take_a_twelfth_of_a_second() -> None:
    """At once, when they took longer; below fifty rows a transaction would cost more than what is in it."""
    watch = Watch()
    pace = watch.pace(10_000)
    assert watch.work(pace, 2**-13)[-1] == 655
    assert watch.work(pace, 2**-12, 3) == [655, 327, 327]
    assert watch.work(pace, 1, 3) == [327, 50, 50]


def test_no_batch_has_more_rows_than_are_allowed() -> None:
    """One at a time, where only one is."""
    watch = Watch()
    assert set(watch.work(watch.pace(1), 0.5)) == {1}
    assert set(watch.work(watch.pace(30), 0.0001)) == {30}


def test_while_others_wait_batches_are_very_short_and_followed_by_a_pause_as_long() -> None:
    """Until nobody has acted for two seconds."""
    watch = Watch()
    pace = watch.pace(500, one_at_a_time=True)
    assert watch.work(pace, 2**-12, 10, others=None)[-1] == 20
    assert len(watch.pauses) == 9, "before the second batch nothing is known"
    assert not pace.is_alone
    assert watch.pauses[-1] == 20 * 2**-12
    assert watch.work(pace, 1, 2, others=None) == [20, 4]
    pauses = len(watch.pauses)
    watch.now += 2
    assert watch.work(pace, 2**-13)[-1] == 500
    assert len(watch.pauses) == pauses
    assert pace.is_alone


def test_while_others_act_and_nobody_waits_batches_are_short_and_followed_by_a_pause_as_long() -> None:
    """Fifty rows at least, which pay for a transaction."""
    watch = Watch()
    pace = watch.pace(500)
    assert watch.work(pace, 2**-12, 10, others=None)[-1] == 122
    assert watch.pauses[-1] == 122 * 2**-12
    assert watch.work(pace, 1, 2, others=None) == [122, 50]


def test_acts_of_others_are_noticed_and_own_ones_are_not(any_database: str) -> None:
    """What others write, on both databases; a process with several connections is not another."""
    with reading() as one, reading() as two:
        one.connection()
        two.connection()
    told = []
    for name in ("one", "two", "three"):
        with writing() as session:
            job_in(session, JobState.CREATING, name)
        told.append(acts_of_others())
    assert len(set(told)) == 1
    other = open_engine(any_database, 5)
    with other.execution_options(writes=True).begin() as connection:
        connection.exec_driver_sql("UPDATE job SET copy_token = copy_token + 1")
    assert acts_of_others() != told[0]
    other.dispose()


def test_who_may_not_see_others_works_as_if_alone(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a courtesy, and no reason to delete nothing."""
    monkeypatch.setattr("models.database._LAST_ACT_OF_OTHERS", text("SELECT passwd FROM nowhere_to_be_seen"))
    assert acts_of_others() == 0
    with writing() as session:
        job_in(session, JobState.CREATING, "job1")
