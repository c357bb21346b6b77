"""Each kind of store as an account of its own, and what it holds, whole or not."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import boto3
import pytest
from azure.storage.blob import BlobServiceClient

from tasks.containers import open_container
from tests.store_servers import StoreServer

KINDS: Final = ("folder", "azure", "s3")


@dataclass(frozen=True)
class PostedStore:
    """The store of `account1`.

    Attributes:
        address: with `{container}` still open.
        aside: names what lies there and is no whole blob, nor ever will be one by itself.
    """

    address: str
    aside: Callable[[], list[str]]

    def names(self, container: str = "data") -> dict[str, int]:
        """Name the blobs of a container, with their lengths."""
        return {blob.name: blob.length for blob in open_container(self.address, container).list()}

    def blobs(self, container: str = "data") -> dict[str, bytes]:
        """Read every blob of a container."""
        store = open_container(self.address, container)
        return {blob.name: store.read(blob.name, 0, blob.length + 1) for blob in store.list()}

    def logs(self, kind: str = "error") -> dict[str, bytes]:
        """Read the copy logs of a kind, in the order of their names."""
        return {name: data for name, data in self.blobs("waimportexport").items() if name.endswith(f"_{kind}.xml")}


def posted_store(
    kind: str, data_directory: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> PostedStore:
    """Give `account1` a store of this kind that nobody else has."""
    if kind == "folder":
        root = data_directory / "store" / "account1"
        address = f"{root.as_uri()}/{{container}}"
        return PostedStore(
            address, lambda: [f"{path}" for path in root.rglob(".drivepost/**/*") if path.is_file()]
        )
    server: StoreServer = request.getfixturevalue("azurite" if kind == "azure" else "s3_server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    place = uuid4().hex
    address = f"{server.address.replace('{container}', place)}/{{container}}"
    monkeypatch.setenv("DRIVEPOST_STORES", json.dumps({"account1": address}))
    left = _left_in_azure if kind == "azure" else _left_in_s3
    return PostedStore(address, lambda: list(left(server, place)))


def _left_in_azure(server: StoreServer, place: str) -> Iterator[str]:
    environment = server.environment
    service = BlobServiceClient(environment["AZURE_STORAGE_ENDPOINT"], environment["AZURE_STORAGE_ACCOUNT_KEY"])
    client = service.get_container_client(place)
    if not client.exists():
        return
    # Blocks that were never committed are no blob; the store removes them itself.
    yield from (blob.name for blob in client.list_blobs() if "/.drivepost/" in blob.name)


def _left_in_s3(server: StoreServer, place: str) -> Iterator[str]:
    client = boto3.client("s3", endpoint_url=server.environment["AWS_ENDPOINT"], region_name="us-east-1")
    if place not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        return
    uploads = client.list_multipart_uploads(Bucket=place).get("Uploads", ())
    yield from (f"{each['Key']}?uploadId={each['UploadId']}" for each in uploads)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=place):
        yield from (each["Key"] for each in page.get("Contents", ()) if "/.drivepost/" in each["Key"])
