"""One drive laid out: its files copied, each byte read once, and the manifest written last.

A drive with a `DriveManifest.xml` is a drive that is done: an earlier manifest goes before the first file is
copied, the new one has its name only when it is whole. What is finished and on the disk stands in the journal, so
that a run cut short goes on there.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

from deployments.drive_plan import Share
from deployments.own_terminal import refuse, refusing, shown
from deployments.posted_files import (
    ATTACHED_FOLDER,
    MANIFEST_NAME,
    UNFINISHED_FILE,
    UNFINISHED_MANIFEST,
    DriveFile,
    PreparedDrive,
)
from models.drive_journals import JournalEntry, JournalHead
from models.manifests import BLOCK_BYTES_MAX, Blob, Block, ManifestWriter

CLIENT_CREATOR: Final = "drivepost"


def lay_out(share: Share, on_file: Callable[[int], None]) -> PreparedDrive | None:
    """Copy a drive's files and write its manifest; the journal stays.

    Safe to repeat: what the journal has is copied again only if the source or the copy changed since.

    Args:
        share: what the drive is to hold.
        on_file: told the length of each file in bytes, once it is on the drive.

    Returns:
        The drive; None if it has no files.

    Raises:
        RequestError: a file is gone, or changed while it was read; the drive cannot be written.
    """
    root = share.drive.root
    with refusing(shown(share.drive.drive_id), "the drive cannot be written"):
        for name in (MANIFEST_NAME, UNFINISHED_MANIFEST, UNFINISHED_FILE):
            (root / name).unlink(missing_ok=True)
        _remove_stale(share)
        if not share.files:
            return None
        share.journal.begin(JournalHead(share.drive.drive_id, share.room))
        _lay_attachments(share)
        for file in share.files:
            on_file(_laid_length(file, share))
        return _finished(share)


def _remove_stale(share: Share) -> None:
    root = share.drive.root
    for file_path in share.stale:
        path = root.joinpath(*file_path.split("\\"))
        _require_no_links(path.parent, root)
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            path.unlink()


def _lay_attachments(share: Share) -> None:
    root = share.drive.root
    wanted = {each.file.path: each for file in share.files for each in file.attachments}
    folder = root / ATTACHED_FOLDER
    _require_no_links(folder, root)
    for path in folder.glob("*"):
        if f"{ATTACHED_FOLDER}\\{path.name}" not in wanted:
            path.unlink()
    for file_path, attachment in wanted.items():
        folder.mkdir(exist_ok=True)
        with _written(root.joinpath(*file_path.split("\\")), root / UNFINISHED_FILE) as stream:
            stream.write(attachment.data)
    if not wanted and folder.is_dir():
        folder.rmdir()


def _laid_length(file: DriveFile, share: Share) -> int:
    """See to it that a file is on the drive and in the journal; tells its length in bytes."""
    entry = share.journal.find(file.file_path)
    if entry is None or not _is_still_true(entry, file, share.drive.root):
        share.journal.expect(file.blob_path, file.file_path)
        entry = _copy(file, share.drive.root)
        share.journal.add(entry)
    return entry.blob.length


def _is_still_true(entry: JournalEntry, file: DriveFile, root: Path) -> bool:
    try:
        source, copy = file.path.lstat(), (root / file.place).lstat()
    except OSError:
        return False
    is_whole = stat.S_ISREG(copy.st_mode) and copy.st_size == entry.blob.length
    return is_whole and entry.source == _version(file.path, source)


def _version(path: Path, found: os.stat_result) -> str:
    """Tell one version of a file from another, without its name."""
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
    return f"{name} {found.st_size} {found.st_mtime_ns}"


def _copy(file: DriveFile, root: Path) -> JournalEntry:
    target = root / file.place
    with refusing(shown(file.place), "cannot be copied"):
        _require_no_links(target.parent, root)
        target.parent.mkdir(parents=True, exist_ok=True)
        # A full drive has no room for both.
        target.unlink(missing_ok=True)
        with file.path.open("rb") as source, _written(target, root / UNFINISHED_FILE) as copy:
            before = os.fstat(source.fileno())
            blocks = tuple(_copy_blocks(source, copy, before.st_size))
            after = os.fstat(source.fileno())
            length = sum(block.length for block in blocks)
            if not length == before.st_size == after.st_size or before.st_mtime_ns != after.st_mtime_ns:
                refuse([(shown(file.place), "it changed while it was read")])
    blob = Blob(file.blob_path, file.file_path, length, file.disposition, blocks)
    return JournalEntry(blob, _version(file.path, before))


def _copy_blocks(source: BinaryIO, copy: BinaryIO, bytes_expected: int) -> Iterator[Block]:
    offset = 0
    # A file that grows as fast as it is read has no end.
    while offset <= bytes_expected and (data := source.read(BLOCK_BYTES_MAX)):
        copy.write(data)
        yield Block(offset, len(data), _md5(data).hexdigest().upper())
        offset += len(data)


def _finished(share: Share) -> PreparedDrive:
    """Write the manifest of all that the journal has."""
    root, drive = share.drive.root, share.drive
    bytes_total = 0
    with _written(root / MANIFEST_NAME, root / UNFINISHED_MANIFEST) as manifest:
        with ManifestWriter(manifest, drive_id=drive.drive_id, client_creator=CLIENT_CREATOR) as writer:
            for blob in _blobs(share):
                writer.add(blob)
                bytes_total += blob.length
        manifest.flush()
        share.journal.settle()
    with (root / MANIFEST_NAME).open("rb") as manifest:
        manifest_hash = hashlib.file_digest(manifest, _md5).hexdigest().upper()
    return PreparedDrive(
        drive.drive_id, f"\\{MANIFEST_NAME}", manifest_hash, len(share.files), bytes_total, drive.bit_locker_key
    )


def _blobs(share: Share) -> Iterable[Blob]:
    for file in share.files:
        entry = share.journal.find(file.file_path)
        if entry is None:
            raise ValueError("a file is not in the journal")
        # The journal may be of an earlier run, which wanted the same file as another blob.
        yield replace(
            entry.blob,
            blob_path=file.blob_path,
            disposition=file.disposition,
            metadata=file.metadata.file if file.metadata else None,
            properties=file.properties.file if file.properties else None,
        )


def _require_no_links(folder: Path, root: Path) -> None:
    while folder != root:
        if folder.is_symlink():
            what = f"its {shown(str(folder.relative_to(root)))} is a symbolic link and may lead elsewhere"
            refuse([("drive", what)])
        folder = folder.parent


@contextmanager
def _written(target: Path, unfinished: Path) -> Iterator[BinaryIO]:
    """Write a file under another name and give it its own when it is whole; or leave none."""
    unfinished.unlink(missing_ok=True)
    try:
        with unfinished.open("xb") as stream:
            yield stream
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _md5(data: bytes = b"") -> "hashlib._Hash":
    # The manifest's format has MD5, against damage and not against forgery.
    return hashlib.md5(data, usedforsecurity=False)
