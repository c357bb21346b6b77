"""Exported files: for their owner's eyes, without a name, and gone after a day or with the settings."""

import json
import os
import re
import stat
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import OperationalError
from sqlmodel import col, select

from models.database import database_time, open_engine, reading, writing
from models.errors import ExportError, PortalSettingsNotFoundError
from models.lifecycle import JobState
from models.portal import EXPORT_KEPT, Dashboard, SettingsPart, read_settings, save_address
from models.receipts import Reason
from models.requests import ReturnAddressShape, ReturnShippingShape
from models.runs import JobRun
from models.settings import Settings
from tasks import portal
from tasks.portal import (
    delete_rows_of_settings,
    list_jobs_of_dashboard,
    remove_exports,
    remove_old_exports,
    write_export,
)
from tests.builders import ADDRESS, NOON, RETURN_SHIPPING, job_in

ADA: Final = UUID("00000000-0000-4000-8000-0000000000ad")
BOB: Final = UUID("00000000-0000-4000-8000-0000000000b0")
DAY: Final = EXPORT_KEPT.total_seconds()
SECOND: Final = timedelta(seconds=1)


def settings_id_of(user: UUID) -> UUID:
    """Read the opaque id of a user's settings."""
    with reading() as session:
        return read_settings(session, user).id


@pytest.fixture
def exports(sqlite: str) -> Path:
    """Tell where exports go; the folder is made by the first one."""
    folder = Settings().exports
    assert not folder.exists()
    return folder


@pytest.fixture(autouse=True)
def _saved(sqlite: str) -> None:
    """Two users saved an address."""
    address = ReturnAddressShape.model_validate(ADDRESS)
    shipping = ReturnShippingShape.model_validate(RETURN_SHIPPING)
    for user in (ADA, BOB):
        with writing() as session:
            save_address(session, user, address, shipping, at=NOON)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch, sqlite: str) -> datetime:
    """Let the database's clock stand still, at a whole second."""
    with reading() as session:
        at = database_time(session).replace(microsecond=0)
    monkeypatch.setattr(portal, "database_time", lambda _: at)
    return at


def mode(path: Path) -> int:
    """Read who may do what with a file."""
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    """List a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_an_export_is_for_its_owners_eyes_alone(exports: Path, umask: int) -> None:
    """Whatever the process would allow to others; the folder too."""
    before = os.umask(umask)
    try:
        name = write_export.fn(ADA, exports)
    finally:
        os.umask(before)
    assert names(exports) == [name]
    assert (mode(exports), mode(exports / name)) == (0o700, 0o600)
    told = json.loads((exports / name).read_text("utf-8"))
    assert told["savedCarrierAndReturnAddress"] == {"returnAddress": ADDRESS, "returnShipping": RETURN_SHIPPING}


def test_an_export_is_named_by_the_opaque_id_and_the_moment(exports: Path) -> None:
    """By no user, and no name of one."""
    name = write_export.fn(ADA, exports)
    settings_id = settings_id_of(ADA)
    assert re.fullmatch(rf"portal-settings-{settings_id}-\d{{8}}T\d{{6}}Z\.json", name)
    at = datetime.fromisoformat(json.loads((exports / name).read_text("utf-8"))["exportedAt"])
    assert name.endswith(f"-{at:%Y%m%dT%H%M%SZ}.json")
    assert str(ADA) not in name


def test_an_export_of_nobody_leaves_no_file(exports: Path) -> None:
    """Neither folder nor file."""
    with pytest.raises(PortalSettingsNotFoundError):
        write_export.fn(uuid4(), exports)
    assert not exports.exists()


def test_an_export_is_whole_or_not_there(exports: Path, monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    """Written aside and renamed; what a cut left aside is nobody's to read, and the next one writes it anew."""

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            write_export.fn(ADA, exports)
    (left,) = names(exports)
    assert left.endswith(".json.new")
    assert mode(exports / left) == 0o600
    (exports / left).write_text("half")
    name = write_export.fn(ADA, exports)
    assert names(exports) == [name] == [left.removesuffix(".new")]
    assert json.loads((exports / name).read_text("utf-8"))["userId"] == str(ADA)


def test_a_folder_that_cannot_be_written_is_told(exports: Path) -> None:
    """By the reason, and by no path."""
    exports.write_text("no folder")
    with pytest.raises(ExportError, match=r"^the folder for exports cannot be written: File exists$"):
        write_export.fn(ADA, exports)


def test_deletes_every_export_of_the_settings(exports: Path) -> None:
    """Whole or half written; somebody else's stay, and so does what is no export; twice."""
    write_export.fn(ADA, exports)
    kept = write_export.fn(BOB, exports)
    settings_id = settings_id_of(ADA)
    (exports / f"portal-settings-{settings_id}-20200101T000000Z.json.new").write_text("half")
    (exports / "notes.txt").write_text("an operator's own")
    for _ in range(2):
        remove_exports.fn(exports, settings_id)
        assert names(exports) == ["notes.txt", kept]
    remove_exports.fn(exports / "none", settings_id)


def make_export(folder: Path, settings_id: UUID, at: datetime, end: str = ".json") -> str:
    """Make an exported file of a moment."""
    name = f"portal-settings-{settings_id}-{at:%Y%m%dT%H%M%SZ}{end}"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("an address")
    return name


@pytest.mark.parametrize("end", [".json", ".json.new"])
def test_deletes_exports_of_a_day_ago_and_keeps_younger_ones(exports: Path, now: datetime, end: str) -> None:
    """At exactly a day, and not a second before; whoever's; twice."""
    ages = {"old": EXPORT_KEPT + SECOND, "just": EXPORT_KEPT, "young": EXPORT_KEPT - SECOND, "new": SECOND}
    made = {
        name: make_export(exports, settings_id_of(user), now - age, end)
        for name, age in ages.items()
        for user in [BOB if name == "just" else ADA]
    }
    assert remove_old_exports.fn(exports, DAY, 100) == 2
    for _ in range(2):
        assert names(exports) == sorted([made["young"], made["new"]])
        assert remove_old_exports.fn(exports, DAY, 100) == 0


def test_deletes_exports_whose_settings_are_gone_and_keeps_the_others(exports: Path, now: datetime) -> None:
    """However young; one that was written while its settings were deleted is not left lying."""
    gone, kept = (make_export(exports, settings_id_of(user), now) for user in (ADA, BOB))
    assert remove_old_exports.fn(exports, DAY, 100) == 0
    delete_rows_of_settings.fn(ADA, SettingsPart.SAVED_ADDRESS, Reason.BY_HAND)
    assert remove_old_exports.fn(exports, DAY, 100) == 0
    delete_rows_of_settings.fn(ADA, SettingsPart.EVERYTHING, Reason.BY_HAND)
    assert names(exports) == sorted([gone, kept])
    assert [remove_old_exports.fn(exports, DAY, 100) for _ in range(2)] == [1, 0]
    assert names(exports) == [kept]


def test_keeps_what_is_no_export_and_removes_the_oldest_first(exports: Path, now: datetime) -> None:
    """At most as many as are allowed; without a folder there is nothing to do."""
    assert remove_old_exports.fn(exports, DAY, 100) == 0
    settings_id = settings_id_of(ADA)
    made = [make_export(exports, settings_id, now - timedelta(days=days)) for days in (3, 2, 4)]
    others = [
        make_export(exports, settings_id, now - timedelta(days=9), ".json.bak"),
        "portal-settings-of-ada.json",
        f"portal-settings-{settings_id}-99999999T999999Z.json",
        f"portal-settings-{uuid4().hex}-20200101T000000Z.json",
    ]
    for name in others:
        (exports / name).touch()
    left = sorted([*made, *others])
    for gone in (made[2], made[0], made[1]):
        assert remove_old_exports.fn(exports, DAY, 1) == 1
        left.remove(gone)
        assert names(exports) == left
    assert remove_old_exports.fn(exports, DAY, 1) == 0


def test_a_file_that_is_removed_is_overwritten_first(exports: Path, now: datetime) -> None:
    """Whoever still has it open reads zeros."""
    settings_id = settings_id_of(ADA)
    files = [exports / write_export.fn(ADA, exports), exports / make_export(exports, settings_id, NOON)]
    opened = [file.open("rb") for file in files]
    sizes = [file.stat().st_size for file in files]
    remove_old_exports.fn(exports, DAY, 100)
    remove_exports.fn(exports, settings_id)
    assert names(exports) == []
    for file, size in zip(opened, sizes, strict=True):
        assert file.read() == bytes(size)
        file.close()


def test_settings_are_not_deleted_while_they_are_exported(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the deletion that comes then finds the file."""
    write, refusals = portal._write, []

    def deleting(file: Path, document: bytes) -> None:
        hasty = open_engine(Settings().database, 0.1)
        with hasty.connect() as connection, pytest.raises(OperationalError, match="locked") as refused:
            connection.exec_driver_sql("DELETE FROM portal_settings")
        hasty.dispose()
        refusals.append(refused.value)
        write(file, document)

    monkeypatch.setattr(portal, "_write", deleting)
    name = write_export.fn(ADA, exports)
    assert len(refusals) == 1
    assert names(exports) == [name]


def runs_of(flow_run_id: UUID) -> set[UUID]:
    """Read of which jobs a run is written down."""
    with reading() as session:
        rows = session.exec(select(JobRun).where(col(JobRun.flow_run_id) == flow_run_id)).all()
    return {row.job_id for row in rows}


def test_a_run_that_showed_a_dashboard_is_written_down_for_each_job_it_listed() -> None:
    """So that deleting one of them forgets the run; jobs that were not listed do not know it."""
    with writing() as session:
        listed = {job_in(session, JobState.SHIPPING, f"job{number}", NOON) for number in range(2)}
        job_in(session, JobState.CREATING, "other", NOON)
        made = Dashboard(name="d", filter={"states": ["Shipping"]}, created_at=NOON, updated_at=NOON)
        session.add(made)
    run, short_run = uuid4(), uuid4()
    assert {job.job_id for job in list_jobs_of_dashboard.fn(made.id, 100, None)[1]} == listed
    for _ in range(2):
        count, shown = list_jobs_of_dashboard.fn(made.id, 100, run)
        assert (count, {job.job_id for job in shown}) == (2, listed)
        assert runs_of(run) == listed
    count, (job,) = list_jobs_of_dashboard.fn(made.id, 1, short_run)
    assert count == 2
    assert runs_of(short_run) == {job.job_id}
