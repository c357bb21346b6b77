"""`drivepost verify-drive`: what lies on a drive is held against its own manifest, block by block.

For drives that were prepared and for drives that came back from an export. Nothing outside the drive is read.
This is the customer's own terminal: what is told may name their files.
"""

import hashlib
import json
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from rich.console import Console

from deployments.own_terminal import byte_bar, refuse, refusing, shown
from deployments.posted_files import MANIFEST_NAME
from models.blob_facts import FACTS_BYTES_MAX, read_metadata, read_properties
from models.drive_files import find_file, read_piece
from models.drives import serial
from models.errors import ManifestError
from models.manifest_reader import ManifestSummary, check_manifest, iterate_blobs
from models.manifests import AttachedFile, Blob, Block, PageRange

_THREADS: Final = 4
"""Each holds one block, 4 MiB at most; more only make a disk seek."""
_PIECES: Final = 8
"""Of one file that are looked at in one go."""
_FAULTS_KEPT: Final = 10_000
"""For the JSON; the terminal is told of all."""
_ATTACHED_KEPT: Final = 256

_ALL_WELL: Final = 0
_SOMETHING_WRONG: Final = 3

# Without waiting, so that a pipe on the drive holds nobody up.
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW

_Piece = Block | PageRange


@dataclass(frozen=True, slots=True)
class FileFault:
    """What is wrong with one file of a drive; a file of two blobs may be told twice."""

    file: str
    fault: str


@dataclass(slots=True)
class Verified:
    """What was found on a drive.

    Attributes:
        drive_id: as the manifest has it; empty where it has none.
        manifest_hash: upper-case hexadecimal MD5; empty where there is no manifest.
        blobs: listed in the manifest.
        bytes_read: of files, 0 and up.
        faulty: files with a fault, the manifest among them, 0 and up.
        faults: the first 10,000 of them.
    """

    drive_id: str = ""
    manifest_hash: str = ""
    blobs: int = 0
    bytes_read: int = 0
    faulty: int = 0
    faults: list[FileFault] = field(default_factory=list)

    def document(self) -> dict[str, object]:
        """Make the JSON object of it."""
        return {
            "driveId": self.drive_id,
            "manifestHash": self.manifest_hash,
            "blobs": self.blobs,
            "bytesRead": self.bytes_read,
            "faulty": self.faulty,
            "faults": [{"file": fault.file, "fault": fault.fault} for fault in self.faults],
        }


def verify(console: Console, drive: Path, *, drive_id: str | None = None, json_file: Path | None = None) -> int:
    """Verify a drive as the command line asks for it.

    Args:
        console: takes a bar, a line for each file with a fault, and the verdict.
        drive: where the drive is mounted.
        drive_id: its hardware serial number; None takes the folder's name.
        json_file: takes what was found as JSON; None writes none.

    Returns:
        The exit code: 0 all well, 3 something is wrong.

    Raises:
        RequestError: there is no such folder, or the JSON cannot be written.
    """
    if not drive.is_dir():
        refuse([("drive", f"there is no folder {shown(str(drive))}; mount the drive first")])
    if json_file and not json_file.absolute().parent.is_dir():
        refuse([("json", f"there is no folder {shown(str(json_file.absolute().parent))}")])

    def tell(fault: FileFault) -> None:
        told = f"{shown(fault.file)}: {fault.fault}"
        console.print(told, style="red", markup=False, soft_wrap=True)

    found = verify_drive(drive, drive_id or drive.resolve().name, tell, console)
    if json_file:
        with refusing("json", "cannot be written"):
            json_file.write_text(json.dumps(found.document(), indent=2) + "\n", "utf-8")
    verdict = f"{found.faulty:,} NOT as the manifest says" if found.faulty else "all as the manifest says"
    console.print(f"{found.blobs:,} blobs, {found.bytes_read:,} bytes read: {verdict}")
    return _SOMETHING_WRONG if found.faulty else _ALL_WELL


def verify_drive(
    drive: Path, drive_id: str, on_fault: Callable[[FileFault], None], console: Console | None = None
) -> Verified:
    """Hold a drive against its manifest: every file, its length, every block or page range, every attached file.

    Memory is bounded, whatever the drive holds.

    Args:
        drive: where the drive is mounted.
        drive_id: whose manifest it should be; case does not count.
        on_fault: told of each file that is not as it should be, in the manifest's order.
        console: takes a bar; None shows none.

    Returns:
        What was found; a broken or missing manifest is a fault like any other.
    """
    found = Verified()

    def tell(file: str, fault: str) -> None:
        found.faulty += 1
        told = FileFault(file, fault)
        if len(found.faults) < _FAULTS_KEPT:
            found.faults.append(told)
        on_fault(told)

    try:
        with _opened(drive, MANIFEST_NAME) as manifest, os.fdopen(manifest, "rb", closefd=False) as stream:
            found.manifest_hash = hashlib.file_digest(stream, _md5).hexdigest().upper()
            stream.seek(0)
            summary = check_manifest(stream)
            found.drive_id, found.blobs = summary.drive_id, summary.blob_count
            if serial(summary.drive_id) != serial(drive_id):
                told = f"it is of the drive {shown(summary.drive_id)} and this is {shown(drive_id)}"
                tell(MANIFEST_NAME, f"{told}; --drive-id names the drive")
            stream.seek(0)
            _Check(drive, found, tell).blobs(iterate_blobs(stream), summary, console or Console(quiet=True))
    except _FaultError as fault:
        tell(MANIFEST_NAME, str(fault))
    except (OSError, ManifestError) as error:
        tell(MANIFEST_NAME, f"it cannot be read: {error.strerror if isinstance(error, OSError) else error}")
    return found


class _FaultError(Exception):
    """What is wrong with one file."""


@dataclass(slots=True)
class _Checked:
    """What a few pieces of a file are like.

    Attributes:
        bad: those that are not as listed.
        fault: why the others could not be looked at; empty where all were.
        bytes_read: 0 and up.
    """

    bad: list[_Piece] = field(default_factory=list)
    fault: str = ""
    bytes_read: int = 0


class _Check:
    def __init__(self, drive: Path, found: Verified, tell: Callable[[str, str], None]) -> None:
        self._drive = drive
        self._found = found
        self._tell = tell
        # Many blobs may share one, which is read but once, and told but once.
        self._told: set[AttachedFile] = set()
        self._attached_fault = lru_cache(_ATTACHED_KEPT)(self._look_at_attached)

    def blobs(self, blobs: Iterator[Blob], summary: ManifestSummary, console: Console) -> None:
        """Look at all blobs; what is wrong is told in their order."""
        waiting: deque[tuple[Blob, bool, Future[_Checked]]] = deque()
        with (
            byte_bar(console, "verifying", summary.bytes_total) as advance,
            ThreadPoolExecutor(_THREADS) as pool,
        ):
            gathered = _Checked()

            def take_one() -> None:
                nonlocal gathered
                blob, is_last, future = waiting.popleft()
                checked = future.result()
                gathered.bad += checked.bad
                gathered.fault = gathered.fault or checked.fault
                self._found.bytes_read += checked.bytes_read
                advance(checked.bytes_read)
                if is_last:
                    self._judge(blob, gathered)
                    gathered = _Checked()

            try:
                for blob in blobs:
                    pieces = blob.blocks or blob.page_ranges
                    for begin in range(0, max(len(pieces), 1), _PIECES):
                        is_last = begin + _PIECES >= len(pieces)
                        waiting.append((blob, is_last, pool.submit(self._look_at_pieces, blob, begin)))
                        if len(waiting) > 2 * _THREADS:
                            take_one()
                while waiting:
                    take_one()
            finally:
                pool.shutdown(cancel_futures=True)

    def _judge(self, blob: Blob, checked: _Checked) -> None:
        """Tell what is wrong with a blob's file and with what is attached to it."""
        if checked.fault:
            self._tell(blob.file_path, checked.fault)
        elif checked.bad:
            first = checked.bad[0]
            total = len(blob.blocks or blob.page_ranges)
            what = "blocks" if blob.blocks else "page ranges"
            told = f"{len(checked.bad):,} of its {total:,} {what} are not as listed"
            self._tell(blob.file_path, f"{told}, the first at byte {first.offset:,}")
        for attached, is_metadata in ((blob.metadata, True), (blob.properties, False)):
            if not attached or attached in self._told:
                continue
            if fault := self._attached_fault(attached, is_metadata=is_metadata):
                self._tell(attached.path, fault)
                if len(self._told) < _FAULTS_KEPT:
                    self._told.add(attached)

    def _look_at_pieces(self, blob: Blob, begin: int) -> _Checked:
        checked = _Checked()
        try:
            with _opened(self._drive, blob.file_path) as file:
                length = os.fstat(file).st_size
                if length != blob.length:
                    checked.fault = f"it has {length:,} bytes and should have {blob.length:,}"
                    return checked
                if begin == 0:
                    # What was just written is still in memory, and it is the drive that is asked.
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                for piece in (blob.blocks or blob.page_ranges)[begin : begin + _PIECES]:
                    data = read_piece(file, piece.offset, piece.length)
                    checked.bytes_read += len(data)
                    if _md5(data).hexdigest().upper() != piece.hash:
                        checked.bad.append(piece)
        except _FaultError as fault:
            checked.fault = str(fault)
        except OSError as error:
            checked.fault = f"it cannot be read: {error.strerror}"
        return checked

    def _look_at_attached(self, attached: AttachedFile, *, is_metadata: bool) -> str:
        """Tell what is wrong with a metadata or properties file; empty if nothing is."""
        try:
            with _opened(self._drive, attached.path) as file:
                data = read_piece(file, 0, FACTS_BYTES_MAX + 1)
            if len(data) <= FACTS_BYTES_MAX and _md5(data).hexdigest().upper() != attached.hash:
                return "it is not as listed: its MD5 is another"
            if is_metadata:
                read_metadata(data)
            else:
                read_properties(data)
        except _FaultError as fault:
            return str(fault)
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        except ManifestError as fault:
            return str(fault)
        return ""


@contextmanager
def _opened(drive: Path, path: str) -> Iterator[int]:
    """Open a regular file of the drive.

    Raises:
        _FaultError: there is none on the drive.
        OSError: it cannot be opened.
    """
    try:
        file = os.open(find_file(drive, path), _FLAGS)
    except FileNotFoundError:
        raise _FaultError("there is no such file on the drive") from None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise _FaultError("it is no regular file")
        yield file
    finally:
        os.close(file)


def _md5(data: bytes = b"") -> "hashlib._Hash":
    # The manifest's format has MD5, against damage and not against forgery.
    return hashlib.md5(data, usedforsecurity=False)
