"""Column types keep what they promise on both databases."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table, text, type_coerce, union_all
from sqlalchemy import select as select_columns
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import aliased
from sqlmodel import SQLModel, col, select, update

import models.portal  # noqa: F401  importing a module of tables makes its tables known
from models.columns import Sealed
from models.database import engine, reading, writing
from models.drives import Drive
from models.errors import SealedValueError
from models.jobs import Job, read_job
from models.key_files import ring
from models.lifecycle import JobState, JobType
from models.personal_data import places
from models.shipping import ReturnAddress
from tests.builders import NOON, drive_of, job_in, set_columns

MOMENTS: Final = [
    NOON,
    NOON + timedelta(microseconds=1),
    NOON - timedelta(microseconds=1),
    datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=-11, minutes=-30))),
    datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=14))),
    datetime(9999, 12, 30, tzinfo=UTC),
]


@pytest.fixture
def job_id(any_database: str) -> UUID:
    """A job to write moments and words into."""
    with writing() as session:
        return job_in(session, JobState.CREATING)


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_a_moment_comes_back_the_same_and_in_utc(job_id: UUID, moment: datetime) -> None:
    """To the microsecond, from whatever zone it was told in."""
    with writing() as session:
        set_columns(session, job_id, state_since=moment)
    with reading() as session:
        found = read_job(session, job_id).state_since
        assert found == moment
        assert found.utcoffset() == timedelta(0)
        for border, is_found in ((timedelta(0), True), (timedelta(microseconds=-1), False)):
            due = select(Job.id).where(col(Job.state_since) <= moment + border)
            assert (session.exec(due).first() is not None) is is_found


def test_a_moment_without_a_zone_is_refused(job_id: UUID) -> None:
    """Nobody knows when it was; what is there stays."""
    with pytest.raises(StatementError, match="a moment needs a time zone"), writing() as session:
        set_columns(session, job_id, state_since=NOON.replace(tzinfo=None))
    with reading() as session:
        assert read_job(session, job_id).state_since == NOON


def test_no_moment_stays_none(job_id: UUID) -> None:
    """Both ways."""
    with writing() as session:
        set_columns(session, job_id, expires_at=None)
    with reading() as session:
        assert read_job(session, job_id).expires_at is None


def test_an_enum_is_kept_by_its_word(job_id: UUID) -> None:
    """As the API says it, not as Python names it, and given back as what it is."""
    with reading() as session:
        row = session.connection().execute(text("SELECT state, job_type FROM job")).one()
        assert tuple(row) == ("Creating", "Import")
        job = read_job(session, job_id)
        assert job.state is JobState.CREATING
        assert job.job_type is JobType.IMPORT


def test_a_word_that_is_none_is_refused_by_us_and_by_the_database(job_id: UUID) -> None:
    """Even past our own code."""

    class Other(StrEnum):
        CREATING = "CREATING"

    for wrong in ("CREATING", "Shipped", Other.CREATING):
        with pytest.raises(StatementError), writing() as session:
            session.connection().execute(update(Job).where(col(Job.id) == job_id).values(state=wrong))
    with pytest.raises(IntegrityError), writing() as session:
        session.connection().execute(text("UPDATE job SET state = 'CREATING'"))
    with reading() as session:
        assert read_job(session, job_id).state is JobState.CREATING


def test_a_sealed_text_is_on_disk_as_bytes_and_comes_back_as_text(job_id: UUID) -> None:
    """Empty ones are sealed as well; where there is none there is NULL, both ways."""
    with writing() as session:
        session.get_one(ReturnAddress, job_id).city = ""
    with engine().connect() as connection:
        drive = connection.execute(text("SELECT drive_id, bit_locker_key, error_log_uri FROM drive")).one()
        city = connection.scalar(text("SELECT city FROM return_address"))
    assert ring().open("drive.drive_id", bytes(drive[0])) == "SERIAL1"
    assert tuple(drive[1:]) == (None, None)
    assert ring().open("return_address.city", bytes(city)) == ""
    assert (drive_of(job_id).drive_id, drive_of(job_id).bit_locker_key) == ("SERIAL1", None)
    with writing() as session:
        session.get_one(Drive, (job_id, 1)).bit_locker_key = ""
    assert drive_of(job_id).bit_locker_key == ""
    with writing() as session:
        session.get_one(Drive, (job_id, 1)).bit_locker_key = None
    assert drive_of(job_id).bit_locker_key is None
    with engine().connect() as connection:
        assert connection.scalar(text("SELECT bit_locker_key FROM drive")) is None


@pytest.mark.parametrize(
    "compare",
    [
        lambda column: column == "SERIAL1",
        lambda column: "SERIAL1" == column,  # noqa: SIM300  it is the other way round that is asked about
        lambda column: column == None,  # noqa: E711  as some write it
        lambda column: column != "SERIAL1",
        lambda column: column < "SERIAL1",
        lambda column: column >= "SERIAL1",
        lambda column: column == column,  # noqa: PLR0124  two columns
        lambda column: column.in_(["SERIAL1"]),
        lambda column: column.in_([]),
        lambda column: column.not_in(["SERIAL1"]),
        lambda column: column.like("SERIAL%"),
        lambda column: column.ilike("serial%"),
        lambda column: column.not_like("SERIAL%"),
        lambda column: column.contains("SERIAL"),
        lambda column: column.startswith("SERIAL"),
        lambda column: column.endswith("1"),
        lambda column: column.between("A", "Z"),
        lambda column: column.is_distinct_from("SERIAL1"),
        lambda column: column.regexp_match("SERIAL"),
        lambda column: column.match("SERIAL"),
        lambda column: column + "SERIAL",
        lambda column: column.concat("SERIAL"),
        lambda column: column.collate("C"),
        lambda column: column.desc(),
    ],
)
@pytest.mark.parametrize("column", [col(Drive.drive_id), SQLModel.metadata.tables["drive"].columns["drive_id"]])
def test_a_sealed_column_cannot_be_compared(column: Any, compare: Callable[[Any], object]) -> None:
    """It would find nothing, silently; no statement comes to be."""
    with pytest.raises(TypeError, match="a sealed column cannot be compared in the database; open its rows"):
        compare(column)


def test_whether_there_is_a_sealed_text_can_be_asked(job_id: UUID) -> None:
    """And rows can be put in an order by it, which means nothing and does no harm."""
    key = col(Drive.bit_locker_key)
    for wanted, found in ((key.is_(None), 1), (key.is_not(None), 0)):
        with reading() as session:
            assert len(session.exec(select(Drive).where(wanted)).all()) == found
    with writing() as session:
        session.get_one(Drive, (job_id, 1)).bit_locker_key = ""
    for wanted, found in ((key.is_(None), 0), (key.is_not(None), 1)):
        with reading() as session:
            assert len(session.exec(select(Drive).where(wanted)).all()) == found
    with reading() as session:
        assert session.exec(select(Drive.drive_id).order_by(col(Drive.drive_id))).all() == ["SERIAL1"]


def test_every_sealed_column_knows_its_own_place() -> None:
    """Also those that several tables have from one class; and whatever is personal or a secret is sealed."""
    tables = SQLModel.metadata.tables
    sealed = {
        f"{table.name}.{column.name}": column.type.place
        for table in tables.values()
        for column in table.columns
        if isinstance(column.type, Sealed)
    }
    assert sealed == {place: place for place in sealed}
    assert set(sealed) == {f"{place.table}.{place.column}" for place in places(SQLModel.metadata)}
    assert {"return_address.city", "saved_address.city", "drive.bit_locker_key"} <= set(sealed)


def test_a_copied_table_has_places_of_its_own() -> None:
    """And does not take them from the one it was copied from."""
    original = SQLModel.metadata.tables["package"]
    copied = original.to_metadata(MetaData(), name="parcel")
    assert copied.columns["tracking_number"].type.place == "parcel.tracking_number"  # type: ignore[attr-defined]
    assert original.columns["tracking_number"].type.place == "package.tracking_number"  # type: ignore[attr-defined]


def test_a_sealed_text_is_read_by_any_statement(job_id: UUID) -> None:
    """By another name of its table, from within another statement, together with others of its column."""
    drive = SQLModel.metadata.tables["drive"].columns
    other = aliased(Drive)
    inner = select_columns(drive.drive_id.label("serial")).subquery()
    both = union_all(select_columns(drive.drive_id), select_columns(drive.drive_id))
    with reading() as session:
        found = session.connection()
        assert session.exec(select(other.drive_id)).all() == ["SERIAL1"]
        assert found.scalars(select_columns(inner.c.serial)).all() == ["SERIAL1"]
        assert found.scalars(both).all() == ["SERIAL1", "SERIAL1"]


@pytest.fixture
def two_tables(any_database: str) -> list[Table]:
    """Two tables that differ in their names alone."""
    metadata = MetaData()
    made = [
        Table(name, metadata, Column("id", Integer, primary_key=True), Column("word", Sealed))
        for name in ("first", "second")
    ]
    metadata.create_all(engine())
    return made


def test_two_tables_do_not_share_what_was_made_ready_for_one(two_tables: list[Table]) -> None:
    """Statements are made ready once and kept: each column seals and opens for its own place all the same."""
    with engine().begin() as connection:
        for _ in range(3):
            for table in two_tables:
                connection.execute(table.insert(), {"word": table.name})
                connection.execute(table.insert(), [{"word": table.name}, {"word": table.name}])
        for _ in range(3):
            for table in two_tables:
                raw = connection.scalars(select_columns(type_coerce(table.c.word, LargeBinary))).all()
                assert {ring().open(f"{table.name}.word", value) for value in raw} == {table.name}
                assert connection.scalars(select_columns(table.c.word)).all() == [table.name] * 9


def test_a_statement_is_kept_apart_for_each_place(any_database: str) -> None:
    """Where the place is all that differs."""
    kept = Table("kept", MetaData(), Column("raw", LargeBinary))
    kept.create(engine())
    with engine().begin() as connection:
        connection.execute(kept.insert(), {"raw": ring().seal("first.word", "word")})
        for _ in range(2):
            assert connection.scalar(select_columns(type_coerce(kept.c.raw, Sealed("first.word")))) == "word"
            with pytest.raises(SealedValueError, match=r"a value in second\.word does not open"):
                connection.scalar(select_columns(type_coerce(kept.c.raw, Sealed("second.word"))))
