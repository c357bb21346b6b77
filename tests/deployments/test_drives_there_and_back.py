"""What a customer lays on drives is imported, and a drive that comes back from an export verifies."""

import json
from pathlib import Path

import pytest

from deployments import cli, drive_room
from flows.export_blobs import export_blobs
from flows.import_drives import import_drives
from models.bay import check_in
from models.database import database_time, reading, writing
from models.drives import drives_of
from models.lifecycle import Actor, JobState
from tasks.folder_store import FolderContainer
from tests.builders import drive_of, job_in, make_source, random_bytes, received_of_entries, stored

pytestmark = pytest.mark.usefixtures("sqlite", "plain_acts")


def ended(*arguments: object) -> int:
    """Run a command in this process; gives its exit code."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_dataset_on_two_drives_is_imported_as_it_says(
    data_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What prepare-drive prints is the job's driveList; blobs have their metadata and properties."""
    make_source(
        tmp_path,
        {
            "photos/a.jpg": random_bytes(300_000, 1),
            "photos/sub/b.jpg": random_bytes(300_000, 2),
            "paper.txt": b"paper",
            "m.xml": b"<Metadata><camera>Nikon</camera></Metadata>",
            "p.xml": b"<Properties><Content-Type>image/jpeg</Content-Type></Properties>",
            "key": b"111-222",
            "dataset.json": json.dumps(
                {
                    "entries": [
                        {
                            "source": "photos",
                            "destination": "data/2025",
                            "metadataFile": "m.xml",
                            "propertiesFile": "p.xml",
                        },
                        {"source": "paper.txt", "destination": "$root"},
                    ]
                }
            ).encode(),
        },
    )
    monkeypatch.setattr(drive_room, "_RESERVED_BYTES", 0)
    monkeypatch.setattr(drive_room, "_room_of", lambda _: (4096, 400_000))
    drives = [data_directory / "bay" / name for name in ("SERIAL-1", "SERIAL-2")]
    for drive in drives:
        drive.mkdir()
    keys = ["--bit-locker-key-file", tmp_path / "key"] * 2
    given = ["--drive", drives[0], "--drive", drives[1]]
    assert ended("prepare-drive", "--dataset", tmp_path / "dataset.json", *given, *keys) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [ended("verify-drive", drive) for drive in drives] == [0, 0]

    job_id = received_of_entries(entries)
    assert import_drives.fn(str(job_id)).is_completed()
    assert stored(data_directory) == {
        "$root/paper.txt": b"paper",
        "data/2025/a.jpg": random_bytes(300_000, 1),
        "data/2025/sub/b.jpg": random_bytes(300_000, 2),
    }
    container = FolderContainer(data_directory / "store" / "account1" / "data", "data")
    for name in ("2025/a.jpg", "2025/sub/b.jpg"):
        facts = container.stat(name).facts
        assert (facts.content_type, facts.metadata) == ("image/jpeg", {"camera": "Nikon"})
    with reading() as session:
        assert [drive.bit_locker_key for drive in drives_of(session, job_id)] == ["111-222"] * 2
    assert [drive_of(job_id, number).copy_status for number in (1, 2)] == ["Completed"] * 2


def test_a_drive_of_an_export_is_as_its_manifest_says(
    data_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until a byte of it changes."""
    container = FolderContainer(data_directory / "store" / "account1" / "data", "data")
    source = make_source(tmp_path / "source", {"a.jpg": b"a", "sub/größe": random_bytes(5_000_000), "empty": b""})
    drive = data_directory / "bay" / "E1"
    first = data_directory / "bay" / "SERIAL-1"
    drive.mkdir()
    first.mkdir()
    assert ended("prepare-drive", source, first, "--container", "data") == 0
    assert import_drives.fn(str(received_of_entries([json.loads(capsys.readouterr().out)], "job0"))).is_completed()
    assert container.stat("a.jpg").length == 1
    with writing() as session:
        now = database_time(session)
        export = {"blobList": {"blobPathPrefix": ["/data/"]}}
        job_id = job_in(
            session,
            JobState.SHIPPING,
            "job1",
            now,
            jobType="Export",
            driveList=None,
            export=export,
        )
        check_in(session, job_id, ["E1"], at=now, by=Actor.OPERATOR)
    export_blobs.fn(str(job_id))
    assert ended("verify-drive", drive) == 0
    assert "3 blobs, 5,000,001 bytes read: all as the manifest says" in capsys.readouterr().err
    (drive / "data" / "sub" / "größe").write_bytes(b"x" * 5_000_000)
    assert ended("verify-drive", drive) == 3
    assert r"data\sub\größe: 2 of its 2 blocks are not as listed" in capsys.readouterr().err
