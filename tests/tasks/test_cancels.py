"""A cancel, a worker that sleeps beyond its lease, and the memory of a copy: each of a process of its own."""

import hashlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest
from sqlmodel import SQLModel

from flows.cancel_job import cancel_job
from models.database import reading
from models.jobs import read_job
from models.lifecycle import DriveState, JobState
from models.manifests import BLOCK_BYTES_MAX, Blob, Block
from tasks.jobs import accept_cancel
from tests.builders import Listed, drive_of, random_bytes, received_by_hand
from tests.copy_process import CopyProcess, Request, requests_in
from tests.posted_stores import KINDS, PostedStore, posted_store

pytestmark = pytest.mark.usefixtures("plain_acts")

_B: Final = BLOCK_BYTES_MAX
_GIB: Final = 2**30
_ZEROS: Final = hashlib.md5(bytes(_B), usedforsecurity=False).hexdigest().upper()
MANY: Final = 2000
ROUNDS_THOROUGH: Final = 8


@dataclass(frozen=True)
class Sparse(Listed):
    """A file of zeros that takes no room on the drive; `length` is a multiple of a block."""

    length: int = 0

    def blob(self, number: int) -> Blob:
        """Make its entry of the manifest."""
        blocks = tuple(Block(offset, _B, _ZEROS) for offset in range(0, self.length, _B))
        return Blob(self.path, self.file_path(number), self.length, self.disposition, blocks)


def job_of_one_large(data_directory: Path, length: int) -> UUID:
    """Make a job with one sparse file."""
    job_id = received_by_hand(data_directory, {"S1": [Sparse("data/large", b"", length=length)]})
    os.truncate(data_directory / "bay" / "S1" / "files" / "0", length)
    return job_id


def job_of_many_small(data_directory: Path, count: int) -> UUID:
    """Make a job with many files of 1 KiB."""
    return received_by_hand(
        data_directory, {"S1": [Listed(f"data/{n:05}", n.to_bytes(4, "big") * 256) for n in range(count)]}
    )


@pytest.fixture(params=KINDS)
def store(
    request: pytest.FixtureRequest, sqlite: str, data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> PostedStore:
    """Give each kind of store in turn."""
    return posted_store(request.param, data_directory, request, monkeypatch)


@pytest.fixture
def folder(
    request: pytest.FixtureRequest, sqlite: str, data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> PostedStore:
    """Give a folder alone."""
    return posted_store("folder", data_directory, request, monkeypatch)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a copy says be the last line alone."""
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "ERROR")


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for something that will be."""
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.001)


def answered(log: Path) -> list[Request]:
    """Read what the store has taken by now."""
    return [request for request in requests_in(log) if request.sign == "-"]


def state_of(job_id: UUID) -> JobState:
    """Read where a job stands."""
    with reading() as session:
        return read_job(session, job_id).state


@pytest.mark.parametrize("files", ["one of 10 GiB", "many of 1 KiB"])
def test_a_cancel_stops_the_copy_and_not_a_byte_comes_after_it(
    store: PostedStore,
    data_directory: Path,
    tmp_path: Path,
    files: str,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Blobs are there whole or not at all, counted to the byte; the rest of the drive is not read."""
    is_large = files == "one of 10 GiB"
    job_id = job_of_one_large(data_directory, 10 * _GIB) if is_large else job_of_many_small(data_directory, MANY)
    log = tmp_path / "log"
    with CopyProcess() as copier:
        copier.begin(job_id, log)
        wait_until(lambda: len(answered(log)) >= (3 if is_large else 50))
        accept_cancel.fn(job_id)
        accepted = time.monotonic_ns()
        wait_until(lambda: state_of(job_id) is JobState.COMPLETED)
        completed = time.monotonic_ns()
        there = store.names(), store.names("waimportexport")
        ended = copier.end()
    assert "was cancelled and is Completed" in ended.message
    requests = requests_in(log)
    assert max(each.at for each in requests) < completed, "not a byte was written after the job was Completed"
    assert (store.names(), store.names("waimportexport")) == there
    assert store.aside() == []
    begun = [each for each in requests if each.sign == "+"]
    assert len(begun) < (10 * _GIB // _B if is_large else MANY) // 2, "the rest was not read"
    assert drive_of(job_id).bytes_succeeded == sum(there[0].values())
    assert drive_of(job_id).state is DriveState.COMPLETED_MORE_INFO
    if is_large:
        assert there[0] == {}
    late = [each for each in requests if each.at > accepted]
    last = max((each.at for each in late), default=accepted) - accepted
    with capsys.disabled():
        print(  # noqa: T201  a figure to be read
            f"\ncancel of {files}, {request.node.callspec.params['store']}: "
            f"last byte of a blob {last / 1e6:.0f} ms after it was accepted, "
            f"{sum(each.sign == '+' for each in late)} requests begun "
            f"meanwhile; Completed after {(completed - accepted) / 1e6:.0f} ms"
        )


# -- a worker that sleeps --------------------------------------------------------------------------------


def rows_of_everything() -> dict[str, list[str]]:
    """Take down every row there is."""
    with reading() as session:
        return {
            table.name: sorted(map(repr, session.connection().execute(table.select())))
            for table in SQLModel.metadata.sorted_tables
        }


def files_below(root: Path) -> dict[str, tuple[int, bytes]]:
    """Take down every file of a folder: path -> which file it is, and its digest."""
    return {
        str(path.relative_to(root)): (path.stat().st_ino, hashlib.sha256(path.read_bytes()).digest())
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("successor", ["another run finishes", "cancel-job ends the job"])
@pytest.mark.parametrize("files", ["large", "small"])
def test_a_worker_that_was_stopped_beyond_its_lease_writes_nothing_more(
    folder: PostedStore,
    data_directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    thorough: bool,
    files: str,
    successor: str,
) -> None:
    """Neither rows nor blobs; it wakes up at a random point of its copy, and is told that it lost the lease."""
    monkeypatch.setenv("DRIVEPOST_COPY_LEASE_SECONDS", "1")
    rng = random.Random(os.environ.get("PYTEST_SEED", "drivepost"))  # noqa: S311  no secret
    for count in range(ROUNDS_THOROUGH if thorough else 1):
        with CopyProcess() as sleeper, CopyProcess() as other:
            sizes = [16 * _B] if files == "large" else [1000 + n for n in range(800)]
            listed = [Listed(f"job{count}/{n}", random_bytes(size, n)) for n, size in enumerate(sizes)]
            job_id = received_by_hand(data_directory, {f"S{count}": listed}, f"job{count}")
            log, wanted = tmp_path / f"log{count}", rng.randint(1, 6 if files == "large" else 300)
            worker = sleeper.begin(job_id, log)
            wait_until(lambda log=log, wanted=wanted: len(answered(log)) >= wanted)  # type: ignore[misc]
            os.kill(worker, signal.SIGSTOP)
            assert state_of(job_id) is JobState.TRANSFERRING, "it was stopped in the middle"
            # Until the lease has run out, by the clocks of both.
            time.sleep(1.05)
            if successor == "cancel-job ends the job":
                assert cancel_job.fn(str(job_id)).is_completed()
            else:
                assert other.copy(job_id, tmp_path / f"other{count}") == 0
            rows, found = rows_of_everything(), files_below(data_directory / "store")
            os.kill(worker, signal.SIGCONT)
            ended = sleeper.end()
        assert ended.message.startswith("CopyLeaseLost: "), ended
        assert rows_of_everything() == rows
        assert files_below(data_directory / "store") == found
        assert folder.aside() == []


# -- memory ----------------------------------------------------------------------------------------------

_MEMORY: Final = 32
_ASIDE_FROM_IT: Final = 160
"""MiB for what is no block of a file: the manifest's lists, threads, the database; the goal is 256 with 96."""


@pytest.mark.parametrize("files", ["one of 512 MiB", "10,000 of 1 KiB"])
def test_the_memory_of_a_copy_is_bounded_whatever_it_copies(
    folder: PostedStore,
    data_directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: str,
) -> None:
    """By the setting, and some more."""
    monkeypatch.setenv("DRIVEPOST_COPY_MEMORY_MEBIBYTES", str(_MEMORY))
    is_large = files == "one of 512 MiB"
    job_id = job_of_one_large(data_directory, _GIB // 2) if is_large else job_of_many_small(data_directory, 10_000)
    with CopyProcess() as copier:
        copier.begin(job_id, tmp_path / "log")
        ended = copier.end()
    assert ended.code == 0, ended.message
    mebibytes = ended.bytes_grown / 2**20
    with capsys.disabled():
        print(f"\nmemory of a copy of {files}: {mebibytes:.0f} MiB")  # noqa: T201  a figure to be read
    assert mebibytes < _MEMORY + _ASIDE_FROM_IT
