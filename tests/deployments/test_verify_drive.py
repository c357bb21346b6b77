"""verify-drive: a drive that is as its manifest says is told so, and every way in which one is not is told."""

import json
import os
import random
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from deployments import cli, verify_drive
from deployments.posted_files import MANIFEST_NAME, Attachment, DriveFile, TargetDrive
from deployments.prepare_drive import drive_files, files_below, prepare_drives
from deployments.verify_drive import FileFault, Verified
from models.manifests import (
    BLOCK_BYTES_MAX,
    AttachedFile,
    Blob,
    Block,
    ImportDisposition,
    ManifestWriter,
    PageRange,
)
from tests.builders import make_source, random_bytes

DRIVE_ID: Final = "SERIAL-1"
METADATA: Final = Attachment.of(b"<Metadata><origin>Oslo</origin></Metadata>")
PROPERTIES: Final = Attachment.of(b"<Properties><Content-Type>text/plain</Content-Type></Properties>")


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the whole machine's disks proves nothing here."""
    monkeypatch.setattr("deployments.kept_journal._to_disk", lambda: None)


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """A prepared drive: an empty file, a small one, one of three blocks; metadata and properties."""
    source = make_source(
        tmp_path / "source", {"a/empty": b"", "b": b"hello", "c/large": random_bytes(2 * BLOCK_BYTES_MAX + 5)}
    )
    root = tmp_path / DRIVE_ID
    root.mkdir()
    files = [
        DriveFile(file.path, file.place, file.blob_path, metadata=METADATA, properties=PROPERTIES)
        for file in drive_files(files_below(source), "photos", ImportDisposition.RENAME)
    ]
    prepare_drives(files, [TargetDrive(root, DRIVE_ID)])
    return root


def verified(drive: Path, drive_id: str = DRIVE_ID) -> Verified:
    """Verify a drive; what is told is what is given back."""
    told: list[FileFault] = []
    found = verify_drive.verify_drive(drive, drive_id, told.append)
    assert found.faults == told
    assert found.faulty == len(told)
    return found


def faults(drive: Path, drive_id: str = DRIVE_ID) -> dict[str, str]:
    """What is wrong, by file."""
    return {fault.file: fault.fault for fault in verified(drive, drive_id).faults}


def ended(*arguments: object) -> int:
    """Run a command in this process; gives its exit code."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def write_manifest(drive: Path, *blobs: Blob) -> None:
    """Write a manifest by hand."""
    with (
        (drive / MANIFEST_NAME).open("wb") as stream,
        ManifestWriter(stream, drive_id=DRIVE_ID, client_creator="tests") as writer,
    ):
        for blob in blobs:
            writer.add(blob)


def small(path: str, properties: AttachedFile | None = None) -> Blob:
    """List a file that holds "hello"."""
    hello = Attachment.of(b"hello").file.hash
    return Blob(f"photos/{path}", path, 5, blocks=(Block(0, 5, hello),), properties=properties)


def test_a_drive_as_its_manifest_says_is_told_so(drive: Path) -> None:
    """Every byte of it was read."""
    found = verified(drive)
    assert (found.drive_id, found.blobs, found.bytes_read) == (DRIVE_ID, 3, 2 * BLOCK_BYTES_MAX + 10)
    assert found.faulty == 0
    assert verified(drive, "serial-1").faulty == 0


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 1]))


def _replace_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


def _link_out(path: Path) -> None:
    outside = path.parents[1] / "outside"
    shutil.move(path, outside)
    path.symlink_to(outside)


_HARMS: Final[dict[str, tuple[Callable[[Path], object], str]]] = {
    "changed": (lambda path: _flip(path, 0), "1 of its 1 blocks are not as listed, the first at byte 0"),
    "shorter": (lambda path: os.truncate(path, 4), "it has 4 bytes and should have 5"),
    "longer": (lambda path: path.write_bytes(b"hello!"), "it has 6 bytes and should have 5"),
    "missing": (lambda path: path.unlink(), "there is no such file on the drive"),
    "a folder": (_replace_by(Path.mkdir), "there is no such file on the drive"),
    "a pipe": (_replace_by(os.mkfifo), "there is no such file on the drive"),
    "a link to nothing": (_replace_by(lambda path: path.symlink_to("none")), "there is no such file"),
    "a link to itself": (_replace_by(lambda path: path.symlink_to(path)), ""),
    "a link out of the drive": (_link_out, "there is no such file on the drive"),
}


@pytest.mark.parametrize("harm", _HARMS)
def test_what_became_of_a_file_is_told(drive: Path, harm: str) -> None:
    """Of that file alone."""
    act, text = _HARMS[harm]
    act(drive / "b")
    found = faults(drive)
    assert list(found) == ["b"]
    assert found["b"].startswith(text)


def test_a_link_within_the_drive_is_followed(drive: Path) -> None:
    """As the import follows it."""
    (drive / "b").rename(drive / "elsewhere")
    (drive / "b").symlink_to("elsewhere")
    assert faults(drive) == {}


@pytest.mark.parametrize("at", [0, BLOCK_BYTES_MAX - 1, BLOCK_BYTES_MAX, 2 * BLOCK_BYTES_MAX, -1])
def test_a_changed_byte_is_told_by_its_block(drive: Path, at: int) -> None:
    """The last one too, which is short."""
    at %= 2 * BLOCK_BYTES_MAX + 5
    _flip(drive / "c" / "large", at)
    first = at // BLOCK_BYTES_MAX * BLOCK_BYTES_MAX
    assert faults(drive) == {r"c\large": f"1 of its 3 blocks are not as listed, the first at byte {first:,}"}


def test_blocks_that_changed_places_are_told(drive: Path) -> None:
    """The bytes are the same, and the length is."""
    data = (drive / "c" / "large").read_bytes()
    swapped = data[BLOCK_BYTES_MAX : 2 * BLOCK_BYTES_MAX] + data[:BLOCK_BYTES_MAX] + data[2 * BLOCK_BYTES_MAX :]
    (drive / "c" / "large").write_bytes(swapped)
    assert faults(drive) == {r"c\large": "2 of its 3 blocks are not as listed, the first at byte 0"}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (None, "there is no such file on the drive"),
        (METADATA.data + b" ", "it is not as listed: its MD5 is another"),
        (b" " * 70_000, "it has more than 65536 bytes"),
    ],
)
def test_what_became_of_a_metadata_file_is_told_once(drive: Path, data: bytes | None, text: str) -> None:
    """Three blobs share it."""
    path = drive.joinpath(*METADATA.file.path.split("\\"))
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    found = verified(drive)
    assert [fault.file for fault in found.faults] == [METADATA.file.path]
    assert found.faults[0].fault.startswith(text)


def test_a_properties_file_that_is_as_listed_and_none_is_told(drive: Path) -> None:
    """The import could not read it either."""
    wrong = Attachment.of(b"<Properties><Content-MD5>x</Content-MD5></Properties>")
    (drive / "p.xml").write_bytes(wrong.data)
    write_manifest(drive, small("b", properties=AttachedFile("p.xml", wrong.file.hash)))
    assert faults(drive) == {"p.xml": "its Content-MD5 is not the Base64 of 16 bytes"}


def test_page_blobs_are_held_against_their_ranges(drive: Path) -> None:
    """What lies between ranges does not count, and the length does."""
    data = random_bytes(4096)
    (drive / "disk.vhd").write_bytes(data)
    ranges = tuple(PageRange(at, 512, Attachment.of(data[at : at + 512]).file.hash) for at in (512, 3584))
    write_manifest(drive, Blob("photos/disk.vhd", "disk.vhd", 4096, page_ranges=ranges))
    assert faults(drive) == {}
    _flip(drive / "disk.vhd", 1024)
    assert faults(drive) == {}
    _flip(drive / "disk.vhd", 3600)
    assert faults(drive) == {"disk.vhd": "1 of its 2 page ranges are not as listed, the first at byte 3,584"}
    os.truncate(drive / "disk.vhd", 3584)
    assert faults(drive) == {"disk.vhd": "it has 3,584 bytes and should have 4,096"}


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 17])
def test_every_piece_of_a_file_is_looked_at_and_of_that_file_alone(drive: Path, count: int) -> None:
    """However they are shared out among the threads."""
    data = random_bytes(count * 512)
    pieces = [Attachment.of(data[at : at + 512]).file.hash for at in range(0, len(data), 512)]
    ranges = tuple(PageRange(number * 512, 512, piece) for number, piece in enumerate(pieces))
    names = ["first", "second", "third"]
    make_source(drive, dict.fromkeys(names, data))
    write_manifest(drive, *(Blob(f"photos/{name}", name, len(data), page_ranges=ranges) for name in names))
    for at in range(0, len(data), 512):
        _flip(drive / "second", at)
        told = f"1 of its {count} page ranges are not as listed, the first at byte {at:,}"
        assert faults(drive) == {"second": told}
        _flip(drive / "second", at)


# The manifest.


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda _: None, "there is no such file on the drive"),
        (lambda data: data[:-20], "it cannot be read: the manifest, after blob 3: it is not XML"),
        (lambda _: b"notes", "it cannot be read: the manifest: it is not XML"),
        (
            lambda data: data.replace(b"<FilePath>b<", b"<FilePath>..\\b<"),
            "it cannot be read: blob 2: its file path",
        ),
        (
            lambda data: data.replace(b"<FilePath>b<", b"<FilePath>C:\\b<"),
            "it cannot be read: blob 2: its file path",
        ),
        (lambda data: data.replace(b"<Length>5<", b"<Length>6<"), "it cannot be read: blob 2: its blocks end"),
        (lambda data: data.replace(b">SERIAL-1<", b">OTHER<"), "it is of the drive OTHER and this is SERIAL-1"),
        (
            lambda data: data.replace(b"<DriveManifest ", b'<!DOCTYPE a [<!ENTITY b "c">]><DriveManifest ', 1),
            "it cannot be read: the manifest: it has a document type",
        ),
    ],
)
def test_a_manifest_that_is_none_or_another_drives_is_told(
    drive: Path, change: Callable[[bytes], bytes | None], text: str
) -> None:
    """Before any file is read."""
    path = drive / MANIFEST_NAME
    data = change(path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    found = faults(drive)
    assert list(found) == [MANIFEST_NAME]
    assert found[MANIFEST_NAME].startswith(text)


def test_a_manifest_that_is_a_link_out_of_the_drive_is_none(drive: Path) -> None:
    """Nothing outside the drive is read."""
    _link_out(drive / MANIFEST_NAME)
    assert faults(drive) == {MANIFEST_NAME: "there is no such file on the drive"}


def test_a_drive_that_lists_nothing_is_as_it_says(drive: Path) -> None:
    """An export may find nothing."""
    write_manifest(drive)
    assert verified(drive).faulty == 0


# Many.


def test_every_mutant_is_told(drive: Path, *, thorough: bool) -> None:
    """A bit or a length or a file, anywhere on the drive; put right again, nothing is told any more."""
    count = 1000 if thorough else 100
    dice = random.Random(7)  # noqa: S311  no secret
    files = sorted(path for path in drive.rglob("*") if path.is_file())
    kept = {path: path.read_bytes() for path in files}
    for number in range(count):
        path = dice.choice(files)
        data = kept[path]
        kind = dice.choice(["flip", "cut", "grow", "lose"] if data else ["grow", "lose"])
        if kind == "flip" and path.name == MANIFEST_NAME:
            # Not every bit of a manifest tells of the drive; the hash that the job has holds all of them.
            kind = "cut"
        if kind == "flip":
            _flip(path, dice.randrange(len(data)))
        elif kind == "cut":
            os.truncate(path, dice.randrange(max(len(data) - 2, 1)))
        elif kind == "grow":
            with path.open("ab") as stream:
                stream.write(b"<")
        else:
            path.unlink()
        found = faults(drive)
        assert found, f"mutant {number}: {kind} of {path.name}"
        place = str(path.relative_to(drive)).replace("/", "\\")
        assert list(found) == [place]
        path.write_bytes(data)
    assert faults(drive) == {}
    print(f"\n{count} mutants, {count} told")  # noqa: T201  a figure to be read


def test_faults_are_told_in_the_manifests_order(tmp_path: Path) -> None:
    """Though several threads look at them."""
    drive = tmp_path / DRIVE_ID
    make_source(drive, {f"{number:03}": b"hello" for number in range(0, 300, 2)})
    write_manifest(drive, *(small(f"{number:03}") for number in range(300)))
    assert list(faults(drive)) == [f"{number:03}" for number in range(1, 300, 2)]


def test_only_so_many_faults_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All are counted, and told."""
    monkeypatch.setattr(verify_drive, "_FAULTS_KEPT", 10)
    drive = tmp_path / DRIVE_ID
    drive.mkdir()
    write_manifest(drive, *(small(f"{number}") for number in range(25)))
    assert ended("verify-drive", drive, "--json", tmp_path / "found.json") == 3
    document = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert (document["faulty"], len(document["faults"])) == (25, 10)
    assert capsys.readouterr().err.count("there is no such file on the drive") == 25


def test_memory_is_bounded_by_blocks_and_not_by_files(tmp_path: Path) -> None:
    """A file of a GiB, sparse, in 256 blocks; four threads hold one block each."""
    drive = tmp_path / DRIVE_ID
    drive.mkdir()
    blocks = 256
    with (drive / "large").open("wb") as stream:
        stream.truncate(blocks * BLOCK_BYTES_MAX)
    zeros = Attachment.of(bytes(BLOCK_BYTES_MAX)).file.hash
    listed = tuple(Block(at * BLOCK_BYTES_MAX, BLOCK_BYTES_MAX, zeros) for at in range(blocks))
    write_manifest(drive, Blob("photos/large", "large", blocks * BLOCK_BYTES_MAX, blocks=listed))
    tracemalloc.start()
    try:
        assert verified(drive).bytes_read == 2**30
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * BLOCK_BYTES_MAX


# The command.


def test_the_command_tells_by_its_exit_code_and_in_json(drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 all well, 3 something wrong."""
    out = drive.parent / "found.json"
    assert ended("verify-drive", drive, "--json", out) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "3 blobs, 8,388,618 bytes read: all as the manifest says\n"
    document = json.loads(out.read_text("utf-8"))
    assert document == {
        "driveId": DRIVE_ID,
        "manifestHash": Attachment.of((drive / MANIFEST_NAME).read_bytes()).file.hash,
        "blobs": 3,
        "bytesRead": 8_388_618,
        "faulty": 0,
        "faults": [],
    }
    (drive / "b").unlink()
    assert ended("verify-drive", drive, "--json", out) == 3
    assert capsys.readouterr().err.splitlines() == [
        "b: there is no such file on the drive",
        "3 blobs, 8,388,613 bytes read: 1 NOT as the manifest says",
    ]
    assert json.loads(out.read_text("utf-8"))["faults"] == [
        {"file": "b", "fault": "there is no such file on the drive"}
    ]


def test_a_drive_mounted_under_another_name_is_named(drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise it may be another drive."""
    mounted = drive.rename(drive.parent / "usb")
    assert ended("verify-drive", mounted) == 3
    assert "it is of the drive SERIAL-1 and this is usb; --drive-id names the drive" in capsys.readouterr().err
    assert ended("verify-drive", mounted, "--drive-id", DRIVE_ID) == 0


def test_what_cannot_be_done_is_refused(drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No drive there, or no folder for the JSON."""
    assert ended("verify-drive", drive / "none") == 1
    assert "InvalidRequestContent: drive: there is no folder" in capsys.readouterr().err
    assert ended("verify-drive", drive, "--json", drive / "none" / "found.json") == 1
    assert "InvalidRequestContent: json: there is no folder" in capsys.readouterr().err


def test_names_are_told_without_what_steers_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And without markup of ours."""
    drive = tmp_path / DRIVE_ID
    drive.mkdir()
    write_manifest(drive, small("[red]\u202e\x85é"))
    assert ended("verify-drive", drive) == 3
    assert capsys.readouterr().err.splitlines()[0] == ("[red]\\u202e\\x85é: there is no such file on the drive")
