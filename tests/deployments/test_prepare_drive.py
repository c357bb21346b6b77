"""A prepared drive holds what its manifest says, and a drive that cannot is refused before anything is copied."""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments import drive_laying, drive_plan
from deployments.posted_files import MANIFEST_NAME, PreparedDrive
from deployments.prepare_drive import files_below, prepare_drive
from models.drive_journals import JOURNAL_NAME
from models.errors import RequestError
from models.manifest_reader import check_manifest, iterate_blobs
from models.manifests import BLOCK_BYTES_MAX, BLOCKS_MAX, Blob, ImportDisposition

DRIVE_ID: Final = "WD-9CA995BB"


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the whole machine's disks proves nothing here."""
    monkeypatch.setattr("deployments.kept_journal._to_disk", lambda: None)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with three files, one of them empty and one a block and a byte long."""
    folder = tmp_path / "source"
    lay(folder, {"b.bin": b"\x07" * (BLOCK_BYTES_MAX + 1), "a/deep/é & <x>.txt": b"hello", "a/empty": b""})
    return folder


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """An empty drive."""
    folder = tmp_path / "drive"
    folder.mkdir()
    return folder


def lay(folder: Path, files: dict[str, bytes]) -> None:
    """Write files below a folder."""
    for relative, data in files.items():
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        (folder / relative).write_bytes(data)


def prepared(source: Path, drive: Path, drive_id: str = DRIVE_ID, container: str = "photos") -> PreparedDrive:
    """Prepare a drive as a customer does."""
    return prepare_drive(files_below(source), drive, drive_id, container)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def blobs_of(drive: Path) -> list[Blob]:
    """What the drive's manifest says."""
    with (drive / MANIFEST_NAME).open("rb") as manifest:
        check_manifest(manifest)
        manifest.seek(0)
        return list(iterate_blobs(manifest))


def require_true(drive: Path) -> None:
    """Every block of every blob is on the drive, byte by byte."""
    for blob in blobs_of(drive):
        data = drive.joinpath(*blob.file_path.split("\\")).read_bytes()
        assert len(data) == blob.length
        for block in blob.blocks:
            piece = data[block.offset : block.offset + block.length]
            assert hashlib.md5(piece, usedforsecurity=False).hexdigest().upper() == block.hash


def faults_of(refused: pytest.ExceptionInfo[RequestError]) -> dict[str, str]:
    """What was told, by target."""
    return dict(refused.value.faults)


def test_a_prepared_drive_holds_every_file_and_a_manifest_that_is_true(source: Path, drive: Path) -> None:
    """Names with spaces, accents and brackets, empty files, files of several blocks."""
    result = prepared(source, drive)
    assert contents(drive) == contents(source) | {MANIFEST_NAME: (drive / MANIFEST_NAME).read_bytes()}
    require_true(drive)
    blobs = blobs_of(drive)
    assert [blob.blob_path for blob in blobs] == ["photos/a/deep/é & <x>.txt", "photos/a/empty", "photos/b.bin"]
    assert [blob.file_path for blob in blobs] == [r"a\deep\é & <x>.txt", r"a\empty", "b.bin"]
    assert [block.length for block in blobs[2].blocks] == [BLOCK_BYTES_MAX, 1]
    assert {blob.disposition for blob in blobs} == {ImportDisposition.RENAME}
    assert (result.file_count, result.bytes_total) == (3, BLOCK_BYTES_MAX + 6)


def test_the_entry_of_the_drive_list_is_what_a_job_asks_for(source: Path, drive: Path) -> None:
    """The hash is that of the manifest as it lies there."""
    data_hash = prepared(source, drive).manifest_hash
    assert (
        data_hash == hashlib.md5((drive / MANIFEST_NAME).read_bytes(), usedforsecurity=False).hexdigest().upper()
    )
    assert prepared(source, drive).drive_list_entry() == {
        "driveId": DRIVE_ID,
        "manifestFile": "\\DriveManifest.xml",
        "manifestHash": data_hash,
    }
    assert check_manifest(io.BytesIO((drive / MANIFEST_NAME).read_bytes())).drive_id == DRIVE_ID


@pytest.mark.parametrize("disposition", ImportDisposition)
@pytest.mark.parametrize("container", ["$root", "abc", "a" * 63])
def test_container_and_disposition_are_the_customers_choice(
    source: Path, drive: Path, disposition: ImportDisposition, container: str
) -> None:
    """They reach every blob."""
    prepare_drive(files_below(source), drive, DRIVE_ID, container, disposition)
    assert {blob.disposition for blob in blobs_of(drive)} == {disposition}
    assert {blob.blob_path.split("/")[0] for blob in blobs_of(drive)} == {container}


def test_progress_is_told_in_bytes_file_by_file(source: Path, drive: Path) -> None:
    """In the order of copying."""
    told: list[int] = []
    prepare_drive(files_below(source), drive, DRIVE_ID, "photos", on_file=told.append)
    assert told == [5, 0, BLOCK_BYTES_MAX + 1]


def test_each_byte_is_read_once(source: Path, drive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every source file is opened a single time."""
    opened: list[Path] = []
    real_open = Path.open

    def counting_open(self: Path, *args: object, **kwargs: object) -> object:
        opened.append(self)
        return real_open(self, *args, **kwargs)  # type: ignore[call-overload] # handed on as it came

    monkeypatch.setattr(Path, "open", counting_open)
    prepared(source, drive)
    ours = [path for path in opened if path.is_relative_to(source)]
    assert sorted(ours) == sorted(path for path, _ in files_below(source))


# Running again.


def test_a_drive_prepared_again_comes_out_the_same(source: Path, drive: Path) -> None:
    """Byte by byte, and nothing else is left there."""
    first = prepared(source, drive)
    before = contents(drive)
    assert prepared(source, drive) == first
    assert contents(drive) == before


def test_a_drive_prepared_again_takes_what_was_added_or_changed(source: Path, drive: Path) -> None:
    """Another container does not matter either: the files on the drive are the same."""
    prepared(source, drive)
    lay(source, {"a/empty": b"no more", "new": b"new"})
    assert prepared(source, drive, container="other").file_count == 4
    require_true(drive)


@pytest.mark.parametrize("stop", range(4))
def test_a_run_cut_anywhere_leaves_no_manifest_and_is_run_again(source: Path, drive: Path, stop: int) -> None:
    """Cut after each file, over a drive that was done before; the last cut comes after the end."""
    whole = prepared(source, drive)
    left = iter([None] * stop)

    def cut(_bytes: int) -> None:
        try:
            next(left)
        except StopIteration:
            raise KeyboardInterrupt from None

    if stop < 3:
        with pytest.raises(KeyboardInterrupt):
            prepare_drive(files_below(source), drive, DRIVE_ID, "photos", on_file=cut)
        assert not (drive / MANIFEST_NAME).exists()
        assert [path.name for path in drive.glob(".drivepost*")] == [JOURNAL_NAME]
    assert prepared(source, drive) == whole
    assert not list(drive.glob(".drivepost*"))


def test_what_a_killed_run_left_is_taken_away(source: Path, drive: Path) -> None:
    """Its unfinished files have names of their own, also when they are links to somewhere."""
    outside = drive.parent / "outside"
    outside.write_bytes(b"keep me")
    (drive / ".drivepost.manifest.unfinished").symlink_to(outside)
    lay(drive, {".drivepost.file.unfinished": b"half", "b.bin": b"half"})
    prepared(source, drive)
    assert set(contents(drive)) == {*contents(source), MANIFEST_NAME}
    assert outside.read_bytes() == b"keep me"
    require_true(drive)


@pytest.mark.parametrize("lie", ["another drive", "other files", "no manifest at all"])
def test_a_drive_with_the_manifest_of_something_else_is_left_alone(source: Path, drive: Path, lie: str) -> None:
    """Nothing there is touched."""
    earlier = drive.parent / "earlier"
    lay(earlier, {"b.bin": b"x"} if lie == "another drive" else {"holiday": b"x"})
    prepared(earlier, drive, drive_id="OTHER" if lie == "another drive" else DRIVE_ID)
    if lie == "no manifest at all":
        (drive / MANIFEST_NAME).write_bytes(b"notes")
    before = contents(drive)
    with pytest.raises(
        RequestError, match=r"^drive: its DriveManifest.xml is of another drive or lists other files"
    ):
        prepared(source, drive)
    assert contents(drive) == before


# Refusals before anything is copied.


@pytest.mark.parametrize(
    "drive_id", ["", "A B", "A/B", "A\\B", "..", ".", "é", "A" * 65, "A\n", " A", "A:", "1;2", "\u0661"]
)
def test_what_is_no_serial_number_is_refused(source: Path, drive: Path, drive_id: str) -> None:
    """It will be the name of a folder in the bay."""
    with pytest.raises(RequestError, match=r"^driveId: it must be the hardware serial number"):
        prepared(source, drive, drive_id=drive_id)
    assert contents(drive) == {}


@pytest.mark.parametrize("drive_id", ["A", "WD-WCAV5", "a_b.c", "A" * 64, "0", "..a"])
def test_what_is_a_serial_number_is_taken(source: Path, drive: Path, drive_id: str) -> None:
    """From 1 to 64 characters."""
    assert prepared(source, drive, drive_id=drive_id).drive_id == drive_id


@pytest.mark.parametrize("container", ["", "ab", "Photos", "photos/2014", "a--b", "$web", "..", "photos/"])
def test_what_is_no_container_is_refused(source: Path, drive: Path, container: str) -> None:
    """A folder within one is none either."""
    with pytest.raises(RequestError, match=r"^container: "):
        prepared(source, drive, container=container)
    assert contents(drive) == {}


def test_every_fault_of_the_arguments_is_told_at_once(tmp_path: Path) -> None:
    """So that nobody has to try four times."""
    with pytest.raises(RequestError) as refused:
        prepare_drive([], tmp_path / "none", "A B", "X")
    assert set(faults_of(refused)) == {"source", "drive", "driveId", "container"}


@pytest.mark.parametrize("make", [lambda _: None, lambda path: path.write_bytes(b"")])
def test_a_source_that_is_no_folder_is_refused_at_once(tmp_path: Path, make: object) -> None:
    """Not only when the first file is asked for."""
    assert callable(make)
    make(tmp_path / "source")
    with pytest.raises(RequestError, match=r"^source: there is no folder"):
        files_below(tmp_path / "source")


def test_a_source_without_files_is_refused(tmp_path: Path, drive: Path) -> None:
    """Folders and links are no files."""
    (tmp_path / "source" / "empty").mkdir(parents=True)
    (tmp_path / "source" / "link").symlink_to(__file__)
    with pytest.raises(RequestError, match="source: it holds no files"):
        prepared(tmp_path / "source", drive)


def test_every_name_a_manifest_cannot_hold_is_told_and_nothing_is_copied(source: Path, drive: Path) -> None:
    """Control characters, backslashes, bytes that are no text, and our own names."""
    good = set(contents(source))
    odd = ["ctrl\x01.txt", "back\\slash", os.fsdecode(b"raw\xff"), "...", "C:x", "drivemanifest.XML", "x" * 250]
    lay(source, {"a/" * 5 + name if len(name) == 250 else name: b"x" for name in odd})
    with pytest.raises(RequestError) as refused:
        prepared(source, drive)
    told = faults_of(refused)
    assert set(told) == {r"ctrl\x01.txt", odd[1], r"raw\udcff", "...", "C:x", odd[5]}
    assert "XML cannot hold" in told[r"ctrl\x01.txt"]
    assert "XML cannot hold" in told[r"raw\udcff"]
    assert "kept for the manifest" in told[odd[5]]
    assert not any(name in told for name in good)
    assert str(refused.value).isprintable()
    assert contents(drive) == {}


@pytest.mark.parametrize(
    "relative", ["../x", "/x", "a/../../x", "a//x", "", "./x", "a/", ".drivepost.file.unfinished"]
)
def test_a_place_outside_the_drive_is_refused(source: Path, drive: Path, relative: str) -> None:
    """Also for those who call with a list of their own."""
    with pytest.raises(RequestError):
        prepare_drive([(source / "b.bin", relative)], drive, DRIVE_ID, "photos")
    assert contents(drive) == {}
    assert not (drive.parent / "x").exists()


def test_at_most_a_hundred_faults_are_told(source: Path, drive: Path) -> None:
    """With the number of the rest."""
    files = [(source / f"none{n}", f"none{n}") for n in range(150)]
    with pytest.raises(RequestError) as refused:
        prepare_drive(files, drive, DRIVE_ID, "photos")
    assert len(refused.value.faults) == 100
    assert str(refused.value).endswith("; and 50 more")


def test_two_files_for_one_place_are_refused(source: Path, drive: Path) -> None:
    """One would take the place of the other."""
    files = [(source / "b.bin", "x"), (source / "a/empty", "x")]
    with pytest.raises(RequestError, match=r"^x: another file has the same place"):
        prepare_drive(files, drive, DRIVE_ID, "photos")


@pytest.mark.parametrize("folds", [False, True])
def test_names_that_differ_by_case_are_refused_where_the_drive_does_not_tell_them_apart(
    source: Path, drive: Path, monkeypatch: pytest.MonkeyPatch, folds: bool
) -> None:
    """As exFAT and NTFS do not; others do."""
    monkeypatch.setattr(drive_plan, "_folds_case", lambda *_: folds)
    files = [(source / "b.bin", "x"), (source / "a/empty", "X")]
    if not folds:
        assert prepare_drive(files, drive, DRIVE_ID, "photos").file_count == 2
        return
    with pytest.raises(RequestError, match=r"^X: another file has the same place"):
        prepare_drive(files, drive, DRIVE_ID, "photos")


def test_a_file_over_fifty_thousand_blocks_is_refused(source: Path, drive: Path) -> None:
    """It is sparse: nobody reads it."""
    with (source / "huge").open("wb") as huge:
        huge.truncate(BLOCKS_MAX * BLOCK_BYTES_MAX + 1)
    with pytest.raises(RequestError, match=r"^huge: it has 209715200001 bytes and may have 209715200000$"):
        prepared(source, drive)
    assert contents(drive) == {}


def test_links_and_pipes_given_by_hand_are_refused(source: Path, drive: Path) -> None:
    """A pipe would be waited for without end."""
    os.mkfifo(source / "pipe")
    (source / "link").symlink_to(source / "b.bin")
    with pytest.raises(RequestError) as refused:
        prepare_drive([(source / name, name) for name in ("pipe", "link", "a")], drive, DRIVE_ID, "photos")
    assert faults_of(refused) == dict.fromkeys(("pipe", "link", "a"), "it is no regular file")


@pytest.mark.parametrize("through_link", [False, True])
def test_a_drive_inside_the_source_is_refused(source: Path, through_link: bool) -> None:
    """Its own files would be found among those to be copied."""
    (source / "drive").mkdir()
    drive = source / "drive"
    if through_link:
        drive = source.parent / "link"
        drive.symlink_to(source / "drive")
    with pytest.raises(RequestError, match=r"^drive: it lies in the folder the files come from"):
        prepared(source, drive)
    assert contents(source / "drive") == {}


@pytest.mark.parametrize("below", ["", "files"])
def test_a_source_on_the_drive_is_refused(drive: Path, below: str) -> None:
    """The drive itself, and a folder of it."""
    lay(drive, {"files/a": b"x"})
    with pytest.raises(RequestError, match=r"^source: its files lie on the drive itself"):
        prepared(drive / below, drive)
    assert contents(drive) == {"files/a": b"x"}


def test_a_drive_beside_the_source_with_a_longer_name_is_no_part_of_it(source: Path) -> None:
    """`source-2` is not below `source`."""
    drive = source.parent / "source-2"
    drive.mkdir()
    assert prepared(source, drive).file_count == 3


# Refusals on the way.


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda path: path.unlink(), "cannot be copied: No such file"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be copied: Is a directory"),
    ],
)
def test_a_file_that_vanishes_meanwhile_is_told_and_there_is_no_manifest(
    source: Path, drive: Path, change: object, text: str
) -> None:
    """It goes while the first file is copied."""
    assert callable(change)
    files = [(source / "a/empty", "a/empty"), (source / "b.bin", "b.bin")]
    with pytest.raises(RequestError) as refused:
        prepare_drive(files, drive, DRIVE_ID, "photos", on_file=lambda _: change(source / "b.bin"))
    assert list(faults_of(refused)) == ["b.bin"]
    assert text in faults_of(refused)["b.bin"]
    assert set(contents(drive)) == {"a/empty", JOURNAL_NAME}


@pytest.mark.parametrize("change", ["grows", "shrinks", "is rewritten", "grows without end"])
def test_a_file_that_changes_while_it_is_read_is_told_and_not_kept(
    source: Path, drive: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its length if its time is as before, and by its time if its length is."""
    file = source / "b.bin"
    before = file.stat()
    real_md5 = drive_laying._md5

    def changing_md5(data: bytes = b"") -> object:
        if change.startswith("grows") and (change.endswith("end") or file.stat().st_size == BLOCK_BYTES_MAX + 1):
            with file.open("ab") as stream:
                stream.write(b"x" * BLOCK_BYTES_MAX)
        if change == "shrinks":
            os.truncate(file, 5)
        time = 0 if change == "is rewritten" else before.st_mtime_ns
        os.utime(file, ns=(time, time))
        return real_md5(data)

    monkeypatch.setattr(drive_laying, "_md5", changing_md5)
    with pytest.raises(RequestError, match=r"^b.bin: it changed while it was read$"):
        prepare_drive([(file, "b.bin")], drive, DRIVE_ID, "photos")
    assert set(contents(drive)) == {JOURNAL_NAME}


def test_a_link_on_the_drive_leads_no_file_elsewhere(source: Path, drive: Path) -> None:
    """A folder of that name is a link to somewhere else."""
    outside = drive.parent / "outside"
    outside.mkdir()
    (drive / "a").symlink_to(outside)
    with pytest.raises(RequestError, match="its a is a symbolic link"):
        prepared(source, drive)
    assert contents(outside) == {}


def test_a_place_taken_by_a_folder_is_told(source: Path, drive: Path) -> None:
    """The drive held something else before."""
    (drive / "b.bin").mkdir()
    with pytest.raises(RequestError, match=r"^b.bin: a folder has its place on the drive$"):
        prepared(source, drive)
    assert not list(drive.glob(".drivepost*"))


def test_a_full_drive_is_told_by_the_file_that_did_not_fit(
    source: Path, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was half copied is taken away."""

    def full(*_: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drive_laying, "_copy_blocks", full)
    with pytest.raises(RequestError, match=r"<x>.txt: cannot be copied: No space left on device$"):
        prepared(source, drive)
    assert set(contents(drive)) == {JOURNAL_NAME}


# Finding files.


def test_only_regular_files_are_found_in_the_order_of_names(source: Path) -> None:
    """Links to files, to folders and to their own folder are passed over, pipes too."""
    (source / "a" / "self").symlink_to(source)
    (source / "a" / "to-file").symlink_to(source / "b.bin")
    (source / "broken").symlink_to("nowhere")
    os.mkfifo(source / "pipe")
    lay(source, {"a.txt": b"", "Z": b""})
    found = list(files_below(source))
    assert [relative for _, relative in found] == ["Z", "a/deep/é & <x>.txt", "a/empty", "a.txt", "b.bin"]
    assert all(path == source / relative for path, relative in found)


def test_what_is_skipped_is_neither_given_nor_looked_into(source: Path) -> None:
    """A skipped folder costs nothing."""
    asked: list[str] = []

    def skip(path: Path) -> bool:
        asked.append(path.name)
        return path.name in {"deep", "b.bin"}

    assert [relative for _, relative in files_below(source, skip)] == ["a/empty"]
    assert asked == ["a", "deep", "empty", "b.bin"]


def test_a_source_may_be_reached_through_a_link(source: Path) -> None:
    """It is named by the customer, and not found on the way."""
    link = source.parent / "link"
    link.symlink_to(source)
    assert len(list(files_below(link))) == 3


def test_a_folder_that_cannot_be_read_is_told_and_not_passed_over(
    source: Path, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its files would be missed without a word."""
    real_iterdir = Path.iterdir

    def forbidden(self: Path) -> Iterator[Path]:
        if self.name == "deep":
            raise PermissionError(13, "Permission denied")
        return iter(list(real_iterdir(self)))

    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(RequestError, match=r"deep: cannot be read: Permission denied$"):
        prepared(source, drive)


@settings(max_examples=25, deadline=None)
@given(
    files=st.dictionaries(
        st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="/\x00"), min_size=1, max_size=9
        ).filter(lambda name: name not in {".", ".."}),
        st.binary(max_size=20),
        min_size=1,
        max_size=5,
    )
)
def test_any_names_are_prepared_truly_or_all_refused(files: dict[str, bytes], tmp_path_factory: object) -> None:
    """There is no third way: no file is left out, none is changed."""
    assert isinstance(tmp_path_factory, pytest.TempPathFactory)
    source, drive = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("drive")
    lay(source, files)
    try:
        prepared(source, drive)
    except RequestError:
        assert contents(drive) == {}
    else:
        assert {name: data for name, data in contents(drive).items() if name != MANIFEST_NAME} == files
        require_true(drive)
