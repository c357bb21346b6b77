"""Copying the blobs of one drive: every block checked, every name settled before its first byte is written.

Several blobs are under way at once, in threads; this one alone knows the record and the lease. Not an act of its
own: `tasks.drives` runs it. Source: the specification, sections 7 and 9.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event
from typing import BinaryIO, Final
from uuid import UUID

from sqlalchemy import update
from sqlmodel import col

from models.copies import BlobReport, DriveCopy
from models.copy_logs import BlobStatus, BlockStatus, DispositionStatus
from models.database import reading, writing
from models.drives import Drive
from models.errors import StoreError
from models.manifest_reader import iterate_blobs
from models.manifests import BLOCK_BYTES_MAX, Blob, split_blob_path
from tasks.blob_files import Attached, BlobFailedError, DriveFiles
from tasks.blob_names import Names, Plan
from tasks.blob_writing import BlobWriting, Order
from tasks.containers import open_container
from tasks.pulse import CopyCancelledError, Pulse
from tasks.stores import STAGING, BlobExistsError, Container, ForbiddenError, NameRefusedError, NotHeldError
from tasks.way import Way

_RECORD_SECONDS: Final = 1.0
_LARGE_AT_ONCE_MAX: Final = 2
"""Files of several parts that are read at once: a disk reads two in turn about as fast as one, and not ten."""
_SETTLE_TRIES: Final = 2

_CHUNK_BLOBS: Final = 16

_Ended = list[tuple[Order, Attached | BaseException]]


class BlobCopier:
    """Copies the blobs of one drive, from where an earlier run came to.

    Args:
        job_id: the job.
        number: the drive's number in it.
        folder: where the drive is mounted.
        store_address: the storage account's store, with `{container}` open.
        pulse: of the copy, which holds its lease and knows its limits.
        tell: told how many bytes are in the store, at every record.
    """

    def __init__(
        self,
        job_id: UUID,
        number: int,
        folder: Path,
        store_address: str,
        pulse: Pulse,
        tell: Callable[[int], None],
    ) -> None:
        self._job_id = job_id
        self._number = number
        self._store_address = store_address
        self._pulse = pulse
        self._limits = pulse.limits
        self._tell = tell
        self._under_way_max = max(2 * pulse.limits.requests_at_once, 2 * _CHUNK_BLOBS)
        self._files = DriveFiles(folder)
        self._containers: dict[str, Container] = {}
        self._names = Names(self._container, self._require_store, self._between)
        self._way = Way(self._limits.memory_bytes, pulse.is_fresh)
        self._news: SimpleQueue[Event | _Ended] = SimpleQueue()
        self._chunk: list[Order] = []
        self._under_way: dict[int, Order] = {}
        self._reports: list[BlobReport] = []
        self._last_record = time.monotonic()
        with reading() as session:
            begun = session.get_one(DriveCopy, (job_id, number))
            # A run that goes on reads again what lies aside; what was told of it does not become less meanwhile.
            self._bytes_told = session.get_one(Drive, (job_id, number)).bytes_succeeded
        self._done = begun.blobs_done
        self._bytes = begun.bytes_committed
        self._staging_containers = list(begun.staging_containers)
        self._plans = deque(Plan.of(entry) for entry in begun.planned)

    def copy(self, manifest: BinaryIO) -> None:
        """Copy every blob of the manifest that is not over yet.

        Raises:
            CopyCancelledError: a cancel was heard; how far it came is recorded.
            LeaseLostError: another run copies the job now.
            StoreError: the store does not answer; how far it came is recorded.
            DriveError: the drive is gone.
        """
        at_once = self._limits.requests_at_once
        with (
            ThreadPoolExecutor(at_once, "drivepost-parts") as parts,
            ThreadPoolExecutor(at_once, "drivepost-blobs") as blobs,
            ThreadPoolExecutor(1, "drivepost-chunks") as chunks,
        ):
            self._writing = BlobWriting(self._files, self._way, parts, self._limits.reads_back, self._begun)
            self._pool, self._chunks = blobs, chunks
            try:
                self._copy_all(manifest)
            except Exception as error:
                self._end_threads(cancelled=isinstance(error, CopyCancelledError))
                # A lost lease makes this fail too, as it should: the successor's record stands. After a signal
                # nothing is written down: it may have come between two lines that belong together.
                self._record()
                raise
            finally:
                self._way.stop()
        self._record()

    def _copy_all(self, manifest: BinaryIO) -> None:
        numbered = islice(enumerate(iterate_blobs(manifest)), self._done, None)
        inherited = list(islice(numbered, len(self._plans)))
        self._begin(inherited, list(self._plans), inherited=True)
        while batch := list(islice(numbered, self._limits.batch_blobs)):
            reserved = {plan.path for plan in self._plans}
            plans = self._names.settle([blob for _, blob in batch], reserved, self._pool)
            self._plans += plans
            for plan in plans:
                container = split_blob_path(plan.path)[0]
                if container not in self._staging_containers:
                    self._staging_containers.append(container)
            self._record()
            self._begin(batch, plans, inherited=False)
        while self._under_way:
            self._hear()

    def _begin(self, batch: Sequence[tuple[int, Blob]], plans: Sequence[Plan], *, inherited: bool) -> None:
        for (number, blob), plan in zip(batch, plans, strict=True):
            self._between()
            if not plan.over:
                self._start(self._order(number, blob, plan, inherited=inherited))
            while self._is_enough_under_way:
                self._hear()

    def _order(self, number: int, blob: Blob, plan: Plan, *, inherited: bool) -> Order:
        container, name = split_blob_path(plan.path)
        aside = f"{self._job_id}/{self._number}/{number}-{self._pulse.token}"
        return Order(number, blob, plan, self._container(container), name, aside, inherited)

    # -- what is under way -----------------------------------------------------------------------------

    def _start(self, order: Order) -> None:
        """Let a thread copy a blob; one that needs none is over at once."""
        if order.plan.status is DispositionStatus.SKIPPED:
            self._end(order, Attached.cancelled(order.blob), BlobStatus.COMPLETED)
            return
        if order.name.partition("/")[0] == STAGING:
            self._fail(order, BlobFailedError(BlobStatus.FILE_NAME_INVALID))
            return
        order.attempts += 1
        self._under_way[order.number] = order
        if order.is_small and order.container.is_local:
            # Where a request costs less than a change of threads, one thread takes them all, many at a time.
            self._chunk.append(order)
            if len(self._chunk) == _CHUNK_BLOBS:
                self._submit_chunk()
        else:
            self._pool.submit(self._run, [order])

    def _submit_chunk(self) -> None:
        chunk, self._chunk = self._chunk, []
        if chunk:
            self._chunks.submit(self._run, chunk)

    @property
    def _is_enough_under_way(self) -> bool:
        """Whether more would only wait; a disk is read at few places at once."""
        return len(self._under_way) > self._under_way_max or self._large_under_way > _LARGE_AT_ONCE_MAX

    @property
    def _large_under_way(self) -> int:
        return sum(not order.is_small for order in self._under_way.values())

    def _run(self, orders: Sequence[Order]) -> None:
        """Copy blobs one after the other; done by the threads."""
        ended: _Ended = []
        for order in orders:
            try:
                ended.append((order, self._writing.write(order)))
            except BaseException as error:  # noqa: BLE001  whatever it is, the copy's own thread must hear of it
                ended.append((order, error))
        self._news.put(ended)

    def _begun(self) -> None:
        """Have an upload's handle written down; called by the threads, done by the copy's own."""
        written = Event()
        self._news.put(written)
        while not written.wait(self._limits.poll_seconds):
            self._way.require_open()

    def _hear(self) -> None:
        """Wait for news of a thread, for as long as nothing else is due."""
        self._submit_chunk()
        try:
            news = self._news.get(timeout=self._limits.poll_seconds)
        except Empty:
            self._between()
            return
        if isinstance(news, Event):
            self._record()
            news.set()
        else:
            # What is good comes first: a fault may end the copy.
            for order, result in sorted(news, key=lambda each: isinstance(each[1], BaseException)):
                self._take_in(order, result)
        self._between()

    def _take_in(self, order: Order, result: Attached | BaseException) -> None:
        if isinstance(result, Attached):
            self._end(order, result, BlobStatus.COMPLETED)
        elif isinstance(result, BlobExistsError):
            self._settle_anew(order)
        elif isinstance(result, BlobFailedError):
            self._fail(order, result)
        elif isinstance(result, StoreError):
            if not isinstance(result, NameRefusedError | NotHeldError):
                self._require_store(order.container.name, order.blob.length)
            self._fail(order, BlobFailedError(_refused_as(result)))
        else:
            raise result

    def _settle_anew(self, order: Order) -> None:
        """Somebody took the name after it was settled: settle anew, write it down, and begin again."""
        self._drop(order)
        if order.attempts >= _SETTLE_TRIES:
            self._fail(order, BlobFailedError(BlobStatus.RENAME_FAILED))
            return
        others = {plan.path for plan in self._plans if plan is not order.plan}
        plan = self._names.settle_anew(order.blob, others)
        order.plan.path, order.plan.status = plan.path, plan.status
        self._record()
        again = self._order(order.number, order.blob, order.plan, inherited=False)
        again.attempts = order.attempts
        self._start(again)

    def _drop(self, order: Order) -> None:
        if order.plan.upload:
            order.container.drop(order.name, order.plan.upload)
            order.plan.upload = ""

    def _end_threads(self, *, cancelled: bool) -> None:
        """Stop all threads, and take in what they finished; what no later run goes on with is told."""
        self._way.stop(cancelled=cancelled)
        for pool in (self._pool, self._chunks):
            pool.shutdown(wait=True)
        while not self._news.empty():
            news = self._news.get_nowait()
            for order, result in [] if isinstance(news, Event) else news:
                if isinstance(result, Attached):
                    self._end(order, result, BlobStatus.COMPLETED)
                elif isinstance(result, BlobFailedError):
                    self._end(order, None, result.status, result.bad)
        for order in self._under_way.values() if cancelled else ():
            if order.bytes_sent:
                self._report(order, None, BlobStatus.FAILED, {})

    # -- what is recorded ------------------------------------------------------------------------------

    def _record(self) -> None:
        """Write down how far the copy has come, in one guarded transaction."""
        sent = max(self._bytes_told, self._bytes + sum(order.bytes_sent for order in self._under_way.values()))
        with writing() as session:
            self._pulse.renew(session)
            session.connection().execute(
                update(DriveCopy)
                .where(col(DriveCopy.job_id) == self._job_id, col(DriveCopy.drive_number) == self._number)
                .values(
                    blobs_done=self._done,
                    bytes_committed=self._bytes,
                    planned=[plan.entry() for plan in self._plans],
                    staging_containers=self._staging_containers,
                )
            )
            session.connection().execute(
                update(Drive)
                .where(col(Drive.job_id) == self._job_id, col(Drive.number) == self._number)
                .values(bytes_succeeded=sent)
            )
            for report in self._reports:
                session.merge(report)
        self._reports = []
        self._last_record = time.monotonic()
        self._tell(sent)

    def _between(self) -> None:
        """Hear of a cancel, say that we are alive, and once a second how far we are."""
        self._pulse.beat()
        if time.monotonic() - self._last_record >= _RECORD_SECONDS:
            self._record()

    def _container(self, name: str) -> Container:
        if name not in self._containers:
            self._containers[name] = open_container(self._store_address, name)
        return self._containers[name]

    def _require_store(self, container: str, length: int = 0) -> None:
        """Tell a store that does not answer, or is full, from one that refuses a single blob of this length.

        Raises:
            StoreError: it does not take as much under another name either.
        """
        aside = f"{self._job_id}/{self._number}/probe-{self._pulse.token}"
        self._container(container).probe(aside, min(length, BLOCK_BYTES_MAX))

    # -- what is told ----------------------------------------------------------------------------------

    def _fail(self, order: Order, failure: BlobFailedError) -> None:
        self._drop(order)
        self._end(order, None, failure.status, failure.bad)

    def _end(
        self,
        order: Order,
        attached: Attached | None,
        status: BlobStatus,
        bad: dict[int, BlockStatus] | None = None,
    ) -> None:
        """Let a blob be over: `attached` is None where it is not in the store."""
        self._under_way.pop(order.number, None)
        if attached is not None and order.plan.status is not DispositionStatus.SKIPPED:
            self._bytes += order.blob.bytes_listed
            if not attached.went_well:
                status = BlobStatus.COMPLETED_WITH_ERRORS
        self._report(order, attached, status, bad or {})
        order.plan.over = True
        while self._plans and self._plans[0].over:
            self._plans.popleft()
            self._done += 1

    def _report(
        self, order: Order, attached: Attached | None, status: BlobStatus, bad: dict[int, BlockStatus]
    ) -> None:
        if attached is not None and attached.went_well and order.plan.status is DispositionStatus.CREATED:
            return
        blob = order.blob
        told = attached or Attached.cancelled(blob)
        report = BlobReport(
            job_id=self._job_id,
            drive_number=self._number,
            blob_number=order.number,
            blob_path=blob.blob_path if attached is None else order.plan.path,
            file_path=blob.file_path,
            length=blob.length,
            disposition=blob.disposition,
            status=status,
            disposition_status=DispositionStatus.CANCELLED if attached is None else order.plan.status,
            blocks=[
                {
                    "offset": piece.offset,
                    "length": piece.length,
                    "hash": piece.hash,
                    "id": getattr(piece, "id", None),
                    "status": bad.get(at, BlockStatus.UNCOMMITTED),
                }
                for at, piece in enumerate(order.pieces if bad else ())
            ],
            metadata_status=told.metadata,
            properties_status=told.properties,
            is_page_blob=blob.is_page_blob,
        )
        self._reports.append(report)


def _refused_as(error: StoreError) -> BlobStatus:
    """Tell in the copy log's words why the store refused one blob."""
    if isinstance(error, NotHeldError):
        return BlobStatus.FAILED
    return (
        BlobStatus.BLOB_REQUEST_FORBIDDEN if isinstance(error, ForbiddenError) else BlobStatus.BLOB_REQUEST_FAILED
    )
