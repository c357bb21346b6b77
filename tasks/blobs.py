"""Copying the blobs of one drive: every block checked, every name settled before its first byte is written.

Not an act of its own: `tasks.drives` runs it. Source: the specification, sections 7 and 9.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final
from uuid import UUID

from sqlalchemy import update
from sqlmodel import col

from models.copies import BlobReport, DriveCopy
from models.copy_logs import AttachedStatus, BlobStatus, BlockStatus, DispositionStatus
from models.database import reading, writing
from models.drives import Drive
from models.errors import DriveError, StoreError
from models.manifest_reader import iterate_blobs
from models.manifests import BLOCK_BYTES_MAX, Blob, Block, ImportDisposition, split_blob_path
from tasks.mounts import find_file
from tasks.pulse import CopyCancelledError, Pulse
from tasks.stores import STAGING, BlobExistsError, Container

_RENAMES_MAX: Final = 10_000
_RECORD_SECONDS: Final = 1.0


class _BlobFailedError(Exception):
    """One blob cannot be copied; the next one may."""

    def __init__(self, status: BlobStatus, blocks: Sequence[tuple[Block, BlockStatus]] = ()) -> None:
        super().__init__(status)
        self.status = status
        self.blocks = blocks


@dataclass(slots=True)
class _Plan:
    """What was settled for one blob: its final path, and what becomes of a blob that has it already."""

    path: str
    status: DispositionStatus

    @property
    def overwrites(self) -> bool:
        return self.status is DispositionStatus.OVERWRITTEN


class BlobCopier:
    """Copies the blobs of one drive, from where an earlier run came to.

    Args:
        job_id: the job.
        number: the drive's number in it.
        folder: where the drive is mounted.
        store_address: the storage account's store, with `{container}` open.
        pulse: of the copy, which holds its lease.
        batch_blobs: how many blobs' names are settled in one write.
    """

    def __init__(
        self, job_id: UUID, number: int, folder: Path, store_address: str, pulse: Pulse, batch_blobs: int
    ) -> None:
        self._job_id = job_id
        self._number = number
        self._folder = folder
        self._store_address = store_address
        self._pulse = pulse
        self._batch_blobs = batch_blobs
        self._containers: dict[str, Container] = {}
        self._reports: list[BlobReport] = []
        self._plans: list[_Plan] = []
        self._last_record = time.monotonic()
        with reading() as session:
            begun = session.get_one(DriveCopy, (job_id, number))
            told = session.get_one(Drive, (job_id, number)).bytes_succeeded
        self._done = begun.blobs_done
        self._staged = begun.blocks_staged
        self._bytes = begun.bytes_committed
        self._staged_bytes = told - begun.bytes_committed
        self._staging_containers = list(begun.staging_containers)
        self._inherited = [_Plan(each["path"], DispositionStatus(each["status"])) for each in begun.planned]

    def copy(self, manifest: BinaryIO) -> None:
        """Copy every blob of the manifest that is not over yet.

        Raises:
            CopyCancelledError: a cancel was heard; how far it came is recorded.
            LeaseLostError: another run copies the job now.
            StoreError: the store does not answer; how far it came is recorded.
            DriveError: the drive is gone.
        """
        blobs = islice(iterate_blobs(manifest), self._done, None)
        try:
            while batch := list(islice(blobs, len(self._inherited) or self._batch_blobs)):
                inherited = bool(self._inherited)
                self._plans = self._inherited or self._settle(batch)
                self._inherited = []
                self._record()
                for blob in batch:
                    self._copy_blob(blob, inherited=inherited)
        except Exception:
            # A lost lease makes this fail too, as it should: the successor's record stands. After a signal
            # nothing is written down: it may have come between two lines that belong together.
            self._record()
            raise
        self._record()

    # -- what is recorded ------------------------------------------------------------------------------

    def _record(self) -> None:
        """Write down how far the copy has come, in one guarded transaction."""
        with writing() as session:
            self._pulse.renew(session)
            mine = (col(DriveCopy.job_id) == self._job_id, col(DriveCopy.drive_number) == self._number)
            session.connection().execute(
                update(DriveCopy)
                .where(*mine)
                .values(
                    blobs_done=self._done,
                    blocks_staged=self._staged,
                    bytes_committed=self._bytes,
                    planned=[asdict(plan) for plan in self._plans],
                    staging_containers=self._staging_containers,
                )
            )
            session.connection().execute(
                update(Drive)
                .where(col(Drive.job_id) == self._job_id, col(Drive.number) == self._number)
                .values(bytes_succeeded=self._bytes + self._staged_bytes)
            )
            for report in self._reports:
                session.merge(report)
        self._reports = []
        self._last_record = time.monotonic()

    def _between_blocks(self) -> None:
        """Hear of a cancel, say that we are alive, and once a second how far we are."""
        self._pulse.beat()
        if time.monotonic() - self._last_record >= _RECORD_SECONDS:
            self._record()

    # -- names -----------------------------------------------------------------------------------------

    def _settle(self, batch: Sequence[Blob]) -> list[_Plan]:
        plans: list[_Plan] = []
        taken: set[str] = set()
        for blob in batch:
            self._between_blocks()
            plan = self._settle_one(blob, taken)
            taken.add(plan.path)
            plans.append(plan)
            container = split_blob_path(plan.path)[0]
            if container not in self._staging_containers:
                self._staging_containers.append(container)
        return plans

    def _settle_one(self, blob: Blob, taken: set[str]) -> _Plan:
        if not self._is_taken(blob.blob_path, taken):
            return _Plan(blob.blob_path, DispositionStatus.CREATED)
        if blob.disposition is ImportDisposition.NO_OVERWRITE:
            return _Plan(blob.blob_path, DispositionStatus.SKIPPED)
        if blob.disposition is ImportDisposition.OVERWRITE:
            return _Plan(blob.blob_path, DispositionStatus.OVERWRITTEN)
        for path in islice(_other_names(blob.blob_path), _RENAMES_MAX):
            if not self._is_taken(path, taken):
                return _Plan(path, DispositionStatus.RENAMED)
        # Copying it then fails, since the name is taken, and is told as RenameFailed.
        return _Plan(blob.blob_path, DispositionStatus.RENAMED)

    def _is_taken(self, path: str, taken: set[str]) -> bool:
        if path in taken:
            return True
        container, name = split_blob_path(path)
        try:
            return self._container(container).exists(name)
        except StoreError:
            self._require_store(container, 0)
            # The store answers, so it is this name that it cannot hold; copying tells so.
            return False

    def _container(self, name: str) -> Container:
        if name not in self._containers:
            self._containers[name] = Container(self._store_address, name)
        return self._containers[name]

    def _require_store(self, container: str, length: int) -> None:
        """Tell a store that does not answer, or is full, from one that refuses a single blob of this length.

        Raises:
            StoreError: it does not take as much under another name either.
        """
        probe = f"{self._job_id}/{self._number}/probe"
        self._container(container).stage_block(probe, 0, bytes(min(length, BLOCK_BYTES_MAX)))
        self._container(container).discard(probe)

    # -- one blob --------------------------------------------------------------------------------------

    def _copy_blob(self, blob: Blob, *, inherited: bool) -> None:
        self._between_blocks()
        try:
            if self._write(blob, inherited=inherited):
                self._bytes += blob.length
            self._report(blob, self._plans[0].status, BlobStatus.COMPLETED)
        except _BlobFailedError as failure:
            self._report(blob, DispositionStatus.CANCELLED, failure.status, failure.blocks)
        except CopyCancelledError:
            if self._staged:
                self._report(blob, DispositionStatus.CANCELLED, BlobStatus.FAILED)
            raise
        self._done += 1
        self._staged = self._staged_bytes = 0
        del self._plans[0]

    def _write(self, blob: Blob, *, inherited: bool) -> bool:
        """Bring a blob into the store under the name settled for it; False if it was to be skipped."""
        container, name = split_blob_path(self._plans[0].path)
        if blob.is_page_blob:
            raise _BlobFailedError(BlobStatus.FAILED)
        if name.partition("/")[0] == STAGING:
            raise _BlobFailedError(BlobStatus.FILE_NAME_INVALID)
        if self._plans[0].status is DispositionStatus.SKIPPED:
            return False
        try:
            if inherited and self._container(container).holds(name, self._as_listed(blob)):
                # The run before was cut between its last byte and its record.
                self._container(container).discard(self._staging)
                return True
            with self._open(blob) as file:
                return self._write_file(blob, file)
        except StoreError:
            self._require_store(container, blob.length)
            raise _BlobFailedError(BlobStatus.BLOB_REQUEST_FAILED) from None

    def _write_file(self, blob: Blob, file: BinaryIO) -> bool:
        try:
            self._write_blocks(blob, file)
        except BlobExistsError:
            # Somebody took the name after it was settled: settle anew, write it down, and write.
            self._plans[0] = self._settle_one(blob, {plan.path for plan in self._plans})
            self._record()
            if self._plans[0].status is DispositionStatus.SKIPPED:
                self._container(split_blob_path(blob.blob_path)[0]).discard(self._staging)
                return False
            try:
                self._write_blocks(blob, file)
            except BlobExistsError:
                raise _BlobFailedError(BlobStatus.RENAME_FAILED) from None
        return True

    def _as_listed(self, blob: Blob) -> Iterator[tuple[int, int, str]]:
        for block in blob.blocks:
            self._between_blocks()
            yield block.offset, block.length, block.hash

    @property
    def _staging(self) -> str:
        return f"{self._job_id}/{self._number}/{self._done}"

    def _write_blocks(self, blob: Blob, file: BinaryIO) -> None:
        container_name, name = split_blob_path(self._plans[0].path)
        container, overwrite = self._container(container_name), self._plans[0].overwrites
        if len(blob.blocks) <= 1:
            data = _read_block(file, blob, 0) if blob.blocks else b""
            container.put(name, data, f"{self._staging}-{self._pulse.token}", overwrite=overwrite)
            return
        for index in range(self._staged, len(blob.blocks)):
            self._between_blocks()
            container.stage_block(self._staging, index, _read_block(file, blob, index))
            self._staged = index + 1
            self._staged_bytes = blob.blocks[index].offset + blob.blocks[index].length
        container.commit_blocks(
            self._staging,
            self._pulse.token,
            len(blob.blocks),
            name,
            overwrite=overwrite,
            between_blocks=self._between_blocks,
        )
        container.discard(self._staging)

    def _open(self, blob: Blob) -> BinaryIO:
        """Open a file of the drive; nothing outside of it is ever read."""
        try:
            file = find_file(self._folder, blob.file_path)
            if file.stat().st_size > blob.length:
                raise _BlobFailedError(BlobStatus.FAILED)
            return file.open("rb")
        except FileNotFoundError:
            if not self._folder.is_dir():
                raise DriveError("DiskNotFound", "the drive was taken out of the bay during its copy") from None
            raise _BlobFailedError(BlobStatus.FILE_NOT_FOUND) from None
        except PermissionError:
            raise _BlobFailedError(BlobStatus.FILE_ACCESS_DENIED) from None
        except OSError:
            raise _BlobFailedError(BlobStatus.IO_FAILED) from None

    # -- what is told ----------------------------------------------------------------------------------

    def _report(
        self,
        blob: Blob,
        disposition: DispositionStatus,
        status: BlobStatus,
        blocks: Sequence[tuple[Block, BlockStatus]] = (),
    ) -> None:
        # Metadata and properties of blobs are not written yet, and the customer is told so.
        attached = (
            AttachedStatus.FAILED if disposition is not DispositionStatus.SKIPPED else AttachedStatus.CANCELLED
        )
        report = BlobReport(
            job_id=self._job_id,
            drive_number=self._number,
            blob_number=self._done,
            blob_path=blob.blob_path if disposition is DispositionStatus.CANCELLED else self._plans[0].path,
            file_path=blob.file_path,
            length=blob.length,
            disposition=blob.disposition,
            status=status,
            disposition_status=disposition,
            blocks=[
                {"offset": block.offset, "length": block.length, "hash": block.hash, "status": told}
                for block, told in blocks
            ],
            metadata_status=attached if blob.metadata else None,
            properties_status=attached if blob.properties else None,
        )
        if not report.logged().went_well:
            self._reports.append(report)


def _other_names(path: str) -> Iterator[str]:
    """Make `Seattle (2).jpg`, `Seattle (3).jpg` … of `Seattle.jpg`."""
    folder, slash, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    return (f"{folder}{slash}{stem} ({count}){dot}{extension}" for count in range(2, _RENAMES_MAX + 2))


def _read_block(file: BinaryIO, blob: Blob, index: int) -> bytes:
    """Read one block and check it against the manifest, before it counts."""
    block = blob.blocks[index]
    try:
        file.seek(block.offset)
        data = file.read(block.length)
    except OSError:
        raise _failed_block(blob, index, BlockStatus.IO_FAILED, BlobStatus.IO_FAILED) from None
    if len(data) < block.length:
        raise _failed_block(blob, index, BlockStatus.FILE_UNEXPECTED_END, BlobStatus.COMPLETED_WITH_ERRORS)
    if hashlib.md5(data, usedforsecurity=False).hexdigest().upper() != block.hash:
        raise _failed_block(blob, index, BlockStatus.CORRUPTED, BlobStatus.COMPLETED_WITH_ERRORS)
    return data


def _failed_block(blob: Blob, index: int, told: BlockStatus, status: BlobStatus) -> _BlobFailedError:
    """The bad block by its status; the others were not written, or laid aside and not committed."""
    return _BlobFailedError(
        status,
        [(block, told if at == index else BlockStatus.UNCOMMITTED) for at, block in enumerate(blob.blocks)],
    )
