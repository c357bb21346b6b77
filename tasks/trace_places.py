"""Where find-traces looks: every store that Drivepost or its Prefect server writes to on this machine."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from models.errors import TraceWordsError
from tasks.acts import act
from tasks.traces import Report, TraceSearch, WordsError, search_apart

_ROWS: Final = 2_000
_CONNECT_SECONDS_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Places:
    """What is searched.

    Attributes:
        folders: every file and name below them; a file among them is searched by itself.
        passing_over: what is left out: the customers' own drives and storage accounts.
        postgresql: addresses of databases; their rows, and their server's files where they are on this machine.
        left_out: what is known not to be reachable from here, each a place and why.
    """

    folders: tuple[Path, ...]
    passing_over: frozenset[Path]
    postgresql: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...] = ()


@act
def search_places(words: Sequence[str], places: Places) -> Report:
    """Look for words in every byte of every place.

    Returns:
        What was found, and what could not be searched.

    Raises:
        TraceWordsError: the words cannot be looked for.
    """
    try:
        report = Report()
        for place, why in places.left_out:
            report.leave_out(place, why)
        folders = list(places.folders)
        for address in places.postgresql:
            rows, files = _search_postgresql(words, address)
            report += rows
            folders += files
        return report + search_apart(words, _outermost(folders), places.passing_over)
    except WordsError as error:
        raise TraceWordsError(str(error)) from None


def _outermost(folders: Collection[Path]) -> list[Path]:
    """Leave out folders that lie in others."""
    found = {folder.resolve() for folder in folders}
    return sorted(folder for folder in found if not any(parent in found for parent in folder.parents))


def _search_postgresql(words: Sequence[str], address: str) -> tuple[Report, list[Path]]:
    """Search the rows of a database, which may lie compressed in its files; tells where those are, if here."""
    search, report = TraceSearch(words), Report()
    files: list[Path] = []
    try:
        with psycopg.connect(address, connect_timeout=_CONNECT_SECONDS_MAX, autocommit=True) as connection:
            files = _files_of(connection, report)
            for schema, table in _tables_of(connection):
                report += _search_table(search, connection, schema, table)
    except psycopg.Error as error:
        report.leave_out("PostgreSQL's rows", f"it does not answer: {type(error).__name__}")
    return report, files


def _files_of(connection: psycopg.Connection, report: Report) -> list[Path]:
    try:
        # What is only in memory yet goes into the files.
        connection.execute("CHECKPOINT")
        row = connection.execute("SHOW data_directory").fetchone()
    except psycopg.errors.InsufficientPrivilege:
        report.leave_out("PostgreSQL's files", "the user of the database may not ask where they are")
        return []
    files = Path(str(row[0])) if row else None
    if files is None or not os.access(files, os.R_OK | os.X_OK):
        report.leave_out("PostgreSQL's files", "they are not on this machine, or not for this user")
        return []
    # Its log ahead and its tablespaces may lie elsewhere, behind links.
    links = [files / "pg_wal", *(files / "pg_tblspc").glob("*")]
    return [files, *(link.resolve() for link in links if link.is_symlink())]


def _tables_of(connection: psycopg.Connection) -> Sequence[tuple[str, str]]:
    found = connection.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    return [(row[0], row[1]) for row in found.fetchall()]


def _search_table(search: TraceSearch, connection: psycopg.Connection, schema: str, table: str) -> Report:
    everything = sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, table))
    with connection.transaction(), connection.cursor("traces") as cursor:
        cursor.itersize = _ROWS
        cursor.execute(everything)
        names = [column.name for column in cursor.description or ()]
        return search.search_rows(f"{schema}.{table}", cursor, names)
