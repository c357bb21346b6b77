"""Blobs of Azure on their way: block by block, or page by page."""

import hashlib
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from azure.core import MatchConditions
from azure.storage.blob import BlobBlock, BlobClient, ContentSettings

from models.blob_facts import HEADERS, BlobFacts
from models.errors import StoreError
from tasks.cloud_stores import CloudContainer, told_without_names
from tasks.stores import BlobMissingError, ForbiddenError, Part, Upload

BLOCKS: Final = "blocks"
"""Handle of an upload of blocks: the store itself knows which blocks it has of a name."""

BLOCKS_AMONG_OTHERS: Final = "blocks among others"
"""Handle of one that found blocks of another upload, which was given up: of none it is known whose it is."""

PAGES: Final = "pages:"
"""How the handle of a page blob begins; after it comes where it was laid aside."""

_BLOCK_ID_BYTES_MAX: Final = 64
_OWN_ID_BYTES: Final = 38
_COPY_SECONDS_MAX: Final = 300
_COPY_LOOK_SECONDS: Final = 0.1


class BlockUpload(Upload):
    """A blob of blocks; what is staged lies under the blob's own name, unseen, until it is committed."""

    def __init__(
        self,
        container: CloudContainer,
        blob: BlobClient,
        ids: Mapping[int, str],
        staged: Mapping[str, int],
        handle: str,
    ) -> None:
        self.handle = handle or (BLOCKS_AMONG_OTHERS if staged else BLOCKS)
        self._container = container
        self._blob = blob
        self._staged = staged if handle == BLOCKS else {}
        # Under one name the store takes ids of one length alone, whosever they are.
        self._id_bytes = next((len(each.encode()) for each in staged), _OWN_ID_BYTES)
        fit = not staged or all(len(each.encode()) == self._id_bytes for each in ids.values())
        self._ids = dict(ids) if fit else {}
        self._done: dict[int, str] = {}

    def write(self, part: Part, data: bytes) -> bool:
        md5 = part.md5 or _md5(data)
        block_id = self._ids.get(part.index) or _own_id(part.index, md5, self._id_bytes)
        if self._staged.get(block_id) != part.length:
            self._container.write_making_container(
                lambda: self._blob.stage_block(block_id, data, len(data), transactional_content_md5=bytearray(md5))
            )
            self._done[part.index] = block_id
            return True
        self._done[part.index] = block_id
        return False

    def read(self, part: Part) -> bytes | None:
        return None

    def commit(self, facts: BlobFacts, *, overwrite: bool) -> str:
        facts = self._container.held(facts)
        try:
            with told_without_names():
                made = self._blob.commit_block_list(
                    [BlobBlock(self._done[index]) for index in sorted(self._done)],
                    content_settings=content_settings(facts),
                    metadata=dict(facts.metadata),
                    **unless_there(overwrite=overwrite),
                )
        except BlobMissingError:
            raise StoreError("the store lost blocks that were not committed yet") from None
        return str(made["etag"])


class PageUpload(Upload):
    """A page blob laid aside, which the store itself copies to its name once it is whole."""

    def __init__(
        self,
        container: CloudContainer,
        blob: BlobClient,
        laid: BlobClient,
        length: int,
        aside: str,
        *,
        is_resumed: bool,
    ) -> None:
        self.handle = PAGES + aside
        self._container = container
        self._blob = blob
        self._laid = laid
        self._ranges: list[tuple[int, int]] = []
        if is_resumed:
            with suppress(BlobMissingError), told_without_names():
                if laid.get_blob_properties().size == length:
                    self._ranges = [(each.start or 0, (each.end or 0) + 1) for each in laid.list_page_ranges()]
                    return
        container.write_making_container(lambda: laid.create_page_blob(length))

    def write(self, part: Part, data: bytes) -> bool:
        if any(start <= part.offset and part.offset + part.length <= end for start, end in self._ranges):
            return False
        with told_without_names():
            self._laid.upload_page(
                data, part.offset, part.length, transactional_content_md5=bytearray(part.md5 or _md5(data))
            )
        return True

    def read(self, part: Part) -> bytes | None:
        with told_without_names():
            data: bytes = self._laid.download_blob(part.offset, part.length).readall()
        return data

    def commit(self, facts: BlobFacts, *, overwrite: bool) -> str:
        facts = self._container.held(facts)
        with told_without_names():
            # A copy takes the properties of its source, but gets metadata of its own.
            self._laid.set_http_headers(content_settings(facts))
            self._laid.set_blob_metadata(dict(facts.metadata))
            told = self._blob.start_copy_from_url(self._laid.url, **unless_there(overwrite=overwrite))
            self._wait_for_copy(str(told["copy_status"]))
            self._laid.delete_blob()
            return str(self._blob.get_blob_properties().etag)

    def _wait_for_copy(self, status: str) -> None:
        """Wait for what the store copies within one account, mostly at once."""
        ends_at = time.monotonic() + _COPY_SECONDS_MAX
        while status == "pending":
            if time.monotonic() > ends_at:
                self._blob.abort_copy(self._blob.get_blob_properties())
            time.sleep(_COPY_LOOK_SECONDS)
            status = str(self._blob.get_blob_properties().copy.status)
        if status != "success":
            raise StoreError("the store did not copy the pages laid aside")


def staged_blocks(blob: BlobClient) -> dict[str, int]:
    """Name the blocks that are in the store and not committed, with their lengths; none where it does not tell."""
    try:
        with told_without_names():
            return {block.id: block.size for block in blob.get_block_list("uncommitted")[1]}
    except (BlobMissingError, ForbiddenError):
        return {}


def _own_id(index: int, md5: bytes, length: int) -> str:
    """Make an id of this length in bytes, 4 and up; one of the usual length tells the block's content."""
    return f"{index:05d}-{md5.hex()}" if length == _OWN_ID_BYTES else f"{index:0{length}x}"


def ids_as_text(parts: Sequence[Part]) -> dict[int, str]:
    """Give the ids of the manifest as the SDK wants them: as text, which it encodes again.

    Nothing where the store could not take them all just as they are: ids that are no text, of several lengths,
    or twice the same; blocks then get ids of our own.
    """
    try:
        raw = {part.index: b64decode(part.id or "", validate=True) for part in parts}
        texts = {index: each.decode() for index, each in raw.items()}
    except ValueError:
        return {}
    lengths = {len(each) for each in raw.values()}
    if len(lengths) != 1 or not 0 < min(lengths) <= _BLOCK_ID_BYTES_MAX or len(set(texts.values())) < len(parts):
        return {}
    if any(b64encode(raw[part.index]).decode() != part.id for part in parts):
        return {}
    return texts


def content_settings(facts: BlobFacts) -> ContentSettings:
    """Say it as the SDK wants it; what is not set is removed."""
    return ContentSettings(
        **{name: getattr(facts, name) for name in HEADERS},
        content_md5=bytearray(facts.content_md5) if facts.content_md5 else None,
    )


def if_it_is(e_tag: str) -> dict[str, Any]:
    """Make the condition that a blob is still that one; none of an empty ETag."""
    return {"etag": e_tag, "match_condition": MatchConditions.IfNotModified} if e_tag else {}


def unless_there(*, overwrite: bool) -> dict[str, Any]:
    """Make the condition that there is no blob of that name, where it must not be overwritten."""
    return {} if overwrite else {"match_condition": MatchConditions.IfMissing}


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()
