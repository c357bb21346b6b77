"""How many rows go into the next transaction of a long work, so that nobody waits long for it."""

import time
from collections.abc import Callable
from typing import Final

_ALONE_SECONDS: Final = 0.1
_ALONE_ROWS_MIN: Final = 100
_SHARED_SECONDS: Final = 0.008
_SHARED_ROWS_MIN: Final = 20
_SHARED_FOR_SECONDS: Final = 2.0


class Pace:
    """Batches that take about a tenth of a second; while others write, so little that they hardly notice.

    Others are noticed on SQLite alone, where one writes at a time and who waits looks again only now and then: a
    batch is short there while others write, and is followed by a pause as long.

    Args:
        rows_max: of a batch.
        clock: gives seconds.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        rows_max: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rows_max = rows_max
        self._rows = float(_ALONE_ROWS_MIN)
        self._clock, self._sleep = clock, sleep
        self._others_writes: int | None = None
        self._shared_until = 0.0
        self._began = clock()

    @property
    def rows(self) -> int:
        """How many rows the next batch takes, at most `rows_max`; no less than pays for a transaction."""
        return int(min(self._rows, self._rows_max))

    def begin(self) -> None:
        """Say that a batch begins: that nobody else is waited for any more."""
        self._began = self._clock()

    def end(self, others_writes: int) -> None:
        """Say that a batch of `rows` is over, and what `writes_of_others` told in it; pauses if others write."""
        now = self._clock()
        if self._others_writes not in {None, others_writes}:
            self._shared_until = now + _SHARED_FOR_SECONDS
        self._others_writes = others_writes
        is_shared = now < self._shared_until
        took = max(now - self._began, 1e-6)
        seconds, least = (_SHARED_SECONDS, _SHARED_ROWS_MIN) if is_shared else (_ALONE_SECONDS, _ALONE_ROWS_MIN)
        # Down at once, up by steps: the next batch may be of larger jobs.
        self._rows = max(least, min(self.rows * seconds / took, 2.0 * self.rows))
        if is_shared:
            self._sleep(min(took, _ALONE_SECONDS))
