"""Datasets: what they say comes to be, and every fault of them is told by its place before anything is copied."""

import io
import json
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from deployments import cli, datasets, drive_laying
from deployments.datasets import read_dataset
from deployments.posted_files import MANIFEST_NAME
from models.errors import RequestError
from models.manifest_reader import iterate_blobs
from models.manifests import Blob, ImportDisposition
from tests.builders import make_source

METADATA: Final = b"<Metadata><origin>Oslo</origin></Metadata>"
PROPERTIES: Final = b"<Properties><Content-Type>text/plain</Content-Type></Properties>"


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the whole machine's disks proves nothing here."""
    monkeypatch.setattr("deployments.kept_journal._to_disk", lambda: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sources, a single file, metadata and properties, and two drives."""
    make_source(
        tmp_path,
        {
            "first/a": b"a",
            "first/sub/b": b"b",
            "second/a": b"other",
            "single.txt": b"single",
            "m.xml": METADATA,
            "p.xml": PROPERTIES,
        },
    )
    for name in ("SERIAL-1", "SERIAL-2"):
        (tmp_path / name).mkdir()
    return tmp_path


def dataset(folder: Path, *entries: dict[str, Any]) -> Path:
    """Write a dataset."""
    file = folder / "dataset.json"
    file.write_text(json.dumps({"entries": entries}), "utf-8")
    return file


def faults_of(file: Path) -> dict[str, str]:
    """Have it refused."""
    with pytest.raises(RequestError) as refused:
        read_dataset(file)
    return dict(refused.value.faults)


def ended(*arguments: object) -> int:
    """Run a command in this process; gives its exit code."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def blobs_of(drive: Path) -> dict[str, Blob]:
    """What a drive's manifest says, by the blobs' paths."""
    with (drive / MANIFEST_NAME).open("rb") as manifest:
        return {blob.blob_path: blob for blob in iterate_blobs(manifest)}


def test_folders_and_files_become_the_blobs_that_a_dataset_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with its destination, disposition, metadata and properties; what is printed is a driveList."""
    file = dataset(
        folder,
        {"source": "first", "destination": "photos/2025/", "disposition": "overwrite", "metadataFile": "m.xml"},
        {"source": str(folder / "second"), "destination": "photos", "propertiesFile": str(folder / "p.xml")},
        {"source": "single.txt", "destination": "$root", "disposition": "no-overwrite"},
    )
    assert ended("prepare-drive", "--dataset", file, "--drive", folder / "SERIAL-1") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["driveId"] == "SERIAL-1"
    blobs = blobs_of(folder / "SERIAL-1")
    assert list(blobs) == ["photos/2025/a", "photos/2025/sub/b", "photos/a", "$root/single.txt"]
    told = [(blob.disposition, bool(blob.metadata), bool(blob.properties)) for blob in blobs.values()]
    assert told == [
        (ImportDisposition.OVERWRITE, True, False),
        (ImportDisposition.OVERWRITE, True, False),
        (ImportDisposition.RENAME, False, True),
        (ImportDisposition.NO_OVERWRITE, False, False),
    ]
    assert blobs["photos/2025/sub/b"].file_path == r"photos\2025\sub\b"
    assert ended("verify-drive", folder / "SERIAL-1") == 0


@pytest.mark.parametrize(
    ("entry", "place", "text"),
    [
        ({"source": "none"}, "source", "there is no folder or file "),
        ({"source": "empty"}, "source", "it holds no files"),
        ({"destination": "Photos"}, "destination", "its container must be 3 to 63 lower-case letters"),
        ({"destination": "photos//a"}, "destination", "its blob path must be relative"),
        ({"destination": "photos/../a"}, "destination", "its blob path must be relative"),
        ({"destination": "photos\\a"}, "destination", "a backslash in its name"),
        ({"metadataFile": "none"}, "metadataFile", "there is no file "),
        ({"metadataFile": "p.xml"}, "metadataFile", "its outermost element is no Metadata"),
        ({"propertiesFile": "first"}, "propertiesFile", "there is no file "),
        ({"propertiesFile": "single.txt"}, "propertiesFile", "it is not XML"),
        ({"propertiesFile": "huge.xml"}, "propertiesFile", "it has more than 65536 bytes"),
    ],
)
def test_what_is_wrong_with_an_entry_is_told_by_its_place(
    folder: Path, entry: dict[str, str], place: str, text: str
) -> None:
    """The second entry's, here."""
    (folder / "empty").mkdir()
    (folder / "huge.xml").write_bytes(b" " * 100_000)
    good = {"source": "first", "destination": "photos"}
    faults = faults_of(dataset(folder, good, {**good, **entry}))
    assert list(faults) == [f"entries[1].{place}"]
    assert faults[f"entries[1].{place}"].startswith(text)


def test_faults_of_all_entries_are_told_at_once(folder: Path) -> None:
    """So that nobody has to try four times."""
    wrong = {"source": "none", "destination": "X", "metadataFile": "none", "propertiesFile": "none"}
    good = {"source": "first", "destination": "photos"}
    assert list(faults_of(dataset(folder, wrong, good, wrong))) == [
        f"entries[{number}].{name}"
        for number in (0, 2)
        for name in ("destination", "metadataFile", "propertiesFile", "source")
    ]


@pytest.mark.parametrize(
    ("document", "places"),
    [
        ({}, ["entries"]),
        ([], ["dataset"]),
        ({"entries": []}, ["entries"]),
        ({"entries": [{}], "more": 1}, ["entries[0].source", "entries[0].destination", "more"]),
        (
            {"entries": [{"source": "a", "destination": "b", "disposition": "replace"}]},
            ["entries[0].disposition"],
        ),
        ({"entries": [{"source": "a", "destination": "b", "dispositoin": "rename"}]}, ["entries[0].dispositoin"]),
        ({"entries": [{"source": "a\x00", "destination": ""}]}, ["entries[0].source", "entries[0].destination"]),
    ],
)
def test_what_is_no_dataset_is_told_by_places(folder: Path, document: object, places: list[str]) -> None:
    """A word that is spelled wrong is not passed over."""
    file = folder / "dataset.json"
    file.write_text(json.dumps(document), "utf-8")
    assert list(faults_of(file)) == places


@pytest.mark.parametrize(
    ("data", "text"), [(b"\xff", "JSON"), (b"", "JSON"), (b" " * 200, "it has more than 100 bytes")]
)
def test_a_file_that_cannot_be_a_dataset_is_told(
    folder: Path, data: bytes, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read to a bound, and no further."""
    monkeypatch.setattr(datasets, "DATASET_BYTES_MAX", 100)
    file = folder / "dataset.json"
    file.write_bytes(data)
    faults = faults_of(file)
    assert list(faults) == ["dataset"]
    assert text in faults["dataset"]
    assert list(faults_of(folder / "none")) == ["dataset"]


def test_two_files_for_one_place_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two entries."""
    file = dataset(
        folder, *({"source": source, "destination": "photos"} for source in ("first", "second", "first/sub"))
    )
    assert ended("prepare-drive", "--dataset", file, "--drive", folder / "SERIAL-1") == 1
    told = capsys.readouterr()
    assert told.err.strip() == ("InvalidRequestContent: photos/a: another file has the same place on the drive")
    assert told.out == ""


# The command.


def test_several_drives_are_told_as_a_drive_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that have files; one by one if one was given."""
    drives = [folder / "SERIAL-1", folder / "SERIAL-2"]
    assert ended("prepare-drive", folder / "first", *drives, "--disposition", "overwrite") == 0
    told = capsys.readouterr()
    assert [entry["driveId"] for entry in json.loads(told.out)] == ["SERIAL-1"]
    assert "SERIAL-2: no files, it need not be posted" in told.err
    assert blobs_of(drives[0])["first/a"].disposition is ImportDisposition.OVERWRITE
    assert ended("prepare-drive", "--source", folder / "first", "--drive", drives[1], "--drive-id", "X") == 0
    assert json.loads(capsys.readouterr().out)["driveId"] == "X"


def test_keys_are_read_from_files_and_the_standard_input_in_the_order_of_drives(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stand in no argument, and in no line but the result."""
    (folder / "key").write_bytes(b"\xef\xbb\xbf238810-662376\r\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(" secret pass \nsecond\n"))
    keys = ["--bit-locker-key-file", "-", "--bit-locker-key-file", folder / "key"]
    drives = [folder / "SERIAL-1", folder / "SERIAL-2"]
    assert ended("prepare-drive", folder / "first", *drives, *keys) == 0
    told = capsys.readouterr()
    assert [entry["bitLockerKey"] for entry in json.loads(told.out)] == ["secret pass"]
    assert "secret" not in told.err
    assert ended("prepare-drive", folder / "second", drives[1], *keys[2:]) == 0
    assert json.loads(capsys.readouterr().out)["bitLockerKey"] == "238810-662376"


@pytest.mark.parametrize("key", [b"", b"\n", b"one\ntwo\n", b"x" * 257, b"\xff\xfe1\x002\x00", b"a\x00b"])
def test_what_is_no_key_is_refused_without_repeating_it(
    folder: Path, capsys: pytest.CaptureFixture[str], key: bytes
) -> None:
    """Nothing is copied."""
    (folder / "key").write_bytes(key)
    arguments = ["prepare-drive", folder / "first", folder / "SERIAL-1", "--bit-locker-key-file", folder / "key"]
    assert ended(*arguments) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert error.startswith("InvalidRequestContent: bitLockerKey: ")
    assert error.endswith("must hold one line of 1 to 256 characters, in UTF-8")
    assert list((folder / "SERIAL-1").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "places"),
    [
        ([], ["source", "drive"]),
        (["{0}/first", "--dataset", "{0}/dataset.json", "--drive", "{0}/SERIAL-1"], ["source"]),
        (["{0}/first"], ["drive"]),
        (
            ["--dataset", "x", "--drive", "y", "--container", "c", "--disposition", "rename"],
            ["container", "disposition"],
        ),
        (["{0}/first", "a", "b", "--drive-id", "A"], ["driveId"]),
        (["{0}/first", "a", "b", "--bit-locker-key-file", "-"], ["bitLockerKey"]),
        (["{0}/first", "a", "--bit-locker-key-file", "{0}/none"], ["bitLockerKey"]),
    ],
)
def test_what_does_not_go_together_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], places: list[str]
) -> None:
    """All of it, before anything is looked at."""
    assert ended("prepare-drive", *[argument.format(folder) for argument in arguments]) == 1
    error = " ".join(capsys.readouterr().err.split()).removeprefix("InvalidRequestContent: ")
    assert [fault.split(": ")[0] for fault in error.replace("--dataset;", "").split("; ")] == places


def test_ctrl_c_says_that_nothing_is_lost(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And exits as a shell expects it."""

    def cut(*_: object) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(drive_laying, "_copy_blocks", cut)
        assert ended("prepare-drive", folder / "first", folder / "SERIAL-1") == 130
    assert "the same command goes on where this one was" in capsys.readouterr().err
    assert ended("prepare-drive", folder / "first", folder / "SERIAL-1") == 0
