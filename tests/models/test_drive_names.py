"""Names on a drive: what NTFS and exFAT can hold, whatever a blob is called, the same each time."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.drive_names import SEGMENT_BYTES_MAX, folded, other_names, safe_name

SEGMENTS = st.text(min_size=1, max_size=300).filter(lambda text: text.encode(errors="ignore").decode() == text)


@given(SEGMENTS)
def test_every_segment_becomes_a_name_that_windows_takes(segment: str) -> None:
    """No reserved character, no dot or space at its end, no device, not too long; made safe once it stays so."""
    name = safe_name(segment)
    assert name
    assert not re.search(r'[<>:"/\\|?*\x00-\x1f]', name)
    assert name[-1] not in ". "
    assert name.partition(".")[0].rstrip().upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9"}
    assert len(name.encode()) <= SEGMENT_BYTES_MAX
    assert safe_name(name) == name == safe_name(segment)


@pytest.mark.parametrize(
    ("segment", "name"),
    [
        ("Seattle.jpg", "Seattle.jpg"),
        ("größe 🚚.txt", "größe 🚚.txt"),
        ("a:b?.txt", "a_b_.txt"),
        ("a\\b", "a_b"),
        ("...", "___"),
        ("name. ", "name__"),
        ("CON", "CON_"),
        ("con.txt", "con_.txt"),
        ("nul .txt", "nul _.txt"),
        ("COM¹.log", "COM¹_.log"),
        ("CONSOLE", "CONSOLE"),
        ("COM10", "COM10"),
        ("~tmp", "~tmp"),
    ],
)
def test_a_name_is_changed_no_more_than_it_must(segment: str, name: str) -> None:
    """By example."""
    assert safe_name(segment) == name


def test_long_names_that_begin_alike_stay_apart() -> None:
    """With their extension, and cut between two characters."""
    one, two = (safe_name("ü" * 150 + tail + ".jpeg") for tail in "ab")
    assert one != two
    assert {one[-5:], two[-5:]} == {".jpeg"}
    assert len(one.encode()) <= SEGMENT_BYTES_MAX


def test_names_that_differ_in_case_alone_are_one_on_a_drive() -> None:
    """And so are two ways to write an umlaut; others are not."""
    assert folded("A\\ÜB") == folded("a\\u\u0308b")
    assert folded("a") != folded("ä")


def test_other_names_count_from_two_and_keep_the_extension() -> None:
    """The first is the name itself."""
    names = other_names("Seattle.jpg")
    assert [next(names) for _ in range(3)] == ["Seattle.jpg", "Seattle (2).jpg", "Seattle (3).jpg"]
    names = other_names(".profile")
    assert [next(names) for _ in range(2)] == [".profile", ".profile (2)"]
