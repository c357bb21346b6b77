"""The timeline of a job, where operators look for it: an artifact of every run that worked on the job."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from models.database import database_time, reading
from models.events import EventKind, JobEvent
from models.jobs import Job, find_job
from models.lifecycle import CANCELLABLE, Operation
from models.runs import JobRun
from models.timelines import DriveLine, Timeline, read_timeline
from tasks.acts import act
from tasks.artifacts import leave_markdown, moment
from tasks.prefect_api import prefect_client

_EVENTS_MAX: Final = 200
_SECONDS_MAX: Final = 2.0

_BY: Final = {
    Operation.SHIP: "ship-job",
    Operation.CHECK_IN: "check-in-drives",
    Operation.CANCEL: "cancel-job",
    Operation.RETURN_DRIVES: "return-drives",
    Operation.CLOSE: "close-job",
    Operation.DELETE: "delete-job",
    Operation.ERASE: "erase-personal-data",
}
"""By which deployment an operator does it."""


@act
def show_timeline(job_id: UUID, flow_run_id: UUID | None) -> Timeline:
    """Read the timeline of a job, and show it as an artifact of a run that is written down for the job.

    Args:
        job_id: the job.
        flow_run_id: the run; None outside of one, where nothing is shown.

    Raises:
        JobNotFoundError: there is no such job.
        PrefectAwayError: Prefect does not answer.
    """
    with reading(of_one_moment=True) as session:
        told = read_timeline(session, job_id, database_time(session), _EVENTS_MAX)
    if flow_run_id is not None:
        with prefect_client() as client:
            leave_markdown(client, flow_run_id, key_of(job_id), as_markdown(told), _described(job_id))
    return told


def leave_timeline(reference: str, flow_run_id: UUID) -> None:
    """Show the timeline of a job as an artifact of a run that worked on it, if that is to be had at once.

    That it cannot be shown is no reason for a run to fail, or to wait: the next one shows it.

    Args:
        reference: the job's id, or `subscription/resourceGroup/name`.
        flow_run_id: the run; nothing is shown if it is not written down for the job, and would not go with it.
    """
    with (
        suppress(Exception),
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(httpx_settings={"timeout": _SECONDS_MAX}, sync_client=True) as client,
    ):
        with reading(of_one_moment=True) as session:
            job_id = find_job(session, reference)
            if session.get(JobRun, (job_id, flow_run_id)) is None:
                return
            told = read_timeline(session, job_id, database_time(session), _EVENTS_MAX)
        leave_markdown(client, flow_run_id, key_of(job_id), as_markdown(told), _described(job_id))


def key_of(job_id: UUID) -> str:
    """Tell under which key a job's timeline is found."""
    return f"job-{job_id}"


def _described(job_id: UUID) -> str:
    return f"What happened to job {job_id}, and what may be done with it"


def as_markdown(told: Timeline) -> str:
    """Write a timeline for people."""
    return "\n".join(
        [
            f"# Job `{told.job.id}`",
            "",
            *_facts(told.job, told.at),
            f"**What may be done now:** {', '.join(f'*{_BY[each]}*' for each in told.possible) or 'nothing'}",
            "",
            *_drives(told.drives),
            "## What happened, in UTC",
            "",
            *_events(told.events, told.earlier),
        ]
    )


def _facts(job: Job, at: datetime) -> Iterator[str]:
    yield f"**{job.state}** since {moment(job.state_since)} UTC · {job.job_type} · as of {moment(at)} UTC"
    yield ""
    if job.cancel_requested_at and job.state in CANCELLABLE:
        yield f"A **cancel** was accepted at {moment(job.cancel_requested_at)} UTC; the job will become Completed."
        yield ""
    if job.held_since:
        yield f"Under **legal hold** ({job.hold_reason}) since {moment(job.held_since)} UTC: nobody deletes it."
        yield ""
    elif job.expires_at:
        yield f"**Deleted by the service** at {moment(job.expires_at)} UTC."
        yield ""
    if job.erased_at:
        yield f"Its personal data was **erased** at {moment(job.erased_at)} UTC."
        yield ""
    elif job.erasure_wished_at:
        yield "Its personal data is **erased** as soon as its drives are back."
        yield ""


def _drives(drives: Sequence[DriveLine]) -> Iterator[str]:
    if not drives:
        return
    yield "## Drives"
    yield ""
    yield "| drive | state | since | bytes copied | the copy ended |"
    yield "| --- | --- | --- | --- | --- |"
    for drive in drives:
        copied = "" if drive.bytes_total is None else f"{drive.bytes_succeeded:,} of {drive.bytes_total:,}"
        state = f"{drive.state} | {moment(drive.state_since)}"
        yield f"| {drive.number} | {state} | {copied} | {drive.copy_status or ''} |"
    yield ""


def _events(events: Sequence[JobEvent], earlier: int) -> Iterator[str]:
    if earlier:
        yield f"{earlier:,} earlier events are left out."
        yield ""
    yield "| when | by | what | from | to |"
    yield "| --- | --- | --- | --- | --- |"
    for event in events:
        what = f"drive {event.drive_number}" if event.kind is EventKind.DRIVE_MOVED else str(event.kind)
        more = f" ({event.what})" if event.what else ""
        yield f"| {moment(event.at)} | {event.by} | {what}{more} | {event.source or ''} | {event.target or ''} |"
