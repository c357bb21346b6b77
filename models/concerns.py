"""What somebody should look at: one table of conditions, for the board and for alerts."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import ColumnElement, and_, func
from sqlmodel import col, select

from models.copies import copy_is_stalled
from models.drives import Drive, ExtraDrive, drive_is_here
from models.jobs import Job, cancel_waits
from models.lifecycle import PACKAGE_OVERDUE, RULES, JobState, Operation

CANCEL_LATE: Final = timedelta(minutes=10)
"""A cancel that was accepted so long ago should have been carried out."""

RETURN_DUE: Final = timedelta(days=3)
"""A job's drives could go back for so long, and have not."""


class Concern(StrEnum):
    """Why somebody should look at some jobs."""

    STALLED = "copies without a sign of life for twice their lease"
    LATE_CANCEL = f"cancels accepted {CANCEL_LATE.seconds // 60} minutes ago or more, and not carried out"
    OVERDUE = f"packages that did not come in {PACKAGE_OVERDUE.days} days of Shipping"
    DUE_BACK = f"drives that could go back for {RETURN_DUE.days} days"


def package_is_overdue(at: datetime) -> ColumnElement[bool]:
    """Tell of a job, as a condition, whether its package should have come by a moment."""
    return and_(
        col(Job.state) == JobState.SHIPPING,
        col(Job.cancel_requested_at).is_(None),
        col(Job.state_since) <= at - PACKAGE_OVERDUE,
    )


def _is_due_back(at: datetime) -> ColumnElement[bool]:
    due = at - RETURN_DUE
    listed = select(Drive.job_id).where(drive_is_here(), col(Drive.state_since) <= due)
    extra = select(ExtraDrive.job_id).where(
        col(ExtraDrive.shipped_back_at).is_(None), col(ExtraDrive.found_at) <= due
    )
    return and_(
        col(Job.id).in_(listed.union(extra)),
        # Not by the index on states: most jobs are at an end, and few have drives here.
        func.coalesce(col(Job.state), "").in_(RULES[Operation.RETURN_DRIVES].done),
        col(Job.state_since) <= due,
    )


CONCERNS: Final[Mapping[Concern, Callable[[datetime, float], ColumnElement[bool]]]] = {
    Concern.STALLED: copy_is_stalled,
    Concern.LATE_CANCEL: lambda at, _: and_(cancel_waits(), col(Job.cancel_requested_at) <= at - CANCEL_LATE),
    Concern.OVERDUE: lambda at, _: package_is_overdue(at),
    Concern.DUE_BACK: lambda at, _: _is_due_back(at),
}
"""Of each concern its condition of a job, by now (aware UTC) and the lease of a copy in seconds."""
