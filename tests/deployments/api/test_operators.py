"""What operators tell by HTTP because it holds personal data: packages back, closed jobs, others' dashboards."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import pytest
from sqlmodel import Session
from starlette.testclient import TestClient

from deployments.api.application import make_application
from models.copy_logs import DriveStatus
from models.database import database_time, reading, writing
from models.drives import Drive, ExtraDrive, drives_of, move_drive
from models.erasure import wish_erasure
from models.lifecycle import Actor, DriveState, JobState
from models.shipping import Direction, Package
from tests.builders import ADDRESS, DRIVE, NOON, RETURN_SHIPPING, at_once, events_of, job_in, rows_of
from tests.deployments.api.conftest import Issuer

OLGA: Final = UUID(int=0x01CA)
ADA: Final = UUID(int=0xADA)
BACK: Final = {"carrierName": "UPS", "trackingNumber": "1ZBACK7", "driveCount": 2, "shipDate": "2026-06-20"}
TWO: Final = [{**DRIVE, "driveId": name} for name in ("SERIAL1", "SERIAL2")]
WAY_OUT: Final = {
    "Creating": "mark it as shipped first",
    "Shipping": "check its drives in first",
    "Received": "cancel it first",
    "Transferring": "cancel it first",
}

Ask = Callable[..., httpx.Response]


@pytest.fixture
def callers(any_database: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Ask]]:
    """Serve an empty database in this process, SQLite and PostgreSQL in turn; makes callers with tokens."""
    for name, value in {**issuer.settings, "DRIVEPOST_API_REQUESTS_PER_MINUTE": "1000000"}.items():
        monkeypatch.setenv(name, value)
    with TestClient(make_application()) as client:

        def make(user: UUID, *roles: str, subscriptions: tuple[str, ...] = ()) -> Ask:
            token = issuer.token(*roles, subscriptions=list(subscriptions), sub=str(user))
            return partial(client.request, headers={"Authorization": f"Bearer {token}"})

        yield make


@pytest.fixture
def olga(callers: Callable[..., Ask]) -> Ask:
    """An operator, of no subscription."""
    return callers(OLGA, "operator")


@pytest.fixture
def ada(callers: Callable[..., Ask]) -> Ask:
    """A customer of subscription s1."""
    return callers(ADA, "customer", subscriptions=("s1",))


def told(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    """Read what was answered."""
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Read a refusal."""
    found: dict[str, Any] = told(answer, status)["error"]
    return found


def drive_states(job: dict[str, Any]) -> list[str]:
    """Tell where the drives of an answer's job are."""
    return [drive["state"] for drive in job["job"]["properties"]["driveList"]]


def make(state: str, name: str = "job1", *, cancelled: bool = False, age: timedelta | None = None) -> UUID:
    """Make a job of two drives in a state, some time ago."""
    with writing() as session:
        at = database_time(session) - (age or timedelta())
        return job_in(session, JobState(state), name, at, cancelled=cancelled, driveList=TWO)


def copied(session: Session, drive: Drive, ended_as: DriveStatus) -> None:
    """Bring a drive of a list through its copy."""
    ended = DriveState.COMPLETED if ended_as is DriveStatus.COMPLETED else DriveState.COMPLETED_MORE_INFO
    for target in (DriveState.RECEIVED, DriveState.TRANSFERRING, ended):
        move_drive(session, drive, target, at=NOON, by=Actor.SERVICE)
    drive.copy_status = ended_as
    session.add(drive)


def packed(name: str = "job1", ended_as: DriveStatus = DriveStatus.COMPLETED) -> UUID:
    """Make a job in Packaging: one drive copied well, one as said, and one that nobody listed."""
    job_id = make("Packaging", name)
    with writing() as session:
        one, other = drives_of(session, job_id)
        copied(session, one, DriveStatus.COMPLETED)
        copied(session, other, ended_as)
        session.add(ExtraDrive(job_id=job_id, drive_id="EXTRA7", found_at=NOON))
    return job_id


def url_of(job_id: UUID, part: str = "") -> str:
    """Tell where operators find a job."""
    return f"/operator/jobs/{job_id}{part}"


def see_that_everything_went_back(job: dict[str, Any]) -> None:
    """Every drive, the extra one too."""
    assert set(drive_states(job)) == {"ShippedBack"}
    assert [drive["driveId"] for drive in job["extraDrives"]] == ["EXTRA7"]
    assert all(drive["shippedBackAt"] for drive in job["extraDrives"])


# The package back.


@pytest.mark.parametrize(
    ("ended_as", "end"),
    [
        (DriveStatus.COMPLETED, "Completed"),
        (DriveStatus.COMPLETED_WITH_WARNINGS, "Completed"),
        (DriveStatus.COMPLETED_WITH_ERRORS, "Closed"),
    ],
)
def test_a_package_back_ends_a_job_and_returns_its_drives(
    olga: Ask, ada: Ask, ended_as: DriveStatus, end: str
) -> None:
    """Completed without errors, Closed with some; the customer sees package and state, and not the extra drive."""
    job_id = packed(ended_as=ended_as)
    before = told(olga("GET", url_of(job_id)))
    assert [set(drive) for drive in before["extraDrives"]] == [{"driveId", "foundAt"}]
    job = told(olga("POST", url_of(job_id, "/returnPackage"), json={"returnPackage": BACK}))
    assert job["job"]["properties"]["state"] == end
    assert job["job"]["properties"]["returnPackage"] == BACK
    assert job["isDeletable"] is (end == "Completed")
    assert job["expiresAt"]
    see_that_everything_went_back(job)
    assert job == told(olga("GET", url_of(job_id)))
    theirs = told(ada("GET", f"/portal/jobs/{job_id}"))
    assert theirs == {name: value for name, value in job.items() if name != "extraDrives"}
    with reading() as session:
        moves = [event for event in events_of(session, job_id) if event.source == "Packaging"]
        assert [(move.target, move.by) for move in moves] == [(end, Actor.OPERATOR)]
        assert not [event for event in events_of(session, job_id) if "1ZBACK7" in repr(event)]


def test_a_package_back_of_a_job_whose_drive_never_came_closes_it(olga: Ask) -> None:
    """A drive that is missing is an error."""
    job_id = make("Packaging")
    with writing() as session:
        one, other = drives_of(session, job_id)
        copied(session, one, DriveStatus.COMPLETED)
        move_drive(session, other, DriveState.NEVER_RECEIVED, at=NOON, by=Actor.OPERATOR)
    job = told(olga("POST", url_of(job_id, "/returnPackage"), json={"returnPackage": {**BACK, "driveCount": 1}}))
    assert job["job"]["properties"]["state"] == "Closed"
    assert drive_states(job) == ["ShippedBack", "NeverReceived"]


def test_the_drives_of_a_cancelled_job_go_back_and_the_job_stays_completed(olga: Ask) -> None:
    """Its 90 days go on; what is told a second time is the package."""
    job_id = make("Completed", cancelled=True, age=timedelta(days=3))
    with writing() as session:
        for drive in drives_of(session, job_id):
            move_drive(session, drive, DriveState.RECEIVED, at=NOON, by=Actor.OPERATOR)
    before = told(olga("GET", url_of(job_id)))
    job = told(olga("POST", url_of(job_id, "/returnPackage"), json={"returnPackage": BACK}))
    assert set(drive_states(job)) == {"ShippedBack"}
    for name in ("stateSince", "expiresAt", "cancelRequestedAt", "isDeletable"):
        assert job[name] == before[name]
    corrected = {**BACK, "trackingNumber": "1ZBACK8"}
    again = told(olga("POST", url_of(job_id, "/returnPackage"), json={"returnPackage": corrected}))
    assert again["job"]["properties"]["returnPackage"] == corrected
    assert (again["stateSince"], drive_states(again)) == (job["stateSince"], drive_states(job))


def test_a_package_back_before_the_copy_is_over_is_refused(olga: Ask) -> None:
    """409 names the state and the way out; nothing is written."""
    for state, way_out in WAY_OUT.items():
        job_id = make(state, f"job-{state}")
        before = told(olga("GET", url_of(job_id)))
        refused = error_of(olga("POST", url_of(job_id, "/returnPackage"), json={"returnPackage": BACK}), 409)
        assert refused["code"] == "JobStateConflict"
        assert f"{state} job" in refused["message"]
        assert way_out in refused["message"]
        assert told(olga("GET", url_of(job_id))) == before


def test_a_wrong_package_is_refused_with_every_fault_and_no_value(olga: Ask) -> None:
    """Places alone; the job is where it was."""
    job_id = packed()
    before = told(olga("GET", url_of(job_id)))
    wrong: list[tuple[Any, set[str]]] = [
        ({}, {"returnPackage"}),
        ({"returnPackage": "Zebulon"}, {"returnPackage"}),
        ({"returnPackage": {}}, {f"returnPackage.{name}" for name in BACK}),
        (
            {"returnPackage": {**BACK, "driveCount": -1, "trackingNumber": ["Zebulon"]}},
            {"returnPackage.driveCount", "returnPackage.trackingNumber"},
        ),
        (["Zebulon"], {"body"}),
    ]
    for body, targets in wrong:
        answer = olga("POST", url_of(job_id, "/returnPackage"), json=body)
        assert {each["target"] for each in error_of(answer, 400)["details"]} == targets
        assert "Zebulon" not in answer.text
    assert told(olga("GET", url_of(job_id))) == before


def test_a_package_back_carries_out_the_erasure_that_was_wished(olga: Ask, ada: Ask) -> None:
    """Nothing goes to the address any more, so that nothing is known of it, nor of the package."""
    job_id = packed()
    assert told(ada("POST", f"/portal/jobs/{job_id}/erasePersonalData"))["erasureOutcome"] == "wished"
    answer = olga("POST", url_of(job_id, "/returnPackage"), json={"returnPackage": BACK})
    job = told(answer)
    assert job["erasedAt"]
    assert job["job"]["properties"]["state"] == "Completed"
    assert set(drive_states(job)) == {"ShippedBack"}
    said = [value for value in (*ADDRESS.values(), *RETURN_SHIPPING.values()) if len(value) > 3]
    assert not [each for each in (*said, "SERIAL", "EXTRA7", "1ZBACK7") if each in answer.text]
    with reading() as session:
        left = rows_of(session, job_id)
        assert session.get(Package, (job_id, Direction.RETURN)) is None
    assert not [table for table in ("return_address", "return_shipping", "package", "extra_drive") if left[table]]
    again = error_of(olga("POST", url_of(job_id, "/returnPackage"), json={"returnPackage": BACK}), 409)
    assert again["code"] == "PersonalDataErased"


def test_of_two_packages_at_the_same_moment_the_drives_go_back_once(olga: Ask) -> None:
    """Both are taken, and the job ends once."""
    job_id = packed()
    send = partial(olga, "POST", url_of(job_id, "/returnPackage"), json={"returnPackage": BACK})
    for answer in at_once(send, send):
        assert isinstance(answer, httpx.Response), answer
        see_that_everything_went_back(told(answer))
    with reading() as session:
        targets = [event.target for event in events_of(session, job_id)]
    assert (targets.count("Completed"), targets.count("ShippedBack")) == (1 + 2, 2), "the job and its two drives"


# Closing.


def test_a_job_that_nobody_answered_for_is_closed_after_30_days(olga: Ask) -> None:
    """And not an hour before; closed again it is as it was."""
    early = make("Shipping", "early", age=timedelta(days=30) - timedelta(hours=1))
    refused = error_of(olga("POST", url_of(early, "/close")), 409)
    assert refused["code"] == "NotYetClosable"
    assert "checked in or cancelled" in refused["message"]
    assert told(olga("GET", url_of(early)))["job"]["properties"]["state"] == "Shipping"
    late = make("Shipping", "late", age=timedelta(days=30, seconds=1))
    closed = told(olga("POST", url_of(late, "/close")))
    assert (closed["job"]["properties"]["state"], closed["isDeletable"]) == ("Closed", False)
    assert closed["expiresAt"]
    assert told(olga("POST", url_of(late, "/close"))) == closed


def test_a_job_in_any_other_state_is_not_closed(olga: Ask) -> None:
    """409 names the state, or the cancel that came before."""
    for state in ("Creating", "Received", "Transferring", "Packaging", "Completed"):
        job_id = make(state, f"job-{state}", age=timedelta(days=40))
        refused = error_of(olga("POST", url_of(job_id, "/close")), 409)
        assert refused["code"] == "JobStateConflict"
        assert f"{state} job" in refused["message"]
        assert told(olga("GET", url_of(job_id)))["job"]["properties"]["state"] == state
    cut = make("Shipping", "cut", cancelled=True, age=timedelta(days=40))
    assert error_of(olga("POST", url_of(cut, "/close")), 409)["code"] == "CancelAccepted"


# Others' dashboards.


def test_a_shared_dashboard_is_deleted_whoever_made_it(olga: Ask, ada: Ask) -> None:
    """Even one that has lost its maker; a private one is as one that is not there."""
    private, shared, orphan = (
        told(ada("POST", "/portal/dashboards", json={"name": name, "shared": name != "private"}), 201)["id"]
        for name in ("private", "shared", "orphan")
    )
    assert olga("DELETE", f"/portal/dashboards/{shared}").status_code == 404, "the portal's path is for one's own"
    none = error_of(olga("DELETE", f"/operator/dashboards/{uuid4()}"), 404)
    assert none["code"] == "DashboardNotFound"
    assert error_of(olga("DELETE", f"/operator/dashboards/{private}"), 404) == none
    answer = olga("DELETE", f"/operator/dashboards/{shared}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert error_of(olga("DELETE", f"/operator/dashboards/{shared}"), 404) == none
    assert [each["name"] for each in told(ada("GET", "/portal/dashboards"))["value"]] == ["orphan", "private"]
    assert ada("DELETE", "/portal/settings").status_code == 200
    assert olga("DELETE", f"/operator/dashboards/{orphan}").status_code == 200
    assert told(ada("GET", "/portal/dashboards"))["value"] == []


# Who may.


def test_a_customer_is_no_operator_and_learns_nothing_by_asking(olga: Ask, ada: Ask) -> None:
    """403, the same for what is there and for what is not, and before the body is looked at."""
    job_id = packed()
    shared = told(ada("POST", "/portal/dashboards", json={"name": "x", "shared": True}), 201)["id"]
    before = told(olga("GET", url_of(job_id)))
    for method, path, there in (
        ("GET", "/operator/jobs/{}", job_id),
        ("POST", "/operator/jobs/{}/returnPackage", job_id),
        ("POST", "/operator/jobs/{}/close", job_id),
        ("DELETE", "/operator/dashboards/{}", shared),
    ):
        answers = [
            ada(method, path.format(each), content=content)
            for each in (there, uuid4(), "no-id")
            for content in (b"", b'{"returnPackage": 5}')
        ]
        refusals = [error_of(answer, 403) for answer in answers]
        assert {refusal["code"] for refusal in refusals} == {"AuthorizationFailed"}
        assert all(refusal == refusals[0] for refusal in refusals)
    assert told(olga("GET", url_of(job_id))) == before


def test_an_operator_is_told_what_is_not_there(olga: Ask) -> None:
    """404 for a job, 400 for what is no id."""
    for method, part in (("GET", ""), ("POST", "/returnPackage"), ("POST", "/close")):
        body = {"returnPackage": BACK} if part == "/returnPackage" else None
        assert error_of(olga(method, url_of(uuid4(), part), json=body), 404)["code"] == "ResourceNotFound"
        wrong = error_of(olga(method, f"/operator/jobs/no-id{part}", json=body), 400)
        assert {each["target"] for each in wrong["details"]} == {"jobId"}


def test_an_operator_sees_whose_job_it_is_until_that_is_erased(olga: Ask, ada: Ask) -> None:
    """By the opaque id of the user."""
    body = {"subscriptionId": "s1", "resourceGroupName": "g1", "jobName": "job1", "body": {}}
    assert error_of(ada("POST", "/portal/jobs", json=body), 400)
    job_id = make("Closed", age=timedelta(days=40))
    assert "userId" not in told(olga("GET", url_of(job_id))), "nobody said whose"
    with writing() as session:
        wish_erasure(session, job_id, at=database_time(session), by=Actor.OPERATOR)
    job = told(olga("GET", url_of(job_id)))
    assert job["erasedAt"]
    assert "SERIAL1" not in olga("GET", url_of(job_id)).text
