"""Columns and their types as we need them and no library has them."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Enum,
    Integer,
    LargeBinary,
    String,
    Table,
    event,
)
from sqlalchemy.sql.operators import OperatorType, is_, is_not
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field

from models.key_files import open_sealed, ring
from models.personal_data import Kind, impersonal, personal, secret


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, aware and UTC on both sides.

    SQLite keeps no time zone, so the moment is stored there as UTC without one and comes back aware.

    Raises:
        ValueError: a moment without a time zone is handed in.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware moment into what the database keeps."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn what the database kept into an aware moment."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class Sealed(TypeDecorator[str]):
    """A text that is in the database only sealed, and in this process only as long as somebody reads it.

    The same text is sealed differently each time, so that nothing can be looked for by it: comparing is refused,
    but for being there at all.

    Args:
        place: `table.column`; a column says it by itself when it becomes part of a table.
    """

    impl = LargeBinary
    cache_ok = True

    def __init__(self, place: str = "") -> None:
        super().__init__()
        self.place = place

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:  # noqa: ARG002
        """Seal a text on its way in."""
        return None if value is None else ring().seal(self.place, value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Open a text on its way out."""
        return None if value is None else open_sealed(self.place, value)

    class Comparator(TypeDecorator.Comparator[str]):
        """Tells whether there is a text; nothing else can be asked of a sealed one."""

        def operate(self, op: OperatorType, *other: Any, **kwargs: Any) -> ColumnElement[Any]:
            """Refuse every comparison but with NULL."""
            if op not in {is_, is_not}:
                raise TypeError(
                    "a sealed column cannot be compared in the database; open its rows and compare those"
                )
            return super().operate(op, *other, **kwargs)

    comparator_factory = Comparator


@event.listens_for(Column, "after_parent_attach")
def _say_where(column: Column[Any], table: object) -> None:
    if isinstance(column.type, Sealed) and isinstance(table, Table):
        column.type.place = f"{table.name}.{column.name}"


def personal_text(kind: Kind, **options: Any) -> Any:
    """Make a column of personal data: sealed, and saying of which kind it is.

    Args:
        kind: one of the eleven.
        options: of the field, such as a default.
    """
    return Field(sa_type=Sealed, sa_column_kwargs=personal(kind), **options)


def secret_text(**options: Any) -> Any:
    """Make a column of secrets: sealed, and given out by one call alone."""
    return Field(sa_type=Sealed, sa_column_kwargs=secret(), **options)


def words(of: type[StrEnum], name: str = "") -> Any:
    """Make a column type for an enum that stores its words, not its Python names, and admits no other.

    Args:
        of: the enum.
        name: of the constraint; needed where a table has two columns of one enum.
    """
    return Enum(
        of,
        values_callable=lambda enum: [member.value for member in enum],
        native_enum=False,
        create_constraint=True,
        validate_strings=True,
        length=max(len(member.value) for member in of) + 16,
        name=name or of.__name__.lower(),
    )


def growing() -> Any:
    """Make the type of a key that the database counts up by itself."""
    return BigInteger().with_variant(Integer(), "sqlite")


def plain_order() -> Any:
    """Make the type of a text that sorts by its characters' codes on every database, whatever its language."""
    return String().with_variant(String(collation="C"), "postgresql")


def of_job() -> UUID:
    """Make the column that ties a row to its job: key, and gone with the job."""
    made: UUID = Field(primary_key=True, foreign_key="job.id", ondelete="CASCADE", sa_column_kwargs=impersonal())
    return made
