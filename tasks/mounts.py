"""Drives mounted in the bay."""

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


def mounted_in(bay: Path) -> dict[str, Path]:
    """Look into the bay: serial number, as `models.drives.serial` compares it -> folder.

    Raises:
        BayError: as `drives_in`.
    """
    return {serial(name): folder for name, folder in drives_in(bay).items()}
