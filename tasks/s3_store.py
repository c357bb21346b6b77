"""A store that is S3, or speaks as it does.

The MD5 of a whole blob: of a blob put at once it goes along as metadata `md5chksum`, as rclone has it, in the same
request. The metadata of a blob of several parts is fixed before its MD5 is known, so there it is a tag
`content-md5` set afterwards; a store without tags, or one that does not let us set them, still holds the blob, and
so does one where our process was killed between the two.
"""

import hashlib
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from threading import Lock
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
from botocore.client import Config
from botocore.exceptions import ClientError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store

from models.blob_facts import HEADERS, BlobFacts
from models.errors import StoreError
from tasks.cloud_stores import (
    CONNECT_SECONDS_MAX,
    CONNECTIONS_MAX,
    REQUEST_SECONDS_MAX,
    RETRIES_MAX,
    RETRY_CONFIG,
    CloudContainer,
    client_config,
    told_without_names,
)
from tasks.stores import (
    BlobMissingError,
    ListedBlob,
    NameRefusedError,
    NotHeldError,
    Part,
    StoredBlob,
    Upload,
    containers_among,
)

_PART_BYTES_MIN: Final = 8 << 20
_PARTS_MAX: Final = 9_000
"""S3 takes 10,000; parts end where blocks do, and so are somewhat uneven."""

_MD5_METADATA: Final = "md5chksum"
_MD5_TAG: Final = "content-md5"
_METADATA_NAME: Final = re.compile(r"[A-Za-z0-9!#$&'*+.^_`|~-]+")
_METADATA_BYTES_MAX: Final = 2048 - len(_MD5_METADATA) - 24
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION: Final = "us-east-1"
_PLAIN_E_TAG: Final = re.compile(r'"([0-9a-f]{32})"')
_COMMIT_TRIES: Final = 3
_COMMIT_PAUSE_SECONDS: Final = 0.5

_PROPERTIES: Final = {name: header.replace("-", "") for name, header in HEADERS.items()}
"""Attribute of `BlobFacts` -> what boto3 calls it."""

ENVIRONMENT: Final = {
    "access_key_id": ("AWS_ACCESS_KEY_ID",),
    "secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "session_token": ("AWS_SESSION_TOKEN",),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint": ("AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
}
"""Variables of the environment that stand for an option where Settings have no credentials for an address."""


@dataclass(frozen=True, slots=True)
class _Access:
    """Where S3 is, and who we are there; without a key it is whoever boto3's own chain finds."""

    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    region: str = _REGION
    endpoint: str | None = None


def list_containers(address: str, options: Mapping[str, str]) -> Iterator[str]:
    """Name the containers of a storage account, in order.

    Args:
        address: the account's store address, with `{container}` still open.
        options: its credentials.

    Raises:
        StoreError: the store refuses or does not answer; ForbiddenError where it does not let us.
    """
    url = urlsplit(address)
    with told_without_names():
        _, client = _session_and_client(_Access(**options))
        if "{container}" in url.netloc:
            place, names = url.netloc, [each["Name"] for each in client.list_buckets()["Buckets"]]
        else:
            place = url.path
            base = place.lstrip("/").partition("{container}")[0]
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=url.netloc, Prefix=base, Delimiter="/")
            names = [each["Prefix"].split("/")[-2] for page in pages for each in page.get("CommonPrefixes", ())]
    yield from containers_among(names, place)


_making: Final = Lock()


def _session_and_client(account: _Access) -> tuple[Any, Any]:
    # A session of boto3 may not be used by several threads at once; its clients may.
    with _making:
        return _make_client(account)


@cache
def _make_client(account: _Access) -> tuple[Any, Any]:
    session = boto3.Session(
        account.access_key_id, account.secret_access_key, account.session_token, region_name=account.region
    )
    client = session.client(
        "s3",
        endpoint_url=account.endpoint,
        config=Config(
            connect_timeout=CONNECT_SECONDS_MAX,
            read_timeout=REQUEST_SECONDS_MAX,
            retries={"mode": "standard", "total_max_attempts": RETRIES_MAX + 1},
            max_pool_connections=CONNECTIONS_MAX,
            # Each part goes with its MD5; a second checksum would cost more than it finds.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if account.endpoint else "auto"},
        ),
    )
    return session, client


class S3Container(CloudContainer):
    """A container that is a bucket, or what stands below a prefix of one; a missing bucket is made.

    Args:
        address: the store's address, with the container's name in its place.
        name: the container's name.
        options: access_key_id, secret_access_key, session_token, region, endpoint, each where it is known.

    Raises:
        StoreError: the credentials are impossible; NameRefusedError: no bucket can be called so.
    """

    def __init__(self, address: str, name: str, options: Mapping[str, str]) -> None:
        url = urlsplit(address)
        account = _Access(**options)
        self._bucket = url.netloc
        self._region = account.region
        if not _BUCKET.fullmatch(self._bucket):
            raise NameRefusedError("S3 has no bucket of that name; let the store's address be one bucket")
        path = url.path.strip("/")
        with told_without_names():
            session, self._client = _session_and_client(account)
            store = S3Store(
                self._bucket,
                config={
                    "region": account.region,
                    **({"endpoint": account.endpoint} if account.endpoint else {}),
                },
                client_options=client_config(account.endpoint or ""),
                retry_config=RETRY_CONFIG,
                credential_provider=_credential_provider(account, session),
            )
        super().__init__(name, f"{path}/" if path else "", store, _METADATA_NAME, _METADATA_BYTES_MAX)

    def uri(self, path: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{path}"

    def stat(self, path: str) -> StoredBlob:
        key = self._key(path)
        with told_without_names():
            found = self._client.head_object(Bucket=self._bucket, Key=key)
        metadata = dict(found.get("Metadata", {}))
        md5 = _md5_told(metadata.pop(_MD5_METADATA, None)) or _md5_of_e_tag(found) or self._md5_tagged(key, found)
        return StoredBlob(
            length=found["ContentLength"],
            e_tag=found["ETag"],
            last_modified=found["LastModified"],
            facts=BlobFacts(
                **{name: found.get(told) for name, told in _PROPERTIES.items()},
                content_md5=md5,
                metadata=metadata,
            ),
        )

    def put(self, path: str, data: bytes, facts: BlobFacts, aside: str, *, overwrite: bool) -> str:
        if facts.content_md5 is not None:
            self.held(facts)
            known = {_MD5_METADATA: b64encode(facts.content_md5).decode()}
            others = {name: value for name, value in facts.metadata.items() if name.lower() != _MD5_METADATA}
            facts = replace(facts, metadata={**others, **known})
        return super().put(path, data, facts, aside, overwrite=overwrite)

    def part_bytes(self, length: int) -> int:
        return max(_PART_BYTES_MIN, -(-length // _PARTS_MAX))

    def upload(
        self,
        path: str,
        parts: Sequence[Part],
        aside: str,
        handle: str = "",
        *,
        facts: BlobFacts | None = None,
    ) -> Upload:
        place = {"Bucket": self._bucket, "Key": self._key(path)}
        held = replace(facts or BlobFacts(), content_md5=None)
        try:
            self.held(held)
        except NotHeldError:
            held = BlobFacts()
        begun: list[Upload] = []
        self.write_making_container(lambda: begun.append(_PartsUpload(self._client, place, held, handle)))
        return begun[0]

    def upload_pages(self, path: str, length: int, aside: str, handle: str = "") -> Upload:
        raise NotHeldError("S3 has no page blobs")

    def drop(self, path: str, handle: str) -> None:
        with suppress(BlobMissingError), told_without_names():
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._key(path), UploadId=handle)

    # -- by the SDK ------------------------------------------------------------------------------------

    def _make_container(self) -> None:
        elsewhere = {"CreateBucketConfiguration": {"LocationConstraint": self._region}}
        with suppress(self._client.exceptions.BucketAlreadyOwnedByYou):
            self._client.create_bucket(Bucket=self._bucket, **({} if self._region == _REGION else elsewhere))

    def _list_keys(self, prefix: str) -> Iterator[ListedBlob]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        for page in pages:
            for found in page.get("Contents", ()):
                yield ListedBlob(found["Key"], found["Size"])

    def _put_by_sdk(self, key: str, data: bytes, facts: BlobFacts, *, overwrite: bool) -> str:
        made = self._client.put_object(
            Bucket=self._bucket, Key=key, Body=data, **_properties(facts), **_unless_there(overwrite=overwrite)
        )
        return str(made["ETag"])

    def _delete_key(self, key: str, e_tag: str = "") -> None:
        told = {}
        if e_tag:
            # Not every store that speaks S3 looks at the condition of a delete.
            if self._client.head_object(Bucket=self._bucket, Key=key)["ETag"] != e_tag:
                return
            told["IfMatch"] = e_tag
        self._client.delete_object(Bucket=self._bucket, Key=key, **told)

    def _md5_tagged(self, key: str, found: Mapping[str, Any]) -> bytes | None:
        if "-" not in found["ETag"] and not found.get("TagCount"):
            return None
        with suppress(StoreError), told_without_names():
            tags = self._client.get_object_tagging(Bucket=self._bucket, Key=key)["TagSet"]
            return next((_md5_told(tag["Value"]) for tag in tags if tag["Key"] == _MD5_TAG), None)
        return None


class _PartsUpload(Upload):
    """One multi-part upload.

    Args:
        client: boto3's.
        place: bucket and key, as boto3 wants them.
        facts: what is to be kept with the blob, or nothing where the store cannot hold it.
        handle: the id of one that was begun before; one that is gone is begun anew.
    """

    def __init__(self, client: Any, place: Mapping[str, str], facts: BlobFacts, handle: str) -> None:
        self._client = client
        self._place = place
        self._facts = facts
        self._staged: dict[int, tuple[int, str]] = {}
        self._done: dict[int, str] = {}
        self.handle = handle
        with suppress(BlobMissingError), told_without_names():
            if handle:
                pages = client.get_paginator("list_parts").paginate(**place, UploadId=handle)
                found = [part for page in pages for part in page.get("Parts", ())]
                self._staged = {part["PartNumber"]: (part["Size"], part["ETag"]) for part in found}
                return
        self.handle = client.create_multipart_upload(**place, **_properties(facts))["UploadId"]

    def write(self, part: Part, data: bytes) -> bool:
        number = part.index + 1
        length, e_tag = self._staged.get(number, (-1, ""))
        if length == part.length:
            self._done[number] = e_tag
            return False
        md5 = b64encode(part.md5 or hashlib.md5(data, usedforsecurity=False).digest()).decode()
        with told_without_names():
            self._done[number] = self._client.upload_part(
                **self._place, UploadId=self.handle, PartNumber=number, Body=data, ContentMD5=md5
            )["ETag"]
        return True

    def read(self, part: Part) -> bytes | None:
        return None

    def commit(self, facts: BlobFacts, *, overwrite: bool) -> str:
        if replace(facts, content_md5=None) != self._facts:
            raise NotHeldError("S3 takes properties and metadata only where it holds them from the first")
        parts = [{"PartNumber": number, "ETag": self._done[number]} for number in sorted(self._done)]
        try:
            with told_without_names():
                e_tag = self._complete({"Parts": parts}, _unless_there(overwrite=overwrite))
        except BlobMissingError:
            raise StoreError("the store lost parts that were not committed yet") from None
        if facts.content_md5 is not None:
            told = [{"Key": _MD5_TAG, "Value": b64encode(facts.content_md5).decode()}]
            with suppress(StoreError), told_without_names():
                self._client.put_object_tagging(**self._place, Tagging={"TagSet": told})
        return e_tag

    def _complete(self, parts: Mapping[str, Any], condition: Mapping[str, str]) -> str:
        tries_left = _COMMIT_TRIES
        while True:
            tries_left -= 1
            try:
                made = self._client.complete_multipart_upload(
                    **self._place, UploadId=self.handle, MultipartUpload=parts, **condition
                )
            except ClientError as error:
                if error.response["Error"]["Code"] != "ConditionalRequestConflict" or not tries_left:
                    raise
                time.sleep(_COMMIT_PAUSE_SECONDS)
            else:
                return str(made["ETag"])


def _credential_provider(account: _Access, session: Any) -> Any:
    # Given by hand, so that a variable of the environment never takes the place of what Settings say.
    if not account.access_key_id:
        return Boto3CredentialProvider(session)
    told = {
        "access_key_id": account.access_key_id,
        "secret_access_key": account.secret_access_key,
        "token": account.session_token,
        "expires_at": None,
    }
    return lambda: told


def _properties(facts: BlobFacts) -> dict[str, Any]:
    told = {
        **{told: getattr(facts, name) for name, told in _PROPERTIES.items()},
        "Metadata": dict(facts.metadata),
    }
    return {name: value for name, value in told.items() if value}


def _unless_there(*, overwrite: bool) -> dict[str, str]:
    return {} if overwrite else {"IfNoneMatch": "*"}


def _md5_told(text: str | None) -> bytes | None:
    try:
        md5 = b64decode(text or "", validate=True)
    except ValueError:
        return None
    return md5 if len(md5) == 16 else None


def _md5_of_e_tag(found: Mapping[str, Any]) -> bytes | None:
    """Read the MD5 from the ETag; under a key of the customer's own it only looks like one."""
    if found.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in found:
        return None
    told = _PLAIN_E_TAG.fullmatch(found["ETag"])
    return bytes.fromhex(told[1]) if told else None
