"""Who may do what: every operation asked by everybody there is; a refusal tells nothing and changes nothing."""

import base64
import hashlib
import hmac
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlmodel import SQLModel

from deployments.api.application import make_application
from models import database
from models.dashboards import DashboardShape, create_dashboard
from models.database import database_time, reading, writing
from models.key_files import use_ring
from models.lifecycle import JobState
from models.portal import save_address
from models.requests import ReturnAddressShape, ReturnShippingShape
from models.settings import Settings
from tests.builders import ADDRESS, DRIVE, RETURN_SHIPPING, job_in, job_request, put, set_columns
from tests.deployments.api.conftest import VERSION, Issuer, Server, serving

ADA: Final = UUID("ada00000-0000-4000-8000-000000000ada")
BEN: Final = UUID("be000000-0000-4000-8000-0000000000be")
EVA: Final = UUID("e7a00000-0000-4000-8000-000000000e7a")

KEY_WORD: Final = "111111-222222-333333-QUACKENKEY"
JOB_WORDS: Final = (
    "Wilhelmina Quackenbush",
    "77 Quackenbush Alley",
    "Quackenville",
    "QK-9081",
    "Quackland",
    "555-QUACK-01",
    "wilhelmina@quackenbush.example",
    "QUACKSERIAL",
    "QUACKACCOUNT",
    "QUACKTRACK",
    "quacktag",
    "quackenjob",
    "quackengroup",
    KEY_WORD,
)
SETTINGS_WORDS: Final = ("Saved Quackenbush", "Quackenprivate")
WORDS: Final = (*JOB_WORDS, *SETTINGS_WORDS, str(ADA))
"""What is Ada's: those of her job are for her subscription, those of her settings for her alone."""

SECRET_ADDRESS: Final = {
    "recipientName": "Wilhelmina Quackenbush",
    "streetAddress1": "77 Quackenbush Alley",
    "streetAddress2": "",
    "city": "Quackenville",
    "stateOrProvince": "QK",
    "postalCode": "QK-9081",
    "countryOrRegion": "Quackland",
    "phone": "555-QUACK-01",
    "email": "wilhelmina@quackenbush.example",
}
SECRET_JOB: Final[Mapping[str, Any]] = {
    "returnAddress": SECRET_ADDRESS,
    "returnShipping": {"carrierName": "FedEx", "carrierAccountNumber": "QUACKACCOUNT"},
    "deliveryPackage": {"carrierName": "FedEx", "trackingNumber": "QUACKTRACK", "driveCount": 1},
    "driveList": [{**DRIVE, "driveId": "QUACKSERIAL", "bitLockerKey": KEY_WORD}],
}


# The table.


class Whose(Enum):
    """Whose an operation's matter is, and so how somebody else is refused."""

    ALL = auto()
    """The same for all who have a role."""
    CALLER = auto()
    """The caller's own; nobody can name another's."""
    SUBSCRIPTION = auto()
    """A subscription's, by name: 403, whatever is in it."""
    JOB = auto()
    """A job by its opaque id: 404, as one that is not there."""
    DASHBOARD = auto()
    """A dashboard by its opaque id: 404, as one that is not there."""
    OPERATORS = auto()
    """For operators alone: 403 to customers."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a request names."""

    user: UUID = ADA
    subscription: str = "s1"
    group: str = "quackengroup"
    job: str = "quackenjob"
    job_id: UUID = field(default_factory=uuid4)
    dashboard_id: UUID = field(default_factory=uuid4)


def _job(target: Target) -> Any:
    return job_request()["body"]


def _whole_job(target: Target) -> Any:
    names = {"subscriptionId": target.subscription, "resourceGroupName": target.group, "jobName": target.job}
    return {**names, "body": job_request()["body"]}


def _tags(target: Target) -> Any:
    return {"tags": {"a": "b"}}


def _saved(target: Target) -> Any:
    return {"savedCarrierAndReturnAddress": {"returnAddress": ADDRESS, "returnShipping": RETURN_SHIPPING}}


def _document(target: Target) -> Any:
    return {"userId": str(target.user), **_saved(target)}


def _dashboard(target: Target) -> Any:
    return {"name": "mine", "shared": True}


def _back(target: Target) -> Any:
    package = {"carrierName": "UPS", "trackingNumber": "BACK1", "driveCount": 1, "shipDate": "2026-06-20"}
    return {"returnPackage": package}


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation, whose matter it is, and what it answers to who may do it."""

    method: str
    path: str
    whose: Whose
    status: int = 200
    body: Callable[[Target], Any] | None = None
    state: JobState = JobState.CREATING

    def url(self, target: Target) -> str:
        """Tell its path and query for a target."""
        names = {
            "subscriptionId": target.subscription,
            "resourceGroupName": target.group,
            "jobName": target.job,
            "jobId": target.job_id,
            "dashboardId": target.dashboard_id,
            "locationName": "westus",
        }
        version = f"?api-version={VERSION}" if "Microsoft.ImportExport" in self.path else ""
        return self.path.format(**names) + version


_PROVIDER: Final = "/providers/Microsoft.ImportExport"
_GROUP: Final = f"/subscriptions/{{subscriptionId}}/resourceGroups/{{resourceGroupName}}{_PROVIDER}"
_JOB: Final = f"{_GROUP}/jobs/{{jobName}}"
_OWN: Final = "/portal/jobs/{jobId}"
_BOARD: Final = "/portal/dashboards/{dashboardId}"
_W: Final = Whose

TABLE: Final[Mapping[str, Operation]] = {
    "Operations_List": Operation("GET", f"{_PROVIDER}/operations", _W.ALL),
    "Locations_List": Operation("GET", f"{_PROVIDER}/locations", _W.ALL),
    "Locations_Get": Operation("GET", f"{_PROVIDER}/locations/{{locationName}}", _W.ALL),
    "Jobs_ListBySubscription": Operation(
        "GET", f"/subscriptions/{{subscriptionId}}{_PROVIDER}/jobs", _W.SUBSCRIPTION
    ),
    "Jobs_ListByResourceGroup": Operation("GET", f"{_GROUP}/jobs", _W.SUBSCRIPTION),
    "Jobs_Get": Operation("GET", _JOB, _W.SUBSCRIPTION),
    "Jobs_Create": Operation("PUT", _JOB, _W.SUBSCRIPTION, body=_job),
    "Jobs_Update": Operation("PATCH", _JOB, _W.SUBSCRIPTION, body=_tags),
    "Jobs_Delete": Operation("DELETE", _JOB, _W.SUBSCRIPTION),
    "BitLockerKeys_List": Operation("POST", f"{_JOB}/listBitLockerKeys", _W.SUBSCRIPTION),
    "Portal_Me": Operation("GET", "/portal/me", _W.CALLER),
    "PortalJobs_List": Operation("GET", "/portal/jobs", _W.CALLER),
    "PortalJobs_Create": Operation("POST", "/portal/jobs", _W.SUBSCRIPTION, body=_whole_job),
    "PortalJobs_Get": Operation("GET", _OWN, _W.JOB),
    "PortalJobs_Update": Operation("PATCH", _OWN, _W.JOB, body=_tags),
    "PortalJobs_Delete": Operation("DELETE", _OWN, _W.JOB),
    "PortalJobs_Cancel": Operation("POST", f"{_OWN}/cancel", _W.JOB),
    "PortalJobs_Erase": Operation("POST", f"{_OWN}/erasePersonalData", _W.JOB, state=JobState.SHIPPING),
    "PortalJobs_ListEvents": Operation("GET", f"{_OWN}/events", _W.JOB),
    "Portal_ErasePersonalData": Operation("POST", "/portal/erasePersonalData", _W.CALLER),
    "PortalSettings_Get": Operation("GET", "/portal/settings", _W.CALLER),
    "PortalSettings_Put": Operation("PUT", "/portal/settings", _W.CALLER, body=_saved),
    "PortalSettings_Delete": Operation("DELETE", "/portal/settings", _W.CALLER),
    "PortalSettings_Export": Operation("GET", "/portal/settings/export", _W.CALLER),
    "PortalSettings_Import": Operation("POST", "/portal/settings/import", _W.CALLER, body=_document),
    "PortalSettings_DeleteSavedAddress": Operation(
        "DELETE", "/portal/settings/savedCarrierAndReturnAddress", _W.CALLER
    ),
    "Dashboards_List": Operation("GET", "/portal/dashboards", _W.CALLER),
    "Dashboards_Create": Operation("POST", "/portal/dashboards", _W.CALLER, 201, body=_dashboard),
    "Dashboards_Get": Operation("GET", _BOARD, _W.DASHBOARD),
    "Dashboards_ListJobs": Operation("GET", f"{_BOARD}/jobs", _W.DASHBOARD),
    "Dashboards_Update": Operation("PUT", _BOARD, _W.DASHBOARD, body=_dashboard),
    "Dashboards_Delete": Operation("DELETE", _BOARD, _W.DASHBOARD),
    "OperatorJobs_Get": Operation("GET", "/operator/jobs/{jobId}", _W.OPERATORS),
    "OperatorJobs_ReturnPackage": Operation(
        "POST", "/operator/jobs/{jobId}/returnPackage", _W.OPERATORS, body=_back, state=JobState.PACKAGING
    ),
    "OperatorJobs_Close": Operation("POST", "/operator/jobs/{jobId}/close", _W.OPERATORS, state=JobState.SHIPPING),
    "OperatorDashboards_Delete": Operation("DELETE", "/operator/dashboards/{dashboardId}", _W.OPERATORS),
}
"""Every operation, by hand from issue 4 and the README; each needs a token with a role."""

OPEN_TO_ALL: Final = {"/openapi.json", "/docs", "/docs/oauth2-redirect", "/docs/assets", "/health"}


def of(*whose: Whose) -> list[str]:
    """Name the operations of these owners."""
    return [name for name, operation in TABLE.items() if operation.whose in whose]


# A server with an issuer, Ada's things, and everybody who asks.


class World:
    """A server where Ada of subscription s1 has a job of words, settings of words, and dashboards."""

    def __init__(self, served: Server, issuer: Issuer) -> None:
        self.server = served
        self.issuer = issuer
        self._client = httpx.Client(base_url=served.address, timeout=60)
        with writing() as session:
            at = database_time(session)
            job = {**job_request("quackenjob", tags={"quacktag": "quacktag"}, **SECRET_JOB), "userId": str(ADA)}
            job_id = put(session, {**job, "resourceGroupName": "quackengroup"}, at)
            put(session, job_request("plain"), at)
            address = ReturnAddressShape.model_validate({**SECRET_ADDRESS, "recipientName": "Saved Quackenbush"})
            shipping = ReturnShippingShape.model_validate(SECRET_JOB["returnShipping"])
            save_address(session, ADA, address, shipping, at=at)
            private = DashboardShape(name="Quackenprivate")
            self.private = Target(job_id=job_id, dashboard_id=create_dashboard(session, ADA, private, at=at).id)
            shared = DashboardShape(name="for all", shared=True)
            self.shared = Target(job_id=job_id, dashboard_id=create_dashboard(session, ADA, shared, at=at).id)

    def token(self, user: UUID, *roles: str, subscriptions: tuple[str, ...] = ()) -> str:
        """Make a header with a token that counts."""
        return f"Bearer {self.issuer.token(*roles, subscriptions=list(subscriptions), sub=str(user))}"

    def ask(
        self, authorization: str | None, operation: Operation, target: Target, content: bytes | None = None
    ) -> httpx.Response:
        """Ask, with the body that the operation wants or another."""
        if content is None and operation.body is not None:
            content = json.dumps(operation.body(target)).encode()
        return self.send(authorization, operation.method, operation.url(target), content)

    def send(
        self, authorization: str | None, method: str, url: str, content: bytes | None = None
    ) -> httpx.Response:
        """Send a request."""
        headers = {} if authorization is None else {"Authorization": authorization}
        return self._client.request(method, url, headers=headers, content=content)

    def close(self) -> None:
        """Hang up."""
        self._client.close()


@contextmanager
def _issuing() -> Iterator[Issuer]:
    """Show an issuer's keys, as the fixture does, for as long as a module's tests take."""
    made = Issuer()

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps(made.keys()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Keys) as listening:
        Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        made.url = f"http://127.0.0.1:{listening.server_port}"
        yield made
        listening.shutdown()


@pytest.fixture(scope="module")
def world(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Serve one embedded database to all tests here."""
    folder = tmp_path_factory.mktemp("who-may")
    with pytest.MonkeyPatch.context() as patch, _issuing() as issuer:
        patch.setenv("DRIVEPOST_DATA_DIRECTORY", str(folder))
        shutil.copy(migrated_file, folder / "drivepost.db")
        shutil.copytree(migrated_file.parent / "keys", Settings().key_file.parent)
        database.engine.cache_clear()
        use_ring(None)
        with serving(folder, **issuer.settings, DRIVEPOST_API_REQUESTS_PER_MINUTE="1000000") as served:
            made = World(served, issuer)
            yield made
            made.close()
        database.engine().dispose()
        database.engine.cache_clear()
        use_ring(None)


def every_row() -> dict[str, list[str]]:
    """Read every row of every table: table -> rows."""
    with reading(of_one_moment=True) as session:
        return {
            table.name: sorted(repr(row) for row in session.connection().execute(table.select()))
            for table in SQLModel.metadata.sorted_tables
        }


@pytest.fixture
def unchanged(world: World) -> Iterator[None]:
    """See that a test's requests changed no row of any table."""
    before = every_row()
    assert before["job"]
    assert before["dashboard"]
    yield
    assert every_row() == before


def told(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Tell everything of an answer but its ids and its time."""
    own = {"x-ms-request-id", "x-ms-correlation-request-id", "date"}
    headers = sorted((name, value) for name, value in answer.headers.items() if name not in own)
    return answer.status_code, answer.content, headers


def code_of(answer: httpx.Response) -> str:
    """Tell the code of a refusal."""
    code: str = answer.json()["error"]["code"]
    return code


def see_no_word(answer: httpx.Response, words: tuple[str, ...] = WORDS) -> None:
    """Neither body nor headers hold a word."""
    whole = f"{answer.text}\n{answer.headers}".lower()
    assert [word for word in words if word.lower() in whole] == []


def asked_in_every_way(
    world: World, authorization: str | None, operation: Operation, *targets: Target
) -> list[httpx.Response]:
    """Ask for each target: with the body that is wanted, and with others."""
    contents = [None, b"", b"{", b"[]", b'{"tags": 7, "properties": 7}'] if operation.body else [None, b"{"]
    answers = [world.ask(authorization, operation, target, content) for target in targets for content in contents]
    for answer in answers:
        see_no_word(answer)
    return answers


ABSENT: Final = (
    Target(job="absent"),
    Target(group="absent"),
    Target(subscription="s3"),
    Target(group="quackengroup", job="bad name"),
)


# Everything is in the table.


def test_the_table_has_every_operation_of_the_running_server(world: World) -> None:
    """As the server describes itself: one that is added must say here who may do it."""
    described = httpx.get(f"{world.server.address}/openapi.json").json()
    found = {
        operation["operationId"]: (method.upper(), path)
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    }
    assert found == {name: (operation.method, operation.path) for name, operation in TABLE.items()}


def test_what_is_open_to_all_is_known_and_tells_nothing(world: World, unchanged: None) -> None:
    """What the description leaves out: the description itself, its page, and whether the server is alive."""
    application = make_application_like(world)
    hidden = {str(getattr(route, "path", "")) for route in application.routes}
    assert {path for path in hidden if path} == OPEN_TO_ALL
    for path in OPEN_TO_ALL:
        see_no_word(world.send(None, "GET", path))
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert world.send(None, method, path).status_code in {404, 405}


def make_application_like(world: World) -> Any:
    """Make the application that the server of a world serves."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in world.issuer.settings.items():
            patch.setenv(name, value)
        return make_application()


@pytest.mark.parametrize("name", TABLE)
def test_no_other_method_gets_in_where_an_operation_is(world: World, unchanged: None, name: str) -> None:
    """HEAD, OPTIONS and what the path does not take are refused without a look at what is there."""
    path = TABLE[name].path
    taken = {operation.method for operation in TABLE.values() if operation.path == path}
    for method in {"GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE"} - taken:
        answers = [
            world.send(None, method, TABLE[name].url(target), b"{}") for target in (world.private, Target())
        ]
        assert [answer.status_code for answer in answers] == [405, 405]
        assert told(answers[0]) == told(answers[1])
        see_no_word(answers[0])


# Without a token that counts.

_OTHER_KEY: Final = rsa.generate_private_key(65537, 2048)
_CURVE_KEY: Final = ec.generate_private_key(ec.SECP256R1())
_BOTH: Final = ("customer", "operator")


def _url_safe(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _forged(issuer: Issuer, algorithm: str, secret: bytes | None, **claims: Any) -> str:
    """Make a token by hand, as no honest library does."""
    header = {"alg": algorithm, "typ": "JWT", "kid": issuer.key_id}
    whole = jwt.decode(issuer.token(*_BOTH, subscriptions=["s1"]), options={"verify_signature": False})
    parts = ".".join(_url_safe(json.dumps(part).encode()) for part in (header, {**whole, **claims}))
    if secret is None:
        return f"{parts}."
    return f"{parts}.{_url_safe(hmac.new(secret, parts.encode(), hashlib.sha256).digest())}"


def _pem(issuer: Issuer) -> bytes:
    return issuer.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _jwk(issuer: Issuer) -> bytes:
    return json.dumps(issuer.keys()["keys"][0]).encode()


def _with_more_roles(issuer: Issuer) -> str:
    """Take an honest token and write other claims into it."""
    header, _, signature = issuer.token("customer").split(".")
    return f"{header}.{_forged(issuer, 'RS256', None).split('.')[1]}.{signature}"


def _with_own_key(issuer: Issuer) -> str:
    """Sign with a key that the token brings along."""
    own = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(_OTHER_KEY.public_key()))
    return _good(issuer, key=_OTHER_KEY, headers={"kid": issuer.key_id, "jwk": own})


def _good(issuer: Issuer, **claims: Any) -> str:
    return issuer.token(*_BOTH, **{"subscriptions": ["s1"], **claims})


def _soon() -> int:
    return int(time.time()) + 120


STRANGERS: Final[Mapping[str, Callable[[Issuer], str | None]]] = {
    "no token": lambda _: None,
    "an empty header": lambda _: "",
    "a scheme without a token": lambda _: "Bearer",
    "another scheme": lambda issuer: f"Basic {_good(issuer)}",
    "a token without a scheme": _good,
    "two tokens": lambda issuer: f"Bearer {_good(issuer)} {_good(issuer)}",
    "garbage": lambda _: "Bearer quack",
    "garbage of three parts": lambda _: "Bearer quack.quack.quack",
    "a token like the embedded default's": lambda _: "Bearer " + "A" * 43,
    "a token cut short": lambda issuer: f"Bearer {_good(issuer)[:-8]}",
    "a foreign key": lambda issuer: f"Bearer {_good(issuer, key=_OTHER_KEY)}",
    "a foreign key of another kind": lambda issuer: f"Bearer {_good(issuer, key=_CURVE_KEY, algorithm='ES256')}",
    "a key that it brings along": lambda issuer: f"Bearer {_with_own_key(issuer)}",
    "an unknown key": lambda issuer: f"Bearer {_good(issuer, headers={'kid': 'another'})}",
    "no key": lambda issuer: f"Bearer {_good(issuer, headers={'kid': ''})}",
    "other claims than were signed": lambda issuer: f"Bearer {_with_more_roles(issuer)}",
    "no signature": lambda issuer: f"Bearer {_forged(issuer, 'none', None)}",
    "no signature, in capitals": lambda issuer: f"Bearer {_forged(issuer, 'NONE', None)}",
    "the public key as a secret": lambda issuer: f"Bearer {_forged(issuer, 'HS256', _pem(issuer))}",
    "the public key's JSON as a secret": lambda issuer: f"Bearer {_forged(issuer, 'HS256', _jwk(issuer))}",
    "an empty secret": lambda issuer: f"Bearer {_forged(issuer, 'HS256', b'')}",
    "a public key said to be RSA": lambda issuer: f"Bearer {_forged(issuer, 'RS256', _pem(issuer))}",
    "expired": lambda issuer: f"Bearer {_good(issuer, exp=int(time.time()) - 60)}",
    "without an end": lambda issuer: f"Bearer {_good(issuer, exp=None)}",
    "not yet valid": lambda issuer: f"Bearer {_good(issuer, nbf=_soon())}",
    "made in the future": lambda issuer: f"Bearer {_good(issuer, iat=_soon())}",
    "another audience": lambda issuer: f"Bearer {_good(issuer, aud='somebody-else')}",
    "no audience": lambda issuer: f"Bearer {_good(issuer, aud=None)}",
    "another issuer": lambda issuer: f"Bearer {_good(issuer, iss=f'{issuer.url}/')}",
    "no issuer": lambda issuer: f"Bearer {_good(issuer, iss=None)}",
    "no user": lambda issuer: f"Bearer {_good(issuer, sub=None)}",
    "an empty user": lambda issuer: f"Bearer {_good(issuer, sub='')}",
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_nobody_gets_in_without_a_token_that_counts(world: World, unchanged: None, stranger: str) -> None:
    """401 that says how to get in, the same for every operation, whatever it names and whatever it brings."""
    assert world.send(f"Bearer {_good(world.issuer)}", "GET", "/portal/me").status_code == 200
    authorization = STRANGERS[stranger](world.issuer)
    answers = [
        answer
        for operation in TABLE.values()
        for answer in [
            world.ask(authorization, operation, world.private),
            world.ask(authorization, operation, Target(job="absent"), b"{"),
        ]
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert {code_of(answer) for answer in answers} == {"InvalidAuthenticationToken"}
    assert len({answer.content for answer in answers}) == 1
    for answer in answers:
        assert answer.headers["www-authenticate"].startswith("Bearer ")
        see_no_word(answer)


@pytest.mark.parametrize("roles", [(), ("admin", "Customer", "OPERATOR", "customers")])
def test_a_token_without_a_role_opens_nothing(world: World, unchanged: None, roles: tuple[str, ...]) -> None:
    """403, the same for every operation; not even what is the same for all."""
    authorization = world.token(ADA, *roles, subscriptions=("s1",))
    answers = [
        answer
        for operation in TABLE.values()
        for answer in asked_in_every_way(world, authorization, operation, world.private, Target(job="absent"))
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert {code_of(answer) for answer in answers} == {"AuthorizationFailed"}
    assert len({answer.content for answer in answers}) == 1


# Who may.

WHO: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "customer": (("customer",), ("s1",)),
    "customer of many, in capitals": (("customer",), ("s0", "S1", "s2")),
    "operator": (("operator",), ()),
    "both": (("customer", "operator"), ("s1",)),
    "operator, and customer elsewhere": (("customer", "operator"), ("s2",)),
}


def _prepared(operation: Operation, user: UUID) -> Target:
    """Make what an operation can be done with, all of it the user's."""
    name = f"job-{uuid4().hex}"
    with writing() as session:
        at = database_time(session)
        ago = at - timedelta(days=31)
        job_id = job_in(session, operation.state, name, ago, driveList=SECRET_JOB["driveList"])
        set_columns(session, job_id, user_id=user)
        address = ReturnAddressShape.model_validate(ADDRESS)
        save_address(session, user, address, ReturnShippingShape.model_validate(RETURN_SHIPPING), at=at)
        shown = create_dashboard(session, user, DashboardShape(name="mine", shared=True), at=at)
    return Target(user, "s1", "g1", name, job_id, shown.id)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("name", TABLE)
def test_who_may_is_served(world: World, name: str, who: str) -> None:
    """Customers in their subscriptions, operators in all; what is the operators' is refused to customers."""
    operation = TABLE[name]
    roles, subscriptions = WHO[who]
    user = uuid4()
    target = _prepared(operation, user)
    answer = world.ask(world.token(user, *roles, subscriptions=subscriptions), operation, target)
    if operation.whose is Whose.OPERATORS and "operator" not in roles:
        assert (answer.status_code, code_of(answer)) == (403, "AuthorizationFailed")
    else:
        assert answer.status_code == operation.status, answer.text
    # Keys are in no answer but that of the one call.
    assert (KEY_WORD in answer.text) == (name == "BitLockerKeys_List")


# Who may not.

ELSEWHERE: Final[Mapping[str, tuple[str, ...]]] = {
    "of another subscription": ("s2",),
    "of none": (),
    "of some that look alike": ("s", "s10", "s1-", "s1/", "s1/quackengroup", "s1 ", "*", "", "%", "_1", "-s1"),
}


@pytest.mark.parametrize("where", ELSEWHERE)
@pytest.mark.parametrize("name", of(Whose.SUBSCRIPTION))
def test_another_subscription_is_refused_alike_whatever_is_in_it(
    world: World, unchanged: None, name: str, where: str
) -> None:
    """403 to the byte, whether the job, its group or its subscription is there, and whatever else is wrong."""
    authorization = world.token(EVA, "customer", subscriptions=ELSEWHERE[where])
    operation = TABLE[name]
    if name == "PortalJobs_Create":  # its subscription is in the body, which therefore is looked at first
        answers = [world.ask(authorization, operation, target) for target in (world.private, *ABSENT[:3])]
        broken = json.dumps({**_whole_job(world.private), "body": 7}).encode()
        wrong = [world.ask(authorization, operation, world.private, text) for text in (b"{", b"[]", broken)]
        assert {answer.status_code for answer in wrong} == {400}
    else:
        answers = asked_in_every_way(world, authorization, operation, world.private, *ABSENT)
        more = ("$top=0", "$top=x", "$filter=quack", "$skiptoken=quack", "$top=1&$top=2", "x=y")
        url = operation.url(world.private)
        answers += [world.send(authorization, operation.method, f"{url}&{each}", b"{") for each in more]
        answers.append(world.ask(authorization, operation, Target(subscription="S1")))
        encoded = url.replace("/s1/", "/%731/").replace("quackenjob", "%71uackenjob")
        answers.append(world.send(authorization, operation.method, encoded, b"{}"))
        answers.append(
            world.send(authorization, operation.method, url.upper().replace("API-VERSION", "api-version"))
        )
    assert {answer.status_code for answer in answers} == {403}
    assert {code_of(answer) for answer in answers} == {"AuthorizationFailed"}
    assert len({answer.content for answer in answers}) == 1
    assert len({str(told(answer)) for answer in answers}) == 1
    for answer in answers:
        see_no_word(answer)


@pytest.mark.parametrize("name", of(Whose.SUBSCRIPTION))
def test_a_version_that_is_none_is_told_alike_in_every_subscription(
    world: World, unchanged: None, name: str
) -> None:
    """Before a subscription is looked at, and so it tells nothing of any."""
    authorization = world.token(EVA, "customer", subscriptions=("s2",))
    operation = TABLE[name]
    targets = (world.private, *ABSENT, Target(subscription="s2"))
    for query in ("", "?api-version=", "?api-version=2015-01-01"):
        answers = [
            world.send(authorization, operation.method, operation.url(target).partition("?")[0] + query, b"{")
            for target in targets
        ]
        assert len({str(told(answer)) for answer in answers}) == 1
        assert answers[0].status_code == 400


@pytest.mark.parametrize("path", ["s2/../s1", "s2%2F..%2Fs1", "s2/resourceGroups/g/../../../s1", "s1%00", "s1%20"])
def test_no_path_leads_around_the_subscription_in_the_claim(world: World, unchanged: None, path: str) -> None:
    """What a path is brought to is what is asked about, whoever brings it there."""
    authorization = world.token(EVA, "customer", subscriptions=("s2",))
    for rest in (
        "resourceGroups/quackengroup/providers/Microsoft.ImportExport/jobs",
        "providers/Microsoft.ImportExport/jobs",
    ):
        url = httpx.URL(world.server.address).copy_with(
            raw_path=f"/subscriptions/{path}/{rest}?api-version={VERSION}".encode()
        )
        answer = httpx.get(url, headers={"Authorization": authorization})
        assert answer.status_code in {403, 404}
        see_no_word(answer)


@pytest.mark.parametrize("name", of(Whose.JOB))
def test_a_job_of_others_is_answered_as_one_that_is_not_there(world: World, unchanged: None, name: str) -> None:
    """404 to the byte by its opaque id; and whatever else is wrong, the answer is the same for both."""
    authorization = world.token(EVA, "customer", subscriptions=("s2",))
    operation = TABLE[name]
    theirs = asked_in_every_way(world, authorization, operation, world.private)
    nobodys = asked_in_every_way(world, authorization, operation, Target())
    for query in ("?atOnce=true", "?atOnce=quack", "?after=-1", "?after=7"):
        for answers, target in ((theirs, world.private), (nobodys, Target())):
            body = json.dumps(operation.body(target)).encode() if operation.body else None
            answers.append(world.send(authorization, operation.method, operation.url(target) + query, body))
    assert (theirs[0].status_code, code_of(theirs[0])) == (404, "ResourceNotFound")
    assert [told(answer) for answer in theirs] == [told(answer) for answer in nobodys]


@pytest.mark.parametrize("name", of(Whose.OPERATORS))
def test_what_is_the_operators_is_refused_to_customers_alike(world: World, unchanged: None, name: str) -> None:
    """403 to the byte, of their own subscription and of others', whether it is there, and whatever is wrong."""
    operation = TABLE[name]
    answers = [
        answer
        for subscriptions in (("s1",), ("s2",), ())
        for answer in asked_in_every_way(
            world,
            world.token(EVA, "customer", subscriptions=subscriptions),
            operation,
            world.private,
            world.shared,
            Target(),
        )
    ]
    authorization = world.token(ADA, "customer", subscriptions=("s1",))
    no_id = operation.url(world.private).replace(str(world.private.job_id), "x")
    answers.append(world.send(authorization, operation.method, no_id, b"{"))
    assert {answer.status_code for answer in answers} == {403}
    assert len({str(told(answer)) for answer in answers}) == 1


# Lists end where a subscription does.


def _listed(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {entry.get("job", entry)["name"] for entry in answer.json()["value"]}


def test_a_list_shows_jobs_of_the_callers_subscriptions_alone(
    any_database: str, tmp_path: Path, issuer: Issuer
) -> None:
    """Of names that begin alike, in any case, by pages, by filters and by dashboards, on both databases."""
    subscriptions = ("s1", "s10", "s1-a", "s", "S2", "s2a", "a", "z")
    with writing() as session:
        for number, each in enumerate(subscriptions):
            put(session, {**job_request(f"job-{number}-{each}"), "subscriptionId": each})
    every = {f"job-{number}-{each}": each.lower() for number, each in enumerate(subscriptions)}
    with serving(tmp_path, **issuer.settings) as served:

        def list_for(claimed: list[str], path: str, *roles: str) -> set[str]:
            token = issuer.token(*(roles or ("customer",)), subscriptions=claimed, sub=str(EVA))
            with served.client(token) as client:
                names, url = set(), path
                for _ in range(20):
                    answer = client.get(url)
                    names |= _listed(answer)
                    url = answer.json().get("nextLink", "")
                    if not url:
                        return names
                raise AssertionError(f"{path} has no end")

        token = issuer.token("customer", sub=str(EVA))
        with served.client(token) as client:
            everything = {"name": "all", "filter": {"subscriptionIds": list(subscriptions)}}
            shown = client.post("/portal/dashboards", json=everything).json()["id"]
        paths = (
            "/portal/jobs",
            "/portal/jobs?$top=1",
            "/portal/jobs?$filter=state eq 'Creating' or name eq 'job-0-s1'",
            "/portal/jobs?$filter=(jobType eq 'Export') or (jobType eq 'Import')",
            f"/portal/dashboards/{shown}/jobs",
            f"/portal/dashboards/{shown}/jobs?$top=1&$filter=state eq 'Creating' or state eq 'Shipping'",
        )
        claims: tuple[list[str], ...] = (
            [],
            ["s1"],
            ["S1"],
            ["s"],
            ["s2"],
            ["s1", "z"],
            ["s1/", "%", "*", "", "s_"],
            ["s1-a", "nothing"],
        )
        for path in paths:
            for claimed in claims:
                own = {name for name, each in every.items() if each in {claim.lower() for claim in claimed}}
                assert list_for(claimed, path) == own, (path, claimed)
            assert list_for([], path, "operator") == set(every)
        by_name = f"/providers/Microsoft.ImportExport/jobs?api-version={VERSION}&$top=1"
        for each in subscriptions:
            own = {name for name, owner in every.items() if owner == each.lower()}
            assert list_for([each], f"/subscriptions/{each}{by_name}") == own
            assert list_for([each], f"/subscriptions/{each}/resourceGroups/g1{by_name}") == own
            assert list_for([each], f"/subscriptions/{each}/resourceGroups/g{by_name}") == set()


def test_a_cursor_of_somebody_else_opens_nothing_more(world: World, unchanged: None) -> None:
    """A cursor says after what a list goes on, never whose list it is."""
    ada = world.token(ADA, "customer", subscriptions=("s1",))
    eva = world.token(EVA, "customer", subscriptions=("s2",))
    for path in ("/portal/jobs?$top=1", f"/portal/dashboards/{world.shared.dashboard_id}/jobs?$top=1"):
        answer = world.send(eva, "GET", world.send(ada, "GET", path).json()["nextLink"])
        assert _listed(answer) == set()
        see_no_word(answer)
    named = f"/subscriptions/s1/providers/Microsoft.ImportExport/jobs?api-version={VERSION}&$top=1"
    link = world.send(ada, "GET", named).json()["nextLink"]
    assert world.send(eva, "GET", link).status_code == 403
    assert world.send(eva, "GET", link.replace("/subscriptions/s1/", "/subscriptions/s2/")).status_code == 400


# Dashboards and settings.


@pytest.mark.parametrize("roles", [("customer",), ("operator",), ("customer", "operator")])
@pytest.mark.parametrize("name", of(Whose.DASHBOARD))
def test_a_private_dashboard_of_others_is_answered_as_one_that_is_not_there(
    world: World, unchanged: None, name: str, roles: tuple[str, ...]
) -> None:
    """404 to the byte, for customers of the same subscription and for operators, whatever else is wrong."""
    authorization = world.token(BEN, *roles, subscriptions=("s1",))
    operation = TABLE[name]
    theirs = asked_in_every_way(world, authorization, operation, world.private)
    nobodys = asked_in_every_way(world, authorization, operation, Target())
    assert (theirs[0].status_code, code_of(theirs[0])) == (404, "DashboardNotFound")
    assert [told(answer) for answer in theirs] == [told(answer) for answer in nobodys]


def test_a_shared_dashboard_is_everybodys_to_see_and_its_makers_to_change(world: World, unchanged: None) -> None:
    """Who made it is told to nobody; to change it is refused as if it were not there."""
    for subscriptions in (("s1",), ("s2",), ()):
        authorization = world.token(BEN, "customer", subscriptions=subscriptions)
        seen = world.ask(authorization, TABLE["Dashboards_Get"], world.shared)
        assert (seen.status_code, seen.json()["name"]) == (200, "for all")
        listed = world.ask(authorization, TABLE["Dashboards_List"], world.shared)
        assert "for all" in {entry["name"] for entry in listed.json()["value"]}
        see_no_word(seen)
        see_no_word(listed)
        for name in ("Dashboards_Update", "Dashboards_Delete"):
            refused = world.ask(authorization, TABLE[name], world.shared)
            absent = world.ask(authorization, TABLE[name], Target())
            assert refused.status_code == 404
            assert told(refused) == told(absent)


def test_a_shared_dashboard_shows_each_the_jobs_of_their_own_subscriptions(world: World, unchanged: None) -> None:
    """Not those of its maker."""
    listing = TABLE["Dashboards_ListJobs"]
    for subscriptions in (("s2",), (), ("s10", "s")):
        answer = world.ask(world.token(EVA, "customer", subscriptions=subscriptions), listing, world.shared)
        assert _listed(answer).isdisjoint({"quackenjob", "plain"})
        see_no_word(answer)
    for roles, subscriptions in ((("customer",), ("s1",)), (("operator",), ())):
        url = f"{listing.url(world.shared)}?$filter=name eq 'plain' or name eq 'quackenjob' or name eq 'x'"
        answer = world.send(world.token(BEN, *roles, subscriptions=subscriptions), "GET", url)
        assert _listed(answer) == {"quackenjob", "plain"}
        see_no_word(answer, (*SETTINGS_WORDS, KEY_WORD))


def test_a_private_dashboard_is_not_the_operators_to_delete(world: World, unchanged: None) -> None:
    """As one that is not there; a shared one is (the table above)."""
    authorization = world.token(BEN, "operator")
    delete = TABLE["OperatorDashboards_Delete"]
    answers = [world.ask(authorization, delete, target) for target in (world.private, Target())]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert told(answers[0]) == told(answers[1])


@pytest.mark.parametrize("roles", [("customer",), ("operator",), ("customer", "operator")])
def test_settings_are_the_callers_own(world: World, roles: tuple[str, ...]) -> None:
    """Saved, read, taken in and deleted by another of the same subscription, Ada's stay as they are."""
    ada, user = world.token(ADA, "customer", subscriptions=("s1",)), uuid4()
    other = world.token(user, *roles, subscriptions=("s1",))

    def of_ada() -> dict[str, Any]:
        answer = world.ask(ada, TABLE["PortalSettings_Get"], world.private)
        document: dict[str, Any] = answer.json()
        assert {entry["name"] for entry in document["dashboards"]} == {"Quackenprivate", "for all"}
        del document["exportedAt"]
        return document

    before, target = of_ada(), Target(user)
    assert before["savedCarrierAndReturnAddress"]["returnAddress"]["recipientName"] == "Saved Quackenbush"
    for name in ("PortalSettings_Get", "PortalSettings_Export", "PortalSettings_Delete"):
        assert code_of(world.ask(other, TABLE[name], target)) == "PortalSettingsNotFound"
    own = [name for name in TABLE if name.startswith(("PortalSettings_", "Dashboards_List", "Dashboards_Create"))]
    for name in ("PortalSettings_Put", "Dashboards_Create", "PortalSettings_Import", *own):
        answer = world.ask(other, TABLE[name], target)
        assert answer.status_code < 500
        see_no_word(answer)
    assert of_ada() == before


def test_an_import_changes_no_dashboard_of_somebody_else(world: World) -> None:
    """Under the id of Ada's it makes one of the caller's own, and tells nothing of hers."""
    user = uuid4()
    other = world.token(user, "customer", subscriptions=("s1",))
    before = every_row()
    ids = (world.private.dashboard_id, world.shared.dashboard_id)
    document = {"userId": str(user), "dashboards": [{"id": str(each), "name": "taken over"} for each in ids]}
    answer = world.send(other, "POST", "/portal/settings/import", json.dumps(document).encode())
    assert answer.status_code == 200, answer.text
    see_no_word(answer)
    after = every_row()
    assert set(before["dashboard"]) < set(after["dashboard"])
    assert world.send(other, "DELETE", "/portal/settings").status_code == 200
    assert every_row()["dashboard"] == before["dashboard"]


@pytest.mark.parametrize("roles", [("customer",), ("operator",), ("customer", "operator")])
def test_what_names_another_user_is_refused(world: World, unchanged: None, roles: tuple[str, ...]) -> None:
    """Whether there is such a user or not: nothing is kept in their settings, and no job becomes theirs."""
    authorization = world.token(BEN, *roles, subscriptions=("s1",))
    answers = []
    for user in (ADA, EVA, uuid4()):
        whole = {
            **_whole_job(Target(job="in-anothers-name")),
            "userId": str(user),
            "saveCarrierAndReturnAddressAsDefault": True,
        }
        created = world.send(authorization, "POST", "/portal/jobs", json.dumps(whole).encode())
        assert created.status_code == 400
        assert created.json()["error"]["target"] == "userId"
        see_no_word(created)
        taken = world.ask(authorization, TABLE["PortalSettings_Import"], Target(user))
        assert (taken.status_code, taken.json()["error"]["target"]) == (400, "userId")
        see_no_word(taken)
        answers.append((told(created), told(taken)))
    assert answers[0] == answers[1] == answers[2]


def test_a_body_of_the_ten_operations_says_nothing_of_whose_a_job_is(world: World) -> None:
    """Whoever puts a job is its user, whatever its body says."""
    user, target = uuid4(), Target(job="named", group="g1")
    authorization = world.token(user, "customer", subscriptions=("s1",))
    body = {
        **_job(target),
        "userId": str(ADA),
        "subscriptionId": "s2",
        "saveCarrierAndReturnAddressAsDefault": True,
    }
    before = every_row()
    made = world.ask(authorization, TABLE["Jobs_Create"], target, json.dumps(body).encode())
    assert made.status_code == 201
    assert every_row()["saved_address"] == before["saved_address"]
    jobs = world.send(authorization, "GET", "/portal/jobs?$filter=name eq 'named'").json()["value"]
    operator = world.token(BEN, "operator")
    seen = world.send(operator, "GET", f"/operator/jobs/{jobs[0]['jobId']}").json()
    assert seen["userId"] == str(user)
    assert world.ask(authorization, TABLE["Jobs_Delete"], target).status_code == 200


@pytest.mark.parametrize("roles", [("customer",), ("operator",), ("customer", "operator")])
def test_erasing_everything_erases_what_is_the_callers(world: World, roles: tuple[str, ...]) -> None:
    """Of two users of one subscription, the other's jobs, settings and dashboards stay."""
    before = every_row()
    user = uuid4()
    target = _prepared(TABLE["Jobs_Get"], user)
    authorization = world.token(user, *roles, subscriptions=("s1",))
    answer = world.ask(authorization, TABLE["Portal_ErasePersonalData"], target)
    assert answer.json() == {"jobsDeleted": 1, "jobsErased": 0, "jobsToBeErased": 0, "isAll": True}
    see_no_word(answer)
    after = every_row()
    for table in ("job", "drive", "return_address", "portal_settings", "saved_address", "package", "job_event"):
        assert after[table] == before[table]
    assert set(before["dashboard"]) <= set(after["dashboard"])


# Words.


def test_no_word_of_a_person_is_told_to_others(world: World) -> None:
    """Whatever somebody of another subscription asks for, by any name and in any way, or an error says."""
    user = uuid4()
    target = Target(user, "s2", "g1", "job1")
    authorization = world.token(user, "customer", subscriptions=("s2",))
    assert world.ask(authorization, TABLE["PortalSettings_Put"], target).status_code == 200
    assert world.ask(authorization, TABLE["PortalJobs_Create"], target).status_code == 200
    own = world.send(authorization, "GET", "/portal/jobs").json()["value"]
    assert [entry["job"]["name"] for entry in own] == ["job1"]
    target = Target(user, "s2", "g1", "job1", UUID(own[0]["jobId"]), world.shared.dashboard_id)
    deleting = [name for name in TABLE if name.endswith(("_Delete", "_Erase", "_ErasePersonalData"))]
    for name in (*(name for name in TABLE if name not in deleting), *deleting):
        for each in (world.private, world.shared, target):
            answer = world.ask(authorization, TABLE[name], each)
            assert answer.status_code < 500
            see_no_word(answer)
    for query in ("state eq 'Creating'", "name eq 'quackenjob' or jobType eq 'Import'"):
        see_filter = world.send(authorization, "GET", f"/portal/jobs?$filter={query}")
        # The name in the query is the caller's own word.
        see_no_word(see_filter, tuple(word for word in WORDS if word not in query))
        assert _listed(see_filter) <= {"job1"}


def test_no_word_of_a_person_is_in_the_log(world: World) -> None:
    """After everything above: no name, no query, no token and no body, and a line for each request."""
    authorization = world.token(ADA, "customer", subscriptions=("s1",))
    for name in of(Whose.SUBSCRIPTION, Whose.JOB, Whose.CALLER):
        if not name.endswith(("_Delete", "_DeleteSavedAddress", "_ErasePersonalData")):
            answer = world.ask(authorization, TABLE[name], world.private)
            url = TABLE[name].url(world.private)
            answer = world.send(authorization, "GET", f"{url}{'&' if '?' in url else '?'}$filter=quack&quack=1")
    log, give_up = "", time.monotonic() + 30
    while answer.headers["x-ms-request-id"] not in log:  # its line is written after it was sent
        assert time.monotonic() < give_up
        time.sleep(0.01)
        log = world.server.log.read_text().lower()
    assert [word for word in (*WORDS, "quack", "bearer", "filter", "version=") if word.lower() in log] == []
