"""Metadata and properties files: what is written is read back, and what no header can hold is refused."""

from base64 import b64encode
from datetime import timedelta, timezone
from string import ascii_letters, digits, printable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.blob_facts import (
    FACTS_BYTES_MAX,
    METADATA_BYTES_MAX,
    BlobFacts,
    read_metadata,
    read_properties,
    write_metadata,
    write_properties,
)
from models.errors import ManifestError
from tests.builders import NOON

VALUES = st.text(printable.strip() + " ", max_size=40).map(str.strip)
NAMES = st.builds(
    str.__add__, st.sampled_from(ascii_letters + "_"), st.text(ascii_letters + digits + "_-.", max_size=9)
)


@given(st.dictionaries(NAMES, VALUES, max_size=20))
def test_metadata_is_read_as_it_was_written(metadata: dict[str, str]) -> None:
    """Every name that XML and a header can hold; two that differ only in case are refused."""
    if len({name.lower() for name in metadata}) < len(metadata):
        with pytest.raises(ManifestError):
            write_metadata(metadata)
    else:
        assert read_metadata(write_metadata(metadata)) == metadata


@given(
    st.builds(BlobFacts, *[st.none() | VALUES.filter(bool)] * 4, st.none() | st.binary(min_size=16, max_size=16)),
    st.integers(0, 2**45),
)
def test_properties_are_read_as_they_were_written(facts: BlobFacts, length: int) -> None:
    """What the store sets itself is written for the customer, and read over."""
    data = write_properties(facts, last_modified=NOON, e_tag='"0x8D"', length=length)
    assert read_properties(data) == facts
    assert b"<Last-Modified>Mon, 01 Jun 2026 12:00:00 GMT</Last-Modified>" in data
    assert f"<Content-Length>{length}</Content-Length>".encode() in data
    assert b"<Etag>&quot;0x8D&quot;</Etag>" in data


def test_files_as_the_customers_tool_writes_them_are_read() -> None:
    """White space around a value is none of it; what we do not know and what is empty is passed over."""
    assert read_metadata(b"<Metadata>\n  <UploadMethod> Post\n</UploadMethod><empty/></Metadata>") == {
        "UploadMethod": "Post",
        "empty": "",
    }
    md5 = b64encode(bytes(16))
    read = read_properties(
        b"\xef\xbb\xbf<?xml version='1.0'?><Properties><Content-Type> image/png </Content-Type><Cache-Control/>"
        b"<x-ms-blob-type>BlockBlob</x-ms-blob-type><Content-MD5>" + md5 + b"</Content-MD5></Properties>"
    )
    assert read == BlobFacts(content_type="image/png", content_md5=bytes(16))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no xml",
        b"<Other/>",
        b"<Metadata>",
        b"<Metadata><a>1</a><A>2</A></Metadata>",
        b"<Metadata><a><b/></a></Metadata>",
        b"<Metadata><a>line\nbreak</a></Metadata>",
        "<Metadata><a>ü</a></Metadata>".encode(),
        "<Metadata><ü>a</ü></Metadata>".encode(),
        b"<!DOCTYPE m [<!ENTITY a 'b'>]><Metadata><a>&a;</a></Metadata>",
        b"<Metadata><a>" + b"x" * METADATA_BYTES_MAX + b"</a></Metadata>",
        b"<Metadata><a>" + b" " * FACTS_BYTES_MAX + b"</a></Metadata>",
        b"<Metadata>" + b"".join(b"<a%d>%s</a%d>" % (at, b"x" * 100, at) for at in range(90)) + b"</Metadata>",
    ],
)
def test_a_metadata_file_that_is_none_is_refused(data: bytes) -> None:
    """With the one status that the log has for it."""
    with pytest.raises(ManifestError) as refused:
        read_metadata(data)
    assert refused.value.status == "XmlReadFailed"


@pytest.mark.parametrize(
    "data",
    [
        b"<Metadata/>",
        b"<Properties><Content-Type>a</Content-Type><Content-Type>b</Content-Type></Properties>",
        b"<Properties><Content-MD5>AAAA</Content-MD5></Properties>",
        b"<Properties><Content-MD5>not base64!</Content-MD5></Properties>",
        b"<Properties><Content-Type>a&#10;X-Injected: b</Content-Type></Properties>",
        b"<Properties>" * 20,
    ],
)
def test_a_properties_file_that_is_none_is_refused(data: bytes) -> None:
    """With the one status that the log has for it."""
    with pytest.raises(ManifestError) as refused:
        read_properties(data)
    assert refused.value.status == "XmlReadFailed"


@pytest.mark.parametrize(
    "metadata", [{"1a": ""}, {"a b": ""}, {"a": "ü"}, {"a": " b"}, {"a:b": ""}, {"a": "x" * METADATA_BYTES_MAX}]
)
def test_metadata_that_could_not_be_read_back_is_not_written(metadata: dict[str, str]) -> None:
    """A store may hold what a file cannot."""
    with pytest.raises(ManifestError):
        write_metadata(metadata)


def test_metadata_of_just_its_limit_is_taken() -> None:
    """Names and values together, to the byte."""
    metadata = {"a": "x" * (METADATA_BYTES_MAX - 1)}
    assert read_metadata(write_metadata(metadata)) == metadata


def test_a_time_of_another_zone_is_told_in_utc() -> None:
    """Some stores tell it in a zone of their own making."""
    zone = timezone(timedelta(hours=2))
    told = [
        write_properties(BlobFacts(), last_modified=at, e_tag="", length=0) for at in (NOON, NOON.astimezone(zone))
    ]
    assert told[0] == told[1]
