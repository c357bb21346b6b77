"""The copy log: its words are those of the specification, and what is written is read back."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.copy_logs import (
    AttachedStatus,
    BlobStatus,
    BlockStatus,
    CopyLog,
    DispositionStatus,
    DriveStatus,
    LoggedBlob,
    LoggedBlock,
    LogKind,
    copy_log_name,
    error_entries,
    read_copy_log,
    write_copy_log,
)
from models.errors import CopyLogError
from models.manifests import ImportDisposition, xml_can_hold

MD5: Final = "0123456789ABCDEF0123456789ABCDEF"
AT: Final = datetime(2014, 3, 9, 7, 5, 1, 42_999, tzinfo=UTC)

# Copied by hand from section 9 of the service description.
WORDS: Final[dict[type[StrEnum], str]] = {
    DriveStatus: "Completed, CompletedWithWarnings, CompletedWithErrors, DiskNotFound, BitLockerKeyInvalid, "
    "ManifestNotFound, ManifestAccessDenied, ManifestCorrupted, ManifestFormatInvalid, ManifestDriveIdMismatch, "
    "BlobListFormatInvalid, BlobRequestForbidden, InternalError",
    BlobStatus: "Completed, CompletedWithErrors, FileNameInvalid, FileNotFound, FileAccessDenied, "
    "BlobRequestFailed, BlobRequestForbidden, RenameFailed, IOFailed, Failed",
    DispositionStatus: "Created, Renamed, Skipped, Overwritten, Cancelled",
    BlockStatus: "Completed, Committed, Uncommitted, Corrupted, FileUnexpectedEnd, BlobRequestFailed, IOFailed, "
    "Failed, Cancelled",
    AttachedStatus: "Completed, FileNotFound, Corrupted, XmlReadFailed, BlobRequestFailed, IOFailed, "
    "Failed, Cancelled",
}

GOOD: Final = LoggedBlob(
    blob_path="photos/a.jpg",
    file_path=r"photos\a.jpg",
    length=10,
    status=BlobStatus.COMPLETED,
    disposition=ImportDisposition.RENAME,
    disposition_status=DispositionStatus.CREATED,
    blocks=(LoggedBlock(0, 4, MD5, BlockStatus.COMPLETED), LoggedBlock(4, 6, MD5, BlockStatus.COMPLETED, "AA==")),
    metadata_status=AttachedStatus.COMPLETED,
)


def written(*blobs: LoggedBlob, drive_id: str = "A1", status: DriveStatus = DriveStatus.COMPLETED) -> bytes:
    """A log of some blobs."""
    stream = io.BytesIO()
    write_copy_log(stream, drive_id, iter(blobs), status)
    return stream.getvalue()


def read(data: bytes) -> CopyLog:
    """The log read back."""
    return read_copy_log(io.BytesIO(data))


@pytest.mark.parametrize(("statuses", "words"), WORDS.items())
def test_the_words_of_a_status_are_those_of_the_specification(statuses: type[StrEnum], words: str) -> None:
    """All of them, and no other."""
    assert ", ".join(statuses) == words


def test_a_log_is_laid_out_as_the_specification_says() -> None:
    """Every element and attribute in its place."""
    blob = replace(GOOD, last_modified=AT, properties_status=AttachedStatus.XML_READ_FAILED)
    assert written(blob, status=DriveStatus.COMPLETED_WITH_ERRORS).decode() == (
        '<?xml version="1.0" encoding="utf-8"?>\n<DriveLog Version="2014-11-01"><DriveId>A1</DriveId>\n'
        '<Blob Status="Completed"><BlobPath>photos/a.jpg</BlobPath><FilePath>photos\\a.jpg</FilePath>'
        "<Length>10</Length><LastModified>2014-03-09T07:05:01.042999+00:00</LastModified>"
        '<ImportDisposition Status="Created">rename</ImportDisposition><BlockList>'
        f'<Block Offset="0" Length="4" Hash="{MD5}" Status="Completed"/>'
        f'<Block Offset="4" Length="6" Id="AA==" Hash="{MD5}" Status="Completed"/></BlockList>'
        '<Metadata Status="Completed"/><Properties Status="XmlReadFailed"/></Blob>\n'
        "<Status>CompletedWithErrors</Status></DriveLog>\n"
    )


NOT_WELL: Final = [
    *(replace(GOOD, status=status) for status in BlobStatus if status != "Completed"),
    *(replace(GOOD, disposition_status=status) for status in DispositionStatus if status != "Created"),
    *(replace(GOOD, metadata_status=status) for status in AttachedStatus if status != "Completed"),
    *(replace(GOOD, properties_status=status) for status in AttachedStatus if status != "Completed"),
]
WELL: Final = [
    GOOD,
    replace(GOOD, metadata_status=None, properties_status=AttachedStatus.COMPLETED),
    replace(GOOD, disposition=None, disposition_status=None, last_modified=AT),
]


def test_the_error_log_keeps_every_blob_that_did_not_go_well() -> None:
    """One word other than the best is enough, wherever it stands."""
    kept = list(error_entries([*WELL, *NOT_WELL]))
    assert [(b.status, b.disposition_status) for b in kept] == [(b.status, b.disposition_status) for b in NOT_WELL]
    assert not any(blob.went_well for blob in kept)


def test_the_error_log_leaves_out_every_blob_that_went_well() -> None:
    """Also one without attached files, and one of an export."""
    assert all(blob.went_well for blob in WELL)
    assert list(error_entries(WELL)) == []


def test_the_error_log_names_only_the_pieces_that_did_not_go_well() -> None:
    """Blocks only committed are named, since their blob is not whole."""
    blocks = tuple(LoggedBlock(n, 1, MD5, status) for n, status in enumerate(BlockStatus))
    blob = replace(
        GOOD, status=BlobStatus.FAILED, length=9, blocks=blocks, properties_status=AttachedStatus.IO_FAILED
    )
    [kept] = error_entries([blob])
    assert [block.status for block in kept.blocks] == [status for status in BlockStatus if status != "Completed"]
    assert (kept.metadata_status, kept.properties_status) == (None, AttachedStatus.IO_FAILED)
    assert read(written(kept)).blobs == [kept]


@pytest.mark.parametrize("kind", ["error", "verbose", "manifest"])
def test_a_log_is_named_by_job_drive_and_moment(kind: LogKind) -> None:
    """Milliseconds are cut, so that a name never tells of the next second."""
    assert copy_log_name("myJob", "9CA995BB", AT, kind) == f"waies/myJob_9CA995BB_20140309-070501-042_{kind}.xml"


def test_no_serial_number_leads_out_of_the_log_folder() -> None:
    """Whatever a customer calls a drive."""
    assert copy_log_name("j1", "../x\\y z", AT, "error") == "waies/j1_..-x-y-z_20140309-070501-042_error.xml"


@pytest.mark.parametrize("at", [AT.replace(tzinfo=None), AT.astimezone(timezone(timedelta(hours=1)))])
def test_a_log_is_not_named_by_a_local_time(at: datetime) -> None:
    """Neither without an offset nor with another one."""
    with pytest.raises(ValueError, match="in UTC"):
        copy_log_name("j1", "A1", at, "error")


def test_a_name_that_xml_cannot_hold_is_logged_as_well_as_may_be() -> None:
    """A failed log would tell of no blob at all."""
    [blob] = read(written(replace(GOOD, blob_path="photos/a\x00\ud800b"))).blobs
    assert blob.blob_path == "photos/a\ufffd\ufffdb"


def test_a_time_without_an_offset_is_not_logged() -> None:
    """It would be read as another moment."""
    with pytest.raises(ValueError, match="offset from UTC"):
        written(replace(GOOD, last_modified=AT.replace(tzinfo=None)))


LOG: Final = written(GOOD).decode()
LIES: Final = {
    "nothing": ("", "it is not XML"),
    "cut": (LOG[:-20], "it is not XML"),
    "a bomb": ('<!DOCTYPE d [<!ENTITY a "aa">]>' + LOG.partition("\n")[2], "document type"),
    "another root": (LOG.replace("DriveLog", "Log"), "outermost element is no DriveLog"),
    "no drive id": (LOG.replace("DriveId", "Drive"), "no DriveId or no Status"),
    "no status": (LOG.replace("<Status>Completed</Status>", ""), "no DriveId or no Status"),
    "a drive's unknown word": (LOG.replace("<Status>C", "<Status>X"), "its drive has no DriveStatus"),
    "a blob's unknown word": (LOG.replace('Blob Status="C', 'Blob Status="X'), "blob 1 has no BlobStatus"),
    "a disposition's unknown word": (LOG.replace('"Created"', '""'), "blob 1 has no DispositionStatus"),
    "an unknown disposition": (LOG.replace(">rename<", ">x<"), "blob 1 has no ImportDisposition"),
    "a block's unknown word": (LOG.replace('" Status="C', '" Status="X'), "blob 1 has no BlockStatus"),
    "an attached file's unknown word": (
        LOG.replace('Metadata Status="C', 'Metadata Status="X'),
        "no AttachedStatus",
    ),
    "a length in words": (LOG.replace("<Length>10", "<Length>ten"), "blob 1 has a number or a time that is none"),
    "a block without an offset": (LOG.replace(' Offset="4"', ""), "blob 1 has a number or a time that is none"),
    "ten thousand levels": ("<DriveLog>" + "<x>" * 10_000 + "</x>" * 10_000 + "</DriveLog>", "more than 16 deep"),
}


@pytest.mark.parametrize(("xml", "text"), LIES.values(), ids=LIES)
def test_what_is_no_whole_log_is_refused(xml: str, text: str) -> None:
    """And told by position, with no name from it."""
    with pytest.raises(CopyLogError, match=text) as error:
        read(xml.encode())
    assert "a.jpg" not in str(error.value)


CHARACTERS: Final = st.characters(exclude_categories=["Cs"]).filter(xml_can_hold)
TEXTS: Final = st.text(CHARACTERS, min_size=1, max_size=9)
NUMBERS: Final = st.integers(0, 2**60)
BLOCKS: Final = st.builds(
    LoggedBlock, NUMBERS, NUMBERS, st.just(MD5), st.sampled_from(BlockStatus), st.none() | TEXTS
)
TIMES: Final = st.datetimes(timezones=st.just(UTC))


@st.composite
def logged_blobs(draw: st.DrawFn) -> LoggedBlob:
    """Blobs of imports and of exports."""
    of_import = draw(st.booleans())
    return LoggedBlob(
        blob_path=draw(TEXTS),
        file_path=draw(TEXTS),
        length=draw(NUMBERS),
        status=draw(st.sampled_from(BlobStatus)),
        disposition=draw(st.sampled_from(ImportDisposition)) if of_import else None,
        disposition_status=draw(st.sampled_from(DispositionStatus)) if of_import else None,
        last_modified=draw(st.none() | TIMES),
        blocks=tuple(draw(st.lists(BLOCKS, max_size=3))),
        metadata_status=draw(st.none() | st.sampled_from(AttachedStatus)),
        properties_status=draw(st.none() | st.sampled_from(AttachedStatus)),
        is_page_blob=draw(st.booleans()),
    )


@settings(max_examples=60, deadline=None)
@given(blobs=st.lists(logged_blobs(), max_size=3), drive_id=TEXTS, status=st.sampled_from(DriveStatus))
def test_a_log_is_read_back_as_it_was_written(blobs: list[LoggedBlob], drive_id: str, status: DriveStatus) -> None:
    """Any words, any characters, moments to the microsecond."""
    assert read(written(*blobs, drive_id=drive_id, status=status)) == CopyLog(drive_id, blobs, status)
