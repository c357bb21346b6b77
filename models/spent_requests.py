"""Requests of the intake whose job was deleted: what is left of their files must not make it again.

Source: the specification, section 4; nothing may bring back what was deleted.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, insert, literal
from sqlmodel import Field, Session, SQLModel, col, select

from models.batches import among
from models.columns import UtcDateTime
from models.events import JobEvent
from models.personal_data import impersonal

_REMEMBERED: Final = timedelta(days=90)
"""A request file that was taken is finished within minutes of the service being up."""


class SpentRequest(SQLModel, table=True):
    """An act of the intake, by the id that its file goes by; its job was deleted then."""

    __tablename__ = "spent_request"

    id: UUID = Field(primary_key=True, sa_column_kwargs=impersonal())
    at: datetime = Field(sa_type=UtcDateTime, index=True, sa_column_kwargs=impersonal())


def remember_spent_requests(session: Session, job_ids: Collection[UUID], *, at: datetime) -> None:
    """Write down which requests made jobs that are about to be deleted; part of their deletion."""
    connection = session.connection()
    old = select(SpentRequest.id).where(col(SpentRequest.at) <= at - _REMEMBERED)
    # What another deletion removes just now is not waited for.
    connection.execute(delete(SpentRequest).where(col(SpentRequest.id).in_(old.with_for_update(skip_locked=True))))
    made_by = select(JobEvent.intake_id, literal(at, UtcDateTime)).where(
        among(connection, col(JobEvent.job_id), job_ids), col(JobEvent.intake_id).is_not(None)
    )
    connection.execute(insert(SpentRequest).from_select(["id", "at"], made_by))


def was_spent(session: Session, intake_id: UUID) -> bool:
    """Tell whether a request was carried out, and its job deleted since."""
    return session.get(SpentRequest, intake_id) is not None
