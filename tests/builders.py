"""What tests are made of: request bodies, jobs in any state, drives in the bay."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import LargeBinary, type_coerce
from sqlmodel import Session, SQLModel, col, func, select, update

from deployments.posted_files import PreparedDrive
from deployments.prepare_drive import files_below, prepare_drive
from models.alerts import AlertKind, Found, raise_alerts
from models.bay import check_in
from models.columns import Sealed
from models.copies import BlobReport, DriveCopy
from models.copy_logs import BlobStatus, DispositionStatus
from models.database import database_time, reading, writing
from models.drives import Drive, ExtraDrive, drives_of
from models.events import EventKind, JobEvent
from models.jobs import Job, move, read_job, request_cancel
from models.lifecycle import Actor, DriveState, JobState
from models.locations import load_locations
from models.manifests import BLOCK_BYTES_MAX, AttachedFile, Blob, Block, ImportDisposition, ManifestWriter
from models.requests import JobRequest, parse
from models.runs import record_run
from models.shipping import Direction, Package
from models.updates import put_job

NOON: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
ACCOUNT: Final = "/subscriptions/s1/resourceGroups/g1/providers/Microsoft.Storage/storageAccounts/account1"
ADDRESS: Final = {
    "recipientName": "Ada Example",
    "streetAddress1": "1 Road",
    "streetAddress2": "",
    "city": "Town",
    "stateOrProvince": "ST",
    "postalCode": "12345",
    "countryOrRegion": "USA",
    "phone": "5550100",
    "email": "ada@example.com",
}
PACKAGE: Final = {"carrierName": "FedEx", "trackingNumber": "TRACK1", "driveCount": 1, "shipDate": "2026-05-30"}
RETURN_SHIPPING: Final = {"carrierName": "FedEx", "carrierAccountNumber": "ACCOUNT1"}
DRIVE: Final = {"driveId": "SERIAL1", "manifestFile": "\\DriveManifest.xml", "manifestHash": "A" * 32}

WAY: Final = {
    JobState.CREATING: (),
    JobState.SHIPPING: (JobState.SHIPPING,),
    JobState.RECEIVED: (JobState.SHIPPING, JobState.RECEIVED),
    JobState.TRANSFERRING: (JobState.SHIPPING, JobState.RECEIVED, JobState.TRANSFERRING),
    JobState.PACKAGING: (JobState.SHIPPING, JobState.RECEIVED, JobState.TRANSFERRING, JobState.PACKAGING),
    JobState.COMPLETED: (
        JobState.SHIPPING,
        JobState.RECEIVED,
        JobState.TRANSFERRING,
        JobState.PACKAGING,
        JobState.COMPLETED,
    ),
    JobState.CLOSED: (JobState.SHIPPING, JobState.CLOSED),
}
"""By which moves a job without a cancel gets into each state."""

_MOVER: Final = {
    JobState.SHIPPING: Actor.CUSTOMER,
    JobState.RECEIVED: Actor.OPERATOR,
    JobState.TRANSFERRING: Actor.SERVICE,
    JobState.PACKAGING: Actor.SERVICE,
    JobState.COMPLETED: Actor.OPERATOR,
    JobState.CLOSED: Actor.OPERATOR,
}


def job_request(
    name: str = "job1", *, location: str = "West US", tags: dict[str, str] | None = None, **properties: Any
) -> dict[str, Any]:
    """Make a whole Import request; `properties` replace those of the default, None removes one."""
    details: dict[str, Any] = {
        "storageAccountId": ACCOUNT,
        "jobType": "Import",
        "returnAddress": ADDRESS,
        "returnShipping": RETURN_SHIPPING,
        "deliveryPackage": PACKAGE,
        "driveList": [DRIVE],
        **properties,
    }
    return {
        "subscriptionId": "s1",
        "resourceGroupName": "g1",
        "jobName": name,
        "body": {
            "location": location,
            "tags": tags or {},
            "properties": {key: value for key, value in details.items() if value is not None},
        },
    }


def put(session: Session, request: dict[str, Any], at: datetime = NOON, **options: Any) -> UUID:
    """Create or replace a job from a request."""
    parsed = parse(JobRequest, json.dumps(request))
    return put_job(session, parsed, load_locations(), at=at, by=Actor.CUSTOMER, **options)


def job_in(
    session: Session,
    state: JobState,
    name: str = "job1",
    at: datetime = NOON,
    *,
    cancelled: bool = False,
    **properties: Any,
) -> UUID:
    """Make a job and bring it into a state by its ordinary moves; drives stay Specified.

    With `cancelled` a cancel was accepted on the way, and Completed was reached by it.
    """
    job_id = put(session, job_request(name, **properties), at)
    job = read_job(session, job_id)
    if cancelled and state is JobState.COMPLETED:
        request_cancel(session, job_id, at=at, by=Actor.CUSTOMER)
        session.refresh(job)
        move(session, job, JobState.COMPLETED, at=at, by=Actor.SERVICE)
        return job_id
    for target in WAY[state]:
        move(session, job, target, at=at, by=_MOVER[target])
    if cancelled:
        request_cancel(session, job_id, at=at, by=Actor.CUSTOMER)
    return job_id


def put_on_site(session: Session, job_id: UUID, at: datetime, state: DriveState = DriveState.RECEIVED) -> None:
    """Let the drives of a job lie with us since a moment, or be in another state."""
    for drive in drives_of(session, job_id):
        drive.state, drive.state_since = state, at
        session.add(drive)


def age(job_id: UUID, by: timedelta) -> None:
    """Move every moment of a job into the past."""
    with writing() as session:
        job = read_job(session, job_id, lock=True)
        job.state_since -= by
        job.created_at -= by
        job.updated_at -= by
        job.expires_at = job.expires_at and job.expires_at - by
        session.add(job)


def make_source(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files into a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def mount_drive(
    data_directory: Path, serial: str, files: dict[str, bytes], container: str = "data"
) -> PreparedDrive:
    """Prepare a real drive with a real manifest and mount it in the bay."""
    source = make_source(data_directory.parent / f"source-{serial}", files)
    drive = data_directory / "bay" / serial
    drive.mkdir(parents=True)
    return prepare_drive(files_below(source), drive, serial, container)


def received_job(
    data_directory: Path, drives: dict[str, dict[str, bytes]], name: str = "job1", **properties: Any
) -> UUID:
    """Make a Received Import job whose drives, serial number -> files, are real and in the bay."""
    prepared = [mount_drive(data_directory, serial, files) for serial, files in drives.items()]
    with writing() as session:
        now = database_time(session)
        entries = [each.drive_list_entry() for each in prepared]
        job_id = job_in(session, JobState.SHIPPING, name, now, driveList=entries, **properties)
        check_in(session, job_id, list(drives), at=now, by=Actor.OPERATOR)
    return job_id


def stored(data_directory: Path, account: str = "account1") -> dict[str, bytes]:
    """Read everything in the store of an account: path -> content; logs and manifests aside."""
    root = data_directory / "store" / account
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "waies" not in path.parts
    }


def set_columns(session: Session, job_id: UUID, **values: Any) -> None:
    """Write columns of a job past every rule, to make what cannot be made otherwise."""
    session.connection().execute(update(Job).where(col(Job.id) == job_id).values(**values))


@dataclass(frozen=True)
class Listed:
    """One blob of a drive made by hand: what its manifest lists, and what the drive holds."""

    path: str
    data: bytes = b"x"
    disposition: ImportDisposition = ImportDisposition.RENAME
    on_drive: bytes | None = None
    file: str = ""
    metadata: AttachedFile | None = None
    properties: AttachedFile | None = None
    is_page_blob: bool = False

    def file_path(self, number: int) -> str:
        """Tell where on the drive its file lies."""
        return self.file or f"files\\{number}"

    def blob(self, number: int) -> Blob:
        """Make its entry of the manifest."""
        pieces = range(0, 0 if self.is_page_blob else len(self.data), BLOCK_BYTES_MAX)
        return Blob(
            self.path,
            self.file_path(number),
            len(self.data),
            self.disposition,
            tuple(_block(start, self.data[start : start + BLOCK_BYTES_MAX]) for start in pieces),
            metadata=self.metadata,
            properties=self.properties,
            is_page_blob=self.is_page_blob,
        )


def attached_file(path: str, data: bytes) -> AttachedFile:
    """Make the manifest's entry of a metadata or properties file of this content."""
    return AttachedFile(path, hashlib.md5(data, usedforsecurity=False).hexdigest().upper())


def _block(offset: int, data: bytes) -> Block:
    return Block(offset, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest().upper())


def mount_by_hand(data_directory: Path, serial: str, listed: Sequence[Listed]) -> dict[str, str]:
    """Mount a drive whose files and manifest need not agree; gives its entry of a job's `driveList`."""
    drive = data_directory / "bay" / serial
    drive.mkdir(parents=True)
    for number, each in enumerate(listed):
        file = drive.joinpath(*each.file_path(number).split("\\"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(each.data if each.on_drive is None else each.on_drive)
    manifest = drive / "DriveManifest.xml"
    with (
        manifest.open("wb") as stream,
        ManifestWriter(stream, drive_id=serial, client_creator="tests") as writer,
    ):
        for number, each in enumerate(listed):
            writer.add(each.blob(number))
    digest = hashlib.md5(manifest.read_bytes(), usedforsecurity=False).hexdigest()
    return {"driveId": serial, "manifestFile": "\\DriveManifest.xml", "manifestHash": digest.upper()}


def received_by_hand(
    data_directory: Path, drives: Mapping[str, Sequence[Listed]], name: str = "job1", **properties: Any
) -> UUID:
    """Make a Received Import job of drives made by hand."""
    entries = [mount_by_hand(data_directory, serial, listed) for serial, listed in drives.items()]
    return received_of_entries(entries, name, **properties)


def received_of_entries(entries: Sequence[dict[str, str]], name: str = "job1", **properties: Any) -> UUID:
    """Make a Received Import job of drives that are in the bay, by their entries of its `driveList`."""
    with writing() as session:
        now = database_time(session)
        job_id = job_in(session, JobState.SHIPPING, name, now, driveList=list(entries), **properties)
        check_in(session, job_id, [entry["driveId"] for entry in entries], at=now, by=Actor.OPERATOR)
    return job_id


def logs_of(data_directory: Path, kind: str = "error", container: str = "waimportexport") -> list[Path]:
    """Find the copy logs, or the backed up manifests, of a job in the store, in the order of their names."""
    return sorted((data_directory / "store" / "account1" / container).rglob(f"waies/*_{kind}.xml"))


def with_every_row(session: Session, job_id: UUID) -> None:
    """Give a job a row in every table that speaks of jobs."""
    session.merge(
        Package(
            job_id=job_id, direction=Direction.RETURN, carrier_name="UPS", tracking_number="TRACK2", drive_count=1
        )
    )
    session.add(ExtraDrive(job_id=job_id, drive_id="EXTRA1", found_at=NOON))
    session.add(DriveCopy(job_id=job_id, drive_number=1, started_at=NOON))
    session.add(
        BlobReport(
            job_id=job_id,
            drive_number=1,
            blob_number=1,
            blob_path="data/a",
            file_path="a",
            length=1,
            disposition=ImportDisposition.RENAME,
            status=BlobStatus.FAILED,
            disposition_status=DispositionStatus.CANCELLED,
        )
    )
    record_run(session, job_id, uuid4())
    raise_alerts(session, [Found(AlertKind.RETURN_DUE, str(job_id), job_id)], NOON)
    session.flush()


def rows_of(session: Session, job_id: UUID) -> dict[str, int]:
    """Count a job's rows in every table that has a job's id: table -> rows."""
    counted = {"job": session.scalar(select(func.count()).select_from(Job).where(col(Job.id) == job_id)) or 0}
    for table in SQLModel.metadata.sorted_tables:
        if "job_id" in table.columns:
            of_job = select(func.count()).select_from(table).where(table.columns["job_id"] == job_id)
            counted[table.name] = session.scalar(of_job) or 0
    return counted


def events_of(session: Session, job_id: UUID, kind: EventKind | None = None) -> list[JobEvent]:
    """Read what is written down of a job, oldest first; of one kind where it is named."""
    told = session.exec(
        select(JobEvent).where(col(JobEvent.job_id) == job_id).order_by(col(JobEvent.number))
    ).all()
    return [event for event in told if kind in {None, event.kind}]


def at_once(*acts: Callable[[], object]) -> list[object]:
    """Do acts in threads that begin together; gives what each returned or raised, in their order."""
    gate = Barrier(len(acts))

    def act(doing: Callable[[], object]) -> object:
        gate.wait(timeout=30)
        try:
            return doing()
        except Exception as error:  # noqa: BLE001  it is what the test asks about
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(act, acts))


def random_bytes(count: int, seed: int = 0) -> bytes:
    """Make bytes no two blocks of which are alike, the same for the same seed."""
    return hashlib.shake_128(seed.to_bytes(8, "big")).digest(count)


def drive_of(job_id: UUID, number: int = 1) -> Drive:
    """Read the row of a drive."""
    with reading() as session:
        return session.get_one(Drive, (job_id, number))


def run_out(job_id: UUID) -> None:
    """Let the lease on a job's copy have run out, if anybody holds it."""
    with writing() as session:
        if read_job(session, job_id).copy_lease_until is not None:
            set_columns(session, job_id, copy_lease_until=database_time(session) - timedelta(seconds=1))


def sealed_values() -> dict[tuple[str, int], bytes]:
    """Read every sealed value as it is in the database: by its place and a number."""
    found: dict[tuple[str, int], bytes] = {}
    with reading() as session:
        for table in SQLModel.metadata.sorted_tables:
            for column in table.columns:
                if isinstance(column.type, Sealed):
                    raw = select(type_coerce(column, LargeBinary)).where(column.is_not(None))
                    for number, (value,) in enumerate(session.connection().execute(raw)):
                        found[column.type.place, number] = bytes(value)
    return found
