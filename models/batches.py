"""Many ids, or many rows, in one statement: as fast as each database takes them.

PostgreSQL's driver needs longer for a parameter per value than the database for the work.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    SQLColumnExpression,
    String,
    Table,
    Uuid,
    any_,
    cast,
    delete,
    func,
    insert,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import SQLModel


def among(connection: Connection, column: SQLColumnExpression[UUID], ids: Collection[UUID]) -> ColumnElement[bool]:
    """Tell of a column, as a condition, whether it holds one of some ids."""
    if connection.dialect.name == "sqlite":
        return column.in_(ids)
    return column == any_(cast(literal(f"{{{','.join(each.hex for each in ids)}}}", String), ARRAY(Uuid)))


def delete_and_count(
    connection: Connection, table: Table, column: ColumnElement[UUID], ids: Collection[UUID]
) -> Mapping[UUID, int]:
    """Delete the rows whose column holds one of some ids: id -> rows deleted, 1 or more."""
    gone = delete(table).where(among(connection, column, ids)).returning(column)
    if connection.dialect.name == "sqlite":
        return Counter(connection.execute(gone).scalars().all())
    told = gone.cte().columns[0]
    return dict(connection.execute(select(told, func.count()).group_by(told)).tuples().all())


def insert_rows(connection: Connection, model: type[SQLModel], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that all give a value to the same columns; none is no work."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(insert(model), rows)
        return
    table = SQLModel.metadata.tables[str(model.__tablename__)]
    types = [table.columns[name].type.dialect_impl(connection.dialect) for name in rows[0]]
    stored = [each.bind_processor(connection.dialect) or _as_it_is for each in types]
    names = ", ".join(f'"{name}"' for name in rows[0])
    into = f"COPY {table.name} ({names}) FROM STDIN"
    cursor: Any = connection.connection.cursor()
    with cursor, cursor.copy(into) as copy:
        for row in rows:
            copy.write_row([store(value) for store, value in zip(stored, row.values(), strict=True)])


def _as_it_is(value: Any) -> Any:
    return value
