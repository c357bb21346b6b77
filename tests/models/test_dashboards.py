"""A dashboard shows the jobs that its filter finds, and no names."""

from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from models.dashboards import DashboardFilter, ShownJob, jobs_of_dashboard
from models.database import reading, writing
from models.errors import DashboardNotFoundError
from models.lifecycle import JobState
from models.portal import Dashboard
from tests.builders import NOON, job_in, job_request, put

EXPORT: Final[dict[str, Any]] = {
    "jobType": "Export",
    "driveList": None,
    "export": {"blobList": {"blobPathPrefix": ["/"]}},
}


def make_dashboard(**members: Any) -> UUID:
    """Make a dashboard with a filter."""
    kept = DashboardFilter.model_validate(members).model_dump(mode="json", by_alias=True, exclude_none=True)
    with writing() as session:
        made = Dashboard(name="Ada's own", filter=kept, created_at=NOON, updated_at=NOON)
        session.add(made)
        return made.id


@pytest.fixture
def jobs(any_database: str) -> dict[str, UUID]:
    """Five jobs that differ in everything a filter may ask for."""
    with writing() as session:
        made = {
            "creating": job_in(session, JobState.CREATING, "creating", NOON),
            "shipping": job_in(session, JobState.SHIPPING, "shipping", NOON + timedelta(hours=1)),
            "completed": job_in(session, JobState.COMPLETED, "completed", NOON + timedelta(hours=2)),
        }
        export = {**job_request("exporting", location="East US", **EXPORT), "resourceGroupName": "Group-2"}
        made["export"] = put(session, export, NOON + timedelta(hours=3))
        other = {**job_request("other", location="eastus"), "subscriptionId": "S2"}
        made["other"] = put(session, other, NOON + timedelta(hours=4))
        return made


LATEST_FIRST: Final = ["other", "export", "completed", "shipping", "creating"]
FINDS: Final[list[tuple[dict[str, Any], set[str]]]] = [
    ({}, set(LATEST_FIRST)),
    ({"states": None, "jobTypes": None}, set(LATEST_FIRST)),
    ({"states": ["Creating"]}, {"creating", "export", "other"}),
    ({"states": ["Shipping", "Completed"]}, {"shipping", "completed"}),
    ({"states": ["Closed"]}, set()),
    ({"jobTypes": ["Export"]}, {"export"}),
    ({"jobTypes": ["Import", "Export"]}, set(LATEST_FIRST)),
    ({"subscriptionIds": ["s2"]}, {"other"}),
    ({"subscriptionIds": ["S1", "S2"]}, set(LATEST_FIRST)),
    ({"resourceGroups": ["G1"]}, {"creating", "shipping", "completed", "other"}),
    ({"resourceGroups": ["gROUP-2"]}, {"export"}),
    ({"resourceGroups": ["group"]}, set()),
    ({"locations": ["eastus"]}, {"export", "other"}),
    ({"locations": ["East US"]}, {"export", "other"}),
    ({"locations": ["WEST us"]}, {"creating", "shipping", "completed"}),
    ({"states": ["Creating"], "jobTypes": ["Import"], "locations": ["westus"]}, {"creating"}),
    ({"states": ["Creating"], "subscriptionIds": ["s3"]}, set()),
]


@pytest.mark.parametrize(("wanted", "found"), FINDS)
def test_a_filter_finds_what_fits_all_of_its_lists(
    jobs: dict[str, UUID], wanted: dict[str, Any], found: set[str]
) -> None:
    """Of a list, any will do; the latest change of state comes first."""
    dashboard_id = make_dashboard(**wanted)
    for lock in (False, True):
        with writing() as session:
            count, shown = jobs_of_dashboard(session, dashboard_id, 100, lock=lock)
        assert [job.job_id for job in shown] == [jobs[name] for name in LATEST_FIRST if name in found]
        assert count == len(found)


def test_a_dashboard_shows_no_names(jobs: dict[str, UUID]) -> None:
    """Id, type, state and since when."""
    with reading() as session:
        _, shown = jobs_of_dashboard(session, make_dashboard(states=["Shipping"]), 100)
    (job,) = shown
    since = NOON + timedelta(hours=1)
    assert job == ShownJob(jobs["shipping"], job.job_type, JobState.SHIPPING, since)
    assert job.__slots__ == ("job_id", "job_type", "state", "state_since")


def test_a_dashboard_that_shows_many_says_how_many(jobs: dict[str, UUID]) -> None:
    """And lists the latest."""
    with reading() as session:
        count, shown = jobs_of_dashboard(session, make_dashboard(), 2)
    assert count == 5
    assert [job.job_id for job in shown] == [jobs["other"], jobs["export"]]


def test_a_dashboard_that_is_none_is_told(jobs: dict[str, UUID]) -> None:
    """By no id."""
    with reading() as session, pytest.raises(DashboardNotFoundError, match="there is no such dashboard"):
        jobs_of_dashboard(session, uuid4(), 100)
