"""Names that files of an exported drive can have on NTFS and exFAT, whatever their blobs are called.

Source: Microsoft's "Naming Files, Paths, and Namespaces".
"""

import hashlib
import re
from collections.abc import Iterator
from itertools import count
from typing import Final
from unicodedata import normalize

SEGMENT_BYTES_MAX: Final = 200
"""Of 255 that a name can have; the rest is for " (2)", ".properties" and the like."""

_RESERVED: Final = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_DEVICE: Final = re.compile(r"(?i)(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|COM[0-9¹²³]|LPT[0-9¹²³]) *(?=\.|\Z)")
_EXTENSION_BYTES_MAX: Final = 32


def safe_name(segment: str) -> str:
    """Make one segment of a blob's name one that a file can have; the same for the same segment.

    Reserved characters, and dots and spaces at its end, become "_"; so does what follows the name of a device;
    a name of more than 200 bytes is cut and ends in eight digits of its SHA-256, its extension kept. Two segments
    may become one name.
    """
    name = _RESERVED.sub("_", segment)
    kept = name.rstrip(". ")
    name = kept + "_" * (len(name) - len(kept))
    name = _DEVICE.sub(lambda found: f"{found[0]}_", name, count=1) if _DEVICE.match(name) else name
    if len(name.encode()) <= SEGMENT_BYTES_MAX:
        return name
    stem, extension = _split(name)
    mark = f"~{hashlib.sha256(segment.encode()).hexdigest()[:8]}{extension}"
    cut = stem.encode()[: SEGMENT_BYTES_MAX - len(mark.encode())].decode(errors="ignore")
    return f"{cut}{mark}"


def other_names(name: str) -> Iterator[str]:
    """Give a name, and then `Seattle (2).jpg`, `Seattle (3).jpg` … of `Seattle.jpg`, without an end."""
    yield name
    stem, extension = _split(name)
    yield from (f"{stem} ({number}){extension}" for number in count(2))


def folded(path: str) -> str:
    """Bring a path to the form in which two compare on file systems that know no case."""
    return normalize("NFC", normalize("NFC", path).upper().casefold())


def _split(name: str) -> tuple[str, str]:
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > _EXTENSION_BYTES_MAX:
        return name, ""
    return stem, dot + extension
