"""One blob on its way from the store onto a drive: read, hashed, checked, written, named.

What stands here runs in threads of the copy, several blobs at once. It knows neither database nor lease: `Way`
lets it go on, or ends it.
"""

import errno
import hashlib
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from models.blob_facts import write_metadata, write_properties
from models.copy_logs import BlobStatus
from models.drive_files import read_piece
from models.errors import DriveError, ManifestError
from models.manifests import BLOCK_BYTES_MAX, BLOCKS_MAX, PAGE_BYTES, PAGE_RANGES_MAX
from tasks.blob_files import BlobFailedError, md5_of
from tasks.export_journal import WORKING, Entry, Written
from tasks.stores import BlobMissingError, Container, StoredBlob
from tasks.way import Way

RESERVE_BYTES: Final = 16 * 2**20
"""Left free for journal, manifest and folders, and what a file system needs for itself."""

_TRIES: Final = 3
_ZEROS: Final = bytes(BLOCK_BYTES_MAX)
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class DriveFullError(Exception):
    """The drive has no room for a blob, although there should be: blobs grow, and others write to drives."""


class _ChangedError(Exception):
    """The blob is not the one any more that it was when its reading began."""


@dataclass(slots=True)
class Errand:
    """One blob to be fetched: its entry of the journal, where it is, and how many bytes of it were read."""

    entry: Entry
    container: Container
    name: str
    bytes_read: int = 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A piece that was asked for, bytes `offset` to `offset + length`, and the memory taken for it."""

    offset: int
    length: int
    taken: int
    future: Future[bytes]

    def data(self) -> bytes:
        try:
            data = self.future.result()
        except BlobMissingError:
            raise _ChangedError from None
        if len(data) != self.length:
            raise _ChangedError
        return data


@dataclass(slots=True)
class BlobReading:
    """Brings blobs of a store onto one drive.

    Attributes:
        drive: where it is mounted.
        way: lets it go on.
        pool: where pieces are asked for.
        reads_back: whether what was written is read from the drive again, and compared.
    """

    drive: Path
    way: Way
    pool: Executor
    reads_back: bool

    def fetch(self, errand: Errand) -> Written:
        """Bring one blob onto the drive under the name settled for it; nobody ever sees a part of it there.

        Raises:
            BlobFailedError: it is gone, changes faster than it is read, is none that a manifest can list, or
                the drive does not take it.
            DriveFullError: the drive has no room for it.
            StoreError: the store refused it, or does not answer.
            DriveError: the drive is gone.
            CopyStoppedError: the copy ends.
        """
        for _ in range(_TRIES):
            self.way.require_open()
            errand.bytes_read = 0
            try:
                stored = self.way.patiently(lambda: errand.container.stat(errand.name))
            except BlobMissingError:
                raise BlobFailedError(BlobStatus.FILE_NOT_FOUND) from None
            _require_listable(stored)
            with suppress(_ChangedError), self._told():
                return self._fetch(errand, stored)
        raise BlobFailedError(BlobStatus.BLOB_REQUEST_FAILED)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self.drive.is_dir():
                raise DriveError("DiskNotFound", "the drive was taken out of the bay during its copy") from None
            if error.errno in _FULL:
                raise DriveFullError from None
            raise BlobFailedError(BlobStatus.IO_FAILED) from None

    def _fetch(self, errand: Errand, stored: StoredBlob) -> Written:
        with ExitStack() as unfinished:
            laid = unfinished.enter_context(self._unfinished(errand.entry, ""))
            pieces, is_as_stored = self._write(laid, errand, stored)
            if not stored.e_tag:
                _require_same(errand, stored)
            self._require_as_written(laid, pieces)
            attached = {
                kind: (unfinished.enter_context(self._laid(errand.entry, f".{kind}", data)), md5_of(data))
                for kind, data in _facts_of(stored, is_as_stored=is_as_stored)
            }
            # Nothing gets its name before all of it is there: a drive that is full keeps no part of a blob.
            for kind, (beside, _) in attached.items():
                self._name(beside, f"{errand.entry.file}.{kind}")
            self._name(laid, errand.entry.file)
        files = {kind: (f"{errand.entry.file}.{kind}", digest) for kind, (_, digest) in attached.items()}
        return Written(
            length=stored.length,
            last_modified=stored.last_modified.isoformat(),
            pieces=pieces,
            properties=files.get("properties"),
            metadata=files.get("metadata"),
            has_metadata=bool(stored.facts.metadata),
            is_page_blob=stored.is_page_blob,
            is_as_stored=is_as_stored,
        )

    def _write(self, laid: Path, errand: Errand, stored: StoredBlob) -> tuple[list[tuple[int, int, str]], bool]:
        """Write the content; tells its pieces, and whether it has the MD5 that the store tells of it."""
        told = stored.facts.content_md5
        whole = hashlib.md5(usedforsecurity=False)
        pieces = []
        with laid.open("wb") as file:
            for offset, data in self._pieces(errand, stored):
                if told is not None:
                    whole.update(data)
                errand.bytes_read += len(data)
                if stored.is_page_blob and data == _ZEROS[: len(data)]:
                    continue
                self.way.require_open()
                # To the last byte it would fail as a whole, since its journal could not be written either.
                if shutil.disk_usage(self.drive).free < RESERVE_BYTES + len(data):
                    raise OSError(errno.ENOSPC, "the drive is full")
                file.seek(offset)
                file.write(data)
                pieces.append((offset, len(data), md5_of(data)))
            file.truncate(stored.length)
            _to_disk(file.fileno())
        return pieces, told in {None, whole.digest()}

    def _require_as_written(self, laid: Path, pieces: Iterable[tuple[int, int, str]]) -> None:
        if not self.reads_back:
            return
        with laid.open("rb") as file:
            # What was just written is still in memory, and it is the drive that is asked.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            for offset, length, digest in pieces:
                with self.way.room_for(length):
                    if md5_of(read_piece(file.fileno(), offset, length)) != digest:
                        raise OSError(errno.EIO, "the drive gives back something else")

    # -- the store -------------------------------------------------------------------------------------

    def _pieces(self, errand: Errand, stored: StoredBlob) -> Iterator[tuple[int, bytes]]:
        """Give a blob's pieces in order, while those that follow are on their way as far as memory lets them."""
        asked: deque[_Asked] = deque()
        offsets = deque(range(0, stored.length, BLOCK_BYTES_MAX))
        try:
            while asked or offsets:
                while offsets:
                    length = min(BLOCK_BYTES_MAX, stored.length - offsets[0])
                    # Who has nothing waits for memory; nobody who has some waits for more.
                    taken = self.way.take_spare(length) if asked else self.way.take(length)
                    if not taken:
                        break
                    offset = offsets.popleft()
                    read = partial(errand.container.read, errand.name, offset, length, e_tag=stored.e_tag)
                    future = self.pool.submit(self.way.patiently, read)
                    asked.append(_Asked(offset, length, taken, future))
                yield asked[0].offset, asked[0].data()
                self._forget(asked.popleft())
        finally:
            for each in asked:
                self._forget(each)

    def _forget(self, asked: "_Asked") -> None:
        asked.future.cancel()
        self.way.give_back(asked.taken)

    # -- the drive -------------------------------------------------------------------------------------

    @contextmanager
    def _unfinished(self, entry: Entry, suffix: str) -> Iterator[Path]:
        laid = self.drive / WORKING / f"{entry.number}{suffix}"
        try:
            yield laid
        finally:
            laid.unlink(missing_ok=True)

    @contextmanager
    def _laid(self, entry: Entry, suffix: str, data: bytes) -> Iterator[Path]:
        with self._unfinished(entry, suffix) as laid:
            self.way.require_open()
            with laid.open("wb") as stream:
                stream.write(data)
                stream.flush()
                _to_disk(stream.fileno())
            self._require_as_written(laid, [(0, len(data), md5_of(data))])
            yield laid

    def _name(self, laid: Path, file: str) -> None:
        """Give a whole file its name, without going through a link that leads out of the drive."""
        *folders, name = file.split("\\")
        folder = self.drive
        for segment in folders:
            folder /= segment
            with suppress(FileExistsError):
                folder.mkdir()
            if folder.is_symlink():
                raise NotADirectoryError
        self.way.require_open()
        laid.replace(folder / name)


def _to_disk(file: int) -> None:
    os.fsync(file)


def _facts_of(stored: StoredBlob, *, is_as_stored: bool) -> Iterator[tuple[str, bytes]]:
    """Make the files that lie beside a blob, by their kind; one that could not be read back is left out."""
    facts = stored.facts if is_as_stored else replace(stored.facts, content_md5=None)
    with suppress(ManifestError):
        yield (
            "properties",
            write_properties(facts, last_modified=stored.last_modified, e_tag=stored.e_tag, length=stored.length),
        )
    if facts.metadata:
        with suppress(ManifestError):
            yield "metadata", write_metadata(facts.metadata)


def _require_listable(stored: StoredBlob) -> None:
    """Refuse what no manifest can list."""
    pieces_max = PAGE_RANGES_MAX if stored.is_page_blob else BLOCKS_MAX
    if stored.length > pieces_max * BLOCK_BYTES_MAX or (stored.is_page_blob and stored.length % PAGE_BYTES):
        raise BlobFailedError(BlobStatus.FAILED)


def _require_same(errand: Errand, stored: StoredBlob) -> None:
    """Notice by length and time that a blob changed, where the store has no better mark."""
    try:
        now = errand.container.stat(errand.name)
    except BlobMissingError:
        raise _ChangedError from None
    if (now.length, now.last_modified) != (stored.length, stored.last_modified):
        raise _ChangedError
