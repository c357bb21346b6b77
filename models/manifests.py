"""The drive manifest: which files of a drive become which blobs, and the MD5 of every piece of them.

Its shapes, their rules, and the writer; how one is read stands in `manifest_reader.py`. Written piece by piece;
memory grows with one blob, not with their number.

Errors tell where by counting ("blob 17"): a run's log is kept where no file name or serial number may stand.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, Self

from models.errors import ManifestError

FORMAT_INVALID: Final = "ManifestFormatInvalid"

VERSION: Final = "2014-11-01"
VERSIONS: Final = frozenset({VERSION, "2011-10-01"})

BLOCK_BYTES_MAX: Final = 4 * 2**20
BLOCKS_MAX: Final = 50_000
ALIKE_IDS_BYTES_MAX: Final = 64 * 2**20
"""Up to this length either every block of a blob has an id or none has."""
BLOCK_ID_CHARACTERS_MAX: Final = 88
PAGE_BYTES: Final = 512
PAGE_BLOB_BYTES_MAX: Final = 8 * 2**40
PAGE_RANGES_MAX: Final = 262_144
"""A tebibyte in ranges of 4 MiB; a limit of ours, since nobody else sets one and memory has an end."""
BLOB_NAME_CHARACTERS_MAX: Final = 1024
FILE_PATH_CHARACTERS_MAX: Final = 32_767
DRIVE_ID_CHARACTERS_MAX: Final = 64

ROOT_CONTAINER: Final = "$root"
_CONTAINER: Final = re.compile(r"(?=.{3,63}\Z)[a-z0-9]+(?:-[a-z0-9]+)*")
_MD5: Final = re.compile(r"[0-9A-Fa-f]{32}")
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# A parser turns a bare CR, and in attributes every white space, into something else.
_ESCAPES: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;"}
)


class ImportDisposition(StrEnum):
    """What becomes of a blob that is there already."""

    NO_OVERWRITE = "no-overwrite"
    OVERWRITE = "overwrite"
    RENAME = "rename"


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a block blob: bytes `offset` to `offset + length` of its file, and their upper-case MD5."""

    offset: int
    length: int
    hash: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class PageRange:
    """Pages of a page blob: bytes `offset` to `offset + length`, multiples of 512, and their upper-case MD5."""

    offset: int
    length: int
    hash: str


@dataclass(frozen=True, slots=True)
class AttachedFile:
    """A metadata or properties file on the drive, and the upper-case MD5 of all of it."""

    path: str
    hash: str


@dataclass(frozen=True, slots=True)
class Blob:
    r"""One file of the drive and the blob it becomes.

    Attributes:
        blob_path: container and name, `photos/2014/a.jpg`; without "/" it lies in `$root`.
        file_path: relative to the drive's root, with backslashes; one may stand in front.
        length: bytes, 0 to 50,000 blocks of 4 MiB, or to 8 TiB for a page blob.
        disposition: what becomes of a blob that is there already.
        blocks: in order, without gaps, covering the length; none of an empty file.
        page_ranges: in order, without overlap; pages in none of them are zero.
        metadata: the blob's metadata file, or its list's.
        properties: the blob's properties file, or its list's.
        is_page_blob: true by itself with page ranges; to be said only where there are none.
    """

    blob_path: str
    file_path: str
    length: int
    disposition: ImportDisposition = ImportDisposition.RENAME
    blocks: tuple[Block, ...] = ()
    page_ranges: tuple[PageRange, ...] = ()
    metadata: AttachedFile | None = None
    properties: AttachedFile | None = None
    is_page_blob: bool = False

    def __post_init__(self) -> None:
        if self.page_ranges:
            object.__setattr__(self, "is_page_blob", True)

    @property
    def bytes_listed(self) -> int:
        """Bytes to be read off the drive, blocks or page ranges together; of a block blob its length."""
        return sum(piece.length for piece in self.blocks or self.page_ranges)


class SupportsRead(Protocol):
    """Whatever gives bytes one after the other: a file, a socket, a hash that listens."""

    def read(self, size: int = -1, /) -> bytes:
        """Give at most `size` bytes, all without one; none at the end."""


class SupportsWrite(Protocol):
    """Whatever takes bytes: a file, a socket, a hash that forwards."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""


def split_blob_path(blob_path: str) -> tuple[str, str]:
    """Take a blob path apart.

    Returns:
        Container (`$root` if the path has no "/") and blob name of 1 to 1024 characters.

    Raises:
        ManifestError: the path begins with "/", has an empty, "." or ".." segment, is too long, cannot stand
            in XML, or its container is not 3 to 63 lower-case letters, digits and single hyphens or `$root`.
    """
    _require_text(blob_path, "blob path")
    head, slash, tail = blob_path.partition("/")
    container, name = (head, tail) if slash else (ROOT_CONTAINER, head)
    if any(segment in {"", ".", ".."} for segment in blob_path.split("/")):
        raise invalid("its blob path must be relative, without empty, '.' or '..' segments")
    if container != ROOT_CONTAINER and not _CONTAINER.fullmatch(container):
        raise invalid(
            "its container must be 3 to 63 lower-case letters, digits and single hyphens between them, or $root"
        )
    if len(name) > BLOB_NAME_CHARACTERS_MAX:
        raise invalid(f"its blob name has {len(name)} characters and may have {BLOB_NAME_CHARACTERS_MAX}")
    return container, name


def require_file_path(file_path: str) -> None:
    """Refuse a path that is none on the drive, or leads out of it.

    Raises:
        ManifestError: it is empty, too long, has a "/", a drive letter, a segment of nothing but dots and spaces
            (Windows takes ".. " for ".."), or a character that XML cannot hold.
    """
    _require_text(file_path, "file path")
    if len(file_path) > FILE_PATH_CHARACTERS_MAX:
        raise invalid(f"its file path has more than {FILE_PATH_CHARACTERS_MAX} characters")
    if "/" in file_path:
        raise invalid("its file path must have backslashes and no '/'")
    segments = file_path.removeprefix("\\").split("\\")
    if re.match(r"[A-Za-z]:", segments[0]):
        raise invalid("its file path must be relative to the drive, without a drive letter")
    if not all(segment.rstrip(" .") for segment in segments):
        raise invalid("its file path must have no empty segment and none of only dots and spaces, such as '..'")


def require_blob(blob: Blob) -> None:
    """Refuse a blob that breaks a rule of the manifest.

    Raises:
        ManifestError: `ManifestFormatInvalid`, with the first broken rule.
    """
    split_blob_path(blob.blob_path)
    require_file_path(blob.file_path)
    if blob.blocks and blob.is_page_blob:
        raise invalid("it has both a BlockList and a PageRangeList and must have one of them")
    if blob.is_page_blob:
        _require_page_ranges(blob.length, blob.page_ranges)
    else:
        _require_blocks(blob.length, blob.blocks)
    for attached, what in ((blob.metadata, "MetadataPath"), (blob.properties, "PropertiesPath")):
        if attached:
            require_attached(attached, what)


def xml_can_hold(text: str) -> bool:
    """Tell whether XML 1.0 has a way to write every character of the text."""
    return not _NO_XML.search(text)


def replace_unwritable(text: str) -> str:
    """Put U+FFFD in the place of every character that XML 1.0 cannot hold."""
    return _NO_XML.sub("\ufffd", text)


def escaped(text: str) -> str:
    """Write a text so that it is read back the same, in an element as in an attribute in double quotes."""
    return text.translate(_ESCAPES)


class ManifestWriter:
    """Writes a manifest that `check_manifest` accepts, blob by blob.

    Used as a context manager; if the block raises, the end is not written and what there is, is no manifest.

    Args:
        stream: taken as it is and left open.
        drive_id: the drive's serial number, 1 to 64 characters without white space.
        client_creator: the name of the program that lays out the drive.

    Raises:
        ManifestError: the drive id or the creator breaks a rule.
    """

    def __init__(self, stream: SupportsWrite, *, drive_id: str, client_creator: str) -> None:
        require_drive_id(drive_id)
        _require_text(client_creator, "client creator")
        self._stream = stream
        self._drive_id = drive_id
        self._client_creator = client_creator
        self.blob_count = 0

    def __enter__(self) -> Self:
        self._write(
            f'<?xml version="1.0" encoding="utf-8"?>\n<DriveManifest Version="{VERSION}"><Drive>'
            f"<DriveId>{escaped(self._drive_id)}</DriveId>"
            f"<ClientCreator>{escaped(self._client_creator)}</ClientCreator><BlobList>\n"
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._write("</BlobList></Drive></DriveManifest>\n")

    def add(self, blob: Blob) -> None:
        """Write one blob; one that breaks a rule is refused and leaves no trace in the stream.

        Raises:
            ManifestError: as `require_blob`, naming the blob by its position.
        """
        try:
            require_blob(blob)
        except ManifestError as fault:
            raise invalid(f"blob {self.blob_count + 1}: {fault}") from None
        self._write("".join(_blob_lines(blob)))
        self.blob_count += 1

    def _write(self, text: str) -> None:
        self._stream.write(text.encode())


def invalid(text: str) -> ManifestError:
    """Make the error of a broken rule."""
    return ManifestError(FORMAT_INVALID, text)


# Rules of values, for reader and writer alike.


def _require_text(text: str, what: str) -> None:
    if not text:
        raise invalid(f"its {what} is empty")
    if not xml_can_hold(text):
        raise invalid(f"its {what} has a character that XML cannot hold")


def require_drive_id(drive_id: str) -> None:
    """Refuse a serial number that is none.

    Raises:
        ManifestError: it is not 1 to 64 characters without white space, or XML cannot hold it.
    """
    _require_text(drive_id, "DriveId")
    if len(drive_id) > DRIVE_ID_CHARACTERS_MAX or any(character.isspace() for character in drive_id):
        raise invalid(f"its DriveId must be 1 to {DRIVE_ID_CHARACTERS_MAX} characters without white space")


def _require_hash(text: str, what: str) -> None:
    if not _MD5.fullmatch(text):
        raise invalid(f"{what} must have an MD5 of 32 hexadecimal digits")


def require_attached(attached: AttachedFile, what: str) -> None:
    """Refuse a metadata or properties file whose path or MD5 is none; `what` is its element's name.

    Raises:
        ManifestError: as `require_file_path`, or the MD5 is not 32 hexadecimal digits.
    """
    require_file_path(attached.path)
    _require_hash(attached.hash, f"its {what}")


def _require_blocks(length: int, blocks: Sequence[Block]) -> None:
    if len(blocks) > BLOCKS_MAX:
        raise invalid(f"it has more than {BLOCKS_MAX} blocks")
    end = 0
    for number, block in enumerate(blocks, 1):
        if not 1 <= block.length <= BLOCK_BYTES_MAX:
            raise invalid(f"its block {number} must have 1 to {BLOCK_BYTES_MAX} bytes and has {block.length}")
        if block.offset > end:
            raise invalid(f"its blocks leave a gap at byte {end}")
        if block.offset < end:
            raise invalid(f"its block {number} overlaps the one before or is out of order")
        _require_hash(block.hash, f"its block {number}")
        end += block.length
    if end != length:
        raise invalid(f"its blocks end at byte {end} and its length is {length}")
    _require_block_ids(length, blocks)


def _require_block_ids(length: int, blocks: Sequence[Block]) -> None:
    ids = [block.id for block in blocks if block.id is not None]
    if any(not 1 <= len(block_id) <= BLOCK_ID_CHARACTERS_MAX for block_id in ids):
        raise invalid(f"its block ids must have 1 to {BLOCK_ID_CHARACTERS_MAX} characters")
    if not all(xml_can_hold(block_id) for block_id in ids):
        raise invalid("its block ids have a character that XML cannot hold")
    if len(set(ids)) != len(ids):
        # The store keeps one block per id: the second would take the place of the first.
        raise invalid("two of its blocks have the same id")
    if ids and len(ids) != len(blocks) and length <= ALIKE_IDS_BYTES_MAX:
        raise invalid("some of its blocks have ids and some have none; up to 64 MB it is all or none")


def _require_page_ranges(length: int, page_ranges: Sequence[PageRange]) -> None:
    if length % PAGE_BYTES or not 0 <= length <= PAGE_BLOB_BYTES_MAX:
        raise invalid(f"as a page blob its length must be a multiple of {PAGE_BYTES} and at most 8 TiB")
    if len(page_ranges) > PAGE_RANGES_MAX:
        raise invalid(f"it has more than {PAGE_RANGES_MAX} page ranges")
    end = 0
    for number, page_range in enumerate(page_ranges, 1):
        what = f"its page range {number}"
        if page_range.offset % PAGE_BYTES or page_range.length % PAGE_BYTES:
            raise invalid(f"{what} must begin and end at a multiple of {PAGE_BYTES}")
        if not PAGE_BYTES <= page_range.length <= BLOCK_BYTES_MAX:
            raise invalid(f"{what} must have {PAGE_BYTES} to {BLOCK_BYTES_MAX} bytes and has {page_range.length}")
        if page_range.offset < end:
            raise invalid(f"{what} overlaps the one before or is out of order")
        _require_hash(page_range.hash, what)
        end = page_range.offset + page_range.length
    if end > length:
        raise invalid(f"its page ranges end at byte {end} and its length is {length}")


# Writing.


def _blob_lines(blob: Blob) -> Iterator[str]:
    yield f"<Blob><BlobPath>{escaped(blob.blob_path)}</BlobPath><FilePath>{escaped(blob.file_path)}</FilePath>"
    yield f"<Length>{blob.length}</Length><ImportDisposition>{blob.disposition}</ImportDisposition>"
    if blob.is_page_blob:
        yield from _piece_list("PageRangeList", "PageRange", blob.page_ranges)
    else:
        yield from _piece_list("BlockList", "Block", blob.blocks)
    for name, attached in (("MetadataPath", blob.metadata), ("PropertiesPath", blob.properties)):
        if attached:
            yield f'<{name} Hash="{attached.hash.upper()}">{escaped(attached.path)}</{name}>'
    yield "</Blob>\n"


def _piece_list(around: str, name: str, pieces: Sequence[Block | PageRange]) -> Iterator[str]:
    yield f"<{around}>"
    for piece in pieces:
        yield f'<{name} Offset="{piece.offset}" Length="{piece.length}"'
        if isinstance(piece, Block) and piece.id is not None:
            yield f' Id="{escaped(piece.id)}"'
        yield f' Hash="{piece.hash.upper()}"/>'
    yield f"</{around}>"
