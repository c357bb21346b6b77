"""Which blobs go to one drive, and their copy: one thread knows journal, record and lease, the others copy."""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlalchemy import update
from sqlmodel import col

from models.copies import DriveCopy
from models.copy_logs import BlobStatus, DispositionStatus
from models.database import writing
from models.drives import Drive
from models.errors import LeaseLostError, StoreError
from models.manifests import BLOCK_BYTES_MAX, split_blob_path
from tasks.blob_files import BlobFailedError
from tasks.containers import Account
from tasks.export_journal import ExportJournal, Written, told_of
from tasks.export_listing import Found
from tasks.export_reading import RESERVE_BYTES, BlobReading, DriveFullError, Errand
from tasks.plans import Plan
from tasks.pulse import Pulse
from tasks.stores import Container, refused_as
from tasks.way import Way

_RECORD_SECONDS: Final = 1.0
_ENTRY_BYTES: Final = 4096
_PIECE_ENTRY_BYTES: Final = 256
"""What a blob, and each piece of it, takes at most in manifest and journal."""


@dataclass(slots=True)
class Room:
    """How much more one drive can take.

    Attributes:
        free: bytes.
        cluster: bytes that its file system gives a file at a time.
    """

    free: int
    cluster: int

    @classmethod
    def on(cls, drive: Path) -> "Room":
        """Look at a drive.

        Raises:
            DriveError: it cannot be looked at.
        """
        with told_of(drive):
            return cls(shutil.disk_usage(drive).free - RESERVE_BYTES, os.statvfs(drive).f_frsize)

    def needed(self, length: int) -> int:
        """Tell what a blob of this length takes, with its properties and metadata files and its entries, bytes.

        Those files are taken as one cluster each: of few blobs they are longer, and a list does not tell of which.
        """
        files = (length, 1, 1)
        clusters = sum(-(-each // self.cluster) * self.cluster for each in files)
        return clusters + _ENTRY_BYTES + -(-length // BLOCK_BYTES_MAX) * _PIECE_ENTRY_BYTES

    def has_for(self, length: int) -> bool:
        """Tell whether a blob of this length has room."""
        return self.needed(length) <= self.free


@dataclass(frozen=True, slots=True)
class Filled:
    """One drive that is being filled.

    Attributes:
        job_id: the job.
        number: the drive's in it.
        journal: of the drive.
        later: room of the drives that come after it.
    """

    job_id: UUID
    number: int
    journal: ExportJournal
    later: Sequence[Room]

    def fits_later(self, length: int) -> bool:
        """Tell whether a later drive has room for a blob of this length."""
        return any(room.has_for(length) for room in self.later)


def plan_drive(filled: Filled, found: Iterable[Found], room: Room) -> None:
    """Settle what goes to a drive, in order, until a blob fits on a later drive alone.

    What fits neither here nor later is left out, and so is what cannot be exported at all; the journal says so.

    Args:
        filled: the drive; all of the plan is written to its journal or nothing.
        found: the blobs that are to be exported and went to no drive before.
        room: of this drive.
    """
    journal = filled.journal
    with journal.planning():
        for each in found:
            if each.status is not None:
                journal.leave(each.path, each.length, each.status)
            elif room.has_for(each.length):
                folders_before = journal.folders
                journal.plan(each.path, each.length)
                room.free -= room.needed(each.length) + room.cluster * (journal.folders - folders_before)
            elif filled.fits_later(each.length):
                return
            else:
                journal.leave(each.path, each.length, BlobStatus.FAILED)


class DriveFilling:
    """Copies what the journal of a drive lists, from where an earlier run came to.

    Args:
        filled: the drive.
        folder: where it is mounted.
        account: the storage account.
        pulse: of the copy, which holds its lease and knows its limits.
        tell: told at every record how many bytes are on the drive, and how many are to come there in all.
    """

    def __init__(
        self,
        filled: Filled,
        folder: Path,
        account: Account,
        pulse: Pulse,
        tell: Callable[[int, int], None],
    ) -> None:
        self._filled = filled
        self._tell = tell
        self._journal = filled.journal
        self._folder = folder
        self._account = account
        self._pulse = pulse
        self._limits = pulse.limits
        self._way = Way(self._limits.memory_bytes, pulse.is_fresh)
        self._under_way: dict[Future[Written], Errand] = {}
        self._last_record = time.monotonic()
        self._for_later: list[int] = []
        self._count()

    def _count(self) -> None:
        self._total = self._journal.total()[1]
        self._done = self._journal.total("status IS NOT NULL")[0]
        self._bytes = self._journal.total("written IS NOT NULL")[1]

    def fill(self) -> None:
        """Copy every blob of the journal that is not over yet, or until one finds the drive full.

        Raises:
            CopyCancelledError: a cancel was heard; how far it came is recorded.
            LeaseLostError: another run copies the job now.
            StoreError: the store does not answer; how far it came is recorded.
            DriveError: the drive is gone.
        """
        at_once = self._limits.requests_at_once
        self._record()
        with ThreadPoolExecutor(at_once, "drivepost-pieces") as pieces, ThreadPoolExecutor(at_once) as blobs:
            reading = BlobReading(self._folder, self._way, pieces, self._limits.reads_back)
            try:
                for entry in self._journal.waiting():
                    while len(self._under_way) >= 2 * at_once:
                        self._hear()
                    if self._for_later:
                        break
                    container, name = split_blob_path(entry.path)
                    errand = Errand(entry, self._account.container(container), name)
                    self._under_way[blobs.submit(reading.fetch, errand)] = errand
                    self.between()
                while self._under_way:
                    self._hear()
            except LeaseLostError:
                raise
            except Exception:
                self._way.stop()
                blobs.shutdown(wait=True, cancel_futures=True)
                self._take_in_the_rest()
                self._record()
                raise
            finally:
                self._way.stop()
        self._record()
        if self._for_later:
            # Also what came to this drive from behind it: each drive goes on in the list where one ended.
            self._journal.cut(min(self._for_later))
            self._count()
            self._record()

    def _hear(self) -> None:
        """Wait for a thread to come to an end, for as long as nothing else is due."""
        ended, _ = wait(self._under_way, self._limits.poll_seconds, FIRST_COMPLETED)
        # This process may have slept: nothing more is written before it is known whether the copy is still ours.
        self.between()
        for future in ended:
            self._take_in(self._under_way.pop(future), future)

    def _take_in(self, errand: Errand, future: Future[Written]) -> None:
        entry = errand.entry
        try:
            written = future.result()
        except DriveFullError:
            if self._filled.fits_later(entry.length):
                self._for_later.append(entry.number)
            else:
                self._journal.leave_out(entry.number)
                self._total -= entry.length
            return
        except BlobFailedError as failure:
            status = failure.status
        except StoreError as error:
            self._require_store(errand.container)
            status = refused_as(error)
        else:
            self._journal.end(entry.number, written.status, written)
            self._bytes += entry.length
            self._done += 1
            return
        self._journal.end(entry.number, status)
        self._done += 1

    def _take_in_the_rest(self) -> None:
        """Write down what the threads finished while they were being stopped; a later run does the others."""
        for future, errand in self._under_way.items():
            if not future.cancelled() and future.exception() is None:
                self._take_in(errand, future)
        self._under_way.clear()

    def _require_store(self, container: Container) -> None:
        """Tell a store that does not answer from one that refuses a single blob.

        Raises:
            StoreError: it lists no blobs either.
        """
        next(iter(container.list()), None)

    def between(self) -> None:
        """Hear of a cancel, say that we are alive, and once a second how far we are."""
        self._pulse.beat()
        if time.monotonic() - self._last_record >= _RECORD_SECONDS:
            self._record()

    def _record(self) -> None:
        """Write down how far the copy has come, in one guarded transaction."""
        read = sum(min(errand.bytes_read, errand.entry.length) for errand in self._under_way.values())
        last = self._journal.last_path
        planned = [Plan(last, DispositionStatus.CREATED, over=True).entry()] if last else []
        job_id, number = self._filled.job_id, self._filled.number
        with writing() as session:
            self._pulse.renew(session)
            session.connection().execute(
                update(DriveCopy)
                .where(col(DriveCopy.job_id) == job_id, col(DriveCopy.drive_number) == number)
                .values(blobs_done=self._done, bytes_committed=self._bytes, planned=planned)
            )
            session.connection().execute(
                update(Drive)
                .where(col(Drive.job_id) == job_id, col(Drive.number) == number)
                .values(bytes_total=self._total, bytes_succeeded=self._bytes + read)
            )
        self._last_record = time.monotonic()
        self._tell(self._bytes + read, self._total)
