"""What tests are made of: request bodies, jobs in any state, drives in the bay."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sqlmodel import Session, col, update

from deployments.prepare_drive import PreparedDrive, files_below, prepare_drive
from models.database import database_time, writing
from models.jobs import Job, move, read_job, request_cancel
from models.lifecycle import Actor, JobState
from models.locations import load_locations
from models.requests import JobRequest, parse
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
    from models.bay import check_in  # noqa: PLC0415  only here

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
