"""Which keys the database is sealed with: no start without them, and nobody seals with one that is to go."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Event
from time import monotonic, sleep
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import LargeBinary, bindparam, text, type_coerce
from sqlmodel import Session, SQLModel, select

from models import database
from models.columns import Sealed
from models.database import engine, reading, writing
from models.drives import Drive, ExtraDrive
from models.errors import DrivepostError, SealedValueError, SealingKeyError
from models.key_files import add_key, destroy_keys, read_keys, ring, use_ring
from models.lifecycle import JobState
from models.portal import PortalSettings, SavedAddress
from models.rotation import sealed_tables, turn_key
from models.sealing import KEY_BYTES, KeyRing, number_of
from models.sealing_keys import (
    SealingKey,
    exclude_writers,
    follow,
    known_keys,
    make_keys,
    require_keys,
)
from models.settings import Settings
from models.shipping import Package
from models.tables import require_current_tables, upgrade
from tests.builders import ADDRESS, NOON, drive_of, job_in, with_every_row

WRONG: Final = "ee" * KEY_BYTES
BITLOCKER: Final = "238810-662376-238810"


@pytest.fixture
def job_id(any_database: str) -> UUID:
    """A job with a row in every table, and a user's settings; sealed with key 1."""
    with writing() as session:
        made = job_in(session, JobState.SHIPPING, driveList=[{**DRIVE_ENTRY, "bitLockerKey": BITLOCKER}])
        with_every_row(session, made)
        drive = session.get_one(Drive, (made, 1))
        drive.error_log_uri, drive.verbose_log_uri, drive.manifest_uri = "uri/error", "uri/verbose", "uri/manifest"
        save_address(session)
    return made


DRIVE_ENTRY: Final = {"driveId": "SERIAL1", "manifestFile": "\\m.xml", "manifestHash": "A" * 32}


def save_address(session: Session) -> None:
    """Save an address for the next job, as a user does."""
    user = PortalSettings(user_id=UUID(int=7), created_at=NOON, updated_at=NOON)
    session.add(user)
    session.flush()
    texts = {re.sub(r"([A-Z]|\d+)", r"_\1", name).lower(): f"saved {value}" for name, value in ADDRESS.items()}
    session.add(
        SavedAddress(settings_id=user.id, carrier_name="UPS", carrier_account_number="SAVED-ACCOUNT", **texts)
    )


def sealed_columns() -> Iterator[Any]:
    """Give every sealed column of every table."""
    for name in sealed_tables():
        yield from (column for column in SQLModel.metadata.tables[name].columns if isinstance(column.type, Sealed))


def everything_there(folder: Path) -> dict[str, Any]:
    """Take down all that a refused start must leave alone: every byte on SQLite, every row on PostgreSQL."""
    if Settings().database.startswith("sqlite"):
        engine().dispose()
        rows = {}
    else:
        with engine().connect() as connection:
            rows = {
                name: sorted(repr(row) for row in connection.execute(text(f'SELECT * FROM "{name}"')))  # noqa: S608
                for name in ("alembic_version", *SQLModel.metadata.tables)
            }
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {**rows, **files}


def numbers_of(column: Any) -> set[int | None]:
    """Tell by which keys the values of a column are sealed."""
    with engine().connect() as connection:
        raw = connection.execute(select(type_coerce(column, LargeBinary)).where(column.is_not(None))).scalars()
        return {number_of(value) for value in raw}


def missing(key_file: Path) -> str:
    """No file at all."""
    key_file.unlink()
    return "the key file .*sealing.keys is missing; put the key file back from its backup"


def folder_missing(key_file: Path) -> str:
    """Not even its folder."""
    shutil.rmtree(key_file.parent)
    return "the key file .*sealing.keys is missing; put the key file back from its backup"


def wrong(key_file: Path) -> str:
    """A file of somebody else's database."""
    key_file.write_text(f"1:{WRONG}\n")
    return "key 1 is not the one that the database is sealed with; put the key file back from its backup"


def other_number(key_file: Path) -> str:
    """The very key, by another number."""
    key_file.write_text(key_file.read_text().replace("\n1:", "\n2:"))
    return "the database is sealed with key 1, which is not there; put the key file back from its backup"


def newer_alone(key_file: Path) -> str:
    """A file that was made anew for the next key."""
    key_file.write_text(f"2:{WRONG}\n")
    return "the database is sealed with key 1, which is not there; put the key file back from its backup"


def damaged(key_file: Path) -> str:
    """Half a line."""
    key_file.write_text(key_file.read_text()[:-5])
    return "must hold keys alone"


def empty(key_file: Path) -> str:
    """What a full disk leaves."""
    key_file.write_text("")
    return "holds no key; put the key file back from its backup"


def readable(key_file: Path) -> str:
    """The right keys, which everyone may read."""
    key_file.chmod(0o644)
    return "has mode 0644, so that others may read it; chmod 600 it"


SPOILED: Final = (missing, folder_missing, wrong, other_number, newer_alone, damaged, empty, readable)


def start_and_work(url: str) -> list[Callable[[], object]]:
    """Everything that a start or a write begins with."""

    def write() -> None:
        with writing() as session:
            session.connection().execute(text("UPDATE job SET name = 'changed'"))

    return [lambda: upgrade(url), require_current_tables, write]


def test_a_start_without_the_right_keys_is_refused_and_touches_nothing(
    any_database: str, job_id: UUID, data_directory: Path
) -> None:
    """Neither upgrade, nor start, nor a write; with the file put back all is as it was."""
    kept = shutil.copytree(data_directory / "keys", data_directory.parent / "kept")
    for spoil in SPOILED:
        match = spoil(Settings().key_file)
        before = everything_there(data_directory)
        assert before
        for act in start_and_work(any_database):
            use_ring(None)
            with pytest.raises(SealingKeyError, match=match) as refused:
                act()
            assert not re.search(r"[0-9a-f]{16}", str(refused.value))
            assert everything_there(data_directory) == before, (spoil, act)
        shutil.copytree(kept, data_directory / "keys", dirs_exist_ok=True)
    for act in start_and_work(any_database):
        use_ring(None)
        act()
    assert drive_of(job_id).bit_locker_key == BITLOCKER


def test_every_key_that_is_known_must_be_there(any_database: str, job_id: UUID, data_directory: Path) -> None:
    """Not the newest alone, nor the oldest alone, while a rotation is under way; one more does no harm."""
    with writing() as session:
        turn_key(session, NOON)
    lines = [line for line in Settings().key_file.read_text().splitlines() if not line.startswith("database:")]
    for left, lost in ((lines[:2], 2), ([lines[0], lines[2]], 1)):
        Settings().key_file.write_text("\n".join(left))
        before = everything_there(data_directory)
        for act in start_and_work(any_database):
            use_ring(None)
            with pytest.raises(SealingKeyError, match=f"sealed with key {lost}, which is not there"):
                act()
        assert everything_there(data_directory) == before
    Settings().key_file.write_text("\n".join([*lines, f"3:{WRONG}"]))
    for act in start_and_work(any_database):
        use_ring(None)
        act()
    assert ring().sealing_number == 2, "the database says which key seals, and not the file"


def test_keys_by_a_setting_are_checked_too(
    any_database: str, job_id: UUID, data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of the file, which may then be gone."""
    keys = read_keys(Settings())
    assert keys is not None
    shutil.rmtree(data_directory / "keys")
    before = everything_there(data_directory)
    for given, match in (
        (f"1:{WRONG}", "key 1 is not the one"),
        (f"5:{keys[1].hex()}", "key 1, which is not there"),
    ):
        monkeypatch.setenv("DRIVEPOST_SEALING_KEYS", given)
        for act in start_and_work(any_database):
            use_ring(None)
            with pytest.raises(SealingKeyError, match=match):
                act()
        assert everything_there(data_directory) == before
    monkeypatch.setenv("DRIVEPOST_SEALING_KEYS", f"1:{keys[1].hex()}")
    for act in start_and_work(any_database):
        use_ring(None)
        act()
    assert drive_of(job_id).bit_locker_key == BITLOCKER
    assert not (data_directory / "keys").exists()


def read_given(given: str) -> dict[int, bytes]:
    """Read keys as a setting gives them."""
    return {int(number): bytes.fromhex(key) for number, key in (each.split(":") for each in given.split(","))}


@pytest.fixture
def empty_database(any_database: str) -> str:
    """A database without tables, and no keys anywhere."""
    with engine().begin() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
        SQLModel.metadata.drop_all(connection)
    shutil.rmtree(Settings().key_file.parent)
    use_ring(None)
    return any_database


def test_a_first_start_makes_a_key_and_makes_it_known(empty_database: str) -> None:
    """Once: what comes after finds it, and the database has a proof of it and not the key."""
    upgrade(empty_database)
    keys = read_keys(Settings())
    assert keys is not None
    assert list(keys) == [1]
    with engine().connect() as connection:
        known = known_keys(connection)
        assert list(known) == [1]
        assert KeyRing(keys).fits(1, known[1])
        assert keys[1] not in known[1]
        upgrade(empty_database)
        assert known_keys(connection) == known
    assert read_keys(Settings()) == keys
    with writing() as session:
        job_in(session, JobState.CREATING)


@pytest.mark.parametrize("is_setting", [True, False])
def test_a_new_database_takes_the_keys_that_are_there(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, is_setting: bool
) -> None:
    """Its highest number seals; the file stays as it is, or none is made."""
    given = f"3:{'cc' * KEY_BYTES},8:{'ab' * KEY_BYTES},5:{WRONG}"
    if is_setting:
        monkeypatch.setenv("DRIVEPOST_SEALING_KEYS", given)
    else:
        Settings().key_file.parent.mkdir()
        Settings().key_file.write_text(given.replace(",", "\n"))
        Settings().key_file.chmod(0o600)
    upgrade(empty_database)
    with engine().connect() as connection:
        assert list(known_keys(connection)) == [8]
        owner = UUID(str(connection.scalar(text("SELECT database_id FROM sealing_key"))))
    with writing() as session:
        job_in(session, JobState.CREATING)
    assert numbers_of(SQLModel.metadata.tables["drive"].columns["drive_id"]) == {8}
    if is_setting:
        assert not Settings().key_file.parent.exists()
    else:
        assert read_keys(Settings()) == read_given(given)
        assert f"database:{owner}" in Settings().key_file.read_text()


def test_a_first_start_with_unusable_keys_is_refused(empty_database: str) -> None:
    """No table is made that the right keys would not fit later, and no key in place of one that is damaged."""
    Settings().key_file.parent.mkdir()
    Settings().key_file.write_text("damaged")
    Settings().key_file.chmod(0o600)
    with pytest.raises(SealingKeyError, match="must hold keys alone"):
        upgrade(empty_database)
    with engine().connect() as connection:
        assert not engine().dialect.has_table(connection, "job")
        assert known_keys(connection) == {}
        with pytest.raises(SealingKeyError, match="must hold keys alone"):
            require_keys(connection)
    assert Settings().key_file.read_text() == "damaged"


def test_a_database_that_knows_no_key_yet_is_content_with_any_or_none(empty_database: str) -> None:
    """There is nothing in it to be opened."""
    with engine().connect() as connection:
        require_keys(connection)
        make_keys()
        require_keys(connection)
    assert read_keys(Settings()) is not None


def test_nobody_writes_before_the_database_knows_a_key(any_database: str) -> None:
    """Else there would be values that no start asks a key for."""
    with engine().begin() as connection:
        connection.execute(text("DELETE FROM sealing_key"))
    use_ring(None)
    with (
        pytest.raises(SealingKeyError, match="knows no sealing key yet; run 'drivepost database upgrade'"),
        writing(),
    ):
        pass


def test_a_key_file_is_one_databases_own(
    any_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second database on it is refused at its first start: each rotation would destroy the other's keys."""
    upgrade(any_database)
    before = Settings().key_file.read_bytes()
    assert b"database:" in before
    second = f"sqlite:///{tmp_path}/second.db"
    for _ in range(2):
        with pytest.raises(SealingKeyError, match=r"belongs to another database.*DRIVEPOST_SEALING_KEY_FILE"):
            upgrade(second)
        assert Settings().key_file.read_bytes() == before
    monkeypatch.setenv("DRIVEPOST_SEALING_KEY_FILE", str(tmp_path / "second.keys"))
    upgrade(second)
    with engine().connect() as connection, pytest.raises(SealingKeyError, match="belongs to another database"):
        require_keys(connection)


def test_a_key_file_stays_its_databases_own_through_rotations(any_database: str) -> None:
    """Whatever is written to it."""
    upgrade(any_database)
    (owner,) = [line for line in Settings().key_file.read_text().splitlines() if line.startswith("database:")]
    add_key(Settings(), 2)
    destroy_keys(Settings(), below=2)
    lines = Settings().key_file.read_text().splitlines()
    assert owner in lines
    assert list(read_keys(Settings()) or {}) == [2]


def test_a_key_that_was_exchanged_under_a_running_process_is_found_out(any_database: str) -> None:
    """By the database's proof, and not by its number alone."""
    with writing():
        pass
    with engine().begin() as connection:
        proof = KeyRing({1: bytes(32)}).prove()
        connection.execute(text("UPDATE sealing_key SET proof = :proof"), {"proof": proof})
    with pytest.raises(SealingKeyError, match="key 1 is not the one"), writing():
        pass


def test_a_key_that_is_known_stays_known(any_database: str) -> None:
    """A newer one in the file is not made known by a start, but by a rotation alone."""
    with engine().connect() as connection:
        before = known_keys(connection)
        add_key(Settings(), 2)
        upgrade(any_database)
        assert known_keys(connection) == before
    with writing() as session:
        job_in(session, JobState.CREATING)
    assert numbers_of(SQLModel.metadata.tables["drive"].columns["drive_id"]) == {1}


def turn() -> None:
    """Turn to a new key, as a rotation begins."""
    with writing() as session:
        turn_key(session, NOON)


def test_a_turn_waits_for_those_who_write_and_the_next_ones_wait_for_it(any_database: str) -> None:
    """So that nobody seals with the old key once the new one is known."""
    told: list[str] = []
    begun, may_end = Event(), Event()

    def write_slowly() -> None:
        with writing() as session:
            begun.set()
            assert may_end.wait(30)
            job_in(session, JobState.CREATING, "slow")
            told.append("slow")

    def turn_and_tell() -> None:
        with writing() as session:
            turn_key(session, NOON)
            told.append("turned")

    def write_next() -> None:
        with writing() as session:
            job_in(session, JobState.CREATING, "next")
            told.append("next")

    with ThreadPoolExecutor(3) as pool:
        slow = pool.submit(write_slowly)
        assert begun.wait(30)
        turning = pool.submit(turn_and_tell)
        wait_until_waiting(1)
        following = pool.submit(write_next)
        wait_until_waiting(2)
        with reading() as session:
            assert session.exec(select(SealingKey.number)).all() == [1]
        may_end.set()
        for each in (slow, turning, following):
            each.result(timeout=30)
    assert told.index("slow") == 0
    assert len(told) == 3
    order = {"slow": 1, "next": 2 if told.index("turned") == 1 else 1}
    assert sealing_numbers() == order
    if engine().dialect.name == "postgresql":
        assert told == ["slow", "turned", "next"]


def wait_until_waiting(count: int) -> None:
    """Wait until so many transactions wait for the lock of a turn; SQLite does not tell, and has one writer."""
    if engine().dialect.name != "postgresql":
        sleep(0.1)
        return
    asked = text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with engine().connect() as connection:
        until = monotonic() + 30
        while connection.scalar(asked) != count:
            assert monotonic() < until, "nobody waits"
            sleep(0.01)


def sealing_numbers() -> dict[str, int | None]:
    """Tell by which key each job's drive is sealed."""
    sealed = text("SELECT job.name, drive.drive_id FROM job JOIN drive ON drive.job_id = job.id")
    with engine().connect() as connection:
        return {name: number_of(bytes(value)) for name, value in connection.execute(sealed)}


def test_writers_do_not_wait_for_one_another(postgresql: str) -> None:
    """On PostgreSQL as many as like; only a turn excludes them."""
    with writing() as first, writing() as second:
        for session in (first, second):
            held = (
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()"
            )
            assert session.connection().scalar(text(held)) == 1


def test_who_excludes_writers_does_so_until_the_end_alone(any_database: str) -> None:
    """Ended well or badly."""

    def exclude_and_fail() -> None:
        with writing() as session:
            exclude_writers(session)
            raise RuntimeError

    for _ in range(2):
        with pytest.raises(RuntimeError):
            exclude_and_fail()
    with writing() as session:
        exclude_writers(session)
    with writing() as session:
        job_in(session, JobState.CREATING)


def test_a_turn_that_is_undone_turns_nobody(any_database: str) -> None:
    """A key that is in the file alone seals nothing; the next turn takes it."""

    def turn_and_fail() -> None:
        with writing() as session:
            turn_key(session, NOON)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        turn_and_fail()
    keys = read_keys(Settings())
    assert set(keys or ()) == {1, 2}
    with writing() as session:
        job_in(session, JobState.CREATING, "after")
    assert sealing_numbers() == {"after": 1}
    turn()
    assert read_keys(Settings()) == keys
    with writing() as session:
        job_in(session, JobState.CREATING, "turned")
    assert sealing_numbers() == {"after": 1, "turned": 2}


def test_another_process_follows_a_turn(any_database: str, job_id: UUID) -> None:
    """One that read the keys before: it opens what the new key sealed, and its next write seals with it."""
    processes = get_context("fork")
    ours, theirs = processes.Pipe()

    def live() -> None:
        # What was open belongs to the parent; the keys that were read are this process's own.
        engine.cache_clear()
        told: Any
        while (word := theirs.recv()) != "end":
            try:
                told = act(word)
            except DrivepostError as error:
                told = error.line
            theirs.send((told, ring().sealing_number, sorted(ring().numbers)))
        os._exit(0)

    def act(word: str) -> str | None:
        if word == "read":
            return read_all(job_id)
        with writing() as session:
            job_in(session, JobState.CREATING, word)
        return None

    def ask(word: str) -> Any:
        ours.send(word)
        assert ours.poll(30), "the other process does not answer"
        return ours.recv()

    everything = read_all(job_id)
    process = processes.Process(target=live, daemon=True)
    process.start()
    try:
        assert ask("before") == (None, 1, [1])
        turn()
        with writing() as session:
            session.get_one(Drive, (job_id, 1)).drive_id = "anew"
        assert ask("read") == (everything.replace("SERIAL1", "anew"), 1, [1, 2])
        assert ask("after") == (None, 2, [1, 2])
    finally:
        ours.send("end")
        process.join(timeout=30)
    assert {**sealing_numbers(), "job1": None} == {"before": 1, "job1": None, "after": 2}


def read_all(job_id: UUID) -> str:
    """Read everything sealed of a job."""
    with reading() as session:
        drive, package = session.get_one(Drive, (job_id, 1)), session.exec(select(Package)).first()
        extra = session.exec(select(ExtraDrive)).one()
        assert package is not None
        return f"{drive.drive_id} {drive.bit_locker_key} {drive.error_log_uri} {extra.drive_id}"


def test_keys_are_asked_for_once_as_long_as_nothing_turns(
    any_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write costs no reading of the file."""
    with writing():
        pass
    held = ring()
    monkeypatch.setattr("models.sealing_keys.read_ring", lambda: pytest.fail("it was read again"))
    for _ in range(3):
        with writing():
            pass
    assert ring() is held
    assert list(held.proven) == [1]


def test_follow_comes_first_in_every_transaction_that_writes(
    any_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is read or sealed there."""
    told = []

    def tell(session: Session) -> None:
        told.append(session.in_transaction())
        follow(session)

    monkeypatch.setattr(database, "follow", tell)
    with writing() as session:
        assert told == [True]
        assert not session.new
    with reading():
        assert told == [True]


def test_a_value_moved_to_any_other_place_does_not_open(any_database: str, job_id: UUID) -> None:
    """Into each sealed column from another one, of the same table and of others; back in its place it opens."""
    columns = list(sealed_columns())
    assert len(columns) == 27
    with engine().connect() as connection:
        raw = {column: connection.scalar(select(type_coerce(column, LargeBinary))) for column in columns}
    assert all(raw.values())
    for here, column in enumerate(columns):
        put = column.table.update().values({column: bindparam("moved", type_=LargeBinary)})
        # The next one, and the same column's of another table, or the one after.
        alike = [other for other in columns if other.name == column.name and other is not column]
        for other in {columns[(here + 1) % len(columns)], *alike[:1], columns[here - 5]}:
            with engine().begin() as connection:
                connection.execute(put, {"moved": raw[other]})
                with pytest.raises(
                    SealedValueError, match=re.escape(f"{column.table.name}.{column.name}")
                ) as refused:
                    connection.execute(select(column)).all()
                assert not re.search("SERIAL|Ada|238810|saved |uri/", str(refused.value))
        with engine().begin() as connection:
            connection.execute(put, {"moved": raw[column]})
            assert connection.scalar(select(column)) is not None


def test_a_value_of_another_row_opens(any_database: str, job_id: UUID) -> None:
    """What is bound in is table and column, and not the row; it is written here so that nobody relies on more."""
    with writing() as session:
        other = job_in(session, JobState.CREATING, "other")
    with engine().begin() as connection:
        connection.execute(
            text(
                "UPDATE drive SET drive_id = (SELECT drive_id FROM drive WHERE job_id = :here) "
                "WHERE job_id = :there"
            ),
            {"here": _id(job_id), "there": _id(other)},
        )
    assert drive_of(other).drive_id == "SERIAL1"


def _id(job_id: UUID) -> Any:
    return job_id.hex if engine().dialect.name == "sqlite" else job_id


def test_no_key_is_in_the_database(sqlite: str, data_directory: Path) -> None:
    """Nor anywhere else in the data directory, in any form that a byte search finds; the key file has it."""
    with writing() as session:
        job_in(session, JobState.CREATING)
    turn()
    engine().dispose()
    keys = read_keys(Settings())
    assert keys is not None
    for path in data_directory.rglob("*"):
        if path.is_file() and path != Settings().key_file:
            content = path.read_bytes().lower()
            for key in keys.values():
                assert key not in content
                assert key.hex().encode() not in content
    assert all(key.hex() in Settings().key_file.read_text() for key in keys.values())
