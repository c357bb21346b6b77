"""Portal settings by flows: what comes of each, and that no run keeps or tells whose they are."""

import importlib
import json
import re
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from prefect import Flow
from prefect.client.schemas.objects import State
from sqlmodel import select

import flows.promises
import flows.show_dashboard
from flows.create_job import create_job
from flows.delete_portal_settings import delete_portal_settings
from flows.export_portal_settings import export_portal_settings
from flows.import_portal_settings import import_portal_settings
from flows.promises import Ended, UserReference, done, promise
from flows.ship_job import ship_job
from flows.show_dashboard import show_dashboard
from models.database import reading, writing
from models.lifecycle import JobState
from models.portal import Dashboard, PortalSettings, SavedAddress, SettingsPart, saved_address_of
from models.receipts import Reason
from models.settings import Settings
from tests.builders import ADDRESS, NOON, PACKAGE, RETURN_SHIPPING, job_in, job_request

pytestmark = pytest.mark.usefixtures("sqlite", "plain_acts")

ADA: Final = "00000000-0000-4000-8000-0000000000ad"
BOB: Final = "00000000-0000-4000-8000-0000000000b0"
SAVED: Final = {"returnAddress": ADDRESS, "returnShipping": RETURN_SHIPPING}
PERSONAL: Final = [value for part in SAVED.values() for value in part.values() if len(value) > 2]
NAME: Final = "Ada's own"
OF_USERS: Final[tuple[Flow[..., Any], ...]] = (export_portal_settings, delete_portal_settings)


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Count how often a run's parameters are emptied."""
    calls: list[object] = []
    monkeypatch.setattr(flows.promises, "hide_parameters", calls.append)
    return calls


def put_in(name: str, document: object) -> Path:
    """Put a request file into the intake."""
    file = Settings().intake / name
    file.write_text(json.dumps(document))
    return file


def settle(user: str, **members: Any) -> State[Any]:
    """Give a user settings, by the flow that imports them."""
    dashboards = [{"name": NAME, "filter": {"states": ["Shipping"]}}, {"name": f"{NAME} too", "shared": True}]
    document = {"userId": user, "savedCarrierAndReturnAddress": SAVED, "dashboards": dashboards, **members}
    put_in("settings.json", document)
    ended: State[Any] = import_portal_settings.fn("settings.json")
    return ended


def files(folder: Path) -> list[str]:
    """List the files of a folder, in whatever depth."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def rows(user: str) -> tuple[int, int, list[str]]:
    """Count a user's settings and saved addresses, and name their dashboards."""
    with reading() as session:
        settings = session.exec(select(PortalSettings).where(PortalSettings.user_id == UUID(user))).all()
        address = saved_address_of(session, UUID(user))
        dashboards = session.exec(select(Dashboard.name).where(Dashboard.user_id == UUID(user))).all()
    return len(settings), int(address is not None), sorted(dashboards)


def told(ended: State[Any]) -> str:
    """Read a run's message, and see that it names nobody and nothing of anybody."""
    line = ended.message or ""
    assert "\n" not in line
    for value in (*PERSONAL, NAME, ADA, BOB, UUID(ADA).hex):
        assert value.lower() not in line.lower(), line
    return line


# What comes of it.


def test_a_tick_in_a_request_file_saves_and_its_absence_does_not() -> None:
    """By create-job and by ship-job; the next job takes what was saved."""
    put_in("a.json", {**job_request("job1", returnAddress=None, returnShipping=None), "userId": ADA})
    assert create_job.fn().is_completed()
    body: dict[str, Any] = {"properties": {"returnAddress": ADDRESS, "returnShipping": RETURN_SHIPPING}}
    put_in("ship.json", body)
    assert ship_job.fn("s1/g1/job1", "ship.json").is_completed()
    assert rows(ADA) == (0, 0, [])
    put_in("b.json", {**job_request("job2", returnAddress=None, returnShipping=None), "userId": ADA})
    assert create_job.fn().is_completed()
    put_in("ship.json", {**body, "saveCarrierAndReturnAddressAsDefault": True})
    told(ship_job.fn("s1/g1/job2", "ship.json"))
    assert rows(ADA) == (1, 1, [])
    using = {"userId": ADA, "useSavedCarrierAndReturnAddress": True}
    put_in("c.json", {**job_request("job3", returnAddress=None, returnShipping=None), **using})
    assert create_job.fn().is_completed()
    assert ship_job.fn("s1/g1/job3").is_completed(), "its address is known"
    assert files(Settings().intake) == []


def test_a_tick_in_a_request_file_that_cannot_be_followed_is_refused_and_the_file_stays() -> None:
    """Told by its place; nothing is saved or shipped."""
    put_in("a.json", {**job_request("job1"), "saveCarrierAndReturnAddressAsDefault": True})
    line = told(create_job.fn())
    assert "InvalidRequestContent: saveCarrierAndReturnAddressAsDefault: needs the userId" in line
    assert files(Settings().intake) == ["a.json"]
    put_in("a.json", job_request("job1"))
    assert create_job.fn().is_completed()
    ticked = {"properties": {"deliveryPackage": PACKAGE}, "saveCarrierAndReturnAddressAsDefault": True}
    put_in("ship.json", ticked)
    line = told(ship_job.fn("s1/g1/job1", "ship.json"))
    assert "saveCarrierAndReturnAddressAsDefault: saves returnAddress and returnShipping" in line
    assert files(Settings().intake) == ["ship.json"]
    with reading() as session:
        assert session.exec(select(PortalSettings)).all() == []


def test_what_was_exported_comes_back_after_it_was_deleted() -> None:
    """The file is written where the message says, goes with the deletion, and is taken in by a request file."""
    assert told(settle(ADA)) == "carrier and return address saved; 2 dashboards made, 0 changed"
    settle(BOB)
    line = told(export_portal_settings.fn(ADA))
    found = re.fullmatch(
        r"exported into (portal-settings-\S+\.json) in the exports folder; it is removed after a day", line
    )
    assert found
    copied = json.loads((Settings().exports / found[1]).read_text("utf-8"))
    export_portal_settings.fn(BOB)
    line = told(delete_portal_settings.fn(ADA))
    assert line == "deleted rows: 1 dashboard, 1 portal_settings, 1 saved_address"
    assert rows(ADA) == (0, 0, [])
    assert len(files(Settings().exports)) == 1, "somebody else's stays"
    assert rows(BOB) == (1, 1, [NAME, f"{NAME} too"])
    put_in("back.json", copied)
    assert told(import_portal_settings.fn("back.json")).endswith("; 2 dashboards made, 0 changed")
    assert rows(ADA) == rows(BOB)
    assert files(Settings().intake) == []


def test_the_saved_address_alone_is_deleted() -> None:
    """With the files that hold it; dashboards stay; asked again there is nothing to do."""
    settle(ADA)
    settle(BOB)
    for user in (ADA, BOB):
        export_portal_settings.fn(user)
    for line in ("deleted rows: 1 saved_address", "nothing to do: no carrier and return address was saved"):
        assert told(delete_portal_settings.fn(ADA, SettingsPart.SAVED_ADDRESS)) == line
        assert rows(ADA) == (1, 0, [NAME, f"{NAME} too"])
        assert rows(BOB) == (1, 1, [NAME, f"{NAME} too"])
        assert len(files(Settings().exports)) == 1
    line = told(settle(ADA, savedCarrierAndReturnAddress=None, dashboards=[]))
    assert line == "no carrier and return address in it; 0 dashboards made, 0 changed"
    assert rows(ADA)[1] == 0


def test_an_export_that_came_between_files_and_rows_goes_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would outlive its settings."""
    module: Any = importlib.import_module("flows.delete_portal_settings")

    settle(ADA)
    delete = module.delete_rows_of_settings

    def exporting(user_id: UUID, what: SettingsPart, reason: Reason) -> Any:
        export_portal_settings.fn(str(user_id))
        return delete(user_id, what, reason)

    monkeypatch.setattr(module, "delete_rows_of_settings", exporting)
    assert delete_portal_settings.fn(ADA).is_completed()
    assert files(Settings().exports) == []


def test_a_dashboard_shows_ids_and_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Type, state and since when; the latest first, and how many there are."""
    shown: list[list[dict[str, str]]] = []
    monkeypatch.setattr(flows.show_dashboard, "_show", shown.append)
    settle(ADA)
    with writing() as session:
        ids = [
            job_in(session, JobState.SHIPPING, f"job{number}", NOON.replace(hour=number)) for number in range(3)
        ]
        job_in(session, JobState.CREATING, "other", NOON)
    with reading() as session:
        private, shared = [
            str(row.id) for row in sorted(session.exec(select(Dashboard)).all(), key=lambda row: row.is_shared)
        ]
    assert told(show_dashboard.fn(private)) == "3 jobs"
    assert shown.pop() == [
        {
            "job": str(ids[number]),
            "type": "Import",
            "state": "Shipping",
            "since": f"2026-06-01 0{number}:00:00 UTC",
        }
        for number in (2, 1, 0)
    ]
    assert told(show_dashboard.fn(shared)) == "4 jobs"
    monkeypatch.setattr(flows.show_dashboard, "_ROWS_MAX", 2)
    assert told(show_dashboard.fn(private)) == "3 jobs; the 2 latest are listed"
    assert [row["job"] for row in shown.pop()] == [str(ids[2]), str(ids[1])]


# What is refused.


@pytest.mark.parametrize("flow", OF_USERS, ids=lambda flow: flow.name)
def test_a_user_of_whom_nothing_is_kept_is_told_without_their_id(flow: Any) -> None:
    """In one line, code first; nothing of others is touched."""
    settle(BOB)
    ended = flow.fn(ADA)
    assert ended.is_failed()
    assert told(ended).startswith("PortalSettingsNotFound: there are no portal settings of this user")
    assert rows(BOB) == (1, 1, [NAME, f"{NAME} too"])
    assert files(Settings().exports) == []


REFERENCES: Final = ["", "ada", "Ada Example", "ada@example.com", ADA[:-1], f"{ADA}0", f" {ADA}", f"{ADA}\n", "*"]


@pytest.mark.parametrize("flow", [*OF_USERS, show_dashboard], ids=lambda flow: flow.name)
@pytest.mark.parametrize("reference", REFERENCES)
def test_whatever_is_no_id_is_refused_by_the_form(flow: Any, reference: str) -> None:
    """The schema that the UI checks says so, and past it the run itself; neither repeats it."""
    settle(ADA)
    name = "dashboard" if flow is show_dashboard else "user"
    ended = flow.fn(reference)
    assert ended.is_failed()
    line = told(ended)
    assert line.startswith(f"InvalidRequestContent: {name}: is no {name}'s id, such as ")
    assert "ada" not in line.lower()
    pattern = flow.parameters.properties[name]["pattern"]
    assert not re.search(pattern, reference) or reference.endswith("\n")
    assert re.search(pattern, ADA)
    assert rows(ADA)[0] == 1


def test_a_part_that_is_none_is_refused(hidden: list[object]) -> None:
    """The form offers the two there are; a run past it deletes nothing."""
    settle(ADA)
    hidden.clear()
    ended = delete_portal_settings.fn(ADA, "Ada Example")  # type: ignore[arg-type]
    line = told(ended)
    assert ended.is_failed()
    assert line == "InvalidRequestContent: what: Input should be 'everything' or 'saved address'"
    assert rows(ADA) == (1, 1, [NAME, f"{NAME} too"])
    assert hidden
    definition = json.dumps(delete_portal_settings.parameters.definitions)
    assert '["everything", "saved address"]' in definition


@pytest.mark.parametrize(
    "document",
    [
        {"dashboards": []},
        {"userId": "ada@example.com"},
        {"userId": ADA, "savedCarrierAndReturnAddress": {"returnAddress": {**ADDRESS, "city": ""}}},
        {"userId": ADA, "dashboards": [{"name": NAME * 99}]},
        {"userId": ADA, "dashboards": [{"name": NAME, "filter": {NAME: 1}}]},
        [1],
    ],
)
def test_an_import_that_is_wrong_stays_in_the_intake(document: object) -> None:
    """It is told by its places, and nothing is taken in."""
    put_in("settings.json", document)
    ended = import_portal_settings.fn("settings.json")
    assert ended.is_failed()
    assert told(ended).startswith("InvalidRequestContent: ")
    assert files(Settings().intake) == ["settings.json"]
    with reading() as session:
        assert session.exec(select(PortalSettings)).all() == []
        assert session.exec(select(SavedAddress)).all() == []


def test_an_import_needs_a_file() -> None:
    """The form says so, and past it the run."""
    ended = import_portal_settings.fn("")
    assert (
        told(ended) == "InvalidRequestContent: request_file: is no name of a request file, such as request-17.json"
    )
    assert told(import_portal_settings.fn("none.json")).startswith("IntakeFileInvalid: there is no such file")
    assert "request_file" in import_portal_settings.parameters.required


def test_a_dashboard_that_is_none_is_told() -> None:
    """One that was deleted, too."""
    settle(ADA)
    with reading() as session:
        ids = [str(row.id) for row in session.exec(select(Dashboard)).all() if not row.is_shared]
    assert show_dashboard.fn(ids[0]).is_completed()
    delete_portal_settings.fn(ADA)
    for gone in (ids[0], str(uuid4())):
        ended = show_dashboard.fn(gone)
        assert ended.is_failed()
        assert told(ended).startswith("DashboardNotFound: there is no such dashboard")


# Whose run it is.


@pytest.mark.parametrize("flow", OF_USERS, ids=lambda flow: flow.name)
def test_a_run_that_names_a_user_does_not_when_it_ends(
    flow: Any, hidden: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Done, refused, refused by the form, failed, or killed."""
    settle(ADA)
    hidden.clear()
    for user in (ADA, str(uuid4()), "Ada Example"):
        hidden.clear()
        flow.fn(user)
        assert hidden

    def killed() -> None:
        raise KeyboardInterrupt

    def failing() -> None:
        raise RuntimeError

    settings = f"{flow.fn.__module__}.Settings"
    hidden.clear()
    monkeypatch.setattr(settings, failing)
    assert told(flow.fn(ADA)).startswith("InternalError: RuntimeError at ")
    monkeypatch.setattr(settings, killed)
    with pytest.raises(KeyboardInterrupt):
        flow.fn(ADA)
    assert len(hidden) == 2


def test_a_flow_without_a_user_keeps_its_parameters(hidden: list[object]) -> None:
    """They name nobody, and tell an operator what was asked."""
    settle(ADA)
    show_dashboard.fn(str(uuid4()))
    create_job.fn()
    assert hidden == []


def test_whatever_flow_comes_with_a_user_forgets_them(hidden: list[object]) -> None:
    """It is the parameter's name that counts."""

    @promise("made-up", "For this test.")
    def made_up(user: UserReference, number: int = 1) -> Ended:
        return done(f"{len(user)} {number}")

    assert made_up.fn(ADA).message == "36 1"
    assert made_up.fn(user=ADA, number=2).message == "36 2"
    assert len(hidden) == 2
