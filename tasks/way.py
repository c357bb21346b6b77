"""The way that the threads of a copy go: whether they may go on, and how much memory they may take."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from tasks.stores import StoreBusyError

_LOOK_SECONDS: Final = 0.05
_PAUSES_SECONDS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Before each further time that a busy store is asked, beside what its client tries by itself."""

_T = TypeVar("_T")


class CopyStoppedError(Exception):
    """The copy ends; whoever hears it writes nothing more."""


class Way:
    """Whether threads may go on: memory is there, and the copy is still ours.

    Args:
        bytes_max: memory for what was read and is not written yet.
        is_fresh: tells whether the lease was seen to be ours a short time ago.
    """

    def __init__(self, bytes_max: int, is_fresh: Callable[[], bool]) -> None:
        self._bytes_max = bytes_max
        self._is_fresh = is_fresh
        self._bytes = 0
        self._waiting = 0
        self._changed = threading.Condition()
        self._stopped = False
        self.is_cancelled = False

    def stop(self, *, cancelled: bool = False) -> None:
        """End all threads at their next step; `cancelled` where no later run goes on with what they did."""
        with self._changed:
            self._stopped = True
            self.is_cancelled = self.is_cancelled or cancelled
            self._changed.notify_all()

    def require_open(self) -> None:
        """Wait while nobody knows whether the copy is still ours: this process may have slept.

        Raises:
            CopyStoppedError: the copy ends.
        """
        while not self._stopped:
            if self._is_fresh():
                return
            with self._changed:
                self._changed.wait(_LOOK_SECONDS)
        raise CopyStoppedError

    def patiently(self, act: Callable[[], _T]) -> _T:
        """Ask the store something; again after a pause, and another, while it is busy.

        Raises:
            StoreBusyError: it was busy all the time, or the copy ends meanwhile.
            CopyStoppedError: the copy ends.
        """
        for seconds in _PAUSES_SECONDS:
            try:
                return act()
            except StoreBusyError:
                with self._changed:
                    if self._changed.wait_for(lambda: self._stopped, seconds):
                        raise
            self.require_open()
        return act()

    @contextmanager
    def room_for(self, length: int) -> Iterator[None]:
        """Wait for memory; one that is larger than all there is has it alone.

        Raises:
            CopyStoppedError: the copy ends.
        """
        taken = self.take(length)
        try:
            yield
        finally:
            self.give_back(taken)

    def take(self, length: int) -> int:
        """Wait for memory that `give_back` ends; tells how much to give back.

        Raises:
            CopyStoppedError: the copy ends.
        """
        wanted = min(length, self._bytes_max)
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: self._stopped or self._bytes + wanted <= self._bytes_max)
            self._waiting -= 1
            if self._stopped:
                raise CopyStoppedError
            self._bytes += wanted
        return wanted

    def take_spare(self, length: int) -> int:
        """Take memory that is there and nobody waits for; 0, with nothing to give back, where there is none."""
        with self._changed:
            if self._waiting or self._bytes + length > self._bytes_max:
                return 0
            self._bytes += length
        return length

    def give_back(self, taken: int) -> None:
        """Let others have the memory."""
        with self._changed:
            self._bytes -= taken
            self._changed.notify_all()
