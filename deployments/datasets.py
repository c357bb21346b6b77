"""A dataset: a JSON file that says which folders and files become which blobs, and how.

    {"entries": [
        {"source": "photos/2025", "destination": "photos/2025", "disposition": "overwrite"},
        {"source": "/srv/report.pdf", "destination": "papers", "metadataFile": "about.xml"}
    ]}

A folder's files keep their paths below the destination; a file goes into it under its own name. Relative paths
start where the dataset lies.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from deployments.drive_plan import path_fault
from deployments.own_terminal import Fault, refuse, refusing, shown
from deployments.posted_files import Attachment, DriveFile
from deployments.prepare_drive import files_below
from models.blob_facts import FACTS_BYTES_MAX, read_metadata, read_properties
from models.errors import ManifestError, RequestError
from models.manifests import ImportDisposition
from models.request_faults import refusal

DATASET_BYTES_MAX: Final = 16 * 2**20
ENTRIES_MAX: Final = 10_000

_Text = Annotated[str, StringConstraints(min_length=1, max_length=32_767, pattern=r"^[^\x00]*$")]


class _Shape(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, hide_input_in_errors=True)


class DatasetEntry(_Shape):
    """One folder or file, and what becomes of it.

    Attributes:
        source: the folder or file; relative to the dataset's folder.
        destination: a container, or a container and folders: `photos/2025`.
        disposition: what becomes of blobs that are there already.
        metadata_file: `<Metadata><name>value</name>…`, kept with each of the blobs.
        properties_file: `<Properties><Content-Type>…`, kept with each of the blobs.
    """

    source: _Text
    destination: _Text
    disposition: ImportDisposition = ImportDisposition.RENAME
    metadata_file: _Text | None = None
    properties_file: _Text | None = None


class Dataset(_Shape):
    """A whole dataset, 1 to 10,000 entries."""

    entries: Annotated[list[DatasetEntry], Field(min_length=1, max_length=ENTRIES_MAX)]


def read_dataset(file: Path) -> list[DriveFile]:
    """Read a dataset and find its files, entry by entry, each folder's in the order of names.

    Raises:
        RequestError: with every fault of the dataset by its place, at most 100: it cannot be read, has more than
            16 MiB or is none; a source is not there or empty; a destination, metadata or properties file is none.
    """
    with refusing("dataset", "cannot be read"), file.open("rb") as stream:
        data = stream.read(DATASET_BYTES_MAX + 1)
    if len(data) > DATASET_BYTES_MAX:
        refuse([("dataset", f"it has more than {DATASET_BYTES_MAX} bytes")])
    try:
        dataset = Dataset.model_validate_json(data)
    except ValidationError as error:
        told = [(shown(target) or "dataset", text) for target, text in refusal(error).faults]
        raise RequestError(told) from None

    faults: list[Fault] = []
    files: list[DriveFile] = []
    for number, entry in enumerate(dataset.entries):
        try:
            files.extend(_files_of(entry, file.parent))
        except RequestError as refused:
            faults += [(f"entries[{number}].{target}", text) for target, text in refused.faults]
    refuse(faults)
    return files


def _files_of(entry: DatasetEntry, folder: Path) -> Iterator[DriveFile]:
    faults: list[Fault] = []
    destination = entry.destination.strip("/")
    if fault := path_fault(f"{destination}/name", f"{destination}/name"):
        faults.append(("destination", fault))
    metadata = _attachment(entry.metadata_file, folder, "metadataFile", faults)
    properties = _attachment(entry.properties_file, folder, "propertiesFile", faults)
    source = folder / entry.source
    if not source.is_dir() and not source.is_file():
        faults.append(("source", f"there is no folder or file {shown(str(source))}"))
    refuse(faults)
    is_folder = source.is_dir()
    found = files_below(source) if is_folder else [(source, source.name)]
    is_empty = True
    for path, relative in found:
        is_empty = False
        place = f"{destination}/{relative}"
        yield DriveFile(path, place, place, entry.disposition, metadata, properties, source if is_folder else None)
    if is_empty:
        refuse([("source", "it holds no files")])


def _attachment(name: str | None, folder: Path, target: str, faults: list[Fault]) -> Attachment | None:
    """Read a metadata or properties file; what is wrong with it goes to the faults."""
    if name is None:
        return None
    try:
        path = folder / name
        # A pipe would be waited for without end.
        if not path.is_file():
            refuse([(target, f"there is no file {shown(str(path))}")])
        with path.open("rb") as stream:
            data = stream.read(FACTS_BYTES_MAX + 1)
        if target == "metadataFile":
            read_metadata(data)
        else:
            read_properties(data)
    except RequestError as refused:
        faults += refused.faults
    except OSError as error:
        faults.append((target, f"cannot be read: {error.strerror}"))
    except ManifestError as fault:
        faults.append((target, str(fault)))
    else:
        return Attachment.of(data)
    return None
