"""A database of the first version becomes one of this: everything reads as before, and nothing is in clear."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest
from alembic import command
from alembic.ddl.impl import DefaultImpl
from sqlalchemy import MetaData, Table, inspect, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel, col, delete, select

from models import tables
from models.clocks import Clock, look_at_clock
from models.columns import Sealed
from models.copies import BlobReport, DriveCopy
from models.copy_logs import BlobStatus
from models.database import engine, reading, writing
from models.drives import Drive, ExtraDrive, give_out_keys
from models.errors import ClockJumpedError, DatabaseError, SealedValueError, SealingKeyError
from models.events import EventKind, JobEvent
from models.job_lists import list_jobs
from models.jobs import Job
from models.key_files import read_keys, use_ring
from models.lifecycle import Actor
from models.sealing import KEY_BYTES, KeyRing, number_of
from models.settings import Settings
from models.shipping import Package, ReturnAddress, ReturnShipping
from models.spent_requests import remember_spent_requests, was_spent
from models.tables import require_current_tables, upgrade
from tests.builders import NOON, events_of

JOBS: Final = (UUID(int=0xA1), UUID(int=0xB2))
MARK: Final = "Quince"
"""Part of every personal text here that has more than a few letters, and of nothing else."""

MODELS: Final[tuple[Any, ...]] = (Drive, ExtraDrive, Package, ReturnAddress, ReturnShipping)

LONG: Final = "".join(f"{number:05}{MARK[number % 6]}" for number in range(2000))
"""What a page cannot hold."""


def old_rows(job_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """Give a job's rows in every table of the first version: table -> rows, each column by its name."""
    own = f"{job_id.int:x}"
    job = {"job_id": job_id}
    return {
        "job": [
            {
                "id": job_id,
                "subscription_id": "s1",
                "resource_group": "g1",
                "name": f"job-{own}",
                "resource_key": f"s1/g1/job-{own}",
                "job_type": "Import",
                "location": "West US",
                "shipping_location": "westus",
                "storage_account_id": "account1",
                "diagnostics_path": "waimportexport",
                "log_level": "Verbose",
                "backup_drive_manifest": True,
                "tags": {"grün": "🚚"},
                "kek_type": "MicrosoftManaged",
                "export_blob_paths": [],
                "export_blob_path_prefixes": ["a"],
                "state": "Packaging",
                "state_since": NOON,
                "created_at": NOON - timedelta(days=1),
                "updated_at": NOON + timedelta(microseconds=1),
                "expires_at": NOON + timedelta(days=90),
                "copy_token": 3,
            }
        ],
        "job_run": [{**job, "flow_run_id": UUID(int=job_id.int + 1), "is_job_deleted": False}],
        "drive": [
            {
                **job,
                "number": 1,
                "drive_id": f"{MARK}-1-{own}",
                "bit_locker_key": f"238810-{MARK}-{own}",
                "manifest_file": "\\m.xml",
                "manifest_hash": "A" * 32,
                "drive_header_hash": "",
                "state": "CompletedMoreInfo",
                "state_since": NOON,
                "copy_status": "CompletedWithErrors",
                "bytes_total": 2**40,
                "bytes_succeeded": 7,
                "error_log_uri": f"https://x/{MARK}-Zürich-🚚.xml",
                "verbose_log_uri": f"{MARK} {LONG}",
                "manifest_uri": "",
            },
            {
                **job,
                "number": 2,
                "drive_id": f"{MARK}'; DROP TABLE drive; --\\x00:p %s {own}",
                "bit_locker_key": None,
                "manifest_file": "",
                "manifest_hash": "",
                "drive_header_hash": "",
                "state": "Specified",
                "state_since": NOON,
                "copy_status": None,
                "bytes_total": None,
                "bytes_succeeded": 0,
                "error_log_uri": None,
                "verbose_log_uri": None,
                "manifest_uri": None,
            },
        ],
        "extra_drive": [
            {"id": UUID(int=job_id.int + number), **job, "drive_id": f"{MARK}-extra-{number}", "found_at": NOON}
            for number in (1, 2)
        ],
        "job_event": [
            {
                "id": UUID(int=job_id.int + number),
                **job,
                "at": NOON,
                "kind": kind,
                "by": "customer",
                "drive_number": None,
                "target": "Creating",
            }
            for number, kind in enumerate(("created", "updated", "package overdue"))
        ],
        "package": [
            {
                **job,
                "direction": direction,
                "carrier_name": "UPS",
                "tracking_number": f"{MARK}-{direction}",
                "drive_count": 2,
                "ship_date": "2026-05-30",
            }
            for direction in ("delivery", "return")
        ],
        "return_address": [
            {
                **job,
                "recipient_name": f"Zoë {MARK} 女士",
                "street_address_1": f"{MARK}straße 1\nHinterhaus",
                "street_address_2": "",
                "city": f"{MARK}\u0301 — Tønsberg",
                "state_or_province": "",
                "postal_code": f" {MARK} 12345 ",
                "country_or_region": f"{MARK} 🇨🇭",
                "phone": f"+49 {MARK}",
                "email": f"{MARK}@{own}.example",
            }
        ],
        "return_shipping": [{**job, "carrier_name": "UPS", "carrier_account_number": f"{MARK}-account"}],
        "blob_report": [
            {
                **job,
                "drive_number": 1,
                "blob_number": 1,
                "blob_path": "data/a",
                "file_path": "a",
                "length": 2**41,
                "disposition": "rename",
                "status": "Failed",
                "disposition_status": "Cancelled",
                "blocks": [[0, 1]],
            }
        ],
        "drive_copy": [
            {
                **job,
                "drive_number": 1,
                "started_at": NOON,
                "blobs_done": 1,
                "blocks_staged": 2,
                "bytes_committed": 3,
                "planned": {"a": 1},
                "staging_containers": ["c"],
            }
        ],
    }


def plain(value: Any) -> Any:
    """Bring what a driver gives to one form, so that both databases and both versions compare."""
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat()
    return bool(value) if isinstance(value, bool) else value


def rows_now() -> dict[str, list[dict[str, Any]]]:
    """Read every row of every table past the models: table -> rows, in the order of their keys."""
    found = MetaData()
    with engine().connect() as connection:
        found.reflect(connection)
        return {
            table.name: [
                {name: plain(value) for name, value in row._mapping.items()}
                for row in connection.execute(table.select().order_by(*table.primary_key))
            ]
            for table in found.sorted_tables
        }


def revision() -> str:
    """Tell at which revision the tables are."""
    with engine().connect() as connection:
        return str(connection.scalar(text("SELECT version_num FROM alembic_version")))


@pytest.fixture
def old_database(any_database: str, data_directory: Path) -> str:
    """A database of the first version with two jobs that have rows in every table; there is no key yet."""
    if any_database.startswith("sqlite"):
        engine().dispose()
        for path in data_directory.glob("drivepost.db*"):
            path.unlink()
    else:
        with engine().begin() as connection:
            connection.execute(text("DROP TABLE alembic_version"))
            SQLModel.metadata.drop_all(connection)
    Settings().key_file.unlink()
    use_ring(None)
    command.upgrade(tables._alembic(any_database), "0001")
    found = MetaData()
    with engine().begin() as connection:
        found.reflect(connection)
        for job_id in JOBS:
            for name, rows in old_rows(job_id).items():
                connection.execute(found.tables[name].insert(), [stored(row) for row in rows])
    assert set(found.tables) == {*old_rows(JOBS[0]), "alembic_version"}
    return any_database


def stored(row: dict[str, Any]) -> dict[str, Any]:
    """Bring a row to the form in which SQLite keeps ids and moments."""
    if engine().dialect.name != "sqlite":
        return row
    return {
        name: value.hex
        if isinstance(value, UUID)
        else value.replace(tzinfo=None)
        if isinstance(value, datetime)
        else value
        for name, value in row.items()
    }


def sealed_columns() -> Iterator[Any]:
    """Give every sealed column of a table that the first version had."""
    for table in SQLModel.metadata.sorted_tables:
        if table.name in old_rows(JOBS[0]):
            yield from (column for column in table.columns if isinstance(column.type, Sealed))


def texts_by_models() -> dict[str, list[dict[str, Any]]]:
    """Read the personal texts of all jobs as everybody does, with keys read anew: table -> rows."""
    use_ring(None)
    found: dict[str, list[dict[str, Any]]] = {}
    with reading() as session:
        for model in MODELS:
            table = SQLModel.metadata.tables[model.__tablename__]
            rows = session.exec(select(model).order_by(*table.primary_key)).all()
            names = [column.name for column in sealed_columns() if column.table is table]
            found[table.name] = [{name: getattr(row, name) for name in names} for row in rows]
    return found


def texts_written() -> dict[str, list[dict[str, Any]]]:
    """Give the personal texts as they were written: table -> rows."""
    names = {(column.table.name, column.name) for column in sealed_columns()}
    return {
        name: [
            {column: value for column, value in row.items() if (name, column) in names}
            for job_id in JOBS
            for row in old_rows(job_id)[name]
        ]
        for name in (model.__tablename__ for model in MODELS)
    }


def test_a_first_version_reads_as_before(old_database: str) -> None:
    """Personal texts by the models, umlauts, emoji, empty ones and NULL; every other column of every table."""
    before = rows_now()
    assert upgrade(old_database) == revision() == "0008"
    require_current_tables()
    assert texts_by_models() == texts_written()
    assert sum(len(rows) for rows in texts_written().values()) == 2 * (2 + 2 + 2 + 1 + 1)
    after = rows_now()
    sealed = {(column.table.name, column.name) for column in sealed_columns()}
    for name, rows in before.items():
        if name == "alembic_version":
            continue
        assert len(after[name]) == len(rows) > 0, name
        for was, now in zip(rows, after[name], strict=True):
            for column, value in was.items():
                if column == "blocks_staged":
                    assert column not in now, "blobs are copied several at once from the fourth version on"
                elif (name, column) == ("job_event", "id"):
                    assert column not in now, "an event has no id from the eighth version on"
                elif (name, column) not in sealed:
                    assert now[column] == value, (name, column)
                else:
                    assert (now[column] is None) is (value is None), (name, column)
                    assert now[column] is None or number_of(bytes(now[column])) == 1, (name, column)
    with writing() as session:
        session.get_one(ReturnAddress, JOBS[0]).city = "elsewhere"
    with reading() as session:
        assert session.get_one(ReturnAddress, JOBS[0]).city == "elsewhere"


@pytest.fixture
def upgraded(old_database: str) -> str:
    """A database of the first version that was brought up to this one."""
    upgrade(old_database)
    return old_database


FORBIDDEN: Final = (
    "UPDATE drive SET state = 'Nonsense'",
    "UPDATE drive SET copy_status = 'Nonsense'",
    "UPDATE package SET direction = 'sideways' WHERE direction = 'return'",
    "UPDATE job_event SET kind = 'nonsense'",
    "UPDATE job_event SET \"by\" = 'nobody'",
    "UPDATE job SET state = 'Nonsense'",
    "UPDATE return_address SET city = NULL",
    "UPDATE drive SET drive_id = NULL",
    "UPDATE return_shipping SET job_id = '00000000000000000000000000000001'",
    "UPDATE extra_drive SET job_id = '00000000000000000000000000000001'",
    "UPDATE drive_copy SET drive_number = 9",
    "INSERT INTO drive SELECT * FROM drive",
    "INSERT INTO return_address SELECT * FROM return_address",
)


def test_what_the_tables_forbid_is_forbidden_afterwards(upgraded: str) -> None:
    """Words that are none, NULL where there must be a text, rows of nobody, rows that are there already."""
    before = rows_now()
    for broken in FORBIDDEN:
        with pytest.raises(IntegrityError), engine().begin() as connection:
            connection.execute(text(broken))
    assert rows_now() == before
    for kind in ("erasure wished", "erased", "created"):
        with engine().begin() as connection:
            connection.execute(text("UPDATE job_event SET kind = :kind"), {"kind": kind})


def test_a_job_takes_its_rows_along_afterwards(upgraded: str) -> None:
    """In every table, and leaves those of another job; its runs are forgotten by themselves."""
    with writing() as session:
        session.connection().execute(delete(Job).where(col(Job.id) == JOBS[0]))
    left = rows_now()
    for name, rows in old_rows(JOBS[1]).items():
        ids = [row["id" if name == "job" else "job_id"] for row in left[name]]
        assert ids == [JOBS[1].hex] * len(rows) if name != "job_run" else len(ids) == 2, name


def bytes_of_database(data_directory: Path) -> bytes:
    """Read every byte that the database keeps: SQLite's files, or all files of the one PostgreSQL database."""
    if engine().dialect.name == "sqlite":
        return b"".join(path.read_bytes() for path in data_directory.glob("drivepost.db*"))
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CHECKPOINT"))
        folder = connection.scalar(text("SHOW data_directory"))
        number = connection.scalar(text("SELECT oid FROM pg_database WHERE datname = current_database()"))
        return b"".join(path.read_bytes() for path in (Path(str(folder)) / "base" / str(number)).iterdir())


def test_no_plain_text_stays_in_the_files(old_database: str, data_directory: Path) -> None:
    """Neither in the tables, nor in SQLite's log, nor in the files of the tables before; the control finds it."""
    before = bytes_of_database(data_directory)
    assert before.count(MARK.encode()) >= 30
    upgrade(old_database)
    for _ in range(2):
        after = bytes_of_database(data_directory)
        for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
            assert MARK.encode(encoding) not in after
        assert MARK.encode().hex().encode() not in after, "as the digits that it went through"
        engine().dispose()
    assert b"job-a1" in after


def test_a_first_version_comes_back(old_database: str) -> None:
    """Down again every row is as it was, in clear; and up once more."""
    before, first = rows_now(), read_keys(Settings())
    assert first is None
    upgrade(old_database)
    with engine().begin() as connection:
        connection.execute(text("UPDATE job_event SET kind = 'erased' WHERE kind = 'package overdue'"))
    command.downgrade(tables._alembic(old_database), "0001")
    engine().dispose()
    after = rows_now()
    before["job_event"] = [row for row in before["job_event"] if row["kind"] != "package overdue"]
    # Blocks that lie aside are not counted any more, so the first version begins its blob anew.
    before["drive_copy"] = [{**row, "blocks_staged": 0} for row in before["drive_copy"]]
    before["alembic_version"] = after["alembic_version"]
    # Those that the events had are gone, but for those of the intake.
    ids = [row.pop("id") for row in after["job_event"]]
    assert len(set(ids)) == len(ids) == len([row.pop("id") for row in before["job_event"]])
    assert after == before
    assert revision() == "0001"
    with pytest.raises(DatabaseError, match="run 'drivepost database upgrade'"):
        require_current_tables()
    # The database of the first version does not know that the keys were its own.
    with pytest.raises(SealingKeyError, match="belongs to another database"):
        upgrade(old_database)
    Settings().key_file.unlink()
    upgrade(old_database)
    assert texts_by_models() == texts_written()


def test_a_way_down_with_a_wrong_key_is_refused_and_leaves_all_as_it_was(upgraded: str) -> None:
    """What does not open is not lost on the way."""
    before, good = rows_now(), Settings().key_file.read_text()
    for keys, error in ((f"1:{'ee' * KEY_BYTES}", SealedValueError), (f"2:{'ee' * KEY_BYTES}", SealingKeyError)):
        Settings().key_file.write_text(keys)
        with pytest.raises(error):
            command.downgrade(tables._alembic(upgraded), "0001")
        engine().dispose()
        assert rows_now() == before
    Settings().key_file.write_text(good)
    assert texts_by_models() == texts_written()


def test_unusable_keys_stop_the_upgrade_and_the_first_version_stays(old_database: str) -> None:
    """No value is sealed with what nobody could open, and none is lost; no other file is made."""
    before, path = rows_now(), Settings().key_file
    for content, mode, match in (
        (f"1:{'ab' * KEY_BYTES}", 0o644, "has mode 0644"),
        ("damaged", 0o600, "must hold keys alone"),
        ("", 0o600, "holds no key"),
    ):
        path.write_text(content)
        path.chmod(mode)
        with pytest.raises(SealingKeyError, match=match):
            upgrade(old_database)
        engine().dispose()
        assert rows_now() == before
        assert path.read_text() == content
    path.unlink()
    upgrade(old_database)
    assert texts_by_models() == texts_written()


def test_an_upgrade_cut_anywhere_changes_nothing(old_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its first value, in the middle, at its last: the first version stays whole, and is brought up later."""
    before = rows_now()
    left = 0
    seal = KeyRing.seal

    def cut(held: KeyRing, place: str, value: str) -> bytes:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return seal(held, place, value)

    for at in (0, 1, 20, 39):
        left = at
        with monkeypatch.context() as patch:
            patch.setattr(KeyRing, "seal", cut)
            with pytest.raises(KeyboardInterrupt):
                upgrade(old_database)
        engine().dispose()
        assert rows_now() == before
    upgrade(old_database)
    assert texts_by_models() == texts_written()


def test_keys_by_a_setting_seal_a_first_version(old_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the highest number; no file is made."""
    monkeypatch.setenv("DRIVEPOST_SEALING_KEYS", f"3:{'cc' * KEY_BYTES},8:{'ab' * KEY_BYTES}")
    upgrade(old_database)
    assert texts_by_models() == texts_written()
    with engine().connect() as connection:
        cities = connection.scalars(text("SELECT city FROM return_address")).all()
    assert [number_of(bytes(city)) for city in cities] == [8, 8]
    assert not Settings().key_file.exists()


def test_an_old_database_without_rows_is_upgraded_too(old_database: str) -> None:
    """There is nothing to seal, and afterwards there may be."""
    with engine().begin() as connection:
        connection.execute(text("DELETE FROM job"))
        connection.execute(text("DELETE FROM job_run"))
    upgrade(old_database)
    assert all(rows == [] for rows in texts_by_models().values())
    assert set(inspect(engine()).get_table_names()) == {*SQLModel.metadata.tables, "alembic_version"}


# From the second version to the third: lists go by name, and giving out BitLocker keys is an event.


def migrate(url: str, target: str) -> None:
    """Bring the tables up or down to a version."""
    if revision() < target:
        command.upgrade(tables._alembic(url), target)
    else:
        command.downgrade(tables._alembic(url), target)
    engine().dispose()
    assert revision() == target


@pytest.fixture
def second_version(old_database: str) -> str:
    """A database of the second version, with two jobs that have rows in every table."""
    upgrade(old_database)
    migrate(old_database, "0002")
    return old_database


def set_kind(kind: str, of: str = "updated") -> None:
    """Write another kind into some events, past the models."""
    with engine().begin() as connection:
        connection.execute(text("UPDATE job_event SET kind = :kind WHERE kind = :of"), {"kind": kind, "of": of})


def test_the_keys_given_out_are_an_event_from_the_third_version_on(second_version: str) -> None:
    """Before it the table knows no such word."""
    with pytest.raises(IntegrityError):
        set_kind("keys given out")
    migrate(second_version, "0003")
    set_kind("keys given out")
    upgrade(second_version)
    with writing() as session:
        give_out_keys(session, JOBS[0], at=NOON, by=Actor.CUSTOMER)
    with reading() as session:
        assert [event.kind for event in events_of(session, JOBS[0])][1::2] == [EventKind.KEYS_GIVEN_OUT] * 2


def test_every_kind_of_event_can_be_written(upgraded: str) -> None:
    """A kind that is added to the models alone would be refused by a database that was brought up."""
    for kind in EventKind:
        with writing() as session:
            session.add(JobEvent(job_id=JOBS[0], at=NOON, kind=kind, by=Actor.SERVICE))
    with reading() as session:
        assert [event.kind for event in events_of(session, JOBS[0])][3:] == [*EventKind]


def test_every_row_is_kept_on_the_way_up_and_down_and_up(second_version: str) -> None:
    """With its number; all but the events whose word the second version does not know."""
    before = rows_now()
    migrate(second_version, "0003")
    third = {"alembic_version": [{"version_num": "0003"}], "spent_request": []}
    assert rows_now() == {**before, **third}
    set_kind("keys given out")
    migrate(second_version, "0002")
    left = [row for row in before["job_event"] if row["kind"] != "updated"]
    assert len(left) == 4
    assert rows_now() == {**before, "job_event": left}
    migrate(second_version, "0003")
    assert rows_now() == {**before, "job_event": left, **third}
    assert texts_by_models() == texts_written()


def test_what_the_tables_forbid_is_forbidden_in_each_version(second_version: str) -> None:
    """The table of events was written anew on SQLite, and its checks, keys and references with it."""
    for version in ("0003", "0002", "0003"):
        migrate(second_version, version)
        before = rows_now()
        for broken in (
            *FORBIDDEN,
            "UPDATE job_event SET job_id = '00000000000000000000000000000001'",
            "UPDATE job_event SET job_id = NULL",
            'UPDATE job_event SET "by" = NULL',
            "UPDATE job_event SET kind = NULL",
            "UPDATE job_event SET kind = 'KEYS_GIVEN_OUT'",
            "UPDATE job_event SET id = (SELECT id FROM job_event ORDER BY number LIMIT 1)",
            "UPDATE job_event SET number = 1",
            "UPDATE job SET resource_key = 's1/g1/job-a1'",
            "UPDATE job SET resource_key = NULL",
        ):
            with pytest.raises(IntegrityError), engine().begin() as connection:
                connection.execute(text(broken))
        assert rows_now() == before


def shapes() -> dict[str, Any]:
    """Tell what every table is made of, by its name."""
    told = inspect(engine())
    found: dict[str, Any] = {}
    for table in sorted(told.get_table_names()):
        found[table] = {
            "columns": {each["name"]: (str(each["type"]), each["nullable"]) for each in told.get_columns(table)},
            "key": told.get_pk_constraint(table)["constrained_columns"],
            "indexes": {
                str(each["name"]): (
                    each["column_names"],
                    bool(each["unique"]),
                    [str(value) for name, value in each["dialect_options"].items() if name.endswith("_where")],
                )
                for each in told.get_indexes(table)
            },
            "unique": sorted(str(each["column_names"]) for each in told.get_unique_constraints(table)),
            "references": [
                (each["constrained_columns"], each["referred_table"], each["options"])
                for each in told.get_foreign_keys(table)
            ],
            "checks": sorted(str(each["name"]) for each in told.get_check_constraints(table)),
        }
        if engine().dialect.name == "sqlite":
            found[table]["by key"] = table in tables_by_key()
    return found


def tables_by_key() -> set[str]:
    """Tell of which tables SQLite keeps the rows in the order of their key."""
    with engine().connect() as connection:
        listed = connection.execute(text("SELECT name FROM pragma_table_list WHERE schema = 'main' AND wr"))
        return set(listed.scalars())


def shape_of_events() -> dict[str, Any]:
    """Tell what the table of events is made of, and how keys of jobs are indexed."""
    found = shapes()
    return {"events": found["job_event"], "jobs": [found["job"][of] for of in ("unique", "indexes")]}


def test_the_table_of_events_keeps_its_shape(second_version: str) -> None:
    """Columns, key, indexes and references are those of before; the checks are two, and no more."""
    before = shape_of_events()
    assert before["events"]["checks"] == ["actor", "eventkind"]
    assert before["events"]["references"] == [(["job_id"], "job", {"ondelete": "CASCADE"})]
    for version in ("0003", "0002", "0003"):
        migrate(second_version, version)
        assert shape_of_events() == before


def test_events_go_on_counting_and_go_with_their_job(second_version: str) -> None:
    """A new one is the newest, whatever version the table came from."""
    last = max(row["number"] for row in rows_now()["job_event"])
    migrate(second_version, "0003")
    made = {"id": UUID(int=1), "job_id": JOBS[1], "at": NOON, "kind": "keys given out", "by": "operator"}
    with engine().begin() as connection:
        events = Table("job_event", MetaData(), autoload_with=connection)
        number = connection.scalar(events.insert().returning(events.c.number), stored(made))
        assert number is not None
        assert number > last
        connection.execute(delete(Job).where(col(Job.id) == JOBS[0]))
    assert [row["job_id"] for row in rows_now()["job_event"]] == [JOBS[1].hex] * 4


def collations() -> tuple[str, str]:
    """Tell by which language PostgreSQL sorts keys of jobs, in the column and in its index; empty is its own."""
    with engine().connect() as connection:
        column = connection.scalar(
            text(
                "SELECT collation_name FROM information_schema.columns "
                "WHERE table_name = 'job' AND column_name = 'resource_key'"
            )
        )
        index = connection.scalar(
            text(
                "SELECT c.collname FROM pg_index i JOIN pg_collation c ON c.oid = i.indcollation[0] "
                "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] "
                "WHERE i.indrelid = 'job'::regclass AND a.attname = 'resource_key' AND i.indisunique"
            )
        )
    return str(column or ""), str(index or "")


def test_keys_of_jobs_sort_by_their_codes_on_postgresql(postgresql: str) -> None:
    """In a database that begins with this version, and in one that was brought up; as before on the way down."""
    assert collations() == ("C", "C")
    migrate(postgresql, "0002")
    assert collations() == ("", "default")
    upgrade(postgresql)
    assert collations() == ("C", "C")
    require_current_tables()


def test_a_list_of_a_database_that_was_brought_up_goes_by_codes(second_version: str) -> None:
    """On both databases; it has the jobs of before among the new ones."""
    upgrade(second_version)
    names = ["a-b", "a_b", "aB", "a1", "A.2", "a"]
    with engine().begin() as connection:
        for number, name in enumerate(names):
            columns = [key for key in old_rows(JOBS[0])["job"][0] if key not in {"id", "name", "resource_key"}]
            told = ", ".join(columns)
            connection.execute(
                text(
                    f"INSERT INTO job (id, name, resource_key, {told}) "  # noqa: S608
                    f"SELECT :id, :name, :key, {told} FROM job WHERE name = 'job-a1'"
                ),
                stored({"id": UUID(int=number + 1), "name": name, "key": f"s1/g1/{name.lower()}"}),
            )
    with reading() as session:
        listed = [job.resource_key for job in list_jobs(session, ["s1/g1"]).jobs]
    assert listed == sorted(["s1/g1/job-a1", "s1/g1/job-b2", *(f"s1/g1/{name.lower()}" for name in names)])


@pytest.mark.parametrize(("version", "target"), [("0002", "0003"), ("0007", "0008"), ("0008", "0007")])
def test_a_table_is_written_anew_whole_or_not_at_all(
    old_database: str, monkeypatch: pytest.MonkeyPatch, version: str, target: str
) -> None:
    """Cut at any of its statements, a way to another version leaves all as it was, and may be gone again."""
    upgrade(old_database)
    if version != "0008":
        migrate(old_database, version)
    go = command.upgrade if version < target else command.downgrade
    before, shape = rows_now(), shapes()
    execute = DefaultImpl._exec
    for at in range(100):
        left = at

        def cut(held: DefaultImpl, *args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return execute(held, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(DefaultImpl, "_exec", cut)
            try:
                go(tables._alembic(old_database), target)
            except KeyboardInterrupt:
                engine().dispose()
            else:
                break
        assert (rows_now(), shapes()) == (before, shape)
    assert at >= 3
    assert revision() == target


# From the third version to the fourth: exports have reports too, and several blobs are copied at once.


@pytest.fixture
def third_version(old_database: str) -> str:
    """A database of the third version, with two jobs that have rows in every table and a copy that was cut."""
    upgrade(old_database)
    migrate(old_database, "0003")
    with engine().begin() as connection:
        connection.execute(text("UPDATE drive_copy SET planned = :planned"), {"planned": THIRD_PLANS})
    return old_database


THIRD_PLANS: Final = '[{"path": "c/a", "status": "Renamed"}, {"path": "c/b", "status": "Created"}]'

FOURTH_FORBIDS: Final = (
    "UPDATE blob_report SET disposition = 'nonsense'",
    "UPDATE blob_report SET status = 'Nonsense'",
    "UPDATE blob_report SET status = NULL",
    "UPDATE blob_report SET disposition_status = 'Nonsense'",
    "UPDATE blob_report SET metadata_status = 'Nonsense'",
    "UPDATE blob_report SET properties_status = 'Nonsense'",
    "UPDATE blob_report SET blob_number = NULL",
    "UPDATE blob_report SET drive_number = 9",
    "INSERT INTO blob_report SELECT * FROM blob_report",
)


def test_reports_and_plans_are_kept_on_the_way_to_the_fourth_version_and_back(third_version: str) -> None:
    """Up they gain what the fourth version asks of them, down they are as before; what is forbidden stays so."""
    before = rows_now()
    migrate(third_version, "0004")
    with reading() as session:
        for job_id in JOBS:
            assert session.get_one(DriveCopy, (job_id, 1)).planned == [
                {"path": "c/a", "status": "Renamed", "upload": "", "over": False},
                {"path": "c/b", "status": "Created", "upload": "", "over": False},
            ]
            assert not session.get_one(BlobReport, (job_id, 1, 1)).is_page_blob
    for broken in FOURTH_FORBIDS:
        with pytest.raises(IntegrityError), engine().begin() as connection:
            connection.execute(text(broken))
    migrate(third_version, "0003")
    before["drive_copy"] = [{**row, "blocks_staged": 0} for row in before["drive_copy"]]
    assert rows_now() == before
    for broken in (*FOURTH_FORBIDS, "UPDATE blob_report SET disposition = NULL"):
        with pytest.raises(IntegrityError), engine().begin() as connection:
            connection.execute(text(broken))
    migrate(third_version, "0004")


def test_a_report_of_an_export_goes_on_the_way_down(third_version: str) -> None:
    """The third version knows none, and keeps those of imports."""
    migrate(third_version, "0004")
    with writing() as session:
        session.add(
            BlobReport(
                job_id=JOBS[0],
                drive_number=1,
                blob_number=7,
                blob_path="c/a",
                file_path="a",
                length=1,
                status=BlobStatus.FAILED,
                last_modified=NOON,
            )
        )
    migrate(third_version, "0003")
    assert [row["blob_number"] for row in rows_now()["blob_report"]] == [1, 1]


def test_the_first_look_at_the_clock_is_compared_with_the_latest_event(third_version: str) -> None:
    """A clock that was wrong when the fifth version came deletes nothing by that."""
    migrate(third_version, "0005")
    with writing() as session:
        assert session.get_one(Clock, 1).seen_at == NOON, "as all events"
        with pytest.raises(ClockJumpedError):
            look_at_clock(session, timedelta(hours=25))


# From the seventh version to the eighth: an event has no id.


@pytest.fixture
def seventh_version(old_database: str) -> str:
    """A database of the seventh version, with two jobs that have rows in every table, one made by an operator."""
    upgrade(old_database)
    migrate(old_database, "0007")
    with engine().begin() as connection:
        made = "UPDATE job_event SET \"by\" = 'operator', id = :id WHERE kind = 'created' AND job_id = :of"
        connection.execute(text(made), stored({"id": INTAKE_ID, "of": JOBS[0]}))
        connection.execute(text("UPDATE job_event SET \"by\" = 'operator' WHERE kind = 'updated'"))
    return old_database


INTAKE_ID: Final = UUID(int=0xC3)


def test_only_the_id_that_a_request_file_goes_by_is_kept(seventh_version: str) -> None:
    """Of all events of an operator, that of the making alone; a deletion remembers it."""
    assert upgrade(seventh_version) == "0008"
    with writing() as session:
        found = session.exec(select(JobEvent).where(col(JobEvent.intake_id).is_not(None))).all()
        assert [(event.intake_id, event.job_id, event.kind) for event in found] == [
            (INTAKE_ID, JOBS[0], EventKind.CREATED)
        ]
        remember_spent_requests(session, JOBS, at=NOON)
        assert was_spent(session, INTAKE_ID)
    migrate(seventh_version, "0007")
    ids = {row["id"]: row for row in rows_now()["job_event"]}
    assert len(ids) == 6
    assert (ids[INTAKE_ID.hex]["job_id"], ids[INTAKE_ID.hex]["kind"]) == (JOBS[0].hex, "created")


def without_ids(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Leave out ids of events, and the version."""
    own = {
        "job_event": [{k: v for k, v in row.items() if k not in {"id", "intake_id"}} for row in rows["job_event"]]
    }
    return {**rows, **own, "alembic_version": []}


def test_every_row_and_shape_is_kept_on_the_way_to_the_eighth_version_and_back(seventh_version: str) -> None:
    """But for the ids; what is forbidden stays so, and what is unique."""
    before, seventh = rows_now(), shapes()
    migrate(seventh_version, "0008")
    eighth = shapes()
    assert without_ids(rows_now()) == without_ids(before)
    for table in seventh.keys() - {"job_event", "job_run"}:
        assert {**eighth[table], "by key": 0} == {**seventh[table], "by key": 0}, table
    for broken in (
        *FORBIDDEN,
        *FOURTH_FORBIDS,
        "UPDATE job_event SET intake_id = '000000000000000000000000000000c3'",
    ):
        with pytest.raises(IntegrityError), engine().begin() as connection:
            connection.execute(text(broken))
    migrate(seventh_version, "0007")
    assert without_ids(rows_now()) == without_ids(before)
    assert shapes() == seventh
    with pytest.raises(IntegrityError), engine().begin() as connection:
        connection.execute(text("UPDATE job_event SET id = (SELECT id FROM job_event ORDER BY number LIMIT 1)"))
    migrate(seventh_version, "0008")
    assert (without_ids(rows_now()), shapes()) == (without_ids(before), eighth)
    assert texts_by_models() == texts_written()


def test_sqlite_keeps_rows_by_key_where_the_models_say_so(upgraded: str) -> None:
    """A table that was written anew by a later version, and lost it, would go unnoticed."""
    tables = SQLModel.metadata.tables
    by_key = {name for name, table in tables.items() if not table.dialect_options["sqlite"]["with_rowid"]}
    assert by_key == {"job_run"}
    if engine().dialect.name == "sqlite":
        assert tables_by_key() == by_key
