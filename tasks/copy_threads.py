"""The threads of one copy, and how its own thread lives on while it waits for them."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self, TypeVar

from tasks.orders import Order
from tasks.pulse import Pulse
from tasks.way import Way

_CHUNK_BLOBS: Final = 16

_T = TypeVar("_T")


class CopyThreads:
    """Threads that copy blobs; used as a context manager, whose end waits for all of them.

    Args:
        pulse: of the copy, which holds its lease and knows its limits.
        way: lets threads go on.
        run: copies blobs one after the other; done by the threads.
        between: called while the copy's own thread waits for an answer; what it raises ends the waiting.
    """

    def __init__(
        self, pulse: Pulse, way: Way, run: Callable[[Sequence[Order]], None], between: Callable[[], None]
    ) -> None:
        self._pulse = pulse
        self._way = way
        self._run = run
        self._between = between
        self._is_ending = False
        self._chunk: list[Order] = []
        self._running: set[Future[None]] = set()
        at_once = pulse.limits.requests_at_once
        self.orders_max = max(2 * at_once, 2 * _CHUNK_BLOBS)
        """Orders under way at once: some wait, so that no thread does."""
        self.parts = ThreadPoolExecutor(at_once, "drivepost-parts")
        """Sends and reads parts of blobs; what is done there waits for nobody."""
        self._blobs = ThreadPoolExecutor(at_once, "drivepost-blobs")
        self._chunks = ThreadPoolExecutor(1, "drivepost-chunks")
        # Apart from the others, which may wait for the copy's own thread while it waits for an answer.
        self._askers = ThreadPoolExecutor(at_once, "drivepost-askers")
        self._pools = ExitStack()

    def __enter__(self) -> Self:
        for pool in (self.parts, self._blobs, self._chunks, self._askers):
            self._pools.enter_context(pool)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pools.__exit__(kind, error, trace)

    def submit(self, order: Order) -> None:
        """Let a thread copy a blob.

        Raises:
            NameRefusedError: the store can have no such container.
        """
        if order.is_small and order.container.is_local:
            # Where a request costs less than a change of threads, one thread takes them all, many at a time.
            self._chunk.append(order)
            if len(self._chunk) == _CHUNK_BLOBS:
                self.submit_rest()
        else:
            self._submit(self._blobs, [order])

    def submit_rest(self) -> None:
        """Let those begin that wait for others of their kind."""
        chunk, self._chunk = self._chunk, []
        if chunk:
            self._submit(self._chunks, chunk)

    def _submit(self, pool: ThreadPoolExecutor, orders: Sequence[Order]) -> None:
        future = pool.submit(self._run, orders)
        self._running.add(future)
        future.add_done_callback(self._running.discard)

    def ask(self, act: Callable[[], _T]) -> _T:
        """Ask the store something, and live on until it answers."""
        return self.wait_for(self.asking(act))

    def asking(self, act: Callable[[], _T]) -> "Future[_T]":
        """Let the store be asked something, patiently."""
        return self._askers.submit(self._way.patiently, act)

    def wait_for(self, answer: "Future[_T]") -> _T:
        """Live on until there is an answer."""
        while not answer.done():
            wait([answer], self._pulse.limits.poll_seconds)
            if self._is_ending:
                self._pulse.keep()
            else:
                self._between()
        return answer.result()

    def end(self) -> None:
        """Wait for the blobs under way, and hold on to the lease meanwhile: nobody may take the job for dropped.

        Raises:
            LeaseLostError: another run copies the job now.
        """
        self._is_ending = True
        while running := list(self._running):
            wait(running, self._pulse.limits.poll_seconds)
            self._pulse.keep()
