"""One blob that is to be copied, and the parts in which it goes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from models.manifests import BLOCK_BYTES_MAX, Blob
from tasks.blob_files import Piece
from tasks.containers import Account
from tasks.plans import Plan
from tasks.stores import Container, Part

PIECES_MAX: Final = 20_000
"""Blocks and page ranges that are held together; a blob of more is held beside no other."""


def in_batches(numbered: Iterator[tuple[int, Blob]], blobs_max: int) -> Iterator[list[tuple[int, Blob]]]:
    """Take together as many blobs as memory has room for.

    Args:
        numbered: blobs with their places in the manifest.
        blobs_max: how many, at most; fewer where they have more than `PIECES_MAX` pieces together.
    """
    batch: list[tuple[int, Blob]] = []
    pieces = 0
    for place, blob in numbered:
        count = len(blob.blocks) + len(blob.page_ranges)
        if batch and (len(batch) == blobs_max or pieces + count > PIECES_MAX):
            yield batch
            batch, pieces = [], 0
        batch.append((place, blob))
        pieces += count
    if batch:
        yield batch


@dataclass(slots=True)
class Order:
    """One blob to be copied, and what was settled for it.

    Attributes:
        number: its place in the manifest, from 0.
        blob: as the manifest has it.
        plan: what was settled.
        account: the storage account.
        container_name: where it goes.
        name: in the container.
        aside: under which name it may be laid aside.
        inherited: whether a run before may have written it already.
        attempts: how often it was begun.
        bytes_sent: of a blob of several parts, so far.
        e_tag: of the blob that was written; empty before.
        compared: ETag of the blob of its name that was compared with the manifest last; empty before.
    """

    number: int
    blob: Blob
    plan: Plan
    account: Account
    container_name: str
    name: str
    aside: str
    inherited: bool
    attempts: int = 0
    bytes_sent: int = 0
    e_tag: str = ""
    compared: str = ""

    @property
    def container(self) -> Container:
        """Where it goes.

        Raises:
            NameRefusedError: the store can have no such container.
        """
        return self.account.container(self.container_name)

    @property
    def pieces(self) -> Sequence[Piece]:
        """Its blocks or page ranges."""
        return self.blob.page_ranges if self.blob.is_page_blob else self.blob.blocks

    @property
    def is_small(self) -> bool:
        """Whether it goes in one request; a blob whose blocks have ids goes block by block."""
        blob = self.blob
        return not blob.is_page_blob and blob.length <= BLOCK_BYTES_MAX and all(b.id is None for b in blob.blocks)


@dataclass(frozen=True, slots=True)
class Cut:
    """A part, and the pieces of the manifest that it is made of, the first of them at the place `first`."""

    part: Part
    pieces: Sequence[Piece]
    first: int

    @property
    def places(self) -> range:
        """Places of its pieces in the blob."""
        return range(self.first, self.first + len(self.pieces))


def cut_up(order: Order) -> list[Cut]:
    """Cut a blob into what goes in one request each."""
    pieces = order.pieces
    if order.is_small:
        return [Cut(Part(0, 0, order.blob.length), pieces, 0)] if pieces else []
    bytes_min = 0 if order.blob.is_page_blob else order.container.part_bytes(order.blob.length)
    cuts: list[Cut] = []
    first = 0
    for end, piece in enumerate(pieces, 1):
        length = piece.offset + piece.length - pieces[first].offset
        if length < bytes_min and end < len(pieces):
            continue
        is_one = end - first == 1
        part = Part(
            index=len(cuts),
            offset=pieces[first].offset,
            length=length,
            id=getattr(piece, "id", None) if is_one else None,
            md5=bytes.fromhex(piece.hash) if is_one else None,
        )
        cuts.append(Cut(part, pieces[first:end], first))
        first = end
    return cuts
