"""Drives mounted in the bay, and the files on them; nothing outside a drive is ever found."""

from pathlib import Path

from models.drives import serial
from models.errors import BayError


def drives_in(bay: Path) -> dict[str, Path]:
    """Look into the bay: serial number -> folder, of every drive mounted there.

    Raises:
        BayError: the bay cannot be read, or two of its folders name one drive.
    """
    try:
        folders = [folder for folder in bay.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    except OSError as error:
        raise BayError(f"the bay cannot be read: {error.strerror}; DRIVEPOST_BAY_DIRECTORY names it") from None
    if len({serial(folder.name) for folder in folders}) != len(folders):
        raise BayError("two folders of the bay differ only in case or spaces; a drive is mounted once")
    return {folder.name: folder for folder in folders}


def find_file(drive: Path, path: str) -> Path:
    r"""Find a file of a drive by the path that a manifest or a job gives, such as `\Photos\Seattle.jpg`.

    Raises:
        FileNotFoundError: there is no such file, or it lies outside the drive.
        PermissionError: a folder on the way may not be read.
        OSError: the drive does not answer.
    """
    root = drive.resolve()
    try:
        file = root.joinpath(*[part for part in path.split("\\") if part]).resolve(strict=True)
    except (ValueError, RuntimeError):
        # A name that no file can have; links in a circle, which from Python 3.13 on are an OSError.
        raise FileNotFoundError from None
    if not file.is_relative_to(root) or not file.is_file():
        raise FileNotFoundError
    return file
