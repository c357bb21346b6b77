"""A copy in a process of its own, and what it sent."""

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Ended:
    """How a copy ended.

    Attributes:
        code: its exit code, -9 if it was killed.
        message: what its flow said at its end.
        bytes_grown: by how much its memory had grown at most.
    """

    code: int
    message: str
    bytes_grown: int


@dataclass(frozen=True)
class Request:
    """One line of the log: `+` begun, `-` answered, `=` not needed; `at` is nanoseconds, monotonic."""

    sign: str
    part: str
    at: int


class CopyProcess:
    """Copies jobs one after the other, each in a child of one process that has all modules already."""

    def __enter__(self) -> Self:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.watched_copy"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it; a copy that it began has ended by then, or ends with it."""
        self._process.kill()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def begin(self, job_id: UUID, log: Path, kill_at: int = 0, delay: float = 0) -> int:
        """Begin to copy a job; gives the process that does.

        Args:
            job_id: the job.
            log: where each request that brings bytes into the store is written down.
            kill_at: after how many lines of the log it kills itself; 0 is never.
            delay: how much later, seconds.
        """
        assert self._process.stdin
        print(job_id, log, kill_at, delay, file=self._process.stdin, flush=True)
        return int(self._line())

    def end(self) -> "Ended":
        """Wait for what was begun."""
        said = ""
        while not (line := self._line()).startswith("ended "):
            assert line, "the process that copies is gone"
            said = line
        grown, _, message = said.partition(" ")
        return Ended(int(line.removeprefix("ended ")), message, int(grown or 0) * 1024)

    def copy(self, job_id: UUID, log: Path, kill_at: int = 0, delay: float = 0) -> int:
        """Copy a job; gives the exit code."""
        self.begin(job_id, log, kill_at, delay)
        return self.end().code


def requests_in(log: Path) -> list[Request]:
    """Read what is in the log by now."""
    found = []
    for line in log.read_text("utf-8").splitlines() if log.exists() else ():
        part, _, at = line[2:].rpartition(" ")
        found.append(Request(line[0], part, int(at)))
    return found


def requests_of(log: Path) -> tuple[Counter[str], set[str]]:
    """Read what was sent, as `blob part`: how often each was begun, and what was answered.

    What the store already had, and so was not sent, is none of it.
    """
    begun, answered = Counter[str](), set[str]()
    for request in requests_in(log):
        if request.sign == "+":
            begun[request.part] += 1
        elif request.sign == "-":
            answered.add(request.part)
        else:
            begun[request.part] -= 1
    return +begun, answered
