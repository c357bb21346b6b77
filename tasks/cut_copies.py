"""What a copy that was cut, and that nobody goes on with, left in the store without saying so."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final
from uuid import UUID

from models.copies import BlobReport
from models.copy_logs import BlobStatus, DispositionStatus
from models.manifest_reader import iterate_blobs
from models.manifests import SupportsRead, split_blob_path
from tasks.blob_files import Attached, DriveFiles
from tasks.blob_reports import report_of
from tasks.blob_writing import BlobWriting
from tasks.containers import Account
from tasks.orders import Order, in_batches
from tasks.plans import Plan
from tasks.stores import ForbiddenError, NameRefusedError
from tasks.way import Way

_AT_ONCE: Final = 16
_BATCH_BLOBS: Final = 64
_MEMORY_BYTES: Final = 64 * 2**20


@dataclass(slots=True)
class Rest:
    """The blobs of one drive that were settled, and of which not all are known to be over.

    Attributes:
        job_id: the job.
        number: the drive's number in it.
        first: the place in the manifest of the first of them.
        plans: what was settled, in the order of the manifest.
        bytes_committed: of those that `settle` found in the store.
        reports: what is to be said of those, and of those that were cut.
    """

    job_id: UUID
    number: int
    first: int = 0
    plans: Sequence[Plan] = ()
    bytes_committed: int = 0
    reports: list[BlobReport] = field(default_factory=list)

    @property
    def untold(self) -> set[int]:
        """Places of blobs that are not in the store; those that were begun have reports."""
        statuses = enumerate((plan.status for plan in self.plans), self.first)
        return {place for place, status in statuses if status is DispositionStatus.CANCELLED}

    def settle(self, manifest: SupportsRead, account: Account, files: DriveFiles) -> None:
        """Let all be over: a blob is whole in the store, or it is cancelled.

        Raises:
            StoreError: the store does not answer.
        """
        numbered = islice(enumerate(iterate_blobs(manifest)), self.first, self.first + len(self.plans))
        with ThreadPoolExecutor(_AT_ONCE) as askers, ThreadPoolExecutor(_AT_ONCE) as parts:
            way = Way(_MEMORY_BYTES, lambda: True)
            writing = BlobWriting(files, way, parts, reads_back=True, begun=lambda: None)
            for batch in in_batches(numbered, _BATCH_BLOBS):
                orders = [
                    Order(place, blob, plan, account, *split_blob_path(plan.path), aside="", inherited=True)
                    for place, blob in batch
                    if not (plan := self.plans[place - self.first]).over
                ]
                for order, attached in zip(orders, askers.map(partial(_find, writing), orders), strict=True):
                    self._end(order, attached)

    def _end(self, order: Order, attached: Attached | None) -> None:
        status = BlobStatus.FAILED
        if attached is not None:
            self.bytes_committed += order.blob.bytes_listed
            status = BlobStatus.COMPLETED if attached.went_well else BlobStatus.COMPLETED_WITH_ERRORS
        report = report_of(self.job_id, self.number, order, attached, status, {})
        if report is not None and (attached is not None or order.plan.upload):
            self.reports.append(report)
        order.plan.end(is_in_store=attached is not None)


def _find(writing: BlobWriting, order: Order) -> Attached | None:
    """Tell what came with a blob that is in the store; None where it is not, or we may not look."""
    if order.plan.status is DispositionStatus.SKIPPED:
        return None
    attached = writing.files.attached(order.blob)
    try:
        return attached if writing.is_there(order, attached) else None
    except (NameRefusedError, ForbiddenError):
        return None
