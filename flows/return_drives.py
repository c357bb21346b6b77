"""return-drives: the drives go back."""

from flows.promises import Ended, JobReference, RequestFile, done, promise, run_id
from models.settings import Settings
from tasks.drives import send_drives_back
from tasks.intake import remove_request_file
from tasks.jobs import open_job


@promise(
    "return-drives",
    """Records that a job's drives were sent back.

- **When:** the parcel has left, and the job is *Packaging*; or *Completed* by a cancel, with drives still here.
- **Takes:** the job, and a request file that tells of the package.
- **Ends** *Completed*: the job is *Completed* if all was copied without errors, else *Closed*. From then on it is
  kept for 90 days.
- **Never** needs a tracking number typed into this form.""",
)
def return_drives(job: JobReference, request_file: RequestFile = "") -> Ended:
    """Record that drives were sent back.

    Args:
        job: The job: its id, or subscription/resourceGroup/name.
        request_file: Name of a file in the intake folder that tells of the package,
            {"returnPackage": {"carrierName", "trackingNumber", "driveCount", "shipDate"}}; it is removed once
            it is recorded.
    """
    file = Settings().intake / request_file if request_file else None
    job_id = open_job(job, run_id())
    sent = send_drives_back(job_id, file)
    if file:
        remove_request_file(file)
    return done(f"job {job_id} is {sent.state}; {sent.drives} drives were sent back")
