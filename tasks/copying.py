"""The copy of one drive from its manifest to its logs; `tasks.blobs` copies the blobs in between."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from heapq import merge
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final
from uuid import UUID

from sqlmodel import Session

from models.blob_facts import BlobFacts
from models.copies import BlobReport, DriveCopy, drive_status_of, reports_of
from models.copy_logs import DriveStatus, LoggedBlob, LogKind, copy_log_name, error_entries, write_copy_log
from models.database import database_time, reading, writing
from models.drive_files import find_file
from models.drives import Drive, move_drive, serial
from models.errors import BayError, CancelAcceptedError, DriveError, ManifestError, StoreError
from models.jobs import Job, LogLevel, move, read_job
from models.lifecycle import Actor, DriveState, JobState, JobType, Operation
from models.manifest_reader import ManifestSummary, check_manifest
from models.manifests import SupportsWrite, split_blob_path
from tasks.blob_files import DriveFiles
from tasks.blob_reports import every_blob
from tasks.blobs import BlobCopier
from tasks.containers import Account, open_container
from tasks.cut_copies import Rest
from tasks.mounts import mounted_in
from tasks.plans import Plan
from tasks.progress import Progress
from tasks.pulse import CopyCancelledError, Pulse, open_pulsing
from tasks.stores import BlobWriter, NameRefusedError, StoreBusyError

_PIECE_BYTES: Final = 2**20
_REPORTS: Final = 256
_XML: Final = "application/xml"


@dataclass(frozen=True, slots=True)
class DriveCopying:
    """The copy of one drive by one run.

    Attributes:
        job_id: the job.
        number: the drive's number in it.
        store_address: the storage account's store, with `{container}` open.
        pulse: of the run that copies; None where the copy has stopped and only its end is written.
    """

    job_id: UUID
    number: int
    store_address: str
    pulse: Pulse | None

    @contextmanager
    def _guarded(self) -> Iterator[tuple[Session, Drive]]:
        """Open one transaction that is undone if the lease was lost."""
        with writing() as session:
            if self.pulse is not None:
                self.pulse.renew(session)
            yield session, session.get_one(Drive, (self.job_id, self.number), with_for_update=True)

    def copy(self, bay: Path) -> bool:
        """Copy the drive from where an earlier run came to; False if a cancel was heard.

        Raises:
            LeaseLostError: another run copies the job now.
            StoreError: the store does not answer.
        """
        if self.pulse is None:
            raise ValueError("a copy needs a pulse")
        try:
            manifest, folder = self._find_manifest(bay)
            with Progress(self.job_id) as progress, _opened(manifest, self.pulse.beat) as stream:
                bytes_total = self._require_manifest(stream).bytes_total
                self._begin(bytes_total)
                self._back_up(stream)
                stream.seek(0)

                def tell(bytes_done: int) -> None:
                    progress.tell(bytes_done, bytes_total, self.number)

                with reading() as session:
                    unchanged = _Unchanged(
                        stream, session.get_one(Drive, (self.job_id, self.number)).manifest_hash
                    )
                BlobCopier(
                    self.job_id, self.number, folder, self.store_address, self.pulse, self._log_place[0], tell
                ).copy(unchanged)
                stream.seek(0)
                self._log_verbosely(every_blob(stream, self._reports()))
            self.finish()
        except CopyCancelledError:
            return False
        except DriveError as error:
            self.fail(DriveStatus(error.status), bay)
        return True

    def fail(self, status: DriveStatus, bay: Path | None = None) -> None:
        """End a drive that cannot be copied, or no further; `bay` as of `finish`."""
        self._begin(None)
        self.finish(status, bay=bay)

    # -- the manifest ----------------------------------------------------------------------------------

    def _find_manifest(self, bay: Path) -> tuple[Path, Path]:
        with reading() as session:
            drive = session.get_one(Drive, (self.job_id, self.number))
        folder = mounted_in(bay).get(serial(drive.drive_id))
        if folder is None:
            raise DriveError("DiskNotFound", "the drive is not in the bay")
        try:
            return find_file(folder, drive.manifest_file), folder
        except PermissionError:
            raise ManifestError("ManifestAccessDenied", "the drive's manifest cannot be read") from None
        except OSError:
            raise ManifestError("ManifestNotFound", "the drive has no manifest where its job says") from None

    def _require_manifest(self, stream: BufferedReader) -> ManifestSummary:
        drive_id = self._require_named(stream)
        summary = check_manifest(stream)
        if serial(summary.drive_id) != serial(drive_id):
            raise ManifestError("ManifestDriveIdMismatch", "the drive's manifest is another drive's")
        return summary

    def _require_named(self, stream: BufferedReader) -> str:
        """Compare a manifest with the hash that its job names; gives the drive's serial number."""
        with reading() as session:
            drive = session.get_one(Drive, (self.job_id, self.number))
        try:
            digest = hashlib.file_digest(stream, lambda: _hash_like(drive.manifest_hash)).hexdigest()
        except OSError:
            raise ManifestError("ManifestAccessDenied", "the drive's manifest cannot be read") from None
        if digest.upper() != drive.manifest_hash.upper():
            raise _not_as_named()
        stream.seek(0)
        return drive.drive_id

    def _reopened(self, bay: Path | None) -> tuple[BufferedReader, Path] | None:
        """Open the manifest of an import that ends before its time; None where it is not to be had any more."""
        with reading() as session:
            is_import = session.get_one(Job, self.job_id).job_type is JobType.IMPORT
        if bay is None or not is_import:
            return None
        with suppress(DriveError, BayError), ExitStack() as opened:
            manifest, folder = self._find_manifest(bay)
            # Who ends a drive hears of no cancel: it ends.
            beat = (lambda: None) if self.pulse is None else self.pulse.keep
            stream = opened.enter_context(_opened(manifest, beat))
            self._require_named(stream)
            opened.pop_all()
            return stream, folder
        return None

    # -- its beginning and its end ---------------------------------------------------------------------

    def _begin(self, bytes_total: int | None) -> None:
        """Make the drive Transferring, and its job; harmless when they are.

        Raises:
            CancelAcceptedError: a cancel came before the drive was begun; it stays as it is.
        """
        with self._guarded() as (session, drive):
            now = database_time(session)
            job = read_job(session, self.job_id, lock=True)
            if job.cancel_requested and drive.state is DriveState.RECEIVED:
                raise CancelAcceptedError(Operation.COPY)
            if job.state is JobState.RECEIVED:
                move(session, job, JobState.TRANSFERRING, at=now, by=Actor.SERVICE)
            if drive.state is DriveState.RECEIVED:
                move_drive(session, drive, DriveState.TRANSFERRING, at=now, by=Actor.SERVICE)
            if session.get(DriveCopy, (self.job_id, self.number)) is None:
                session.add(DriveCopy(job_id=self.job_id, drive_number=self.number, started_at=now))
            if bytes_total is not None:
                drive.bytes_total = bytes_total
                session.add(drive)

    def finish(
        self, status: DriveStatus | None = None, *, bay: Path | None = None, without_store: bool = False
    ) -> None:
        """Discard what is half written, write the drive's logs and let it be over; harmless when it is.

        Args:
            status: how its copy ended; by default as its blobs did.
            bay: of an import that ends before its time; there its manifest says what is in the store of which no
                run spoke any more. Where it is not to be had, that is not counted, and there is no verbose log.
            without_store: the store was tried and does not answer; then what lies aside there stays, under
                names that no blob of the customer has, and there is no log.

        Raises:
            StoreError: the store does not answer.
        """
        with reading() as session:
            drive = session.get_one(Drive, (self.job_id, self.number))
            begun = session.get_one(DriveCopy, (self.job_id, self.number))
            told = status or drive_status_of(session, self.job_id, self.number)
        if drive.state is not DriveState.TRANSFERRING:
            return
        uri, rest = None, Rest(self.job_id, self.number)
        if not without_store:
            with ExitStack() as opened:
                if found := self._reopened(bay):
                    opened.enter_context(found[0])
                    rest = self._settle_rest(begun, *found)
                self._discard(begun)
                logged = error_entries(report.logged() for report in self._reports(rest.reports))
                uri = self._put_log("error", lambda file: write_copy_log(file, drive.drive_id, logged, told))
                if found and drive.verbose_log_uri is None:
                    found[0].seek(0)
                    blobs_max = begun.blobs_done + len(rest.plans)
                    blobs = every_blob(found[0], self._reports(rest.reports), blobs_max, rest.untold)
                    self._log_verbosely(blobs, told)
        target = DriveState.COMPLETED if told is DriveStatus.COMPLETED else DriveState.COMPLETED_MORE_INFO
        with self._guarded() as (session, drive):
            if drive.state is not DriveState.TRANSFERRING:
                return
            move_drive(session, drive, target, at=database_time(session), by=Actor.SERVICE)
            drive.copy_status = told
            drive.error_log_uri = uri
            drive.bytes_succeeded = begun.bytes_committed + rest.bytes_committed
            session.add(drive)
            for report in rest.reports:
                session.merge(report)

    def _settle_rest(self, begun: DriveCopy, manifest: BufferedReader, folder: Path) -> Rest:
        rest = Rest(self.job_id, self.number, begun.blobs_done, [Plan.of(entry) for entry in begun.planned])
        if not all(plan.over for plan in rest.plans):
            rest.settle(manifest, Account(self.store_address), DriveFiles(folder))
        return rest

    def _discard(self, begun: DriveCopy) -> None:
        """Remove whatever is not whole."""
        for plan in map(Plan.of, begun.planned):
            if plan.upload:
                container, name = split_blob_path(plan.path)
                open_container(self.store_address, container).drop(name, plan.upload)
        for name in begun.staging_containers:
            with suppress(NameRefusedError):  # of one that can be no container nothing lies anywhere
                open_container(self.store_address, name).discard(f"{self.job_id}/{self.number}")

    def _reports(self, others: Sequence[BlobReport] = ()) -> Iterator[BlobReport]:
        """Give what is to be said of the drive's blobs, in their order; `others` are not written down yet."""
        return merge(self._reports_written(), others, key=lambda report: report.blob_number)

    def _reports_written(self) -> Iterator[BlobReport]:
        """Read them, holding a few at a time."""
        last = -1
        while True:
            with reading() as session:
                reports = reports_of(session, self.job_id, self.number, after=last, rows_max=_REPORTS)
            yield from reports
            if len(reports) < _REPORTS:
                return
            last = reports[-1].blob_number

    # -- what the customer can read afterwards ---------------------------------------------------------

    def _put_log(self, kind: LogKind, write: Callable[[SupportsWrite], object]) -> str | None:
        """Write a log, or the manifest's copy, into the customer's storage account; tell where it is.

        None where the store refuses this one name: a job whose log cannot be kept must end all the same.

        Raises:
            StoreError: the store does not answer.
        """
        with reading() as session:
            job = session.get_one(Job, self.job_id)
            drive = session.get_one(Drive, (self.job_id, self.number))
            begun = session.get_one(DriveCopy, (self.job_id, self.number))
        container_name, folder = self._log_place
        path = copy_log_name(job.name, drive.drive_id, begun.started_at, kind)
        path = f"{folder}/{path}" if folder else path
        aside = f"{self.job_id}/{self.number}/{kind}"
        try:
            container = open_container(self.store_address, container_name)
        except NameRefusedError:
            return None
        # Not by way of a temporary file: that would hold the drive's serial number on our disk.
        blob = BlobWriter(container, path, aside, BlobFacts(content_type=_XML))
        try:
            write(blob)
            blob.finish()
        except StoreError as error:
            blob.abandon()
            if isinstance(error, StoreBusyError):
                raise
            container.probe(aside, 0)
            return None
        except BaseException:
            blob.abandon()
            raise
        finally:
            container.discard(aside)
        return container.uri(path)

    @property
    def _log_place(self) -> tuple[str, str]:
        """Container and folder of the job's logs."""
        with reading() as session:
            path = session.get_one(Job, self.job_id).diagnostics_path
        container, _, folder = path.strip("/").partition("/")
        return container, folder

    def _back_up(self, manifest: BinaryIO) -> None:
        with reading() as session:
            if not session.get_one(Job, self.job_id).backup_drive_manifest:
                return
        manifest.seek(0)

        def copy(file: SupportsWrite) -> None:
            while piece := manifest.read(_PIECE_BYTES):
                file.write(piece)

        uri = self._put_log("manifest", copy)
        with self._guarded() as (session, drive):
            drive.manifest_uri = uri
            session.add(drive)

    def _log_verbosely(self, blobs: Iterator[LoggedBlob], status: DriveStatus | None = None) -> None:
        """Write a log of all blobs, where the job asks for one; `status` as of `finish`."""
        with reading() as session:
            job = session.get_one(Job, self.job_id)
            drive = session.get_one(Drive, (self.job_id, self.number))
            told = status or drive_status_of(session, self.job_id, self.number)
        if job.log_level is not LogLevel.VERBOSE:
            return
        uri = self._put_log("verbose", lambda file: write_copy_log(file, drive.drive_id, blobs, told))
        with self._guarded() as (session, drive):
            drive.verbose_log_uri = uri
            session.add(drive)


class _Unchanged:
    """A manifest that is read again: it ends only if it still is the one that its job names."""

    def __init__(self, stream: BinaryIO, manifest_hash: str) -> None:
        self._stream = stream
        self._hash = _hash_like(manifest_hash)
        self._named = manifest_hash.upper()

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        if not data and self._hash.hexdigest().upper() != self._named:
            raise _not_as_named()
        return data


def _hash_like(manifest_hash: str) -> "hashlib._Hash":
    # The description says MD5; its own examples show 64 digits, which are SHA-256.
    return hashlib.new("md5" if len(manifest_hash) == 32 else "sha256", usedforsecurity=False)


def _not_as_named() -> ManifestError:
    return ManifestError("ManifestCorrupted", "the drive's manifest is not the one that its job names")


def _opened(manifest: Path, beat: Callable[[], None]) -> BufferedReader:
    try:
        return open_pulsing(manifest, beat)
    except OSError:
        raise ManifestError("ManifestAccessDenied", "the drive's manifest cannot be read") from None
