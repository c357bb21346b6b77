"""`drivepost watch`: what it shows, when it ends, and with which exit code."""

import io
import json
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import psycopg
import pytest
from rich.console import Console
from sqlalchemy import update
from sqlmodel import col

from deployments import cli, watch
from models.copy_logs import DriveStatus
from models.database import engine, reading, writing
from models.deletion import delete_job
from models.drives import Drive
from models.jobs import move, read_job, request_cancel
from models.lifecycle import Actor, DriveState, JobState
from models.progress import read_progress
from tests.builders import ADDRESS, DRIVE, NOON, job_in

_TWO_DRIVES = [{**DRIVE, "driveId": f"SERIAL-NUMBER-{number}"} for number in (1, 2)]


def _ended(*arguments: str) -> int:
    """Run a command in this process; gives its exit code."""
    try:
        cli.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _made(state: JobState = JobState.RECEIVED, **options: Any) -> UUID:
    with writing() as session:
        job_id = job_in(session, state, driveList=_TWO_DRIVES, **options)
    _change(job_id, 1, state=DriveState.RECEIVED)
    _change(job_id, 2, state=DriveState.RECEIVED)
    return job_id


def _change(job_id: UUID, number: int, **values: object) -> None:
    """Write columns of a drive, as its copy does."""
    of_drive = update(Drive).where(col(Drive.job_id) == job_id, col(Drive.number) == number)
    with writing() as session:
        session.connection().execute(of_drive.values(**values))


def _move(job_id: UUID, target: JobState) -> None:
    with writing() as session:
        move(session, read_job(session, job_id), target, at=NOON, by=Actor.SERVICE)


def _copy(job_id: UUID, number: int, done: int, total: int = 1000) -> None:
    _change(job_id, number, state=DriveState.TRANSFERRING, bytes_total=total, bytes_succeeded=done)


def _begin(job_id: UUID) -> None:
    _move(job_id, JobState.TRANSFERRING)
    _copy(job_id, 1, 0)


def _finish(job_id: UUID, number: int, status: DriveStatus = DriveStatus.COMPLETED) -> None:
    _change(
        job_id,
        number,
        state=DriveState.COMPLETED if status is DriveStatus.COMPLETED else DriveState.COMPLETED_MORE_INFO,
        copy_status=status,
        bytes_total=1000,
        bytes_succeeded=1000,
    )


def _between_looks(monkeypatch: pytest.MonkeyPatch, *acts: Callable[[], object]) -> None:
    """Let the world go on, one act a second, while the job is watched."""
    left = list(acts)

    def act(_seconds: float) -> None:
        assert left, "it went on watching"
        left.pop(0)()

    monkeypatch.setattr(watch, "sleep", act)


def _whole_life(job_id: UUID) -> Sequence[Callable[[], object]]:
    return (
        lambda: None,
        lambda: _begin(job_id),
        lambda: _copy(job_id, 1, 430),
        lambda: _finish(job_id, 1),
        lambda: _finish(job_id, 2),
        lambda: _move(job_id, JobState.PACKAGING),
    )


def test_away_from_a_terminal_each_change_is_one_line(
    sqlite: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the error stream; a look that finds nothing new says nothing; it ends with Packaging."""
    job_id = _made()
    _between_looks(monkeypatch, *_whole_life(job_id))
    assert _ended("watch", "S1/g1/JOB1") == 0
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "job Received; drive 1 Received; drive 2 Received"
    assert lines[1] == "job Transferring, 0 %; drive 1 Transferring, 0 %, 0 of 1,000 bytes; drive 2 Received"
    assert lines[2].startswith("job Transferring, 21 %; drive 1 Transferring, 43 %, 430 of 1,000 bytes; drive 2")
    assert lines[3] == (
        "job Transferring, 50 %; drive 1 Completed (Completed), 100 %, 1,000 of 1,000 bytes; drive 2 Received"
    )
    assert lines[5].startswith("job Packaging, 100 %")
    assert len(lines) == 6


def test_a_change_is_one_json_object_on_the_standard_output(
    sqlite: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else is printed."""
    job_id = _made()
    _between_looks(monkeypatch, *_whole_life(job_id))
    assert _ended("watch", str(job_id), "--json") == 0
    out, err = capsys.readouterr()
    told = [json.loads(line) for line in out.splitlines()]
    assert err == ""
    assert [each["state"] for each in told] == ["Received", *["Transferring"] * 4, "Packaging"]
    assert [each["percentComplete"] for each in told] == [None, 0, 21, 50, 100, 100]
    assert {each["job"] for each in told} == {str(job_id)}
    assert told[1]["drives"][0] == {
        "number": 1,
        "state": "Transferring",
        "copyStatus": None,
        "percentComplete": 0,
        "bytesSucceeded": 0,
        "bytesTotal": 1000,
        "bytesPerSecond": None,
        "secondsLeft": None,
    }
    assert told[1]["drives"][1]["bytesTotal"] is None


def test_a_terminal_shows_a_bar_for_the_job_and_for_each_drive(
    sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left on the screen is how it ended."""
    job_id = _made()
    shown = io.StringIO()
    _between_looks(monkeypatch, *_whole_life(job_id))
    console = Console(file=shown, force_terminal=True, width=140, color_system=None)
    assert watch.watch_job(console, str(job_id)) == 0
    told = re.sub(r"\x1b\[[?\d]*[A-Za-z]", "", shown.getvalue())
    last = [line.split() for line in told.splitlines() if "━" in line][-3:]
    assert [line[0] for line in last] == ["job", "drive", "drive"]
    assert [line[-2:] for line in last] == [["100", "%"], ["1,000", "bytes"], ["1,000", "bytes"]]


def test_speed_and_time_left_are_those_of_what_was_copied_while_watching(sqlite: str) -> None:
    """What a run before copied does not count as speed; a drive that is not copied has none."""
    job_id = _made()
    _copy(job_id, 1, 400)
    view = watch._View(Console(file=io.StringIO()), is_live=False)
    now = 0.0
    view._bars.get_time = lambda: now
    paces = []
    for second in range(4):
        now = float(second)
        _copy(job_id, 1, 400 + 100 * second)
        with reading() as session:
            progress = read_progress(session, job_id)
        view.take_in(progress)
        paces.append(view.document(progress)["drives"])
    of_first = [(drives[0]["bytesPerSecond"], drives[0]["secondsLeft"]) for drives in paces]  # type: ignore[index]
    assert of_first[0] == (None, None)
    assert of_first[3] == (100, 3)
    assert {drives[1]["bytesPerSecond"] for drives in paces} == {None}  # type: ignore[index]


def test_it_waits_for_a_job_that_has_not_come_yet(
    sqlite: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before Transferring there is nothing to show but its state."""
    with writing() as session:
        job_id = job_in(session, JobState.CREATING)

    def leave() -> None:
        raise KeyboardInterrupt

    _between_looks(monkeypatch, lambda: None, lambda: None, leave)
    assert _ended("watch", str(job_id)) == 130
    assert capsys.readouterr().err == "job Creating; drive 1 Specified\nno longer watched; the job goes on\n"


@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        (lambda job_id: _finish(job_id, 2), 0, "Packaging"),
        (lambda job_id: _finish(job_id, 2, DriveStatus.COMPLETED_WITH_WARNINGS), 0, "(CompletedWithWarnings)"),
        (lambda job_id: _finish(job_id, 2, DriveStatus.COMPLETED_WITH_ERRORS), 3, "(CompletedWithErrors)"),
        (lambda job_id: _change(job_id, 2, state=DriveState.NEVER_RECEIVED), 3, "drive 2 NeverReceived"),
    ],
)
def test_the_exit_code_says_whether_everything_was_copied(
    end: Callable[[UUID], object],
    code: int,
    told: str,
    sqlite: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As the job will end: Completed, or Closed."""
    job_id = _made(JobState.TRANSFERRING)
    _finish(job_id, 1)
    _between_looks(monkeypatch, lambda: end(job_id), lambda: _move(job_id, JobState.PACKAGING))
    assert _ended("watch", str(job_id)) == code
    assert told in capsys.readouterr().err


def test_a_cancel_is_seen_when_it_is_accepted_and_when_it_is_carried_out(
    sqlite: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cancelled job is over, and not everything was copied."""
    job_id = _made(JobState.TRANSFERRING)

    def cancel() -> None:
        with writing() as session:
            request_cancel(session, job_id, at=NOON, by=Actor.CUSTOMER)

    _between_looks(monkeypatch, cancel, lambda: _move(job_id, JobState.COMPLETED))
    assert _ended("watch", str(job_id)) == 3
    told = [line.partition(";")[0] for line in capsys.readouterr().err.splitlines()]
    assert told == ["job Transferring", "job Transferring (cancel accepted)", "job Completed"]


@pytest.mark.parametrize("as_json", [False, True])
def test_it_ends_when_the_job_is_deleted(
    as_json: bool, sqlite: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It cannot be told how it ended."""
    with writing() as session:
        job_id = job_in(session, JobState.CREATING)

    def delete() -> None:
        with writing() as session:
            delete_job(session, job_id, at=NOON, by=Actor.CUSTOMER)

    _between_looks(monkeypatch, delete)
    assert _ended("watch", str(job_id), *(["--json"] if as_json else [])) == 4
    out, err = capsys.readouterr()
    assert err.endswith(f"job {job_id} was deleted\n")
    if as_json:
        assert json.loads(out.splitlines()[-1]) == {"job": str(job_id), "isDeleted": True}


@pytest.mark.parametrize("state", [JobState.CREATING, JobState.TRANSFERRING, JobState.CLOSED])
def test_once_tells_what_is_now_and_waits_for_nothing(
    state: JobState, sqlite: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, or one JSON object."""
    job_id = _made(state)
    _between_looks(monkeypatch)
    assert _ended("watch", str(job_id), "--once") == 0
    assert capsys.readouterr().err.startswith(f"job {state};")
    assert _ended("watch", str(job_id), "--once", "--json") == 0
    assert json.loads(capsys.readouterr().out)["state"] == state


@pytest.mark.parametrize("reference", ["0b7e4a52-9c1d-4f3a-8e65-2d1c7b9a6f04", "s1/g1/none", "nonsense", ""])
def test_a_job_that_is_not_there_is_refused(
    reference: str, sqlite: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line."""
    assert _ended("watch", reference) == 1
    assert capsys.readouterr().err.startswith("ResourceNotFound: ")


def test_nobodys_data_is_shown(
    sqlite: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drives go by their numbers."""
    job_id = _made()
    for option in ([], ["--json"]):
        _between_looks(monkeypatch)
        assert _ended("watch", str(job_id), "--once", *option) == 0
        told = "".join(capsys.readouterr())
        values = ["SERIAL", "TRACK1", "ACCOUNT1", *(value for value in ADDRESS.values() if len(value) > 3)]
        assert not [value for value in values if value in told]


def test_it_outlives_a_database_that_is_away(
    postgresql: str,
    postgresql_server: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A real one that drops every connection and takes none; said once, and once that it is back."""
    job_id = _made(JobState.TRANSFERRING)
    name = engine().url.database

    def let_in(yes: bool) -> None:
        with psycopg.connect(postgresql_server, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {yes}'.encode())
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    def go_on() -> None:
        let_in(True)
        _finish(job_id, 1)
        _finish(job_id, 2)
        _move(job_id, JobState.PACKAGING)

    _between_looks(monkeypatch, lambda: let_in(False), lambda: None, go_on)
    assert _ended("watch", str(job_id)) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[1] == "the database refused: OperationalError; trying again"
    assert lines[2] == "the database answers again"
    assert lines[3].startswith("job Packaging, 100 %")


def test_a_database_that_stays_away_is_told_after_ten_minutes(
    sqlite: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The clock is the test's."""
    job_id = _made()
    now = [1000.0]
    monkeypatch.setattr(watch, "monotonic", lambda: now[0])

    def lose() -> None:
        with engine().begin() as connection:
            connection.exec_driver_sql("ALTER TABLE drive RENAME TO gone")

    def wait(seconds: float) -> Callable[[], None]:
        def act() -> None:
            now[0] += seconds

        return act

    _between_looks(monkeypatch, lose, wait(600), wait(1))
    assert _ended("watch", str(job_id)) == 1
    assert capsys.readouterr().err.endswith("\nDatabaseUnusable: the database refused: OperationalError\n")


def test_it_reads_only(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who writes for long does not keep it waiting, nor it them."""
    job_id = _made()
    over = threading.Event()

    def write() -> None:
        with writing() as session:
            read_job(session, job_id, lock=True)
            over.wait(10)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        _between_looks(monkeypatch)
        assert _ended("watch", str(job_id), "--once") == 0
        assert writer.is_alive()
    finally:
        over.set()
        writer.join()
