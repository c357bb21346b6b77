"""Every column says whose data it holds, and the eleven kinds are all found."""

from typing import Final

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table
from sqlmodel import SQLModel

import models.copies
import models.portal
import models.receipts
import models.runs
import models.sealing_keys
import models.updates  # noqa: F401  importing a module of tables makes its tables known
from models.personal_data import Kind, Place, impersonal, personal, places, says_whose, secret

# The seed document, "Deleting personal information"; copied by hand from section 6.
ELEVEN: Final = [
    "contact name",
    "phone number",
    "e-mail",
    "street address",
    "city",
    "zip/postal code",
    "state",
    "country/province/region",
    "drive id",
    "carrier account number",
    "shipping tracking number",
]
# Where a reader of the service's description would look for each of them.
KNOWN: Final = {
    ("return_address", "recipient_name"): "contact name",
    ("return_address", "phone"): "phone number",
    ("return_address", "email"): "e-mail",
    ("return_address", "street_address_1"): "street address",
    ("return_address", "street_address_2"): "street address",
    ("return_address", "city"): "city",
    ("return_address", "postal_code"): "zip/postal code",
    ("return_address", "state_or_province"): "state",
    ("return_address", "country_or_region"): "country/province/region",
    ("drive", "drive_id"): "drive id",
    ("drive", "error_log_uri"): "drive id",
    ("drive", "verbose_log_uri"): "drive id",
    ("drive", "manifest_uri"): "drive id",
    ("drive", "bit_locker_key"): None,
    ("extra_drive", "drive_id"): "drive id",
    ("return_shipping", "carrier_account_number"): "carrier account number",
    ("package", "tracking_number"): "shipping tracking number",
    ("saved_address", "recipient_name"): "contact name",
    ("saved_address", "phone"): "phone number",
    ("saved_address", "email"): "e-mail",
    ("saved_address", "street_address_1"): "street address",
    ("saved_address", "street_address_2"): "street address",
    ("saved_address", "city"): "city",
    ("saved_address", "postal_code"): "zip/postal code",
    ("saved_address", "state_or_province"): "state",
    ("saved_address", "country_or_region"): "country/province/region",
    ("saved_address", "carrier_account_number"): "carrier account number",
}


def unsaid(metadata: MetaData) -> list[str]:
    """Find columns that do not say whose data they hold."""
    return [str(column) for table in metadata.sorted_tables for column in table.columns if not says_whose(column)]


def test_every_column_says_whose_data_it_holds() -> None:
    """Of every table there is."""
    assert len(SQLModel.metadata.tables) >= 10
    assert unsaid(SQLModel.metadata) == []


def test_a_column_that_does_not_say_is_found() -> None:
    """The test above would bite."""
    made = MetaData()
    Table(
        "made_up",
        made,
        Column("id", Integer, primary_key=True, **impersonal()),
        Column("name", String, **personal(Kind.CONTACT_NAME)),
        Column("key", String, **secret()),
        Column("nickname", String),
        Column("other", String, info={"else": 1}),
    )
    assert unsaid(made) == ["made_up.nickname", "made_up.other"]
    assert list(places(made)) == [Place("made_up", "name", Kind.CONTACT_NAME), Place("made_up", "key", None)]


def test_the_eleven_kinds_are_each_in_a_column() -> None:
    """And there is no twelfth."""
    assert [*Kind] == ELEVEN
    assert {place.kind for place in places(SQLModel.metadata)} - {None} == set(ELEVEN)


@pytest.mark.parametrize(("where", "kind"), KNOWN.items())
def test_what_is_known_of_a_person_is_said_where_it_is(where: tuple[str, str], kind: str | None) -> None:
    """Each under its right kind; the BitLocker key is a secret."""
    assert Place(*where, kind and Kind(kind)) in list(places(SQLModel.metadata))  # type: ignore[arg-type]


def test_no_column_that_a_run_may_speak_of_is_personal() -> None:
    """Ids, events and reports of runs hold nobody's data."""
    tables = {place.table for place in places(SQLModel.metadata)}
    assert not tables & {"job", "job_event", "job_run", "drive_copy", "portal_settings", "dashboard"}
