"""The export to one drive, from the job's list to the drive's manifest and logs; and the acts of an export."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlalchemy import delete
from sqlmodel import Session, col, select

from models.blob_facts import BlobFacts
from models.blob_lists import incomplete_list_name, select_blobs, write_blob_list
from models.copies import BlobReport, DriveCopy
from models.copy_logs import BlobStatus, DriveStatus, LoggedBlob
from models.database import reading, writing
from models.drives import WITHOUT_ERRORS, Drive, drives_of, serial
from models.errors import DriveError, StoreError
from models.jobs import Job, read_job
from models.lifecycle import DriveState
from models.manifests import ManifestWriter
from tasks.acts import act
from tasks.containers import Account, open_container
from tasks.copying import DriveCopying
from tasks.export_filling import DriveFilling, Filled, Room, plan_drive
from tasks.export_journal import (
    MANIFEST,
    WORKING,
    Entry,
    ExportJournal,
    discard_working_folder,
    tidy_up,
    told_of,
)
from tasks.export_listing import Listing, read_selection
from tasks.mounts import mounted_in
from tasks.progress import Progress
from tasks.pulse import CopyCancelledError, CopyLimits, Pulse, open_pulsing
from tasks.stores import BlobWriter, NameRefusedError

_CREATOR: Final = "Drivepost"
_ROWS: Final = 256
_COPIED: Final = WITHOUT_ERRORS | {DriveStatus.COMPLETED_WITH_ERRORS}
_TOLD: Final = "status <> 'Completed'"


@dataclass(frozen=True, slots=True)
class DriveExporting(DriveCopying):
    """The export to one drive by one run; attributes as of an import."""

    def copy(self, bay: Path) -> bool:
        """Fill the drive from where an earlier run came to; False if a cancel was heard.

        Raises:
            LeaseLostError: another run copies the job now.
            StoreError: the store does not answer, or an earlier run's process still holds on to the drive.
        """
        if self.pulse is None:
            raise ValueError("a copy needs a pulse")
        folder = mounted_in(bay).get(serial(self._drive().drive_id))
        if folder is None:
            self.fail(DriveStatus.DISK_NOT_FOUND)
            return True
        try:
            self._begin(None)
            # With its manifest's hash in the row all was done but to tidy up.
            if not self._drive().manifest_hash:
                with closing(ExportJournal(folder, f"{self.job_id}-{self.number}")) as journal:
                    self._export(journal, folder, bay, self.pulse)
            discard_working_folder(folder)
            self.finish()
        except CopyCancelledError:
            tidy_up(folder)
            return False
        except DriveError as error:
            tidy_up(folder)
            self.fail(DriveStatus(error.status))
        return True

    def _drive(self) -> Drive:
        with reading() as session:
            return session.get_one(Drive, (self.job_id, self.number))

    def _export(self, journal: ExportJournal, folder: Path, bay: Path, pulse: Pulse) -> None:
        filled = Filled(self.job_id, self.number, journal, self._later(bay))
        if not journal.is_planned:
            self._plan(filled, folder, pulse)
        with Progress(self.job_id) as progress:

            def tell(bytes_done: int, bytes_total: int) -> None:
                progress.tell(bytes_done, bytes_total, self.number)

            try:
                DriveFilling(filled, folder, Account(self.store_address), pulse, tell).fill()
            except CopyCancelledError:
                self._report(journal)
                raise
        self._report(journal)
        digest = self._write_manifest(journal, folder, pulse)
        with open_pulsing(folder / MANIFEST, pulse.beat) as manifest:
            self._back_up(manifest)
        self._log_verbosely(_every_blob(journal, pulse))
        with self._guarded() as (session, drive):
            drive.manifest_file = f"\\{MANIFEST}"
            drive.manifest_hash = digest
            session.add(drive)

    # -- what goes to this drive -----------------------------------------------------------------------

    def _plan(self, filled: Filled, folder: Path, pulse: Pulse) -> None:
        with reading() as session:
            job = session.get_one(Job, self.job_id)
            last = _last_seen_to(session, self.job_id)
        plan_drive(filled, _listing(job, self.store_address, pulse).after(last), Room.on(folder))

    def _later(self, bay: Path) -> list[Room]:
        """Look at the drives that were not begun; those that were have plans of their own."""
        with reading() as session:
            waiting = [
                serial(drive.drive_id)
                for drive in drives_of(session, self.job_id)
                if drive.number != self.number and drive.state is DriveState.RECEIVED
            ]
        mounted = mounted_in(bay)
        later = []
        for name in waiting:
            # What is wrong with another drive ends that one, when its turn comes.
            with suppress(DriveError, KeyError):
                later.append(Room.on(mounted[name]))
        return later

    # -- what is told of it ----------------------------------------------------------------------------

    def _report(self, journal: ExportJournal) -> None:
        """Write down what is to be said of the blobs that did not simply go well; harmless when it was."""
        entries = journal.entries(_TOLD)
        while batch := list(islice(entries, _ROWS)):
            with self._guarded() as (session, _):
                numbers = [entry.number for entry in batch]
                session.connection().execute(
                    delete(BlobReport).where(
                        col(BlobReport.job_id) == self.job_id,
                        col(BlobReport.drive_number) == self.number,
                        col(BlobReport.blob_number).in_(numbers),
                    )
                )
                session.add_all(self._reported(entry) for entry in batch)

    def _reported(self, entry: Entry) -> BlobReport:
        told = entry.logged()
        return BlobReport(
            job_id=self.job_id,
            drive_number=self.number,
            blob_number=entry.number,
            blob_path=entry.path,
            file_path=entry.file,
            length=told.length,
            status=told.status,
            metadata_status=told.metadata_status,
            properties_status=told.properties_status,
            is_page_blob=told.is_page_blob,
            last_modified=told.last_modified,
        )

    def _write_manifest(self, journal: ExportJournal, folder: Path, pulse: Pulse) -> str:
        """Write the drive's manifest, all at once, and tell its upper-case MD5."""
        laid = folder / WORKING / "manifest"
        with told_of(folder):
            with (
                laid.open("w+b") as stream,
                ManifestWriter(stream, drive_id=self._drive().drive_id, client_creator=_CREATOR) as writer,
            ):
                for entry in journal.entries("written IS NOT NULL"):
                    pulse.beat()
                    writer.add(entry.blob())
            digest = _sealed(laid)
            pulse.beat()
            laid.replace(folder / MANIFEST)
            _to_disk(folder)
        return digest


def _every_blob(journal: ExportJournal, pulse: Pulse) -> Iterator[LoggedBlob]:
    for entry in journal.entries():
        pulse.beat()
        yield entry.logged()


def _listing(job: Job, store_address: str, pulse: Pulse) -> Listing:
    account = Account(store_address)
    if job.export_blob_list_blob_path is None:
        selection = select_blobs(job.export_blob_paths, job.export_blob_path_prefixes)
    else:
        selection = read_selection(job.export_blob_list_blob_path, account, pulse.beat)
    return Listing(selection, account, pulse.beat)


def _last_seen_to(session: Session, job_id: UUID) -> str | None:
    """Find the last blob of the job's list that a drive saw to; one that failed saw to none."""
    copied = [drive.number for drive in drives_of(session, job_id) if drive.copy_status in _COPIED]
    # By time: a drive may turn up after those that come behind it were copied.
    begun = sorted((session.get_one(DriveCopy, (job_id, number)) for number in copied), key=_started_at)
    return next((str(each.planned[0]["path"]) for each in reversed(begun) if each.planned), None)


def _started_at(begun: DriveCopy) -> datetime:
    return begun.started_at


def _sealed(file: Path) -> str:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        os.fsync(stream.fileno())
    return digest.upper()


def _to_disk(folder: Path) -> None:
    """Bring the names of all files to the disk, with the last of them: the drive is taken out soon."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@act
def export_drive(job_id: UUID, number: int, token: int, bay: Path, store_address: str, limits: CopyLimits) -> bool:
    """Fill one drive, from where an earlier run came to; its manifest and logs are written when it is over.

    A drive for which no blob is left gets a manifest that lists none. What is wrong with this drive alone ends it
    as CompletedMoreInfo, and its log says so.

    Returns:
        Whether it is over; False when a cancel was heard.

    Raises:
        LeaseLostError: another run copies the job now.
        StoreError: the store does not answer.
    """
    return DriveExporting(job_id, number, store_address, Pulse(job_id, token, limits)).copy(bay)


@act
def list_what_fits_nowhere(job_id: UUID, token: int, store_address: str, limits: CopyLimits) -> bool:
    """Name the blobs for which no drive had room in a list blob, which a next job can take; none where all fit.

    Where a drive failed, those are named too that it would have taken and no other drive did.

    Returns:
        Whether it is done; False when a cancel was heard.

    Raises:
        LeaseLostError: another run copies the job now.
        StoreError: the store does not answer.
    """
    try:
        _list_what_fits_nowhere(job_id, Pulse(job_id, token, limits), store_address)
    except CopyCancelledError:
        return False
    return True


def _list_what_fits_nowhere(job_id: UUID, pulse: Pulse, store_address: str) -> None:
    with reading() as session:
        job = read_job(session, job_id)
        drives = drives_of(session, job_id)
        begun = [session.get(DriveCopy, (job_id, drive.number)) for drive in drives]
        last = _last_seen_to(session, job_id)
    copied = [drive.number for drive in drives if drive.copy_status in _COPIED]
    paths = _left_out(job_id, copied, pulse.beat)
    if any(each is not None and each.drive_number not in copied for each in begun):
        paths = chain(paths, _seen_to_by_none(job, store_address, pulse, last))
    first = next(paths, None)
    if first is None:
        return
    container_name, _, folder = job.diagnostics_path.strip("/").partition("/")
    path = incomplete_list_name(job.name, min(each.started_at for each in begun if each is not None))
    path = f"{folder}/{path}" if folder else path
    container = open_container(store_address, container_name)
    aside = f"{job_id}/incomplete-{pulse.token}"
    blob = BlobWriter(container, path, aside, BlobFacts(content_type="application/xml"))
    try:
        write_blob_list(blob, chain([first], paths))
        blob.finish()
    except NameRefusedError:
        # A job whose list cannot be kept must end all the same, as one whose logs cannot.
        return
    except (StoreError, CopyCancelledError):
        blob.abandon()
        raise
    finally:
        container.discard(str(job_id))
    with writing() as session:
        pulse.renew(session)
        job = read_job(session, job_id, lock=True)
        job.incomplete_blob_list_uri = container.uri(path)
        session.add(job)


def _seen_to_by_none(job: Job, store_address: str, pulse: Pulse, last: str | None) -> Iterator[str]:
    # A list blob that cannot be read was told of in each drive's log.
    with suppress(DriveError):
        listing = _listing(job, store_address, pulse)
        yield from (found.path for found in listing.after(last) if found.status is None)


def _left_out(job_id: UUID, numbers: list[int], between: Callable[[], None]) -> Iterator[str]:
    for number in numbers:
        last = -1
        while True:
            between()
            with reading() as session:
                rows = session.exec(
                    select(BlobReport.blob_number, BlobReport.blob_path)
                    .where(
                        col(BlobReport.job_id) == job_id,
                        col(BlobReport.drive_number) == number,
                        col(BlobReport.blob_number) > last,
                        col(BlobReport.status) == BlobStatus.FAILED,
                        col(BlobReport.file_path) == "",
                    )
                    .order_by(col(BlobReport.blob_number))
                    .limit(_ROWS)
                ).all()
            yield from (row[1] for row in rows)
            if len(rows) < _ROWS:
                break
            last = rows[-1][0]
