"""Deletion receipts: what is left when something personal is gone. They prove a deletion and tell nothing.

A receipt has two entries, one before the first destructive step and one after the last. Entries are numbered
without gaps and chained: the hash of each covers the entry before it, and the head of the chain stands apart, so
that a flipped bit, an entry removed, also the last one, and a changed order are all found.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import JSON, Connection, TextClause, delete, insert, text, update
from sqlmodel import Field, Session, SQLModel, col, select

from models.columns import UtcDateTime, words
from models.errors import DatabaseError
from models.personal_data import impersonal
from models.runs import JobRun

FIRST_HASH: Final = "0" * 64
"""What the first entry's hash covers in place of an entry before it."""

_CHAIN: Final = 1
_ROWS: Final = 5_000


class Reason(StrEnum):
    """Why something was deleted."""

    BY_HAND = "by hand"
    RETENTION = "retention"
    EXPIRY = "expiry"
    WISH = "wish"


class Subject(StrEnum):
    """What was deleted."""

    JOB = "job"
    PERSONAL_DATA = "personal data of a job"
    PORTAL_SETTINGS = "portal settings"


class ReceiptStep(StrEnum):
    """Which of a receipt's two entries."""

    BEGUN = "begun"
    DONE = "done"


class ReceiptEntry(SQLModel, table=True):
    """One entry of a receipt. `opaque_id` is of ours and random; no column holds a person's data or a hash of it.

    `counts` are the rows deleted or emptied, by table, in the first entry; the second has none.
    """

    __tablename__ = "receipt_entry"

    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False, **impersonal()})
    receipt_id: UUID = Field(sa_column_kwargs=impersonal())
    opaque_id: UUID = Field(index=True, sa_column_kwargs=impersonal())
    subject: Subject = Field(sa_type=words(Subject), sa_column_kwargs=impersonal())
    reason: Reason = Field(sa_type=words(Reason), sa_column_kwargs=impersonal())
    step: ReceiptStep = Field(sa_type=words(ReceiptStep), sa_column_kwargs=impersonal())
    due_at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    at: datetime = Field(sa_type=UtcDateTime, sa_column_kwargs=impersonal())
    counts: dict[str, int] = Field(sa_type=JSON, sa_column_kwargs=impersonal())
    hash: str = Field(sa_column_kwargs=impersonal())


class ReceiptChain(SQLModel, table=True):
    """The head of the chain, in its one row: how many entries there are, and the hash of the last."""

    __tablename__ = "receipt_chain"

    id: int = Field(default=_CHAIN, primary_key=True, sa_column_kwargs={"autoincrement": False, **impersonal()})
    entries: int = Field(sa_column_kwargs=impersonal())
    hash: str = Field(sa_column_kwargs=impersonal())


class OpenReceipt(SQLModel, table=True):
    """A receipt whose second entry is still to be written: traces of what was deleted are left to be removed."""

    __tablename__ = "open_receipt"

    receipt_id: UUID = Field(primary_key=True, sa_column_kwargs=impersonal())
    opaque_id: UUID = Field(index=True, sa_column_kwargs=impersonal())
    begun: int = Field(sa_column_kwargs=impersonal())


@dataclass(frozen=True, slots=True)
class Deletion:
    """What is about to be deleted: its opaque id, what it is, why, since when it should be gone, rows by table."""

    opaque_id: UUID
    subject: Subject
    reason: Reason
    due_at: datetime
    counts: Mapping[str, int]


def begin_receipts(session: Session, deletions: Sequence[Deletion], *, at: datetime) -> None:
    """Write the first entry of a receipt for each deletion, in its transaction: none is there without the other.

    The chain is locked until the transaction ends, so that this comes last in it.
    """
    before = _append(session, [_entry(uuid4(), deletion, ReceiptStep.BEGUN, at) for deletion in deletions])
    begun = select(ReceiptEntry.receipt_id, ReceiptEntry.opaque_id, ReceiptEntry.number)
    session.connection().execute(
        insert(OpenReceipt).from_select(
            ["receipt_id", "opaque_id", "begun"], begun.where(col(ReceiptEntry.number) > before)
        )
    )


def _entry(receipt_id: UUID, deletion: Deletion, step: ReceiptStep, at: datetime) -> dict[str, Any]:
    return {
        "receipt_id": receipt_id,
        "opaque_id": deletion.opaque_id,
        "subject": deletion.subject,
        "reason": deletion.reason,
        "step": step,
        "due_at": deletion.due_at,
        "at": at,
        "counts": dict(sorted(deletion.counts.items())),
    }


def was_job_deleted(session: Session, job_id: UUID) -> bool:
    """Tell whether a job of that id was deleted, however long ago."""
    told = select(ReceiptEntry.number).where(
        col(ReceiptEntry.opaque_id) == job_id, col(ReceiptEntry.subject) == Subject.JOB
    )
    return session.exec(told.limit(1)).one_or_none() is not None


def finished_receipts(session: Session, rows_max: int) -> Sequence[UUID]:
    """Find open receipts of whose job Prefect has forgotten every run, the oldest first, at most `rows_max`."""
    unforgotten = select(JobRun.job_id).where(
        col(JobRun.job_id) == col(OpenReceipt.opaque_id), col(JobRun.is_job_deleted)
    )
    chosen = select(OpenReceipt.receipt_id).where(~unforgotten.exists()).order_by(col(OpenReceipt.begun))
    return session.exec(chosen.limit(rows_max)).all()


def close_receipts(session: Session, receipt_ids: Sequence[UUID], *, at: datetime) -> int:
    """Write the second entry of receipts, after the last destructive step; safe to repeat.

    Returns:
        How many were closed: those that were open.
    """
    if not receipt_ids:
        return 0
    _lock_chain(session)  # before the rows: two that close the same ones could else wait for each other for ever
    removed = delete(OpenReceipt).where(col(OpenReceipt.receipt_id).in_(receipt_ids))
    numbers = sorted(row[0] for row in session.connection().execute(removed.returning(col(OpenReceipt.begun))))
    begun = session.exec(
        select(ReceiptEntry).where(col(ReceiptEntry.number).in_(numbers)).order_by(col(ReceiptEntry.number))
    ).all()
    done = [
        _entry(
            entry.receipt_id,
            Deletion(entry.opaque_id, entry.subject, entry.reason, entry.due_at, {}),
            ReceiptStep.DONE,
            at,
        )
        for entry in begun
    ]
    _append(session, done)
    return len(done)


def _lock_chain(session: Session) -> ReceiptChain:
    chosen = select(ReceiptChain).where(col(ReceiptChain.id) == _CHAIN).with_for_update()
    head = session.exec(chosen.execution_options(populate_existing=True)).one_or_none()
    if head is None:
        raise DatabaseError("the head of the receipts' chain is missing; restore the database from a backup")
    return head


def _append(session: Session, entries: Sequence[dict[str, Any]]) -> int:
    """Chain entries to those that are there; tells the number of the last one before them."""
    head = _lock_chain(session)
    before, last = head.entries, head.hash
    lines = []
    for number, entry in enumerate(entries, before + 1):
        stored = _as_stored(entry)
        last = _hash(last.encode(), number, stored).decode()
        entry["number"], entry["hash"] = number, last
        lines.append(b"%d\t%b\t%b\n" % (number, b"\t".join(stored), last.encode()))
    connection = session.connection()
    if connection.dialect.name != "sqlite":
        _copy_in(connection, lines)
    elif entries:  # of none, SQLAlchemy would insert one without values
        connection.execute(insert(ReceiptEntry), entries)
    connection.execute(
        update(ReceiptChain).where(col(ReceiptChain.id) == _CHAIN).values(entries=before + len(entries), hash=last)
    )
    session.expire(head)
    return before


def _copy_in(connection: Connection, lines: Sequence[bytes]) -> None:
    """Insert entries in PostgreSQL, a line each; a statement with parameters takes far longer."""
    cursor: Any = connection.connection.cursor()
    # The columns in the order in which they are told; moments are told in UTC.
    with cursor, cursor.copy(f"COPY receipt_entry (number, {', '.join(_COLUMNS)}) FROM STDIN") as copy:
        copy.write(b"".join(lines))


def _as_stored(entry: Mapping[str, Any]) -> list[bytes]:
    """Tell an entry as SQLite stores it, byte for byte: what a hash does not cover could be changed."""
    told = (
        entry["receipt_id"].hex,
        entry["opaque_id"].hex,
        entry["subject"],
        entry["reason"],
        entry["step"],
        _as_text(entry["due_at"]),
        _as_text(entry["at"]),
        json.dumps(entry["counts"]),
    )
    return [each.encode() for each in told]


def _as_text(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def _hash(before: bytes, number: int, stored: Sequence[bytes]) -> bytes:
    # No value that we write has a line's end in it, so that none can run over into the next.
    return hashlib.sha256(b"\n".join((before, b"%d" % number, *stored))).hexdigest().encode()


@dataclass(frozen=True, slots=True)
class Verified:
    """What a look at every receipt found.

    Attributes:
        entries: how many there are.
        receipts: how many were begun.
        unfinished: how many of them are not closed.
        head: the hash of the last entry; kept elsewhere, it shows later that nothing before it was rewritten.
        faults: one line each, at most the number asked for.
    """

    entries: int
    receipts: int
    unfinished: int
    head: str
    faults: tuple[str, ...]


def verify_receipts(session: Session, *, head: str = "", faults_max: int = 100) -> Verified:
    """Look at every entry and at the chain; reads in pieces, whatever their number.

    Args:
        session: an open session.
        head: the hash of an entry, noted down earlier: if no entry has it, the chain was written anew.
        faults_max: how many faults are told at most.
    """
    connection = session.connection()
    entries, heads = _STATEMENTS[connection.dialect.name]
    found = _Verifier(head.strip().lower(), faults_max)
    chain: list[tuple[int, int | None, bytes | None]] | None = None
    after = _BEFORE_EVERY_NUMBER
    while True:
        rows = connection.execute(entries, {"after": after}, execution_options={"yield_per": _ROWS})
        for number, *stored in rows:
            found.look_at(number, [_bytes(value) for value in stored])
        # A file that is damaged may give entries again and again, and then their numbers do not grow.
        if chain is not None and found.number <= after:
            break
        chain = [(row[0], row[1], _bytes(row[2])) for row in connection.execute(heads)]
        if found.fits(chain):
            break
        # On PostgreSQL entries may have come before the head was read, and after the entries were.
        after = found.number
    found.look_at_end(chain)
    return found.told()


_BEFORE_EVERY_NUMBER: Final = -(2**63)

_PLAIN: Final = "{}"
_ID: Final = "replace(CAST({} AS text), '-', '')"
_TIME: Final = "rtrim(to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.USBC'), 'AD')"
_COLUMNS: Final = {
    "receipt_id": _ID,
    "opaque_id": _ID,
    "subject": _PLAIN,
    "reason": _PLAIN,
    "step": _PLAIN,
    "due_at": _TIME,
    '"at"': _TIME,
    "counts": "CAST({} AS text)",
    "hash": _PLAIN,
}
"""Every column but the number, the hash last, and how PostgreSQL tells it as SQLite stores it."""

# Bytes, and nothing where there is no text: a type of ours would read over a changed letter, or fail at it.
_TEXT_ON_SQLITE: Final = "CASE typeof({0}) WHEN 'text' THEN CAST({0} AS BLOB) END"


def _statements(columns: Sequence[str], entries: str, head: str) -> tuple[TextClause, TextClause]:
    """Make the statements that read every entry after a number, and the heads of the chain."""
    names = ", ".join(columns)
    return (
        text(f"SELECT number, {names} FROM receipt_entry WHERE number > :after ORDER BY number"),  # noqa: S608
        text(f"SELECT id, {entries}, {head} FROM receipt_chain"),  # noqa: S608  names of ours, as above
    )


_STATEMENTS: Final = {
    "sqlite": _statements(
        [_TEXT_ON_SQLITE.format(name) for name in _COLUMNS],
        "CASE typeof(entries) WHEN 'integer' THEN entries END",
        _TEXT_ON_SQLITE.format("hash"),
    ),
    "postgresql": _statements([told.format(name) for name, told in _COLUMNS.items()], "entries", "hash"),
}


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


class _Verifier:
    """Goes along the chain, entry by entry."""

    def __init__(self, noted: str, faults_max: int) -> None:
        self._noted = noted.encode()
        self._is_noted_found = noted in {"", FIRST_HASH}
        self._faults_max = faults_max
        self._faults: list[str] = []
        self._begun: set[bytes] = set()
        self._done: set[bytes] = set()
        self._last: bytes | None = FIRST_HASH.encode()
        self.number = 0
        self.entries = 0

    def _tell(self, fault: str) -> None:
        if len(self._faults) < self._faults_max:
            self._faults.append(fault)

    def look_at(self, number: int, stored: Sequence[bytes | None]) -> None:
        """Look at the next entry: what its columns hold, in their order, or None for what we do not write."""
        awaited, self.number = self.number + 1, number
        self.entries += 1
        if number != awaited:
            self._tell(f"entry {awaited} is missing" if number > awaited else f"entry {number} is one too many")
            self._last = None
        before, self._last = self._last, None
        known = [value for value in stored if value is not None]
        if len(known) < len(stored):
            self._tell(f"entry {number} was altered: it cannot be read")
            return
        *told, self._last = known
        self._is_noted_found |= self._last == self._noted
        if before is not None and _hash(before, number, told) != self._last:
            self._tell(f"entry {number} was altered, or what stood before it")
        self._look_at_step(number, told[0], told[4])

    def _look_at_step(self, number: int, receipt: bytes, step: bytes) -> None:
        is_first = step == ReceiptStep.BEGUN.encode()
        seen = self._begun if is_first else self._done
        if receipt in seen or not (is_first or receipt in self._begun):
            self._tell(f"entry {number} does not fit what its receipt has before it")
        seen.add(receipt)

    def fits(self, chain: Sequence[tuple[int, int | None, bytes | None]]) -> bool:
        """Tell whether the chain's head, in its one row, is that of the entries looked at."""
        return list(chain) == [(_CHAIN, self.number, self._last)]

    def look_at_end(self, chain: Sequence[tuple[int, int | None, bytes | None]]) -> None:
        """Compare the end of the entries with the head of the chain."""
        if len(chain) != 1:
            self._tell(f"the chain has {len(chain)} heads, and should have one")
        elif chain[0][1] not in {None, self.number}:
            self._tell(f"the chain has {chain[0][1]} entries, and the last one found is {self.number}")
        elif not self.fits(chain) and self._last is not None:
            self._tell("the head of the chain was altered, or its last entry")
        if not self._is_noted_found:
            self._tell("no entry has the hash given: the receipts were written anew since it was noted down")

    def told(self) -> Verified:
        """Tell what was found."""
        return Verified(
            entries=self.entries,
            receipts=len(self._begun),
            unfinished=len(self._begun - self._done),
            head=(self._last or b"").decode("ascii", "replace"),
            faults=tuple(self._faults),
        )
