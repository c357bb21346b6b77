"""Alerts: what operators must hear of though nobody looks, kept until it is told, at least once.

An alert holds a kind, a moment and an opaque job id. Its key says what it is about, so that the same thing is
told once by us, and whoever hears it twice knows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from sqlalchemy import ColumnElement, and_, delete, or_
from sqlmodel import Field, Session, SQLModel, col, select

from models.columns import UtcDateTime, words
from models.copies import copy_is_stalled
from models.drives import Drive
from models.jobs import Job
from models.lifecycle import DRIVE_ON_SITE, PACKAGE_OVERDUE, JobState
from models.personal_data import impersonal

RETURN_DUE: Final = timedelta(days=3)
"""A job's drives could go back for so long, and have not."""

ALERT_KEPT: Final = timedelta(days=90)
"""How long an alert is kept, told or not."""

_FIRST_PAUSE: Final = timedelta(minutes=1)
_PAUSE_MAX: Final = timedelta(hours=1)
_CANCELS_LOOKED_AT: Final = timedelta(days=30)


class AlertKind(StrEnum):
    """What an alert tells."""

    RETENTION_FAILED = "retention-failed"
    RETENTION_OVERDUE = "retention-overdue"
    CLOCK_JUMPED = "clock-jumped"
    COPY_STALLED = "copy-without-heartbeat"
    PACKAGE_OVERDUE = "package-overdue"
    RETURN_DUE = "package-due-back"


TEXTS: Final[Mapping[AlertKind, str]] = {
    AlertKind.RETENTION_FAILED: "enforce-retention failed, or could not delete all that is due",
    AlertKind.RETENTION_OVERDUE: "jobs should have been deleted more than two sweeps ago",
    AlertKind.CLOCK_JUMPED: "the database's clock is not where it should be, and nothing is deleted by it",
    AlertKind.COPY_STALLED: "a copy gave no sign of life for twice its lease",
    AlertKind.PACKAGE_OVERDUE: f"no package came in {PACKAGE_OVERDUE.days} days of Shipping",
    AlertKind.RETURN_DUE: f"drives could go back for {RETURN_DUE.days} days",
}
"""What an alert of each kind says; no text knows more than its kind."""


class Alert(SQLModel, table=True):
    """One thing to be told; `next_try_at` is None once it is told everywhere."""

    key: str = Field(primary_key=True, sa_column_kwargs=impersonal())
    kind: AlertKind = Field(sa_type=words(AlertKind), sa_column_kwargs=impersonal())
    job_id: UUID | None = Field(
        default=None, foreign_key="job.id", ondelete="CASCADE", index=True, sa_column_kwargs=impersonal()
    )
    at: datetime = Field(sa_type=UtcDateTime, index=True, sa_column_kwargs=impersonal())
    attempts: int = Field(default=0, sa_column_kwargs=impersonal())
    next_try_at: datetime | None = Field(
        default=None, sa_type=UtcDateTime, index=True, sa_column_kwargs=impersonal()
    )
    event_sent: bool = Field(default=False, sa_column_kwargs=impersonal())

    @property
    def id(self) -> UUID:
        """The same for the same key, wherever and however often it is told."""
        return uuid5(NAMESPACE_URL, f"drivepost:{self.key}")


@dataclass(frozen=True, slots=True)
class Found:
    """What is to be told: its kind, what tells it apart from others of that kind, and its job if it has one."""

    kind: AlertKind
    which: str
    job_id: UUID | None = None


def raise_alerts(session: Session, found: Iterable[Found], at: datetime) -> int:
    """Write down what is to be told; what was written down before is passed over. Tells how many are new."""
    new = 0
    for each in found:
        key = f"{each.kind}:{each.which}"
        if session.get(Alert, key) is None:
            session.add(Alert(key=key, kind=each.kind, job_id=each.job_id, at=at, next_try_at=at))
            new += 1
    session.flush()
    return new


def jobs_to_tell_of(session: Session, at: datetime, lease_seconds: float, rows_max: int) -> list[Found]:
    """Find jobs that operators must hear of and have not, at most `rows_max` of each kind.

    Args:
        session: a session that writes: the jobs found are locked, so that none is deleted meanwhile.
        at: now, aware UTC.
        lease_seconds: of a copy.
        rows_max: how many of each kind.
    """
    found: list[Found] = []
    for kind, condition in _CONDITIONS.items():
        told = select(Alert.key).where(col(Alert.job_id) == col(Job.id), col(Alert.kind) == kind)
        if kind is AlertKind.COPY_STALLED:
            told = told.where(col(Alert.at) > col(Job.copy_lease_until))
        rows = session.exec(
            select(Job.id, Job.copy_lease_until)
            .where(condition(at, lease_seconds), ~told.exists())
            .limit(rows_max)
            .with_for_update(skip_locked=True, of=Job)
        ).all()
        # A copy may stall again, after a later lease.
        found += [
            Found(kind, f"{job_id}:{lease}" if kind is AlertKind.COPY_STALLED else str(job_id), job_id)
            for job_id, lease in rows
        ]
    return found


def _is_overdue(at: datetime, _lease_seconds: float) -> ColumnElement[bool]:
    return and_(
        col(Job.state) == JobState.SHIPPING,
        col(Job.cancel_requested_at).is_(None),
        col(Job.state_since) <= at - PACKAGE_OVERDUE,
    )


def _is_due_back(at: datetime, _lease_seconds: float) -> ColumnElement[bool]:
    here = select(Drive.number).where(col(Drive.job_id) == col(Job.id), col(Drive.state).in_(DRIVE_ON_SITE))
    return and_(
        col(Job.state_since) <= at - RETURN_DUE,
        or_(
            col(Job.state) == JobState.PACKAGING,
            and_(
                # By the index on cancels: Completed jobs without one have no drive here.
                col(Job.cancel_requested_at) > at - _CANCELS_LOOKED_AT,
                col(Job.state) == JobState.COMPLETED,
                here.exists(),
            ),
        ),
    )


_CONDITIONS: Final = {
    AlertKind.COPY_STALLED: copy_is_stalled,
    AlertKind.PACKAGE_OVERDUE: _is_overdue,
    AlertKind.RETURN_DUE: _is_due_back,
}


def alerts_to_send(session: Session, at: datetime, rows_max: int) -> Sequence[Alert]:
    """Read what is to be told now, the oldest first, at most `rows_max`."""
    return session.exec(
        select(Alert).where(col(Alert.next_try_at) <= at).order_by(col(Alert.next_try_at)).limit(rows_max)
    ).all()


def record_try(session: Session, key: str, *, at: datetime, is_event_sent: bool, is_told: bool) -> None:
    """Write down how a try to tell an alert ended; one that failed is tried again after 1, 2, 4 … 60 minutes."""
    alert = session.get(Alert, key, with_for_update=True)
    if alert is None:
        return  # gone with its job
    alert.attempts += 1
    alert.event_sent = alert.event_sent or is_event_sent
    pause = min(_PAUSE_MAX, _FIRST_PAUSE * 2 ** min(alert.attempts - 1, 10))
    alert.next_try_at = None if is_told else at + pause
    session.add(alert)


def remove_old_alerts(session: Session, at: datetime, rows_max: int) -> int:
    """Remove alerts of more than 90 days ago, at most `rows_max`; tells how many."""
    old = session.exec(select(Alert.key).where(col(Alert.at) < at - ALERT_KEPT).limit(rows_max)).all()
    session.connection().execute(delete(Alert).where(col(Alert.key).in_(old)))
    return len(old)
