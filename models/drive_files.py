"""Files on a drive, found by the paths that manifests and jobs give; nothing outside a drive is ever found."""

import os
from pathlib import Path


def find_file(drive: Path, path: str) -> Path:
    r"""Find a file of a drive by the path that a manifest or a job gives, such as `\Photos\Seattle.jpg`.

    Raises:
        FileNotFoundError: there is no such file, or it lies outside the drive.
        PermissionError: a folder on the way may not be read.
        OSError: the drive does not answer.
    """
    file = _find(drive, path)
    if not file.is_file():
        raise FileNotFoundError
    return file


def find_folder(drive: Path, path: str) -> Path:
    r"""Find a folder of a drive by such a path, without links on the way; empty or `\` is the drive's root.

    Raises:
        FileNotFoundError: there is no such folder, or it lies outside the drive.
        PermissionError: a folder on the way may not be read.
        OSError: the drive does not answer.
    """
    folder = _find(drive, path)
    if not folder.is_dir():
        raise FileNotFoundError
    return folder


def read_piece(file: int, offset: int, length: int) -> bytes:
    """Read a piece of a file, in bytes; less only at its end."""
    data = os.pread(file, length, offset)
    while len(data) < length and (more := os.pread(file, length - len(data), offset + len(data))):
        data += more
    return data


def _find(drive: Path, path: str) -> Path:
    root = drive.resolve()
    try:
        found = root.joinpath(*[part for part in path.split("\\") if part]).resolve(strict=True)
    except (ValueError, RuntimeError):
        # A name that no file can have; links in a circle, which from Python 3.13 on are an OSError.
        raise FileNotFoundError from None
    if not found.is_relative_to(root):
        raise FileNotFoundError
    return found
