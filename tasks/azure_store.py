"""A store that is Azure Blob Storage."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import requests
from azure.core.exceptions import ResourceExistsError
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import DefaultAzureCredential
from azure.storage.blob import (
    BlobClient,
    BlobServiceClient,
    BlobType,
    ContainerClient,
    ExponentialRetry,
)
from obstore.auth.azure import AzureCredentialProvider
from obstore.store import AzureStore

from models.blob_facts import HEADERS, BlobFacts
from models.errors import StoreError
from tasks.azure_uploads import (
    PAGES,
    BlockUpload,
    PageUpload,
    content_settings,
    ids_as_text,
    if_it_is,
    staged_blocks,
    unless_there,
)
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
    STAGING,
    ListedBlob,
    Part,
    StoredBlob,
    Upload,
    containers_among,
)

_METADATA_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_METADATA_BYTES_MAX: Final = 8192
_NAME_MAX: Final = 1024
_SEGMENTS_MAX: Final = 254

_SILENT: Final = logging.getLogger("azure.storage.requests")
"""Where the SDK would log each request with its blob's name; that of a copy log has a serial number."""

_SILENT.setLevel(logging.CRITICAL)

ENVIRONMENT: Final = {
    "account_name": ("AZURE_STORAGE_ACCOUNT_NAME",),
    "account_key": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY"),
    "sas_token": ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"),
    "endpoint": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
"""Variables of the environment that stand for an option where Settings have no credentials for an address."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What an address says: endpoint of the account, container in it, and what stands before each blob's name."""

    account: str
    endpoint: str
    container: str
    prefix: str

    @classmethod
    def of(cls, address: str, options: Mapping[str, str]) -> "_Place":
        url = urlsplit(address)
        account = parse_qs(url.query).get("account", [options.get("account_name", "")])[0]
        container, path, host = url.netloc, url.path.strip("/"), ""
        if url.scheme == "https":
            host = url.netloc
            container, _, path = path.partition("/")
        elif "@" in url.netloc:
            container, _, host = url.netloc.partition("@")
        if host:
            account = host.partition(".")[0]
        host = host.replace(".dfs.", ".blob.") or f"{account}.blob.core.windows.net"
        if not account.isalnum():
            raise StoreError("the store's address names no storage account; set AZURE_STORAGE_ACCOUNT_NAME")
        endpoint = options.get("endpoint", "").rstrip("/") or f"https://{host}"
        return cls(account, endpoint, container, f"{path}/" if path else "")


def list_containers(address: str, options: Mapping[str, str]) -> Iterator[str]:
    """Name the containers of a storage account, in order.

    Args:
        address: the account's store address, with `{container}` still open.
        options: its credentials.

    Raises:
        StoreError: the store refuses or does not answer; ForbiddenError where it does not let us.
    """
    place = _Place.of(address, options)
    with told_without_names():
        service = _service(place.endpoint, options.get("account_key", ""), options.get("sas_token", ""))
        if "{container}" in place.container:
            names = [found.name for found in service.list_containers()]
        else:
            base = place.prefix.partition("{container}")[0]
            found = service.get_container_client(place.container).walk_blobs(base, delimiter="/")
            names = [each.name.split("/")[-2] for each in found if each.name.endswith("/")]
    yield from containers_among(names, f"{place.container}/{place.prefix}")


@cache
def _service(endpoint: str, account_key: str, sas_token: str) -> BlobServiceClient:
    """Make one client for each account of this process; its connections are shared by all threads."""
    session = requests.Session()
    adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=CONNECTIONS_MAX)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return BlobServiceClient(
        endpoint,
        credential=account_key or sas_token or _identity(),
        logger=_SILENT,
        transport=RequestsTransport(
            session=session,
            session_owner=False,
            connection_timeout=CONNECT_SECONDS_MAX,
            read_timeout=REQUEST_SECONDS_MAX,
        ),
        retry_policy=ExponentialRetry(
            initial_backoff=1, increment_base=1, retry_total=RETRIES_MAX, random_jitter_range=0
        ),
    )


@cache
def _identity() -> DefaultAzureCredential:
    return DefaultAzureCredential()


def _credential_provider(options: Mapping[str, str]) -> Any:
    # Given by hand, so that a variable of the environment never takes the place of what Settings say.
    if key := options.get("account_key"):
        return lambda: {"access_key": key, "expires_at": None}
    if token := options.get("sas_token"):
        return lambda: {"sas_token": token.lstrip("?"), "expires_at": None}
    return AzureCredentialProvider(_identity())


class AzureContainer(CloudContainer):
    """A container of an Azure storage account, made when the first blob comes.

    Args:
        address: the store's address, with the container's name in its place.
        name: the container's name.
        options: account_name, account_key, sas_token, endpoint, each where it is known; without key and
            token it is whoever azure-identity says we are.

    Raises:
        StoreError: the address or the credentials are impossible.
    """

    def __init__(self, address: str, name: str, options: Mapping[str, str]) -> None:
        place = _Place.of(address, options)
        with told_without_names():
            service = _service(place.endpoint, options.get("account_key", ""), options.get("sas_token", ""))
            self._client: ContainerClient = service.get_container_client(place.container)
            store = AzureStore(
                place.container,
                config={"account_name": place.account, "endpoint": place.endpoint},
                client_options=client_config(place.endpoint),
                retry_config=RETRY_CONFIG,
                credential_provider=_credential_provider(options),
            )
        self._base = f"{place.endpoint}/{place.container}/{place.prefix}"
        super().__init__(name, place.prefix, store, _METADATA_NAME, _METADATA_BYTES_MAX)

    def uri(self, path: str) -> str:
        return self._base + path

    def stat(self, path: str) -> StoredBlob:
        with told_without_names():
            found = self._blob(self._key(path)).get_blob_properties()
        kept = found.content_settings
        return StoredBlob(
            length=found.size,
            e_tag=found.etag,
            last_modified=found.last_modified,
            facts=BlobFacts(
                **{name: getattr(kept, name) for name in HEADERS},
                content_md5=bytes(kept.content_md5) if kept.content_md5 else None,
                metadata=dict(found.metadata or {}),
            ),
            is_page_blob=found.blob_type == BlobType.PAGEBLOB,
        )

    def part_bytes(self, length: int) -> int:
        return 0

    def upload(
        self,
        path: str,
        parts: Sequence[Part],
        aside: str,
        handle: str = "",
        *,
        facts: BlobFacts | None = None,
    ) -> Upload:
        blob = self._blob(self._key(path))
        return BlockUpload(self, blob, ids_as_text(parts), staged_blocks(blob), handle)

    def upload_pages(self, path: str, length: int, aside: str, handle: str = "") -> Upload:
        laid = handle.removeprefix(PAGES) or aside
        return PageUpload(
            self, self._blob(self._key(path)), self._laid(laid), length, laid, is_resumed=bool(handle)
        )

    def pages(self, path: str, *, e_tag: str = "") -> Iterator[tuple[int, int]]:
        with told_without_names():
            for each in self._blob(self._key(path)).list_page_ranges(**if_it_is(e_tag)):
                if not each.cleared:
                    yield each.start or 0, (each.end or 0) + 1

    def drop(self, path: str, handle: str) -> None:
        # Of blocks nothing: they would go only with a blob of that name, which might stay if we were cut then.
        # Nobody sees them, and the store itself removes them after a week.
        if handle.startswith(PAGES):
            self.delete(f"{STAGING}/{handle.removeprefix(PAGES)}")

    # -- by the SDK ------------------------------------------------------------------------------------

    def _blob(self, key: str) -> BlobClient:
        return self._client.get_blob_client(key)

    def _laid(self, aside: str) -> BlobClient:
        return self._blob(f"{self._prefix}{STAGING}/{aside}")

    def _is_too_long(self, key: str) -> bool:
        # A backslash would arrive as a slash.
        return len(key) > _NAME_MAX or key.count("/") >= _SEGMENTS_MAX or "\\" in key

    def _make_container(self) -> None:
        with suppress(ResourceExistsError):
            self._client.create_container()

    def _list_keys(self, prefix: str) -> Iterator[ListedBlob]:
        for found in self._client.list_blobs(name_starts_with=prefix or None):
            yield ListedBlob(found.name, found.size)

    def _put_by_sdk(self, key: str, data: bytes, facts: BlobFacts, *, overwrite: bool) -> str:
        made = self._blob(key).upload_blob(
            data,
            overwrite=True,
            content_settings=content_settings(facts),
            metadata=dict(facts.metadata),
            **unless_there(overwrite=overwrite),
        )
        return str(made["etag"])

    def _delete_key(self, key: str, e_tag: str = "") -> None:
        self._blob(key).delete_blob(**if_it_is(e_tag))
