"""What is to be said of blobs: of those that did not simply go well, and of all."""

from collections.abc import Container, Iterator
from itertools import islice
from typing import Any, Final
from uuid import UUID

from models.copies import BlobReport
from models.copy_logs import (
    AttachedStatus,
    BlobStatus,
    BlockStatus,
    DispositionStatus,
    LoggedBlob,
    LoggedBlock,
)
from models.manifest_reader import iterate_blobs
from models.manifests import AttachedFile, SupportsRead
from tasks.blob_files import Attached
from tasks.orders import Order

_PIECES_MAX: Final = 1000
"""Pieces of one blob that are told one by one; a drive comes from strangers, and may have very many bad ones."""

_UNTOLD: Final = {
    DispositionStatus.CANCELLED: BlockStatus.UNCOMMITTED,
    DispositionStatus.SKIPPED: BlockStatus.CANCELLED,
}
"""What became of the blocks of a blob that is not in the store, where nothing is said of them."""


def report_of(
    job_id: UUID,
    number: int,
    order: Order,
    attached: Attached | None,
    status: BlobStatus,
    bad: dict[int, BlockStatus],
) -> BlobReport | None:
    """Make the report of a blob that is over; None where all went well.

    Args:
        job_id: the job.
        number: the drive's number in it.
        order: the blob.
        attached: what was kept with it; None where the blob is not in the store.
        status: of the blob.
        bad: what became of its bad pieces, by their place.
    """
    blob, plan = order.blob, order.plan
    is_as_listed = status is BlobStatus.COMPLETED and attached is not None and attached.went_well
    if is_as_listed and plan.status is DispositionStatus.CREATED:
        return None
    told = attached or Attached.cancelled(blob)
    return BlobReport(
        job_id=job_id,
        drive_number=number,
        blob_number=order.number,
        blob_path=blob.blob_path if attached is None else plan.path,
        file_path=blob.file_path,
        length=blob.length,
        disposition=blob.disposition,
        status=status,
        disposition_status=DispositionStatus.CANCELLED if attached is None else plan.status,
        blocks=_pieces_told(order, bad) if bad else [],
        metadata_status=told.metadata,
        properties_status=told.properties,
        is_page_blob=blob.is_page_blob,
    )


def _pieces_told(order: Order, bad: dict[int, BlockStatus]) -> list[dict[str, Any]]:
    """Tell the bad pieces, and as many of the others, which are not in the store either, as there is room for."""
    first = sorted(bad)[:_PIECES_MAX]
    others = islice((at for at in range(len(order.pieces)) if at not in bad), _PIECES_MAX - len(first))
    return [
        {
            "offset": piece.offset,
            "length": piece.length,
            "hash": piece.hash,
            "id": getattr(piece, "id", None),
            "status": bad.get(at, BlockStatus.UNCOMMITTED),
        }
        for at in sorted([*first, *others])
        for piece in [order.pieces[at]]
    ]


def every_blob(
    manifest: SupportsRead,
    reports: Iterator[BlobReport],
    blobs_max: int | None = None,
    untold: Container[int] = frozenset(),
) -> Iterator[LoggedBlob]:
    """Tell of the blobs of a manifest, each as it was reported, or that it went well.

    Args:
        manifest: the drive's.
        reports: of its blobs, in their order.
        blobs_max: of how many to tell; by default of all.
        untold: places of blobs that are told of only where there is a report.
    """
    following = next(reports, None)
    for number, blob in islice(enumerate(iterate_blobs(manifest)), blobs_max):
        report = following if following is not None and following.blob_number == number else None
        if report is not None:
            following = next(reports, None)
        elif number in untold:
            continue
        told = {block["offset"]: BlockStatus(block["status"]) for block in report.blocks} if report else {}
        otherwise = BlockStatus.COMPLETED
        if report is not None and report.disposition_status in _UNTOLD:
            otherwise = _UNTOLD[report.disposition_status]
        yield LoggedBlob(
            blob_path=report.blob_path if report else blob.blob_path,
            file_path=blob.file_path,
            length=blob.length,
            status=report.status if report else BlobStatus.COMPLETED,
            disposition=blob.disposition,
            disposition_status=report.disposition_status if report else DispositionStatus.CREATED,
            blocks=tuple(
                LoggedBlock(
                    offset=piece.offset,
                    length=piece.length,
                    hash=piece.hash,
                    status=told.get(piece.offset, otherwise),
                    id=getattr(piece, "id", None),
                )
                for piece in blob.blocks or blob.page_ranges
            ),
            metadata_status=report.metadata_status if report else _kept(blob.metadata),
            properties_status=report.properties_status if report else _kept(blob.properties),
            is_page_blob=blob.is_page_blob,
        )


def _kept(attached: AttachedFile | None) -> AttachedStatus | None:
    return None if attached is None else AttachedStatus.COMPLETED
