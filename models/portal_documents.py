"""The one document with everything that is kept in a user's portal settings: written out, and taken in again."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from pydantic import AfterValidator, Field
from sqlmodel import Session, col, select

from models.dashboards import DASHBOARDS_MAX, DashboardShape, columns_of, shape_of
from models.errors import RequestError
from models.portal import (
    Dashboard,
    SavedShape,
    read_settings,
    save_address,
    saved_address_of,
    settings_to_write,
)
from models.requests import OpaqueId, Shape


def _named_once(dashboards: list[DashboardShape]) -> list[DashboardShape]:
    ids = [dashboard.id for dashboard in dashboards if dashboard.id is not None]
    if len(set(ids)) != len(ids):
        raise ValueError("two entries have the same id; leave one of them out")
    return dashboards


_Dashboards = Annotated[list[DashboardShape], Field(max_length=DASHBOARDS_MAX), AfterValidator(_named_once)]


class PortalSettingsDocument(Shape):
    """Everything that is kept for one user in portal settings.

    What an export writes down and an import reads over: `settingsId`, `exportedAt`, `createdAt`, `updatedAt`.
    """

    user_id: OpaqueId
    settings_id: OpaqueId | None = None
    exported_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    saved_carrier_and_return_address: SavedShape | None = None
    dashboards: _Dashboards = Field(default_factory=list)

    def to_json(self) -> str:
        """Write it as a file holds it; what is not there is left out."""
        return self.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n"


@dataclass(frozen=True, slots=True)
class Exported:
    """A document, and of which settings and which moment it is."""

    settings_id: UUID
    at: datetime
    document: PortalSettingsDocument


def export_settings(session: Session, user_id: UUID, *, at: datetime, lock: bool = False) -> Exported:
    """Write down everything that is kept for a user.

    Args:
        session: an open session; with `lock`, one that writes.
        user_id: the user.
        at: now, aware UTC.
        lock: keep the settings from being deleted until the transaction ends.

    Raises:
        PortalSettingsNotFoundError: nothing is kept.
    """
    settings = read_settings(session, user_id, lock=lock)
    document = PortalSettingsDocument(
        user_id=user_id,
        settings_id=settings.id,
        exported_at=at,
        created_at=settings.created_at,
        updated_at=settings.updated_at,
        saved_carrier_and_return_address=saved_address_of(session, user_id),
        dashboards=[shape_of(dashboard) for dashboard in _dashboards_of(session, user_id)],
    )
    return Exported(settings.id, at, document)


def _dashboards_of(session: Session, user_id: UUID) -> Sequence[Dashboard]:
    chosen = select(Dashboard).where(col(Dashboard.user_id) == user_id)
    return session.exec(chosen.order_by(col(Dashboard.created_at), col(Dashboard.name), col(Dashboard.id))).all()


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import: whether an address was saved, and how many dashboards were made and changed."""

    address: bool
    created: int
    updated: int


def import_settings(session: Session, document: PortalSettingsDocument, *, at: datetime) -> Imported:
    """Take in what a user exported: the address in place of the saved one, dashboards by their ids.

    Nothing is deleted by it. A dashboard of the user's own is changed to what the document says; one whose id is
    nobody's yet is made under it; and where the id is somebody else's, or a dashboard's that has lost its maker,
    that one stays as it is and the user gets a new one like it. Safe to repeat: where the user has one like it, to
    the letter, none is made.

    Raises:
        RequestError: the user would have more than 100 dashboards.
    """
    settings_to_write(session, document.user_id, at=at)
    saved = document.saved_carrier_and_return_address
    if saved is not None:
        save_address(session, document.user_id, saved.return_address, saved.return_shipping, at=at)
    own = {dashboard.id: dashboard for dashboard in _dashboards_of(session, document.user_id)}
    named = {shape.id for shape in document.dashboards if shape.id is not None}
    foreign = set(session.exec(select(Dashboard.id).where(col(Dashboard.id).in_(named))).all()) - own.keys()
    created = updated = 0
    for shape in document.dashboards:
        values = columns_of(shape)
        id_free = shape.id if shape.id is not None and shape.id not in foreign else None
        found = own.get(id_free) if id_free else _first_like(own.values(), values, named)
        if found is None:
            made = Dashboard(
                id=id_free or uuid4(), user_id=document.user_id, created_at=at, updated_at=at, **values
            )
            session.add(made)
            own[made.id] = made
            created += 1
        elif not _is_like(found, values):
            found.sqlmodel_update({**values, "updated_at": at})
            updated += 1
    if len(own) > DASHBOARDS_MAX:
        fault = f"a user has at most {DASHBOARDS_MAX}, and this would make {len(own)}; leave some out"
        raise RequestError([("dashboards", fault)])
    session.flush()
    return Imported(saved is not None, created, updated)


def _first_like(
    dashboards: Iterable[Dashboard], values: Mapping[str, Any], named: Collection[UUID]
) -> Dashboard | None:
    """Find a dashboard that is so already, but for those that the document names, which it may change."""
    return next((each for each in dashboards if each.id not in named and _is_like(each, values)), None)


def _is_like(dashboard: Dashboard, values: Mapping[str, Any]) -> bool:
    return all(getattr(dashboard, name) == value for name, value in values.items())
