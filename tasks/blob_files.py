"""Files of a drive that is copied: found only on the drive, read piece by piece, checked before they count."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from models.blob_facts import BlobFacts, read_metadata, read_properties
from models.copy_logs import AttachedStatus, BlobStatus, BlockStatus
from models.drive_files import find_file, find_folder, read_piece
from models.errors import DriveError, ManifestError
from models.manifests import AttachedFile, Blob, Block, PageRange
from tasks.stores import Part

# Without waiting, so that a pipe on the drive holds nobody up.
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_IS_A_LINK: Final = frozenset({errno.ELOOP, errno.EMLINK})
_FOLDERS_MAX: Final = 1024
_ATTACHED_MAX: Final = 256
_ATTACHED_BYTES_MAX: Final = 64 * 2**10

Piece = Block | PageRange


class BlobFailedError(Exception):
    """One blob cannot be copied; the next one may.

    Args:
        status: of the blob, as the copy log names it.
        bad: what became of its pieces, by their place, where that is known.
    """

    def __init__(self, status: BlobStatus, bad: dict[int, BlockStatus] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.bad = bad or {}


@dataclass(frozen=True, slots=True)
class Attached:
    """What was read of a blob's metadata and properties files, and what became of each; None: there is none."""

    facts: BlobFacts
    metadata: AttachedStatus | None = None
    properties: AttachedStatus | None = None

    @classmethod
    def cancelled(cls, blob: Blob) -> "Attached":
        """Tell of what was not read, because its blob is not copied."""
        metadata = AttachedStatus.CANCELLED if blob.metadata else None
        return cls(BlobFacts(), metadata, AttachedStatus.CANCELLED if blob.properties else None)

    @classmethod
    def written(cls, blob: Blob) -> "Attached":
        """Tell of what was written with its blob."""
        metadata = AttachedStatus.COMPLETED if blob.metadata else None
        return cls(BlobFacts(), metadata, AttachedStatus.COMPLETED if blob.properties else None)

    @property
    def went_well(self) -> bool:
        """Whether all that there is was read and kept."""
        return {self.metadata, self.properties} <= {AttachedStatus.COMPLETED, None}


class DriveFiles:
    """The files of one drive; may be used from several threads.

    Args:
        folder: where the drive is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = os.path.join(folder.resolve(), "")  # noqa: PTH118  a Path ends with no slash
        # A drive has few folders for its files, and resolving one costs more than reading a small file.
        self._find_folder = lru_cache(_FOLDERS_MAX)(self._resolve_folder)
        self._read_attached = lru_cache(_ATTACHED_MAX)(self._read_and_check)

    @contextmanager
    def opened(self, blob: Blob) -> Iterator[int]:
        """Open a blob's file; nothing outside the drive is ever read.

        Raises:
            BlobFailedError: there is no such file, it is longer than its blob, or it cannot be opened; or it is
                shorter than its page blob, whose ranges need not tell.
            DriveError: the drive was taken out.
        """
        file = self._open(blob.file_path)
        try:
            length = os.fstat(file).st_size
            if length > blob.length or (blob.is_page_blob and length < blob.length):
                raise BlobFailedError(BlobStatus.FAILED)
            yield file
        finally:
            os.close(file)

    def _open(self, path: str) -> int:
        try:
            folder, _, name = path.rpartition("\\")
            try:
                file = os.open(f"{self._find_folder(folder)}/{name}", _FLAGS | os.O_NOFOLLOW)
            except OSError as error:
                if error.errno not in _IS_A_LINK:
                    raise
                file = os.open(find_file(self._folder, path), _FLAGS)
        except FileNotFoundError:
            if not self._folder.is_dir():
                raise DriveError("DiskNotFound", "the drive was taken out of the bay during its copy") from None
            raise BlobFailedError(BlobStatus.FILE_NOT_FOUND) from None
        except PermissionError:
            raise BlobFailedError(BlobStatus.FILE_ACCESS_DENIED) from None
        except (OSError, ValueError) as error:
            is_none = isinstance(error, ValueError | NotADirectoryError)
            raise BlobFailedError(BlobStatus.FILE_NOT_FOUND if is_none else BlobStatus.IO_FAILED) from None
        is_on_drive = os.readlink(f"/proc/self/fd/{file}").startswith(self._root)  # noqa: PTH115  as above
        if not is_on_drive or not stat.S_ISREG(os.fstat(file).st_mode):
            # A folder was exchanged for a link since it was resolved; or it is a pipe, a device, a folder.
            os.close(file)
            raise BlobFailedError(BlobStatus.FILE_NOT_FOUND)
        return file

    def _resolve_folder(self, path: str) -> str:
        return str(find_folder(self._folder, path))

    def attached(self, blob: Blob) -> Attached:
        """Read what is to be kept with a blob; what cannot be read is told, and the blob comes without it."""
        facts, metadata, properties = BlobFacts(), None, None
        if blob.properties:
            properties, facts = self._read_attached(blob.properties, is_metadata=False)
        if blob.metadata:
            metadata, found = self._read_attached(blob.metadata, is_metadata=True)
            facts = replace(facts, metadata=found.metadata)
        return Attached(facts, metadata, properties)

    def _read_and_check(self, attached: AttachedFile, *, is_metadata: bool) -> tuple[AttachedStatus, BlobFacts]:
        try:
            file = self._open(attached.path)
        except BlobFailedError as failure:
            is_missing = failure.status is BlobStatus.FILE_NOT_FOUND
            return AttachedStatus.FILE_NOT_FOUND if is_missing else AttachedStatus.IO_FAILED, BlobFacts()
        try:
            data = os.read(file, _ATTACHED_BYTES_MAX + 1)
        except OSError:
            return AttachedStatus.IO_FAILED, BlobFacts()
        finally:
            os.close(file)
        if len(data) <= _ATTACHED_BYTES_MAX and md5_of(data) != attached.hash:
            return AttachedStatus.CORRUPTED, BlobFacts()
        try:
            facts = BlobFacts(metadata=read_metadata(data)) if is_metadata else read_properties(data)
        except ManifestError:
            return AttachedStatus.XML_READ_FAILED, BlobFacts()
        return AttachedStatus.COMPLETED, facts


def md5_of(data: bytes | memoryview) -> str:
    """Compute an MD5 as manifests have it: upper-case hexadecimal."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest().upper()


def read_part(file: int, part: Part, pieces: Sequence[Piece], first: int) -> bytes:
    """Read one part.

    Args:
        file: of the drive.
        part: what to read.
        pieces: the blocks or page ranges that it is made of.
        first: the place of the first of them in its blob.

    Raises:
        BlobFailedError: it cannot be read, or the file ends within it.
    """
    try:
        data = read_piece(file, part.offset, part.length)
    except OSError:
        raise BlobFailedError(BlobStatus.IO_FAILED, {first: BlockStatus.IO_FAILED}) from None
    if len(data) < part.length:
        end = part.offset + len(data)
        cut = next(at for at, piece in enumerate(pieces, first) if piece.offset + piece.length > end)
        raise BlobFailedError(BlobStatus.COMPLETED_WITH_ERRORS, {cut: BlockStatus.FILE_UNEXPECTED_END})
    return data


def bad_pieces(data: bytes, part: Part, pieces: Sequence[Piece], first: int) -> list[int]:
    """Compare a part with its manifest; tells the places of the pieces that are not as listed."""
    if len(data) != part.length:
        return list(range(first, first + len(pieces)))
    if len(pieces) == 1:
        return [] if md5_of(data) == pieces[0].hash else [first]
    whole = memoryview(data)
    return [
        at
        for at, piece in enumerate(pieces, first)
        if md5_of(whole[(begin := piece.offset - part.offset) : begin + piece.length]) != piece.hash
    ]
