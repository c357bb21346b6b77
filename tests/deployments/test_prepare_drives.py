"""Several drives: each file goes where there is room, a run cut anywhere goes on, and nothing is half done."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments import drive_laying, drive_plan, drive_room, kept_journal
from deployments.kept_journal import KeptJournal
from deployments.posted_files import (
    ATTACHED_FOLDER,
    MANIFEST_NAME,
    Attachment,
    DriveFile,
    PreparedDrive,
    TargetDrive,
)
from deployments.prepare_drive import drive_files, files_below, prepare_drives
from deployments.verify_drive import verify_drive
from models.drive_journals import JOURNAL_NAME
from models.errors import DriveError, RequestError
from models.manifest_reader import iterate_blobs
from models.manifests import ImportDisposition
from tests.builders import make_source

UNIT: Final = 4096
KIB: Final = 1024
_ROOT: Final = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the whole machine's disks proves nothing here."""
    monkeypatch.setattr("deployments.kept_journal._to_disk", lambda: None)


@pytest.fixture
def drives(tmp_path: Path) -> list[TargetDrive]:
    """Two empty drives."""
    roots = [tmp_path / "SERIAL-1", tmp_path / "SERIAL-2"]
    for root in roots:
        root.mkdir()
    return [TargetDrive(root, root.name) for root in roots]


@pytest.fixture
def size(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give drives a size of their own in KiB, by their names; files and folders there take of it."""

    def set_sizes(**sizes: int) -> None:
        def room(root: Path) -> tuple[int, int]:
            used = sum(
                -(-path.stat().st_size // UNIT) * UNIT if path.is_file() else UNIT for path in root.rglob("*")
            )
            return UNIT, sizes[root.name.replace("-", "_")] * KIB - used

        monkeypatch.setattr(drive_room, "_RESERVED_BYTES", 0)
        monkeypatch.setattr(drive_room, "_room_of", room)

    return set_sizes


def files_of(folder: Path, files: dict[str, int], container: str = "photos") -> list[DriveFile]:
    """Make a source of files, name -> KiB."""
    make_source(folder, {name: os.urandom(length * KIB) for name, length in files.items()})
    return drive_files(files_below(folder), container, ImportDisposition.RENAME)


def listed(drive: TargetDrive) -> list[str]:
    """Every file of a drive's manifest, in its order; the drive is as its manifest says."""
    assert verify_drive(drive.root, drive.drive_id, lambda fault: pytest.fail(str(fault))).faulty == 0
    with (drive.root / MANIFEST_NAME).open("rb") as manifest:
        return [blob.file_path.replace("\\", "/") for blob in iterate_blobs(manifest)]


def contents(drive: TargetDrive) -> dict[str, bytes]:
    """Every file of a drive."""
    files = [path for path in drive.root.rglob("*") if path.is_file()]
    return {path.relative_to(drive.root).as_posix(): path.read_bytes() for path in files}


def copied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Watch which files are copied."""
    told: list[str] = []
    real_copy = drive_laying._copy

    def copy(file: DriveFile, root: Path) -> object:
        told.append(file.place)
        return real_copy(file, root)

    monkeypatch.setattr(drive_laying, "_copy", copy)
    return told


def faults_of(files: Sequence[DriveFile], drives: Sequence[TargetDrive]) -> dict[str, str]:
    """Have it refused."""
    with pytest.raises(RequestError) as refused:
        prepare_drives(files, drives)
    return dict(refused.value.faults)


# Room.


def test_each_file_goes_on_the_first_drive_with_room_for_it(
    tmp_path: Path, drives: list[TargetDrive], size: Callable[..., None]
) -> None:
    """In order; what is too large for what is left of the first leaves it to smaller ones."""
    files = files_of(tmp_path / "source", {"a": 40, "b": 80, "c": 20, "d": 20})
    size(SERIAL_1=110, SERIAL_2=110)
    prepared = prepare_drives(files, drives)
    assert [listed(drive) for drive in drives] == [["a", "c", "d"], ["b"]]
    assert [(drive.drive_id, drive.file_count, drive.bytes_total) for drive in prepared] == [
        ("SERIAL-1", 3, 80 * KIB),
        ("SERIAL-2", 1, 80 * KIB),
    ]


def test_a_drive_that_is_not_needed_is_left_as_it_is(tmp_path: Path, drives: list[TargetDrive]) -> None:
    """And is not among those to be posted."""
    (prepared,) = prepare_drives(files_of(tmp_path / "source", {"a": 1}), drives)
    assert prepared.drive_id == "SERIAL-1"
    assert contents(drives[1]) == {}


def test_what_fits_on_no_drive_is_told_before_anything_is_copied(
    tmp_path: Path, drives: list[TargetDrive], size: Callable[..., None]
) -> None:
    """File by file, with every other fault."""
    files = files_of(tmp_path / "source", {"a": 1, "b": 101, "c\\d": 1, "e": 200})
    size(SERIAL_1=100, SERIAL_2=50)
    assert faults_of(files, drives) == {
        "b": "no drive has room for its 103,424 bytes",
        "c\\d": "a backslash in its name would be read as a folder",
        "e": "no drive has room for its 204,800 bytes",
    }
    assert contents(drives[0]) == contents(drives[1]) == {}


def test_at_most_a_hundred_faults_are_told(
    tmp_path: Path, drives: list[TargetDrive], size: Callable[..., None]
) -> None:
    """And how many more there are."""
    size(SERIAL_1=1, SERIAL_2=1)
    with pytest.raises(RequestError, match=r"; and 30 more$") as refused:
        prepare_drives(files_of(tmp_path / "source", {f"{number:03}": 0 for number in range(130)}), drives)
    assert len(refused.value.faults) == 100


def test_small_files_take_whole_pieces_of_a_drive(
    tmp_path: Path, drives: list[TargetDrive], size: Callable[..., None]
) -> None:
    """A hundred bytes take four KiB, and a folder does."""
    make_source(tmp_path / "source", {f"{number}/f": b"x" for number in range(20)})
    files = drive_files(files_below(tmp_path / "source"), "photos", ImportDisposition.RENAME)
    size(SERIAL_1=100, SERIAL_2=200)
    prepare_drives(files, drives)
    assert 8 <= len(listed(drives[0])) <= 12


def test_full_drives_are_prepared_again_alike(
    tmp_path: Path, drives: list[TargetDrive], size: Callable[..., None]
) -> None:
    """What lies there already will be replaced, and takes no room twice."""
    attached = Attachment.of(b"<Metadata><a>b</a></Metadata>")
    files = [
        DriveFile(file.path, file.place, file.blob_path, metadata=attached)
        for file in files_of(tmp_path / "source", {f"{number % 3}/{number}": 20 for number in range(10)})
    ]
    size(SERIAL_1=180, SERIAL_2=160)
    first = prepare_drives(files, drives)
    before = [contents(drive) for drive in drives]
    assert prepare_drives(files, drives) == first
    assert [contents(drive) for drive in drives] == before
    assert len(first) == 2


def test_a_drive_that_is_full_to_its_end_is_prepared_again(
    tmp_path: Path, drives: list[TargetDrive], size: Callable[..., None]
) -> None:
    """With all its folders: the smallest that the files fit on."""
    files = files_of(tmp_path / "source", {f"{number}/{number}/f": 4 for number in range(20)})
    for kib in range(80, 1000, 4):
        size(SERIAL_1=kib)
        try:
            first = prepare_drives(files, drives[:1])
            break
        except RequestError:
            assert contents(drives[0]) == {}
    # Files 80, folders 160, and what is told of them.
    assert 240 < kib < 300
    assert prepare_drives(files, drives[:1]) == first


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=12),
    sizes=st.lists(st.integers(0, 200), min_size=1, max_size=3),
)
def test_no_drive_is_ever_overfilled(lengths: list[int], sizes: list[int], tmp_path_factory: object) -> None:
    """Manifest and journal fit too; or all is refused, and nothing copied."""
    assert isinstance(tmp_path_factory, pytest.TempPathFactory)
    folder = tmp_path_factory.mktemp("spread")
    drives = [TargetDrive(folder / str(at), str(at)) for at in range(len(sizes))]
    for drive in drives:
        drive.root.mkdir()
    files = files_of(folder / "source", {str(at): length for at, length in enumerate(lengths)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drive_room, "_RESERVED_BYTES", 0)
        patch.setattr(drive_room, "_room_of", lambda root: (UNIT, sizes[int(root.name)] * KIB))
        try:
            prepare_drives(files, drives)
        except RequestError:
            assert not any(contents(drive) for drive in drives)
            return
    for drive, room in zip(drives, sizes, strict=True):
        used = sum(-(-len(data) // UNIT) * UNIT for name, data in contents(drive).items() if name != MANIFEST_NAME)
        manifest = len(contents(drive).get(MANIFEST_NAME, b""))
        assert used + manifest <= room * KIB
    assert sorted(name for drive in drives if contents(drive) for name in listed(drive)) == sorted(
        file.place for file in files
    )


# Refusals.


def test_drives_that_are_not_apart_are_refused(tmp_path: Path, drives: list[TargetDrive]) -> None:
    """The same folder twice, one within another, one serial number twice."""
    files = files_of(tmp_path / "source", {"a": 1})
    twice = [drives[0], TargetDrive(drives[0].root, "OTHER")]
    assert faults_of(files, twice) == {
        "drive[0]": "it is another of the drives, or lies on one",
        "drive[1]": "it is another of the drives, or lies on one",
    }
    (drives[0].root / "below").mkdir()
    assert list(faults_of(files, [drives[0], TargetDrive(drives[0].root / "below", "OTHER")])) == ["drive[1]"]
    same = [drives[0], TargetDrive(drives[1].root, "serial-1")]
    assert faults_of(files, same) == {"driveId[1]": "another drive has the same"}


def test_every_fault_of_every_drive_is_told(tmp_path: Path) -> None:
    """By its place among them."""
    drives = [TargetDrive(tmp_path / "none", "A B"), TargetDrive(tmp_path / "neither", "")]
    assert list(faults_of([], drives)) == ["source", "drive[0]", "driveId[0]", "drive[1]", "driveId[1]"]


def test_a_file_and_a_folder_of_one_name_are_told_beforehand(tmp_path: Path, drives: list[TargetDrive]) -> None:
    """They come from different sources."""
    first = files_of(tmp_path / "first", {"a/b": 1})
    second = files_of(tmp_path / "second", {"a": 1})
    assert faults_of([*first, *second], drives) == {"a": "it would be a file and a folder on the drive"}


def test_a_link_or_a_file_in_a_folders_place_is_told_beforehand(tmp_path: Path, drives: list[TargetDrive]) -> None:
    """Nothing is written anywhere else."""
    (drives[0].root / "a").symlink_to(tmp_path)
    files = files_of(tmp_path / "source", {"a/b": 1})
    assert faults_of(files, drives) == {"drive[0]": "its a is a symbolic link and may lead elsewhere"}
    (drives[0].root / "a").unlink()
    (drives[0].root / "a").write_bytes(b"")
    assert faults_of(files, drives) == {"drive[0]": "its a is no folder"}


def test_names_that_the_drives_file_system_has_not_are_told_beforehand(
    tmp_path: Path, drives: list[TargetDrive], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it takes `a` and `A` for one, as those of Windows do; others have them all."""
    bad = ["ab:c", "c.", "d ", 'e"f', "g./h", "i|j/k", "l?", "m*", "n<", "o>"]
    files = files_of(tmp_path / "source", dict.fromkeys([*bad, ".p", "q.r", " s", "t u"], 0))
    with monkeypatch.context() as patch:
        patch.setattr(drive_plan, "_folds_case", lambda *_: True)
        assert faults_of(files, drives) == dict.fromkeys(sorted(bad), "the drive's file system has no such names")
    assert prepare_drives(files, drives)[0].file_count == 14


# A run that was cut.


def test_a_run_that_was_cut_copies_nothing_again_that_was_finished(
    tmp_path: Path, drives: list[TargetDrive], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until all drives are done; then it is a run like the first."""
    files = files_of(tmp_path / "source", {"a": 1, "b": 1, "c": 1})
    whole = prepare_drives(files, drives)
    told = copied(monkeypatch)

    def cut(_bytes: int) -> None:
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_drives(files, drives, cut)
    assert prepare_drives(files, drives) == whole
    assert told == ["a", "b", "c"]
    assert prepare_drives(files, drives) == whole
    assert told == ["a", "b", "c"] * 2


@pytest.mark.parametrize("change", ["source", "source, same length", "length of the copy", "no copy", "a link"])
def test_what_changed_since_is_copied_again(
    tmp_path: Path, drives: list[TargetDrive], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The source, or what lies on the drive."""
    files = files_of(tmp_path / "source", {"a": 1, "b": 1, "c": 1})
    told = copied(monkeypatch)

    def cut(_bytes: int) -> None:
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_drives(files, drives, cut)
    copy = drives[0].root / "a"
    if change.startswith("source"):
        source = tmp_path / "source" / "a"
        source.write_bytes(b"x" * (KIB if change.endswith("length") else 5))
        os.utime(source, ns=(1, 1))
    elif change == "length of the copy":
        os.truncate(copy, 5)
    else:
        copy.unlink()
    if change == "a link":
        copy.symlink_to(tmp_path / "source" / "a")
    prepare_drives(files, drives)
    assert told == ["a", "b", "a", "c"]
    assert not copy.is_symlink()
    assert listed(drives[0]) == ["a", "b", "c"]


def test_what_is_wanted_no_more_or_elsewhere_goes(
    tmp_path: Path, drives: list[TargetDrive], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of the run that was cut; somebody else's file beside them stays."""
    files = files_of(tmp_path / "source", {"a": 1, "b/c": 1, "d": 1})
    told = copied(monkeypatch)

    def cut(_bytes: int) -> None:
        if len(told) == 2:
            raise KeyboardInterrupt

    (drives[0].root / "mine").write_bytes(b"mine")
    with pytest.raises(KeyboardInterrupt):
        prepare_drives(files, drives, cut)
    again = [DriveFile(file.path, file.place, f"other/{file.place}") for file in files if file.place != "b/c"]
    prepare_drives(again, drives)
    assert told == ["a", "b/c", "d"]
    assert listed(drives[0]) == ["a", "d"]
    assert set(contents(drives[0])) == {"a", "d", "mine", MANIFEST_NAME}
    assert b"<BlobPath>other/a</BlobPath>" in contents(drives[0])[MANIFEST_NAME]


def test_a_source_that_grew_out_of_its_drive_moves_to_another(
    tmp_path: Path, drives: list[TargetDrive], size: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is on one drive alone."""
    files = files_of(tmp_path / "source", {"a": 20, "b": 20})
    size(SERIAL_1=64, SERIAL_2=128)
    told = copied(monkeypatch)

    def cut(_bytes: int) -> None:
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_drives(files, drives, cut)
    files = files_of(tmp_path / "source", {"a": 20, "b": 90})
    prepare_drives(files, drives)
    assert [listed(drive) for drive in drives] == [["a"], ["b"]]
    assert set(contents(drives[0])) == {"a", MANIFEST_NAME}


def test_the_journal_of_another_drive_is_refused(
    tmp_path: Path, drives: list[TargetDrive], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that it tells of is touched."""
    files = files_of(tmp_path / "source", {"a": 1})

    def cut(_bytes: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_drives(files, drives[:1], cut)
    before = contents(drives[0])
    other = TargetDrive(drives[0].root, "OTHER")
    assert faults_of(files_of(tmp_path / "other", {"b": 1}), [other]) == {
        "drive": "its journal is of another drive id; give that one, or empty the drive first"
    }
    assert contents(drives[0]) == before


def test_what_is_no_journal_is_refused(tmp_path: Path, drives: list[TargetDrive]) -> None:
    """It is somebody's file."""
    (drives[0].root / JOURNAL_NAME).write_bytes(b"notes\n")
    with pytest.raises(DriveError, match="is no journal"):
        prepare_drives(files_of(tmp_path / "source", {"a": 1}), drives)
    assert contents(drives[0]) == {JOURNAL_NAME: b"notes\n"}


def test_a_link_in_the_journals_place_is_taken_away_and_not_followed(
    tmp_path: Path, drives: list[TargetDrive]
) -> None:
    """Where it leads to, nothing is written."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"keep me")
    (drives[0].root / JOURNAL_NAME).symlink_to(outside)
    prepare_drives(files_of(tmp_path / "source", {"a": 1}), drives)
    assert outside.read_bytes() == b"keep me"
    assert set(contents(drives[0])) == {"a", MANIFEST_NAME}


def test_no_file_is_written_down_before_it_is_on_the_disk(
    tmp_path: Path, drives: list[TargetDrive], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several at once: where the power goes, what the journal has is there."""
    finished: list[int] = []
    journal = drives[0].root / JOURNAL_NAME
    monkeypatch.setattr(
        kept_journal, "_to_disk", lambda: finished.append(journal.read_bytes().count(b'"source":"') - begun())
    )
    monkeypatch.setattr(kept_journal, "_WAITING_MAX", 2)

    def begun() -> int:
        return journal.read_bytes().count(b'"source":""')

    prepare_drives(files_of(tmp_path / "source", {"a": 1, "b": 1, "c": 1}), drives)
    assert finished == [0, 2]


def test_what_a_killed_run_laid_and_nobody_wants_any_more_goes(
    tmp_path: Path, drives: list[TargetDrive], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nothing had been written down as finished: no file travels that no manifest lists."""
    files = files_of(tmp_path / "source", {"a": 1, "b": 1, "c": 1})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killing:
        killing.setattr(KeptJournal, "settle", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare_drives(files, drives)
    assert set(contents(drives[0])) == {"a", "b", "c", JOURNAL_NAME}
    told = copied(monkeypatch)
    prepare_drives(files[:1], drives)
    assert told == ["a"], "what is not known to be on the disk is copied again"
    assert set(contents(drives[0])) == {"a", MANIFEST_NAME}


def test_a_journal_that_has_no_room_any_more_hides_no_fault(
    tmp_path: Path, drives: list[TargetDrive], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a drive that is full it is told that it is."""

    def full(_bytes: int) -> None:
        was = resource.getrlimit(resource.RLIMIT_FSIZE)
        # No file of this process may become longer than this, until the test ends.
        resource.setrlimit(resource.RLIMIT_FSIZE, ((drives[0].root / JOURNAL_NAME).stat().st_size, was[1]))
        ending.callback(resource.setrlimit, resource.RLIMIT_FSIZE, was)
        raise RequestError([("drive", "it is full")])

    with ExitStack() as ending, pytest.raises(RequestError, match="it is full"):
        prepare_drives(files_of(tmp_path / "source", {"a": 1}), drives, full)


def test_two_runs_are_never_at_work_on_one_drive(tmp_path: Path, drives: list[TargetDrive]) -> None:
    """The later one is told so and touches nothing; afterwards the drive is free."""
    files = files_of(tmp_path / "source", {"a": 1, "b": 1})
    faults: list[str] = []

    def again(_bytes: int) -> None:
        with pytest.raises(RequestError, match="another run of prepare-drive is at work there") as told:
            prepare_drives(files, drives)
        faults.append(told.value.faults[0][0])

    assert prepare_drives(files, drives, again)
    assert faults == ["drive[0]", "drive[0]"]
    assert prepare_drives(files, drives)


def test_a_torn_journal_is_gone_on_with(
    tmp_path: Path, drives: list[TargetDrive], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even torn in its first line."""
    files = files_of(tmp_path / "source", {"a": 1, "b": 1})
    told = copied(monkeypatch)

    def cut(_bytes: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_drives(files, drives, cut)
    journal = drives[0].root / JOURNAL_NAME
    with journal.open("ab") as stream:
        stream.write(b'{"blob":{"blob_pa' + b"x" * 5000)
    with pytest.raises(KeyboardInterrupt):
        prepare_drives(files, drives, cut)
    with KeptJournal(drives[0].root) as kept:
        assert kept.file_paths == {"a"}
    assert journal.read_bytes().endswith(b"}\n")
    os.truncate(journal, 7)
    prepare_drives(files, drives)
    assert told == ["a", "a", "b"]
    assert listed(drives[0]) == ["a", "b"]


# Metadata and properties.


def test_attached_files_lie_on_each_drive_that_needs_them_once(
    tmp_path: Path, drives: list[TargetDrive], size: Callable[..., None]
) -> None:
    """By what they say; those of an earlier run go."""
    metadata = Attachment.of(b"<Metadata><a>b</a></Metadata>")
    properties = Attachment.of(b"<Properties><Content-Type>text/plain</Content-Type></Properties>")
    plain = files_of(tmp_path / "source", {"a": 20, "b": 20, "c": 40})
    size(SERIAL_1=70, SERIAL_2=100)
    files = [DriveFile(file.path, file.place, file.blob_path, metadata=metadata) for file in plain[:2]]
    prepare_drives([*files, DriveFile(plain[2].path, "c", "photos/c", properties=properties)], drives)
    assert [listed(drive) for drive in drives] == [["a", "b"], ["c"]]
    attached = [sorted(name for name in contents(drive) if name.startswith(".")) for drive in drives]
    assert attached == [[metadata.file.path.replace("\\", "/")], [properties.file.path.replace("\\", "/")]]
    assert (
        f'<MetadataPath Hash="{metadata.file.hash}">{metadata.file.path}<'.encode()
        in contents(drives[0])[MANIFEST_NAME]
    )
    prepare_drives(plain, drives)
    assert not any((drive.root / ATTACHED_FOLDER).exists() for drive in drives)


def test_a_key_is_in_the_entry_of_its_drive_and_in_no_text(tmp_path: Path, drives: list[TargetDrive]) -> None:
    """Of one that has none, there is nothing."""
    target = TargetDrive(drives[0].root, "SERIAL-1", "secret-key")
    (prepared,) = prepare_drives(files_of(tmp_path / "source", {"a": 1}), [target])
    assert prepared.drive_list_entry()["bitLockerKey"] == "secret-key"
    assert "secret-key" not in f"{target!r} {prepared!r}"
    assert not any(b"secret-key" in data for data in contents(drives[0]).values())
    assert "bitLockerKey" not in PreparedDrive("A", "\\m", "0" * 32, 1, 1).drive_list_entry()


# Killed.

_KILLS: Final = """
import json, os, random, shutil, signal, sys
from pathlib import Path
from deployments import drive_laying, drive_plan, drive_room, kept_journal
from deployments.posted_files import TargetDrive
from deployments.prepare_drive import drive_files, files_below, prepare_drives
from models.manifests import ImportDisposition

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
files = drive_files(files_below(folder / "source"), "photos", ImportDisposition.RENAME)
drives = [TargetDrive(folder / name, name) for name in ("SERIAL-1", "SERIAL-2")]
calls = 0

def room(root):
    used = sum(-(-path.stat().st_size // 4096) * 4096 for path in root.rglob("*") if path.is_file())
    return 4096, 150_000 - used

def empty():
    for drive in drives:
        shutil.rmtree(drive.root, ignore_errors=True)
        drive.root.mkdir()

def tree():
    return {str(path.relative_to(folder)): path.read_bytes() for drive in drives
            for path in sorted(drive.root.rglob("*")) if path.is_file()}

def run(log, kill_at=None):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    real_copy = drive_laying._copy
    def copy(file, root):
        os.write(out, (file.place + "\\n").encode())
        return real_copy(file, root)
    drive_laying._copy = copy
    def count(*_):
        global calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(count)
    prepare_drives(files, drives)
    sys.setprofile(None)
    os.write(out, f"calls {calls}".encode())
    os._exit(0)

kept_journal._to_disk = lambda: None
kept_journal._WAITING_MAX = 1
drive_laying.BLOCK_BYTES_MAX = 4096
drive_room._RESERVED_BYTES = 0
drive_room._room_of = room
log, log_again = folder / "log", folder / "log-again"
# Once here, so that each run finds the same things known already.
empty()
prepare_drives(files, drives)
empty()
assert run(log) == 0
whole, total = tree(), int(log.read_text().split()[-1])
assert whole.keys() >= {"SERIAL-1/DriveManifest.xml", "SERIAL-2/DriveManifest.xml"}
found = {"total": total, "killed": 0, "resumed": 0, "bad": []}
for at in sorted(random.Random(5).sample(range(1, total), kills)):
    empty()
    found["killed"] += run(log, at) == -signal.SIGKILL
    # Once all manifests are there the work is done, and the journals go one after the other.
    is_done = all((drive.root / "DriveManifest.xml").exists() for drive in drives)
    ended = run(log_again)
    before, again = log.read_text().split(), log_again.read_text().split()[:-2]
    twice = set(before) & set(again)
    found["resumed"] += bool(before) and not is_done
    if ended or tree() != whole or not (is_done or twice <= set(before[-1:])):
        found["bad"].append([at, ended, sorted(twice), tree() == whole])
print(json.dumps(found))
"""


def test_a_run_killed_anywhere_goes_on_with_the_file_it_was_in(tmp_path: Path, *, thorough: bool) -> None:
    """SIGKILL at random calls of the whole run: the drives come out the same, byte by byte."""
    kills = 1000 if thorough else 60
    make_source(
        tmp_path / "source", {f"{number % 3}/{number:02}": os.urandom(number * 1500) for number in range(14)}
    )
    ended = subprocess.run(
        [sys.executable, "-c", _KILLS, str(tmp_path), str(kills)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["bad"] == []
    assert found["killed"] >= 0.95 * kills
    assert found["resumed"] > kills // 4
    told = f"killed {found['killed']} times, at random calls out of {found['total']:,}"
    print(f"\n{told}: each time gone on, and all the same")  # noqa: T201  figures to be read
