"""The three descriptions of Microsoft.ImportExport: our running server answers as they say, example by example.

`arm/` beside this file holds the descriptions and their 39 examples as they were published, unchanged.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from jsonschema import Draft4Validator, FormatChecker  # type: ignore[import-untyped]
from referencing import Registry
from referencing.jsonschema import DRAFT4
from sqlmodel import Session, col, delete, update

from models import database
from models.bay import check_in
from models.database import database_time, reading, writing
from models.drives import Drive
from models.jobs import Job, move, read_job, read_named_job
from models.key_files import use_ring
from models.lifecycle import Actor, DriveState, JobState
from models.settings import Settings
from tests.builders import ADDRESS, DRIVE, PACKAGE, RETURN_SHIPPING, WAY, job_in, job_request
from tests.deployments.api.conftest import VERSION, Issuer, Server, serving

ARM: Final = Path(__file__).with_name("arm")
VERSIONS: Final = ("2016-11-01", "2020-08-01", "2021-01-01")
# Ten operations in three versions, by hand: what the descriptions name.
OPERATIONS: Final = (
    "Operations_List",
    "Locations_List",
    "Locations_Get",
    "Jobs_Create",
    "Jobs_Get",
    "Jobs_Update",
    "Jobs_ListBySubscription",
    "Jobs_ListByResourceGroup",
    "BitLockerKeys_List",
    "Jobs_Delete",
)
KEY: Final = "238810-662376-448998-450120-652806-203390-606320-483076"

# Members of the examples that our answers leave out, each with its reason; the paths begin at the job.
_NOBODY: Final = "who it was would be one more place with a person's data"
LEFT_OUT: Final[Mapping[tuple[str, str], str]] = {
    ("*", "systemData.createdBy"): _NOBODY,
    ("*", "systemData.createdByType"): "says of what kind the one is whom we do not name",
    ("*", "systemData.lastModifiedBy"): _NOBODY,
    ("*", "systemData.lastModifiedByType"): "says of what kind the one is whom we do not name",
    ("GetExportJob", "properties.driveList"): "empty; unset members are left out, as other examples do with it",
    ("GetJob", "properties.driveList[].driveHeaderHash"): "empty; unset members are left out",
}
# Members whose value is the service's own, so that only its kind is compared; a prefix takes all that is below it.
OWN_VALUES: Final[Mapping[tuple[str, str], str]] = {
    ("*", "systemData"): "times at which the test put the job",
    ("*", "properties.shippingInformation"): "where our list of locations says that drives are sent",
    ("GetJob", "id"): "the example names the job `myJob` in `name` and `test` in `id`",
    ("GetExportJob", "id"): "the example names the job `myJob` in `name` and `test` in `id`",
    (
        "ListJobsInSubscription",
        "properties.driveList[].state",
    ): "the example's drive is done and still being copied",
    ("ListBitLockerKeys", "bitLockerKey"): "a key that was put; the example shows another one than CreateJob's",
    ("GetLocation", "properties"): "our list of locations",
    ("ListLocations", ""): "our list of locations",
    ("ListOperations", ""): "our own words, without the registration of a provider, which we have not",
}

# The one reference to elsewhere: `systemData` of Azure's common types, as ARM documents it.
_WHO: Final = {"type": "string", "enum": ["User", "Application", "ManagedIdentity", "Key"]}
_SYSTEM_DATA: Final = {
    "type": "object",
    "properties": {
        "createdBy": {"type": "string"},
        "createdByType": _WHO,
        "createdAt": {"type": "string", "format": "date-time"},
        "lastModifiedBy": {"type": "string"},
        "lastModifiedByType": _WHO,
        "lastModifiedAt": {"type": "string", "format": "date-time"},
    },
}
_COMMON: Final = "file:///specification/common-types/resource-management/v2/types.json"
_HOME: Final = "file:///specification/storageimportexport/resource-manager/Microsoft.ImportExport/stable"

FORMATS: Final = FormatChecker(())
FORMATS.checks("date-time")(
    lambda told: bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,7})?(Z|[+-]\d\d:\d\d)", told))
)
FORMATS.checks("int32")(lambda told: not isinstance(told, int) or -(2**31) <= told < 2**31)
FORMATS.checks("int64")(lambda told: not isinstance(told, int) or -(2**63) <= told < 2**63)


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Make a schema refuse every member it does not name; `tags` and the like name none, and stay open."""
    if "$ref" in schema:
        return schema
    made = dict(schema)
    if "properties" in schema:
        made["properties"] = {name: closed(each) for name, each in schema["properties"].items()}
        made["additionalProperties"] = False
    if "items" in schema:
        made["items"] = closed(schema["items"])
    return made


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a description: how it is asked, and what it answers by status."""

    id: str
    method: str
    path: str
    parameters: Mapping[str, str]
    responses: Mapping[str, Any]
    examples: tuple[str, ...]

    def request(self, address: str, values: Mapping[str, Any]) -> httpx.Request:
        """Make a request with the values of an example, each at the place the description gives it."""
        placed: dict[str, dict[str, Any]] = {"path": {}, "query": {}, "body": {}}
        for name, value in values.items():
            placed[self.parameters[name]][name] = value
        names = {name: quote(value, safe="") for name, value in placed["path"].items()}
        url = address + self.path.format_map(names)
        bodies = list(placed["body"].values())
        return httpx.Request(self.method.upper(), url, params=placed["query"], json=bodies[0] if bodies else None)


@dataclass(frozen=True)
class Description:
    """A published description, its references resolved and its schemas closed against unknown members."""

    version: str
    operations: Mapping[str, Operation]
    registry: Registry[Any] = field(repr=False)

    @classmethod
    def read(cls, version: str) -> Self:
        """Read it from its file."""
        document = json.loads((ARM / version / "storageimportexport.json").read_text("utf-8"))
        document["definitions"] = {name: closed(each) for name, each in document["definitions"].items()}
        common = {"definitions": {"systemData": closed(_SYSTEM_DATA)}}
        registry: Registry[Any] = Registry().with_resources(
            [
                (f"{_HOME}/{version}/storageimportexport.json", DRAFT4.create_resource(document)),
                (_COMMON, DRAFT4.create_resource(common)),
            ]
        )
        found = (
            _operation(document, path, method) for path, methods in document["paths"].items() for method in methods
        )
        return cls(version, {each.id: each for each in found}, registry)

    def require_described(self, operation_id: str, answer: httpx.Response) -> None:
        """Fail where an answer is not as described, down to a member that the description does not know."""
        responses = self.operations[operation_id].responses
        status = str(answer.status_code)
        described = responses.get(status) or (responses["default"] if answer.is_error else None)
        assert described is not None, f"{operation_id} {status} is not described"
        if "schema" not in described:
            assert answer.content == b""
            return
        assert answer.headers["content-type"] == "application/json"
        reference = described["schema"]["$ref"]
        validator = Draft4Validator(
            {"$ref": f"{_HOME}/{self.version}/storageimportexport.json{reference}"},
            registry=self.registry,
            format_checker=FORMATS,
        )
        assert [f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(answer.json())] == []


def _operation(document: dict[str, Any], path: str, method: str) -> Operation:
    told = document["paths"][path][method]
    parameters = [
        document["parameters"][each["$ref"].rpartition("/")[2]] if "$ref" in each else each
        for each in told["parameters"]
    ]
    return Operation(
        told["operationId"],
        method,
        path,
        {each["name"]: each["in"] for each in parameters},
        told["responses"],
        tuple(Path(each["$ref"]).stem for each in told["x-ms-examples"].values()),
    )


DESCRIPTIONS: Final = {version: Description.read(version) for version in VERSIONS}
EXAMPLES: Final = [
    (version, operation.id, name)
    for version, description in DESCRIPTIONS.items()
    for operation in description.operations.values()
    for name in operation.examples
]


def example(version: str, name: str) -> dict[str, Any]:
    """Read an example."""
    read: dict[str, Any] = json.loads((ARM / version / "examples" / f"{name}.json").read_text("utf-8"))
    return read


@pytest.fixture(scope="module")
def module_server(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve one embedded database to all tests of this file."""
    folder = tmp_path_factory.mktemp("descriptions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIVEPOST_DATA_DIRECTORY", str(folder))
        shutil.copy(migrated_file, folder / "drivepost.db")
        shutil.copytree(migrated_file.parent / "keys", Settings().key_file.parent, dirs_exist_ok=True)
        database.engine.cache_clear()
        use_ring(None)
        with serving(folder, DRIVEPOST_API_REQUESTS_PER_MINUTE="1000000") as served:
            yield served
        database.engine().dispose()
        database.engine.cache_clear()
        use_ring(None)


@pytest.fixture
def described(module_server: Server) -> Server:
    """Give a test the server without any job."""
    with writing() as session:
        session.connection().execute(delete(Job))
    return module_server


@pytest.fixture
def client(described: Server) -> Iterator[httpx.Client]:
    """Ask the server with its token."""
    with described.client() as made:
        yield made


def ask(client: httpx.Client, version: str, operation_id: str, values: Mapping[str, Any]) -> httpx.Response:
    """Send a request of an operation, with the client's token; the answer is as described, whatever it is."""
    request = DESCRIPTIONS[version].operations[operation_id].request(str(client.base_url).rstrip("/"), values)
    request.headers.update(client.headers)
    answer = client.send(request)
    DESCRIPTIONS[version].require_described(operation_id, answer)
    return answer


def names_of(name: str = "job1", version: str = VERSION) -> dict[str, Any]:
    """Name a job as the parameters of the descriptions do."""
    return {"api-version": version, "subscriptionId": "s1", "resourceGroupName": "g1", "jobName": name}


def some_values(operation: Operation, **more: Any) -> dict[str, Any]:
    """Give every parameter that an operation must have a value."""
    values = {**names_of(), "locationName": "westus", "body": {}, **more}
    return {name: values[name] for name in operation.parameters if name in values}


# Before an example: what must be there so that it can be answered as it says.


def before(client: httpx.Client, version: str, name: str) -> None:
    """Bring about what an example speaks of: the jobs of its answer, each in its state."""
    if name.startswith("Create"):
        return
    if name in {"DeleteJob", "ListBitLockerKeys"}:
        put = ask(client, version, "Jobs_Create", example(version, "CreateJob")["parameters"])
        assert put.status_code == 201
        return
    answer = example(version, name)["responses"]["200"]["body"]
    for job in answer.get("value", [answer]):
        if job.get("type") != "Microsoft.ImportExport/jobs":
            continue
        wanted = {"driveList": [DRIVE], **job["properties"]}
        if name.startswith("Update"):
            wanted |= {"logLevel": "Error", "backupDriveManifest": False}
        if wanted["jobType"] == "Export":
            del wanted["driveList"]
        # What the service owns stays in it: it is taken, and read over.
        parts = job["id"].split("/")
        names = {"subscriptionId": parts[2], "resourceGroupName": parts[4], "jobName": job["name"]}
        body = {**job, "properties": wanted}
        put = ask(client, version, "Jobs_Create", {"api-version": version, **names, "body": body})
        assert (put.status_code, put.json()["properties"]["state"]) == (201, "Creating")
        with writing() as session:
            bring(session, read_named_job(session, *names.values()), JobState(wanted["state"]), wanted)


def bring(session: Session, job: Job, state: JobState, wanted: Mapping[str, Any]) -> None:
    """Bring a job that was put into the state an example shows, its drives as far as the example tells."""
    at = database_time(session)
    for target in WAY[state]:
        if target is JobState.RECEIVED:
            check_in(session, job.id, [wanted["driveList"][0]["driveId"]], at=at, by=Actor.OPERATOR)
        else:
            by = Actor.CUSTOMER if target is JobState.SHIPPING else Actor.SERVICE
            move(session, job, target, at=at, by=by)
    if state is JobState.TRANSFERRING:
        told = wanted["driveList"][0]
        drive = session.get_one(Drive, (job.id, 1))
        drive.state, drive.bytes_total, drive.bytes_succeeded = DriveState.TRANSFERRING, 100, 6
        drive.verbose_log_uri, drive.error_log_uri = told["verboseLogUri"], told["errorLogUri"]
        drive.manifest_uri = told["manifestUri"]
        session.add(drive)


def leaves(document: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Walk to every value of an answer: its path, and the value; what is empty is a value too."""
    below: list[tuple[str, object]] = []
    if isinstance(document, dict):
        below = [(f"{path}.{name}".lstrip("."), member) for name, member in document.items()]
    elif isinstance(document, list):
        below = [(f"{path}[{place}]", member) for place, member in enumerate(document)]
    if not below:
        yield path, document
    for each, member in below:
        yield from leaves(member, each)


def in_any(path: str) -> str:
    """Write the path of one as the path of any: without places in lists, and from the job on."""
    return re.sub(r"\[\d+\]", "[]", path).removeprefix("value[].")


def excepted(table: Mapping[tuple[str, str], str], name: str, path: str) -> bool:
    """Tell whether a table of exceptions has a path of an example, or what it stands below."""
    return any(
        each in {"*", name} and (prefix in {"", path} or path.startswith(f"{prefix}.")) for each, prefix in table
    )


def require_like(name: str, answer: object, told: object) -> None:
    """Fail where an answer lacks a member of an example's answer, or has another value where it is not our own."""
    ours, theirs = dict(leaves(answer)), dict(leaves(told))
    kinds = {in_any(path): type(value) for path, value in ours.items()}
    missing = {in_any(path) for path in theirs} - kinds.keys()
    assert missing == {in_any(path) for path in theirs if excepted(LEFT_OUT, name, in_any(path))}
    there = {path: value for path, value in theirs.items() if in_any(path) not in missing}
    assert {path: kinds[in_any(path)] for path in there} == {path: type(value) for path, value in there.items()}
    compared = [path for path in there if not excepted(OWN_VALUES, name, in_any(path))]
    assert {path: ours.get(path) for path in compared} == {path: there[path] for path in compared}


def test_the_examples_are_39_and_each_belongs_to_an_operation() -> None:
    """Thirteen files for each of three versions, all of them named by the ten operations; ours are unchanged."""
    assert len(EXAMPLES) == 39
    for version in VERSIONS:
        files = {path.stem for path in (ARM / version / "examples").glob("*.json")}
        assert files == {name for each, _, name in EXAMPLES if each == version}
        assert set(DESCRIPTIONS[version].operations) == set(OPERATIONS)
        assert {example(version, name)["parameters"]["api-version"] for name in files} == {version}


@pytest.mark.parametrize(("version", "operation_id", "name"), EXAMPLES)
def test_an_example_is_accepted_and_answered_as_described_and_in_its_shape(
    client: httpx.Client, version: str, operation_id: str, name: str
) -> None:
    """Each request as published; the answer passes the description and has every member the example shows."""
    told = example(version, name)
    before(client, version, name)
    statuses = ["201", "200"] if operation_id == "Jobs_Create" else ["200"]
    for status in statuses:
        answer = ask(client, version, operation_id, told["parameters"])
        assert str(answer.status_code) == status, answer.text
        if "body" in told["responses"][status]:
            require_like(name, answer.json(), told["responses"][status]["body"])
    if operation_id == "Jobs_Delete":
        gone = ask(client, version, "Jobs_Get", told["parameters"])
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "ResourceNotFound")


def test_the_exceptions_are_all_still_needed() -> None:
    """Each row of the two tables speaks of something that an example has; a row that does not is an error."""
    seen: dict[str, set[str]] = {"*": set()}
    for version, _, name in EXAMPLES:
        for response in example(version, name)["responses"].values():
            paths = {in_any(path) for path, _ in leaves(response.get("body", {}))}
            seen.setdefault(name, set()).update(paths)
            seen["*"] |= paths
    for name, path in (*LEFT_OUT, *OWN_VALUES):
        assert any(excepted({(name, path): ""}, name, each) for each in seen[name]), (name, path)


def test_the_description_refuses_what_it_does_not_say() -> None:
    """The check itself bites: a wrong type, a value outside an enum, a time that is none, an unknown member."""
    good = {"name": "job1", "systemData": {"createdAt": "2026-06-01T12:00:00Z"}, "properties": {}}
    faults: list[dict[str, Any]] = [
        {"name": 1},
        {"systemData": {"createdAt": "yesterday"}},
        {"systemData": {"createdFor": "somebody"}},
        {"properties": {"percentComplete": 2**63}},
        {"properties": {"driveList": [{"state": "Lost"}]}},
        {"properties": {"deliveryPackage": {"carrierName": "FedEx"}}},
        {"properties": {"isCancellable": True}},
        {"expiresAt": "2026-06-01T12:00:00Z"},
        {"identity": {"type": None}},
    ]
    for description in DESCRIPTIONS.values():
        description.require_described("Jobs_Get", httpx.Response(200, json=good))
        description.require_described("Jobs_Get", httpx.Response(404, json={"error": {"code": "a"}}))
        for fault in faults:
            with pytest.raises(AssertionError):
                description.require_described("Jobs_Get", httpx.Response(200, json={**good, **fault}))
        with pytest.raises(AssertionError):
            description.require_described("Jobs_Get", httpx.Response(202, json=good))
        with pytest.raises(AssertionError):
            description.require_described("Jobs_Get", httpx.Response(404, json={"detail": "Not Found"}))
        with pytest.raises(AssertionError):
            description.require_described("Jobs_Delete", httpx.Response(200, json={}))


def test_put_answers_201_for_a_new_job_and_200_for_a_replaced_one(client: httpx.Client) -> None:
    """By names that compare without case, which are given back as they were first written."""
    body = job_request()["body"]
    assert ask(client, VERSION, "Jobs_Create", {**names_of("Job1"), "body": body}).status_code == 201
    again = ask(client, VERSION, "Jobs_Create", {**names_of("jOB1"), "body": body})
    assert (again.status_code, again.json()["name"]) == (200, "Job1")
    assert ask(client, VERSION, "Jobs_Create", {**names_of("job2"), "body": body}).status_code == 201
    assert ask(client, VERSION, "Jobs_Delete", names_of("JOB1")).status_code == 200
    assert ask(client, VERSION, "Jobs_Create", {**names_of("job1"), "body": body}).status_code == 201


@pytest.mark.parametrize("version", VERSIONS)
def test_a_bitlocker_key_is_in_no_answer_but_that_of_the_key_call(client: httpx.Client, version: str) -> None:
    """Every operation on a job whose drive has a key, refusals too; the key call alone tells it."""
    body = job_request(driveList=[{**DRIVE, "bitLockerKey": KEY}])["body"]
    changes = {"properties": {"driveList": [{**DRIVE, "bitLockerKey": KEY, "manifestHash": "B" * 32}]}}
    bodies = {"Jobs_Create": body, "Jobs_Update": changes}
    assert ask(client, version, "Jobs_Create", {**names_of(version=version), "body": body}).status_code == 201
    for operation_id in OPERATIONS:
        operation = DESCRIPTIONS[version].operations[operation_id]
        values = some_values(operation, **{"api-version": version}, body=bodies.get(operation_id))
        answer = ask(client, version, operation_id, values)
        assert answer.status_code == 200, answer.text
        if operation_id == "BitLockerKeys_List":
            assert answer.json() == {"value": [{"bitLockerKey": KEY, "driveId": DRIVE["driveId"]}]}
        else:
            assert KEY not in answer.text
            assert "bitlockerkey" not in answer.text.lower().replace("listbitlockerkeys", "")
    wrong = {**body, "location": "nowhere"}
    refused = ask(client, version, "Jobs_Create", {**names_of(version=version), "body": wrong})
    assert refused.status_code == 400
    assert KEY not in refused.text


def test_the_list_of_a_resource_group_leaves_drives_out_and_other_answers_have_them(client: httpx.Client) -> None:
    """The list of the subscription, GET, PUT and PATCH tell driveList; else the answers are alike."""
    put = ask(client, VERSION, "Jobs_Create", {**names_of(), "body": job_request()["body"]}).json()
    got = ask(client, VERSION, "Jobs_Get", names_of()).json()
    patched = ask(client, VERSION, "Jobs_Update", {**names_of(), "body": {}}).json()
    scope = {"api-version": VERSION, "subscriptionId": "s1"}
    of_subscription = ask(client, VERSION, "Jobs_ListBySubscription", scope).json()
    of_group = ask(client, VERSION, "Jobs_ListByResourceGroup", {**scope, "resourceGroupName": "g1"}).json()
    assert put == got == patched
    assert of_subscription == {"value": [got]}
    assert got["properties"].pop("driveList") == [{**DRIVE, "state": "Specified"}]
    assert of_group == {"value": [got]}


@pytest.mark.parametrize(
    ("sent", "shown"),
    [("eastus", "East US"), ("EAST us", "East US"), ("West US", "West US"), ("westus", "West US")],
)
def test_put_says_the_location_as_it_was_sent_and_others_by_its_display_name(
    client: httpx.Client, sent: str, shown: str
) -> None:
    """New and replaced; GET, PATCH and both lists give the display name."""
    body = job_request(location=sent)["body"]
    for _ in range(2):
        assert ask(client, VERSION, "Jobs_Create", {**names_of(), "body": body}).json()["location"] == sent
    assert ask(client, VERSION, "Jobs_Get", names_of()).json()["location"] == shown
    assert ask(client, VERSION, "Jobs_Update", {**names_of(), "body": {}}).json()["location"] == shown
    for operation_id in ("Jobs_ListBySubscription", "Jobs_ListByResourceGroup"):
        values = some_values(DESCRIPTIONS[VERSION].operations[operation_id])
        assert [job["location"] for job in ask(client, VERSION, operation_id, values).json()["value"]] == [shown]


@pytest.mark.parametrize("version", VERSIONS)
def test_delete_answers_200_with_nothing_in_it(client: httpx.Client, version: str) -> None:
    """An empty body, whose length is told; another's job stays; deleting again is 404."""
    for name in ("job1", "job2"):
        values = {**names_of(name, version), "body": job_request(name)["body"]}
        assert ask(client, version, "Jobs_Create", values).status_code == 201
    deleted = ask(client, version, "Jobs_Delete", names_of(version=version))
    assert (deleted.status_code, deleted.content, deleted.headers["content-length"]) == (200, b"", "0")
    assert ask(client, version, "Jobs_Get", names_of(version=version)).status_code == 404
    assert ask(client, version, "Jobs_Get", names_of("job2", version)).status_code == 200
    assert ask(client, version, "Jobs_Delete", names_of(version=version)).status_code == 404


def test_what_a_request_leaves_out_has_its_default_or_is_left_out_of_the_answer(client: httpx.Client) -> None:
    """The defaults of section 8; nothing else is there, and nothing is null."""
    address = {name: value for name, value in ADDRESS.items() if name != "streetAddress2"}
    body = job_request(deliveryPackage=None, returnShipping=None, returnAddress=address)["body"]
    del body["tags"]
    put = ask(client, VERSION, "Jobs_Create", {**names_of(), "body": body}).json()
    got = ask(client, VERSION, "Jobs_Get", names_of()).json()
    assert put == got
    assert set(got) == {"id", "name", "type", "location", "properties", "identity", "systemData"}
    assert got["identity"] == {"type": "None"}
    assert set(got["systemData"]) == {"createdAt", "lastModifiedAt"}
    properties = got["properties"]
    assert properties.pop("shippingInformation")["city"]
    assert properties == {
        "storageAccountId": body["properties"]["storageAccountId"],
        "jobType": "Import",
        "returnAddress": {**address, "streetAddress2": ""},
        "diagnosticsPath": "waimportexport",
        "logLevel": "Error",
        "backupDriveManifest": False,
        "state": "Creating",
        "cancelRequested": False,
        "driveList": [{**DRIVE, "state": "Specified"}],
        "provisioningState": "Succeeded",
        "encryptionKey": {"kekType": "MicrosoftManaged"},
    }


@pytest.mark.parametrize("operation_id", OPERATIONS)
@pytest.mark.parametrize(
    ("version", "code"),
    [
        (None, "MissingApiVersionParameter"),
        ("", "MissingApiVersionParameter"),
        ("2021-01-02", "NoRegisteredProviderFound"),
        ("2021-01-01-preview", "NoRegisteredProviderFound"),
    ],
)
def test_without_an_api_version_that_is_known_every_operation_is_400_and_names_them(
    client: httpx.Client, operation_id: str, version: str | None, code: str
) -> None:
    """All ten, with a request that is right but for that; a job that is there is left as it is."""
    with writing() as session:
        job_id = job_in(session, JobState.CREATING)
    operation = DESCRIPTIONS[VERSION].operations[operation_id]
    values = some_values(operation, body={"tags": {"a": "b"}})
    del values["api-version"]
    answer = ask(client, VERSION, operation_id, values | ({} if version is None else {"api-version": version}))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, code)
    assert all(each in error["message"] for each in VERSIONS)
    with reading() as session:
        assert read_job(session, job_id).tags == {}


def shouted(document: Any) -> Any:
    """Write every name of a member in capitals."""
    if isinstance(document, dict):
        return {name.upper(): shouted(member) for name, member in document.items()}
    return [shouted(each) for each in document] if isinstance(document, list) else document


@pytest.mark.parametrize(
    "written", ["blobListblobPath", "blobListBlobPath", "BLOBLISTBLOBPATH", "bloblistblobpath"]
)
def test_the_path_of_a_blob_list_is_taken_however_its_name_is_written(client: httpx.Client, written: str) -> None:
    """SDK 0.1.0 writes blobListblobPath; the answer writes it as the description does."""
    body = job_request(jobType="Export", driveList=None, export={written: "$root/list.xml"})["body"]
    put = ask(client, VERSION, "Jobs_Create", {**names_of(), "body": body})
    assert (put.status_code, put.json()["properties"]["export"]) == (201, {"blobListBlobPath": "$root/list.xml"})


def test_every_property_is_taken_however_its_name_is_written(client: httpx.Client) -> None:
    """Create and update in capitals do what they do as described; names of tags are the customer's, and stay."""
    plain = job_request(backupDriveManifest=True, logLevel="Verbose")["body"]
    changes = {"properties": {"returnShipping": {**RETURN_SHIPPING, "carrierName": "UPS"}, "state": "Shipping"}}
    answers = []
    for name, put_body, patch_body in (("job1", plain, changes), ("job2", shouted(plain), shouted(changes))):
        put = ask(client, VERSION, "Jobs_Create", {**names_of(name), "body": put_body})
        assert put.status_code == 201, put.text
        patched = ask(client, VERSION, "Jobs_Update", {**names_of(name), "body": patch_body})
        assert patched.status_code == 200, patched.text
        answers.append((put.json()["properties"], patched.json()["properties"]))
    assert answers[0] == answers[1]
    assert answers[0][1]["state"] == "Shipping"
    tagged = ask(client, VERSION, "Jobs_Update", {**names_of(), "body": {"TAGS": {"Site": "a", "site": "b"}}})
    assert tagged.json()["tags"] == {"Site": "a", "site": "b"}


@pytest.mark.parametrize("state", list(JobState))
def test_a_job_in_any_state_is_answered_as_every_version_describes(client: httpx.Client, state: JobState) -> None:
    """GET and both lists, of a job that went that far, its drive copied, cancelled where it could be."""
    with writing() as session:
        job_id = job_in(session, state, cancelled=state in {JobState.TRANSFERRING, JobState.COMPLETED})
        session.connection().execute(
            update(Drive)
            .where(col(Drive.job_id) == job_id)
            .values(state=DriveState.COMPLETED, bytes_total=2**53, bytes_succeeded=2**53)
        )
    answers = [ask(client, version, "Jobs_Get", names_of(version=version)).json() for version in VERSIONS]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["properties"]["state"] == state
    assert answers[0]["properties"]["driveList"][0]["bytesSucceeded"] == 2**53
    for version in VERSIONS:
        for operation_id in ("Jobs_ListBySubscription", "Jobs_ListByResourceGroup"):
            operation = DESCRIPTIONS[version].operations[operation_id]
            values = some_values(operation, **{"api-version": version})
            assert len(ask(client, version, operation_id, values).json()["value"]) == 1


@pytest.mark.parametrize("operation_id", ["Jobs_ListBySubscription", "Jobs_ListByResourceGroup"])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_next_page_has_an_absolute_address_that_is_followed_as_it_is(
    client: httpx.Client, version: str, operation_id: str
) -> None:
    """Two jobs a page, five jobs; each page is as described, the last one has no nextLink."""
    with writing() as session:
        for number in range(5):
            job_in(session, JobState.CREATING, f"job{number}")
    values = some_values(DESCRIPTIONS[version].operations[operation_id], **{"api-version": version})
    page = ask(client, version, operation_id, {**values, "$top": 2, "$filter": "state eq 'Creating'"})
    pages = [page.json()]
    while link := pages[-1].get("nextLink"):
        assert link.startswith(f"{client.base_url}".rstrip("/") + "/subscriptions/s1/")
        assert parse_qs(urlsplit(link).query)["api-version"] == [version]
        page = client.get(link)
        DESCRIPTIONS[version].require_described(operation_id, page)
        pages.append(page.json())
        assert len(pages) <= 3
    names = [[job["name"] for job in each["value"]] for each in pages]
    assert names == [["job0", "job1"], ["job2", "job3"], ["job4"]]


# Refusals: operation, what is wrong with the request, the status and the code.
_BODY: Final = job_request()["body"]
REFUSALS: Final[tuple[tuple[str, Mapping[str, Any], int, str], ...]] = (
    ("Locations_Get", {"locationName": "nowhere"}, 404, "ResourceNotFound"),
    ("Jobs_Get", {"jobName": "other"}, 404, "ResourceNotFound"),
    ("Jobs_Update", {"jobName": "other", "body": {}}, 404, "ResourceNotFound"),
    ("Jobs_Delete", {"jobName": "other"}, 404, "ResourceNotFound"),
    ("BitLockerKeys_List", {"jobName": "other"}, 404, "ResourceNotFound"),
    ("Jobs_ListBySubscription", {"$top": 101}, 400, "InvalidRequestContent"),
    ("Jobs_ListBySubscription", {"$top": 0}, 400, "InvalidRequestContent"),
    ("Jobs_ListByResourceGroup", {"$filter": "state like 'x'"}, 400, "InvalidRequestContent"),
    ("Jobs_Create", {"body": []}, 400, "InvalidRequestContent"),
    ("Jobs_Create", {"body": {**_BODY, "location": "nowhere"}}, 400, "InvalidRequestContent"),
    ("Jobs_Create", {"body": {"properties": {"jobType": "Neither"}}}, 400, "InvalidRequestContent"),
    ("Jobs_Create", {"jobName": "1", "body": _BODY}, 400, "InvalidRequestContent"),
    ("Jobs_Update", {"body": {"properties": {"state": "Closed"}}}, 400, "InvalidRequestContent"),
    ("Jobs_Update", {"body": {"properties": {"deliveryPackage": PACKAGE}}}, 409, "PropertyNotUpdatable"),
    ("Jobs_Update", {"body": {"properties": {"cancelRequested": True}}}, 409, "JobStateConflict"),
    ("Jobs_Update", {"jobName": "new", "body": {"properties": {"state": "Shipping"}}}, 400, "NotReadyToShip"),
    ("Jobs_Create", {"body": _BODY}, 409, "JobStateConflict"),
    ("Jobs_Delete", {}, 409, "JobStateConflict"),
)


@pytest.mark.parametrize(("operation_id", "wrong", "status", "code"), REFUSALS)
def test_a_refusal_is_answered_as_every_version_describes(
    client: httpx.Client, operation_id: str, wrong: Mapping[str, Any], status: int, code: str
) -> None:
    """`ErrorResponse`, and nothing beside it: with a Packaging job, and a new one without a package."""
    with writing() as session:
        changed = {**PACKAGE, "trackingNumber": "TRACK9"}
        job_in(session, JobState.PACKAGING, deliveryPackage=changed)
        job_in(
            session, JobState.CREATING, "new", deliveryPackage=None, driveList=[{**DRIVE, "driveId": "SERIAL2"}]
        )
    answers = []
    for version in VERSIONS:
        operation = DESCRIPTIONS[version].operations[operation_id]
        values = {**some_values(operation, **{"api-version": version}), **wrong}
        answer = ask(client, version, operation_id, values)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
        answers.append(answer.json())
    assert answers[0] == answers[1] == answers[2]


def test_a_refusal_before_any_operation_is_answered_as_described(client: httpx.Client, described: Server) -> None:
    """No token and a wrong one, a method and a path that are not there, a body that is no JSON, or too long."""
    url = described.job_url()
    with httpx.Client(base_url=described.address) as stranger, described.client("wrong") as wrong:
        answers = [
            (401, stranger.get(url)),
            (401, wrong.get(url)),
            (404, client.get("/subscriptions/s1/nothing")),
            (405, client.post(url)),
            (400, client.put(url, content=b"no JSON")),
            (400, client.patch(url, content=b"")),
            (400, client.put(url, content=b" " * (2**20 + 1))),
            (400, client.put(url, content=b"[" * 50_000)),
        ]
    for status, answer in answers:
        assert answer.status_code == status
        DESCRIPTIONS[VERSION].require_described("Jobs_Get", answer)
        assert set(answer.json()["error"]) >= {"code", "message"}


def test_a_refusal_of_a_caller_is_answered_as_described(described: Server, issuer: Issuer, tmp_path: Path) -> None:
    """Another's subscription is 403; one request too many is 429 and says when to come back."""
    limits = {"DRIVEPOST_API_REQUESTS_PER_MINUTE": "1"}
    with serving(tmp_path, **issuer.settings, **limits) as limited:
        token = issuer.token("customer", subscriptions=["s2"])
        with limited.client(token) as customer:
            answers = [customer.get(limited.job_url()) for _ in range(3)]
    assert [answer.status_code for answer in answers[:1]] == [403]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) > 0
    for answer in answers:
        DESCRIPTIONS[VERSION].require_described("Jobs_Get", answer)
