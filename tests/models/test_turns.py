"""The turn to advance jobs: one process at a time has it, and a killed one gives it back."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from models.turns import turn_to_advance

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
