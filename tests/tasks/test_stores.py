"""Stores: the same promises, kept by a folder, by Azure and by S3."""

import hashlib
import json
import logging
import socket
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from uuid import uuid4

import boto3
import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obstore.exceptions import GenericError

from models.blob_facts import BlobFacts
from models.errors import StoreError
from models.setting_checks import STORE_OPTIONS
from tasks import azure_store, folder_store, s3_store
from tasks.cloud_stores import told_without_names
from tasks.containers import Account, containers_of, open_container
from tasks.folder_store import FolderContainer
from tasks.stores import (
    STAGING,
    BlobExistsError,
    BlobMissingError,
    BlobWriter,
    Container,
    ForbiddenError,
    ListedBlob,
    NameRefusedError,
    NotHeldError,
    Part,
    StoreBusyError,
)
from tasks.way import CopyStoppedError
from tests.store_servers import StoreServer

SECRET: Final = "aHVudGVyMnNlY3JldA=="  # noqa: S105  made up, Base64 as a key must be
FACTS: Final = BlobFacts(
    content_type="image/jpeg",
    content_encoding="gzip",
    content_language="de",
    cache_control="no-cache",
    metadata={"camera": "Nikon = 5", "place_2": "Oslo, %41 #1"},
)
ASIDE: Final = "job/0/aside"
_PART: Final = 8 << 20


@dataclass(frozen=True)
class Kind:
    """One kind of store under test.

    Attributes:
        name: folder, azure, s3, or s3 below a prefix.
        address: with `{container}` still open.
        seen: the names in a container as its own SDK, or the file system, sees them.
    """

    name: str
    address: str
    seen: Callable[[str], list[str]]

    def open(self, name: str = "") -> Container:
        """Open a container, a new one unless it is named."""
        return open_container(self.address, name or uuid4().hex)


@pytest.fixture(params=["folder", "azure", "s3", "s3 prefix"])
def kind(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_directory: Path
) -> Kind:
    """Give each kind of store in turn."""
    if request.param == "folder":
        return _folder(tmp_path)
    return _azure(request, monkeypatch) if request.param == "azure" else _s3(request, monkeypatch, request.param)


@pytest.fixture
def azure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, data_directory: Path) -> Kind:
    """Give Azure alone."""
    return _azure(request, monkeypatch)


@pytest.fixture
def s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, data_directory: Path) -> Kind:
    """Give S3 alone."""
    return _s3(request, monkeypatch, "s3")


def _folder(folder: Path) -> Kind:
    def seen(name: str) -> list[str]:
        root = folder / "store" / name
        return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())

    return Kind("folder", f"{(folder / 'store').as_uri()}/{{container}}", seen)


def _azure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    server = _served(request, monkeypatch, "azurite")
    service = azure_client(server)
    return Kind(
        "azure", server.address, lambda name: [b.name for b in service.get_container_client(name).list_blobs()]
    )


def _s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, name: str) -> Kind:
    server = _served(request, monkeypatch, "s3_server")
    client = s3_client(server)

    def in_bucket(bucket: str, prefix: str = "") -> list[str]:
        found = client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())
        return [each["Key"].removeprefix(prefix) for each in found]

    if name == "s3":
        return Kind(name, "s3://{container}", in_bucket)
    bucket = uuid4().hex
    return Kind(name, f"s3://{bucket}/posted/{{container}}", lambda c: in_bucket(bucket, f"posted/{c}/"))


def _served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, fixture: str) -> StoreServer:
    server: StoreServer = request.getfixturevalue(fixture)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


def azure_client(server: StoreServer) -> BlobServiceClient:
    """Make the SDK's own client."""
    environment = server.environment
    return BlobServiceClient(environment["AZURE_STORAGE_ENDPOINT"], environment["AZURE_STORAGE_ACCOUNT_KEY"])


def s3_client(server: StoreServer):  # type: ignore[no-untyped-def]  # noqa: D103
    return boto3.client("s3", endpoint_url=server.environment["AWS_ENDPOINT"], region_name="us-east-1")


def md5_of(data: bytes) -> bytes:
    """Digest."""
    return hashlib.md5(data, usedforsecurity=False).digest()


def put(container: Container, name: str, data: bytes = b"theirs", *, overwrite: bool = False) -> None:
    """Write a small blob."""
    container.put(name, data, BlobFacts(content_md5=md5_of(data)), "job/0/other", overwrite=overwrite)


def names_in(container: Container, prefix: str = "") -> list[str]:
    """List names."""
    return [blob.name for blob in container.list(prefix)]


def whole(count: int) -> tuple[bytes, list[Part]]:
    """Make a blob of so many parts of 8 MiB, the last of them short."""
    data = b"".join(bytes([index + 1]) * _PART for index in range(count - 1)) + b"the end"
    parts = [Part(i, i * _PART, min(_PART, len(data) - i * _PART)) for i in range(count)]
    return data, parts


def piece(data: bytes, part: Part) -> bytes:
    """Cut one part out of the whole."""
    return data[part.offset : part.offset + part.length]


# -- small blobs -----------------------------------------------------------------------------------------


def test_what_is_put_is_there_with_all_that_was_told_of_it(kind: Kind) -> None:
    """Content, length, properties, metadata and MD5; in a container that was missing."""
    container = kind.open()
    assert names_in(container) == []
    assert not container.exists("a/b.jpg")
    for data in (b"", b"x", bytes(range(256)) * 300):
        container.put("a/b.jpg", data, replace(FACTS, content_md5=md5_of(data)), ASIDE, overwrite=True)
        found = container.stat("a/b.jpg")
        assert (found.length, found.facts, found.is_page_blob) == (
            len(data),
            replace(FACTS, content_md5=md5_of(data)),
            False,
        )
        assert found.last_modified.utcoffset() is not None
        assert container.exists("a/b.jpg")
        assert container.read("a/b.jpg", 0, len(data) + 1, e_tag=found.e_tag) == data
    assert list(container.list()) == [ListedBlob("a/b.jpg", 76_800)]
    assert "a/b.jpg" in container.uri("a/b.jpg")
    assert container.name in container.uri("")


def test_settings_know_the_options_of_each_store() -> None:
    """Those that a store reads from the environment, and no others."""
    assert STORE_OPTIONS["az"] == STORE_OPTIONS["https"] == azure_store.ENVIRONMENT.keys()
    assert STORE_OPTIONS["s3"] == s3_store.ENVIRONMENT.keys()


def test_names_of_metadata_stay_as_they_are_written(kind: Kind) -> None:
    """Whatever way a blob takes into the store; S3 itself knows names in lower case alone."""
    container = kind.open()
    facts = BlobFacts(metadata={"Colour": "Blue", "shotBy": "x"})
    container.put("small", b"1", facts, ASIDE, overwrite=True)
    data, parts = whole(2)
    upload = container.upload("large", parts, ASIDE, facts=facts)
    for part in parts:
        upload.write(part, piece(data, part))
    upload.commit(facts, overwrite=True)
    for name in ("small", "large"):
        found = container.stat(name).facts.metadata
        if kind.name.startswith("s3"):
            assert {key.lower(): value for key, value in found.items()} == {"colour": "Blue", "shotby": "x"}
        else:
            assert found == facts.metadata


def test_a_blob_that_is_there_goes_only_where_it_is_to(kind: Kind) -> None:
    """Create, conflict, overwrite."""
    container = kind.open()
    put(container, "a", b"first")
    with pytest.raises(BlobExistsError):
        put(container, "a", b"second")
    assert container.read("a", 0, 9) == b"first"
    put(container, "a", b"third", overwrite=True)
    assert container.read("a", 0, 9) == b"third"


def test_a_piece_is_read_as_far_as_the_blob_goes(kind: Kind) -> None:
    """The middle, across the end, beyond the end, of an empty one."""
    container = kind.open()
    put(container, "a", b"0123456789")
    put(container, "empty", b"")
    assert container.read("a", 3, 4) == b"3456"
    assert container.read("a", 8, 100) == b"89"
    assert container.read("a", 10, 1) == b""
    assert container.read("a", 99, 1) == b""
    assert container.read("empty", 0, 5) == b""


def test_what_is_missing_is_told_as_missing(kind: Kind) -> None:
    """A blob, a container, and one that is another by now."""
    container = kind.open()
    for _ in range(2):
        assert not container.exists("a")
        for act in (lambda: container.stat("a"), lambda: container.read("a", 0, 1)):
            with pytest.raises(BlobMissingError):
                act()
        container.delete("a")
        container.delete("a", e_tag='"0x1"')
        container.discard("job/0")
        put(container, "other", overwrite=True)
    e_tag = container.stat("other").e_tag
    put(container, "other", b"another", overwrite=True)
    with pytest.raises(BlobMissingError):
        container.read("other", 0, 1, e_tag=e_tag)


def test_a_delete_takes_the_one_that_was_meant(kind: Kind) -> None:
    """With an ETag the blob goes only while it is that one."""
    container = kind.open()
    put(container, "a", b"first")
    old = container.stat("a").e_tag
    put(container, "a", b"second", overwrite=True)
    container.delete("a", e_tag=old)
    assert container.read("a", 0, 9) == b"second"
    container.delete("a", e_tag=container.stat("a").e_tag)
    assert not container.exists("a")
    put(container, "a")
    container.delete("a")
    assert names_in(container) == []


OUTSIDE: Final = ("../", "a/../", "./", "//", "/", f"{STAGING}", f"{STAGING}/", f"{STAGING}/job")


def test_a_list_is_in_order_and_shows_nothing_laid_aside(kind: Kind) -> None:
    """Prefixes are of letters and not of folders, as the service's export lists have them."""
    container = kind.open()
    names = ["a", "a-b", "a.txt", "a/b", "a/c/d", "ab", "b", "b/.drivepost", "é"]
    for name in names:
        if kind.name != "folder" or name not in {"a", "b"}:
            put(container, name)
    put(container, f"{STAGING}/job/0/x")
    held = [name for name in names if kind.name != "folder" or name not in {"a", "b"}]
    assert names_in(container) == held
    for prefix in ("", "a", "a/", "a/c", "a/c/d", "ab", "b/", "x", "é", ".drive", *OUTSIDE):
        assert names_in(container, prefix) == [name for name in held if name.startswith(prefix)], prefix
    assert f"{STAGING}/job/0/x" in kind.seen(container.name)
    container.discard("job/0")
    container.discard("job/0")
    assert f"{STAGING}/job/0/x" not in kind.seen(container.name)
    assert names_in(container) == held


def test_what_is_discarded_is_one_jobs_own(kind: Kind) -> None:
    """Drive 1 is not drive 10."""
    container = kind.open()
    for aside in ("job/1/x", "job/10/x", "job2/1/x"):
        put(container, f"{STAGING}/{aside}")
    container.discard("job/1")
    assert kind.seen(container.name) == [f"{STAGING}/job/10/x", f"{STAGING}/job2/1/x"]


def test_a_probe_leaves_nothing(kind: Kind) -> None:
    """And makes the container, if need be."""
    container = kind.open()
    container.probe("job/0/probe", 0)
    container.probe("job/0/probe", 4096)
    assert kind.seen(container.name) == []


def test_what_a_store_cannot_hold_with_a_blob_is_refused_before_it_is_written(kind: Kind) -> None:
    """Metadata that is too large, or no header at all; at once and in parts."""
    container = kind.open()
    size = 70_000 if kind.name == "folder" else 9_000
    facts = [BlobFacts(metadata={"a": "x" * size})]
    if kind.name != "folder":
        facts += [BlobFacts(metadata={"a": value}) for value in ("ä", "a\nb", " a", "a ")]
        facts += [BlobFacts(metadata={name: "x"}) for name in ("a b", "ä", "")]
        facts += [BlobFacts(content_type="a\r\nb: c"), BlobFacts(metadata={"a": "x", "A": "y"})]
    for each in facts:
        with pytest.raises(NotHeldError):
            container.put("a", b"x", each, ASIDE, overwrite=False)
        upload = container.upload("b", [Part(0, 0, 1)], ASIDE, facts=each)
        upload.write(Part(0, 0, 1), b"x")
        with pytest.raises(NotHeldError):
            upload.commit(each, overwrite=False)
        upload.commit(BlobFacts(content_md5=md5_of(b"x")), overwrite=True)
        assert container.stat("b").facts.metadata == {}
    assert not container.exists("a")


# -- parts -----------------------------------------------------------------------------------------------


def test_parts_may_come_in_any_order_from_several_threads(kind: Kind) -> None:
    """The blob appears at once, with what was told of it."""
    container = kind.open()
    data, parts = whole(4)
    facts = replace(FACTS, content_md5=md5_of(data))
    upload = container.upload("big/one", parts, ASIDE, facts=FACTS)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda part: upload.write(part, piece(data, part)), reversed(parts)))
    assert not container.exists("big/one")
    assert names_in(container) == []
    assert {upload.read(part) for part in parts[:1]} <= {None, piece(data, parts[0])}
    upload.commit(facts, overwrite=False)
    found = container.stat("big/one")
    assert (found.length, found.facts) == (len(data), facts)
    for part in parts:
        assert container.read("big/one", part.offset, part.length, e_tag=found.e_tag) == piece(data, part)
    assert kind.seen(container.name) == ["big/one"]


def test_only_missing_parts_are_sent_again(kind: Kind) -> None:
    """By another instance, which knows the handle alone; also where the container was opened anew."""
    name = uuid4().hex
    data, parts = whole(4)
    upload = kind.open(name).upload("big", parts, ASIDE, facts=FACTS)
    for part in (parts[0], parts[2]):
        upload.write(part, piece(data, part))
    again = kind.open(name).upload("big", parts, ASIDE, upload.handle, facts=FACTS)
    assert again.handle == upload.handle
    sent = [again.write(part, piece(data, part)) for part in parts]
    assert sent == [False, True, False, True] or kind.name == "folder"
    assert sent[0] is False
    again.commit(FACTS, overwrite=False)
    assert kind.open(name).read("big", 0, len(data)) == data


def test_a_second_process_goes_on_where_the_first_was_killed(kind: Kind) -> None:
    """Nothing but the handle is handed over."""
    name = uuid4().hex
    data, parts = whole(2)
    code = (
        "import os, sys; from tasks.containers import open_container; from tasks.stores import Part\n"
        "upload = open_container(sys.argv[1], sys.argv[2]).upload('big', "
        "[Part(0, 0, 8388608), Part(1, 8388608, 7)], 'job/0/aside')\n"
        "upload.write(Part(0, 0, 8388608), bytes([1]) * 8388608); print(upload.handle, flush=True); os._exit(9)"
    )
    command = [sys.executable, "-c", code, kind.address, name]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert ended.returncode == 9, ended.stderr
    upload = kind.open(name).upload("big", parts, ASIDE, ended.stdout.strip())
    assert [upload.write(part, piece(data, part)) for part in parts] == [False, True]
    upload.commit(BlobFacts(), overwrite=False)
    assert kind.open(name).read("big", 0, len(data)) == data


def test_parts_do_not_take_the_place_of_a_blob_that_came_meanwhile(kind: Kind) -> None:
    """A conflict at the commit; the other's blob stays, and is overwritten where it is to be."""
    container = kind.open()
    upload = container.upload("a", [Part(0, 0, 3)], ASIDE)
    upload.write(Part(0, 0, 3), b"our")
    put(container, "a", b"theirs", overwrite=True)
    with pytest.raises(BlobExistsError):
        upload.commit(BlobFacts(), overwrite=False)
    assert container.read("a", 0, 9) == b"theirs"
    upload.commit(BlobFacts(), overwrite=True)
    assert container.read("a", 0, 9) == b"our"


def test_what_is_dropped_leaves_nothing(kind: Kind, request: pytest.FixtureRequest) -> None:
    """Twice, and where another's blob has the name, that stays."""
    container = kind.open()
    for taken in (False, True):
        if taken:
            # Azurite, unlike Azure, takes blocks that were never committed for a blob.
            put(container, "a", b"theirs", overwrite=True)
        upload = container.upload("a", [Part(0, 0, 3)], ASIDE)
        upload.write(Part(0, 0, 3), b"our")
        for _ in range(2):
            container.drop("a", upload.handle)
        assert kind.seen(container.name) == ["a"] * taken
        if kind.name == "s3":
            client = s3_client(request.getfixturevalue("s3_server"))
            assert "Uploads" not in client.list_multipart_uploads(Bucket=container.name)
    assert container.read("a", 0, 9) == b"theirs"


def test_blocks_are_dropped_without_any_request(azure: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for a moment does a blob without content stand under the name."""
    container = azure.open()
    upload = container.upload("a", [Part(0, 0, 3)], ASIDE)
    upload.write(Part(0, 0, 3), b"our")
    monkeypatch.setattr("azure.core.pipeline.transport.RequestsTransport.send", pytest.fail)
    container.drop("a", upload.handle)


@pytest.mark.parametrize("ids_before", [("", ""), ("MDAwMA==", "MDAwMQ=="), ("AAE=", "AAI=")])
@pytest.mark.parametrize("ids", [("", ""), ("MDAwMA==", "MDAwMQ==")])
def test_blocks_of_an_upload_that_was_given_up_are_in_nobodys_way(
    azure: Kind, ids_before: tuple[str, str], ids: tuple[str, str]
) -> None:
    """Whatever their ids; and an upload that goes on after a cut takes none of them for its own."""
    container = azure.open()

    def parts(ids: tuple[str, str]) -> list[Part]:
        return [Part(at, 3 * at, 3, each or None) for at, each in enumerate(ids)]

    given_up = container.upload("a", parts(ids_before), ASIDE)
    for part in parts(ids_before):
        given_up.write(part, b"old")
    container.drop("a", given_up.handle)
    upload = container.upload("a", parts(ids), ASIDE)
    first, second = parts(ids)
    assert upload.write(first, b"new")
    again = container.upload("a", parts(ids), ASIDE, upload.handle)
    again.write(first, b"new")
    assert again.write(second, b"new")
    again.commit(BlobFacts(), overwrite=False)
    assert container.read("a", 0, 9) == b"newnew"


def test_a_blob_of_unknown_length_is_written_piece_by_piece(kind: Kind) -> None:
    """As a copy log is: small in one request, large in parts, and abandoned without a trace."""
    container = kind.open()
    data, _ = whole(3)
    for content in (b"", b"log", data):
        writer = BlobWriter(container, "logs/a.xml", ASIDE, BlobFacts(content_type="text/xml"))
        for start in range(0, len(content), 3 << 20):
            writer.write(content[start : start + (3 << 20)])
        writer.finish()
        assert container.read("logs/a.xml", 0, len(data) + 1) == content
        assert container.stat("logs/a.xml").facts.content_type == "text/xml"
    writer = BlobWriter(container, "logs/b.xml", ASIDE, BlobFacts())
    writer.write(data)
    writer.abandon()
    assert kind.seen(container.name) == ["logs/a.xml"]


def test_parts_are_so_long_that_every_store_takes_all_of_them(kind: Kind) -> None:
    """S3 takes 10,000 parts of at least 5 MiB; the others take blocks as they are."""
    part_bytes = kind.open().part_bytes
    if not kind.name.startswith("s3"):
        assert part_bytes(50_000 * (4 << 20)) == 0
        return
    for length in (0, 1, 8 << 20, 70_000 << 20, 50_000 * (4 << 20), 5 << 40):
        assert part_bytes(length) >= 8 << 20
        assert -(-length // part_bytes(length)) <= 9_000


# -- block ids -------------------------------------------------------------------------------------------

IDS: Final[dict[str, tuple[list[str | None], bool]]] = {
    "of one length": (["QUFBQQ==", "QkJCQg=="], True),
    "of several lengths": (["QUFBQQ==", "QkI="], False),
    "that are no text": (["/////w==", "/v7+/g=="], False),
    "twice the same": (["QUFBQQ==", "QUFBQQ=="], False),
    "that are no Base64": (["!", "?"], False),
    "too long": (["QUFB" * 22, "QkJC" * 22], False),
    "for some": (["QUFBQQ==", None], False),
}


@pytest.mark.parametrize("case", IDS)
def test_block_ids_of_a_manifest_are_kept_where_azure_takes_them(
    case: str, azure: Kind, request: pytest.FixtureRequest
) -> None:
    """Else blocks get ids of our own, and the blob is the same."""
    ids, are_kept = IDS[case]
    container = azure.open()
    parts = [Part(index, index, 1, block_id) for index, block_id in enumerate(ids)]
    upload = container.upload("a", parts, ASIDE)
    for part, data in zip(parts, (b"x", b"y"), strict=True):
        assert upload.write(part, data)
    upload.commit(BlobFacts(), overwrite=False)
    assert container.read("a", 0, 9) == b"xy"
    client = azure_client(request.getfixturevalue("azurite"))
    listed = client.get_blob_client(container.name, "a").get_block_list("committed")[0]
    assert ([block.id for block in listed] == ["AAAA", "BBBB"]) is are_kept


# -- page blobs ------------------------------------------------------------------------------------------


def test_only_azure_has_page_blobs(kind: Kind) -> None:
    """Elsewhere they are refused before anything is written."""
    container = kind.open()
    if kind.name == "azure":
        assert container.upload_pages("a", 512, ASIDE).handle
        return
    with pytest.raises(NotHeldError):
        container.upload_pages("a", 512, ASIDE)


def test_a_page_blob_appears_whole_with_what_was_told_of_it(azure: Kind) -> None:
    """Pages in no part are zero; a second run sends what is missing; a conflict leaves the other's blob."""
    name = uuid4().hex
    container = azure.open(name)
    parts = [Part(0, 0, 512), Part(1, 1024, 1024)]
    content = {0: b"a" * 512, 1: b"b" * 1024}
    upload = container.upload_pages("disk.vhd", 4096, ASIDE)
    assert upload.write(parts[0], content[0])
    assert upload.read(parts[0]) == content[0]
    again = azure.open(name).upload_pages("disk.vhd", 4096, "another/aside", upload.handle)
    assert [again.write(part, content[part.index]) for part in parts] == [False, True]
    assert names_in(container) == []
    facts = replace(FACTS, content_md5=md5_of(b"whatever it says"))
    put(container, "disk.vhd")
    with pytest.raises(BlobExistsError):
        again.commit(facts, overwrite=False)
    assert container.read("disk.vhd", 0, 9) == b"theirs"
    container.delete("disk.vhd")
    again.commit(facts, overwrite=False)
    found = container.stat("disk.vhd")
    assert (found.length, found.facts, found.is_page_blob) == (4096, facts, True)
    assert container.read("disk.vhd", 0, 4096) == b"a" * 512 + bytes(512) + b"b" * 1024 + bytes(2048)
    assert azure.seen(name) == ["disk.vhd"]


def test_a_dropped_page_blob_leaves_nothing(azure: Kind) -> None:
    """Neither under its name nor aside."""
    container = azure.open()
    upload = container.upload_pages("disk.vhd", 512, ASIDE)
    for _ in range(2):
        container.drop("disk.vhd", upload.handle)
    assert azure.seen(container.name) == []


# -- names -----------------------------------------------------------------------------------------------

HOSTILE: Final = (
    *(
        "a b",
        "a%20b",
        "a%b",
        "%",
        "a#b",
        "a?b",
        "a?b=c&d",
        "a+b",
        "é",
        "e\u0301",
        "日本",
        "😀",
        "a.",
        "a. ",
        "a./b",
    ),
    *(" a", "a ", "a&b<c>'\"", "a|b^c`d{e}[f]~", "a@b,c;d!$()*:=", "..a", "a/..b", "C:"),
)
letters: Final = st.characters(exclude_categories=["Cs", "Cc"])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_arrives_as_it_is(name: str, kind: Kind) -> None:
    """Or is refused, where the store could only hold another: as its own SDK sees it, and as we find it again."""
    arrives(name, kind)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.one_of(letters, st.sampled_from("/%#?+. \\&")), min_size=1, max_size=40))
def test_any_name_arrives_as_it_is_or_is_refused(name: str, kind: Kind) -> None:
    """Nothing is escaped, normalised or cut off."""
    arrives(name, kind)


def arrives(name: str, kind: Kind) -> None:
    """Check one name in a container of its own."""
    container = kind.open()
    data = name.encode()
    try:
        put(container, name, data)
    except NameRefusedError:
        assert (
            kind.name == "folder"
            or {"", ".", ".."} & set(name.split("/"))
            or "\\" in name
            or max(name) >= "\ufffe"
        )
        return
    except BlobExistsError:
        raise AssertionError(name) from None
    assert kind.seen(container.name) == [name]
    assert names_in(container) == [name]
    assert names_in(container, name) == [name]
    assert container.exists(name)
    assert container.read(name, 0, len(data) + 1) == data
    assert container.stat(name).length == len(data)
    with pytest.raises(BlobExistsError):
        put(container, name, b"other")
    upload = container.upload(name, [Part(0, 0, 1)], ASIDE)
    upload.write(Part(0, 0, 1), b"x")
    upload.commit(BlobFacts(), overwrite=True)
    assert kind.seen(container.name) == [name]
    container.delete(name)
    assert names_in(container) == []


@pytest.mark.parametrize(
    "name",
    ["", "a//b", "/a", "a/", "a\nb", "a\x00b", "a\x7fb", "\ud800", ".", "..", "a/../../b", "./a", "a" * 1025],
)
def test_a_name_that_no_store_holds_is_refused_by_all(name: str, kind: Kind) -> None:
    """Whatever is asked for; nothing outside the container is touched."""
    container = kind.open()
    if kind.name == "folder" and name in {"a\nb", "a\x7fb"}:
        return
    for act in (
        lambda: put(container, name),
        lambda: container.upload(name, [Part(0, 0, 1)], ASIDE),
        lambda: container.exists(name),
        lambda: container.delete(name),
    ):
        with pytest.raises(NameRefusedError):
            act()


def test_the_root_container_is_azures_own(kind: Kind) -> None:
    """A bucket cannot be called so; a folder and a prefix can."""
    if kind.name == "s3":
        with pytest.raises(NameRefusedError):
            kind.open("$root")
        return
    container = kind.open("$root")
    put(container, "a", overwrite=True)
    assert "a" in kind.seen("$root")
    assert container.exists("a")
    assert "$root" in containers_of(kind.address)


def test_containers_are_listed_in_order(kind: Kind) -> None:
    """Those that blobs are in; of a bucket with prefixes, what stands there."""
    names = [f"{uuid4().hex}{end}" for end in ("b", "a", "c")]
    for name in names:
        put(kind.open(name), "x/y")
    listed = list(containers_of(kind.address))
    assert listed == sorted(listed)
    assert set(names) <= set(listed)


def test_a_long_folder_is_listed_in_order_in_the_memory_of_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders stand among the files where their blobs' names belong."""
    monkeypatch.setattr(folder_store, "_PAGE_ENTRIES", 50)
    names = [*(f"{number:04}" for number in range(2000)), *(f"{number:04}/a" for number in range(2000, 2120))]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    tracemalloc.start()
    try:
        listed = [each.name for each in FolderContainer(tmp_path, "photos").list()]
        peak = tracemalloc.get_traced_memory()[1] - sum(map(sys.getsizeof, listed))
    finally:
        tracemalloc.stop()
    assert listed == names
    assert peak < 200 * 2**10


def test_an_account_keeps_few_containers_open(tmp_path: Path) -> None:
    """Those that were used last, each opened once."""
    account = Account(f"{tmp_path.as_uri()}/{{container}}")
    first = weakref.ref(account.container("photos"))
    assert account.container("photos") is first()
    for number in range(1000):
        account.container(str(number))
    assert first() is None


@pytest.mark.parametrize("is_path", [False, True])
def test_containers_are_listed_without_what_their_address_has_around_them(kind: Kind, is_path: bool) -> None:
    """Each opens under the name that it is listed by; what is called otherwise is none."""
    place = uuid4().hex
    around = f"{place}/x-{{container}}-y/z" if is_path else f"{place[:8]}-{{container}}-y"
    for called in (around, around.replace("-y", "")):
        put(open_container(kind.address.replace("{container}", called), "photos"), "a")
    assert list(containers_of(kind.address.replace("{container}", around))) == ["photos"]


# -- a store that does not let us, or is away ------------------------------------------------------------


def test_a_folder_names_nothing_where_nothing_may_be_written_any_more(tmp_path: Path) -> None:
    """What slept until now asks between what it lays aside and the name."""
    container = FolderContainer(tmp_path, "photos")

    def refuse() -> None:
        raise CopyStoppedError

    container.require_open = refuse
    with pytest.raises(CopyStoppedError):
        container.put("a", b"a", BlobFacts(), "job/1/0", overwrite=True)
    upload = container.upload("b", [Part(0, 0, 1)], "job/1/1")
    upload.write(Part(0, 0, 1), b"b")
    with pytest.raises(CopyStoppedError):
        upload.commit(BlobFacts(), overwrite=False)
    assert list(container.list()) == []
    container.require_open = lambda: None
    container.upload("b", [Part(0, 0, 1)], "job/1/1").commit(BlobFacts(), overwrite=False)
    assert [blob.name for blob in container.list()] == ["b"]


class _Refusing(BaseHTTPRequestHandler):
    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _refuse  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""


@pytest.fixture
def refusing() -> Iterator[str]:
    """Give the address of a server that refuses everything."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def nobody() -> str:
    """Give an address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def told_to(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> list[str]:
    """Let both kinds of store be at this endpoint; gives their addresses."""
    credentials = {
        "az://": {"account_name": "account1", "account_key": SECRET, "endpoint": f"{endpoint}/account1"},
        "s3://": {"access_key_id": "me", "secret_access_key": SECRET, "endpoint": endpoint},
    }
    monkeypatch.setenv("DRIVEPOST_STORE_CREDENTIALS", json.dumps(credentials))
    return ["az://{container}", "s3://{container}"]


def acts_on(container: Container) -> list[Callable[[], object]]:
    """Give every act there is."""
    part = [Part(0, 0, 1)]
    return [
        lambda: put(container, "Ada Quince"),
        lambda: container.exists("Ada Quince"),
        lambda: container.stat("Ada Quince"),
        lambda: container.read("Ada Quince", 0, 1),
        lambda: list(container.list()),
        lambda: container.delete("Ada Quince"),
        lambda: container.discard("job"),
        lambda: container.probe("job", 1),
        lambda: container.upload("Ada Quince", part, ASIDE).write(part[0], b"x"),
        lambda: container.drop("Ada Quince", "pages:job"),
    ]


def test_a_store_that_does_not_let_us_says_so_without_names(
    refusing: str, monkeypatch: pytest.MonkeyPatch, data_directory: Path
) -> None:
    """Of every act; neither blob, address nor credential is in the error, its cause or its context."""
    for address in told_to(monkeypatch, refusing):
        container = open_container(address, "photos")
        acts: list[Callable[[], object]] = [*acts_on(container), partial(list, containers_of(address))]
        for act in acts:
            with pytest.raises(ForbiddenError, match="HTTP status 403") as error:
                act()
            told = f"{error.value!r} {error.value.__cause__!r} {container!r}"
            for word in (SECRET, "Quince", "photos", "127.0.0.1", "account1"):
                assert word not in told


def test_a_key_that_is_wrong_is_not_told(
    azurite: StoreServer, monkeypatch: pytest.MonkeyPatch, data_directory: Path
) -> None:
    """Azurite looks at signatures."""
    address = told_to(monkeypatch, azurite.environment["AZURE_STORAGE_ENDPOINT"].rpartition("/")[0])[0]
    endpoint = azurite.environment["AZURE_STORAGE_ENDPOINT"]
    options = {"account_name": "devstoreaccount1", "account_key": SECRET, "endpoint": endpoint}
    monkeypatch.setenv("DRIVEPOST_STORE_CREDENTIALS", json.dumps({"az://": options}))
    container = open_container(address, uuid4().hex)
    for act in acts_on(container):
        with pytest.raises(ForbiddenError) as error:
            act()
        assert SECRET not in f"{error.value!r} {error.value.__cause__!r}"


def test_a_store_that_is_away_is_told(nobody: str, monkeypatch: pytest.MonkeyPatch, data_directory: Path) -> None:
    """After few tries, so that a cancel need not wait."""
    for address in told_to(monkeypatch, nobody):
        container = open_container(address, "photos")
        acts = acts_on(container)
        for act in (acts[0], acts[2], acts[4]):
            with pytest.raises(StoreBusyError, match="did not answer") as error:
                act()
            assert "Quince" not in f"{error.value!r} {error.value.__cause__!r}"


def test_no_name_of_a_blob_is_logged(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """The name of a copy log has a drive's serial number, and the SDKs log where they may."""
    caplog.set_level(logging.INFO)
    container = kind.open()
    for act in acts_on(container):
        with suppress(StoreError):
            act()
    assert "Quince" not in caplog.text


def test_an_address_without_an_account_is_refused(monkeypatch: pytest.MonkeyPatch, data_directory: Path) -> None:
    """What is missing is named."""
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(StoreError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        open_container("az://{container}", "photos")


@pytest.mark.parametrize(
    ("address", "uri"),
    [
        ("https://one.blob.core.windows.net/{container}", "https://one.blob.core.windows.net/photos/a"),
        ("https://one.blob.core.windows.net/all/{container}", "https://one.blob.core.windows.net/all/photos/a"),
        ("abfss://{container}@one.dfs.core.windows.net", "https://one.blob.core.windows.net/photos/a"),
        ("az://{container}?account=one", "https://one.blob.core.windows.net/photos/a"),
        ("az://all/{container}?account=one", "https://one.blob.core.windows.net/all/photos/a"),
        ("s3://{container}", "s3://photos/a"),
        ("s3://bucket/x/{container}", "s3://bucket/x/photos/a"),
        ("s3://bucket/{container}/x", "s3://bucket/photos/x/a"),
    ],
)
def test_an_address_says_where_blobs_are(
    address: str, uri: str, monkeypatch: pytest.MonkeyPatch, data_directory: Path
) -> None:
    """In every form that settings take; no credential is in it."""
    key = "sas_token" if "one" in address else "session_token"
    monkeypatch.setenv("DRIVEPOST_STORE_CREDENTIALS", json.dumps({address.partition("{")[0]: {key: SECRET}}))
    assert open_container(address, "photos").uri("a") == uri


@pytest.mark.parametrize("status", [400, 408, 409, 429, 500, 501, 503])
def test_a_busy_store_is_told_from_one_that_refuses(status: int) -> None:
    """By the status alone, whichever library tells it."""
    refused = HttpResponseError(f"Server returned non-2xx status code: {status}")
    refused.status_code = status
    for error in (refused, GenericError(str(refused))):
        with pytest.raises(StoreError) as told, told_without_names():
            raise error
        assert isinstance(told.value, StoreBusyError) == (status in {408, 429, 500, 503})
