"""Many ids in one statement, as fast as each database takes them."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, SQLColumnExpression, String, Uuid, any_, cast, literal
from sqlalchemy.dialects.postgresql import ARRAY


def among(connection: Connection, column: SQLColumnExpression[UUID], ids: Collection[UUID]) -> ColumnElement[bool]:
    """Tell of a column, as a condition, whether it holds one of some ids.

    PostgreSQL's driver needs longer for a parameter per value than the database for the work.
    """
    if connection.dialect.name == "sqlite":
        return column.in_(ids)
    return column == any_(cast(literal(f"{{{','.join(each.hex for each in ids)}}}", String), ARRAY(Uuid)))
