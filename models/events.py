"""What happened to a job, in order: one row per act, written in the transaction of the act."""

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from models.columns import UtcDateTime, growing, words
from models.lifecycle import Actor
from models.personal_data import impersonal


class EventKind(StrEnum):
    """What an event tells of."""

    CREATED = "created"
    REPLACED = "replaced"
    UPDATED = "updated"
    CANCEL_ACCEPTED = "cancel accepted"
    MOVED = "moved"
    DRIVE_MOVED = "drive moved"
    EXTRA_DRIVE_FOUND = "extra drive found"
    EXTRA_DRIVE_SHIPPED_BACK = "extra drive shipped back"
    PACKAGE_OVERDUE = "package overdue"
    ERASURE_WISHED = "erasure wished"
    ERASED = "erased"
    KEYS_GIVEN_OUT = "keys given out"
    HOLD_PLACED = "hold placed"
    HOLD_RELEASED = "hold released"


_FROM_INTAKE: Final = text("intake_id IS NOT NULL")


class JobEvent(SQLModel, table=True):
    """One thing that happened to one job.

    `number` grows from event to event. `source` and `target` are states, of the job or of the drive that
    `drive_number` names; `what` names the properties that an update changed, or why a legal hold was placed or
    released. Where a request file of the intake made the job, or made it anew, `intake_id` is the id that the file
    goes by; before the eighth version of the tables whatever else operators made has one, too. No row holds a
    person's data.
    """

    __tablename__ = "job_event"
    __table_args__ = (
        # Few events have one, and an index of random ids is dear to every row in it.
        Index(
            "ix_job_event_intake_id",
            "intake_id",
            unique=True,
            sqlite_where=_FROM_INTAKE,
            postgresql_where=_FROM_INTAKE,
        ),
        # A deletion asks for them alone.
        Index("ix_job_event_from_intake", "job_id", sqlite_where=_FROM_INTAKE, postgresql_where=_FROM_INTAKE),
    )

    number: int | None = Field(default=None, primary_key=True, sa_type=growing(), sa_column_kwargs=impersonal())
    intake_id: UUID | None = Field(default=None, sa_column_kwargs=impersonal())
    job_id: UUID = Field(foreign_key="job.id", ondelete="CASCADE", index=True, sa_column_kwargs=impersonal())
    at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    kind: EventKind = Field(sa_type=words(EventKind), sa_column_kwargs=impersonal())
    by: Actor = Field(sa_type=words(Actor), sa_column_kwargs=impersonal())
    drive_number: int | None = Field(default=None, sa_column_kwargs=impersonal())
    source: str | None = Field(default=None, sa_column_kwargs=impersonal())
    target: str | None = Field(default=None, sa_column_kwargs=impersonal())
    what: str | None = Field(default=None, sa_column_kwargs=impersonal())
