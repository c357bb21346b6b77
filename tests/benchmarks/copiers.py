"""Who copies in `tests/benchmarks/copying.py`: each contestant that is Python, in a process of its own.

    python -m tests.benchmarks.copiers NAME SOURCE TARGET AT_ONCE [--profile]

Prints one line of JSON: what the copy alone took, without starting Python and importing libraries.
"""
# Each contestant pays for its own imports alone; what it prints is read by another process, or is the profile.
# ruff: noqa: PLC0415, T201

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread, get_ident
from types import FrameType
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
_WHOLE_BYTES_MAX: Final = 8 * 2**20
_SAMPLE_SECONDS: Final = 0.005
_SHOWN: Final = 25


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be copied.

    Attributes:
        source: the folder of the files.
        target: the store's address, with `{container}` still open; their container is `data`.
        at_once: requests that may be in flight.
    """

    source: Path
    target: str
    at_once: int

    @property
    def container(self) -> str:
        """The address of the container that the files go to."""
        return self.target.replace("{container}", "data")

    def files(self) -> list[tuple[str, Path]]:
        """Find the files: the name of each blob, and where its content is."""
        found = sorted(path for path in self.source.rglob("*") if path.is_file())
        return [(path.relative_to(self.source).as_posix(), path) for path in found]

    @property
    def bytes_total(self) -> int:
        """Of all files together."""
        return sum(path.stat().st_size for _, path in self.files())

    def requests_per_file(self, files: int) -> int:
        """Tell how many requests each file may have, so that all together have `at_once`."""
        return max(1, self.at_once // files)


@dataclass(frozen=True, slots=True)
class Took:
    """What a copy took: seconds, and kibibytes at most in memory, before it began and altogether.

    What it took to make memory warm before is in none of these.
    """

    seconds: float
    cpu_seconds: float
    warming_seconds: float
    warming_cpu_seconds: float
    kibibytes_before: int
    kibibytes: int


def drivepost(_task: Task) -> Callable[[], object]:
    """Import the one drive of the one job, as its flow does, but without Prefect."""
    import prefect
    from sqlmodel import select

    import flows.copies
    import flows.import_drives as flow
    from models.database import reading
    from models.jobs import Job

    for module, name, value in [(m, *each) for m in (flow, flows.copies) for each in vars(m).items()]:
        if isinstance(value, prefect.Task):
            setattr(module, name, value.fn)
    with reading() as session:
        job_id = str(session.exec(select(Job.id)).one())

    def copy() -> None:
        ended = flow.import_drives.fn(job_id)
        if not ended.is_completed():
            raise RuntimeError(ended.message)

    return copy


def azure_storage_blob(task: Task) -> Callable[[], object]:
    """Upload by Microsoft's own client, files from threads, each request with its MD5."""
    from azure.storage.blob import ContainerClient

    container = ContainerClient(
        os.environ["AZURE_STORAGE_ENDPOINT"], "data", credential=os.environ["AZURE_STORAGE_ACCOUNT_KEY"]
    )
    files = task.files()
    at_once = task.requests_per_file(len(files))

    def upload(file: tuple[str, Path]) -> None:
        name, path = file
        with path.open("rb") as stream:
            container.upload_blob(name, stream, max_concurrency=at_once, validate_content="md5")

    return lambda: _from_threads(upload, files, task.at_once)


def obstore_threads(task: Task) -> Callable[[], object]:
    """Put by obstore from threads, without hashes."""
    import obstore
    from obstore.store import from_url

    store, files = from_url(task.container), task.files()
    at_once = task.requests_per_file(len(files))

    def put(file: tuple[str, Path]) -> None:
        obstore.put(store, file[0], _content(file[1]), max_concurrency=at_once)

    return lambda: _from_threads(put, files, task.at_once)


def obstore_async(task: Task) -> Callable[[], object]:
    """Put by obstore from one event loop, without hashes."""
    import obstore
    from obstore.store import from_url

    store, files = from_url(task.container), task.files()
    at_once = task.requests_per_file(len(files))

    async def put_all() -> None:
        free = asyncio.Semaphore(task.at_once)

        async def put(name: str, path: Path) -> None:
            async with free:
                await obstore.put_async(store, name, _content(path), max_concurrency=at_once)

        await asyncio.gather(*(put(name, path) for name, path in files))

    return lambda: asyncio.run(put_all())


def _content(path: Path) -> bytes | Path:
    return path.read_bytes() if path.stat().st_size <= _WHOLE_BYTES_MAX else path


def _from_threads(act: Callable[[tuple[str, Path]], None], files: list[tuple[str, Path]], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(act, files):
            pass


COPIERS: Final[dict[str, Callable[[Task], Callable[[], object]]]] = {
    each.__name__: each for each in (drivepost, azure_storage_blob, obstore_threads, obstore_async)
}
"""Each is given its task, imports what it needs, and gives the copy itself."""


def _kibibytes(name: str) -> int:
    """Tell the memory of this process: `VmRSS` now, or `VmHWM` at its peak."""
    # Not of getrusage: what that tells begins with the memory of the process that started this one.
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError("this system does not tell the memory of a process")


def warm_memory(length: int) -> None:
    """Write a file and remove it, so that the page cache has had the next `length` bytes of memory before.

    A virtual machine's host may take free memory back. Whoever first writes to it again pays up to ten times what
    the writing costs, so that a copy that began seconds after the last one would lose to one that began at once.
    """
    data = os.urandom(_WHOLE_BYTES_MAX)
    with tempfile.TemporaryFile() as file:
        for _ in range(0, length, len(data)):
            file.write(data)


def _measured(task: Task, copy: Callable[[], object]) -> Took:
    before = _kibibytes("VmRSS")
    started, cpu_started = time.perf_counter(), time.process_time()
    warm_memory(task.bytes_total)
    begun, cpu_begun = time.perf_counter(), time.process_time()
    copy()
    return Took(
        seconds=time.perf_counter() - begun,
        cpu_seconds=time.process_time() - cpu_begun,
        warming_seconds=begun - started,
        warming_cpu_seconds=cpu_begun - cpu_started,
        kibibytes_before=before,
        kibibytes=_kibibytes("VmHWM"),
    )


# --- The profile.


def _profiled(task: Task, copy: Callable[[], object]) -> None:
    """Print where the main thread's time went, and what all threads were doing, looked at every 5 ms."""
    profile, doing = cProfile.Profile(), defaultdict[tuple[str, str], float](float)

    def watched_copy() -> None:
        with _watched(doing):
            profile.runcall(copy)

    took = _measured(task, watched_copy)
    print(f"{took.seconds:.2f} s, {took.cpu_seconds:.2f} s of processors; by the profiler slower than without\n")
    print("Thread-seconds by the innermost function of ours, and by what it was waiting for or calling:")
    for (place, called), seconds in sorted(doing.items(), key=lambda each: -each[1])[:_SHOWN]:
        print(f"{seconds:9.2f}  {place:<58} {called}")
    print("\nThe main thread:")
    pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(_SHOWN)


@contextmanager
def _watched(doing: defaultdict[tuple[str, str], float]) -> Iterator[None]:
    over = Event()

    def watch() -> None:
        last = time.perf_counter()
        while not over.wait(_SAMPLE_SECONDS):
            now = time.perf_counter()
            for thread, frame in sys._current_frames().items():
                if thread != get_ident():
                    doing[_doing(frame)] += now - last
            last = now

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _doing(frame: FrameType) -> tuple[str, str]:
    at: FrameType | None = frame
    while at is not None:
        path = Path(at.f_code.co_filename)
        if path.is_relative_to(_ROOT) and "site-packages" not in path.parts:
            place = f"{path.relative_to(_ROOT)}:{at.f_lineno} {at.f_code.co_name}"
            return place, "" if at is frame else f"{Path(frame.f_code.co_filename).name} {frame.f_code.co_name}"
        at = at.f_back
    return "idle", f"{Path(frame.f_code.co_filename).name} {frame.f_code.co_name}"


def main() -> None:
    """Copy as the one that was named does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=COPIERS)
    parser.add_argument("source", type=Path)
    parser.add_argument("target")
    parser.add_argument("at_once", type=int)
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    task = Task(asked.source, asked.target, asked.at_once)
    copy = COPIERS[asked.name](task)
    if asked.profile:
        _profiled(task, copy)
    else:
        print(json.dumps(asdict(_measured(task, copy))), flush=True)
        # After `put_async` a thread of obstore's aborts one process in ten while Python ends.
        os._exit(0)


if __name__ == "__main__":
    main()
