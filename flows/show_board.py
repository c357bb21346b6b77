"""show-board: all jobs at a glance, and what is stuck."""

from typing import Final

from flows.promises import Ended, done, promise, run_id
from models.settings import Settings
from tasks.board import look_at_board
from tasks.board import show_board as put_up
from tasks.run_history import BOARD, forget_earlier_runs

_ROWS_MAX: Final = 20


@promise(
    BOARD,
    """Shows all jobs at a glance, as the artifact *board*.

- **When:** every 5 minutes by itself; by hand to see it anew.
- **Ends** *Completed*; the artifact tells how many jobs are in each state and which is there longest, what
  somebody should look at (copies without a heartbeat, cancels not carried out, packages overdue or not sent
  back), and what is deleted in the next 7 days.
- **Never** shows names, and changes nothing. Only the newest board is kept, and none that names a deleted job.

What happened to one of them: **show-job**.""",
)
def show_board() -> Ended:
    """Show all jobs."""
    board = look_at_board(Settings().copy_lease_seconds, _ROWS_MAX)
    put_up(board, run_id())
    forget_earlier_runs(BOARD, run_id())
    concerns = sum(found.count for found in board.concerns.values())
    return done(
        f"{sum(found.count for found in board.states.values()):,} jobs; {concerns:,} to be looked at; "
        f"{sum(due.jobs.total() for due in board.due):,} due for deletion in the next 7 days"
    )
