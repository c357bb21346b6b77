"""Portal settings: kept only where the user ticked so, given back in full, and deleted without a trace."""

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlmodel import SQLModel, col, func, select

from models.database import reading, writing
from models.errors import DrivepostError, JobStateConflictError, PortalSettingsNotFoundError, RequestError
from models.jobs import read_job
from models.lifecycle import Actor, JobState, Outcome
from models.portal import (
    Dashboard,
    PortalSettings,
    SavedAddress,
    SettingsPart,
    SettingsRows,
    delete_settings,
    save_address,
    saved_address_of,
    settings_rows,
)
from models.portal_documents import PortalSettingsDocument, import_settings
from models.requests import ReturnAddressShape, ReturnShippingShape, UpdateJobBody, parse
from models.shipping import ReturnAddress, ReturnShipping
from models.updates import update_job
from tests.builders import ADDRESS, NOON, PACKAGE, RETURN_SHIPPING, at_once, job_in, job_request, put

LATER: Final = NOON + timedelta(days=1)
ADA: Final = UUID("00000000-0000-4000-8000-0000000000ad")
BOB: Final = UUID("00000000-0000-4000-8000-0000000000b0")
TICK: Final = "saveCarrierAndReturnAddressAsDefault"
USE: Final = "useSavedCarrierAndReturnAddress"
HOME: Final = {**ADDRESS, "recipientName": "Saved Example", "city": "Savedtown"}
ACCOUNT: Final = {"carrierName": "UPS", "carrierAccountNumber": "SAVED1"}


def request(
    name: str = "job1",
    *,
    user: UUID | None = None,
    tick: bool | None = None,
    use: bool | None = None,
    **properties: Any,
) -> dict[str, Any]:
    """Make a request of a user, with the ticks that are named beside its body."""
    beside = {"userId": user and str(user), TICK: tick, USE: use}
    said = {key: value for key, value in beside.items() if value is not None}
    return {**job_request(name, **properties), **said}


def put_now(document: dict[str, Any], **options: Any) -> UUID:
    """Put a job in a transaction of its own."""
    with writing() as session:
        return put(session, document, **options)


def save(user: UUID = ADA, address: dict[str, str] = HOME, shipping: dict[str, str] = ACCOUNT) -> None:
    """Save an address for a user, as a tick does."""
    with writing() as session:
        save_address(
            session,
            user,
            ReturnAddressShape.model_validate(address),
            ReturnShippingShape.model_validate(shipping),
            at=NOON,
        )


def saved(user: UUID = ADA) -> dict[str, Any] | None:
    """Read what a user saved, as a request would give it."""
    with reading() as session:
        shape = saved_address_of(session, user)
    return None if shape is None else shape.model_dump(by_alias=True)


def kept() -> dict[str, list[dict[str, Any]]]:
    """Read every row of portal settings there is."""
    with reading() as session:
        return {
            str(table.__tablename__): [row.model_dump() for row in session.exec(select(table)).all()]
            for table in (PortalSettings, SavedAddress, Dashboard)
        }


def of_job(job_id: UUID) -> dict[str, Any]:
    """Read the address and the carrier of a job."""
    with reading() as session:
        address, shipping = session.get(ReturnAddress, job_id), session.get(ReturnShipping, job_id)
        return {
            "city": address and address.city,
            "account": shipping and shipping.carrier_account_number,
            "user": read_job(session, job_id).user_id,
        }


def jobs() -> int:
    """Count the jobs."""
    with reading() as session:
        return session.exec(select(func.count()).select_from(SQLModel.metadata.tables["job"])).one()


NOTHING: Final[dict[str, list[dict[str, Any]]]] = {"portal_settings": [], "saved_address": [], "dashboard": []}


# The tick, when a job is put.


@pytest.mark.parametrize(
    "document",
    [
        request(),
        request(user=ADA),
        request(user=ADA, tick=False),
        request(user=ADA, tick=False, use=False),
        request(user=ADA, use=True),
        request(user=ADA, returnAddress=None, returnShipping=None),
        {**request(user=ADA), "saveCarrierAndReturnAddress": True, "save": True},
        {**request(user=ADA), "body": {**request()["body"], TICK: True}},
        {**request(user=ADA), "body": {**request()["body"], "tags": {TICK: "true"}}},
    ],
)
def test_without_the_tick_nothing_is_kept_in_portal_settings(any_database: str, document: dict[str, Any]) -> None:
    """Nor is there a row for the user: neither at first nor when the job is replaced, shipped or changed."""
    job_id = put_now(document)
    assert put_now(document) == job_id
    change = {"properties": {"returnAddress": HOME, "returnShipping": ACCOUNT, "deliveryPackage": PACKAGE}}
    for body in (change, {"properties": {"state": "Shipping"}}):
        with writing() as session:
            update_job(session, job_id, parse(UpdateJobBody, json.dumps(body)), at=LATER, by=Actor.CUSTOMER)
    assert of_job(job_id)["city"] == "Savedtown"
    assert kept() == NOTHING


@pytest.mark.parametrize("tick", [TICK, TICK.lower(), TICK.upper()])
def test_with_the_tick_carrier_and_address_are_saved_with_the_job(any_database: str, tick: str) -> None:
    """To the letter, for this user alone, and the job has its own copy."""
    job_id = put_now({**request(user=ADA), tick: True})
    assert saved() == {"returnAddress": ADDRESS, "returnShipping": RETURN_SHIPPING}
    assert saved(BOB) is None
    assert of_job(job_id) == {"city": "Town", "account": "ACCOUNT1", "user": ADA}
    found = kept()
    assert [(row["user_id"], row["created_at"], row["updated_at"]) for row in found["portal_settings"]] == [
        (ADA, NOON, NOON)
    ]
    assert found["saved_address"][0]["settings_id"] == found["portal_settings"][0]["id"]
    assert found["dashboard"] == []


def test_a_later_tick_replaces_what_was_saved_and_its_absence_does_not(any_database: str) -> None:
    """One address a user; other users' stay."""
    save(BOB)
    put_now(request(user=ADA, tick=True))
    first = kept()
    put_now(request("job2", user=ADA, returnAddress=HOME, returnShipping=ACCOUNT))
    assert kept() == first
    put_now(request("job2", user=ADA, returnAddress=HOME, returnShipping=ACCOUNT, tick=True), at=LATER)
    for _ in range(2):
        assert saved() == {"returnAddress": HOME, "returnShipping": ACCOUNT}
        put_now(request("job3", user=ADA, returnAddress=HOME, returnShipping=ACCOUNT, tick=True), at=LATER)
    assert len(kept()["saved_address"]) == 2
    (ada,) = [row for row in kept()["portal_settings"] if row["user_id"] == ADA]
    assert (ada["created_at"], ada["updated_at"]) == (NOON, LATER)
    assert saved(BOB) == {"returnAddress": HOME, "returnShipping": ACCOUNT}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (request(tick=True), "needs the userId that the job is created with"),
        (request(user=ADA, returnAddress=None, tick=True), "saves returnAddress and returnShipping"),
        (request(user=ADA, returnShipping=None, tick=True), "saves returnAddress and returnShipping"),
        (request(user=ADA, returnShipping=None, tick=True, use=True), "saves returnAddress and"),
    ],
)
def test_a_tick_that_cannot_be_followed_is_refused_and_no_job_is_made(
    any_database: str, document: dict[str, Any], told: str
) -> None:
    """The place and the way out are named, and no value."""
    save(BOB)
    save(ADA)
    before = kept()
    with pytest.raises(RequestError, match=f"^{TICK}: {told}.* or leave this out$"):
        put_now(document)
    assert (jobs(), kept()) == (0, before)


@pytest.mark.parametrize("wrong", ["true", 1, "yes", "Ada Example"])
def test_a_tick_is_true_or_false_and_never_guessed(sqlite: str, wrong: object) -> None:
    """A word that may mean yes is none."""
    for name in (TICK, USE):
        with pytest.raises(RequestError, match=f"^{name}: Input should be a valid boolean$"):
            put_now({**request(user=ADA), name: wrong})
    assert (jobs(), kept()) == (0, NOTHING)


@pytest.mark.parametrize("wrong", ["", "ada@example.com", "Ada", 5, f"{{{ADA}}}", f"urn:uuid:{ADA}", f"{ADA}\n"])
def test_a_user_is_a_uuid_and_the_text_repeats_nothing(sqlite: str, wrong: object) -> None:
    """Not a name, nor an e-mail address."""
    with pytest.raises(RequestError, match=r"^userId: ") as refused:
        put_now({**request(tick=True), "userId": wrong})
    assert "ada" not in str(refused.value).lower()
    assert kept() == NOTHING


def test_a_put_that_is_refused_saves_nothing(any_database: str) -> None:
    """The job has left Creating, or the location is none: all or nothing."""
    with writing() as session:
        job_in(session, JobState.SHIPPING)
    with pytest.raises(JobStateConflictError):
        put_now(request(user=ADA, tick=True))
    with pytest.raises(RequestError, match="location"):
        put_now(request("job2", user=ADA, location="Moon", tick=True))
    assert kept() == NOTHING


def test_an_act_done_twice_does_not_bring_back_what_the_user_deleted_meanwhile(any_database: str) -> None:
    """A run that was cut is finished later by another one."""
    act = uuid4()
    job_id = put_now(request(user=ADA, tick=True), intake_id=act)
    delete(ADA)
    assert put_now(request(user=ADA, tick=True), intake_id=act) == job_id
    assert kept() == NOTHING
    # Nor is it refused for want of what was filled in the first time.
    save()
    using, act = request("job2", user=ADA, returnAddress=None, use=True), uuid4()
    job_id = put_now(using, intake_id=act)
    delete(ADA)
    assert put_now(using, intake_id=act) == job_id


def test_two_ticks_of_a_new_user_at_once_make_one_row(any_database: str) -> None:
    """Nobody sees an error of the database."""
    for number in range(4):
        user = uuid4()
        names = [f"job{number}{letter}" for letter in "abc"]
        ends = at_once(*[partial(put_now, request(name, user=user, tick=True)) for name in names])
        assert all(isinstance(end, UUID) for end in ends), ends
        assert saved(user) == {"returnAddress": ADDRESS, "returnShipping": RETURN_SHIPPING}


# What was saved, offered for the next job.


@pytest.mark.parametrize(
    "given", [(), ("returnAddress",), ("returnShipping",), ("returnAddress", "returnShipping")]
)
def test_what_a_request_leaves_out_is_filled_in_from_what_was_saved(
    any_database: str, given: tuple[str, ...]
) -> None:
    """What it gives goes before, the saved stays as it is, and somebody else's is nobody's."""
    save(BOB, {**HOME, "city": "Bobtown"}, {**ACCOUNT, "carrierAccountNumber": "BOB1"})
    save()
    before = kept()
    missing: dict[str, Any] = {name: None for name in ("returnAddress", "returnShipping") if name not in given}
    job_id = put_now(request(user=ADA, **missing, use=True))
    assert of_job(job_id) == {
        "city": "Town" if "returnAddress" in given else "Savedtown",
        "account": "ACCOUNT1" if "returnShipping" in given else "SAVED1",
        "user": ADA,
    }
    assert kept() == before
    delete(ADA)
    assert of_job(job_id)["city"] is not None


def test_without_asking_nothing_is_filled_in(any_database: str) -> None:
    """Saved or not."""
    save()
    for use in (None, False):
        job_id = put_now(request(user=ADA, returnAddress=None, returnShipping=None, use=use))
        assert of_job(job_id) == {"city": None, "account": None, "user": ADA}


def test_what_is_not_saved_cannot_be_used(any_database: str) -> None:
    """Neither without a user, nor where nothing is saved, nor where it was deleted."""
    save(BOB)
    with pytest.raises(RequestError, match=f"^{USE}: needs userId; name it, or leave this out$"):
        put_now(request(returnAddress=None, use=True))
    told = "nothing is saved for this user; give returnAddress and returnShipping, or leave this out"
    missing: Any
    for missing in ({"returnAddress": None}, {"returnShipping": None}):
        with pytest.raises(RequestError, match=f"^{USE}: {told}$"):
            put_now(request(user=ADA, use=True, **missing))
    save()
    delete(ADA, SettingsPart.SAVED_ADDRESS)
    with pytest.raises(RequestError, match=told):
        put_now(request(user=ADA, returnAddress=None, use=True))
    assert jobs() == 0


# Whose job it is.


def test_a_replacement_that_names_nobody_leaves_the_job_to_its_user(any_database: str) -> None:
    """One that names somebody gives it to them; case does not matter."""
    job_id = put_now(request())
    for named, owner in ((None, None), (ADA, ADA), (None, ADA), (BOB, BOB), (None, BOB)):
        document = request(user=named)
        assert put_now({**document, **({"userId": str(named).upper()} if named else {})}) == job_id
        assert of_job(job_id)["user"] == owner


# The tick, when a job is changed or shipped.


def update(job_id: UUID, *, tick: bool = True, **properties: Any) -> Outcome:
    """Update a job, with or without the tick."""
    body = parse(UpdateJobBody, json.dumps({"properties": properties}))
    with writing() as session:
        return update_job(session, job_id, body, at=LATER, by=Actor.OPERATOR, saves_as_default=tick)


def test_a_tick_beside_an_update_saves_for_the_jobs_user(any_database: str) -> None:
    """With the tick, and not without."""
    job_id = put_now(request(user=ADA))
    assert update(job_id, tick=False, returnAddress=HOME, returnShipping=ACCOUNT) is Outcome.DONE
    assert kept() == NOTHING
    assert update(job_id, returnAddress=HOME, returnShipping=ACCOUNT, state="Shipping") is Outcome.DONE
    assert saved() == {"returnAddress": HOME, "returnShipping": ACCOUNT}
    assert kept()["portal_settings"][0]["user_id"] == ADA


def test_a_tick_beside_an_update_that_was_carried_out_before_saves_nothing_anew(any_database: str) -> None:
    """The user may have deleted it since; the run that brings it again was cut."""
    job_id = put_now(request(user=ADA))
    wanted: dict[str, Any] = {"returnAddress": HOME, "returnShipping": ACCOUNT, "state": "Shipping"}
    assert update(job_id, **wanted) is Outcome.DONE
    assert update(job_id, **wanted) is Outcome.NOTHING_TO_DO
    assert saved() is not None
    delete(ADA)
    assert update(job_id, **wanted) is Outcome.NOTHING_TO_DO
    assert kept() == NOTHING


@pytest.mark.parametrize(
    ("user", "properties", "told"),
    [
        (None, {"returnAddress": HOME, "returnShipping": ACCOUNT}, "needs the userId"),
        (ADA, {"returnAddress": HOME}, "saves returnAddress and returnShipping of the same request"),
        (ADA, {"returnShipping": ACCOUNT}, "saves returnAddress and returnShipping of the same request"),
        (ADA, {"logLevel": "Verbose"}, "saves returnAddress and returnShipping of the same request"),
    ],
)
def test_a_tick_beside_an_update_that_cannot_be_followed_is_refused(
    any_database: str, user: UUID | None, properties: dict[str, Any], told: str
) -> None:
    """And nothing of the update is done."""
    job_id = put_now(request(user=user))
    with pytest.raises(RequestError, match=f"^{TICK}: {told}"):
        update(job_id, **properties, state="Shipping")
    assert kept() == NOTHING
    assert of_job(job_id) == {"city": "Town", "account": "ACCOUNT1", "user": user}
    with reading() as session:
        assert read_job(session, job_id).state is JobState.CREATING


def test_an_update_that_is_refused_saves_nothing(any_database: str) -> None:
    """All or nothing."""
    job_id = put_now(request(user=ADA, deliveryPackage=None))
    with pytest.raises(DrivepostError):
        update(job_id, returnAddress=HOME, returnShipping=ACCOUNT, state="Shipping")
    assert kept() == NOTHING


# Deleting.


def delete(user: UUID, what: SettingsPart = SettingsPart.EVERYTHING) -> SettingsRows:
    """Delete in a transaction of its own; the counts are known before."""
    with writing() as session:
        counted = settings_rows(session, user, what)
        deleted = delete_settings(session, user, what, at=LATER)
    assert deleted == counted
    return deleted


def settle(user: UUID) -> None:
    """Give a user an address, two private dashboards and a shared one."""
    save(user)
    names = {"first": False, "second": False, "shared": True}
    entries = [{"name": name, "shared": shared} for name, shared in names.items()]
    document = {"userId": str(user), "dashboards": entries}
    with writing() as session:
        import_settings(session, parse(PortalSettingsDocument, json.dumps(document)), at=NOON)


def of_user(user: UUID) -> dict[str, Any]:
    """Read everything that belongs to a user."""
    rows = kept()
    ids = {row["id"] for row in rows["portal_settings"] if row["user_id"] == user}
    return {
        "settings": [row for row in rows["portal_settings"] if row["user_id"] == user],
        "address": [row for row in rows["saved_address"] if row["settings_id"] in ids],
        "dashboards": [row for row in rows["dashboard"] if row["user_id"] == user],
    }


def test_deletes_all_settings_and_private_dashboards(any_database: str) -> None:
    """Shared ones stay and do not tell whose they were; all of somebody else's stays; asked again, it is told."""
    settle(ADA)
    settle(BOB)
    job_id = put_now(request(user=ADA))
    of_bob, (settings,) = of_user(BOB), of_user(ADA)["settings"]
    shared = [row for row in of_user(ADA)["dashboards"] if row["is_shared"]]
    assert delete(ADA) == SettingsRows(settings["id"], {"saved_address": 1, "dashboard": 2, "portal_settings": 1})
    assert of_user(ADA) == {"settings": [], "address": [], "dashboards": []}
    left = kept()
    assert [row for row in left["dashboard"] if row["user_id"] is None] == [{**shared[0], "user_id": None}]
    assert str(ADA) not in repr(left)
    for part in SettingsPart:
        with pytest.raises(PortalSettingsNotFoundError, match="there are no portal settings of this user"):
            delete(ADA, part)
    assert kept() == left
    assert of_user(BOB) == of_bob
    assert of_job(job_id) == {"city": "Town", "account": "ACCOUNT1", "user": ADA}, (
        "the job's own data stay with it"
    )


def test_deletes_the_saved_address_alone(any_database: str) -> None:
    """Settings and dashboards stay, and all of somebody else's; a second time there is nothing to do."""
    settle(ADA)
    settle(BOB)
    before, of_bob = of_user(ADA), of_user(BOB)
    (settings,) = before["settings"]
    assert delete(ADA, SettingsPart.SAVED_ADDRESS) == SettingsRows(settings["id"], {"saved_address": 1})
    found = of_user(ADA)
    assert found["address"] == []
    assert found["dashboards"] == before["dashboards"]
    assert found["settings"] == [{**settings, "updated_at": LATER}]
    assert delete(ADA, SettingsPart.SAVED_ADDRESS) == SettingsRows(settings["id"], {})
    assert of_user(ADA) == found
    assert of_user(BOB) == of_bob


def test_keeps_what_a_deletion_that_is_undone_was_to_take(any_database: str) -> None:
    """One transaction: all of it or nothing."""
    settle(ADA)
    before = kept()

    def delete_and_fail() -> None:
        with writing() as session:
            delete_settings(session, ADA, SettingsPart.EVERYTHING, at=LATER)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        delete_and_fail()
    assert kept() == before


def test_counting_takes_nothing(any_database: str) -> None:
    """And leaves out tables of which nothing goes."""
    settle(ADA)
    before = kept()
    with writing() as session:
        counted = settings_rows(session, ADA, SettingsPart.EVERYTHING)
    assert kept() == before
    assert sum(counted.counts.values()) == 4
    delete(ADA, SettingsPart.SAVED_ADDRESS)
    with writing() as session:
        counted = settings_rows(session, ADA, SettingsPart.EVERYTHING)
    assert counted.counts == {"dashboard": 2, "portal_settings": 1}


def test_deleted_twice_at_once_one_wins(any_database: str) -> None:
    """And the other is told that there is nothing."""
    for _ in range(4):
        user = uuid4()
        settle(user)
        ends = at_once(partial(delete, user), partial(delete, user))
        assert sorted(type(end).__name__ for end in ends) == ["PortalSettingsNotFoundError", "SettingsRows"]


def test_a_tick_and_a_deletion_at_once_leave_all_or_nothing(any_database: str) -> None:
    """Never an address without settings, nor settings without the address that made them."""

    def act(user: UUID, number: int) -> list[Callable[[], object]]:
        ticking = request(f"race{number}", user=user, tick=True)
        return [partial(put_now, ticking), partial(delete, user)]

    for number in range(6):
        user = uuid4()
        settle(user)
        ends = at_once(*act(user, number))
        assert isinstance(ends[0], UUID), ends
        assert isinstance(ends[1], SettingsRows), ends
        found = of_user(user)
        assert len(found["settings"]) == len(found["address"])
        assert [row["is_shared"] for row in found["dashboards"]] == []


def test_nothing_of_a_user_is_found_by_a_name(any_database: str) -> None:
    """What is saved is on disk only sealed; looked for are long words, because two letters come up by chance."""
    home = {**{name: f"Saved {name}" for name in HOME}, "email": HOME["email"]}
    save(address=home)
    with reading() as session:
        raw = session.connection().exec_driver_sql("SELECT * FROM saved_address").one()
        (settings,) = session.exec(select(PortalSettings).where(col(PortalSettings.user_id) == ADA)).all()
    stored = repr([bytes(value) if isinstance(value, memoryview) else value for value in raw])
    personal = {*home.values(), ACCOUNT["carrierAccountNumber"]}
    assert min(map(len, personal)) >= 6
    assert not [value for value in personal if value in stored]
    assert settings.id != ADA
