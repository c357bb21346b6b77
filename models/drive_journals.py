"""The journal of a drive that is being filled: what is finished on it, so that a run cut short goes on.

JSON lines in a file of that name on the drive: a head, then one line for each finished file, flushed as it is
written. A line cut off in the middle is the last one, and nothing that was promised. How a journal is kept in a
file is its user's affair: here are streams.
"""

from dataclasses import dataclass
from typing import BinaryIO, Final, Literal

from pydantic import TypeAdapter, ValidationError

from models.errors import DriveError, ManifestError
from models.manifests import Blob, require_blob

JOURNAL_NAME: Final = ".drivepost.journal"
LINE_BYTES_MAX: Final = 32 * 2**20
"""50,000 blocks with ids, or 262,144 page ranges, fit in one line."""


@dataclass(frozen=True, slots=True)
class JournalHead:
    """The first line.

    Attributes:
        drive_id: the drive's serial number.
        room: bytes that the drive had for files when the journal was begun; below 0, it had none.
        kind: what tells a journal from other JSON.
    """

    drive_id: str
    room: int
    kind: Literal["drivepost journal 1"] = "drivepost journal 1"


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One finished file.

    Attributes:
        blob: as it will stand in the manifest.
        source: which version of its source was copied, in words of whoever copied it; compared and not read.
    """

    blob: Blob
    source: str


_BEGINNING: Final = b'{"drive_id":"'
_HEAD: Final = TypeAdapter(JournalHead)
_ENTRY: Final = TypeAdapter(JournalEntry)


def begin_journal(stream: BinaryIO, head: JournalHead) -> None:
    """Write the head into an empty stream."""
    stream.write(_HEAD.dump_json(head) + b"\n")
    stream.flush()


def add_entry(stream: BinaryIO, entry: JournalEntry) -> None:
    """Write one finished file where the stream stands; what is written is out of this process at once.

    Whoever goes on with a journal truncates it where the reading ended: it may have been torn there.
    """
    stream.write(_ENTRY.dump_json(entry, exclude_defaults=True) + b"\n")
    stream.flush()


def read_head(stream: BinaryIO) -> JournalHead | None:
    """Read the head of a stream that stands at its beginning; None, and stay there, if it was torn.

    Raises:
        DriveError: it is no journal.
    """
    line = _whole_line(stream)
    if line is None:
        torn = stream.read(len(_BEGINNING)).rstrip(b"\0")
        stream.seek(0)
        if not _BEGINNING.startswith(torn):
            raise _no_journal("its first line is none of a journal")
        return None
    try:
        return _HEAD.validate_json(line)
    except ValidationError:
        raise _no_journal("its first line is none of a journal") from None


def read_entry(stream: BinaryIO) -> JournalEntry | None:
    """Read the entry that the stream stands before.

    Returns:
        The entry; None at the end, where the stream then stands: behind the last whole line.

    Raises:
        DriveError: it is no journal, or an entry breaks a rule of manifests.
    """
    begin = stream.tell()
    line = _whole_line(stream)
    if line is None:
        return None
    try:
        entry = _ENTRY.validate_json(line)
        require_blob(entry.blob)
    except (ValidationError, ManifestError):
        raise _no_journal(f"the line at byte {begin} tells of no finished file") from None
    return entry


def _whole_line(stream: BinaryIO) -> bytes | None:
    begin = stream.tell()
    line = stream.readline(LINE_BYTES_MAX + 1)
    if line.endswith(b"\n"):
        return line
    if len(line) > LINE_BYTES_MAX:
        raise _no_journal(f"the line at byte {begin} has more than {LINE_BYTES_MAX} bytes")
    stream.seek(begin)
    return None


def _no_journal(fact: str) -> DriveError:
    return DriveError(
        "InternalError", f"the drive's {JOURNAL_NAME} is no journal: {fact}; remove it to begin the drive anew"
    )
