"""What may be done with a job now, computed from the tables of the lifecycle: what a portal shows beside it."""

from dataclasses import dataclass
from datetime import datetime

from models.errors import JobError
from models.jobs import Job
from models.lifecycle import JobState, Operation, Outcome, decide


@dataclass(frozen=True, slots=True)
class Abilities:
    """What may be done with a job.

    Attributes:
        is_cancellable: whether a cancel would be accepted now; False once one was.
        is_deletable: whether it may be deleted by hand now.
        expires_at: when the service deletes it, aware UTC; None while it does not.
    """

    is_cancellable: bool
    is_deletable: bool
    expires_at: datetime | None


def abilities_of(job: Job) -> Abilities:
    """Tell what may be done with a job as it was read."""
    return Abilities(
        is_cancellable=_may(Operation.CANCEL, job.state, cancel_accepted=job.cancel_requested),
        is_deletable=job.held_since is None
        and _may(Operation.DELETE, job.state, cancel_accepted=job.cancel_requested),
        expires_at=job.expires_at if job.held_since is None else None,
    )


def _may(operation: Operation, state: JobState, *, cancel_accepted: bool) -> bool:
    try:
        return decide(operation, state, cancel_accepted=cancel_accepted) is Outcome.DONE
    except JobError:
        return False
