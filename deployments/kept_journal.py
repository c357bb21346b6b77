"""The journal of prepare-drive, kept in a file on the drive until all drives of the run are done."""

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Self

from models.drive_journals import (
    JOURNAL_NAME,
    JournalEntry,
    JournalHead,
    add_entry,
    begin_journal,
    read_entry,
    read_head,
)
from models.manifests import Blob

_WAITING_MAX: Final = 256
_WAITING_BYTES_MAX: Final = 256 * 2**20
"""What a process that is killed may have to copy again; one flush for each file would take ten times as long."""


class KeptJournal:
    """The journal of one drive; nothing is written before `begin`.

    Used as a context manager, which closes the file.

    Args:
        root: the drive's root folder.

    Raises:
        DriveError: the file of that name is no journal.
        OSError: of every method: the drive does not answer, or cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / JOURNAL_NAME
        self._places: dict[str, int] = {}
        self._waiting: dict[str, JournalEntry] = {}
        self._stream: BinaryIO | None = None
        self.head: JournalHead | None = None
        """None where there is no journal yet."""
        if self._path.is_file() and not self._path.is_symlink():
            self._stream = self._path.open("r+b")
            self._read(self._stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write down what is finished, as well as can be, and let go of the file."""
        if self._waiting:
            with suppress(OSError):
                self.settle()
        if self._stream:
            # On a full drive this fails too, and is no more than `settle` has told, or was told of before.
            with suppress(OSError):
                self._stream.close()

    def _read(self, stream: BinaryIO) -> None:
        self.head = read_head(stream)
        if self.head is None:
            return
        place = stream.tell()
        while entry := read_entry(stream):
            # Of a file that was copied twice the later entry counts.
            self._places[entry.blob.file_path] = place
            place = stream.tell()
        self._end = place

    @property
    def room(self) -> int | None:
        """Bytes that the drive had for files when the journal was begun; None where there is none yet."""
        return self.head.room if self.head else None

    @property
    def file_paths(self) -> frozenset[str]:
        """Every file that was begun or finished, by its path on the drive."""
        return frozenset(self._places)

    def begin(self, head: JournalHead) -> None:
        """Go on with the journal, or begin one."""
        if self._stream and self.head:
            self._stream.truncate(self._end)
            return
        self.remove()
        self._stream = self._path.open("x+b")
        begin_journal(self._stream, head)
        self.head, self._end = head, self._stream.tell()

    def find(self, file_path: str) -> JournalEntry | None:
        """Read the entry of a file that was finished; of one that was only begun, with no version of a source."""
        if file_path in self._waiting:
            return self._waiting[file_path]
        if self._stream is None or file_path not in self._places:
            return None
        self._stream.seek(self._places[file_path])
        return read_entry(self._stream)

    def expect(self, blob_path: str, file_path: str) -> None:
        """Write down that a file is begun: cut now, and not wanted any more, it would stay there unlisted."""
        self._write(JournalEntry(Blob(blob_path, file_path, 0), source=""))

    def add(self, entry: JournalEntry) -> None:
        """Take a file for finished; it is written down with others, once all of them are on the disk."""
        self._waiting[entry.blob.file_path] = entry
        bytes_waiting = sum(each.blob.length for each in self._waiting.values())
        if len(self._waiting) >= _WAITING_MAX or bytes_waiting >= _WAITING_BYTES_MAX:
            self.settle()

    def settle(self) -> None:
        """Have everything really on the disk, and then write down that it is: the power may go, or the drive."""
        _to_disk()
        for entry in self._waiting.values():
            self._write(entry)
        self._waiting.clear()

    def _write(self, entry: JournalEntry) -> None:
        if self._stream is None:
            raise ValueError("the journal was not begun")
        self._stream.seek(self._end)
        add_entry(self._stream, entry)
        self._places[entry.blob.file_path], self._end = self._end, self._stream.tell()

    def remove(self) -> None:
        """Take the journal off the drive; harmless when there is none."""
        self.close()
        with suppress(FileNotFoundError):
            self._path.unlink()


def _to_disk() -> None:
    os.sync()
