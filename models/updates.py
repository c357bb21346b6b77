"""Create Job and Update Job Properties: what a request makes of the rows, all of it or nothing.

Source: the specification, sections 2, 5 and 8.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel, col, select

from models.drives import Drive, drives_of, serial
from models.errors import (
    DatabaseError,
    DrivepostError,
    JobChangedError,
    JobHeldError,
    NotReadyToShipError,
    PropertyNotUpdatableError,
    RequestError,
)
from models.events import EventKind, JobEvent
from models.job_rows import CHILDREN, COLUMNS, add_drives, child_row, expiry_of, save_as_default
from models.jobs import Job, move, read_job, request_cancel, resource_key
from models.lifecycle import (
    UPDATABLE,
    Actor,
    JobProperty,
    JobState,
    Operation,
    Outcome,
    decide,
    require_actor,
)
from models.locations import Locations
from models.portal import saved_address_of
from models.requests import DriveShape, JobDetails, JobRequest, Shape, UpdateJobBody, drive_list_fault
from models.shipping import Package, ReturnAddress, ReturnShipping

_PUTS_MAX: Final = 10

_USE: Final = "useSavedCarrierAndReturnAddress"

_AS_FIRST_WRITTEN: Final = frozenset({"subscription_id", "resource_group", "name"})
"""Columns that a replacement leaves alone: names are given back as they were first written."""


def put_job(
    session: Session,
    request: JobRequest,
    locations: Locations,
    *,
    at: datetime,
    by: Actor,
    intake_id: UUID | None = None,
) -> UUID:
    """Create a job, or replace it while it is Creating.

    Carrier and return address are saved in the portal settings of the user whose job it is if the request ticks
    so, and never else. A replacement that names no user leaves the job to whom it belongs.

    Args:
        session: a session that writes.
        request: the job's names and properties.
        locations: the sites there are.
        at: now, aware UTC.
        by: who asks.
        intake_id: that the request's file goes by in the intake, so that doing it twice does it once.

    Returns:
        The job's opaque id; a replaced job keeps its own.

    Raises:
        RequestError: the location is none; or what is to be saved is not all there, or nothing was saved.
        JobStateConflictError: a job of that name has left Creating.
        CancelAcceptedError: a job of that name is being cancelled.
        JobHeldError: a job of that name is under legal hold.
    """
    if intake_id is None:
        return put_new_or_replace(session, request, locations, at=at, by=by)[0].id
    acted = select(JobEvent.job_id).where(col(JobEvent.intake_id) == intake_id)
    if (job_id := session.exec(acted).one_or_none()) is not None:
        return job_id
    try:
        with session.begin_nested():
            return put_new_or_replace(session, request, locations, at=at, by=by, intake_id=intake_id)[0].id
    except (IntegrityError, DrivepostError):
        # Somebody may have done this very act at the same moment, and the job have gone on since.
        if (job_id := session.exec(acted).one_or_none()) is None:
            raise
        return job_id


def put_new_or_replace(
    session: Session,
    request: JobRequest,
    locations: Locations,
    *,
    at: datetime,
    by: Actor,
    intake_id: UUID | None = None,
) -> tuple[Job, bool]:
    """Create a job, or replace it while it is Creating, as `put_job` does; each time it is called.

    Returns:
        The job, and whether it is a new one.
    """
    require_actor(Operation.REPLACE, by)
    columns = _job_columns(request, locations)
    details = _with_saved(session, request)
    job, kind = _new_or_found(session, columns, at)
    if kind is EventKind.REPLACED:
        decide(Operation.REPLACE, job.state, cancel_accepted=job.cancel_requested)
        if job.held_since is not None:
            raise JobHeldError
        kept = _with_keys_kept(session, job, details.drive_list)
        details = details.model_copy(update={"drive_list": kept})
        for name in columns.keys() - _AS_FIRST_WRITTEN:
            setattr(job, name, columns[name])
        for table in (ReturnAddress, ReturnShipping, Package, Drive):
            session.connection().execute(delete(table).where(col(table.job_id) == job.id))
        job.updated_at = at
        job.expires_at = expiry_of(job, at)
        session.flush()
        session.expire_all()
    _add_children(session, job.id, details)
    add_drives(session, job.id, details.drive_list or [], at)
    if request.save_carrier_and_return_address_as_default:
        save_as_default(session, request.user_id, request.body.properties, at)
    session.add(JobEvent(intake_id=intake_id, job_id=job.id, at=at, kind=kind, by=by, target=job.state))
    session.flush()
    return job, kind is EventKind.CREATED


def _new_or_found(session: Session, columns: Mapping[str, Any], at: datetime) -> tuple[Job, EventKind]:
    chosen = select(Job).where(col(Job.resource_key) == columns["resource_key"]).with_for_update()
    for _ in range(_PUTS_MAX):
        found = session.exec(chosen).one_or_none()
        if found is not None:
            return found, EventKind.REPLACED
        job = Job(**columns, state=JobState.CREATING, state_since=at, created_at=at, updated_at=at)
        job.expires_at = expiry_of(job, at)
        try:
            with session.begin_nested():
                session.add(job)
        except IntegrityError:  # somebody put a job of this name at the same moment
            continue
        return job, EventKind.CREATED
    raise DatabaseError("a job of this name was put and deleted again and again meanwhile; repeat the request")


def _job_columns(request: JobRequest, locations: Locations) -> dict[str, Any]:
    details = request.body.properties
    location = locations.find(request.body.location)
    export = details.export
    names = (request.subscription_id, request.resource_group_name, request.job_name)
    return {
        "subscription_id": request.subscription_id,
        "resource_group": request.resource_group_name,
        "name": request.job_name,
        "resource_key": resource_key(*names),
        "job_type": details.job_type,
        "location": request.body.location,
        "shipping_location": locations.shipping_to(location).key,
        "storage_account_id": details.storage_account_id,
        "diagnostics_path": details.diagnostics_path,
        "log_level": details.log_level,
        "backup_drive_manifest": details.backup_drive_manifest,
        "tags": request.body.tags,
        "kek_type": details.encryption_key.kek_type,
        "kek_url": details.encryption_key.kek_url,
        "kek_vault_resource_id": details.encryption_key.kek_vault_resource_id,
        "export_blob_paths": export.blob_list.blob_path if export else [],
        "export_blob_path_prefixes": export.blob_list.blob_path_prefix if export else [],
        "export_blob_list_blob_path": export.blob_list_blob_path if export else None,
        **({} if request.user_id is None else {"user_id": request.user_id}),
    }


def _with_saved(session: Session, request: JobRequest) -> JobDetails:
    """Fill in what a request leaves out and its user has saved, if it asks for that."""
    details = request.body.properties
    if not request.use_saved_carrier_and_return_address:
        return details
    if request.user_id is None:
        raise RequestError([(_USE, "needs userId; name it, or leave this out")])
    if details.return_address and details.return_shipping:
        return details
    saved = saved_address_of(session, request.user_id)
    if saved is None:
        fault = "nothing is saved for this user; give returnAddress and returnShipping, or leave this out"
        raise RequestError([(_USE, fault)])
    return details.model_copy(
        update={
            "return_address": details.return_address or saved.return_address,
            "return_shipping": details.return_shipping or saved.return_shipping,
        }
    )


def _add_children(session: Session, job_id: UUID, details: JobDetails) -> None:
    for name, shape in (
        (JobProperty.RETURN_ADDRESS, details.return_address),
        (JobProperty.RETURN_SHIPPING, details.return_shipping),
        (JobProperty.DELIVERY_PACKAGE, details.delivery_package),
    ):
        if shape is not None:
            session.add(child_row(job_id, name, shape))


def update_job(
    session: Session,
    job_id: UUID,
    body: UpdateJobBody,
    *,
    at: datetime,
    by: Actor,
    saves_as_default: bool = False,
    asked_by: UUID | None = None,
) -> Outcome:
    """Change what a request names, all of it or nothing.

    What is absent, null, or as it is already changes nothing and violates nothing; `cancelRequested: false`
    means nothing and undoes nothing, and `backupDriveManifest: false` nothing once it can no longer be changed.

    Args:
        session: a session that writes.
        job_id: the job.
        body: what is to change.
        at: now, aware UTC.
        by: who asks.
        saves_as_default: the user ticked that the request's carrier and return address are kept in their portal
            settings. They are not where nothing else is to do: the request may be one that was carried out
            before, and the user may have deleted them since.
        asked_by: which user ticked; by default the one whose job it is.

    Returns:
        NOTHING_TO_DO when everything in the job is already as the request wants it.

    Raises:
        JobNotFoundError: there is no such job.
        PropertyNotUpdatableError: the job's state forbids some of the changes; the text names them.
        JobStateConflictError: it is too late to ship or to cancel.
        CancelAcceptedError: it is to be shipped although a cancel was accepted.
        NotReadyToShipError: it is to be shipped without return address or delivery package.
        JobHeldError: it is under legal hold, and what would be overwritten may be evidence.
        RequestError: the drive list does not fit the job's type; or what is to be saved is not all there.

    Source: the specification, section 5.
    """
    job = read_job(session, job_id, lock=True)
    return update_locked_job(
        session, job, body, at=at, by=by, saves_as_default=saves_as_default, asked_by=asked_by
    )


def update_locked_job(
    session: Session,
    job: Job,
    body: UpdateJobBody,
    *,
    at: datetime,
    by: Actor,
    saves_as_default: bool = False,
    asked_by: UUID | None = None,
) -> Outcome:
    """Change a job that is locked already, as `update_job` does; afterwards `job` is as it is in the database."""
    require_actor(Operation.UPDATE, by)
    changes = _changes(session, job, body)
    ships = bool(body.properties.state) and job.state is not JobState.SHIPPING
    cancels = bool(body.properties.cancel_requested) and not job.cancel_requested
    if ships:
        decide(Operation.SHIP, job.state, cancel_accepted=job.cancel_requested)
    if cancels:
        decide(Operation.CANCEL, job.state)
    _require_changeable(session, job, changes)
    drives = changes.get(JobProperty.DRIVE_LIST)
    if drives is not None and (fault := drive_list_fault(job.job_type, drives)):
        raise RequestError([("properties.driveList", fault)])
    if changes:
        _apply(session, job, changes, at=at, by=by)
    if ships:
        _ship(session, job, at=at, by=by)
    if cancels:
        request_cancel(session, job.id, at=at, by=by)
        session.refresh(job)
    if not (changes or ships or cancels):
        return Outcome.NOTHING_TO_DO
    if saves_as_default:
        save_as_default(session, asked_by or job.user_id, body.properties, at)
    return Outcome.DONE


def _changes(session: Session, job: Job, body: UpdateJobBody) -> dict[JobProperty, Any]:
    """Find what of a request differs from what is: property -> wanted value."""
    wanted: dict[JobProperty, Any] = {
        JobProperty.TAGS: body.tags,
        JobProperty.LOG_LEVEL: body.properties.log_level,
        JobProperty.BACKUP_DRIVE_MANIFEST: _unless_sent_by_default(job, body.properties.backup_drive_manifest),
        JobProperty.DRIVE_LIST: _with_keys_kept(session, job, body.properties.drive_list),
        JobProperty.RETURN_ADDRESS: body.properties.return_address,
        JobProperty.RETURN_SHIPPING: body.properties.return_shipping,
        JobProperty.DELIVERY_PACKAGE: body.properties.delivery_package,
    }
    return {
        name: value
        for name, value in wanted.items()
        if value is not None and not _is_as_wanted(session, job, name, value)
    }


def _require_changeable(session: Session, job: Job, changes: Collection[JobProperty]) -> None:
    refused = [name for name in changes if job.state not in UPDATABLE[name]]
    if refused:
        updatable = [name for name, states in UPDATABLE.items() if job.state in states]
        raise PropertyNotUpdatableError(job.state, refused, updatable)
    if job.held_since is not None and any(_is_there(session, job, name) for name in changes):
        raise JobHeldError


def _is_there(session: Session, job: Job, name: JobProperty) -> bool:
    """Tell whether a change of a property would take rows away; one that adds them, or sets a column, does not."""
    if name is JobProperty.DRIVE_LIST:
        return bool(drives_of(session, job.id))
    return name in CHILDREN and _child_of(session, job, name) is not None


def _child_of(session: Session, job: Job, name: JobProperty) -> SQLModel | None:
    table, key = CHILDREN[name]
    return session.get(table, (job.id, *key.values()) if key else job.id)


def _unless_sent_by_default(job: Job, wanted: bool | None) -> bool | None:  # noqa: FBT001  a property's value
    """Read over a `false` that comes too late to change anything: one client sends it with every update."""
    is_late = job.state not in UPDATABLE[JobProperty.BACKUP_DRIVE_MANIFEST]
    return None if is_late and wanted is False else wanted


def _with_keys_kept(
    session: Session, job: Job, wanted: Sequence[DriveShape] | None
) -> Sequence[DriveShape] | None:
    """Leave a drive its BitLocker key where a request gives none: no answer tells it, so none can repeat it."""
    if not wanted:
        return wanted
    keys = {serial(drive.drive_id): drive.bit_locker_key for drive in drives_of(session, job.id)}
    return [
        drive.model_copy(update={"bit_locker_key": drive.bit_locker_key or keys.get(serial(drive.drive_id))})
        for drive in wanted
    ]


def _is_as_wanted(session: Session, job: Job, name: JobProperty, value: Any) -> bool:
    if name in COLUMNS:
        return bool(getattr(job, COLUMNS[name]) == value)
    if name is JobProperty.DRIVE_LIST:
        drives = drives_of(session, job.id)
        return len(drives) == len(value) and all(map(_is_like, drives, value))
    row = _child_of(session, job, name)
    return row is not None and _is_like(row, value)


def _is_like(row: SQLModel, shape: Shape) -> bool:
    return all(getattr(row, name) == value for name, value in shape.model_dump().items())


def _apply(session: Session, job: Job, changes: Mapping[JobProperty, Any], *, at: datetime, by: Actor) -> None:
    columns = {COLUMNS[name]: value for name, value in changes.items() if name in COLUMNS}
    written = session.connection().execute(
        update(Job)
        .where(col(Job.id) == job.id, col(Job.state) == job.state)
        .values(**columns, updated_at=at, expires_at=expiry_of(job, at))
    )
    if written.rowcount != 1:
        raise JobChangedError(job.id)
    for name, value in changes.items():
        if name in CHILDREN:
            session.merge(child_row(job.id, name, value))
        elif name is JobProperty.DRIVE_LIST:
            session.connection().execute(delete(Drive).where(col(Drive.job_id) == job.id))
            session.expire_all()
            add_drives(session, job.id, value, at)
    session.add(JobEvent(job_id=job.id, at=at, kind=EventKind.UPDATED, by=by, what=", ".join(sorted(changes))))
    session.flush()
    session.refresh(job)


def _ship(session: Session, job: Job, *, at: datetime, by: Actor) -> None:
    missing = [
        str(name)
        for name in (JobProperty.RETURN_ADDRESS, JobProperty.DELIVERY_PACKAGE)
        if _child_of(session, job, name) is None
    ]
    if missing:
        raise NotReadyToShipError(missing)
    move(session, job, JobState.SHIPPING, at=at, by=by)
