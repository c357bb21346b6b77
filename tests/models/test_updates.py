"""Create Job and Update Job Properties: all of a request or nothing of it."""

import json
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from models.database import reading, writing
from models.deletion import delete_job
from models.drives import drives_of
from models.errors import (
    ActorNotAllowedError,
    CancelAcceptedError,
    DrivepostError,
    JobNotFoundError,
    JobStateConflictError,
    NotReadyToShipError,
    PropertyNotUpdatableError,
    RequestError,
)
from models.events import EventKind
from models.jobs import Job, LogLevel, read_job
from models.lifecycle import Actor, JobProperty, JobState, Outcome
from models.locations import load_locations
from models.requests import JobRequest, UpdateJobBody, parse
from models.shipping import Direction, Package, ReturnAddress
from models.updates import put_new_or_replace, update_job
from tests.builders import (
    ADDRESS,
    DRIVE,
    NOON,
    PACKAGE,
    RETURN_SHIPPING,
    at_once,
    events_of,
    job_in,
    job_request,
    put,
    rows_of,
)

LATER: Final = NOON + timedelta(days=3, microseconds=1)
FORTNIGHT: Final = timedelta(days=14)
EXPORT: Final[dict[str, Any]] = {
    "jobType": "Export",
    "driveList": None,
    "export": {"blobList": {"blobPathPrefix": ["/"]}},
}

# Section 5, copied by hand: in which states a change is done; and a change of each property.
EARLY: Final = ["Creating", "Shipping", "Received", "Transferring"]
CHANGES: Final[dict[str, tuple[list[str], dict[str, Any]]]] = {
    "state": (["Creating"], {"properties": {"state": "Shipping"}}),
    "cancelRequested": (EARLY, {"properties": {"cancelRequested": True}}),
    "deliveryPackage": (
        ["Creating", "Shipping"],
        {"properties": {"deliveryPackage": {**PACKAGE, "trackingNumber": "TRACK2"}}},
    ),
    "driveList": (["Creating"], {"properties": {"driveList": [{**DRIVE, "driveId": "SERIAL2"}]}}),
    "returnAddress": (EARLY, {"properties": {"returnAddress": {**ADDRESS, "city": "Village"}}}),
    "returnShipping": (
        EARLY,
        {"properties": {"returnShipping": {**RETURN_SHIPPING, "carrierAccountNumber": "ACCOUNT2"}}},
    ),
    "logLevel": (EARLY, {"properties": {"logLevel": "Verbose"}}),
    "backupDriveManifest": (EARLY, {"properties": {"backupDriveManifest": True}}),
    "tags": ([*JobState], {"tags": {"a": "b"}}),
}
# What real clients send with every PATCH, and what is so already.
WITHOUT_CHANGE: Final[dict[str, dict[str, Any]]] = {
    "nothing": {},
    "null": {"tags": None, "properties": dict.fromkeys(["state", "cancelRequested", "driveList", "logLevel"])},
    "an empty state": {"properties": {"state": ""}},
    "no cancel": {"properties": {"cancelRequested": False}},
    "what it is": {
        "tags": {},
        "properties": {
            "state": "",
            "cancelRequested": False,
            "deliveryPackage": PACKAGE,
            "driveList": [DRIVE],
            "returnAddress": ADDRESS,
            "returnShipping": RETURN_SHIPPING,
            "logLevel": "Error",
            "backupDriveManifest": False,
        },
    },
}


def new_job(state: str = "Creating", name: str = "job1", *, cancelled: bool = False, **properties: Any) -> UUID:
    """Make a job in a state."""
    with writing() as session:
        return job_in(session, JobState(state), name, cancelled=cancelled, **properties)


def patch(job_id: UUID, body: dict[str, Any], by: Actor = Actor.CUSTOMER) -> Outcome:
    """Update a job in a transaction of its own, at LATER."""
    with writing() as session:
        return update_job(session, job_id, parse(UpdateJobBody, json.dumps(body)), at=LATER, by=by)


def put_again(request: dict[str, Any], **options: Any) -> UUID:
    """Put a job in a transaction of its own, at LATER."""
    with writing() as session:
        return put(session, request, LATER, **options)


def everything(job_id: UUID) -> dict[str, Any]:
    """Read all that a job says of itself."""
    with reading() as session:
        job = read_job(session, job_id)
        address = session.get(ReturnAddress, job_id)
        package = session.get(Package, (job_id, Direction.DELIVERY))
        return {
            "job": job.model_dump(),
            "address": address and address.model_dump(),
            "package": package and package.model_dump(),
            "drives": [drive.model_dump() for drive in drives_of(session, job_id)],
            "rows": rows_of(session, job_id),
        }


def read(job_id: UUID) -> Job:
    """Read a job."""
    with reading() as session:
        return read_job(session, job_id)


# Putting.


def test_a_put_job_is_creating_and_kept_for_14_days(any_database: str) -> None:
    """With its rows and one event."""
    with writing() as session:
        job_id = put(session, job_request(tags={"Für": "Ä"}))
    found = everything(job_id)
    job = found["job"]
    assert (job["state"], job["expires_at"], job["created_at"]) == ("Creating", NOON + FORTNIGHT, NOON)
    assert job["tags"] == {"Für": "Ä"}
    assert found["rows"] == {
        **dict.fromkeys(found["rows"], 0),
        **dict.fromkeys(["job", "drive", "return_address", "return_shipping", "package", "job_event"], 1),
    }
    with reading() as session:
        (event,) = events_of(session, job_id)
    assert (event.kind, event.target, event.by) == (EventKind.CREATED, "Creating", Actor.CUSTOMER)


def test_a_second_put_replaces_the_job_and_begins_its_14_days_anew(any_database: str) -> None:
    """Same id and name as first written; all the rest is the new request's, and what it leaves out is gone."""
    job_id = new_job()
    request = job_request("JOB1", returnShipping=None, deliveryPackage=None, logLevel="Verbose")
    request["resourceGroupName"] = "G1"
    request["body"]["properties"]["driveList"] = [{**DRIVE, "driveId": name} for name in ("NEW1", "NEW2")]
    assert put_again(request) == job_id
    found = everything(job_id)
    assert (found["job"]["name"], found["job"]["resource_group"]) == ("job1", "g1")
    assert (found["job"]["log_level"], found["package"]) == (LogLevel.VERBOSE, None)
    assert [drive["drive_id"] for drive in found["drives"]] == ["NEW1", "NEW2"]
    assert found["rows"]["return_shipping"] == 0
    assert (found["job"]["expires_at"], found["job"]["created_at"]) == (LATER + FORTNIGHT, NOON)
    with reading() as session:
        assert [event.kind for event in events_of(session, job_id)] == [EventKind.CREATED, EventKind.REPLACED]


@pytest.mark.parametrize("state", [state for state in JobState if state != "Creating"])
def test_a_second_put_is_refused_once_the_job_has_left_creating(sqlite: str, state: str) -> None:
    """Nothing of it is written."""
    job_id = new_job(state)
    before = everything(job_id)
    with pytest.raises(JobStateConflictError, match=f"a {state} job cannot take 'replace'; .* another name"):
        put_again(job_request(logLevel="Verbose"))
    assert everything(job_id) == before


def test_a_put_is_refused_while_a_job_of_the_name_is_being_cancelled(sqlite: str) -> None:
    """The cancel cannot be withdrawn that way either."""
    job_id = new_job(cancelled=True)
    before = everything(job_id)
    with pytest.raises(CancelAcceptedError, match="'replace' is over"):
        put_again(job_request(logLevel="Verbose"))
    assert everything(job_id) == before


def test_an_act_done_by_two_at_once_is_done_once(any_database: str) -> None:
    """Neither finds it done; the second waits for the first, and gives the same job."""
    for number in range(5):
        act, request = uuid4(), job_request(f"job{number}")
        made = at_once(*[partial(put_again, request, intake_id=act)] * 3)
        job_id = made[0]
        assert isinstance(job_id, UUID), job_id
        assert made == [job_id] * 3
        with reading() as session:
            assert [event.kind for event in events_of(session, job_id)] == [EventKind.CREATED]


def test_an_act_done_twice_is_done_once(any_database: str) -> None:
    """The same id of the intake gives the same job, even when the job has gone on meanwhile."""
    act = uuid4()
    job_id = put_again(job_request(), intake_id=act)
    patch(job_id, {"properties": {"state": "Shipping"}})
    before = everything(job_id)
    assert put_again(job_request(logLevel="Verbose"), intake_id=act) == job_id
    assert everything(job_id) == before


def put_and_tell(**properties: Any) -> tuple[UUID, bool]:
    """Put a job, and tell whether it was a new one."""
    request = parse(JobRequest, json.dumps(job_request(**properties)))
    with writing() as session:
        job, is_new = put_new_or_replace(session, request, load_locations(), at=LATER, by=Actor.CUSTOMER)
        return job.id, is_new


def test_a_put_tells_whether_it_made_a_new_job(any_database: str) -> None:
    """Also when it is done again, and when a job of that name was deleted in between."""
    job_id, is_new = put_and_tell()
    assert is_new
    assert put_and_tell(logLevel="Verbose") == (job_id, False)
    with writing() as session:
        delete_job(session, job_id, at=LATER, by=Actor.CUSTOMER)
    other, is_new = put_and_tell()
    assert is_new
    assert other != job_id


def test_of_two_puts_at_once_one_is_told_as_the_creation(any_database: str) -> None:
    """The other replaced what it made."""
    ends = at_once(put_and_tell, put_and_tell)
    told = [end for end in ends if isinstance(end, tuple)]
    assert len({job_id for job_id, _ in told}) == 1, ends
    assert sorted(is_new for _, is_new in told) == [False, True]


def test_a_put_at_a_place_that_is_none_writes_nothing(sqlite: str) -> None:
    """The places that there are, are named."""
    with pytest.raises(RequestError, match=r"location: is no location that takes drives; .*West US"):
        put_again(job_request(location="Atlantis"))
    with pytest.raises(JobNotFoundError), reading() as session:
        read_job(session, uuid4())


def test_two_puts_of_a_new_name_at_once_make_one_job(any_database: str) -> None:
    """The second replaces what the first created; nobody sees an error of the database."""
    names = [f"job{number}" for number in range(5)]
    for name in names:
        ends = at_once(*[partial(put_again, job_request(name))] * 3)
        assert len(set(map(str, ends))) == 1, ends
        assert isinstance(ends[0], UUID)


# Updating: the table of section 5.


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("name", CHANGES)
def test_a_property_is_changed_where_the_table_says_yes_and_nowhere_else(
    sqlite: str, name: str, state: str
) -> None:
    """Property by state; a refusal names property and state, and leaves everything as it was."""
    states, body = CHANGES[name]
    job_id = new_job(state)
    before = everything(job_id)
    if state in states or (name == "state" and state == "Shipping"):
        expected = Outcome.DONE if state in states else Outcome.NOTHING_TO_DO
        assert patch(job_id, body) is expected
        assert (everything(job_id) != before) is (expected is Outcome.DONE)
        assert patch(job_id, body) is Outcome.NOTHING_TO_DO, "asked again, it is so already"
        return
    with pytest.raises(DrivepostError, match=f"{state} job") as refused:
        patch(job_id, body)
    if name in {"state", "cancelRequested"}:
        assert isinstance(refused.value, JobStateConflictError)
    else:
        assert isinstance(refused.value, PropertyNotUpdatableError)
        assert refused.value.properties == (name,)
        can = {each for each, (where, _) in CHANGES.items() if state in where}
        assert {each for each in JobProperty if each in str(refused.value).partition("what can be is")[2]} == can
    assert everything(job_id) == before


@pytest.mark.parametrize("what", WITHOUT_CHANGE)
def test_what_would_change_nothing_violates_nothing(sqlite: str, what: str) -> None:
    """In every state, cancelled or not; nothing is written, the 14 days go on, a cancel stands."""
    for state in JobState:
        job_id = new_job(state, f"job-{state}")
        before = everything(job_id)
        assert patch(job_id, WITHOUT_CHANGE[what]) is Outcome.NOTHING_TO_DO
        assert everything(job_id) == before
    for cut in [*EARLY, "Completed"]:
        job_id = new_job(cut, f"cut-{cut}", cancelled=True)
        before = everything(job_id)
        assert patch(job_id, WITHOUT_CHANGE[what]) is Outcome.NOTHING_TO_DO
        assert everything(job_id) == before
        assert read(job_id).cancel_requested


def test_an_update_is_all_or_nothing(any_database: str) -> None:
    """One property that may not be changed keeps back all the others."""
    job_id = new_job("Received")
    before = everything(job_id)
    for refused in ("deliveryPackage", "driveList", "state"):
        properties = {**CHANGES["returnAddress"][1]["properties"], **CHANGES[refused][1]["properties"]}
        with pytest.raises(DrivepostError):
            patch(job_id, {"tags": {"a": "b"}, "properties": {**properties, "cancelRequested": True}})
        assert everything(job_id) == before


def test_a_refusal_names_every_property_that_was_refused(sqlite: str) -> None:
    """And not those that would have been done."""
    job_id = new_job("Packaging")
    bodies = [CHANGES[name][1]["properties"] for name in ("driveList", "logLevel", "returnAddress")]
    with pytest.raises(PropertyNotUpdatableError) as refused:
        patch(job_id, {"tags": {"a": "b"}, "properties": {k: v for body in bodies for k, v in body.items()}})
    assert set(refused.value.properties) == {"driveList", "logLevel", "returnAddress"}
    assert "Village" not in str(refused.value)
    assert "SERIAL2" not in str(refused.value)


def test_several_properties_are_applied_together(any_database: str) -> None:
    """With one event that names them all, and not their values; the 14 days begin anew."""
    job_id = new_job()
    names = ("deliveryPackage", "driveList", "returnAddress", "logLevel")
    properties = {key: value for name in names for key, value in CHANGES[name][1]["properties"].items()}
    assert patch(job_id, {"tags": {"a": "b"}, "properties": properties}) is Outcome.DONE
    found = everything(job_id)
    assert found["job"]["tags"] == {"a": "b"}
    assert found["address"]["city"] == "Village"
    assert found["package"]["tracking_number"] == "TRACK2"
    assert [drive["drive_id"] for drive in found["drives"]] == ["SERIAL2"]
    assert (found["job"]["expires_at"], found["job"]["updated_at"]) == (LATER + FORTNIGHT, LATER)
    with reading() as session:
        (event,) = events_of(session, job_id, EventKind.UPDATED)
    assert event.what == "deliveryPackage, driveList, logLevel, returnAddress, tags"


def test_an_update_of_a_completed_job_does_not_prolong_it(sqlite: str) -> None:
    """Tags may change, the 90 days go on."""
    job_id = new_job("Completed")
    patch(job_id, CHANGES["tags"][1])
    assert read(job_id).expires_at == NOON + timedelta(days=90)


def test_an_update_of_a_cancelled_job_does_not_bring_its_expiry_back(sqlite: str) -> None:
    """It waits to become Completed."""
    job_id = new_job("Creating", cancelled=True)
    assert patch(job_id, CHANGES["logLevel"][1]) is Outcome.DONE
    assert read(job_id).expires_at is None


def test_an_update_is_not_the_services_nor_of_a_job_that_is_gone(sqlite: str) -> None:
    """Refused by name."""
    with pytest.raises(ActorNotAllowedError):
        patch(new_job(), CHANGES["tags"][1], by=Actor.SERVICE)
    with pytest.raises(JobNotFoundError):
        patch(uuid4(), CHANGES["tags"][1])


def test_the_drives_of_an_update_fit_the_jobs_type(sqlite: str) -> None:
    """As at put: an Import job has drives, an Export job gives none."""
    job_id = new_job()
    export = new_job("Creating", "export", **EXPORT)
    before = everything(job_id), everything(export)
    with pytest.raises(RequestError, match=r"properties\.driveList: an Import job needs"):
        patch(job_id, {"properties": {"driveList": []}})
    with pytest.raises(RequestError, match=r"properties\.driveList: an Export job has no driveList"):
        patch(export, CHANGES["driveList"][1])
    assert patch(export, {"properties": {"driveList": []}}) is Outcome.NOTHING_TO_DO
    assert (everything(job_id), everything(export)) == before


# Shipping.


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (("returnAddress", "deliveryPackage"), ()),
        (("returnAddress",), ("deliveryPackage",)),
        (("deliveryPackage",), ("returnAddress",)),
        ((), ("returnAddress", "deliveryPackage")),
    ],
)
def test_a_job_ships_once_address_and_package_are_known(
    any_database: str, before: tuple[str, ...], now: tuple[str, ...]
) -> None:
    """From this request or from before."""
    given = {"returnAddress": ADDRESS, "deliveryPackage": PACKAGE}
    details: dict[str, Any] = {name: given[name] if name in before else None for name in given}
    job_id = new_job(**details)
    body = {"properties": {"state": "Shipping", **{name: given[name] for name in now}}}
    assert patch(job_id, body) is Outcome.DONE
    job = read(job_id)
    assert (job.state, job.state_since, job.expires_at) == (JobState.SHIPPING, LATER, None)
    assert patch(job_id, body) is Outcome.NOTHING_TO_DO


@pytest.mark.parametrize(
    "missing", [("returnAddress",), ("deliveryPackage",), ("returnAddress", "deliveryPackage")]
)
def test_a_job_does_not_ship_without(any_database: str, missing: tuple[str, ...]) -> None:
    """Whatever is missing is named, and what else the request wanted is not done either."""
    details: dict[str, Any] = dict.fromkeys(missing)
    job_id = new_job(**details)
    before = everything(job_id)
    with pytest.raises(NotReadyToShipError, match=" and ".join(missing)) as refused:
        patch(job_id, {"tags": {"a": "b"}, "properties": {"state": "Shipping"}})
    assert refused.value.missing == missing
    assert everything(job_id) == before


def test_tracking_data_alone_does_not_ship(sqlite: str) -> None:
    """Only the customer's word does."""
    job_id = new_job(deliveryPackage=None)
    assert patch(job_id, {"properties": {"deliveryPackage": PACKAGE}}) is Outcome.DONE
    assert read(job_id).state is JobState.CREATING


def test_a_cancelled_job_does_not_ship(sqlite: str) -> None:
    """Refused on the cancel's account; a job already on its way answers that it is."""
    with pytest.raises(CancelAcceptedError, match="'ship' is over"):
        patch(new_job(cancelled=True), CHANGES["state"][1])
    shipped = new_job("Shipping", "job2", cancelled=True)
    assert patch(shipped, CHANGES["state"][1]) is Outcome.NOTHING_TO_DO


def test_shipped_and_cancelled_in_one_request_is_both(any_database: str) -> None:
    """Two events, in order, and the cancel stands."""
    job_id = new_job()
    assert patch(job_id, {"properties": {"state": "Shipping", "cancelRequested": True}}) is Outcome.DONE
    job = read(job_id)
    assert (job.state, job.cancel_requested_at) == (JobState.SHIPPING, LATER)
    with reading() as session:
        told = [event.kind for event in events_of(session, job_id)]
    assert set(told[1:]) == {EventKind.MOVED, EventKind.CANCEL_ACCEPTED}


# Cancelling by update.


def test_a_cancel_asked_with_other_changes_is_accepted_with_them(any_database: str) -> None:
    """And never again undone by the false that clients send."""
    job_id = new_job("Received")
    body = {"properties": {"cancelRequested": True, "returnAddress": {**ADDRESS, "city": "Village"}}}
    assert patch(job_id, body) is Outcome.DONE
    assert patch(job_id, body) is Outcome.NOTHING_TO_DO
    assert patch(job_id, {"tags": {"a": "b"}, "properties": {"cancelRequested": False}}) is Outcome.DONE
    found = everything(job_id)
    assert (found["job"]["cancel_requested_at"], found["address"]["city"]) == (LATER, "Village")
    with reading() as session:
        assert len(events_of(session, job_id, EventKind.CANCEL_ACCEPTED)) == 1


def test_a_cancel_asked_again_of_a_job_completed_by_it_answers_the_same(sqlite: str) -> None:
    """A Completed job that was not cancelled refuses."""
    assert patch(new_job("Completed", cancelled=True), CHANGES["cancelRequested"][1]) is Outcome.NOTHING_TO_DO
    with pytest.raises(JobStateConflictError, match="a Completed job cannot take 'cancel'"):
        patch(new_job("Completed", "job2"), CHANGES["cancelRequested"][1])


@pytest.mark.parametrize("state", JobState)
def test_a_false_that_a_client_sends_with_every_update_is_read_over_where_it_is_too_late(
    sqlite: str, state: JobState
) -> None:
    """`backupDriveManifest: false`, which 1.0.0b2 sends by default, beside a tag that may always be changed."""
    with writing() as session:
        job_id = job_in(session, state, backupDriveManifest=True)
    body = parse(UpdateJobBody, json.dumps({"tags": {"a": "b"}, "properties": {"backupDriveManifest": False}}))
    with writing() as session:
        assert update_job(session, job_id, body, at=LATER, by=Actor.CUSTOMER) is Outcome.DONE
    with reading() as session:
        job = read_job(session, job_id)
        assert job.tags == {"a": "b"}
        assert job.backup_drive_manifest is (state not in EARLY)
