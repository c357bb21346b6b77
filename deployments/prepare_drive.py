r"""The customer's side: files onto a drive, with the manifest that says what they become.

A drive with a `DriveManifest.xml` is a drive that is done: an earlier manifest goes before the first file is
copied, the new one comes after the last, and has its name only when it is whole. So a run cut short anywhere is
run again.

This is the customer's own terminal; errors here may name their files.
"""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from models.errors import ManifestError, RequestError
from models.manifest_reader import check_manifest, iterate_blobs
from models.manifests import (
    BLOCK_BYTES_MAX,
    BLOCKS_MAX,
    Blob,
    Block,
    ImportDisposition,
    ManifestWriter,
    require_file_path,
    split_blob_path,
)

CLIENT_CREATOR: Final = "drivepost"
MANIFEST_NAME: Final = "DriveManifest.xml"
_UNFINISHED_MANIFEST: Final = ".drivepost.manifest.unfinished"
_UNFINISHED_FILE: Final = ".drivepost.file.unfinished"
_OUR_NAMES: Final = frozenset(name.casefold() for name in (MANIFEST_NAME, _UNFINISHED_MANIFEST, _UNFINISHED_FILE))

_DRIVE_ID: Final = re.compile(r"(?!\.+\Z)[A-Za-z0-9._-]{1,64}")

File = tuple[Path, str]
"""A file, and its path on the drive: relative, with "/"."""


@dataclass(frozen=True, slots=True)
class PreparedDrive:
    """A drive that is done.

    Attributes:
        drive_id: its hardware serial number.
        manifest_file: where the manifest is, from the drive's root on, with a leading backslash.
        manifest_hash: upper-case hexadecimal MD5 of the manifest.
        file_count: 1 and up.
        bytes_total: of all files, without the manifest.
    """

    drive_id: str
    manifest_file: str
    manifest_hash: str
    file_count: int
    bytes_total: int

    def drive_list_entry(self) -> dict[str, str]:
        """Give the drive's entry in a job's `driveList`; without `bitLockerKey`, as nothing is encrypted here."""
        return {
            "driveId": self.drive_id,
            "manifestFile": self.manifest_file,
            "manifestHash": self.manifest_hash,
        }


def _skip_nothing(_path: Path) -> bool:
    return False


def _tell_nobody(_bytes: int) -> None:
    pass


def files_below(source: Path, skip: Callable[[Path], bool] = _skip_nothing) -> Iterator[File]:
    """Find the regular files of a folder, at any depth.

    Args:
        source: the folder.
        skip: asked once for every file and folder below `source`; a skipped folder is not looked into.

    Returns:
        Each file, and its path relative to `source` with "/", folder by folder in the order of names. Symbolic
        links are neither followed nor taken, nor is anything else that is no regular file.

    Raises:
        RequestError: `source` is no folder; or, on the way, a folder below it cannot be read.
    """
    if not source.is_dir():
        raise RequestError([("source", f"there is no folder {source}")])
    return _files_below(source, skip)


def container_name(name: str) -> str:
    """Make a container's name of a folder's: lower-case letters, digits and single hyphens, 3 to 63 of them.

    Source: the naming rule of Azure Blob containers.
    """
    words = "-".join(re.findall(r"[a-z0-9]+", name.lower()))[:63].strip("-")
    return words if len(words) >= 3 else f"drive-{words}".strip("-")


def prepare_drive(
    files: Iterable[File],
    drive: Path,
    drive_id: str,
    container: str,
    disposition: ImportDisposition = ImportDisposition.RENAME,
    on_file: Callable[[int], None] | None = None,
) -> PreparedDrive:
    """Copy files to a drive and write its manifest; each byte is read once.

    Safe to repeat with the same files: they replace themselves, and the manifest comes out the same byte by byte.
    A drive that is done is taken again only with the same drive id, and if all it lists is given again.

    Args:
        files: each file, and its path on the drive, relative and with "/"; the blob's name is that path.
        drive: the drive's root folder; it must be there.
        drive_id: the hardware serial number without spaces: 1 to 64 letters, digits, "-", "_", ".".
        container: where the blobs go: 3 to 63 lower-case letters, digits and single hyphens, or `$root`.
        disposition: what becomes of blobs that are there already.
        on_file: told the length of each file in bytes, once it is copied.

    Raises:
        RequestError: nothing was given; a name cannot stand in a manifest; a file is missing, no regular one, too
            large, or changed while it was read; the drive cannot be written, holds the manifest of something
            else, or lies in the source or the source in it. What can be seen before anything is copied is told
            before anything is copied, up to 100 faults at once.
    """
    listed = list(files)
    _require_arguments(listed, drive, drive_id, container)
    root = drive.resolve()
    _require_apart(listed, root)
    _require_files(listed, container, folds_case=_folds_case(root))
    _require_no_other_manifest(root, drive_id, {_file_path(relative) for _, relative in listed})
    with _refusing("drive", "cannot be written"):
        (root / MANIFEST_NAME).unlink(missing_ok=True)
        manifest_hash, bytes_total = _lay_out(
            listed, root, drive_id, container, disposition, on_file or _tell_nobody
        )
    return PreparedDrive(drive_id, f"\\{MANIFEST_NAME}", manifest_hash, len(listed), bytes_total)


# What can be known before anything is copied.


def _files_below(source: Path, skip: Callable[[Path], bool]) -> Iterator[File]:
    waiting = [source]
    while waiting:
        path = waiting.pop()
        if path != source and skip(path):
            continue
        with _refusing(_shown(str(path)), "cannot be read"):
            mode = path.stat(follow_symlinks=path == source).st_mode
            if stat.S_ISDIR(mode):
                waiting.extend(sorted(path.iterdir(), reverse=True))
        if stat.S_ISREG(mode):
            yield path, path.relative_to(source).as_posix()


def _require_arguments(listed: list[File], drive: Path, drive_id: str, container: str) -> None:
    faults: list[tuple[str, str]] = []
    if not listed:
        faults.append(("source", "it holds no files"))
    if not drive.is_dir():
        faults.append(("drive", f"there is no folder {drive}; mount the drive first"))
    if not _DRIVE_ID.fullmatch(drive_id):
        faults.append(
            (
                "driveId",
                "it must be the hardware serial number: 1 to 64 letters, digits, '-', '_' or '.', no spaces",
            )
        )
    if fault := _path_fault(container, "name"):
        faults.append(("container", fault))
    if "/" in container:
        faults.append(("container", "it must be a container alone, without a folder"))
    _refuse(faults)


def _require_apart(listed: list[File], root: Path) -> None:
    holding = {path.parent for path, _ in listed}
    if any(folder.resolve().is_relative_to(root) for folder in holding):
        _refuse([("source", "its files lie on the drive itself")])
    sources = set(map(_source, listed))
    if any(source and root.is_relative_to(source.resolve()) for source in sources):
        _refuse([("drive", "it lies in the folder the files come from")])


def _source(file: File) -> Path | None:
    """Give the folder that the relative path starts from, if the file goes by that path there too."""
    path, relative = file
    depth = len(PurePosixPath(relative).parts)
    return path.parents[depth - 1] if path.parts[-depth:] == PurePosixPath(relative).parts else None


def _folds_case(root: Path) -> bool:
    """Tell whether the drive takes `a` and `A` for one name, as exFAT and NTFS do; finds out by writing a file."""
    probe = root / _UNFINISHED_FILE
    with _refusing("drive", "cannot be written"):
        probe.touch()
        folds_case = (root / _UNFINISHED_FILE.upper()).exists()
        probe.unlink()
    return folds_case


def _require_files(listed: list[File], container: str, *, folds_case: bool) -> None:
    faults: list[tuple[str, str]] = []
    places: set[str] = set()
    for path, relative in listed:
        place = relative.casefold() if folds_case else relative
        fault = _path_fault(container, relative) or _file_fault(path)
        if fault is None and place in places:
            fault = "another file has the same place on the drive"
        places.add(place)
        if fault:
            faults.append((_shown(relative), fault))
    _refuse(faults)


def _path_fault(container: str, relative: str) -> str | None:
    if "\\" in relative:
        return "a backslash in its name would be read as a folder"
    if relative.split("/", maxsplit=1)[0].casefold() in _OUR_NAMES:
        return "its name is kept for the manifest"
    try:
        split_blob_path(f"{container}/{relative}")
        require_file_path(_file_path(relative))
    except ManifestError as fault:
        return str(fault)
    return None


def _file_fault(path: Path) -> str | None:
    try:
        found = path.lstat()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(found.st_mode):
        return "it is no regular file"
    if found.st_size > BLOCKS_MAX * BLOCK_BYTES_MAX:
        return f"it has {found.st_size} bytes and may have {BLOCKS_MAX * BLOCK_BYTES_MAX}"
    return None


def _require_no_other_manifest(root: Path, drive_id: str, file_paths: Collection[str]) -> None:
    try:
        with (root / MANIFEST_NAME).open("rb") as manifest:
            same_drive = check_manifest(manifest).drive_id == drive_id
            manifest.seek(0)
            all_again = all(blob.file_path in file_paths for blob in iterate_blobs(manifest))
    except FileNotFoundError:
        return
    except (OSError, ManifestError):
        same_drive = all_again = False
    if not (same_drive and all_again):
        _refuse(
            [("drive", f"its {MANIFEST_NAME} is of another drive or lists other files; empty the drive first")]
        )


# Copying.


def _lay_out(
    listed: list[File],
    root: Path,
    drive_id: str,
    container: str,
    disposition: ImportDisposition,
    on_file: Callable[[int], None],
) -> tuple[str, int]:
    """Copy all files and write the manifest; give its MD5 and the bytes of all files."""
    bytes_total = 0
    with _written(root / MANIFEST_NAME, root / _UNFINISHED_MANIFEST) as manifest:
        with ManifestWriter(manifest, drive_id=drive_id, client_creator=CLIENT_CREATOR) as writer:
            for path, relative in listed:
                blocks = _copy(path, relative, root)
                length = sum(block.length for block in blocks)
                blob_path, file_path = f"{container}/{relative}", _file_path(relative)
                writer.add(Blob(blob_path, file_path, length, disposition, blocks))
                bytes_total += length
                on_file(length)
        manifest.flush()
        _settle()
    with (root / MANIFEST_NAME).open("rb") as manifest:
        return hashlib.file_digest(manifest, _md5).hexdigest().upper(), bytes_total


def _settle() -> None:
    """Have everything really on the disk, before a manifest says that it is."""
    if hasattr(os, "sync"):
        os.sync()


def _copy(path: Path, relative: str, root: Path) -> tuple[Block, ...]:
    target = root / relative
    with _refusing(_shown(relative), "cannot be copied"):
        _require_no_links(target.parent, root)
        target.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as source, _written(target, root / _UNFINISHED_FILE) as copy:
            before = os.fstat(source.fileno())
            blocks = tuple(_copy_blocks(source, copy, before.st_size))
            after = os.fstat(source.fileno())
            length = sum(block.length for block in blocks)
            if not length == before.st_size == after.st_size or before.st_mtime_ns != after.st_mtime_ns:
                _refuse([(_shown(relative), "it changed while it was read")])
    return blocks


def _copy_blocks(source: BinaryIO, copy: BinaryIO, bytes_expected: int) -> Iterator[Block]:
    offset = 0
    # A file that grows as fast as it is read has no end.
    while offset <= bytes_expected and (data := source.read(BLOCK_BYTES_MAX)):
        copy.write(data)
        yield Block(offset, len(data), _md5(data).hexdigest().upper())
        offset += len(data)


def _require_no_links(folder: Path, root: Path) -> None:
    while folder != root:
        if folder.is_symlink():
            _refuse([("drive", f"its {folder.relative_to(root)} is a symbolic link and may lead elsewhere")])
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


def _file_path(relative: str) -> str:
    return relative.replace("/", "\\")


# Faults.


def _shown(name: str) -> str:
    """Make a name fit for a terminal: what is not printable, or no text at all, in escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in name
    )


def _refuse(faults: list[tuple[str, str]]) -> None:
    if faults:
        raise RequestError(faults)


@contextmanager
def _refusing(target: str, fact: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RequestError([(target, f"{fact}: {error.strerror or error}")]) from error
