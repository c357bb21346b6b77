"""The pulse of a copy: between any two blocks it hears of a cancel, and says that it is alive."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

from sqlmodel import Session

from models.copies import is_copy_cancelled, renew_copy_lease
from models.database import database_time, reading, writing

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_BEATS_PER_LEASE: Final = 4
_READ_BYTES: Final = 64 * 2**10


class CopyCancelledError(Exception):
    """The copy heard of a cancel; what it was writing is not whole."""


@dataclass(frozen=True, slots=True)
class CopyLimits:
    """How a copy paces itself.

    Attributes:
        lease_seconds: how long a copy that does not report is believed to be alive.
        poll_seconds: how often it looks whether it was cancelled.
        batch_blobs: how many blobs' names are settled in one write.
        requests_at_once: how many requests to the store are under way at once.
        memory_bytes: what was read and is not written yet, or was read back, at most; a single piece larger
            than that is held alone.
        reads_back: whether what the store, or the drive of an export, holds is read again and compared before
            a blob counts.
    """

    lease_seconds: float
    poll_seconds: float
    batch_blobs: int
    requests_at_once: int
    memory_bytes: int
    reads_back: bool


class Pulse:
    """Holds on to the lease of a copy, and hears of a cancel.

    Args:
        job_id: the job.
        token: of the lease.
        limits: how the copy paces itself, also for whoever is handed the pulse.
    """

    def __init__(self, job_id: UUID, token: int, limits: CopyLimits) -> None:
        self._job_id = job_id
        self._token = token
        self.limits = limits
        self._last_poll = self._last_renewal = self._last_heard = _now()

    @property
    def token(self) -> int:
        """The lease's token, which no two runs share."""
        return self._token

    def renew(self, session: Session) -> None:
        """Hold on to the lease; first act of every write of the copy.

        Raises:
            LeaseLostError: another run copies the job now.
        """
        now = database_time(session)
        renew_copy_lease(session, self._job_id, self._token, seconds=self.limits.lease_seconds, at=now)
        self._last_renewal = self._last_heard = _now()

    def is_fresh(self) -> bool:
        """Tell whether the lease was seen to be ours within half of its time; else nothing may be written."""
        return _now() - self._last_heard < self.limits.lease_seconds / 2

    def beat(self) -> None:
        """Do what is due; cheap enough to be called at every block.

        Raises:
            CopyCancelledError: a cancel was accepted.
            LeaseLostError: another run copies the job now.
        """
        now = _now()
        if now - self._last_poll >= self.limits.poll_seconds:
            self._last_poll = now
            with reading() as session:
                if is_copy_cancelled(session, self._job_id, self._token):
                    raise CopyCancelledError
            self._last_heard = now
        self.keep()

    def keep(self) -> None:
        """Hold on to the lease when that is due, and hear of nothing.

        Raises:
            LeaseLostError: another run copies the job now.
        """
        if _now() - self._last_renewal >= self.limits.lease_seconds / _BEATS_PER_LEASE:
            with writing() as session:
                self.renew(session)


def _now() -> float:
    """Tell the time in seconds since this machine began; it goes on while the machine sleeps, as a lease does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _PulsingFile(FileIO):
    def __init__(self, path: Path, beat: Callable[[], None]) -> None:
        super().__init__(path)
        self._beat = beat

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        self._beat()
        return super().readinto(buffer)


def open_pulsing(path: Path, beat: Callable[[], None]) -> BufferedReader:
    """Open a file whose reading takes its time, such as a manifest of millions of blobs; each read beats."""
    return BufferedReader(_PulsingFile(path, beat), _READ_BYTES)
