"""One blob on its way from the drive into the store: read, checked, written, read back.

What stands here runs in threads of the copy, several blobs at once. It knows neither database nor lease: `Way`
lets it go on, or ends it.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain

from models.blob_facts import HEADERS, BlobFacts
from models.copy_logs import AttachedStatus, BlobStatus, BlockStatus
from tasks.blob_files import Attached, BlobFailedError, DriveFiles, Piece, bad_pieces, read_part
from tasks.orders import Cut, Order, cut_up
from tasks.stores import (
    BlobExistsError,
    BlobMissingError,
    ForbiddenError,
    NotHeldError,
    Part,
    StoreBusyError,
    Upload,
)
from tasks.way import CopyStoppedError, Way


@dataclass(slots=True)
class BlobWriting:
    """Brings blobs of one drive into the store.

    Attributes:
        files: the drive's.
        way: lets it go on.
        pool: where parts are sent.
        reads_back: whether what the store holds is compared with the manifest before a blob counts.
        begun: has every order's `plan.upload` written down, before a first part is sent.
    """

    files: DriveFiles
    way: Way
    pool: Executor
    reads_back: bool
    begun: Callable[[], None]

    def write(self, order: Order) -> Attached:
        """Bring one blob into the store under the name settled for it.

        Returns:
            What was kept with it, and what was not.

        Raises:
            BlobFailedError: it cannot be copied.
            BlobExistsError: its name was taken after it was settled.
            StoreError: the store refused it, or does not answer.
            DriveError: the drive is gone.
            CopyStoppedError: the copy ends.
        """
        self.way.require_open()
        attached = self.files.attached(order.blob)
        if self._is_over(order, attached):
            # The run before was cut between its last byte and its record.
            return attached
        with self.files.opened(order.blob) as file:
            try:
                if order.is_small:
                    return self._write_at_once(order, file, attached)
                return self._write_in_parts(order, file, attached)
            except BlobExistsError:
                if self._is_over(order, attached):
                    # It was written now, and only the answer was lost; or another wrote the same meanwhile.
                    return attached
                raise

    def _is_over(self, order: Order, attached: Attached) -> bool:
        """Tell whether a blob needs no writing any more; what was laid aside of it then goes."""
        if not (order.inherited and self.is_there(order, attached)):
            return False
        if order.plan.upload:
            self.way.patiently(lambda: order.container.drop(order.name, order.plan.upload))
        return True

    def is_there(self, order: Order, attached: Attached) -> bool:
        """Tell whether the store has a blob under the name settled for it, and all of it is as listed.

        Raises:
            StoreError: the store refuses, or does not answer.
            CopyStoppedError: the copy ends.
        """
        try:
            if order.plan.overwrites and not self._is_kept(order, attached.facts):
                # The one that is to go may have the same content.
                return False
            if order.blob.is_page_blob and not self._is_zero_elsewhere(order):
                return False
            return not self._differing(order, cut_up(order))
        except BlobMissingError:
            return False
        except ForbiddenError:
            if self.reads_back:
                raise
            # Who may only write, and asks for no reading back, finds out by writing it again.
            return False

    def _is_kept(self, order: Order, facts: BlobFacts) -> bool:
        """Tell whether there is a blob with just this metadata, and these properties."""
        found = self.way.patiently(lambda: order.container.stat(order.name)).facts
        kept, wanted = ({name.lower(): value for name, value in each.metadata.items()} for each in (found, facts))
        properties = ((getattr(facts, name), getattr(found, name)) for name in HEADERS)
        return kept == wanted and all(value in {None, there} for value, there in properties)

    def _is_zero_elsewhere(self, order: Order) -> bool:
        """Tell whether there is a page blob that was written to nowhere but where the manifest lists pages."""
        found = self.way.patiently(lambda: order.container.stat(order.name))
        return found.is_page_blob and self.way.patiently(
            lambda: _are_within(order.container.pages(order.name, e_tag=found.e_tag), order.pieces)
        )

    def _name(
        self, order: Order, attached: Attached, md5: bytes | None, put: Callable[[BlobFacts], None]
    ) -> Attached:
        """Give a blob its name.

        Raises:
            BlobExistsError: there is one. It is gone if it has the MD5 and not the content: a run before was cut
                between naming it and finding out that the store has it damaged.
        """
        try:
            return _keep(attached, md5, put)
        except BlobExistsError:
            if order.inherited and order.compared and not order.blob.is_page_blob:
                with suppress(BlobMissingError):
                    found = self.way.patiently(lambda: order.container.stat(order.name))
                    if found.facts.content_md5 == md5 and found.e_tag == order.compared:
                        self.way.require_open()
                        self.way.patiently(lambda: order.container.delete(order.name, e_tag=found.e_tag))
            raise

    def _write_at_once(self, order: Order, file: int, attached: Attached) -> Attached:
        blob, whole = order.blob, Part(0, 0, order.blob.length)
        with self.way.room_for(blob.length * (2 if self.reads_back else 1)):
            data = read_part(file, whole, blob.blocks, 0) if blob.blocks else b""
            bad = bad_pieces(data, whole, blob.blocks, 0) if blob.blocks else []
            if bad:
                raise BlobFailedError(BlobStatus.COMPLETED_WITH_ERRORS, dict.fromkeys(bad, BlockStatus.CORRUPTED))
            md5 = bytes.fromhex(blob.blocks[0].hash) if len(blob.blocks) == 1 else _md5(data).digest()
            self.way.require_open()

            def put(facts: BlobFacts) -> None:
                order.e_tag = self.way.patiently(
                    lambda: order.container.put(
                        order.name, data, facts, order.aside, overwrite=order.plan.overwrites
                    )
                )

            attached = self._name(order, _compared(attached, md5), md5, put)
            if self.reads_back:
                self._require_as_sent(order, lambda: self._is_other(order, data))
        return attached

    def _is_other(self, order: Order, data: bytes) -> list[int]:
        found = self.way.patiently(lambda: order.container.read(order.name, 0, len(data) + 1, e_tag=order.e_tag))
        return [] if found == data else list(range(len(order.pieces))) or [0]

    # -- part by part ----------------------------------------------------------------------------------

    def _write_in_parts(self, order: Order, file: int, attached: Attached) -> Attached:
        blob, container, plan = order.blob, order.container, order.plan
        listed = cut_up(order)
        if blob.is_page_blob:
            upload = self.way.patiently(
                lambda: container.upload_pages(order.name, blob.length, order.aside, plan.upload)
            )
        else:
            attached, upload = self._begin(order, [cut.part for cut in listed], attached)
        if upload.handle != plan.upload:
            plan.upload = upload.handle
            self.begun()
        whole = None if blob.is_page_blob else _md5()
        was_read_back = self._send_all(order, upload, file, listed, whole)
        self.way.require_open()
        # Of a page blob nobody has read the pages that are zero; what its properties say is believed.
        md5 = attached.facts.content_md5 if whole is None else whole.digest()

        def commit(facts: BlobFacts) -> None:
            order.e_tag = self.way.patiently(lambda: upload.commit(facts, overwrite=plan.overwrites))

        attached = self._name(order, _compared(attached, md5), md5, commit)
        if self.reads_back:
            # What was compared before it had its name needs but its length looked at.
            rest = [] if was_read_back else listed
            self._require_as_sent(order, lambda: self._differing(order, rest))
        return attached

    def _begin(self, order: Order, parts: Sequence[Part], attached: Attached) -> tuple[Attached, Upload]:
        begun: list[Upload] = []
        container, handle = order.container, order.plan.upload

        def begin(facts: BlobFacts) -> None:
            begun.append(
                self.way.patiently(lambda: container.upload(order.name, parts, order.aside, handle, facts=facts))
            )

        return _keep(attached, None, begin), begun[0]

    def _send_all(
        self, order: Order, upload: Upload, file: int, listed: Sequence[Cut], whole: "hashlib._Hash | None"
    ) -> bool:
        """Send all parts, several at once and each byte read once; tells whether all were read back already."""
        sent: list[Future[_Sent]] = []
        failed = threading.Event()
        failure: BlobFailedError | None = None
        try:
            for cut in listed:
                self.way.require_open()
                if failed.is_set():
                    break
                taken = self.way.take(cut.part.length * (2 if self.reads_back else 1))
                try:
                    data = read_part(file, cut.part, cut.pieces, cut.first)
                    sent.append(self.pool.submit(self._send, order, upload, cut, data, taken, failed))
                except BaseException:
                    self.way.give_back(taken)
                    raise
                if whole is not None:
                    whole.update(data)
        except BlobFailedError as error:
            failure = error
        finally:
            wait(sent)
        results = [future.result() for future in sent]
        bad = {at: told for result in results for at, told in result.bad.items()}
        if failure is not None:
            raise BlobFailedError(failure.status, {**failure.bad, **bad})
        if bad:
            raise BlobFailedError(BlobStatus.COMPLETED_WITH_ERRORS, bad)
        return all(result.was_read_back for result in results)

    def _send(
        self, order: Order, upload: Upload, cut: Cut, data: bytes, taken: int, failed: threading.Event
    ) -> "_Sent":
        try:
            if bad := bad_pieces(data, cut.part, cut.pieces, cut.first):
                failed.set()
                return _Sent(dict.fromkeys(bad, BlockStatus.CORRUPTED))
            self.way.require_open()
            self.way.patiently(lambda: upload.write(cut.part, data))
            back = self.way.patiently(lambda: upload.read(cut.part)) if self.reads_back else None
            if back is not None and back != data:
                failed.set()
                return _Sent(dict.fromkeys(cut.places, BlockStatus.BLOB_REQUEST_FAILED))
            order.bytes_sent += cut.part.length
            return _Sent({}, was_read_back=back is not None)
        except BaseException:
            failed.set()
            raise
        finally:
            self.way.give_back(taken)

    # -- read back -------------------------------------------------------------------------------------

    def _require_as_sent(self, order: Order, compare: Callable[[], list[int]]) -> None:
        """Compare a blob that has its name with what was sent.

        Raises:
            BlobFailedError: it differs, or somebody wrote over it since.
        """
        try:
            bad = compare()
        except BlobMissingError:
            # Whatever has the name now is not what this copy wrote, and nobody's but its writer's.
            order.e_tag = ""
            raise BlobFailedError(BlobStatus.BLOB_REQUEST_FAILED) from None
        except (CopyStoppedError, StoreBusyError):
            # A blob that is whole when a cancel is heard stays; after any other end the next run compares it.
            if not self.way.is_cancelled:
                raise
            return
        if bad:
            told = dict.fromkeys(bad, BlockStatus.BLOB_REQUEST_FAILED)
            raise BlobFailedError(BlobStatus.BLOB_REQUEST_FAILED, told)

    def _differing(self, order: Order, listed: Sequence[Cut]) -> list[int]:
        """Compare what the store holds with the manifest; tells the places of pieces that differ.

        Raises:
            BlobMissingError: it holds no such blob.
        """
        found = self.way.patiently(lambda: order.container.stat(order.name))
        order.compared = found.e_tag
        if order.e_tag and found.e_tag != order.e_tag:
            raise BlobMissingError("the store has another blob of that name by now")
        if found.length != order.blob.length:
            return list(range(len(order.pieces))) or [0]
        reading: list[Future[list[int]]] = []
        try:
            for cut in listed:
                # Memory is taken here and not in the pool: what waits there for memory could keep out what has it.
                taken = self.way.take(cut.part.length)
                reading.append(self.pool.submit(self._read_back, order, cut, found.e_tag, taken))
        finally:
            wait(reading)
        return list(chain.from_iterable(future.result() for future in reading))

    def _read_back(self, order: Order, cut: Cut, e_tag: str, taken: int) -> list[int]:
        try:
            self.way.require_open()
            part = cut.part
            data = self.way.patiently(
                lambda: order.container.read(order.name, part.offset, part.length, e_tag=e_tag)
            )
            return bad_pieces(data, cut.part, cut.pieces, cut.first)
        finally:
            self.way.give_back(taken)


@dataclass(frozen=True, slots=True)
class _Sent:
    """What became of a part: its bad pieces, and whether it was read back before its blob was whole."""

    bad: dict[int, BlockStatus]
    was_read_back: bool = False


def _are_within(written: Iterable[tuple[int, int]], pieces: Sequence[Piece]) -> bool:
    """Tell whether all that was written lies in pieces; both are in order."""
    at = 0
    for begin, end in written:
        seen = begin
        while seen < end:
            while at < len(pieces) and pieces[at].offset + pieces[at].length <= seen:
                at += 1
            if at == len(pieces) or pieces[at].offset > seen:
                return False
            seen = pieces[at].offset + pieces[at].length
    return True


def _keep(attached: Attached, md5: bytes | None, put: Callable[[BlobFacts], None]) -> Attached:
    """Write with all that is to be kept; where the store cannot hold it, without, and tell so."""
    try:
        put(replace(attached.facts, content_md5=md5))
    except NotHeldError:
        put(BlobFacts(content_md5=md5))
        return replace(
            attached,
            facts=BlobFacts(),
            metadata=attached.metadata and AttachedStatus.FAILED,
            properties=attached.properties and AttachedStatus.FAILED,
        )
    return attached


def _compared(attached: Attached, md5: bytes | None) -> Attached:
    """Tell a properties file whose Content-MD5 is not its blob's; what is kept is the right one."""
    if attached.facts.content_md5 in {None, md5}:
        return attached
    return replace(attached, properties=AttachedStatus.CORRUPTED)


def _md5(data: bytes = b"") -> "hashlib._Hash":
    return hashlib.md5(data, usedforsecurity=False)
