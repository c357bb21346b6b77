"""Every flow cut before and after each act, and inside the copy, ends the same when it is run again.

A cut is a death: from that moment on the run writes nothing more, neither here nor there.
"""

import importlib
import json
import pkgutil
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
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
from flows.enforce_retention import enforce_retention
from flows.import_drives import import_drives
from flows.return_drives import return_drives
from flows.rotate_keys import rotate_keys
from flows.ship_job import ship_job
from models import database
from models.database import database_time, reading, writing
from models.jobs import request_cancel
from models.key_files import read_keys, use_ring
from models.lifecycle import Actor, JobState
from models.sealing_keys import SealingKey
from models.settings import Settings
from models.shipping import ReturnAddress
from tasks import intake
from tasks.blobs import BlobCopier
from tasks.pulse import Pulse
from tasks.stores import Container
from tests.builders import (
    ADDRESS,
    DRIVE,
    PACKAGE,
    Listed,
    age,
    job_in,
    job_request,
    mount_by_hand,
    received_by_hand,
    run_out,
)

PREFECT_ACTS: Final = ("start_copies", "hide_parameters", "hide_names", "forget_runs")
INSIDE: Final = (
    (BlobCopier, "_record"),
    (Container, "_put"),
    (Container, "_give_name"),
    (Container, "commit_blocks"),
    (Container, "discard"),
    (intake, "_create"),
    (intake, "_put_back"),
)
"""Where a run is cut inside of an act: every write of the copy, and of the intake."""


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
        return {**tables, "files": files}


def _normal(name: str, value: Any) -> Any:
    if isinstance(value, datetime | UUID) or name.endswith("_uri") or name in {"hash", "proof"}:
        return None if value is None else name
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
    stage, staged = Container.stage_block, 0

    def cut_at_second(container: Container, *args: Any) -> None:
        nonlocal staged
        staged += 1
        if staged == 3:
            cutter.dead = True
            raise Cut
        stage(container, *args)

    with world.monkeypatch.context() as cutting:
        cutting.setattr(Container, "stage_block", cut_at_second)
        assert world.run(lambda: import_drives.fn(str(job_id)), cutter) is None
    assert list((world.folder / "store").rglob(f".drivepost/{job_id}/*"))
    return job_id


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
    stage, staged = Container.stage_block, 0

    def cancel_at_fifth(container: Container, *args: Any) -> None:
        nonlocal staged
        staged += 1
        if staged == 2:
            with writing() as session:
                request_cancel(session, job_id, at=database_time(session), by=Actor.CUSTOMER)
        stage(container, *args)

    world.monkeypatch.setattr(Container, "stage_block", cancel_at_fifth)
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
    return lambda: delete_job.fn(str(job_id))


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


WAYS: Final[dict[str, Prepare]] = {
    "create-job": of_create_job,
    "ship-job": of_ship_job,
    "check-in-drives": of_check_in_drives,
    "import-drives": of_import_drives,
    "import-drives, cancelled": of_import_drives_cancelled,
    "return-drives": of_return_drives,
    "close-job": of_close_job,
    "cancel-job": of_cancel_job,
    "delete-job": of_delete_job,
    "enforce-retention": of_enforce_retention,
    "rotate-keys": of_rotate_keys,
    "advance-jobs": of_advance_jobs,
}
GONE: Final = {"delete-job": "ResourceNotFound", "import-drives, cancelled": "nothing to do"}
"""What a flow says when it is run again although all of it was done."""



def assert_right_after_cancel(world: World) -> None:
    """Completed, nothing half written, every blob whole."""
    found = world.end()
    assert "JobState.COMPLETED" in found["job"][0]
    for path, data in found["files"].items():
        assert "/.drivepost/" not in path
        if "of three blocks" in path:
            assert data.startswith(b"of three blocks job1-")


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
    # Cut after its last act, it is run again as a rotation of its own.
    "rotate-keys": assert_one_key,
}
"""What cannot end the very same; that it is right is checked by itself."""


@pytest.fixture
def new_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_directory: Path
) -> Iterator[Callable[[], World]]:
    """Make a world of its own, as often as called; all begin with the same empty tables."""
    monkeypatch.setattr("models.manifests.BLOCK_BYTES_MAX", 10)
    monkeypatch.setattr("tests.builders.BLOCK_BYTES_MAX", 10)
    monkeypatch.setattr("tasks.blobs._RECORD_SECONDS", 0.0)
    # A cut is no power failure; waiting for the disk would be most of the time.
    prepare = database._prepare_sqlite
    monkeypatch.setattr(
        database,
        "_prepare_sqlite",
        lambda connection, record: (prepare(connection, record), connection.execute("PRAGMA synchronous = OFF")),
    )
    database.engine.cache_clear()
    database.upgrade(Settings().database)
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
    uncut = Cutter()
    ended = world.run(WAYS[way](world), uncut)
    assert ended is not None
    wanted = world.end()
    print(f"\n{way}: {len(uncut.points)} points, ends {ended.name}")  # noqa: T201  a figure to be read
    acts = {name for _, name in TASKS}
    for at in range(2 * len(uncut.points)):
        if not (thorough or uncut.points[at // 2] in acts or at % 13 == 0):
            continue  # inside of acts a sample will do
        world = new_world()
        step = WAYS[way](world)
        cutter = Cutter(at)
        if world.run(step, cutter) is not None:
            assert way in VARIES, (at, cutter.points)
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
    assert len(names) >= 11


def test_the_points_of_a_flow_are_all_its_acts(new_world: Callable[[], World]) -> None:
    """So that no act is forgotten by the cuts."""
    come_to: set[str] = set()
    for prepare in WAYS.values():
        world, cutter = new_world(), Cutter()
        world.run(prepare(world), cutter)
        come_to |= set(cutter.points)
    never = {name for _, name in TASKS} - come_to
    assert never == {"give_up_drive", "release_lease", "list_expired", "end_stopped_drives"}, (
        "these have tests of their own"
    )
