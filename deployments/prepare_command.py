"""`drivepost prepare-drive`: from what was typed to the entries of a job's `driveList`."""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from deployments.datasets import read_dataset
from deployments.own_terminal import Fault, byte_bar, refuse, shown
from deployments.posted_files import DriveFile, TargetDrive
from deployments.prepare_drive import container_faults, container_name, drive_files, files_below, prepare_drives
from models.manifests import ImportDisposition
from models.requests import Text

_KEY_BYTES_MAX: Final = 4096
_KEY: Final = TypeAdapter(Text)


def prepare(
    console: Console,
    source: Path | None,
    drives: Sequence[Path],
    *,
    dataset: Path | None = None,
    drive_ids: Sequence[str] = (),
    bit_locker_key_files: Sequence[str] = (),
    container: str | None = None,
    disposition: ImportDisposition | None = None,
) -> str:
    """Prepare drives as the command line asks for it.

    Args:
        console: takes a bar and what was laid on each drive.
        source: the folder whose files go on the drives; None with a dataset.
        drives: where the drives are mounted.
        dataset: says what goes on the drives; None with a source.
        drive_ids: one for each drive; none takes the names of their folders.
        bit_locker_key_files: one for each drive, "-" is a line of the standard input; none tells no keys.
        container: of a source; None makes it of the source's name.
        disposition: of a source's blobs.

    Returns:
        JSON: the entry of the drive where one drive was given and no dataset, a list of entries otherwise.

    Raises:
        RequestError: as `prepare_drives`; or what was typed does not go together.
        DriveError: as `prepare_drives`.
    """
    faults = [*_usage_faults(source, dataset, drives, container, disposition)]
    if drive_ids and len(drive_ids) != len(drives):
        faults.append(("driveId", f"give one for each of the {len(drives)} drives, in their order, or none"))
    keys: Sequence[str | None] = _read_keys(bit_locker_key_files, len(drives), faults)
    refuse(faults)
    ids = drive_ids or [drive.resolve().name for drive in drives]
    targets = [TargetDrive(*each) for each in zip(drives, ids, keys, strict=True)]
    if source:
        container = container_name(source.resolve().name) if container is None else container
        files = drive_files(files_below(source), container, disposition or ImportDisposition.RENAME)
        told = container_faults(container)
    else:
        files, told = read_dataset(dataset) if dataset else [], []
    with byte_bar(console, "laying out", _bytes_of(files)) as advance:
        prepared = prepare_drives(files, targets, advance, told)
    for drive in prepared:
        console.print(f"{drive.drive_id}: {drive.file_count:,} files, {drive.bytes_total:,} bytes", markup=False)
    for drive_id in sorted(set(ids) - {drive.drive_id for drive in prepared}):
        console.print(f"{drive_id}: no files, it need not be posted", markup=False)
    entries = [drive.drive_list_entry() for drive in prepared]
    return json.dumps(entries[0] if source and len(drives) == 1 else entries, indent=2)


def _usage_faults(
    source: Path | None,
    dataset: Path | None,
    drives: Sequence[Path],
    container: str | None,
    disposition: ImportDisposition | None,
) -> list[Fault]:
    faults: list[Fault] = []
    if bool(source) == bool(dataset):
        faults.append(("source", "give either a folder or --dataset; drives of a dataset are named by --drive"))
    if not drives:
        faults.append(("drive", "name at least one, the folder where it is mounted"))
    if dataset and container is not None:
        faults.append(("container", "a dataset names its destinations itself"))
    if dataset and disposition is not None:
        faults.append(("disposition", "a dataset names its dispositions itself"))
    return faults


def _bytes_of(files: Sequence[DriveFile]) -> int:
    total = 0
    for file in files:
        # What cannot be looked at is told later, with all else.
        with suppress(OSError):
            total += file.path.lstat().st_size
    return total


def _read_keys(names: Sequence[str], count: int, faults: list[Fault]) -> list[str | None]:
    """Read a key for each drive; what is wrong goes to the faults, and repeats no key."""
    if not names:
        return [None] * count
    if len(names) != count:
        faults.append(("bitLockerKey", f"give one file for each of the {count} drives, in their order, or none"))
        return []
    keys: list[str | None] = []
    for name in names:
        try:
            keys.append(_KEY.validate_python(_read_line(name)))
        except OSError as error:
            faults.append(("bitLockerKey", f"{shown(name)} cannot be read: {error.strerror}"))
        except (ValidationError, ValueError):
            told = f"{shown(name)} must hold one line of 1 to 256 characters, in UTF-8"
            faults.append(("bitLockerKey", told))
    return keys


def _read_line(name: str) -> str:
    if name == "-":
        return sys.stdin.readline(_KEY_BYTES_MAX).strip()
    with Path(name).open("rb") as file:
        (line,) = file.read(_KEY_BYTES_MAX).decode("utf-8-sig").strip().splitlines()
    return line
