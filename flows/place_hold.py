"""place-hold: evidence stays."""

from flows.promises import Ended, JobReference, done, promise, run_id
from models.jobs import HoldReason
from models.lifecycle import Outcome
from tasks.jobs import hold_job, open_job


@promise(
    "place-hold",
    "Places a **legal hold** on a job: neither its customer, nor an operator, nor enforce-retention deletes it or "
    "erases its personal data, however old it is, until **release-hold**; the database itself refuses it. Nor is "
    "it replaced, or an address, a package or a drive of it overwritten by an update; otherwise it goes on as "
    "before. Placing another reason replaces the one it has.",
)
def place_hold(job: JobReference, reason: HoldReason) -> Ended:
    """Place a legal hold on a job.

    Args:
        job: The job: its id, or subscription/resourceGroup/name.
        reason: Why it has to stay.
    """
    job_id = open_job(job, run_id())
    if hold_job(job_id, reason) is Outcome.NOTHING_TO_DO:
        return done(f"nothing to do: job {job_id} is under legal hold for that reason already ({reason})")
    return done(f"job {job_id} is under legal hold ({reason})")
