"""Copying the blobs of one drive: every block checked, every name settled before its first byte is written.

Several blobs are under way at once, in threads; this one alone knows the record and the lease. Not an act of its
own: `tasks.drives` runs it. Source: the specification, sections 7 and 9.
"""

import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from itertools import islice, takewhile
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any, Final
from uuid import UUID

from sqlalchemy import update
from sqlmodel import col

from models.copies import BlobReport, DriveCopy
from models.copy_logs import BlobStatus, BlockStatus, DispositionStatus
from models.database import reading, writing
from models.drives import Drive
from models.errors import StoreError
from models.manifest_reader import iterate_blobs
from models.manifests import Blob, SupportsRead, split_blob_path
from tasks.blob_files import Attached, BlobFailedError, DriveFiles
from tasks.blob_names import Names
from tasks.blob_reports import report_of
from tasks.blob_writing import BlobWriting
from tasks.containers import WrittenAccount
from tasks.copy_threads import CopyThreads
from tasks.orders import PIECES_MAX, Order, in_batches
from tasks.plans import Plan
from tasks.pulse import CopyCancelledError, Pulse
from tasks.stores import STAGING, BlobExistsError, NameRefusedError, NotHeldError, refused_as
from tasks.way import Way

_RECORD_SECONDS: Final = 1.0
_LARGE_AT_ONCE_MAX: Final = 2
"""Files of several parts that are read at once: a disk reads two in turn about as fast as one, and not ten."""
_TRIES: Final = 2
"""How often a blob is tried under the name settled for it; then once more under another."""
_WINDOW_BATCHES: Final = 8

_Ended = list[tuple[Order, Attached | BaseException]]


class BlobCopier:
    """Copies the blobs of one drive, from where an earlier run came to.

    Args:
        job_id: the job.
        number: the drive's number in it.
        folder: where the drive is mounted.
        store_address: the storage account's store, with `{container}` open.
        pulse: of the copy, which holds its lease and knows its limits.
        log_container: where the job's logs go; a store that takes those is not away.
        tell: told how many bytes are in the store, at every record.
    """

    def __init__(
        self,
        job_id: UUID,
        number: int,
        folder: Path,
        store_address: str,
        pulse: Pulse,
        log_container: str,
        tell: Callable[[int], None],
    ) -> None:
        self._job_id = job_id
        self._number = number
        self._pulse = pulse
        self._limits = pulse.limits
        self._tell = tell
        self._files = DriveFiles(folder)
        aside = f"{job_id}/{number}/probe-{pulse.token}"
        self._way = Way(self._limits.memory_bytes, pulse.is_fresh)
        self._account = WrittenAccount(store_address, log_container, aside, self._way.require_open)
        self._news: SimpleQueue[Event | _Ended] = SimpleQueue()
        self._under_way: dict[int, Order] = {}
        self._paths_under_way: set[str] = set()
        self._again: list[Order] = []
        self._reports: list[BlobReport] = []
        self._last_record = time.monotonic()
        with reading() as session:
            begun = session.get_one(DriveCopy, (job_id, number))
            # A run that goes on reads again what lies aside; what was told of it does not become less meanwhile.
            self._bytes_told = session.get_one(Drive, (job_id, number)).bytes_succeeded
        self._done = begun.blobs_done
        self._bytes = begun.bytes_committed
        self._staging_containers = dict.fromkeys(begun.staging_containers)
        self._staging_recorded = len(self._staging_containers)
        self._plans = deque(Plan.of(entry) for entry in begun.planned)

    def copy(self, manifest: SupportsRead) -> None:
        """Copy every blob of the manifest that is not over yet.

        Raises:
            CopyCancelledError: a cancel was heard; how far it came is recorded.
            LeaseLostError: another run copies the job now.
            StoreError: the store does not answer; how far it came is recorded.
            DriveError: the drive is gone.
        """
        with CopyThreads(self._pulse, self._way, self._run, self._between) as self._threads:
            self._names = Names(self._account, self._threads)
            self._writing = BlobWriting(
                self._files, self._way, self._threads.parts, self._limits.reads_back, self._begun
            )
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

    def _copy_all(self, manifest: SupportsRead) -> None:
        numbered = islice(enumerate(iterate_blobs(manifest)), self._done, None)
        # The plans first: of the blobs, which may have many blocks, none is taken that is not begun.
        self._begin(zip(list(self._plans), numbered, strict=False), inherited=True)
        for batch in in_batches(numbered, self._limits.batch_blobs):
            while len(self._plans) > _WINDOW_BATCHES * self._limits.batch_blobs:
                # One blob that takes its time keeps the record of all behind it.
                self._hear()
            reserved = {plan.path for plan in self._plans}
            plans = self._names.settle([blob for _, blob in batch], reserved)
            self._plans += plans
            for plan in plans:
                self._staging_containers[split_blob_path(plan.path)[0]] = None
            self._record()
            self._begin(zip(plans, batch, strict=True), inherited=False)
        while self._under_way or self._again:
            self._hear()

    def _begin(self, settled: Iterable[tuple[Plan, tuple[int, Blob]]], *, inherited: bool) -> None:
        for plan, (number, blob) in settled:
            self._between()
            if not plan.over:
                while plan.path in self._paths_under_way or self._is_enough_under_way:
                    # Of two blobs of one path the first is over before the second begins.
                    self._hear()
                self._start(self._order(number, blob, plan, inherited=inherited))

    def _order(self, number: int, blob: Blob, plan: Plan, *, inherited: bool) -> Order:
        container, name = split_blob_path(plan.path)
        aside = f"{self._job_id}/{self._number}/{number}-{self._pulse.token}"
        return Order(number, blob, plan, self._account, container, name, aside, inherited)

    # -- what is under way -----------------------------------------------------------------------------

    def _start(self, order: Order) -> None:
        """Let a thread copy a blob; one that needs none is over at once."""
        plan = order.plan
        if plan.status is DispositionStatus.SKIPPED and (plan.is_sure or self._names.exists(plan.path)):
            self._end(order, Attached.cancelled(order.blob), BlobStatus.COMPLETED)
        elif plan.status is DispositionStatus.SKIPPED:
            # What it was to yield to, another blob of this manifest, did not arrive.
            self._settle_anew(order)
        elif order.name.partition("/")[0] == STAGING:
            self._fail(order, BlobFailedError(BlobStatus.FILE_NAME_INVALID))
        else:
            self._submit(order)

    def _submit(self, order: Order) -> None:
        try:
            self._threads.submit(order)
        except NameRefusedError as error:
            self._fail(order, BlobFailedError(refused_as(error)))
            return
        order.attempts += 1
        self._under_way[order.number] = order
        self._paths_under_way.add(order.plan.path)

    @property
    def _is_enough_under_way(self) -> bool:
        """Whether more would only wait; a disk is read at few places at once."""
        return (
            len(self._under_way) > self._threads.orders_max
            or self._large_under_way > _LARGE_AT_ONCE_MAX
            or sum(len(order.pieces) for order in self._under_way.values()) > PIECES_MAX
        )

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
        waiting, self._again = self._again, []
        for order in waiting:
            if order.plan.path in self._paths_under_way:
                self._again.append(order)
            else:
                self._start(order)
        self._threads.submit_rest()
        if not self._under_way:
            return
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
        elif isinstance(result, BlobFailedError):
            self._fail(order, result)
        elif isinstance(result, NameRefusedError | NotHeldError):
            self._fail(order, BlobFailedError(refused_as(result)))
        elif isinstance(result, BlobExistsError | StoreError):
            self._try_again(order, result)
        else:
            raise result

    def _try_again(self, order: Order, error: BlobExistsError | StoreError) -> None:
        """The store refused a blob, or somebody has its name; or it was written and only the answer was lost."""
        if isinstance(error, StoreError):
            self._threads.ask(lambda: self._account.require(order.container_name, order.blob.length))
        if order.attempts < _TRIES:
            self._forget(order)
            order.inherited = True
            self._again.append(order)
        elif isinstance(error, StoreError) and order.e_tag:
            # It is in the store, and only cannot be read back.
            self._end(order, Attached.written(order.blob), BlobStatus.COMPLETED_WITH_ERRORS)
        elif isinstance(error, StoreError):
            self._fail(order, BlobFailedError(refused_as(error)))
        elif order.attempts == _TRIES:
            self._settle_anew(order)
        else:
            self._fail(order, BlobFailedError(BlobStatus.RENAME_FAILED))

    def _settle_anew(self, order: Order) -> None:
        """The store has the name, or has it no more, since it was settled: settle anew, and begin again."""
        self._forget(order)
        self._drop(order)
        others = [plan for plan in self._plans if not plan.over and plan.status is not DispositionStatus.SKIPPED]
        reserved = {plan.path for plan in others if plan is not order.plan}
        if all(
            plan.path != order.blob.blob_path for plan in takewhile(lambda each: each is not order.plan, others)
        ):
            # What comes later in the manifest has to ask again itself.
            reserved.discard(order.blob.blob_path)
        plan = self._names.settle_anew(order.blob, reserved)
        order.plan.path, order.plan.status, order.plan.is_sure = plan.path, plan.status, plan.is_sure
        self._record()
        again = self._order(order.number, order.blob, order.plan, inherited=False)
        again.attempts = order.attempts
        self._again.append(again)

    def _drop(self, order: Order) -> None:
        """Remove what this copy wrote of a blob that does not count."""
        # A store that will not do that keeps what lies aside for a while; it is under no blob's name.
        if order.plan.upload:
            with suppress(StoreError):
                self._threads.ask(lambda: order.container.drop(order.name, order.plan.upload))
            order.plan.upload = ""
        if order.e_tag:
            self._threads.ask(lambda: order.container.delete(order.name, e_tag=order.e_tag))
            order.e_tag = ""

    def _forget(self, order: Order) -> None:
        if self._under_way.pop(order.number, None) is not None:
            self._paths_under_way.discard(order.plan.path)

    def _end_threads(self, *, cancelled: bool) -> None:
        """Stop all threads, and take in what they finished; what no later run goes on with is told."""
        self._way.stop(cancelled=cancelled)
        self._threads.end()
        # It may be that only the answer is lost: whoever ends the drive looks whether they are in the store.
        unknown = {order.number for order in self._again}
        while not self._news.empty():
            news = self._news.get_nowait()
            for order, result in [] if isinstance(news, Event) else news:
                if isinstance(result, Attached):
                    self._end(order, result, BlobStatus.COMPLETED)
                elif isinstance(result, BlobFailedError):
                    with suppress(StoreError):
                        self._fail(order, result)
                elif isinstance(result, StoreError):
                    unknown.add(order.number)
        if cancelled:
            self._give_up_all_but(unknown)

    def _give_up_all_but(self, unknown: Container[int]) -> None:
        """Let blobs be over that no run goes on with, but for those at these places."""
        for order in self._under_way.values():
            if order.bytes_sent and order.number not in unknown:
                self._report(order, None, BlobStatus.FAILED, {})
        for number, plan in enumerate(self._plans, self._done):
            if not plan.over and number not in unknown:
                plan.end(is_in_store=False)

    # -- what is recorded ------------------------------------------------------------------------------

    def _record(self) -> None:
        """Write down how far the copy has come, in one guarded transaction."""
        sent = max(self._bytes_told, self._bytes + sum(order.bytes_sent for order in self._under_way.values()))
        values: dict[str, Any] = {"planned": [plan.entry() for plan in self._plans]}
        if len(self._staging_containers) > self._staging_recorded:
            # Written only when it grew: of a drive for very many containers it is long.
            values["staging_containers"] = list(self._staging_containers)
        with writing() as session:
            self._pulse.renew(session)
            session.connection().execute(
                update(DriveCopy)
                .where(col(DriveCopy.job_id) == self._job_id, col(DriveCopy.drive_number) == self._number)
                .values(blobs_done=self._done, bytes_committed=self._bytes, **values)
            )
            session.connection().execute(
                update(Drive)
                .where(col(Drive.job_id) == self._job_id, col(Drive.number) == self._number)
                .values(bytes_succeeded=sent)
            )
            for report in self._reports:
                session.merge(report)
        self._reports = []
        self._staging_recorded = len(self._staging_containers)
        self._last_record = time.monotonic()
        self._tell(sent)

    def _between(self) -> None:
        """Hear of a cancel, say that we are alive, and once a second how far we are."""
        self._pulse.beat()
        if time.monotonic() - self._last_record >= _RECORD_SECONDS:
            self._record()

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
        self._forget(order)
        if attached is not None and order.plan.status is not DispositionStatus.SKIPPED:
            self._bytes += order.blob.bytes_listed
            self._names.wrote(order.plan.path)
            if not attached.went_well:
                status = BlobStatus.COMPLETED_WITH_ERRORS
        self._report(order, attached, status, bad or {})
        order.plan.over, order.plan.upload = True, ""
        while self._plans and self._plans[0].over:
            self._plans.popleft()
            self._done += 1

    def _report(
        self, order: Order, attached: Attached | None, status: BlobStatus, bad: dict[int, BlockStatus]
    ) -> None:
        report = report_of(self._job_id, self._number, order, attached, status, bad)
        if report is not None:
            self._reports.append(report)
