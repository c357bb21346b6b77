"""Properties and metadata of a blob, and the two kinds of files that carry them on a drive.

Files of strangers: whatever is read here is bounded, and what no HTTP header can hold is refused.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from io import BytesIO
from typing import Any, Final

from models.errors import ManifestError
from models.manifest_reader import walk_elements
from models.manifests import escaped

FACTS_BYTES_MAX: Final = 64 * 2**10
"""Of a metadata or properties file."""
METADATA_BYTES_MAX: Final = 8 * 2**10
"""All names and values of one blob's metadata together, as Azure has it."""

HEADERS: Final = {
    "content_type": "Content-Type",
    "content_encoding": "Content-Encoding",
    "content_language": "Content-Language",
    "cache_control": "Cache-Control",
}
"""Attribute of `BlobFacts` -> header of HTTP, and element of a properties file."""

_MD5_BYTES: Final = 16
_HEADER: Final = re.compile(r"[\x20-\x7e]*")
# What is both an XML name and an HTTP header's name; a colon would be a namespace.
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_CONTENT_MD5: Final = "Content-MD5"


@dataclass(frozen=True, slots=True)
class BlobFacts:
    """What a store keeps with a blob.

    Attributes:
        content_type: as the header of that name; None is not set. So the next three.
        content_encoding: as above.
        content_language: as above.
        cache_control: as above.
        content_md5: 16 bytes, of the whole blob; None where nobody knows it.
        metadata: name -> value, both ASCII as HTTP headers must be.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    content_language: str | None = None
    cache_control: str | None = None
    content_md5: bytes | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_metadata(data: bytes) -> dict[str, str]:
    """Read a metadata file, `<Metadata><name>value</name>…`; white space around a value is none of it.

    Raises:
        ManifestError: `XmlReadFailed`: it is longer than 64 KiB or no such XML, a name or value is none that
            a header can hold, a name is there twice (names compare without regard to case), or all together
            are longer than 8 KiB.

    Source: the specification, section 9; the 8 KiB are Azure's.
    """
    metadata: dict[str, str] = {}
    names: set[str] = set()
    for name, value in _read(data, "Metadata"):
        if not _NAME.fullmatch(name):
            raise _unreadable("a name is none that metadata can have")
        if name.lower() in names:
            raise _unreadable("a name is there twice")
        names.add(name.lower())
        metadata[name] = value
    _require_size(metadata)
    return metadata


def read_properties(data: bytes) -> BlobFacts:
    """Read a properties file, `<Properties><Content-Type>…`; properties we do not know are passed over.

    Among those are Last-Modified, Etag and Content-Length of an exported blob, which the store sets itself.

    Raises:
        ManifestError: `XmlReadFailed`: it is longer than 64 KiB or no such XML, a value is none that a header
            can hold, a property is there twice, or Content-MD5 is not the Base64 of 16 bytes.

    Source: the specification, section 9.
    """
    told: dict[str, str] = {}
    for name, value in _read(data, "Properties"):
        if name in told:
            raise _unreadable("a property is there twice")
        told[name] = value
    headers: dict[str, Any] = {name: told.get(header) or None for name, header in HEADERS.items()}
    return BlobFacts(
        **headers,
        content_md5=_md5(told[_CONTENT_MD5]) if told.get(_CONTENT_MD5) else None,
    )


def write_metadata(metadata: Mapping[str, str]) -> bytes:
    """Write a metadata file that `read_metadata` gives back.

    Raises:
        ManifestError: `XmlReadFailed`: a name or a value could not be read back, or there is too much.
    """
    is_unique = len({name.lower() for name in metadata}) == len(metadata)
    if not is_unique or not all(_NAME.fullmatch(name) for name in metadata):
        raise _unreadable("a name cannot stand in a metadata file")
    _require_size(metadata)
    return _write("Metadata", metadata.items())


def write_properties(facts: BlobFacts, *, last_modified: datetime, e_tag: str, length: int) -> bytes:
    """Write the properties file of an exported blob; its metadata is not among them.

    Args:
        facts: what the store keeps with the blob.
        last_modified: when it was last written, aware.
        e_tag: the store's own name of this content; left out where it is empty.
        length: bytes, 0 and up.

    Raises:
        ManifestError: `XmlReadFailed`: a property could not be read back.
    """
    told = {
        **{header: getattr(facts, name) for name, header in HEADERS.items()},
        _CONTENT_MD5: None if facts.content_md5 is None else b64encode(facts.content_md5).decode(),
        "Last-Modified": format_datetime(last_modified.astimezone(UTC), usegmt=True),
        "Etag": e_tag,
        "Content-Length": str(length),
    }
    return _write("Properties", ((name, value) for name, value in told.items() if value))


def _read(data: bytes, root: str) -> Iterator[tuple[str, str]]:
    if len(data) > FACTS_BYTES_MAX:
        raise _unreadable(f"it has more than {FACTS_BYTES_MAX} bytes")
    try:
        for event, place, element in walk_elements(BytesIO(data)):
            if place[0] != root:
                raise _unreadable(f"its outermost element is no {root}")
            if len(place) > 2:
                raise _unreadable("it holds an element where only text may stand")
            if event == "end" and len(place) == 2:
                value = (element.text or "").strip(" \t\r\n")
                if not _HEADER.fullmatch(value):
                    raise _unreadable("a value is none that a header can hold")
                yield element.tag, value
    except ManifestError as fault:
        raise _unreadable(str(fault)) from None


def _write(root: str, entries: Iterable[tuple[str, str]]) -> bytes:
    lines = [f'<?xml version="1.0" encoding="utf-8"?>\n<{root}>\n']
    for name, value in entries:
        if not _HEADER.fullmatch(value) or value != value.strip(" "):
            raise _unreadable("a value is none that a header can hold")
        lines.append(f"<{name}>{escaped(value)}</{name}>\n")
    data = "".join([*lines, f"</{root}>\n"]).encode()
    if len(data) > FACTS_BYTES_MAX:
        raise _unreadable(f"it would have more than {FACTS_BYTES_MAX} bytes")
    return data


def _require_size(metadata: Mapping[str, str]) -> None:
    if sum(len(name) + len(value) for name, value in metadata.items()) > METADATA_BYTES_MAX:
        raise _unreadable(f"its names and values have more than {METADATA_BYTES_MAX} bytes together")


def _md5(text: str) -> bytes:
    try:
        digest = b64decode(text, validate=True)
    except ValueError:
        digest = b""
    if len(digest) != _MD5_BYTES:
        raise _unreadable("its Content-MD5 is not the Base64 of 16 bytes")
    return digest


def _unreadable(text: str) -> ManifestError:
    return ManifestError("XmlReadFailed", text)
