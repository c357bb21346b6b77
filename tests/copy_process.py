"""A copy in a process of its own, and what it sent."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self
from uuid import UUID

_ROOT = Path(__file__).resolve().parents[1]
_START_SECONDS_MAX = 60


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


@cache
def _forker() -> "subprocess.Popen[str]":
    # It ends with the tests, whose end closes its input.
    return subprocess.Popen(
        [sys.executable, "-m", "tests.watched_copy"],
        cwd=_ROOT,
        env={**os.environ, "PREFECT_LOGGING_LEVEL": "ERROR"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


class CopyProcess:
    """Copies jobs one after the other, each in a child of one process that has all modules already.

    It has the environment of the moment when it is entered.
    """

    def __enter__(self) -> Self:
        """Start it."""
        self._folder = TemporaryDirectory(prefix="drivepost-copies-")
        end = str(Path(self._folder.name) / "end")
        forker = _forker()
        assert forker.stdin
        assert forker.stdout
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(end)
            listening.listen()
            listening.settimeout(_START_SECONDS_MAX)
            print(json.dumps({"end": end, "environment": dict(os.environ)}), file=forker.stdin, flush=True)
            self._process = int(forker.stdout.readline())
            with listening.accept()[0] as connection:
                self._told = connection.makefile("w", encoding="utf-8")
                self._said = connection.makefile("r", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it; a copy that it began has ended by then, or ends with it."""
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        self._said.close()
        with suppress(BrokenPipeError):
            self._told.close()
        self._folder.cleanup()

    def _line(self) -> str:
        return self._said.readline().strip()

    def begin(self, job_id: UUID, log: Path, kill_at: int = 0, delay: float = 0) -> int:
        """Begin to copy a job; gives the process that does.

        Args:
            job_id: the job.
            log: where each request that brings bytes into the store is written down.
            kill_at: after how many lines of the log it kills itself; 0 is never.
            delay: how much later, seconds.
        """
        print(job_id, log, kill_at, delay, file=self._told, flush=True)
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
