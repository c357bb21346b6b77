"""The manifest's format: every lie it could tell is refused, everything true survives writing and reading."""

import io
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ManifestError
from models.manifest_reader import check_manifest, iterate_blobs
from models.manifests import (
    BLOCK_BYTES_MAX,
    BLOCKS_MAX,
    AttachedFile,
    Blob,
    Block,
    ImportDisposition,
    ManifestWriter,
    PageRange,
    require_file_path,
    split_blob_path,
    xml_can_hold,
)

MD5: Final = "0123456789ABCDEF0123456789ABCDEF"
MIB: Final = 2**20
SERIAL: Final = "WD-SECRET77"
NAME: Final = "private-holiday"

BLOCK: Final = f'<BlockList><Block Offset="0" Length="10" Hash="{MD5}"/></BlockList>'
PAGES: Final = f'<PageRangeList><PageRange Offset="0" Length="512" Hash="{MD5}"/></PageRangeList>'


def a_blob(
    path: str | None = f"photos/{NAME}.jpg",
    file: str | None = rf"photos\{NAME}.jpg",
    length: str | None = "10",
    pieces: str = BLOCK,
    more: str = "",
) -> str:
    """A Blob element; None leaves a part of it out."""
    texts = (("BlobPath", path), ("FilePath", file), ("Length", length))
    parts = [f"<{name}>{text}</{name}>" for name, text in texts if text is not None]
    return f"<Blob>{''.join(parts)}{pieces}{more}</Blob>"


def blocks(*extents: tuple[object, object], block_hash: str = MD5) -> str:
    """A BlockList of offsets and lengths."""
    found = "".join(f'<Block Offset="{o}" Length="{n}" Hash="{block_hash}"/>' for o, n in extents)
    return f"<BlockList>{found}</BlockList>"


def pages(*extents: tuple[object, object], page_hash: str = MD5) -> str:
    """A PageRangeList of offsets and lengths."""
    found = "".join(f'<PageRange Offset="{o}" Length="{n}" Hash="{page_hash}"/>' for o, n in extents)
    return f"<PageRangeList>{found}</PageRangeList>"


def blocks_with_ids(length: int, *ids: str | None) -> str:
    """A BlockList of blocks of one length, with ids or without."""
    found = (
        f'<Block Offset="{n * length}" Length="{length}" Hash="{MD5}"'
        + (f' Id="{block_id}"/>' if block_id is not None else "/>")
        for n, block_id in enumerate(ids)
    )
    return f"<BlockList>{''.join(found)}</BlockList>"


def in_list(content: str) -> str:
    """A manifest with one BlobList."""
    return in_drive(f"<BlobList>{content}</BlobList>")


def in_drive(content: str, version: str = "2014-11-01") -> str:
    """A manifest with a DriveId and what follows it."""
    return in_manifest(f"<Drive><DriveId>{SERIAL}</DriveId>{content}</Drive>", version)


def in_manifest(content: str, version: str = "2014-11-01") -> str:
    """A manifest around a Drive."""
    return f'<DriveManifest Version="{version}">{content}</DriveManifest>'


def read(xml: str | bytes) -> list[Blob]:
    """All blobs of a manifest, which check_manifest takes as well."""
    data = xml if isinstance(xml, bytes) else xml.encode()
    found = list(iterate_blobs(io.BytesIO(data)))
    assert check_manifest(io.BytesIO(data)).blob_count == len(found)
    return found


def written(*blobs: Blob, drive_id: str = SERIAL) -> bytes:
    """The manifest of some blobs."""
    stream = io.BytesIO()
    with ManifestWriter(stream, drive_id=drive_id, client_creator="a <test> & more") as writer:
        for blob in blobs:
            writer.add(blob)
    return stream.getvalue()


def refusal(xml: str | bytes) -> ManifestError:
    """The error that both ways of reading give for it."""
    data = xml if isinstance(xml, bytes) else xml.encode()
    with pytest.raises(ManifestError) as checked:
        check_manifest(io.BytesIO(data))
    with pytest.raises(ManifestError) as iterated:
        list(iterate_blobs(io.BytesIO(data)))
    assert (checked.value.status, str(checked.value)) == (iterated.value.status, str(iterated.value))
    return checked.value


def outcome(data: bytes) -> str:
    """The status a manifest is refused with, or nothing."""
    try:
        check_manifest(io.BytesIO(data))
    except ManifestError as error:
        return error.status
    return ""


# Copied by hand from section 9 of the service description.
LIES: Final = {
    "another root": ("<Manifest/>", "outermost element is no DriveManifest"),
    "a namespace": (
        '<DriveManifest xmlns="urn:x" Version="2014-11-01"/>',
        "outermost element is no DriveManifest",
    ),
    "no version": ("<DriveManifest><Drive/></DriveManifest>", "Version must be 2011-10-01 or 2014-11-01"),
    "another version": (in_drive("", version="2014-11-02"), "Version must be 2011-10-01 or 2014-11-01"),
    "no drive": (in_manifest(""), "no DriveId"),
    "no drive id": (in_manifest("<Drive/>"), "no DriveId"),
    "an empty drive id": (in_manifest("<Drive><DriveId> </DriveId></Drive>"), "DriveId is empty"),
    "a drive id with a space": (in_manifest("<Drive><DriveId>A B</DriveId></Drive>"), "without white space"),
    "a drive id too long": (in_manifest(f"<Drive><DriveId>{'A' * 65}</DriveId></Drive>"), "1 to 64 characters"),
    "a drive id late": (
        in_manifest("<Drive><BlobList/><DriveId>A</DriveId></Drive>"),
        "DriveId must come before any BlobList",
    ),
    "two drive ids": (in_drive("<DriveId>B</DriveId>"), "more than one DriveId"),
    "two drives": (in_manifest("<Drive><DriveId>A</DriveId></Drive><Drive/>"), "more than one Drive"),
    "a blob outside a list": (in_drive(a_blob()), "Drive holds a Blob, which does not belong there"),
    "no blob path": (in_list(a_blob(path=None)), "blob 1: it has no BlobPath"),
    "no file path": (in_list(a_blob(file=None)), "blob 1: it has no FilePath"),
    "no length": (in_list(a_blob(length=None)), "blob 1: it has no Length"),
    "two file paths": (in_list(a_blob(more="<FilePath>b</FilePath>")), "blob 1: it has more than one FilePath"),
    "an element in a text": (
        in_list(a_blob(path="c/a<x/>b")),
        "BlobPath holds an element where only text may stand",
    ),
    "a length in words": (in_list(a_blob(length="ten")), "blob 1: its Length must be a number of bytes"),
    "a length below zero": (in_list(a_blob(length="-10")), "blob 1: its Length must be a number of bytes"),
    "a length in other digits": (
        in_list(a_blob(length="\u0661\u0660")),
        "blob 1: its Length must be a number of bytes",
    ),
    "a length with an underscore": (in_list(a_blob(length="1_0")), "blob 1: its Length must be a number of bytes"),
    "a length of a thousand digits": (in_list(a_blob(length="9" * 1000)), "Length must be a number of bytes"),
    "a disposition nobody has": (
        in_list(a_blob(more="<ImportDisposition>Rename</ImportDisposition>")),
        "ImportDisposition must be no-overwrite, overwrite, rename",
    ),
    "neither blocks nor pages": (in_list(a_blob(pieces="")), "neither a BlockList nor a PageRangeList"),
    "blocks and pages": (in_list(a_blob(pieces=BLOCK + PAGES)), "more than one BlockList or PageRangeList"),
    "pages and blocks": (in_list(a_blob(pieces=PAGES + BLOCK)), "more than one BlockList or PageRangeList"),
    "empty blocks and pages": (in_list(a_blob(pieces="<BlockList/>" + PAGES)), "more than one BlockList"),
    "blocks twice": (in_list(a_blob(pieces=BLOCK + BLOCK)), "more than one BlockList or PageRangeList"),
    "a block among pages": (
        in_list(a_blob(pieces=f'<PageRangeList><Block Offset="0" Length="10" Hash="{MD5}"/></PageRangeList>')),
        "PageRangeList holds a Block, which does not belong there",
    ),
    "no blocks for ten bytes": (
        in_list(a_blob(pieces="<BlockList/>")),
        "blocks end at byte 0 and its length is 10",
    ),
    "a gap at the beginning": (in_list(a_blob(pieces=blocks((1, 9)))), "blob 1: its blocks leave a gap at byte 0"),
    "a gap": (in_list(a_blob(pieces=blocks((0, 4), (5, 5)))), "blob 1: its blocks leave a gap at byte 4"),
    "a gap at the end": (in_list(a_blob(pieces=blocks((0, 9)))), "blocks end at byte 9 and its length is 10"),
    "a block too many": (in_list(a_blob(pieces=blocks((0, 10), (10, 1)))), "end at byte 11 and its length is 10"),
    "blocks that overlap": (in_list(a_blob(pieces=blocks((0, 6), (5, 5)))), "block 2 overlaps the one before"),
    "blocks out of order": (in_list(a_blob(pieces=blocks((5, 5), (0, 5)))), "leave a gap at byte 0"),
    "a block of nothing": (
        in_list(a_blob(pieces=blocks((0, 10), (10, 0)))),
        "block 2 must have 1 to 4194304 bytes",
    ),
    "a block over 4 MiB": (
        in_list(a_blob(length=f"{4 * MIB + 1}", pieces=blocks((0, 4 * MIB + 1)))),
        "block 1 must have 1 to 4194304 bytes and has 4194305",
    ),
    "no offset": (
        in_list(a_blob(pieces=f'<BlockList><Block Length="10" Hash="{MD5}"/></BlockList>')),
        "the Offset of its Block 1 must be a number",
    ),
    "no hash": (
        in_list(a_blob(pieces='<BlockList><Block Offset="0" Length="10"/></BlockList>')),
        "block 1 must have an MD5",
    ),
    "a hash too short": (in_list(a_blob(pieces=blocks((0, 10), block_hash=MD5[1:]))), "block 1 must have an MD5"),
    "a hash too long": (in_list(a_blob(pieces=blocks((0, 10), block_hash=MD5 + "0"))), "block 1 must have an MD5"),
    "a hash of no hex": (in_list(a_blob(pieces=blocks((0, 10), block_hash="G" * 32))), "block 1 must have an MD5"),
    "a block without an id": (in_list(a_blob(pieces=blocks_with_ids(5, "AA==", None))), "it is all or none"),
    "a block without an id at 64 MB": (
        in_list(a_blob(length=f"{64 * MIB}", pieces=blocks_with_ids(4 * MIB, *["A"], *[None] * 15))),
        "it is all or none",
    ),
    "an id twice": (in_list(a_blob(pieces=blocks_with_ids(5, "AA==", "AA=="))), "have the same id"),
    "an empty id": (in_list(a_blob(pieces=blocks_with_ids(10, ""))), "ids must have 1 to 88 characters"),
    "an id too long": (in_list(a_blob(pieces=blocks_with_ids(10, "A" * 89))), "ids must have 1 to 88 characters"),
    "a page blob of odd length": (in_list(a_blob(length="513", pieces=PAGES)), "multiple of 512"),
    "a page blob too long": (in_list(a_blob(length=f"{8 * 2**40 + 512}", pieces=PAGES)), "at most 8 TiB"),
    "a page at an odd offset": (
        in_list(a_blob(length="2048", pieces=pages((100, 512)))),
        "page range 1 must begin and end at a multiple of 512",
    ),
    "a page of odd length": (in_list(a_blob(length="2048", pieces=pages((0, 100)))), "multiple of 512"),
    "a page of nothing": (in_list(a_blob(length="2048", pieces=pages((0, 0)))), "must have 512 to 4194304 bytes"),
    "pages over 4 MiB": (
        in_list(a_blob(length=f"{8 * MIB}", pieces=pages((0, 4 * MIB + 512)))),
        "page range 1 must have 512 to 4194304 bytes and has 4194816",
    ),
    "pages that overlap": (
        in_list(a_blob(length="2048", pieces=pages((0, 1024), (512, 512)))),
        "page range 2 overlaps the one before",
    ),
    "pages out of order": (
        in_list(a_blob(length="2048", pieces=pages((512, 512), (0, 512)))),
        "page range 2 overlaps the one before or is out of order",
    ),
    "pages beyond the end": (
        in_list(a_blob(length="512", pieces=pages((512, 512)))),
        "page ranges end at byte 1024 and its length is 512",
    ),
    "a page's bad hash": (
        in_list(a_blob(length="512", pieces=pages((0, 512), page_hash="x"))),
        "page range 1 must",
    ),
    "metadata without a hash": (
        in_list(a_blob(more="<MetadataPath>m.xml</MetadataPath>")),
        "its MetadataPath must have an MD5",
    ),
    "properties outside the drive": (
        in_list(a_blob(more=rf'<PropertiesPath Hash="{MD5}">..\p.xml</PropertiesPath>')),
        "none of only dots and spaces",
    ),
    "metadata for all without a hash": (
        in_list("<MetadataPath>m.xml</MetadataPath>"),
        "MetadataPath must have an MD5",
    ),
    "metadata for all too late": (
        in_list(a_blob() + f'<MetadataPath Hash="{MD5}">m.xml</MetadataPath>'),
        "must stand before its first Blob",
    ),
    "metadata for all twice": (
        in_list(f'<MetadataPath Hash="{MD5}">m.xml</MetadataPath>' * 2),
        "more than one MetadataPath",
    ),
    "a thousand strangers": (
        in_list(a_blob(more="<x/>" * 1001)),
        "more than 1000 elements that no manifest knows",
    ),
    "too many names": (in_list("".join(f"<x{n}/>" for n in range(257))), "more than 256 different names"),
    "too many names of attributes": (
        in_list("<x " + " ".join(f'a{n}=""' for n in range(257)) + "/>"),
        "more than 256 different names",
    ),
    "seventeen levels": (in_manifest("<x>" * 16 + "</x>" * 16), "more than 16 deep"),
    "ten thousand levels": (in_manifest("<x>" * 10_000 + "</x>" * 10_000), "more than 16 deep"),
    "two mebibytes of text": (in_list(f"<x>{'a' * 2 * MIB}</x>"), "without an element beginning or ending"),
    "two mebibytes of comment": (in_list(f"<!--{'a' * 2 * MIB}-->"), "without an element beginning or ending"),
    "two mebibytes of attribute": (in_list(f'<x a="{"a" * 2 * MIB}"/>'), "without an element beginning or ending"),
}


@pytest.mark.parametrize(("xml", "text"), LIES.values(), ids=LIES)
def test_a_lie_is_refused_by_its_rule_and_without_a_name(xml: str, text: str) -> None:
    """Each breaks one rule of the format and is told by position alone."""
    error = refusal(xml)
    assert error.status == "ManifestFormatInvalid"
    assert text in str(error)
    assert SERIAL not in str(error)
    assert NAME not in str(error)


@pytest.mark.parametrize(
    "xml",
    [
        "",
        " ",
        "no XML at all",
        "<DriveManifest",
        in_list(a_blob())[:-1],
        in_list(a_blob())[:-40],
        in_list(a_blob()) + "<DriveManifest/>",
        in_list(a_blob(path=f"photos/&{NAME};")),
        in_list(a_blob(path="photos/&#0;")),
        in_list(a_blob(path="photos/&#x1;")),
        in_list(a_blob()).encode("utf-16-le")[:99],
        in_list(a_blob(path="photos/é")).encode("latin-1"),
        b'<?xml version="1.0" encoding="no-such"?>' + in_list("").encode(),
        b'<?xml version="1.0" encoding="big5"?>' + in_list("").encode(),
        in_list('<x a="1" a="2"/>'),
    ],
)
def test_what_is_not_xml_is_corrupted(xml: str | bytes) -> None:
    """Cut short, followed by more, wrongly encoded, or nothing at all."""
    error = refusal(xml)
    assert error.status == "ManifestCorrupted"
    assert "it is not XML" in str(error)
    assert NAME not in str(error)


@pytest.mark.parametrize(
    "declaration",
    [
        "<!DOCTYPE DriveManifest>",
        '<!DOCTYPE DriveManifest SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>',
        '<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE d [<!ENTITY % a SYSTEM "http://127.0.0.1/x"> %a;]>',
    ],
)
def test_document_types_and_entity_bombs_are_refused(declaration: str) -> None:
    """None is even begun to be read."""
    error = refusal(declaration + in_list(a_blob(path="photos/&c;")))
    assert error.status == "ManifestFormatInvalid"
    assert "document type or an entity" in str(error)


def test_a_broken_blob_is_told_by_its_position() -> None:
    """The good ones before it are given first, across lists."""
    xml = in_drive(f"<BlobList>{a_blob() * 10}</BlobList><BlobList>{a_blob() * 6}{a_blob(length='11')}</BlobList>")
    found = iterate_blobs(io.BytesIO(xml.encode()))
    assert len(list(islice(found, 16))) == 16
    with pytest.raises(ManifestError, match=r"^blob 17: its blocks end at byte 10"):
        next(found)


def test_what_is_wrong_behind_the_last_blob_is_found_too() -> None:
    """A manifest cut after its last blob is not whole."""
    found = iterate_blobs(io.BytesIO(in_list(a_blob())[:-5].encode()))
    assert next(found).length == 10
    with pytest.raises(ManifestError, match=r"^the manifest, after blob 1: it is not XML"):
        next(found)


PATHS_REFUSED: Final = [
    *("/photos/a", "photos//a", "photos/", "photos/./a", "photos/../a", "photos/a/..", "", "..", ".", "/"),
    *("Photos/a", "ab/a", "a" * 64 + "/a", "-abc/a", "abc-/a", "a--b/a", "a_b/a", "phötos/a", "$web/a", "abc\n/a"),
    *("photos/" + "a" * 1025, "a" * 1025, "photos/\x00", "photos/\x1f", "photos/\ud800", "photos/\uffff"),
]


@pytest.mark.parametrize("path", PATHS_REFUSED)
def test_a_blob_path_that_azure_would_not_take_is_refused(path: str) -> None:
    """Paths and container names one step over the line."""
    with pytest.raises(ManifestError):
        split_blob_path(path)
    with pytest.raises(ManifestError, match=r"^blob 1: "):
        written(Blob(path, "a", 0))


@pytest.mark.parametrize(
    ("path", "container", "name"),
    [
        ("photos/2014/a b.jpg", "photos", "2014/a b.jpg"),
        ("Seattle.jpg", "$root", "Seattle.jpg"),
        ("$root/Seattle.jpg", "$root", "Seattle.jpg"),
        ("abc/..a", "abc", "..a"),
        ("a-1/x", "a-1", "x"),
        ("123/" + "a" * 1024, "123", "a" * 1024),
        ("a" * 63 + "/\U0001f30d", "a" * 63, "\U0001f30d"),
    ],
)
def test_a_blob_path_is_a_container_and_a_name(path: str, container: str, name: str) -> None:
    """Paths just inside the line."""
    assert split_blob_path(path) == (container, name)


@pytest.mark.parametrize(
    "path",
    [
        *("", "\\", "..", ".", r"..\a", r"a\..", r"a\..\b", r"a\.\b", r"a\\b", "a\\", r"a\.. \b", r"a\...\b", " "),
        *(r"C:\a", "c:a", r"\C:\a", r"\\server\share", "a/b", r"a\b/../c", "a\x00", "a\ud800", "a" * 32_768),
    ],
)
def test_a_file_path_that_leads_out_of_the_drive_is_refused(path: str) -> None:
    """On this system and on Windows."""
    with pytest.raises(ManifestError):
        require_file_path(path)
    with pytest.raises(ManifestError, match=r"^blob 1: "):
        written(Blob("photos/a", path, 0))
    with pytest.raises(ManifestError, match=r"^blob 1: "):
        written(Blob("photos/a", "a", 0, properties=AttachedFile(path, MD5)))


@pytest.mark.parametrize(
    "path", ["a", r"\a", r"a\b c\d.jpg", ".a", "..a", "ab:c", "\u00e9", "a" * 32_767, "a.", " a"]
)
def test_a_file_path_inside_the_drive_is_taken(path: str) -> None:
    """One backslash may stand in front."""
    require_file_path(path)


def test_a_manifest_as_microsofts_tool_wrote_it_is_read() -> None:
    """Older version, credential, lower-case hashes, white space, what nobody asks for."""
    xml = f"""<?xml version="1.0" encoding="utf-16"?>
    <DriveManifest Version="2011-10-01">
      <Drive>
        <DriveId> {SERIAL} </DriveId>
        <StorageAccountKey>c2VjcmV0</StorageAccountKey>
        <ClientCreator>WAImportExport</ClientCreator>
        <BlobList Id="first">
          <MetadataPath Hash="{MD5.lower()}">all.metadata.xml</MetadataPath>
          <Blob>
            <BlobPath>photos/a&amp;b.jpg</BlobPath>
            <FilePath>photos\\a&amp;b.jpg</FilePath>
            <ClientData><any><Blob/></any></ClientData>
            <Length> 10 </Length>
            <ImportDisposition>no-overwrite</ImportDisposition>
            {blocks((0, 4), (4, 6), block_hash=MD5.lower())}
            <PropertiesPath Hash="{MD5}">own.properties.xml</PropertiesPath>
          </Blob>
        </BlobList>
        <BlobList Id="second">
          <Blob>
            <BlobPath>disk.vhd</BlobPath><FilePath>\\disk.vhd</FilePath><Length>2048</Length>
            {pages((512, 512), (1536, 512))}
          </Blob>
          {a_blob(length="0", pieces="<BlockList/>")}
        </BlobList>
      </Drive>
    </DriveManifest>"""
    data = xml.encode("utf-16")
    assert read(data) == [
        Blob(
            "photos/a&b.jpg",
            r"photos\a&b.jpg",
            10,
            ImportDisposition.NO_OVERWRITE,
            (Block(0, 4, MD5), Block(4, 6, MD5)),
            metadata=AttachedFile("all.metadata.xml", MD5),
            properties=AttachedFile("own.properties.xml", MD5),
        ),
        Blob("disk.vhd", r"\disk.vhd", 2048, page_ranges=(PageRange(512, 512, MD5), PageRange(1536, 512, MD5))),
        Blob(f"photos/{NAME}.jpg", rf"photos\{NAME}.jpg", 0),
    ]
    summary = check_manifest(io.BytesIO(data))
    assert (summary.version, summary.drive_id) == ("2011-10-01", SERIAL)
    assert (summary.blob_count, summary.bytes_total) == (3, 10 + 1024)


def test_a_blobs_own_files_outrank_those_of_its_list() -> None:
    """And the defaults of one list are not those of the next."""
    default = f'<MetadataPath Hash="{MD5}">all</MetadataPath>'
    own = f'<MetadataPath Hash="{MD5}">own</MetadataPath>'
    lists = f"<BlobList>{default}{a_blob(more=own)}{a_blob()}</BlobList><BlobList>{a_blob()}</BlobList>"
    found = [blob.metadata and blob.metadata.path for blob in read(in_drive(lists))]
    assert found == ["own", "all", None]


@pytest.mark.parametrize(
    ("length", "pieces"),
    [
        ("0", "<BlockList/>"),
        ("512", "<PageRangeList/>"),
        ("0", "<PageRangeList/>"),
        (f"{4 * MIB}", blocks((0, 4 * MIB))),
        (f"{4 * MIB}", pages((0, 4 * MIB))),
        ("10", blocks_with_ids(5, "A", "B")),
        (f"{68 * MIB}", blocks_with_ids(4 * MIB, "A", *[None] * 16)),
    ],
)
def test_what_is_just_inside_the_line_is_taken_and_written_again(length: str, pieces: str) -> None:
    """Empty lists where nothing is to be listed, largest blocks, mixed ids past 64 MB."""
    blobs = read(in_list(a_blob(length=length, pieces=pieces)))
    assert read(written(*blobs)) == blobs


def test_strangers_up_to_the_limit_are_passed_over_in_every_blob() -> None:
    """The limit is per blob, so that a tool may add something to each."""
    assert len(read(in_list(a_blob(more="<x/>" * 1000) * 3))) == 3


def test_fifty_thousand_blocks_are_the_most_a_blob_has() -> None:
    """One more is refused when it is met, before the blob is at its end."""
    most = tuple(Block(n, 1, MD5) for n in range(BLOCKS_MAX))
    data = written(Blob("photos/a", "a", BLOCKS_MAX, blocks=most))
    assert check_manifest(io.BytesIO(data)).bytes_total == BLOCKS_MAX
    more = f'<Block Offset="{BLOCKS_MAX}" Length="1" Hash="{MD5}"/>no more is read & this is no XML'
    with pytest.raises(ManifestError, match=r"^blob 1: it has more than 50000 blocks"):
        check_manifest(io.BytesIO(data.replace(b"</BlockList>", more.encode())))
    with pytest.raises(ManifestError, match="more than 50000 blocks"):
        written(Blob("photos/a", "a", BLOCKS_MAX + 1, blocks=(*most, Block(BLOCKS_MAX, 1, MD5))))


@pytest.mark.parametrize(
    "blob",
    [
        Blob("photos/a", "a", 10),
        Blob("photos/a", "a", -1),
        Blob("photos/a", "a", 10, blocks=(Block(-1, 11, MD5),)),
        Blob("photos/a", "a", 10, blocks=(Block(0, 10, "x"),)),
        Blob("photos/a", "a", 2, blocks=(Block(0, 1, MD5, "a\x01"), Block(1, 1, MD5, "b"))),
        Blob("photos/a", "a", 512, blocks=(Block(0, 512, MD5),), page_ranges=(PageRange(0, 512, MD5),)),
        Blob("photos/a", "a", -512, is_page_blob=True),
        Blob("photos/a", "a", 0, metadata=AttachedFile("m", "")),
    ],
)
def test_the_writer_refuses_what_the_reader_would(blob: Blob) -> None:
    """The refused blob leaves no trace, and the next one can be written."""
    stream = io.BytesIO()
    good = Blob("photos/b", "b", 0)
    with ManifestWriter(stream, drive_id=SERIAL, client_creator="test") as writer:
        writer.add(good)
        with pytest.raises(ManifestError, match=r"^blob 2: ") as error:
            writer.add(blob)
        writer.add(good)
    assert error.value.status == "ManifestFormatInvalid"
    assert read(stream.getvalue()) == [good, good]


@pytest.mark.parametrize("drive_id", ["", "A B", "A\n", "\x01", "A" * 65])
def test_the_writer_refuses_a_drive_id_the_reader_would(drive_id: str) -> None:
    """Before anything is written."""
    with pytest.raises(ManifestError, match="DriveId"):
        written(drive_id=drive_id)


def test_a_manifest_cut_by_an_error_is_no_manifest() -> None:
    """Its end is only written when all went well."""
    stream = io.BytesIO()
    with suppress(RuntimeError), ManifestWriter(stream, drive_id=SERIAL, client_creator="test") as writer:
        writer.add(Blob("photos/a", "a", 0))
        raise RuntimeError
    assert refusal(stream.getvalue()).status == "ManifestCorrupted"


CHARACTERS: Final = st.characters(exclude_categories=["Cs"]).filter(xml_can_hold)
HASHES: Final = st.text("0123456789ABCDEF", min_size=32, max_size=32)
SEGMENTS: Final = st.text(CHARACTERS, min_size=1, max_size=8).filter(
    lambda text: not set("/\\:") & set(text) and text.strip(" .") != ""
)
FILE_PATHS: Final = st.lists(SEGMENTS, min_size=1, max_size=3).map("\\".join)
CONTAINERS: Final = st.from_regex(r"[a-z0-9]{3,30}(-[a-z0-9]{1,30})?", fullmatch=True) | st.just("$root")
BLOB_PATHS: Final = st.builds(lambda c, names: "/".join([c, *names]), CONTAINERS, st.lists(SEGMENTS, min_size=1))
ATTACHED: Final = st.none() | st.builds(AttachedFile, FILE_PATHS, HASHES)


@st.composite
def block_blobs(draw: st.DrawFn) -> Blob:
    """Whole block blobs."""
    lengths = draw(st.lists(st.integers(1, BLOCK_BYTES_MAX), max_size=5))
    with_ids = draw(st.booleans())
    ids = draw(st.lists(st.text(CHARACTERS, min_size=1, max_size=9), min_size=5, max_size=5, unique=True))
    found = tuple(
        Block(sum(lengths[:n]), length, draw(HASHES), ids[n] if with_ids else None)
        for n, length in enumerate(lengths)
    )
    return draw(blobs_around(sum(lengths), found, ()))


@st.composite
def page_blobs(draw: st.DrawFn) -> Blob:
    """Page blobs with holes."""
    end = 0
    found: list[PageRange] = []
    for hole, pages_long in draw(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 8192)), max_size=4)):
        found.append(PageRange(end + hole * 512, pages_long * 512, draw(HASHES)))
        end = found[-1].offset + found[-1].length
    return draw(blobs_around(end + 512 * draw(st.integers(0, 99)), (), tuple(found)))


def blobs_around(length: int, found: tuple[Block, ...], ranges: tuple[PageRange, ...]) -> st.SearchStrategy[Blob]:
    """Blobs of given pieces."""
    return st.builds(
        Blob,
        blob_path=BLOB_PATHS,
        file_path=FILE_PATHS,
        length=st.just(length),
        disposition=st.sampled_from(ImportDisposition),
        blocks=st.just(found),
        page_ranges=st.just(ranges),
        metadata=ATTACHED,
        properties=ATTACHED,
        is_page_blob=st.just(not found),
    )


@settings(max_examples=40, deadline=None)
@given(
    blobs=st.lists(block_blobs() | page_blobs(), max_size=4),
    drive_id=st.text(CHARACTERS, min_size=1, max_size=64).filter(lambda text: not any(c.isspace() for c in text)),
)
def test_what_is_written_is_read_back_the_same(blobs: list[Blob], drive_id: str) -> None:
    """Line ends, tabs, quotes, any script: nothing is lost on the way."""
    data = written(*blobs, drive_id=drive_id)
    assert read(data) == blobs
    summary = check_manifest(io.BytesIO(data))
    assert summary.drive_id == drive_id
    assert summary.bytes_total == sum(blob.bytes_listed for blob in blobs)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_manifest_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    """Bytes changed anywhere lead to no other error."""
    whole = bytearray(written(Blob("photos/a", "a", 9, blocks=(Block(0, 9, MD5, "A"),)), Blob("photos/b", "b", 0)))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(bytes(whole)) in {"", "ManifestFormatInvalid", "ManifestCorrupted"}


class EndlessManifest(io.RawIOBase):
    """A manifest that is made while it is read."""

    def __init__(self, blob: str, count: int) -> None:
        self._parts = self._made(blob, count)

    @staticmethod
    def _made(blob: str, count: int) -> Iterator[bytes]:
        around = in_list("|").split("|")
        yield around[0].encode()
        for _ in range(count // 100):
            yield blob.encode() * 100
        yield around[1].encode()

    def read(self, _size: int = -1) -> bytes:
        """Give the next part, whatever its size."""
        return next(self._parts, b"")


def test_memory_does_not_grow_with_the_number_of_blobs() -> None:
    """Fifty thousand blobs; the last ten thousand may not leave anything behind."""
    found = iterate_blobs(EndlessManifest(a_blob(), 50_000))
    assert sum(1 for _ in islice(found, 40_000)) == 40_000
    tracemalloc.start()
    try:
        count = sum(1 for _ in found)
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 10_000
    assert left < 100_000
    assert peak < MIB
