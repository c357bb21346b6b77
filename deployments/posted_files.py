"""Shapes of prepare-drive: files that go on drives, and the drives before and after."""

from dataclasses import dataclass, field
from hashlib import md5
from pathlib import Path
from typing import Final, Self

from models.drive_journals import JOURNAL_NAME
from models.manifests import AttachedFile, ImportDisposition

MANIFEST_NAME: Final = "DriveManifest.xml"
UNFINISHED_MANIFEST: Final = ".drivepost.manifest.unfinished"
UNFINISHED_FILE: Final = ".drivepost.file.unfinished"
ATTACHED_FOLDER: Final = ".drivepost.attached"
"""Where metadata and properties files lie on a drive, each content once."""
OUR_NAMES: Final = frozenset(
    name.casefold()
    for name in (MANIFEST_NAME, UNFINISHED_MANIFEST, UNFINISHED_FILE, ATTACHED_FOLDER, JOURNAL_NAME)
)
"""Names at a drive's root that no file of the customer's can have, without case."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A metadata or properties file.

    Attributes:
        data: its content.
        file: where it lies on a drive, and its MD5.
    """

    data: bytes = field(repr=False)
    file: AttachedFile

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Make one of its content; what is the same lies on a drive once."""
        digest = md5(data, usedforsecurity=False).hexdigest().upper()
        return cls(data, AttachedFile(f"{ATTACHED_FOLDER}\\{digest}.xml", digest))


@dataclass(frozen=True, slots=True)
class DriveFile:
    """One file that goes on a drive, and the blob it becomes.

    Attributes:
        path: where it is now.
        place: its path on the drive, relative and with "/".
        blob_path: container and name.
        disposition: what becomes of a blob that is there already.
        metadata: of the blob; None has none.
        properties: of the blob; None has none.
        source: the folder that was named and that it lies in; None where it was named itself.
    """

    path: Path
    place: str
    blob_path: str
    disposition: ImportDisposition = ImportDisposition.RENAME
    metadata: Attachment | None = None
    properties: Attachment | None = None
    source: Path | None = None

    @property
    def file_path(self) -> str:
        """Its path on the drive, as a manifest has it."""
        return self.place.replace("/", "\\")

    @property
    def attachments(self) -> list[Attachment]:
        """What is to lie on the same drive."""
        return [attachment for attachment in (self.metadata, self.properties) if attachment]


@dataclass(frozen=True, slots=True)
class TargetDrive:
    """A drive to be prepared.

    Attributes:
        root: the folder where it is mounted.
        drive_id: its hardware serial number, without spaces.
        bit_locker_key: what opens it; None is not told.
    """

    root: Path
    drive_id: str
    bit_locker_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class PreparedDrive:
    """A drive that is done.

    Attributes:
        drive_id: its hardware serial number.
        manifest_file: where the manifest is, from the drive's root on, with a leading backslash.
        manifest_hash: upper-case hexadecimal MD5 of the manifest.
        file_count: 1 and up.
        bytes_total: of all files, without the manifest.
        bit_locker_key: what opens it; None is not told.
    """

    drive_id: str
    manifest_file: str
    manifest_hash: str
    file_count: int
    bytes_total: int
    bit_locker_key: str | None = field(default=None, repr=False)

    def drive_list_entry(self) -> dict[str, str]:
        """Give the drive's entry in a job's `driveList`; with `bitLockerKey` only if it is known."""
        return {
            "driveId": self.drive_id,
            "manifestFile": self.manifest_file,
            "manifestHash": self.manifest_hash,
            **({"bitLockerKey": self.bit_locker_key} if self.bit_locker_key else {}),
        }
