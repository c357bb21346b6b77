"""`drivepost tour`: the README's first command."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from deployments.travel import PromiseBrokenError, Traveller


def test_the_tour_keeps_every_promise_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """On real files and a real Prefect server, whatever the user's own settings are."""
    told = tmp_path / "out.json"
    own = {**os.environ, "TMPDIR": str(tmp_path), "DRIVEPOST_DATABASE_URL": "mysql://user@elsewhere/own"}
    ended = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "tour", "--json", str(told)],
        env=own,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    seen = json.loads(told.read_text("utf-8"))
    assert len(seen["promises"]) >= 20
    assert all(promise["kept"] and promise["seen"] for promise in seen["promises"])
    assert seen["figures"]["files"] > 1000
    assert len([line for line in ended.stderr.splitlines() if line.startswith("kept ")]) == len(seen["promises"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json"]
    print(json.dumps(seen["figures"]))  # noqa: T201  figures for the reader


def test_a_broken_promise_is_told_and_the_next_one_is_looked_at(sqlite: str) -> None:
    """Whether it is broken or something fails on the way."""
    written = io.StringIO()
    traveller = Traveller(Console(file=written))
    with traveller._promise("first"):
        _fail(PromiseBrokenError("it was not so"))
    with traveller._promise("second"):
        _fail(OSError("the disk is gone"))
    with traveller._promise("third") as observed:
        observed.append("all is well")
    assert [(seen.promise, seen.kept, seen.seen) for seen in traveller.seen] == [
        ("first", False, "it was not so"),
        ("second", False, "OSError: the disk is gone"),
        ("third", True, "all is well"),
    ]
    assert written.getvalue().count("BROKEN") == 2


def _fail(error: Exception) -> None:
    raise error
