"""Columns and their types as we need them and no library has them."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Dialect, Enum, Integer
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field

from models.personal_data import impersonal


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


def of_job() -> UUID:
    """Make the column that ties a row to its job: key, and gone with the job."""
    made: UUID = Field(primary_key=True, foreign_key="job.id", ondelete="CASCADE", sa_column_kwargs=impersonal())
    return made
