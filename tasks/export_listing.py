"""Which blobs of an account an Export job takes, one by one, in an order that stays."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader, RawIOBase
from typing import TYPE_CHECKING, Final

from models.blob_lists import FORMAT_INVALID, BlobSelection, read_blob_list
from models.copy_logs import BlobStatus
from models.errors import DriveError, ManifestError, StoreError
from models.manifests import replace_unwritable, split_blob_path, xml_can_hold
from tasks.containers import Account, containers_of
from tasks.stores import BlobMissingError, Container, ForbiddenError, NameRefusedError, StoredBlob, refused_as

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Found:
    """A blob that is to be exported, or one that was asked for and cannot be: `status` says why.

    What XML cannot hold of its path is U+FFFD.
    """

    path: str
    length: int
    status: BlobStatus | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """The blobs of an account that a job takes.

    Attributes:
        selection: what it asks for.
        account: the storage account.
        between: called between two requests; what it raises ends the listing.
    """

    selection: BlobSelection
    account: Account
    between: Callable[[], None]

    def after(self, last: str | None) -> Iterator[Found]:
        """Give the blobs behind one that was given before; all of them behind None.

        Raises:
            StoreError: the store does not answer, or lost a blob while it was listed.
        """
        paths = list(self.selection.paths)
        if last is not None:
            is_path = last in self.selection.paths
            paths = paths[paths.index(last) + 1 :] if is_path else []
            last = None if is_path else last
        for path in paths:
            self.between()
            yield self._look_at(path)
        yield from self._by_prefixes(last)

    def _look_at(self, path: str) -> Found:
        try:
            container, name = split_blob_path(path)
            return Found(path, self.account.container(container).stat(name).length)
        except ManifestError:
            return Found(replace_unwritable(path), 0, BlobStatus.FILE_NAME_INVALID)
        except BlobMissingError:
            return Found(path, 0, BlobStatus.FILE_NOT_FOUND)
        except (ForbiddenError, NameRefusedError) as error:
            return Found(path, 0, refused_as(error))

    def _by_prefixes(self, last: str | None) -> Iterator[Found]:
        containers = self.selection.containers
        last_container, _, last_name = (last or "").partition("/")
        for container in sorted(containers_of(self.account.address)) if containers is None else containers:
            if container < last_container:
                continue
            self.between()
            names = self._names(container)
            if container == last_container:
                names = self._behind(container, last_name)
            for name, length in names:
                path = f"{container}/{name}"
                if _can_be_listed(path):
                    yield Found(path, length)
                else:
                    yield Found(replace_unwritable(path), length, BlobStatus.FILE_NAME_INVALID)

    def _names(self, container: str) -> Iterator[tuple[str, int]]:
        # A blob whose name XML cannot hold is no blob of any list, and a store may not even take the question.
        for begin in filter(xml_can_hold, self.selection.names_in(container)):
            self.between()
            try:
                for blob in self.account.container(container).list(begin):
                    self.between()
                    yield blob.name, blob.length
            except BlobMissingError:
                return  # no such container, and no blob that begins so

    def _behind(self, container: str, last_name: str) -> Iterator[tuple[str, int]]:
        # By its place in the store's own order, whatever that is; by its name only where it is there no more.
        is_there = self.account.container(container).exists(last_name)
        is_behind = False
        for name, length in self._names(container):
            if is_behind or (not is_there and name > last_name):
                yield name, length
            elif name == last_name:
                is_behind = True
        if is_there and not is_behind:
            raise StoreError("a blob went while its container was listed")


def _can_be_listed(path: str) -> bool:
    try:
        split_blob_path(path)
    except ManifestError:
        return False
    return True


def read_selection(path: str, account: Account, between: Callable[[], None]) -> BlobSelection:
    """Read the list blob of a job.

    Args:
        path: container and name of the blob; one "/" may stand in front.
        account: the storage account.
        between: called between two requests; what it raises ends the reading.

    Raises:
        DriveError: `BlobListFormatInvalid`: there is no such blob, or it is no list; `BlobRequestForbidden`.
        StoreError: the store does not answer.
    """
    try:
        container, name = split_blob_path(path.removeprefix("/"))
        stored = account.container(container)
        found = stored.stat(name)
        with BufferedReader(_BlobFile(stored, name, found, between), _READ_BYTES) as stream:
            return read_blob_list(stream)
    except ManifestError as fault:
        raise DriveError(FORMAT_INVALID, f"the list blob cannot be read: {fault}") from None
    except (BlobMissingError, NameRefusedError):
        raise DriveError(FORMAT_INVALID, "there is no list blob where the job says") from None
    except ForbiddenError:
        raise DriveError("BlobRequestForbidden", "the store does not let us read the list blob") from None


class _BlobFile(RawIOBase):
    def __init__(self, container: Container, name: str, found: StoredBlob, between: Callable[[], None]) -> None:
        self._container = container
        self._name = name
        self._found = found
        self._between = between
        self._offset = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        into = memoryview(buffer).cast("B")
        wanted = min(len(into), self._found.length - self._offset)
        self._between()
        if not wanted:
            return 0
        data = self._container.read(self._name, self._offset, wanted, e_tag=self._found.e_tag)
        into[: len(data)] = data
        self._offset += len(data)
        return len(data)
