"""A store that is a folder: one file a blob, its properties in one extended attribute of that file.

Written by the system's own calls and not through `obstore`: its folder store keeps no properties, writes one blob
in order only, and leaves `name#1` beside the blob when its process is killed, which nothing lists.
"""

import errno
import json
import os
import shutil
import stat
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from heapq import nsmallest
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from models.blob_facts import HEADERS, BlobFacts
from models.drive_files import read_piece
from models.errors import StoreError
from tasks.stores import (
    NO_SEGMENTS,
    STAGING,
    BlobExistsError,
    BlobMissingError,
    Container,
    ForbiddenError,
    ListedBlob,
    NameRefusedError,
    NotHeldError,
    Part,
    StoredBlob,
    Upload,
    containers_among,
)

_ATTRIBUTE: Final = "user.drivepost"
_NO_SUCH_NAME: Final = frozenset(
    {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST}
)
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_SEGMENT_BYTES_MAX: Final = 255
_TRIES: Final = 5
_PAGE_ENTRIES: Final = 50_000
"""Of a folder that are held at once, 17 MiB of them."""

_T = TypeVar("_T")


@contextmanager
def _told_without_paths() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise BlobMissingError("the store has no such blob or container") from None
    except PermissionError:
        raise ForbiddenError("the store's folder may not be read or written") from None
    except OSError as error:
        if error.errno in _NO_SUCH_NAME:
            raise NameRefusedError("the store's folder can hold no file of that name") from None
        raise StoreError(f"the store's folder failed: {error.strerror or type(error).__name__}") from None
    except ValueError:
        raise NameRefusedError("the store's folder can hold no file of that name") from None


class FolderContainer(Container):
    """A container that is a folder.

    Args:
        folder: the container's folder; made when the first blob comes.
        name: the container's name.
    """

    is_local = True

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder
        self._root = os.path.join(folder, "")  # joined with every blob's name; a Path costs too much

    def uri(self, path: str) -> str:
        return f"{self._folder.as_uri()}/{path}"

    def list(self, prefix: str = "") -> Iterator[ListedBlob]:
        folder = prefix.rpartition("/")[0]
        if f"{prefix}/".startswith(f"{STAGING}/") or (folder and not NO_SEGMENTS.isdisjoint(folder.split("/"))):
            # No blob is called so, and what lies there is not the container's.
            return
        # Depth first, so that whole names come in order, as every other store lists them.
        waiting = [_in_order(self._root + folder)]
        while waiting:
            # What went meanwhile, or is no folder any more, holds nothing.
            with _told_without_paths(), suppress(FileNotFoundError, NotADirectoryError):
                if (entry := next(waiting[-1], None)) is None:
                    waiting.pop()
                    continue
                name = entry.path.removeprefix(self._root)
                if name == STAGING:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if f"{name}/".startswith(prefix) or prefix.startswith(f"{name}/"):
                        waiting.append(_in_order(entry.path))
                elif name.startswith(prefix) and entry.is_file(follow_symlinks=False):
                    yield ListedBlob(name, entry.stat(follow_symlinks=False).st_size)

    def exists(self, path: str) -> bool:
        try:
            with _told_without_paths():
                return stat.S_ISREG(os.stat(self._place(path)).st_mode)
        except BlobMissingError:
            return False

    def stat(self, path: str) -> StoredBlob:
        with _told_without_paths():
            place = self._place(path)
            found = os.stat(place)
            if os.path.isdir(place):
                raise FileNotFoundError
            return StoredBlob(
                length=found.st_size,
                e_tag=_e_tag(found),
                last_modified=datetime.fromtimestamp(found.st_mtime, UTC),
                facts=_read_facts(place),
            )

    def read(self, path: str, offset: int, length: int, *, e_tag: str = "") -> bytes:
        with _told_without_paths(), _opened(self._place(path), os.O_RDONLY) as file:
            if e_tag and _e_tag(os.fstat(file)) != e_tag:
                raise FileNotFoundError
            return read_piece(file, offset, length)

    def put(self, path: str, data: bytes, facts: BlobFacts, aside: str, *, overwrite: bool) -> str:
        place, laid = self._place(path), self._aside(aside)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with _told_without_paths(), _opened_making_folders(laid, flags) as file:
            try:
                _write_whole(file, data, 0)
                _write_facts(file, facts)
                # Who slept until now has lost what was laid aside, or hears here that it must not name it.
                self.require_open()
                _give_name(laid, place, overwrite=overwrite)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(laid)
                raise
            return _e_tag(os.fstat(file))

    def part_bytes(self, length: int) -> int:
        return 0

    def upload(
        self,
        path: str,
        parts: Sequence[Part],
        aside: str,
        handle: str = "",
        *,
        facts: BlobFacts | None = None,
    ) -> Upload:
        return _FolderUpload(self._aside(handle or aside), self._place(path), handle or aside, self.require_open)

    def upload_pages(self, path: str, length: int, aside: str, handle: str = "") -> Upload:
        raise NotHeldError("a folder has no page blobs")

    def drop(self, path: str, handle: str) -> None:
        with _told_without_paths(), suppress(FileNotFoundError):
            os.unlink(self._aside(handle))

    def delete(self, path: str, *, e_tag: str = "") -> None:
        with _told_without_paths(), suppress(FileNotFoundError):
            place = self._place(path)
            if not e_tag or _e_tag(os.stat(place)) == e_tag:
                os.unlink(place)

    def discard(self, aside: str) -> None:
        laid = Path(self._aside(aside))
        with _told_without_paths(), suppress(FileNotFoundError):
            shutil.rmtree(laid)
        with suppress(OSError):
            for folder in laid.parents:
                if folder == self._folder:
                    break
                folder.rmdir()

    def probe(self, aside: str, length: int) -> None:
        laid = self._aside(aside)
        with _told_without_paths():
            with _opened_making_folders(laid, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
                _write_whole(file, bytes(length), 0)
            os.unlink(laid)

    def _place(self, path: str) -> str:
        segments = path.split("/")
        try:
            is_too_long = any(len(segment.encode()) > _SEGMENT_BYTES_MAX for segment in segments)
        except UnicodeEncodeError:
            raise NameRefusedError("the store's folder can hold no file of that name") from None
        # A name that climbs out of the folder, or that the system would read as another.
        if is_too_long or "\x00" in path or not NO_SEGMENTS.isdisjoint(segments):
            raise NameRefusedError("the store's folder can hold no file of that name")
        return self._root + path

    def _aside(self, aside: str) -> str:
        return f"{self._root}{STAGING}/{aside}"


class _FolderUpload(Upload):
    def __init__(self, laid: str, place: str, handle: str, require_open: Callable[[], None]) -> None:
        self.handle = handle
        self._require_open = require_open
        self._laid = laid
        self._place = place
        with _told_without_paths(), _opened_making_folders(laid, os.O_RDWR | os.O_CREAT) as file:
            self._bytes_before = os.fstat(file).st_size
            self._file = os.dup(file)

    def __del__(self) -> None:
        # Nothing is open where the file could not be made.
        with suppress(AttributeError):
            os.close(self._file)

    def write(self, part: Part, data: bytes) -> bool:
        with _told_without_paths():
            if (
                part.offset + part.length <= self._bytes_before
                and read_piece(self._file, part.offset, part.length) == data
            ):
                return False
            _write_whole(self._file, data, part.offset)
        return True

    def read(self, part: Part) -> bytes | None:
        with _told_without_paths():
            return read_piece(self._file, part.offset, part.length)

    def commit(self, facts: BlobFacts, *, overwrite: bool) -> str:
        with _told_without_paths():
            _write_facts(self._file, facts)
            self._require_open()
            _give_name(self._laid, self._place, overwrite=overwrite)
            return _e_tag(os.fstat(self._file))


def list_containers(address: str) -> Iterator[str]:
    """Name the containers of a storage account, in order: the folders where its address has `{container}`.

    Raises:
        StoreError: the folder cannot be read.
    """
    path = url2pathname(urlsplit(address).path)
    place = path.partition("{container}")[0].rpartition("/")[0]
    with _told_without_paths(), suppress(FileNotFoundError):
        folders = [entry.name for entry in os.scandir(place or "/") if entry.is_dir(follow_symlinks=False)]
        yield from containers_among(folders, path)


def _in_order(folder: str) -> Iterator["os.DirEntry[str]"]:
    """Give what is in a folder, in the memory of one page; a folder of many pages is read as many times."""
    last = ""
    while True:
        with os.scandir(folder) as entries:
            page = nsmallest(_PAGE_ENTRIES, (each for each in entries if _order(each) > last), key=_order)
        yield from page
        if len(page) < _PAGE_ENTRIES:
            return
        last = _order(page[-1])


def _order(entry: "os.DirEntry[str]") -> str:
    return f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name


def _e_tag(found: os.stat_result) -> str:
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"


@contextmanager
def _opened(place: str, flags: int) -> Iterator[int]:
    file = os.open(place, flags, 0o666)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def _opened_making_folders(place: str, flags: int) -> Iterator[int]:
    file = _making_folders(place, lambda: os.open(place, flags, 0o666))
    try:
        yield file
    finally:
        os.close(file)


def _making_folders(place: str, act: Callable[[], _T]) -> _T:
    """Do something that needs a file's folders; again where another has tidied them away meanwhile."""
    for _ in range(_TRIES):
        with suppress(FileNotFoundError):
            return act()
        with suppress(FileNotFoundError):
            os.makedirs(os.path.dirname(place), exist_ok=True)
    return act()


def _write_whole(file: int, data: bytes, offset: int) -> None:
    written = os.pwrite(file, data, offset)
    while written < len(data):
        written += os.pwrite(file, memoryview(data)[written:], offset + written)


def _give_name(laid: str, place: str, *, overwrite: bool) -> None:
    """Name what was laid aside; nobody ever sees a part of it, and no other's blob goes unless it is to."""
    _making_folders(place, lambda: _name(laid, place, overwrite=overwrite))


def _name(laid: str, place: str, *, overwrite: bool) -> None:
    if overwrite:
        os.replace(laid, place)
        return
    try:
        os.link(laid, place)
    except FileExistsError:
        if os.path.isdir(place):
            raise IsADirectoryError(errno.EISDIR, "") from None
        raise BlobExistsError from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without hard links, as exFAT: take the name first, then put the file in its place.
        try:
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            raise BlobExistsError from None
        os.replace(laid, place)
        return
    os.unlink(laid)


def _write_facts(file: int, facts: BlobFacts) -> None:
    told = {name: value for name in HEADERS if (value := getattr(facts, name)) is not None}
    if facts.content_md5 is not None:
        told["content_md5"] = b64encode(facts.content_md5).decode()
    document = {**told, "metadata": dict(facts.metadata)} if facts.metadata else told
    if not document:
        return
    try:
        os.setxattr(file, _ATTRIBUTE, json.dumps(document, separators=(",", ":")).encode())
    except OSError:
        if facts.metadata or len(told) > (facts.content_md5 is not None):
            raise NotHeldError("the store's folder can hold no properties or metadata of this size") from None
        # The MD5 alone is a service of ours, and a file system without attributes still holds the blob.


def _read_facts(place: str) -> BlobFacts:
    try:
        document = json.loads(os.getxattr(place, _ATTRIBUTE))
    except (OSError, ValueError):
        return BlobFacts()
    md5 = document.get("content_md5")
    return BlobFacts(
        **{name: document.get(name) for name in HEADERS},
        content_md5=None if md5 is None else b64decode(md5),
        metadata=document.get("metadata", {}),
    )
