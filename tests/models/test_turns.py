"""The turn to advance jobs: one process at a time has it, and a killed one gives it back."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from models.turns import turn_to_advance, turn_to_forget
from tasks.run_history import forget_earlier_runs, forget_runs

ROOT: Final = Path(__file__).resolve().parents[2]
HOLD: Final = """
import time
from models.turns import turn_to_advance
with turn_to_advance() as is_ours:
    print(is_ours, flush=True)
    time.sleep(60)
"""


@pytest.mark.usefixtures("any_database")
def test_a_turn_is_one_holders_at_a_time() -> None:
    """Also within a process; and it comes back when the block ends, by an error too."""
    with turn_to_advance() as first, turn_to_advance() as second:
        assert (first, second) == (True, False)
    with suppress(KeyError), turn_to_advance() as third:
        assert third
        raise KeyError
    with turn_to_advance() as fourth:
        assert fourth


@pytest.mark.usefixtures("any_database")
def test_who_forgets_runs_does_so_alone_and_keeps_nobody_from_advancing_jobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others ask Prefect nothing, whatever there is to forget."""
    monkeypatch.setattr("tasks.run_history.runs_to_forget", lambda *_: [uuid4()])
    monkeypatch.setattr("tasks.run_history.prefect_client", lambda: pytest.fail("Prefect was asked"))
    with turn_to_forget() as first, turn_to_advance() as advance:
        assert (first, advance) == (True, True)
        assert forget_runs.fn(100) == 0
        assert forget_earlier_runs.fn("show-board", uuid4()) == 0


@pytest.mark.usefixtures("any_database")
def test_a_killed_process_gives_its_turn_back() -> None:
    """Nobody has to wait for a time to run out."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    with turn_to_advance() as is_ours:
        assert not is_ours
    holder.kill()
    holder.communicate()
    for _ in range(100):  # PostgreSQL hears of it a moment later
        with turn_to_advance() as is_ours:
            if is_ours:
                return
        time.sleep(0.05)
    pytest.fail("the turn never came back")
