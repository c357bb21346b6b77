"""Every flow cut before and after each act, and inside the copy, ends the same when it is run again.

A cut is a death: from that moment on the run writes nothing more, neither here nor there.
"""

import importlib
import json
import pkgutil
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final
from uuid import UUID

import pytest
from prefect import Flow, Task
from prefect.client.schemas.objects import State
from sqlmodel import SQLModel, select

import flows
from flows.advance_jobs import advance_jobs
from flows.cancel_job import cancel_job
from flows.check_in_drives import check_in_drives
from flows.close_job import close_job
from flows.create_job import create_job
from flows.delete_job import delete_job
from flows.delete_portal_settings import delete_portal_settings
from flows.enforce_retention import enforce_retention
from flows.erase_personal_data import erase_personal_data
from flows.export_blobs import export_blobs
from flows.export_portal_settings import export_portal_settings
from flows.find_traces import find_traces
from flows.import_drives import import_drives
from flows.import_portal_settings import import_portal_settings
from flows.place_hold import place_hold
from flows.release_hold import release_hold
from flows.return_drives import return_drives
from flows.rotate_keys import rotate_keys
from flows.ship_job import ship_job
from flows.show_board import show_board
from flows.show_dashboard import show_dashboard
from flows.show_job import show_job
from models import database
from models.bay import check_in
from models.database import database_time, reading, writing
from models.holds import ReleaseReason
from models.holds import place_hold as hold
from models.jobs import HoldReason, request_cancel
from models.key_files import read_keys, use_ring
from models.lifecycle import Actor, JobState
from models.portal import Dashboard, SettingsPart
from models.portal_documents import PortalSettingsDocument, import_settings
from models.sealing_keys import SealingKey
from models.settings import Settings
from models.shipping import ReturnAddress
from tasks import folder_store, intake, portal
from tasks.blobs import BlobCopier
from tasks.export_filling import DriveFilling, Room
from tasks.export_journal import ExportJournal
from tasks.export_reading import BlobReading
from tasks.folder_store import FolderContainer, _FolderUpload
from tasks.pulse import Pulse
from tasks.stores import Part
from tasks.traces import Report
from tests.builders import (
    ADDRESS,
    DRIVE,
    NOON,
    PACKAGE,
    RETURN_SHIPPING,
    Listed,
    age,
    drive_of,
    job_in,
    job_request,
    mount_by_hand,
    received_by_hand,
    run_out,
    set_columns,
)

PREFECT_ACTS: Final = (
    "start_copies",
    "hide_parameters",
    "hide_names",
    "forget_runs",
    "forget_earlier_runs",
    "bury_dead_runs",
    "drop_late_runs",
    "record_unbegun_runs",
    "send_alerts",
)
INSIDE: Final = (
    (BlobCopier, "_record"),
    (FolderContainer, "put"),
    (FolderContainer, "drop"),
    (FolderContainer, "discard"),
    (_FolderUpload, "write"),
    (_FolderUpload, "commit"),
    (folder_store, "_give_name"),
    (intake, "_create"),
    (intake, "_put_back"),
    (intake, "erase_file"),
    (portal, "_write"),
    (DriveFilling, "_record"),
    (ExportJournal, "plan"),
    (ExportJournal, "end"),
    (BlobReading, "_name"),
)
"""Where a run is cut inside of an act: every write of the copy, of the intake and of an export."""


class Cut(BaseException):
    """The run is gone."""


@dataclass
class Cutter:
    """Counts the points that a run comes to, and cuts it at one; `at` is twice its number, one more after."""

    at: int = -1
    points: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    dead: bool = False

    def point(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Make a function a point."""

        def cuttable(*args: Any, **kwargs: Any) -> Any:
            number = 2 * len(self.points)
            self.points.append(name)
            self._cut(number)
            try:
                return function(*args, **kwargs)
            finally:
                self._cut(number + 1)

        return cuttable

    def _cut(self, number: int) -> None:
        if self.dead or number == self.at:
            self.dead = True
            raise Cut

    def ask_prefect(self, name: str) -> Callable[..., Any]:
        """Stand in for an act on Prefect: write down what was asked."""

        def asked(*args: Any, **_: Any) -> Any:
            self.asked.add(name)
            return list(args[0]) if name == "start_copies" else 0

        return asked


def flow_modules() -> Iterator[Any]:
    """Give the modules of all flows."""
    for found in pkgutil.iter_modules(flows.__path__):
        yield importlib.import_module(f"flows.{found.name}")


TASKS: Final = {
    (module.__name__, name): value
    for module in flow_modules()
    for name, value in vars(module).items()
    if isinstance(value, Task)
}


@dataclass
class World:
    """A data directory with a database of its own, in which one flow is run."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def run(self, step: Callable[[], State[Any]], cutter: Cutter) -> State[Any] | None:
        """Run a flow with every act, and every write inside the copy, a point; None if it was cut."""
        with self.monkeypatch.context() as points:
            for (module, name), task in TASKS.items():
                act = cutter.ask_prefect(name) if name in PREFECT_ACTS else task.fn
                points.setattr(f"{module}.{name}", cutter.point(name, act))
            for holder, name in INSIDE:
                points.setattr(holder, name, cutter.point(name, getattr(holder, name)))
            try:
                return step()
            except Cut:
                return None

    def keep(self) -> Callable[[], None]:
        """Keep it as it is now, prepared for a run; gives what brings it back.

        To prepare it for every cut anew would be more than half of the work.
        """
        kept = self.folder.with_name(f"{self.folder.name}, kept")
        # The last connection that is closed leaves nothing beside the database's file.
        database.engine().dispose()
        shutil.copytree(self.folder, kept)

        def bring_back() -> None:
            database.engine().dispose()
            database.engine.cache_clear()
            shutil.rmtree(self.folder)
            shutil.copytree(kept, self.folder)
            use_ring(None)

        return bring_back

    def end(self) -> dict[str, Any]:
        """Take down what is: rows without ids and times, the store, the intake."""
        with reading() as session:
            tables = {
                table.name: sorted(
                    repr({name: _normal(name, value) for name, value in row._mapping.items()})
                    for row in session.connection().execute(table.select())
                )
                for table in SQLModel.metadata.sorted_tables
            }
        files = {
            re.sub(r"\d{8}-\d{6}-\d{3}", "TIME", str(path.relative_to(self.folder))): path.read_bytes()
            for part in ("store", "intake")
            for path in sorted((self.folder / part).rglob("*"))
            if path.is_file()
        }
        return {**tables, "files": files, "exports": self.exports()}

    def exports(self) -> set[str]:
        """Take down what is exported, without ids and times: an export done again makes one more of the same."""
        files = list((self.folder / "exports").glob("*"))
        assert all(path.suffix == ".json" for path in files)
        return {re.sub(r'"(id|settingsId|\w+At)": "[^"]*"', "", path.read_text("utf-8")) for path in files}


def _normal(name: str, value: Any) -> Any:
    if isinstance(value, datetime | UUID) or name.endswith("_uri") or name in {"hash", "proof", "key"}:
        return None if value is None else name
    if name in {"planned", "blobs_done", "bytes_committed"}:
        # How far a copy came that was only begun is a matter of its threads; its blobs are compared.
        return name
    # A run that took over has a newer token.
    return name if name == "copy_token" else value


Prepare = Callable[[World], Callable[[], State[Any]]]


def _files(seed: str) -> list[Listed]:
    """List the blobs of a drive; blocks have ten bytes here."""
    return [
        Listed(f"data/{seed}/small", b"small"),
        Listed(f"data/{seed}/of three blocks", f"of three blocks {seed}".encode()),
        Listed(f"data/{seed}/bad", b"in the second block", on_drive=b"in the second blocK"),
        Listed(f"data/{seed}/small", b"too"),
        Listed(f"data/{seed}/empty", b""),
    ]


def _request_file(world: World, name: str, document: object) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    (world.folder / "intake" / name).write_text(text)
    return name


def of_create_job(world: World) -> Callable[[], State[Any]]:
    """Three files wait, one of them bad."""
    _request_file(world, "a.json", job_request("jobA"))
    _request_file(world, "b.json", "no JSON")
    _request_file(world, "c.json", job_request("jobC"))
    return create_job.fn


def of_ship_job(world: World) -> Callable[[], State[Any]]:
    """Address and package come in a file."""
    with writing() as session:
        job_id = job_in(
            session, JobState.CREATING, at=database_time(session), returnAddress=None, deliveryPackage=None
        )
    body = {"properties": {"returnAddress": ADDRESS, "deliveryPackage": PACKAGE}}
    return lambda: ship_job.fn(str(job_id), _named(world, "ship.json", body))


def _named(world: World, name: str, document: object) -> str:
    """Write a request file the first time; run again, it may be gone, and is named all the same."""
    if not (world.folder / "named").exists():
        (world.folder / "named").touch()
        _request_file(world, name, document)
    return name


def of_check_in_drives(world: World) -> Callable[[], State[Any]]:
    """One drive came, one did not, and one is on no list."""
    entries = [mount_by_hand(world.folder, serial, _files(serial)) for serial in ("SERIAL1", "EXTRA")]
    with writing() as session:
        missing = {**entries[0], "driveId": "SERIAL2"}
        now = database_time(session)
        job_id = job_in(session, JobState.SHIPPING, at=now, driveList=[entries[0], missing])
    return lambda: check_in_drives.fn(str(job_id))


def _two_drives(world: World, name: str = "job1") -> UUID:
    drives = {f"{name}-{number}": _files(f"{name}-{number}") for number in (1, 2)}
    return received_by_hand(world.folder, drives, name, logLevel="Verbose", backupDriveManifest=True)


def of_import_drives(world: World) -> Callable[[], State[Any]]:
    """Two drives with small blobs, big ones, bad ones and renamed ones; all logs are written."""
    job_id = _two_drives(world)

    def step() -> State[Any]:
        run_out(job_id)
        return import_drives.fn(str(job_id))

    return step


def of_return_drives(world: World) -> Callable[[], State[Any]]:
    """A parcel with two drives, one of them with errors."""
    job_id = _two_drives(world)
    assert world.run(lambda: import_drives.fn(str(job_id)), Cutter())
    return lambda: return_drives.fn(str(job_id), _named(world, "parcel.json", {"returnPackage": PACKAGE}))


def of_close_job(world: World) -> Callable[[], State[Any]]:
    """Nobody answered for 31 days."""
    with writing() as session:
        job_id = job_in(session, JobState.SHIPPING, at=database_time(session))
    age(job_id, timedelta(days=31))
    return lambda: close_job.fn(str(job_id))


def _half_copied(world: World, name: str = "job1") -> UUID:
    """Cut a copy in the middle of its first big blob."""
    job_id = _two_drives(world, name)
    cutter = Cutter()
    write, written = _FolderUpload.write, 0

    def cut_at_third(upload: _FolderUpload, part: Part, data: bytes) -> bool:
        nonlocal written
        written += 1
        if written == 3:
            # All else is written down by then: two small blobs, and two blocks.
            until = time.monotonic() + 20
            while drive_of(job_id).bytes_succeeded < 28 and time.monotonic() < until:
                time.sleep(0.01)
            cutter.dead = True
            raise Cut
        return write(upload, part, data)

    with world.monkeypatch.context() as cutting:
        cutting.setenv("DRIVEPOST_COPY_REQUESTS_AT_ONCE", "1")
        cutting.setenv("DRIVEPOST_COPY_POLL_SECONDS", "0.01")
        cutting.setattr(_FolderUpload, "write", cut_at_third)
        assert world.run(lambda: import_drives.fn(str(job_id)), cutter) is None
    assert list((world.folder / "store").rglob(f".drivepost/{job_id}/*"))
    return job_id


def of_export_blobs(world: World) -> Callable[[], State[Any]]:
    """Two drives, the second of which stays empty; one blob fits on none, and one is not there."""
    for name, data in {"small": b"1", "of three blocks": b"x" * 25, "large": b"y" * 30_000}.items():
        file = world.folder / "store" / "account1" / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    world.monkeypatch.setattr(Room, "on", lambda _: Room(20_000, 1))
    # In one thread the blobs come to their ends in order, whichever is cut.
    world.monkeypatch.setenv("DRIVEPOST_COPY_REQUESTS_AT_ONCE", "1")
    blobs = {"blobPath": ["data/none"], "blobPathPrefix": ["/data/"]}
    with writing() as session:
        now = database_time(session)
        export: dict[str, Any] = {
            "jobType": "Export",
            "driveList": None,
            "export": {"blobList": blobs},
            "logLevel": "Verbose",
        }
        job_id = job_in(session, JobState.SHIPPING, at=now, **export)
        check_in(session, job_id, ["E1", "E2"], at=now, by=Actor.OPERATOR)
    for serial in ("E1", "E2"):
        (world.folder / "bay" / serial).mkdir()

    def step() -> State[Any]:
        run_out(job_id)
        ended = export_blobs.fn(str(job_id))
        assert (world.folder / "bay" / "E1" / "data" / "of three blocks").read_bytes() == b"x" * 25
        assert not list((world.folder / "bay").rglob(".drivepost"))
        return ended

    return step


def of_cancel_job(world: World) -> Callable[[], State[Any]]:
    """The copy's worker is dead, and a blob is half written."""
    job_id = _half_copied(world)

    def step() -> State[Any]:
        run_out(job_id)
        return cancel_job.fn(str(job_id))

    return step


def of_import_drives_cancelled(world: World) -> Callable[[], State[Any]]:
    """The copy hears of a cancel after a while."""
    job_id = _two_drives(world)
    world.monkeypatch.setenv("DRIVEPOST_COPY_POLL_SECONDS", "0.01")
    write, lock = _FolderUpload.write, Lock()
    # With the world it is brought back to what it was.
    written = world.folder / "written"

    def cancel_at_second(upload: _FolderUpload, part: Part, data: bytes) -> bool:
        with lock, written.open("a") as count:
            count.write(".")
            is_second = count.tell() == 2
        if is_second:
            with writing() as session:
                request_cancel(session, job_id, at=database_time(session), by=Actor.CUSTOMER)
        return write(upload, part, data)

    world.monkeypatch.setattr(_FolderUpload, "write", cancel_at_second)
    world.monkeypatch.setattr(Pulse, "beat", _always_asking(Pulse.beat))

    def step() -> State[Any]:
        # As advance-jobs does where the copy's own run was lost.
        run_out(job_id)
        ended = import_drives.fn(str(job_id))
        if "cancel-job carries it out" in (ended.message or ""):
            cancel_job.fn(str(job_id))
        return ended

    return step


def _always_asking(beat: Callable[[Pulse], None]) -> Callable[[Pulse], None]:
    def asking(pulse: Pulse) -> None:
        pulse._last_poll = 0.0
        beat(pulse)

    return asking


def of_delete_job(world: World) -> Callable[[], State[Any]]:
    """A Completed job; somebody else's stays."""
    with writing() as session:
        now = database_time(session)
        job_id = job_in(session, JobState.COMPLETED, at=now)
        job_in(session, JobState.COMPLETED, "other", at=now)
    return lambda: delete_job.fn(str(job_id), str(job_id))


def of_delete_job_looked_at(world: World) -> Callable[[], State[Any]]:
    """A Completed job, of which it is asked what would go."""
    with writing() as session:
        job_id = job_in(session, JobState.COMPLETED, at=database_time(session))
    return lambda: delete_job.fn(str(job_id), dry_run=True)


def of_enforce_retention(world: World) -> Callable[[], State[Any]]:
    """Three jobs are over, and one is not; one job a batch, and one batch a task."""
    world.monkeypatch.setenv("DRIVEPOST_RETENTION_BATCH_ROWS", "1")
    world.monkeypatch.setattr("flows.enforce_retention._ROWS_PER_TASK", 1)
    for name, state, days in (("a1", "Creating", 14), ("b1", "Completed", 90), ("c1", "Closed", 91)):
        with writing() as session:
            job_id = job_in(session, JobState(state), name, database_time(session))
        age(job_id, timedelta(days=days))
    with writing() as session:
        job_in(session, JobState.COMPLETED, "young", database_time(session))
    return enforce_retention.fn


def of_advance_jobs(world: World) -> Callable[[], State[Any]]:
    """A lost cancel, a due copy, a taken request and an overdue package."""
    cancelled = _half_copied(world, "lost")
    with writing() as session:
        request_cancel(session, cancelled, at=database_time(session), by=Actor.CUSTOMER)
        overdue = job_in(session, JobState.SHIPPING, "overdue", database_time(session))
    run_out(cancelled)
    age(overdue, timedelta(days=15))
    _two_drives(world, "due")
    _request_file(world, "taken.json", job_request("taken"))
    assert world.run(create_job.fn, Cutter(at=2)) is None
    return advance_jobs.fn


def of_rotate_keys(world: World) -> Callable[[], State[Any]]:
    """Rows of several tables; one row a batch, and one batch a task."""
    world.monkeypatch.setenv("DRIVEPOST_RESEALING_BATCH_ROWS", "1")
    world.monkeypatch.setattr("flows.rotate_keys._ROWS_PER_TASK", 1)
    with writing() as session:
        job_in(session, JobState.CREATING, at=database_time(session), driveList=[DRIVE, {**DRIVE, "driveId": "B"}])
    return rotate_keys.fn


USER: Final = UUID("00000000-0000-4000-8000-0000000000ad")
OTHER_USER: Final = UUID("00000000-0000-4000-8000-0000000000b0")
SETTINGS: Final[dict[str, Any]] = {
    "savedCarrierAndReturnAddress": {"returnAddress": ADDRESS, "returnShipping": RETURN_SHIPPING},
    "dashboards": [{"name": "private", "filter": {"states": ["Creating"]}}, {"name": "shared", "shared": True}],
}


def _settle(*users: UUID) -> None:
    for user in users:
        document = PortalSettingsDocument.model_validate({"userId": str(user), **SETTINGS})
        with writing() as session:
            import_settings(session, document, at=NOON)


def of_ship_job_with_tick(world: World) -> Callable[[], State[Any]]:
    """The address is to be saved as default."""
    _request_file(world, "job.json", {**job_request(deliveryPackage=None), "userId": str(USER)})
    assert world.run(create_job.fn, Cutter())
    body = {
        "saveCarrierAndReturnAddressAsDefault": True,
        "properties": {"returnAddress": ADDRESS, "returnShipping": RETURN_SHIPPING, "deliveryPackage": PACKAGE},
    }
    return lambda: ship_job.fn("s1/g1/job1", _named(world, "ship.json", body))


def of_export_portal_settings(_: World) -> Callable[[], State[Any]]:
    """Two users have settings."""
    _settle(USER, OTHER_USER)
    return lambda: export_portal_settings.fn(str(USER))


def of_import_portal_settings(world: World) -> Callable[[], State[Any]]:
    """One dashboard of its own, one that is somebody else's, and one without an id."""
    _settle(USER, OTHER_USER)
    with reading() as session:
        ids = {row.user_id: str(row.id) for row in session.exec(select(Dashboard)).all() if row.is_shared}
    entries = [
        {"id": ids[USER], "name": "new name"},
        {"id": ids[OTHER_USER], "name": "not mine"},
        {"name": "third"},
    ]
    document = {**SETTINGS, "userId": str(USER), "dashboards": entries}
    return lambda: import_portal_settings.fn(_named(world, "settings.json", document))


def _with_exports(world: World) -> None:
    _settle(USER, OTHER_USER)
    for user in (USER, OTHER_USER):
        assert world.run(partial(export_portal_settings.fn, str(user)), Cutter())


def of_delete_portal_settings(world: World) -> Callable[[], State[Any]]:
    """Both users have exported files."""
    _with_exports(world)

    def step() -> State[Any]:
        ended = delete_portal_settings.fn(str(USER))
        # As advance-jobs does where a run was cut between rows and files.
        portal.remove_old_exports.fn(Settings().exports, 1e9, 100)
        return ended

    return step


def of_delete_saved_address(world: World) -> Callable[[], State[Any]]:
    """The same, but for the saved address alone."""
    _with_exports(world)
    return lambda: delete_portal_settings.fn(str(USER), SettingsPart.SAVED_ADDRESS)


def of_show_dashboard(_: World) -> Callable[[], State[Any]]:
    """A dashboard of one job."""
    _settle(USER)
    with writing() as session:
        job_in(session, JobState.CREATING, at=database_time(session))
    with reading() as session:
        dashboard_id = session.exec(select(Dashboard.id)).first()
    return lambda: show_dashboard.fn(str(dashboard_id))


def of_erase_personal_data(world: World) -> Callable[[], State[Any]]:
    """Of a user with jobs in three states and settings; somebody else's stay."""
    _settle(USER, OTHER_USER)
    with writing() as session:
        now = database_time(session)
        jobs = (("a1", "Creating"), ("b1", "Shipping"), ("c1", "Closed"), ("other", "Closed"))
        for number, (name, state) in enumerate(jobs):
            job_id = job_in(session, JobState(state), name, now + timedelta(seconds=number))
            set_columns(session, job_id, user_id=OTHER_USER if name == "other" else USER)
            # The package of a Closed job came long ago, or never.
            set_columns(session, job_id, state_since=now - timedelta(days=15))
    return lambda: erase_personal_data.fn(user=str(USER))


def of_erase_personal_data_of_a_job(world: World) -> Callable[[], State[Any]]:
    """A Closed job; somebody else's stays."""
    with writing() as session:
        now = database_time(session)
        job_id = job_in(session, JobState.CLOSED, at=now - timedelta(days=15))
        job_in(session, JobState.CLOSED, "other", now)
    return lambda: erase_personal_data.fn(job=str(job_id))


def of_find_traces(world: World) -> Callable[[], State[Any]]:
    """Canaries live and die; the search itself has tests of its own."""
    world.monkeypatch.setattr("tasks.trace_places.search_apart", lambda *_: Report())
    return find_traces.fn


def of_find_traces_of_words(world: World) -> Callable[[], State[Any]]:
    """Words come in a file."""
    world.monkeypatch.setattr("tasks.trace_places.search_apart", lambda *_: Report())
    return lambda: find_traces.fn(_named(world, "words.json", {"words": ["ada@example.com"]}))


def of_show_job(world: World) -> Callable[[], State[Any]]:
    """A job that was cancelled."""
    with writing() as session:
        job_id = job_in(session, JobState.COMPLETED, at=database_time(session), cancelled=True)
    return lambda: show_job.fn(str(job_id))


def of_place_hold(world: World) -> Callable[[], State[Any]]:
    """A job whose days are nearly over."""
    with writing() as session:
        job_id = job_in(session, JobState.COMPLETED, at=database_time(session))
    return lambda: place_hold.fn(str(job_id), HoldReason.LITIGATION)


def of_release_hold(world: World) -> Callable[[], State[Any]]:
    """A job under legal hold whose days are over."""
    with writing() as session:
        now = database_time(session)
        job_id = job_in(session, JobState.COMPLETED, at=now - timedelta(days=91))
        hold(session, job_id, HoldReason.AUDIT, at=now, by=Actor.OPERATOR)
    return lambda: release_hold.fn(str(job_id), ReleaseReason.MATTER_ENDED)


def of_show_board(world: World) -> Callable[[], State[Any]]:
    """A job in every state."""
    with writing() as session:
        for state in JobState:
            job_in(session, state, f"job-{state}", database_time(session))
    return show_board.fn


WAYS: Final[dict[str, Prepare]] = {
    "create-job": of_create_job,
    "ship-job": of_ship_job,
    "check-in-drives": of_check_in_drives,
    "import-drives": of_import_drives,
    "import-drives, cancelled": of_import_drives_cancelled,
    "export-blobs": of_export_blobs,
    "return-drives": of_return_drives,
    "close-job": of_close_job,
    "cancel-job": of_cancel_job,
    "delete-job": of_delete_job,
    "delete-job, dry run": of_delete_job_looked_at,
    "enforce-retention": of_enforce_retention,
    "rotate-keys": of_rotate_keys,
    "erase-personal-data": of_erase_personal_data,
    "erase-personal-data, of a job": of_erase_personal_data_of_a_job,
    "find-traces": of_find_traces,
    "find-traces, of words": of_find_traces_of_words,
    "advance-jobs": of_advance_jobs,
    "ship-job, with the tick": of_ship_job_with_tick,
    "export-portal-settings": of_export_portal_settings,
    "import-portal-settings": of_import_portal_settings,
    "delete-portal-settings": of_delete_portal_settings,
    "delete-portal-settings, the saved address": of_delete_saved_address,
    "show-dashboard": of_show_dashboard,
    "show-job": of_show_job,
    "show-board": of_show_board,
    "place-hold": of_place_hold,
    "release-hold": of_release_hold,
}
GONE: Final = {
    "delete-job": "the job is deleted",
    "import-drives, cancelled": "nothing to do",
    "import-portal-settings": "IntakeFileInvalid: there is no such file",
    "delete-portal-settings": "PortalSettingsNotFound",
    # The words may not lie about while they are looked for.
    "find-traces, of words": "IntakeFileInvalid: there is no such file",
}
"""What a flow says when it is run again although all of it was done."""


def assert_right_after_cancel(world: World) -> None:
    """Completed, nothing half written, every blob whole."""
    found = world.end()
    assert "JobState.COMPLETED" in found["job"][0]
    for path, data in found["files"].items():
        assert "/.drivepost/" not in path
        if "of three blocks" in path:
            assert data.startswith(b"of three blocks job1-")


def assert_no_canary_waits(world: World) -> None:
    """No request file of canaries is left to become a job."""
    assert [file for file in (world.folder / "intake").rglob("*") if file.is_file()] == []


def assert_one_key(world: World) -> None:
    """The newest key alone is known and kept, and opens everything."""
    with reading() as session:
        (number,) = session.exec(select(SealingKey.number)).all()
        address = session.exec(select(ReturnAddress)).one()
    assert number >= 2
    assert list(read_keys(Settings()) or {}) == [number]
    assert address.email == ADDRESS["email"]
    assert [file.name for file in (world.folder / "keys").iterdir() if ".destroyed" in file.name] == []


VARIES: Final[dict[str, Callable[[World], None]]] = {
    # How much a cancelled copy has copied depends on where it was cut.
    "import-drives, cancelled": assert_right_after_cancel,
    # Each run has canaries of its own; those of one that was cut expire as any job.
    "find-traces": assert_no_canary_waits,
    # Cut after its last act, it is run again as a rotation of its own.
    "rotate-keys": assert_one_key,
}
"""What cannot end the very same; that it is right is checked by itself."""


@pytest.fixture
def new_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_directory: Path, sqlite: str
) -> Iterator[Callable[[], World]]:
    """Make a world of its own, as often as called; all begin with the same empty tables."""
    monkeypatch.setattr("models.manifests.BLOCK_BYTES_MAX", 10)
    monkeypatch.setattr("tests.builders.BLOCK_BYTES_MAX", 10)
    monkeypatch.setattr("tasks.orders.BLOCK_BYTES_MAX", 10)
    monkeypatch.setattr("tasks.blobs._RECORD_SECONDS", 0.0)
    # A cut is no power failure; waiting for the disk would be most of the time.
    prepare = database._prepare_sqlite
    monkeypatch.setattr(
        database,
        "_prepare_sqlite",
        lambda connection, record: (prepare(connection, record), connection.execute("PRAGMA synchronous = OFF")),
    )
    made: list[World] = []
    inner = pytest.MonkeyPatch()

    def make() -> World:
        inner.undo()
        database.engine().dispose()
        database.engine.cache_clear()
        if made:
            shutil.rmtree(made[-1].folder)
        folder = tmp_path / f"world{len(made)}"
        (folder / "intake").mkdir(parents=True)
        (folder / "bay").mkdir()
        shutil.copy(data_directory / "drivepost.db", folder)
        shutil.copytree(data_directory / "keys", folder / "keys")
        use_ring(None)
        inner.setenv("DRIVEPOST_DATA_DIRECTORY", str(folder))
        made.append(World(folder, inner))
        return made[-1]

    yield make
    inner.undo()
    database.engine().dispose()
    database.engine.cache_clear()
    use_ring(None)


@pytest.mark.parametrize("way", WAYS)
def test_a_flow_cut_anywhere_ends_the_same_when_run_again(
    new_world: Callable[[], World], way: str, thorough: bool
) -> None:
    """Before and after each act, and each write inside of one; rows, store and intake are compared."""
    world = new_world()
    step = WAYS[way](world)
    bring_back = world.keep()
    uncut = Cutter()
    ended = world.run(step, uncut)
    assert ended is not None
    wanted = world.end()
    print(f"\n{way}: {len(uncut.points)} points, ends {ended.name}")  # noqa: T201  a figure to be read
    acts = {name for _, name in TASKS}
    for at in range(2 * len(uncut.points)):
        if not (thorough or uncut.points[at // 2] in acts or at % 97 == 0):
            continue  # inside of acts a sample will do
        bring_back()
        cutter = Cutter(at)
        if world.run(step, cutter) is not None:
            # Threads are not always as fast, so a run may come to a point less.
            assert way in VARIES or at >= 2 * len(cutter.points), (at, cutter.points)
            continue
        again = world.run(step, Cutter(asked=cutter.asked))
        where = (at, cutter.points[-1], again)
        assert again is not None
        if again.type != ended.type:
            assert (again.message or "").startswith(GONE.get(way, ended.type)), where
        if way in VARIES:
            VARIES[way](world)
            continue
        found = world.end()
        for part, there in wanted.items():
            assert found[part] == there, (part, where)
        assert cutter.asked >= uncut.asked or way in GONE, where


def test_every_flow_has_its_way_here() -> None:
    """A new flow is cut too."""
    names = {each.name for module in flow_modules() for each in vars(module).values() if isinstance(each, Flow)}
    assert names == {way.partition(",")[0] for way in WAYS}
    assert len(names) >= 17


def test_the_points_of_a_flow_are_all_its_acts(new_world: Callable[[], World]) -> None:
    """So that no act is forgotten by the cuts."""
    come_to: set[str] = set()
    for prepare in WAYS.values():
        world, cutter = new_world(), Cutter()
        world.run(prepare(world), cutter)
        come_to |= set(cutter.points)
    never = {name for _, name in TASKS} - come_to
    apart = {"give_up_drive", "release_lease", "list_expired", "end_stopped_drives", "tell_time", "raise_alert"}
    assert never == apart, "these have tests of their own"
