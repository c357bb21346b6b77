"""Look for words that should be gone in every byte of files, folders and databases; knows nothing of the deleter.

Closing a SQLite file lets go of every lock that the same process holds on it, and SQLite does not notice. So a
process that has databases open searches files with `search_apart` alone; rows it may search itself.

Not looked into: other compression than gzip, what is encrypted, and what a disk keeps of deleted files.
"""

import os
import sqlite3
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from tasks.trace_streams import GZIP_BYTES_MAX, GZIP_HEAD, GzipAllowance, Hit, Report, Stream
from tasks.trace_words import FORM_BYTES_MIN, Find, WordsError, finders, fold

__all__ = ["Hit", "Report", "TraceSearch", "WordsError", "search_apart"]

_CHUNK: Final = 1 << 20
_BATCH: Final = 1 << 16
_GROWTH_MAX: Final = 1 << 30
_SQLITE_HEAD: Final = b"SQLite format 3\0"
_SQLITE_HEAD_BYTES: Final = 100
_SQLITE_VALUE_MAX: Final = 256 << 20
_SQLITE_WAIT_SECONDS: Final = 5.0
# A table without pages of its own is virtual: what it shows stands in other tables.
_TABLES: Final = "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
_PLAINLY: Final = sum(getattr(os, flag, 0) for flag in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))


def search_apart(
    words: Sequence[str], paths: Sequence[Path], passing_over: Collection[Path] = frozenset()
) -> Report:
    """Search folders, and files by themselves, as `TraceSearch` does, in a process of its own.

    Raises:
        WordsError: the words cannot be looked for.
        BrokenProcessPool: somebody ended the process.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:
        return apart.submit(_search_all, words, paths, passing_over).result()


def _search_all(words: Sequence[str], paths: Sequence[Path], passing_over: Collection[Path]) -> Report:
    search, report = TraceSearch(words), Report()
    for path in paths:
        if path.is_file():
            report = report + search.search_file(path) + search.search_sqlite(path)
        else:
            report += search.search_folder(path, passing_over)
    return report


class TraceSearch:
    """Words, ready to be looked for in as many places as needed.

    Raises:
        WordsError: the words cannot be looked for.
    """

    def __init__(
        self, words: Sequence[str], chunk_bytes: int = _CHUNK, gzip_bytes_max: int = GZIP_BYTES_MAX
    ) -> None:
        """Take the words, the bytes that are read at once, and those that are unpacked of one file at most."""
        self._finders: Final = finders(words)
        self._chunk_bytes: Final = chunk_bytes
        self._gzip_bytes_max: Final = gzip_bytes_max

    def search_file(self, path: Path) -> Report:
        """Search a file's name, its bytes and the gzip in them; of a SQLite database the bytes alone."""
        report = Report()
        place = self._search_name(os.fspath(path), report)
        try:
            self._search_bytes(os.fspath(path), place, report)
        except OSError as error:
            report.leave_out(place, _why(error))
        else:
            if not report.files:
                report.leave_out(place, "it is no file")
        return report

    def search_folder(self, folder: Path, passing_over: Collection[Path] = frozenset()) -> Report:
        """Search all names and files below a folder, and the rows of SQLite databases among them.

        Links are not followed, but where they lead to is searched as text. What vanishes meanwhile is gone.

        Args:
            folder: its own name is not searched.
            passing_over: files and folders that are not looked at, nor are their names.
        """
        report = Report()
        try:
            root = os.fspath(folder.resolve())
            passed = {os.fspath(path.resolve()) for path in passing_over}
            folders = [root] if root not in passed else []
            os.scandir(root).close()
        except (OSError, RuntimeError) as error:
            report.leave_out(self._shown(os.fspath(folder)), _why(error))
            return report
        while folders:
            for entry in self._entries(folders.pop(), report):
                if entry.path not in passed:
                    self._search_entry(entry, folders, report)
        return report

    def search_sqlite(self, path: Path) -> Report:
        """Search every value of every table of a SQLite database, and its schema; any other file is skipped.

        Nothing is written, not even beside it. A database in use is read as it is now, its WAL included; one in
        WAL mode that nobody has open is read as it lies there.
        """
        report = Report()
        place = self._shown(os.fspath(path))
        try:
            with path.open("rb") as file:
                head = file.read(_SQLITE_HEAD_BYTES)
            self._search_sqlite(os.fspath(path), head, place, report)
        except OSError as error:
            report.leave_out(place, _why(error))
        return report

    def search_rows(self, name: str, rows: Iterable[Sequence[object]], columns: Sequence[str] = ()) -> Report:
        """Search every value of the rows that any database gives.

        Args:
            name: of the table; not searched.
            rows: of text, bytes, or anything else that a driver makes of a value and `str` writes out.
            columns: their names, not searched; without them columns are counted from 0.
        """
        report = Report()
        self._search_rows(self._shown(name), rows, columns, report)
        return report

    def _entries(self, folder: str, report: Report) -> list["os.DirEntry[str]"]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            return []
        except OSError as error:
            report.leave_out(self._shown(folder), _why(error))
            return []

    def _search_entry(self, entry: "os.DirEntry[str]", folders: list[str], report: Report) -> None:
        place = self._search_name(entry.path, report)
        try:
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                leads_to = os.fsencode(Path(entry.path).readlink())
                self._search_value(f"{place} (where it leads)", leads_to, report)
            elif stat.S_ISDIR(mode):
                folders.append(entry.path)
            elif stat.S_ISREG(mode):
                head = self._search_bytes(entry.path, place, report)
                self._search_sqlite(entry.path, head, place, report)
        except FileNotFoundError:
            return
        except OSError as error:
            report.leave_out(place, _why(error))

    def _search_bytes(self, path: str, place: str, report: Report) -> bytes:
        """Search a file's bytes; gives the first of them."""
        with os.fdopen(os.open(path, os.O_RDONLY | _PLAINLY), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return b""
            head = file.read(_SQLITE_HEAD_BYTES)
            file.seek(0)
            stream = self._stream(place, report)
            left = status.st_size + _GROWTH_MAX
            while left > 0 and (data := file.read(min(self._chunk_bytes, left))):
                stream.feed(data)
                left -= len(data)
            stream.end()
        if left <= 0:
            report.leave_out(place, "it grew faster than it could be searched; the rest is not")
        report.files += 1
        return head

    def _search_value(self, place: str, data: bytes, report: Report) -> None:
        stream = self._stream(place, report)
        for start in range(0, len(data), self._chunk_bytes):
            stream.feed(data[start : start + self._chunk_bytes])
        stream.end()

    def _stream(self, place: str, report: Report) -> Stream:
        return Stream(self._finders, place, report, GzipAllowance(report, self._gzip_bytes_max))

    def _search_name(self, path: str, report: Report) -> str:
        """Search the last part of a path; gives the path as a place."""
        place = self._shown(path)
        folders = len(os.fsencode(path)) - len(os.fsencode(Path(path).name))
        for find in self._in_name(os.fsencode(path)):
            if find.end > folders:
                report.add_hit(find, f"{place} (its name)", None)
        return place

    def _in_name(self, name: bytes) -> list[Find]:
        return sorted(
            (find for finder in self._finders for find in finder.finds(name)), key=lambda find: find.start
        )

    def _shown(self, name: str) -> str:
        """Write `[word 0]` for every word in a name, so that a report holds none."""
        raw = name.encode("utf-8", "surrogateescape")
        shown, at = "", 0
        for find in self._in_name(raw):
            if find.end > at:
                shown += f"{raw[at : find.start].decode('utf-8', 'backslashreplace')}[word {find.word}]"
                at = find.end
        return shown + raw[at:].decode("utf-8", "backslashreplace")

    def _search_sqlite(self, path: str, head: bytes, place: str, report: Report) -> None:
        if not head.startswith(_SQLITE_HEAD):
            return
        try:
            with _opened(path, head) as database:
                names = [name.decode("utf-8", "replace") for (name,) in database.execute(_TABLES)]
                for name in ("sqlite_master", *names):
                    self._search_table(database, name, place, report)
        except (sqlite3.Error, _NotReadError) as error:
            if not Path(path).exists():
                return
            report.leave_out(f"{place} (its rows)", _why(error))

    def _search_table(self, database: sqlite3.Connection, name: str, place: str, report: Report) -> None:
        place = f"{place} {self._shown(name)}"
        quoted = name.replace('"', '""')
        try:
            rows = database.execute(f'SELECT * FROM "{quoted}"')  # noqa: S608  a name cannot be a parameter
            self._search_rows(place, rows, [column[0] for column in rows.description], report)
        except (sqlite3.Error, UnicodeError) as error:
            report.leave_out(place, _why(error))

    def _search_rows(
        self, place: str, rows: Iterable[Sequence[object]], columns: Sequence[str], report: Report
    ) -> None:
        shown = [self._shown(column) for column in columns]
        batch: list[tuple[int, int, bytes]] = []
        size = 0
        try:
            for number, row in enumerate(rows):
                for column, value in enumerate(row):
                    data = _bytes_of(value)
                    if len(data) >= FORM_BYTES_MIN:
                        batch.append((number, column, data))
                        size += len(data)
                if size >= _BATCH:
                    self._search_batch(place, batch, shown, report)
                    batch, size = [], 0
        finally:
            self._search_batch(place, batch, shown, report)

    def _search_batch(
        self, place: str, batch: Sequence[tuple[int, int, bytes]], columns: Sequence[str], report: Report
    ) -> None:
        """Search values one by one; small ones only if there is anything to find among all of them."""
        small = b"\n".join(data for _, _, data in batch if len(data) < _BATCH)
        plain, folded = self._finders
        empty = not (plain.finds_any(small) or folded.finds_any(fold(small)) or GZIP_HEAD in small)
        for row, column, data in batch:
            if empty and len(data) < _BATCH:
                report.bytes_searched += len(data)
            else:
                name = columns[column] if columns else column
                self._search_value(f"{place}.{name} row {row}", data, report)


class _NotReadError(Exception):
    """A database cannot be read as it should; the text says why."""


@contextmanager
def _opened(path: str, head: bytes) -> Iterator[sqlite3.Connection]:
    """Open a database so that nothing is written: no lock file is made, and that of others is only read."""
    log, index = Path(f"{path}-wal"), Path(f"{path}-shm")
    in_wal_mode = head[18:20] == b"\2\2"
    if in_wal_mode and _size(log) > 0 and not index.exists():
        raise _NotReadError("its -wal lies there without its -shm; open it once with SQLite and search again")
    # Nobody has it open then, and SQLite would make both to read it.
    closed = in_wal_mode and not (log.exists() and index.exists())
    before = _state(path)
    how = "immutable=1" if closed else "readonly_shm=1"
    address = f"{Path(path).absolute().as_uri()}?mode=ro&{how}"
    with closing(sqlite3.connect(address, timeout=_SQLITE_WAIT_SECONDS, uri=True)) as database:
        database.text_factory = bytes
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _SQLITE_VALUE_MAX)
        yield database
    if closed and _state(path) != before:
        raise _NotReadError("it changed while it was read; search it again")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _state(path: str) -> tuple[int, int, bool]:
    status = Path(path).stat()
    return status.st_size, status.st_mtime_ns, Path(f"{path}-shm").exists()


def _bytes_of(value: object) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return str(value).encode("utf-8", "surrogatepass")


def _why(error: Exception) -> str:
    """Say what went wrong without the error's own text, which may name what stands there."""
    if isinstance(error, _NotReadError):
        return str(error)
    told = getattr(error, "sqlite_errorname", None) or getattr(error, "strerror", None)
    return str(told or type(error).__name__)
