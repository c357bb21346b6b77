"""Which name each blob gets: settled before its first byte is written, by what the container has already."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count, islice, takewhile
from typing import Final

from models.copy_logs import DispositionStatus
from models.errors import StoreError
from models.manifests import BLOB_NAME_CHARACTERS_MAX, Blob, ImportDisposition, split_blob_path
from tasks.containers import WrittenAccount
from tasks.copy_threads import CopyThreads
from tasks.plans import Plan
from tasks.stores import NameRefusedError, StoreBusyError

_RENAMES_MAX: Final = 10_000
_KNOWN_MAX: Final = 10_000
"""Names of one container that are held in memory; of a fuller one each name is asked for by itself."""
_ALL_KNOWN_MAX: Final = 50_000
"""Names and containers that are held in memory; the container that came first is then forgotten."""


class Names:
    """The names in the containers of one storage account, as far as a copy needs to know them.

    Args:
        account: the storage account.
        threads: ask for many names at once, while the copy lives on.
    """

    def __init__(self, account: WrittenAccount, threads: CopyThreads) -> None:
        self._account = account
        self._threads = threads
        self._known: dict[str, set[str] | None] = {}
        self._count = 0
        # Where to go on counting, so that a path that stands a thousand times is not counted up each time.
        self._numbers: dict[str, int] = {}

    def settle(self, batch: Sequence[Blob], reserved: set[str]) -> list[Plan]:
        """Settle the names of blobs that come next.

        Args:
            batch: the blobs, in the order of the manifest.
            reserved: paths that are settled for others, and perhaps not written yet.

        Raises:
            StoreError: the store does not answer.
        """
        taken = set(reserved)
        asked = self._ask_all(batch)
        plans = []
        for blob in batch:
            plan = self._settle_one(blob, taken, asked)
            taken.add(plan.path)
            plans.append(plan)
        return plans

    def settle_anew(self, blob: Blob, reserved: set[str]) -> Plan:
        """Settle a name again, because the store has it, or has it no more; only the store itself is believed.

        Raises:
            StoreError: the store does not answer.
        """
        self._know(split_blob_path(blob.blob_path)[0], None)
        return self._settle_one(blob, reserved, {})

    def exists(self, path: str) -> bool:
        """Ask the store itself whether it has a blob of this path.

        Raises:
            StoreError: the store does not answer.
        """
        return self._threads.ask(lambda: self._exists(path))

    def _ask_all(self, batch: Sequence[Blob]) -> dict[str, bool]:
        """Find out about all first choices at once, where a container is too full to be known by heart."""
        unknown = [blob.blob_path for blob in batch if self._names(split_blob_path(blob.blob_path)[0]) is None]
        asked = [(path, self._threads.asking(partial(self._exists, path))) for path in unknown]
        return {path: self._threads.wait_for(future) for path, future in asked}

    def _names(self, container: str) -> set[str] | None:
        if container not in self._known:
            self._know(container, self._threads.ask(lambda: self._list(container)))
        return self._known[container]

    def _know(self, container: str, names: set[str] | None) -> None:
        self._forget(container)
        self._known[container] = names
        self._count += 1 + len(names or ())
        self._make_room()

    def _make_room(self) -> None:
        while self._count > _ALL_KNOWN_MAX:
            self._forget(next(iter(self._known)))

    def _forget(self, container: str) -> None:
        if container in self._known:
            self._count -= 1 + len(self._known.pop(container) or ())

    def _list(self, container: str) -> set[str] | None:
        """Tell the names in a container; None where they are too many, or it tells none."""
        try:
            names = {blob.name for blob in islice(self._account.container(container).list(), _KNOWN_MAX + 1)}
        except NameRefusedError:
            # There can be no such container, and copying tells so.
            return set()
        except StoreBusyError:
            raise
        except StoreError:
            self._account.require(container)
            return None
        return names if len(names) <= _KNOWN_MAX else None

    def _settle_one(self, blob: Blob, taken: set[str], asked: dict[str, bool]) -> Plan:
        is_there = self._is_there(blob.blob_path, asked)
        if not is_there and blob.blob_path not in taken:
            return Plan(blob.blob_path, DispositionStatus.CREATED)
        if blob.disposition is ImportDisposition.NO_OVERWRITE:
            return Plan(blob.blob_path, DispositionStatus.SKIPPED, is_sure=is_there)
        if blob.disposition is ImportDisposition.OVERWRITE:
            return Plan(blob.blob_path, DispositionStatus.OVERWRITTEN)
        first = self._numbers.get(blob.blob_path, 2)
        for number, path in enumerate(islice(_other_names(blob.blob_path, first), _RENAMES_MAX), first):
            if path not in taken and not self._is_there(path, asked):
                if len(self._numbers) < _KNOWN_MAX:
                    self._numbers[blob.blob_path] = number + 1
                return Plan(path, DispositionStatus.RENAMED)
        # Copying it then fails, since the name is taken, and is told as RenameFailed.
        return Plan(blob.blob_path, DispositionStatus.RENAMED)

    def _is_there(self, path: str, asked: dict[str, bool]) -> bool:
        container, name = split_blob_path(path)
        names = self._names(container)
        if names is not None:
            return name in names
        return asked[path] if path in asked else self.exists(path)

    def _exists(self, path: str) -> bool:
        container, name = split_blob_path(path)
        try:
            return self._account.container(container).exists(name)
        except NameRefusedError:
            return False
        except StoreBusyError:
            raise
        except StoreError:
            self._account.require(container)
            # The store answers, so it is this name that it cannot hold; copying tells so.
            return False

    def wrote(self, path: str) -> None:
        """Take down that a blob of this path is in the store now."""
        container, name = split_blob_path(path)
        names = self._known.get(container)
        if names is None or name in names:
            return
        if len(names) < _KNOWN_MAX:
            names.add(name)
            self._count += 1
            self._make_room()
        else:
            self._know(container, None)


def _other_names(path: str, first: int) -> Iterator[str]:
    """Make `Seattle (2).jpg`, `Seattle (3).jpg` … of `Seattle.jpg`, as far as a blob may be called so."""
    folder, slash, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    longest = len(path) - len(split_blob_path(path)[1]) + BLOB_NAME_CHARACTERS_MAX
    names = (f"{folder}{slash}{stem} ({number}){dot}{extension}" for number in count(first))
    return takewhile(lambda name: len(name) <= longest, names)
