"""The journal of an export, on the drive itself: what goes there under which name, and what came of it.

An SQLite file below `.drivepost`, beside what is not whole yet; all of that goes when the drive is over. A process
that is killed loses nothing that it wrote there, and memory does not grow with the number of blobs.
"""

# Not the lines of models/drive_journals.py: an export looks up which names are taken, ends blobs out of order, and
# asks which are not over; of lines that are only added, all that would have to be held in memory.

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from models.copy_logs import AttachedStatus, BlobStatus, BlockStatus, LoggedBlob, LoggedBlock
from models.drive_names import folded, other_names, safe_name
from models.errors import DriveError, StoreError
from models.manifests import AttachedFile, Blob, Block, PageRange

WORKING: Final = ".drivepost"
MANIFEST: Final = "DriveManifest.xml"

_PAGE: Final = 256
_TABLES: Final = """
    CREATE TABLE name (folded TEXT PRIMARY KEY, spelled TEXT NOT NULL, is_folder INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE blob (
        number INTEGER PRIMARY KEY, path TEXT NOT NULL, length INTEGER NOT NULL, file TEXT NOT NULL,
        status TEXT, written TEXT
    );
"""


@dataclass(frozen=True, slots=True)
class Written:
    """What came of one blob that lies on the drive.

    Attributes:
        length: bytes; may differ from what was listed, where the blob changed since.
        last_modified: of the blob, in ISO 8601.
        pieces: offset, length and upper-case MD5 of each block or page range.
        properties: path and upper-case MD5 of the properties file; None where it could not be written.
        metadata: as above, of the metadata file.
        has_metadata: whether the blob has metadata, so that there should be such a file.
        is_page_blob: whether `pieces` are page ranges.
        is_as_stored: whether its content has the MD5 that the store tells of it, or the store tells none.
    """

    length: int
    last_modified: str
    pieces: list[tuple[int, int, str]]
    properties: tuple[str, str] | None
    metadata: tuple[str, str] | None
    has_metadata: bool
    is_page_blob: bool
    is_as_stored: bool

    @property
    def status(self) -> BlobStatus:
        """How the blob ended."""
        lacks = self.properties is None or (self.has_metadata and self.metadata is None)
        return BlobStatus.COMPLETED_WITH_ERRORS if lacks or not self.is_as_stored else BlobStatus.COMPLETED


@dataclass(frozen=True, slots=True)
class Entry:
    r"""One blob of the journal.

    Attributes:
        number: its place, from 0.
        path: container and name.
        length: bytes as listed.
        file: its path on the drive, with backslashes; empty where it does not come to this drive.
        status: how it ended; None before.
        written: what lies on the drive; None where nothing does.
    """

    number: int
    path: str
    length: int
    file: str
    status: BlobStatus | None = None
    written: Written | None = None

    def blob(self) -> Blob:
        """Make its entry of the manifest."""
        written = self.written
        if written is None:
            raise ValueError("it does not lie on the drive")
        return Blob(
            self.path,
            self.file,
            written.length,
            blocks=() if written.is_page_blob else tuple(Block(*piece) for piece in written.pieces),
            page_ranges=tuple(PageRange(*piece) for piece in written.pieces) if written.is_page_blob else (),
            metadata=written.metadata and AttachedFile(*written.metadata),
            properties=written.properties and AttachedFile(*written.properties),
            is_page_blob=written.is_page_blob,
        )

    def files(self) -> Iterator[str]:
        """Name what lies on the drive, of a blob that does."""
        yield self.file
        for kind in ("properties", "metadata"):
            if attached := getattr(self.written, kind):
                yield attached[0]

    def logged(self) -> LoggedBlob:
        """Make its entry of the copy log."""
        told = LoggedBlob(self.path, self.file, self.length, self.status or BlobStatus.FAILED)
        if self.written is None:
            return told
        written = self.written
        return replace(
            told,
            length=written.length,
            last_modified=datetime.fromisoformat(written.last_modified),
            blocks=tuple(LoggedBlock(*piece, BlockStatus.COMPLETED) for piece in written.pieces),
            metadata_status=_attached(written.metadata) if written.has_metadata else None,
            properties_status=_attached(written.properties),
            is_page_blob=written.is_page_blob,
        )


def _attached(file: tuple[str, str] | None) -> AttachedStatus:
    return AttachedStatus.FAILED if file is None else AttachedStatus.COMPLETED


class ExportJournal:
    """The journal of one drive; of another job, one that planned nothing, or one that broke, nothing is kept.

    Args:
        drive: where the drive is mounted.
        owner: whose journal it is, such as no stranger can know; what anybody else left there is never opened.

    Attributes:
        folders: how many folders were planned since it was opened.

    Raises:
        DriveError: of every method: the drive cannot be written.
    """

    def __init__(self, drive: Path, owner: str) -> None:
        self._drive = drive
        self._folder = drive / WORKING
        # A drive may bring along links to our own files, or a file that keeps its reader busy for ever.
        self._file = self._folder / f"{owner}.journal"
        self.folders = 0
        with told_of(drive):
            self._db = self._kept() or self._begun()
            # What was not whole when the run before was cut; the journal's own files are no numbers.
            for file in self._folder.iterdir():
                if file.name.partition(".")[0].isdigit():
                    file.unlink()

    def _kept(self) -> sqlite3.Connection | None:
        if self._folder.is_symlink() or not self._file.is_file():
            return None
        db = sqlite3.connect(self._file, isolation_level=None)
        try:
            _settle(db)
            if _is_planned(db):
                return db
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                db.close()
                # A worker that sleeps must first wake up, and hear that it lost its lease.
                raise StoreError("a process that copied to this drive before still holds on to it") from None
        db.close()
        return None

    def _begun(self) -> sqlite3.Connection:
        _remove(self._folder)
        self._folder.mkdir()
        db = sqlite3.connect(self._file, isolation_level=None)
        _settle(db)
        db.executescript(_TABLES)
        return db

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    # -- what is planned -------------------------------------------------------------------------------

    @property
    def is_planned(self) -> bool:
        """Whether it is settled what goes to this drive."""
        with told_of(self._drive):
            return _is_planned(self._db)

    @property
    def last_path(self) -> str | None:
        """The last blob of the job's list that was planned here or found to fit on no drive.

        Not one of an impossible name, which may stand here otherwise than in the list.
        """
        with told_of(self._drive):
            found = self._db.execute(
                "SELECT path FROM blob WHERE file <> '' OR status <> ? ORDER BY number DESC LIMIT 1",
                (BlobStatus.FILE_NAME_INVALID,),
            ).fetchone()
        return found and str(found[0])

    @contextmanager
    def planning(self) -> Iterator[None]:
        """Open one transaction, in which all is planned or nothing."""
        with told_of(self._drive):
            self._db.execute("BEGIN")
            try:
                yield
                self._db.execute("PRAGMA user_version = 1")
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def plan(self, path: str, length: int) -> None:
        """Let a blob come to this drive, under a name that no other file has on any file system."""
        self._add(path, length, self._place(path), None)

    def leave(self, path: str, length: int, status: BlobStatus) -> None:
        """Write down that a blob does not come to this drive, and why."""
        self._add(path, length, "", status)

    def _add(self, path: str, length: int, file: str, status: BlobStatus | None) -> None:
        self._db.execute(
            "INSERT INTO blob SELECT COALESCE(MAX(number), -1) + 1, ?, ?, ?, ?, NULL FROM blob",
            (path, length, file, status),
        )

    def _place(self, path: str) -> str:
        *folders, name = [safe_name(segment) for segment in path.split("/")]
        place = ""
        for folder in folders:
            place = self._claim(place, folder, is_folder=True) + "\\"
        file = self._claim(place, name, is_folder=False)
        for kind in ("metadata", "properties"):
            self._db.execute("INSERT OR IGNORE INTO name VALUES (?, ?, 0)", (folded(f"{file}.{kind}"), ""))
        return file

    def _claim(self, place: str, name: str, *, is_folder: bool) -> str:
        """Take a name in a folder; folders may be shared, and files may not."""
        for candidate in other_names(name):
            path = f"{place}{candidate}"
            key = folded(path)
            row = self._db.execute("SELECT spelled, is_folder FROM name WHERE folded = ?", (key,)).fetchone()
            if row is not None:
                if is_folder and row[1]:
                    return str(row[0])
                continue
            if not is_folder and any(self._is_named(f"{path}.{kind}") for kind in ("metadata", "properties")):
                continue
            if self._is_on_drive(path, is_folder=is_folder):
                continue
            self._db.execute("INSERT INTO name VALUES (?, ?, ?)", (key, path, is_folder))
            self.folders += is_folder
            return path
        raise AssertionError("other names never end")

    def _is_named(self, path: str) -> bool:
        return bool(self._db.execute("SELECT 1 FROM name WHERE folded = ?", (folded(path),)).fetchone())

    def _is_on_drive(self, path: str, *, is_folder: bool) -> bool:
        """Whether something of somebody else's stands there; a real folder may be used as it is."""
        found = self._drive / path.replace("\\", "/")
        return os.path.lexists(found) and not (is_folder and found.is_dir() and not found.is_symlink())

    # -- what came of it -------------------------------------------------------------------------------

    def end(self, number: int, status: BlobStatus, written: Written | None = None) -> None:
        """Write down how a blob ended."""
        told = None if written is None else json.dumps(asdict(written), separators=(",", ":"))
        with told_of(self._drive):
            self._db.execute("UPDATE blob SET status = ?, written = ? WHERE number = ?", (status, told, number))

    def leave_out(self, number: int) -> None:
        """Write down that a blob that was planned does not come to this drive, for want of room."""
        with told_of(self._drive):
            self._db.execute("UPDATE blob SET status = ?, file = '' WHERE number = ?", (BlobStatus.FAILED, number))

    def cut(self, first: int) -> None:
        """Let no blob from this number on come to this drive, and remove what came of them."""
        written = list(self.entries(f"number >= {first} AND written IS NOT NULL"))
        with told_of(self._drive):
            # Cut anywhere, even by the power's end, no file is gone that the journal still has as written.
            self._db.execute("UPDATE blob SET status = NULL, written = NULL WHERE number >= ?", (first,))
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            for file in (file for entry in written for file in entry.files()):
                (self._drive / file.replace("\\", "/")).unlink(missing_ok=True)
            self._db.execute("DELETE FROM blob WHERE number >= ?", (first,))

    def entries(self, where: str = "TRUE") -> Iterator[Entry]:
        """Give the blobs in their order, such as `where` chooses: a condition of ours on the table's columns."""
        last = -1
        while True:
            with told_of(self._drive):
                page = self._db.execute(
                    f"SELECT * FROM blob WHERE number > ? AND ({where}) ORDER BY number LIMIT {_PAGE}",  # noqa: S608
                    (last,),
                ).fetchall()
            yield from map(_entry, page)
            if len(page) < _PAGE:
                return
            last = page[-1][0]

    def waiting(self) -> Iterator[Entry]:
        """Give the blobs that come to this drive and are not over."""
        return self.entries("status IS NULL")

    def total(self, where: str = "TRUE") -> tuple[int, int]:
        """Count the blobs that come to this drive, and their bytes as listed; of such as `where` chooses."""
        with told_of(self._drive):
            count, length = self._db.execute(
                f"SELECT COUNT(*), COALESCE(SUM(length), 0) FROM blob WHERE file <> '' AND ({where})"  # noqa: S608
            ).fetchone()
        return int(count), int(length)


def _settle(db: sqlite3.Connection) -> None:
    # One process alone has it, so it needs no memory shared between processes, which some drives have not.
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")


def _is_planned(db: sqlite3.Connection) -> bool:
    return bool(db.execute("PRAGMA user_version").fetchone()[0])


def _remove(folder: Path) -> None:
    """Remove what stands there, of whatever kind it is; no link is followed."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


@contextmanager
def told_of(drive: Path) -> Iterator[None]:
    """Tell what the drive's file system or journal refuses as the drive's own fault, without names.

    Raises:
        DriveError: the drive was taken out, or cannot be written.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        if not drive.is_dir():
            raise DriveError("DiskNotFound", "the drive was taken out of the bay during its copy") from None
        told = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise DriveError("InternalError", f"the drive cannot be written: {told}") from None


def discard_working_folder(drive: Path) -> None:
    """Remove the journal and whatever is not whole; harmless when there is nothing.

    Raises:
        DriveError: the drive cannot be written.
    """
    with told_of(drive):
        _remove(drive / WORKING)


def tidy_up(drive: Path) -> None:
    """Remove it as well as can be: a drive that cannot even be tidied up keeps no job from its end."""
    with suppress(DriveError):
        discard_working_folder(drive)


def _entry(row: tuple[Any, ...]) -> Entry:
    number, path, length, file, status, written = row
    return Entry(
        number, path, length, file, status and BlobStatus(status), written and Written(**json.loads(written))
    )
