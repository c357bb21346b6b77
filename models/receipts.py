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

from sqlalchemy import JSON, delete, insert, text, update
from sqlmodel import Field, Session, SQLModel, col, select

from models.columns import UtcDateTime, words
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

    `counts` are the rows deleted, by table, in the first entry; the second has none.
    """

    __tablename__ = "receipt_entry"

    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False, **impersonal()})
    receipt_id: UUID = Field(index=True, sa_column_kwargs=impersonal())
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
    """Write the first entry of a receipt for each deletion; before the first destructive step, in its transaction.

    The chain is locked until the transaction ends: what is to be deleted is locked before.
    """
    begun = [(uuid4(), deletion) for deletion in deletions]
    entries = _append(session, [_entry(receipt, each, ReceiptStep.BEGUN, at) for receipt, each in begun])
    if entries:
        rows = [
            {"receipt_id": entry["receipt_id"], "opaque_id": entry["opaque_id"], "begun": entry["number"]}
            for entry in entries
        ]
        session.connection().execute(insert(OpenReceipt), rows)


def _entry(receipt_id: UUID, deletion: Deletion, step: ReceiptStep, at: datetime) -> dict[str, Any]:
    return {
        "receipt_id": receipt_id,
        "opaque_id": deletion.opaque_id,
        "subject": deletion.subject,
        "reason": deletion.reason,
        "step": step,
        "due_at": deletion.due_at,
        "at": at,
        "counts": dict(deletion.counts),
    }


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
    return len(_append(session, done))


def _append(session: Session, entries: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    if not entries:
        return entries
    head = session.exec(select(ReceiptChain).with_for_update().execution_options(populate_existing=True)).one()
    number, last = head.entries, head.hash
    for entry in entries:
        number += 1
        entry["number"] = number
        entry["hash"] = last = _hash(last, entry)
    connection = session.connection()
    connection.execute(insert(ReceiptEntry), list(entries))
    connection.execute(update(ReceiptChain).values(entries=number, hash=last))
    session.expire(head)
    return entries


def _hash(before: str, entry: Mapping[str, Any]) -> str:
    told = [
        before,
        entry["number"],
        str(entry["receipt_id"]),
        str(entry["opaque_id"]),
        entry["subject"],
        entry["reason"],
        entry["step"],
        entry["due_at"].astimezone(UTC).isoformat(),
        entry["at"].astimezone(UTC).isoformat(),
        entry["counts"],
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


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
    found = _Verifier(faults_max)
    on_sqlite = session.get_bind().dialect.name == "sqlite"
    # As it is stored: a type of ours would read over a changed letter, or fail at it.
    columns = ", ".join(f"CAST({name} AS BLOB)" if on_sqlite else f"{name}" for name in _COLUMNS)
    rows = (
        session.connection()
        .execution_options(yield_per=_ROWS)
        .execute(
            text(f"SELECT number, {columns} FROM receipt_entry ORDER BY number")  # noqa: S608  names of ours
        )
    )
    for row in rows:
        found.look_at(row[0], dict(zip(_COLUMNS, row[1:], strict=True)))
    chain = session.connection().execute(text("SELECT entries, hash FROM receipt_chain")).all()
    found.look_at_end([(row[0], row[1]) for row in chain], head)
    return Verified(
        entries=found.entries,
        receipts=len(found.begun),
        unfinished=len(found.begun - found.done),
        head=found.last or FIRST_HASH,
        faults=tuple(found.faults),
    )


_COLUMNS: Final = ("receipt_id", "opaque_id", "subject", "reason", "step", "due_at", "at", "counts", "hash")


class _Verifier:
    """Goes along the chain, entry by entry."""

    def __init__(self, faults_max: int) -> None:
        self._faults_max = faults_max
        self.faults: list[str] = []
        self.entries = 0
        self.begun: set[UUID] = set()
        self.done: set[UUID] = set()
        self.last: str | None = FIRST_HASH
        self._next = 1
        self._hashes: set[bytes] = set()

    def _tell(self, fault: str) -> None:
        if len(self.faults) < self._faults_max:
            self.faults.append(fault)

    def look_at(self, number: object, raw: Mapping[str, Any]) -> None:
        """Look at the next entry as it is stored."""
        self.entries += 1
        if not isinstance(number, int):
            self._tell("an entry's number is none")
            return
        if number != self._next:
            self._tell(
                f"entry {self._next} is missing" if number > self._next else f"entry {number} is one too many"
            )
            self.last = None
        self._next = number + 1
        before = self.last
        try:
            entry = {name: _read(name, raw[name]) for name in _COLUMNS}
        except ValueError:
            self._tell(f"entry {number} was altered: it cannot be read")
            self.last = None
            return
        self.last = entry["hash"]
        self._hashes.add(entry["hash"].encode())
        if before is not None and _hash(before, {**entry, "number": number}) != entry["hash"]:
            self._tell(f"entry {number} was altered, or what stood before it")
        self._look_at_step(number, entry["receipt_id"], entry["step"])

    def _look_at_step(self, number: int, receipt: UUID, step: str) -> None:
        seen, needed = (self.begun, None) if step == ReceiptStep.BEGUN else (self.done, self.begun)
        if receipt in seen or (needed is not None and receipt not in needed):
            self._tell(f"entry {number} does not fit what its receipt has before it")
        seen.add(receipt)

    def look_at_end(self, chain: Sequence[tuple[int, str]], head: str) -> None:
        """Compare the end of the entries with the head of the chain."""
        if len(chain) != 1:
            self._tell("the head of the chain is missing")
        elif chain[0][0] != self._next - 1:
            self._tell(f"the chain has {chain[0][0]} entries, and the last one found is {self._next - 1}")
        elif self.last is not None and chain[0][1] != self.last:
            self._tell("the head of the chain is not the hash of its last entry")
        if head and head != FIRST_HASH and head.lower().encode() not in self._hashes:
            self._tell("no entry has the hash given: the receipts were written anew since it was noted down")


def _read(name: str, stored: object) -> Any:
    """Read a value as it is stored, and refuse one that we would have written otherwise.

    Raises:
        ValueError: we would not have written it.
    """
    if isinstance(stored, bytes):
        stored = stored.decode()
    if name in {"receipt_id", "opaque_id"}:
        value: Any = UUID(str(stored))
        written: object = value.hex
    elif name in {"due_at", "at"}:
        value = stored if isinstance(stored, datetime) else datetime.fromisoformat(str(stored)).replace(tzinfo=UTC)
        written = value.strftime("%Y-%m-%d %H:%M:%S.%f")
    elif name == "counts":
        value = json.loads(stored) if isinstance(stored, str) else stored
        written = json.dumps(value)
    else:
        value = written = str(stored)
    if isinstance(stored, str) and stored != written:
        raise ValueError(name)
    return value
