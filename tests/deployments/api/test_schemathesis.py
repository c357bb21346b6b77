"""Made-up requests, good and bad, by our own OpenAPI and by the published descriptions, are answered as described.

What schemathesis looks at: no fault of ours (5xx), no undocumented status, content type or shape. The shapes of
answers are closed when a description is read: a member that it does not name is a fault as well.
"""

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest
import requests
import schemathesis
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, BaseSchema, Case, CheckContext, GenerationMode, Response
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.core.result import Ok
from schemathesis.errors import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlmodel import Session

from deployments.api import arm, operators, portal, portal_settings
from deployments.api.tokens import LOCAL_USER
from models import database
from models.copy_logs import DriveStatus
from models.dashboards import DashboardFilter, DashboardShape, create_dashboard
from models.database import database_time, writing
from models.drives import ExtraDrive, drives_of, move_drive
from models.erasure import wish_erasure
from models.jobs import read_job
from models.key_files import use_ring
from models.lifecycle import Actor, DriveState, JobState
from models.portal import save_address
from models.requests import ReturnAddressShape, ReturnShippingShape
from models.settings import Settings
from tests.builders import ADDRESS, DRIVE, PACKAGE, RETURN_SHIPPING, job_in, job_request, set_columns
from tests.deployments.api.conftest import Server, serving

DESCRIPTIONS: Final = Path(__file__).parent / "arm"
VERSIONS: Final = ("2016-11-01", "2020-08-01", "2021-01-01")
TRIES: Final = 15
TRIES_THOROUGH: Final = 500
EDGES: Final = 8
EDGES_THOROUGH: Final = 10_000
NAMES_TRIED: Final = 8

# What schemathesis could look at as well, and why it does not here:
# - missing_required_header, ignored_auth, object_level_authorization: who may is tested elsewhere, for every
#   operation and kind of caller; these know neither roles nor subscriptions, and the caller here may do all.
# - positive_data_acceptance: a description says less than the rules. By it any text is a location, an Import needs
#   no drives, and every state takes `state: Shipping`.
# - negative_data_rejection: what is the service's own or nobody's is read over, not refused: members that no
#   description names, parameters such as Accept-Language, a `percentComplete` that is a text.
# - unsupported_method, allow_header_conformance: they send what is no operation; the tests of refusals have that.
# - use_after_free, ensure_resource_availability: they follow links between operations; no description has any.
# - response_headers_conformance: no description names a header of an answer.


def content_type_is_described(context: CheckContext, response: Response, case: Case[Any]) -> bool | None:
    """See that an answer's content type is documented, and that nothing is answered where no shape is.

    Swagger's `produces` is of a whole operation, so that schemathesis wants the type of an empty answer too.
    """
    described = case.operation.responses.find_by_status_code(response.status_code)
    if described is None or {"schema", "content"} & described.definition.keys():
        return content_type_conformance(context, response, case)
    assert response.content == b"", "an answer that is described without a shape is not empty"
    return None


CHECKS: Final[list[CheckFunction]] = [
    not_a_server_error,
    status_code_conformance,
    content_type_is_described,
    response_schema_conformance,
]

# By hand, on purpose.
OPERATIONS: Final = (
    "Operations_List",
    "Locations_List",
    "Locations_Get",
    "Jobs_ListBySubscription",
    "Jobs_ListByResourceGroup",
    "Jobs_Get",
    "Jobs_Create",
    "Jobs_Update",
    "Jobs_Delete",
    "BitLockerKeys_List",
)
OUR_OPERATIONS: Final = tuple(
    str(route.operation_id)
    for router in (arm.router, portal.router, portal_settings.router, operators.router)
    for route in router.routes
    if isinstance(route, APIRoute)
)

# The descriptions refer to it outside: common-types/resource-management/v2/types.json.
OUTSIDE: Final = "../../../../../common-types/resource-management/v2/types.json#/definitions/systemData"
_WHO: Final = {"type": "string", "enum": ["User", "Application", "ManagedIdentity", "Key"]}
SYSTEM_DATA: Final = {
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

TWO: Final = [{**DRIVE, "driveId": name, "bitLockerKey": f"KEY-{name}"} for name in ("SERIAL1", "SERIAL2")]
EXPORT: Final[dict[str, Any]] = {
    "jobType": "Export",
    "driveList": None,
    "export": {"blobList": {"blobPath": ["$root/a", "data/b"], "blobPathPrefix": ["/logs/"]}},
}
SAVED: Final = {"returnAddress": ADDRESS, "returnShipping": RETURN_SHIPPING}
DASHBOARD: Final = {"name": "All that copies", "shared": True, "filter": {"states": ["Transferring", "Received"]}}
UPDATE: Final = {
    "tags": {"a": "b"},
    "properties": {
        "cancelRequested": False,
        "state": "",
        "returnAddress": ADDRESS,
        "returnShipping": RETURN_SHIPPING,
        "deliveryPackage": PACKAGE,
        "logLevel": "Verbose",
        "backupDriveManifest": True,
        "driveList": TWO,
    },
}
UPDATES: Final = (UPDATE, {"properties": {"state": "Shipping"}}, {"properties": {"cancelRequested": True}})
NEW_JOBS: Final = (job_request("new1", driveList=TWO), job_request("new2", **EXPORT))
BODIES: Final[Mapping[str, Sequence[dict[str, Any]]]] = {
    "Jobs_Create": [each["body"] for each in NEW_JOBS],
    "Jobs_Update": UPDATES,
    "PortalJobs_Create": [{**each, "saveCarrierAndReturnAddressAsDefault": True} for each in NEW_JOBS],
    "PortalJobs_Update": [{**each, "saveCarrierAndReturnAddressAsDefault": True} for each in UPDATES],
    "PortalSettings_Put": [{"savedCarrierAndReturnAddress": SAVED}],
    "PortalSettings_Import": [
        {"userId": str(LOCAL_USER), "savedCarrierAndReturnAddress": SAVED, "dashboards": [DASHBOARD]}
    ],
    "Dashboards_Create": [DASHBOARD],
    "Dashboards_Update": [DASHBOARD],
    "OperatorJobs_ReturnPackage": [{"returnPackage": {**PACKAGE, "driveCount": 2}}],
}
"""Whole bodies of each operation that takes one; those of descriptions alone would hardly ever count."""

FILTERS: Final = (
    "state eq 'Creating'",
    "name eq 'creating' or (jobType eq 'Export' and state eq 'Shipping')",
    "'it''s' eq name",
    "name eq '\x00'",
    "name eq '\N{SNOWMAN}\N{RIGHT-TO-LEFT OVERRIDE}'",
    "state eq",
    "(" * 500,
)
ODD: Final = (
    "",
    " ",
    "\x00",
    "a\x00b",
    "\N{PILE OF POO}" * 300,
    "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}",
    "\r\n",
)
ANYTHING: Final[st.SearchStrategy[Any]] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(ODD),
    st.text(max_size=20),
    st.lists(st.sampled_from(ODD), max_size=3),
    st.dictionaries(st.text(max_size=5), st.sampled_from(ODD), max_size=3),
)

UNUSUAL: Final = (
    b"\x00",
    b"creating\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",  # half of a surrogate pair
    b"\xc0\xaf",  # a slash, overlong
    "\N{PILE OF POO}".encode(),
    "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}".encode(),
    "\N{RIGHT-TO-LEFT OVERRIDE}creating".encode(),
    "cre\N{COMBINING ACUTE ACCENT}ating".encode(),
    b".",
    b"..",
    b"../../creating",
    b"creating/",
    b"creating//listBitLockerKeys",
    b"creating?x=y",
    b"creating#x",
    b"creating;x=y",
    b"creating%00",
    b"creating\r\nx-injected: y",
    b" creating ",
    b"' OR 1=1 --",
    b"{jobName}",
    b"a" * 5_000,
)


Known = Mapping[str, Sequence[str]]
"""Parameter of a path -> values that count."""


# Descriptions, read.


def config() -> SchemathesisConfig:
    """Make what schemathesis goes by: nothing of files or of the environment, and no tokens of its own."""
    generation = GenerationConfig(deterministic=True, with_security_parameters=False)
    return SchemathesisConfig(projects=ProjectsConfig(default=ProjectConfig(generation=generation)))


def closed(shape: dict[str, Any]) -> dict[str, Any]:
    """Close a shape and those in it: what has members is an object, and has no others."""
    made = dict(shape)
    if "$ref" in shape:
        made["$ref"] = f"{shape['$ref']}-answered"
    if "properties" in shape:
        made["type"] = "object"
        made["properties"] = {name: closed(member) for name, member in shape["properties"].items()}
        made.setdefault("additionalProperties", False)
    for word in ("items", "additionalProperties"):
        if isinstance(shape.get(word), dict):
            made[word] = closed(shape[word])
    for word in ("allOf", "anyOf", "oneOf"):
        if word in shape:
            made[word] = [closed(each) for each in shape[word]]
    return made


def loaded(description: dict[str, Any], shapes: dict[str, Any]) -> BaseSchema:
    """Read a description, its answers closed; `shapes` are its named ones, part of it."""
    shapes.update({f"{name}-answered": closed(shape) for name, shape in shapes.items()})
    for methods in description["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                for part in (response, *response.get("content", {}).values()):
                    if "schema" in part:
                        part["schema"] = closed(part["schema"])
    return schemathesis.openapi.from_dict(description, config=config())


def published(version: str) -> BaseSchema:
    """Read a published description, for its one version, with what it refers to outside."""
    text = (DESCRIPTIONS / version / "storageimportexport.json").read_text("utf-8")
    assert OUTSIDE in text
    description = json.loads(text.replace(OUTSIDE, "#/definitions/systemData"))
    description["definitions"]["systemData"] = SYSTEM_DATA
    description["parameters"]["api-version"]["enum"] = [version]
    for methods in description["paths"].values():
        for operation in methods.values():
            del operation["x-ms-examples"]  # files beside it; they have tests of their own
    return loaded(description, description["definitions"])


@dataclass(frozen=True, slots=True)
class Described:
    """An operation as a description has it, and the versions that it may be asked for."""

    id: str
    operation: APIOperation[Any, Any, Any, Any]
    versions: Sequence[str]

    def whole(self, known: Known) -> Iterator[Case[Any]]:
        """Make requests that count, to everything that is known, with each body in turn."""
        parameters = [parameter.name for parameter in self.operation.path_parameters]
        bodies_there = BODIES.get(self.id, ())
        is_versioned = "api-version" in {parameter.name for parameter in self.operation.query}
        for n in range(max([1, len(bodies_there), *(len(known[name]) for name in parameters)])):
            case = self.operation.Case(
                path_parameters={name: known[name][n % len(known[name])] for name in parameters},
                query={"api-version": self.versions[n % len(self.versions)]} if is_versioned else {},
            )
            if bodies_there:
                case.body, case.media_type = bodies_there[n % len(bodies_there)], "application/json"
            yield case

    def edges(self) -> list[Case[Any]]:
        """Make requests at and beyond every edge of what the description allows."""
        schema: BaseSchema = self.operation.schema
        return list(
            schema.iter_coverage_cases(
                self.operation,
                generation_modes=list(GenerationMode),
                generation_config=schema.config.generation,
            )
        )


def operations_of(schema: BaseSchema, versions: Sequence[str]) -> dict[str, Described]:
    """Find the operations of a description: id -> operation."""
    found = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
    ids = [str(operation.definition.raw["operationId"]) for operation in found]
    return {name: Described(name, operation, versions) for name, operation in zip(ids, found, strict=True)}


Descriptions = Mapping[str, Mapping[str, Described]]
"""Name of a description -> id of an operation -> operation."""


@pytest.fixture(scope="module")
def descriptions(served: Server) -> Descriptions:
    """Read all four descriptions: "ours" as the running server gives it, the published ones by version."""
    ours = httpx.get(f"{served.address}/openapi.json").raise_for_status().json()
    return {
        "ours": operations_of(loaded(ours, ours["components"]["schemas"]), VERSIONS),
        **{version: operations_of(published(version), [version]) for version in VERSIONS},
    }


# A server, and what it knows.


@pytest.fixture(scope="module")
def served(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve one embedded database to all tests here."""
    folder = tmp_path_factory.mktemp("schemathesis")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIVEPOST_DATA_DIRECTORY", str(folder / "data"))
        shutil.copytree(migrated_file.parent / "keys", Settings().key_file.parent)
        shutil.copy(migrated_file, folder / "data" / "drivepost.db")
        database.engine.cache_clear()
        use_ring(None)
        with serving(folder, DRIVEPOST_API_REQUESTS_PER_MINUTE="1000000") as server:
            yield server
        database.engine().dispose()
        database.engine.cache_clear()
        use_ring(None)


def _jobs(session: Session) -> list[UUID]:
    """Make a job in each state and of each kind that answers differently; gives their ids."""
    now = database_time(session)
    long_ago = now - timedelta(days=31)
    made = [job_in(session, state, state.value.lower(), now, driveList=TWO) for state in JobState]
    made += [
        job_in(session, JobState.COMPLETED, "cancelled", now, cancelled=True, driveList=TWO),
        job_in(session, JobState.RECEIVED, "cancelling", now, cancelled=True, driveList=TWO),
        job_in(session, JobState.SHIPPING, "forgotten", long_ago, driveList=TWO),
        job_in(session, JobState.SHIPPING, "export", now, **EXPORT),
        job_in(session, JobState.CREATING, "bare", now, returnAddress=None, deliveryPackage=None),
        job_in(session, JobState.CLOSED, "erased", now, driveList=TWO),
    ]
    wish_erasure(session, made[-1], at=now, by=Actor.CUSTOMER)
    packaging = made[list(JobState).index(JobState.PACKAGING)]
    for drive in drives_of(session, packaging):
        for target in (DriveState.RECEIVED, DriveState.TRANSFERRING, DriveState.COMPLETED):
            move_drive(session, drive, target, at=now, by=Actor.SERVICE)
        drive.copy_status = DriveStatus.COMPLETED
        session.add(drive)
    session.add(ExtraDrive(job_id=packaging, drive_id="EXTRA7", found_at=now))
    for job_id in made:
        set_columns(session, job_id, user_id=LOCAL_USER)
    return made


@dataclass(frozen=True, slots=True)
class World:
    """What there is when a test begins: what is known of it, and a copy of the database."""

    known: Known
    database: Path

    def restore(self) -> None:
        """Bring the database that is served back to it, whatever was asked meanwhile."""
        live = Settings().data_directory / "drivepost.db"
        with closing(sqlite3.connect(self.database)) as kept, closing(sqlite3.connect(live)) as target:
            kept.backup(target)


@pytest.fixture(scope="module")
def world(served: Server, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Make jobs in every state, portal settings and dashboards."""
    with writing() as session:
        now = database_time(session)
        jobs = [str(job_id) for job_id in _jobs(session)]
        address = ReturnAddressShape.model_validate(ADDRESS)
        shipping = ReturnShippingShape.model_validate(RETURN_SHIPPING)
        save_address(session, LOCAL_USER, address, shipping, at=now)
        shapes = [DashboardShape(name=f"d{n}", shared=n % 2 > 0, filter=DashboardFilter()) for n in range(6)]
        dashboards = [str(create_dashboard(session, LOCAL_USER, shape, at=now).id) for shape in shapes]
        names = [read_job(session, UUID(job_id)).name for job_id in jobs]
    known = {
        "subscriptionId": ["s1"],
        "resourceGroupName": ["g1", "G1"],
        "jobName": [*names, *(f"new{n}" for n in range(5))],
        "jobId": jobs,
        "dashboardId": dashboards,
        "locationName": ["West US", "eastus"],
    }
    kept = tmp_path_factory.mktemp("world") / "drivepost.db"
    live = Settings().data_directory / "drivepost.db"
    with closing(sqlite3.connect(live)) as source, closing(sqlite3.connect(kept)) as target:
        source.backup(target)
    return World(known, kept)


@pytest.fixture
def known(world: World) -> Known:
    """Begin with the world as it was made; gives what is known of it."""
    world.restore()
    return world.known


# Requests.


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Find every place in a JSON value but its top."""
    members: Sequence[tuple[Any, Any]] = []
    if isinstance(value, dict):
        members = list(value.items())
    elif isinstance(value, list):
        members = list(enumerate(value))
    for name, member in members:
        yield (*place, name)
        yield from _places(member, (*place, name))


@st.composite
def bodies(draw: st.DrawFn, operation_id: str) -> dict[str, Any]:
    """Make a body that counts, or would but for one place in it."""
    body: dict[str, Any] = deepcopy(draw(st.sampled_from(BODIES[operation_id])))
    if draw(st.booleans()):
        return body
    *way, last = draw(st.sampled_from(list(_places(body))))
    inner: Any = body
    for name in way:
        inner = inner[name]
    inner[last] = draw(ANYTHING)
    return body


@st.composite
def queries(draw: st.DrawFn, described: Described) -> dict[str, Any]:
    """Make a query that counts, at times but for its filter."""
    taken = {parameter.name for parameter in described.operation.query}
    query: dict[str, Any] = {}
    if "api-version" in taken:
        query["api-version"] = draw(st.sampled_from(described.versions))
    if "$filter" in taken and draw(st.booleans()):
        query["$filter"] = draw(st.sampled_from(FILTERS))
    if "$top" in taken and draw(st.booleans()):
        query["$top"] = draw(st.sampled_from([1, 2, 100]))
    return query


def cases(described: Described, known: Known) -> st.SearchStrategy[Case[Any]]:
    """Make a request by a description or against it; mostly with names that count."""
    operation = described.operation
    generated = st.one_of([operation.as_strategy(generation_mode=mode) for mode in GenerationMode])
    names = st.fixed_dictionaries(
        {each.name: st.sampled_from(known[each.name]) for each in operation.path_parameters}
    )
    query = queries(described)
    body = bodies(described.id) if described.id in BODIES else None

    @st.composite
    def made(draw: st.DrawFn) -> Case[Any]:
        case: Case[Any] = draw(generated)
        what_counts = draw(st.sampled_from(["names and body", "nothing", "names"]))
        if what_counts != "nothing":
            case.path_parameters, case.query = draw(names), draw(query)
        if what_counts == "names and body" and body is not None:
            case.body, case.media_type = draw(body), "application/json"
        return case

    return made()


def try_out(described: Described, served: Server, known: Known, *, thorough: bool) -> Counter[int]:
    """Make requests of one operation, the same in every run; look at each answer, and count them by status.

    First those that count, each once; then those at the edges of what is described; then others at random.

    Args:
        described: the operation.
        served: where it is.
        known: parameter of a path -> values that count.
        thorough: whether all edges are tried, and how many at random.
    """
    seen: Counter[int] = Counter()
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {served.token}"

        def ask(case: Case[Any]) -> None:
            response = case.call(base_url=served.address, session=session)
            seen[response.status_code] += 1
            case.validate_response(response, CHECKS)

        for case in described.whole(known):
            ask(case)

        edges = described.edges()
        for case in edges[:: len(edges) // (EDGES_THOROUGH if thorough else EDGES) + 1]:
            ask(case)

        @settings(
            max_examples=TRIES_THOROUGH if thorough else TRIES,
            derandomize=True,
            database=None,
            deadline=None,
            # Jobs change by what is asked, so that a smaller request proves nothing.
            phases=[Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases(described, known))
        def at_random(case: Case[Any]) -> None:
            ask(case)

        at_random()
    return seen


@pytest.mark.parametrize("operation_id", OUR_OPERATIONS)
def test_our_own_description_is_kept(
    operation_id: str,
    served: Server,
    descriptions: Descriptions,
    known: Known,
    thorough: bool,
) -> None:
    """Operation by operation, as the running server describes itself; some requests get through to a success."""
    described = descriptions["ours"][operation_id]
    seen = try_out(described, served, known, thorough=thorough)
    print(operation_id, dict(seen))  # noqa: T201  shown with -rP
    assert any(status < 300 for status in seen)


@pytest.mark.parametrize("operation_id", OPERATIONS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_published_description_is_kept(
    version: str,
    operation_id: str,
    served: Server,
    descriptions: Descriptions,
    known: Known,
    thorough: bool,
) -> None:
    """Operation by operation of each version; some requests get through to a success."""
    described = descriptions[version][operation_id]
    seen = try_out(described, served, known, thorough=thorough)
    print(version, operation_id, dict(seen))  # noqa: T201  shown with -rP
    assert any(status < 300 for status in seen)


def test_every_operation_of_every_description_is_tried(descriptions: Descriptions) -> None:
    """No more and no fewer than the lists that the tests above go through."""
    assert {name: set(operations) for name, operations in descriptions.items()} == {
        "ours": set(OUR_OPERATIONS),
        **{version: set(OPERATIONS) for version in VERSIONS},
    }


@pytest.mark.parametrize("name", ["ours", *VERSIONS])
@pytest.mark.parametrize(
    ("status", "content", "content_type", "fault"),
    [
        (200, {"value": [], "undocumented": 1}, "application/json", "'undocumented' was unexpected"),
        (200, {"value": [{"undocumented": 1}]}, "application/json", "'undocumented' was unexpected"),
        (400, {"error": {"undocumented": 1}}, "application/json", "'undocumented' was unexpected"),
        (400, {"error": "text"}, "application/json", "is not of type"),
        (200, {"value": []}, "text/plain", "Undocumented Content-Type"),
        (503, {"error": {"code": "a", "message": "b"}}, "application/json", "Server error"),
    ],
)
def test_an_answer_that_is_not_as_described_is_seen(
    descriptions: Descriptions, name: str, status: int, content: Any, content_type: str, fault: str
) -> None:
    """What these tests look for would be found; left open, a description allows whatever it does not name."""
    operation = descriptions[name]["Jobs_ListBySubscription"].operation
    case = operation.Case(path_parameters={"subscriptionId": "s1"}, query={"api-version": "2021-01-01"})
    request = httpx.Request("GET", "http://127.0.0.1/")
    answer = httpx.Response(status, headers={"Content-Type": content_type}, json=content, request=request)
    answer.elapsed = timedelta()
    with pytest.raises(FailureGroup, match=fault):
        case.validate_response(answer, CHECKS)


# Names.


def quoted(name: bytes) -> str:
    """Write a name so that nobody on the way takes any of it for anything else."""
    return "".join(f"%{byte:02X}" for byte in name)


NAMES: Final = st.one_of(
    st.sampled_from(UNUSUAL),
    st.text(min_size=1, max_size=40).map(str.encode),
    st.binary(min_size=1, max_size=40),
    st.text("creating\x00/%.\u0301", min_size=1, max_size=12).map(str.encode),
)


@pytest.mark.parametrize("operation_id", OUR_OPERATIONS)
def test_unusual_names_and_queries_are_answered_as_described(
    operation_id: str,
    served: Server,
    descriptions: Descriptions,
    known: Known,
    thorough: bool,
) -> None:
    """Bytes that are no UTF-8, U+0000, slashes and dots, in any place of a path and in any parameter of a query.

    A name with a slash may be another path, of another operation: of such an answer no more is looked at than
    whether it is a fault of ours.
    """
    described = descriptions["ours"][operation_id]
    operation = described.operation
    in_path = [parameter.name for parameter in operation.path_parameters]
    in_query = [parameter.name for parameter in operation.query]
    places = st.sampled_from([*in_path, *in_query, "undocumented", "api-version"])
    names = st.fixed_dictionaries({each: st.sampled_from(known[each]).map(str.encode) for each in in_path})
    body = bodies(operation_id) if operation_id in BODIES else st.none()
    seen: Counter[int] = Counter()

    @settings(
        max_examples=TRIES_THOROUGH if thorough else NAMES_TRIED,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(places, NAMES, names, queries(described), body)
    def ask(place: str, name: bytes, values: dict[str, bytes], texts: dict[str, Any], document: Any) -> None:
        query = {each: str(value).encode() for each, value in texts.items()}
        (values if place in in_path else query)[place] = name
        path = operation.path
        for each, value in values.items():
            path = path.replace(f"{{{each}}}", quoted(value))
        asked = "&".join(f"{quote(each)}={quoted(value)}" for each, value in query.items())
        answer = client.request(operation.method.upper(), f"{path}?{asked}", json=document)
        seen[answer.status_code] += 1
        is_elsewhere = place in in_path and b"/" in name
        case = operation.Case(path_parameters={each: quoted(value) for each, value in values.items()})
        case.validate_response(answer, [not_a_server_error] if is_elsewhere else CHECKS)

    with served.client() as client:
        ask()
    print(operation_id, dict(seen))  # noqa: T201  shown with -rP


def test_an_unusual_name_finds_no_job(served: Server, known: Known) -> None:
    """However near it comes to one there is; what is refused does not repeat it."""
    with served.client() as client:
        for name in UNUSUAL:
            answer = client.get(served.job_url(quoted(name)))
            assert answer.status_code in {400, 404}, (name, answer.text)
            assert set(answer.json()["error"]) <= {"code", "message", "target", "details"}
            assert "x-injected" not in answer.headers
        assert client.get(served.job_url(quoted(b"creating"))).status_code == 200
