"""A dashboard shows the jobs that its filter finds, and no names."""

import json
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from models.dashboards import (
    DASHBOARDS_MAX,
    DashboardFilter,
    DashboardShape,
    ShownJob,
    create_dashboard,
    dashboards_for,
    delete_dashboard,
    jobs_of_dashboard,
    read_dashboard,
    shape_of,
    update_dashboard,
)
from models.database import reading, writing
from models.errors import DashboardNotFoundError, RequestError
from models.lifecycle import JobState
from models.portal import Dashboard
from models.requests import parse
from tests.builders import NOON, at_once, job_in, job_request, put

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


# Dashboards of users.


ADA: Final = UUID(int=0xADA)
BOB: Final = UUID(int=0xB0B)
LATER: Final = NOON + timedelta(days=1, microseconds=1)


def shape(name: str = "mine", **members: Any) -> DashboardShape:
    """A dashboard as an answer or a request has it."""
    return DashboardShape.model_validate({"name": name, **members})


def create(user_id: UUID, name: str = "mine", **members: Any) -> UUID:
    """Create a dashboard of a user's, in a transaction of its own."""
    with writing() as session:
        return create_dashboard(session, user_id, shape(name, **members), at=NOON).id


def seen_by(user_id: UUID, rows_max: int = 100) -> list[str]:
    """Tell the names of the dashboards that a user sees."""
    with reading() as session:
        return [dashboard.name for dashboard in dashboards_for(session, user_id, rows_max)]


def test_a_user_sees_their_own_dashboards_and_the_shared_ones(any_database: str) -> None:
    """By name, as many as asked for; those of nobody are for all."""
    for user_id, name, shared in ((ADA, "b", False), (ADA, "d", True), (BOB, "a", False), (BOB, "c", True)):
        create(user_id, name, shared=shared)
    with writing() as session:
        session.add(Dashboard(name="e", is_shared=True, filter={}, created_at=NOON, updated_at=NOON))
        session.add(Dashboard(name="nobody's", filter={}, created_at=NOON, updated_at=NOON))
    assert seen_by(ADA) == ["b", "d", "c", "e"]
    assert seen_by(BOB) == ["a", "c", "d", "e"]
    assert seen_by(UUID(int=5)) == ["c", "d", "e"]
    assert seen_by(ADA, 2) == ["b", "d"], "their own come first"


def test_a_dashboard_is_read_by_those_who_see_it(any_database: str) -> None:
    """One of somebody else's is as one that is not there; to change it is another matter than to see it."""
    private, shared = create(ADA, "private"), create(ADA, "shared", shared=True)
    with reading() as session:
        for dashboard_id, name in ((private, "private"), (shared, "shared")):
            for own in (False, True):
                assert read_dashboard(session, dashboard_id, ADA, own=own).name == name
        assert read_dashboard(session, shared, BOB).name == "shared"
        for dashboard_id, own in ((private, False), (private, True), (shared, True), (uuid4(), False)):
            with pytest.raises(DashboardNotFoundError, match="there is no such dashboard"):
                read_dashboard(session, dashboard_id, BOB, own=own)


def test_a_dashboard_is_created_as_it_was_asked_for(any_database: str) -> None:
    """With an id of the service's, whatever the request says of that and of its times."""
    told = {"id": str(UUID(int=7)), "createdAt": "2001-01-01T00:00:00Z", "updatedAt": "2001-01-01T00:00:00Z"}
    wanted = {"states": ["Shipping"], "resourceGroups": ["G.1"]}
    dashboard_id = create(ADA, " Ada's ", shared=True, filter=wanted, **told)
    assert dashboard_id != UUID(int=7)
    with reading() as session:
        made = shape_of(read_dashboard(session, dashboard_id, ADA))
    assert (made.id, made.name, made.shared) == (dashboard_id, "Ada's", True)
    assert (made.created_at, made.updated_at) == (NOON, NOON)
    assert made.filter.model_dump(mode="json", by_alias=True, exclude_none=True) == wanted


def test_a_user_has_at_most_100_dashboards(any_database: str) -> None:
    """Another's do not count; and one that is deleted makes room."""
    assert DASHBOARDS_MAX == 100
    with writing() as session:
        made = [create_dashboard(session, ADA, shape(f"{number:03}"), at=NOON).id for number in range(100)]
    with pytest.raises(RequestError, match="at most 100 dashboards; delete one first"):
        create(ADA, "one more")
    assert len(seen_by(ADA, 1000)) == 100
    create(BOB)
    with writing() as session:
        delete_dashboard(session, made[0], ADA)
    create(ADA, "one more")
    assert len(seen_by(ADA, 1000)) == 100


def test_of_many_that_create_the_hundredth_at_once_one_does(any_database: str) -> None:
    """The bound holds for all of them together."""
    with writing() as session:
        for number in range(99):
            create_dashboard(session, ADA, shape(f"{number:03}"), at=NOON)
    told = at_once(*(partial(create, ADA, f"last {number}") for number in range(4)))
    assert sum(isinstance(each, UUID) for each in told) == 1, told
    assert sum(isinstance(each, RequestError) for each in told) == 3, told
    assert len(seen_by(ADA, 1000)) == 100


def test_a_dashboard_is_changed_by_its_owner_alone(any_database: str) -> None:
    """To what the request says, whole; who sees it only, does not change it."""
    dashboard_id = create(ADA, "old", shared=True, filter={"states": ["Closed"]})
    other = create(ADA, "other", filter={"states": ["Closed"]})
    for user_id, wrong in ((BOB, dashboard_id), (BOB, other), (ADA, uuid4())):
        with pytest.raises(DashboardNotFoundError), writing() as session:
            update_dashboard(session, wrong, user_id, shape("new"), at=LATER)
    assert seen_by(ADA) == ["old", "other"]
    with writing() as session:
        update_dashboard(session, dashboard_id, ADA, shape("new", filter={"jobTypes": ["Export"]}), at=LATER)
    with reading() as session:
        told = shape_of(read_dashboard(session, dashboard_id, ADA))
        kept = shape_of(read_dashboard(session, other, ADA))
    assert (told.name, told.shared, told.created_at, told.updated_at) == ("new", False, NOON, LATER)
    assert (told.filter.states, told.filter.job_types) == (None, ["Export"])
    assert (kept.name, kept.filter.states, kept.updated_at) == ("other", ["Closed"], NOON)
    assert seen_by(BOB) == [], "it is shared no more"


def test_deletes_a_users_own_dashboard_and_keeps_all_others(any_database: str) -> None:
    """Twice is told; nobody deletes what they only see."""
    mine, shared, hers = create(ADA, "mine"), create(ADA, "shared", shared=True), create(BOB, "hers")
    for user_id, wrong in ((BOB, mine), (BOB, shared), (ADA, hers), (ADA, uuid4())):
        with pytest.raises(DashboardNotFoundError), writing() as session:
            delete_dashboard(session, wrong, user_id)
    with writing() as session:
        delete_dashboard(session, mine, ADA)
    assert (seen_by(ADA), seen_by(BOB)) == (["shared"], ["hers", "shared"])
    with pytest.raises(DashboardNotFoundError), writing() as session:
        delete_dashboard(session, mine, ADA)


def test_an_operator_deletes_shared_dashboards_and_no_others(any_database: str) -> None:
    """Whoever made them, and those that nobody has any more."""
    private, shared = create(ADA, "private"), create(ADA, "shared", shared=True)
    with writing() as session:
        left = Dashboard(name="left", is_shared=True, filter={}, created_at=NOON, updated_at=NOON)
        session.add(left)
    with pytest.raises(DashboardNotFoundError), writing() as session:
        delete_dashboard(session, private, None)
    for dashboard_id in (shared, left.id):
        with writing() as session:
            delete_dashboard(session, dashboard_id, None)
    assert (seen_by(ADA), seen_by(BOB)) == (["private"], [])


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"name": ""},
        {"name": "  "},
        {"name": "a" * 257},
        {"name": "a\nb"},
        {"name": "a\0b"},
        {"name": "a", "shared": "true"},
        {"name": "a", "filter": {"stats": ["Closed"]}},
        {"name": "a", "filter": {"states": []}},
        {"name": "a", "filter": {"states": ["closed"]}},
        {"name": "a", "filter": {"states": ["Closed"] * 21}},
        {"name": "a", "filter": {"resourceGroups": ["a/b"]}},
        {"name": "a", "filter": {"locations": ["x" * 51]}},
    ],
)
def test_what_is_no_dashboard_is_refused(document: dict[str, Any]) -> None:
    """A filter that was read over would show all jobs."""
    with pytest.raises(RequestError):
        parse(DashboardShape, json.dumps(document))
