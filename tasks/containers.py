"""Opens a container by the address that the settings give its storage account.

Credentials are no part of an address, so that they are in no row and no parameter: they are read here, and nowhere
else, from Settings or the environment.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from models.errors import StoreError
from models.manifests import BLOCK_BYTES_MAX
from models.settings import Settings
from tasks import folder_store
from tasks.stores import Container

_S3: Final = "s3"
_FOLDER: Final = "file"
_OPENED_MAX: Final = 128
"""Each takes up to 0.14 MiB."""


def open_container(address: str, name: str) -> Container:
    """Open one container of a storage account.

    Args:
        address: the storage account's store address, with `{container}` still open.
        name: the container's name.

    Raises:
        StoreError: its address or its credentials are impossible, or the store can have no container of that name.
    """
    url = address.replace("{container}", name)
    scheme = urlsplit(address).scheme
    if scheme == _FOLDER:
        return folder_store.FolderContainer(Path(url2pathname(urlsplit(url).path)), name)
    if scheme == _S3:
        from tasks import s3_store  # noqa: PLC0415  each SDK is slow to import; most runs need neither

        return s3_store.S3Container(url, name, _options(address, s3_store.ENVIRONMENT))
    from tasks import azure_store  # noqa: PLC0415  as above

    return azure_store.AzureContainer(url, name, _options(address, azure_store.ENVIRONMENT))


class Account:
    """The containers of one storage account; those that were used last stay open.

    Args:
        address: the storage account's store address, with `{container}` still open.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._open = lru_cache(_OPENED_MAX)(partial(open_container, address))

    def container(self, name: str) -> Container:
        """Open a container.

        Raises:
            StoreError: as `open_container`.
        """
        return self._open(name)


class WrittenAccount(Account):
    """A storage account that is written to, and can be tried.

    Args:
        address: the storage account's store address, with `{container}` still open.
        log_container: where the job's logs go.
        aside: under which name it may be tried whether the store takes anything, below `.drivepost`.
        require_open: raises where nothing may be written any more.
    """

    def __init__(self, address: str, log_container: str, aside: str, require_open: Callable[[], None]) -> None:
        super().__init__(address)
        self._log_container = log_container
        self._aside = aside
        self._require_open = require_open

    def container(self, name: str) -> Container:
        """Open a container, which names no blob where nothing may be written any more.

        Raises:
            StoreError: as `open_container`.
        """
        opened = super().container(name)
        opened.require_open = self._require_open
        return opened

    def require(self, container: str, length: int = 0) -> None:
        """Tell a store that does not answer, or is full, from one that refuses a single blob or container.

        Raises:
            StoreError: it does not take a block, or `length` bytes, under another name either, nor in the
                container of the logs.
        """
        bytes_tried = min(length, BLOCK_BYTES_MAX)
        try:
            self.container(container).probe(self._aside, bytes_tried)
        except StoreError:
            if container == self._log_container:
                raise
            self.container(self._log_container).probe(self._aside, bytes_tried)


def containers_of(address: str) -> Iterator[str]:
    """Name the containers of a storage account, in order.

    Args:
        address: the storage account's store address, with `{container}` still open.

    Raises:
        StoreError: the store refuses, or does not answer.
    """
    scheme = urlsplit(address).scheme
    if scheme == _FOLDER:
        return folder_store.list_containers(address)
    if scheme == _S3:
        from tasks import s3_store  # noqa: PLC0415  as above

        return s3_store.list_containers(address, _options(address, s3_store.ENVIRONMENT))
    from tasks import azure_store  # noqa: PLC0415  as above

    return azure_store.list_containers(address, _options(address, azure_store.ENVIRONMENT))


def _options(address: str, environment: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Read the credentials of an address: those of Settings, else those of the environment, never a mixture."""
    if told := Settings().credentials_of(address):
        return told
    found = {name: next(filter(None, map(os.environ.get, names)), None) for name, names in environment.items()}
    return {name: value for name, value in found.items() if value}
