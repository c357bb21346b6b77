"""Opens a container by the address that the settings give its storage account."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tasks.folder_store import FolderContainer, list_containers
from tasks.stores import Container


def open_container(address: str, name: str) -> Container:
    """Open one container of a storage account.

    Args:
        address: the storage account's store address, with `{container}` still open.
        name: the container's name.

    Raises:
        StoreError: its address or its credentials are impossible.
    """
    url = address.replace("{container}", name)
    return FolderContainer(Path(url2pathname(urlsplit(url).path)), name)


def containers_of(address: str) -> Iterator[str]:
    """Name the containers of a storage account.

    Args:
        address: the storage account's store address, with `{container}` still open.

    Raises:
        StoreError: the store refuses, or does not answer.
    """
    return list_containers(address)
