"""The store of a storage account: containers of blobs, whatever keeps them."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore, from_url

from models.errors import StoreError

STAGING: Final = ".drivepost"


class _BlobMissingError(StoreError):
    """There is no blob of that name; where none was awaited, the store failed."""


class BlobExistsError(Exception):
    """A blob of that name exists already; settled by the blob's disposition, and seen by nobody else."""


@contextmanager
def _told_without_paths() -> Iterator[None]:
    try:
        yield
    except AlreadyExistsError:
        raise BlobExistsError from None
    except FileNotFoundError:
        raise _BlobMissingError("the store has no such blob or container") from None
    except (BaseError, OSError, NotImplementedError, ValueError) as error:
        raise StoreError(f"the store refused: {type(error).__name__}") from None


class Container:
    """One container of one storage account.

    Half-written blobs lie under `.drivepost/<job>/` until they are whole; no blob of a customer begins so.

    Args:
        address: the storage account's store address, with `{container}` still open.
        name: the container's name.

    Raises:
        StoreError: of every method: the store refused, or does not answer.
    """

    def __init__(self, address: str, name: str) -> None:
        self._url = address.replace("{container}", name)
        is_folder = self._url.startswith("file:")
        options = {"mkdir": True, "automatic_cleanup": True} if is_folder else {}
        self._folder = Path(url2pathname(urlsplit(self._url).path)) if is_folder else None
        with _told_without_paths():
            self._store: ObjectStore = from_url(self._url, **options)  # type: ignore[call-overload]

    def uri(self, path: str) -> str:
        """Tell where a blob can be found."""
        return f"{self._url}/{path}"

    def exists(self, path: str) -> bool:
        """Tell whether there is a blob of this name."""
        try:
            with _told_without_paths():
                obstore.head(self._store, path)
        except _BlobMissingError:
            return False
        return True

    def put(self, path: str, data: bytes | Iterable[bytes], staging: str, *, overwrite: bool) -> None:
        """Write a whole blob; nobody ever sees a part of it.

        Args:
            path: its name.
            data: its content; pieces only where it may be overwritten.
            staging: under which name it may be laid aside on the way.
            overwrite: whether it takes the place of one that is there.

        Raises:
            BlobExistsError: there is one, and it is not to be overwritten.
        """
        if self._folder is None:
            self._put(path, data, overwrite=overwrite)
            return
        # A folder's own way of writing leaves `name#1` beside the blob when it is killed, which nothing lists.
        aside = f"{STAGING}/{staging}/whole"
        self._put(aside, data, overwrite=True)
        self._give_name(aside, path, overwrite=overwrite)

    def _put(self, path: str, data: bytes | Iterable[bytes], *, overwrite: bool) -> None:
        with _told_without_paths():
            if isinstance(data, bytes):
                obstore.put(
                    self._store, path, data, mode="overwrite" if overwrite else "create", use_multipart=False
                )
            else:
                obstore.put(self._store, path, iter(data))

    def stage_block(self, staging: str, index: int, data: bytes) -> None:
        """Lay one block of a blob aside."""
        self._put(f"{STAGING}/{staging}/{index}", data, overwrite=True)

    def commit_blocks(
        self,
        staging: str,
        token: int,
        count: int,
        path: str,
        *,
        overwrite: bool,
        between_blocks: Callable[[], None],
    ) -> None:
        """Make a blob of the blocks laid aside, under its name only once it is whole.

        Args:
            staging: where its blocks lie.
            token: the writer's own, so that no other gives a name to what this one has not finished.
            count: how many blocks there are.
            path: its name.
            overwrite: whether it takes the place of one that is there.
            between_blocks: called before each block; what it raises ends the writing.

        Raises:
            BlobExistsError: there is one of that name, and it is not to be overwritten.
        """
        whole = f"{STAGING}/{staging}/whole-{token}"
        # A writer and not an iterator: the store may not be read while it pulls from one.
        with _told_without_paths(), obstore.open_writer(self._store, whole) as writer:
            for index in range(count):
                between_blocks()
                writer.write(self._read(f"{STAGING}/{staging}/{index}"))
        self._give_name(whole, path, overwrite=overwrite)

    def _give_name(self, whole: str, path: str, *, overwrite: bool) -> None:
        with _told_without_paths():
            obstore.rename(self._store, whole, path, overwrite=overwrite)

    def discard(self, staging: str) -> None:
        """Remove what was laid aside under this name; harmless when there is nothing."""
        if self._folder is not None:
            # Not through the store: it lists nothing that was being written when its process was killed.
            aside = self._folder / STAGING / staging
            with _told_without_paths(), suppress(FileNotFoundError):
                shutil.rmtree(aside)
            with suppress(OSError):
                for folder in aside.parents:
                    if folder == self._folder:
                        break
                    folder.rmdir()
            return
        with _told_without_paths():
            for found in obstore.list(self._store, prefix=f"{STAGING}/{staging}"):
                obstore.delete(self._store, [meta["path"] for meta in found])

    def holds(self, path: str, blocks: Iterable[tuple[int, int, str]]) -> bool:
        """Tell whether a blob is just these blocks: offset, length and upper-case MD5 of each."""
        try:
            with _told_without_paths():
                size = obstore.head(self._store, path)["size"]
                end = 0
                for offset, length, digest in blocks:
                    end = offset + length
                    if end > size or self._digest(path, offset, length) != digest:
                        return False
        except _BlobMissingError:
            return False
        return size == end

    def _read(self, path: str) -> bytes:
        try:
            with _told_without_paths():
                return bytes(obstore.get(self._store, path).bytes())
        except _BlobMissingError:
            raise StoreError("the store lost a block that was laid aside") from None

    def _digest(self, path: str, offset: int, length: int) -> str:
        data = obstore.get_range(self._store, path, start=offset, length=length)
        return hashlib.md5(data, usedforsecurity=False).hexdigest().upper()
