"""The house keeps the shape of its design card."""

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
ROOMS: Final = {"models", "tasks", "flows", "deployments", "tests"}
TOP_LEVEL: Final = ROOMS | {"pyproject.toml", "README.md", "LICENSE"}


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """Everything that git keeps, or would, relative to the top."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(line) for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def test_the_top_level_holds_what_the_design_names(files: list[Path]) -> None:
    """No more, no less; files that begin with a dot aside."""
    assert {file.parts[0] for file in files if not file.parts[0].startswith(".")} == TOP_LEVEL


def test_no_package_stands_below_tests(files: list[Path]) -> None:
    """`tests/tasks/__init__.py` would hide the real `tasks`."""
    assert [str(file) for file in files if file.parts[0] == "tests" and file.name == "__init__.py"] == []


def test_tests_mirror_the_rooms(files: list[Path]) -> None:
    """A folder per room, and those for browser, journeys, the house and benchmarks."""
    folders = {file.parts[1] for file in files if file.parts[0] == "tests" and len(file.parts) > 2}
    assert folders <= (ROOMS - {"tests"}) | {"browser", "journeys", "house", "benchmarks"}


def test_no_room_is_crowded(files: list[Path]) -> None:
    """A file of ours is read in one go: at most 400 lines, but for the glossary of all errors."""
    crowded = {
        str(file): lines
        for file in files
        if file.suffix == ".py"
        and file.parts[0] in ROOMS - {"tests"}
        and "versions" not in file.parts
        and file != Path("models/errors.py")
        if (lines := len((ROOT / file).read_text("utf-8").splitlines())) > 400
    }
    assert crowded == {}


def test_the_constraints_are_names_and_versions_without_addresses() -> None:
    """So that they work with whatever index a machine uses."""
    lines = (ROOT / ".ci" / "constraints.txt").read_text("utf-8").splitlines()
    stated = [line for line in lines if line.strip() and not line.startswith("#")]
    assert stated
    assert [line for line in stated if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( ;.*)?", line)] == []
    assert "://" not in "\n".join(lines)
