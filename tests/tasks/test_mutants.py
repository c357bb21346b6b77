"""Mutants: whatever is damaged on the drive, on its way or in the store is told, and of the right blob."""

import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import obstore
import pytest
from azure.storage.blob import BlobClient

from flows.import_drives import import_drives
from models.copy_logs import AttachedStatus, BlobStatus, DriveStatus, LoggedBlob, read_copy_log
from models.lifecycle import DriveState
from models.manifests import BLOCK_BYTES_MAX
from tasks.cloud_stores import CloudContainer
from tasks.folder_store import FolderContainer, _FolderUpload
from tasks.stores import Part
from tests.builders import (
    Listed,
    attached_file,
    drive_of,
    logs_of,
    make_source,
    mount_by_hand,
    received_by_hand,
    received_of_entries,
    stored,
)
from tests.posted_stores import posted_store

pytestmark = pytest.mark.usefixtures("plain_acts")

MUTANTS: Final = 60
MUTANTS_THOROUGH: Final = 1000
BLOBS: Final = 24
MUTATED: Final = 10
BLOCK: Final = 1000
"""Bytes; blocks are small here, so that a thousand mutants of several blocks take no time."""
_BIG: Final = BLOCK_BYTES_MAX + 7

_ATTACHED: Final = {
    "metadata": b"<Metadata><camera>Nikon</camera></Metadata>",
    "properties": b"<Properties><Content-Type>image/jpeg</Content-Type></Properties>",
}

Damage = Callable[[random.Random, bytes], bytes]


def _flip(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _lengthen(rng: random.Random, data: bytes) -> bytes:
    return data + rng.randbytes(rng.randint(1, 2 * BLOCK))


def _insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.randint(1, BLOCK)) + data[at:]


def _swap(_: random.Random, data: bytes) -> bytes:
    """Swap the first block with the last of the same length, or the halves of what has one block."""
    length = BLOCK if len(data) >= 2 * BLOCK else len(data) // 2
    at = (len(data) // length - 1) * length
    return data[at : at + length] + data[length:at] + data[:length] + data[at + length :]


DAMAGES: Final[dict[str, Damage]] = {
    "flip": _flip,
    "truncation": _truncate,
    "lengthening": _lengthen,
    "extra bytes": _insert,
    "swap": _swap,
}
_DAMAGED: Final = {BlobStatus.COMPLETED_WITH_ERRORS, BlobStatus.FAILED}
_REFUSED: Final = {BlobStatus.BLOB_REQUEST_FAILED, BlobStatus.COMPLETED_WITH_ERRORS}
WAYS: Final = {
    **{("drive", damage): _DAMAGED for damage in DAMAGES},
    ("drive", "missing"): {BlobStatus.FILE_NOT_FOUND},
    ("manifest", "hash"): {BlobStatus.COMPLETED_WITH_ERRORS},
    **{("flight", damage): _REFUSED for damage in (*DAMAGES, "missing")},
    **{("rest", damage): _REFUSED for damage in (*DAMAGES, "missing")},
    **{
        (attached, damage): {BlobStatus.COMPLETED_WITH_ERRORS}
        for attached in _ATTACHED
        for damage in (*DAMAGES, "missing", "hash")
    },
}
"""Where and how a blob is damaged, and by which words the log may tell so."""


@dataclass(frozen=True)
class Mutant:
    """One blob, and what is done to it; of a good one nothing is."""

    data: bytes
    place: str = ""
    damage: str = ""
    seed: int = 0

    @property
    def looks_like_anothers(self) -> bool:
        """Whether its ETag says that somebody wrote over it; it is told, and not ours to remove."""
        return self.place == "rest" and len(self.data) <= BLOCK and self.damage not in {"flip", "swap", "missing"}

    @property
    def part(self) -> int:
        """Tell which part is damaged on the way or at rest; what is longer only shows behind the last."""
        parts = -(-len(self.data) // BLOCK)
        return parts - 1 if self.damage == "lengthening" else self.seed % parts

    def spoil(self, data: bytes) -> bytes:
        """Damage so that it is not what it was."""
        rng = random.Random(self.seed)  # noqa: S311  no secret
        return next(bad for _ in range(100) if (bad := DAMAGES[self.damage](rng, data)) != data)


def mutants(rng: random.Random) -> list[Mutant]:
    """Make the blobs of one drive: half of them are damaged, each in its own way."""
    blobs = [
        Mutant(rng.randbytes(rng.choice((rng.randint(8, BLOCK), rng.randint(2 * BLOCK, 6 * BLOCK)))))
        for _ in range(BLOBS)
    ]
    for at in rng.sample(range(BLOBS), MUTATED):
        place, damage = rng.choice(list(WAYS))
        blobs[at] = replace(blobs[at], place=place, damage=damage, seed=rng.getrandbits(32))
    return blobs


def mounted(data_directory: Path, serial: str, blobs: list[Mutant]) -> dict[str, str]:
    """Mount a drive with all that is damaged on the drive itself; gives its entry of the job's list."""
    listed: list[Listed] = []
    attached: dict[str, bytes] = {}
    for number, blob in enumerate(blobs):
        on_drive = blob.spoil(blob.data) if blob.place == "drive" and blob.damage in DAMAGES else blob.data
        files = {}
        for kind, content in _ATTACHED.items():
            path = f"{number}.{kind}"
            files[kind] = attached_file(path, content)
            attached[path] = content
            if blob.place != kind:
                continue
            if blob.damage == "hash":
                files[kind] = replace(files[kind], hash=f"{blob.seed:032X}")
            elif blob.damage == "missing":
                del attached[path]
            else:
                attached[path] = blob.spoil(content)
        listed.append(
            Spoilt(
                f"{serial}/{number}",
                blob.data,
                on_drive=on_drive,
                metadata=files["metadata"],
                properties=files["properties"],
                mutant=blob,
            )
        )
    entry = mount_by_hand(data_directory, serial.upper(), listed)
    drive = make_source(data_directory / "bay" / serial.upper(), attached)
    for number, blob in enumerate(blobs):
        if (blob.place, blob.damage) == ("drive", "missing"):
            (drive / "files" / str(number)).unlink()
    return entry


@dataclass(frozen=True)
class Spoilt(Listed):
    """One blob of a drive whose entry of the manifest may lie."""

    mutant: Mutant = Mutant(b"")

    def blob(self, number: int) -> Any:
        """Make its entry, with one wrong hash where that is its damage."""
        blob = super().blob(number)
        if self.mutant.place != "manifest":
            return blob
        blocks = list(blob.blocks)
        at = self.mutant.seed % len(blocks)
        blocks[at] = replace(blocks[at], hash=f"{self.mutant.seed:032X}")
        return replace(blob, blocks=tuple(blocks))


class Spoiler:
    """Damages what is on its way into the store, or lies there before it was read back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.blobs: list[Mutant] = []
        self._put, self._write = FolderContainer.put, _FolderUpload.write
        spoiler = self

        def put(container: FolderContainer, path: str, data: bytes, *others: Any, **kwargs: Any) -> str:
            blob = spoiler._of(path)
            if blob and blob.place == "flight":
                if blob.damage == "missing":
                    return "not there"
                return spoiler._put(container, path, blob.spoil(data), *others, **kwargs)
            e_tag = spoiler._put(container, path, data, *others, **kwargs)
            if blob:
                spoiler._at_rest(blob, container._place(path), Part(0, 0, len(data)), data)
            return e_tag

        def write(upload: _FolderUpload, part: Part, data: bytes) -> bool:
            blob = spoiler._of(upload._place.rpartition("/")[2])
            if not blob or part.index != blob.part:
                return spoiler._write(upload, part, data)
            if blob.place == "flight":
                return blob.damage == "missing" or spoiler._write(upload, part, blob.spoil(data))
            written = spoiler._write(upload, part, data)
            spoiler._at_rest(blob, upload._laid, part, data)
            return written

        monkeypatch.setattr(FolderContainer, "put", put)
        monkeypatch.setattr(_FolderUpload, "write", write)

    def _of(self, name: str) -> Mutant | None:
        """Find the blob of this name, if it is to be damaged on its way or at rest."""
        blob = self.blobs[int(name)] if name.isdigit() else None
        return blob if blob and blob.place in {"flight", "rest"} else None

    def _at_rest(self, blob: Mutant, place: str, part: Part, data: bytes) -> None:
        """Damage what was just written, before it is read back; as decay does, which changes no time."""
        before = Path(place).stat()
        if blob.damage == "missing":
            Path(place).unlink()
            return
        bad = blob.spoil(data)
        if blob.damage == "truncation":
            os.truncate(place, part.offset + len(bad))
        else:
            file = os.open(place, os.O_WRONLY)
            os.pwrite(file, bad, part.offset)
            os.close(file)
        os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))


def status_told(blob: LoggedBlob, mutant: Mutant) -> bool:
    """See that the log says what was wrong with this blob."""
    if mutant.place in _ATTACHED:
        told = blob.metadata_status if mutant.place == "metadata" else blob.properties_status
        other = blob.properties_status if mutant.place == "metadata" else blob.metadata_status
        wanted = AttachedStatus.FILE_NOT_FOUND if mutant.damage == "missing" else AttachedStatus.CORRUPTED
        if told is not wanted or other not in {AttachedStatus.COMPLETED, None}:
            return False
    return blob.status in WAYS[mutant.place, mutant.damage]


def test_every_mutant_is_told(
    data_directory: Path,
    sqlite: str,
    monkeypatch: pytest.MonkeyPatch,
    thorough: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """None is in the store, its drive is CompletedMoreInfo, and its neighbours arrive as they were."""
    for holder in ("models.manifests", "tests.builders", "tasks.orders"):
        monkeypatch.setattr(f"{holder}.BLOCK_BYTES_MAX", BLOCK)
    rng = random.Random(os.environ.get("PYTEST_SEED", "drivepost"))  # noqa: S311  no secret
    spoiler = Spoiler(monkeypatch)
    made, told = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    drives = (MUTANTS_THOROUGH if thorough else MUTANTS) // MUTATED
    for drive in range(drives):
        serial = f"drive{drive}"
        blobs = spoiler.blobs = mutants(rng)
        job_id = received_of_entries([mounted(data_directory, serial, blobs)], serial)
        ended = import_drives.fn(str(job_id))
        assert ended.is_completed(), ended.message
        assert drive_of(job_id).state is DriveState.COMPLETED_MORE_INFO
        assert drive_of(job_id).copy_status is DriveStatus.COMPLETED_WITH_ERRORS
        (log,) = [file for file in logs_of(data_directory) if file.name.startswith(f"{serial}_")]
        with log.open("rb") as stream:
            entries = {int(blob.blob_path.partition("/")[2]): blob for blob in read_copy_log(stream).blobs}
        bad = {number for number, blob in enumerate(blobs) if blob.place}
        made.update((blobs[number].place, blobs[number].damage) for number in bad)
        told.update(
            (blobs[number].place, blobs[number].damage)
            for number in bad & entries.keys()
            if status_told(entries[number], blobs[number])
        )
        assert made == told, (made - told, entries)
        assert entries.keys() == bad, "no good blob is told as a bad one"
        arrived = {f"{number}": blob.data for number, blob in enumerate(blobs) if blob.place in {"", *_ATTACHED}}
        store = FolderContainer(data_directory / "store" / "account1" / serial, serial)
        found = {blob.name: store.read(blob.name, 0, blob.length + 1) for blob in store.list()}
        for number in bad:
            if blobs[number].looks_like_anothers and found.get(f"{number}") != blobs[number].data:
                found.pop(f"{number}", None)
        assert found == arrived
        for name in found:
            facts, place = store.stat(name).facts, blobs[int(name)].place
            assert facts.metadata == ({} if place == "metadata" else {"camera": "Nikon"})
            assert facts.content_type == (None if place == "properties" else "image/jpeg")
        assert drive_of(job_id).bytes_succeeded == sum(map(len, arrived.values()))
    with capsys.disabled():
        print(f"\n{made.total():,} mutants: {told.total():,} told")  # noqa: T201  a figure to be read
        for place in dict.fromkeys(place for place, _ in WAYS):
            counts = ", ".join(f"{damage} {told[place, damage]}" for at, damage in WAYS if at == place)
            print(f"  {place}: {counts}")  # noqa: T201


@pytest.mark.parametrize("kind", ["azure", "s3"])
@pytest.mark.parametrize("place", ["flight", "rest"])
def test_a_mutant_in_a_cloud_is_told(
    data_directory: Path,
    sqlite: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    kind: str,
    place: str,
) -> None:
    """Sent whole or in parts: it is read back by other ways than from a folder, and is not there afterwards."""
    store = posted_store(kind, data_directory, request, monkeypatch)
    read, put, stage = CloudContainer.read, obstore.put, BlobClient.stage_block
    rng = random.Random(os.environ.get("PYTEST_SEED", "drivepost"))  # noqa: S311  no secret

    def decayed(container: CloudContainer, path: str, *args: Any, **kwargs: Any) -> bytes:
        data = read(container, path, *args, **kwargs)
        return _flip(rng, data) if path.startswith("bad") and "xml" not in path else data

    def spoilt(at: Any, key: str, data: bytes, **kwargs: Any) -> Any:
        return put(at, key, _flip(rng, data) if "/bad" in key else data, **kwargs)

    def staged(client: BlobClient, block_id: str, data: bytes, *args: Any, **kwargs: Any) -> Any:
        is_bad = "/bad" in client.blob_name
        return stage(client, block_id, _flip(rng, data) if is_bad else data, *args, **kwargs)

    files = {f"{what}-{n}": rng.randbytes(size) for what in ("good", "bad") for n, size in enumerate((99, _BIG))}
    job_id = received_by_hand(data_directory, {"S1": [Listed(f"data/{n}", d) for n, d in files.items()]})
    with monkeypatch.context() as spoiling:
        if place == "rest":
            spoiling.setattr(CloudContainer, "read", decayed)
        else:
            spoiling.setattr(obstore, "put", spoilt)
            spoiling.setattr(BlobClient, "stage_block", staged)
        assert import_drives.fn(str(job_id)).is_completed()
    # The parts of S3 go through a library that compares checksums by itself, and are not spoilt here.
    bad = {"bad-0"} if (kind, place) == ("s3", "flight") else {"bad-0", "bad-1"}
    assert store.blobs() == {name: data for name, data in files.items() if name not in bad}
    (log,) = store.logs().values()
    told = {blob.blob_path.partition("/")[2]: blob.status for blob in read_copy_log(BytesIO(log)).blobs}
    assert told.keys() == bad
    assert set(told.values()) <= _REFUSED
    assert store.aside() == []


def test_without_reading_back_a_mutant_on_the_way_is_not_told(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it is the reading back that tells; what is wrong on the drive is told all the same."""
    monkeypatch.setenv("DRIVEPOST_COPY_READS_BACK", "false")
    blobs = [Mutant(b"0123456789", place, "flip") for place in ("flight", "rest", "drive")]
    Spoiler(monkeypatch).blobs = blobs
    job_id = received_of_entries([mounted(data_directory, "drive", blobs)])
    assert import_drives.fn(str(job_id)).is_completed()
    (log,) = logs_of(data_directory)
    with log.open("rb") as stream:
        assert [blob.blob_path for blob in read_copy_log(stream).blobs] == ["drive/2"]
    assert set(stored(data_directory)) == {"drive/0", "drive/1"}
