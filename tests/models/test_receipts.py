"""Deletion receipts: one chain that is whole, and every kind of damage to it is found."""

# ruff: noqa: S608  an intruder's statements are made of names of ours

import base64
import hashlib
import random
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime, timedelta, timezone
from itertools import combinations
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlalchemy import CursorResult, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, col, select

from models import receipts
from models.database import engine, open_engine, reading, return_free_pages, writing
from models.deletion import delete_job
from models.errors import DatabaseError, JobStateConflictError
from models.jobs import read_job
from models.lifecycle import Actor, JobState
from models.receipts import (
    FIRST_HASH,
    Deletion,
    OpenReceipt,
    Reason,
    ReceiptChain,
    ReceiptEntry,
    ReceiptStep,
    Subject,
    Verified,
    begin_receipts,
    close_receipts,
    finished_receipts,
    verify_receipts,
)
from models.runs import JobRun, strike_run
from tests.builders import ACCOUNT, NOON, at_once, job_in, set_columns, with_every_row

MICROSECOND: Final = timedelta(microseconds=1)
LATER: Final = NOON + timedelta(hours=1)
JOB: Final = Deletion(uuid4(), Subject.JOB, Reason.RETENTION, NOON - timedelta(days=1), {"job": 1, "drive": 2})
ENTRIES: Final = 5
COLUMNS: Final = ("receipt_id", "opaque_id", "subject", "reason", "step", "due_at", "at", "counts", "hash")


def begin(*deletions: Deletion, at: datetime = NOON) -> list[UUID]:
    """Begin receipts in a transaction of their own; gives their ids."""
    with writing() as session:
        before = set(session.exec(select(OpenReceipt.receipt_id)))
        begin_receipts(session, deletions, at=at)
        opened = session.exec(select(OpenReceipt.receipt_id).order_by(col(OpenReceipt.begun))).all()
    return [receipt for receipt in opened if receipt not in before]


def close(*receipt_ids: UUID, at: datetime = LATER) -> int:
    """Close receipts in a transaction of their own."""
    with writing() as session:
        return close_receipts(session, receipt_ids, at=at)


def verify(head: str = "") -> Verified:
    """Look at every receipt as it is now."""
    with reading() as session:
        return verify_receipts(session, head=head)


def entries() -> list[ReceiptEntry]:
    """Read every entry in the order of the numbers."""
    with reading() as session:
        return list(session.exec(select(ReceiptEntry).order_by(col(ReceiptEntry.number))))


def open_receipts() -> set[UUID]:
    """Read which receipts are open."""
    with reading() as session:
        return set(session.exec(select(OpenReceipt.receipt_id)))


@pytest.fixture
def chain(any_database: str) -> list[ReceiptEntry]:
    """Five entries of three receipts: two of them closed, the second open."""
    (first,) = begin(JOB)
    erased = Deletion(uuid4(), Subject.PERSONAL_DATA, Reason.WISH, NOON + MICROSECOND, {"return_address": 1})
    _, third = begin(erased, Deletion(uuid4(), Subject.JOB, Reason.BY_HAND, NOON, {"job": 1}))
    assert close(first) == close(third) == 1
    made = entries()
    assert len(made) == ENTRIES
    assert verify().faults == ()
    return made


@pytest.fixture
def intruder(chain: list[ReceiptEntry], any_database: str) -> Iterator[Session]:
    """A session that writes past every check; all it did is undone."""
    opened = open_engine(any_database, 1).execution_options(writes=True)
    with Session(opened) as session:
        if any_database.startswith("sqlite"):
            # Outside of a transaction the setting holds, and none is begun yet on this very connection.
            raw = session.connection().connection.driver_connection
            assert raw is not None
            raw.execute("PRAGMA ignore_check_constraints = ON")
        else:
            checks = (
                "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = 'receipt_entry'::regclass"
            )
            for name in session.connection().execute(text(checks)).scalars().all():
                session.connection().execute(text(f'ALTER TABLE receipt_entry DROP CONSTRAINT "{name}"'))
        yield session
    opened.dispose()
    assert verify().faults == (), "the intruder's work was undone"


def faults_after(intruder: Session, *statements: str, head: str = "", **values: Any) -> tuple[str, ...]:
    """Damage, look, and undo; gives what was found."""
    with intruder.begin_nested() as damage:
        done = 0
        for statement in statements:
            result = intruder.connection().execute(text(statement), values)
            assert isinstance(result, CursorResult)
            done += result.rowcount
        assert done, "nothing was damaged, so that nothing is proven"
        found = verify_receipts(intruder, head=head)
        damage.rollback()
    return found.faults


# What a receipt tells.


def test_a_receipt_tells_what_was_deleted_why_since_when_and_how_much(any_database: str) -> None:
    """Its first entry all of it, its second when it was done."""
    (receipt,) = begin(JOB)
    assert open_receipts() == {receipt}
    assert close(receipt) == 1
    begun, done = entries()
    for entry in (begun, done):
        assert (entry.receipt_id, entry.opaque_id) == (receipt, JOB.opaque_id)
        assert (entry.subject, entry.reason, entry.due_at) == (JOB.subject, JOB.reason, JOB.due_at)
    assert (begun.number, begun.step, begun.at, begun.counts) == (1, ReceiptStep.BEGUN, NOON, JOB.counts)
    assert (done.number, done.step, done.at, done.counts) == (2, ReceiptStep.DONE, LATER, {})
    assert open_receipts() == set()


def test_a_moment_is_told_the_same_from_whatever_time_zone_it_comes(any_database: str) -> None:
    """And verifies as it was written."""
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))
    begin(Deletion(uuid4(), Subject.JOB, Reason.EXPIRY, elsewhere, {}), at=elsewhere)
    (entry,) = entries()
    assert entry.at == entry.due_at == NOON
    assert verify().faults == ()


def test_a_receipt_is_closed_once(any_database: str) -> None:
    """Again, it is not open; what never was open is not closed; nothing to close is no fault."""
    first, second = begin(JOB, Deletion(uuid4(), Subject.JOB, Reason.EXPIRY, NOON, {}))
    assert [close(first), close(first), close(uuid4()), close(), close(second, first)] == [1, 0, 0, 0, 1]
    assert [(entry.number, entry.receipt_id, entry.step) for entry in entries()] == [
        (1, first, "begun"),
        (2, second, "begun"),
        (3, first, "done"),
        (4, second, "done"),
    ]
    assert verify() == Verified(entries=4, receipts=2, unfinished=0, head=entries()[-1].hash, faults=())


def test_receipts_closed_together_keep_the_order_in_which_they_were_begun(any_database: str) -> None:
    """Whatever the order in which they are named."""
    begun = begin(*[Deletion(uuid4(), Subject.JOB, Reason.RETENTION, NOON, {"job": 1}) for _ in range(5)])
    assert close(*reversed(begun)) == 5
    assert [entry.receipt_id for entry in entries()] == begun * 2


def test_nothing_deleted_is_no_receipt(any_database: str) -> None:
    """An empty sweep leaves the chain as it is."""
    assert begin() == []
    assert verify() == Verified(entries=0, receipts=0, unfinished=0, head=FIRST_HASH, faults=())


def test_a_receipt_is_open_while_prefect_remembers_a_run_of_what_was_deleted(any_database: str) -> None:
    """The oldest first, as many as asked for; a run of a job that lives is not waited for."""
    first, waiting, erased = begin(
        *(
            Deletion(uuid4(), subject, Reason.WISH, NOON, {})
            for subject in (*[Subject.JOB] * 2, Subject.PERSONAL_DATA)
        )
    )
    opaque = {entry.receipt_id: entry.opaque_id for entry in entries()}
    runs = [uuid4(), uuid4()]
    with writing() as session:
        session.add(JobRun(job_id=uuid4(), flow_run_id=runs[0], is_job_deleted=True))
        session.add(JobRun(job_id=opaque[erased], flow_run_id=uuid4(), is_job_deleted=False))
        for run in runs:
            session.add(JobRun(job_id=opaque[waiting], flow_run_id=run, is_job_deleted=True))

    def finished(rows_max: int = 10) -> list[UUID]:
        with reading() as session:
            return list(finished_receipts(session, rows_max))

    assert finished() == [first, erased]
    assert finished(1) == [first]
    assert finished(0) == []
    for run in runs:
        assert finished() == [first, erased]
        with writing() as session:
            strike_run(session, run)
    assert finished() == [first, waiting, erased]
    close(first)
    assert finished() == [waiting, erased]


def test_a_deletion_that_is_undone_leaves_no_entry(any_database: str) -> None:
    """Nor an open receipt, nor a gap: the next entry is the first."""
    with writing() as session:
        job_id = job_in(session, JobState.COMPLETED)

    def delete_and_fail() -> None:
        with writing() as session:
            delete_job(session, job_id, at=NOON, by=Actor.OPERATOR)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        delete_and_fail()
    assert (entries(), open_receipts(), verify().entries) == ([], set(), 0)
    with reading() as session:
        assert read_job(session, job_id)
    (receipt,) = begin(JOB)

    def close_and_fail() -> None:
        with writing() as session:
            assert close_receipts(session, [receipt], at=LATER) == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        close_and_fail()
    assert [entry.number for entry in entries()] == [1]
    assert open_receipts() == {receipt}
    assert verify() == Verified(1, 1, 1, entries()[0].hash, ())


def test_deletions_at_the_same_moment_keep_one_chain(any_database: str) -> None:
    """Eight jobs in four threads, and receipts closed meanwhile: no number twice, none left out."""
    with writing() as session:
        made = [job_in(session, JobState.COMPLETED, f"job{number}") for number in range(8)]
    before = begin(*[Deletion(uuid4(), Subject.JOB, Reason.EXPIRY, NOON, {"job": 1}) for _ in range(6)])

    def delete_two(first: int) -> None:
        for job_id in made[first : first + 2]:
            with writing() as session:
                delete_job(session, job_id, at=NOON, by=Actor.OPERATOR)

    ends = at_once(
        *(lambda first=first: delete_two(first) for first in range(0, 8, 2)),
        *(lambda named=named: close(*named) for named in (before, before[::-1])),
    )
    assert ends[:4] == [None] * 4
    assert sorted(map(str, ends[4:])) == ["0", "6"]
    found = verify()
    assert (found.entries, found.receipts, found.unfinished, found.faults) == (20, 14, 8, ())
    assert sorted(str(e.opaque_id) for e in entries() if e.reason == "by hand") == sorted(map(str, made))


def test_a_deletion_is_refused_without_the_head_of_the_chain(any_database: str) -> None:
    """What cannot be proven is not deleted."""
    with writing() as session:
        job_id = job_in(session, JobState.COMPLETED)
        session.connection().execute(text("DELETE FROM receipt_chain"))
    with pytest.raises(DatabaseError, match="restore the database from a backup"), writing() as session:
        delete_job(session, job_id, at=NOON, by=Actor.OPERATOR)
    with reading() as session:
        assert read_job(session, job_id)
    assert entries() == []


# A chain that is whole.


def test_an_entry_is_hashed_as_it_is_written_here(any_database: str) -> None:
    """By hand: another way of hashing would tell of every chain there is that it was altered."""
    begin(JOB)
    close(*open_receipts())
    before = FIRST_HASH
    for entry, step, at, counts in zip(
        entries(),
        ("begun", "done"),
        ("2026-06-01 12:00:00.000000", "2026-06-01 13:00:00.000000"),
        ('{"drive": 2, "job": 1}', "{}"),
        strict=True,
    ):
        told = [before, str(entry.number), entry.receipt_id.hex, JOB.opaque_id.hex, "job", "retention", step]
        told += ["2026-05-31 12:00:00.000000", at, counts]
        assert entry.hash == hashlib.sha256("\n".join(told).encode()).hexdigest()
        before = entry.hash
    with reading() as session:
        (head,) = session.exec(select(ReceiptChain)).all()
    assert (head.id, head.entries, head.hash) == (1, 2, before)


@pytest.mark.parametrize("seed", range(6))
def test_a_chain_of_any_shape_verifies(any_database: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun and closed in any order and any number, read in pieces of any size."""
    chance = random.Random(seed)  # noqa: S311  the same each time
    monkeypatch.setattr(receipts, "_ROWS", chance.choice([1, 2, 3, 7]))
    begun: list[UUID] = []
    total = 0
    for _ in range(12):
        if chance.random() < 0.6:
            made = begin(
                *(
                    Deletion(
                        uuid4(),
                        chance.choice(list(Subject)),
                        chance.choice(list(Reason)),
                        NOON + timedelta(microseconds=chance.randrange(10**7)),
                        {f"table{number}": chance.randrange(10**6) for number in range(chance.randrange(4))},
                    )
                    for _ in range(chance.randrange(6))
                ),
                at=NOON + timedelta(microseconds=chance.randrange(3)),
            )
            begun += made
            total += len(made)
        else:
            chosen = chance.sample(begun, chance.randrange(len(begun) + 1))
            assert close(*chosen) == len(chosen)
            begun = [receipt for receipt in begun if receipt not in chosen]
        found = verify()
        assert found.faults == ()
        assert (found.receipts, found.unfinished) == (total, len(begun))
        assert found.entries == total * 2 - len(begun)
        assert found.head == (entries()[-1].hash if total else FIRST_HASH)
    for noted in {entry.hash for entry in entries()}:
        assert verify(noted).faults == ()


def test_entries_that_come_while_it_looks_are_no_fault(postgresql: str) -> None:
    """On PostgreSQL each statement sees what was committed before it: here one more receipt each, three times."""
    begin(JOB)
    coming = [Deletion(uuid4(), Subject.JOB, Reason.EXPIRY, NOON, {"job": number}) for number in range(3)]

    def let_come(*told: Any) -> None:
        if "SELECT id, entries, hash FROM receipt_chain" in told[2] and coming:
            begin(coming.pop())

    event.listen(engine(), "before_cursor_execute", let_come)
    try:
        found = verify()
    finally:
        event.remove(engine(), "before_cursor_execute", let_come)
    assert coming == []
    assert found == Verified(4, 4, 4, entries()[-1].hash, ())


def test_a_first_receipt_that_comes_while_it_looks_is_no_fault(postgresql: str) -> None:
    """Though there was no entry when it began."""
    coming = [JOB]

    def let_come(*told: Any) -> None:
        if "SELECT id, entries, hash FROM receipt_chain" in told[2] and coming:
            begin(coming.pop())

    event.listen(engine(), "before_cursor_execute", let_come)
    try:
        assert verify() == Verified(1, 1, 1, entries()[-1].hash, ())
    finally:
        event.remove(engine(), "before_cursor_execute", let_come)


def test_looking_leaves_the_session_as_it_was(any_database: str) -> None:
    """Who looks may go on reading."""
    begin(JOB, Deletion(uuid4(), Subject.JOB, Reason.EXPIRY, NOON, {}))
    with reading() as session:
        before = dict(session.connection().get_execution_options())
        assert verify_receipts(session).faults == verify_receipts(session).faults == ()
        assert dict(session.connection().get_execution_options()) == before
        assert len(session.exec(select(ReceiptEntry)).all()) == 2


# Damage.


def stored_bytes(session: Session, column: str, number: int) -> bytes:
    """Read a value as SQLite stores it."""
    found = session.connection().scalar(
        text(f'SELECT CAST("{column}" AS BLOB) FROM receipt_entry WHERE number = {number}')
    )
    assert isinstance(found, bytes)
    return found


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("column", COLUMNS)
def test_finds_any_flipped_bit_of_an_entry(intruder: Session, column: str) -> None:
    """Each bit of each byte of a column, in the first entry, one in the middle and the last; as text.

    Among them are flips of case, of separators, of digits, and such as are no text any more.
    """
    flip = f'UPDATE receipt_entry SET "{column}" = CAST(:flipped AS TEXT) WHERE number = :number'
    for number in (1, 3, ENTRIES):
        stored = stored_bytes(intruder, column, number)
        assert len(stored) >= 2
        for place in range(len(stored) * 8):
            flipped = bytearray(stored)
            flipped[place // 8] ^= 1 << place % 8
            faults = faults_after(intruder, flip, flipped=bytes(flipped), number=number)
            assert re.match(rf"entry {number} was altered", faults[0]), (column, number, place, faults)


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_finds_any_flipped_bit_of_the_file_that_changes_an_entry(
    chain: list[ReceiptEntry], any_database: str
) -> None:
    """Each bit of the page around the values: its head, where entries are, how long, and of what types.

    It is told, or SQLite itself refuses the file, or every entry reads as before; and the look comes to an end.
    """
    assert return_free_pages()
    stored = bytearray(Path(any_database.removeprefix("sqlite:///")).read_bytes())
    stored[18:20] = b"\1\1"  # no log ahead, as it is looked at in memory
    with reading() as session:
        root = session.connection().scalar(text("SELECT rootpage FROM sqlite_master WHERE name = 'receipt_entry'"))
        size = session.connection().scalar(text("PRAGMA page_size"))
    page = (root - 1) * size
    cells = int.from_bytes(stored[page + 3 : page + 5], "big")
    assert (stored[page], cells) == (13, ENTRIES), "all of them are in one page"
    pointers = range(page + 8, page + 8 + 2 * cells)
    begins = [page + int.from_bytes(stored[place : place + 2], "big") for place in pointers[::2]]
    places = [*range(page, pointers.stop), *(place for begin in begins for place in range(begin, begin + 16))]
    before = look_at_file(bytes(stored))
    assert before is not None
    assert before[0] == ()
    found = 0
    for place in places:
        for bit in range(8):
            flipped = stored.copy()
            flipped[place] ^= 1 << bit
            after = look_at_file(bytes(flipped))
            if after is None or after[0]:
                found += 1
            else:
                assert after == before, (place - page, bit)
    assert found > 0.8 * 8 * len(places)


def look_at_file(stored: bytes) -> tuple[tuple[str, ...], list[Any]] | None:
    """Verify the receipts in a file's bytes, and read them; None where SQLite finds it no database."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(stored)
        opened = create_engine("sqlite://", creator=lambda: connection)
        try:
            with Session(opened) as session:
                faults = verify_receipts(session).faults
                rows = session.connection().execute(text("SELECT * FROM receipt_entry ORDER BY number LIMIT 99"))
                return faults, [] if faults else [tuple(row) for row in rows]
        except DBAPIError:
            return None
        finally:
            opened.dispose()


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("column", COLUMNS)
def test_finds_a_value_that_is_of_another_type(intruder: Session, column: str) -> None:
    """The very same bytes as a blob, with a flip or without; a number; nothing at all; less, and more."""
    stored = stored_bytes(intruder, column, 3)
    change = f'UPDATE receipt_entry SET "{column}" = :other WHERE number = 3'
    flipped = [
        stored[:place] + bytes([stored[place] ^ 0x20]) + stored[place + 1 :] for place in range(len(stored))
    ]
    others = [
        stored,
        *flipped,
        b"",
        "",
        1,
        1.5,
        stored.decode() + " ",
        stored.decode() + "\0",
        stored.decode()[:-1],
    ]
    for other in others:
        assert faults_after(intruder, change, other=other)[0].startswith("entry 3 was altered"), other
    intruder.connection().execute(text("CREATE TABLE copied AS SELECT * FROM receipt_entry"))
    intruder.connection().execute(text("ALTER TABLE receipt_entry RENAME TO whole"))
    intruder.connection().execute(text("ALTER TABLE copied RENAME TO receipt_entry"))
    assert faults_after(intruder, change, other=None)[0] == "entry 3 was altered: it cannot be read"


CHANGES: Final = {
    "receipt_id": ["gen_random_uuid()", "opaque_id"],
    "opaque_id": ["gen_random_uuid()", "receipt_id"],
    "subject": ["'personal data of a job'", "'JOB'", "'job '", "''", "E'job\\nretention'"],
    "reason": ["'expiry'", "'Retention'", "''"],
    "step": ["'done'", "'Begun'", "''"],
    "due_at": [
        "due_at + interval '1 microsecond'",
        "due_at - interval '1 microsecond'",
        "due_at + interval '10000 years'",
        "(to_char(due_at, 'YYYY-MM-DD HH24:MI:SS.US') || '+00 BC')::timestamptz",
        "'infinity'",
        "'-infinity'",
    ],
    '"at"': ["\"at\" + interval '1 microsecond'", "due_at", "'infinity'"],
    "counts": [
        "'{}'",
        '\'{"drive": 2, "job": 2}\'',
        '\'{"job": 1, "drive": 2}\'',
        '\'{"drive": 2, "job"\\:1}\'',
        '\'{"drive": 2, "job": 9, "job": 1}\'',
        '\'{"drive": 2, "job": 1.0}\'',
        "'null'",
        "'[]'",
        "'7'",
    ],
    "hash": ["upper(hash)", "hash || ' '", "''", "reverse(hash)"],
}
"""What an intruder may write into the first entry on PostgreSQL."""


@pytest.mark.parametrize("any_database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("column", CHANGES)
def test_finds_any_changed_value_on_postgresql(intruder: Session, column: str) -> None:
    """Also such as no type of ours would read, and such as read the same."""
    for change in CHANGES[column]:
        faults = faults_after(intruder, f"UPDATE receipt_entry SET {column} = {change} WHERE number = 1")
        assert faults[0].startswith("entry 1 was altered"), (column, change, faults)
    every_row = f"ALTER TABLE receipt_entry ALTER COLUMN {column} DROP NOT NULL"
    intruder.connection().execute(text(every_row))
    faults = faults_after(intruder, f"UPDATE receipt_entry SET {column} = NULL WHERE number = 1")
    assert faults[0] == "entry 1 was altered: it cannot be read"


@pytest.mark.parametrize("counts", ["[" * 100_000, "{", "NaN", '{"job": 1', "1" * 5_000, '"\\ud800"'])
@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_counts_that_are_none_are_told_and_do_no_harm(intruder: Session, counts: str) -> None:
    """However deep, however long."""
    change = "UPDATE receipt_entry SET counts = :counts WHERE number = 3"
    assert faults_after(intruder, change, counts=counts)[0].startswith("entry 3 was altered")


def test_finds_any_flipped_bit_of_a_number(intruder: Session) -> None:
    """An entry that goes by another number is missing from its place."""
    for number in range(1, ENTRIES + 1):
        for bit in range(31):
            other = number ^ 1 << bit
            if not 1 <= other <= ENTRIES:
                faults = faults_after(
                    intruder,
                    "UPDATE receipt_entry SET number = :other WHERE number = :number",
                    other=other,
                    number=number,
                )
                assert faults, (number, other)


def test_finds_entries_that_were_removed(intruder: Session) -> None:
    """Any one, and any run of them: at the start, in the middle, at the end, all."""
    for first, last in combinations(range(1, ENTRIES + 2), 2):
        faults = faults_after(
            intruder, "DELETE FROM receipt_entry WHERE number >= :first AND number < :last", first=first, last=last
        )
        told = f"entry {first} is missing"
        if last == ENTRIES + 1:
            told = f"the chain has {ENTRIES} entries, and the last one found is {first - 1}"
        assert told in faults, (first, last, faults)


def test_finds_entries_that_were_removed_and_the_others_moved_up(intruder: Session) -> None:
    """No gap is left, and the head says the right number."""
    for number in range(1, ENTRIES):
        faults = faults_after(
            intruder,
            "DELETE FROM receipt_entry WHERE number = :number",
            "UPDATE receipt_entry SET number = -number WHERE number > :number",
            "UPDATE receipt_entry SET number = -number - 1 WHERE number < 0",
            "UPDATE receipt_chain SET entries = entries - 1",
            number=number,
        )
        assert f"entry {number} was altered, or what stood before it" in faults


def test_finds_two_entries_that_changed_places(intruder: Session) -> None:
    """Every pair."""
    for one, other in combinations(range(1, ENTRIES + 1), 2):
        faults = faults_after(
            intruder,
            "UPDATE receipt_entry SET number = -1 WHERE number = :one",
            "UPDATE receipt_entry SET number = :one WHERE number = :other",
            "UPDATE receipt_entry SET number = :other WHERE number = -1",
            one=one,
            other=other,
        )
        assert faults[0] == f"entry {one} was altered, or what stood before it"


def test_finds_an_entry_that_is_there_twice(intruder: Session) -> None:
    """Added at the end, with the head moved on or not, or before the first."""
    double = (
        f"INSERT INTO receipt_entry (number, {', '.join(COLUMNS)}) "
        f"SELECT {{}}, {', '.join(COLUMNS)} FROM receipt_entry WHERE number = :number"
    ).replace(" at,", ' "at",')
    for number in range(1, ENTRIES + 1):
        end = double.format(ENTRIES + 1)
        assert faults_after(intruder, end, number=number)
        moved_on = "UPDATE receipt_chain SET entries = 6, hash = (SELECT hash FROM receipt_entry WHERE number = 6)"
        faults = faults_after(intruder, end, moved_on, number=number)
        assert "entry 6 was altered, or what stood before it" in faults
        for place in (0, -1, -(2**31)):
            faults = faults_after(intruder, double.format(place), number=number)
            assert faults[0] == f"entry {place} is one too many"


def test_finds_a_head_that_is_not_the_chains(intruder: Session) -> None:
    """Changed, gone by another id, removed, or one of two."""
    head = verify_receipts(intruder).head
    for entries_told in (0, ENTRIES - 1, ENTRIES + 1, -ENTRIES):
        faults = faults_after(intruder, "UPDATE receipt_chain SET entries = :told", told=entries_told)
        assert faults == (f"the chain has {entries_told} entries, and the last one found is {ENTRIES}",)
    for place in range(len(head)):
        other = head[:place] + ("0" if head[place] != "0" else "1") + head[place + 1 :]
        for told in (other, head[:place], head.upper()):
            faults = faults_after(intruder, "UPDATE receipt_chain SET hash = :told", told=told)
            assert faults == ("the head of the chain was altered, or its last entry",)
    assert faults_after(intruder, "UPDATE receipt_chain SET id = 2")
    assert faults_after(intruder, "DELETE FROM receipt_chain") == ("the chain has 0 heads, and should have one",)
    double = "INSERT INTO receipt_chain (id, entries, hash) SELECT 2, entries, hash FROM receipt_chain"
    assert faults_after(intruder, double) == ("the chain has 2 heads, and should have one",)


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)
def test_finds_any_flipped_bit_of_the_head(intruder: Session) -> None:
    """Of its hash as text, also where it is none any more; and values of another type."""
    head = verify_receipts(intruder).head.encode()
    for place in range(len(head) * 8):
        flipped = bytearray(head)
        flipped[place // 8] ^= 1 << place % 8
        assert faults_after(intruder, "UPDATE receipt_chain SET hash = CAST(:f AS TEXT)", f=bytes(flipped)), place
    assert faults_after(intruder, "UPDATE receipt_chain SET hash = :other", other=head)
    for other in (b"5", b"\xff", "five", 5.5):
        assert faults_after(intruder, "UPDATE receipt_chain SET entries = :other", other=other), other
    assert faults_after(intruder, "UPDATE receipt_chain SET entries = CAST(:other AS TEXT)", other=b"\xff\xfe")


def test_finds_entries_that_do_not_fit_their_receipt(any_database: str) -> None:
    """Well chained, and yet no receipt: done before it was begun, begun twice, done twice."""
    told = [(0, "begun"), (0, "begun"), (1, "done"), (0, "done"), (0, "done"), (1, "begun"), (2, "begun")]
    ids = [uuid4() for _ in range(3)]
    with writing() as session:
        made = [receipts._entry(ids[which], JOB, ReceiptStep(step), NOON) for which, step in told]
        receipts._append(session, made)
    assert verify().faults == tuple(
        f"entry {number} does not fit what its receipt has before it" for number in (2, 3, 5)
    )


def test_tells_no_more_faults_than_asked(intruder: Session) -> None:
    """A chain of a million faults is told as wrong, and read to its end."""
    intruder.connection().execute(text("UPDATE receipt_entry SET reason = 'wish', hash = 'x'"))
    for faults_max in (0, 1, 3):
        found = verify_receipts(intruder, faults_max=faults_max)
        assert (len(found.faults), found.entries) == (faults_max, ENTRIES)
    intruder.rollback()


def test_one_altered_entry_is_not_told_of_those_after_it(intruder: Session) -> None:
    """An operator reads where the damage is."""
    faults = faults_after(intruder, "UPDATE receipt_entry SET reason = 'expiry' WHERE number = 2")
    assert faults == ("entry 2 was altered, or what stood before it",)


# What was noted down.


def forge(session: Session, told: Mapping[str, Any], number: int = 1) -> None:
    """Change an entry, and write every entry after it, and the head, as if it had always been so."""
    kept = session.exec(select(ReceiptEntry).order_by(col(ReceiptEntry.number))).all()
    rewritten = [entry.model_dump() for entry in kept]
    rewritten[number - 1].update(told)
    session.connection().execute(text("DELETE FROM receipt_entry"))
    session.connection().execute(text(f"UPDATE receipt_chain SET entries = 0, hash = '{FIRST_HASH}'"))
    receipts._append(session, rewritten)


@pytest.mark.parametrize("number", range(1, ENTRIES + 1))
def test_a_chain_written_anew_is_found_by_the_head_noted_down_alone(intruder: Session, number: int) -> None:
    """A forger who knows how it is done leaves no other trace; entries before the change are still known."""
    noted = [entry.hash for entry in intruder.exec(select(ReceiptEntry).order_by(col(ReceiptEntry.number)))]
    with intruder.begin_nested() as damage:
        forge(intruder, {"reason": Reason.EXPIRY}, number)
        assert verify_receipts(intruder).faults == ()
        for place, head in enumerate(noted, start=1):
            faults = verify_receipts(intruder, head=head).faults
            if place < number:
                assert faults == ()
            else:
                assert faults == (
                    "no entry has the hash given: the receipts were written anew since it was noted down",
                )
        damage.rollback()


def test_a_chain_cut_off_with_its_head_is_found_by_the_head_noted_down(intruder: Session) -> None:
    """The last receipts removed, and the chain made to end before them."""
    noted = verify_receipts(intruder).head
    ends_before = f"entries = {ENTRIES - 1}, hash = (SELECT hash FROM receipt_entry WHERE number = {ENTRIES - 1})"
    cut = (f"DELETE FROM receipt_entry WHERE number = {ENTRIES}", f"UPDATE receipt_chain SET {ends_before}")
    assert faults_after(intruder, *cut) == ()
    assert len(faults_after(intruder, *cut, head=noted)) == 1
    emptied = ("DELETE FROM receipt_entry", f"UPDATE receipt_chain SET entries = 0, hash = '{FIRST_HASH}'")
    assert faults_after(intruder, *emptied) == ()
    assert len(faults_after(intruder, *emptied, head=noted)) == 1


def test_a_head_noted_down_at_any_time_is_known_as_long_as_nothing_is_rewritten(chain: list[ReceiptEntry]) -> None:
    """As it was shown or in capitals, with a line's end; before the first receipt, too. Any other is not known."""
    for entry in chain:
        for head in (entry.hash, entry.hash.upper(), f" {entry.hash}\n"):
            assert verify(head).faults == ()
    assert verify(FIRST_HASH).faults == ()
    begin(JOB)
    assert verify(chain[-1].hash).faults == ()
    for head in ("1" * 64, chain[0].hash[:-1], chain[0].hash + "0", "x", "é", str(chain[0].receipt_id)):
        assert len(verify(head).faults) == 1, head


# Nobody's data.


def test_a_receipt_has_no_more_columns_than_these() -> None:
    """Whoever adds one thinks of whose data it holds."""
    assert list(ReceiptEntry.model_fields) == ["number", *COLUMNS]
    assert list(ReceiptChain.model_fields) == ["id", "entries", "hash"]
    assert list(OpenReceipt.model_fields) == ["receipt_id", "opaque_id", "begun"]


PERSON: Final = {
    "recipientName": "Ada Quince",
    "streetAddress1": "77 Quince Road",
    "streetAddress2": "Backyard Seven",
    "city": "Quinceton",
    "stateOrProvince": "QU",
    "postalCode": "Q7777X",
    "countryOrRegion": "Quinceland",
    "phone": "+49 77 1234567",
    "email": "ada@quince.example",
}
USER: Final = UUID("77777777-1234-4321-8888-999999999999")


def digests(value: str) -> Iterator[str]:
    """Tell a value, and every hash of it that somebody might keep instead."""
    for form in {value, value.lower(), value.upper(), value.strip()}:
        yield form
        yield base64.b64encode(form.encode()).decode()
        yield form.encode().hex()
        for name in ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b", "blake2s", "sha3_256"):
            digest = hashlib.new(name, form.encode(), usedforsecurity=False).digest()
            yield from (digest.hex()[:12], base64.b64encode(digest).decode()[:12])


def test_a_receipt_holds_no_personal_data_and_no_hash_of_it(any_database: str) -> None:
    """Of a job full of it, its names and its user; left are ids of ours, words, moments and counts."""
    with writing() as session:
        job_id = job_in(
            session,
            JobState.COMPLETED,
            "quince-job",
            returnAddress=PERSON,
            returnShipping={"carrierName": "Quince Cargo", "carrierAccountNumber": "QACCOUNT77"},
            deliveryPackage={
                "carrierName": "FedEx",
                "trackingNumber": "QTRACK77",
                "driveCount": 1,
                "shipDate": "2026-05-30",
            },
            driveList=[
                {
                    "driveId": "QSERIAL77",
                    "bitLockerKey": "111111-222222-333333-444444-555555-666666-777777-888888",
                    "manifestFile": "\\DriveManifest.xml",
                    "manifestHash": "AB" * 16,
                }
            ],
            tags={"owner": "quince-tag"},
        )
        with_every_row(session, job_id)
        set_columns(session, job_id, user_id=USER)
        names = [read_job(session, job_id).resource_key, "quince-job", ACCOUNT, "quince-tag"]
    with writing() as session:
        delete_job(session, job_id, at=NOON, by=Actor.CUSTOMER)
    close(*open_receipts())
    with reading() as session:
        kept = " ".join(
            str(row)
            for table in ("receipt_entry", "receipt_chain", "open_receipt")
            for row in session.connection().execute(text(f"SELECT * FROM {table}"))
        ).lower()
    assert job_id.hex in kept.replace("-", "")
    told = [
        *PERSON.values(),
        "QACCOUNT77",
        "QTRACK77",
        "QSERIAL77",
        "AB" * 16,
        "1111112222223333334444445555556666667777",
    ]
    told += ["TRACK2", "EXTRA1", str(USER), USER.hex, *names]
    shortest = 5  # two letters of a state, and what they are in digits, stand in any hash
    for value in told:
        for form in digests(value):
            assert len(form) < shortest or form.lower() not in kept, (value, form)
    entry = entries()[0]
    assert set(entry.counts) == {
        *("job", "job_event", "drive", "drive_copy", "blob_report", "extra_drive", "package"),
        *("return_address", "return_shipping", "alert"),
    }
    assert all(type(count) is int and count > 0 for count in entry.counts.values())
    assert entry.receipt_id.version == 4, "a random one"


def test_a_refused_deletion_leaves_no_receipt(any_database: str) -> None:
    """Nor an entry, nor an open one."""
    with writing() as session:
        job_id = job_in(session, JobState.SHIPPING)
    with pytest.raises(JobStateConflictError), writing() as session:
        delete_job(session, job_id, at=NOON, by=Actor.CUSTOMER)
    assert (entries(), open_receipts()) == ([], set())
