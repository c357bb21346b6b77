"""What Create Job and Update Job Properties share: which rows properties become, and what a tick saves."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlmodel import Session, SQLModel

from models.drives import Drive
from models.errors import RequestError
from models.jobs import Job
from models.lifecycle import DriveState, JobProperty, expiry
from models.portal import save_address
from models.requests import DriveShape, JobDetails, Shape, UpdateDetails
from models.shipping import Direction, Package, ReturnAddress, ReturnShipping

_SAVE: Final = "saveCarrierAndReturnAddressAsDefault"

CHILDREN: Final[Mapping[JobProperty, tuple[type[SQLModel], Mapping[str, Any]]]] = {
    JobProperty.RETURN_ADDRESS: (ReturnAddress, {}),
    JobProperty.RETURN_SHIPPING: (ReturnShipping, {}),
    JobProperty.DELIVERY_PACKAGE: (Package, {"direction": Direction.DELIVERY}),
}
"""Properties that are a row of their own: its table, and what its key has beside the job's id."""

COLUMNS: Final[Mapping[JobProperty, str]] = {
    JobProperty.LOG_LEVEL: "log_level",
    JobProperty.BACKUP_DRIVE_MANIFEST: "backup_drive_manifest",
    JobProperty.TAGS: "tags",
}
"""Properties that are a column of the job."""


def save_as_default(
    session: Session, user_id: UUID | None, details: JobDetails | UpdateDetails, at: datetime
) -> None:
    """Save what a request gives as its user's default; the request ticks so.

    Raises:
        RequestError: carrier or return address is not in it, or nobody says whose default it is.
    """
    address, shipping = details.return_address, details.return_shipping
    if address is None or shipping is None:
        fault = "saves returnAddress and returnShipping of the same request; give both, or leave this out"
        raise RequestError([(_SAVE, fault)])
    if user_id is None:
        fault = "needs the userId that the job is created with; name it there, or leave this out"
        raise RequestError([(_SAVE, fault)])
    save_address(session, user_id, address, shipping, at=at)


def child_row(job_id: UUID, name: JobProperty, shape: Shape) -> SQLModel:
    """Make the row that a property of a job becomes."""
    table, key = CHILDREN[name]
    return table(job_id=job_id, **key, **shape.model_dump())


def add_drives(session: Session, job_id: UUID, shapes: Sequence[DriveShape], at: datetime) -> None:
    """Add the drives of a job, numbered in their order."""
    for number, shape in enumerate(shapes, start=1):
        session.add(
            Drive(job_id=job_id, number=number, state=DriveState.SPECIFIED, state_since=at, **shape.model_dump())
        )


def expiry_of(job: Job, at: datetime) -> datetime | None:
    """Tell when the service deletes a job that is updated now."""
    return expiry(job.state, entered=job.state_since, updated=at, cancel_accepted=job.cancel_requested)
