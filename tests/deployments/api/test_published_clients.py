"""The published clients of Microsoft.ImportExport work as they are, against a server on a real port.

0.1.0 (2016-11-01, over plain http) lives in our environment. 1.0.0b2 (2021-01-01, over TLS alone) goes by the same
name, so that it is installed aside and driven in a process of its own: `newer_client.py`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from azure.mgmt.storageimportexport import StorageImportExport, models
from azure.mgmt.storageimportexport.models import ErrorResponseException, UpdateJobParameters
from msrest.authentication import BasicTokenAuthentication

from models.database import reading, writing
from models.jobs import read_job, read_named_job
from models.lifecycle import JobState
from tests.builders import ACCOUNT, DRIVE, job_in
from tests.deployments.api.conftest import Server, serving
from tests.deployments.api.newer_client import built

NEWER: Final = "azure-mgmt-storageimportexport==1.0.0b2"
INSTALL_SECONDS_MAX: Final = 120
DRIVER_SECONDS_MAX: Final = 60
KEY: Final = "238810-662376-448998-450120-652806-203390-606320-483076"

# By hand: the ten operations, as both clients name them.
OPERATIONS: Final = {
    "bit_locker_keys.list",
    "jobs.create",
    "jobs.delete",
    "jobs.get",
    "jobs.list_by_resource_group",
    "jobs.list_by_subscription",
    "jobs.update",
    "locations.get",
    "locations.list",
    "operations.list",
}
RETURN_ADDRESS: Final = {
    "recipient_name": "Ada Example",
    "street_address1": "1 Road",
    "city": "Town",
    "postal_code": "12345",
    "country_or_region": "USA",
    "phone": "5550100",
    "email": "ada@example.com",
}
RETURN_SHIPPING: Final = {"carrier_name": "FedEx", "carrier_account_number": "ACCOUNT1"}
PACKAGE: Final = {
    "carrier_name": "FedEx",
    "tracking_number": "TRACK1",
    "drive_count": 1,
    "ship_date": "2026-05-30",
}
DRIVES: Final = [
    {
        "drive_id": "SERIAL1",
        "bit_locker_key": KEY,
        "manifest_file": "\\DriveManifest.xml",
        "manifest_hash": "A" * 32,
    }
]
IMPORT: Final[dict[str, Any]] = {
    "storage_account_id": ACCOUNT,
    "job_type": "Import",
    "return_address": RETURN_ADDRESS,
    "return_shipping": RETURN_SHIPPING,
    "drive_list": DRIVES,
}
BODY: Final = {"location": "westus", "tags": {"site": "a"}, "properties": IMPORT}
SHIP: Final = {"state": "Shipping", "delivery_package": PACKAGE}
JOB: Final = {"job_name": "job1", "resource_group_name": "g1"}
LATE: Final = (JobState.PACKAGING, JobState.COMPLETED, JobState.CLOSED)


# 0.1.0


def client_of(server: Server, token: str | None = None, subscription: str = "s1") -> Any:
    """Make the client 0.1.0 of a server."""
    credentials = BasicTokenAuthentication({"access_token": server.token if token is None else token})
    return StorageImportExport(credentials, subscription, base_url=server.address)


def refused(call: Callable[[], object]) -> tuple[int, str]:
    """Tell the status and the code of what the client 0.1.0 raises; each has a text for people."""
    with pytest.raises(ErrorResponseException) as raised:
        call()
    error = raised.value.error
    assert error.message
    return raised.value.response.status_code, error.code


def put_body(**properties: Any) -> Any:
    """Make the body of Create Job with the models of 0.1.0; None removes a property."""
    details = {name: member for name, member in {**IMPORT, **properties}.items() if member is not None}
    return built(models, "PutJobParameters", {**BODY, "properties": details})


def test_the_operations_of_the_published_client_are_the_ten() -> None:
    """What is driven here is all there is: every public method of the client."""
    client = StorageImportExport(BasicTokenAuthentication({"access_token": "none"}), "s1", base_url="http://none")
    groups = ("operations", "locations", "jobs", "bit_locker_keys")
    found = {
        f"{group}.{name}"
        for group in groups
        for name, member in vars(type(getattr(client, group))).items()
        if callable(member) and not name.startswith("_")
    }
    assert found == OPERATIONS


def test_the_published_client_drives_every_operation(server: Server) -> None:
    """A job's life as 0.1.0 sees it: created, read, listed, replaced, shipped, cancelled; another one deleted."""
    client = client_of(server)
    assert "Microsoft.ImportExport/jobs/delete" in {each.name for each in client.operations.list()}
    assert len(list(client.locations.list())) == 35
    site = client.locations.get("West US")
    assert (site.name, site.id) == ("West US", "/providers/Microsoft.ImportExport/locations/westus")
    assert "FedEx" in site.supported_carriers

    made = client.jobs.create("job1", "g1", put_body(), raw=True)
    assert made.response.status_code == 201
    assert made.output.location == "westus"
    assert client.jobs.create("job1", "g1", put_body(log_level="Verbose"), raw=True).response.status_code == 200
    job = client.jobs.get("job1", "g1")
    assert (job.name, job.location, job.tags, job.type) == (
        "job1",
        "West US",
        {"site": "a"},
        "Microsoft.ImportExport/jobs",
    )
    assert (job.properties.state, job.properties.log_level) == ("Creating", "Verbose")
    assert job.properties.return_address.as_dict() == {
        **RETURN_ADDRESS,
        "street_address2": "",
        "state_or_province": "",
    }
    assert job.properties.shipping_information.city
    assert [(each.drive_id, each.bit_locker_key) for each in job.properties.drive_list] == [("SERIAL1", None)]
    assert [each.as_dict() for each in client.bit_locker_keys.list("job1", "g1")] == [
        {"bit_locker_key": KEY, "drive_id": "SERIAL1"}
    ]
    assert [each.properties.drive_list[0].drive_id for each in client.jobs.list_by_subscription()] == ["SERIAL1"]
    assert [each.properties.drive_list for each in client.jobs.list_by_resource_group("g1")] == [None]

    shipped = client.jobs.update("job1", "g1", built(models, "UpdateJobParameters", SHIP))
    assert (shipped.properties.state, shipped.properties.delivery_package.as_dict()) == ("Shipping", PACKAGE)
    client.jobs.create("job2", "g1", put_body())
    deleted = client.jobs.delete("job2", "g1", raw=True)
    assert (deleted.response.status_code, deleted.response.content) == (200, b"")
    assert [each.name for each in client.jobs.list_by_subscription()] == ["job1"]


def test_the_published_client_cancels_and_nothing_withdraws_it(sqlite_server: Server) -> None:
    """The answer says that it is asked for, once and again; `false` means nothing; then the job can be deleted."""
    client = client_of(sqlite_server)
    client.jobs.create("job1", "g1", put_body())
    client.jobs.create("job2", "g1", put_body(drive_list=[{**DRIVES[0], "drive_id": "SERIAL2"}]))
    for wish in (True, True, False, None):
        told = client.jobs.update("job1", "g1", UpdateJobParameters(cancel_requested=wish))
        assert told.properties.cancel_requested is True
    assert client.jobs.get("job1", "g1").properties.cancel_requested is True
    assert client.jobs.get("job2", "g1").properties.cancel_requested is False
    assert client.jobs.delete("job1", "g1") is None
    assert [each.name for each in client.jobs.list_by_subscription()] == ["job2"]


def test_the_published_client_reads_a_list_page_by_page(sqlite_server: Server) -> None:
    """Seven jobs by twos, through nextLink, of a subscription and of a group; filtered; nobody else's."""
    client = client_of(sqlite_server)
    with writing() as session:
        for number in range(7):
            job_in(session, JobState.SHIPPING if number % 2 else JobState.CREATING, f"job{number}")
    names = [f"job{number}" for number in range(7)]
    for pages in (client.jobs.list_by_subscription(top=2), client.jobs.list_by_resource_group("g1", top=2)):
        assert [[job.name for job in pages.advance_page()] for _ in range(4)] == [
            names[0:2],
            names[2:4],
            names[4:6],
            names[6:],
        ]
        with pytest.raises(StopIteration):
            pages.advance_page()
    creating = client.jobs.list_by_resource_group("g1", top=1, filter="state eq 'Creating'")
    assert [job.name for job in creating] == names[::2]
    assert list(client.jobs.list_by_resource_group("g2", top=1)) == []
    assert list(client_of(sqlite_server, subscription="s2").jobs.list_by_subscription(top=1)) == []


def test_the_published_client_sends_an_export_by_the_name_that_it_has_for_a_list_blob(
    sqlite_server: Server,
) -> None:
    """`blobListblobPath`, as no other client writes it, and an inline list."""
    client = client_of(sqlite_server)
    by_blob = put_body(job_type="Export", drive_list=None, export={"blob_listblob_path": "$root/list.xml"})
    assert by_blob.serialize()["properties"]["export"] == {"blobListblobPath": "$root/list.xml"}
    client.jobs.create("job1", "g1", by_blob)
    inline = {"blob_path": ["data/a"], "blob_path_prefix": ["/data/b"]}
    told = client.jobs.create("job2", "g1", put_body(job_type="Export", drive_list=None, export=inline))
    assert told.properties.export.as_dict() == inline
    with reading() as session:
        assert read_named_job(session, "s1", "g1", "job1").export_blob_list_blob_path == "$root/list.xml"
        assert read_named_job(session, "s1", "g1", "job2").export_blob_list_blob_path is None


def test_the_published_client_raises_what_is_refused(sqlite_server: Server) -> None:
    """404, 409, 400 and 401, of every operation that can be refused so, each with its code."""
    client, jobs = client_of(sqlite_server), client_of(sqlite_server).jobs
    with writing() as session:
        job_in(session, JobState.PACKAGING)
    for call in (
        lambda: client.locations.get("nowhere"),
        lambda: jobs.get("other", "g1"),
        lambda: jobs.update("other", "g1", UpdateJobParameters(tags={})),
        lambda: jobs.delete("other", "g1"),
        lambda: list(client.bit_locker_keys.list("other", "g1")),
    ):
        assert refused(call) == (404, "ResourceNotFound")
    assert refused(lambda: jobs.create("job1", "g1", put_body())) == (409, "JobStateConflict")
    assert refused(lambda: jobs.delete("job1", "g1")) == (409, "JobStateConflict")
    cancel = UpdateJobParameters(cancel_requested=True)
    assert refused(lambda: jobs.update("job1", "g1", cancel)) == (409, "JobStateConflict")
    verbose = UpdateJobParameters(log_level="Verbose")
    assert refused(lambda: jobs.update("job1", "g1", verbose)) == (409, "PropertyNotUpdatable")
    assert refused(lambda: list(jobs.list_by_subscription(top=101))) == (400, "InvalidRequestContent")
    assert refused(lambda: list(jobs.list_by_resource_group("g1", filter="?"))) == (400, "InvalidRequestContent")
    with pytest.raises(ErrorResponseException) as raised:
        jobs.create("job2", "g1", put_body(drive_list=None, storage_account_id="none", log_level="Loud"))
    assert raised.value.response.status_code == 400
    assert {fault.target for fault in raised.value.error.details} >= {
        "properties",
        "properties.logLevel",
        "properties.storageAccountId",
    }
    jobs.create("job3", "g1", put_body())
    ship = UpdateJobParameters(state="Shipping")
    assert refused(lambda: jobs.update("job3", "g1", ship)) == (400, "NotReadyToShip")


def test_the_published_client_is_told_that_its_token_does_not_count(sqlite_server: Server) -> None:
    """401 of all ten operations; nothing is created, changed or deleted."""
    with writing() as session:
        job_id = job_in(session, JobState.CREATING)
    client = client_of(sqlite_server, "wrong")
    for call in (
        lambda: client_of(sqlite_server, "").jobs.get("job1", "g1"),
        lambda: list(client.operations.list()),
        lambda: list(client.locations.list()),
        lambda: client.locations.get("westus"),
        lambda: client.jobs.create("job2", "g1", put_body()),
        lambda: client.jobs.get("job1", "g1"),
        lambda: client.jobs.update("job1", "g1", UpdateJobParameters(tags={"a": "b"})),
        lambda: list(client.jobs.list_by_subscription()),
        lambda: list(client.jobs.list_by_resource_group("g1")),
        lambda: list(client.bit_locker_keys.list("job1", "g1")),
        lambda: client.jobs.delete("job1", "g1"),
    ):
        assert refused(call) == (401, "InvalidAuthenticationToken")
    with reading() as session:
        assert read_job(session, job_id).tags == {}
    assert [job.name for job in client_of(sqlite_server).jobs.list_by_subscription()] == ["job1"]


def test_the_published_client_may_still_change_tags_when_all_else_is_over(sqlite_server: Server) -> None:
    """It sends what it is given and nothing else, so that backups of manifests may be on."""
    with writing() as session:
        for state in LATE:
            job_in(session, state, state, backupDriveManifest=True)
    for state in LATE:
        told = client_of(sqlite_server).jobs.update(state, "g1", UpdateJobParameters(tags={"a": "b"}))
        assert (told.tags, told.properties.state, told.properties.backup_drive_manifest) == (
            {"a": "b"},
            state,
            True,
        )


# 1.0.0b2


@pytest.fixture(scope="session")
def newer_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the newer client aside; what it stands on is in our environment."""
    folder = tmp_path_factory.mktemp("newer-client")
    options = ["--no-deps", "--quiet", "--disable-pip-version-check", "--target", str(folder)]
    installing = [sys.executable, "-m", "pip", "install", *options, NEWER]
    subprocess.run(installing, check=True, timeout=INSTALL_SECONDS_MAX)
    return folder


@dataclass(frozen=True, slots=True)
class NewerClient:
    """The client 1.0.0b2 in a process of its own, of a server with TLS."""

    server: Server
    certificates: Path
    package: Path

    def told(self, *steps: Mapping[str, Any], token: str | None = None) -> list[dict[str, Any]]:
        """Do steps in their order; tells of each what came of it."""
        asked = {
            "address": self.server.address,
            "token": self.server.token if token is None else token,
            "ca": str(self.certificates),
            "steps": steps,
        }
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("newer_client.py"))],
            input=json.dumps(asked),
            env={**os.environ, "PYTHONPATH": str(self.package)},
            capture_output=True,
            text=True,
            timeout=DRIVER_SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["version"] == NEWER.rpartition("=")[2]
        told: list[dict[str, Any]] = answer["told"]
        return told

    def answers(self, *steps: Mapping[str, Any]) -> list[Any]:
        """Do steps none of which is refused; gives their answers."""
        told = self.told(*steps)
        assert [each for each in told if "raised" in each] == []
        return [each["answer"] for each in told]


@pytest.fixture
def newer(sqlite: str, tmp_path: Path, newer_package: Path) -> Iterator[NewerClient]:
    """Serve with TLS, which the newer client insists on before it sends a token."""
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    trusted, certificate, key = (tmp_path / name for name in ("ca.pem", "certificate.pem", "key.pem"))
    authority.cert_pem.write_to_path(trusted)
    own.cert_chain_pems[0].write_to_path(certificate)
    own.private_key_pem.write_to_path(key)
    files = {
        "DRIVEPOST_API_TLS_CERTIFICATE_FILE": str(certificate),
        "DRIVEPOST_API_TLS_KEY_FILE": str(key),
    }
    with serving(tmp_path, DRIVEPOST_API_REQUESTS_PER_MINUTE="1000000", **files) as served:
        assert served.address.startswith("https://")
        yield NewerClient(served, trusted, newer_package)


def step(call: str, body: Any = None, **arguments: Any) -> dict[str, Any]:
    """Name one call of the newer client; by default of the job `job1`."""
    of_job = call.startswith(("jobs.", "bit_locker_keys.")) and not call.startswith("jobs.list")
    made = {"call": call, "arguments": {**(JOB if of_job else {}), **arguments}}
    return made if body is None else {**made, "body": body}


def test_the_newer_client_drives_every_operation(newer: NewerClient) -> None:
    """All ten, a body as models and as a document; a delete that raises nothing, and the name is free again."""
    steps = [
        step("operations.list"),
        step("locations.list"),
        step("locations.get", location_name="West US"),
        step("jobs.create", BODY),
        step("jobs.create", json.dumps({"location": "westus", "properties": _as_sent()})),
        step("jobs.get"),
        step("bit_locker_keys.list"),
        step("jobs.list_by_subscription"),
        step("jobs.list_by_resource_group", resource_group_name="g1"),
        step("jobs.update", SHIP),
        step("jobs.create", BODY, job_name="job2"),
        step("jobs.update", json.dumps({"tags": {"by": "document"}}), job_name="job2"),
        step("jobs.delete", job_name="job2"),
        step("jobs.create", BODY, job_name="job2"),
    ]
    assert {each["call"] for each in steps} == OPERATIONS
    told = newer.answers(*steps)
    operations, locations, site, made, replaced, got, keys, in_subscription, in_group, shipped = told[:10]
    assert "Microsoft.ImportExport/jobs/delete" in {each["name"] for each in operations}
    assert len(locations) == 35
    assert site in locations
    assert site["name"] == "West US"
    assert (made["location"], made["properties"]["state"], made["tags"]) == ("westus", "Creating", {"site": "a"})
    assert (replaced["system_data"]["created_at"], replaced.get("tags")) == (
        made["system_data"]["created_at"],
        None,
    )
    assert got == {**replaced, "location": "West US"}
    assert got["properties"]["return_address"]["recipient_name"] == "Ada Example"
    assert got["properties"]["encryption_key"] == {"kek_type": "MicrosoftManaged"}
    assert keys == [{"bit_locker_key": KEY, "drive_id": "SERIAL1"}]
    assert in_subscription == [got]
    without_drives = {name: member for name, member in got["properties"].items() if name != "drive_list"}
    assert in_group == [{**got, "properties": without_drives}]
    assert (shipped["properties"]["state"], shipped["properties"]["delivery_package"]) == ("Shipping", PACKAGE)
    made_too, tagged, deleted, made_again = told[10:]
    assert tagged["tags"] == {"by": "document"}
    assert deleted is None
    assert made_again["tags"] == made_too["tags"]


def _as_sent() -> dict[str, Any]:
    sent: dict[str, Any] = put_body().serialize()["properties"]
    return sent


def test_a_default_that_the_newer_client_sends_undoes_no_cancel(newer: NewerClient) -> None:
    """`cancelRequested: false` goes out with every update, and means nothing; the job stays cancelled."""
    told = newer.told(
        step("jobs.create", BODY),
        step("jobs.update", {"tags": {"a": "b"}}),
        step("jobs.update", {"cancel_requested": True}),
        step("jobs.update", {"cancel_requested": True}),
        step("jobs.update", {"tags": {"c": "d"}}),
        step("jobs.get"),
    )
    defaults = {"cancelRequested": False, "backupDriveManifest": False}
    assert told[1]["sent"]["properties"] == told[4]["sent"]["properties"] == defaults
    assert [each["answer"]["properties"]["cancel_requested"] for each in told] == [False, False, *[True] * 4]
    assert told[5]["answer"]["tags"] == {"c": "d"}


def test_defaults_that_the_newer_client_sends_are_no_violation_in_a_late_state(newer: NewerClient) -> None:
    """Nothing at all, tags, and what is so already: accepted where all but tags is over, cancelled or not."""
    names = [state.lower() for state in LATE]
    with writing() as session:
        for state in LATE:
            job_in(session, state, state.lower(), driveList=[{**DRIVE, "driveId": state}])
        job_in(session, JobState.COMPLETED, "cancelled", cancelled=True)
        job_in(session, JobState.PACKAGING, "backed-up", backupDriveManifest=True)
    changes: list[dict[str, Any]] = [{}, {"tags": {"a": "b"}}, {"log_level": "Error", "state": ""}]
    steps = [step("jobs.update", change, job_name=name) for name in (*names, "cancelled") for change in changes]
    told = newer.told(*steps, step("jobs.update", {"backup_drive_manifest": True}, job_name="backed-up"))
    assert [each for each in told if "raised" in each] == []
    assert all(each["sent"]["properties"]["cancelRequested"] is False for each in told)
    for name, each in zip(names, told[2::3], strict=False):
        assert (each["answer"]["properties"]["state"].lower(), each["answer"]["tags"]) == (name, {"a": "b"})
    assert told[11]["answer"]["properties"]["cancel_requested"] is True
    assert told[12]["answer"]["properties"]["backup_drive_manifest"] is True


def test_the_newer_client_reads_a_list_page_by_page(newer: NewerClient) -> None:
    """Seven jobs by twos are four requests, of a subscription and of a resource group."""
    with writing() as session:
        for number in range(7):
            job_in(session, JobState.CREATING, f"job{number}")
    group = {"resource_group_name": "g1"}
    told = newer.told(
        step("jobs.list_by_subscription", top=2),
        step("jobs.list_by_resource_group", top=2, **group),
        step("jobs.list_by_resource_group", top=3, filter="name eq 'job3' or name eq 'job5'", **group),
    )
    names = [f"job{number}" for number in range(7)]
    assert [[job["name"] for job in each["answer"]] for each in told] == [names, names, ["job3", "job5"]]
    assert [each["requests"] for each in told] == [4, 4, 1]


def test_the_newer_client_raises_what_is_refused(newer: NewerClient) -> None:
    """Its own error for 404, 409 and 401, HttpResponseError for the rest; each has our code."""
    with writing() as session:
        job_in(session, JobState.PACKAGING)
    other = {"job_name": "other"}
    steps = {
        "missing": [
            step("locations.get", location_name="nowhere"),
            step("jobs.get", **other),
            step("jobs.update", {}, **other),
            step("jobs.delete", **other),
            step("bit_locker_keys.list", **other),
        ],
        "conflict": [
            step("jobs.create", BODY),
            step("jobs.delete"),
            step("jobs.update", {"cancel_requested": True}),
        ],
        "late": [step("jobs.update", {"log_level": "Verbose"})],
        "wrong": [
            step("jobs.create", {**BODY, "location": "nowhere"}, job_name="job2"),
            step("jobs.create", "no JSON", job_name="job2"),
            step("jobs.update", {"state": "Closed"}),
            step("jobs.list_by_subscription", top=101),
            step("jobs.list_by_resource_group", resource_group_name="g1", filter="?"),
        ],
    }
    told = iter(newer.told(*(each for group in steps.values() for each in group)))
    found = {name: {_refusal(next(told)) for _ in group} for name, group in steps.items()}
    assert found == {
        "missing": {("ResourceNotFoundError", 404, "ResourceNotFound")},
        "conflict": {("ResourceExistsError", 409, "JobStateConflict")},
        "late": {("ResourceExistsError", 409, "PropertyNotUpdatable")},
        "wrong": {("HttpResponseError", 400, "InvalidRequestContent")},
    }


def test_the_newer_client_is_told_that_its_token_does_not_count(newer: NewerClient) -> None:
    """401 of all ten operations; nothing is created, changed or deleted."""
    with writing() as session:
        job_id = job_in(session, JobState.CREATING)
    steps = [
        step("operations.list"),
        step("locations.list"),
        step("locations.get", location_name="westus"),
        step("jobs.create", BODY, job_name="job2"),
        step("jobs.get"),
        step("jobs.update", {"tags": {"a": "b"}}),
        step("jobs.list_by_subscription"),
        step("jobs.list_by_resource_group", resource_group_name="g1"),
        step("bit_locker_keys.list"),
        step("jobs.delete"),
    ]
    assert {each["call"] for each in steps} == OPERATIONS
    refusals = {_refusal(each) for each in newer.told(*steps, token="wrong")}  # noqa: S106  it opens nothing
    assert refusals == {("ClientAuthenticationError", 401, "InvalidAuthenticationToken")}
    with reading() as session:
        assert read_job(session, job_id).tags == {}
    assert [job["name"] for job in newer.answers(step("jobs.list_by_subscription"))[0]] == ["job1"]


def _refusal(told: dict[str, Any]) -> tuple[str, int, str]:
    assert "raised" in told, told
    return told["raised"], told["status"], told["code"]
