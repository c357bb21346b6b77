"""Portal settings: what one user saved for the next job, by their own wish, and their dashboards.

The second of the two places where personal data may be. Whatever writes a user's settings or dashboards has locked
their row of `portal_settings`. Source: the seed document; the specification, section 6.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import JSON, ColumnElement, delete, func, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, Session, SQLModel, col, select

from models.columns import UtcDateTime, personal_text
from models.errors import DatabaseError, PortalSettingsNotFoundError
from models.personal_data import Kind, impersonal
from models.receipts import Deletion, Reason, Subject, begin_receipts
from models.requests import ReturnAddressShape, ReturnShippingShape, Shape
from models.shipping import AddressColumns

EXPORT_KEPT: Final = timedelta(days=1)
"""How long an exported file is kept."""

_TRIES_MAX: Final = 10


class PortalSettings(SQLModel, table=True):
    """The settings of one user. The user goes by an id that their directory gave; ours is random and opaque."""

    __tablename__ = "portal_settings"

    id: UUID = Field(default_factory=uuid4, primary_key=True, sa_column_kwargs=impersonal())
    user_id: UUID = Field(unique=True, sa_column_kwargs=impersonal())
    created_at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    updated_at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())


class SavedAddress(AddressColumns, table=True):
    """The carrier and return address that a user saved as default, and that are offered for the next job."""

    __tablename__ = "saved_address"

    settings_id: UUID = Field(
        primary_key=True, foreign_key="portal_settings.id", ondelete="CASCADE", sa_column_kwargs=impersonal()
    )
    carrier_name: str = Field(sa_column_kwargs=impersonal())
    carrier_account_number: str = personal_text(Kind.CARRIER_ACCOUNT_NUMBER)


class Dashboard(SQLModel, table=True):
    """A named filter over jobs, private or shared. A shared one outlives its maker's settings, without a maker."""

    id: UUID = Field(default_factory=uuid4, primary_key=True, sa_column_kwargs=impersonal())
    user_id: UUID | None = Field(default=None, index=True, sa_column_kwargs=impersonal())
    name: str = Field(sa_column_kwargs=impersonal())
    is_shared: bool = Field(default=False, sa_column_kwargs=impersonal())
    filter: dict[str, Any] = Field(default_factory=dict, sa_type=JSON, sa_column_kwargs=impersonal())
    created_at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    updated_at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())


def read_settings(session: Session, user_id: UUID, *, lock: bool = False) -> PortalSettings:
    """Read a user's settings; `lock` keeps others from changing them until the transaction ends.

    Raises:
        PortalSettingsNotFoundError: there are none.
    """
    found = _find(session, user_id, lock=lock)
    if found is None:
        raise PortalSettingsNotFoundError
    return found


def settings_to_write(session: Session, user_id: UUID, *, at: datetime) -> PortalSettings:
    """Lock a user's settings, made where there are none, and note that they are changed."""
    for _ in range(_TRIES_MAX):
        settings = _find(session, user_id, lock=True)
        if settings is not None:
            settings.updated_at = at
            return settings
        settings = PortalSettings(user_id=user_id, created_at=at, updated_at=at)
        try:
            with session.begin_nested():
                session.add(settings)
        except IntegrityError:  # somebody made this user's settings at the same moment
            continue
        return settings
    raise DatabaseError("portal settings were made and deleted again and again meanwhile; repeat the request")


def lock_settings(session: Session, user_id: UUID) -> None:
    """Keep others from changing a user's settings and dashboards until the transaction ends."""
    _find(session, user_id, lock=True)


def _find(session: Session, user_id: UUID, *, lock: bool) -> PortalSettings | None:
    chosen = select(PortalSettings).where(col(PortalSettings.user_id) == user_id)
    chosen = chosen.execution_options(populate_existing=True)
    return session.exec(chosen.with_for_update() if lock else chosen).one_or_none()


class SavedShape(Shape):
    """`savedCarrierAndReturnAddress`: what a user saved as default."""

    return_address: ReturnAddressShape
    return_shipping: ReturnShippingShape


_ShapeT = TypeVar("_ShapeT", bound=Shape)


def save_address(
    session: Session, user_id: UUID, address: ReturnAddressShape, shipping: ReturnShippingShape, *, at: datetime
) -> None:
    """Save carrier and return address as a user's default, in place of what was saved; safe to repeat.

    Only where the user ticked so, or brings back what they exported: nothing else may be kept here.
    """
    settings = settings_to_write(session, user_id, at=at)
    session.merge(SavedAddress(settings_id=settings.id, **address.model_dump(), **shipping.model_dump()))
    session.flush()


def saved_address_of(session: Session, user_id: UUID) -> SavedShape | None:
    """Read the carrier and return address that a user saved; None if nothing is."""
    chosen = (
        select(SavedAddress)
        .join(PortalSettings, col(PortalSettings.id) == col(SavedAddress.settings_id))
        .where(col(PortalSettings.user_id) == user_id)
    )
    row = session.exec(chosen).one_or_none()
    if row is None:
        return None
    return SavedShape(
        return_address=_shape(ReturnAddressShape, row), return_shipping=_shape(ReturnShippingShape, row)
    )


def _shape(shape: type[_ShapeT], row: SQLModel) -> _ShapeT:
    return shape.model_validate({name: getattr(row, name) for name in shape.model_fields})


class SettingsPart(StrEnum):
    """What of a user's portal settings is deleted: shared dashboards stay in either case."""

    EVERYTHING = "everything"
    SAVED_ADDRESS = "saved address"


@dataclass(frozen=True, slots=True)
class SettingsRows:
    """What a deletion takes of a user's settings: their opaque id, and rows by table, 1 or more of each."""

    settings_id: UUID
    counts: Mapping[str, int]


def settings_rows(session: Session, user_id: UUID, what: SettingsPart) -> SettingsRows:
    """Count the rows that a deletion would take, and lock the settings until the transaction ends.

    Raises:
        PortalSettingsNotFoundError: there are none.
    """
    settings = read_settings(session, user_id, lock=True)
    tables = _doomed(settings, what)
    counts = {
        str(table.__tablename__): session.scalar(select(func.count()).select_from(table).where(rows)) or 0
        for table, rows in tables.items()
    }
    return SettingsRows(settings.id, {table: count for table, count in counts.items() if count})


def delete_settings(
    session: Session, user_id: UUID, what: SettingsPart, *, at: datetime, reason: Reason = Reason.BY_HAND
) -> SettingsRows:
    """Delete all settings and private dashboards of a user, or the saved address alone.

    Shared dashboards stay; when everything goes, they do not tell any more whose they were.

    A receipt is begun before.

    Returns:
        What was deleted; nothing, where the saved address was to go and none was saved.

    Raises:
        PortalSettingsNotFoundError: there are none, or somebody else deleted them first.

    Source: the seed document, "Delete all settings and private dashboards".
    """
    taken = settings_rows(session, user_id, what)
    settings = read_settings(session, user_id, lock=True)
    if taken.counts:
        receipt = Deletion(settings.id, Subject.PORTAL_SETTINGS, reason, at, taken.counts)
        begin_receipts(session, [receipt], at=at)
    connection = session.connection()
    for table, rows in _doomed(settings, what).items():
        connection.execute(delete(table).where(rows))
    if what is SettingsPart.EVERYTHING:
        shared = update(Dashboard).where(col(Dashboard.user_id) == user_id)
        connection.execute(shared.values(user_id=None))
    elif taken.counts:
        settings.updated_at = at
        session.flush()
    session.expire_all()
    return taken


def _doomed(settings: PortalSettings, what: SettingsPart) -> Mapping[type[SQLModel], ColumnElement[bool]]:
    """Tell which rows a deletion takes: tables in the order in which they go."""
    address: dict[type[SQLModel], ColumnElement[bool]] = {
        SavedAddress: col(SavedAddress.settings_id) == settings.id
    }
    if what is SettingsPart.SAVED_ADDRESS:
        return address
    private = (col(Dashboard.user_id) == settings.user_id) & col(Dashboard.is_shared).is_(False)
    return {**address, Dashboard: private, PortalSettings: col(PortalSettings.id) == settings.id}
