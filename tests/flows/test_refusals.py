"""What is refused ends as Failed with one clear line, and whatever was asked for is not lost."""

import json
import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State
from sqlmodel import select

from flows.advance_jobs import advance_jobs
from flows.cancel_job import cancel_job
from flows.check_in_drives import check_in_drives
from flows.close_job import close_job
from flows.create_job import create_job
from flows.delete_job import delete_job
from flows.import_drives import import_drives
from flows.import_portal_settings import import_portal_settings
from flows.return_drives import return_drives
from flows.ship_job import ship_job
from models.database import database_time, reading, writing
from models.jobs import Job, read_job
from models.lifecycle import JobState
from tasks import intake
from tests.builders import ADDRESS, DRIVE, PACKAGE, RETURN_SHIPPING, age, job_in, job_request, mount_drive

pytestmark = pytest.mark.usefixtures("plain_acts", "sqlite")

_S: Final = JobState
PERSONAL: Final = [
    value
    for source in (ADDRESS, PACKAGE, RETURN_SHIPPING, {"driveId": DRIVE["driveId"]})
    for value in map(str, source.values())
    if len(value) > 2
]
BY_NAME: Final = "s1/g1/job1"


@pytest.fixture(autouse=True)
def _no_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no flow look for a server."""
    for place in (
        "advance_jobs.start_copies",
        "advance_jobs.hide_names",
        "advance_jobs.forget_runs",
        "advance_jobs.drop_late_runs",
        "advance_jobs.bury_dead_runs",
        "advance_jobs.record_unbegun_runs",
        "delete_job.forget_runs",
    ):
        monkeypatch.setattr(f"flows.{place}", lambda *_: [])
    for place in ("promises", "delete_job"):
        monkeypatch.setattr(f"flows.{place}.hide_parameters", lambda *_: None)


def refused(ended: State[Any], code: str, *told: str) -> str:
    """See that a run ended as Failed by one line that begins with the code, tells this, and names no person."""
    line = ended.message or ""
    assert ended.is_failed(), line
    assert re.match(rf"{code}: \S", line), line
    assert "\n" not in line
    for part in told:
        assert part in line
    for value in PERSONAL:
        assert value not in line
    return line


def job(state: JobState, **options: Any) -> str:
    """Make a job in a state; gives its id."""
    with writing() as session:
        return str(job_in(session, state, at=database_time(session), **options))


def row(job_id: str) -> dict[str, Any]:
    """Read a job's row."""
    with reading() as session:
        return read_job(session, UUID(job_id)).model_dump()


FLOWS: Final = (
    ship_job,
    check_in_drives,
    import_drives,
    return_drives,
    close_job,
    cancel_job,
    delete_job,
)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
@pytest.mark.parametrize("reference", [str(UUID(int=0xABCDEF)), "s1/g1/nobody"])
def test_an_unknown_job_is_told(flow: Any, reference: str) -> None:
    """By no name: the run may speak of one that was deleted."""
    job(_S.CREATING)
    assert "nobody" not in refused(flow.fn(reference), "ResourceNotFound", "there is no such job")


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
@pytest.mark.parametrize("reference", ["", "x", "a/b", "a/b/c/d", "s1/g1/job 1", "../../etc", "s1/g1/1job"])
def test_a_reference_that_can_be_no_job_is_refused_by_the_form(flow: Any, reference: str) -> None:
    """The schema that the UI checks says so, and past it the run itself."""
    refused(flow.fn(reference), "InvalidRequestContent", "job: is neither a job's id nor subscription/")
    pattern = flow.parameters.properties["job"]["pattern"]
    assert not re.search(pattern, reference)
    assert re.search(pattern, BY_NAME)
    assert re.search(pattern, str(uuid4()))


REFUSALS: Final = [
    # flow, state, code, what the line tells
    (ship_job, _S.RECEIVED, "JobStateConflict", "its drives are here already"),
    (ship_job, _S.TRANSFERRING, "JobStateConflict", "its drives are here already"),
    (ship_job, _S.PACKAGING, "JobStateConflict", "its drives are here already"),
    (ship_job, _S.COMPLETED, "JobStateConflict", "create a new job"),
    (ship_job, _S.CLOSED, "JobStateConflict", "create a new job"),
    (check_in_drives, _S.CREATING, "JobStateConflict", "mark it as shipped first"),
    (import_drives, _S.CREATING, "JobStateConflict", "mark it as shipped first"),
    (import_drives, _S.SHIPPING, "JobStateConflict", "check its drives in first"),
    (return_drives, _S.CREATING, "JobStateConflict", "mark it as shipped first"),
    (return_drives, _S.SHIPPING, "JobStateConflict", "check its drives in first"),
    (return_drives, _S.RECEIVED, "JobStateConflict", "let its copy end, or cancel it first"),
    (return_drives, _S.TRANSFERRING, "JobStateConflict", "let its copy end, or cancel it first"),
    (close_job, _S.CREATING, "JobStateConflict", "delete it, or let it expire"),
    (close_job, _S.RECEIVED, "JobStateConflict", "let its copy end, or cancel it"),
    (close_job, _S.TRANSFERRING, "JobStateConflict", "let its copy end, or cancel it"),
    (close_job, _S.PACKAGING, "JobStateConflict", "send its drives back"),
    (close_job, _S.COMPLETED, "JobStateConflict", "it can be deleted"),
    (cancel_job, _S.PACKAGING, "JobStateConflict", "wait until the drives are sent back"),
    (cancel_job, _S.COMPLETED, "JobStateConflict", "it can be deleted"),
    (cancel_job, _S.CLOSED, "JobStateConflict", "the service deletes it 90 days after"),
    (delete_job, _S.SHIPPING, "JobStateConflict", "cancel it first"),
    (delete_job, _S.RECEIVED, "JobStateConflict", "cancel it first"),
    (delete_job, _S.TRANSFERRING, "JobStateConflict", "cancel it first"),
    (delete_job, _S.PACKAGING, "JobStateConflict", "once it is Completed it can be deleted"),
    (delete_job, _S.CLOSED, "JobStateConflict", "the service deletes it 90 days after"),
]


@pytest.mark.parametrize(("flow", "state", "code", "way_out"), REFUSALS)
def test_what_a_state_forbids_is_refused_with_the_way_out(
    flow: Any, state: JobState, code: str, way_out: str
) -> None:
    """The line names the state and what would have worked; the job is as it was, by id and by name."""
    job_id = job(state)
    before = row(job_id)
    for reference in (job_id, BY_NAME):
        refused(flow.fn(reference), code, f"a {state} job", way_out)
    assert row(job_id) == before


DONE: Final = {
    ship_job: {_S.CREATING, _S.SHIPPING},
    return_drives: {_S.PACKAGING, _S.COMPLETED, _S.CLOSED},
    cancel_job: {_S.CREATING, _S.SHIPPING, _S.RECEIVED, _S.TRANSFERRING},
    delete_job: {_S.CREATING, _S.COMPLETED},
    import_drives: {_S.RECEIVED, _S.TRANSFERRING, _S.PACKAGING, _S.COMPLETED, _S.CLOSED},
}
"""By hand from the specification."""


@pytest.mark.parametrize(("flow", "state"), [(flow, state) for flow in DONE for state in JobState])
def test_every_other_state_allows_it(flow: Any, state: JobState) -> None:
    """All pairs: what is not refused above is done, or is nothing to do."""
    job_id = job(state)
    ended = flow.fn(job_id, job_id) if flow is delete_job else flow.fn(job_id)
    assert ended.is_failed() == (state not in DONE[flow]), ended.message
    assert ended.is_failed() == ((flow, state) in [(each[0], each[1]) for each in REFUSALS])


@pytest.mark.parametrize("missing", ["returnAddress", "deliveryPackage"])
def test_a_job_does_not_ship_without_address_or_package(missing: str) -> None:
    """The line names what is missing; with both it ships."""
    job_id = job(_S.CREATING, **{missing: None})
    refused(ship_job.fn(job_id), "NotReadyToShip", f"without {missing}", "before")
    assert row(job_id)["state"] is _S.CREATING
    assert ship_job.fn(job(_S.CREATING, name="job2")).is_completed()


def test_a_job_is_not_closed_before_30_days() -> None:
    """An hour before it is refused with the time from which it can be; at 30 days it is done."""
    job_id = job(_S.SHIPPING)
    age(UUID(job_id), timedelta(days=30, hours=-1))
    line = refused(close_job.fn(job_id), "NotYetClosable", "until then")
    assert re.search(r"from \d{4}-\d\d-\d\d \d\d:\d\d UTC on", line)
    age(UUID(job_id), timedelta(hours=1))
    assert close_job.fn(job_id).is_completed()
    assert close_job.fn(job_id).message == f"nothing to do: job {job_id} was Closed before"


def test_an_accepted_cancel_forbids_every_step_on(data_directory: Path) -> None:
    """Not shipped, not closed; the line says what becomes of the job."""
    job_id = job(_S.CREATING, cancelled=True)
    refused(ship_job.fn(job_id), "CancelAccepted", "it will become Completed")
    shipped = job(_S.SHIPPING, name="job2", cancelled=True)
    age(UUID(shipped), timedelta(days=31))
    refused(close_job.fn(shipped), "CancelAccepted", "it will become Completed")


def test_a_bay_without_the_jobs_drives_is_told(data_directory: Path) -> None:
    """Empty, unreadable, or with two folders for one drive; the job waits on."""
    job_id = job(_S.SHIPPING)
    bay = data_directory / "bay"
    refused(check_in_drives.fn(job_id), "BayUnusable", "mount its package's drives first")
    (bay / "abc").mkdir()
    (bay / "ABC").mkdir()
    refused(check_in_drives.fn(job_id), "BayUnusable", "a drive is mounted once")
    for folder in bay.iterdir():
        folder.rmdir()
    bay.rmdir()
    refused(check_in_drives.fn(job_id), "BayUnusable", "DRIVEPOST_BAY_DIRECTORY names it")
    assert row(job_id)["state"] is _S.SHIPPING


# -- the intake ------------------------------------------------------------------------------------------


def write(data_directory: Path, name: str, document: object) -> Path:
    """Put a request file into the intake."""
    file = data_directory / "intake" / name
    file.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return file


def jobs() -> set[str]:
    """Read the names of all jobs."""
    with reading() as session:
        return set(session.exec(select(Job.name)).all())


def intake_of(data_directory: Path) -> list[str]:
    """List every file of the intake, those taken aside too."""
    root = data_directory / "intake"
    return sorted(
        str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or not path.is_dir()
    )


def _broken(**properties: Any) -> dict[str, Any]:
    request = job_request("bad")
    request["body"]["properties"].update(properties)
    return request


BAD: Final = {
    "no JSON": (b"{no JSON", "InvalidRequestContent"),
    "empty": (b"", "InvalidRequestContent"),
    "no text": (b"\xff\xfe\x00", "InvalidRequestContent"),
    "another shape": ([1, 2], "InvalidRequestContent"),
    "no body": ({"subscriptionId": "s1", "resourceGroupName": "g1", "jobName": "bad"}, "InvalidRequestContent"),
    "a bad drive": (_broken(driveList=[{**DRIVE, "driveId": "bad serial!"}]), "InvalidRequestContent"),
    "an address with a hole": (_broken(returnAddress={**ADDRESS, "city": ""}), "InvalidRequestContent"),
    "no such location": ({**job_request("bad"), "body": {**job_request()["body"], "location": "Moon"}}, "Inv"),
    "too large": (job_request("bad", tags={"t": "x" * 2**20}), "IntakeFileInvalid"),
}


@pytest.mark.parametrize(("document", "code"), BAD.values(), ids=BAD)
def test_a_bad_request_file_stays_and_the_others_are_taken(
    data_directory: Path, document: object, code: str
) -> None:
    """It is told by its place, not by its name or content; the good ones before and after it become jobs."""
    write(data_directory, "a.json", job_request("first"))
    bad = write(data_directory, "b-lovelace.json", document)
    before = bad.read_bytes()
    write(data_directory, "c.json", job_request("last"))
    for _ in range(2):
        ended = create_job.fn()
        line = ended.message or ""
        assert ended.is_failed()
        assert re.search(rf"left in the intake folder: file \d: {code}", line)
        assert "lovelace" not in line
        assert all(value not in line for value in PERSONAL)
        assert jobs() == {"first", "last"}
        assert intake_of(data_directory) == ["b-lovelace.json"]
        assert bad.read_bytes() == before


def _link(file: Path) -> None:
    target = file.parent.parent / "elsewhere.json"
    target.write_text(json.dumps(job_request("elsewhere")))
    file.symlink_to(target)


def _dangling_link(file: Path) -> None:
    file.symlink_to(file.parent.parent / "nowhere.json")


@pytest.mark.parametrize("make", [_link, _dangling_link, Path.mkdir, os.mkfifo])
@pytest.mark.parametrize("named", [True, False], ids=["named", "found"])
def test_what_is_no_ordinary_file_is_refused_and_stays(
    data_directory: Path, make: Callable[[Path], None], named: bool
) -> None:
    """A link, a folder or a pipe is not read, hinders nobody, and lies where it was put."""
    odd = data_directory / "intake" / "odd.json"
    make(odd)
    write(data_directory, "good.json", job_request("good"))
    ended = create_job.fn("odd.json" if named else "")
    assert ended.is_failed()
    assert "IntakeFileInvalid: the request file" in (ended.message or "")
    assert os.path.lexists(odd)
    assert create_job.fn("good.json").is_completed() or not named
    assert jobs() == {"good"}
    assert "elsewhere" not in str(jobs())


def test_a_file_that_is_not_there_is_told(data_directory: Path) -> None:
    """By whichever flow takes one; the line does not repeat the name."""
    refused(create_job.fn("ada.json"), "IntakeFileInvalid", "there is no such file in the intake folder")
    job_id = job(_S.CREATING)
    refused(ship_job.fn(job_id, "ada.json"), "IntakeFileInvalid", "there is no such file")
    assert row(job_id)["state"] is _S.CREATING
    packed = job(_S.PACKAGING, name="job2")
    refused(return_drives.fn(packed, "ada.json"), "IntakeFileInvalid", "there is no such file")
    assert row(packed)["state"] is _S.PACKAGING
    refused(import_portal_settings.fn("ada.json"), "IntakeFileInvalid", "there is no such file")


@pytest.mark.parametrize(
    "flow", [create_job, ship_job, return_drives, import_portal_settings], ids=lambda flow: flow.name
)
@pytest.mark.parametrize(
    "name", ["../a.json", "a", "a.txt", ".a.json", "a b.json", "a/b.json", "/a.json", "ada@example.com"]
)
def test_a_name_that_leads_out_of_the_intake_is_refused_by_the_form(flow: Any, name: str) -> None:
    """The schema that the UI checks says so, and past it the run itself; neither repeats the name."""
    args = () if flow in (create_job, import_portal_settings) else (job(_S.PACKAGING),)
    refused(flow.fn(*args, name), "InvalidRequestContent", "request_file: is no name of a request file")
    schema = json.dumps(flow.parameters.properties["request_file"])
    pattern = re.search(r'"pattern": (".*?[^\\]")', schema)
    assert pattern
    assert not re.search(json.loads(pattern[1]), name)
    assert re.search(json.loads(pattern[1]), "request-17.json")


def test_good_files_become_jobs_and_are_removed(data_directory: Path) -> None:
    """All that wait, or the one named."""
    for name in ("one", "two", "three"):
        write(data_directory, f"{name}.json", job_request(name))
    ended = create_job.fn("two.json")
    assert (ended.message or "").startswith("created 1: ")
    assert jobs() == {"two"}
    assert intake_of(data_directory) == ["one.json", "three.json"]
    assert (create_job.fn().message or "").startswith("created 2: ")
    assert jobs() == {"one", "two", "three"}
    assert intake_of(data_directory) == []
    assert create_job.fn().message == "created 0: none"


def test_a_request_for_a_job_that_has_left_creating_stays(data_directory: Path) -> None:
    """It would replace what is on its way."""
    job_id = job(_S.SHIPPING)
    before = row(job_id)
    write(data_directory, "again.json", job_request("job1"))
    ended = create_job.fn()
    assert "JobStateConflict: a Shipping job cannot take 'replace'" in (ended.message or "")
    assert intake_of(data_directory) == ["again.json"]
    assert row(job_id) == before


class Cut(BaseException):
    """The run is gone."""


@pytest.mark.parametrize("cut", ["before the job", "after the job"])
@pytest.mark.parametrize("finisher", [advance_jobs, create_job], ids=lambda flow: flow.name)
def test_a_file_taken_by_a_run_that_was_cut_is_done_once(
    data_directory: Path, monkeypatch: pytest.MonkeyPatch, cut: str, finisher: Any
) -> None:
    """Whoever comes next finishes it, and a second time there is nothing."""
    write(data_directory, "a.json", job_request("a1"))
    create = intake._create

    def cutting(*args: Any) -> UUID:
        if cut == "after the job":
            create(*args)
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(intake, "_create", cutting)
        with pytest.raises(Cut):
            create_job.fn()
    assert [name.partition("/")[0] for name in intake_of(data_directory)] == [".taken"]
    for _ in range(2):
        assert finisher.fn().is_completed()
        assert jobs() == {"a1"}
        assert intake_of(data_directory) == []
    with reading() as session:
        job_id = session.exec(select(Job.id)).one()
    assert cancel_job.fn(str(job_id)).is_completed()


def test_a_bad_shipping_file_stays_and_the_job_too(data_directory: Path) -> None:
    """Nothing of it is applied; a good one is applied whole and removed."""
    job_id = job(_S.CREATING, returnAddress=None, deliveryPackage=None)
    before = row(job_id)
    write(data_directory, "ship.json", {"properties": {"returnAddress": {**ADDRESS, "city": ""}}})
    line = refused(ship_job.fn(job_id, "ship.json"), "InvalidRequestContent", "properties.returnAddress.city")
    assert "Ada" not in line
    assert intake_of(data_directory) == ["ship.json"]
    assert row(job_id) == before
    write(data_directory, "ship.json", {"properties": {"returnAddress": ADDRESS}})
    refused(ship_job.fn(job_id, "ship.json"), "NotReadyToShip", "deliveryPackage")
    assert row(job_id) == before, "all or nothing"
    write(data_directory, "ship.json", {"properties": {"returnAddress": ADDRESS, "deliveryPackage": PACKAGE}})
    assert ship_job.fn(job_id, "ship.json").message == f"job {job_id} is Shipping"
    assert intake_of(data_directory) == []


def test_a_bad_parcel_file_stays_and_no_drive_moves(data_directory: Path) -> None:
    """The drives are sent back when the file is right."""
    job_id = job(_S.PACKAGING)
    write(data_directory, "parcel.json", {"returnPackage": {**PACKAGE, "driveCount": -1}})
    refused(return_drives.fn(job_id, "parcel.json"), "InvalidRequestContent", "returnPackage.driveCount")
    assert row(job_id)["state"] is _S.PACKAGING
    assert intake_of(data_directory) == ["parcel.json"]
    write(data_directory, "parcel.json", {"returnPackage": PACKAGE})
    assert return_drives.fn(job_id, "parcel.json").is_completed()
    assert intake_of(data_directory) == []


def test_a_drive_of_another_job_is_passed_over(data_directory: Path) -> None:
    """It is neither extra nor received here."""
    first = mount_drive(data_directory, "FIRST", {"a": b"a"}).drive_list_entry()
    second = mount_drive(data_directory, "SECOND", {"b": b"b"}).drive_list_entry()
    job_id = job(_S.SHIPPING, driveList=[first])
    job(_S.SHIPPING, name="job2", driveList=[second])
    told = check_in_drives.fn(job_id).message
    assert told == f"job {job_id}: 1 received, 0 never received, 0 extra"


def test_an_impossible_setting_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the variable and not its value."""
    job_id = job(_S.CREATING)
    monkeypatch.setenv("DRIVEPOST_COPY_STOP_SECONDS_MAX", "Ada Example")
    refused(cancel_job.fn(job_id), "SettingsInvalid", "DRIVEPOST_COPY_STOP_SECONDS_MAX")


@pytest.mark.parametrize("cut_at", [(intake, "_spend"), (intake, "erase"), (Path, "unlink")], ids=lambda at: at[1])
def test_a_job_that_was_deleted_is_not_made_again_by_what_create_job_left(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch, cut_at: tuple[Any, str]
) -> None:
    """Cut between its last write and the removal of the file; the file goes with the job."""
    (data_directory / "intake" / "a.json").write_text(json.dumps(job_request("Lazarus")))
    with monkeypatch.context() as cut:
        cut.setattr(*cut_at, lambda *_, **__: None)
        assert create_job.fn().is_completed()
    (left,) = (data_directory / "intake" / ".taken").iterdir()
    assert delete_job.fn("s1/g1/Lazarus", "s1/g1/Lazarus").is_completed()
    assert not left.exists()
    assert advance_jobs.fn().is_completed()
    with reading() as session:
        assert session.exec(select(Job)).all() == []
