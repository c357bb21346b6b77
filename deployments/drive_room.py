"""Which drive has room for which file."""

import os
import shutil
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from deployments.own_terminal import refusing
from deployments.posted_files import ATTACHED_FOLDER, MANIFEST_NAME, DriveFile
from models.manifests import BLOCK_BYTES_MAX

_RESERVED_BYTES: Final = 2**20
"""Of each drive, for what nobody counts; manifest and journal are counted file by file."""


class Room:
    """How much still fits on a drive, counted in the pieces that its file system gives out.

    Args:
        root: the drive's root folder.
        known: bytes it had for all of it when an earlier run began, which was cut; None where there is none.

    Raises:
        RequestError: the drive does not tell its free bytes.
    """

    def __init__(self, root: Path, known: int | None) -> None:
        self._root = root
        self._unit, free = _room_of(root)
        self._known = known
        self._taken = 0
        self._made: set[str] = set()
        self._there: set[str] = set()
        self.bytes_all = free - _RESERVED_BYTES if known is None else known
        """Bytes for files, manifest and journal, with those of what will be replaced."""
        for path in (root / MANIFEST_NAME, *(root / ATTACHED_FOLDER).glob("*")):
            self._replace(path)

    def holds(self, file: DriveFile) -> bool:
        """Tell whether something lies at the file's place, which it will replace."""
        if not self._replace(self._root / file.place):
            return False
        if self._known is None:
            folders = new_folders(file.place, self._there)
            self._there.update(folders)
            self.bytes_all += len(folders) * self._unit
        return True

    def _replace(self, path: Path) -> bool:
        try:
            found = os.lstat(path)
        except OSError:
            return False
        if not stat.S_ISREG(found.st_mode):
            return False
        if self._known is None:
            self.bytes_all += self._rounded(found.st_size)
        return True

    def take(self, file: DriveFile, length: int) -> bool:
        """Take room for a file, if there is enough."""
        folders = new_folders(file.place, self._made)
        attached = {each.file.path: each for each in file.attachments}
        new = {path: self._rounded(len(each.data)) for path, each in attached.items() if path not in self._made}
        needed = self._rounded(length) + _told_bytes(file, length) + len(folders) * self._unit + sum(new.values())
        if self._taken + needed > self.bytes_all:
            return False
        self._taken += needed
        self._made.update(folders, new)
        return True

    def _rounded(self, length: int) -> int:
        return -(-length // self._unit) * self._unit


def _room_of(root: Path) -> tuple[int, int]:
    """Ask a drive for its smallest piece and its free bytes."""
    with refusing("drive", "cannot be read"):
        return max(os.statvfs(root).f_frsize, 1), shutil.disk_usage(root).free


def _told_bytes(file: DriveFile, length: int) -> int:
    """Tell at most how many bytes manifest and journal need for a file, names in escapes."""
    blocks = -(-length // BLOCK_BYTES_MAX)
    return 1024 + 10 * len(f"{file.place}{file.blob_path}".encode(errors="replace")) + 256 * blocks


def spread(files: Sequence[DriveFile], lengths: dict[str, int | None], rooms: Sequence[Room]) -> list[int | None]:
    """Give each file the place of its drive, None where none has room for it or it cannot be laid out."""
    found: list[int | None] = [
        None
        if lengths[file.place] is None
        else next((at for at, room in enumerate(rooms) if room.holds(file)), None)
        for file in files
    ]
    # First what has its drive, so that nothing takes its room; in order, as when it was laid there.
    for is_there in (True, False):
        for number, file in enumerate(files):
            length = lengths[file.place]
            at = found[number]
            if length is None or (at is not None) != is_there:
                continue
            if at is None or not rooms[at].take(file, length):
                fitting = (other for other, room in enumerate(rooms) if other != at and room.take(file, length))
                found[number] = next(fitting, None)
    return found


def new_folders(place: str, known: Collection[str]) -> list[str]:
    """List the folders above a place that are not known, from the lowest up; above a known one all are known."""
    found = []
    folder = place.rpartition("/")[0]
    while folder and folder not in known:
        found.append(folder)
        folder = folder.rpartition("/")[0]
    return found
