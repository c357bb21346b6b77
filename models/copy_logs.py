"""The copy log: what became of every blob of a drive, for the customer to read.

The verbose log names every blob, the error log those that did not go well. A log lies in the customer's own
storage account, so file names belong in it, and it must get written whatever they are.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, TypeVar

from models.errors import CopyLogError, ManifestError
from models.manifest_reader import walk_elements
from models.manifests import ImportDisposition, SupportsWrite, escaped, replace_unwritable

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

VERSION: Final = "2014-11-01"
LOG_FOLDER: Final = "waies"

LogKind = Literal["error", "verbose", "manifest"]
_Word = TypeVar("_Word", bound=StrEnum)


class DriveStatus(StrEnum):
    """How the copy of a whole drive ended."""

    COMPLETED = "Completed"
    COMPLETED_WITH_WARNINGS = "CompletedWithWarnings"
    COMPLETED_WITH_ERRORS = "CompletedWithErrors"
    DISK_NOT_FOUND = "DiskNotFound"
    BIT_LOCKER_KEY_INVALID = "BitLockerKeyInvalid"
    MANIFEST_NOT_FOUND = "ManifestNotFound"
    MANIFEST_ACCESS_DENIED = "ManifestAccessDenied"
    MANIFEST_CORRUPTED = "ManifestCorrupted"
    MANIFEST_FORMAT_INVALID = "ManifestFormatInvalid"
    MANIFEST_DRIVE_ID_MISMATCH = "ManifestDriveIdMismatch"
    BLOB_LIST_FORMAT_INVALID = "BlobListFormatInvalid"
    BLOB_REQUEST_FORBIDDEN = "BlobRequestForbidden"
    INTERNAL_ERROR = "InternalError"


class BlobStatus(StrEnum):
    """How the copy of one blob ended."""

    COMPLETED = "Completed"
    COMPLETED_WITH_ERRORS = "CompletedWithErrors"
    FILE_NAME_INVALID = "FileNameInvalid"
    FILE_NOT_FOUND = "FileNotFound"
    FILE_ACCESS_DENIED = "FileAccessDenied"
    BLOB_REQUEST_FAILED = "BlobRequestFailed"
    BLOB_REQUEST_FORBIDDEN = "BlobRequestForbidden"
    RENAME_FAILED = "RenameFailed"
    IO_FAILED = "IOFailed"
    FAILED = "Failed"


class DispositionStatus(StrEnum):
    """What became of the blob's name; Cancelled when a failure before left nothing to decide."""

    CREATED = "Created"
    RENAMED = "Renamed"
    SKIPPED = "Skipped"
    OVERWRITTEN = "Overwritten"
    CANCELLED = "Cancelled"


class BlockStatus(StrEnum):
    """What became of one block or page range."""

    COMPLETED = "Completed"
    COMMITTED = "Committed"
    UNCOMMITTED = "Uncommitted"
    CORRUPTED = "Corrupted"
    FILE_UNEXPECTED_END = "FileUnexpectedEnd"
    BLOB_REQUEST_FAILED = "BlobRequestFailed"
    IO_FAILED = "IOFailed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class AttachedStatus(StrEnum):
    """What became of a metadata or properties file."""

    COMPLETED = "Completed"
    FILE_NOT_FOUND = "FileNotFound"
    CORRUPTED = "Corrupted"
    XML_READ_FAILED = "XmlReadFailed"
    BLOB_REQUEST_FAILED = "BlobRequestFailed"
    IO_FAILED = "IOFailed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


@dataclass(frozen=True, slots=True)
class LoggedBlock:
    """A block or a page range: offset and length in bytes, upper-case MD5, and what became of it."""

    offset: int
    length: int
    hash: str
    status: BlockStatus
    id: str | None = None

    @property
    def went_well(self) -> bool:
        """Whether nothing is to be told of it; a block only Committed lies in a blob that is not whole."""
        return self.status == BlockStatus.COMPLETED


@dataclass(frozen=True, slots=True)
class LoggedBlob:
    """One blob in the log.

    Attributes:
        blob_path: as in the manifest; for a renamed blob the path it got.
        file_path: on the drive, with backslashes.
        length: bytes, 0 and up.
        status: of the blob as a whole.
        disposition: what was asked for; None on export, where nothing is asked.
        disposition_status: what became of it; None exactly when `disposition` is.
        last_modified: of the exported blob, UTC; None on import.
        blocks: of a page blob its page ranges.
        metadata_status: None if there is no metadata file.
        properties_status: None if there is no properties file.
        is_page_blob: whether `blocks` are page ranges.
    """

    blob_path: str
    file_path: str
    length: int
    status: BlobStatus
    disposition: ImportDisposition | None = None
    disposition_status: DispositionStatus | None = None
    last_modified: datetime | None = None
    blocks: tuple[LoggedBlock, ...] = ()
    metadata_status: AttachedStatus | None = None
    properties_status: AttachedStatus | None = None
    is_page_blob: bool = False

    @property
    def went_well(self) -> bool:
        """Whether the error log has nothing to tell of this blob."""
        return (
            self.status == BlobStatus.COMPLETED
            and self.disposition_status in {DispositionStatus.CREATED, None}
            and {self.metadata_status, self.properties_status} <= {AttachedStatus.COMPLETED, None}
        )


@dataclass(frozen=True, slots=True)
class CopyLog:
    """A whole log: the drive's serial number, its blobs in order, and how the drive ended."""

    drive_id: str
    blobs: list[LoggedBlob]
    status: DriveStatus


def copy_log_name(job_name: str, drive_id: str, at: datetime, kind: LogKind) -> str:
    """Name a log, below the job's diagnostics path.

    Args:
        job_name: the job's name as its customer wrote it.
        drive_id: the drive's serial number; what is no letter, digit, ".", "_" or "-" becomes "-",
            so that no serial number leads out of the folder.
        at: when the copy of the drive began, UTC.
        kind: "manifest" is the copy of the manifest under the same rule.

    Returns:
        `waies/<job>_<drive>_<yyyyMMdd-HHmmss-fff>_<kind>.xml`, milliseconds cut, not rounded.

    Raises:
        ValueError: `at` is not UTC.

    Source: section 7 of the specification, copy logs.
    """
    if at.utcoffset() != timedelta(0):
        msg = "a copy log is named by a time in UTC that says so"
        raise ValueError(msg)
    safe_drive_id = re.sub(r"[^A-Za-z0-9._-]", "-", drive_id)
    return f"{LOG_FOLDER}/{job_name}_{safe_drive_id}_{at:%Y%m%d-%H%M%S}-{at.microsecond // 1000:03}_{kind}.xml"


def error_entries(blobs: Iterable[LoggedBlob]) -> Iterator[LoggedBlob]:
    """Leave out what went well: whole blobs, and of the others their blocks and attached files."""
    for blob in blobs:
        if not blob.went_well:
            yield replace(
                blob,
                blocks=tuple(block for block in blob.blocks if not block.went_well),
                metadata_status=_unless_completed(blob.metadata_status),
                properties_status=_unless_completed(blob.properties_status),
            )


def write_copy_log(stream: SupportsWrite, drive_id: str, blobs: Iterable[LoggedBlob], status: DriveStatus) -> None:
    """Write a log, holding one blob at a time; `blobs` may be `error_entries` of others.

    Characters that XML cannot hold become U+FFFD: a log with one odd name is better than none.

    Raises:
        ValueError: a `last_modified` does not tell its offset from UTC.

    Source: section 9 of the specification, copy log.
    """
    stream.write(
        f'<?xml version="1.0" encoding="utf-8"?>\n<DriveLog Version="{VERSION}">'
        f"<DriveId>{_text(drive_id)}</DriveId>\n".encode()
    )
    for blob in blobs:
        stream.write("".join(_blob_lines(blob)).encode())
    stream.write(f"<Status>{status}</Status></DriveLog>\n".encode())


def read_copy_log(stream: BinaryIO) -> CopyLog:
    """Read a log that `write_copy_log` wrote; all of it is held in memory.

    Raises:
        CopyLogError: it is not a log, or not all of one.
    """
    drive_id: str | None = None
    status: DriveStatus | None = None
    blobs: list[LoggedBlob] = []
    try:
        for event, place, element in walk_elements(stream, whole_from=2):
            if place[0] != "DriveLog":
                raise _unreadable("its outermost element is no DriveLog")
            if event == "start" or len(place) != 2:
                continue
            if element.tag == "DriveId":
                drive_id = element.text or ""
            elif element.tag == "Blob":
                blobs.append(_read_blob(element, len(blobs) + 1))
            elif element.tag == "Status":
                status = _word(DriveStatus, element.text, "its drive")
    except ManifestError as fault:
        raise _unreadable(str(fault)) from None
    if drive_id is None or status is None:
        raise _unreadable("it has no DriveId or no Status")
    return CopyLog(drive_id, blobs, status)


def _unless_completed(status: AttachedStatus | None) -> AttachedStatus | None:
    return None if status == AttachedStatus.COMPLETED else status


# Writing.


def _text(text: str) -> str:
    return escaped(replace_unwritable(text))


def _blob_lines(blob: LoggedBlob) -> Iterator[str]:
    yield f'<Blob Status="{blob.status}"><BlobPath>{_text(blob.blob_path)}</BlobPath>'
    yield f"<FilePath>{_text(blob.file_path)}</FilePath><Length>{blob.length}</Length>"
    if blob.last_modified is not None:
        yield f"<LastModified>{_utc(blob.last_modified)}</LastModified>"
    if blob.disposition is not None:
        yield f'<ImportDisposition Status="{blob.disposition_status or ""}">{blob.disposition}</ImportDisposition>'
    around, name = ("PageRangeList", "PageRange") if blob.is_page_blob else ("BlockList", "Block")
    yield f"<{around}>"
    yield from (_block_line(name, block) for block in blob.blocks)
    yield f"</{around}>"
    if blob.metadata_status is not None:
        yield f'<Metadata Status="{blob.metadata_status}"/>'
    if blob.properties_status is not None:
        yield f'<Properties Status="{blob.properties_status}"/>'
    yield "</Blob>\n"


def _block_line(name: str, block: LoggedBlock) -> str:
    block_id = "" if block.id is None else f' Id="{_text(block.id)}"'
    return (
        f'<{name} Offset="{block.offset}" Length="{block.length}"{block_id} '
        f'Hash="{_text(block.hash)}" Status="{block.status}"/>'
    )


def _utc(at: datetime) -> str:
    if at.utcoffset() is None:
        msg = "the time a blob was last modified must tell its offset from UTC"
        raise ValueError(msg)
    return at.astimezone(UTC).isoformat()


# Reading.


def _unreadable(text: str) -> CopyLogError:
    return CopyLogError(f"the copy log cannot be read: {text}")


def _word(words: type[_Word], text: str | None, where: str) -> _Word:
    try:
        return words(text or "")
    except ValueError:
        raise _unreadable(f"{where} has no {words.__name__} that a log may have") from None


def _read_blob(element: "Element", position: int) -> LoggedBlob:
    where = f"blob {position}"
    disposition = element.find("ImportDisposition")
    page_ranges = element.find("PageRangeList")
    try:
        blocks = tuple(
            _read_block(block, where)
            for name in ("BlockList/Block", "PageRangeList/PageRange")
            for block in element.iterfind(name)
        )
        length = int(element.findtext("Length", ""))
        last_modified = element.findtext("LastModified")
        at = None if last_modified is None else datetime.fromisoformat(last_modified)
    except ValueError:
        raise _unreadable(f"{where} has a number or a time that is none") from None
    return LoggedBlob(
        blob_path=element.findtext("BlobPath", ""),
        file_path=element.findtext("FilePath", ""),
        length=length,
        status=_word(BlobStatus, element.get("Status"), where),
        disposition=None if disposition is None else _word(ImportDisposition, disposition.text, where),
        disposition_status=None
        if disposition is None
        else _word(DispositionStatus, disposition.get("Status"), where),
        last_modified=at,
        blocks=blocks,
        metadata_status=_read_attached(element.find("Metadata"), where),
        properties_status=_read_attached(element.find("Properties"), where),
        is_page_blob=page_ranges is not None,
    )


def _read_block(element: "Element", where: str) -> LoggedBlock:
    return LoggedBlock(
        offset=int(element.get("Offset", "")),
        length=int(element.get("Length", "")),
        hash=element.get("Hash", ""),
        status=_word(BlockStatus, element.get("Status"), where),
        id=element.get("Id"),
    )


def _read_attached(element: "Element | None", where: str) -> AttachedStatus | None:
    return None if element is None else _word(AttachedStatus, element.get("Status"), where)
