"""ship-job: the package is on its way."""

from flows.promises import Ended, JobReference, RequestFile, done, promise, run_id
from models.lifecycle import Outcome
from models.settings import Settings
from tasks.intake import is_gone, remove_request_file
from tasks.jobs import mark_as_shipped, open_job


@promise(
    "ship-job",
    """Marks a job as shipped: its package is on its way to us.

- **When:** the customer says so, and the job is *Creating*.
- **Takes:** the job, and a request file where return address or delivery package are not known yet.
- **Ends** *Completed* with the job in *Shipping*; *Failed* names what is missing.
- **Never** needs an address typed into this form. Run twice, it does nothing the second time.""",
)
def ship_job(job: JobReference, request_file: RequestFile = "") -> Ended:
    """Mark a job as shipped.

    Args:
        job: The job: its id, or subscription/resourceGroup/name.
        request_file: Name of a file in the intake folder with what changes at the same time, as the body of
            Update Job Properties; it is removed once it is carried out.
    """
    file = Settings().intake / request_file if request_file else None
    job_id = open_job(job, run_id())
    told = "; there is no such request file" if file and is_gone(file) else ""
    outcome = mark_as_shipped(job_id, file)
    if file:
        remove_request_file(file)
    if outcome is Outcome.NOTHING_TO_DO:
        return done(f"nothing to do: job {job_id} was marked as shipped before{told}")
    return done(f"job {job_id} is Shipping")
