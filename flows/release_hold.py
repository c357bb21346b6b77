"""release-hold: what was evidence goes its ordinary way again."""

from flows.promises import Ended, JobReference, done, promise, run_id
from models.holds import ReleaseReason
from models.lifecycle import Outcome
from tasks.jobs import open_job, release_job


@promise(
    "release-hold",
    "Releases the **legal hold** of a job. It can be deleted again; if its days were over meanwhile the next "
    "enforce-retention deletes it, and an erasure that was wished meanwhile is carried out by advance-jobs.",
)
def release_hold(job: JobReference, reason: ReleaseReason) -> Ended:
    """Release the legal hold of a job.

    Args:
        job: The job: its id, or subscription/resourceGroup/name.
        reason: Why it need not stay any more.
    """
    job_id = open_job(job, run_id())
    if release_job(job_id, reason) is Outcome.NOTHING_TO_DO:
        return done(f"nothing to do: job {job_id} is under no legal hold")
    return done(f"the legal hold of job {job_id} is released ({reason})")
