"""Many ids in one statement, as fast as each database takes them."""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, SQLColumnExpression, String, Uuid, any_, cast, literal
from sqlalchemy.dialects.postgresql import ARRAY


def among(connection: Connection, column: SQLColumnExpression[UUID], ids: Collection[UUID]) -> ColumnElement[bool]:
    """Tell of a column, as a condition, whether it holds one of some ids."""
    if connection.dialect.name == "sqlite":
        return column.in_(ids)
    return column == any_(array_of_ids(literal(as_array(ids), String)))


def as_array(ids: Collection[UUID]) -> str:
    """Write ids as one value for PostgreSQL.

    Its driver needs longer for a parameter per value than the database for the work.
    """
    return f"{{{','.join(each.hex for each in ids)}}}"


def array_of_ids(told: ColumnElement[str]) -> ColumnElement[Sequence[UUID]]:
    """Read what `as_array` wrote, in a statement."""
    return cast(told, ARRAY(Uuid))
