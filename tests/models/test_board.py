"""The board counts every job, names the oldest, and its work follows what is shown."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import event, text
from sqlmodel import Session, col, select

from models.board import Board, read_board
from models.concerns import Concern
from models.database import engine, writing
from models.holds import place_hold
from models.jobs import HoldReason, Job
from models.lifecycle import Actor, JobState
from tests.builders import NOON, job_in, put_on_site, set_columns

LEASE: Final = 60
DAY: Final = timedelta(days=1)
SECOND: Final = timedelta(seconds=1)


def board_of(session: Session, rows_max: int = 20) -> Board:
    """Read the board at noon."""
    return read_board(session, NOON, LEASE, rows_max)


def test_every_state_tells_how_many_and_which_is_the_oldest(any_database: str) -> None:
    """One more of each state than of the one before; a state of none says so."""
    with writing() as session:
        oldest = {}
        for number, state in enumerate(JobState):
            for each in range(number):
                job_id = job_in(session, state, f"job{number}-{each}", NOON - each * DAY)
                oldest[state] = job_id
        board = board_of(session)
    for number, state in enumerate(JobState):
        found = board.states[state]
        assert found.count == number
        assert [job.job_id for job in found.oldest] == ([oldest[state]] if number else [])
        assert [job.since for job in found.oldest] == ([NOON - (number - 1) * DAY] if number else [])
    assert set(board.named()) >= set(oldest.values())


def concerned(concern: Concern, session: Session, *, is_so: bool, name: str = "job1") -> None:
    """Make a job that is of concern, or misses it by one second."""
    late = timedelta(0) if is_so else SECOND
    if concern is Concern.OVERDUE:
        job_in(session, JobState.SHIPPING, name, NOON - 14 * DAY + late)
    elif concern is Concern.DUE_BACK:
        job_id = job_in(session, JobState.PACKAGING, name, NOON - 3 * DAY + late)
        put_on_site(session, job_id, NOON - 3 * DAY + late)
    elif concern is Concern.LATE_CANCEL:
        job_id = job_in(session, JobState.SHIPPING, name, NOON - DAY, cancelled=True)
        set_columns(session, job_id, cancel_requested_at=NOON - timedelta(minutes=10) + late)
    else:
        job_id = job_in(session, JobState.TRANSFERRING, name, NOON)
        set_columns(session, job_id, copy_lease_until=NOON - timedelta(seconds=LEASE) + late)


@pytest.mark.parametrize("concern", Concern, ids=lambda concern: concern.name)
@pytest.mark.parametrize("is_so", [True, False])
def test_a_job_is_of_concern_from_its_second_on(concern: Concern, is_so: bool, any_database: str) -> None:
    """And not a second before; it is of no other concern."""
    with writing() as session:
        concerned(concern, session, is_so=is_so)
        board = board_of(session)
    assert {each: found.count for each, found in board.concerns.items()} == {
        each: int(is_so and each is concern) for each in Concern
    }


def test_a_cancelled_job_is_not_overdue_and_one_that_is_over_not_late(sqlite: str) -> None:
    """A cancel ends the waiting; a Completed job's cancel was carried out."""
    with writing() as session:
        waiting = job_in(session, JobState.SHIPPING, "job1", NOON - 20 * DAY, cancelled=True)
        set_columns(session, waiting, cancel_requested_at=NOON)
        job_in(session, JobState.COMPLETED, "job2", NOON - 20 * DAY, cancelled=True)
        assert not any(found.count for found in board_of(session).concerns.values())


def test_a_list_names_the_oldest_and_counts_the_others(sqlite: str) -> None:
    """Oldest first."""
    with writing() as session:
        made = [job_in(session, JobState.PACKAGING, f"job{day}", NOON - day * DAY) for day in range(4, 9)]
        for job_id in made:
            put_on_site(session, job_id, NOON - 4 * DAY)
        found = board_of(session, rows_max=2).concerns[Concern.DUE_BACK]
    assert found.count == 5
    assert [job.job_id for job in found.oldest] == [made[4], made[3]]


def test_what_is_due_what_is_overdue_and_what_is_held_is_told(any_database: str) -> None:
    """A held job is neither due nor overdue."""
    with writing() as session:
        job_in(session, JobState.COMPLETED, "due", NOON - 88 * DAY)
        job_in(session, JobState.CREATING, "later", NOON)
        assert board_of(session).overdue_since is None
        job_in(session, JobState.CLOSED, "overdue", NOON - 91 * DAY)
        held = job_in(session, JobState.CLOSED, "held", NOON - 95 * DAY)
        place_hold(session, held, HoldReason.AUDIT, at=NOON, by=Actor.OPERATOR)
        board = board_of(session)
    assert [(due.day, dict(due.jobs)) for due in board.due] == [
        ((NOON + 2 * DAY).date(), {JobState.COMPLETED: 1}),
    ]
    assert board.overdue_since == NOON - DAY
    assert board.held == {HoldReason.AUDIT: 1}


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """Note what is asked of the database: statements with their parameters."""
    noted: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            noted.append((statement, parameters))

    event.listen(engine(), "before_cursor_execute", note)
    try:
        yield noted
    finally:
        event.remove(engine(), "before_cursor_execute", note)


def plan_of(session: Session, statement: str, parameters: Any) -> str:
    """Tell how the database goes about a statement."""
    explain = "EXPLAIN" if engine().dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    found = session.connection().exec_driver_sql(f"{explain} {statement}", parameters)
    return "\n".join(" ".join(map(str, line)) for line in found)


FULL: Final = re.compile(r"\bSCAN job(?! USING COVERING INDEX)|Seq Scan on job\b")


def test_no_part_of_the_board_reads_the_whole_table(any_database: str) -> None:
    """By the database's own plan; the control, which asks for what has no index, reads all there is."""
    with writing() as session:
        for state in JobState:
            put_on_site(session, job_in(session, state, f"job-{state}", NOON - 20 * DAY), NOON - 20 * DAY)
        if engine().dialect.name == "postgresql":
            # Of a few rows it would read all whatever is asked.
            session.connection().execute(text("SET LOCAL enable_seqscan = off"))
        with statements() as noted:
            board_of(session, rows_max=1)
        # Of two concerns there is one, so that it is counted how many there are.
        assert len(noted) >= 1 + len(JobState) + len(Concern) + 2 + 3
        for statement, parameters in noted:
            plan = plan_of(session, statement, parameters)
            assert not FULL.search(plan), (statement, plan)
        with statements() as noted:
            session.exec(select(Job).where(col(Job.location) == "nowhere")).all()
        assert FULL.search(plan_of(session, *noted[0]))
