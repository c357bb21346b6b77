"""A drive manifest read: blob by blob, every rule of it checked.

Drives come by post from strangers, so whatever is read here is bounded: in depth, in unbroken bytes, in names
and in the pieces of one blob. Memory grows with one blob, not with their number.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, iterparse

from models.errors import ManifestError
from models.manifests import (
    BLOCKS_MAX,
    PAGE_RANGES_MAX,
    VERSIONS,
    AttachedFile,
    Blob,
    Block,
    ImportDisposition,
    PageRange,
    SupportsRead,
    invalid,
    require_attached,
    require_blob,
    require_drive_id,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

CORRUPTED: Final = "ManifestCorrupted"

NESTING_MAX: Final = 16
UNBROKEN_BYTES_MAX: Final = 2**20
NAMES_MAX: Final = 256
STRANGERS_MAX: Final = 1000
"""Elements we do not know, from one blob to the next."""

_NUMBER: Final = re.compile(r"[0-9]{1,18}")

Place = tuple[str, ...]
"""Where an element stands: the names from the root down to it."""


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


def check_manifest(stream: SupportsRead) -> ManifestSummary:
    """Read a manifest to its end and check every rule of it.

    Raises:
        ManifestError: `ManifestFormatInvalid` where a rule is broken, `ManifestCorrupted` where it is not XML;
            the text says where by counting blobs from 1.

    Source: the specification, section 9.
    """
    reader = _Reader()
    bytes_total = sum(blob.bytes_listed for blob in reader.blobs(stream))
    return ManifestSummary(reader.version, reader.drive_id, reader.blob_count, bytes_total)


def iterate_blobs(stream: SupportsRead) -> Iterator[Blob]:
    """Give the blobs of a manifest one by one, each after all its rules were checked.

    What comes later in the stream is not yet checked: whoever must not begin with a broken manifest calls
    `check_manifest` first.

    Raises:
        ManifestError: as `check_manifest`, when the reading comes to it.
    """
    return _Reader().blobs(stream)


def walk_elements(stream: SupportsRead, whole_from: int = NESTING_MAX) -> Iterator[tuple[str, Place, "Element"]]:
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


class _BoundedStream:
    """A stream that ends the reading when no element comes for too long: a parser keeps what is unfinished."""

    def __init__(self, stream: SupportsRead) -> None:
        self._stream = stream
        self.unbroken_bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.unbroken_bytes += len(data)
        if self.unbroken_bytes > UNBROKEN_BYTES_MAX:
            raise invalid(f"it has {UNBROKEN_BYTES_MAX} bytes without an element beginning or ending")
        return data


def _parse(stream: SupportsRead) -> Iterator[tuple[str, "Element"]]:
    bounded = _BoundedStream(stream)
    try:
        for event, element in iterparse(bounded, events=("start", "end"), forbid_dtd=True):
            bounded.unbroken_bytes = 0
            yield event, element
    except DefusedXmlException:
        raise invalid("it has a document type or an entity, and no manifest needs one") from None
    except ParseError as error:
        line, column = error.position
        raise ManifestError(CORRUPTED, f"it is not XML: it breaks at line {line}, column {column}") from None
    except (ValueError, LookupError):
        raise ManifestError(CORRUPTED, "it is not XML: its encoding is not known") from None


def _require_bounds(place: Place, element: "Element", names: set[str]) -> None:
    if len(place) > NESTING_MAX:
        raise invalid(f"its elements stand more than {NESTING_MAX} deep inside one another")
    # The parser remembers every name for good, so that a new one in each blob would fill the memory.
    names.add(element.tag)
    names.update(element.keys())
    if len(names) > NAMES_MAX:
        raise invalid(f"it has more than {NAMES_MAX} different names of elements and attributes")


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
            raise invalid(f"it has no {name}")
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

    def blobs(self, stream: SupportsRead) -> Iterator[Blob]:
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
            raise invalid("it has no DriveId")

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
            raise invalid("its outermost element is no DriveManifest")
        if around in _TEXTS:
            raise invalid(f"its {around[-1]} holds an element where only text may stand")
        if around in _HOLDERS and name in _KNOWN_NAMES:
            raise invalid(f"its {around[-1]} holds a {name}, which does not belong there")
        self._strangers += 1
        if self._strangers > STRANGERS_MAX:
            raise invalid(f"it has more than {STRANGERS_MAX} elements that no manifest knows")

    def begin_manifest(self, element: "Element") -> None:
        self.version = element.get("Version", "")
        if self.version not in VERSIONS:
            raise invalid(f"its Version must be {' or '.join(sorted(VERSIONS))}")

    def begin_drive(self, _element: "Element") -> None:
        self._drives += 1
        if self._drives > 1:
            raise invalid("it has more than one Drive")

    def end_drive_id(self, element: "Element") -> None:
        if self.drive_id:
            raise invalid("it has more than one DriveId")
        drive_id = (element.text or "").strip()
        require_drive_id(drive_id)
        self.drive_id = drive_id

    def begin_list(self, _element: "Element") -> None:
        if not self.drive_id:
            raise invalid("its DriveId must come before any BlobList")
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
            raise invalid("it has more than one BlockList or PageRangeList and must have one of them")
        lists.add(element.tag)

    @property
    def _now(self) -> _Draft:
        return self._draft or self._defaults

    def end_text(self, element: "Element") -> None:
        texts = self._now.texts
        if element.tag in texts:
            raise invalid(f"it has more than one {element.tag}")
        texts[element.tag] = element.text or ""

    def end_attached(self, element: "Element") -> None:
        if not self._draft and self._in_list_after_blob:
            raise invalid(f"a {element.tag} for a whole BlobList must stand before its first Blob")
        attached = self._now.attached
        if element.tag in attached:
            raise invalid(f"it has more than one {element.tag}")
        found = AttachedFile(element.text or "", element.get("Hash", "").upper())
        require_attached(found, element.tag)
        attached[element.tag] = found

    def end_block(self, element: "Element") -> None:
        blocks = self._now.blocks
        if len(blocks) == BLOCKS_MAX:
            raise invalid(f"it has more than {BLOCKS_MAX} blocks")
        blocks.append(Block(*_piece(element, len(blocks) + 1), element.get("Id")))

    def end_page_range(self, element: "Element") -> None:
        page_ranges = self._now.page_ranges
        if len(page_ranges) == PAGE_RANGES_MAX:
            raise invalid(f"it has more than {PAGE_RANGES_MAX} page ranges")
        page_ranges.append(PageRange(*_piece(element, len(page_ranges) + 1)))

    def end_blob(self) -> Blob:
        draft = self._now
        if not draft.lists:
            raise invalid("it has neither a BlockList nor a PageRangeList and must have one of them")
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
        raise invalid(f"{what} must be a number of bytes")
    return int(text)


def _disposition(text: str | None) -> ImportDisposition:
    if text is None:
        return ImportDisposition.RENAME
    try:
        return ImportDisposition(text.strip())
    except ValueError:
        raise invalid(f"its ImportDisposition must be {', '.join(ImportDisposition)}") from None


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
