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

from sqlalchemy import delete
from sqlmodel import Field, Session, SQLModel, col, select

from models.batches import among
from models.columns import UtcDateTime, words
from models.concerns import CONCERNS, RETURN_DUE, Concern
from models.jobs import Job
from models.lifecycle import PACKAGE_OVERDUE
from models.personal_data import impersonal

ALERT_KEPT: Final = timedelta(days=90)
"""How long an alert is kept, told or not."""

_FIRST_PAUSE: Final = timedelta(minutes=1)
_PAUSE_MAX: Final = timedelta(hours=1)


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
    """Write down what is to be told; tells how many are new.

    What was written down before is passed over, and so is a job that is gone, or that somebody works on just now.
    """
    found = list(found)
    named = among(session.connection(), col(Job.id), {each.job_id for each in found if each.job_id})
    here = {None, *session.exec(select(Job.id).where(named).with_for_update(skip_locked=True))}
    new = 0
    for each in found:
        if each.job_id not in here:
            continue
        key = f"{each.kind}:{each.which}"
        if session.get(Alert, key) is None:
            session.add(Alert(key=key, kind=each.kind, job_id=each.job_id, at=at, next_try_at=at))
            new += 1
    session.flush()
    return new


def jobs_to_tell_of(session: Session, at: datetime, lease_seconds: float, rows_max: int) -> list[Found]:
    """Find jobs that operators must hear of and have not, at most `rows_max` of each kind.

    Args:
        session: an open session; one that reads, so that no writer waits while what was told is passed over.
        at: now, aware UTC.
        lease_seconds: of a copy.
        rows_max: how many of each kind.
    """
    found: list[Found] = []
    for kind, concern in _CONCERNS.items():
        told = select(Alert.key).where(col(Alert.job_id) == col(Job.id), col(Alert.kind) == kind)
        if kind is AlertKind.COPY_STALLED:
            told = told.where(col(Alert.at) > col(Job.copy_lease_until))
        rows = session.exec(
            select(Job.id, Job.copy_lease_until)
            .where(CONCERNS[concern](at, lease_seconds), ~told.exists())
            .limit(rows_max)
        ).all()
        # A copy may stall again, after a later lease.
        found += [
            Found(kind, f"{job_id}:{lease}" if kind is AlertKind.COPY_STALLED else str(job_id), job_id)
            for job_id, lease in rows
        ]
    return found


_CONCERNS: Final[Mapping[AlertKind, Concern]] = {
    AlertKind.COPY_STALLED: Concern.STALLED,
    AlertKind.PACKAGE_OVERDUE: Concern.OVERDUE,
    AlertKind.RETURN_DUE: Concern.DUE_BACK,
}


def alerts_to_send(session: Session, at: datetime, rows_max: int) -> Sequence[Alert]:
    """Read what is to be told now, at most `rows_max`: of the service first, then of jobs, the oldest first."""
    return session.exec(
        select(Alert)
        .where(col(Alert.next_try_at) <= at)
        .order_by(col(Alert.job_id).is_not(None), col(Alert.next_try_at))
        .limit(rows_max)
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
