"""What routes work with: the locations, who asks Prefect, and how an answer about a job is made."""

from fastapi import Request
from sqlmodel import Session

from deployments.api.answers import JobAnswer, job_answer
from deployments.api.errands import Errands
from models.job_facts import read_facts
from models.jobs import Job
from models.lifecycle import CANCELLABLE
from models.locations import Locations


def locations_of(request: Request) -> Locations:
    """The sites there are."""
    found: Locations = request.app.state.locations
    return found


def errands_of(request: Request) -> Errands:
    """Who asks Prefect."""
    found: Errands = request.app.state.errands
    return found


def answer_about(session: Session, job: Job, locations: Locations, location: str | None = None) -> JobAnswer:
    """Make the answer about one job; `location` says how its location is called there."""
    return job_answer(read_facts(session, [job])[0], locations, location=location)


def ask_to_cancel(request: Request, job: Job) -> None:
    """Ask for cancel-job where a cancel was accepted and is not carried out; asked twice, it runs once."""
    if job.cancel_requested and job.state in CANCELLABLE:
        errands_of(request).ask("cancel-job", job.id)
