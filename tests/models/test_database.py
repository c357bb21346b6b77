"""The database: its tables are those of the models, however often and by however many they are made."""

import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from threading import Event
from typing import Any, Final
from uuid import uuid4

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import Session, SQLModel, select

import models.copies
import models.runs
import models.updates  # noqa: F401  importing a module of tables makes its tables known
from models import database, tables
from models.database import (
    database_time,
    engine,
    open_engine,
    reading,
    return_free_pages,
    write_anew,
    writing,
)
from models.deletion import delete_expired_jobs
from models.errors import DatabaseError
from models.jobs import Job
from models.lifecycle import JobState
from models.runs import JobRun
from models.settings import Settings
from models.shipping import ReturnAddress
from models.tables import require_current_tables, upgrade
from tests.builders import NOON, job_in, sealed_values

ROOT: Final = Path(__file__).parents[2]
SECRET: Final = "Ada-Quince-77"  # noqa: S105  made up


@pytest.fixture
def empty_database(any_database: str) -> str:
    """A database whose tables are gone again."""
    with engine().begin() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
        SQLModel.metadata.drop_all(connection)
    # Its keys are gone with it.
    Settings().key_file.unlink()
    return any_database


def of_rows(index: Any) -> str:
    """Tell of which rows an index is; empty where of all."""
    options = index.get("dialect_options", {})
    return "".join(str(value) for name, value in options.items() if name.endswith("_where"))


def picture(opened: Engine, schema: str | None = None) -> dict[str, Any]:
    """Describe all tables as the database itself does; automatic names aside."""
    seen = inspect(opened)

    def told(rows: list[Any], *names: str) -> list[tuple[str, ...]]:
        # A key that counts up names its sequence, which lies in its table's schema.
        return sorted(tuple(str(row.get(name)).replace("beside.", "") for name in names) for row in rows)

    return {
        table: {
            "columns": told(seen.get_columns(table, schema), "name", "type", "nullable", "default"),
            "key": seen.get_pk_constraint(table, schema)["constrained_columns"],
            "foreign": told(
                list(seen.get_foreign_keys(table, schema)),
                *("constrained_columns", "referred_table", "referred_columns", "options"),
            ),
            "indexes": told(
                [{**index, "where": of_rows(index)} for index in seen.get_indexes(table, schema)],
                *("column_names", "unique", "where"),
            ),
            "unique": told(list(seen.get_unique_constraints(table, schema)), "column_names"),
            "checks": told(list(seen.get_check_constraints(table, schema)), "name", "sqltext"),
        }
        for table in seen.get_table_names(schema)
        if table != "alembic_version"
    }


def test_models_and_migrations_agree(any_database: str) -> None:
    """Alembic finds nothing to do, and the tables are the very same as those made from the models.

    The second looks at checks and cascades too, which Alembic does not compare.
    """
    with engine().connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, SQLModel.metadata) == []
    if any_database.startswith("sqlite"):
        beside = create_engine(any_database.replace(".db", "-beside.db"))
        SQLModel.metadata.create_all(beside)
        made = picture(beside)
        beside.dispose()
    else:
        beside = engine().execution_options(schema_translate_map={None: "beside"})
        with beside.begin() as connection:
            connection.execute(text("CREATE SCHEMA beside"))
            SQLModel.metadata.create_all(connection)
        made = picture(engine(), "beside")
    found = picture(engine())
    assert set(found) == set(made) == set(SQLModel.metadata.tables)
    for table, described in made.items():
        assert found[table] == described, table
    assert any("CASCADE" in str(described["foreign"]) for described in found.values())
    assert any(described["checks"] for described in found.values())


def test_an_upgrade_may_be_repeated(any_database: str) -> None:
    """It says where the tables are, and leaves what is in them."""
    with writing() as session:
        job_in(session, JobState.CREATING)
    assert upgrade(any_database) == upgrade(any_database) == "0008"
    with reading() as session:
        assert len(session.exec(select(Job)).all()) == 1
    require_current_tables()


def test_several_may_upgrade_at_once(empty_database: str) -> None:
    """Four processes that start together on an empty database: all of them find it made."""
    line = f"from models.tables import upgrade; print(upgrade({empty_database!r}))"
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", line],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    ends = [(*process.communicate(timeout=60), process.returncode) for process in started]
    assert [(out.strip(), code) for out, _, code in ends] == [("0008", 0)] * 4, ends
    require_current_tables()


def test_tables_go_and_come_back_the_same(any_database: str) -> None:
    """Down to nothing and up again."""
    before = picture(engine())
    command.downgrade(tables._alembic(any_database), "base")
    assert picture(engine()) == {}
    with pytest.raises(DatabaseError, match="run 'drivepost database upgrade'"):
        require_current_tables()
    Settings().key_file.unlink()
    upgrade(any_database)
    assert picture(engine()) == before


def test_tables_of_a_newer_version_are_refused(any_database: str) -> None:
    """By upgrade and by work alike, and nothing is changed."""
    with engine().begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="written by a newer Drivepost; install that version"):
        upgrade(any_database)
    with pytest.raises(DatabaseError, match="not those of this version"):
        require_current_tables()
    with engine().connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


def test_a_database_that_does_not_answer_is_told_without_its_address(
    data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address may hold a password."""
    (data_directory / "folder.db").mkdir()
    for url in (f"postgresql+psycopg://u:{SECRET}@127.0.0.1:1/d", f"sqlite:///{data_directory}/folder.db"):
        with pytest.raises(DatabaseError, match=r"^the database cannot be opened: OperationalError") as refused:
            upgrade(url)
        assert SECRET not in f"{refused.value!r} {refused.value.__cause__!r}"
        monkeypatch.setenv("DRIVEPOST_DATABASE_URL", url)
        engine.cache_clear()
        with pytest.raises(DatabaseError, match="cannot be opened"):
            require_current_tables()
        engine.cache_clear()


def test_sqlite_keeps_a_log_ahead_minds_foreign_keys_and_waits(
    sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On every connection, not only the first."""
    for _ in range(2):
        with open_engine(sqlite, 7).connect() as connection:
            found = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in (
                    *("journal_mode", "foreign_keys", "busy_timeout", "synchronous", "secure_delete"),
                    *("auto_vacuum", "freelist_count"),
                )
            }
        assert found == {
            "journal_mode": "wal",
            "foreign_keys": 1,
            "busy_timeout": 7000,
            "synchronous": 2,
            # What is deleted is overwritten with zeros, and pages that are free can be given back.
            "secure_delete": 1,
            "auto_vacuum": 2,
            "freelist_count": 0,
        }
    orphan = ReturnAddress(
        job_id=uuid4(), recipient_name="a", street_address_1="a", city="a", postal_code="a", country_or_region="a",
        phone="a", email="a",
    )  # fmt: skip
    with pytest.raises(IntegrityError), writing() as session:
        session.add(orphan)


@pytest.mark.parametrize(("given", "name"), [({}, "drivepost"), ({"application_name": "mine"}, "mine")])
def test_connections_of_a_process_have_a_name_of_their_own_on_postgresql(
    postgresql: str, given: dict[str, str], name: str
) -> None:
    """By it operators find them, and a sweep tells others from itself; an address may name them."""
    address = make_url(postgresql).update_query_dict(given).render_as_string(hide_password=False)
    told = set[str]()
    for _ in range(2):
        opened = open_engine(address, 1)
        with opened.connect() as one, opened.connect() as two:
            names = {str(each.exec_driver_sql("SHOW application_name").scalar()) for each in (one, two)}
        opened.dispose()
        assert len(names) == 1
        told |= names
    assert len(told) == 2
    assert {each.rpartition("-")[0] for each in told} == {name}


def test_a_write_waits_for_another_only_so_long(any_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the setting says; a read does not wait at all."""
    with writing() as session:
        job_in(session, JobState.CREATING)
    impatient = open_engine(any_database, 0.2).execution_options(writes=True)
    with writing() as session:
        session.connection().execute(text("UPDATE job SET name = 'held'"))
        begun = datetime.now(UTC)
        with pytest.raises(DBAPIError), Session(impatient) as other:
            other.connection().execute(text("UPDATE job SET name = 'other'"))
        assert timedelta(seconds=0.15) < datetime.now(UTC) - begun < timedelta(seconds=5)
        with reading() as other:
            assert [job.name for job in other.exec(select(Job))] == ["job1"]
    impatient.dispose()


def test_who_waits_to_write_on_sqlite_looks_again_all_the_time(
    sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not ever more seldom: a pause of whoever holds the lock would be over by then."""
    pauses = list[float]()
    held = sqlite3.connect(str(make_url(sqlite).database), isolation_level=None)
    held.execute("BEGIN IMMEDIATE")

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 50:
            held.rollback()

    monkeypatch.setattr("models.database.time.sleep", pause)
    with writing() as session:
        job_in(session, JobState.CREATING)
        asked = session.connection().exec_driver_sql("PRAGMA busy_timeout").scalar()
    assert pauses == [0.001] * 50
    assert asked == Settings().database_wait_seconds_max * 1000
    held.close()


def test_what_is_wrong_with_sqlite_besides_another_that_writes_is_told_at_once(
    sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is waited for that does not pass by waiting."""
    monkeypatch.setattr("models.database.time.sleep", lambda _: pytest.fail("it waited"))
    opened = open_engine(sqlite, 7)
    event.listen(opened, "checkout", lambda connection, *_: connection.execute("BEGIN"))
    with pytest.raises(DBAPIError, match="within a transaction"), opened.execution_options(writes=True).begin():
        pytest.fail("a transaction began twice")
    opened.dispose()


def test_what_fails_in_a_write_undoes_all_of_it(any_database: str) -> None:
    """And what does not fail is there for everyone."""

    def write_and_fail() -> None:
        with writing() as session:
            job_in(session, JobState.CREATING)
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    with reading() as session:
        assert session.exec(select(Job)).all() == []
    with writing() as session:
        session.add(JobRun(job_id=uuid4(), flow_run_id=uuid4()))
    with reading() as session:
        assert len(session.exec(select(JobRun)).all()) == 1


def test_the_time_of_the_database_is_aware_and_near(any_database: str) -> None:
    """And goes on within a transaction."""
    before = datetime.now(UTC)
    with writing() as session:
        first, second = database_time(session), database_time(session)
    assert first.utcoffset() == timedelta(0)
    assert first <= second
    assert abs(first - before) < timedelta(seconds=10)


@pytest.mark.parametrize("shown", [str, repr])
def test_an_error_of_the_database_shows_no_value(any_database: str, shown: Any) -> None:
    """Neither the parameters, nor the row that PostgreSQL would add."""
    with writing() as session:
        job_id = job_in(session, JobState.CREATING)
    doubled = "INSERT INTO job_run SELECT id, id, :no FROM job UNION ALL SELECT id, id, :no FROM job"
    emptied = text("UPDATE return_address SET recipient_name = :name, city = NULL")
    with pytest.raises(IntegrityError) as missing, writing() as session:
        session.connection().execute(emptied, {"name": SECRET})
    with pytest.raises(IntegrityError) as twice, writing() as session:
        session.connection().execute(text(doubled), {"no": False})
    for error in (missing.value, twice.value):
        told = " ".join(shown(each) for each in (error, error.orig, error.__cause__, error.__context__))
        assert SECRET not in told
        assert str(job_id) not in told
        assert job_id.hex not in told
        assert "IntegrityError" in told or "Violation" in told or "constraint" in told


def test_settings_and_engine_speak_of_one_database(any_database: str) -> None:
    """What the setting says is what is opened."""
    assert Settings().database == any_database
    assert engine().url.render_as_string(hide_password=False) == any_database


# What is deleted is not in the file any more.

MARK: Final = "Quincejob"


def files_of(url: str) -> dict[str, bytes]:
    """Read the bytes of the embedded database and of what lies beside it, by the end of each name."""
    file = Path(url.removeprefix("sqlite:///"))
    return {each.name.removeprefix(file.name): each.read_bytes() for each in file.parent.glob(f"{file.name}*")}


def marked(url: str) -> dict[str, int]:
    """Tell how often each file says the mark, or begins to; those that never do are left out."""
    told = {end: held.count(MARK.encode()) for end, held in files_of(url).items()}
    return {end: count for end, count in told.items() if count}


def pragma(name: str) -> Any:
    """Ask SQLite for a setting or a figure."""
    with engine().connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def many_jobs(count: int, at: datetime = NOON) -> None:
    """Make jobs whose names bear the mark, and as many others between them that do not."""
    for first in range(0, count, 50):
        with writing() as session:
            for number in range(first, min(first + 50, count)):
                job_in(session, JobState.CREATING, f"{MARK}{number}", at)
                job_in(session, JobState.CREATING, f"kept{number}", at + timedelta(days=1))


def delete_marked(at: datetime = NOON) -> int:
    """Delete the jobs whose names bear the mark, as retention does."""
    with writing() as session:
        return len(delete_expired_jobs(session, at + timedelta(days=14), 10_000))


def test_what_is_deleted_is_in_no_byte_of_sqlites_files(sqlite: str) -> None:
    """Neither in the pages of those that stay, nor in free ones, nor in the log ahead; which is cut to nothing.

    The name of a job is stored as it is, so that it would be found.
    """
    many_jobs(60)
    assert return_free_pages()
    assert marked(sqlite)[""] >= 60
    assert delete_marked() == 60
    assert marked(sqlite)[""] >= 60, "before, what was deleted is in the file still, and in the log ahead zeros"
    assert return_free_pages()
    assert marked(sqlite) == {}
    assert files_of(sqlite)["-wal"] == b""
    with reading() as session:
        assert len(session.exec(select(Job)).all()) == 60
    assert return_free_pages(), "again, there is nothing to do"


def delete_until_copies_stay(url: str) -> set[bytes]:
    """Make jobs and delete some, until bytes of those stay in the file; gives all sealed values that went."""
    random = Random(1)  # noqa: S311  no secret
    gone: set[bytes] = set()
    for turn in range(60):
        with writing() as session:
            for number in range(60):
                at = NOON + timedelta(seconds=random.randrange(10**6))
                job_in(session, JobState.CREATING, f"job{turn}-{number}", at)
        with writing() as session:
            for address in session.exec(select(ReturnAddress)).all():
                address.street_address_1 = "x" * random.randrange(5, 900)
                session.add(address)
        before = set(sealed_values().values())
        for _ in range(9):
            with writing() as session:
                assert len(delete_expired_jobs(session, NOON + timedelta(days=30), 5)) == 5
        assert return_free_pages()
        gone |= before - set(sealed_values().values())
        if remains(gone, url):
            return gone
    raise AssertionError


def remains(values: set[bytes], url: str) -> list[bytes]:
    """Tell which values are in the bytes of the file."""
    held = files_of(url)[""]
    return [value for value in values if value in held]


def test_copies_of_what_sqlite_moved_are_in_no_byte_either(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the file is written anew; one that is too large for that is not."""
    gone = delete_until_copies_stay(sqlite)
    with monkeypatch.context() as patch:
        patch.setattr(database, "_WRITTEN_ANEW_BYTES_MAX", 100_000)
        assert write_anew()
    assert remains(gone, sqlite)
    assert write_anew()
    assert not remains(gone, sqlite)
    assert (pragma("freelist_count"), files_of(sqlite)["-wal"]) == (0, b"")
    assert (pragma("auto_vacuum"), pragma("temp_store"), pragma("integrity_check")) == (2, 0, "ok")


def test_a_file_is_written_anew_among_others_who_are_at_work(sqlite: str) -> None:
    """Of three who write and read all the time none is refused, and nothing of theirs is lost."""
    gone = delete_until_copies_stay(sqlite)
    done = Event()
    with reading() as session:
        count = len(session.exec(select(Job.id)).all())

    def work() -> int:
        acts = 0
        while not done.is_set():
            with writing() as session:
                session.connection().execute(text("UPDATE job SET copy_token = copy_token + 1"))
            with reading() as session:
                assert len(session.exec(select(Job.id)).all()) == count
            acts += 1
            time.sleep(0.01)
        return acts

    with ThreadPoolExecutor(3) as pool:
        working = [pool.submit(work) for _ in range(3)]
        try:
            for _ in range(100):
                if is_done := write_anew():
                    break
                time.sleep(0.02)
            assert is_done
        finally:
            done.set()
        acts = sum(each.result() for each in working)
    assert not remains(gone, sqlite)
    with reading() as session:
        assert set(session.exec(select(Job.copy_token)).all()) == {acts}


def test_a_file_that_there_is_no_room_to_write_anew_is_left_as_it_is(
    sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that it is not done, and gave back its pages; it is done when there is room."""
    many_jobs(200)
    delete_marked()
    say = database.outside_of_transactions

    def without_room(opened: Engine, *statements: str) -> int:
        if "VACUUM" in statements:
            raise sqlite3.OperationalError("database or disk is full")
        return say(opened, *statements)

    with monkeypatch.context() as patch:
        patch.setattr(database, "outside_of_transactions", without_room)
        assert not write_anew()
        assert (pragma("freelist_count"), files_of(sqlite)["-wal"]) == (0, b"")
    assert write_anew()


def test_free_pages_are_given_back(sqlite: str) -> None:
    """The file shrinks by every one of them."""
    many_jobs(200)
    with writing() as session:
        assert len(delete_expired_jobs(session, NOON + timedelta(days=15), 10_000)) == 400
    pages, free = pragma("page_count"), pragma("freelist_count")
    assert free > 50
    assert return_free_pages()
    assert pragma("freelist_count") == 0
    assert pragma("page_count") <= pages - free
    assert len(files_of(sqlite)[""]) == pragma("page_count") * pragma("page_size")
    assert pragma("integrity_check") == "ok"


def test_free_pages_that_are_not_given_back_yet_are_zeros(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many at once as is reasonable; the others tell nothing meanwhile, and go the next time."""
    monkeypatch.setattr(database, "_PAGES_RETURNED_MAX", 5)
    many_jobs(200)
    with writing() as session:
        delete_expired_jobs(session, NOON + timedelta(days=15), 10_000)
    before = pragma("freelist_count")
    assert return_free_pages()
    assert pragma("freelist_count") == before - 5
    assert (marked(sqlite), files_of(sqlite)["-wal"]) == ({}, b"")
    page = pragma("page_size")
    held = files_of(sqlite)[""]
    free = sum(not any(held[start : start + page]) for start in range(0, len(held), page))
    # A few free pages list the numbers of the others.
    assert free >= (before - 5) * 0.9
    assert return_free_pages()
    assert pragma("freelist_count") == before - 10


@pytest.mark.parametrize("holds", ["reads", "writes"])
def test_pages_are_not_given_back_while_somebody_holds_them(
    sqlite: str, holds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, breaks nothing, and is done the next time."""
    monkeypatch.setenv("DRIVEPOST_DATABASE_WAIT_SECONDS_MAX", "0.05")
    many_jobs(20)
    assert return_free_pages()
    if holds == "reads":
        with reading() as session:
            assert session.exec(select(Job.id)).first()
            delete_marked()
            assert not return_free_pages()
            assert not write_anew()
            assert len(session.exec(select(Job.id)).all()) == 40, "the reader sees what was when it began"
    else:
        delete_marked()
        with writing() as session:
            assert not return_free_pages()
            assert not write_anew()
            assert len(session.exec(select(Job.id)).all()) == 20
    assert files_of(sqlite)["-wal"]
    assert return_free_pages()
    assert (marked(sqlite), files_of(sqlite)["-wal"]) == ({}, b"")


def test_on_postgresql_there_is_nothing_to_give_back(postgresql: str) -> None:
    """It looks after its own pages; whoever reads or writes is not in the way."""
    with reading() as session, writing() as writer:
        session.exec(select(Job)).all()
        job_in(writer, JobState.CREATING)
        assert return_free_pages()
        assert write_anew()


def test_a_database_of_before_is_written_anew(sqlite: str) -> None:
    """One of the first version: its plain texts are in no byte, and its pages can be given back from then on."""
    export: dict[str, Any] = {
        "jobType": "Export",
        "driveList": None,
        "export": {"blobList": {"blobPath": ["/data/a"]}},
    }
    nothing_sealed: dict[str, Any] = dict.fromkeys(("returnAddress", "returnShipping", "deliveryPackage"))
    with writing() as session:
        made = [
            job_in(session, JobState.CREATING, f"{MARK}{number}", NOON, **export, **nothing_sealed)
            for number in range(40)
        ]
    command.downgrade(tables._alembic(sqlite), "0001")
    engine().dispose()
    Settings().key_file.unlink()
    with closing(sqlite3.connect(sqlite.removeprefix("sqlite:///"), isolation_level=None)) as before:
        for statement in (
            "secure_delete = OFF",
            "auto_vacuum = NONE",
            "journal_mode = DELETE",
            "foreign_keys = ON",
        ):
            before.execute(f"PRAGMA {statement}")
        before.execute("VACUUM")
        filled = ", ".join(["?"] * len(ReturnAddress.model_fields))
        addressed = f"INSERT INTO return_address ({', '.join(ReturnAddress.model_fields)}) VALUES ({filled})"  # noqa: S608
        texts = [SECRET] * (len(ReturnAddress.model_fields) - 1)
        order = list(ReturnAddress.model_fields).index("job_id")
        before.execute(addressed, [*texts[:order], made[0].hex, *texts[order:]])
        # A version of before deleted so that the text stayed in the file.
        before.executemany("DELETE FROM job WHERE id = ?", [(job_id.hex,) for job_id in made[1:]])
        assert before.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    assert SECRET.encode() in files_of(sqlite)[""]
    assert marked(sqlite)[""] > 40
    upgrade(sqlite)
    assert [end for end, held in files_of(sqlite).items() if SECRET.encode() in held] == []
    left = marked(sqlite)
    assert list(left) == [""]
    assert left[""] < 5, "the one that stays, by its name"
    assert (pragma("auto_vacuum"), pragma("secure_delete"), pragma("freelist_count")) == (2, 1, 0)
    with reading() as session:
        assert [job.name for job in session.exec(select(Job))] == [f"{MARK}0"]
        assert session.get_one(ReturnAddress, made[0]).recipient_name == SECRET
