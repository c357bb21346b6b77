"""Which file goes on which drive, and every fault that can be seen before anything is copied."""

import fcntl
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from deployments.drive_room import Room, new_folders, spread
from deployments.kept_journal import KeptJournal
from deployments.own_terminal import Fault, refuse, refusing, shown
from deployments.posted_files import MANIFEST_NAME, OUR_NAMES, UNFINISHED_FILE, DriveFile, TargetDrive
from models.drives import serial
from models.errors import ManifestError
from models.manifest_reader import check_manifest, iterate_blobs
from models.manifests import BLOCK_BYTES_MAX, BLOCKS_MAX, require_file_path, split_blob_path

_DRIVE_ID: Final = re.compile(r"(?!\.+\Z)[A-Za-z0-9._-]{1,64}")
# What exFAT, NTFS and FAT have in no name, or take off its end without a word.
_NO_WINDOWS_NAME: Final = re.compile(r'[<>:"|?*\x00-\x1f\x7f]|[. ](?:/|\Z)')
_FILE_BYTES_MAX: Final = BLOCKS_MAX * BLOCK_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Share:
    """What one drive is to hold.

    Attributes:
        drive: its root resolved.
        journal: of an earlier run that was cut, or one that is not begun.
        room: bytes for files, manifest and journal, as it was when the first run began.
        files: in their order.
        stale: paths of files that an earlier run laid there and that belong there no longer.
    """

    drive: TargetDrive
    journal: KeptJournal
    room: int
    files: tuple[DriveFile, ...]
    stale: frozenset[str]


def plan_shares(
    files: Sequence[DriveFile], drives: Sequence[TargetDrive], closing: ExitStack, told: Sequence[Fault] = ()
) -> list[Share]:
    """Settle which file goes on which drive: each on the first that has room for it.

    A file that lies at its place on a drive already stays with that drive, so that a run cut short, and one that
    is repeated, come to the same.

    Args:
        files: all of them.
        drives: in the order of filling; each is a file system of its own.
        closing: closes the journals, and lets go of the drives.
        told: faults seen before, told together with those of the drives.

    Returns:
        A share for each drive, in their order; one may be without files.

    Raises:
        RequestError: with every fault, at most 100, that can be seen before anything is copied.
        DriveError: what stands in the journal's place is no journal.
    """
    refuse([*([] if files else [("source", "it holds no files")]), *_drive_faults(drives), *told])
    drives = [replace(drive, root=drive.root.resolve()) for drive in drives]
    _require_apart(files, [drive.root for drive in drives])
    targets = [_target("drive", at, drives) for at in range(len(drives))]
    for drive, target in zip(drives, targets, strict=True):
        closing.enter_context(_held(drive.root, target))
    # In a list, since each drive is to be tried.
    folds_case = True in [_folds_case(drive.root, target) for drive, target in zip(drives, targets, strict=True)]
    journals = [
        closing.enter_context(_journal(drive, target)) for drive, target in zip(drives, targets, strict=True)
    ]
    given = {file.file_path for file in files}
    earlier = [_laid_before(drive, given, target) for drive, target in zip(drives, targets, strict=True)]

    lengths, faults = _lengths(files, folds_case=folds_case)
    rooms = [Room(drive.root, journal.room) for drive, journal in zip(drives, journals, strict=True)]
    shares: list[list[DriveFile]] = [[] for _ in drives]
    for file, at in zip(files, spread(files, lengths, rooms), strict=True):
        if at is not None:
            shares[at].append(file)
        elif lengths[file.place] is not None:
            faults.append((shown(file.place), f"no drive has room for its {lengths[file.place]:,} bytes"))
    for drive, share, target in zip(drives, shares, targets, strict=True):
        faults += _place_faults(drive.root, share, target)
    refuse(faults)
    return [
        Share(drive, journal, room.bytes_all, tuple(share), _stale(share, journal.file_paths | laid_before))
        for drive, journal, room, share, laid_before in zip(drives, journals, rooms, shares, earlier, strict=True)
    ]


def _stale(share: Iterable[DriveFile], laid_before: frozenset[str]) -> frozenset[str]:
    return laid_before.difference(file.file_path for file in share)


# Drives.


def _target(name: str, at: int, all_of_them: Sequence[object]) -> str:
    return name if len(all_of_them) == 1 else f"{name}[{at}]"


def _drive_faults(drives: Sequence[TargetDrive]) -> Iterator[Fault]:
    roots = [drive.root.resolve() for drive in drives]
    serials = [serial(drive.drive_id) for drive in drives]
    for at, drive in enumerate(drives):
        target = _target("drive", at, drives)
        if not drive.root.is_dir():
            yield target, f"there is no folder {shown(str(drive.root))}; mount the drive first"
        elif any(roots[at].is_relative_to(root) for place, root in enumerate(roots) if place != at):
            yield target, "it is another of the drives, or lies on one"
        target = _target("driveId", at, drives)
        if not _DRIVE_ID.fullmatch(drive.drive_id):
            yield (
                target,
                "it must be the hardware serial number: 1 to 64 letters, digits, '-', '_' or '.', no spaces",
            )
        elif serials[at] in serials[:at]:
            yield target, "another drive has the same"


@contextmanager
def _held(root: Path, target: str) -> Iterator[None]:
    """Hold on to a drive: two runs would give each other's files their names. Who is killed holds nothing."""
    with refusing(target, "cannot be read"):
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # A file system that knows no locks keeps nobody out.
        with suppress(OSError):
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                refuse([(target, "another run of prepare-drive is at work there; let it end first")])
        yield
    finally:
        os.close(folder)


def _require_apart(files: Iterable[DriveFile], roots: Sequence[Path]) -> None:
    folders: set[Path] = set()
    sources: set[Path] = set()
    for file in files:
        folders.add(file.path.parent)
        if file.source:
            sources.add(file.source)
    resolved = {folder.resolve() for folder in folders}
    if any(folder.is_relative_to(root) for folder in resolved for root in roots):
        refuse([("source", "its files lie on the drive itself")])
    if any(root.is_relative_to(source.resolve()) for source in sources for root in roots):
        refuse([("drive", "it lies in the folder the files come from")])


def _folds_case(root: Path, target: str) -> bool:
    """Tell whether the drive takes `a` and `A` for one name, as exFAT and NTFS do; finds out by writing a file."""
    probe = root / UNFINISHED_FILE
    with refusing(target, "cannot be written"):
        probe.unlink(missing_ok=True)
        probe.touch()
        folds_case = (root / UNFINISHED_FILE.upper()).exists()
        probe.unlink()
    return folds_case


def _journal(drive: TargetDrive, target: str) -> KeptJournal:
    with refusing(target, "its journal cannot be read"):
        journal = KeptJournal(drive.root)
    if journal.head and journal.head.drive_id != drive.drive_id:
        journal.close()
        refuse([(target, "its journal is of another drive id; give that one, or empty the drive first")])
    return journal


def _laid_before(drive: TargetDrive, given: Collection[str], target: str) -> frozenset[str]:
    """Read which files an earlier run laid on the drive; they must be among those that are given."""
    try:
        with (drive.root / MANIFEST_NAME).open("rb") as manifest:
            is_same_drive = check_manifest(manifest).drive_id == drive.drive_id
            manifest.seek(0)
            listed = frozenset(blob.file_path for blob in iterate_blobs(manifest))
    except FileNotFoundError:
        return frozenset()
    except (OSError, ManifestError):
        is_same_drive, listed = False, frozenset()
    if not (is_same_drive and listed.issubset(given)):
        told = f"its {MANIFEST_NAME} is of another drive or lists other files; empty the drive first"
        refuse([(target, told)])
    return listed


# Files.


def _lengths(files: Iterable[DriveFile], *, folds_case: bool) -> tuple[dict[str, int | None], list[Fault]]:
    """Look at every file; place -> bytes, None where something is wrong with it, and what is wrong."""
    faults: list[Fault] = []
    lengths: dict[str, int | None] = {}
    places: set[str] = set()
    folders: set[str] = set()
    for file in files:
        place = file.place.casefold() if folds_case else file.place
        length = _length(file.path)
        fault = path_fault(file.blob_path, file.place) or (length if isinstance(length, str) else None)
        if fault is None and folds_case and _NO_WINDOWS_NAME.search(file.place):
            fault = "the drive's file system has no such names"
        if fault is None and place in places:
            fault = "another file has the same place on the drive"
        places.add(place)
        folders.update(new_folders(place, folders))
        lengths[file.place] = length if fault is None and isinstance(length, int) else None
        if fault:
            faults.append((shown(file.place), fault))
    faults += [(shown(place), "it would be a file and a folder on the drive") for place in places & folders]
    return lengths, faults


def path_fault(blob_path: str, place: str) -> str | None:
    """Tell what is wrong with a blob's path, or with a path on a drive that is relative and has "/"."""
    if "\\" in place:
        return "a backslash in its name would be read as a folder"
    if place.split("/", maxsplit=1)[0].casefold() in OUR_NAMES:
        return "its name is kept for the manifest"
    try:
        split_blob_path(blob_path)
        require_file_path(place.replace("/", "\\"))
    except ManifestError as fault:
        return str(fault)
    return None


def _length(path: Path) -> int | str:
    """Tell how many bytes a file has, or what is wrong with it."""
    try:
        found = path.lstat()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(found.st_mode):
        return "it is no regular file"
    if found.st_size > _FILE_BYTES_MAX:
        return f"it has {found.st_size} bytes and may have {_FILE_BYTES_MAX}"
    return found.st_size


def _place_faults(root: Path, files: Iterable[DriveFile], target: str) -> Iterator[Fault]:
    looked_at: set[str] = set()
    for file in files:
        for folder in new_folders(file.place, looked_at):
            looked_at.add(folder)
            mode = _mode(root / folder)
            if mode is not None and not stat.S_ISDIR(mode):
                what = "a symbolic link and may lead elsewhere" if stat.S_ISLNK(mode) else "no folder"
                yield target, f"its {shown(folder)} is {what}"
        mode = _mode(root / file.place)
        if mode is not None and stat.S_ISDIR(mode):
            yield shown(file.place), "a folder has its place on the drive"


def _mode(path: Path) -> int | None:
    """Tell what stands at a place; None where nothing does, or where the copy will tell why it cannot."""
    try:
        return path.lstat().st_mode
    except OSError:
        return None
