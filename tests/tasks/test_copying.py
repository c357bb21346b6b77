"""The copy of a job's drives: manifests, logs, a cancel in the middle, and one copier at a time."""

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any, Final
from uuid import UUID

import pytest
from prefect.client.schemas.objects import State
from sqlmodel import col, select

from flows.cancel_job import cancel_job
from flows.import_drives import import_drives
from flows.return_drives import return_drives
from models.copies import DriveCopy, take_copy_lease
from models.copy_logs import BlobStatus, CopyLog, DispositionStatus, DriveStatus, LoggedBlob, read_copy_log
from models.database import database_time, reading, writing
from models.errors import CopyHeldElsewhereError, LeaseLostError, StoreError
from models.jobs import Job, read_job, request_cancel
from models.lifecycle import Actor, DriveState, JobState, JobType
from models.manifests import BLOCK_BYTES_MAX, Blob, ImportDisposition, PageRange
from models.settings import Settings
from tasks import folder_store
from tasks.azure_uploads import PageUpload
from tasks.blob_files import md5_of
from tasks.blob_names import Names
from tasks.blob_writing import BlobWriting
from tasks.blobs import BlobCopier
from tasks.containers import open_container
from tasks.drives import (
    Advanced,
    carry_out_cancels,
    find_lost_cancels,
    give_up_drive,
    pack_job,
    take_lease,
)
from tasks.folder_store import FolderContainer, _FolderUpload
from tasks.jobs import accept_cancel
from tasks.pulse import CopyLimits, Pulse
from tasks.stores import Part, StoreBusyError
from tasks.way import Way
from tests.builders import (
    Listed,
    drive_of,
    events_of,
    job_in,
    logs_of,
    make_source,
    mount_by_hand,
    random_bytes,
    received_by_hand,
    received_job,
    received_of_entries,
    run_out,
    set_columns,
    stored,
)
from tests.posted_stores import PostedStore, posted_store

pytestmark = pytest.mark.usefixtures("plain_acts")

_B: Final = BLOCK_BYTES_MAX


def state_of(job_id: UUID) -> JobState:
    """Read where a job stands."""
    with reading() as session:
        return read_job(session, job_id).state


def message(state: State[Any]) -> str:
    """Give what a run says at its end."""
    return state.message or ""


def read_log(path: Path) -> CopyLog:
    """Read a copy log."""
    with path.open("rb") as stream:
        return read_copy_log(stream)


# -- manifests -------------------------------------------------------------------------------------------


def _manifest(drive: Path) -> Path:
    return drive / "DriveManifest.xml"


def _rewrite(change: Callable[[bytes], bytes]) -> Callable[[Path, dict[str, str]], None]:
    """Change the manifest, and let the job name the changed one."""

    def rewrite(drive: Path, entry: dict[str, str]) -> None:
        data = change(_manifest(drive).read_bytes())
        _manifest(drive).write_bytes(data)
        entry["manifestHash"] = hashlib.md5(data, usedforsecurity=False).hexdigest()

    return rewrite


def _remove(drive: Path, _entry: dict[str, str]) -> None:
    _manifest(drive).unlink()


def _change_one_byte(drive: Path, _entry: dict[str, str]) -> None:
    data = _manifest(drive).read_bytes()
    _manifest(drive).write_bytes(data.replace(b"tests", b"Tests", 1))


def _make_directory(drive: Path, _entry: dict[str, str]) -> None:
    _manifest(drive).unlink()
    _manifest(drive).mkdir()


def _lead_out(drive: Path, entry: dict[str, str]) -> None:
    _manifest(drive).rename(drive.parent.parent / "outside.xml")
    entry["manifestFile"] = "\\..\\..\\outside.xml"


def _link_out(drive: Path, _entry: dict[str, str]) -> None:
    outside = drive.parent.parent / "outside.xml"
    _manifest(drive).rename(outside)
    _manifest(drive).symlink_to(outside)


MANIFESTS: Final = {
    "missing": (_remove, DriveStatus.MANIFEST_NOT_FOUND),
    "a directory": (_make_directory, DriveStatus.MANIFEST_NOT_FOUND),
    "named outside of the drive": (_lead_out, DriveStatus.MANIFEST_NOT_FOUND),
    "linked out of the drive": (_link_out, DriveStatus.MANIFEST_NOT_FOUND),
    "changed": (_change_one_byte, DriveStatus.MANIFEST_CORRUPTED),
    "no XML": (_rewrite(lambda _: b"no <XML"), DriveStatus.MANIFEST_CORRUPTED),
    "empty": (_rewrite(lambda _: b""), DriveStatus.MANIFEST_CORRUPTED),
    "cut off": (_rewrite(lambda data: data[:-20]), DriveStatus.MANIFEST_CORRUPTED),
    "another thing": (_rewrite(lambda _: b"<html/>"), DriveStatus.MANIFEST_FORMAT_INVALID),
    "a wrong hash in the last blob": (
        _rewrite(lambda data: data[: (at := data.rindex(b'Hash="') + 6)] + b"Z" + data[at + 1 :]),
        DriveStatus.MANIFEST_FORMAT_INVALID,
    ),
    "of another drive": (
        _rewrite(lambda data: data.replace(b"<DriveId>BAD", b"<DriveId>OTHER")),
        DriveStatus.MANIFEST_DRIVE_ID_MISMATCH,
    ),
}


def ends_without_the_bad_drive(data_directory: Path, job_id: UUID, status: DriveStatus) -> None:
    """See that the drive BAD is told of by this status, the drive GOOD is copied, and the job ends Closed."""
    ended = import_drives.fn(str(job_id))
    assert ended.is_completed(), message(ended)
    assert stored(data_directory) == {"data/good": b"good"}, "nothing of the bad drive was copied"
    bad, good = drive_of(job_id, 1), drive_of(job_id, 2)
    assert (bad.state, bad.copy_status, bad.bytes_succeeded) == (DriveState.COMPLETED_MORE_INFO, status, 0)
    assert (good.state, good.copy_status) == (DriveState.COMPLETED, DriveStatus.COMPLETED)
    assert [read_log(path) for path in logs_of(data_directory)] == [
        CopyLog("BAD", [], status),
        CopyLog("GOOD", [], DriveStatus.COMPLETED),
    ]
    assert state_of(job_id) is JobState.PACKAGING
    assert message(return_drives.fn(str(job_id))) == f"job {job_id} is Closed; 2 drives were sent back"


@pytest.mark.parametrize(("spoil", "status"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_drive_without_a_good_manifest_is_told_and_the_other_is_copied(
    data_directory: Path,
    sqlite: str,
    spoil: Callable[[Path, dict[str, str]], None],
    status: DriveStatus,
) -> None:
    """It ends CompletedMoreInfo, and its job Closed."""
    entries = [
        mount_by_hand(data_directory, "BAD", [Listed("data/bad"), Listed("data/bad 2")]),
        mount_by_hand(data_directory, "GOOD", [Listed("data/good", b"good")]),
    ]
    spoil(data_directory / "bay" / "BAD", entries[0])
    ends_without_the_bad_drive(data_directory, received_of_entries(entries), status)


def test_a_drive_taken_out_of_the_bay_is_told_and_the_other_is_copied(
    data_directory: Path, any_database: str
) -> None:
    """It was checked in, and is gone when its copy begins."""
    drives = {"BAD": [Listed("data/bad")], "GOOD": [Listed("data/good", b"good")]}
    job_id = received_by_hand(data_directory, drives)
    (data_directory / "bay" / "BAD").rename(data_directory / "taken out")
    ends_without_the_bad_drive(data_directory, job_id, DriveStatus.DISK_NOT_FOUND)


def test_a_drive_taken_out_during_its_copy_keeps_what_was_copied(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blobs that are whole stay and are counted."""
    job_id = received_by_hand(
        data_directory, {"S1": [Listed("data/a", b"aa"), Listed("data/b"), Listed("data/c")]}
    )
    write = BlobWriting.write

    def taken_out_at_b(writing: BlobWriting, order: Any) -> Any:
        if order.name == "b":
            (data_directory / "bay" / "S1").rename(data_directory / "taken out")
        return write(writing, order)

    monkeypatch.setattr(BlobWriting, "write", taken_out_at_b)
    assert import_drives.fn(str(job_id)).is_completed()
    assert stored(data_directory) == {"data/a": b"aa"}
    drive = drive_of(job_id)
    assert (drive.copy_status, drive.bytes_succeeded) == (DriveStatus.DISK_NOT_FOUND, 2)


def test_a_fault_of_ours_ends_one_drive_and_the_other_is_copied(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told as InternalError, without the fault's text."""
    drives = {"BAD": [Listed("data/bad")], "GOOD": [Listed("data/good", b"good")]}
    job_id = received_by_hand(data_directory, drives)
    settle = Names.settle

    def fails_for_bad(names: Names, batch: Any, *others: Any) -> Any:
        if batch[0].blob_path == "data/bad":
            raise KeyError("Ada Example")
        return settle(names, batch, *others)

    monkeypatch.setattr(Names, "settle", fails_for_bad)
    ends_without_the_bad_drive(data_directory, job_id, DriveStatus.INTERNAL_ERROR)


def test_a_bay_that_cannot_be_read_ends_the_run_and_no_drive(data_directory: Path, sqlite: str) -> None:
    """The lease is given back, and a later run completes."""
    job_id = received_by_hand(data_directory, {"S1": [Listed("data/a")]})
    bay = data_directory / "bay"
    bay.rename(data_directory / "unmounted")
    assert message(import_drives.fn(str(job_id))).startswith("BayUnusable: the bay cannot be read")
    assert drive_of(job_id).state is DriveState.RECEIVED
    (data_directory / "unmounted").rename(bay)
    assert import_drives.fn(str(job_id)).is_completed()


def test_a_manifest_hash_may_be_sha256_and_in_lower_case(data_directory: Path, sqlite: str) -> None:
    """The description's own examples show 64 digits."""
    entry = mount_by_hand(data_directory, "S1", [Listed("data/a")])
    manifest = _manifest(data_directory / "bay" / "S1").read_bytes()
    entry["manifestHash"] = hashlib.sha256(manifest).hexdigest()
    job_id = received_of_entries([entry])
    assert import_drives.fn(str(job_id)).is_completed()
    assert drive_of(job_id).copy_status is DriveStatus.COMPLETED


# -- logs ------------------------------------------------------------------------------------------------


def test_the_verbose_log_names_every_blob_and_the_manifest_is_kept(data_directory: Path, sqlite: str) -> None:
    """When asked for, below the job's own folder for logs; the error log names only the bad one."""
    listed = [Listed("data/a", b"a"), Listed("data/b", b"b", on_drive=b"B"), Listed("data/a", b"c")]
    job_id = received_by_hand(
        data_directory, {"S1": listed}, logLevel="Verbose", backupDriveManifest=True, diagnosticsPath="logs/of/job"
    )
    manifest = _manifest(data_directory / "bay" / "S1").read_bytes()
    assert import_drives.fn(str(job_id)).is_completed()
    (error,), (verbose,), (kept,) = (logs_of(data_directory, kind, "logs/of/job") for kind in _KINDS)
    assert kept.read_bytes() == manifest
    told = [_told(blob) for blob in read_log(verbose).blobs]
    assert told == [
        ("data/a", BlobStatus.COMPLETED, DispositionStatus.CREATED),
        ("data/b", BlobStatus.COMPLETED_WITH_ERRORS, DispositionStatus.CANCELLED),
        ("data/a (2)", BlobStatus.COMPLETED, DispositionStatus.RENAMED),
    ]
    assert [_told(blob) for blob in read_log(error).blobs] == told[1:]
    drive = drive_of(job_id)
    assert (drive.error_log_uri, drive.verbose_log_uri, drive.manifest_uri) == (
        error.as_uri(),
        verbose.as_uri(),
        kept.as_uri(),
    )


_KINDS: Final = ("error", "verbose", "manifest")


def _told(blob: LoggedBlob) -> tuple[str, BlobStatus, DispositionStatus | None]:
    return blob.blob_path, blob.status, blob.disposition_status


def test_nothing_is_written_beside_the_error_log_unless_asked_for(data_directory: Path, sqlite: str) -> None:
    """No verbose log, no manifest, and nothing laid aside."""
    job_id = received_by_hand(data_directory, {"S1": [Listed("data/a")]})
    assert import_drives.fn(str(job_id)).is_completed()
    logs = data_directory / "store" / "account1" / "waimportexport"
    assert [path.name[-10:] for path in logs.rglob("*") if path.is_file()] == ["_error.xml"]
    assert not (logs / ".drivepost").exists()


# -- page blobs ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disk(Listed):
    """A page blob of six pages, of which the second and third, and the fifth, are listed."""

    data: bytes = bytes(512) + random_bytes(1024, 1) + bytes(512) + random_bytes(512, 2) + bytes(512)

    def blob(self, number: int) -> Blob:
        """Make its entry of the manifest."""
        places = ((512, 512), (1024, 512), (2048, 512))
        ranges = (PageRange(at, size, md5_of(self.data[at : at + size])) for at, size in places)
        return Blob(self.path, self.file_path(number), len(self.data), self.disposition, page_ranges=tuple(ranges))


@pytest.fixture
def azure(
    request: pytest.FixtureRequest, sqlite: str, data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> PostedStore:
    """Give a store that is Azure."""
    return posted_store("azure", data_directory, request, monkeypatch)


class Killed(BaseException):
    """The worker is gone."""


@pytest.mark.parametrize("fault", [None, Killed(), StoreBusyError("its answer is lost")])
def test_page_blobs_arrive_once_though_the_copy_is_cut_after_their_last_byte(
    azure: PostedStore, data_directory: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException | None
) -> None:
    """Killed, or told by nobody that they are whole; the next try knows them again, and makes no second one."""
    listed = [Disk(f"data/{disposition}", disposition=disposition) for disposition in ImportDisposition]
    job_id = received_by_hand(data_directory, {"S1": listed})
    commit, committed = PageUpload.commit, Counter[str]()

    def cut(upload: PageUpload, *args: Any, **kwargs: Any) -> str:
        e_tag = commit(upload, *args, **kwargs)
        committed[upload.handle] += 1
        if fault is not None:
            raise fault
        return e_tag

    with monkeypatch.context() as cutting:
        cutting.setattr("tasks.way._PAUSES_SECONDS", ())
        cutting.setattr(PageUpload, "commit", cut)
        with suppress(Killed):
            import_drives.fn(str(job_id))
    assert committed
    if isinstance(fault, Killed):
        assert state_of(job_id) is JobState.TRANSFERRING
        run_out(job_id)
        assert import_drives.fn(str(job_id)).is_completed()
    assert azure.blobs() == {str(disposition): Disk.data for disposition in ImportDisposition}
    assert open_container(azure.address, "data").stat(ImportDisposition.RENAME).is_page_blob
    assert azure.aside() == []
    (log,) = azure.logs().values()
    assert read_copy_log(BytesIO(log)) == CopyLog("S1", [], DriveStatus.COMPLETED)
    assert drive_of(job_id).bytes_succeeded == 3 * 1536


def test_a_page_blob_with_pages_of_somebody_else_is_not_ours(
    azure: PostedStore, data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though all that is listed is as listed; it stays, and ours gets another name."""
    job_id = received_by_hand(data_directory, {"S1": [Disk("data/disk")]})
    commit, theirs = PageUpload.commit, Disk.data[:-512] + bytes([1]) * 512

    def cut(upload: PageUpload, *args: Any, **kwargs: Any) -> str:
        commit(upload, *args, **kwargs)
        upload._blob.upload_page(theirs[-512:], 2560, 512)
        raise Killed

    with monkeypatch.context() as cutting:
        cutting.setattr(PageUpload, "commit", cut)
        with pytest.raises(Killed):
            import_drives.fn(str(job_id))
    run_out(job_id)
    assert import_drives.fn(str(job_id)).is_completed()
    assert azure.blobs() == {"disk": theirs, "disk (2)": Disk.data}


# -- cancel ----------------------------------------------------------------------------------------------

_MANY: Final = {f"{n:03}": random_bytes(n * 100, n) for n in range(60)}
_BIG: Final = {"big": random_bytes(25 * _B + 3), **_MANY}


@contextmanager
def copying(job_id: UUID) -> Iterator[list[State[Any]]]:
    """Copy in a thread; what came of it is in the list when the block is left."""
    ends: list[State[Any]] = []
    copier = threading.Thread(target=lambda: ends.append(import_drives.fn(str(job_id))))
    copier.start()
    try:
        yield ends
    finally:
        copier.join()


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something that will be."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.002)


def store_of(data_directory: Path) -> dict[str, tuple[int, int]]:
    """See what lies in the store, logs too: path -> size and time of the last write, nanoseconds."""
    seen = {}
    # Folders and files come and go meanwhile.
    for folder, _, names in os.walk(data_directory / "store"):
        for path in (Path(folder, name) for name in names):
            with suppress(FileNotFoundError):
                found = path.stat()
                seen[str(path)] = (found.st_size, found.st_mtime_ns)
    return seen


def slow_down(
    monkeypatch: pytest.MonkeyPatch, seconds: float, holder: type = _FolderUpload, name: str = "write"
) -> None:
    """Let every block, or whatever else, take a while; they come one after the other."""
    monkeypatch.setenv("DRIVEPOST_COPY_REQUESTS_AT_ONCE", "1")
    act = getattr(holder, name)

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return act(*args, **kwargs)

    monkeypatch.setattr(holder, name, slow)


def require_right_after_cancel(data_directory: Path, job_id: UUID, source: dict[str, bytes]) -> None:
    """See that the job is Completed, and in the store whole blobs alone, counted to the byte."""
    assert state_of(job_id) is JobState.COMPLETED
    found = {path.removeprefix("data/"): data for path, data in stored(data_directory).items()}
    assert not [path for path in store_of(data_directory) if ".drivepost" in path]
    for path, data in found.items():
        assert data == source[path]
    assert drive_of(job_id).bytes_succeeded == sum(map(len, found.values()))


@pytest.mark.parametrize("before", ["in a small blob", "in a big blob"])
def test_a_cancel_while_copying_leaves_whole_blobs_alone(
    data_directory: Path, any_database: str, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """It stops, discards what is half written, tells how much it copied, and never begins the second drive."""
    source = _BIG if before == "in a big blob" else {**_MANY, "zz": _BIG["big"]}
    slow_down(monkeypatch, 0.02)
    if before == "in a small blob":
        slow_down(monkeypatch, 0.02, FolderContainer, "put")
    job_id = received_job(data_directory, {"S1": source, "S2": {"second": b"second"}})
    place = ".drivepost" if before == "in a big blob" else "/data/0"
    with copying(job_id) as ends:
        wait_until(lambda: any(place in path for path in store_of(data_directory)))
        time.sleep(0.1)
        ended = cancel_job.fn(str(job_id))
        accepted_and_done = time.time_ns()
        seen = store_of(data_directory)
    assert message(ends[0]).startswith(f"job {job_id} was cancelled and is Completed; ")
    assert message(ended) == message(ends[0])
    assert store_of(data_directory) == seen, "not a byte was written after the job was Completed"
    assert max(at for _, at in seen.values()) <= accepted_and_done
    require_right_after_cancel(data_directory, job_id, source)
    first, second = drive_of(job_id, 1), drive_of(job_id, 2)
    assert (first.state, first.copy_status) == (
        DriveState.COMPLETED_MORE_INFO,
        DriveStatus.COMPLETED_WITH_ERRORS,
    )
    assert 0 <= first.bytes_succeeded < (first.bytes_total or 0)
    assert (second.state, second.bytes_total) == (DriveState.RECEIVED, None)
    copied = f"{first.bytes_succeeded:,} of {first.bytes_total:,} bytes were copied"
    assert copied in message(ended)
    assert message(cancel_job.fn(str(job_id))) == message(ended), "asked again, it answers the same"
    assert message(return_drives.fn(str(job_id))) == f"job {job_id} is Completed; 2 drives were sent back"
    assert {drive_of(job_id, number).state for number in (1, 2)} == {DriveState.SHIPPED_BACK}
    assert state_of(job_id) is JobState.COMPLETED


def test_the_log_of_a_cancelled_drive_tells_of_the_blob_that_was_cut(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disposition is Cancelled, blobs not begun are not named; the verbose log names whole ones too."""
    files = {"0": b"0", **{f"1{k}": v for k, v in _BIG.items()}}
    job_id = received_job(data_directory, {"S1": files}, logLevel="Verbose")
    write, may_go_on = _FolderUpload.write, threading.Event()

    def write_three(upload: _FolderUpload, part: Part, data: bytes) -> bool:
        if part.index == 3:
            assert may_go_on.wait(20)
        return write(upload, part, data)

    monkeypatch.setattr(_FolderUpload, "write", write_three)
    with copying(job_id):
        # All small ones are there, and the big one is in its middle.
        wait_until(lambda: len(stored(data_directory)) > len(_MANY) + 1)
        accept_cancel.fn(job_id)
        time.sleep(0.3)
        may_go_on.set()
    (log,) = logs_of(data_directory)
    assert [_told(blob) for blob in read_log(log).blobs] == [
        ("data/1big", BlobStatus.FAILED, DispositionStatus.CANCELLED)
    ]
    found = stored(data_directory)
    assert found == {"data/0": b"0", **{f"data/1{name}": data for name, data in _MANY.items()}}
    (verbose,) = logs_of(data_directory, "verbose")
    assert {blob.blob_path for blob in read_log(verbose).blobs} == {*found, "data/1big"}


def test_how_long_a_cancel_takes(
    data_directory: Path,
    any_database: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At full speed: time and bytes from the accepted request to the last byte written.

    Once the cancel is heard no more is written than the requests in flight.
    """
    source = {"big": random_bytes(60 * _B)}
    job_id = received_job(data_directory, {"S1": source})
    write, stop, heard, after_it = _FolderUpload.write, Way.stop, Event(), list[int]()

    def watched_write(upload: _FolderUpload, part: Part, data: bytes) -> bool:
        if heard.is_set():
            after_it.append(part.length)
        return write(upload, part, data)

    def watched_stop(way: Way, **kwargs: bool) -> None:
        stop(way, **kwargs)
        heard.set()

    monkeypatch.setattr(_FolderUpload, "write", watched_write)
    monkeypatch.setattr(Way, "stop", watched_stop)
    with copying(job_id):
        wait_until(lambda: sum(size for size, _ in store_of(data_directory).values()) > 4 * _B)
        accept_cancel.fn(job_id)
        accepted, before = time.time_ns(), store_of(data_directory)
        written: dict[str, tuple[int, int]] = {}
        while state_of(job_id) is not JobState.COMPLETED:
            written |= store_of(data_directory)
        completed = time.time_ns()
    assert heard.is_set()
    assert sum(after_it) <= Settings().copy_requests_at_once * _B
    after = {path: stat for path, stat in written.items() if stat[1] > accepted and ".xml" not in path}
    late = sum(size - before.get(path, (0, 0))[0] for path, (size, _) in after.items())
    last = max((at for _, at in after.values()), default=accepted)
    with capsys.disabled():
        print(  # noqa: T201  a figure to be read
            f"\ncancel on {any_database.partition(':')[0]}: last byte of a blob {(last - accepted) / 1e6:.0f} ms "
            f"and {late / 2**20:.1f} MiB after it was accepted; "
            f"Completed after {(completed - accepted) / 1e6:.0f} ms"
        )
    require_right_after_cancel(data_directory, job_id, source)
    assert max((at for _, at in store_of(data_directory).values()), default=0) <= completed


@pytest.mark.parametrize("name", ["put", "read"])
def test_a_blob_that_was_written_and_of_which_a_busy_store_says_nothing_is_told_when_a_cancel_is_heard(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It stays, and counts; nobody waits for the store's next answer."""
    monkeypatch.setattr("tasks.way._PAUSES_SECONDS", (600.0,))
    monkeypatch.setenv("DRIVEPOST_COPY_POLL_SECONDS", "0.01")
    job_id = received_job(data_directory, {"S1": {"a": b"a"}})

    act, was_busy = getattr(FolderContainer, name), list[str]()

    def busy(container: FolderContainer, path: str, *args: Any, **kwargs: Any) -> Any:
        told = act(container, path, *args, **kwargs)
        if path != "a" or was_busy:
            return told
        was_busy.append(path)
        with writing() as session:
            request_cancel(session, job_id, at=database_time(session), by=Actor.CUSTOMER)
        raise StoreBusyError("the store is busy: Test")

    monkeypatch.setattr(FolderContainer, name, busy)
    assert import_drives.fn(str(job_id)).is_cancelled()
    assert was_busy
    assert stored(data_directory) == {"data/a": b"a"}
    assert drive_of(job_id).bytes_succeeded == 1


def test_a_cancel_between_two_drives_begins_no_other(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepted while the first drive's log is written."""
    job_id = received_job(data_directory, {"S1": {"a": b"a"}, "S2": {"b": b"b"}})
    put = FolderContainer.put

    def cancel_at_log(container: FolderContainer, path: str, *args: Any, **kwargs: Any) -> None:
        put(container, path, *args, **kwargs)
        if path.endswith("_error.xml"):
            with writing() as session:
                request_cancel(session, job_id, at=database_time(session), by=Actor.CUSTOMER)

    monkeypatch.setattr(FolderContainer, "put", cancel_at_log)
    assert import_drives.fn(str(job_id)).is_cancelled()
    assert stored(data_directory) == {"data/a": b"a"}
    assert drive_of(job_id, 2).state is DriveState.RECEIVED
    assert state_of(job_id) is JobState.COMPLETED


@pytest.mark.parametrize("state", [JobState.CREATING, JobState.SHIPPING, JobState.RECEIVED])
def test_a_cancel_before_the_copy_completes_the_job(
    data_directory: Path, any_database: str, state: JobState
) -> None:
    """Nothing was copied, and asking again answers the same."""
    with writing() as session:
        job_id = job_in(session, state, at=database_time(session))
    ended = cancel_job.fn(str(job_id))
    assert message(ended) == f"job {job_id} was cancelled and is Completed; 0 of 0 bytes were copied"
    assert state_of(job_id) is JobState.COMPLETED
    with reading() as session:
        before = read_job(session, job_id).model_dump()
    assert message(cancel_job.fn(str(job_id))) == message(ended)
    with reading() as session:
        assert read_job(session, job_id).model_dump() == before
    assert not (data_directory / "store").exists()


def test_a_copy_asked_for_after_a_cancel_copies_nothing(data_directory: Path, sqlite: str) -> None:
    """It says who carries the cancel out."""
    job_id = received_job(data_directory, {"S1": {"a": b"a"}})
    accept_cancel.fn(job_id)
    assert "nothing is copied: a cancel was accepted" in message(import_drives.fn(str(job_id)))
    assert stored(data_directory) == {}


def killed_before_it_is_recorded(
    data_directory: Path, monkeypatch: pytest.MonkeyPatch, **properties: Any
) -> tuple[UUID, dict[str, bytes]]:
    """Leave a job whose copier died with blobs in the store that no row speaks of; gives those."""
    big = random_bytes(2 * _B)
    listed = [Listed("data/whole", big), Listed("data/cut", big), Listed("data/taken", b"ours")]
    listed += [Listed(f"data/{n}", b"ours") for n in range(40)]
    listed += [Listed("data/x", b"x", on_drive=b"y")]
    make_source(data_directory / "store" / "account1" / "data", {"taken": b"theirs"})
    job_id = received_by_hand(data_directory, {"S1": listed}, **properties)
    name, write, record = folder_store._name, _FolderUpload.write, BlobCopier._record
    are_begun, is_whole = Event(), Event()

    def name_when_begun(laid: str, place: str, **kwargs: Any) -> None:
        assert are_begun.wait(20)
        name(laid, place, **kwargs)
        if place.endswith("whole"):
            is_whole.set()

    def cut(upload: _FolderUpload, part: Part, data: bytes) -> bool:
        if upload._place.endswith("cut") and part.index:
            assert is_whole.wait(20)
            raise Killed
        return write(upload, part, data)

    def record_no_end(copier: BlobCopier) -> None:
        # The plans and the uploads' handles are written down, and nothing that came of them.
        are_both_there = sum(plan.upload != "" for plan in copier._plans) == 2
        if not are_begun.is_set():
            record(copier)
        if are_both_there:
            are_begun.set()

    with monkeypatch.context() as dying:
        dying.setattr(folder_store, "_name", name_when_begun)
        dying.setattr(_FolderUpload, "write", cut)
        dying.setattr(BlobCopier, "_record", record_no_end)
        with pytest.raises(Killed):
            import_drives.fn(str(job_id))
    run_out(job_id)
    with reading() as session:
        assert session.get_one(DriveCopy, (job_id, 1)).bytes_committed == 0
    found = {path: data for path, data in stored(data_directory).items() if ".drivepost" not in path}
    del found["data/taken"]
    assert len(found) > 1
    return job_id, found


def test_what_a_killed_copy_left_whole_is_counted_and_told_when_it_is_cancelled(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so is the blob that was cut; blobs not begun are in no log."""
    job_id, found = killed_before_it_is_recorded(data_directory, monkeypatch, logLevel="Verbose")
    accept_cancel.fn(job_id)
    assert cancel_job.fn(str(job_id)).is_completed()
    assert drive_of(job_id).bytes_succeeded == sum(map(len, found.values()))
    assert stored(data_directory) == {**found, "data/taken": b"theirs"}
    assert not [path for path in store_of(data_directory) if ".drivepost" in path]
    (error,), (verbose,) = logs_of(data_directory), logs_of(data_directory, "verbose")
    told = {blob.blob_path: blob.disposition_status for blob in read_log(verbose).blobs}
    renamed = {"data/taken (2)": DispositionStatus.RENAMED} if "data/taken (2)" in found else {}
    assert told == {
        **dict.fromkeys(found, DispositionStatus.CREATED),
        **renamed,
        "data/cut": DispositionStatus.CANCELLED,
    }
    told_of = {blob.blob_path for blob in read_log(error).blobs}
    assert told_of == {"data/cut", *renamed}
    assert drive_of(job_id).verbose_log_uri == verbose.as_uri()


def half_copied(data_directory: Path, monkeypatch: pytest.MonkeyPatch, name: str = "job1") -> UUID:
    """Leave a job whose copier died with a big blob half written."""
    job_id = received_job(data_directory, {f"S-{name}": {f"{name}/a": b"a", f"{name}/big": _BIG["big"]}}, name)
    record, is_dead, write = BlobCopier._record, threading.Event(), _FolderUpload.write

    def waits_at_fifth(upload: _FolderUpload, part: Part, data: bytes) -> bool:
        if part.index == 5:
            assert is_dead.wait(20)
            raise StoreError("the store refused: Test")
        return write(upload, part, data)

    def dies(copier: BlobCopier) -> None:
        record(copier)
        # The small blob is over, and so are some blocks of the big one.
        if drive_of(job_id).bytes_succeeded > 2 * _B:
            is_dead.set()
            raise Killed

    with monkeypatch.context() as dying:
        dying.setattr("tasks.blobs._RECORD_SECONDS", 0.0)
        dying.setattr(_FolderUpload, "write", waits_at_fifth)
        dying.setattr(BlobCopier, "_record", dies)
        with pytest.raises(Killed):
            import_drives.fn(str(job_id))
    assert [path for path in store_of(data_directory) if f".drivepost/{job_id}" in path]
    return job_id


@pytest.mark.parametrize("by", ["advance-jobs", "cancel-job"])
def test_a_cancel_whose_copier_is_dead_is_carried_out(
    data_directory: Path, any_database: str, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """As soon as the lease has run out, and not before; what is half written goes."""
    job_id = half_copied(data_directory, monkeypatch)
    monkeypatch.setenv("DRIVEPOST_COPY_STOP_SECONDS_MAX", "1")
    accept_cancel.fn(job_id)
    if by == "advance-jobs":
        assert _carry_out_lost_cancels().done == 0
    else:
        assert message(cancel_job.fn(str(job_id))).startswith("CopyStillRunning: ")
    assert state_of(job_id) is JobState.TRANSFERRING
    run_out(job_id)
    if by == "advance-jobs":
        assert _carry_out_lost_cancels().done == 1
    else:
        assert cancel_job.fn(str(job_id)).is_completed()
    assert state_of(job_id) is JobState.COMPLETED
    assert not [path for path in store_of(data_directory) if ".drivepost" in path]
    assert stored(data_directory) == {"data/job1/a": b"a"}
    assert drive_of(job_id).state is DriveState.COMPLETED_MORE_INFO


def test_one_lost_cancel_that_fails_does_not_stop_the_others(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted by its code, and done when its store is back."""
    jobs = [half_copied(data_directory, monkeypatch, name) for name in ("first", "second")]
    for job_id in jobs:
        accept_cancel.fn(job_id)
        run_out(job_id)
    discard = FolderContainer.discard

    def refuse_first(container: FolderContainer, staging: str) -> None:
        if staging.startswith(str(jobs[0])):
            raise StoreError("the store refused: Test")
        discard(container, staging)

    with monkeypatch.context() as away:
        away.setattr(FolderContainer, "discard", refuse_first)
        advanced = _carry_out_lost_cancels()
    # A cancel always ends in Completed; what lies aside in a store that does not answer stays there.
    assert (advanced.done, dict(advanced.failed)) == (2, {})
    assert [state_of(job_id) for job_id in jobs] == [JobState.COMPLETED, JobState.COMPLETED]


def _carry_out_lost_cancels() -> Advanced:
    """Do what advance-jobs does of lost cancels."""
    due = find_lost_cancels.fn(10)
    return carry_out_cancels.fn(
        [(job_id, Settings().store_address(account)) for job_id, account in due], Settings().bay
    )


# -- one copier at a time --------------------------------------------------------------------------------


def test_of_two_copies_at_once_one_copies_and_the_other_is_told(
    data_directory: Path, any_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one without the lease copies nothing."""
    slow_down(monkeypatch, 0.02)
    job_id = received_job(data_directory, {"S1": {"big": random_bytes(10 * _B)}})
    with copying(job_id) as ends:
        wait_until(lambda: any(".drivepost" in path for path in store_of(data_directory)))
        refused = import_drives.fn(str(job_id))
    assert message(refused).startswith("CopyHeldElsewhere: another run is copying job ")
    assert ends[0].is_completed()
    assert stored(data_directory) == {"data/big": random_bytes(10 * _B)}
    assert import_drives.fn(str(job_id)).message == f"nothing to do: the copy of job {job_id} is over"


def test_of_two_that_take_the_lease_at_once_one_has_it(data_directory: Path, any_database: str) -> None:
    """Whatever the database."""
    job_id = received_job(data_directory, {"S1": {"a": b"a"}})
    barrier, got, refused = threading.Barrier(4), list[int | None](), list[Exception]()

    def take() -> None:
        barrier.wait()
        try:
            got.append(take_lease.fn(job_id, JobType.IMPORT, 60))
        except CopyHeldElsewhereError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [1]
    assert len(refused) == 3


@pytest.mark.parametrize("successor", ["copies on", "has copied all", "cancels"])
def test_a_worker_that_slept_beyond_its_lease_writes_down_nothing(
    data_directory: Path, any_database: str, monkeypatch: pytest.MonkeyPatch, successor: str
) -> None:
    """It wakes up after another took over, is told CopyLeaseLost, and the job ends as if it had not been."""
    source = {"0": b"0", "big": random_bytes(4 * _B + 1), "z": b"z"}
    job_id = received_job(data_directory, {"S1": source})
    asleep, wake = threading.Event(), threading.Event()
    write, beat, sleeper = _FolderUpload.write, Pulse.beat, list[Pulse]()

    def sleeps(upload: _FolderUpload, part: Part, data: bytes) -> bool:
        if part.index == 2 and not asleep.is_set():
            asleep.set()
            wake.wait(20)
        return write(upload, part, data)

    def beats_unless_asleep(pulse: Pulse) -> None:
        if not sleeper:
            sleeper.append(pulse)
        if pulse is sleeper[0] and asleep.is_set():
            wake.wait(20)
        beat(pulse)

    monkeypatch.setattr(_FolderUpload, "write", sleeps)
    monkeypatch.setattr(Pulse, "beat", beats_unless_asleep)
    with copying(job_id) as ends:
        assert asleep.wait(20)
        run_out(job_id)
        if successor == "cancels":
            assert cancel_job.fn(str(job_id)).is_completed()
        elif successor == "has copied all":
            assert import_drives.fn(str(job_id)).is_completed()
        else:
            with writing() as session:
                now = database_time(session)
                assert (
                    take_copy_lease(session, job_id, seconds=60, at=now, by=Actor.SERVICE, job_type=JobType.IMPORT)
                    == 2
                )
        before = _rows(job_id)
        wake.set()
    assert message(ends[0]).startswith("CopyLeaseLost: ")
    assert _rows(job_id) == before, "the worker that woke up wrote nothing down"
    if successor == "copies on":
        run_out(job_id)
        assert import_drives.fn(str(job_id)).is_completed()
    if successor == "cancels":
        assert state_of(job_id) is JobState.COMPLETED
        return
    assert state_of(job_id) is JobState.PACKAGING
    whole = {name: data for name, data in stored(data_directory).items() if ".drivepost" not in name}
    assert whole == {f"data/{name}": data for name, data in source.items()}


def _rows(job_id: UUID) -> list[dict[str, Any]]:
    with reading() as session:
        events = events_of(session, job_id)
        copy = session.get_one(DriveCopy, (job_id, 1))
        return [
            read_job(session, job_id).model_dump(),
            drive_of(job_id).model_dump(),
            copy.model_dump(),
            *(event.model_dump() for event in events),
        ]


def test_a_lease_is_held_on_to_while_a_blob_is_copied(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob that takes longer than the lease is not taken for dead."""
    monkeypatch.setenv("DRIVEPOST_COPY_LEASE_SECONDS", "1")
    slow_down(monkeypatch, 0.15)
    job_id = received_job(data_directory, {"S1": {"big": random_bytes(12 * _B)}})
    refused = []
    with copying(job_id) as ends:
        wait_until(lambda: any(".drivepost" in path for path in store_of(data_directory)))
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            refused.append(import_drives.fn(str(job_id)))
            time.sleep(0.1)
    assert all(message(each).startswith("CopyHeldElsewhere") for each in refused)
    assert ends[0].is_completed()


def test_a_lost_lease_is_told_by_every_write(data_directory: Path, sqlite: str) -> None:
    """The token alone decides, even where the lease has not run out."""
    job_id = received_job(data_directory, {"S1": {"a": b"a"}})
    token = take_lease.fn(job_id, JobType.IMPORT, 60)
    assert token == 1
    with writing() as session:
        set_columns(session, job_id, copy_token=2)
    limits = CopyLimits(60, 1, 1, 1, 2**20, reads_back=True)
    with pytest.raises(LeaseLostError):
        give_up_drive.fn(job_id, 1, token, Settings().bay, Settings().store_address("account1"), limits)
    with pytest.raises(LeaseLostError):
        pack_job.fn(job_id, token)
    with reading() as session:
        until = session.exec(select(Job.copy_lease_until).where(col(Job.id) == job_id)).one()
        assert until is not None
        assert until - database_time(session) < timedelta(seconds=61)
    assert drive_of(job_id).state is DriveState.RECEIVED


def test_other_jobs_blobs_are_left_alone_by_a_cancel(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another job laid aside in the same container stays, whatever its id."""
    other = half_copied(data_directory, monkeypatch, "other")
    mine = half_copied(data_directory, monkeypatch, "mine")
    make_source(data_directory / "store" / "account1" / "data", {"customer's own": b"own"})
    laid_aside = [path for path in store_of(data_directory) if f".drivepost/{other}" in path]
    accept_cancel.fn(mine)
    run_out(mine)
    assert cancel_job.fn(str(mine)).is_completed()
    assert [path for path in store_of(data_directory) if ".drivepost" in path] == laid_aside
    run_out(other)
    assert import_drives.fn(str(other)).is_completed()
    assert stored(data_directory) == {
        "data/customer's own": b"own",
        "data/mine/a": b"a",
        "data/other/a": b"a",
        "data/other/big": _BIG["big"],
    }


def test_a_job_whose_log_cannot_be_kept_ends_all_the_same(data_directory: Path, any_database: str) -> None:
    """A customer's blob stands where the folder of logs must be; the drive is copied, and has no log."""
    job_id = received_job(data_directory, {"S1": {"waies": b"in the way", "a": b"a"}}, diagnosticsPath="data")
    assert import_drives.fn(str(job_id)).is_completed()
    assert state_of(job_id) is JobState.PACKAGING
    assert drive_of(job_id).state is DriveState.COMPLETED
    assert drive_of(job_id).error_log_uri is None
    assert not [path for path in store_of(data_directory) if ".drivepost" in path]


def test_a_cancel_ends_in_completed_though_the_store_is_away(
    data_directory: Path, any_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies aside there stays; the drive is told as stopped, and goes back."""
    job_id = half_copied(data_directory, monkeypatch, "job1")
    run_out(job_id)

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("the store refused: Test")

    for act in ("discard", "drop", "put"):
        monkeypatch.setattr(FolderContainer, act, refuse)
    assert cancel_job.fn(str(job_id)).is_completed()
    assert state_of(job_id) is JobState.COMPLETED
    assert drive_of(job_id).state is DriveState.COMPLETED_MORE_INFO
