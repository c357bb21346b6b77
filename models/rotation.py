"""Rotation of the sealing keys: a new key, everything living sealed anew, the old key destroyed.

What was deleted before can then be read by nobody, in no backup and no log of the database: it was sealed with a
key that is gone. Cut anywhere, a rotation is continued by the next one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    LargeBinary,
    Table,
    and_,
    bindparam,
    func,
    or_,
    select,
    tuple_,
    type_coerce,
    update,
)
from sqlmodel import Session, SQLModel, col, delete
from sqlmodel import select as select_rows

import models.drives
import models.jobs
import models.portal
import models.shipping  # noqa: F401  importing a module of tables makes its tables known
from models.columns import Sealed
from models.key_files import add_key, destroy_keys, open_sealed, read_keys, read_ring, ring
from models.sealing import header
from models.sealing_keys import SealingKey, exclude_writers, require_keys
from models.settings import Settings

_HEADER_BYTES: Final = len(header(1))

Key = tuple[Any, ...]
"""A row's primary key."""


@dataclass(frozen=True, slots=True)
class Turned:
    """Where a rotation stands: the newest key, and the older ones that values may still be sealed with."""

    newest: int
    older: tuple[int, ...]


def turn_key(session: Session, at: datetime) -> Turned:
    """Let a new key seal from now on, unless a rotation is under way: then that one goes on.

    Where the keys are given by a setting, its highest number is the new key; if there is none, nothing turns.

    Args:
        session: a session that writes; every other one that writes is waited for.
        at: now, aware UTC.

    Raises:
        SealingKeyError: the key file cannot be read or written, or holds other keys than the database's.
    """
    exclude_writers(session)
    # This process may know the keys from before somebody moved the file or changed it.
    require_keys(session.connection())
    known = session.exec(select_rows(SealingKey.number).order_by(col(SealingKey.number))).all()
    settings = Settings()
    if len(known) == 1:
        if not settings.sealing_keys.get_secret_value():
            add_key(settings, known[0] + 1)
        held = max(read_keys(settings) or {})
        if held > known[0]:
            _make_known(session, held, at)
            known = [*known, held]
    return Turned(newest=known[-1], older=tuple(known[:-1]))


def rotation_under_way(session: Session) -> tuple[Turned, datetime]:
    """Tell where the rotation stands, and since when the newest key is in use."""
    keys = session.exec(select_rows(SealingKey).order_by(col(SealingKey.number))).all()
    return Turned(keys[-1].number, tuple(key.number for key in keys[:-1])), keys[-1].in_use_since


def _make_known(session: Session, number: int, at: datetime) -> None:
    fresh = read_ring()
    fresh.turn_to(number)
    owner = session.exec(select_rows(SealingKey.database_id).limit(1)).one()
    session.add(SealingKey(number=number, proof=fresh.prove(), database_id=owner, in_use_since=at))
    session.flush()


def sealed_tables() -> Sequence[str]:
    """Name the tables that hold sealed values, in an order that never changes."""
    return [table.name for table in SQLModel.metadata.sorted_tables if _sealed(table)]


def _sealed(table: Table) -> list[Any]:
    return [column for column in table.columns if isinstance(column.type, Sealed)]


@dataclass(frozen=True, slots=True)
class Resealed:
    """What came of a batch: how many rows were sealed anew, and the last one's key; None where none was left."""

    rows: int
    last: Key | None


def reseal_rows(session: Session, table_name: str, after: Key | None, rows_max: int) -> Resealed:
    """Seal rows anew that an older key sealed, in the order of their keys.

    Rows that somebody holds are passed over (PostgreSQL), so that nobody waits and nothing waits for us; look
    again from the beginning until `rows_of_older_keys` finds none.

    Args:
        session: a session that writes.
        table_name: one of `sealed_tables`.
        after: the key of the last row of the batch before.
        rows_max: how many rows at most.
    """
    table = SQLModel.metadata.tables[table_name]
    key, sealed = list(table.primary_key), _sealed(table)
    raw = [type_coerce(column, LargeBinary).label(column.name) for column in sealed]
    chosen = select(*key, *raw).where(_is_older(table)).order_by(*key).limit(rows_max)
    if after is not None:
        chosen = chosen.where(tuple_(*key) > tuple_(*after, types=[column.type for column in key]))
    rows = session.connection().execute(chosen.with_for_update(skip_locked=True)).all()
    if not rows:
        return Resealed(0, None)
    anew = (
        update(table)
        .where(*[column == bindparam(f"key_{column.name}") for column in key])
        .values({column: bindparam(f"new_{column.name}", type_=LargeBinary) for column in sealed})
    )
    session.connection().execute(anew, [_anew(row, key, sealed) for row in rows])
    return Resealed(len(rows), tuple(rows[-1][: len(key)]))


def _anew(row: Any, key: Sequence[Any], sealed: Sequence[Any]) -> dict[str, Any]:
    values: dict[str, Any] = {f"key_{column.name}": row[place] for place, column in enumerate(key)}
    for column, value in zip(sealed, row[len(key) :], strict=True):
        place = column.type.place
        values[f"new_{column.name}"] = None if value is None else ring().seal(place, open_sealed(place, value))
    return values


def _is_older(table: Table) -> ColumnElement[bool]:
    """Tell of a row whether a key other than the newest sealed any of its values."""
    newest = header(ring().sealing_number)
    return or_(
        *(
            and_(
                type_coerce(column, LargeBinary).is_not(None),
                func.substr(type_coerce(column, LargeBinary), 1, _HEADER_BYTES)
                != type_coerce(newest, LargeBinary),
            )
            for column in _sealed(table)
        )
    )


def rows_of_older_keys(session: Session, table_name: str) -> int:
    """Count the rows of a table in which an older key sealed something."""
    table = SQLModel.metadata.tables[table_name]
    return session.connection().scalar(select(func.count()).select_from(table).where(_is_older(table))) or 0


def forget_older_keys(session: Session) -> bool:
    """Let the database know the newest key alone, if nothing uses an older one; `destroy_older_keys` comes after.

    Returns:
        Whether it is so; False when something came meanwhile that an older key sealed.
    """
    exclude_writers(session)
    if any(rows_of_older_keys(session, name) for name in sealed_tables()):
        return False
    session.connection().execute(delete(SealingKey).where(col(SealingKey.number) < ring().sealing_number))
    return True


def destroy_older_keys(oldest_known: int) -> bool:
    """Overwrite and remove from the key file what the database does not know any more; safe to repeat.

    Returns:
        Whether they are gone; False where a setting gives the keys, and somebody has to take them out of it.

    Raises:
        SealingKeyError: the key file cannot be written.
    """
    settings = Settings()
    if settings.sealing_keys.get_secret_value():
        return min(read_keys(settings) or {oldest_known}) >= oldest_known
    destroy_keys(settings, below=oldest_known)
    return True
