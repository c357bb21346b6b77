"""Which name each blob gets: settled before its first byte is written, by what the container has already."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from models.copy_logs import DispositionStatus
from models.errors import StoreError
from models.manifests import Blob, ImportDisposition, split_blob_path
from tasks.stores import Container

_RENAMES_MAX: Final = 10_000
_KNOWN_MAX: Final = 10_000
"""Names of one container that are held in memory; of a fuller one each name is asked for by itself."""


@dataclass(slots=True)
class Plan:
    """What was settled for one blob.

    Attributes:
        path: its final path, container first.
        status: what becomes of a blob that has this path already.
        upload: the store's handle of a blob that is being written part by part; empty before.
        over: whether the blob is done, well or badly.
    """

    path: str
    status: DispositionStatus
    upload: str = ""
    over: bool = False

    @classmethod
    def of(cls, entry: dict[str, Any]) -> "Plan":
        """Read one from the record."""
        return cls(entry["path"], DispositionStatus(entry["status"]), entry["upload"], entry["over"])

    def entry(self) -> dict[str, Any]:
        """Make its entry in the record."""
        return {"path": self.path, "status": self.status, "upload": self.upload, "over": self.over}

    @property
    def overwrites(self) -> bool:
        """Whether a blob of this name is to go."""
        return self.status is DispositionStatus.OVERWRITTEN


class Names:
    """The names in the containers of one storage account, as far as a copy needs to know them.

    Args:
        open_container: gives a container by its name.
        require_store: tells a store that is away from one that refuses a name; raises StoreError if it is away.
        between: called between two requests; what it raises ends the settling.
    """

    def __init__(
        self,
        open_container: Callable[[str], Container],
        require_store: Callable[[str], None],
        between: Callable[[], None],
    ) -> None:
        self._open = open_container
        self._require_store = require_store
        self._between = between
        self._known: dict[str, set[str] | None] = {}

    def settle(self, batch: Sequence[Blob], reserved: set[str], pool: Executor) -> list[Plan]:
        """Settle the names of blobs that come next.

        Args:
            batch: the blobs, in the order of the manifest.
            reserved: paths that are settled for others, and perhaps not written yet.
            pool: asks for many names at once.

        Raises:
            StoreError: the store does not answer.
        """
        taken = set(reserved)
        asked = self._ask(batch, pool)
        plans = []
        for blob in batch:
            plan = self._settle_one(blob, taken, asked)
            taken.add(plan.path)
            plans.append(plan)
        return plans

    def settle_anew(self, blob: Blob, reserved: set[str]) -> Plan:
        """Settle a name again, which somebody took after it was settled; only the store itself is believed.

        Raises:
            StoreError: the store does not answer.
        """
        self._known[split_blob_path(blob.blob_path)[0]] = None
        return self._settle_one(blob, reserved, {})

    def _ask(self, batch: Sequence[Blob], pool: Executor) -> dict[str, bool]:
        """Find out about all first choices at once, where a container is too full to be known by heart."""
        unknown = [path for blob in batch if self._names(split_blob_path(path := blob.blob_path)[0]) is None]
        return dict(zip(unknown, self._all_exist(unknown, pool), strict=True))

    def _all_exist(self, paths: Sequence[str], pool: Executor) -> Iterator[bool]:
        for found in [pool.submit(self._exists, path) for path in paths]:
            self._between()
            yield found.result()

    def _names(self, container: str) -> set[str] | None:
        if container not in self._known:
            names: set[str] = set()
            self._known[container] = names
            try:
                for blob in islice(self._open(container).list(), _KNOWN_MAX + 1):
                    self._between()
                    names.add(blob.name)
            except StoreError:
                self._require_store(container)
                names.clear()
                self._known[container] = None
            if len(names) > _KNOWN_MAX:
                self._known[container] = None
        return self._known[container]

    def _settle_one(self, blob: Blob, taken: set[str], asked: dict[str, bool]) -> Plan:
        if not self._is_taken(blob.blob_path, taken, asked):
            return Plan(blob.blob_path, DispositionStatus.CREATED)
        if blob.disposition is ImportDisposition.NO_OVERWRITE:
            return Plan(blob.blob_path, DispositionStatus.SKIPPED)
        if blob.disposition is ImportDisposition.OVERWRITE:
            return Plan(blob.blob_path, DispositionStatus.OVERWRITTEN)
        for path in islice(_other_names(blob.blob_path), _RENAMES_MAX):
            self._between()
            if not self._is_taken(path, taken, asked):
                return Plan(path, DispositionStatus.RENAMED)
        # Copying it then fails, since the name is taken, and is told as RenameFailed.
        return Plan(blob.blob_path, DispositionStatus.RENAMED)

    def _is_taken(self, path: str, taken: set[str], asked: dict[str, bool]) -> bool:
        if path in taken:
            return True
        container, name = split_blob_path(path)
        names = self._names(container)
        if names is not None:
            if name in names:
                return True
            if len(names) < _KNOWN_MAX:
                names.add(name)
            else:
                self._known[container] = None
            return False
        return asked[path] if path in asked else self._exists(path)

    def _exists(self, path: str) -> bool:
        container, name = split_blob_path(path)
        try:
            return self._open(container).exists(name)
        except StoreError:
            self._require_store(container)
            # The store answers, so it is this name that it cannot hold; copying tells so.
            return False


def _other_names(path: str) -> Iterator[str]:
    """Make `Seattle (2).jpg`, `Seattle (3).jpg` … of `Seattle.jpg`."""
    folder, slash, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    return (f"{folder}{slash}{stem} ({count}){dot}{extension}" for count in range(2, _RENAMES_MAX + 2))
