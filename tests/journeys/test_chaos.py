"""Many machines, and everything dies at times: every job ends where it should all the same."""

import hashlib
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from threading import Event
from typing import Any, Final
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, select

from deployments.deploy import deploy
from flows.advance_jobs import IDLE
from models import database
from models.copy_logs import DriveStatus
from models.database import database_time, reading, writing
from models.drives import drives_of
from models.erasure import wish_erasure
from models.errors import DatabaseError, JobNotFoundError, JobStateConflictError, PrefectAwayError
from models.holds import place_hold
from models.jobs import HoldReason, Job, read_job
from models.key_files import use_ring
from models.lifecycle import ENDS, Actor, JobState
from models.receipts import OpenReceipt, ReceiptEntry, ReceiptStep, verify_receipts
from models.runs import JobRun
from models.settings import Settings
from models.shipping import ReturnAddress
from models.tables import upgrade
from tasks.dead_runs import bury_dead_runs
from tasks.drives import check_in_drives, copies_to_start, find_lost_cancels, send_drives_back
from tasks.jobs import accept_cancel, delete_rows_of_job, mark_as_shipped
from tests.builders import age, job_request, logs_of, mount_drive, put, random_bytes, rows_of
from tests.journeys.many_machines import POOL, Machine, Postgres, Prefect, start_runs_in_one_step

FILES: Final = 24
TURNS: Final = ("machine", "worker", "run", "machine", "machine")
FATES: Final = ("held", "cancelled", "aged", "deleted", "erased")
LEASE_SECONDS: Final = 10
QUIET_SECONDS_MAX: Final = 1200
JOBS_MAX: Final = 1000
DEAD_AFTER_SECONDS: Final = 30
PASSWORD: Final = "operators:a password of the test"  # noqa: S105  of no other server
"""What Prefect's server asks everybody for."""

TERMINAL: Final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True)
class Extent:
    """How much of everything."""

    jobs: int
    kills: int
    between_kills: float
    away_seconds: float
    clock_seconds: int
    buries: bool


# What gives no sign of life is buried by advance-jobs after three heartbeats, of half a minute at least; the small
# test does not wait for that.
SMALL: Final = Extent(jobs=5, kills=3, between_kills=2, away_seconds=1, clock_seconds=8, buries=True)
LARGE: Final = Extent(jobs=200, kills=40, between_kills=6, away_seconds=15, clock_seconds=15, buries=False)


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """Start a PostgreSQL of our own."""
    with tempfile.TemporaryDirectory(prefix="drivepost-pg-") as folder:
        server = Postgres(Path(folder))
        yield server
        server.close()


@pytest.fixture
def prefect_server(
    postgres: Postgres, data_directory: Path, tmp_path: Path, extent: Extent, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Prefect]:
    """Start a Prefect server on it, beside our tables, with all flows deployed in a pool."""
    for name, value in {
        "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
        "PREFECT_API_AUTH_STRING": PASSWORD,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": postgres.prefect,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_PREFETCH_SECONDS": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "DRIVEPOST_DATABASE_URL": postgres.drivepost,
        "DRIVEPOST_ADVANCE_INTERVAL_SECONDS": str(extent.clock_seconds),
        "DRIVEPOST_COPY_LEASE_SECONDS": str(LEASE_SECONDS),
        "DRIVEPOST_COPIES_AT_ONCE_MAX": "6",
        "DRIVEPOST_COPY_BATCH_BLOBS": "2",
        "DRIVEPOST_COPY_REQUESTS_AT_ONCE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    server = Prefect(tmp_path)
    database.engine.cache_clear()
    use_ring(None)
    try:
        upgrade(Settings().database)
        server.wait()
        with (
            temporary_settings({PREFECT_API_URL: server.api, PREFECT_API_AUTH_STRING: "operators:another"}),
            pytest.raises(PrefectAwayError, match="AUTH_STRING"),
        ):
            deploy(Console(quiet=True), POOL)
        with temporary_settings({PREFECT_API_URL: server.api, PREFECT_API_AUTH_STRING: PASSWORD}):
            deploy(Console(quiet=True), POOL)
            with get_client(sync_client=True) as client:
                start_runs_in_one_step(client)
            yield server
    finally:
        server.close()
        database.engine().dispose()
        database.engine.cache_clear()
        use_ring(None)


@pytest.fixture
def machines(prefect_server: Prefect, tmp_path: Path) -> Iterator[list[Machine]]:
    """Start two machines."""
    started = [Machine(tmp_path, name, {"PREFECT_API_URL": prefect_server.api}, 4) for name in ("one", "two")]
    yield started
    for machine in started:
        machine.die()


@dataclass
class Life:
    """One job, what is to become of it, and what was seen of it."""

    number: int
    fate: str
    files: dict[str, bytes]
    job_id: UUID
    cancel_after: float
    is_cancelled: bool = False
    is_wished: bool = False
    is_over: bool = False
    looked_at: float = 0
    copies: int = 0
    ended_at: datetime | None = None

    @property
    def is_to_be_advanced(self) -> bool:
        """Whether more than the sweep is still to come."""
        return not (self.is_over or (self.fate == "aged" and self.ended_at is not None))

    @property
    def is_deleted(self) -> bool:
        """Whether nothing of it may be left."""
        return self.fate in {"aged", "deleted"}


class Runs:
    """Prefect's runs, as anybody sees them who may find the server away."""

    def __init__(self, server: Prefect) -> None:
        self._client = httpx.Client(base_url=server.api, timeout=60, auth=httpx.BasicAuth(*PASSWORD.split(":")))

    def ask_for(self, flow: str, **parameters: str) -> str | None:
        """Ask for a run as a door does; None where Prefect is away, and the row alone has to do."""
        with suppress(httpx.HTTPError):
            found = self._client.get(f"/deployments/name/{flow}/{flow}").raise_for_status().json()
            url = f"/deployments/{found['id']}/create_flow_run"
            return str(self._client.post(url, json={"parameters": parameters}).raise_for_status().json()["id"])
        return None

    def state_of(self, run_id: str) -> str:
        """Read the type of a run's state."""
        return str(self._client.get(f"/flow_runs/{run_id}").raise_for_status().json()["state"]["type"])

    def begun(self) -> list[dict[str, Any]]:
        """Read all runs whose time has come."""
        return self.all({"state": {"type": {"not_any_": ["SCHEDULED"]}}})

    def all(self, chosen: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Read all runs, or those of a filter."""
        found: list[dict[str, Any]] = []
        while True:
            asked = {"limit": 200, "offset": len(found), "sort": "START_TIME_ASC", "flow_runs": chosen}
            page = self._client.post("/flow_runs/filter", json=asked).raise_for_status().json()
            found += page
            if len(page) < 200:
                return found


class Customers:
    """Take jobs through their lives, each step as soon as it can be taken, and again where something was away."""

    def __init__(self, folder: Path, runs: Runs, extent: Extent, random: Random) -> None:
        self._folder = folder
        self._runs = runs
        self._random = random
        self._began = time.monotonic()
        self.lives = [self._begin(number, extent.kills * extent.between_kills) for number in range(extent.jobs)]

    def _begin(self, number: int, storm_seconds: float) -> Life:
        files = {f"{n}.bin": random_bytes(20_000 + n, 1000 * number + n) for n in range(FILES)}
        entry = mount_drive(self._folder, f"SERIAL{number}", files, f"job{number}").drive_list_entry()
        with writing() as session:
            request = job_request(f"job{number}", driveList=[entry], diagnosticsPath=f"logs{number}")
            job_id = put(session, request, database_time(session))
        return Life(number, FATES[number % len(FATES)], files, job_id, self._random.uniform(0, storm_seconds))

    def step(self) -> bool:
        """Take the next step of every job that can take one; tells whether all are over."""
        for life in self.lives:
            # Many customers do not look all the time.
            if not life.is_over and time.monotonic() - life.looked_at > len(self.lives) / 20:
                life.looked_at = time.monotonic()
                with suppress(SQLAlchemyError, DatabaseError):
                    self._live(life)
        return all(life.is_over for life in self.lives)

    def _live(self, life: Life) -> None:
        try:
            with reading() as session:
                job, now = read_job(session, life.job_id), database_time(session)
        except JobNotFoundError:
            assert life.is_deleted
            life.is_over = True
            return
        life.copies = max(life.copies, job.copy_token)
        # Who looks seldom may find it copied already, or at its end.
        if (
            life.fate == "erased"
            and not life.is_wished
            and job.state not in {JobState.CREATING, JobState.SHIPPING}
        ):
            with writing() as session:
                wish_erasure(session, life.job_id, at=now, by=Actor.OPERATOR)
            life.is_wished = True
        elif job.state in ENDS:
            self._end(life, job, now)
        elif life.is_cancelled:
            return
        elif life.fate == "cancelled" and time.monotonic() - self._began > life.cancel_after:
            self._cancel(life)
        elif job.state is JobState.CREATING:
            mark_as_shipped.fn(life.job_id, None)
        elif job.state is JobState.SHIPPING:
            check_in_drives.fn(life.job_id, Settings().bay)
        elif job.state is JobState.PACKAGING:
            send_drives_back.fn(life.job_id, None)
            shutil.rmtree(self._folder / "bay" / f"SERIAL{life.number}", ignore_errors=True)

    def _cancel(self, life: Life) -> None:
        try:
            accept_cancel.fn(life.job_id)
        except JobStateConflictError:
            life.fate = "held"
            return
        life.is_cancelled = True
        if self._random.random() < 0.5:
            self._runs.ask_for("cancel-job", job=str(life.job_id))

    def _end(self, life: Life, job: Job, now: datetime) -> None:
        life.ended_at = job.state_since
        if life.fate == "deleted":
            delete_rows_of_job.fn(life.job_id)
            self._runs.ask_for("delete-job", job=str(life.job_id))
        elif life.fate in {"aged", "held"} and job.expires_at is not None and job.expires_at > now:
            age(life.job_id, timedelta(days=90))
        elif life.fate == "held":
            with writing() as session:
                place_hold(session, life.job_id, HoldReason.LITIGATION, at=now, by=Actor.OPERATOR)
            life.is_over = True
        elif life.fate == "erased":
            with reading() as session:
                life.is_over = session.get(ReturnAddress, life.job_id) is None
        elif life.fate == "cancelled":
            life.is_over = True


@dataclass
class Storm:
    """What happened to the machines."""

    machines: list[Machine]
    server: Prefect
    postgres: Postgres
    extent: Extent
    random: Random
    struck: Counter[str] = field(default_factory=Counter)
    away: Counter[str] = field(default_factory=Counter)
    is_over: Event = field(default_factory=Event)

    def rage(self) -> None:
        """Kill one thing after the other; each comes back."""
        for number in range(self.extent.kills):
            machine = self.machines[number % 2]
            machine.wait()
            if self.is_over.wait(self.random.uniform(0, self.extent.between_kills)):
                return
            what = TURNS[number % len(TURNS)]
            self.struck[what] += 1
            if what == "run":
                machine.lose_run(self.random)
            else:
                (machine.die if what == "machine" else machine.lose_worker)()
                machine.start()
            if number == self.extent.kills // 3:
                self._away("Prefect", self.server)
            elif number == 2 * self.extent.kills // 3:
                self._away("PostgreSQL", self.postgres)

    def _away(self, name: str, server: Prefect | Postgres) -> None:
        began = time.monotonic()
        server.die()
        time.sleep(self.extent.away_seconds)
        server.start()
        self.away[name] = round(time.monotonic() - began)


@pytest.fixture
def extent(thorough: bool) -> Extent:
    """Tell how much of everything."""
    return LARGE if thorough else SMALL


def test_every_job_ends_where_it_should_whatever_dies(
    machines: list[Machine],
    prefect_server: Prefect,
    postgres: Postgres,
    data_directory: Path,
    extent: Extent,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Machines, workers and runs are killed, Prefect is away, PostgreSQL dies; then there is quiet."""
    random = Random(6)  # noqa: S311  the same each time is what is wanted
    runs = Runs(prefect_server)
    customers = Customers(data_directory, runs, extent, random)
    storm = Storm(machines, prefect_server, postgres, extent, random)
    with ThreadPoolExecutor(1) as pool:
        raging = pool.submit(storm.rage)
        try:
            while not raging.done():
                customers.step()
                time.sleep(0.5)
        finally:
            storm.is_over.set()
        raging.result()
    calm = Calm(runs, customers)
    calm.wait(extent)

    for life in customers.lives:
        assert_store_is_right(data_directory, life)
        assert_rows_are_right(life)
    assert_receipts_are_right(customers.lives)
    assert "deadlock detected" not in postgres.log
    with capsys.disabled():
        print(f"\n{figures(storm, customers, calm, runs)}")  # noqa: T201  what the test is for


class Calm:
    """After the storm: what was begun comes to its end."""

    def __init__(self, runs: Runs, customers: Customers) -> None:
        self._runs = runs
        self._customers = customers
        self._began = time.monotonic()
        self._since = datetime.now(UTC).isoformat()
        self._sweep: str | None = None
        self._passed_over: dict[object, int] = {}
        self.seconds: dict[str, float] = {}

    def wait(self, extent: Extent) -> None:
        """Wait for everything."""
        self._await("a run of advance-jobs by the clock", lambda: self._has_completed("advance-jobs"))
        self._await("all jobs at their ends", self._all_over)
        self._await("a run of enforce-retention", lambda: self._has_completed("enforce-retention"))
        self._await("no run of the dead", lambda: self._nobody_dead(extent))
        self._await("all receipts closed, and nothing tells of what was deleted", self._nothing_tells)

    def _await(self, what: str, is_so: Callable[[], bool]) -> None:
        give_up = time.monotonic() + QUIET_SECONDS_MAX
        while not is_so():
            assert time.monotonic() < give_up, f"never: {what}; {_states(self._customers)}"
            time.sleep(1)
        self.seconds[what] = round(time.monotonic() - self._began, 1)

    def _all_over(self) -> bool:
        self._require_nobody_stuck()
        is_over = self._customers.step()
        if not is_over and not any(life.is_to_be_advanced for life in self._customers.lives) and self._may_sweep():
            # As its clock would at night.
            self._sweep = self._runs.ask_for("enforce-retention")
        return is_over

    def _require_nobody_stuck(self) -> None:
        """See that what could be gone on with is taken up by advance-jobs in its second run, at the latest."""
        turns = sum(not run["state"]["message"].startswith(IDLE) for run in self._completed("advance-jobs"))
        self._passed_over = {each: self._passed_over.get(each, turns) for each in self._waiting()}
        # One run may have been at work already.
        assert not [each for each, since in self._passed_over.items() if turns - since > 2]

    def _waiting(self) -> list[object]:
        """Find cancels, and copies for which there is a place, that nobody is at: no lease holds, no run comes."""
        settings = Settings()
        cancels: list[object] = list(find_lost_cancels.fn(JOBS_MAX))
        due, under_way = copies_to_start.fn(JOBS_MAX, settings.copies_per_site_max)
        if len(due) + len(under_way) > settings.copies_at_once_max:
            return cancels
        asked = str(self._runs.all({"state": {"type": {"any_": ["SCHEDULED", "PENDING"]}}}))
        with reading() as session:
            tokens = [(job_id, read_job(session, job_id).copy_token) for job_id, _ in due]
        return cancels + [(job_id, token) for job_id, token in tokens if str(job_id) not in asked]

    def _may_sweep(self) -> bool:
        return self._sweep is None or self._runs.state_of(self._sweep) in TERMINAL

    def _has_completed(self, flow: str) -> bool:
        return any(not run["state"]["message"].startswith(IDLE) for run in self._completed(flow))

    def _completed(self, flow: str) -> list[dict[str, Any]]:
        since = {"after_": self._since}
        return self._runs.all(
            {"name": {"like_": flow}, "state": {"type": {"any_": ["COMPLETED"]}}, "start_time": since}
        )

    def _nothing_tells(self) -> bool:
        with reading() as session:
            left = [
                session.exec(select(OpenReceipt)).first(),
                session.exec(select(JobRun).where(col(JobRun.is_job_deleted))).first(),
            ]
        told = str(self._runs.all())
        return not any(left) and not any(
            str(life.job_id) in told for life in self._customers.lives if life.is_deleted
        )

    def _nobody_dead(self, extent: Extent) -> bool:
        if extent.buries:
            with suppress(PrefectAwayError):
                bury_dead_runs.fn(DEAD_AFTER_SECONDS, None)
        return not any(
            run["state"]["type"] not in TERMINAL and run["state"]["timestamp"] < self._since
            for run in self._runs.begun()
        )


def _states(customers: Customers) -> list[str]:
    told = []
    for life in customers.lives:
        if not life.is_over:
            with reading() as session:
                job = session.get(Job, life.job_id)
            told.append(f"{life.number} ({life.fate}): {job.state if job else 'deleted'}")
    return told


def assert_store_is_right(folder: Path, life: Life) -> None:
    """Every blob is there once and is right; of a cancelled job, nothing came after its end."""
    root = folder / "store" / "account1" / f"job{life.number}"
    there = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    logs = logs_of(folder, container=f"logs{life.number}")
    for name, path in there.items():
        assert _digest(path.read_bytes()) == _digest(life.files[name]), (life.number, name)
    if life.is_cancelled:
        assert life.ended_at is not None
        late = [path.name for path in there.values() if path.stat().st_ctime > life.ended_at.timestamp()]
        assert late == [], life.number
        assert len(logs) <= 1
        return
    assert there.keys() == life.files.keys(), life.number
    assert len(logs) == 1, life.number
    assert f"<Status>{DriveStatus.COMPLETED}</Status>" in logs[0].read_text("utf-8")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def assert_rows_are_right(life: Life) -> None:
    """A deleted job has none; of the others, what was counted is what there was."""
    with reading() as session:
        if life.is_deleted:
            assert not any(rows_of(session, life.job_id).values()), life.number
            return
        assert read_job(session, life.job_id).state is JobState.COMPLETED
        counted = sum(drive.bytes_succeeded for drive in drives_of(session, life.job_id))
    listed = sum(map(len, life.files.values()))
    assert counted <= listed if life.is_cancelled else counted == listed, life.number


def assert_receipts_are_right(lives: list[Life]) -> None:
    """One receipt for each deletion, begun and done, and the chain is whole."""
    with reading() as session:
        found = verify_receipts(session)
        steps = [(entry.opaque_id, entry.step) for entry in session.exec(select(ReceiptEntry)).all()]
    assert (found.faults, found.unfinished) == ((), 0)
    told_of = [life.job_id for life in lives if life.is_deleted or life.fate == "erased"]
    assert Counter(steps) == Counter((job_id, step) for job_id in told_of for step in ReceiptStep)


def figures(storm: Storm, customers: Customers, calm: Calm, runs: Runs) -> str:
    """Tell what happened, in lines."""
    lives = customers.lives
    states = Counter(f"{run['state']['name']}" for run in runs.begun())
    copied = [life for life in lives if life.copies]
    return "\n".join(
        (
            f"jobs: {len(lives)}, {Counter(life.fate for life in lives)}",
            f"killed: {storm.struck}; away, seconds: {storm.away}",
            f"runs that are left in Prefect: {states}",
            f"copies begun: {sum(life.copies for life in copied)}, of {len(copied)} jobs",
            f"after the storm, seconds: {calm.seconds}",
        )
    )
