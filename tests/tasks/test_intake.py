"""A request file that is carried out is overwritten and removed, wherever a run is cut."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlmodel import Session, select

from models.database import database_time, reading, writing
from models.deletion import delete_job
from models.jobs import Job, read_job
from models.key_files import erase_file
from models.lifecycle import Actor
from tasks import intake
from tasks.intake import (
    create_jobs,
    erase,
    finish_taken_requests,
    remove_request_file,
    remove_spent_requests,
    set_aside_taken_requests,
)
from tests.builders import job_request

pytestmark = pytest.mark.usefixtures("sqlite")

PERSONAL: Final = b"ada@example.com"


class Cut(BaseException):
    """The run is gone."""


@pytest.fixture
def folder(data_directory: Path) -> Path:
    """Tell where request files are put."""
    return data_directory / "intake"


def write(folder: Path, name: str = "a.json", document: object = None) -> Path:
    """Put a request file into the intake."""
    file = folder / name
    file.write_text(json.dumps(document or job_request("job1")))
    return file


def left(folder: Path) -> dict[str, bytes]:
    """Read every file of the intake."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def create(folder: Path) -> intake.Created:
    """Create jobs of whatever waits."""
    return create_jobs.fn(folder, "", None, None, 100)


def jobs() -> list[UUID]:
    """Read the ids of all jobs."""
    with reading() as session:
        return list(session.exec(select(Job.id)).all())


def cut_at(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Let the run die: before the file has its last name, before it is overwritten, or before it is removed."""

    def cut(*_: object, **__: object) -> None:
        raise Cut

    spots: dict[str, tuple[Any, str]] = {
        "before": (intake, "_spend"),
        "renamed": (intake, "erase_file"),
        "overwritten": (Path, "unlink"),
    }
    monkeypatch.setattr(*spots[where], cut)


CUTS: Final = ["before", "renamed", "overwritten"]


@pytest.mark.parametrize("where", CUTS)
@pytest.mark.parametrize("again", [create, lambda folder: finish_taken_requests.fn(folder, None, 100)])
def test_a_file_that_was_being_removed_makes_no_second_job_and_is_refused_by_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, again: Callable[[Path], intake.Created]
) -> None:
    """Whoever comes next removes it, and takes what waits beside it."""
    write(folder)
    with monkeypatch.context() as patch:
        cut_at(patch, where)
        with pytest.raises(Cut):
            create(folder)
    (name,) = left(folder)
    assert name.startswith(".taken/")
    assert (PERSONAL in left(folder)[name]) is (where != "overwritten")
    (job_id,) = jobs()
    found = again(folder)
    assert found.refused == ()
    assert found.job_ids in {(), (job_id,)}
    assert left(folder) == {}
    assert jobs() == [job_id]
    assert again(folder) == intake.Created((), ())


@pytest.mark.parametrize("where", CUTS)
def test_a_job_that_rest_deleted_is_not_made_again_of_what_create_job_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """REST deletes the rows alone; what a cut run left is spent, and another file makes its own job."""
    write(folder)
    with monkeypatch.context() as patch:
        cut_at(patch, where)
        with pytest.raises(Cut):
            create(folder)
    (job_id,) = jobs()
    with writing() as session:
        delete_job(session, job_id, at=database_time(session), by=Actor.CUSTOMER)
    other = folder / ".taken" / "00000000-0000-4000-8000-000000000000.other.json"
    other.write_text(json.dumps(job_request("other")))
    for made in (1, 0):
        found = finish_taken_requests.fn(folder, None, 100)
        assert (len(found.job_ids), found.refused) == (made, ())
        assert left(folder) == {}
        assert len(jobs()) == 1
        assert job_id not in jobs()


def test_a_job_that_is_deleted_while_its_file_is_finished_is_not_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run was cut; the next one finds the job made, and at this moment a sweep deletes it."""
    write(folder)
    with monkeypatch.context() as patch:
        cut_at(patch, "before")
        with pytest.raises(Cut):
            create(folder)
    assert len(jobs()) == 1

    def gone(session: Session, job_id: UUID, *, lock: bool = False) -> Job:
        delete_job(session, job_id, at=database_time(session), by=Actor.OPERATOR)
        return read_job(session, job_id, lock=lock)

    monkeypatch.setattr(intake, "read_job", gone)
    assert create_jobs.fn(folder, "", None, uuid4(), 100) == intake.Created((), ())
    assert (jobs(), left(folder)) == ([], {})
    assert create(folder) == intake.Created((), ())


@pytest.mark.parametrize("where", CUTS)
def test_a_file_of_a_job_that_is_deleted_goes_wherever_its_removal_was_cut(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """First by create-job, then by the deletion itself; other files that were taken stay."""
    write(folder)
    with monkeypatch.context() as patch:
        cut_at(patch, where)
        with pytest.raises(Cut):
            create(folder)
    (job_id,) = jobs()
    other = folder / ".taken" / "00000000-0000-4000-8000-000000000000.other.json"
    other.write_text(json.dumps(job_request("other")))
    for again in (where, None):
        with monkeypatch.context() as patch:
            if again:
                cut_at(patch, again)
            try:
                set_aside_taken_requests.fn(folder, job_id)
                remove_spent_requests.fn(folder)
            except Cut:
                assert len(left(folder)) == 2
                continue
    assert list(left(folder)) == [f".taken/{other.name}"]
    set_aside_taken_requests.fn(folder, job_id)
    remove_spent_requests.fn(folder)
    assert other.exists()


@pytest.mark.parametrize("where", CUTS)
def test_a_file_whose_wish_is_carried_out_goes_wherever_its_removal_was_cut(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Asked again, what was left goes, too; other files stay, and a third time there is nothing."""
    file = write(folder, "ship.json")
    other = write(folder, "other.json")
    with monkeypatch.context() as patch:
        cut_at(patch, where)
        with pytest.raises(Cut):
            remove_request_file.fn(file)
    assert len(left(folder)) == 2
    for _ in range(2):
        remove_request_file.fn(file)
        assert list(left(folder)) == [other.name]


def test_what_cannot_be_overwritten_is_removed_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of another owner, in a folder of ours."""

    def refuse(_: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(intake, "erase_file", refuse)
    write(folder)
    assert create(folder).refused == ()
    remove_request_file.fn(write(folder, "ship.json"))
    assert left(folder) == {}


def test_a_file_that_may_only_be_read_is_overwritten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner may say otherwise, and does."""
    file = write(folder)
    file.chmod(0o400)
    opened = file.open("rb")
    seen: list[int] = []

    def erase_seen(each: Path) -> None:
        seen.append(each.stat().st_mode & 0o777)
        erase_file(each)

    monkeypatch.setattr(intake, "erase_file", erase_seen)
    remove_request_file.fn(file)
    assert seen == [0o600]
    assert set(opened.read()) == {0}
    opened.close()


def test_a_file_with_another_name_somewhere_is_only_removed(folder: Path, tmp_path: Path) -> None:
    """What an operator keeps elsewhere is theirs."""
    file = write(folder)
    own = tmp_path / "own.json"
    own.hardlink_to(file)
    before = own.read_bytes()
    assert len(create(folder).job_ids) == 1
    assert left(folder) == {}
    assert own.read_bytes() == before


def test_a_link_is_removed_and_what_it_leads_to_stays(folder: Path, tmp_path: Path) -> None:
    """Somebody may have put it in the file's place."""
    own = tmp_path / "own.json"
    own.write_text("an operator's own")
    for target in (own, tmp_path / "nowhere"):
        link = folder / "ship.json"
        link.symlink_to(target)
        remove_request_file.fn(link)
        assert not link.is_symlink()
    assert own.read_text() == "an operator's own"
    assert left(folder) == {}


def test_a_file_that_is_gone_is_no_error(folder: Path) -> None:
    """Nor is a folder that is."""
    erase(folder / "none")
    remove_request_file.fn(folder / "none.json")
    remove_request_file.fn(folder / "nowhere" / "none.json")
    assert not (folder / "nowhere").exists()


def test_a_long_name_is_removed_too(folder: Path) -> None:
    """The name that it is removed by is not longer than the one it was taken by."""
    write(folder, "n" * (255 - 37 - 5) + ".json")
    assert len(create(folder).job_ids) == 1
    assert left(folder) == {}
