"""The eleven kinds of personal data, and in which columns each of them is.

Every column of every table says whose data it holds: `personal(kind)`, `secret()` or `impersonal()`.
Source: the seed document, "Deleting personal information".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Column, MetaData, Table

_KEY: Final = "holds"
_SECRET: Final = "secret"  # noqa: S105  a label, not a secret
_NONE: Final = "none"

_TIES: Final = {"job_id": "in the job", "settings_id": "in the portal settings, by opt-in"}
"""The column by which a table hangs on one of the two places, and goes with it."""


class Kind(StrEnum):
    """What the service knows of a person."""

    CONTACT_NAME = "contact name"
    PHONE_NUMBER = "phone number"
    EMAIL = "e-mail"
    STREET_ADDRESS = "street address"
    CITY = "city"
    POSTAL_CODE = "zip/postal code"
    STATE = "state"
    COUNTRY = "country/province/region"
    DRIVE_ID = "drive id"
    CARRIER_ACCOUNT_NUMBER = "carrier account number"
    TRACKING_NUMBER = "shipping tracking number"


@dataclass(frozen=True, slots=True)
class Place:
    """A column, and what it holds: a kind of personal data, or a secret (`kind` is None)."""

    table: str
    column: str
    kind: Kind | None


def personal(kind: Kind) -> dict[str, Any]:
    """Mark a column as personal data of `kind`; for `sa_column_kwargs`."""
    return {"info": {_KEY: kind}}


def secret() -> dict[str, Any]:
    """Mark a column as a secret, given out by one call alone; for `sa_column_kwargs`."""
    return {"info": {_KEY: _SECRET}}


def impersonal() -> dict[str, Any]:
    """Mark a column as nobody's personal data; for `sa_column_kwargs`."""
    return {"info": {_KEY: _NONE}}


def says_whose(column: Column[Any]) -> bool:
    """Tell whether a column says what it holds."""
    return _KEY in column.info


def whose_place(table: Table) -> str:
    """Tell which of the two places a table of personal data belongs to: the job, or the portal settings.

    Raises:
        ValueError: neither: there would be a third place.
    """
    for column, place in _TIES.items():
        if column in table.columns:
            return place
    raise ValueError(f"{table.name} belongs neither to a job nor to portal settings")


def places_table(metadata: MetaData) -> str:
    """Draw where personal data is, as a Markdown table, one line a kind, from the columns."""
    lines = [f"| data | {' | '.join(_TIES.values())} |", f"| --- |{' --- |' * len(_TIES)}"]
    found = list(places(metadata))
    for kind in (*Kind, None):
        told = [
            ", ".join(
                f"`{place.table}.{place.column}`"
                for place in found
                if place.kind is kind and whose_place(metadata.tables[place.table]) == tied
            )
            for tied in _TIES.values()
        ]
        lines.append(f"| {kind or 'BitLocker key (a secret)'} | {' | '.join(text or '-' for text in told)} |")
    return "\n".join(lines)


def places(metadata: MetaData) -> Iterator[Place]:
    """Find every column that holds personal data or a secret, in the order of the tables."""
    for table in metadata.sorted_tables:
        for column in table.columns:
            held = column.info.get(_KEY, _NONE)
            if held != _NONE:
                yield Place(table.name, column.name, held if isinstance(held, Kind) else None)
