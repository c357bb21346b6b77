"""Canaries: personal data of nobody goes through every door and through whole lives, and is looked for everywhere.

Before anything is deleted its plain text stands nowhere on disk; after deletion and rotation nothing opens; and
Prefect never held any of it.
"""

import gzip
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging import get_run_logger
from prefect.logging.handlers import APILogWorker
from sqlmodel import Session, select

import tasks.intake
from deployments.processes import PrefectServer
from deployments.serving import deployments
from flows.advance_jobs import advance_jobs
from flows.cancel_job import cancel_job
from flows.check_in_drives import check_in_drives
from flows.create_job import create_job
from flows.delete_job import delete_job
from flows.delete_portal_settings import delete_portal_settings
from flows.enforce_retention import enforce_retention
from flows.erase_personal_data import erase_personal_data
from flows.export_portal_settings import export_portal_settings
from flows.find_traces import places_of
from flows.import_drives import import_drives
from flows.import_portal_settings import import_portal_settings
from flows.return_drives import return_drives
from flows.rotate_keys import rotate_keys
from flows.ship_job import ship_job
from models.bay import check_in
from models.database import database_time, reading, writing
from models.errors import SealedValueError, SealingKeyError, UnexpectedError
from models.jobs import Job, find_job, read_job, request_cancel
from models.key_files import open_sealed, use_ring
from models.lifecycle import Actor, JobState
from models.receipts import verify_receipts
from models.sealing import KeyRing
from models.settings import Settings
from models.shipping import ReturnAddress
from tasks import run_history
from tasks.blobs import BlobCopier
from tasks.trace_places import Places, search_places
from tasks.traces import Report
from tests.builders import age, job_request, mount_drive, random_bytes, sealed_values

COUNT: Final = 300
NOT_KEPT_MAX: Final = 100
COUNT_THOROUGH: Final = 10_000
DRIVES: Final = 10
ROOT: Final = Path(__file__).resolve().parents[2]
NAMES: Final = (
    "recipientName",
    "streetAddress1",
    "streetAddress2",
    "city",
    "stateOrProvince",
    "postalCode",
    "countryOrRegion",
    "phone",
    "email",
)


@dataclass
class Aviary:
    """Where canaries are hatched, and where they are sent through Drivepost's doors."""

    folder: Path
    prefect: SyncPrefectClient
    server: PrefectServer
    words: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)

    def canary(self, *, plain: bool = False) -> str:
        """Hatch one: a word that stands nowhere else; every other one such as text formats like to escape."""
        number = len(self.words)
        shapes = ("canary-{0}", 'canäry & "{0}" <née>', "canary\\{0}/鳥", "canary+{0}@example.com")
        shape = shapes[0 if plain else number % len(shapes)]
        self.words.append(shape.format(f"{number:05}-{uuid4().hex[:10]}"))
        return self.words[-1]

    def address(self) -> dict[str, str]:
        """Make a return address of canaries."""
        return {name: self.canary() for name in NAMES}

    def shipping(self) -> dict[str, str]:
        """Make the carrier and account that drives go back by."""
        return {"carrierName": "FedEx", "carrierAccountNumber": self.canary()}

    def package(self) -> dict[str, object]:
        """Make a package."""
        return {
            "carrierName": "FedEx",
            "trackingNumber": self.canary(),
            "driveCount": 1,
            "shipDate": "2026-05-30",
        }

    def drive(self) -> dict[str, str]:
        """Make the entry of a drive that will never come."""
        return {
            "driveId": self.canary(plain=True),
            "bitLockerKey": self.canary(),
            "manifestFile": "\\DriveManifest.xml",
            "manifestHash": "A" * 32,
        }

    def mounted(self, files: dict[str, bytes]) -> dict[str, str]:
        """Mount a real drive and make its entry."""
        serial = self.canary(plain=True)
        prepared = mount_drive(self.folder, serial, files, container="data")
        return {**prepared.drive_list_entry(), "bitLockerKey": self.canary()}

    def request(self, drives: list[dict[str, str]], **more: object) -> dict[str, Any]:
        """Make the request for a job."""
        name = f"job{len(self.jobs)}"
        self.jobs.append(name)
        made = job_request(
            name,
            returnAddress=self.address(),
            returnShipping=self.shipping(),
            deliveryPackage=self.package(),
            driveList=drives,
            logLevel="Verbose",
            backupDriveManifest=True,
        )
        return {**made, **more}

    def put_file(self, document: object) -> str:
        """Put a request file into the intake folder; gives its name."""
        name = f"request-{uuid4().hex[:8]}.json"
        (self.folder / "intake" / name).write_text(json.dumps(document))
        return name

    def run(self, flow: Flow[..., Any], **parameters: object) -> Any:
        """Run a flow on the real Prefect server; gives its last state."""
        return flow(**parameters, return_state=True)

    def done(self, flow: Flow[..., Any], **parameters: object) -> Any:
        """Run a flow that must end well."""
        ended = self.run(flow, **parameters)
        assert ended.is_completed(), (flow.name, ended.message)
        return ended

    def id_of(self, name: str) -> str:
        """Find a job's opaque id."""
        with reading() as session:
            return str(find_job(session, f"s1/g1/{name}"))


def live(aviary: Aviary, count: int, monkeypatch: pytest.MonkeyPatch, *, in_full: bool) -> list[str]:
    """Send canaries through every door until there are enough; gives the ids of all users.

    Short of in full, what fails before or beside the database is left out.
    """
    whole_life(aviary)
    cancelled(aviary)
    refused(aviary)
    if in_full:
        bad_manifest(aviary)
        crash(aviary, monkeypatch)
        killed(aviary)
        wrong_parameters(aviary)
        by_command_line(aviary)
    users = [portal_settings(aviary) for _ in range(2)]
    many(aviary, count, users[0])
    return users


def whole_life(aviary: Aviary) -> None:
    """Create, ship by a request file, check in with an extra drive, import, return: Completed."""
    entries = [aviary.mounted({"a": b"a" * 100, "b": random_bytes(5 << 20)}), aviary.mounted({"c": b""})]
    request = aviary.request(entries)
    for name in ("returnAddress", "deliveryPackage"):
        del request["body"]["properties"][name]
    aviary.done(create_job, request_file=aviary.put_file(request))
    job = aviary.id_of(request["jobName"])
    assert not aviary.run(ship_job, job=job).is_completed()
    body = {"properties": {"returnAddress": aviary.address(), "deliveryPackage": aviary.package()}}
    aviary.done(ship_job, job=job, request_file=aviary.put_file(body))
    extra = aviary.folder / "bay" / aviary.canary(plain=True)
    extra.mkdir()
    aviary.done(check_in_drives, job=job)
    aviary.done(import_drives, job=job)
    parcel = aviary.put_file({"returnPackage": aviary.package()})
    aviary.done(return_drives, job=job, request_file=parcel)
    extra.rmdir()
    with reading() as session:
        assert read_job(session, UUID(job)).state is JobState.COMPLETED


def received(aviary: Aviary, entries: list[dict[str, str]]) -> str:
    """Bring a job to Received."""
    request = aviary.request(entries)
    aviary.done(create_job, request_file=aviary.put_file(request))
    job = aviary.id_of(request["jobName"])
    aviary.done(ship_job, job=job)
    aviary.done(check_in_drives, job=job)
    return job


def bad_manifest(aviary: Aviary) -> None:
    """A drive whose manifest is another one, and one that is not there any more when it is copied: Closed."""
    entries = [aviary.mounted({"a": b"a"}), aviary.mounted({"b": b"b"})]
    job = received(aviary, [{**entries[0], "manifestHash": "0" * 32}, entries[1]])
    shutil.rmtree(aviary.folder / "bay" / entries[1]["driveId"])
    aviary.done(import_drives, job=job)
    aviary.done(return_drives, job=job, request_file=aviary.put_file({"returnPackage": aviary.package()}))
    with reading() as session:
        assert read_job(session, UUID(job)).state is JobState.CLOSED


def crash(aviary: Aviary, monkeypatch: pytest.MonkeyPatch) -> None:
    """An act fails with an error of a library that repeats whatever it was working on."""
    entry = aviary.mounted({"a": b"a"})
    job = received(aviary, [entry])
    with monkeypatch.context() as broken:

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError(f"cannot copy {json.dumps(aviary.words)}")

        broken.setattr(BlobCopier, "copy", fail)
        aviary.done(import_drives, job=job)
    broken.undo()
    parcel = aviary.put_file({"returnPackage": aviary.package()})
    with monkeypatch.context() as broken:
        broken.setattr("tasks.drives.return_drives", fail)
        assert aviary.run(return_drives, job=job, request_file=parcel).is_failed()
    aviary.done(return_drives, job=job, request_file=parcel)


COPY: Final = """
import sys
from flows.import_drives import import_drives
import_drives(sys.argv[1], return_state=True)
"""


def killed(aviary: Aviary) -> None:
    """The copy's process is killed in the middle of it, and the next one goes on."""
    job = received(aviary, [aviary.mounted({f"{n}": random_bytes(4 << 20, n) for n in range(12)})])
    environment = {**os.environ, **aviary.server.environment}
    copying = subprocess.Popen([sys.executable, "-c", COPY, job], cwd=ROOT, env=environment)
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up and copying.poll() is None:
        with reading() as session:
            if read_job(session, UUID(job)).state is JobState.TRANSFERRING:
                break
        time.sleep(0.02)
    copying.send_signal(signal.SIGKILL)
    assert copying.wait() == -signal.SIGKILL
    time.sleep(1.1)  # until its lease has run out
    aviary.done(import_drives, job=job)
    aviary.done(return_drives, job=job)


def cancelled(aviary: Aviary) -> None:
    """A cancel, with the drives still here."""
    job = received(aviary, [aviary.mounted({"a": b"a"})])
    aviary.done(cancel_job, job=job)


def refused(aviary: Aviary) -> None:
    """Requests that are wrong, each with its canaries; the customer takes their files back."""
    good = aviary.request([aviary.drive()])
    bad: list[object] = [
        {**good, "jobName": f"!{aviary.canary()}"},
        {**good, "body": {**good["body"], "location": aviary.canary()}},
        {**good, "body": {**good["body"], "tags": {aviary.canary(): "x" * 300}}},
        {**good, "body": {**good["body"], "properties": {aviary.canary(): aviary.canary()}}},
        [aviary.canary()],
    ]
    files = [aviary.put_file(each) for each in bad]
    for file in files:
        assert aviary.run(create_job, request_file=file).is_failed()
        (aviary.folder / "intake" / file).unlink()


def wrong_parameters(aviary: Aviary) -> None:
    """Personal data typed where an id belongs does not get past Prefect's own form."""
    for deployment in deployments(Settings()):
        if deployment.name in {"cancel-job", "create-job"}:
            made = deployment.apply()
            assert isinstance(made, UUID)
            name = "job" if deployment.name == "cancel-job" else "request_file"
            with pytest.raises(PrefectHTTPStatusError):
                aviary.prefect.create_flow_run_from_deployment(made, parameters={name: aviary.canary()})


def by_command_line(aviary: Aviary) -> None:
    """A request file that lies elsewhere; it stays, and is the customer's own."""
    file = aviary.folder.parent / "elsewhere.json"
    file.write_text(json.dumps(aviary.request([aviary.drive()])))
    made = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "create-job", str(file)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert UUID(made.stdout.strip())


def portal_settings(aviary: Aviary) -> str:
    """Saved by the tick, exported, imported again; gives the user's id."""
    user = str(uuid4())
    ticked = {"userId": user, "saveCarrierAndReturnAddressAsDefault": True}
    aviary.done(create_job, request_file=aviary.put_file(aviary.request([aviary.drive()], **ticked)))
    aviary.done(export_portal_settings, user=user)
    (exported,) = Settings().exports.iterdir()
    document = json.loads(exported.read_text())
    # The user takes it away.
    exported.unlink()
    document["savedCarrierAndReturnAddress"]["returnAddress"] = aviary.address()
    document["dashboards"] = [{"name": "mine", "filter": {"states": ["Shipping"]}}]
    aviary.done(import_portal_settings, request_file=aviary.put_file(document))
    offered = aviary.request([aviary.drive()], userId=user, useSavedCarrierAndReturnAddress=True)
    for name in ("returnAddress", "returnShipping"):
        del offered["body"]["properties"][name]
    aviary.done(create_job, request_file=aviary.put_file(offered))
    return user


def many(aviary: Aviary, count: int, user: str) -> None:
    """Jobs with ten drives each until there are enough canaries; every other one is cancelled."""
    made: list[str] = []
    while len(aviary.words) < count:
        request = aviary.request([aviary.drive() for _ in range(DRIVES)], userId=user)
        aviary.put_file(request)
        made.append(request["jobName"])
        if len(made) % 90 == 0:
            aviary.done(create_job)
    aviary.done(create_job)
    for name in made[::2]:
        with writing() as session:
            request_cancel(session, UUID(aviary.id_of(name)), at=database_time(session), by=Actor.CUSTOMER)
    aviary.done(advance_jobs)


def die(aviary: Aviary, users: list[str]) -> None:
    """Delete everything: by hand, by wish, by retention, and the settings."""
    aviary.done(delete_job, job=aviary.id_of("job0"), confirm=aviary.id_of("job0"))
    aviary.done(erase_personal_data, job=aviary.id_of("job1"))
    aviary.done(erase_personal_data, user=users[0])
    for user in users[1:]:
        aviary.done(delete_portal_settings, user=user)
    with reading() as session:
        left = session.exec(select(Job.id)).all()
    for job_id in left:
        age(job_id, timedelta(days=91))
    aviary.done(enforce_retention)
    with reading() as session:
        assert session.exec(select(Job.id)).all() == []


def opened(values: dict[tuple[str, int], bytes]) -> set[str]:
    """Open what can be opened with the keys that are on this disk."""
    use_ring(None)
    texts: set[str] = set()
    for (place, _), value in values.items():
        try:
            texts.add(open_sealed(place, value))
        except (SealingKeyError, SealedValueError):
            continue
    return texts


@pytest.fixture
def aviary(
    data_directory: Path,
    any_database: str,
    prefect: SyncPrefectClient,
    prefect_server: PrefectServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Aviary:
    """Make an aviary on either database."""
    monkeypatch.setenv("DRIVEPOST_COPY_LEASE_SECONDS", "1")
    # What is said of jobs at the very end of a run comes late, and a run that was killed looks alive; here it may.
    monkeypatch.setattr(run_history, "_LAST_WORDS", timedelta(seconds=0))
    monkeypatch.setattr(run_history, "_LONGEST_ACT", timedelta(seconds=0))
    return Aviary(data_directory, prefect, prefect_server)


@pytest.fixture
def look(prefect_server: PrefectServer, aviary: Aviary) -> Callable[[], Report]:
    """Give a look for all canaries: everywhere that Drivepost, its Prefect server and this process write."""

    def looking() -> Report:
        APILogWorker.drain_all(timeout=10)
        ours = places_of(Settings())
        home = Path(prefect_server.environment["PREFECT_HOME"])
        folders = (*ours.folders, home.parent, Path(os.environ["PREFECT_HOME"]))
        report: Report = search_places.fn(aviary.words, Places(folders, ours.passing_over, ours.postgresql))
        assert report.not_searched == []
        return report

    return looking


def test_canaries_are_found_nowhere(
    aviary: Aviary, any_database: str, look: Callable[[], Report], monkeypatch: pytest.MonkeyPatch, thorough: bool
) -> None:
    """Neither before deletion as plain text, nor after it with any key there is."""
    in_full = thorough or any_database.startswith("sqlite")
    users = live(aviary, COUNT_THOROUGH if thorough else COUNT, monkeypatch, in_full=in_full)
    before = look()
    assert before.hits == []
    kept = sealed_values()
    in_database = opened(kept) & set(aviary.words)
    # Those that were refused or replaced are nowhere; they are as many however many there are.
    assert len(aviary.words) - len(in_database) < NOT_KEPT_MAX
    die(aviary, users)
    aviary.done(advance_jobs)
    assert opened(kept) & set(aviary.words) == in_database, "a backup opens until the keys are rotated"
    aviary.done(rotate_keys)
    assert sealed_values() == {}
    assert opened(kept) == set()
    after = look()
    assert after.hits == []
    with reading() as session:
        receipts = verify_receipts(session)
    assert receipts.faults == ()
    assert receipts.receipts >= len(aviary.jobs)
    assert receipts.unfinished == 0
    print(  # noqa: T201  a figure to be read
        f"\n{len(aviary.words):,} canaries in {len(aviary.jobs):,} jobs: {after.files:,} files with "
        f"{after.bytes_searched:,} bytes searched, {after.hits_total} found"
    )


Break = Callable[[pytest.MonkeyPatch], None]


def no_sealing(broken: pytest.MonkeyPatch) -> None:
    """Plain text goes into the columns."""
    broken.setattr(KeyRing, "seal", lambda _, __, text: text.encode())
    broken.setattr("models.columns.open_sealed", lambda _, sealed: bytes(sealed).decode())


def talkative_log(broken: pytest.MonkeyPatch) -> None:
    """An act tells its run's log what it works on, and nobody guards the log."""
    broken.setattr(logging, "_logRecordFactory", logging.LogRecord)

    def telling(session: Session, job_id: UUID, found: Collection[str], **options: Any) -> Any:
        get_run_logger().info(f"in the bay: {', '.join(found)}")
        return check_in(session, job_id, found, **options)

    broken.setattr("tasks.drives.check_in", telling)


def talkative_error(broken: pytest.MonkeyPatch) -> None:
    """An error of a library becomes a run's message with its text."""
    broken.setattr("tasks.acts.without_data", lambda error: UnexpectedError(str(error), "here"))

    def fail(*_: object, **__: object) -> None:
        with reading() as session:
            raise RuntimeError(session.exec(select(ReturnAddress)).one().email)

    broken.setattr("tasks.drives.check_in", fail)


def file_left(broken: pytest.MonkeyPatch) -> None:
    """A request file is not removed when it is taken in."""
    for module in ("tasks.intake", "tasks.portal"):
        broken.setattr(f"{module}.erase", lambda _: None)


def file_beside(broken: pytest.MonkeyPatch) -> None:
    """An act writes what it works on into a file of its own."""
    read = tasks.intake.read_request_file

    def keeping(file: Path) -> bytes:
        document = read(file)
        (Settings().data_directory / "cache.gz").write_bytes(gzip.compress(document))
        return document

    broken.setattr("tasks.intake.read_request_file", keeping)


@pytest.mark.parametrize("layer", [None, no_sealing, talkative_log, talkative_error, file_left, file_beside])
@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_the_look_for_canaries_bites(
    aviary: Aviary, look: Callable[[], Report], monkeypatch: pytest.MonkeyPatch, layer: Break | None
) -> None:
    """Each layer broken in turn, a short life is enough to be found out; unbroken it is not."""
    if layer:
        layer(monkeypatch)
    request = aviary.request([aviary.mounted({"a": b"a"})])
    aviary.done(create_job, request_file=aviary.put_file(request))
    job = aviary.id_of(request["jobName"])
    aviary.done(ship_job, job=job)
    aviary.run(check_in_drives, job=job)
    assert bool(look().hits_total) is bool(layer)


def no_deletion_of_settings(broken: pytest.MonkeyPatch) -> None:
    """The saved address stays."""
    broken.setattr("models.portal._doomed", lambda *_: {})


def no_erasure(broken: pytest.MonkeyPatch) -> None:
    """The drives keep their serial numbers."""
    broken.setattr("models.erasure.places", lambda _: [])


def no_new_key(broken: pytest.MonkeyPatch) -> None:
    """The old key is not destroyed."""
    broken.setattr("models.rotation.destroy_keys", lambda *_, **__: None)


@pytest.mark.parametrize("layer", [None, no_deletion_of_settings, no_erasure, no_new_key])
@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_the_proof_that_nothing_opens_bites(
    aviary: Aviary, monkeypatch: pytest.MonkeyPatch, layer: Break | None
) -> None:
    """Deletion, erasure and rotation broken in turn: something opens. Unbroken, nothing does."""
    if layer:
        layer(monkeypatch)
    user = portal_settings(aviary)
    kept = sealed_values()
    aviary.done(delete_portal_settings, user=user)
    (first, second) = map(aviary.id_of, aviary.jobs)
    aviary.done(cancel_job, job=first)
    aviary.done(erase_personal_data, job=first)
    aviary.done(delete_job, job=second, confirm=second)
    aviary.done(rotate_keys)
    left = (opened(kept) | opened(sealed_values())) & set(aviary.words)
    assert bool(left) is bool(layer)
