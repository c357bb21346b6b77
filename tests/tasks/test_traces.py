"""Every byte of every store is searched, nothing is written, and what was not searched is told."""

import gzip
import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import tracemalloc
import zlib
from base64 import b64encode, encodebytes
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from threading import Thread
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import trace_streams, traces
from tasks.trace_streams import Report
from tasks.trace_words import FOLDED, forms_of
from tasks.traces import Hit, TraceSearch, WordsError, search_apart

MAIL: Final = "jane.doe@example.org"
NAME: Final = "Jürgen O'Brien"
WORDS: Final = [MAIL, NAME, "SN-0042-77"]
SEARCH: Final = TraceSearch(WORDS)
NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOISE: Final = random.Random(7).randbytes(300_000)  # noqa: S311
# Deflate writes this in codes, not as it is.
LETTERS: Final = "".join(random.Random(8).choices("abcdefghijklmnop", k=300_000)).encode()  # noqa: S311


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to be searched, with nothing else in it."""
    inside = tmp_path / "store"
    inside.mkdir()
    return inside


def put(folder: Path, data: bytes, name: str = "file") -> Path:
    """Write a file."""
    (folder / name).write_bytes(data)
    return folder / name


def prints_of(folder: Path) -> dict[str, str]:
    """Take the sums of all files, in a process of its own so that no lock is lost."""
    script = (
        "import sys, zlib, pathlib\n"
        "for file in pathlib.Path(sys.argv[1]).iterdir(): print(file.name, zlib.crc32(file.read_bytes()))"
    )
    lines = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=True)
    return dict(line.rsplit(" ", 1) for line in lines.stdout.splitlines())


# Bytes as they are.


def test_a_hit_tells_which_word_how_where_and_at_which_byte(folder: Path) -> None:
    """And the report tells how much was searched."""
    file = put(folder, b"..." + MAIL.encode() + b"..." + "sn-0042-77".encode("utf-16-le"))
    report = SEARCH.search_file(file)
    assert report.hits == [Hit(0, "UTF-8", str(file), 3), Hit(2, "UTF-16", str(file), 26)]
    assert (report.hits_total, report.words_found, report.files) == (2, 2, 1)
    assert report.bytes_searched == file.stat().st_size
    assert report.not_searched == []


def test_a_clean_file_gives_no_hit(folder: Path) -> None:
    """Not even for a word that is nearly there."""
    report = SEARCH.search_file(put(folder, NOISE + MAIL[:-1].encode() + NOISE))
    assert report == Report(files=1, bytes_searched=2 * len(NOISE) + len(MAIL) - 1)


def test_an_empty_file_is_a_clean_file(folder: Path) -> None:
    """Nothing in it is nothing found."""
    assert SEARCH.search_file(put(folder, b"")) == Report(files=1)


PIECES: Final = st.sampled_from(
    [
        MAIL.encode(),
        NAME.upper().encode(),
        MAIL.encode("utf-16-be"),
        json.dumps(NAME).encode(),
        b64encode(b"ab" + NAME.encode() + b"."),
        b"\n".join(b64encode(b"ab" + MAIL.encode())[at : at + 5] for at in range(0, 32, 5)),
        b"\\n".join(b64encode(b"b" + MAIL.encode())[at : at + 7] for at in range(0, 32, 7)),
        b"\\\\n".join(MAIL.encode().hex().encode()[at : at + 3] for at in range(0, 40, 3)),
        gzip.compress(b"in a gzip " + MAIL.encode()),
        gzip.compress(b"." + gzip.compress(b"in two: " + NAME.encode())),
        b"\x1f\x8b\x08",
        b"\x1f\x8b",
        b"\\",
        b"n",
        b"\0\n",
        b"...",
    ]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(PIECES, max_size=8).map(b"".join), st.integers(1, 60))
def test_nothing_is_missed_where_one_chunk_ends(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, size: int
) -> None:
    """However small the chunks, the report is the same to the byte, but for the order of its hits."""
    file = put(tmp_path_factory.getbasetemp(), data)
    small, whole = (TraceSearch(WORDS, chunk_bytes=chunk).search_file(file) for chunk in (size, 1 << 20))
    by_place = [
        sorted(report.hits, key=lambda hit: (hit.place, hit.offset, hit.word)) for report in (small, whole)
    ]
    assert by_place[0] == by_place[1]
    small.hits, whole.hits = [], []
    assert small == whole


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 19, 20, 21, 64])
def test_a_word_is_found_at_every_offset_from_a_chunks_end(folder: Path, size: int) -> None:
    """Once, and where it stands."""
    search = TraceSearch(WORDS, chunk_bytes=size)
    for before in range(2 * size if size < 20 else 65):
        report = search.search_file(put(folder, b"." * before + MAIL.encode() + b"." * 70))
        assert [hit.offset for hit in report.hits] == [before]


@pytest.mark.parametrize("is_folded", [False, True])
def test_the_longest_form_is_found_wherever_a_chunk_ends(folder: Path, is_folded: bool) -> None:
    """Even if it begins with the first byte of one and ends with the first of the next."""
    forms = [form for form, encoding in forms_of(NAME).items() if (encoding in FOLDED) is is_folded]
    longest = max(forms, key=len)
    put(folder, longest)
    for size in range(1, len(longest) + 1):
        assert TraceSearch([NAME], chunk_bytes=size).search_file(folder / "file").words == {0}


@pytest.mark.parametrize("line", [4, 60, 64, 76])
def test_base64_in_lines_is_found_at_its_place(folder: Path, line: int) -> None:
    """Its offset lies within it."""
    text = b64encode(NOISE[:1_000] + MAIL.encode() + NOISE[:1_000])
    data = b"\r\n".join(text[at : at + line] for at in range(0, len(text), line))
    (hit,) = SEARCH.search_file(put(folder, data)).hits
    assert hit.encoding == "base64"
    assert hit.offset is not None
    begin = 1_000 * 4 // 3 * (line + 2) // line
    assert begin - 4 <= hit.offset <= begin + 32 * (line + 2) // line


def test_base64_in_one_piece_is_found_at_its_first_byte(folder: Path) -> None:
    """Whatever was folded out before it."""
    data = b" \n\\n" * 50 + b"x \\" + b64encode(MAIL.encode())
    (hit,) = SEARCH.search_file(put(folder, data)).hits
    assert hit.offset == 203


def test_a_pickle_that_prefect_would_keep_is_searched(folder: Path) -> None:
    """Base64 in lines, within JSON, within a file, within gzip."""
    kept = json.dumps({"result": encodebytes(b"\x80\x05" + NAME.encode() * 9).decode()})
    assert SEARCH.search_file(put(folder, kept.encode())).hits_total == 9
    assert SEARCH.search_file(put(folder, gzip.compress(kept.encode()))).hits_total == 9


def test_at_most_a_thousand_hits_are_kept_and_all_are_counted(folder: Path) -> None:
    """The first ones; one more than that too."""
    put(folder, (MAIL.encode() + b" ") * 1_001, "a")
    put(folder, NAME.encode(), "b")
    report = SEARCH.search_folder(folder)
    assert (len(report.hits), report.hits_total, report.words_found) == (1_000, 1_002, 2)


def test_reports_add_up() -> None:
    """A word found in both is one word; limits stay."""
    one = Report([Hit(0, "UTF-8", "a", 1)] * 700, 900, {0, 1}, 2, 30, [("x", "y")] * 600, 600)
    two = Report([Hit(1, "UTF-8", "b", 1)] * 700, 700, {1, 2}, 3, 40, [("z", "y")] * 600, 5_000)
    both = sum([one, two], Report())
    assert (both.hits_total, both.words_found, both.files, both.bytes_searched) == (1_600, 3, 5, 70)
    assert len(both.hits) == len(both.not_searched) == 1_000
    assert both.not_searched_total == 5_600
    assert one.hits_total == 900


# Names and folders.


def test_names_are_searched_once_each_and_never_told(folder: Path) -> None:
    """Those of files, folders and links; a word that spans folders too."""
    (folder / f"of {MAIL}").mkdir()
    put(folder / f"of {MAIL}", b"nothing", "plain")
    put(folder, MAIL.encode(), f"{NAME.upper()}.json")
    (folder / "link").symlink_to(f"/nowhere/SN-0042-77/{MAIL}")
    report = TraceSearch([*WORDS, f"{MAIL}/plain"]).search_folder(folder)
    assert sorted((hit.word, hit.place.removeprefix(f"{folder}/"), hit.offset) for hit in report.hits) == [
        (0, "[word 1].json", 0),
        (0, "link (where it leads)", 20),
        (0, "of [word 0] (its name)", None),
        (1, "[word 1].json (its name)", None),
        (2, "link (where it leads)", 9),
        (3, "of [word 0][word 3] (its name)", None),
    ]
    assert MAIL.casefold() not in str(report).casefold()
    assert NAME.casefold() not in str(report).casefold()


def test_a_name_that_is_no_text_is_searched(folder: Path) -> None:
    """Bytes that are not UTF-8 stand around the word."""
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff" + MAIL.encode() + b"\xfe")).touch()
    (hit,) = SEARCH.search_folder(folder).hits
    assert hit.place == f"{folder}/\\xff[word 0]\\xfe (its name)"


def test_what_stands_above_the_folder_is_not_searched_and_not_told(tmp_path: Path) -> None:
    """The folder's own name is the caller's."""
    home = tmp_path / MAIL
    home.mkdir()
    put(home, b"nothing")
    report = SEARCH.search_folder(home)
    assert (report.hits, report.files) == ([], 1)
    assert [hit.place for hit in SEARCH.search_file(put(home, NAME.encode())).hits] == [
        f"{tmp_path}/[word 0]/file"
    ]


def test_a_folder_is_searched_to_its_depth_and_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    """Neither to files nor to folders nor in circles; pipes and sockets hold nobody up."""
    deep = folder.joinpath(*["d"] * 40)
    deep.mkdir(parents=True)
    put(deep, MAIL.encode())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    put(elsewhere, NAME.encode())
    (folder / "to file").symlink_to(elsewhere / "file")
    (folder / "to folder").symlink_to(elsewhere)
    (folder / "circle").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        report = SEARCH.search_folder(folder)
    assert [hit.word for hit in report.hits] == [0]
    assert (report.files, report.not_searched) == (1, [])


def test_what_is_named_and_is_no_file_is_told(folder: Path) -> None:
    """A link is not followed here either, and a pipe holds nobody up."""
    put(folder, MAIL.encode())
    (folder / "link").symlink_to(folder / "file")
    os.mkfifo(folder / "pipe")
    reports: dict[str, Report] = {}
    for name in ("link", "pipe"):
        search = Thread(
            target=lambda name=name: reports.update({name: SEARCH.search_file(folder / name)}), daemon=True
        )
        search.start()
        search.join(10)
    assert reports["pipe"].not_searched == [(f"{folder}/pipe", "it is no file")]
    assert [place for place, _ in reports["link"].not_searched] == [f"{folder}/link"]
    assert reports["link"].hits == []


def test_what_is_passed_over_is_not_looked_at(folder: Path) -> None:
    """Nor is its name; its neighbours are."""
    for name in ("kept", "passed", f"file {MAIL}", f"file {MAIL} kept"):
        (folder / name).mkdir() if "file" not in name else put(folder, NAME.encode(), name)
    put(folder / "passed", MAIL.encode())
    put(folder / "kept", MAIL.encode())
    passed = [folder / "kept" / ".." / "passed", folder / f"file {MAIL}"]
    report = SEARCH.search_folder(folder, frozenset(passed))
    assert [hit.place.removeprefix(f"{folder}/") for hit in report.hits] == [
        "file [word 0] kept (its name)",
        "file [word 0] kept",
        "kept/file",
    ]
    assert SEARCH.search_folder(folder, [folder]) == Report()


def test_a_folder_that_cannot_be_searched_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, a file, a circle, or not to be listed."""
    (folder / "circle").symlink_to("circle")
    put(folder, MAIL.encode())
    for name in ("missing", "file", "circle"):
        report = SEARCH.search_folder(folder / name)
        assert [place for place, _ in report.not_searched] == [str(folder / name)]
        assert (report.files, report.hits) == (0, [])
    (folder / "closed").mkdir()
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: _refuse() if str(path).endswith("closed") else scandir(path))
    report = SEARCH.search_folder(folder)
    assert report.not_searched == [(str(folder / "closed"), "Permission denied")]
    assert report.files == 1


def _refuse() -> Any:
    raise PermissionError(13, "Permission denied", MAIL)


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_searched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its name's words, and without the error's own text."""
    for name in ("a", MAIL, "z"):
        put(folder, NAME.encode(), name)
    opened = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *how: _refuse() if str(path).endswith(MAIL) else opened(path, *how)
    )
    report = SEARCH.search_folder(folder)
    assert report.not_searched == [(f"{folder}/[word 0]", "Permission denied")]
    assert [hit.place for hit in report.hits if hit.word == 1] == [f"{folder}/a", f"{folder}/z"]


def test_a_file_that_is_missing_is_told_where_it_was_named(folder: Path) -> None:
    """A misspelt path is not a clean file."""
    assert SEARCH.search_file(folder / "no").not_searched == [(f"{folder}/no", "No such file or directory")]
    assert SEARCH.search_sqlite(folder / "no").not_searched == [(f"{folder}/no", "No such file or directory")]


@pytest.mark.parametrize("when", ["stat", "open", "scandir"])
def test_what_vanishes_meanwhile_is_gone(folder: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Between being listed and being looked at; nobody is alarmed."""
    put(folder, MAIL.encode(), "goes")
    put(folder, NAME.encode(), "stays")
    (folder / "sub").mkdir()
    gone = {"stat": "goes", "open": "goes", "scandir": "sub"}[when]
    if when == "stat":
        search_name = SEARCH._search_name

        def vanish(path: str, report: Report) -> str:
            if path.endswith(gone):
                (folder / gone).unlink()
            return search_name(path, report)

        monkeypatch.setattr(SEARCH, "_search_name", vanish)
    else:
        real = getattr(os, when)

        def fail(path: str, *how: Any) -> Any:
            if str(path).endswith(gone):
                raise FileNotFoundError(2, "gone")
            return real(path, *how)

        monkeypatch.setattr(os, when, fail)
    report = SEARCH.search_folder(folder)
    assert report.not_searched == []
    assert 1 in report.words


def test_a_file_that_grows_for_ever_is_left_at_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stood in it when it was opened is searched."""
    monkeypatch.setattr(traces, "_GROWTH_MAX", 0)
    file = put(folder, b"." * 100 + MAIL.encode())
    report = SEARCH.search_file(file)
    assert report.words_found == 1
    assert report.not_searched == [(str(file), "it grew faster than it could be searched; the rest is not")]


def test_of_what_was_not_searched_a_thousand_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And all are counted."""
    for number in range(1_001):
        (folder / str(number)).touch()
    monkeypatch.setattr(os, "open", lambda *_: _refuse())
    report = SEARCH.search_folder(folder)
    assert (len(report.not_searched), report.not_searched_total) == (1_000, 1_001)


# Gzip.


def test_gzip_is_looked_into_wherever_it_stands(folder: Path) -> None:
    """At the start, in the middle, twice, one after the other."""
    part = gzip.compress(b"..." + MAIL.encode())
    file = put(folder, part + NOISE + part + part + NOISE)
    report = SEARCH.search_file(file)
    assert report.hits == [Hit(0, "UTF-8", f"{file} > gzip", 3)] * 3
    assert report.not_searched == []
    assert report.bytes_searched == file.stat().st_size + 3 * 23


@pytest.mark.parametrize(("depth", "is_found"), [(1, True), (2, True), (3, True), (4, False)])
def test_gzip_within_gzip_is_looked_into_to_a_depth_of_three(folder: Path, depth: int, is_found: bool) -> None:
    """Deeper ones are told."""
    data = MAIL.encode()
    for _ in range(depth):
        data = gzip.compress(LETTERS[:500] + data)
    file = put(folder, data)
    report = SEARCH.search_file(file)
    assert [hit.place for hit in report.hits] == ([f"{file}{' > gzip' * depth}"] if is_found else [])
    assert report.not_searched == (
        [] if is_found else [(f"{file} > gzip > gzip > gzip", "gzip within gzip is looked into to a depth of 3")]
    )


def test_a_bomb_is_left_in_time_and_takes_no_memory(folder: Path) -> None:
    """What comes before the limit is searched, and so is the file around it."""
    bomb = gzip.compress(MAIL.encode() + bytes(200 << 20) + NAME.encode(), compresslevel=1)
    file = put(folder, bomb + b"sn-0042-77")
    search = TraceSearch(WORDS, gzip_bytes_max=4 << 20)
    tracemalloc.start()
    report = search.search_file(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.words == {0, 2}
    assert report.not_searched == [(f"{file} > gzip", "at most 4,194,304 bytes of a file's gzip are unpacked")]
    assert peak < 16 << 20


def test_the_allowance_is_for_all_depths_and_all_gzips_of_a_file(folder: Path) -> None:
    """One byte each side of the line; the next file has its own."""
    inner = gzip.compress(bytes(500))
    size = 2 * 500 + len(inner)
    put(folder, gzip.compress(inner) + gzip.compress(bytes(500)), "a")
    put(folder, gzip.compress(inner) + gzip.compress(bytes(500)), "b")
    assert TraceSearch(WORDS, gzip_bytes_max=size).search_folder(folder).not_searched == []
    report = TraceSearch(WORDS, gzip_bytes_max=size - 1).search_folder(folder)
    assert [place for place, _ in report.not_searched] == [f"{folder}/a > gzip", f"{folder}/b > gzip"]


def _damaged(before: bytes) -> bytes:
    """Make a gzip that holds these bytes whole, and then a block of a kind that there is not."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH) + b"\x07" + NOISE


@pytest.mark.parametrize("size", [1_000, 1_010, 65_516, 65_517, 65_535, 65_536, 65_537, 200_000])
def test_a_damaged_gzip_is_searched_to_the_damage(folder: Path, size: int) -> None:
    """But for the last byte before it; it is told where it gave too much to look like a gzip by chance."""
    file = put(folder, _damaged(LETTERS[:size] + MAIL.encode() + b"."))
    report = SEARCH.search_file(file)
    assert report.hits == [Hit(0, "UTF-8", f"{file} > gzip", size)]
    told = [(f"{file} > gzip", "a gzip is damaged; it is searched up to there")]
    assert report.not_searched == (told if size + len(MAIL) >= 1_024 else [])


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_gzip_is_searched_to_wherever_it_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch, is_damaged: bool
) -> None:
    """In little pieces, each of which may end within a code, or unpack to many."""
    monkeypatch.setattr(trace_streams, "_GZIP_PIECE", 64)
    text = LETTERS[:100] + b"".join(MAIL.encode() * (at % 17) + LETTERS[at : at + at % 7] for at in range(30)) * 3
    whole = gzip.compress(text)
    for at in range(20, len(whole) if not is_damaged else 600, 1 if not is_damaged else 11):
        packed = _damaged(text[:at]) if is_damaged else whole[:at]
        unpacked = text[: at - 1] if is_damaged else zlib.decompressobj(wbits=31).decompress(packed)
        hits = [hit for hit in SEARCH.search_file(put(folder, packed)).hits if hit.place.endswith("gzip")]
        assert len(hits) in {unpacked.count(MAIL.encode()), text[:at].count(MAIL.encode()) if is_damaged else -1}


def test_a_gzip_that_was_cut_off_or_whose_sum_is_wrong_is_searched(folder: Path) -> None:
    """Both are told."""
    whole = gzip.compress(LETTERS[:2_000] + MAIL.encode() + LETTERS[2_000:])
    file = put(folder, whole[:-1_000])
    report = SEARCH.search_file(file)
    assert report.hits == [Hit(0, "UTF-8", f"{file} > gzip", 2_000)]
    assert report.not_searched == [(f"{file} > gzip", "a gzip was cut off; it is searched up to there")]
    report = SEARCH.search_file(put(folder, whole[:-8] + b"WRONGSUM"))
    assert report.hits == [Hit(0, "UTF-8", f"{file} > gzip", 2_000)]
    assert report.not_searched == [(f"{file} > gzip", "a gzip is damaged; it is searched up to there")]


def test_what_has_the_head_of_a_gzip_by_chance_alarms_nobody(folder: Path) -> None:
    """And is searched as what it is."""
    parts = [b"\x1f\x8b\x08" + NOISE[at : at + 2_000] for at in range(0, 300_000, 2_000)]
    report = SEARCH.search_file(put(folder, b"".join(parts) + MAIL.encode() + b"\x1f\x8b\x08"))
    assert (report.hits_total, report.not_searched) == (1, [])


@pytest.mark.parametrize(("endless", "is_found"), [(7, True), (8, False)])
def test_at_most_eight_gzips_that_overlap_are_looked_into(folder: Path, endless: int, is_found: bool) -> None:
    """A gzip's name goes on until a NUL; the ninth that begins before that is told."""
    file = put(folder, b"\x1f\x8b\x08\x08no end" * endless + gzip.compress(LETTERS[:500] + MAIL.encode()))
    report = TraceSearch(WORDS, chunk_bytes=endless * 10 + 3).search_file(file)
    assert report.words == ({0} if is_found else set())
    told = [(str(file), "at most 8 gzips that overlap are looked into")]
    assert report.not_searched == ([] if is_found else told)


def test_at_most_so_many_gzips_of_a_file_are_looked_into(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One each side of the line."""
    monkeypatch.setattr(trace_streams, "_GZIP_HEADS_MAX", 5)
    part = gzip.compress(MAIL.encode())
    assert SEARCH.search_file(put(folder, part * 5)).not_searched == []
    file = put(folder, part * 7)
    report = SEARCH.search_file(file)
    assert report.hits_total == 5
    assert report.not_searched == [(str(file), "at most 5 gzips of a file are looked into")]


# SQLite.


@pytest.fixture
def database(folder: Path) -> Iterator[sqlite3.Connection]:
    """A database in WAL mode that somebody has open."""
    with closing(sqlite3.connect(folder / "db", isolation_level=None)) as connection:
        connection.execute("PRAGMA page_size = 512")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE person (id INTEGER PRIMARY KEY, note)")
        yield connection


def test_a_value_that_pages_cut_in_pieces_is_found_as_a_row(folder: Path, database: sqlite3.Connection) -> None:
    """The bytes of the file do not hold it whole wherever a page ends."""
    for before in range(500, 560):
        database.execute("INSERT INTO person (note) VALUES (?)", ["." * before + MAIL + "." * 1_500])
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert 30 < SEARCH.search_file(folder / "db").hits_total < 50
    report = SEARCH.search_sqlite(folder / "db")
    assert report.hits == [Hit(0, "UTF-8", f"{folder}/db person.note row {row}", 500 + row) for row in range(60)]
    assert report.files == 0


def test_a_database_in_use_is_read_as_it_is_now(folder: Path, database: sqlite3.Connection) -> None:
    """With what lies in its WAL alone, and while somebody is writing; not a byte of it changes."""
    database.execute("INSERT INTO person (note) VALUES (?)", ["." * 900 + MAIL])
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO person (note) VALUES ('sn-0042-77')")
    before = prints_of(folder)
    assert sorted(before) == ["db", "db-shm", "db-wal"]
    report = SEARCH.search_sqlite(folder / "db")
    assert (report.words, report.not_searched) == ({0}, [])
    assert prints_of(folder) == before
    database.execute("COMMIT")
    assert SEARCH.search_sqlite(folder / "db").words == {0, 2}
    database.execute("DELETE FROM person")
    assert SEARCH.search_sqlite(folder / "db").words == set()
    report = SEARCH.search_folder(folder)
    assert {hit.place for hit in report.hits} == {f"{folder}/db-wal"}
    assert (report.words, report.files, report.not_searched) == ({0, 2}, 3, [])


def test_a_closed_database_is_read_without_a_file_beside_it(folder: Path, database: sqlite3.Connection) -> None:
    """In WAL mode and not."""
    database.execute("INSERT INTO person (note) VALUES (?)", [NAME])
    database.close()
    with closing(sqlite3.connect(folder / "old")) as old:
        old.execute("CREATE TABLE person AS SELECT ? AS note", [MAIL])
        old.commit()
    before = prints_of(folder)
    assert sorted(before) == ["db", "old"]
    (folder / "db").chmod(0o444)
    assert SEARCH.search_sqlite(folder / "db").words == {1}
    assert SEARCH.search_sqlite(folder / "old").words == {0}
    assert SEARCH.search_folder(folder).not_searched == []
    assert prints_of(folder) == before


def test_a_database_whose_writer_was_killed_is_read(
    folder: Path, database: sqlite3.Connection, tmp_path: Path
) -> None:
    """From its WAL; without the file that belongs to it, that is told instead."""
    database.execute("INSERT INTO person (note) VALUES (?)", ["." * 5_000 + MAIL])
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("db", "db-wal", "db-shm"):
        put(copy, (folder / name).read_bytes(), name)
    before = prints_of(copy)
    assert SEARCH.search_sqlite(copy / "db").words == {0}
    assert prints_of(copy) == before
    (copy / "db-shm").unlink()
    del before["db-shm"]
    report = SEARCH.search_folder(copy)
    ((place, why),) = report.not_searched
    assert place == f"{copy}/db (its rows)"
    assert why == "its -wal lies there without its -shm; open it once with SQLite and search again"
    assert report.words == {0}
    assert prints_of(copy) == before


@pytest.mark.parametrize("left", ["-wal", "-shm"])
def test_an_empty_file_left_beside_a_database_hides_nothing(
    folder: Path, database: sqlite3.Connection, left: str
) -> None:
    """As SQLite leaves it when it is stopped at the wrong moment."""
    database.execute("INSERT INTO person (note) VALUES (?)", [MAIL])
    database.close()
    (folder / f"db{left}").touch()
    before = prints_of(folder)
    assert SEARCH.search_sqlite(folder / "db").words == {0}
    assert prints_of(folder) == before


def test_a_closed_database_that_changes_meanwhile_is_told(
    folder: Path, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read as if it could not."""
    database.close()
    search_table = SEARCH._search_table

    def change(*how: Any) -> None:
        search_table(*how)
        with closing(sqlite3.connect(folder / "db")) as other:
            other.execute("INSERT INTO person (note) VALUES (?)", [MAIL])
            other.commit()

    monkeypatch.setattr(SEARCH, "_search_table", change)
    assert SEARCH.search_sqlite(folder / "db").not_searched == [
        (f"{folder}/db (its rows)", "it changed while it was read; search it again")
    ]


def test_a_locked_database_is_told_in_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are searched all the same."""
    monkeypatch.setattr(traces, "_SQLITE_WAIT_SECONDS", 0.05)
    with closing(sqlite3.connect(folder / "db", isolation_level=None)) as other:
        other.execute("CREATE TABLE person AS SELECT ? AS note", [MAIL])
        other.execute("BEGIN EXCLUSIVE")
        report = SEARCH.search_sqlite(folder / "db")
    assert report.not_searched == [(f"{folder}/db (its rows)", "SQLITE_BUSY")]


def test_a_write_that_was_killed_is_told_and_not_undone(folder: Path, tmp_path: Path) -> None:
    """Reading it as SQLite does would write; the bytes of both files are searched."""
    copy = tmp_path / "copy"
    copy.mkdir()
    with closing(sqlite3.connect(folder / "db", isolation_level=None)) as other:
        other.execute("PRAGMA cache_size = 1")
        other.execute("CREATE TABLE person AS SELECT ? AS note", [MAIL])
        other.execute("BEGIN")
        other.execute("DELETE FROM person")
        other.executemany("INSERT INTO person VALUES (?)", [("." * 5_000,)] * 50)
        for file in folder.iterdir():
            put(copy, file.read_bytes(), file.name)
    before = prints_of(copy)
    assert sorted(before) == ["db", "db-journal"]
    report = SEARCH.search_folder(copy)
    assert report.not_searched == [(f"{copy}/db (its rows)", "SQLITE_READONLY_ROLLBACK")]
    assert f"{copy}/db-journal" in {hit.place for hit in report.hits}
    assert prints_of(copy) == before


def test_every_kind_of_value_and_table_is_searched(folder: Path) -> None:
    """Text in UTF-16, blobs, gzip, JSON, numbers, the schema; odd names, tables without row ids, virtual ones."""
    with closing(sqlite3.connect(folder / "db")) as database:
        database.executescript(
            f"""
            PRAGMA encoding = 'UTF-16';
            CREATE TABLE "odd ""name"" {MAIL}" (a TEXT, "{NAME}" BLOB);
            CREATE TABLE keyed (id TEXT PRIMARY KEY, number) WITHOUT ROWID;
            CREATE VIRTUAL TABLE words USING fts5 (text);
            CREATE VIEW shown AS SELECT 'sn-0042-77';
            """
        )
        database.execute(
            f'INSERT INTO "odd ""name"" {MAIL}" VALUES (?, ?)',  # noqa: S608
            [json.dumps([NAME]), gzip.compress(MAIL.encode())],
        )
        database.execute("INSERT INTO keyed VALUES (?, ?)", ["sn-0042-77", 31_415_926_535])
        database.execute("INSERT INTO keyed VALUES ('b', 2.7182818284)")
        database.execute("INSERT INTO words VALUES (?)", [f"about {MAIL}"])
        database.commit()
    report = TraceSearch([*WORDS, "1415926535", "2.718281"]).search_sqlite(folder / "db")
    assert report.not_searched == []
    places = {(hit.word, hit.place.removeprefix(f"{folder}/db ")) for hit in report.hits}
    assert places >= {
        (1, 'odd "name" [word 0].a row 0'),
        (0, 'odd "name" [word 0].[word 1] row 0 > gzip'),
        (2, "keyed.id row 1"),
        (3, "keyed.number row 1"),
        (4, "keyed.number row 0"),
        (0, "words_content.c0 row 0"),
        (0, "sqlite_master.name row 0"),
        (1, "sqlite_master.sql row 0"),
    }
    assert any(word == 2 and place.startswith("sqlite_master.sql") for word, place in places)
    assert MAIL not in str(report)


def test_a_virtual_table_is_searched_where_its_data_stands(folder: Path, database: sqlite3.Connection) -> None:
    """And alarms nobody, though its module is not there."""
    database.execute("CREATE VIRTUAL TABLE words USING fts5 (text)")
    database.execute("INSERT INTO words VALUES (?)", [MAIL])
    database.execute("PRAGMA writable_schema = ON")
    database.execute(
        "UPDATE sqlite_master SET sql = 'CREATE VIRTUAL TABLE words USING gone (t)' WHERE name = 'words'"
    )
    report = SEARCH.search_sqlite(folder / "db")
    assert f"{folder}/db words_content.c0 row 0" in {hit.place for hit in report.hits}
    assert report.not_searched == []


def test_text_that_is_broken_is_searched(folder: Path, database: sqlite3.Connection) -> None:
    """Bytes that are not UTF-8 stand before the word."""
    database.execute("INSERT INTO person (note) VALUES (CAST(? AS TEXT))", [b"\xff\xfe" + NAME.encode()])
    assert SEARCH.search_sqlite(folder / "db").hits == [Hit(1, "UTF-8", f"{folder}/db person.note row 0", 2)]


@pytest.mark.parametrize("data", [b"", b"SQLite format 2", MAIL.encode() * 100])
def test_what_is_no_database_is_skipped(folder: Path, data: bytes) -> None:
    """Without a word."""
    assert SEARCH.search_sqlite(put(folder, data)) == Report()


def test_a_broken_database_is_told_and_its_bytes_are_searched(folder: Path, database: sqlite3.Connection) -> None:
    """One table may be broken and the others whole."""
    database.execute("CREATE TABLE broken AS SELECT 'x' AS note")
    database.execute("CREATE TABLE whole AS SELECT ? AS note", [MAIL])
    (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'broken'").fetchone()
    database.close()
    data = bytearray((folder / "db").read_bytes())
    data[(page - 1) * 512 : page * 512] = b"\xff" * 512
    report = SEARCH.search_sqlite(put(folder, bytes(data), "db"))
    assert report.not_searched == [(f"{folder}/db broken", "SQLITE_CORRUPT")]
    assert report.words == {0}
    (folder / "db").unlink()
    file = put(folder, b"SQLite format 3\0" + b"." * 200 + MAIL.encode())
    report = SEARCH.search_folder(folder)
    assert report.not_searched == [(f"{file} (its rows)", "SQLITE_NOTADB")]
    assert report.words == {0}


def test_a_table_whose_names_are_no_text_is_told(folder: Path, database: sqlite3.Connection) -> None:
    """The others are searched."""
    database.execute("CREATE TABLE odd (name)")
    database.execute("PRAGMA writable_schema = ON")
    database.execute(
        "UPDATE sqlite_master SET sql = CAST(? AS TEXT) WHERE name = 'odd'", [b"CREATE TABLE odd (\xff)"]
    )
    database.execute("INSERT INTO person (note) VALUES (?)", [MAIL])
    report = SEARCH.search_sqlite(folder / "db")
    assert report.not_searched == [(f"{folder}/db odd", "UnicodeDecodeError")]
    assert report.words == {0}


def test_a_value_too_big_for_the_memory_is_told(
    folder: Path, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes before it is searched, but for one row that Python reads ahead."""
    monkeypatch.setattr(traces, "_SQLITE_VALUE_MAX", 1_000)
    database.execute("INSERT INTO person (note) VALUES (?), (?), (?)", [MAIL, "", "." * 1_001])
    report = SEARCH.search_sqlite(folder / "db")
    assert report.not_searched == [(f"{folder}/db person", "SQLITE_TOOBIG")]
    assert report.words == {0}


# Rows of any other database.


def test_rows_of_any_database_are_searched(folder: Path) -> None:
    """Every type that a driver may give; place, row and offset are told."""
    rows: list[tuple[object, ...]] = [
        (1, None, True, UUID(int=0), NOON, Decimal("1.50")),
        (
            memoryview(b"x" + MAIL.encode()),
            bytearray(NAME.encode()),
            {"a": [NAME]},
            [NOON, {"b": MAIL}],
            MAIL,
        ),
        (UUID("0f0e0d0c-0000-4000-8000-000000000000"), Decimal("31415926.5"), "half \ud83d " + MAIL),
    ]
    search = TraceSearch([*WORDS, "0f0e0d0c-0000", "1415926.5"])
    report = search.search_rows("jobs", rows, ["a", "b", f"of {MAIL}", "d", "e", "f"])
    assert [(hit.word, hit.place, hit.offset) for hit in report.hits] == [
        (0, "jobs.a row 1", 1),
        (1, "jobs.b row 1", 0),
        (1, "jobs.of [word 0] row 1", 8),
        (0, "jobs.d row 1", 76),
        (0, "jobs.e row 1", 0),
        (3, "jobs.a row 2", 0),
        (4, "jobs.b row 2", 1),
        (0, "jobs.of [word 0] row 2", 9),
    ]
    assert search.search_rows("jobs", iter(rows)).hits[3].place == "jobs.3 row 1"


def test_values_are_searched_one_by_one() -> None:
    """A word that begins in one value and ends in the next is none; broken base64 within one is."""
    parts = b64encode(b"." * 90 + MAIL.encode())
    assert SEARCH.search_rows("t", [(MAIL[:9], MAIL[9:]), (parts[:125], parts[125:])]).hits == []
    assert SEARCH.search_rows("t", [("", parts[:125] + b"\n" + parts[125:])]).words == {0}
    assert SEARCH.search_rows("t", [(None, gzip.compress(MAIL.encode()))]).hits[0].place == "t.1 row 0 > gzip"


def test_what_ends_one_value_hides_nothing_of_the_next() -> None:
    r"""A backslash there, and an `n` here, are no line break."""
    word = "gerda@example.org"
    form = next(form for form, encoding in forms_of(word).items() if encoding == "base64" and form[:1] == b"n")
    assert TraceSearch([word]).search_rows("t", [("ends with \\",), (form,)]).words == {0}


def test_many_small_rows_and_big_ones_are_searched_alike() -> None:
    """Wherever a batch of them ends; what is clean is counted as well."""
    rows = [(number, f"value {number}" * 9, MAIL if number % 1_000 == 999 else None) for number in range(5_000)]
    rows[2_500] = (0, "." * 2_000_000 + NAME, None)
    report = SEARCH.search_rows("t", rows)
    assert [hit.place for hit in report.hits] == [
        *(f"t.2 row {row}" for row in (999, 1_999)),
        "t.1 row 2500",
        *(f"t.2 row {row}" for row in (2_999, 3_999, 4_999)),
    ]
    assert report.bytes_searched >= sum(len(text) for _, text, _ in rows)


def test_rows_that_break_off_are_searched_to_there() -> None:
    """The error is the caller's."""

    def rows() -> Iterator[tuple[str]]:
        yield (MAIL,)
        raise ConnectionError

    report = Report()
    with pytest.raises(ConnectionError):
        SEARCH._search_rows("t", rows(), [], report)
    assert report.words == {0}


# A process of its own.


def test_a_search_apart_finds_the_same_and_lets_go_of_no_lock(folder: Path, tmp_path: Path) -> None:
    """Closing a file lets go of every lock that the process holds on it: ours must outlive the search."""
    other = tmp_path / "other"
    other.mkdir()
    put(other, NAME.encode())
    put(other, MAIL.encode(), "passed")
    ask = "import sqlite3,sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    with closing(sqlite3.connect(folder / "db", isolation_level=None)) as database:
        database.execute("CREATE TABLE person AS SELECT ? AS note", [MAIL])
        database.execute("BEGIN IMMEDIATE")
        report = search_apart(WORDS, [folder, other], [other / "passed"])
        asked = subprocess.run(
            [sys.executable, "-c", ask, folder / "db"], capture_output=True, text=True, check=False
        )
    assert "database is locked" in asked.stderr
    assert (report.words, report.files, report.not_searched) == ({0, 1}, 2, [])


def test_a_search_apart_refuses_the_words_it_cannot_look_for(folder: Path) -> None:
    """As the search at home does."""
    with pytest.raises(WordsError, match=r"word 1 .* is shorter than 6"):
        search_apart([MAIL, "short"], [folder])
