"""What a portal needs: what may be done with a job, its creation with ticks, settings, dashboards, erasure."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import pytest
from sqlmodel import SQLModel, func, select
from starlette.testclient import TestClient

from deployments.api.application import make_application
from deployments.api.tokens import LOCAL_USER, read_local_token
from models.bay import return_drives
from models.database import database_time, reading, writing
from models.events import EventKind
from models.lifecycle import Actor, JobState
from models.portal import Dashboard, PortalSettings, SavedAddress
from models.settings import Settings
from tests.builders import ADDRESS, NOON, PACKAGE, RETURN_SHIPPING, events_of, job_in, job_request, rows_of
from tests.deployments.api.conftest import Issuer

ADA: Final = UUID(int=0xADA)
BEN: Final = UUID(int=0xBE)
EVA: Final = UUID(int=0xE7A)
SAVED: Final = {"returnAddress": ADDRESS, "returnShipping": RETURN_SHIPPING}
OTHERS: Final = {"returnAddress": {**ADDRESS, "city": "Village"}, "returnShipping": RETURN_SHIPPING}
SAVE: Final = "saveCarrierAndReturnAddressAsDefault"
USE: Final = "useSavedCarrierAndReturnAddress"

# By hand, from sections 2 to 4: what may be done, and for how many days a job is kept, state by state.
ABLE: Final[Mapping[tuple[str, bool], tuple[bool, bool, int | None]]] = {
    ("Creating", False): (True, True, 14),
    ("Shipping", False): (True, False, None),
    ("Received", False): (True, False, None),
    ("Transferring", False): (True, False, None),
    ("Packaging", False): (False, False, None),
    ("Completed", False): (False, True, 90),
    ("Closed", False): (False, False, 90),
    # A cancel was accepted: not once more, and the 14 days are over with it.
    ("Creating", True): (False, True, None),
    ("Shipping", True): (False, False, None),
    ("Received", True): (False, False, None),
    ("Transferring", True): (False, False, None),
    ("Completed", True): (False, True, 90),
}


class Caller:
    """Somebody who asks the API, with a token of theirs."""

    def __init__(self, client: TestClient, token: str) -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {token}"}

    def __call__(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Ask."""
        answer: httpx.Response = self._client.request(method, path, headers=self._headers, json=body)
        return answer

    def read(self, path: str) -> dict[str, Any]:
        """Ask for what is there."""
        return told(self("GET", path))


Callers = Callable[..., Caller]


@pytest.fixture
def callers(any_database: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callers]:
    """Serve an empty database in this process, SQLite and PostgreSQL in turn; makes callers with tokens."""
    for name, value in {**issuer.settings, "DRIVEPOST_API_REQUESTS_PER_MINUTE": "1000000"}.items():
        monkeypatch.setenv(name, value)
    with TestClient(make_application()) as client:

        def make(user: UUID, *roles: str, subscriptions: tuple[str, ...] = ("s1",)) -> Caller:
            token = issuer.token(*(roles or ("customer",)), subscriptions=list(subscriptions), sub=str(user))
            return Caller(client, token)

        yield make


@pytest.fixture
def ada(callers: Callers) -> Caller:
    """A customer of subscription s1."""
    return callers(ADA)


@pytest.fixture
def ben(callers: Callers) -> Caller:
    """Another customer of subscription s1."""
    return callers(BEN)


@pytest.fixture
def eva(callers: Callers) -> Caller:
    """A customer of another subscription."""
    return callers(EVA, subscriptions=("s2",))


def told(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    """Read what was answered."""
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Read a refusal."""
    found: dict[str, Any] = told(answer, status)["error"]
    return found


def targets(answer: httpx.Response) -> set[str]:
    """Tell which places a request's refusal names."""
    return {each["target"] for each in error_of(answer, 400)["details"]}


def make(
    state: str, name: str = "job1", *, cancelled: bool = False, is_new: bool = False, **properties: Any
) -> UUID:
    """Make a job in a state, months ago or now."""
    with writing() as session:
        at = database_time(session) if is_new else NOON
        return job_in(session, JobState(state), name, at, cancelled=cancelled, **properties)


def count(table: type[SQLModel]) -> int:
    """Count the rows of a table."""
    with reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def request(name: str = "job1", /, **members: Any) -> dict[str, Any]:
    """Make a request of the portal's form; `properties` are those of the job."""
    properties = members.pop("properties", {})
    return {**job_request(name, **properties), **members}


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out what tells of moments alone."""
    return {
        name: value for name, value in document.items() if name not in {"exportedAt", "createdAt", "updatedAt"}
    }


# Who asks.


def test_the_portal_knows_who_asks_by_an_opaque_id(callers: Callers) -> None:
    """With their roles and subscriptions."""
    asked = callers(ADA, "customer", subscriptions=("S2", "s1")).read("/portal/me")
    assert asked == {"userId": str(ADA), "roles": ["customer"], "subscriptions": ["s1", "s2"]}
    assert callers(BEN, "customer", "operator").read("/portal/me")["roles"] == ["customer", "operator"]


def test_the_embedded_default_has_one_user_of_both_roles(sqlite: str) -> None:
    """And of every subscription, so that none is listed."""
    with TestClient(make_application()) as client:
        told = Caller(client, read_local_token(Settings().token_file)).read("/portal/me")
    assert told == {"userId": str(LOCAL_USER), "roles": ["customer", "operator"]}


# What may be done with a job.


def test_a_job_says_what_may_be_done_with_it_and_how_long_it_is_kept(ada: Caller) -> None:
    """State by state, cancelled or not: read alone and in the list the same."""
    ids = {key: make(key[0], f"job-{key[0]}-{key[1]}", cancelled=key[1]) for key in ABLE}
    listed = {job["jobId"]: job for job in ada.read("/portal/jobs")["value"]}
    found = {}
    for key, job_id in ids.items():
        job = ada.read(f"/portal/jobs/{job_id}")
        assert job == listed.pop(str(job_id))
        assert job["jobId"] == str(job_id)
        assert (job["job"]["properties"]["state"], job["job"]["properties"]["cancelRequested"]) == key
        assert ("cancelRequestedAt" in job) is key[1]
        expires, since = job.get("expiresAt"), datetime.fromisoformat(job["stateSince"])
        days = None if expires is None else (datetime.fromisoformat(expires) - since) / timedelta(days=1)
        found[key] = (job["isCancellable"], job["isDeletable"], days)
    assert found == ABLE
    assert listed == {}


def test_what_a_job_says_may_be_done_is_done_and_nothing_else_is(ada: Caller) -> None:
    """A cancel or a deletion that it does not offer is refused; a cancel asked for again is not."""
    for (state, cancelled), (cancellable, deletable, _) in ABLE.items():
        doomed = f"/portal/jobs/{make(state, f'doomed-{state}-{cancelled}', cancelled=cancelled)}"
        answer = ada("DELETE", doomed)
        assert answer.status_code == (200 if deletable else 409), (state, cancelled)
        assert ada("GET", doomed).status_code == (404 if deletable else 200)
        assert answer.content == b"" if deletable else error_of(answer, 409)["code"] == "JobStateConflict"
        cut = f"/portal/jobs/{make(state, f'cut-{state}-{cancelled}', cancelled=cancelled)}"
        before = ada.read(cut)
        answer = ada("POST", f"{cut}/cancel")
        if not (cancellable or cancelled):
            assert f"{state} job" in error_of(answer, 409)["message"]
            assert ada.read(cut) == before
            continue
        job = told(answer)
        assert job["job"]["properties"]["cancelRequested"] is True
        assert job["isCancellable"] is False
        assert ("expiresAt" in job) is (state == "Completed")
        assert told(ada("POST", f"{cut}/cancel")) == job == ada.read(cut)
        assert (job == before) is cancelled


def test_a_job_of_another_subscription_is_as_one_that_is_not_there(ada: Caller, eva: Caller) -> None:
    """By every route, to the letter; and it stays as it is."""
    job_id = make("Completed")
    before = ada.read(f"/portal/jobs/{job_id}")
    for method, part, body in (
        ("GET", "", None),
        ("PATCH", "", {"tags": {"a": "b"}}),
        ("DELETE", "", None),
        ("POST", "/cancel", None),
        ("POST", "/erasePersonalData", None),
        ("GET", "/events", None),
    ):
        theirs = eva(method, f"/portal/jobs/{job_id}{part}", body)
        none = eva(method, f"/portal/jobs/{uuid4()}{part}", body)
        assert error_of(theirs, 404) == error_of(none, 404)
        assert targets(eva(method, f"/portal/jobs/no-id{part}", body)) == {"jobId"}
    assert eva.read("/portal/jobs")["value"] == []
    assert error_of(eva("POST", "/portal/jobs", request()), 403)["code"] == "AuthorizationFailed"
    assert ada.read(f"/portal/jobs/{job_id}") == before


# Creating with ticks.


def test_a_job_is_created_and_replaced_and_is_the_callers(ada: Caller, callers: Callers) -> None:
    """With whatever Create Job takes; nothing is kept in portal settings that was not ticked."""
    made = told(ada("POST", "/portal/jobs", request()))
    again = told(ada("POST", "/portal/jobs", request(properties={"logLevel": "Verbose"}, userId=str(ADA))))
    assert again["jobId"] == made["jobId"]
    assert (made["isCancellable"], made["isDeletable"]) == (True, True)
    assert again["job"]["properties"]["logLevel"] == "Verbose"
    operator = callers(EVA, "operator", subscriptions=())
    assert operator.read(f"/operator/jobs/{made['jobId']}")["userId"] == str(ADA)
    assert error_of(ada("GET", "/portal/settings"), 404)["code"] == "PortalSettingsNotFound"
    assert (count(PortalSettings), count(SavedAddress)) == (0, 0)


def test_what_is_ticked_is_saved_and_used_for_the_next_job(ada: Caller, ben: Caller) -> None:
    """By who saved it alone; it outlives the job that it came with."""
    made = told(ada("POST", "/portal/jobs", request("job1", **{SAVE: True})))
    assert ada.read("/portal/settings")["savedCarrierAndReturnAddress"] == SAVED
    assert ada("DELETE", f"/portal/jobs/{made['jobId']}").status_code == 200
    bare = {"returnAddress": None, "returnShipping": None}
    following = told(ada("POST", "/portal/jobs", request("job2", properties=bare, **{USE: True})))
    assert following["job"]["properties"].items() >= SAVED.items()
    mixed = {"returnAddress": OTHERS["returnAddress"], "returnShipping": None}
    following = told(ada("POST", "/portal/jobs", request("job3", properties=mixed, **{USE: True})))
    assert following["job"]["properties"].items() >= OTHERS.items(), "what is given counts"
    plain = told(ada("POST", "/portal/jobs", request("job4", properties=bare)))
    assert "returnAddress" not in plain["job"]["properties"], "nothing is filled in unasked"
    assert targets(ben("POST", "/portal/jobs", request("job5", properties=bare, **{USE: True}))) == {USE}
    assert ada.read("/portal/settings")["savedCarrierAndReturnAddress"] == SAVED
    assert error_of(ben("GET", "/portal/settings"), 404)


def test_what_is_ticked_and_not_all_there_saves_nothing_and_creates_nothing(ada: Caller) -> None:
    """The place of the tick is named; and a tick is true or false."""
    for missing in ("returnAddress", "returnShipping"):
        answer = ada("POST", "/portal/jobs", request("job1", properties={missing: None}, **{SAVE: True}))
        assert targets(answer) == {SAVE}
    for tick in (SAVE, USE):
        assert targets(ada("POST", "/portal/jobs", request("job1", **{tick: "yes"}))) == {tick}
    assert targets(ada("POST", "/portal/jobs", request(userId=str(BEN)))) == {"userId"}
    assert ada.read("/portal/jobs")["value"] == []
    assert count(PortalSettings) == 0


def test_a_wrong_form_is_refused_with_every_fault_named_at_once(ada: Caller) -> None:
    """A location that is none beside the others."""
    wrong = job_request("1job", location="Atlantis", driveList=[])
    assert targets(ada("POST", "/portal/jobs", wrong)) == {"jobName", "body.location", "body.properties"}
    assert targets(ada("POST", "/portal/jobs", {})) == {
        "subscriptionId",
        "resourceGroupName",
        "jobName",
        "body",
    }


def test_an_update_with_the_tick_saves_what_it_changes(ada: Caller) -> None:
    """Without the tick nothing is; what would change nothing brings back nothing that was deleted since."""
    url = f"/portal/jobs/{told(ada('POST', '/portal/jobs', request()))['jobId']}"
    told(ada("PATCH", url, {"properties": OTHERS}))
    assert ada("GET", "/portal/settings").status_code == 404
    ticked = {"properties": SAVED, SAVE: True}
    assert told(ada("PATCH", url, ticked))["job"]["properties"].items() >= SAVED.items()
    assert ada.read("/portal/settings")["savedCarrierAndReturnAddress"] == SAVED
    assert ada("DELETE", "/portal/settings").status_code == 200
    told(ada("PATCH", url, ticked))
    assert ada("GET", "/portal/settings").status_code == 404
    assert targets(ada("PATCH", url, {"properties": {"returnAddress": OTHERS["returnAddress"]}, SAVE: True})) == {
        SAVE
    }
    assert ada.read(url)["job"]["properties"].items() >= SAVED.items(), "all or nothing"


def test_a_tick_saves_nothing_in_the_settings_of_somebody_else(ada: Caller, ben: Caller) -> None:
    """Settings are kept by their user's own wish alone, whose job it may be."""
    url = f"/portal/jobs/{told(ada('POST', '/portal/jobs', request()))['jobId']}"
    ben("PATCH", url, {"properties": OTHERS, SAVE: True})
    assert ada("GET", "/portal/settings").status_code == 404


def test_an_update_by_the_portal_keeps_the_rules_of_updates(ada: Caller) -> None:
    """State and property decide; a cancel is one of them."""
    url = f"/portal/jobs/{make('Packaging')}"
    assert (
        error_of(ada("PATCH", url, {"properties": {"logLevel": "Verbose"}}), 409)["target"]
        == "properties.logLevel"
    )
    assert told(ada("PATCH", url, {"tags": {"a": "b"}}))["job"]["tags"] == {"a": "b"}
    url = f"/portal/jobs/{make('Creating', 'job2')}"
    shipped = told(ada("PATCH", url, {"properties": {"state": "Shipping"}}))
    assert (shipped["job"]["properties"]["state"], shipped["isDeletable"]) == ("Shipping", False)
    cut = told(ada("PATCH", url, {"properties": {"cancelRequested": True}}))
    assert (cut["job"]["properties"]["cancelRequested"], cut["isCancellable"]) == (True, False)
    assert told(ada("PATCH", url, {"properties": {"cancelRequested": False}})) == cut


# Settings.


def test_settings_are_put_read_exported_and_deleted(ada: Caller, ben: Caller) -> None:
    """By their user alone; the second put replaces the first, and a second deletion finds nothing."""
    for method, part in (
        ("GET", ""),
        ("GET", "/export"),
        ("DELETE", ""),
        ("DELETE", "/savedCarrierAndReturnAddress"),
    ):
        assert error_of(ada(method, f"/portal/settings{part}"), 404)["code"] == "PortalSettingsNotFound"
    told(ada("PUT", "/portal/settings", {"savedCarrierAndReturnAddress": OTHERS}))
    put = told(ada("PUT", "/portal/settings", {"savedCarrierAndReturnAddress": SAVED}))
    assert (put["userId"], put["savedCarrierAndReturnAddress"], put["dashboards"]) == (str(ADA), SAVED, [])
    assert without_times(ada.read("/portal/settings")) == without_times(put)
    export = ada("GET", "/portal/settings/export")
    assert without_times(told(export)) == without_times(put)
    assert export.headers["content-disposition"] == 'attachment; filename="portal-settings.json"'
    assert export.headers["cache-control"] == "no-cache"
    assert error_of(ben("GET", "/portal/settings"), 404)
    assert error_of(ben("DELETE", "/portal/settings"), 404)
    answer = ada("DELETE", "/portal/settings")
    assert (answer.status_code, answer.content) == (200, b"")
    assert (count(PortalSettings), count(SavedAddress)) == (0, 0)
    assert error_of(ada("DELETE", "/portal/settings"), 404)


def test_wrong_settings_are_refused_with_every_fault_and_what_was_saved_stays(ada: Caller) -> None:
    """By places, and never by values."""
    told(ada("PUT", "/portal/settings", {"savedCarrierAndReturnAddress": SAVED}))
    place = "savedCarrierAndReturnAddress"
    wrong = {
        "returnAddress": {**ADDRESS, "city": ["Zebulon"], "phone": ""},
        "returnShipping": {"carrierName": "UPS"},
    }
    answer = ada("PUT", "/portal/settings", {place: wrong})
    assert "Zebulon" not in answer.text
    assert targets(answer) == {
        f"{place}.returnAddress.city",
        f"{place}.returnAddress.phone",
        f"{place}.returnShipping.carrierAccountNumber",
    }
    assert targets(ada("PUT", "/portal/settings", {})) == {place}
    assert ada.read("/portal/settings")[place] == SAVED


def test_the_saved_address_alone_can_be_deleted(ada: Caller) -> None:
    """Dashboards stay; once more finds nothing to delete."""
    told(ada("PUT", "/portal/settings", {"savedCarrierAndReturnAddress": SAVED}))
    told(ada("POST", "/portal/dashboards", {"name": "mine"}), 201)
    for _ in range(2):
        answer = ada("DELETE", "/portal/settings/savedCarrierAndReturnAddress")
        assert (answer.status_code, answer.content) == (200, b"")
        settings = ada.read("/portal/settings")
        assert "savedCarrierAndReturnAddress" not in settings
        assert [each["name"] for each in settings["dashboards"]] == ["mine"]
    assert count(SavedAddress) == 0


def test_deleting_all_settings_takes_private_dashboards_and_leaves_shared_ones(ada: Caller, ben: Caller) -> None:
    """Which do not tell any more whose they were; somebody else's stay, and so do jobs."""
    job_id = told(ada("POST", "/portal/jobs", request("job1", **{SAVE: True})))["jobId"]
    told(ada("POST", "/portal/dashboards", {"name": "mine"}), 201)
    shared = told(ada("POST", "/portal/dashboards", {"name": "ours", "shared": True}), 201)
    told(ben("POST", "/portal/dashboards", {"name": "Ben's"}), 201)
    assert ada("DELETE", "/portal/settings").status_code == 200
    assert [each["name"] for each in ada.read("/portal/dashboards")["value"]] == ["ours"]
    assert [each["name"] for each in ben.read("/portal/dashboards")["value"]] == ["Ben's", "ours"]
    assert error_of(ada("DELETE", f"/portal/dashboards/{shared['id']}"), 404)
    assert ada.read(f"/portal/jobs/{job_id}")["job"]["properties"].items() >= SAVED.items()
    with reading() as session:
        assert {each.user_id for each in session.exec(select(Dashboard))} == {None, BEN}


def test_what_was_exported_can_be_taken_in_again(ada: Caller, ben: Caller) -> None:
    """After a deletion as before it, and twice as once; somebody else's is refused."""
    told(ada("PUT", "/portal/settings", {"savedCarrierAndReturnAddress": SAVED}))
    told(ada("POST", "/portal/dashboards", {"name": "mine", "filter": {"states": ["Shipping"]}}), 201)
    exported = told(ada("GET", "/portal/settings/export"))
    same = told(ada("POST", "/portal/settings/import", exported))
    assert same == {"addressSaved": True, "dashboardsCreated": 0, "dashboardsUpdated": 0}
    ada("DELETE", "/portal/settings")
    came = told(ada("POST", "/portal/settings/import", exported))
    assert came == {"addressSaved": True, "dashboardsCreated": 1, "dashboardsUpdated": 0}
    settings = ada.read("/portal/settings")
    assert settings["savedCarrierAndReturnAddress"] == SAVED
    assert list(map(without_times, settings["dashboards"])) == list(map(without_times, exported["dashboards"]))
    renamed = {**exported, "dashboards": [{**exported["dashboards"][0], "name": "renamed"}]}
    assert told(ada("POST", "/portal/settings/import", renamed))["dashboardsUpdated"] == 1
    answer = ben("POST", "/portal/settings/import", exported)
    assert targets(answer) == {"userId"}
    assert ADDRESS["recipientName"] not in answer.text
    assert error_of(ben("GET", "/portal/settings"), 404)
    assert targets(ada("POST", "/portal/settings/import", {"dashboards": [{}]})) == {
        "userId",
        "dashboards[0].name",
    }


# Dashboards.


def test_a_dashboard_is_its_makers_to_change_and_where_shared_everybodys_to_see(ada: Caller, ben: Caller) -> None:
    """A private one is to others as one that is not there."""
    given = str(uuid4())
    private = told(ada("POST", "/portal/dashboards", {"id": given, "name": "mine"}), 201)
    shared = told(ada("POST", "/portal/dashboards", {"name": "ours", "shared": True}), 201)
    assert private["id"] != given, "ids are the service's to give"
    assert (private["shared"], shared["shared"]) == (False, True)
    assert [each["id"] for each in ada.read("/portal/dashboards")["value"]] == [private["id"], shared["id"]]
    assert [each["id"] for each in ben.read("/portal/dashboards")["value"]] == [shared["id"]]
    assert (
        ben.read(f"/portal/dashboards/{shared['id']}") == shared == ada.read(f"/portal/dashboards/{shared['id']}")
    )
    none = error_of(ben("GET", f"/portal/dashboards/{uuid4()}"), 404)
    assert none["code"] == "DashboardNotFound"
    for each in (private, shared):
        url = f"/portal/dashboards/{each['id']}"
        assert error_of(ben("PUT", url, {"name": "Ben's"}), 404) == none
        assert error_of(ben("DELETE", url), 404) == none
    for part in ("", "/jobs"):
        assert error_of(ben("GET", f"/portal/dashboards/{private['id']}{part}"), 404) == none
    changed = told(ada("PUT", f"/portal/dashboards/{private['id']}", {"name": "renamed", "shared": True}))
    assert (changed["id"], changed["name"], changed["shared"]) == (private["id"], "renamed", True)
    assert ben.read(f"/portal/dashboards/{private['id']}") == changed
    answer = ada("DELETE", f"/portal/dashboards/{shared['id']}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert error_of(ada("DELETE", f"/portal/dashboards/{shared['id']}"), 404) == none


def test_a_wrong_dashboard_is_refused_with_every_fault(ada: Caller) -> None:
    """A filter that it does not know would show all jobs."""
    wrong = {"name": "", "shared": "yes", "filter": {"states": ["Zebulon"], "jobTypes": []}}
    answer = ada("POST", "/portal/dashboards", wrong)
    assert targets(answer) == {"name", "shared", "filter.states[0]", "filter.jobTypes"}
    assert "Zebulon" not in answer.text
    assert targets(ada("POST", "/portal/dashboards", {"name": "x", "filter": {"colour": "red"}})) == {"filter"}
    assert targets(ada("GET", "/portal/dashboards/no-id")) == {"dashboardId"}
    assert ada.read("/portal/dashboards")["value"] == []


def test_nobody_has_more_than_a_hundred_dashboards(ada: Caller, ben: Caller) -> None:
    """The next is refused, until one is deleted; somebody else's do not count."""
    for number in range(100):
        told(ada("POST", "/portal/dashboards", {"name": f"{number}"}), 201)
    assert "100" in error_of(ada("POST", "/portal/dashboards", {"name": "x"}), 400)["message"]
    told(ben("POST", "/portal/dashboards", {"name": "x"}), 201)


def test_a_dashboard_shows_the_jobs_it_filters_of_those_the_caller_sees(
    ada: Caller, eva: Caller, callers: Callers
) -> None:
    """An operator's are all; pages go on where they ended, and `$filter` narrows them."""
    for state in ("Creating", "Shipping", "Completed"):
        make(state, f"job-{state}")
    theirs = request("theirs", subscriptionId="s2")
    told(eva("POST", "/portal/jobs", theirs))
    shown = told(
        ada(
            "POST",
            "/portal/dashboards",
            {"name": "x", "shared": True, "filter": {"states": ["Creating", "Shipping"]}},
        ),
        201,
    )
    url = f"/portal/dashboards/{shown['id']}/jobs"

    def names(caller: Caller, query: str = "") -> list[str]:
        return [job["job"]["name"] for job in caller.read(url + query)["value"]]

    assert names(ada) == ["job-Creating", "job-Shipping"]
    assert names(eva) == ["theirs"]
    assert names(callers(BEN, "operator", subscriptions=())) == ["job-Creating", "job-Shipping", "theirs"]
    assert names(ada, "?$filter=state eq 'Shipping'") == ["job-Shipping"]
    first = ada.read(url + "?$top=1")
    assert [job["job"]["name"] for job in first["value"]] == ["job-Creating"]
    second = ada.read(first["nextLink"])
    assert [job["job"]["name"] for job in second["value"]] == ["job-Shipping"]
    assert "nextLink" not in second
    assert targets(ada("GET", f"{url}?$top=0")) == {"$top"}


# Erasure.


def test_personal_data_that_is_not_needed_any_more_is_erased_at_once(ada: Caller, callers: Callers) -> None:
    """Out of a job that stays until its 90 days are over; asked again there is nothing to do."""
    for state, cancelled in (("Closed", False), ("Completed", False), ("Completed", True)):
        name = f"job-{state}-{cancelled}"
        job_id = make(state, name, cancelled=cancelled)
        before = ada.read(f"/portal/jobs/{job_id}")
        answer = ada("POST", f"/portal/jobs/{job_id}/erasePersonalData?atOnce=true")
        job = told(answer)
        assert job["erasureOutcome"] == "done"
        assert job["erasedAt"]
        assert (job["stateSince"], job["expiresAt"]) == (before["stateSince"], before["expiresAt"])
        assert not {"returnAddress", "returnShipping", "deliveryPackage"} & job["job"]["properties"].keys()
        assert [set(drive) & {"driveId"} for drive in job["job"]["properties"]["driveList"]] == [set()]
        said = [value for value in ADDRESS.values() if len(value) > 3]
        assert not [value for value in (*said, "TRACK1", "ACCOUNT1", "SERIAL1") if value in answer.text]
        again = told(ada("POST", f"/portal/jobs/{job_id}/erasePersonalData"))
        assert again["erasureOutcome"] == "nothing to do"
        assert {**again, "erasureOutcome": "done"} == job
        operator = callers(BEN, "operator", subscriptions=())
        assert "userId" not in operator.read(f"/operator/jobs/{job_id}")
        with reading() as session:
            left = rows_of(session, job_id)
        assert not [
            table for table in ("return_address", "return_shipping", "package", "extra_drive") if left[table]
        ]


def test_personal_data_that_is_still_needed_is_erased_once_the_drives_are_back(ada: Caller) -> None:
    """A wish, kept; to be refused rather, if it is to be at once; asked again it is the same wish."""
    job_id = make("Packaging")
    url = f"/portal/jobs/{job_id}"
    before = ada.read(url)
    refused = error_of(ada("POST", f"{url}/erasePersonalData?atOnce=true"), 409)
    assert refused["code"] == "AddressNeeded"
    assert ada.read(url) == before
    wished = told(ada("POST", f"{url}/erasePersonalData"))
    assert wished["erasureOutcome"] == "wished"
    assert wished["erasureWishedAt"]
    assert "erasedAt" not in wished
    assert wished["job"]["properties"].items() >= SAVED.items()
    again = told(ada("POST", f"{url}/erasePersonalData?atOnce=false"))
    assert (again["erasureOutcome"], again["erasureWishedAt"]) == ("nothing to do", wished["erasureWishedAt"])
    with writing() as session:
        return_drives(session, job_id, None, at=database_time(session) + timedelta(days=15), by=Actor.OPERATOR)
    with reading() as session:
        kinds = [event.kind for event in events_of(session, job_id)]
    assert kinds.count(EventKind.ERASURE_WISHED) == 1


def test_the_wish_of_a_job_whose_package_may_still_come_waits(ada: Caller) -> None:
    """It was shipped days ago, and closed."""
    url = f"/portal/jobs/{make('Closed', is_new=True)}"
    assert "may still come" in error_of(ada("POST", f"{url}/erasePersonalData?atOnce=true"), 409)["message"]
    assert told(ada("POST", f"{url}/erasePersonalData"))["erasureOutcome"] == "wished"


def test_a_job_that_nothing_was_sent_of_is_deleted_rather_than_erased(ada: Caller) -> None:
    """409, and the way out; `atOnce` is true or false."""
    url = f"/portal/jobs/{make('Creating')}/erasePersonalData"
    refused = error_of(ada("POST", url), 409)
    assert refused["code"] == "JobStateConflict"
    assert "delete it" in refused["message"]
    assert targets(ada("POST", f"{url}?atOnce=Zebulon")) == {"atOnce"}


# Events.


def test_what_happened_to_a_job_is_listed_in_order_and_tells_of_nobody(ada: Caller) -> None:
    """Kinds, states and who; `after` goes on from a number."""
    url = f"/portal/jobs/{told(ada('POST', '/portal/jobs', request()))['jobId']}"
    told(ada("PATCH", url, {"tags": {"Zebulon": "Quince"}, "properties": OTHERS}))
    told(ada("PATCH", url, {"properties": {"state": "Shipping", "deliveryPackage": {**PACKAGE, "driveCount": 2}}}))
    told(ada("POST", f"{url}/cancel"))
    told(ada("POST", f"{url}/cancel"))
    answer = ada("GET", f"{url}/events")
    events = told(answer)["value"]
    assert [(event["kind"], event.get("target"), event.get("what")) for event in events] == [
        ("created", "Creating", None),
        ("updated", None, "returnAddress, tags"),
        ("updated", None, "deliveryPackage"),
        ("moved", "Shipping", None),
        ("cancel accepted", None, None),
    ]
    assert {event["by"] for event in events} == {"customer"}
    numbers = [event["number"] for event in events]
    assert numbers == sorted(set(numbers))
    assert ada.read(f"{url}/events?after={numbers[2]}")["value"] == events[3:]
    assert ada.read(f"{url}/events?after={numbers[-1]}")["value"] == []
    said = [value for value in (*ADDRESS.values(), "Village", "TRACK1", "Zebulon", "Quince") if len(value) > 4]
    assert not [value for value in said if value in answer.text]
    for wrong in ("-1", "x", str(2**60)):
        assert targets(ada("GET", f"{url}/events?after={wrong}")) == {"after"}
