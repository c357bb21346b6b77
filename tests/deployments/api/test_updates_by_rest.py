"""Create, update, cancel and delete by HTTP: the specification's tables, on both databases.

A test makes its jobs in its own process, on the database that is served: by a process of its own where what is
promised is about moments, connections or bytes, else in the same process.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx
import pytest
from starlette.testclient import TestClient

from deployments.api.application import make_application
from deployments.api.tokens import read_local_token
from models.database import reading, writing
from models.jobs import read_named_job
from models.lifecycle import JobState
from models.settings import Settings
from tests.builders import (
    ADDRESS,
    DRIVE,
    PACKAGE,
    RETURN_SHIPPING,
    at_once,
    events_of,
    job_in,
    job_request,
    put,
    rows_of,
    set_columns,
    with_every_row,
)
from tests.deployments.api.conftest import Server

# Section 5, copied by hand: in which states a property may be changed.
EARLY: Final = ("Creating", "Shipping", "Received", "Transferring")
STATES: Final = (*EARLY, "Packaging", "Completed", "Closed")
TABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "state": ("Creating",),
    "cancelRequested": EARLY,
    "deliveryPackage": ("Creating", "Shipping"),
    "driveList": ("Creating",),
    "returnAddress": EARLY,
    "returnShipping": EARLY,
    "logLevel": EARLY,
    "backupDriveManifest": EARLY,
    "tags": STATES,
}
# A change of each.
CHANGES: Final[Mapping[str, dict[str, Any]]] = {
    "state": {"properties": {"state": "Shipping"}},
    "cancelRequested": {"properties": {"cancelRequested": True}},
    "deliveryPackage": {"properties": {"deliveryPackage": {**PACKAGE, "trackingNumber": "TRACK2"}}},
    "driveList": {"properties": {"driveList": [{**DRIVE, "driveId": "SERIAL2"}]}},
    "returnAddress": {"properties": {"returnAddress": {**ADDRESS, "city": "Village"}}},
    "returnShipping": {"properties": {"returnShipping": {**RETURN_SHIPPING, "carrierAccountNumber": "ACCOUNT2"}}},
    "logLevel": {"properties": {"logLevel": "Verbose"}},
    "backupDriveManifest": {"properties": {"backupDriveManifest": True}},
    "tags": {"tags": {"a": "b"}},
}
# What real clients send with every request, and what is so already.
WITHOUT_CHANGE: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"tags": None, "properties": dict.fromkeys(["state", "cancelRequested", *TABLE])},
    {"properties": {"state": ""}},
    {"properties": {"cancelRequested": False}},
    {
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
)
BAREST: Final[dict[str, Any]] = {"returnAddress": None, "returnShipping": None, "deliveryPackage": None}
EXPORT: Final[dict[str, Any]] = {
    "jobType": "Export",
    "driveList": None,
    "export": {"blobList": {"blobPathPrefix": ["/"]}},
}
EXPORT_OF_NOTHING: Final[dict[str, Any]] = {**EXPORT, "export": {"blobList": {}}}
EXPORT_WITH_DRIVES: Final[dict[str, Any]] = {**EXPORT, "driveList": [DRIVE]}
WHAT_SOMEBODY_WROTE: Final = "Zebulon"
BODY_BYTES_MAX: Final = 2**20


class InProcess(Server):
    """An API in the process of the test: sooner there than one of its own, and the same routes."""

    def client(self, token: str | None = None, **options: Any) -> Any:
        """Make a client of an application of its own."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return TestClient(make_application(), headers=headers, **options)


@pytest.fixture
def in_process(any_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[InProcess]:
    """Serve an empty database in this process, SQLite and PostgreSQL in turn."""
    monkeypatch.setenv("DRIVEPOST_API_REQUESTS_PER_MINUTE", "1000000")
    before = logging.getLogRecordFactory()
    yield InProcess("", read_local_token(Settings().token_file), Path())
    logging.setLogRecordFactory(before)  # an application guards them


def make(*jobs: tuple[str, str], cancelled: bool = False, **properties: Any) -> None:
    """Make jobs, each of a name and in a state."""
    with writing() as session:
        for name, state in jobs:
            job_in(session, JobState(state), name, cancelled=cancelled, **properties)


def id_of(name: str) -> UUID:
    """Find the opaque id of a job."""
    with reading() as session:
        return read_named_job(session, "s1", "g1", name).id


def rows(job_id: UUID) -> dict[str, int]:
    """Count the rows that tell of a job; the runs that Prefect has yet to forget aside."""
    with reading() as session:
        return {table: count for table, count in rows_of(session, job_id).items() if count and table != "job_run"}


def body(location: str = "West US", tags: dict[str, str] | None = None, **properties: Any) -> dict[str, Any]:
    """Make a body of Create Job."""
    made: dict[str, Any] = job_request(location=location, tags=tags, **properties)["body"]
    return made


def properties_of(answer: httpx.Response) -> dict[str, Any]:
    """Read the properties of a job that was answered."""
    assert answer.status_code in {200, 201}, answer.text
    told: dict[str, Any] = answer.json()["properties"]
    return told


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Read a refusal, and see that it has the one shape that refusals have."""
    assert answer.status_code == status, answer.text
    told: dict[str, Any] = answer.json()["error"]
    assert set(answer.json()) == {"error"}
    assert set(told) <= {"code", "message", "target", "details"}
    assert told["code"]
    assert told["message"]
    if "details" in told:
        assert told["target"] == told["details"][0]["target"]
        assert all(set(each) == {"code", "message", "target"} and all(each.values()) for each in told["details"])
    return told


def targets(answer: httpx.Response, status: int = 400) -> set[str]:
    """Tell which places a refusal names."""
    return {each["target"] for each in error_of(answer, status).get("details", ())}


def says(told: Any, wanted: Any) -> bool:
    """Tell whether an answer holds everything that was wanted."""
    if isinstance(wanted, dict):
        return isinstance(told, dict) and all(
            name in told and says(told[name], each) for name, each in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(told, list) and len(told) == len(wanted) and all(map(says, told, wanted))
    return bool(told == wanted)


# The table of section 5.


def test_a_property_is_changed_in_the_states_of_the_table_and_refused_in_every_other(server: Server) -> None:
    """Property by state: done, and harmless when asked again; or 409, which names state and property."""
    make(*[(f"{name}-{state}", state) for name in TABLE for state in STATES])
    done: dict[str, tuple[str, ...]] = {}
    with server.client() as client:
        for name, change in CHANGES.items():
            changed = []
            for state in STATES:
                url = server.job_url(f"{name}-{state}")
                before = client.get(url).json()
                answer = client.patch(url, json=change)
                after = client.get(url).json()
                if answer.status_code == 200:
                    assert answer.json() == after
                    assert says(after, change), (name, state)
                    assert client.patch(url, json=change).json() == after, "asked again, it is so already"
                    changed += [state] if after != before else []
                    continue
                _see_that_it_names_all(answer, name, state)
                assert after == before
            done[name] = tuple(changed)
    assert done == TABLE


def _see_that_it_names_all(answer: httpx.Response, name: str, state: str) -> None:
    told = error_of(answer, 409)
    assert f"{state} job" in told["message"]
    if name in {"state", "cancelRequested"}:
        assert told["code"] == "JobStateConflict"
        return
    assert told["code"] == "PropertyNotUpdatable"
    assert [each["target"] for each in told["details"]] == [f"properties.{name}"]
    can = {each for each, states in TABLE.items() if state in states}
    assert {each for each in TABLE if each in told["message"].partition("what can be is")[2]} == can


def test_marking_as_shipped_again_does_nothing(in_process: InProcess) -> None:
    """The one cell of the table that is neither: a Shipping job is Shipping."""
    make(("job1", "Shipping"))
    with in_process.client() as client:
        before = client.get(in_process.job_url()).json()
        answer = client.patch(in_process.job_url(), json=CHANGES["state"])
    assert (answer.status_code, answer.json()) == (200, before)


def test_what_would_change_nothing_is_accepted_in_every_state(in_process: InProcess) -> None:
    """Nulls, defaults, and what is so already; nothing is written, and no moment moves."""
    make(*[(f"job-{state}", state) for state in STATES])
    make(*[(f"cut-{state}", state) for state in (*EARLY, "Completed")], cancelled=True)
    names = [f"job-{state}" for state in STATES] + [f"cut-{state}" for state in (*EARLY, "Completed")]
    with in_process.client() as client:
        for name in names:
            before = client.get(in_process.job_url(name)).json()
            for nothing in WITHOUT_CHANGE:
                answer = client.patch(in_process.job_url(name), json=nothing)
                assert (answer.status_code, answer.json()) == (200, before), (name, nothing)
            assert before["properties"]["cancelRequested"] is name.startswith("cut-"), "false undoes no cancel"
    with reading() as session:
        assert not [event for name in names for event in events_of(session, id_of(name)) if event.what]


def test_several_properties_are_changed_together(in_process: InProcess) -> None:
    """With the state among them."""
    make(("job1", "Creating"))
    every: dict[str, Any] = {"tags": CHANGES["tags"]["tags"], "properties": {}}
    for name in TABLE:
        if name not in {"tags", "cancelRequested"}:
            every["properties"] |= CHANGES[name]["properties"]
    with in_process.client() as client:
        answer = client.patch(in_process.job_url(), json=every)
        assert answer.status_code == 200
        assert says(answer.json(), every)
        assert client.get(in_process.job_url()).json() == answer.json()


def test_one_property_that_may_not_be_changed_keeps_back_all_the_others(in_process: InProcess) -> None:
    """A cancel among them, too; and each that was refused is named by its place."""
    make(("job1", "Received"))
    with in_process.client() as client:
        before = client.get(in_process.job_url()).json()
        for refused in (["deliveryPackage"], ["driveList"], ["deliveryPackage", "driveList"], ["state"]):
            asked: dict[str, Any] = {**CHANGES["returnAddress"]["properties"], "cancelRequested": True}
            for name in refused:
                asked |= CHANGES[name]["properties"]
            answer = client.patch(in_process.job_url(), json={"tags": {"a": "b"}, "properties": asked})
            assert "Received job" in error_of(answer, 409)["message"]
            if refused != ["state"]:
                assert targets(answer, 409) == {f"properties.{name}" for name in refused}
            assert "Village" not in answer.text
            assert "SERIAL2" not in answer.text
            assert client.get(in_process.job_url()).json() == before


# Shipping.


def test_a_job_is_marked_as_shipped_with_address_and_package_from_now_or_before(in_process: InProcess) -> None:
    """All that is missing is named at once; tracking data alone ships nothing."""
    parts: dict[str, dict[str, Any]] = {
        "returnAddress": {"returnAddress": ADDRESS},
        "deliveryPackage": {"deliveryPackage": PACKAGE},
    }
    make(("job1", "Creating"), ("job2", "Creating"), ("job3", "Creating"), **BAREST)
    ship = {"state": "Shipping"}
    with in_process.client() as client:
        for known, name in (("returnAddress", "job1"), ("deliveryPackage", "job2")):
            url, missing = in_process.job_url(name), next(part for part in parts if part != known)
            answer = client.patch(url, json={"properties": ship})
            assert error_of(answer, 400)["code"] == "NotReadyToShip"
            assert targets(answer) == {f"properties.{part}" for part in parts}
            answer = client.patch(url, json={"properties": {**ship, **parts[known]}})
            assert targets(answer) == {f"properties.{missing}"}
            assert known not in properties_of(client.get(url)), "all or nothing"
            assert properties_of(client.patch(url, json={"properties": parts[known]}))["state"] == "Creating"
            answer = client.patch(url, json={"properties": {**ship, **parts[missing]}})
            assert properties_of(answer)["state"] == "Shipping"
        both = {**parts["returnAddress"], **parts["deliveryPackage"]}
        url = in_process.job_url("job3")
        assert properties_of(client.patch(url, json={"properties": both}))["state"] == "Creating"
        assert properties_of(client.patch(url, json={"properties": ship}))["state"] == "Shipping"


def test_a_package_without_carrier_or_number_is_refused_by_its_place(in_process: InProcess) -> None:
    """And the job is where it was."""
    make(("job1", "Creating"), **BAREST)
    asked = {"properties": {"state": "Shipping", "returnAddress": ADDRESS, "deliveryPackage": {"carrierName": ""}}}
    with in_process.client() as client:
        answer = client.patch(in_process.job_url(), json=asked)
        assert targets(answer) == {
            "properties.deliveryPackage.carrierName",
            "properties.deliveryPackage.trackingNumber",
        }
        assert properties_of(client.get(in_process.job_url()))["state"] == "Creating"


# Cancelling.


def test_a_cancel_is_answered_at_once_and_asked_again_answers_the_same(server: Server) -> None:
    """In every state before Packaging; false and null undo nothing, and it is written down once."""
    make(*[(f"job-{state}", state) for state in EARLY])
    with server.client() as client:
        for state in EARLY:
            url = server.job_url(f"job-{state}")
            answer = client.patch(url, json=CHANGES["cancelRequested"])
            assert properties_of(answer)["cancelRequested"] is True
            assert properties_of(answer)["state"] == state
            for again in (True, False, None):
                same = client.patch(url, json={"properties": {"cancelRequested": again}})
                assert (same.status_code, same.json()) == (200, answer.json())
            assert client.get(url).json() == answer.json()
            with reading() as session:
                kinds = [event.kind.value for event in events_of(session, id_of(f"job-{state}"))]
            assert kinds.count("cancel accepted") == 1


def test_a_cancel_is_refused_from_packaging_on_with_the_way_out(in_process: InProcess) -> None:
    """Which is to wait, to delete, or nothing."""
    ways = {"Packaging": "sent back", "Completed": "can be deleted", "Closed": "90 days"}
    make(*[(f"job-{state}", state) for state in ways])
    with in_process.client() as client:
        for state, way_out in ways.items():
            told = error_of(client.patch(in_process.job_url(f"job-{state}"), json=CHANGES["cancelRequested"]), 409)
            assert told["code"] == "JobStateConflict"
            assert f"{state} job" in told["message"]
            assert way_out in told["message"]
            assert properties_of(client.get(in_process.job_url(f"job-{state}")))["cancelRequested"] is False


def test_a_cancelled_job_is_neither_shipped_nor_replaced(in_process: InProcess) -> None:
    """The cancel cannot be withdrawn that way either."""
    make(("job1", "Creating"), cancelled=True)
    with in_process.client() as client:
        before = client.get(in_process.job_url()).json()
        for answer in (
            client.patch(in_process.job_url(), json=CHANGES["state"]),
            client.put(in_process.job_url(), json=body()),
        ):
            assert error_of(answer, 409)["code"] == "CancelAccepted"
        assert client.get(in_process.job_url()).json() == before


# Deleting.


def test_a_deleted_job_is_gone_before_the_answer(server: Server) -> None:
    """200 with nothing in it; every row is gone, the job of the other name stays, and the name is free at once."""
    make(("job1", "Creating"), ("job2", "Completed"), ("stays", "Completed"))
    make(("cut", "Completed"), cancelled=True)
    ids = {name: id_of(name) for name in ("job1", "job2", "cut", "stays")}
    with writing() as session:
        for job_id in ids.values():
            with_every_row(session, job_id)
    stays = rows(ids["stays"])
    with server.client() as client:
        for name in ("job1", "job2", "cut"):
            url = server.job_url(name)
            answer = client.delete(url)
            assert (answer.status_code, answer.content) == (200, b"")
            assert rows(ids[name]) == {}
            for gone in (client.get(url), client.delete(url), client.patch(url, json={})):
                assert error_of(gone, 404)["code"] == "ResourceNotFound"
            assert error_of(client.get(f"/portal/jobs/{ids[name]}"), 404)["code"] == "ResourceNotFound"
            assert error_of(client.get(f"/portal/jobs/{ids[name]}/events"), 404)["code"] == "ResourceNotFound"
            listed = client.get(server.job_url(part="").replace("/jobs/job1?", "/jobs?")).json()["value"]
            assert name not in {job["name"] for job in listed}
            assert client.put(url, json=body()).status_code == 201
    assert rows(ids["stays"]) == stays


def test_a_job_that_is_on_its_way_or_closed_is_not_deleted(in_process: InProcess) -> None:
    """409 names the state and the way out; everything stays."""
    ways = {
        **dict.fromkeys(["Shipping", "Received", "Transferring"], "cancel it first"),
        "Packaging": "once it is Completed",
        "Closed": "90 days",
    }
    make(*[(f"job-{state}", state) for state in ways])
    make(*[(f"cut-{state}", state) for state in EARLY[1:]], cancelled=True)
    with in_process.client() as client:
        for name in [*(f"job-{state}" for state in ways), *(f"cut-{state}" for state in EARLY[1:])]:
            state, before = name.partition("-")[2], rows(id_of(name))
            told = error_of(client.delete(in_process.job_url(name)), 409)
            assert told["code"] == "JobStateConflict"
            assert f"{state} job" in told["message"]
            assert ways[state] in told["message"]
            assert rows(id_of(name)) == before
            assert client.get(in_process.job_url(name)).status_code == 200


def test_of_two_deletions_at_the_same_moment_one_wins(server: Server) -> None:
    """The other finds nothing; never anything else."""
    make(*[(f"job{number}", "Completed") for number in range(8)])
    with server.client() as one, server.client() as other:
        for number in range(8):
            url = server.job_url(f"job{number}")
            answers = at_once(partial(one.delete, url), partial(other.delete, url))
            assert sorted(_status(answer) for answer in answers) == [200, 404], answers


def test_of_a_cancel_and_a_deletion_at_the_same_moment_each_is_explained(server: Server) -> None:
    """Either the cancel came first and the job is deleted all the same, or there was nothing left to cancel."""
    make(*[(f"job{number}", "Creating") for number in range(8)])
    with server.client() as one, server.client() as other:
        for number in range(8):
            url = server.job_url(f"job{number}")
            cancel, deletion = at_once(
                partial(one.patch, url, json=CHANGES["cancelRequested"]), partial(other.delete, url)
            )
            assert _status(deletion) == 200
            assert _status(cancel) in {200, 404}
            assert one.get(url).status_code == 404


def _status(answer: object) -> int:
    assert isinstance(answer, httpx.Response), answer
    return answer.status_code


# Putting.


def test_a_put_creates_and_a_second_put_replaces(in_process: InProcess) -> None:
    """201, then 200; what the second leaves out is gone, names stay as first written, and the id is kept."""
    second = body("westeurope", returnShipping=None, deliveryPackage=None, logLevel="Verbose")
    second["properties"]["driveList"] = [{**DRIVE, "driveId": name} for name in ("NEW1", "NEW2")]
    with in_process.client() as client:
        first = client.put(in_process.job_url("Job1"), json=body(tags={"a": "b"}))
        assert (first.status_code, first.json()["location"], first.json()["tags"]) == (201, "West US", {"a": "b"})
        job_id = id_of("job1")
        answer = client.put(in_process.job_url("JOB1", group="G1"), json=second)
        assert (answer.status_code, answer.json()["location"]) == (200, "westeurope")
        read = client.get(in_process.job_url("job1")).json()
    assert (read["name"], read["location"], read["id"]) == ("Job1", "West Europe", first.json()["id"])
    assert {**read, "location": ""} == {**answer.json(), "location": ""}
    assert [drive["driveId"] for drive in read["properties"]["driveList"]] == ["NEW1", "NEW2"]
    assert not {"returnShipping", "deliveryPackage"} & read["properties"].keys()
    assert "tags" not in read
    assert read["systemData"]["createdAt"] == first.json()["systemData"]["createdAt"]
    assert id_of("job1") == job_id


def test_a_second_put_is_refused_once_the_job_has_left_creating(in_process: InProcess) -> None:
    """409 names the state and the way out, and nothing of the job is changed."""
    make(*[(f"job-{state}", state) for state in STATES[1:]])
    with in_process.client() as client:
        for state in STATES[1:]:
            url = in_process.job_url(f"job-{state}")
            before = client.get(url).json()
            told = error_of(client.put(url, json=body(logLevel="Verbose")), 409)
            assert told["code"] == "JobStateConflict"
            assert f"{state} job" in told["message"]
            assert "another name" in told["message"]
            assert client.get(url).json() == before


def test_a_put_reads_over_what_is_the_services_own(in_process: InProcess) -> None:
    """State, progress, where drives are sent, what came of them: neither taken nor refused."""
    theirs: dict[str, Any] = {
        "state": "Completed",
        "percentComplete": 77,
        "provisioningState": "Failed",
        "shippingInformation": {"recipientName": "Zebulon", "city": "Xanadu"},
        "returnPackage": {**PACKAGE, "trackingNumber": "TRACK9"},
        "incompleteBlobListUri": "https://example.invalid/list",
        "cancelRequested": False,
    }
    drive = {
        **DRIVE,
        "state": "ShippedBack",
        "copyStatus": "Completed",
        "percentComplete": 100,
        "bytesSucceeded": 5,
        "errorLogUri": "https://example.invalid/log",
    }
    with in_process.client() as client:
        plain = client.put(in_process.job_url("plain"), json=body())
        answer = client.put(
            in_process.job_url(),
            json={**body(**theirs, driveList=[drive]), "id": "x", "name": "x", "type": "x", "systemData": {}},
        )
        assert (plain.status_code, answer.status_code) == (201, 201)
        told = client.get(in_process.job_url()).json()
        assert told["properties"] == properties_of(plain)
        assert (told["name"], told["properties"]["state"]) == ("job1", "Creating")
        again = client.put(in_process.job_url(), json=told)
        assert properties_of(again) == told["properties"], "what was read may be put again"
        assert again.status_code == 200


# Wrong input.


def nested(depth: int) -> bytes:
    """A body whose one member is so many lists deep."""
    return b'{"location":' + b"[" * depth + b"]" * depth + b"}"


def drives(*names: str) -> list[dict[str, str]]:
    """A list of drives of these serial numbers."""
    return [{**DRIVE, "driveId": name} for name in names]


ELEVEN: Final = drives(*(f"D{number}" for number in range(11)))
W: Final = WHAT_SOMEBODY_WROTE
_P: Final = "properties"

# Body -> which places are named, each as section 8 and the issue have it.
WRONG: Final[Mapping[str, tuple[Any, set[str]]]] = {
    "unknown location": (body(f"{W} Bay"), {"location"}),
    "no location": ({"properties": body()["properties"]}, {"location"}),
    "eleven drives": (body(driveList=ELEVEN), {f"{_P}.driveList"}),
    "a drive twice": (body(driveList=drives(f"{W}1", "D2", f"{W}1".lower())), {f"{_P}.driveList"}),
    "export without blobs": (body(**EXPORT_OF_NOTHING), {f"{_P}.export"}),
    "export without export": (body(**{**EXPORT, "export": None}), {_P}),
    "export with drives": (body(**EXPORT_WITH_DRIVES), {_P}),
    "import without drives": (body(driveList=None), {_P}),
    "import of no drives": (body(driveList=[]), {_P}),
    "not JSON": (f"{W} = 5".encode(), {"body"}),
    "half of it": (json.dumps(body()).encode()[:-9], {"body"}),
    "nothing": (b"", {"body"}),
    "no text": (b"\xff\xfe\x00", {"body"}),
    "a list": ([W], {"body"}),
    "a text": (json.dumps(W).encode(), {"body"}),
    "null": (b"null", {"body"}),
    "deep": (nested(100_000), {"body"}),
    "deep objects": (b'{"a":' * 100_000, {"body"}),
    "less deep": (nested(150), {"location", "properties"}),
    "over 1 MiB": (json.dumps(body()).encode().ljust(BODY_BYTES_MAX + 1), {"body"}),
    "far over 1 MiB": (json.dumps(body(diagnosticsPath=W * 10**6)).encode(), {"body"}),
    "numbers for texts": (
        body(storageAccountId=5, diagnosticsPath=5),
        {f"{_P}.storageAccountId", f"{_P}.diagnosticsPath"},
    ),
    "texts for objects": ({"location": "West US", "tags": W, "properties": W}, {"tags", "properties"}),
    "lists for objects": (
        body(returnAddress=[W], returnShipping=[W]),
        {f"{_P}.returnAddress", f"{_P}.returnShipping"},
    ),
    "an object for a list": (body(driveList={"driveId": W}), {f"{_P}.driveList"}),
    "a text for a drive": (body(driveList=[W]), {f"{_P}.driveList[0]"}),
    "words that are none": (
        body(jobType=W, logLevel=W, backupDriveManifest=W),
        {f"{_P}.{name}" for name in ("jobType", "logLevel", "backupDriveManifest")},
    ),
    "a drive of nothing right": (
        body(driveList=[{"driveId": f"{W} {W}", "manifestFile": 5, "manifestHash": W}]),
        {f"{_P}.driveList[0].{name}" for name in ("driveId", "manifestFile", "manifestHash")},
    ),
    "an address of nothing": (
        body(returnAddress={"city": [W]}),
        {f"{_P}.returnAddress.{name}" for name in ADDRESS if name not in {"streetAddress2", "stateOrProvince"}},
    ),
    "a tag's name": ({**body(), "tags": {W * 100: "x"}}, {"tags"}),
    "everything at once": (
        {
            "location": f"{W} Bay",
            "tags": {"a": 5},
            "properties": {
                **body()["properties"],
                "storageAccountId": W,
                "driveList": [*ELEVEN[:10], {"driveId": "d1"}],
                "returnShipping": {"carrierName": W * 99},
                "export": {},
            },
        },
        {
            "location",
            "tags",
            _P,
            f"{_P}.storageAccountId",
            f"{_P}.driveList",
            f"{_P}.driveList[10].manifestFile",
            f"{_P}.driveList[10].manifestHash",
            f"{_P}.returnShipping.carrierName",
            f"{_P}.returnShipping.carrierAccountNumber",
            f"{_P}.export",
        },
    ),
}  # fmt: skip
NAMES: Final = ("1abc", "a", "a" * 65, "-ab", f"{WHAT_SOMEBODY_WROTE}.b", "a b", "ä" * 5)


def _content(document: Any) -> bytes:
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def _named(
    send: Callable[..., httpx.Response], url: str, wrong: Mapping[str, tuple[Any, set[str]]]
) -> dict[str, set[str]]:
    """Send what is wrong; tell of each case which places were named."""
    found = {}
    for case, (document, _) in wrong.items():
        answer = send(url, content=_content(document))
        found[case] = targets(answer)
        assert error_of(answer, 400)["code"] == "InvalidRequestContent"
        assert WHAT_SOMEBODY_WROTE not in answer.text, case
    return found


def test_a_wrong_create_is_refused_with_every_fault_named_at_once(in_process: InProcess) -> None:
    """By its place and never by its value; nothing is written."""
    with in_process.client() as client:
        found = _named(client.put, in_process.job_url(), WRONG)
        assert found == {case: named for case, (_, named) in WRONG.items()}
        assert client.get(in_process.job_url()).status_code == 404


def test_a_wrong_name_is_named_together_with_what_is_wrong_in_the_body(in_process: InProcess) -> None:
    """And alone, where the body is right."""
    with in_process.client() as client:
        for name in NAMES:
            url = in_process.job_url(name)
            answer = client.put(url, json=body())
            assert targets(answer) == {"jobName"}
            assert WHAT_SOMEBODY_WROTE not in answer.text
            answer = client.put(url, json=body("Atlantis", driveList=ELEVEN))
            assert targets(answer) == {"jobName", "location", f"{_P}.driveList"}
            assert client.get(url).status_code == 404
        url = in_process.job_url("-", subscription="s_1", group="g 1")
        answer = client.put(url, json={"location": "Atlantis"})
        assert targets(answer) == {"subscriptionId", "resourceGroupName", "jobName", "location", "properties"}


def test_a_name_that_no_database_keeps_is_a_job_that_is_not_there(in_process: InProcess) -> None:
    """U+0000 in a path: nothing of the service's is broken by it."""
    with in_process.client() as client:
        url = in_process.job_url("a%00b")
        assert targets(client.put(url, json=body())) == {"jobName"}
        answers = (client.get(url), client.patch(url, json={}), client.delete(url))
        assert {answer.status_code for answer in answers} <= {400, 404}, [answer.text for answer in answers]


def test_a_body_of_exactly_1_mib_is_taken(sqlite_server: Server) -> None:
    """One byte more is not."""
    content = json.dumps(body()).encode()
    with sqlite_server.client() as client:
        assert client.put(sqlite_server.job_url(), content=content.ljust(BODY_BYTES_MAX)).status_code == 201
        for more in (content.ljust(BODY_BYTES_MAX + 1), content.ljust(2 * BODY_BYTES_MAX)):
            for sent in (more, iter([more[:1000], more[1000:]])):
                answer = client.put(sqlite_server.job_url(), content=sent)
                assert "1 MiB" in error_of(answer, 400)["message"]
        assert client.get(sqlite_server.job_url()).status_code == 200, "the server goes on"


def test_an_answer_stays_small_however_many_faults_there_are(in_process: InProcess) -> None:
    """At most a hundred are named; an answer twenty times the request would be a lever in a stranger's hand."""
    many = body(**{**EXPORT, "export": {"blobList": {"blobPath": [5] * 20_000}}})
    with in_process.client() as client:
        answer = client.put(in_process.job_url(), json=many)
        assert 1 <= len(error_of(answer, 400)["details"]) <= 100
        assert len(answer.content) <= len(_content(many))


def test_a_wrong_update_is_refused_with_every_fault_named_at_once(in_process: InProcess) -> None:
    """Nothing of it is done, a cancel beside it neither."""
    wrong: dict[str, tuple[Any, set[str]]] = {
        "a state that is not theirs to say": ({_P: {"state": "Completed"}}, {f"{_P}.state"}),
        "eleven drives": ({_P: {"driveList": ELEVEN}}, {f"{_P}.driveList"}),
        "a drive twice": ({_P: {"driveList": drives("D1", "d1")}}, {f"{_P}.driveList"}),
        "no drives": ({_P: {"driveList": []}}, {f"{_P}.driveList"}),
        "not JSON": (f"{W}".encode(), {"body"}),
        "a list": ([W], {"body"}),
        "deep": (nested(100_000), {"body"}),
        "over 1 MiB": (b"{}".ljust(BODY_BYTES_MAX + 1), {"body"}),
        "all of it": (
            {
                "tags": {str(number): "x" for number in range(51)},
                _P: {
                    "state": W,
                    "cancelRequested": W,
                    "logLevel": W,
                    "backupDriveManifest": [W],
                    "deliveryPackage": {"carrierName": W, "trackingNumber": W, "driveCount": -1},
                    "returnAddress": W,
                    "returnShipping": {"carrierName": W},
                    "driveList": [W],
                },
            },
            {
                "tags",
                f"{_P}.deliveryPackage.driveCount",
                f"{_P}.returnShipping.carrierAccountNumber",
                f"{_P}.driveList[0]",
                *(
                    f"{_P}.{name}"
                    for name in ("state", "cancelRequested", "logLevel", "backupDriveManifest", "returnAddress")
                ),
            },
        ),
    }
    make(("job1", "Creating"))
    with in_process.client() as client:
        before = client.get(in_process.job_url()).json()
        found = _named(client.patch, in_process.job_url(), wrong)
        assert found == {case: named for case, (_, named) in wrong.items()}
        beside = {_P: {"cancelRequested": True, "logLevel": W}}
        assert targets(client.patch(in_process.job_url(), json=beside)) == {f"{_P}.logLevel"}
        assert client.get(in_process.job_url()).json() == before


def test_a_job_of_another_type_keeps_its_rules_at_update(in_process: InProcess) -> None:
    """An Export job is given no drives."""
    with writing() as session:
        put(session, job_request("export", **EXPORT))
    with in_process.client() as client:
        answer = client.patch(in_process.job_url("export"), json=CHANGES["driveList"])
        assert targets(answer) == {"properties.driveList"}
        assert properties_of(client.patch(in_process.job_url("export"), json={_P: {"driveList": []}}))


def test_the_list_of_what_fit_on_no_drive_is_told_once_there_is_one(in_process: InProcess) -> None:
    """As the description has it, beside the job's other properties; before, it is absent."""
    export: dict[str, Any] = {
        "jobType": "Export",
        "driveList": None,
        "export": {"blobList": {"blobPathPrefix": ["/"]}},
    }
    make(("job1", "Packaging"), **export)
    with in_process.client() as client:
        assert "incompleteBlobListUri" not in properties_of(client.get(in_process.job_url()))
        with writing() as session:
            set_columns(session, id_of("job1"), incomplete_blob_list_uri="https://example.invalid/list.xml")
        told = properties_of(client.get(in_process.job_url()))
        assert told["incompleteBlobListUri"] == "https://example.invalid/list.xml"
