"""The command line: what it prints, and how it refuses."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from sqlmodel import select

from deployments import cli
from models.database import engine, reading, writing
from models.events import JobEvent
from models.jobs import Job
from models.lifecycle import Actor, JobState
from models.requests import REQUEST_BYTES_MAX
from tests.builders import ADDRESS, job_in, job_request, make_source


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


def _file(tmp_path: Path, document: object) -> str:
    """Write a request file somewhere."""
    file = tmp_path / "anywhere.txt"
    file.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return str(file)


def test_create_job_prints_the_id_of_the_job_and_nothing_else(
    tmp_path: Path, sqlite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file may lie anywhere, and stays; asked again, the job is replaced while it is Creating."""
    file = _file(tmp_path, job_request())
    before = Path(file).read_bytes()
    assert _ended("create-job", file) == 0
    told = capsys.readouterr()
    assert re.fullmatch(r"[0-9a-f-]{36}\n", told.out)
    assert told.err == ""
    assert _ended("create-job", file) == 0
    assert capsys.readouterr().out == told.out
    with reading() as session:
        assert session.exec(select(Job.id)).all() == [UUID(told.out.strip())]
        assert {event.by for event in session.exec(select(JobEvent)).all()} == {Actor.OPERATOR}
    assert Path(file).read_bytes() == before


def test_create_job_reads_the_standard_input(
    sqlite: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by a dash."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(job_request("job-7")).encode())))
    assert _ended("create-job", "-") == 0
    with reading() as session:
        assert session.exec(select(Job.name, Job.id)).all() == [("job-7", UUID(capsys.readouterr().out.strip()))]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (b"{no JSON", "InvalidRequestContent: Invalid JSON"),
        (b"\xff\xfe", "InvalidRequestContent: "),
        ([1], "InvalidRequestContent: "),
        (
            job_request(returnAddress={**ADDRESS, "city": ""}),
            "InvalidRequestContent: body.properties.returnAddress.",
        ),
        (job_request(location="Moon"), "InvalidRequestContent: location: is no location"),
        (job_request("taken"), "JobStateConflict: a Shipping job cannot take 'replace'"),
        (b" " * (REQUEST_BYTES_MAX + 1), "InvalidRequestContent: file: is over 1 MiB"),
        ({**job_request(), "saveCarrierAndReturnAddressAsDefault": True}, "InvalidRequestContent: saveCarrier"),
    ],
)
def test_create_job_refuses_in_one_line(
    document: object, told: str, tmp_path: Path, sqlite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Code first, nobody's data, no traceback; nothing is printed that could be taken for an id."""
    with writing() as session:
        job_in(session, JobState.SHIPPING, "taken")
    assert _ended("create-job", _file(tmp_path, document)) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(told)
    assert not [value for value in ADDRESS.values() if len(value) > 2 and value in err]
    with reading() as session:
        assert session.exec(select(Job.name)).all() == ["taken"]


def test_create_job_tells_of_a_file_that_cannot_be_read(
    tmp_path: Path, sqlite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not there, or a folder."""
    for file, why in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        assert _ended("create-job", str(file)) == 1
        assert capsys.readouterr().err == f"InvalidRequestContent: file: cannot be read: {why}\n"


def test_create_job_wants_the_tables_of_this_version_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before it looks at the file."""
    monkeypatch.setenv("DRIVEPOST_DATA_DIRECTORY", str(tmp_path / "fresh"))
    engine.cache_clear()
    assert _ended("create-job", str(tmp_path / "none")) == 1
    assert capsys.readouterr().err == (
        "DatabaseUnusable: the tables are not those of this version; run 'drivepost database upgrade'\n"
    )
    engine.cache_clear()


def test_an_error_of_the_database_is_told_by_its_type(
    tmp_path: Path, sqlite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its text may hold a person's data."""
    with engine().begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER no BEFORE INSERT ON return_address BEGIN SELECT RAISE(FAIL, 'x'); END"
        )
    assert _ended("create-job", _file(tmp_path, job_request())) == 1
    assert capsys.readouterr().err == "DatabaseUnusable: the database refused: IntegrityError\n"


def test_the_command_is_installed() -> None:
    """As `drivepost`, with help for each command."""
    command = Path(sys.executable).parent / "drivepost"
    told = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    for name in ("up", "tour", "prepare-drive", "create-job", "database"):
        assert name in told
