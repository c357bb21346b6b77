"""How many rows go into the next transaction of a long work, so that nobody waits long for it."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple


class _Size(NamedTuple):
    """Of a batch: how long it takes, and how many rows it has though they take longer: fewer do not pay for it."""

    seconds: float
    rows_min: int


_ALONE: Final = _Size(0.08, 50)
_SHARED: Final = _Size(0.03, 50)
_WAITED_FOR: Final = _Size(0.005, 4)
_SHARED_FOR_SECONDS: Final = 2.0
_GROWTH: Final = 1.25
_PAUSE_SECONDS_MAX: Final = 0.1


class Pace:
    """Batches that take about a twelfth of a second; while others are at work, so little that they hardly notice.

    Then a batch is short and is followed by a pause as long. Where one writes at a time it is shorter still: all
    that others write waits for it.

    Args:
        rows_max: of a batch.
        one_at_a_time: who else writes waits until a batch is over.
        clock: gives seconds.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        rows_max: int,
        *,
        one_at_a_time: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rows_max = rows_max
        self._rows = float(_ALONE.rows_min)
        self._shared = _WAITED_FOR if one_at_a_time else _SHARED
        self._clock, self._sleep = clock, sleep
        self._others_acts: int | None = None
        self._shared_until = 0.0

    @property
    def is_alone(self) -> bool:
        """Whether nobody else was at work lately; so it is taken to be until a batch is over."""
        return self._clock() >= self._shared_until

    @property
    def rows(self) -> int:
        """How many rows the next batch takes, at most `rows_max`; no less than pays for a transaction."""
        return int(min(self._rows, self._rows_max))

    def end(self, rows: int, seconds: float, others_acts: int) -> None:
        """Say that a batch is over; pauses if there are others.

        Args:
            rows: how many it was to take.
            seconds: how long it took, from when it might write.
            others_acts: what `acts_of_others` told after it.
        """
        if self._others_acts not in {None, others_acts}:
            self._shared_until = self._clock() + _SHARED_FOR_SECONDS
        self._others_acts = others_acts
        is_alone = self.is_alone
        took = max(seconds, 1e-6)
        size = _ALONE if is_alone else self._shared
        # Down at once, up by steps: the next batch may be of larger jobs.
        self._rows = max(size.rows_min, min(rows * size.seconds / took, _GROWTH * rows))
        if not is_alone:
            self._sleep(min(took, _PAUSE_SECONDS_MAX))
