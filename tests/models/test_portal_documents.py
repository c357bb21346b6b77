"""Portal settings written out in full and taken in again, and nobody's dashboard overwritten by it."""

import json
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlmodel import SQLModel, col, select

from models.dashboards import DASHBOARDS_MAX
from models.database import reading, writing
from models.errors import PortalSettingsNotFoundError, RequestError
from models.portal import Dashboard, SettingsPart, delete_settings
from models.portal_documents import Imported, PortalSettingsDocument, export_settings, import_settings
from models.requests import REQUEST_BYTES_MAX, parse
from tests.builders import ADDRESS, NOON, RETURN_SHIPPING, at_once

LATER: Final = NOON + timedelta(days=1, microseconds=7)
ADA: Final = UUID("00000000-0000-4000-8000-0000000000ad")
BOB: Final = UUID("00000000-0000-4000-8000-0000000000b0")
FIRST: Final = "10000000-0000-4000-8000-000000000001"
SECOND: Final = "20000000-0000-4000-8000-000000000002"
FILTER: Final = {
    "states": ["Creating", "Shipping"],
    "jobTypes": ["Import"],
    "subscriptionIds": ["s1"],
    "resourceGroups": ["G1"],
    "locations": ["West US"],
}
SAVED: Final = {"returnAddress": ADDRESS, "returnShipping": RETURN_SHIPPING}


def document(user: UUID = ADA, *dashboards: dict[str, Any], saved: bool = True) -> dict[str, Any]:
    """Make a document as an export has it."""
    made: dict[str, Any] = {"userId": str(user), "dashboards": list(dashboards)}
    return {**made, "savedCarrierAndReturnAddress": SAVED} if saved else made


def dashboard(name: str = "mine", **members: Any) -> dict[str, Any]:
    """Make an entry of `dashboards`."""
    return {"name": name, "shared": False, "filter": FILTER, **members}


def take_in(told: dict[str, Any]) -> Imported:
    """Import in a transaction of its own."""
    with writing() as session:
        return import_settings(session, parse(PortalSettingsDocument, json.dumps(told)), at=LATER)


def exported(user: UUID = ADA) -> dict[str, Any]:
    """Export, and read what a file would hold."""
    with writing() as session:
        found = export_settings(session, user, at=NOON, lock=True)
    told: dict[str, Any] = json.loads(found.document.to_json())
    assert told["settingsId"] == str(found.settings_id)
    return told


def without_times(told: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is the service's to say."""
    service = {"settingsId", "exportedAt", "createdAt", "updatedAt"}
    dashboards = [{key: value for key, value in each.items() if key not in service} for each in told["dashboards"]]
    kept = {key: value for key, value in told.items() if key not in service}
    return {**kept, "dashboards": sorted(dashboards, key=lambda each: each["name"])}


def rows(user: UUID | None) -> list[dict[str, Any]]:
    """Read the dashboards of a user, or those that have lost their maker."""
    with reading() as session:
        found = session.exec(select(Dashboard).where(col(Dashboard.user_id) == user)).all()
    return sorted((row.model_dump() for row in found), key=lambda row: str(row["id"]))


# Every column by hand, and where in the document its value stands.
PLACES: Final = {
    ("portal_settings", "id"): ("settingsId",),
    ("portal_settings", "user_id"): ("userId",),
    ("portal_settings", "created_at"): ("createdAt",),
    ("portal_settings", "updated_at"): ("updatedAt",),
    ("saved_address", "settings_id"): ("settingsId",),
    ("saved_address", "recipient_name"): ("savedCarrierAndReturnAddress", "returnAddress", "recipientName"),
    ("saved_address", "street_address_1"): ("savedCarrierAndReturnAddress", "returnAddress", "streetAddress1"),
    ("saved_address", "street_address_2"): ("savedCarrierAndReturnAddress", "returnAddress", "streetAddress2"),
    ("saved_address", "city"): ("savedCarrierAndReturnAddress", "returnAddress", "city"),
    ("saved_address", "state_or_province"): ("savedCarrierAndReturnAddress", "returnAddress", "stateOrProvince"),
    ("saved_address", "postal_code"): ("savedCarrierAndReturnAddress", "returnAddress", "postalCode"),
    ("saved_address", "country_or_region"): ("savedCarrierAndReturnAddress", "returnAddress", "countryOrRegion"),
    ("saved_address", "phone"): ("savedCarrierAndReturnAddress", "returnAddress", "phone"),
    ("saved_address", "email"): ("savedCarrierAndReturnAddress", "returnAddress", "email"),
    ("saved_address", "carrier_name"): ("savedCarrierAndReturnAddress", "returnShipping", "carrierName"),
    ("saved_address", "carrier_account_number"): (
        "savedCarrierAndReturnAddress",
        "returnShipping",
        "carrierAccountNumber",
    ),
    ("dashboard", "id"): ("dashboards", 0, "id"),
    ("dashboard", "user_id"): ("userId",),
    ("dashboard", "name"): ("dashboards", 0, "name"),
    ("dashboard", "is_shared"): ("dashboards", 0, "shared"),
    ("dashboard", "filter"): ("dashboards", 0, "filter"),
    ("dashboard", "created_at"): ("dashboards", 0, "createdAt"),
    ("dashboard", "updated_at"): ("dashboards", 0, "updatedAt"),
}


def test_an_export_has_every_column_that_is_kept_for_a_user(any_database: str) -> None:
    """And a column that comes later has to be given its place here."""
    tables = [SQLModel.metadata.tables[name] for name in ("portal_settings", "saved_address", "dashboard")]
    assert set(PLACES) == {(table.name, column.name) for table in tables for column in table.columns}
    address = {**ADDRESS, "streetAddress2": "Flat 2"}
    entry = dashboard(id=FIRST, shared=True)
    take_in({**document(ADA, entry), "savedCarrierAndReturnAddress": {**SAVED, "returnAddress": address}})
    take_in(document(BOB, dashboard("bobs")))
    told = exported()
    with reading() as session:
        for table in tables:
            owned = table.columns["user_id"] == ADA if "user_id" in table.columns else None
            chosen = table.select() if owned is None else table.select().where(owned)
            stored = [dict(row._mapping) for row in session.connection().execute(chosen)]
            if table.name == "saved_address":
                stored = [row for row in stored if str(row["settings_id"]) == told["settingsId"]]
            (row,) = stored
            for name, value in row.items():
                there: Any = told
                for step in PLACES[table.name, name]:
                    there = there[step]
                assert there == json.loads(json.dumps(value, default=_as_json)), (table.name, name)
                assert value not in {None, ""} if not isinstance(value, dict) else value


def _as_json(value: object) -> str:
    return str(value) if isinstance(value, UUID) else value.isoformat().replace("+00:00", "Z")  # type: ignore[attr-defined]


def test_an_export_has_nothing_of_anybody_else(any_database: str) -> None:
    """Neither another user's, nor shared dashboards that are not theirs."""
    take_in(document(BOB, dashboard("bobs", shared=True), dashboard("private")))
    take_in(document(ADA, saved=False))
    told = exported()
    assert told.keys() == {"userId", "settingsId", "exportedAt", "createdAt", "updatedAt", "dashboards"}
    assert told["dashboards"] == []
    with pytest.raises(PortalSettingsNotFoundError):
        exported(uuid4())


def test_what_was_exported_and_deleted_comes_back_by_an_import(any_database: str) -> None:
    """To the letter; and taken in once more, nothing is new."""
    take_in(
        document(ADA, dashboard("a", id=FIRST), dashboard("b", filter={}), dashboard("c", filter={"states": None}))
    )
    told = exported()
    assert told["dashboards"][1]["filter"] == {}
    with writing() as session:
        delete_settings(session, ADA, SettingsPart.EVERYTHING, at=LATER)
    assert take_in(told) == Imported(address=True, created=3, updated=0)
    assert without_times(exported()) == without_times(told)
    for _ in range(2):
        before = rows(ADA)
        assert take_in(exported()) == Imported(address=True, created=0, updated=0)
        assert rows(ADA) == before


def test_what_belongs_to_the_service_is_read_over(any_database: str) -> None:
    """A made-up time or settings id becomes nothing."""
    told = {**document(ADA, dashboard(id=FIRST)), "settingsId": str(uuid4()), "createdAt": "1999-01-01T00:00:00Z"}
    told["dashboards"][0].update(
        createdAt="1999-01-01T00:00:00Z", updatedAt="1999-01-01T00:00:00Z", userId=str(BOB)
    )
    take_in(told)
    found = exported()
    assert found["settingsId"] != told["settingsId"]
    assert "1999" not in json.dumps(found)
    assert rows(BOB) == []


def test_an_import_changes_own_dashboards_and_deletes_nothing(any_database: str) -> None:
    """What is left out stays as it is: the address too."""
    take_in(document(ADA, dashboard("a", id=FIRST), dashboard("b", id=SECOND)))
    told = document(ADA, dashboard("new name", id=FIRST, shared=True, filter={"states": ["Closed"]}), saved=False)
    assert take_in(told) == Imported(address=False, created=0, updated=1)
    found = exported()
    assert found["savedCarrierAndReturnAddress"] == SAVED
    changed, same = rows(ADA)
    assert (changed["name"], changed["is_shared"], changed["filter"]) == ("new name", True, {"states": ["Closed"]})
    assert (str(changed["id"]), same["name"]) == (FIRST, "b")
    assert take_in(told) == Imported(address=False, created=0, updated=0)


def test_an_import_replaces_the_saved_address(any_database: str) -> None:
    """Of this user alone."""
    take_in(document(ADA))
    take_in(document(BOB))
    moved = {**SAVED, "returnAddress": {**ADDRESS, "city": "Village"}}
    take_in({**document(ADA), "savedCarrierAndReturnAddress": moved})
    assert exported()["savedCarrierAndReturnAddress"] == moved
    assert exported(BOB)["savedCarrierAndReturnAddress"] == SAVED


@pytest.mark.parametrize("shared", [True, False])
def test_nobody_overwrites_anothers_dashboard(any_database: str, shared: bool) -> None:
    """Whoever brings its id gets one of their own, once, and does not learn that the other is there."""
    take_in(document(BOB, dashboard("bobs", id=FIRST, shared=shared)))
    before = rows(BOB)
    for created in (1, 0):
        told = document(ADA, dashboard("mine now", id=FIRST, shared=True, filter={}))
        assert take_in(told) == Imported(address=True, created=created, updated=0)
        assert rows(BOB) == before
        (own,) = rows(ADA)
        assert str(own["id"]) != FIRST
        assert own["name"] == "mine now"


def test_a_dashboard_that_has_lost_its_maker_is_nobodys_to_change(any_database: str) -> None:
    """Not even who brings their own export back: they get one like it."""
    take_in(document(ADA, dashboard("shared", id=FIRST, shared=True)))
    told = exported()
    with writing() as session:
        delete_settings(session, ADA, SettingsPart.EVERYTHING, at=LATER)
    orphans = rows(None)
    assert [str(row["id"]) for row in orphans] == [FIRST]
    for created in (1, 0):
        assert take_in(told) == Imported(address=True, created=created, updated=0)
        assert rows(None) == orphans
        assert [row["name"] for row in rows(ADA)] == ["shared"]


def test_a_dashboard_that_the_same_document_changes_does_not_stand_for_another(any_database: str) -> None:
    """Both are there in the end."""
    take_in(document(BOB, dashboard("bobs", id=SECOND)))
    take_in(document(ADA, dashboard("a", id=FIRST)))
    told = document(ADA, dashboard("a", id=SECOND), dashboard("b", id=FIRST))
    for _ in range(2):
        take_in(told)
        assert sorted(row["name"] for row in rows(ADA)) == ["a", "b"]


def test_two_users_bring_the_same_new_id_at_once(any_database: str) -> None:
    """One gets it; the other does, on asking again, one of another id."""
    for _ in range(3):
        shared = str(uuid4())
        ends = at_once(*[partial(take_in, document(user, dashboard(shared, id=shared))) for user in (ADA, BOB)])
        for user, end in zip((ADA, BOB), ends, strict=True):
            if not isinstance(end, Imported):
                take_in(document(user, dashboard(shared, id=shared)))
            assert shared in [row["name"] for row in rows(user)]


def test_a_user_has_at_most_a_hundred_dashboards(any_database: str) -> None:
    """A hundred are taken in, one more is refused, and nothing of that import is done."""
    hundred = [dashboard(f"d{number}", id=str(uuid4())) for number in range(DASHBOARDS_MAX)]
    take_in(document(ADA, *hundred[:99], saved=False))
    with pytest.raises(RequestError, match=r"^dashboards: a user has at most 100, and this would make 101"):
        take_in(document(ADA, dashboard("x"), dashboard("y")))
    assert "savedCarrierAndReturnAddress" not in exported()
    assert take_in(document(ADA, *hundred)).created == 1
    take_in(document(BOB, dashboard("bobs")))
    with pytest.raises(RequestError, match="dashboards: List should have at most 100 items"):
        take_in(document(ADA, *hundred, dashboard("x")))
    assert len(rows(ADA)) == DASHBOARDS_MAX == 100


WRONG: Final[dict[str, tuple[dict[str, Any], str, str]]] = {
    "no user": ({"dashboards": []}, "userId", "required"),
    "a name for a user": ({"userId": "Zebulon"}, "userId", "is no UUID"),
    "half an address": (
        {**document(), "savedCarrierAndReturnAddress": {"returnAddress": ADDRESS}},
        "savedCarrierAndReturnAddress.returnShipping",
        "required",
    ),
    "a dashboard without a name": (document(ADA, {"filter": {}}), "dashboards[0].name", "required"),
    "a name of spaces": (document(ADA, dashboard("  ")), "dashboards[0].name", "at least 1"),
    "a long name": (document(ADA, dashboard("x" * 257)), "dashboards[0].name", "at most 256"),
    "a name of two lines": (document(ADA, dashboard("a\nb")), "dashboards[0].name", "pattern"),
    "a name with NUL": (document(ADA, dashboard("a\0b")), "dashboards[0].name", "pattern"),
    "shared or not": (document(ADA, dashboard(shared="yes")), "dashboards[0].shared", "boolean"),
    "an id that is none": (document(ADA, dashboard(id="Zebulon")), "dashboards[0].id", "is no UUID"),
    "the same id twice": (
        document(ADA, dashboard(id=FIRST), dashboard("b", id=FIRST.upper())),
        "dashboards",
        "two entries have the same id",
    ),
    "a state that is none": (
        document(ADA, dashboard(filter={"states": ["Zebulon"]})),
        "dashboards[0].filter.states[0]",
        "should be 'Creating'",
    ),
    "a misspelt member": (
        document(ADA, dashboard(filter={"Zebulon": ["Creating"]})),
        "dashboards[0].filter",
        "may hold states, jobTypes, subscriptionIds, resourceGroups, locations and nothing else",
    ),
    "an empty list": (
        document(ADA, dashboard(filter={"states": []})),
        "dashboards[0].filter.states",
        "at least 1",
    ),
    "a long list": (
        document(ADA, dashboard(filter={"locations": ["x"] * 21})),
        "dashboards[0].filter.locations",
        "at most 20",
    ),
}


@pytest.mark.parametrize(("told", "place", "text"), WRONG.values(), ids=WRONG)
def test_a_document_that_is_wrong_is_refused_by_its_place(
    sqlite: str, told: dict[str, Any], place: str, text: str
) -> None:
    """By no value of it, and nothing is written."""
    with pytest.raises(RequestError) as refused:
        take_in(told)
    ((found, fault),) = refused.value.faults
    assert found == place
    assert text in fault
    assert "Zebulon" not in str(refused.value)
    with pytest.raises(PortalSettingsNotFoundError):
        exported()


def test_names_of_its_members_compare_without_case(sqlite: str) -> None:
    """As everywhere in the API."""

    def lowered(value: Any) -> Any:
        if isinstance(value, dict):
            return {key.lower(): lowered(member) for key, member in value.items()}
        return [lowered(each) for each in value] if isinstance(value, list) else value

    take_in(lowered(document(ADA, dashboard())))
    assert without_times(exported())["savedCarrierAndReturnAddress"] == SAVED
    assert exported()["dashboards"][0]["filter"] == FILTER


def test_the_longest_name_is_counted_without_the_spaces_around_it(sqlite: str) -> None:
    """As every text of a request."""
    take_in(document(ADA, dashboard("  " + "ä" * 256 + "  ")))
    assert exported()["dashboards"][0]["name"] == "ä" * 256


def test_the_largest_export_is_small_enough_to_be_taken_in_again(sqlite: str) -> None:
    """A hundred dashboards of everything that a filter may hold, in letters of four bytes."""
    widest = "\U0001f4e6"
    everything = {
        "states": ["Transferring"] * 20,
        "jobTypes": ["Import"] * 20,
        "subscriptionIds": ["s" * 64] * 20,
        "resourceGroups": ["g" * 90] * 20,
        "locations": [widest * 50] * 20,
    }
    dashboards = [dashboard(widest * 250 + str(number), filter=everything) for number in range(100)]
    made = {
        **document(ADA, *dashboards),
        "savedCarrierAndReturnAddress": {
            "returnAddress": dict.fromkeys(ADDRESS, widest * 256),
            "returnShipping": dict.fromkeys(RETURN_SHIPPING, widest * 256),
        },
    }
    with writing() as session:
        import_settings(session, PortalSettingsDocument.model_validate(made), at=NOON)
        found = export_settings(session, ADA, at=NOON).document.to_json()
    assert len(found.encode()) <= REQUEST_BYTES_MAX
    assert take_in(json.loads(found)).created == 0
