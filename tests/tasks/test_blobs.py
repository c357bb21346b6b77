"""The blobs of a drive: equal to their files, under the names settled for them, and whole or not at all."""

import hashlib
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any, Final
from uuid import UUID

import pytest
from prefect.client.schemas.objects import State

from flows.cancel_job import cancel_job
from flows.import_drives import import_drives
from models.blob_facts import BlobFacts
from models.copies import DriveCopy
from models.copy_logs import (
    AttachedStatus,
    BlobStatus,
    BlockStatus,
    CopyLog,
    DispositionStatus,
    DriveStatus,
    LoggedBlob,
    read_copy_log,
)
from models.database import reading
from models.drive_files import find_file
from models.errors import StoreError
from models.jobs import read_job
from models.lifecycle import DriveState, JobState
from models.manifests import BLOCK_BYTES_MAX, Blob, Block, ImportDisposition
from tasks import folder_store
from tasks.blob_files import BlobFailedError, DriveFiles
from tasks.blob_names import Names
from tasks.blobs import BlobCopier
from tasks.folder_store import FolderContainer, _FolderUpload
from tasks.orders import in_batches
from tasks.stores import BlobMissingError, ForbiddenError, Part, StoreBusyError
from tests.builders import (
    Listed,
    attached_file,
    drive_of,
    logs_of,
    make_source,
    mount_by_hand,
    random_bytes,
    received_by_hand,
    received_job,
    received_of_entries,
    run_out,
    stored,
)

pytestmark = pytest.mark.usefixtures("plain_acts")

_KEEP, _OVER, _RENAME = ImportDisposition.NO_OVERWRITE, ImportDisposition.OVERWRITE, ImportDisposition.RENAME
_B: Final = BLOCK_BYTES_MAX


def copied(job_id: UUID) -> State[Any]:
    """Copy a job to its end."""
    ended = import_drives.fn(str(job_id))
    assert ended.is_completed(), ended.message
    return ended


def log_of(data_directory: Path, place: int = 0, kind: str = "error") -> CopyLog:
    """Read a copy log from the store."""
    with logs_of(data_directory, kind)[place].open("rb") as stream:
        return read_copy_log(stream)


def put(data_directory: Path, name: str, data: bytes = b"theirs", container: str = "data") -> None:
    """Let the customer have a blob of that name."""
    make_source(data_directory / "store" / "account1" / container, {name: data})


# -- content ---------------------------------------------------------------------------------------------

LENGTHS: Final = {
    "0": 0,
    "1": 1,
    "a block less one": _B - 1,
    "a block": _B,
    "a block and one": _B + 1,
    "two blocks": 2 * _B,
    "three blocks and seven": 3 * _B + 7,
}
ODD_NAMES: Final = (
    "a/deep/er/folder/file.txt",
    "ä ö/日本.txt",
    "a%20b",
    "100%.txt",
    "a#b?c&d=e",
    "'quoted' \"twice\".txt",
    " leading and trailing ",
    "trailing.",
    ".hidden",
    "..two dots",
    "[brackets] {braces} *",
    "<angles> & co.xml",
    "no-extension",
    "x" * 200,
    "x#1",
)


def test_every_length_arrives_as_it_is(data_directory: Path, any_database: str) -> None:
    """Empty, one byte, and each side of a block's border."""
    files = {name: random_bytes(length, length) for name, length in LENGTHS.items()}
    job_id = received_job(data_directory, {"SERIAL1": files})
    copied(job_id)
    assert stored(data_directory) == {f"data/{name}": data for name, data in files.items()}
    total = sum(LENGTHS.values())
    assert (drive_of(job_id).bytes_succeeded, drive_of(job_id).bytes_total) == (total, total)


def test_odd_names_arrive_as_they_are(data_directory: Path, sqlite: str) -> None:
    """Nested, in other scripts, with what addresses and patterns take for their own."""
    files = {name: name.encode() for name in ODD_NAMES}
    job_id = received_job(data_directory, {"SERIAL1": files})
    copied(job_id)
    assert stored(data_directory) == {f"data/{name}": data for name, data in files.items()}


def test_a_clean_drive_has_an_error_log_without_blobs(data_directory: Path, sqlite: str) -> None:
    """The log is there and says Completed."""
    job_id = received_job(data_directory, {"SERIAL1": {"a": b"a", "b": random_bytes(_B + 1)}})
    copied(job_id)
    assert log_of(data_directory) == CopyLog("SERIAL1", [], DriveStatus.COMPLETED)
    drive = drive_of(job_id)
    assert drive.state is DriveState.COMPLETED
    assert drive.error_log_uri == logs_of(data_directory)[0].as_uri()
    assert drive.verbose_log_uri is drive.manifest_uri is None


def test_blobs_of_many_containers_and_of_the_root_arrive(data_directory: Path, sqlite: str) -> None:
    """A path without a slash lies in `$root`; big ones leave nothing in any container."""
    big = random_bytes(_B + 1)
    listed = [Listed("one/a", big), Listed("two/a", big), Listed("alone", big), Listed("$root/named", b"n")]
    copied(received_by_hand(data_directory, {"SERIAL1": listed}))
    assert stored(data_directory) == {"one/a": big, "two/a": big, "$root/alone": big, "$root/named": b"n"}


# -- names that are taken --------------------------------------------------------------------------------


def told(data_directory: Path) -> dict[str, tuple[BlobStatus, DispositionStatus | None]]:
    """Read what the error log says of each file."""
    return {blob.file_path: (blob.status, blob.disposition_status) for blob in log_of(data_directory).blobs}


@pytest.mark.parametrize("length", [3, _B + 3], ids=["one block", "two blocks"])
@pytest.mark.parametrize(
    ("disposition", "status", "names"),
    [
        (_KEEP, DispositionStatus.SKIPPED, {"a.jpg": b"theirs"}),
        (_OVER, DispositionStatus.OVERWRITTEN, {"a.jpg": b"ours"}),
        (_RENAME, DispositionStatus.RENAMED, {"a.jpg": b"theirs", "a (2).jpg": b"ours"}),
    ],
    ids=["no-overwrite", "overwrite", "rename"],
)
def test_a_taken_name_is_kept_overwritten_or_renamed(
    data_directory: Path,
    sqlite: str,
    disposition: ImportDisposition,
    status: DispositionStatus,
    names: dict[str, bytes],
    length: int,
) -> None:
    """As the manifest asks, and the log tells which; what was skipped was not copied."""
    ours = random_bytes(length)
    put(data_directory, "a.jpg")
    job_id = received_by_hand(data_directory, {"SERIAL1": [Listed("data/a.jpg", ours, disposition)]})
    copied(job_id)
    wanted = {f"data/{name}": ours if data == b"ours" else data for name, data in names.items()}
    assert stored(data_directory) == wanted
    assert told(data_directory) == {"files\\0": (BlobStatus.COMPLETED, status)}
    drive = drive_of(job_id)
    assert drive.bytes_succeeded == (0 if status is DispositionStatus.SKIPPED else length)
    assert (drive.state, drive.copy_status) == (
        DriveState.COMPLETED_MORE_INFO,
        DriveStatus.COMPLETED_WITH_WARNINGS,
    )


@pytest.mark.parametrize("disposition", ImportDisposition)
def test_a_free_name_is_simply_taken(data_directory: Path, sqlite: str, disposition: ImportDisposition) -> None:
    """Whatever the manifest says of taken ones; a neighbour's blob stays as it is."""
    put(data_directory, "b.jpg")
    copied(received_by_hand(data_directory, {"SERIAL1": [Listed("data/a.jpg", b"ours", disposition)]}))
    assert stored(data_directory) == {"data/a.jpg": b"ours", "data/b.jpg": b"theirs"}
    assert told(data_directory) == {}


RENAMES: Final = {
    "Seattle.jpg": "Seattle (2).jpg",
    "trip/Seattle.jpg": "trip/Seattle (2).jpg",
    "no-extension": "no-extension (2)",
    "dotted.folder/name": "dotted.folder/name (2)",
    ".hidden": ".hidden (2)",
    "archive.tar.gz": "archive.tar (2).gz",
    "Seattle (2).jpg": "Seattle (2) (2).jpg",
    "ends with dot.": "ends with dot (2).",
}


@pytest.mark.parametrize(("name", "renamed"), RENAMES.items())
def test_a_renamed_blob_has_its_number_before_the_extension(
    data_directory: Path, sqlite: str, name: str, renamed: str
) -> None:
    """By the rule of the specification's section 7."""
    put(data_directory, name)
    copied(received_by_hand(data_directory, {"SERIAL1": [Listed(f"data/{name}", b"ours")]}))
    assert stored(data_directory) == {f"data/{name}": b"theirs", f"data/{renamed}": b"ours"}


def test_numbers_are_counted_until_one_is_free(data_directory: Path, sqlite: str) -> None:
    """(2) and (3) are taken, so (4) it is."""
    for name in ("a.jpg", "a (2).jpg", "a (3).jpg"):
        put(data_directory, name)
    copied(received_by_hand(data_directory, {"SERIAL1": [Listed("data/a.jpg", b"ours")]}))
    assert stored(data_directory)["data/a (4).jpg"] == b"ours"
    assert len(stored(data_directory)) == 4


@pytest.mark.parametrize("batch_blobs", [1, 64])
def test_blobs_of_one_manifest_with_the_same_path_are_all_there(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch, batch_blobs: int
) -> None:
    """Whether their names are settled together or one after the other."""
    monkeypatch.setenv("DRIVEPOST_COPY_BATCH_BLOBS", str(batch_blobs))
    listed = [Listed("data/a.jpg", data) for data in (b"1", b"2", b"3")]
    copied(received_by_hand(data_directory, {"SERIAL1": listed}))
    assert stored(data_directory) == {"data/a.jpg": b"1", "data/a (2).jpg": b"2", "data/a (3).jpg": b"3"}
    renamed = (BlobStatus.COMPLETED, DispositionStatus.RENAMED)
    assert told(data_directory) == {"files\\1": renamed, "files\\2": renamed}


@pytest.mark.parametrize("batch_blobs", [1, 64])
@pytest.mark.parametrize(("disposition", "stays"), [(_KEEP, b"1"), (_OVER, b"2")])
def test_the_second_of_two_same_paths_yields_or_wins_as_it_asks(
    data_directory: Path,
    sqlite: str,
    monkeypatch: pytest.MonkeyPatch,
    disposition: ImportDisposition,
    stays: bytes,
    batch_blobs: int,
) -> None:
    """No-overwrite leaves the first, overwrite takes its place."""
    monkeypatch.setenv("DRIVEPOST_COPY_BATCH_BLOBS", str(batch_blobs))
    listed = [Listed("data/a", data, disposition) for data in (b"1", b"2")]
    copied(received_by_hand(data_directory, {"SERIAL1": listed}))
    assert stored(data_directory) == {"data/a": stays}


def taken_after_settling(monkeypatch: pytest.MonkeyPatch, data_directory: Path, names: dict[str, bytes]) -> None:
    """Let somebody take names in the moment after those of the first batch were settled."""
    settle = Names.settle

    def settle_then_lose(settled: Names, *batch: Any) -> Any:
        plans = settle(settled, *batch)
        for name, data in names.items():
            put(data_directory, name, data)
        return plans

    monkeypatch.setattr(Names, "settle", settle_then_lose)


@pytest.mark.parametrize("length", [3, _B + 3], ids=["one block", "two blocks"])
@pytest.mark.parametrize(
    ("disposition", "names"),
    [
        (_KEEP, {"a.jpg": b"theirs"}),
        (_OVER, {"a.jpg": b"ours"}),
        (_RENAME, {"a.jpg": b"theirs", "a (2).jpg": b"ours"}),
    ],
    ids=["no-overwrite", "overwrite", "rename"],
)
def test_a_name_taken_after_it_was_settled_is_settled_anew(
    data_directory: Path,
    sqlite: str,
    monkeypatch: pytest.MonkeyPatch,
    disposition: ImportDisposition,
    names: dict[str, bytes],
    length: int,
) -> None:
    """Somebody else's blob is overwritten only where the manifest says so; nothing half written is left."""
    ours = random_bytes(length)
    taken_after_settling(monkeypatch, data_directory, {"a.jpg": b"theirs"})
    copied(received_by_hand(data_directory, {"SERIAL1": [Listed("data/a.jpg", ours, disposition)]}))
    wanted = {f"data/{name}": ours if data == b"ours" else data for name, data in names.items()}
    assert stored(data_directory) == wanted


def test_a_name_settled_anew_leaves_alone_what_was_settled_for_the_next_blob(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`a (2)` belongs to the second blob of the batch, though the first looks for a name."""
    taken_after_settling(monkeypatch, data_directory, {"a": b"theirs"})
    listed = [Listed("data/a", b"first"), Listed("data/a (2)", b"second", _OVER)]
    copied(received_by_hand(data_directory, {"SERIAL1": listed}))
    assert stored(data_directory) == {"data/a": b"theirs", "data/a (2)": b"second", "data/a (3)": b"first"}


def test_a_name_that_is_taken_again_and_again_is_told_as_rename_failed(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is overwritten, and the next blob is copied."""
    settle_one = Names._settle_one

    def always_too_late(names: Names, blob: Any, *others: Any) -> Any:
        plan = settle_one(names, blob, *others)
        if blob.blob_path == "data/a":
            put(data_directory, plan.path.removeprefix("data/"))
        return plan

    monkeypatch.setattr(Names, "_settle_one", always_too_late)
    copied(received_by_hand(data_directory, {"SERIAL1": [Listed("data/a", b"ours"), Listed("data/b", b"b")]}))
    assert stored(data_directory) == {"data/a": b"theirs", "data/a (2)": b"theirs", "data/b": b"b"}
    assert told(data_directory) == {"files\\0": (BlobStatus.RENAME_FAILED, DispositionStatus.CANCELLED)}


def test_a_name_with_no_room_for_a_number_is_told_as_rename_failed(data_directory: Path, sqlite: str) -> None:
    """Of 1,021 characters; its neighbours arrive."""
    name = "/".join([*["f" * 199] * 5, "n" * 21])
    put(data_directory, name)
    copied(
        received_by_hand(data_directory, {"SERIAL1": [Listed(f"data/{name}", b"ours"), Listed("data/b", b"b")]})
    )
    assert stored(data_directory) == {f"data/{name}": b"theirs", "data/b": b"b"}
    assert told(data_directory) == {"files\\0": (BlobStatus.RENAME_FAILED, DispositionStatus.CANCELLED)}


def test_blobs_of_more_containers_than_are_held_in_memory_keep_to_their_names(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was forgotten is asked again; and the record names every container."""
    monkeypatch.setattr("tasks.blob_names._ALL_KNOWN_MAX", 3)
    monkeypatch.setenv("DRIVEPOST_COPY_BATCH_BLOBS", "2")
    containers = [f"box{n}" for n in range(6)]
    for container in containers:
        put(data_directory, "a", container=container)
    job_id = received_by_hand(
        data_directory, {"SERIAL1": [Listed(f"{box}/a", data) for data in (b"1", b"2") for box in containers]}
    )
    copied(job_id)
    assert stored(data_directory) == {
        f"{box}/{name}": data
        for box in containers
        for name, data in {"a": b"theirs", "a (2)": b"1", "a (3)": b"2"}.items()
    }
    with reading() as session:
        assert session.get_one(DriveCopy, (job_id, 1)).staging_containers == containers


def test_blobs_are_taken_together_as_far_as_memory_has_room_for_their_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of more pieces than that comes alone; of small ones as many as are asked for."""
    monkeypatch.setattr("tasks.orders.PIECES_MAX", 10)
    pieces = [1, 1, 1, 9, 2, 50, 0, 10, 1]
    blobs = [
        Blob(f"data/{n}", "file", count, blocks=tuple(Block(at, 1, "0" * 32) for at in range(count)))
        for n, count in enumerate(pieces)
    ]
    held = [[len(blob.blocks) for _, blob in batch] for batch in in_batches(enumerate(blobs), 2)]
    assert held == [[1, 1], [1, 9], [2], [50], [0, 10], [1]]


# -- what cannot be copied -------------------------------------------------------------------------------

_SMALL: Final = b"0123456789"
_BIG: Final = random_bytes(3 * _B + 5, 7)


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def failed_blob(
    data_directory: Path,
    data: bytes = _SMALL,
    on_drive: bytes | None = None,
    spoil: Callable[[Path], None] | None = None,
    **listed: Any,
) -> LoggedBlob:
    """Copy a drive whose second blob is bad; its neighbours arrive, it does not, and its log entry is given."""
    good = random_bytes(_B + 1)
    bad = Listed("data/bad", data, on_drive=on_drive, file="bad file", **listed)
    entry = mount_by_hand(data_directory, "SERIAL1", [Listed("data/1", good), bad, Listed("data/3", b"3")])
    if spoil:
        spoil(data_directory / "bay" / "SERIAL1" / "bad file")
    job_id = received_of_entries([entry])
    copied(job_id)
    assert stored(data_directory) == {"data/1": good, "data/3": b"3"}, "only the good ones are there"
    log, drive = log_of(data_directory), drive_of(job_id)
    assert (drive.state, drive.copy_status, log.status) == (
        DriveState.COMPLETED_MORE_INFO,
        DriveStatus.COMPLETED_WITH_ERRORS,
        DriveStatus.COMPLETED_WITH_ERRORS,
    )
    assert drive.bytes_succeeded == len(good) + 1
    (blob,) = log.blobs
    assert (blob.blob_path, blob.file_path, blob.length) == ("data/bad", "bad file", len(data))
    assert blob.disposition_status is DispositionStatus.CANCELLED
    return blob


@pytest.mark.parametrize("at", [0, _B, 2 * _B + 17, 3 * _B + 4])
def test_a_corrupted_block_never_counts(data_directory: Path, sqlite: str, at: int) -> None:
    """One bit in any block: that block is Corrupted, the others are Uncommitted, the blob is not there."""
    blob = failed_blob(data_directory, _BIG, _flip(_BIG, at))
    assert blob.status is BlobStatus.COMPLETED_WITH_ERRORS
    statuses = [BlockStatus.UNCOMMITTED] * 4
    statuses[at // _B] = BlockStatus.CORRUPTED
    assert [block.status for block in blob.blocks] == statuses


def test_a_corrupted_small_file_never_counts(data_directory: Path, sqlite: str) -> None:
    """The only block is Corrupted."""
    blob = failed_blob(data_directory, _SMALL, _flip(_SMALL, 3))
    assert blob.status is BlobStatus.COMPLETED_WITH_ERRORS
    assert [block.status for block in blob.blocks] == [BlockStatus.CORRUPTED]


@pytest.mark.parametrize(
    ("data", "keep", "block"), [(_SMALL, 9, 0), (_SMALL, 0, 0), (_BIG, 2 * _B, 2), (_BIG, len(_BIG) - 1, 3)]
)
def test_a_truncated_file_is_told_where_it_ends(
    data_directory: Path, sqlite: str, data: bytes, keep: int, block: int
) -> None:
    """The block that the file does not fill is FileUnexpectedEnd."""
    blob = failed_blob(data_directory, data, data[:keep])
    assert blob.status is BlobStatus.COMPLETED_WITH_ERRORS
    assert [each.status for each in blob.blocks].index(BlockStatus.FILE_UNEXPECTED_END) == block


@pytest.mark.parametrize("data", [b"", _SMALL, _BIG], ids=["empty", "small", "big"])
def test_a_longer_file_is_not_the_one_that_is_listed(data_directory: Path, sqlite: str, data: bytes) -> None:
    """One byte too many, though all listed blocks would be right."""
    assert failed_blob(data_directory, data, data + b"!").status is BlobStatus.FAILED


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _link_out(file: Path) -> None:
    secret = file.parents[2] / "secret"
    secret.write_bytes(_SMALL)
    file.unlink()
    file.symlink_to(secret)


def _link_in_circles(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (Path.unlink, BlobStatus.FILE_NOT_FOUND),
        (_directory, BlobStatus.FILE_NOT_FOUND),
        (_pipe, BlobStatus.FILE_NOT_FOUND),
        (_link_out, BlobStatus.FILE_NOT_FOUND),
    ],
    ids=["missing", "directory", "pipe", "link out of the drive"],
)
def test_what_is_no_file_of_the_drive_is_told(
    data_directory: Path, sqlite: str, spoil: Callable[[Path], None], status: BlobStatus
) -> None:
    """What lies outside the drive is not read, even where its content would be right."""
    assert failed_blob(data_directory, spoil=spoil).status is status


def test_a_link_in_circles_fails_its_blob_alone(data_directory: Path, sqlite: str) -> None:
    """Python names it differently from version to version."""
    status = failed_blob(data_directory, spoil=_link_in_circles).status
    assert status in {BlobStatus.FILE_NOT_FOUND, BlobStatus.IO_FAILED}


@pytest.mark.parametrize(
    ("error", "status"),
    [(PermissionError(13, "no"), BlobStatus.FILE_ACCESS_DENIED), (OSError(5, "I/O"), BlobStatus.IO_FAILED)],
)
def test_a_file_that_cannot_be_opened_is_told(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch, error: OSError, status: BlobStatus
) -> None:
    """By why; tests may run as root, who may read everything, so the refusal is made."""
    really_open = os.open

    def refuse(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path).endswith("bad file"):
            raise error
        return really_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    assert failed_blob(data_directory).status is status


def test_a_block_that_cannot_be_read_is_told(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad sector in the second block of four."""
    really_read = os.pread

    def read(file: int, length: int, offset: int) -> bytes:
        if offset == _B and Path(f"/proc/self/fd/{file}").readlink().name == "bad file":
            raise OSError(5, "I/O")
        return really_read(file, length, offset)

    monkeypatch.setattr(os, "pread", read)
    blob = failed_blob(data_directory, _BIG)
    assert blob.status is BlobStatus.IO_FAILED
    assert [block.status for block in blob.blocks].index(BlockStatus.IO_FAILED) == 1


def test_a_page_blobs_file_that_lost_its_end_is_told(tmp_path: Path) -> None:
    """Though no range lies there."""
    (tmp_path / "disk").write_bytes(bytes(512))
    blob = Blob("data/disk", "disk", 1024, is_page_blob=True)
    with pytest.raises(BlobFailedError), DriveFiles(tmp_path).opened(blob):
        pass
    (tmp_path / "disk").write_bytes(bytes(1024))
    with DriveFiles(tmp_path).opened(blob):
        pass


def test_a_page_blob_is_told_as_failed(data_directory: Path, sqlite: str) -> None:
    """A folder has no page blobs; better told than half done."""
    assert failed_blob(data_directory, bytes(512), is_page_blob=True).status is BlobStatus.FAILED


@pytest.mark.parametrize("name", [".drivepost/x", ".drivepost"])
def test_a_blob_may_not_be_named_as_what_is_laid_aside(data_directory: Path, sqlite: str, name: str) -> None:
    """It is told, and the big blobs after it can be laid aside all the same."""
    big = random_bytes(_B + 1)
    listed = [Listed(f"data/{name}"), Listed("data/big", big)]
    copied(received_by_hand(data_directory, {"SERIAL1": listed}))
    assert stored(data_directory) == {"data/big": big}
    assert told(data_directory) == {"files\\0": (BlobStatus.FILE_NAME_INVALID, DispositionStatus.CANCELLED)}


@pytest.mark.parametrize("name", ["y" * 256, "1/below a blob"])
def test_a_name_that_the_store_cannot_hold_is_told(data_directory: Path, sqlite: str, name: str) -> None:
    """The folder store knows no blob below a blob, no part over 255 bytes; the others go on."""
    listed = [Listed("data/1"), Listed(f"data/{name}"), Listed("data/3")]
    copied(received_by_hand(data_directory, {"SERIAL1": listed}))
    assert stored(data_directory) == {"data/1": b"x", "data/3": b"x"}
    failed = (BlobStatus.BLOB_REQUEST_FAILED, DispositionStatus.CANCELLED)
    assert told(data_directory) == {"files\\1": failed}


@pytest.mark.parametrize("place", ["/etc/passwd", "..\\..\\secret", "..\\SERIAL2\\a", "x\0y", ""])
def test_nothing_outside_of_a_drive_is_found(data_directory: Path, place: str) -> None:
    """Whatever a manifest or a job may name."""
    make_source(data_directory / "bay", {"SERIAL1/a": b"", "SERIAL2/a": b""})
    make_source(data_directory, {"secret": b""})
    with pytest.raises(FileNotFoundError):
        find_file(data_directory / "bay" / "SERIAL1", place)


def test_a_link_within_the_drive_is_followed(data_directory: Path) -> None:
    """It is the drive's own."""
    drive = make_source(data_directory / "bay" / "SERIAL1", {"folder/a": b"a"})
    (drive / "link").symlink_to("folder/a")
    assert find_file(drive, "\\link").read_bytes() == b"a"


_METADATA: Final = b"<Metadata><camera>Nikon</camera></Metadata>"
_PROPERTIES: Final = b"<Properties><Content-Type>image/jpeg</Content-Type></Properties>"


@pytest.mark.parametrize("length", [3, _B + 3], ids=["one block", "two blocks"])
def test_metadata_and_properties_come_with_their_blob(data_directory: Path, sqlite: str, length: int) -> None:
    """The store keeps them, and nothing is to be told; a blob without them has its MD5 alone."""
    data = random_bytes(length)
    metadata, properties = attached_file("meta", _METADATA), attached_file("folder\\prop", _PROPERTIES)
    listed = [Listed("data/a", data, metadata=metadata, properties=properties), Listed("data/b", data)]
    job_id = received_by_hand(data_directory, {"SERIAL1": listed})
    make_source(data_directory / "bay" / "SERIAL1", {"meta": _METADATA, "folder/prop": _PROPERTIES})
    copied(job_id)
    assert log_of(data_directory) == CopyLog("SERIAL1", [], DriveStatus.COMPLETED)
    container = FolderContainer(data_directory / "store" / "account1" / "data", "data")
    md5 = hashlib.md5(data, usedforsecurity=False).digest()
    kept = container.stat("a").facts
    assert (kept.content_type, kept.metadata, kept.content_md5) == ("image/jpeg", {"camera": "Nikon"}, md5)
    assert container.stat("b").facts == BlobFacts(content_md5=md5)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (None, AttachedStatus.FILE_NOT_FOUND),
        (_METADATA.replace(b"Nikon", b"NIkon"), AttachedStatus.CORRUPTED),
        (b"<Metadata", AttachedStatus.XML_READ_FAILED),
        (b"<Metadata><a>" + b"x" * 70_000 + b"</a></Metadata>", AttachedStatus.XML_READ_FAILED),
    ],
    ids=["missing", "corrupted", "no XML", "too long"],
)
def test_metadata_that_cannot_be_read_is_told(
    data_directory: Path, sqlite: str, content: bytes | None, status: AttachedStatus
) -> None:
    """The blob comes without it; so with properties. Cancelled where the blob was skipped."""
    put(data_directory, "taken")
    right = _METADATA if status is AttachedStatus.CORRUPTED else content or b""
    attached = attached_file("meta", right)
    listed = [
        Listed("data/a", b"a", metadata=attached, properties=attached),
        Listed("data/taken", b"b", _KEEP, metadata=attached),
        Listed("data/c", b"c"),
    ]
    job_id = received_by_hand(data_directory, {"SERIAL1": listed})
    if content is not None:
        make_source(data_directory / "bay" / "SERIAL1", {"meta": content})
    copied(job_id)
    assert stored(data_directory) == {"data/a": b"a", "data/c": b"c", "data/taken": b"theirs"}
    log = log_of(data_directory)
    assert [(blob.status, blob.metadata_status, blob.properties_status) for blob in log.blobs] == [
        (BlobStatus.COMPLETED_WITH_ERRORS, status, status),
        (BlobStatus.COMPLETED, AttachedStatus.CANCELLED, None),
    ]
    assert drive_of(job_id).copy_status is DriveStatus.COMPLETED_WITH_ERRORS


def test_a_failed_blob_is_logged_by_the_path_it_was_to_have(data_directory: Path, sqlite: str) -> None:
    """Not by one that was looked for it and never used."""
    put(data_directory, "a")
    listed = [Listed("data/a", b"ours", on_drive=b"Ours")]
    copied(received_by_hand(data_directory, {"SERIAL1": listed}))
    assert [blob.blob_path for blob in log_of(data_directory).blobs] == ["data/a"]


# -- the store -------------------------------------------------------------------------------------------


def test_a_store_that_refuses_one_blob_fails_that_blob_alone(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others go on, and the log tells."""
    really_put = FolderContainer.put

    def refuse(container: FolderContainer, path: str, *args: Any, **kwargs: Any) -> None:
        if path == "bad":
            raise StoreError("the store refused: Test")
        really_put(container, path, *args, **kwargs)

    monkeypatch.setattr(FolderContainer, "put", refuse)
    assert failed_blob(data_directory).status is BlobStatus.BLOB_REQUEST_FAILED


class Moody:
    """Makes calls of a store fail now and then, before they did anything or when only their answer is lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
        monkeypatch.setattr("tasks.way._PAUSES_SECONDS", (0.0,) * 9)
        self._rng, self._share = random.Random("drivepost"), share  # noqa: S311  no secret
        self.faults = 0
        for holder, names in ((FolderContainer, _ASKED), (_FolderUpload, ("write", "read", "commit"))):
            for name in names:
                monkeypatch.setattr(holder, name, self._moody(getattr(holder, name)))

    def _moody(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def answer(*args: Any, **kwargs: Any) -> Any:
            is_log = getattr(args[0], "name", "") == "waimportexport"
            luck = 1 if is_log else self._rng.random() / self._share
            told = act(*args, **kwargs) if luck >= 0.5 else None
            if luck < 1:
                self.faults += 1
                raise StoreBusyError("the store is busy: Test")
            return told

        return answer


_ASKED: Final = ("list", "exists", "stat", "read", "put", "upload", "delete", "drop")


def test_a_store_that_is_busy_now_and_then_loses_no_blob(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its requests every fourth fails; names that are taken are told as on any other day."""
    listed = [Listed(f"data/{n}", random_bytes(n, n)) for n in range(60)]
    listed += [Listed(f"data/{disposition}", b"ours", disposition) for disposition in ImportDisposition]
    listed += [Listed("data/big", random_bytes(5 * _B, 5))]
    for disposition in ImportDisposition:
        put(data_directory, disposition)
    job_id = received_by_hand(data_directory, {"SERIAL1": listed})
    with monkeypatch.context() as moody:
        store = Moody(moody, 0.25)
        copied(job_id)
    assert store.faults > 20
    wanted = {each.path: each.data for each in listed} | {f"data/{_KEEP}": b"theirs", f"data/{_RENAME}": b"theirs"}
    assert stored(data_directory) == {**wanted, f"data/{_RENAME} (2)": b"ours"}
    assert [(blob.status, blob.disposition_status) for blob in log_of(data_directory).blobs] == [
        (BlobStatus.COMPLETED, DispositionStatus.SKIPPED),
        (BlobStatus.COMPLETED, DispositionStatus.OVERWRITTEN),
        (BlobStatus.COMPLETED, DispositionStatus.RENAMED),
    ]


@pytest.mark.parametrize("takes_others", [True, False])
def test_a_store_that_stays_busy_fails_the_blob_if_it_takes_others_and_else_ends_the_run(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch, takes_others: bool
) -> None:
    """One blob that never comes through keeps no drive for ever; nor is a store's bad hour any blob's fault."""
    monkeypatch.setattr("tasks.way._PAUSES_SECONDS", (0.0, 0.0))
    job_id = received_job(data_directory, {"SERIAL1": {"a": b"a", "b": b"b"}})
    really_put, tries = FolderContainer.put, 0

    def busy(container: FolderContainer, path: str, *args: Any, **kwargs: Any) -> str:
        nonlocal tries
        if path == "b":
            tries += 1
            raise StoreBusyError("the store is busy: Test")
        return really_put(container, path, *args, **kwargs)

    def busy_too(*_: object) -> None:
        raise StoreBusyError("the store is busy: Test")

    with monkeypatch.context() as patch:
        patch.setattr(FolderContainer, "put", busy)
        if not takes_others:
            patch.setattr(FolderContainer, "probe", busy_too)
        ended = import_drives.fn(str(job_id))
    if takes_others:
        assert ended.is_completed()
        assert tries == 2 * 3
        (blob,) = log_of(data_directory).blobs
        assert (blob.blob_path, blob.status) == ("data/b", BlobStatus.BLOB_REQUEST_FAILED)
        return
    assert (ended.message or "").startswith("StoreFailed: the store is busy")
    assert tries == 3
    copied(job_id)
    assert stored(data_directory) == {"data/a": b"a", "data/b": b"b"}
    assert log_of(data_directory) == CopyLog("SERIAL1", [], DriveStatus.COMPLETED)


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_a_store_that_is_away_loses_nothing(
    data_directory: Path, any_database: str, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """The run ends as StoreFailed and gives its lease back; a later one completes, and no blob is told of."""
    files = {"a": b"a", "b": random_bytes(3 * _B), "c": b"c"}
    job_id = received_job(data_directory, {"SERIAL1": files})
    lock, writes = threading.Lock(), 0

    def goes_away(act: Callable[..., Any]) -> Callable[..., Any]:
        def away(*args: Any, **kwargs: Any) -> Any:
            nonlocal writes
            with lock:
                writes += 1
                if writes > after:
                    raise StoreError("the store refused: Test")
            return act(*args, **kwargs)

        return away

    with monkeypatch.context() as away:
        for holder, name in ((FolderContainer, "put"), (FolderContainer, "probe"), (_FolderUpload, "write")):
            away.setattr(holder, name, goes_away(getattr(holder, name)))
        ended = import_drives.fn(str(job_id))
    assert ended.is_failed()
    assert (ended.message or "").startswith("StoreFailed: ")
    with reading() as session:
        assert read_job(session, job_id).copy_lease_until is None
    copied(job_id)
    assert stored(data_directory) == {f"data/{name}": data for name, data in files.items()}
    assert log_of(data_directory) == CopyLog("SERIAL1", [], DriveStatus.COMPLETED)


def test_a_store_that_is_full_loses_nothing(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It still takes what is empty; that does not make every blob a bad one."""
    job_id = received_job(data_directory, {"SERIAL1": {"a": b"a", "b": b"b"}})

    def no_room(*_: Any, **__: Any) -> None:
        raise StoreError("the store refused: Test")

    def takes_what_is_empty(_: Any, __: str, length: int) -> None:
        if length:
            no_room()

    with monkeypatch.context() as full:
        full.setattr(FolderContainer, "put", no_room)
        full.setattr(FolderContainer, "probe", takes_what_is_empty)
        assert (import_drives.fn(str(job_id)).message or "").startswith("StoreFailed: ")
    copied(job_id)
    assert log_of(data_directory) == CopyLog("SERIAL1", [], DriveStatus.COMPLETED)


@pytest.mark.parametrize("call", ["put", "upload", "write", "commit"])
def test_a_container_that_is_gone_is_told_as_a_store_that_fails(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Stores in a cloud answer "not found" to a write; the drive waits, and is not given up."""
    job_id = received_job(data_directory, {"SERIAL1": {"a": random_bytes(_B + 1), "b": b"b"}})

    def not_found(*_: Any, **__: Any) -> None:
        raise BlobMissingError("the store has no such blob or container")

    def not_there(*_: Any) -> None:
        raise StoreError("the store refused: Test")

    with monkeypatch.context() as gone:
        gone.setattr(FolderContainer if call in {"put", "upload"} else _FolderUpload, call, not_found)
        gone.setattr(FolderContainer, "probe", not_there)
        assert (import_drives.fn(str(job_id)).message or "").startswith("StoreFailed: ")
    assert drive_of(job_id).state is DriveState.TRANSFERRING
    copied(job_id)
    assert drive_of(job_id).state is DriveState.COMPLETED


# -- while it is being written ---------------------------------------------------------------------------


def watching(data_directory: Path, stop: threading.Event) -> Iterator[tuple[Path, int]]:
    """Give each file seen under a final name with its size, again and again until the copy is over."""
    root = data_directory / "store" / "account1" / "data"
    while not stop.is_set():
        if not root.exists():
            continue
        for entry in os.scandir(root):
            if entry.is_file():
                yield Path(entry.path), entry.stat().st_size


def test_a_blob_is_never_seen_before_it_is_whole(data_directory: Path, sqlite: str) -> None:
    """Neither a blob of many blocks nor one of a single full block."""
    files = {"many": random_bytes(8 * _B + 1), "one": random_bytes(_B, 1)}
    job_id = received_job(data_directory, {"SERIAL1": files})
    stop, seen = threading.Event(), set[tuple[str, int]]()

    def watch() -> None:
        seen.update((path.name, size) for path, size in watching(data_directory, stop))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        copied(job_id)
        time.sleep(0.05)
    finally:
        stop.set()
        watcher.join()
    assert seen == {(name, len(data)) for name, data in files.items()}


def test_progress_grows_and_ends_at_the_total(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written down between blocks and between blobs, and never more than there is."""
    monkeypatch.setattr("tasks.blobs._RECORD_SECONDS", 0.0)
    monkeypatch.setenv("DRIVEPOST_COPY_POLL_SECONDS", "0.01")
    monkeypatch.setenv("DRIVEPOST_COPY_REQUESTS_AT_ONCE", "1")
    files = {"a": b"a" * 10, "b": random_bytes(4 * _B), "c": b"c" * 10}
    job_id = received_job(data_directory, {"SERIAL1": files})
    seen, told = watching_progress(monkeypatch, job_id)
    write = _FolderUpload.write

    def write_when_told(upload: _FolderUpload, part: Part, data: bytes) -> bool:
        assert told(20 + part.index * _B)
        return write(upload, part, data)

    monkeypatch.setattr(_FolderUpload, "write", write_when_told)
    copied(job_id)
    assert seen == sorted(seen)
    assert len(set(seen)) >= 6, "blocks of one blob are told one by one"
    assert seen[-1] == drive_of(job_id).bytes_succeeded == drive_of(job_id).bytes_total == 20 + 4 * _B


def watching_progress(monkeypatch: pytest.MonkeyPatch, job_id: UUID) -> tuple[list[int], Callable[[int], bool]]:
    """Take down every number of bytes that is told; and give a function that waits until so many are."""
    record, seen, changed = BlobCopier._record, list[int](), threading.Condition()

    def look(copier: BlobCopier) -> None:
        record(copier)
        with changed:
            seen.append(drive_of(job_id).bytes_succeeded)
            changed.notify_all()

    def told(count: int) -> bool:
        with changed:
            return changed.wait_for(lambda: max(seen, default=0) >= count, timeout=20)

    monkeypatch.setattr(BlobCopier, "_record", look)
    return seen, told


# -- stopped at any moment -------------------------------------------------------------------------------


class Signal(BaseException):
    """What a SIGTERM becomes in Prefect: an exception that may come between any two lines."""


def _raise_at_line(count: int) -> Callable[[FrameType, str, object], Any]:
    """Make a trace that raises at the `count`-th line that the copy's own thread comes to, where signals come."""
    copier_code = {
        function.__code__ for function in vars(BlobCopier).values() if isinstance(function, FunctionType)
    }
    copier_code -= {BlobCopier._run.__code__, BlobCopier.__init__.__code__}
    left = count

    def trace_line(_frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left == 0:
                raise Signal
        return trace_line

    def trace(frame: FrameType, _event: str, _arg: object) -> Any:
        return trace_line if frame.f_code in copier_code and left > 0 else None

    return trace


def test_a_signal_between_any_two_lines_mixes_nothing_up(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch, thorough: bool
) -> None:
    """Every blob is replaced by its own file and by no other, and counted once."""
    monkeypatch.setattr("tasks.blobs._RECORD_SECONDS", 0.0)
    monkeypatch.setattr("models.manifests.BLOCK_BYTES_MAX", 10)
    monkeypatch.setattr("tests.builders.BLOCK_BYTES_MAX", 10)
    monkeypatch.setattr("tasks.orders.BLOCK_BYTES_MAX", 10)
    contents = {"a": b"ours a", "b": b"ours b, of two blocks", "c": b"ours c"}
    step = 1 if thorough else 11
    for count in range(1, 2000, step):
        name = f"job{count}"
        for blob in contents:
            put(data_directory, blob, container=name)
        listed = [Listed(f"{name}/{blob}", data, _OVER) for blob, data in contents.items()]
        job_id = received_by_hand(data_directory, {f"SERIAL{count}": listed}, name)
        before = sys.gettrace()
        sys.settrace(_raise_at_line(count))
        try:
            import_drives.fn(str(job_id))
        except Signal:
            reached = True
        else:
            reached = False
        finally:
            sys.settrace(before)
        if not reached:
            break
        run_out(job_id)
        copied(job_id)
        container = data_directory / "store" / "account1" / name
        found = {path.name: path.read_bytes() for path in container.iterdir() if path.is_file()}
        assert found == contents, count
        assert drive_of(job_id).bytes_succeeded == sum(map(len, contents.values())), count
        assert not list(container.rglob(".drivepost/*")), count
    else:
        pytest.fail("the copy never came to its end")
    assert count > 60, "the copy has many lines"


@pytest.mark.parametrize("length", [3, _B + 3], ids=["one block", "two blocks"])
@pytest.mark.parametrize("md5_is_ours", [True, False])
def test_a_blob_that_was_damaged_before_a_cut_is_known_by_its_md5_and_sent_again(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch, length: int, md5_is_ours: bool
) -> None:
    """The run was cut after it had its name and before it was read back; what has another MD5 is not ours."""
    ours = random_bytes(length)
    job_id = received_job(data_directory, {"SERIAL1": {"a": ours}})
    name, bad = folder_store._name, _flip(ours, length - 1)

    def damage(laid: str, place: str, **kwargs: Any) -> None:
        name(laid, place, **kwargs)
        Path(place).write_bytes(bad)
        if not md5_is_ours:
            os.removexattr(place, "user.drivepost")
        raise Signal

    with monkeypatch.context() as cutting:
        cutting.setattr(folder_store, "_name", damage)
        with pytest.raises(Signal):
            import_drives.fn(str(job_id))
    run_out(job_id)
    copied(job_id)
    assert stored(data_directory) == ({"data/a": ours} if md5_is_ours else {"data/a": bad, "data/a (2)": ours})


def test_what_is_to_be_overwritten_is_not_taken_for_written_before_a_cut(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The customer's blob has the same content, and not yet the metadata that comes with ours."""
    put(data_directory, "a", b"same")
    listed = [Listed("data/a", b"same", _OVER, metadata=attached_file("meta", _METADATA))]
    job_id = received_by_hand(data_directory, {"SERIAL1": listed})
    make_source(data_directory / "bay" / "SERIAL1", {"meta": _METADATA})
    cut_at(monkeypatch, job_id, FolderContainer, "put")
    copied(job_id)
    container = FolderContainer(data_directory / "store" / "account1" / "data", "data")
    assert container.stat("a").facts.metadata == {"camera": "Nikon"}


def cut_at(monkeypatch: pytest.MonkeyPatch, job_id: UUID, holder: type, name: str) -> None:
    """Let a run be cut when it first comes to a call of the store."""

    def cut(*_: object, **__: object) -> None:
        raise Signal

    with monkeypatch.context() as cutting:
        cutting.setattr(holder, name, cut)
        with pytest.raises(Signal):
            import_drives.fn(str(job_id))
    run_out(job_id)


def test_what_another_wrote_meanwhile_is_not_taken_for_ours_that_was_damaged(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a cut, and of the same content: it stays, and there is no second one."""
    ours = random_bytes(_B + 3)
    job_id = received_job(data_directory, {"SERIAL1": {"a": ours}})
    cut_at(monkeypatch, job_id, _FolderUpload, "write")
    container = FolderContainer(data_directory / "store" / "account1" / "data", "data")
    facts = BlobFacts(content_md5=hashlib.md5(ours, usedforsecurity=False).digest())
    commit, e_tags = _FolderUpload.commit, list[str]()

    def commit_later(upload: _FolderUpload, *args: Any, **kwargs: Any) -> str:
        if not e_tags:
            e_tags.append(container.put("a", ours, facts, "theirs", overwrite=False))
        return commit(upload, *args, **kwargs)

    monkeypatch.setattr(_FolderUpload, "commit", commit_later)
    copied(job_id)
    assert stored(data_directory) == {"data/a": ours}
    assert [container.stat("a").e_tag] == e_tags
    assert not list(data_directory.rglob(".drivepost/**/*"))


def test_a_blob_whose_second_try_lost_its_answer_is_not_written_a_third_time(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there, and as it should be."""
    monkeypatch.setattr("tasks.way._PAUSES_SECONDS", (0.0,))
    job_id = received_job(data_directory, {"SERIAL1": {"a": b"ours"}})
    put_whole, tries = FolderContainer.put, list[str]()

    def losing(container: FolderContainer, path: str, *args: Any, **kwargs: Any) -> str:
        if path != "a":
            return put_whole(container, path, *args, **kwargs)
        tries.append(path)
        if len(tries) == 1:
            raise StoreError("the store refused: Test")
        told = put_whole(container, path, *args, **kwargs)
        if len(tries) == 2:
            raise StoreBusyError("its answer is lost")
        return told

    monkeypatch.setattr(FolderContainer, "put", losing)
    copied(job_id)
    assert stored(data_directory) == {"data/a": b"ours"}
    assert len(tries) == 3, "once refused, once written, once found there"


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_store_that_lets_us_only_write_keeps_no_copy_from_its_end_after_a_cut(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    """What the run before settled is written; cancelled instead, what lies aside goes and there is a log."""
    monkeypatch.setenv("DRIVEPOST_COPY_READS_BACK", "false")
    job_id = received_job(data_directory, {"SERIAL1": {"a": b"a", "b": random_bytes(_B + 3)}})

    def forbidden(*_: object, **__: object) -> None:
        raise ForbiddenError("the store does not let us: Test")

    for name in ("stat", "read", "list", "exists"):
        monkeypatch.setattr(FolderContainer, name, forbidden)
    cut_at(monkeypatch, job_id, _FolderUpload, "commit")
    if is_cancelled:
        assert cancel_job.fn(str(job_id)).is_completed()
        assert log_of(data_directory).status is DriveStatus.COMPLETED_WITH_ERRORS
        assert not list(data_directory.rglob(".drivepost/**/*"))
    else:
        copied(job_id)
        assert set(stored(data_directory)) == {"data/a", "data/b"}


def test_a_run_after_a_cut_tells_no_less_than_the_one_before(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks laid aside before the cut still count in the progress after it."""
    monkeypatch.setattr("tasks.blobs._RECORD_SECONDS", 0.0)
    monkeypatch.setenv("DRIVEPOST_COPY_POLL_SECONDS", "0.01")
    job_id = received_job(data_directory, {"SERIAL1": {"a": random_bytes(4 * _B)}})
    write, record, is_cut = _FolderUpload.write, BlobCopier._record, threading.Event()

    def write_three(upload: _FolderUpload, part: Part, data: bytes) -> bool:
        if part.index == 3:
            assert is_cut.wait(20)
            raise StoreError("the store refused: Test")
        return write(upload, part, data)

    def cut_after_two(copier: BlobCopier) -> None:
        record(copier)
        if drive_of(job_id).bytes_succeeded >= 2 * _B:
            is_cut.set()
            raise Signal

    with monkeypatch.context() as cutting:
        cutting.setattr(_FolderUpload, "write", write_three)
        cutting.setattr(BlobCopier, "_record", cut_after_two)
        with pytest.raises(Signal):
            import_drives.fn(str(job_id))
    before = drive_of(job_id).bytes_succeeded
    assert before >= 2 * _B
    run_out(job_id)
    seen, _ = watching_progress(monkeypatch, job_id)
    copied(job_id)
    assert min(seen) >= before
    with reading() as session:
        assert session.get_one(DriveCopy, (job_id, 1)).bytes_committed == 4 * _B
        assert read_job(session, job_id).state is JobState.PACKAGING
