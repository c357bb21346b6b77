"""The store of a storage account: what every kind of store can do with containers of blobs.

`tasks.containers` opens one by its address. What is not whole yet lies under `.drivepost/<job>/…` of its
container, or where the store itself keeps what was not committed; no blob of a customer begins so.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from models.blob_facts import BlobFacts
from models.copy_logs import BlobStatus
from models.errors import StoreError
from models.manifests import BLOCK_BYTES_MAX

STAGING: Final = ".drivepost"
NO_SEGMENTS: Final = frozenset({"", ".", ".."})
"""In no name that a manifest can hold; `obstore` and file systems read them as another."""


class BlobMissingError(StoreError):
    """There is no blob of that name; where none was awaited, the store failed."""


class ForbiddenError(StoreError):
    """The store does not let us; whether this one blob or all of them, shows only when another is tried."""


class StoreBusyError(StoreError):
    """The store did not answer, or had no time for us; asked again a little later, it may."""


class NameRefusedError(StoreError):
    """This store can hold no blob of that name."""


class NotHeldError(StoreError):
    """This kind of store cannot hold what was to be kept: page blobs, or properties and metadata of this size."""


_REFUSED_AS: Final = {
    NotHeldError: BlobStatus.FAILED,
    ForbiddenError: BlobStatus.BLOB_REQUEST_FORBIDDEN,
}


def refused_as(error: StoreError) -> BlobStatus:
    """Tell in the copy log's words why a store refused one blob; its name, too, is refused by a request."""
    return _REFUSED_AS.get(type(error), BlobStatus.BLOB_REQUEST_FAILED)


class BlobExistsError(Exception):
    """A blob of that name exists already; settled by the blob's disposition, and seen by nobody else."""


@dataclass(frozen=True, slots=True)
class Part:
    """What goes to the store in one request: one block, or several that follow one another.

    Attributes:
        index: 0 and up, in the order of the blob.
        offset: in the blob, bytes.
        length: 1 byte to what `Container.part_bytes` asks for and a block more.
        id: the block's id in Base64, where the manifest gives one.
        md5: of its bytes, 16 of them, where it is known; the store checks by it what arrives.
    """

    index: int
    offset: int
    length: int
    id: str | None = None
    md5: bytes | None = None


@dataclass(frozen=True, slots=True)
class ListedBlob:
    """A blob as a list shows it: its name without the container, and its length in bytes."""

    name: str
    length: int


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """What a store tells of one blob.

    Attributes:
        length: bytes.
        e_tag: changes with every write; empty where the store has none.
        last_modified: aware UTC.
        facts: its properties and metadata.
        is_page_blob: whether it is one.
    """

    length: int
    e_tag: str
    last_modified: datetime
    facts: BlobFacts
    is_page_blob: bool = False


class Upload(ABC):
    """One blob on its way into a container, part by part; parts may be written from several threads.

    Attributes:
        handle: what `Container.upload` needs to go on with it in another process.
    """

    handle: str

    @abstractmethod
    def write(self, part: Part, data: bytes) -> bool:
        """Bring one part into the store; False if it was there already, from a run before."""

    @abstractmethod
    def read(self, part: Part) -> bytes | None:
        """Read a part back before the blob is whole; None where the store shows it only afterwards."""

    @abstractmethod
    def commit(self, facts: BlobFacts, *, overwrite: bool) -> str:
        """Make it a blob under its name, all at once; tells its ETag.

        Raises:
            BlobExistsError: there is one of that name, and it is not to be overwritten.
        """


class Container(ABC):
    """One container of one storage account; every method may be called from several threads.

    Attributes:
        name: the container's name.
        is_local: whether a request is a call of this machine's own system, which costs next to nothing.
        require_open: a store that lays a blob aside first calls it before the blob gets its name; it raises where
            nothing may be written any more.

    Raises:
        StoreError: of every method: the store refused, or does not answer. NameRefusedError, ForbiddenError,
            BlobMissingError and NotHeldError say what is known about it.
    """

    name: str
    is_local = False
    require_open: Callable[[], None] = staticmethod(lambda: None)

    @abstractmethod
    def uri(self, path: str) -> str:
        """Tell where a blob can be found, without a credential."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ListedBlob]:
        """List the blobs whose names begin so, in the store's order; what is not whole is left out."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Tell whether there is a blob of this name."""

    @abstractmethod
    def stat(self, path: str) -> StoredBlob:
        """Tell all about one blob.

        Raises:
            BlobMissingError: there is none.
        """

    @abstractmethod
    def read(self, path: str, offset: int, length: int, *, e_tag: str = "") -> bytes:
        """Read a piece of a blob; less than `length` bytes where it ends before.

        Args:
            path: the blob's name.
            offset: where to begin, bytes.
            length: how many bytes, 1 and up.
            e_tag: fail if it is another by now; empty takes whatever is there.

        Raises:
            BlobMissingError: there is none, or not that one any more.
        """

    @abstractmethod
    def put(self, path: str, data: bytes, facts: BlobFacts, aside: str, *, overwrite: bool) -> str:
        """Write a whole blob of at most 8 MiB; nobody ever sees a part of it. Tells its ETag.

        Args:
            path: its name.
            data: its content.
            facts: its properties and metadata.
            aside: under which name it may be laid aside on the way, below `.drivepost`.
            overwrite: whether it takes the place of one that is there.

        Raises:
            BlobExistsError: there is one, and it is not to be overwritten.
        """

    @abstractmethod
    def part_bytes(self, length: int) -> int:
        """Tell how long each part of such a blob should be at least, but the last; 0 takes block by block."""

    @abstractmethod
    def upload(
        self,
        path: str,
        parts: Sequence[Part],
        aside: str,
        handle: str = "",
        *,
        facts: BlobFacts | None = None,
    ) -> Upload:
        """Begin a blob of several parts, or go on with one.

        Args:
            path: its name.
            parts: all of them, in order; empty where they are not known, as of a log that is being written.
            aside: under which name it may be laid aside on the way, below `.drivepost`.
            handle: the handle of an upload that a run before began and did not commit.
            facts: what `commit` will be told, but for the MD5; S3 takes it only at the beginning.
        """

    @abstractmethod
    def upload_pages(self, path: str, length: int, aside: str, handle: str = "") -> Upload:
        """Begin a page blob, or go on with one; bytes in no part are zero.

        Raises:
            NotHeldError: this store has no page blobs.
        """

    def pages(self, path: str, *, e_tag: str = "") -> Iterator[tuple[int, int]]:  # noqa: ARG002  one kind has them
        """Tell where a page blob was written to: begin and end of each range, bytes, in order; the rest is zero.

        Raises:
            NotHeldError: this store has no page blobs.
        """
        raise NotHeldError("this store has no page blobs")

    @abstractmethod
    def drop(self, path: str, handle: str) -> None:
        """Remove what was laid aside of an upload that is not to be committed; harmless when there is nothing."""

    @abstractmethod
    def delete(self, path: str, *, e_tag: str = "") -> None:
        """Remove a blob; harmless when there is none, or, where an `e_tag` is given, another."""

    @abstractmethod
    def discard(self, aside: str) -> None:
        """Remove whatever lies aside below this name; harmless when there is nothing."""

    @abstractmethod
    def probe(self, aside: str, length: int) -> None:
        """Find out whether the store takes anything at all, by writing `length` bytes aside and removing them."""


def containers_among(names: Iterable[str], place: str) -> list[str]:
    """Tell, in order, which containers are called so in a store.

    Args:
        names: of the folders, or of the store's own containers, that stand where its address has `{container}`.
        place: that address, or what of it is a path; there may be more around `{container}` in the same segment.
    """
    begin, _, end = next(each for each in place.split("/") if "{container}" in each).partition("{container}")
    found = [
        name[len(begin) : len(name) - len(end)] for name in names if name.startswith(begin) and name.endswith(end)
    ]
    return sorted(name for name in found if name and not name.startswith("."))


class BlobWriter:
    """Writes a blob of unknown length piece by piece, in the memory of one part; a blob that is there is replaced.

    Args:
        container: where it goes.
        path: its name.
        aside: under which name it may be laid aside on the way.
        facts: its properties.
    """

    def __init__(self, container: Container, path: str, aside: str, facts: BlobFacts) -> None:
        self._container = container
        self._path = path
        self._aside = aside
        self._facts = facts
        self._pending = bytearray()
        self._upload: Upload | None = None
        self._count = 0
        self._offset = 0
        self._part_bytes = max(BLOCK_BYTES_MAX, container.part_bytes(0))

    def write(self, data: bytes, /) -> None:
        """Take all of `data`."""
        self._pending += data
        while len(self._pending) > self._part_bytes:
            self._send(bytes(self._pending[: self._part_bytes]))
            del self._pending[: self._part_bytes]

    def _send(self, data: bytes) -> None:
        if self._upload is None:
            self._upload = self._container.upload(self._path, (), self._aside, facts=self._facts)
        self._upload.write(Part(self._count, self._offset, len(data)), data)
        self._count += 1
        self._offset += len(data)

    def finish(self) -> None:
        """Give the blob its name."""
        if self._upload is None:
            self._container.put(self._path, bytes(self._pending), self._facts, self._aside, overwrite=True)
            return
        self._send(bytes(self._pending))
        self._upload.commit(self._facts, overwrite=True)

    def abandon(self) -> None:
        """Leave nothing of it."""
        if self._upload is not None:
            self._container.drop(self._path, self._upload.handle)
