"""Prefect's books: all that its server keeps, by any door or none."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker

from deployments.processes import PrefectServer


def kept_by(server: PrefectServer) -> Iterator[tuple[str, str]]:
    """Read every row of every table of Prefect's database, once what is on its way has come."""
    APILogWorker.drain_all(timeout=10)
    EventsWorker.drain_all(timeout=10)
    (file,) = Path(server.environment["PREFECT_HOME"]).rglob("prefect.db")
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608  names of its own
                yield table, repr(row)
