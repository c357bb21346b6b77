"""The drive manifest: which files of a drive become which blobs, and the MD5 of every piece of them.

Drives come by post from strangers, so whatever is read here is bounded: in depth, in unbroken bytes, in names
and in the pieces of one blob. Read and written piece by piece; memory grows with one blob, not with their number.

Errors tell where by counting ("blob 17"): a run's log is kept where no file name or serial number may stand.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, Self

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, iterparse

from models.errors import ManifestError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

FORMAT_INVALID: Final = "ManifestFormatInvalid"
CORRUPTED: Final = "ManifestCorrupted"

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

NESTING_MAX: Final = 16
UNBROKEN_BYTES_MAX: Final = 2**20
NAMES_MAX: Final = 256
STRANGERS_MAX: Final = 1000
"""Elements we do not know, from one blob to the next."""

ROOT_CONTAINER: Final = "$root"
_CONTAINER: Final = re.compile(r"(?=.{3,63}\Z)[a-z0-9]+(?:-[a-z0-9]+)*")
_MD5: Final = re.compile(r"[0-9A-Fa-f]{32}")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# A parser turns a bare CR, and in attributes every white space, into something else.
_ESCAPES: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;"}
)

Place = tuple[str, ...]
"""Where an element stands: the names from the root down to it."""


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


@dataclass(frozen=True, slots=True)
class ManifestSummary:
    """What a manifest that keeps every rule amounts to.

    Attributes:
        version: "2014-11-01" or "2011-10-01".
        drive_id: the drive's serial number as the manifest has it.
        blob_count: 0 and up.
        bytes_total: `Blob.bytes_listed` of all blobs together.
    """

    version: str
    drive_id: str
    blob_count: int
    bytes_total: int


class SupportsWrite(Protocol):
    """Whatever takes bytes: a file, a socket, a hash that forwards."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""


def check_manifest(stream: BinaryIO) -> ManifestSummary:
    """Read a manifest to its end and check every rule of it.

    Raises:
        ManifestError: `ManifestFormatInvalid` where a rule is broken, `ManifestCorrupted` where it is not XML;
            the text says where by counting blobs from 1.

    Source: section 9 of the service description, drive manifest.
    """
    reader = _Reader()
    bytes_total = sum(blob.bytes_listed for blob in reader.blobs(stream))
    return ManifestSummary(reader.version, reader.drive_id, reader.blob_count, bytes_total)


def iterate_blobs(stream: BinaryIO) -> Iterator[Blob]:
    """Give the blobs of a manifest one by one, each after all its rules were checked.

    What comes later in the stream is not yet checked: whoever must not begin with a broken manifest calls
    `check_manifest` first.

    Raises:
        ManifestError: as `check_manifest`, when the reading comes to it.
    """
    return _Reader().blobs(stream)


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
        raise _invalid("its blob path must be relative, without empty, '.' or '..' segments")
    if container != ROOT_CONTAINER and not _CONTAINER.fullmatch(container):
        raise _invalid(
            "its container must be 3 to 63 lower-case letters, digits and single hyphens between them, or $root"
        )
    if len(name) > BLOB_NAME_CHARACTERS_MAX:
        raise _invalid(f"its blob name has {len(name)} characters and may have {BLOB_NAME_CHARACTERS_MAX}")
    return container, name


def require_file_path(file_path: str) -> None:
    """Refuse a path that is none on the drive, or leads out of it.

    Raises:
        ManifestError: it is empty, too long, has a "/", a drive letter, a segment of nothing but dots and spaces
            (Windows takes ".. " for ".."), or a character that XML cannot hold.
    """
    _require_text(file_path, "file path")
    if len(file_path) > FILE_PATH_CHARACTERS_MAX:
        raise _invalid(f"its file path has more than {FILE_PATH_CHARACTERS_MAX} characters")
    if "/" in file_path:
        raise _invalid("its file path must have backslashes and no '/'")
    segments = file_path.removeprefix("\\").split("\\")
    if re.match(r"[A-Za-z]:", segments[0]):
        raise _invalid("its file path must be relative to the drive, without a drive letter")
    if not all(segment.rstrip(" .") for segment in segments):
        raise _invalid("its file path must have no empty segment and none of only dots and spaces, such as '..'")


def require_blob(blob: Blob) -> None:
    """Refuse a blob that breaks a rule of the manifest.

    Raises:
        ManifestError: `ManifestFormatInvalid`, with the first broken rule.
    """
    split_blob_path(blob.blob_path)
    require_file_path(blob.file_path)
    if blob.blocks and blob.is_page_blob:
        raise _invalid("it has both a BlockList and a PageRangeList and must have one of them")
    if blob.is_page_blob:
        _require_page_ranges(blob.length, blob.page_ranges)
    else:
        _require_blocks(blob.length, blob.blocks)
    for attached, what in ((blob.metadata, "MetadataPath"), (blob.properties, "PropertiesPath")):
        if attached:
            _require_attached(attached, what)


def xml_can_hold(text: str) -> bool:
    """Tell whether XML 1.0 has a way to write every character of the text."""
    return not _NO_XML.search(text)


def replace_unwritable(text: str) -> str:
    """Put U+FFFD in the place of every character that XML 1.0 cannot hold."""
    return _NO_XML.sub("\ufffd", text)


def escaped(text: str) -> str:
    """Write a text so that it is read back the same, in an element as in an attribute in double quotes."""
    return text.translate(_ESCAPES)


def walk_elements(stream: BinaryIO, whole_from: int = NESTING_MAX) -> Iterator[tuple[str, Place, "Element"]]:
    """Walk through XML of strangers, forgetting what lies behind.

    Args:
        stream: the XML.
        whole_from: elements deeper than this (the root is 1) stay in their parent until that one ends.

    Yields:
        "start" or "end", the names from the root down to the element, and the element; at its start only its
        attributes are there.

    Raises:
        ManifestError: `ManifestCorrupted` if it is not XML; `ManifestFormatInvalid` if it has a document type,
            or more depth, names or bytes between two elements than anything honest needs.
    """
    place: Place = ()
    open_elements: list[Element] = []
    names: set[str] = set()
    for event, element in _parse(stream):
        if event == "start":
            place = (*place, element.tag)
            open_elements.append(element)
            _require_bounds(place, element, names)
            yield event, place, element
            continue
        yield event, place, element
        open_elements.pop()
        if open_elements and len(place) <= whole_from:
            open_elements[-1].remove(element)
        place = place[:-1]


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
        _require_drive_id(drive_id)
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
            raise _invalid(f"blob {self.blob_count + 1}: {fault}") from None
        self._write("".join(_blob_lines(blob)))
        self.blob_count += 1

    def _write(self, text: str) -> None:
        self._stream.write(text.encode())


def _invalid(text: str) -> ManifestError:
    return ManifestError(FORMAT_INVALID, text)


# Rules of values, for reader and writer alike.


def _require_text(text: str, what: str) -> None:
    if not text:
        raise _invalid(f"its {what} is empty")
    if not xml_can_hold(text):
        raise _invalid(f"its {what} has a character that XML cannot hold")


def _require_drive_id(drive_id: str) -> None:
    _require_text(drive_id, "DriveId")
    if len(drive_id) > DRIVE_ID_CHARACTERS_MAX or any(character.isspace() for character in drive_id):
        raise _invalid(f"its DriveId must be 1 to {DRIVE_ID_CHARACTERS_MAX} characters without white space")


def _require_hash(text: str, what: str) -> None:
    if not _MD5.fullmatch(text):
        raise _invalid(f"{what} must have an MD5 of 32 hexadecimal digits")


def _require_attached(attached: AttachedFile, what: str) -> None:
    require_file_path(attached.path)
    _require_hash(attached.hash, f"its {what}")


def _require_blocks(length: int, blocks: Sequence[Block]) -> None:
    if len(blocks) > BLOCKS_MAX:
        raise _invalid(f"it has more than {BLOCKS_MAX} blocks")
    end = 0
    for number, block in enumerate(blocks, 1):
        if not 1 <= block.length <= BLOCK_BYTES_MAX:
            raise _invalid(f"its block {number} must have 1 to {BLOCK_BYTES_MAX} bytes and has {block.length}")
        if block.offset > end:
            raise _invalid(f"its blocks leave a gap at byte {end}")
        if block.offset < end:
            raise _invalid(f"its block {number} overlaps the one before or is out of order")
        _require_hash(block.hash, f"its block {number}")
        end += block.length
    if end != length:
        raise _invalid(f"its blocks end at byte {end} and its length is {length}")
    _require_block_ids(length, blocks)


def _require_block_ids(length: int, blocks: Sequence[Block]) -> None:
    ids = [block.id for block in blocks if block.id is not None]
    if any(not 1 <= len(block_id) <= BLOCK_ID_CHARACTERS_MAX for block_id in ids):
        raise _invalid(f"its block ids must have 1 to {BLOCK_ID_CHARACTERS_MAX} characters")
    if not all(xml_can_hold(block_id) for block_id in ids):
        raise _invalid("its block ids have a character that XML cannot hold")
    if len(set(ids)) != len(ids):
        # The store keeps one block per id: the second would take the place of the first.
        raise _invalid("two of its blocks have the same id")
    if ids and len(ids) != len(blocks) and length <= ALIKE_IDS_BYTES_MAX:
        raise _invalid("some of its blocks have ids and some have none; up to 64 MB it is all or none")


def _require_page_ranges(length: int, page_ranges: Sequence[PageRange]) -> None:
    if length % PAGE_BYTES or not 0 <= length <= PAGE_BLOB_BYTES_MAX:
        raise _invalid(f"as a page blob its length must be a multiple of {PAGE_BYTES} and at most 8 TiB")
    if len(page_ranges) > PAGE_RANGES_MAX:
        raise _invalid(f"it has more than {PAGE_RANGES_MAX} page ranges")
    end = 0
    for number, page_range in enumerate(page_ranges, 1):
        what = f"its page range {number}"
        if page_range.offset % PAGE_BYTES or page_range.length % PAGE_BYTES:
            raise _invalid(f"{what} must begin and end at a multiple of {PAGE_BYTES}")
        if not PAGE_BYTES <= page_range.length <= BLOCK_BYTES_MAX:
            raise _invalid(f"{what} must have {PAGE_BYTES} to {BLOCK_BYTES_MAX} bytes and has {page_range.length}")
        if page_range.offset < end:
            raise _invalid(f"{what} overlaps the one before or is out of order")
        _require_hash(page_range.hash, what)
        end = page_range.offset + page_range.length
    if end > length:
        raise _invalid(f"its page ranges end at byte {end} and its length is {length}")


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


# Reading.


class _BoundedStream:
    """A stream that ends the reading when no element comes for too long: a parser keeps what is unfinished."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.unbroken_bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.unbroken_bytes += len(data)
        if self.unbroken_bytes > UNBROKEN_BYTES_MAX:
            raise _invalid(f"it has {UNBROKEN_BYTES_MAX} bytes without an element beginning or ending")
        return data


def _parse(stream: BinaryIO) -> Iterator[tuple[str, "Element"]]:
    bounded = _BoundedStream(stream)
    try:
        for event, element in iterparse(bounded, events=("start", "end"), forbid_dtd=True):
            bounded.unbroken_bytes = 0
            yield event, element
    except DefusedXmlException:
        raise _invalid("it has a document type or an entity, and no manifest needs one") from None
    except ParseError as error:
        line, column = error.position
        raise ManifestError(CORRUPTED, f"it is not XML: it breaks at line {line}, column {column}") from None
    except (ValueError, LookupError):
        raise ManifestError(CORRUPTED, "it is not XML: its encoding is not known") from None


def _require_bounds(place: Place, element: "Element", names: set[str]) -> None:
    if len(place) > NESTING_MAX:
        raise _invalid(f"its elements stand more than {NESTING_MAX} deep inside one another")
    # The parser remembers every name for good, so that a new one in each blob would fill the memory.
    names.add(element.tag)
    names.update(element.keys())
    if len(names) > NAMES_MAX:
        raise _invalid(f"it has more than {NAMES_MAX} different names of elements and attributes")


_MANIFEST: Final = ("DriveManifest",)
_DRIVE: Final = (*_MANIFEST, "Drive")
_DRIVE_ID: Final = (*_DRIVE, "DriveId")
_LIST: Final = (*_DRIVE, "BlobList")
_BLOB: Final = (*_LIST, "Blob")
_BLOCK_LIST: Final = (*_BLOB, "BlockList")
_BLOCK: Final = (*_BLOCK_LIST, "Block")
_PAGE_RANGE_LIST: Final = (*_BLOB, "PageRangeList")
_PAGE_RANGE: Final = (*_PAGE_RANGE_LIST, "PageRange")
_BLOB_TEXTS: Final = frozenset((*_BLOB, name) for name in ("BlobPath", "FilePath", "Length", "ImportDisposition"))
_ATTACHED: Final = frozenset(
    (*around, name) for around in (_LIST, _BLOB) for name in ("MetadataPath", "PropertiesPath")
)

_TEXTS: Final = _BLOB_TEXTS | _ATTACHED | {_DRIVE_ID}
_HOLDERS: Final = frozenset({_MANIFEST, _DRIVE, _LIST, _BLOB, _BLOCK_LIST, _PAGE_RANGE_LIST})
_KNOWN: Final = _TEXTS | _HOLDERS | {_BLOCK, _PAGE_RANGE}
_KNOWN_NAMES: Final = frozenset(place[-1] for place in _KNOWN)


@dataclass(slots=True)
class _Draft:
    """What is known of a blob, or of a blob list's defaults, before its end."""

    texts: dict[str, str] = field(default_factory=dict)
    attached: dict[str, AttachedFile] = field(default_factory=dict)
    lists: set[str] = field(default_factory=set)
    blocks: list[Block] = field(default_factory=list)
    page_ranges: list[PageRange] = field(default_factory=list)

    def text(self, name: str) -> str:
        if name not in self.texts:
            raise _invalid(f"it has no {name}")
        return self.texts[name]


class _Reader:
    """Reads one manifest once."""

    def __init__(self) -> None:
        self.version = ""
        self.drive_id = ""
        self.blob_count = 0
        self._drives = 0
        self._strangers = 0
        self._in_list_after_blob = False
        self._defaults = _Draft()
        self._draft: _Draft | None = None

    def blobs(self, stream: BinaryIO) -> Iterator[Blob]:
        """Give the blobs, each checked, and check the end when it comes."""
        steps = walk_elements(stream)
        while True:
            try:
                step = next(steps, None)
                if step is None:
                    self._require_whole()
                    return
                blob = self._take(*step)
            except ManifestError as fault:
                raise ManifestError(fault.status, f"{self._where()}: {fault}") from None
            if blob:
                yield blob

    def _where(self) -> str:
        if self._draft:
            return f"blob {self.blob_count}"
        return f"the manifest, after blob {self.blob_count}" if self.blob_count else "the manifest"

    def _require_whole(self) -> None:
        if not self.drive_id:
            raise _invalid("it has no DriveId")

    def _take(self, event: str, place: Place, element: "Element") -> Blob | None:
        if event == "start":
            self._require_place(place)
            if begin := _BEGINNINGS.get(place):
                begin(self, element)
            return None
        if place == _BLOB:
            return self.end_blob()
        if end := _ENDINGS.get(place):
            end(self, element)
        return None

    def _require_place(self, place: Place) -> None:
        if place in _KNOWN:
            return
        around, name = place[:-1], place[-1]
        if not around:
            raise _invalid("its outermost element is no DriveManifest")
        if around in _TEXTS:
            raise _invalid(f"its {around[-1]} holds an element where only text may stand")
        if around in _HOLDERS and name in _KNOWN_NAMES:
            raise _invalid(f"its {around[-1]} holds a {name}, which does not belong there")
        self._strangers += 1
        if self._strangers > STRANGERS_MAX:
            raise _invalid(f"it has more than {STRANGERS_MAX} elements that no manifest knows")

    def begin_manifest(self, element: "Element") -> None:
        self.version = element.get("Version", "")
        if self.version not in VERSIONS:
            raise _invalid(f"its Version must be {' or '.join(sorted(VERSIONS))}")

    def begin_drive(self, _element: "Element") -> None:
        self._drives += 1
        if self._drives > 1:
            raise _invalid("it has more than one Drive")

    def end_drive_id(self, element: "Element") -> None:
        if self.drive_id:
            raise _invalid("it has more than one DriveId")
        drive_id = (element.text or "").strip()
        _require_drive_id(drive_id)
        self.drive_id = drive_id

    def begin_list(self, _element: "Element") -> None:
        if not self.drive_id:
            raise _invalid("its DriveId must come before any BlobList")
        self._defaults = _Draft()
        self._strangers = 0
        self._in_list_after_blob = False

    def begin_blob(self, _element: "Element") -> None:
        self.blob_count += 1
        self._draft = _Draft()
        self._strangers = 0
        self._in_list_after_blob = True

    def begin_pieces(self, element: "Element") -> None:
        lists = self._now.lists
        if lists:
            raise _invalid("it has more than one BlockList or PageRangeList and must have one of them")
        lists.add(element.tag)

    @property
    def _now(self) -> _Draft:
        return self._draft or self._defaults

    def end_text(self, element: "Element") -> None:
        texts = self._now.texts
        if element.tag in texts:
            raise _invalid(f"it has more than one {element.tag}")
        texts[element.tag] = element.text or ""

    def end_attached(self, element: "Element") -> None:
        if not self._draft and self._in_list_after_blob:
            raise _invalid(f"a {element.tag} for a whole BlobList must stand before its first Blob")
        attached = self._now.attached
        if element.tag in attached:
            raise _invalid(f"it has more than one {element.tag}")
        found = AttachedFile(element.text or "", element.get("Hash", "").upper())
        _require_attached(found, element.tag)
        attached[element.tag] = found

    def end_block(self, element: "Element") -> None:
        blocks = self._now.blocks
        if len(blocks) == BLOCKS_MAX:
            raise _invalid(f"it has more than {BLOCKS_MAX} blocks")
        blocks.append(Block(*_piece(element, len(blocks) + 1), element.get("Id")))

    def end_page_range(self, element: "Element") -> None:
        page_ranges = self._now.page_ranges
        if len(page_ranges) == PAGE_RANGES_MAX:
            raise _invalid(f"it has more than {PAGE_RANGES_MAX} page ranges")
        page_ranges.append(PageRange(*_piece(element, len(page_ranges) + 1)))

    def end_blob(self) -> Blob:
        draft = self._now
        if not draft.lists:
            raise _invalid("it has neither a BlockList nor a PageRangeList and must have one of them")
        attached = self._defaults.attached | draft.attached
        blob = Blob(
            blob_path=draft.text("BlobPath"),
            file_path=draft.text("FilePath"),
            length=_number(draft.text("Length"), "its Length"),
            disposition=_disposition(draft.texts.get("ImportDisposition")),
            blocks=tuple(draft.blocks),
            page_ranges=tuple(draft.page_ranges),
            metadata=attached.get("MetadataPath"),
            properties=attached.get("PropertiesPath"),
            is_page_blob="PageRangeList" in draft.lists,
        )
        require_blob(blob)
        self._draft = None
        return blob


def _piece(element: "Element", number: int) -> tuple[int, int, str]:
    offset, length = (
        _number(element.get(name, ""), f"the {name} of its {element.tag} {number}")
        for name in ("Offset", "Length")
    )
    return offset, length, element.get("Hash", "").upper()


def _number(text: str, what: str) -> int:
    if not _NUMBER.fullmatch(text.strip(" \t\r\n")):
        raise _invalid(f"{what} must be a number of bytes")
    return int(text)


def _disposition(text: str | None) -> ImportDisposition:
    if text is None:
        return ImportDisposition.RENAME
    try:
        return ImportDisposition(text.strip())
    except ValueError:
        raise _invalid(f"its ImportDisposition must be {', '.join(ImportDisposition)}") from None


_Act = Callable[[_Reader, "Element"], None]

_BEGINNINGS: Final[dict[Place, _Act]] = {
    _MANIFEST: _Reader.begin_manifest,
    _DRIVE: _Reader.begin_drive,
    _LIST: _Reader.begin_list,
    _BLOB: _Reader.begin_blob,
    _BLOCK_LIST: _Reader.begin_pieces,
    _PAGE_RANGE_LIST: _Reader.begin_pieces,
}
_ENDINGS: Final[dict[Place, _Act]] = {
    _DRIVE_ID: _Reader.end_drive_id,
    _BLOCK: _Reader.end_block,
    _PAGE_RANGE: _Reader.end_page_range,
    **dict.fromkeys(_BLOB_TEXTS, _Reader.end_text),
    **dict.fromkeys(_ATTACHED, _Reader.end_attached),
}
