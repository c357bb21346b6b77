r"""The customer's side: files onto drives, each with the manifest that says what its files become.

This is the customer's own terminal; errors here may name their files.
"""

import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from deployments.drive_laying import lay_out
from deployments.drive_plan import path_fault, plan_shares
from deployments.own_terminal import Fault, refusing, shown
from deployments.posted_files import DriveFile, PreparedDrive, TargetDrive
from models.errors import RequestError
from models.manifests import ImportDisposition

File = tuple[Path, str]
"""A file, and its path on the drive: relative, with "/"."""


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
        raise RequestError([("source", f"there is no folder {shown(str(source))}")])
    return _files_below(source, skip)


def _files_below(source: Path, skip: Callable[[Path], bool]) -> Iterator[File]:
    waiting = [source]
    while waiting:
        path = waiting.pop()
        if path != source and skip(path):
            continue
        with refusing(shown(str(path)), "cannot be read"):
            mode = path.stat(follow_symlinks=path == source).st_mode
            if stat.S_ISDIR(mode):
                waiting.extend(sorted(path.iterdir(), reverse=True))
        if stat.S_ISREG(mode):
            yield path, path.relative_to(source).as_posix()


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
    """Copy files to a drive and write its manifest; as `prepare_drives`, for one drive and one container.

    Args:
        files: each file, and its path on the drive, relative and with "/"; the blob's name is that path.
        drive: the drive's root folder; it must be there.
        drive_id: the hardware serial number without spaces: 1 to 64 letters, digits, "-", "_", ".".
        container: where the blobs go: 3 to 63 lower-case letters, digits and single hyphens, or `$root`.
        disposition: what becomes of blobs that are there already.
        on_file: told the length of each file in bytes, once it is on the drive.

    Raises:
        RequestError: as `prepare_drives`.
    """
    listed = drive_files(files, container, disposition)
    return prepare_drives(listed, [TargetDrive(drive, drive_id)], on_file, container_faults(container))[0]


def drive_files(files: Iterable[File], container: str, disposition: ImportDisposition) -> list[DriveFile]:
    """Let files become blobs of one container, by the names of their paths on the drive."""
    return [
        DriveFile(path, relative, f"{container}/{relative}", disposition, source=_source((path, relative)))
        for path, relative in files
    ]


def _source(file: File) -> Path | None:
    """Give the folder that the relative path starts from, if the file goes by that path there too."""
    path, relative = file
    depth = len(PurePosixPath(relative).parts)
    return path.parents[depth - 1] if path.parts[-depth:] == PurePosixPath(relative).parts else None


def container_faults(container: str) -> list[Fault]:
    """Tell what is wrong with a container's name, if anything is."""
    if "/" in container:
        return [("container", "it must be a container alone, without a folder")]
    fault = path_fault(f"{container}/name", "name")
    return [("container", fault)] if fault else []


def prepare_drives(
    files: Sequence[DriveFile],
    drives: Sequence[TargetDrive],
    on_file: Callable[[int], None] | None = None,
    faults: Sequence[Fault] = (),
) -> list[PreparedDrive]:
    """Copy files to drives and write their manifests; each byte is read once.

    A run cut anywhere is run again, and copies no file again but the one it was in and those that changed since;
    the manifests come out as if it had not been cut. Safe to repeat with the same files: they replace themselves,
    and the manifest comes out the same byte by byte. A drive that is done is taken again only with the same drive
    id, and if all it lists is given again.

    Args:
        files: what goes on the drives, in their order; each on the first drive that has room for it.
        drives: 1 and up, each a file system of its own.
        on_file: told the length of each file in bytes, once it is on a drive.
        faults: seen before; told together with those of the drives.

    Returns:
        The drives that have files, in their order.

    Raises:
        RequestError: nothing was given; a name cannot stand in a manifest; a file is missing, no regular one, too
            large, fits on no drive, or changed while it was read; a drive cannot be written, holds the manifest of
            something else, or lies in the source or the source in it. What can be seen before anything is copied
            is told before anything is copied, up to 100 faults at once.
        DriveError: what stands in the journal's place on a drive is no journal.
    """
    with ExitStack() as closing:
        shares = plan_shares(files, drives, closing, faults)
        prepared = [lay_out(share, on_file or _tell_nobody) for share in shares]
        for share in shares:
            with refusing(shown(share.drive.drive_id), "the drive cannot be written"):
                share.journal.remove()
    return [drive for drive in prepared if drive]
