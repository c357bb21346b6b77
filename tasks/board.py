"""Acts of the board: look at all jobs, and show them in Prefect as an artifact."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final
from uuid import UUID

from sqlmodel import col, select

from models.board import Board, BoardJob, read_board
from models.database import database_time, reading, writing
from models.due import DAYS_AHEAD
from models.jobs import Job
from models.runs import record_run_of_jobs
from tasks.acts import act
from tasks.artifacts import leave_markdown, moment
from tasks.prefect_api import prefect_client

_KEY: Final = "board"


@act
def look_at_board(lease_seconds: float, rows_max: int) -> Board:
    """Read the board, with at most `rows_max` jobs per concern.

    Args:
        lease_seconds: for how long a copy that does not report is believed to be alive.
        rows_max: jobs per concern.
    """
    with reading(of_one_moment=True) as session:
        return read_board(session, database_time(session), lease_seconds, rows_max)


@act
def show_board(board: Board, flow_run_id: UUID | None) -> None:
    """Show a board as an artifact of a run, and write down that the run spoke of every job that it names.

    A job that was deleted meanwhile, or that somebody works on at this moment, is counted and not named.

    Args:
        board: as it was read.
        flow_run_id: the run; None outside of one, where nothing is shown.

    Raises:
        PrefectAwayError: Prefect does not answer.
    """
    if flow_run_id is None:
        return
    with writing() as session:
        here = session.exec(
            select(Job.id).where(col(Job.id).in_(set(board.named()))).with_for_update(skip_locked=True)
        ).all()
        record_run_of_jobs(session, here, flow_run_id)
    with prefect_client() as client:
        leave_markdown(client, flow_run_id, _KEY, as_markdown(board, set(here)), "All jobs at a glance")


def as_markdown(board: Board, named: Collection[UUID]) -> str:
    """Write a board for people, with the ids of those jobs alone that may be named."""
    return "\n".join(
        [
            f"# All jobs, {moment(board.at)} UTC",
            "",
            *_states(board, named),
            "",
            "## To be looked at",
            "",
            *_concerns(board, named),
            f"## Due for deletion in the next {DAYS_AHEAD} days",
            "",
            *_due(board),
        ]
    )


def _states(board: Board, named: Collection[UUID]) -> Iterator[str]:
    yield "| state | jobs | the oldest | in this state since (UTC) |"
    yield "| --- | ---: | --- | --- |"
    for state, found in board.states.items():
        oldest = found.oldest[0] if found.oldest else None
        told = f"{_name(oldest, named)} | {moment(oldest.since)}" if oldest else " | "
        yield f"| {state} | {found.count:,} | {told} |"


def _concerns(board: Board, named: Collection[UUID]) -> Iterator[str]:
    if not any(found.count for found in board.concerns.values()):
        yield "Nothing is stuck, and nothing overdue."
        yield ""
    for concern, found in board.concerns.items():
        if not found.count:
            continue
        yield f"**{found.count:,}**: {concern}"
        yield ""
        yield from _listed(found.oldest, found.count, named)
        yield ""


def _listed(jobs: Sequence[BoardJob], count: int, named: Collection[UUID]) -> Iterator[str]:
    for job in jobs:
        yield f"- {_name(job, named)}, {job.state} since {moment(job.since)}"
    if count > len(jobs):
        yield f"- and {count - len(jobs):,} more"


def _name(job: BoardJob, named: Collection[UUID]) -> str:
    return f"`{job.job_id}`" if job.job_id in named else "one that is changing just now"


def _due(board: Board) -> Iterator[str]:
    if board.overdue_since:
        yield f"**Overdue since {moment(board.overdue_since)} UTC**; *enforce-retention* deletes what is due."
        yield ""
    if not board.due:
        yield "Nothing."
    else:
        yield "| day (UTC) | jobs | |"
        yield "| --- | ---: | --- |"
        for due in board.due:
            told = ", ".join(f"{count:,} {state}" for state, count in sorted(due.jobs.items()))
            yield f"| {due.day} | {due.jobs.total():,} | {told} |"
    if board.held:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(board.held.items()))
        yield ""
        yield f"Kept by legal hold: {reasons}."
