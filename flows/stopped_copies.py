"""How a cancel ends, once nobody copies any more: the same for the copy that heard of it and for cancel-job."""

from uuid import UUID

from flows.promises import say
from models.errors import StoreError
from tasks.drives import bytes_copied, discard_half_written_blobs, end_stopped_drives
from tasks.jobs import complete_cancelled_job


def complete_stopped_job(job_id: UUID, store: str) -> str:
    """Leave nothing half written, and make the job Completed; a store that is away does not keep it from that.

    Args:
        job_id: a job whose cancel was accepted and whose copy has stopped.
        store: its store's address, with `{container}` still open.

    Returns:
        The outcome in one line, with how much was copied.
    """
    try:
        discard_half_written_blobs(job_id, store)
    except StoreError as error:
        say(f"{error.line}; what lies aside there stays")
        end_stopped_drives(job_id, store)
    copied, listed = bytes_copied(job_id)
    # The state changes last: until nothing is half done, the old state is the truth.
    complete_cancelled_job(job_id)
    return f"job {job_id} was cancelled and is Completed; {copied:,} of {listed:,} bytes were copied"
