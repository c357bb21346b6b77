"""delete-job shows first what it would do, and deletes only what is named twice."""

import re
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State
from sqlmodel import SQLModel

from flows.delete_job import delete_job
from models.database import database_time, reading, writing
from models.deletion import delete_job as delete_rows
from models.errors import JobNotFoundError
from models.holds import place_hold
from models.jobs import HoldReason, read_job
from models.lifecycle import Actor, JobState
from models.runs import record_run
from tests.builders import job_in, rows_of, with_every_row

pytestmark = pytest.mark.usefixtures("plain_acts", "sqlite")

NOT_DELETABLE = [JobState.SHIPPING, JobState.RECEIVED, JobState.TRANSFERRING, JobState.PACKAGING, JobState.CLOSED]
"""By hand from the specification, section 4."""


@pytest.fixture(autouse=True)
def hidden(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let no flow look for a server; gives which of its acts on Prefect were asked for."""
    asked: list[str] = []
    monkeypatch.setattr("flows.delete_job.forget_runs", lambda *_: asked.append("forget"))
    for place in ("promises", "delete_job"):
        monkeypatch.setattr(f"flows.{place}.hide_parameters", lambda *_: asked.append("hide"))
    return asked


def made(state: JobState = JobState.COMPLETED, name: str = "job1") -> str:
    """Make a job in a state; gives its id."""
    with writing() as session:
        return str(job_in(session, state, name, database_time(session)))


def everything() -> dict[str, list[Any]]:
    """Read every row of every table."""
    with reading() as session:
        return {
            table.name: sorted(map(repr, session.connection().execute(table.select())))
            for table in SQLModel.metadata.sorted_tables
        }


def is_there(job_id: str) -> bool:
    """Tell whether a job is there."""
    with reading() as session:
        try:
            read_job(session, UUID(job_id))
        except JobNotFoundError:
            return False
        return True


def refused(ended: State[Any], told: str) -> None:
    """See that a run was refused by one line that begins so."""
    assert ended.is_failed(), ended.message
    assert str(ended.message).startswith(told), ended.message
    assert "\n" not in str(ended.message)


@pytest.mark.parametrize("state", [JobState.CREATING, JobState.COMPLETED])
def test_a_dry_run_tells_what_would_go_and_changes_nothing(state: JobState, any_database: str) -> None:
    """Every row and run of the job is counted, and none of another's; nothing is asked of Prefect."""
    job_id = made(state)
    made(state, "other")
    with writing() as session:
        with_every_row(session, UUID(job_id))
        record_run(session, UUID(job_id), uuid4())
        counted = rows_of(session, UUID(job_id))
    before = everything()
    told = str(delete_job.fn(job_id, dry_run=True).message)
    assert everything() == before
    rows = sum(counted.values()) - counted["job_run"]
    assert told == (
        f"nothing was deleted; deleting job {job_id}, which is {state}, would be done; "
        f"with it go {rows:,} rows and {counted['job_run']} runs"
    )


@pytest.mark.parametrize("state", NOT_DELETABLE)
def test_a_dry_run_tells_what_would_be_refused_and_why(state: JobState) -> None:
    """By the line that the refusal would have; it is no fault of the dry run."""
    job_id = made(state)
    ended = delete_job.fn(job_id, dry_run=True)
    assert ended.is_completed()
    refusal = str(delete_job.fn(job_id, job_id).message)
    assert refusal.startswith("JobStateConflict: ")
    assert f"would be refused: {refusal}; with it go" in str(ended.message)


def test_a_job_under_legal_hold_is_told_beforehand_too() -> None:
    """And stays, however often it is named."""
    job_id = made()
    with writing() as session:
        place_hold(session, UUID(job_id), HoldReason.AUDIT, at=database_time(session), by=Actor.OPERATOR)
    assert "would be refused: JobHeld: " in str(delete_job.fn(job_id, dry_run=True).message)
    refused(delete_job.fn(job_id, job_id), "JobHeld: ")
    assert is_there(job_id)


@pytest.mark.parametrize("first", ["id", "name"])
@pytest.mark.parametrize("second", ["id", "ID", "name", "NAME"])
def test_a_job_named_twice_is_deleted_by_whatever_names(first: str, second: str) -> None:
    """The id and the three names are the same job, and neither knows of case."""
    job_id = made()
    names = {"id": job_id, "ID": job_id.upper(), "name": "s1/g1/job1", "NAME": "S1/G1/JOB1"}
    assert delete_job.fn(names[first], names[second]).is_completed()
    assert not is_there(job_id)


@pytest.mark.parametrize("confirm", ["", "s1/g1/other", "s1/g1/nobody", str(UUID(int=7))])
def test_a_job_that_is_not_named_twice_stays(confirm: str, hidden: list[str]) -> None:
    """Nothing is changed, and a second name that may be of a deleted job is not kept."""
    job_id = made()
    made(name="other")
    before = everything()
    wanted = "does not name the same job" if confirm else "name the job a second time"
    refused(delete_job.fn(job_id, confirm), f"InvalidRequestContent: confirm: {wanted}")
    assert everything() == before
    assert hidden == ["hide"]


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("state", [JobState.SHIPPING, JobState.COMPLETED])
def test_a_second_name_is_kept_of_no_run(state: JobState, dry_run: bool, hidden: list[str]) -> None:
    """Whatever comes of it: the name may be of another job, which is deleted later, and the run is not."""
    job_id = made(state)
    with writing() as session:
        place_hold(session, UUID(job_id), HoldReason.AUDIT, at=database_time(session), by=Actor.OPERATOR)
    made(name="other")
    ended = delete_job.fn(job_id, "s1/g1/other", dry_run)
    assert ended.is_completed() is dry_run
    assert hidden == ["hide"]


@pytest.mark.parametrize("confirm", ["x", "a/b", "yes", "s1/g1/job 1", "Ada Example"])
def test_a_second_name_that_can_be_none_is_refused_by_the_form(confirm: str) -> None:
    """The schema that the UI checks says so, and past it the run itself, without repeating it."""
    job_id = made()
    ended = delete_job.fn(job_id, confirm)
    refused(ended, "InvalidRequestContent: confirm: is neither a job's id nor subscription/")
    assert confirm not in str(ended.message).replace("nor", "").split()
    assert not re.search(delete_job.parameters.properties["confirm"]["pattern"], confirm)
    assert is_there(job_id)


def test_what_rest_deleted_needs_no_second_name(hidden: list[str]) -> None:
    """There is no job any more; its traces go."""
    job_id = made()
    with writing() as session:
        delete_rows(session, UUID(job_id), at=database_time(session), by=Actor.CUSTOMER)
    assert delete_job.fn(job_id).is_completed()
    assert hidden == ["forget", "hide"]


def test_a_dry_run_of_a_deleted_job_says_that_there_is_none() -> None:
    """By no name."""
    job_id = made()
    assert delete_job.fn(job_id, job_id).is_completed()
    refused(delete_job.fn(job_id, dry_run=True), "ResourceNotFound: ")
