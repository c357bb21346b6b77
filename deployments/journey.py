"""The jobs of the tour, and what is looked at on their way."""

import hashlib
import json
import shutil
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from rich.console import Console
from sqlalchemy import Table, func
from sqlmodel import SQLModel, select

from deployments.posted_files import PreparedDrive
from deployments.prepare_drive import File, container_name, files_below, prepare_drive
from deployments.travel import (
    ACCOUNT,
    CARRIER_ACCOUNT,
    PERSON,
    SERIALS,
    TRACKING,
    Traveller,
    address,
    package,
    require,
)
from flows.advance_jobs import advance_jobs
from flows.cancel_job import cancel_job
from flows.check_in_drives import check_in_drives
from flows.delete_job import delete_job
from flows.enforce_retention import enforce_retention
from flows.find_traces import search_for
from flows.import_drives import import_drives
from flows.return_drives import return_drives
from flows.ship_job import ship_job
from models.copy_logs import DriveStatus, read_copy_log
from models.database import database_time, reading, writing
from models.drives import drives_of
from models.errors import DrivepostError, RequestError
from models.jobs import read_job, request_cancel
from models.lifecycle import Actor, DriveState, JobState
from models.receipts import verify_receipts
from models.runs import runs_to_forget
from models.tables import upgrade

_NOT_POSTED: Final = frozenset({"__pycache__", "site-packages"})
_ENOUGH_BYTES: Final = 64 * 2**20
_BALLAST_BYTES: Final = 256 * 2**20
_WAIT_SECONDS: Final = 30.0


class Journey(Traveller):
    """The whole tour: its jobs one after the other, and what was seen.

    Args:
        console: takes progress and one line per promise.
        posted: the files that go on the drives.
    """

    def __init__(self, console: Console, posted: Sequence[File]) -> None:
        super().__init__(console)
        self._posted = posted

    def make(self) -> None:
        """Make the journey; a promise that is broken does not keep the others from being looked at."""
        upgrade(self._settings.database)
        for folder in (self._settings.bay, self._settings.intake):
            folder.mkdir(parents=True, exist_ok=True)
        # Heartbeats cost a second a run and tell nothing in a tour of a minute.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            self._whole_import()
            self._cancel_in_the_middle()
            self._lost_cancel()
            self._delete_in_creating()
            self._retention()
            self._nothing_is_left()

    # -- one job from its drives to its end ------------------------------------------------------------

    def _whole_import(self) -> None:
        with self._promise("drives are prepared with real manifests") as observed:
            prepared = self._prepare_two()
            files, size = sum(each.file_count for each in prepared), sum(each.bytes_total for each in prepared)
            self.figures |= {"files": files, "bytes": size}
            observed.append(f"{files:,} files, {size:,} bytes on 2 drives")
        with self._promise("a job comes from a request file, and the file is gone") as observed:
            job_id = self._create("whole", prepared, returnAddress=None)
            require(not list(self._settings.intake.glob("*.json")), "the request file is still there")
            observed.append(f"job {job_id}")
        with self._promise("a job does not ship without a return address") as observed:
            observed.append(self._refused(ship_job, job_id, "NotReadyToShip"))
            require(self._state(job_id) is JobState.CREATING, "it moved all the same")
        with self._promise("it ships once the address is given") as observed:
            self._put_in_intake("address.json", {"properties": {"returnAddress": address()}})
            observed.append(self._done(ship_job, job_id, request_file="address.json"))
            require(self._state(job_id) is JobState.SHIPPING, "it is not Shipping")
        with self._promise("a Shipping job cannot be deleted") as observed:
            observed.append(self._refused(delete_job, job_id, "JobStateConflict"))
            require(self._state(job_id) is JobState.SHIPPING, "it moved all the same")
        with self._promise("its drives are found in the bay") as observed:
            observed.append(self._done(check_in_drives, job_id))
            require(self._drive_states(job_id) == [DriveState.RECEIVED] * 2, "not both drives are Received")
        with self._promise("every drive is copied, block by block against its manifest") as observed:
            began = time.monotonic()
            with self._progress(job_id):
                observed.append(self._done(import_drives, job_id))
            self.figures["import_seconds"] = round(time.monotonic() - began, 2)
            observed.append(f"{self.figures['import_seconds']} s")
            require(self._state(job_id) is JobState.PACKAGING, "it is not Packaging")
        with self._promise("a Packaging job cannot be cancelled") as observed:
            observed.append(self._refused(cancel_job, job_id, "JobStateConflict"))
        with self._promise("it is Completed when its drives went back") as observed:
            self._put_in_intake("package.json", {"returnPackage": package()})
            observed.append(self._done(return_drives, job_id, request_file="package.json"))
            require(self._state(job_id) is JobState.COMPLETED, "it is not Completed")
            require(self._drive_states(job_id) == [DriveState.SHIPPED_BACK] * 2, "a drive did not go back")
            self._unmount(SERIALS[:2])
        with self._promise("the store holds the source, file by file, and its logs tell of no error") as observed:
            observed.append(self._compare("whole"))
            observed.append(self._logs(job_id))

    def _prepare_two(self) -> list[PreparedDrive]:
        # Large and small files evenly on both drives.
        by_size = sorted(self._posted, key=lambda file: file[0].stat().st_size)
        return [self._prepare(SERIALS[half], sorted(by_size[half::2]), "whole") for half in (0, 1)]

    def _prepare(self, serial: str, files: Sequence[File], container: str) -> PreparedDrive:
        drive = self._settings.bay / serial
        drive.mkdir(parents=True, exist_ok=True)
        size = sum(path.stat().st_size for path, _ in files)
        with self._bar(f"drive {serial[-1]} is prepared", size) as advance:
            return prepare_drive(files, drive, serial, container_name(container), on_file=advance)

    def _unmount(self, serials: Sequence[str]) -> None:
        for serial in serials:
            shutil.rmtree(self._settings.bay / serial)

    def _compare(self, container: str) -> str:
        stored = self._stored(container)
        source = {name: path for path, name in self._posted}
        require(stored.keys() == source.keys(), f"{len(stored.keys() ^ source.keys())} files are missing or extra")
        different = [name for name, path in source.items() if _digest(path) != _digest(stored[name])]
        require(not different, f"{len(different)} files differ")
        return f"{len(stored):,} of {len(source):,} files equal by SHA-256"

    def _stored(self, container: str) -> dict[str, Path]:
        root = self._settings.data_directory / "store" / ACCOUNT / container_name(container)
        return {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}

    def _logs(self, job_id: UUID) -> str:
        with reading() as session:
            uris = [drive.error_log_uri or "" for drive in drives_of(session, job_id)]
        logs = [Path(uri.removeprefix("file://")) for uri in uris]
        for log in logs:
            with log.open("rb") as stream:
                told = read_copy_log(stream)
            require(told.status is DriveStatus.COMPLETED, f"a copy log says {told.status}")
            require(not told.blobs, f"a copy log names {len(told.blobs)} blobs")
        return f"{len(logs)} copy logs say Completed"

    # -- cancelled in the middle of the copy -----------------------------------------------------------

    def _cancel_in_the_middle(self) -> None:
        with self._promise("a cancel in the middle of the copy ends in Completed") as observed:
            job_id = self._receive_third_drive()
            copy = threading.Thread(target=lambda: import_drives(str(job_id), return_state=True))
            with self._progress(job_id):
                copy.start()
                _wait_until(lambda: self._is_in_the_middle(job_id), "the copy did not get to its middle")
                observed.append(self._done(cancel_job, job_id))
                copy.join()
            require(self._state(job_id) is JobState.COMPLETED, "it is not Completed")
            copied, listed = self._copied(job_id)
            require(copied < listed, "the copy was over before it was cancelled")
        with self._promise("a cancelled copy stops at once, and leaves nothing half written") as observed:
            with reading() as session:
                job = read_job(session, job_id)
            accepted, ended = job.cancel_requested_at or job.state_since, job.state_since
            stored = self._stored("cancelled")
            late = [path for path in stored.values() if _written(path) > accepted]
            last = max((_written(path) for path in stored.values()), default=accepted)
            self.figures |= {
                "cancel_to_last_byte_seconds": round(max(0.0, (last - accepted).total_seconds()), 3),
                "cancel_to_last_byte_bytes": sum(path.stat().st_size for path in late),
                "cancel_to_completed_seconds": round((ended - accepted).total_seconds(), 3),
            }
            sources = {name: path for path, name in self._third}
            broken = [name for name, path in stored.items() if _digest(path) != _digest(sources[name])]
            require(not broken, f"{len(broken)} blobs are not whole")
            require(sum(path.stat().st_size for path in stored.values()) == copied, "the job tells another size")
            require(last <= ended, "something was written after the job was Completed")
            observed.append(
                f"{self.figures['cancel_to_last_byte_seconds']} s and "
                f"{self.figures['cancel_to_last_byte_bytes']:,} bytes from the accepted request to the last byte; "
                f"{len(stored):,} whole blobs stay, nothing else"
            )
        with self._promise("the drives of a cancelled job go back, and only they move") as observed:
            observed.append(self._done(return_drives, job_id))
            require(self._drive_states(job_id) == [DriveState.SHIPPED_BACK], "the drive did not go back")
            require(self._state(job_id) is JobState.COMPLETED, "the job moved")

    def _is_in_the_middle(self, job_id: UUID) -> bool:
        copied, listed = self._copied(job_id)
        return 0 < listed <= 4 * copied

    def _receive_third_drive(self) -> UUID:
        self._third = list(self._posted)
        if sum(path.stat().st_size for path, _ in self._third) < _ENOUGH_BYTES:
            # A copy that is over in a moment cannot be cancelled in the middle.
            ballast = self._settings.data_directory / "ballast.bin"
            with ballast.open("wb") as file:
                file.truncate(_BALLAST_BYTES)
            self._third.append((ballast, "ballast.bin"))
        prepared = [self._prepare(SERIALS[2], self._third, "cancelled")]
        job_id = self._create("cancelled", prepared)
        self._done(ship_job, job_id)
        self._done(check_in_drives, job_id)
        return job_id

    def _lost_cancel(self) -> None:
        with self._promise("an accepted cancel whose run was lost is carried out by advance-jobs") as observed:
            job_id = self._create("lost")
            self._done(ship_job, job_id)
            with writing() as session:
                request_cancel(session, job_id, at=database_time(session), by=Actor.CUSTOMER)
            state: Any = advance_jobs(return_state=True)
            observed.append(str(state.message))
            require(self._state(job_id) is JobState.COMPLETED, "it is not Completed")

    # -- deleted ---------------------------------------------------------------------------------------

    def _delete_in_creating(self) -> None:
        with self._promise("a job is deleted in Creating, and its name is free again") as observed:
            self._gone = [self._create("deleted")]
            observed.append(self._done(delete_job, self._gone[0], confirm=str(self._gone[0])))
            require(not self._exists(self._gone[0]), "it is still there")
            again = self._create("deleted")
            require(again != self._gone[0], "the new job is the old one")

    def _retention(self) -> None:
        with self._promise("a Completed job is kept until its 90 days are over") as observed:
            job_id = self._find("whole")
            # A few seconds short of its end, by the database's own clock; a slow machine gets more of them.
            for margin in (2, 5, 15):
                ends = self._age(job_id, JobState.COMPLETED, timedelta(seconds=margin))
                self._done(enforce_retention)
                left = (ends - self._now()).total_seconds()
                if left > 0:
                    break
            require(left > 0, "this machine is too slow to look before the time is over")
            require(self._exists(job_id), "it was deleted too early")
            observed.append(f"still there after a sweep more than {left:.1f} s before the end")
        with self._promise("it is deleted once they are") as observed:
            _wait_until(lambda: self._now() >= ends, "the time did not come")
            listed: Any = enforce_retention(dry_run=True, return_state=True)
            require(self._exists(job_id), "a dry run deleted it")
            observed.append(f"dry run: {listed.message}")
            observed.append(self._done(enforce_retention))
            require(not self._exists(job_id), "it is still there")
            self._gone.append(job_id)
        with self._promise(
            "a Creating job is deleted after 14 idle days, and not a cancelled one before 90"
        ) as observed:
            idle, cancelled = self._find("deleted"), self._find("cancelled")
            self._age(idle, JobState.CREATING, timedelta(0))
            observed.append(self._done(enforce_retention))
            require(not self._exists(idle), "the idle job is still there")
            require(self._exists(cancelled), "the cancelled job went with it")
            self._gone.append(idle)

    def _nothing_is_left(self) -> None:
        with self._promise("nothing of the deleted jobs can be read any more") as observed:
            # The runs that deleted them cannot delete themselves, and each is given time for its last words.
            _wait_until(self._is_forgotten, "their runs were not forgotten")
            tables = [
                table for table in SQLModel.metadata.sorted_tables if table.name == "job" or "job_id" in table.c
            ]
            rows = {table.name: self._rows_of_gone(table) for table in tables}
            left = {name: count for name, count in rows.items() if count}
            require(not left, f"rows are left: {left}")
            told = self._told_by_prefect()
            require(not told, f"Prefect still tells of them: {', '.join(told)}")
            observed.append(
                f"{len(self._gone)} jobs: no row in {len(rows)} tables, no run, log or artifact in Prefect"
            )
        with self._promise("each deletion left a receipt, and the receipts are as they were written") as observed:
            _wait_until(self._is_receipted, "a receipt was not closed")
            with reading() as session:
                found = verify_receipts(session)
            require(not found.faults, "; ".join(found.faults))
            require(found.receipts == len(self._gone), f"{found.receipts} receipts of {len(self._gone)} deletions")
            observed.append(f"{found.receipts} receipts in a chain of {found.entries} entries")
        with self._promise("no personal data is on disk in plain text, neither ours nor in Prefect") as observed:
            words = (PERSON, TRACKING, CARRIER_ACCOUNT, *SERIALS)
            report = search_for(words)
            require(not report.not_searched, f"not everything was searched: {report.not_searched}")
            require(not report.hits_total, f"found in {', '.join(hit.place for hit in report.hits[:3])}")
            searched = f"{report.bytes_searched:,} bytes of {report.files} files"
            observed.append(f"{len(words)} words looked for in {searched}, 0 found")

    def _is_receipted(self) -> bool:
        advance_jobs(return_state=True)
        with reading() as session:
            return not verify_receipts(session).unfinished

    def _is_forgotten(self) -> bool:
        advance_jobs(return_state=True)
        with reading() as session:
            return not runs_to_forget(session, 1)

    def _rows_of_gone(self, table: Table) -> int:
        key = table.columns["id" if table.name == "job" else "job_id"]
        with reading() as session:
            chosen = select(func.count()).select_from(table).where(key.in_(self._gone))
            return int(session.exec(chosen).one())

    def _told_by_prefect(self) -> list[str]:
        """Look through every run, artifact and log that Prefect has for the ids of the deleted jobs."""
        ids = {form for job_id in self._gone for form in (str(job_id), job_id.hex[:8])}
        with get_client(sync_client=True) as client:
            found: list[tuple[str, str]] = [
                ("run", json.dumps([run.name, run.parameters, run.tags, run.state and run.state.message]))
                for run in _pages(client.read_flow_runs)
            ]
            found += [("artifact", json.dumps(each.data)) for each in _pages(client.read_artifacts)]
            found += [("log", log.message) for log in _pages(client.read_logs)]
        return [kind for kind, text in found if any(each in text for each in ids)]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _written(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _wait_until(is_so: Callable[[], bool], otherwise: str) -> None:
    give_up = time.monotonic() + _WAIT_SECONDS
    while not is_so():
        require(time.monotonic() < give_up, otherwise)
        time.sleep(0.02)


def _pages(read: Callable[..., list[Any]], size: int = 200, pages_max: int = 500) -> Iterator[Any]:
    for page in range(pages_max):
        found = read(limit=size, offset=page * size)
        yield from found
        if len(found) < size:
            return


def main(source: str, told: str) -> None:
    """Make the journey in a process of its own, and leave what was seen as JSON in a file.

    Args:
        source: the folder whose files are posted; empty takes Python's standard library.
        told: the file.
    """
    # Python writes its caches while we read; a folder that was named is taken as it is.
    root = Path(source or sysconfig.get_path("stdlib"))
    posted = list(files_below(root, lambda path: not source and path.name in _NOT_POSTED))
    if len(posted) < 2:
        raise RequestError([("source", "needs two files at least, one for each drive")])
    journey = Journey(Console(stderr=True, highlight=False), posted)
    journey.make()
    seen = {"promises": [asdict(seen) for seen in journey.seen], "figures": journey.figures}
    Path(told).write_text(json.dumps(seen, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except DrivepostError as error:
        sys.exit(error.line)
