"""Rotation: all that lives is sealed anew while jobs go on, and what was deleted is read in no backup."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, LargeBinary, bindparam, text, type_coerce
from sqlalchemy.engine import make_url
from sqlmodel import SQLModel, col, delete, select

from models.columns import Sealed
from models.database import database_time, engine, open_engine, reading, writing
from models.drives import Drive, drives_of
from models.errors import SealedValueError, SealingKeyError
from models.jobs import Job, find_job
from models.key_files import read_keys, read_ring, use_ring
from models.lifecycle import JobState
from models.portal import PortalSettings, SavedAddress
from models.rotation import (
    Key,
    Turned,
    destroy_older_keys,
    forget_older_keys,
    reseal_rows,
    rotation_under_way,
    rows_of_older_keys,
    sealed_tables,
    turn_key,
)
from models.sealing import KEY_BYTES, KeyRing, number_of
from models.sealing_keys import SealingKey
from models.settings import Settings
from models.shipping import ReturnAddress
from models.tables import upgrade
from tasks.sealing import find_dropped_rotation, reseal_part, retire_older_keys
from tests.builders import ADDRESS, DRIVE, NOON, job_in, with_every_row

ROOT: Final = Path(__file__).parents[2]
COLUMNS: Final[list[Any]] = [
    column
    for name in sealed_tables()
    for column in SQLModel.metadata.tables[name].columns
    if isinstance(column.type, Sealed)
]
"""Every sealed column of every table."""


def fill(name: str, drives: int = 2) -> UUID:
    """Make a job with rows in every table; what may be NULL is so in its last drive, and filled in the others."""
    entries = [
        {**DRIVE, "driveId": f"{name}-serial-{number}", "bitLockerKey": f"{name}-bitlocker-{number}"}
        for number in range(1, drives)
    ]
    with writing() as session:
        job_id = job_in(
            session, JobState.SHIPPING, name, driveList=[*entries, {**DRIVE, "driveId": f"{name}-last"}]
        )
        with_every_row(session, job_id)
        for drive in drives_of(session, job_id)[:-1]:
            drive.error_log_uri = f"{name}-error"
            drive.verbose_log_uri = f"{name}-verbose"
            drive.manifest_uri = f"{name}-manifest"
    return job_id


def save_address() -> None:
    """Save an address for the next job, as a user does."""
    texts = {re.sub(r"([A-Z]|\d+)", r"_\1", name).lower(): f"saved {value}" for name, value in ADDRESS.items()}
    with writing() as session:
        user = PortalSettings(user_id=UUID(int=7), created_at=NOON, updated_at=NOON)
        session.add(user)
        session.flush()
        session.add(SavedAddress(settings_id=user.id, carrier_name="UPS", carrier_account_number="saved", **texts))


def everything() -> dict[str, list[str | None]]:
    """Read every sealed value as its reader does, with keys read anew: column -> texts."""
    use_ring(None)
    with reading() as session:
        read = {str(column): session.connection().execute(select(column)).scalars().all() for column in COLUMNS}
    return {place: sorted(texts, key=str) for place, texts in read.items()}


def raw_values(opened: Engine) -> dict[str, list[bytes]]:
    """Take every sealed value as it is on disk: place -> values."""
    with opened.connect() as connection:
        return {
            str(column): [
                bytes(value)
                for value in connection.execute(select(type_coerce(column, LargeBinary))).scalars()
                if value is not None
            ]
            for column in COLUMNS
        }


def key_numbers() -> set[int | None]:
    """Tell by which keys the database's values are sealed."""
    return {number_of(value) for values in raw_values(engine()).values() for value in values}


def turn() -> Turned:
    """Turn to a new key."""
    with writing() as session:
        return turn_key(session, NOON)


def reseal_table(name: str, rows_max: int = 100) -> list[int]:
    """Seal a table anew from its beginning; gives the rows of each batch."""
    told: list[int] = []
    after: Key | None = None
    while True:
        with writing() as session:
            batch = reseal_rows(session, name, after, rows_max)
        if batch.last is None:
            return told
        told.append(batch.rows)
        after = batch.last


def reseal(rows_max: int = 100) -> int:
    """Seal everything anew; gives the rows."""
    return sum(sum(reseal_table(name, rows_max)) for name in sealed_tables())


def forget() -> bool:
    """Let the database forget the older keys."""
    with writing() as session:
        return forget_older_keys(session)


def rotate() -> int:
    """Rotate wholly; gives the new key's number."""
    newest = turn().newest
    reseal()
    assert forget()
    assert destroy_older_keys(newest)
    return newest


def known() -> list[int]:
    """Tell which keys the database knows."""
    with reading() as session:
        return sorted(session.exec(select(SealingKey.number)))


def kept() -> list[int]:
    """Tell which keys are in the file."""
    return sorted(read_keys(Settings()) or {})


def test_every_table_with_sealed_values_is_known_to_a_rotation_alone() -> None:
    """In a process that imported nothing else: the values of a table it forgets would be lost with the key."""
    line = (
        "import importlib, pkgutil, models, models.rotation as rotation\n"
        "alone = rotation.sealed_tables()\n"
        "for found in pkgutil.iter_modules(models.__path__): importlib.import_module(f'models.{found.name}')\n"
        "assert alone == rotation.sealed_tables(), alone\n"
        "print(*alone)"
    )
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", line],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert set(told.stdout.split()) == {
        "drive",
        "extra_drive",
        "package",
        "return_address",
        "return_shipping",
        "saved_address",
    }


def test_every_sealed_column_of_every_table_is_sealed_anew(any_database: str) -> None:
    """With the same texts in it, NULL where NULL was; the old key is then in no value, no row and no file."""
    fill("job1")
    fill("job2")
    save_address()
    before, raw_before = everything(), raw_values(engine())
    assert len(before) == len(COLUMNS) == 27
    assert all(texts for texts in before.values())
    assert {place for place, texts in before.items() if None in texts} == {
        f"drive.{name}" for name in ("bit_locker_key", "error_log_uri", "verbose_log_uri", "manifest_uri")
    }
    assert turn() == Turned(newest=2, older=(1,))
    assert known() == kept() == [1, 2]
    assert reseal() == 4 + 2 + 4 + 2 + 2 + 1
    assert key_numbers() == {2}
    raw_after = raw_values(engine())
    assert {place: len(values) for place, values in raw_after.items()} == {
        place: len(values) for place, values in raw_before.items()
    }
    assert everything() == before
    assert forget()
    assert known() == [2]
    assert kept() == [1, 2]
    assert destroy_older_keys(2)
    assert kept() == [2]
    assert everything() == before
    assert rotate() == 3
    assert everything() == before


def test_what_is_sealed_with_the_newest_key_is_left_alone(any_database: str) -> None:
    """Byte by byte; there is nothing to do a second time."""
    fill("job1")
    turn()
    reseal()
    fill("job2")
    before = raw_values(engine())
    assert reseal() == 0
    assert raw_values(engine()) == before


def test_nothing_but_the_sealed_values_changes(any_database: str) -> None:
    """Neither another column, nor a row more or less, in any table."""
    fill("job1")
    save_address()

    def rest() -> dict[str, Any]:
        with engine().connect() as connection:
            return {
                table.name: sorted(
                    repr(connection_row)
                    for connection_row in connection.execute(
                        select(*[column for column in table.columns if not isinstance(column.type, Sealed)])
                    )
                )
                for table in SQLModel.metadata.sorted_tables
                if table.name != "sealing_key"
            }

    before = rest()
    rotate()
    assert rest() == before


def test_a_batch_has_its_limit_and_goes_on_after_the_last_row(any_database: str) -> None:
    """In the order of the keys, each row once, of tables with one key column and with two."""
    fill("job1", drives=5)
    fill("job2", drives=2)
    for rows_max, batches in ((1, [1] * 7), (2, [2, 2, 2, 1]), (3, [3, 3, 1]), (7, [7]), (8, [7])):
        newest = turn().newest
        assert reseal_table("drive", rows_max) == batches
        assert sum(reseal_table("package", rows_max)) == 4
        assert sum(reseal_table("return_address", rows_max)) == 2
        with reading() as session:
            for name in ("drive", "package", "return_address"):
                assert rows_of_older_keys(session, name) == 0
        reseal()
        assert forget()
        assert destroy_older_keys(newest)


def test_the_last_row_of_a_batch_is_told_by_its_key(any_database: str) -> None:
    """The rows up to it are sealed anew, and those after it are not yet."""
    job_id = fill("job1", drives=5)
    turn()
    with writing() as session:
        batch = reseal_rows(session, "drive", None, 3)
    assert (batch.rows, batch.last) == (3, (job_id, 3))
    with engine().connect() as connection:
        raw = type_coerce(col(Drive.drive_id), LargeBinary)
        sealed = connection.execute(select(raw).order_by(col(Drive.number))).scalars().all()
    assert [number_of(value) for value in sealed] == [2, 2, 2, 1, 1]
    with writing() as session:
        assert reseal_rows(session, "drive", (job_id, 4), 3).last == (job_id, 5)
        assert rows_of_older_keys(session, "drive") == 1, "what lies before is found from the beginning alone"


def test_an_act_of_resealing_ends_at_its_limit(any_database: str) -> None:
    """However large its batches are, and says where the next one goes on."""
    job_id = fill("job1", drives=7)
    turn()
    part = reseal_part.fn("drive", None, 2, 3)
    assert (part.rows, part.last) == (3, (job_id, 3))
    part = reseal_part.fn("drive", part.last, 500, 3)
    assert (part.rows, part.last) == (3, (job_id, 6))
    part = reseal_part.fn("drive", part.last, 2, 3)
    assert (part.rows, part.last) == (1, None)


class Cut(BaseException):
    """The process is gone."""


def test_a_rotation_cut_between_or_within_batches_goes_on(any_database: str, thorough: bool) -> None:
    """After any number of batches, and in the middle of one: nothing is lost, and nothing done twice."""
    fill("job1", drives=4)
    save_address()
    before = everything()
    rows = 4 + 1 + 2 + 1 + 1 + 1
    for at in range(2 * rows) if thorough else (0, 1, 4, 7, 12, 15, 2 * rows - 1):
        newest = turn().newest
        with pytest.raises(Cut):
            reseal_until(at)
        assert everything() == before
        assert turn() == Turned(newest, (newest - 1,)), "no key is new while one turns"
        assert reseal() == rows - (at + 1) // 2
        assert everything() == before
        assert forget()
        assert destroy_older_keys(newest)
        assert kept() == known() == [newest]


def reseal_until(at: int) -> None:
    """Seal anew row by row, and be cut: twice the row's number is within its transaction, one more is after it."""
    points = count()
    for name in sealed_tables():
        after: Key | None = None
        while True:
            with writing() as session:
                batch = reseal_rows(session, name, after, 1)
                if batch.last is None:
                    break
                if next(points) == at:
                    raise Cut
            after = batch.last
            if next(points) == at:
                raise Cut


def live(name: str, stop: Event) -> list[str]:
    """Write, change and delete jobs until told to stop; gives the names of those that stay."""
    stay = []
    for number in count():
        own = f"{name}-{number}"
        job_id = fill(own)
        with writing() as session:
            session.get_one(ReturnAddress, job_id).email = f"{own}@example.com"
            session.flush()
            if number % 2:
                session.connection().execute(delete(Job).where(col(Job.id) == job_id))
            else:
                stay.append(own)
        # SQLite lets one writer in at a time, and not the one that waits longest.
        if stop.wait(0.01):
            break
    return stay


def look(stop: Event) -> list[str]:
    """Read all there is until told to stop."""
    while not stop.wait(0.01):
        with reading() as session:
            assert all(session.exec(select(col(ReturnAddress.recipient_name))).all())
            assert all(session.exec(select(col(Drive.drive_id))).all())
    return []


def test_jobs_are_written_changed_deleted_and_read_while_keys_turn(any_database: str) -> None:
    """By several at once, through two rotations: nobody meets an error, and nothing is lost or changed."""
    stop = Event()
    fill("first", drives=5)
    with ThreadPoolExecutor(3) as pool:
        living = [pool.submit(live, "a", stop), pool.submit(live, "b", stop), pool.submit(look, stop)]
        try:
            for newest in (2, 3):
                assert turn().newest == newest
                while not retire_older_keys.fn():
                    reseal(20)
                assert destroy_older_keys(newest)
        finally:
            stop.set()
        stay = [name for each in living for name in each.result(timeout=60)]
    assert key_numbers() == {3}
    assert kept() == known() == [3]
    use_ring(None)
    with reading() as session:
        for name in stay:
            job_id = find_job(session, f"s1/g1/{name}")
            assert session.get_one(ReturnAddress, job_id).email == f"{name}@example.com"
            assert [drive.drive_id for drive in drives_of(session, job_id)] == [f"{name}-serial-1", f"{name}-last"]


def test_a_key_is_not_forgotten_while_a_value_of_any_column_is_sealed_with_it(any_database: str) -> None:
    """Each column by itself, as a row that appears late; then it is found and sealed anew."""
    fill("job1")
    save_address()
    before = everything()
    old = read_ring()
    turn()
    reseal()
    for column in COLUMNS:
        with engine().begin() as connection:
            chosen = [
                key == value
                for key, value in zip(column.table.primary_key, first_row(connection, column), strict=True)
            ]
            late = old.seal(column.type.place, connection.scalar(select(column).where(*chosen)))
            put = column.table.update().where(*chosen).values({column: bindparam("late", type_=LargeBinary)})
            connection.execute(put, {"late": late})
        with reading() as session:
            assert {name: rows_of_older_keys(session, name) for name in sealed_tables()} == {
                name: int(name == column.table.name) for name in sealed_tables()
            }
        assert not forget()
        assert known() == kept() == [1, 2]
        assert reseal_table(column.table.name) == [1]
    assert forget()
    assert known() == [2]
    assert everything() == before


def first_row(connection: Any, column: Any) -> tuple[Any, ...]:
    """Give the key of a row that has a value in a column."""
    row = connection.execute(select(*column.table.primary_key).where(column.is_not(None)).limit(1)).one()
    return tuple(row)


def test_writers_that_are_under_way_are_waited_for_before_a_key_is_forgotten(any_database: str) -> None:
    """What such a one seals is counted, so that its key stays."""
    fill("job1")
    old = read_ring()
    turn()
    reseal()
    begun, may_end = Event(), Event()

    def write_slowly() -> None:
        with writing() as session:
            begun.set()
            assert may_end.wait(30)
            # As a process would that did not follow.
            session.connection().execute(
                text("UPDATE package SET tracking_number = :late"),
                {"late": old.seal("package.tracking_number", "late")},
            )

    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(write_slowly)
        assert begun.wait(30)
        forgetting = pool.submit(forget)
        with pytest.raises(TimeoutError):
            forgetting.result(timeout=0.2)
        may_end.set()
        slow.result(timeout=30)
        assert forgetting.result(timeout=30) is False
    assert known() == [1, 2]


def test_rows_that_somebody_holds_are_passed_over_and_done_later(postgresql: str) -> None:
    """Nobody waits for anybody; until they are done the key stays."""
    job_id = fill("job1", drives=4)
    turn()
    with reading() as holder:
        held = select(Drive).where(col(Drive.job_id) == job_id, col(Drive.number) == 2)
        holder.exec(held.with_for_update()).one()
        assert reseal_table("drive", 2) == [2, 1]
        assert reseal_table("drive", 2) == []
        for name in sealed_tables():
            reseal_table(name)
        assert not forget()
        assert kept() == known() == [1, 2]
        assert (
            holder.connection().scalar(select(col(Drive.drive_id)).where(col(Drive.number) == 2))
            == "job1-serial-2"
        )
    assert reseal_table("drive", 2) == [1]
    assert forget()
    assert known() == [2]


def test_a_rotation_that_is_under_way_is_told_and_goes_on(any_database: str) -> None:
    """Asked as often as like, there is one new key; who began it, and when, stays."""
    with reading() as session:
        assert rotation_under_way(session)[0] == Turned(1, ())
    for minutes in (0, 5):
        with writing() as session:
            assert turn_key(session, NOON + timedelta(minutes=minutes)) == Turned(2, (1,))
    with reading() as session:
        assert rotation_under_way(session) == (Turned(2, (1,)), NOON)
    assert kept() == known() == [1, 2]
    assert forget()
    with reading() as session:
        assert rotation_under_way(session) == (Turned(2, ()), NOON)


def test_a_dropped_rotation_is_found_once_it_is_idle(any_database: str) -> None:
    """Not one that is under way for a short while, nor when none is."""
    hour = timedelta(hours=1)
    assert find_dropped_rotation.fn(timedelta(0)) is None
    turn()
    set_begun(hours=0.9)
    assert find_dropped_rotation.fn(hour) is None
    set_begun(hours=1.1)
    assert find_dropped_rotation.fn(hour) == Turned(2, (1,))
    assert forget()
    assert find_dropped_rotation.fn(hour) is None


def set_begun(hours: float) -> None:
    """Let the newest key be in use for some hours."""
    with writing() as session:
        newest = session.exec(select(SealingKey).order_by(col(SealingKey.number).desc())).first()
        assert newest is not None
        newest.in_use_since = database_time(session) - timedelta(hours=hours)


def test_no_key_turns_where_the_file_has_other_keys_than_this_process(any_database: str) -> None:
    """It may have been moved or changed since they were read: a new key beside the wrong ones would hide that."""
    fill("job1")
    rotate()
    # From here on this process reads the file no more by itself.
    fill("job2")
    path, good = Settings().key_file, Settings().key_file.read_text()
    for spoilt in (f"2:{'ee' * KEY_BYTES}\n", f"1:{'ee' * KEY_BYTES}\n"):
        path.write_text(spoilt)
        with pytest.raises(SealingKeyError, match="put the key file back"):
            turn()
        assert path.read_text() == spoilt
    path.unlink()
    with pytest.raises(SealingKeyError, match="put the key file back"):
        turn()
    assert not path.exists()
    assert known() == [2]
    path.write_text(good)
    path.chmod(0o600)
    assert rotate() == 3


def test_keys_by_a_setting_turn_when_a_higher_one_is_there(
    any_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And are destroyed by whoever takes the old one out; no file is made or changed."""
    fill("job1")
    before = everything()
    keys = read_keys(Settings())
    assert keys is not None
    first, second = f"1:{keys[1].hex()}", f"9:{'9a' * KEY_BYTES}"
    shutil.rmtree(Settings().key_file.parent)
    monkeypatch.setenv("DRIVEPOST_SEALING_KEYS", first)
    use_ring(None)
    assert turn() == Turned(1, ())
    assert known() == [1]
    monkeypatch.setenv("DRIVEPOST_SEALING_KEYS", f"{first},{second}")
    assert turn() == Turned(9, (1,))
    reseal()
    assert key_numbers() == {9}
    assert forget()
    assert destroy_older_keys(9) is False
    assert turn() == Turned(9, ()), "there is none that is newer"
    monkeypatch.setenv("DRIVEPOST_SEALING_KEYS", second)
    assert destroy_older_keys(9) is True
    assert everything() == before
    assert not Settings().key_file.parent.exists()


def test_a_value_that_does_not_open_stops_the_resealing_and_keeps_the_key(any_database: str) -> None:
    """It may be repaired from a backup, and then needs it; the error names the place and not the value."""
    fill("job1")
    with engine().begin() as connection:
        connection.execute(text("UPDATE return_address SET city = email"))
    turn()
    with pytest.raises(SealedValueError, match=r"a value in return_address\.city does not open"):
        reseal()
    assert not forget()
    assert kept() == known() == [1, 2]


# The promise itself.


@contextmanager
def backup(url: str, folder: Path, server: str | None) -> Iterator[str]:
    """Take a copy of the whole database, as a backup would; gives the copy's address."""
    if server is None:
        copied = folder.parent / "backup"
        copied.mkdir()
        for path in folder.glob("drivepost.db*"):
            shutil.copy(path, copied)
        yield f"sqlite:///{copied}/drivepost.db"
        return
    name = str(make_url(url).database)
    engine().dispose()
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}_backup" TEMPLATE "{name}"')
    yield url.replace(f"/{name}", f"/{name}_backup")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}_backup" WITH (FORCE)')


def whatever_opens(url: str, folder: Path) -> dict[str, set[str]]:
    """Try to read every sealed value of a database with everything that is on disk: place -> texts that opened.

    Whatever looks like a key in any file of the data directory is tried as a key of every number.
    """
    found = {
        bytes.fromhex(digits.decode())
        for path in folder.rglob("*")
        if path.is_file()
        for digits in re.findall(rb"(?=([0-9a-fA-F]{64}))", path.read_bytes())
    }
    assert found
    opened = open_engine(url, 5)
    opening: dict[str, set[str]] = {}
    for place, values in raw_values(opened).items():
        assert values
        for value in values:
            number = number_of(value)
            assert number is not None
            for key in found:
                try:
                    found_text = KeyRing({number: key}).open(place, value)
                except SealedValueError:
                    continue
                opening.setdefault(place, set()).add(found_text)
    opened.dispose()
    return opening


def test_what_was_deleted_can_be_read_from_no_backup_after_a_rotation(
    any_database: str, data_directory: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup is restored and everything tried: before the rotation all of it opens, and after it nothing."""
    goes, _ = fill("goes"), fill("stays")
    save_address()
    held = everything()
    server = None if any_database.startswith("sqlite") else request.getfixturevalue("postgresql_server")
    with backup(any_database, data_directory, server) as copy:
        with writing() as session:
            session.connection().execute(delete(Job).where(col(Job.id) == goes))
        # The control: without a rotation the very same attempt succeeds.
        opening = whatever_opens(copy, data_directory)
        assert {place: sorted(texts) for place, texts in opening.items()} == {
            place: sorted({text for text in texts if text is not None}) for place, texts in held.items()
        }
        assert "goes-bitlocker-1" in opening["drive.bit_locker_key"]
        left = everything()
        rotate()
        assert whatever_opens(copy, data_directory) == {}
        assert_application_reads_nothing(copy, monkeypatch)
    # The other control: what lives opens, by the application and by the attempt.
    assert everything() == left
    assert "stays-bitlocker-1" in whatever_opens(any_database, data_directory)["drive.bit_locker_key"]


def assert_application_reads_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start on a restored backup: refused, told why, and every reading too."""
    with monkeypatch.context() as patch:
        patch.setenv("DRIVEPOST_DATABASE_URL", url)
        engine().dispose()
        engine.cache_clear()
        use_ring(None)
        with pytest.raises(SealingKeyError, match="the database is sealed with key 1, which is not there"):
            upgrade(url)
        with reading() as session:
            for column in COLUMNS:
                with pytest.raises(SealingKeyError, match="is sealed with key 1, which is not there"):
                    session.connection().execute(select(column).where(column.is_not(None))).all()
            assert session.exec(select(col(Job.name)).order_by(col(Job.name))).all() == ["goes", "stays"]
        engine().dispose()
    engine.cache_clear()
    use_ring(None)


def test_neither_the_file_nor_the_log_of_sqlite_gives_a_key_away(sqlite: str, data_directory: Path) -> None:
    """A copy of the whole data directory, made after the rotation, holds nothing that opens the backup."""
    fill("goes")
    save_address()
    with backup(sqlite, data_directory, None) as copy:
        keys = read_keys(Settings())
        assert keys is not None
        rotate()
        for path in data_directory.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert keys[1] not in content
                assert keys[1].hex().encode() not in content.lower()
        assert whatever_opens(copy, data_directory) == {}
