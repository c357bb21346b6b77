"""The command line: what it prints, and how it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deployments import cli
from models.database import engine
from tests.builders import make_source


def _ended(*arguments: str) -> int:
    """Run a command in this process; gives its exit code."""
    try:
        cli.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_prepare_drive_prints_the_entry_of_drive_list_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it prints can be piped into a request."""
    source = make_source(tmp_path / "Holiday Photos 2026", {"a.jpg": b"a", "b/c.jpg": b"c"})
    drive = tmp_path / "SERIAL-7"
    drive.mkdir()
    assert _ended("prepare-drive", str(source), str(drive)) == 0
    entry = json.loads(capsys.readouterr().out)
    assert entry["driveId"] == "SERIAL-7"
    assert sorted(entry) == ["driveId", "manifestFile", "manifestHash"]
    manifest = (drive / entry["manifestFile"].lstrip("\\")).read_text("utf-8")
    assert "<BlobPath>holiday-photos-2026/b/c.jpg</BlobPath>" in manifest


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["prepare-drive", "{tmp}/none", "{tmp}"], "InvalidRequestContent: source: there is no folder"),
        (["prepare-drive", "{tmp}/source", "{tmp}/none"], "InvalidRequestContent: drive"),
        (["prepare-drive", "{tmp}/source", "{tmp}/drive", "--drive-id", "a b"], "InvalidRequestContent: drive"),
        (["prepare-drive", "{tmp}/source", "{tmp}/drive", "--container", "A"], "InvalidRequestContent: container"),
        (["tour", "--source", "{tmp}/none"], "InvalidRequestContent: source: is no folder"),
        (["tour", "--json", "{tmp}/none/out.json"], "InvalidRequestContent: json: there is no folder"),
    ],
)
def test_bad_input_is_told_in_one_line_and_exits_1(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Code first, no traceback."""
    make_source(tmp_path / "source", {"a": b"a"})
    (tmp_path / "drive").mkdir()
    assert _ended(*[each.format(tmp=tmp_path) for each in arguments]) == 1
    error = capsys.readouterr().err
    assert " ".join(error.split()).startswith(told)
    assert "Traceback" not in error


def test_the_tables_are_upgraded_twice_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Safe to repeat; what is made is for its owner's eyes alone."""
    fresh = tmp_path / "fresh"
    monkeypatch.setenv("DRIVEPOST_DATA_DIRECTORY", str(fresh))
    engine.cache_clear()
    assert _ended("database", "upgrade") == 0
    first = capsys.readouterr().err
    assert _ended("database", "upgrade") == 0
    assert capsys.readouterr().err == first
    assert (fresh / "drivepost.db").exists()
    assert fresh.stat().st_mode & 0o077 == 0

    monkeypatch.setenv("DRIVEPOST_DATABASE_URL", "mysql://host/name")
    assert _ended("database", "upgrade") == 1
    assert "SettingsInvalid: DRIVEPOST_DATABASE_URL: must begin with" in capsys.readouterr().err


def test_the_command_is_installed() -> None:
    """As `drivepost`, with help for each command."""
    command = Path(sys.executable).parent / "drivepost"
    told = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    for name in ("up", "tour", "prepare-drive", "database"):
        assert name in told
