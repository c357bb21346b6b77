"""The Prefect UI as an operator uses it, in a real browser: forms, outcomes, refusals, and what can be found."""

from datetime import timedelta
from uuid import UUID

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from models.database import database_time, writing
from models.lifecycle import JobState
from tasks import run_history
from tasks.run_history import forget_runs
from tests.browser.conftest import Portal
from tests.builders import age, job_in
from tests.journeys.one_machine import awaited


def made(state: JobState, name: str, days: int = 0) -> UUID:
    """Make a job that has been in a state for some days."""
    with writing() as session:
        job_id = job_in(session, state, name, database_time(session))
    age(job_id, timedelta(days=days))
    return job_id


def is_forgotten(portal: Portal, job_id: UUID) -> bool:
    """Forget runs as advance-jobs does by the clock; tells whether none of the job's is left."""
    with temporary_settings({PREFECT_API_URL: f"{portal.url}/api"}):
        forget_runs.fn(100)
    of_job = {"name": {"like_": job_id.hex[:8]}}
    return bool(portal.ask("/flow_runs/count", flow_runs=of_job) == 0)


def test_a_job_is_cancelled_from_its_form_and_the_page_says_the_outcome(portal: Portal) -> None:
    """The run is named by the opaque id, and its artifact tells the job's timeline."""
    job_id = made(JobState.SHIPPING, "cancelled", days=1)
    portal.open_deployment("cancel-job", "?tab=Description")
    portal.see("the customer does not want it any more")
    portal.run("cancel-job", "s1/g1/cancelled")
    portal.see(f"job {job_id} was cancelled and is Completed; 0 of 0 bytes were copied")
    portal.see(f"cancel-job {job_id.hex[:8]}")
    portal.open_artifact(f"job-{job_id}")
    portal.see("cancel accepted")
    portal.see("What may be done now")
    portal.picture("timeline")


def test_a_form_refuses_what_names_no_job(portal: Portal) -> None:
    """Before anything is run."""
    before = portal.ask("/flow_runs/count", flows={"name": {"any_": ["close-job"]}})
    portal.open_deployment("close-job", "/run")
    portal.page.locator("textarea").first.fill("Ada Example")
    portal.page.get_by_role("button", name="Submit").click()
    portal.page.get_by_text("does not match").first.wait_for()
    assert portal.ask("/flow_runs/count", flows={"name": {"any_": ["close-job"]}}) == before


@pytest.mark.parametrize(
    ("state", "confirm", "told"),
    [
        (JobState.SHIPPING, "s1/g1/kept", "a Shipping job cannot take 'delete'; cancel it first"),
        (JobState.COMPLETED, "s1/g1/another", "confirm: does not name the same job as above; nothing was deleted"),
    ],
    ids=["a Shipping job", "a wrong second name"],
)
def test_a_refused_delete_says_why(portal: Portal, state: JobState, confirm: str, told: str) -> None:
    """In one line; the job is still there, and its timeline says what may be done with it."""
    job_id = made(state, "kept" if state is JobState.SHIPPING else "kept-too")
    portal.run("delete-job", str(job_id), confirm)
    portal.see(told)
    portal.picture(f"refused-{state.lower()}")
    with writing() as session:
        assert job_in(session, JobState.CREATING, f"free-{state}") != job_id
    portal.open_artifact(f"job-{job_id}")
    portal.see(f"{state} since")


def test_a_deleted_job_is_found_nowhere_in_the_portal(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    """First looked at by a dry run, then deleted from the form; no run and no artifact knows its id any more."""
    monkeypatch.setattr(run_history, "_LAST_WORDS", timedelta(0))
    job_id = made(JobState.COMPLETED, "doomed")
    portal.run("delete-job", "s1/g1/doomed", ticks=1)
    portal.see(f"nothing was deleted; deleting job {job_id}, which is Completed, would be done")
    portal.search("/runs", "Search by flow run name", job_id.hex[:8])
    portal.see(f"delete-job {job_id.hex[:8]}")
    portal.search("/artifacts", "Search artifacts", str(job_id))
    portal.see("1 Artifact")
    portal.open_deployment("delete-job", "/run")
    portal.page.get_by_role("button", name="Submit").wait_for()
    portal.page.locator("textarea").first.fill(str(job_id))
    portal.picture("form")

    portal.run("delete-job", str(job_id), "s1/g1/doomed")
    portal.see("the job is deleted, and")
    awaited(lambda: is_forgotten(portal, job_id))
    portal.search("/runs", "Search by flow run name", job_id.hex[:8])
    portal.see("No flow runs")
    portal.search("/artifacts", "Search artifacts", str(job_id))
    portal.see("0 Artifacts")
    told = [portal.ask(f"/{what}/filter") for what in ("flow_runs", "task_runs", "artifacts", "logs")]
    assert str(job_id) not in str(told)


def test_the_retention_shows_what_is_due_and_then_what_it_deleted(portal: Portal) -> None:
    """By id in a dry run, which deletes nothing; the report of the sweep names no job."""
    due = made(JobState.COMPLETED, "due", days=91)
    portal.run("enforce-retention", ticks=1)
    portal.see("would delete")
    portal.open_artifact("retention-dry-run")
    portal.see(str(due))
    portal.run("enforce-retention")
    portal.see("runs of deleted jobs")
    portal.open_artifact("retention-report")
    portal.see("deleted, 90 days Completed")
    portal.see("due in the next 7 days")
    portal.picture("report")
    assert str(due) not in portal.page.inner_text("body")


def test_the_board_shows_all_jobs_and_what_is_stuck(portal: Portal) -> None:
    """Made anew by hand, and found in the list of artifacts."""
    late = made(JobState.SHIPPING, "late", days=15)
    made(JobState.CLOSED, "closed", days=86)
    portal.run("show-board")
    portal.see("to be looked at")
    portal.open_artifact("board")
    portal.see("packages that did not come in 14 days of Shipping")
    portal.see(str(late))
    portal.see("Due for deletion in the next 7 days")
    portal.picture("board")
