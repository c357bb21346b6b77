"""Which blobs an Export job takes: paths and prefixes, given with the job or in a list blob.

Source: the specification, sections 7 and 9.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from models.copy_logs import LOG_FOLDER
from models.errors import ManifestError
from models.manifest_reader import walk_elements
from models.manifests import (
    ROOT_CONTAINER,
    SupportsRead,
    SupportsWrite,
    escaped,
    replace_unwritable,
    split_blob_path,
)

FORMAT_INVALID: Final = "BlobListFormatInvalid"
LIST_BYTES_MAX: Final = 64 * 2**20
"""Of a list blob; a limit of ours, since all it names is held in memory."""

_ROOT: Final = "BlobList"
_PATH: Final = "BlobPath"
_PREFIX: Final = "BlobPathPrefix"


@dataclass(frozen=True, slots=True)
class BlobSelection:
    """What an Export job asks for, each blob once; make one by `select_blobs`.

    Attributes:
        paths: container and name of blobs that no prefix takes, in the order in which they were named.
        prefixes: in order; none begins as another does, so that no blob is taken by two.
    """

    paths: tuple[str, ...]
    prefixes: tuple[str, ...]

    @property
    def containers(self) -> tuple[str, ...] | None:
        """The containers that the prefixes name whole, in order; None where all are to be looked at.

        What no container can be called, such as "..", is none.
        """
        if not all("/" in prefix[1:] for prefix in self.prefixes):
            return None
        named = {prefix[1:].partition("/")[0] for prefix in self.prefixes}
        return tuple(sorted(filter(_can_be_container, named)))

    def names_in(self, container: str) -> list[str]:
        """Tell how the names begin that the prefixes take in a container; "" takes every one of it."""
        whole = f"/{container}/"
        if _is_taken(whole, self.prefixes):
            return [""]
        # "0" is the character that follows "/".
        begin, end = (bisect_left(self.prefixes, f"/{container}{behind}") for behind in "/0")
        return [prefix.removeprefix(whole) for prefix in self.prefixes[begin:end]]


def select_blobs(paths: Iterable[str], prefixes: Iterable[str]) -> BlobSelection:
    """Take together what was asked for; who is named twice is taken once.

    Args:
        paths: container and name; one "/" may stand in front, and without a container it is `$root`.
        prefixes: each begins with "/" and is matched against container and name as one string.

    Source: the specification, section 9, export blob list.
    """
    disjoint: list[str] = []
    for prefix in sorted(set(prefixes)):
        if not (disjoint and prefix.startswith(disjoint[-1])):
            disjoint.append(prefix)
    begins = tuple(disjoint)
    relative = (path.removeprefix("/") for path in paths)
    full = (path if "/" in path else f"{ROOT_CONTAINER}/{path}" for path in relative)
    return BlobSelection(tuple(dict.fromkeys(each for each in full if not _is_taken(f"/{each}", begins))), begins)


def _is_taken(path: str, prefixes: Sequence[str]) -> bool:
    # Sorted, and none begins as another does: only the last that does not come behind the path can be its own.
    at = bisect_right(prefixes, path)
    return at > 0 and path.startswith(prefixes[at - 1])


def _can_be_container(name: str) -> bool:
    try:
        split_blob_path(f"{name}/x")
    except ManifestError:
        return False
    return True


def read_blob_list(stream: SupportsRead) -> BlobSelection:
    """Read a list blob, `<BlobList><BlobPathPrefix>/x</BlobPathPrefix><BlobPath>c/b</BlobPath></BlobList>`.

    Raises:
        ManifestError: `BlobListFormatInvalid`: it is no such XML, has more than 64 MiB, or an entry is empty, or
            a prefix does not begin with "/"; the text says where by counting entries from 1.
    """
    named: dict[str, list[str]] = {_PATH: [], _PREFIX: []}
    count = 0
    try:
        for event, place, element in walk_elements(_Bounded(stream)):
            if place[0] != _ROOT:
                raise _invalid(f"its outermost element is no {_ROOT}")
            if len(place) > 1 and (len(place) > 2 or place[1] not in named):
                raise _invalid(f"after entry {count} it holds an element that is no {_PATH} or {_PREFIX}")
            if event == "start" or len(place) == 1:
                continue
            count += 1
            text = element.text or ""
            if not text.removeprefix("/") and (element.tag == _PATH or not text):
                raise _invalid(f"its entry {count} is empty")
            if element.tag == _PREFIX and not text.startswith("/"):
                raise _invalid(f"its entry {count} is a prefix and must begin with '/'")
            named[element.tag].append(text)
    except ManifestError as fault:
        raise _invalid(str(fault)) from None
    return select_blobs(named[_PATH], named[_PREFIX])


def write_blob_list(stream: SupportsWrite, paths: Iterable[str]) -> None:
    """Write a list that `read_blob_list` reads; what XML cannot hold becomes U+FFFD."""
    stream.write(f'<?xml version="1.0" encoding="utf-8"?>\n<{_ROOT}>\n'.encode())
    for path in paths:
        stream.write(f"<{_PATH}>{escaped(replace_unwritable(path))}</{_PATH}>\n".encode())
    stream.write(f"</{_ROOT}>\n".encode())


def incomplete_list_name(job_name: str, at: datetime) -> str:
    """Name the list of what fit on no drive, below the job's diagnostics path.

    Args:
        job_name: the job's name as its customer wrote it.
        at: when the copy of its first drive began, UTC.

    Returns:
        `waies/<job>_<yyyyMMdd-HHmmss-fff>_incomplete.xml`, milliseconds cut, not rounded.

    Raises:
        ValueError: `at` is not UTC.
    """
    if at.utcoffset() != timedelta(0):
        raise ValueError("a list is named by a time in UTC that says so")
    return f"{LOG_FOLDER}/{job_name}_{at:%Y%m%d-%H%M%S}-{at.microsecond // 1000:03}_incomplete.xml"


class _Bounded:
    def __init__(self, stream: SupportsRead) -> None:
        self._stream = stream
        self._bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._bytes += len(data)
        if self._bytes > LIST_BYTES_MAX:
            raise _invalid(f"it has more than {LIST_BYTES_MAX} bytes")
        return data


def _invalid(text: str) -> ManifestError:
    return ManifestError(FORMAT_INVALID, text)
