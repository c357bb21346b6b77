"""Refusals: every error of ours has the status it is meant to have, in one shape, and tells nothing it may not."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.testclient import TestClient

from deployments.api import arm, refusals
from deployments.api.application import make_application
from deployments.api.refusals import STATUS, status_of
from deployments.api.tokens import read_local_token
from models import errors
from models.database import engine
from models.errors import DrivepostError
from models.settings import Settings
from tests.builders import ADDRESS, DRIVE, NOON, job_request

# By hand, on purpose: what each error is as an answer.
STATUSES: Final[Mapping[int, set[type[DrivepostError]]]] = {
    400: {
        errors.ApiVersionMissingError,
        errors.ApiVersionUnknownError,
        errors.NotReadyToShipError,
        errors.RequestError,
    },
    401: {errors.TokenError},
    403: {errors.AccessError, errors.ActorNotAllowedError},
    404: {
        errors.DashboardNotFoundError,
        errors.JobNotFoundError,
        errors.LocationNotFoundError,
        errors.NoSuchPathError,
        errors.PortalSettingsNotFoundError,
    },
    409: {
        errors.AddressNeededError,
        errors.BayError,
        errors.CancelAcceptedError,
        errors.DriveMoveNotAllowedError,
        errors.JobChangedError,
        errors.JobHeldError,
        errors.JobStateConflictError,
        errors.MoveNotAllowedError,
        errors.NotYetClosableError,
        errors.PersonalDataErasedError,
        errors.PropertyNotUpdatableError,
        errors.WrongJobTypeError,
    },
    429: {errors.TooManyRequestsError},
    503: {errors.DatabaseError, errors.IssuerAwayError, errors.PrefectAwayError},
}
# By hand as well: what no request can cause, so that it is a fault of ours if one is answered with it.
FAULTS_OF_OURS: Final = {
    errors.DrivepostError,
    errors.JobError,
    # Of flows, and of what they read and write.
    errors.ClockJumpedError,
    errors.JobsNotDeletedError,
    errors.CopyHeldElsewhereError,
    errors.CopyStillRunningError,
    errors.LeaseLostError,
    errors.CopyLogError,
    errors.DriveError,
    errors.ManifestError,
    errors.ExportError,
    errors.IntakeError,
    errors.StoreError,
    errors.TraceWordsError,
    errors.TracesFoundError,
    # Of whoever runs the service.
    errors.SealedValueError,
    errors.SealingKeyError,
    errors.SettingsError,
    errors.UnexpectedError,
}
ALL: Final = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, DrivepostError)
]
ID: Final = UUID(int=7)

# One of each that can be answered with, as it is made.
MADE: Final[tuple[DrivepostError, ...]] = (
    errors.AccessError("the role operator"),
    errors.ActorNotAllowedError("close", "customer", ["operator"]),
    errors.AddressNeededError("drives of it are here"),
    errors.ApiVersionMissingError(["2021-01-01"]),
    errors.ApiVersionUnknownError(["2021-01-01"]),
    errors.BayError("nothing in it"),
    errors.CancelAcceptedError("ship"),
    errors.DashboardNotFoundError(),
    errors.DatabaseError("away"),
    errors.DriveMoveNotAllowedError("Received", "Specified", []),
    errors.IssuerAwayError(),
    errors.JobChangedError(ID),
    errors.JobHeldError(),
    errors.JobNotFoundError(),
    errors.JobStateConflictError("delete", "Shipping", "cancel it first"),
    errors.LocationNotFoundError(),
    errors.MoveNotAllowedError("Creating", "Closed", ["Shipping"]),
    errors.NoSuchPathError(),
    errors.WrongJobTypeError("Export"),
    errors.NotReadyToShipError(["returnAddress", "deliveryPackage"]),
    errors.NotYetClosableError(NOON),
    errors.PersonalDataErasedError("check in"),
    errors.PortalSettingsNotFoundError(),
    errors.PrefectAwayError("away"),
    errors.PropertyNotUpdatableError("Packaging", ["logLevel", "returnAddress"], ["tags"]),
    errors.RequestError([("a.b", "is wrong"), ("", "is no object")]),
    errors.TokenError("there is no bearer token"),
    errors.TooManyRequestsError(7),
)
# Whatever must be in no answer and in no line of a log.
PERSON: Final = "Zebulon of 77 Quince Lane"
JOB: Final = (
    "/subscriptions/s1/resourceGroups/g1/providers/Microsoft.ImportExport/jobs/job1?api-version=2021-01-01"
)


@pytest.fixture
def record_factory() -> Iterator[None]:
    """Give the process back how it makes log records: an application guards them."""
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


def client_of_an_application() -> TestClient:
    """Make an application of the settings in force, and who asks it with the one token there is."""
    token = read_local_token(Settings().token_file)
    return TestClient(make_application(), headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def client(sqlite: str, record_factory: None) -> Iterator[TestClient]:
    """Serve an empty embedded database in this process."""
    with client_of_an_application() as asking:
        yield asking


def told(answer: Any) -> dict[str, Any]:
    """Read a refusal and see that it has the shape of ARM's: code, message, and places where they are known."""
    whole = json.loads(answer.content if hasattr(answer, "content") else answer.body)
    assert set(whole) == {"error"}
    error: dict[str, Any] = whole["error"]
    assert {"code", "message"} <= set(error) <= {"code", "message", "target", "details"}
    assert all(isinstance(error[name], str) and error[name] for name in ("code", "message"))
    assert ("target" in error) is ("details" in error)
    for each in error.get("details", ()):
        assert set(each) == {"code", "message", "target"}
        assert all(isinstance(value, str) and value for value in each.values())
    return error


# The table.


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_every_error_has_the_status_that_it_is_meant_to_have(error: type[DrivepostError]) -> None:
    """Decided by hand for each: a new error stands here in one of the lists, or this fails."""
    meant = [status for status, kinds in STATUSES.items() if error in kinds]
    if error in FAULTS_OF_OURS:
        meant.append(500)
    assert len(meant) == 1, "name the error in STATUSES or in FAULTS_OF_OURS, and in one alone"
    assert [status_of(error.__new__(error))] == meant


def test_an_error_that_nobody_raises_has_no_status_of_its_own() -> None:
    """Nor does a fault of ours: what is not in the table is one."""
    assert not set(STATUS) & FAULTS_OF_OURS
    assert set(STATUS) <= set(ALL)


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_a_refusal_has_one_shape_and_the_errors_own_code(error: DrivepostError) -> None:
    """With what a client needs to go on: where to ask for a token, or when to try again."""
    answer = refusals.answer(error)
    said = told(answer)
    assert (said["code"], said["message"]) == (error.code, str(error))
    assert answer.headers["content-type"] == "application/json"
    assert ("www-authenticate" in answer.headers) is (answer.status_code == 401)
    assert ("retry-after" in answer.headers) is (answer.status_code in {429, 503})
    if "retry-after" in answer.headers:
        assert int(answer.headers["retry-after"]) > 0
    if isinstance(error, errors.TooManyRequestsError):
        assert answer.headers["retry-after"] == "7"


def test_each_that_can_be_answered_with_was_looked_at() -> None:
    """No status was forgotten above."""
    assert {type(error) for error in MADE} == {error for kinds in STATUSES.values() for error in kinds}


def test_a_refusal_names_every_fault_by_its_place() -> None:
    """The first is the target of the whole; a fault of the whole stands in the body."""
    named = {
        errors.RequestError([("a.b", "is wrong"), ("", "is no object")]): ["a.b", "body"],
        errors.PropertyNotUpdatableError("Packaging", ["logLevel", "tags"], []): ["properties.logLevel", "tags"],
        errors.NotReadyToShipError(["returnAddress"]): ["properties.returnAddress"],
    }
    for error, places in named.items():
        said = told(refusals.answer(error))
        assert [each["target"] for each in said["details"]] == places
        assert said["target"] == places[0]


def test_a_hundred_faults_are_named_at_most() -> None:
    """Neither details nor message grow beyond."""
    said = told(refusals.answer(errors.RequestError([(f"a[{number}]", "is wrong") for number in range(1_000)])))
    assert len(said["details"]) == 100
    assert "a[100]" not in said["message"]


# Paths that are none.


@pytest.mark.parametrize("path", ["/", "/nowhere", "/portal", "/portal/nothing", "/operator/jobs", JOB + "/x"])
def test_a_path_that_is_none_is_refused_in_the_same_shape(client: TestClient, path: str) -> None:
    """404, and where to look; the path is not repeated."""
    answer = client.get(path.replace("?api-version=2021-01-01/x", "/x?api-version=2021-01-01"))
    assert answer.status_code == 404
    said = told(answer)
    assert said["code"] == "PathNotFound"
    assert "nothing/" not in said["message"]


def test_a_method_that_is_none_is_refused_with_those_there_are(client: TestClient) -> None:
    """405 with Allow."""
    answer = client.post("/portal/me", json={})
    assert answer.status_code == 405
    assert told(answer)["code"] == "PathNotFound"
    assert answer.headers["allow"] == "GET"


def test_a_location_that_is_none_is_not_found(client: TestClient) -> None:
    """By the API's own code, and no fault of ours."""
    answer = client.get("/providers/Microsoft.ImportExport/locations/atlantis?api-version=2021-01-01")
    assert answer.status_code == 404
    assert told(answer)["code"] == "ResourceNotFound"


# What nobody expected.


def _chained() -> Exception:
    error = KeyError(PERSON)
    error.__cause__ = ValueError(PERSON)
    error.add_note(PERSON)
    return error


@pytest.mark.parametrize(
    "error",
    [
        ValueError(PERSON),
        _chained(),
        ExceptionGroup(PERSON, [RuntimeError(PERSON)]),
        RecursionError(PERSON),
        UnicodeEncodeError("utf-8", PERSON, 0, 1, PERSON),
        errors.UnexpectedError("KeyError", "arm.py:1"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_what_nobody_expected_is_a_500_that_tells_nothing(
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    error: Exception,
    method: str,
) -> None:
    """By type and place alone, in the answer and in the log; the next request is served."""

    def fail(*_: object) -> None:
        raise error

    caplog.set_level(logging.DEBUG)
    with monkeypatch.context() as patch:
        patch.setattr(arm, "read_named_job", fail)
        answer = client.request(method, JOB, json={"properties": {}} if method == "PATCH" else None)
    assert answer.status_code == 500
    said = told(answer)
    assert said["code"] == "InternalError"
    assert answer.headers["x-ms-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    printed = capfd.readouterr()
    logged = "".join(f"{record.getMessage()} {record.exc_text or ''}" for record in caplog.records)
    for written in (answer.text, caplog.text, logged, printed.out, printed.err):
        assert PERSON not in written
        assert "Quince" not in written
        assert "Traceback" not in written
    assert "InternalError" in caplog.text
    assert client.get(JOB).status_code == 404


@pytest.mark.parametrize(
    "error",
    [
        OperationalError(f"INSERT {PERSON}", {"city": PERSON}, psycopg.OperationalError(PERSON)),
        PoolTimeoutError(PERSON),
    ],
    ids=["away", "no connection free"],
)
def test_a_database_that_refuses_is_a_503_that_tells_nothing(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """With Retry-After; the text of its driver holds rows."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(arm, "read_named_job", fail)
    answer = client.get(JOB)
    assert (answer.status_code, told(answer)["code"]) == (503, "DatabaseUnusable")
    assert int(answer.headers["retry-after"]) > 0
    assert PERSON not in answer.text + caplog.text


def test_a_person_is_in_no_line_of_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a request brought, and whether it was taken or refused; nor is the name of a job."""
    caplog.set_level(logging.DEBUG)
    body = job_request("Zebulons-job", driveList=[{**DRIVE, "bitLockerKey": "238810-662376"}])["body"]
    url = JOB.replace("job1", "Zebulons-job")
    assert client.put(url, json=body).status_code == 201
    assert client.get(f"{url}&$filter=Quince").status_code == 200
    assert client.put(url, json={**body, "location": "Quince"}).status_code == 400
    assert client.patch(url, json={"properties": {"returnAddress": {**ADDRESS, "phone": []}}}).status_code == 400
    assert client.delete(url).status_code == 200
    assert client.get(url).status_code == 404
    mine = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))
    assert "/jobs/{jobName} 201" in mine
    said = {value for value in ADDRESS.values() if len(value) > 4} | {
        "238810",
        "Zebulon",
        "Quince",
        "SERIAL1",
        "job1",
    }
    assert not [each for each in said if each in mine]


# The database is away.


def test_a_database_that_is_away_is_a_503_and_served_again_when_it_is_back(
    postgresql: str, postgresql_server: str, record_factory: None
) -> None:
    """Read or write; nobody has to start the API anew."""
    name = make_url(postgresql).database
    with client_of_an_application() as client, psycopg.connect(postgresql_server, autocommit=True) as connection:
        assert client.put(JOB, json=job_request()["body"]).status_code == 201
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")  # noqa: S608
            for method, path in (
                ("GET", JOB),
                ("PATCH", JOB),
                ("DELETE", JOB),
                ("GET", "/portal/jobs"),
                ("GET", "/portal/settings"),
            ):
                answer = client.request(method, path, json={} if method == "PATCH" else None)
                assert (answer.status_code, told(answer)["code"]) == (503, "DatabaseUnusable"), path
                assert int(answer.headers["retry-after"]) > 0
                assert str(name) not in answer.text
        finally:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        assert client.get(JOB).status_code == 200


def test_a_database_that_is_written_to_for_too_long_is_a_503(
    sqlite: str, record_factory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who holds it is done a moment later; reading goes on meanwhile."""
    monkeypatch.setenv("DRIVEPOST_DATABASE_WAIT_SECONDS_MAX", "0.05")
    with client_of_an_application() as client:
        assert client.put(JOB, json=job_request()["body"]).status_code == 201
        with engine().execution_options(writes=True).connect() as holding:
            holding.execute(text("SELECT 1"))
            for method, json_ in (("PUT", job_request()["body"]), ("PATCH", {}), ("DELETE", None)):
                answer = client.request(method, JOB, json=json_)
                assert (answer.status_code, told(answer)["code"]) == (503, "DatabaseUnusable"), method
                assert int(answer.headers["retry-after"]) > 0
            assert client.get(JOB).status_code == 200
        assert client.delete(JOB).status_code == 200


def test_a_database_that_is_broken_is_told_without_its_path(
    sqlite: str, record_factory: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is no database any more."""
    with client_of_an_application() as client:
        database = Path(str(make_url(sqlite).database))
        engine().dispose()
        for file in database.parent.glob("drivepost.db*"):
            file.unlink()
        database.write_bytes(b"no database at all, " * 500)
        answer = client.get(JOB)
    assert answer.status_code == 503
    assert "drivepost.db" not in answer.text + caplog.text
    assert str(database.parent) not in answer.text + caplog.text


# Who may ask, and how often.


def test_without_a_token_nothing_is_told_and_how_to_get_in_is(client: TestClient) -> None:
    """401 with WWW-Authenticate, whatever else is wrong with the request."""
    for token in ("", "Bearer", "Bearer x", "Basic eDp5"):
        answer = client.put(JOB, content=b"no JSON", headers={"Authorization": token})
        assert (answer.status_code, told(answer)["code"]) == (401, "InvalidAuthenticationToken")
        assert answer.headers["www-authenticate"].startswith("Bearer ")


def test_who_asks_too_often_is_told_when_to_try_again(
    sqlite: str, record_factory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """429 with Retry-After."""
    monkeypatch.setenv("DRIVEPOST_API_REQUESTS_PER_MINUTE", "3")
    with client_of_an_application() as client:
        answers = [client.get("/portal/me") for _ in range(8)]
    assert [answer.status_code for answer in answers[:3]] == [200] * 3
    assert answers[-1].status_code == 429
    assert told(answers[-1])["code"] == "TooManyRequests"
    assert int(answers[-1].headers["retry-after"]) > 0
