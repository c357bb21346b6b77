"""Which blobs an Export job takes, against a reference that knows no better than the rule."""

from collections.abc import Sequence
from datetime import datetime
from io import BytesIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models import blob_lists
from models.blob_lists import incomplete_list_name, read_blob_list, select_blobs, write_blob_list
from models.errors import ManifestError
from models.manifests import replace_unwritable
from tests.builders import NOON

CONTAINERS = st.sampled_from(["bob", "bobkids", "alice", "$root", "a1a"])
BLOBS = st.builds("{}/{}".format, CONTAINERS, st.text("ab/k", min_size=1, max_size=4))
PREFIXES = st.one_of(
    st.sampled_from(["/", "/bob", "/bob/", "/$root/", "/$root", "/$", "/bobk", "/b"]),
    st.builds("/{}".format, BLOBS),
)


def taken(paths: Sequence[str], prefixes: Sequence[str], blobs: Sequence[str]) -> list[str]:
    """Take what is listed, and what a prefix matches as one string: the rule as the specification has it."""
    named = [path.removeprefix("/") for path in paths]
    return [blob for blob in blobs if blob in named or any(f"/{blob}".startswith(prefix) for prefix in prefixes)]


@given(st.lists(BLOBS, max_size=5), st.lists(PREFIXES, max_size=5), st.lists(BLOBS, unique=True, max_size=30))
@example([], ["/bob"], ["bob/x", "bobkids/x", "alice/x"])
@example([], ["/bob/"], ["bob/x", "bobkids/x", "alice/x"])
@example([], ["/$root/"], ["$root/x", "bob/x"])
@example([], ["/"], ["$root/x", "bob/x"])
@example(["bob/x"], ["/bob/x"], ["bob/x", "bob/xy"])
def test_a_selection_takes_what_the_rule_takes_and_each_blob_once(
    paths: list[str], prefixes: list[str], blobs: list[str]
) -> None:
    """Looked up as an export does it: container by container, by how the names begin."""
    selection = select_blobs(paths, prefixes)
    account = sorted({blob.partition("/")[0] for blob in blobs})
    looked_at = account if selection.containers is None else selection.containers
    found = [path for path in selection.paths if path in blobs]
    for container in looked_at:
        for begin in selection.names_in(container):
            found += [blob for blob in blobs if blob.startswith(f"{container}/{begin}")]
    assert sorted(found) == sorted(taken(paths, prefixes, blobs))
    assert len(set(found)) == len(found)


def test_a_path_may_have_a_slash_in_front_or_no_container() -> None:
    """Without one it is in the root container."""
    assert select_blobs(["/a1/b", "a1/b", "top", "/$root/top"], []).paths == ("a1/b", "$root/top")


@pytest.mark.parametrize("name", ["", "..", "%2e%2e", "UPPER", "ab", "a b", ".drivepost", "c" * 64, "x\x01y"])
def test_what_no_container_can_be_called_is_none(name: str) -> None:
    """A store would refuse it, or look elsewhere; the others stay."""
    assert select_blobs([], [f"/{name}/", "/bob/"]).containers == ("bob",)


@given(st.lists(st.text(min_size=1, max_size=9).filter(lambda text: text not in {"/"} and "\x00" not in text)))
def test_a_list_is_read_as_it_was_written(paths: list[str]) -> None:
    """Any character; what XML cannot hold is read as U+FFFD, and the list stays one."""
    stream = BytesIO()
    write_blob_list(stream, paths)
    stream.seek(0)
    written = [replace_unwritable(path) for path in paths]
    assert read_blob_list(stream) == select_blobs(written, [])


def test_a_list_of_the_description_is_read() -> None:
    """Paths and prefixes in any order, over several lines."""
    listed = read_blob_list(
        BytesIO(
            b'<?xml version="1.0" encoding="utf-8"?>\n<BlobList>\n  <BlobPathPrefix>/bob</BlobPathPrefix>\n'
            b"  <BlobPath>pictures/animals/koala.jpg</BlobPath>\n"
            b"  <BlobPathPrefix>/$root/</BlobPathPrefix>\n</BlobList>"
        )
    )
    assert listed.paths == ("pictures/animals/koala.jpg",)
    assert listed.prefixes == ("/$root/", "/bob")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"koala.jpg\n",
        b"<Other/>",
        b"<BlobList><BlobPath>a/b</BlobPath>",
        b"<BlobList><BlobPath></BlobPath></BlobList>",
        b"<BlobList><BlobPath>/</BlobPath></BlobList>",
        b"<BlobList><BlobPathPrefix></BlobPathPrefix></BlobList>",
        b"<BlobList><BlobPathPrefix>bob</BlobPathPrefix></BlobList>",
        b"<BlobList><Blob>a/b</Blob></BlobList>",
        b"<BlobList><BlobPath><b/></BlobPath></BlobList>",
        b"<!DOCTYPE l [<!ENTITY a 'b'>]><BlobList><BlobPath>&a;</BlobPath></BlobList>",
        b"<BlobList>" * 100,
        b"<BlobList><BlobPath>" + b"x" * 2**21,
    ],
)
def test_a_list_that_is_none_is_refused_with_its_status(data: bytes) -> None:
    """Bombs, other XML, entries that name nothing."""
    with pytest.raises(ManifestError) as refused:
        read_blob_list(BytesIO(data))
    assert refused.value.status == "BlobListFormatInvalid"


def test_a_list_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before all of it is held in memory."""
    monkeypatch.setattr(blob_lists, "LIST_BYTES_MAX", 1000)
    entries = b"<BlobPath>a/b</BlobPath>" * 100
    with pytest.raises(ManifestError, match="more than 1000 bytes"):
        read_blob_list(BytesIO(b"<BlobList>" + entries + b"</BlobList>"))


def test_the_list_of_what_fits_nowhere_has_a_name_of_its_own() -> None:
    """Beside the logs; only a time in UTC names it."""
    assert incomplete_list_name("job1", NOON) == "waies/job1_20260601-120000-000_incomplete.xml"
    with pytest.raises(ValueError, match="UTC"):
        incomplete_list_name("job1", datetime(2026, 6, 1))  # noqa: DTZ001  that is what is refused
