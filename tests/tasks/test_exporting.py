"""The export onto drives: what is asked for, byte by byte, and nothing else; told truly where it cannot be."""

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest
from sqlmodel import col, select

from flows.cancel_job import cancel_job
from flows.export_blobs import export_blobs
from flows.import_drives import import_drives
from models.bay import check_in
from models.blob_facts import BlobFacts, read_metadata, read_properties
from models.blob_lists import read_blob_list
from models.copies import BlobReport
from models.copy_logs import BlobStatus, DriveStatus, read_copy_log
from models.database import database_time, reading, writing
from models.drives import drives_of
from models.errors import CopyHeldElsewhereError, DriveError, LeaseLostError, StoreError
from models.jobs import read_job, request_cancel
from models.lifecycle import Actor, DriveState, JobState, JobType
from models.manifest_reader import check_manifest, iterate_blobs
from models.manifests import BLOCK_BYTES_MAX
from models.settings import Settings
from tasks import export_filling, export_reading, exporting
from tasks.containers import containers_of, open_container
from tasks.drives import carry_out_cancels, take_lease
from tasks.export_filling import Room
from tasks.export_journal import WORKING, ExportJournal
from tasks.export_reading import Errand
from tasks.exporting import export_drive
from tasks.folder_store import FolderContainer
from tasks.pulse import CopyLimits, Pulse
from tasks.stores import BlobMissingError, ForbiddenError, NameRefusedError, Part, StoreBusyError, StoredBlob
from tests.builders import (
    ACCOUNT,
    drive_of,
    job_in,
    logs_of,
    random_bytes,
    received_of_entries,
    run_out,
    stored,
)
from tests.posted_stores import KINDS, posted_store

LIMITS: Final = CopyLimits(60, 0.01, 64, 4, 32 * 2**20, reads_back=True)
FACTS: Final = BlobFacts("text/plain", "gzip", "de", "no-cache", None, {"colour": "grün".encode().hex(), "n": "1"})

NO_FACTS: Final = BlobFacts()
REFUSED: Final = f"data/{'y' * 256}"
"""A name that a manifest can hold, and a folder cannot."""


def store_address(account: str = ACCOUNT) -> str:
    """Give the store's address of an account."""
    return Settings().store_address(account)


def fill_store(blobs: Mapping[str, bytes], facts: BlobFacts = NO_FACTS) -> None:
    """Write blobs, container/name -> content, into the store of the default account, each with its MD5."""
    for path, data in blobs.items():
        container, _, name = path.partition("/")
        told = replace(facts, content_md5=hashlib.md5(data, usedforsecurity=False).digest())
        put(container, name, data, told)


def put(container: str, name: str, data: bytes, facts: BlobFacts) -> None:
    """Write one blob of any length."""
    folder = Settings().data_directory / "store" / "account1" / container
    held = FolderContainer(folder, container)
    held.put(name, data, facts, "test", overwrite=True)
    held.discard("test")


def export_job(
    drives: int = 1,
    name: str = "job1",
    *,
    paths: tuple[str, ...] = (),
    prefixes: tuple[str, ...] = (),
    **more: Any,
) -> UUID:
    """Make a Received Export job with empty drives E1, E2 … in the bay."""
    export = more.pop("export", {"blobList": {"blobPath": list(paths), "blobPathPrefix": list(prefixes)}})
    serials = [f"E{number}" for number in range(1, drives + 1)]
    for serial in serials:
        (Settings().bay / serial).mkdir(parents=True)
    with writing() as session:
        now = database_time(session)
        properties = {"jobType": "Export", "driveList": None, "export": export, **more}
        job_id = job_in(session, JobState.SHIPPING, name, now, **properties)
        check_in(session, job_id, serials, at=now, by=Actor.OPERATOR)
    return job_id


def send_back(job_id: UUID) -> None:
    """Let a job's drives be on their way back, so that another job may have them."""
    with writing() as session:
        for drive in drives_of(session, job_id):
            drive.state = DriveState.SHIPPED_BACK
            session.add(drive)


def run(job_id: UUID) -> str:
    """Run the flow; gives its message."""
    ended = export_blobs.fn(str(job_id))
    return str(ended.message)


def lease(job_id: UUID) -> int:
    """Take the lease on an Export job's copy."""
    token = take_lease.fn(job_id, JobType.EXPORT, 60)
    assert token is not None
    return token


def files_of(serial: str = "E1") -> dict[str, bytes]:
    """Read all files of a drive but its manifest and those beside blobs."""
    return {
        path: data
        for path, data in all_files_of(serial).items()
        if path != "DriveManifest.xml" and not path.endswith((".properties", ".metadata"))
    }


def all_files_of(serial: str = "E1") -> dict[str, bytes]:
    """Read all files of a drive."""
    folder = Settings().bay / serial
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def listed_on(serial: str = "E1") -> dict[str, bytes]:
    """Read a drive as its manifest tells: blob path -> content; every hash and rule is checked."""
    folder = Settings().bay / serial
    found = {}
    manifest = (folder / "DriveManifest.xml").read_bytes()
    check_manifest(BytesIO(manifest))
    for blob in iterate_blobs(BytesIO(manifest)):
        data = folder.joinpath(*blob.file_path.split("\\")).read_bytes()
        assert len(data) == blob.length
        for piece in blob.blocks or blob.page_ranges:
            part = data[piece.offset : piece.offset + piece.length]
            assert hashlib.md5(part, usedforsecurity=False).hexdigest().upper() == piece.hash
        for attached in (blob.metadata, blob.properties):
            if attached:
                told = folder.joinpath(*attached.path.split("\\")).read_bytes()
                assert hashlib.md5(told, usedforsecurity=False).hexdigest().upper() == attached.hash
        found[blob.blob_path] = data
    return found


def reports(job_id: UUID) -> dict[str, BlobStatus]:
    """Read what is reported: blob path -> status."""
    with reading() as session:
        rows = session.exec(select(BlobReport).where(col(BlobReport.job_id) == job_id)).all()
        return {row.blob_path: row.status for row in rows}


@pytest.fixture(autouse=True)
def _world(sqlite: str, plain_acts: None) -> None:
    """Every test has a database of its own, and flows without Prefect."""


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say how many bytes each drive has free, E1 first."""

    def set_rooms(*free: int) -> None:
        said = {f"E{number}": Room(each, 1) for number, each in enumerate(free, 1)}
        monkeypatch.setattr(Room, "on", lambda drive: replace(said[drive.name]))
        monkeypatch.setattr(export_filling, "_ENTRY_BYTES", 0)
        monkeypatch.setattr(export_filling, "_PIECE_ENTRY_BYTES", 0)
        # Two bytes of each are the files beside the blob.

    return set_rooms


BLOBS: Final = {
    "data/a.txt": b"a",
    "data/empty": b"",
    "data/folder/b.bin": random_bytes(BLOCK_BYTES_MAX + 17),
    "data/größe 🚚.txt": b"umlaut",
    "$root/top": b"root",
    "other/c": b"c" * 100,
}


def test_all_blobs_of_an_account_come_to_the_drive() -> None:
    """Byte by byte, with properties and metadata; the job is Packaging, the row tells of all of it."""
    fill_store(BLOBS, FACTS)
    job_id = export_job(prefixes=("/",))
    assert run(job_id) == f"job {job_id} is copied, and its drives wait to be sent back"
    assert listed_on() == BLOBS
    assert files_of() == BLOBS
    drive = drive_of(job_id)
    total = sum(map(len, BLOBS.values()))
    assert (drive.state, drive.copy_status) == (DriveState.COMPLETED, DriveStatus.COMPLETED)
    assert (drive.bytes_total, drive.bytes_succeeded) == (total, total)
    manifest = all_files_of()["DriveManifest.xml"]
    assert drive.manifest_file == "\\DriveManifest.xml"
    assert drive.manifest_hash == hashlib.md5(manifest, usedforsecurity=False).hexdigest().upper()
    assert not (Settings().bay / "E1" / WORKING).exists()
    told = all_files_of()["data/a.txt.properties"]
    assert read_properties(told) == BlobFacts(
        "text/plain", "gzip", "de", "no-cache", hashlib.md5(b"a", usedforsecurity=False).digest()
    )
    assert b"<Content-Length>1</Content-Length>" in told
    assert read_metadata(all_files_of()["data/a.txt.metadata"]) == FACTS.metadata
    with reading() as session:
        assert read_job(session, job_id).state is JobState.PACKAGING
        assert read_job(session, job_id).incomplete_blob_list_uri is None
    assert run(job_id).startswith("nothing to do")


def test_what_was_exported_can_be_imported_and_exported_again(thorough: bool) -> None:
    """Names, bytes, properties and metadata are equal after an import of the drive into another account."""
    draw = random.Random(5)  # noqa: S311  the same each time
    blobs = {}
    for number in range(300 if thorough else 20):
        folder = draw.choice(["data/", "other/", "$root/", "data/deep/er/", "data/Deep/"])
        length = draw.choice([0, 1, 4096, BLOCK_BYTES_MAX, BLOCK_BYTES_MAX + 1])
        blobs[f"{folder}blob {number}.bin"] = random_bytes(length, number)
    fill_store(blobs, FACTS)
    job_id = export_job(prefixes=("/",))
    run(job_id)
    drive = drive_of(job_id)
    entry = {"driveId": "E1", "manifestFile": drive.manifest_file, "manifestHash": drive.manifest_hash}
    second = ACCOUNT.replace("account1", "account2")
    send_back(job_id)
    imported = received_of_entries([entry], "job2", storageAccountId=second)
    assert "is copied" in str(import_drives.fn(str(imported)).message)
    assert drive_of(imported).copy_status is DriveStatus.COMPLETED
    for path, data in blobs.items():
        container, _, name = path.partition("/")
        held = open_container(store_address(second), container)
        found = held.stat(name)
        assert held.read(name, 0, len(data) + 1) == data
        assert found.facts == replace(FACTS, content_md5=hashlib.md5(data, usedforsecurity=False).digest())
    assert {path for path in stored(Settings().data_directory, "account2") if "waies" not in path} == set(blobs)
    send_back(imported)
    shutil.rmtree(Settings().bay)
    again = export_job(name="job3", prefixes=("/",), storageAccountId=second)
    run(again)
    assert {path: data for path, data in listed_on().items() if "waies" not in path} == blobs


def test_paths_and_prefixes_are_taken_together_and_each_blob_once() -> None:
    """In the order of the list: paths first; what is not there is reported, and the rest goes on."""
    fill_store({**BLOBS, "bob/x": b"1", "bobkids/x": b"2", "alice/x": b"3"})
    job_id = export_job(
        paths=("bob/x", "/$root/top", "data/none", "data/none", "BAD/x", REFUSED), prefixes=("/bob", "/data/a")
    )
    run(job_id)
    assert list(listed_on()) == ["$root/top", "bob/x", "bobkids/x", "data/a.txt"]
    assert reports(job_id) == {
        "data/none": BlobStatus.FILE_NOT_FOUND,
        "BAD/x": BlobStatus.FILE_NAME_INVALID,
        REFUSED: BlobStatus.BLOB_REQUEST_FAILED,
    }
    assert drive_of(job_id).copy_status is DriveStatus.COMPLETED_WITH_ERRORS
    (log,) = logs_of(Settings().data_directory)
    with log.open("rb") as stream:
        told = read_copy_log(stream)
    assert [(blob.blob_path, blob.status) for blob in told.blobs] == [
        ("data/none", BlobStatus.FILE_NOT_FOUND),
        ("BAD/x", BlobStatus.FILE_NAME_INVALID),
        (REFUSED, BlobStatus.BLOB_REQUEST_FAILED),
    ]


def test_a_list_blob_is_taken_as_a_list_of_the_job() -> None:
    """From the account itself, read piece by piece."""
    fill_store(BLOBS)
    listed = b"<BlobList><BlobPath>data/a.txt</BlobPath><BlobPathPrefix>/other/</BlobPathPrefix></BlobList>"
    fill_store({"lists/my list.xml": listed})
    job_id = export_job(export={"blobListBlobPath": "/lists/my list.xml"})
    run(job_id)
    assert set(listed_on()) == {"data/a.txt", "other/c"}


@pytest.mark.parametrize("listed", [b"no list", b"<BlobList><BlobPathPrefix>x</BlobPathPrefix></BlobList>", None])
def test_a_list_blob_that_is_none_is_the_drives_status(listed: bytes | None) -> None:
    """Nothing is exported, and the log says why."""
    fill_store(BLOBS)
    if listed is not None:
        fill_store({"lists/list.xml": listed})
    job_id = export_job(2, export={"blobListBlobPath": "lists/list.xml"})
    run(job_id)
    for number in (1, 2):
        drive = drive_of(job_id, number)
        assert drive.copy_status is DriveStatus.BLOB_LIST_FORMAT_INVALID
        assert drive.state is DriveState.COMPLETED_MORE_INFO
        assert all_files_of(f"E{number}") == {}
    assert len(logs_of(Settings().data_directory)) == 2


def test_verbose_logs_and_the_manifests_copy_lie_in_the_account() -> None:
    """Every blob with when it was last modified and all of its blocks."""
    fill_store(BLOBS, FACTS)
    job_id = export_job(
        paths=("other/none",), prefixes=("/data/", "/$root/"), logLevel="Verbose", backupDriveManifest=True
    )
    run(job_id)
    drive = drive_of(job_id)
    (verbose,) = logs_of(Settings().data_directory, "verbose")
    (manifest,) = logs_of(Settings().data_directory, "manifest")
    assert (drive.verbose_log_uri, drive.manifest_uri) == (verbose.as_uri(), manifest.as_uri())
    assert manifest.read_bytes() == all_files_of()["DriveManifest.xml"]
    with verbose.open("rb") as stream:
        told = read_copy_log(stream)
    with manifest.open("rb") as stream:
        listed = {blob.blob_path: blob for blob in iterate_blobs(stream)}
    assert told.status is DriveStatus.COMPLETED_WITH_ERRORS
    assert {blob.blob_path for blob in told.blobs} == {*listed, "other/none"}
    for blob in told.blobs[1:]:
        assert blob.went_well
        assert blob.last_modified is not None
        assert [block.hash for block in blob.blocks] == [block.hash for block in listed[blob.blob_path].blocks]


# Room.


def test_drives_are_filled_in_order_and_no_blob_spans_two(rooms: Callable[..., None]) -> None:
    """The next drive begins with the first blob that did not fit; a drive for which none is left is empty."""
    blobs = {
        f"data/{name}": random_bytes(size, at)
        for at, (name, size) in enumerate(zip("abcd", (40, 50, 30, 20), strict=True))
    }
    fill_store(blobs)
    rooms(100, 100, 100)
    job_id = export_job(3, prefixes=("/data/",))
    run(job_id)
    assert [list(listed_on(f"E{number}")) for number in (1, 2, 3)] == [
        ["data/a", "data/b"],
        ["data/c", "data/d"],
        [],
    ]
    assert [drive_of(job_id, number).copy_status for number in (1, 2, 3)] == [DriveStatus.COMPLETED] * 3
    assert reports(job_id) == {}


def test_what_fits_nowhere_is_listed_for_the_next_job(rooms: Callable[..., None]) -> None:
    """It keeps no other blob out; the list is one that a job takes."""
    sizes = {"a": 200, "b": 50, "c": 60, "d": 30, "e": 45}
    blobs = {f"data/{name}": random_bytes(size, size) for name, size in sizes.items()}
    fill_store(blobs)
    rooms(100, 100)
    job_id = export_job(2, prefixes=("/data/",))
    run(job_id)
    assert list(listed_on("E1")) == ["data/b"]
    assert list(listed_on("E2")) == ["data/c", "data/d"]
    assert reports(job_id) == {"data/a": BlobStatus.FAILED, "data/e": BlobStatus.FAILED}
    with reading() as session:
        uri = read_job(session, job_id).incomplete_blob_list_uri
    (listed,) = logs_of(Settings().data_directory, "incomplete")
    assert uri == listed.as_uri()
    with listed.open("rb") as stream:
        assert read_blob_list(stream).paths == ("data/a", "data/e")
    rooms(1000)
    send_back(job_id)
    shutil.rmtree(Settings().bay)
    container = "waimportexport"
    path = str(listed.relative_to(Settings().data_directory / "store" / "account1" / container))
    again = export_job(1, "job2", export={"blobListBlobPath": f"{container}/{path}"})
    run(again)
    assert set(listed_on()) == {"data/a", "data/e"}


def test_a_blob_that_went_between_two_drives_hides_none_behind_it(
    rooms: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next drive goes on where that one stood."""
    fill_store({f"data/{name}": random_bytes(40, at) for at, name in enumerate("abcd")})
    rooms(100, 100)
    plan = export_filling.plan_drive
    said = []

    def losing(*args: Any) -> None:
        said.append(args)
        if len(said) == 2:
            return plan(*args)
        plan(*args)
        (Settings().data_directory / "store/account1/data/b").unlink()
        return None

    monkeypatch.setattr(exporting, "plan_drive", losing)
    job_id = export_job(2, prefixes=("/data/",))
    run(job_id)
    assert (list(listed_on("E1")), list(listed_on("E2"))) == (["data/a"], ["data/c", "data/d"])
    assert reports(job_id) == {"data/b": BlobStatus.FILE_NOT_FOUND}


def test_a_real_drive_tells_its_room(tmp_path: Path) -> None:
    """Less than the disk has, in clusters."""
    room = Room.on(tmp_path)
    assert 0 < room.free < shutil.disk_usage(tmp_path).free
    assert room.needed(1) >= 3 * room.cluster
    assert room.needed(10 * BLOCK_BYTES_MAX) > 10 * BLOCK_BYTES_MAX
    assert not room.has_for(shutil.disk_usage(tmp_path).free)


# Names.


def test_hostile_names_lie_on_the_drive_under_safe_ones_each_its_own() -> None:
    """Devices, reserved characters, dots at the end, case, folders that are files, files beside blobs."""
    names = [
        "CON",
        "con.txt",
        "a:b",
        "a?b",
        "a_b",
        "A_B",
        "name.",
        "name_",
        "x/y",
        "X/Y",
        "x/y.properties",
        "x/y.metadata",
        "nul /aux.c",
        "é",
        "e\u0301",
        "long" * 60,
        "q\\r",
        "tab\tin",
        "..hidden",
        " space",
        "...a",
    ]
    blobs = {f"data/{name}": name.encode() for name in names}
    fill_store(blobs, FACTS)
    job_id = export_job(prefixes=("/data/",))
    run(job_id)
    assert listed_on() == blobs
    files = list(all_files_of())
    assert len({name.lower() for name in files}) == len(files) == 3 * len(names) + 1
    assert all(not set(name) & set('<>:"\\|?*\t') for name in files)
    assert reports(job_id) == {}


def test_names_that_no_manifest_can_hold_are_told_of() -> None:
    """The others come all the same."""
    folder = Settings().data_directory / "store" / "account1"
    fill_store({"data/good": b"1"})
    (folder / "data" / "bad\x01name").write_bytes(b"2")
    (folder / "BAD_CONTAINER").mkdir()
    (folder / "BAD_CONTAINER" / "x").write_bytes(b"3")
    job_id = export_job(prefixes=("/",))
    run(job_id)
    assert list(listed_on()) == ["data/good"]
    assert set(reports(job_id).values()) == {BlobStatus.FILE_NAME_INVALID}
    assert len(reports(job_id)) == 2


def test_nothing_outside_the_drive_and_nothing_of_others_on_it_is_written(tmp_path: Path) -> None:
    """Links and files that were there stay as they are; blobs get other names."""
    fill_store({"data/a": b"1", "other/b": b"2"})
    job_id = export_job(prefixes=("/",))
    drive, outside = Settings().bay / "E1", tmp_path / "outside"
    outside.mkdir()
    (drive / "data").symlink_to(outside)
    (drive / ".drivepost").symlink_to(outside)
    (drive / "other").mkdir()
    (drive / "other" / "b").write_bytes(b"somebody's")
    run(job_id)
    assert list(outside.iterdir()) == []
    assert (drive / "other" / "b").read_bytes() == b"somebody's"
    assert listed_on() == {"data/a": b"1", "other/b": b"2"}
    assert files_of()["other/b (2)"] == b"2"


# Content.


def test_page_blobs_are_listed_by_their_ranges_that_are_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of 4 MiB; the file is as long as the blob, and its holes are zero."""
    data = random_bytes(512, 1) + bytes(2 * BLOCK_BYTES_MAX) + random_bytes(1024, 2)
    zeros = bytes(1024)
    fill_store({"data/disk.vhd": data, "data/zeros.vhd": zeros, "data/odd": b"x"})
    stat = FolderContainer.stat

    def paged(self: FolderContainer, path: str) -> StoredBlob:
        return replace(stat(self, path), is_page_blob=True)

    monkeypatch.setattr(FolderContainer, "stat", paged)
    job_id = export_job(prefixes=("/data/",))
    run(job_id)
    assert listed_on() == {"data/disk.vhd": data, "data/zeros.vhd": zeros}
    manifest = BytesIO(all_files_of()["DriveManifest.xml"])
    disk, empty = iterate_blobs(manifest)
    assert disk.is_page_blob
    assert [(each.offset, each.length) for each in disk.page_ranges] == [
        (0, BLOCK_BYTES_MAX),
        (2 * BLOCK_BYTES_MAX, 1536),
    ]
    assert empty.is_page_blob
    assert empty.page_ranges == ()
    assert reports(job_id) == {"data/odd": BlobStatus.FAILED}, "no page blob has a length of 1 byte"


def test_content_that_has_not_the_md5_of_its_blob_is_told_of_and_kept() -> None:
    """The drive's copy does not claim the MD5, so that it can be imported."""
    fill_store({"data/good": b"good"})
    put("data", "bad", b"changed", BlobFacts(content_type="a/b", content_md5=bytes(16)))
    job_id = export_job(prefixes=("/data/",))
    run(job_id)
    assert listed_on() == {"data/bad": b"changed", "data/good": b"good"}
    assert reports(job_id) == {"data/bad": BlobStatus.COMPLETED_WITH_ERRORS}
    assert read_properties(all_files_of()["data/bad.properties"]) == BlobFacts(content_type="a/b")


@pytest.mark.parametrize("reads_back", [True, False])
def test_what_a_drive_does_not_give_back_as_it_was_written_is_told_of(
    monkeypatch: pytest.MonkeyPatch, reads_back: bool
) -> None:
    """And does not come to the drive; without reading it back nobody knows."""
    fill_store({"data/a": b"a" * 100, "data/b": b"b" * 100})
    to_disk = export_reading._to_disk

    def spoiling(file: int) -> None:
        if os.fstat(file).st_size == 100 and Path(f"/proc/self/fd/{file}").resolve().name == "1":
            os.pwrite(file, b"!", 50)
        to_disk(file)

    monkeypatch.setattr(export_reading, "_to_disk", spoiling)
    monkeypatch.setenv("DRIVEPOST_COPY_READS_BACK", str(reads_back))
    job_id = export_job(prefixes=("/data/",))
    run(job_id)
    assert reports(job_id) == ({"data/b": BlobStatus.IO_FAILED} if reads_back else {})
    assert list(files_of()) == (["data/a"] if reads_back else ["data/a", "data/b"])


def test_metadata_that_no_file_can_hold_is_told_of() -> None:
    """The blob comes without it."""
    fill_store({"data/a": b"1"}, BlobFacts(metadata={"no xml name": "x"}))
    job_id = export_job(prefixes=("/data/",))
    run(job_id)
    assert list(files_of()) == ["data/a"]
    assert "data/a.metadata" not in all_files_of()
    assert reports(job_id) == {"data/a": BlobStatus.COMPLETED_WITH_ERRORS}


@pytest.mark.parametrize(("changes", "status"), [(1, None), (99, BlobStatus.BLOB_REQUEST_FAILED)])
def test_a_blob_that_changes_while_it_is_read_is_read_again(
    monkeypatch: pytest.MonkeyPatch, changes: int, status: BlobStatus | None
) -> None:
    """Whole, from the beginning; one that changes each time is told of."""
    first, second = random_bytes(2 * BLOCK_BYTES_MAX, 1), random_bytes(2 * BLOCK_BYTES_MAX, 2)
    fill_store({"data/a": first, "data/b": b"stays"})
    read = FolderContainer.read
    left = [changes]

    def changing(self: FolderContainer, path: str, offset: int, length: int, *, e_tag: str = "") -> bytes:
        data = read(self, path, offset, length, e_tag=e_tag)
        if path == "a" and offset == 0 and left[0]:
            left[0] -= 1
            put("data", "a", second, BlobFacts())
        return data

    monkeypatch.setattr(FolderContainer, "read", changing)
    limits = replace(LIMITS, requests_at_once=1, memory_bytes=BLOCK_BYTES_MAX)
    job_id = export_job(prefixes=("/data/",))
    token = lease(job_id)
    assert export_drive.fn(job_id, 1, token, Settings().bay, store_address(), limits)
    wanted = {"data/b": b"stays"}
    assert listed_on() == ({"data/a": second, **wanted} if status is None else wanted)
    assert reports(job_id) == ({} if status is None else {"data/a": status})
    assert all(".drivepost" not in name for name in all_files_of())


def test_memory_holds_no_more_pieces_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many blobs and pieces there are."""
    fill_store({f"data/{number}": bytes(5 * 1000) for number in range(6)})
    monkeypatch.setattr("tasks.export_reading.BLOCK_BYTES_MAX", 1000)
    read, held, most, lock = FolderContainer.read, [0], [0], threading.Lock()

    def counting(self: FolderContainer, path: str, offset: int, length: int, *, e_tag: str = "") -> bytes:
        with lock:
            held[0] += 1
            most[0] = max(most[0], held[0])
        time.sleep(0.005)
        with lock:
            held[0] -= 1
        return read(self, path, offset, length, e_tag=e_tag)

    monkeypatch.setattr(FolderContainer, "read", counting)
    job_id = export_job(prefixes=("/data/",))
    token = lease(job_id)
    limits = replace(LIMITS, requests_at_once=3, memory_bytes=2000)
    assert export_drive.fn(job_id, 1, token, Settings().bay, store_address(), limits)
    assert most[0] == 2
    assert len(listed_on()) == 6


# What fails.


def test_a_blob_that_is_forbidden_is_told_of_and_a_store_that_is_away_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The job waits as it was, and the next run goes on."""
    fill_store({"data/a": b"1", "data/b": b"2"})
    stat, listing = FolderContainer.stat, FolderContainer.list
    away: list[type[StoreError]] = [StoreError]

    def failing(self: FolderContainer, path: str) -> StoredBlob:
        if path == "a":
            raise away[0]("no")
        return stat(self, path)

    def gone(self: FolderContainer, prefix: str = "") -> Iterator[Any]:
        if away[0] is StoreError and not prefix:
            raise StoreError("away")
        return listing(self, prefix)

    monkeypatch.setattr(FolderContainer, "stat", failing)
    monkeypatch.setattr(FolderContainer, "list", gone)
    job_id = export_job(prefixes=("/data/a", "/data/b"))
    assert run(job_id) == "StoreFailed: away"
    with reading() as session:
        assert read_job(session, job_id).copy_lease_until is None
    away[0] = ForbiddenError
    run(job_id)
    assert listed_on() == {"data/b": b"2"}
    assert reports(job_id) == {"data/a": BlobStatus.BLOB_REQUEST_FORBIDDEN}


def test_a_store_that_is_busy_for_a_moment_fails_no_blob(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again, as by an import."""
    monkeypatch.setattr("tasks.way._PAUSES_SECONDS", (0.0,))
    fill_store({"data/a": b"1", "data/b": b"2"})
    job_id = export_job(prefixes=("/data/",))
    asked: set[tuple[str, str]] = set()

    def busy_at_first(name: str) -> Callable[..., Any]:
        act = getattr(FolderContainer, name)

        def answer(self: FolderContainer, path: str, *args: Any, **kwargs: Any) -> Any:
            if (name, path) not in asked:
                asked.add((name, path))
                raise StoreBusyError("the store is busy: Test")
            return act(self, path, *args, **kwargs)

        return answer

    for name in ("stat", "read"):
        monkeypatch.setattr(FolderContainer, name, busy_at_first(name))
    run(job_id)
    assert asked == {(name, path) for name in ("stat", "read") for path in "ab"}
    assert listed_on() == {"data/a": b"1", "data/b": b"2"}
    assert reports(job_id) == {}


def test_a_blob_that_went_after_it_was_listed_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not found any more."""
    fill_store({"data/a": b"1", "data/b": b"2"})
    stat = FolderContainer.stat

    def losing(self: FolderContainer, path: str) -> StoredBlob:
        if path == "a":
            raise BlobMissingError("gone")
        return stat(self, path)

    monkeypatch.setattr(FolderContainer, "stat", losing)
    job_id = export_job(prefixes=("/data/",))
    run(job_id)
    assert listed_on() == {"data/b": b"2"}
    assert reports(job_id) == {"data/a": BlobStatus.FILE_NOT_FOUND}


def test_a_drive_that_is_taken_out_fails_and_the_next_one_takes_its_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the list is lost with it."""
    fill_store({f"data/{name}": name.encode() for name in "abc"})
    job_id = export_job(2, prefixes=("/data/",))
    read = FolderContainer.read

    def taking_out(self: FolderContainer, path: str, offset: int, length: int, *, e_tag: str = "") -> bytes:
        drive = Settings().bay / "E1"
        if path == "b" and drive.is_dir():
            drive.rename(Settings().data_directory / "taken out")
        return read(self, path, offset, length, e_tag=e_tag)

    monkeypatch.setattr(FolderContainer, "read", taking_out)
    run(job_id)
    assert drive_of(job_id, 1).copy_status is DriveStatus.DISK_NOT_FOUND
    assert drive_of(job_id, 2).copy_status is DriveStatus.COMPLETED
    assert list(listed_on("E2")) == ["data/a", "data/b", "data/c"]


def test_a_drive_that_cannot_be_written_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log says so; the job goes on to Packaging."""
    fill_store({"data/a": b"1"})
    job_id = export_job(prefixes=("/data/",))
    (Settings().bay / "E1" / "DriveManifest.xml").mkdir()
    run(job_id)
    assert drive_of(job_id).copy_status is DriveStatus.INTERNAL_ERROR
    with reading() as session:
        assert read_job(session, job_id).state is JobState.PACKAGING


def test_a_fault_of_ours_leaves_nothing_of_ours_on_the_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drive is given up, and the next one is filled."""
    fill_store({"data/a": b"1"})
    job_id = export_job(2, prefixes=("/data/",))
    written = exporting.DriveExporting._write_manifest

    def broken(self: exporting.DriveExporting, journal: ExportJournal, folder: Path, pulse: Pulse) -> str:
        if self.number == 1:
            raise RuntimeError
        return written(self, journal, folder, pulse)

    monkeypatch.setattr(exporting.DriveExporting, "_write_manifest", broken)
    run(job_id)
    assert not (Settings().bay / "E1" / WORKING).exists()
    with reading() as session:
        told = [drive.copy_status for drive in drives_of(session, job_id)]
    assert told == [DriveStatus.INTERNAL_ERROR, DriveStatus.COMPLETED]
    assert listed_on("E2") == {"data/a": b"1"}


# Cancelled, killed, forgotten.


def slow_reads(monkeypatch: pytest.MonkeyPatch, begun: threading.Event, seconds: float = 0.02) -> None:
    """Let every read take its time, and tell when some blobs are over: when more reads began than go at once."""
    read, count = FolderContainer.read, [0]

    def slow(self: FolderContainer, path: str, offset: int, length: int, *, e_tag: str = "") -> bytes:
        count[0] += 1
        if count[0] >= 20:
            begun.set()
        time.sleep(seconds)
        return read(self, path, offset, length, e_tag=e_tag)

    monkeypatch.setattr(FolderContainer, "read", slow)


def test_a_cancel_is_heard_and_nothing_is_written_to_the_drive_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is Completed; every file on the drive is whole, and nothing half written is left."""
    blobs = {f"data/{number:03}": random_bytes(5000, number) for number in range(200)}
    fill_store(blobs)
    job_id = export_job(2, prefixes=("/data/",))
    begun = threading.Event()
    slow_reads(monkeypatch, begun)
    told: list[str] = []
    thread = threading.Thread(target=lambda: told.append(run(job_id)))
    thread.start()
    assert begun.wait(30)
    assert drive_of(job_id).bytes_total == 1_000_000, "known before the first byte, for percentComplete"
    with writing() as session:
        request_cancel(session, job_id, at=database_time(session), by=Actor.CUSTOMER)
    thread.join(30)
    assert "was cancelled and is Completed" in told[0]
    after = all_files_of()
    assert 0 < len(files_of()) < 200
    for path, data in files_of().items():
        assert blobs[path] == data
    assert all(".drivepost" not in path for path in after)
    with reading() as session:
        assert read_job(session, job_id).state is JobState.COMPLETED
        states = [drive.state for drive in drives_of(session, job_id)]
    assert states == [DriveState.COMPLETED_MORE_INFO, DriveState.RECEIVED]
    assert all_files_of("E2") == {}
    assert f"{drive_of(job_id).bytes_succeeded:,} of 1,000,000 bytes" in told[0]
    assert drive_of(job_id).bytes_succeeded == 5000 * len(files_of())
    assert all_files_of() == after


@pytest.mark.parametrize("by", ["cancel-job", "advance-jobs"])
def test_a_cancel_after_the_worker_died_leaves_nothing_of_ours_on_the_drive(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither journal nor anything half written; the blobs that are whole stay, and so does the other drive."""
    fill_store({f"data/{number}": b"1" for number in range(20)})
    job_id = export_job(2, prefixes=("/data/",))
    name = export_reading.BlobReading._name

    def dies(reading: export_reading.BlobReading, laid: Path, file: str) -> None:
        if file == "data\\9":
            raise LeaseLostError(job_id)
        name(reading, laid, file)

    with monkeypatch.context() as dying:
        dying.setattr(export_reading.BlobReading, "_name", dies)
        run(job_id)
    working = Settings().bay / "E1" / WORKING
    assert working.exists()
    theirs = Settings().bay / "E2" / WORKING
    theirs.mkdir()
    run_out(job_id)
    with writing() as session:
        request_cancel(session, job_id, at=database_time(session), by=Actor.CUSTOMER)
    if by == "cancel-job":
        cancel_job.fn(str(job_id))
    else:
        assert carry_out_cancels.fn([(job_id, store_address())], Settings().bay).done == 1
    assert not working.exists()
    assert theirs.exists()
    assert files_of()
    with reading() as session:
        assert read_job(session, job_id).state is JobState.COMPLETED


def test_a_worker_that_lost_its_lease_writes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears so, and its successor goes on where it was."""
    blobs = {f"data/{number:03}": random_bytes(100, number) for number in range(60)}
    fill_store(blobs)
    job_id = export_job(prefixes=("/data/",))
    begun = threading.Event()
    slow_reads(monkeypatch, begun)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            export_drive.fn(job_id, 1, lease(job_id), Settings().bay, store_address(), LIMITS)
        except LeaseLostError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(30)
    with pytest.raises(CopyHeldElsewhereError):
        take_lease.fn(job_id, JobType.EXPORT, 60)
    run_out(job_id)
    token = lease(job_id)
    # While the forgotten one still holds on to the drive, its successor waits for another run.
    for _ in range(1000):
        try:
            assert export_drive.fn(job_id, 1, token, Settings().bay, store_address(), LIMITS)
            break
        except StoreError:
            time.sleep(0.01)
    thread.join(30)
    assert len(raised) == 1
    assert listed_on() == files_of() == blobs


KILLED: Final = """
import os, random, signal, sys
from uuid import UUID
from models.settings import Settings
from pathlib import Path
from tasks import export_reading
from tasks.export_journal import ExportJournal
from models.lifecycle import JobType
from tasks.drives import take_lease
from tasks.exporting import DriveExporting, export_drive
from tasks.folder_store import FolderContainer
from tasks.pulse import CopyLimits

left = int(sys.argv[2])


def cut(function):
    def cuttable(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return cuttable


FolderContainer.read = cut(FolderContainer.read)
export_reading.BlobReading._name = cut(export_reading.BlobReading._name)
export_reading._to_disk = cut(export_reading._to_disk)
ExportJournal.end = cut(ExportJournal.end)
for name in ("_begin", "_report", "_write_manifest", "_back_up", "_log_verbosely", "_put_log", "finish"):
    holder = next(each for each in DriveExporting.__mro__ if name in vars(each))
    setattr(holder, name, cut(getattr(holder, name)))
job_id = UUID(sys.argv[1])
token = take_lease.fn(job_id, JobType.EXPORT, 0.2)
limits = CopyLimits(60, 0.01, 64, 4, 32 * 2**20, True)
address = Settings().store_address(sys.argv[3])
export_drive.fn(job_id, 1, token, Settings().bay, address, limits)
print(left)
"""


def test_an_export_killed_anywhere_goes_on_and_ends_the_same(thorough: bool) -> None:
    """By SIGKILL, again and again; what was on the drive is not written again but for what was in flight."""
    draw = random.Random(11)  # noqa: S311  the same each time
    count = 400 if thorough else 30
    blobs = {f"data/{number:03}": random_bytes(draw.choice([10, 5000]), number) for number in range(count)}
    fill_store(blobs, FACTS)
    job_id = export_job(prefixes=("/data/",), logLevel="Verbose", backupDriveManifest=True)
    kills = 0
    for _ in range(100 if thorough else 3):
        before = finished()
        ended = killed_export(job_id, draw.randint(1, 60))
        run_out(job_id)
        after = finished()
        again = [path for path, file in before.items() if after.get(path) != file]
        # As many are copied, and as many may have been and be in no journal yet.
        assert len(again) <= 2 * LIMITS.requests_at_once, "what was in flight, and no more"
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        kills += 1
    print(f"\nan export killed {kills} times")  # noqa: T201  a figure to be read
    run(job_id)
    assert listed_on() == files_of() == blobs
    assert drive_of(job_id).copy_status is DriveStatus.COMPLETED
    assert len(logs_of(Settings().data_directory, "verbose")) == 1
    assert not (Settings().bay / "E1" / WORKING).exists()


def finished() -> dict[str, int]:
    """Tell which file it is that lies under each name: one that is written again is another."""
    folder = Settings().bay / "E1"
    return {path: (folder / path).stat().st_ino for path in files_of() if not path.startswith(WORKING)}


def killed_export(job_id: UUID, step: int) -> "subprocess.CompletedProcess[str]":
    """Export in a process of its own, which ends at a step."""
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(job_id), str(step), ACCOUNT],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_all_containers_of_a_folder_are_named() -> None:
    """In order, without what no container can be called."""
    fill_store({"b1b/x": b"1", "a1a/x": b"1", "$root/x": b"1"})
    folder = Settings().data_directory / "store" / "account1"
    (folder / ".trash").mkdir()
    (folder / "file").write_bytes(b"")
    assert list(containers_of(store_address())) == ["$root", "a1a", "b1b"]
    assert list(containers_of(store_address(ACCOUNT.replace("account1", "account9")))) == []


# What a drive, a list or a store brings along.


def test_a_drives_own_journal_is_never_opened(tmp_path: Path) -> None:
    """Not a link to a file of ours; a file in the folder's place goes as well."""
    fill_store({"data/a": b"1"})
    ours = tmp_path / "ours.db"
    with closing(sqlite3.connect(ours)) as db:
        db.executescript("CREATE TABLE told (key TEXT PRIMARY KEY, value TEXT)")
    before = ours.read_bytes()
    for brought in ("link", "file"):
        job_id = export_job(name=f"job-{brought}", prefixes=("/data/",))
        folder = Settings().bay / "E1" / WORKING
        if brought == "file":
            folder.write_bytes(b"no folder")
        else:
            folder.mkdir()
            (folder / "journal").symlink_to(ours)
        run(job_id)
        assert listed_on() == {"data/a": b"1"}
        assert not folder.exists()
        assert ours.read_bytes() == before
        send_back(job_id)
        shutil.rmtree(Settings().bay)


def test_a_name_that_is_no_text_keeps_no_other_blob_out() -> None:
    """It is told of with U+FFFD."""
    fill_store({"data/a": b"1", "data/z": b"2"})
    place = os.fsencode(Settings().data_directory / "store/account1/data")
    os.close(os.open(place + b"/b\xff", os.O_CREAT))
    job_id = export_job(prefixes=("/data/",))
    run(job_id)
    assert list(listed_on()) == ["data/a", "data/z"]
    assert reports(job_id) == {"data/b\ufffd": BlobStatus.FILE_NAME_INVALID}


@pytest.mark.parametrize(
    "prefix", ["//", "/../", "/../account2/", "/%2e%2e/", "/UPPER/", "/ab/", "/a b/", "/\x01y/z", "/data/\x01"]
)
@pytest.mark.parametrize("kind", ["folder", "azurite", "s3_server"])
def test_a_prefix_of_what_no_container_can_be_takes_nothing(
    kind: str, prefix: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Least of all the blobs of another account; and the job comes to its end."""
    put("data", "a", b"1", NO_FACTS)
    other = Settings().data_directory / "store" / "account2" / "data"
    other.mkdir(parents=True)
    (other / "secret").write_bytes(b"2")
    if kind != "folder":
        server = request.getfixturevalue(kind)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("DRIVEPOST_STORES", json.dumps({"account1": server.address}))
    job_id = export_job(prefixes=(prefix,))
    run(job_id)
    assert listed_on() == {}
    assert reports(job_id) == {}


# Room that is not there, and drives that come and go.


def incomplete() -> tuple[str, ...]:
    """Read the list of what came to no drive; empty where there is none."""
    found = logs_of(Settings().data_directory, "incomplete")
    return read_blob_list(BytesIO(found[0].read_bytes())).paths if found else ()


def test_a_drive_that_is_full_although_planned_leaves_no_part_and_lists_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A blob has all of its files or none, and the counts are of those that came."""
    fill_store({f"data/{name}": bytes(100) for name in "abc"}, FACTS)
    to_disk, left = export_reading._to_disk, [5]

    def filling(file: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "full")
        to_disk(file)

    monkeypatch.setattr(export_reading, "_to_disk", filling)
    job_id = export_job(prefixes=("/data/",))
    limits = replace(LIMITS, requests_at_once=1, memory_bytes=BLOCK_BYTES_MAX)
    token = lease(job_id)
    assert export_drive.fn(job_id, 1, token, Settings().bay, store_address(), limits)
    run_out(job_id)
    run(job_id)
    files = {path.split(".")[0] for path in all_files_of() if path.startswith("data/")}
    whole = set(listed_on())
    assert files == whole
    assert len(all_files_of()) == 3 * len(whole) + 1
    assert incomplete() == tuple(sorted({"data/a", "data/b", "data/c"} - whole)) != ()
    drive = drive_of(job_id)
    assert drive.bytes_total == drive.bytes_succeeded == 100 * len(whole)
    assert drive.copy_status is DriveStatus.COMPLETED_WITH_ERRORS


def test_the_last_bytes_of_a_drive_are_left_for_its_journal_and_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others filled it since its plan was made."""
    fill_store({"data/a": b"a", "data/b": b"b"})
    monkeypatch.setattr(export_reading, "RESERVE_BYTES", 2**60)
    job_id = export_job(prefixes=("/data/",))
    run(job_id)
    assert listed_on() == {}
    assert drive_of(job_id).copy_status is DriveStatus.COMPLETED_WITH_ERRORS
    assert incomplete() == ("data/a", "data/b")


def test_what_a_full_drive_does_not_take_comes_to_a_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what came to the full one from behind it in the list: nothing lies on two drives, nothing on none."""
    blobs = {f"data/{name}": bytes(100) for name in "abcdef"}
    fill_store(blobs, FACTS)
    write, fetched = export_reading.BlobReading._write, threading.Event()

    def filling(reading: export_reading.BlobReading, laid: Path, errand: Errand, stored: StoredBlob) -> Any:
        if laid.parents[1].name == "E1" and errand.name == "c":
            assert fetched.wait(10)
            raise OSError(errno.ENOSPC, "full")
        ended = write(reading, laid, errand, stored)
        if errand.name == "d":
            fetched.set()
        return ended

    monkeypatch.setattr(export_reading.BlobReading, "_write", filling)
    job_id = export_job(2, prefixes=("/data/",))
    run(job_id)
    assert [list(listed_on(serial)) for serial in ("E1", "E2")] == [
        ["data/a", "data/b"],
        ["data/c", "data/d", "data/e", "data/f"],
    ]
    assert set(files_of("E1")) == {"data/a", "data/b"}
    assert len(all_files_of("E1")) == 2 * 3 + 1
    assert (incomplete(), reports(job_id)) == ((), {})
    assert [drive_of(job_id, number).bytes_total for number in (1, 2)] == [200, 400]
    assert [drive_of(job_id, number).copy_status for number in (1, 2)] == [DriveStatus.COMPLETED] * 2


def test_folders_take_room_too(rooms: Callable[..., None]) -> None:
    """One cluster each, where they are new."""
    fill_store({"data/a": b"1", "data/x/y/z": b"2"})
    rooms(8)
    job_id = export_job(prefixes=("/data/",))
    run(job_id)
    assert list(listed_on()) == ["data/a", "data/x/y/z"]
    with closing(ExportJournal(Settings().bay / "E1", "somebody")) as journal:
        journal.plan("data/a", 1)
        journal.plan("data/x/y/z", 1)
        journal.plan("data/x/y/zz", 1)
        assert journal.folders == 3


@pytest.mark.parametrize("is_late", [False, True])
def test_what_a_lost_drive_would_have_taken_is_listed(
    rooms: Callable[..., None], monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    """Whether it is lost before its turn or in the middle of it."""
    fill_store({f"data/{name}": random_bytes(40, at) for at, name in enumerate("abcd")})
    rooms(100, 100)
    job_id = export_job(2, prefixes=("/data/",))
    fill = export_filling.DriveFilling.fill

    def losing(self: export_filling.DriveFilling) -> None:
        if not is_late or self._filled.number == 2:
            shutil.rmtree(Settings().bay / "E2")
        fill(self)

    monkeypatch.setattr(export_filling.DriveFilling, "fill", losing)
    run(job_id)
    assert list(listed_on("E1")) == ["data/a", "data/b"]
    assert drive_of(job_id, 2).copy_status is DriveStatus.DISK_NOT_FOUND
    assert incomplete() == ("data/c", "data/d")


def test_a_drive_that_turns_up_late_takes_nothing_twice() -> None:
    """Though it stands before those that were copied meanwhile."""
    fill_store({f"data/{name}": name.encode() for name in "ab"})
    job_id = export_job(2, prefixes=("/data/",))
    assert export_drive.fn(job_id, 2, lease(job_id), Settings().bay, store_address(), LIMITS)
    run_out(job_id)
    run(job_id)
    assert (set(listed_on("E2")), set(listed_on("E1"))) == ({"data/a", "data/b"}, set())


def test_a_later_drive_that_cannot_be_looked_at_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is filled."""
    fill_store({"data/a": b"1"})
    on = Room.on

    def failing(drive: Path) -> Room:
        if drive.name == "E2":
            raise DriveError("InternalError", "it does not answer")
        return on(drive)

    monkeypatch.setattr(Room, "on", failing)
    job_id = export_job(2, prefixes=("/data/",))
    run(job_id)
    assert list(listed_on("E1")) == ["data/a"]
    assert drive_of(job_id, 2).copy_status is DriveStatus.INTERNAL_ERROR


def test_a_list_whose_name_the_store_refuses_keeps_no_job_from_its_end(
    rooms: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes without."""
    fill_store({"data/a": bytes(1000)})
    rooms(100)
    job_id = export_job(prefixes=("/data/",))
    put_blob = FolderContainer.put

    def refusing(self: FolderContainer, path: str, *args: Any, **options: Any) -> str:
        if path.endswith("_incomplete.xml"):
            raise NameRefusedError("no")
        return put_blob(self, path, *args, **options)

    monkeypatch.setattr(FolderContainer, "put", refusing)
    run(job_id)
    with reading() as session:
        job = read_job(session, job_id)
    assert (job.state, job.incomplete_blob_list_uri) == (JobState.PACKAGING, None)


def test_a_cancel_is_heard_while_lists_are_read_and_logs_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is held on to as well: the pulse beats wherever a million entries are gone through."""
    fill_store({"lists/list.xml": b"<BlobList><BlobPathPrefix>/none/</BlobPathPrefix></BlobList>", "data/a": b"1"})
    begun: list[str] = []
    beat = Pulse.beat

    def telling(self: Pulse) -> None:
        begun.append(sys._getframe(1).f_code.co_name)
        beat(self)

    monkeypatch.setattr(Pulse, "beat", telling)
    first = export_job(export={"blobListBlobPath": "lists/list.xml"})
    run(first)
    send_back(first)
    assert {"readinto", "_names", "_by_prefixes"} <= set(begun)
    shutil.rmtree(Settings().bay)
    begun.clear()
    run(export_job(name="job2", prefixes=("/data/",), logLevel="Verbose", backupDriveManifest=True))
    assert {"_every_blob", "readinto"} <= set(begun)


# Each kind of store.


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_from_each_kind_of_store_can_be_imported_there(
    kind: str, data_directory: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes, properties and metadata come back as they were, of a page blob on Azure too."""
    store = posted_store(kind, data_directory, request, monkeypatch)
    facts = BlobFacts("text/plain", "gzip", "de", "no-cache", None, {"n": "1", "colour": "blue"})
    blobs = {"a.txt": b"a", "empty": b"", "sub/größe 🚚": random_bytes(BLOCK_BYTES_MAX + 5), "a+b %20&=?#;'": b"x"}
    for name, data in blobs.items():
        told = replace(facts, content_md5=hashlib.md5(data, usedforsecurity=False).digest())
        open_container(store.address, "data").put(name, data, told, "test", overwrite=True)
    if kind == "azure":
        page = random_bytes(512)
        blobs["disk.vhd"] = bytes(BLOCK_BYTES_MAX) + page
        pages = open_container(store.address, "data").upload_pages("disk.vhd", BLOCK_BYTES_MAX + 512, "test")
        pages.write(Part(0, BLOCK_BYTES_MAX, 512), page)
        digest = hashlib.md5(blobs["disk.vhd"], usedforsecurity=False).digest()
        pages.commit(replace(facts, content_md5=digest), overwrite=True)
    container = open_container(store.address, "data")
    before = {name: container.stat(name) for name in blobs}
    job_id = export_job(prefixes=("/",), logLevel="Verbose", backupDriveManifest=True)
    run(job_id)
    drive = drive_of(job_id)
    assert drive.copy_status is DriveStatus.COMPLETED
    assert listed_on() == {f"data/{name}": data for name, data in blobs.items()}
    assert list(store.logs("manifest").values()) == [all_files_of()["DriveManifest.xml"]]
    assert len(store.logs("verbose")) == 1
    for name in blobs:
        container.delete(name)
    send_back(job_id)
    entry = {"driveId": "E1", "manifestFile": drive.manifest_file, "manifestHash": drive.manifest_hash}
    imported = received_of_entries([entry], "job2")
    assert "is copied" in str(import_drives.fn(str(imported)).message)
    assert drive_of(imported).copy_status is DriveStatus.COMPLETED
    assert store.blobs() == blobs
    for name, was in before.items():
        now = container.stat(name)
        assert (now.facts, now.is_page_blob) == (was.facts, was.is_page_blob)
    assert store.aside() == []
