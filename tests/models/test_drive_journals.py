"""The journal of a drive: what was written whole is read back, what was torn is not; other files are none."""

import io
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import drive_journals
from models.drive_journals import (
    JournalEntry,
    JournalHead,
    add_entry,
    begin_journal,
    read_entry,
    read_head,
)
from models.errors import DriveError
from models.manifests import (
    BLOCK_BYTES_MAX,
    BLOCKS_MAX,
    PAGE_RANGES_MAX,
    AttachedFile,
    Blob,
    Block,
    ImportDisposition,
    PageRange,
)

MD5: Final = "0123456789ABCDEF0123456789ABCDEF"
HEAD: Final = JournalHead("SERIAL1", 1000)
ENTRIES: Final = [
    JournalEntry(Blob("photos/é & <x>", "a\\é & <x>", 5, blocks=(Block(0, 5, MD5),)), "version 1"),
    JournalEntry(Blob("photos/empty", "empty", 0, ImportDisposition.OVERWRITE), ""),
    JournalEntry(Blob("photos/empty.vhd", "empty.vhd", 512, is_page_blob=True), "0x8D4"),
    JournalEntry(
        Blob(
            "photos/disk.vhd",
            "disk.vhd",
            2048,
            ImportDisposition.NO_OVERWRITE,
            page_ranges=(PageRange(512, 512, MD5),),
            metadata=AttachedFile("m.xml", MD5),
            properties=AttachedFile("p.xml", MD5),
        ),
        "\n",
    ),
    JournalEntry(Blob("photos/ids", "ids", 2, blocks=(Block(0, 1, MD5, "A="), Block(1, 1, MD5, "B="))), "x"),
]


def journal_of(entries: list[JournalEntry] = ENTRIES) -> bytes:
    """Write a journal."""
    stream = io.BytesIO()
    begin_journal(stream, HEAD)
    for entry in entries:
        add_entry(stream, entry)
    return stream.getvalue()


def entries_of(stream: io.BytesIO) -> list[JournalEntry]:
    """Read a journal to its end."""
    read_head(stream)
    found = []
    while entry := read_entry(stream):
        found.append(entry)
    return found


def test_what_is_written_is_read_back() -> None:
    """Blocks with ids and without, page blobs, attached files, empty files, whatever the source's version is."""
    stream = io.BytesIO(journal_of())
    assert read_head(stream) == HEAD
    stream.seek(0)
    assert entries_of(stream) == ENTRIES


@given(cut=st.integers(0, len(journal_of())))
def test_a_journal_cut_anywhere_gives_its_whole_lines_and_is_gone_on_with(cut: int) -> None:
    """The stream then stands where the next entry belongs."""
    data = journal_of()
    stream = io.BytesIO(data[:cut])
    whole = data[:cut].count(b"\n")
    assert entries_of(stream) == ENTRIES[: max(whole - 1, 0)]
    assert stream.tell() == data[:cut].rfind(b"\n") + 1
    if whole:
        stream.truncate()
        add_entry(stream, ENTRIES[0])
        stream.seek(0)
        assert entries_of(stream) == [*ENTRIES[: whole - 1], ENTRIES[0]]


def test_zeros_that_a_power_cut_left_behind_are_a_torn_line() -> None:
    """As some file systems leave them."""
    assert entries_of(io.BytesIO(journal_of() + bytes(5000))) == ENTRIES
    assert read_head(io.BytesIO(bytes(5000))) is None


def test_any_entry_is_read_by_its_place() -> None:
    """Without those before it."""
    stream = io.BytesIO(journal_of())
    assert read_head(stream)
    read_entry(stream)
    place = stream.tell()
    while read_entry(stream):
        pass
    stream.seek(place)
    assert read_entry(stream) == ENTRIES[1]


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b'{"drive_id" ',
        b"hello\n",
        b"{}\n",
        b"\n",
        b"\x00\n",
        b'{"drive_id":"A","room":1,"kind":"another journal"}\n',
        b'{"drive_id":"A","room":"much","kind":"drivepost journal 1"}\n',
        journal_of().split(b"\n")[1] + b"\n",
    ],
)
def test_another_file_is_no_journal(line: bytes) -> None:
    """Notes, JSON, an entry in the place of the head; the way out is told."""
    with pytest.raises(DriveError, match=r"is no journal: .*; remove it to begin the drive anew$"):
        read_head(io.BytesIO(line))


@pytest.mark.parametrize(
    "line",
    [
        b"{}\n",
        b"[" * 10_000 + b"\n",
        b'{"blob":null,"source":""}\n',
        journal_of().split(b"\n")[0] + b"\n",
        journal_of().split(b"\n")[1].replace(b"a\\\\", b"..\\\\") + b"\n",
        journal_of().split(b"\n")[1].replace(b'"length":5', b'"length":6', 1) + b"\n",
        journal_of().split(b"\n")[1].replace(b"photos/", b"/") + b"\n",
    ],
)
def test_an_entry_that_breaks_a_rule_is_refused(line: bytes) -> None:
    """A path out of the drive among them."""
    with pytest.raises(DriveError, match=r"is no journal: the line at byte 0 tells of no finished file"):
        read_entry(io.BytesIO(line))


def test_a_line_without_an_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded."""
    monkeypatch.setattr(drive_journals, "LINE_BYTES_MAX", 100)
    stream = io.BytesIO(b"x" * 1000)
    with pytest.raises(DriveError, match=r"the line at byte 0 has more than 100 bytes"):
        read_entry(stream)
    assert stream.tell() == 101


@pytest.mark.parametrize("kind", ["blocks", "page ranges"])
def test_the_largest_blob_that_a_manifest_can_hold_fits_in_a_line(kind: str) -> None:
    """With ids as long as they may be; the bound is no bound to what is honest."""
    if kind == "blocks":
        blocks = tuple(
            Block(number * BLOCK_BYTES_MAX, BLOCK_BYTES_MAX, MD5, f"{number:088}") for number in range(BLOCKS_MAX)
        )
        blob = Blob("photos/large", "large", BLOCKS_MAX * BLOCK_BYTES_MAX, blocks=blocks)
    else:
        first = 2**42
        ranges = tuple(PageRange(first + number * 512, 512, MD5) for number in range(PAGE_RANGES_MAX))
        blob = Blob("photos/large", "large", 2**43, page_ranges=ranges)
    entry = JournalEntry(blob, "x")
    assert entries_of(io.BytesIO(journal_of([entry]))) == [entry]
