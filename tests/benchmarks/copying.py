"""How fast a drive is imported, beside what its user would take instead, turn by turn in the same run.

    python -m tests.benchmarks.copying [--runs 5] [--files small large] [--stores folder azurite s3] [--only NAME]
    python -m tests.benchmarks.copying --files large --stores azurite --profile

Not a test: it prints figures. Two sets of files: 2,000 of 64 KiB and 4 of 512 MiB, of random bytes, written once
in a temporary folder as a drive of a job; `--divide 20` makes them so many times fewer, or smaller, to try it out.
The figures are medians of the runs; in each run everybody copies once, every time another one first.

- Drivepost imports the drive as its flow does, but without Prefect, from the received job in a database of its own
  (SQLite) to its end: the manifest read twice, every block checked, names settled, progress written down, logs
  written. Once as it is by default, reading back from the store all that it wrote, and once without that.
- rclone checks the MD5 of every file afterwards by asking the store for it; as it is, and tuned: 16 files at once,
  more and larger parts, containers taken for granted.
- azure-storage-blob sends each request with its MD5, from as many threads as Drivepost has requests at once.
- obstore, from threads and from one event loop, with as many requests at once, without a hash. (For a block that
  comes without MD5 Azurite works out a CRC64 in JavaScript: that is what bounds its large files there.)
- `cp -r` and `md5sum` alone, for the folder.

Each copy is a process of its own. "seconds" and "CPU" of those in Python are of the copy alone, without Python's
start and the imports, which a worker does once for many drives; "whole" has all of it, and of a program both are
the same. "above" is peak memory, MiB, without what was there before the copy began; of a program, all of it.
"server CPU" is what Azurite or moto took meanwhile, on the same processors: where it is near the seconds, the
server is what is measured. Every copy has a new server, warmed up by a few blobs, and an empty target. Nothing is
synced or dropped: the files are read from the page cache, and what is written stays there, in memory that was used
just before (see `warm_memory`). After each copy, outside of its time, the number of blobs and their bytes are
compared with the files.

Goals: at least as fast as the faster rclone with no more CPU than it; 0.9 of the faster obstore, but in the folder
0.8 of the slower of `cp` and `md5sum`; at most 256 MiB above.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final
from unittest.mock import patch

import obstore
from obstore.store import from_url
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from models import database
from models.key_files import use_ring
from models.manifests import BLOCK_BYTES_MAX, Blob, Block, ImportDisposition, ManifestWriter
from models.settings import Settings
from models.tables import upgrade
from tests.benchmarks.copiers import warm_memory
from tests.builders import received_of_entries
from tests.store_servers import StoreServer, serve_azurite, serve_s3

_ROOT: Final = Path(__file__).parents[2]
_SERIAL: Final = "SERIAL1"
_CONTAINERS: Final = ("data", "waimportexport", "warm")
_WARMING: Final = 64
_FOLDERS: Final = 20
_MIB: Final = 2**20

_METER: Final = """
import json, os, sys, time
begun = time.perf_counter()
_, status, used = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print(json.dumps([status, time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""
"""Starts a program from a process that is small: a peak of memory begins with that of whoever started it."""


@dataclass(frozen=True, slots=True)
class Files:
    """A set of files to copy: how many, and of how many bytes each."""

    name: str
    count: int
    length: int

    @property
    def bytes_total(self) -> int:
        """Of all files together."""
        return self.count * self.length


SETS: Final = (Files("small", 2000, 64 * 2**10), Files("large", 4, 512 * _MIB))


@dataclass(frozen=True, slots=True)
class World:
    """A drive in the bay of a job that was received.

    Attributes:
        files: what is on the drive.
        data: Drivepost's data directory.
        target: the folder that is a store.
    """

    files: Files
    data: Path
    target: Path

    @property
    def source(self) -> Path:
        """Where the files are."""
        return self.data / "bay" / _SERIAL / "data"


@dataclass(frozen=True, slots=True)
class Contestant:
    """Somebody who copies.

    Attributes:
        name: as in the table.
        command: the program and its arguments, of the world, and of the store's name and address.
        environment: variables of its own.
        stores: names of the stores it can write to.
        copies: whether anything is there afterwards.
    """

    name: str
    command: Callable[[World, str, str], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    stores: frozenset[str] = frozenset({"folder", "azurite", "s3"})
    copies: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """What one copy took: seconds, and MiB at most; `above` is what was not there before the copy."""

    seconds: float
    cpu: float
    server_cpu: float
    above: float
    whole_seconds: float
    whole_cpu: float
    whole_memory: float


# --- Who copies.


def _python(name: str) -> Callable[[World, str, str], list[str]]:
    def command(world: World, _store: str, address: str) -> list[str]:
        at_once = str(Settings().copy_requests_at_once)
        return [sys.executable, "-m", "tests.benchmarks.copiers", name, str(world.source), address, at_once]

    return command


def _rclone(*options: str) -> Callable[[World, str, str], list[str]]:
    def command(world: World, store: str, _address: str) -> list[str]:
        target = f"{world.target}/data" if store == "folder" else f"{store}:data"
        return [_program("rclone"), "copy", "--checksum", *options, str(world.source), target]

    return command


def _cp(world: World, _store: str, _address: str) -> list[str]:
    return [_program("cp"), "-r", f"{world.source}/.", f"{world.target}/data"]


def _md5sum(world: World, _store: str, _address: str) -> list[str]:
    return [_program("md5sum"), *(str(path) for path in world.source.rglob("*") if path.is_file())]


def _program(name: str) -> str:
    beside_us = Path(sys.executable).parent
    found = shutil.which(name, path=f"{beside_us}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        raise FileNotFoundError(f"there is no program {name}; install the tests' packages")
    return found


_TUNED: Final = (
    "--transfers=16",
    "--checkers=16",
    "--multi-thread-streams=8",
    "--azureblob-chunk-size=8Mi",
    "--azureblob-no-check-container",
    "--s3-chunk-size=8Mi",
    "--s3-no-check-bucket",
)
_FOLDER: Final = frozenset({"folder"})
OURS: Final = ("Drivepost", "Drivepost, not reading back")
RCLONE: Final = ("rclone", "rclone, tuned")
OBSTORE: Final = ("obstore, threads", "obstore, async")
FLOOR: Final = ("cp -r", "md5sum")
CONTESTANTS: Final = (
    Contestant(OURS[0], _python("drivepost"), {"DRIVEPOST_COPY_READS_BACK": "true"}),
    Contestant(OURS[1], _python("drivepost"), {"DRIVEPOST_COPY_READS_BACK": "false"}),
    Contestant(RCLONE[0], _rclone()),
    Contestant(RCLONE[1], _rclone(*_TUNED)),
    Contestant("azure-storage-blob", _python("azure_storage_blob"), stores=frozenset({"azurite"})),
    Contestant(OBSTORE[0], _python("obstore_threads")),
    Contestant(OBSTORE[1], _python("obstore_async")),
    Contestant(FLOOR[0], _cp, stores=_FOLDER),
    Contestant(FLOOR[1], _md5sum, stores=_FOLDER, copies=False),
)


# --- The stores.


@contextmanager
def _serve_folder(world: World) -> Iterator[StoreServer]:
    def make_container(name: str) -> None:
        (world.target / name).mkdir(parents=True)

    try:
        yield StoreServer(f"{world.target.as_uri()}/{{container}}", {}, make_container, None)
    finally:
        shutil.rmtree(world.target)


@contextmanager
def _serving(store: str, world: World) -> Iterator[StoreServer]:
    """Start a new store with empty containers, and get it going."""
    serve = {"folder": lambda: _serve_folder(world), "azurite": serve_azurite, "s3": serve_s3}[store]
    with serve() as server, patch.dict(os.environ, server.environment):
        for name in _CONTAINERS:
            server.make_container(name)
        warm = from_url(server.address.replace("{container}", "warm"))
        for number in range(_WARMING):
            obstore.put(warm, f"{number}", bytes(64 * 2**10))
        yield server


def _for_rclone(server: StoreServer) -> dict[str, str]:
    """Say the same to rclone in its own words."""
    said = server.environment
    if "AZURE_STORAGE_ENDPOINT" in said:
        return {
            "RCLONE_CONFIG_AZURITE_TYPE": "azureblob",
            "RCLONE_CONFIG_AZURITE_ACCOUNT": said["AZURE_STORAGE_ACCOUNT_NAME"],
            "RCLONE_CONFIG_AZURITE_KEY": said["AZURE_STORAGE_ACCOUNT_KEY"],
            "RCLONE_CONFIG_AZURITE_ENDPOINT": said["AZURE_STORAGE_ENDPOINT"],
        }
    if "AWS_ENDPOINT" in said:
        return {
            "RCLONE_CONFIG_S3_TYPE": "s3",
            "RCLONE_CONFIG_S3_PROVIDER": "Other",
            "RCLONE_CONFIG_S3_ACCESS_KEY_ID": said["AWS_ACCESS_KEY_ID"],
            "RCLONE_CONFIG_S3_SECRET_ACCESS_KEY": said["AWS_SECRET_ACCESS_KEY"],
            "RCLONE_CONFIG_S3_REGION": said["AWS_REGION"],
            "RCLONE_CONFIG_S3_ENDPOINT": said["AWS_ENDPOINT"],
        }
    return {}


def _cpu_of(process_id: int | None) -> float:
    if process_id is None:
        return 0.0
    # Name, state, ten more, then the ticks of user and system.
    after_name = Path(f"/proc/{process_id}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


# --- The drive, and its job.


@contextmanager
def _world(files: Files) -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="drivepost-benchmark-") as name:
        world = World(files, Path(name) / "data", Path(name) / "target")
        with patch.dict(
            os.environ,
            {
                "DRIVEPOST_DATA_DIRECTORY": str(world.data),
                "PYTHONPATH": str(_ROOT),
                "PREFECT_HOME": f"{name}/prefect",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "DO_NOT_TRACK": "1",
                "RCLONE_CONFIG": "notfound",
            },
        ):
            entry = _make_drive(world)
            upgrade(Settings().database)
            received_of_entries([entry])
            database.engine().dispose()
            database.engine.cache_clear()
            use_ring(None)
            shutil.copy(world.data / "drivepost.db", world.data / "received.db")
            yield world


def _make_drive(world: World) -> dict[str, str]:
    """Write the files and their manifest; gives the drive's entry in a job's `driveList`."""
    drive = world.source.parent
    manifest = drive / "DriveManifest.xml"
    world.source.mkdir(parents=True)
    with (
        manifest.open("wb") as stream,
        ManifestWriter(stream, drive_id=_SERIAL, client_creator="tests") as writer,
        Progress(transient=True) as progress,
    ):
        for number in progress.track(range(world.files.count), description=f"writing {world.files.name}"):
            name = f"data/{number % _FOLDERS:02}/{number:05}.bin"
            path = drive / name
            path.parent.mkdir(exist_ok=True)
            blocks = _write_random(path, world.files.length)
            writer.add(
                Blob(name, name.replace("/", "\\"), world.files.length, ImportDisposition.RENAME, tuple(blocks))
            )
    digest = hashlib.md5(manifest.read_bytes(), usedforsecurity=False).hexdigest()
    return {"driveId": _SERIAL, "manifestFile": f"\\{manifest.name}", "manifestHash": digest.upper()}


def _write_random(path: Path, length: int) -> Iterator[Block]:
    with path.open("wb") as stream:
        for offset in range(0, length, BLOCK_BYTES_MAX):
            data = os.urandom(min(BLOCK_BYTES_MAX, length - offset))
            stream.write(data)
            yield Block(offset, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest().upper())


def _forget_copy(world: World) -> None:
    """Let the job be Received again."""
    for path in world.data.glob("drivepost.db*"):
        path.unlink()
    shutil.copy(world.data / "received.db", world.data / "drivepost.db")


# --- The measuring.


def _copy(contestant: Contestant, store: str, world: World) -> Run:
    """Let one contestant copy everything once, and see that it did."""
    _forget_copy(world)
    with _serving(store, world) as server:
        stores = {"DRIVEPOST_STORES": json.dumps({"account1": server.address})}
        command = contestant.command(world, store, server.address)
        is_python = command[0] == sys.executable
        if not is_python:
            warm_memory(world.files.bytes_total)
        cpu_before = _cpu_of(server.process_id)
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _METER, *command],
            env={**os.environ, **stores, **_for_rclone(server), **contestant.environment},
            cwd=world.data,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        server_cpu = _cpu_of(server.process_id) - cpu_before
        *said, metered = done.stdout.splitlines()
        status, seconds, cpu, kibibytes = json.loads(metered)
        if status:
            raise RuntimeError(f"{contestant.name} failed on {store}, wait status {status}; what it said is above")
        if contestant.copies:
            _require_complete(contestant, server, world)
    memory = kibibytes * 2**10 / _MIB
    if not is_python:
        return Run(seconds, cpu, server_cpu, memory, seconds, cpu, memory)
    took = json.loads(said[-1])
    before, peak = took["kibibytes_before"] / 2**10, took["kibibytes"] / 2**10
    return Run(
        seconds=took["seconds"],
        cpu=took["cpu_seconds"],
        server_cpu=server_cpu,
        above=peak - before,
        whole_seconds=seconds - took["warming_seconds"],
        whole_cpu=cpu - took["warming_cpu_seconds"],
        whole_memory=peak,
    )


def _require_complete(contestant: Contestant, server: StoreServer, world: World) -> None:
    lengths = [
        blob["size"]
        for page in obstore.list(from_url(server.address.replace("{container}", "data")))
        for blob in page
    ]
    if lengths != [world.files.length] * world.files.count:
        raise RuntimeError(f"{contestant.name} left {len(lengths)} blobs of {sum(lengths)} bytes together")


def _measure(contestants: Sequence[Contestant], store: str, world: World, runs: int) -> dict[str, Run]:
    """Let everybody copy `runs` times, every time another one first; gives the median of each figure."""
    taken: dict[str, list[Run]] = {each.name: [] for each in contestants}
    with Progress(transient=True) as progress:
        turns = progress.add_task(f"{world.files.name}, {store}", total=runs * len(contestants))
        for number in range(runs):
            first = number % len(contestants)
            for each in (*contestants[first:], *contestants[:first]):
                taken[each.name].append(_copy(each, store, world))
                progress.advance(turns)
    return {name: _median(of_one) for name, of_one in taken.items()}


def _median(runs: Sequence[Run]) -> Run:
    return Run(**{name: median(getattr(run, name) for run in runs) for name in Run.__slots__})


def _fastest(taken: Mapping[str, Run], names: Sequence[str]) -> Run | None:
    return min((taken[name] for name in names if name in taken), key=lambda run: run.seconds, default=None)


def _show(console: Console, title: str, world: World, taken: Mapping[str, Run]) -> None:
    rclone, bare = _fastest(taken, RCLONE), _fastest(taken, OBSTORE)
    floors = [taken[name] for name in FLOOR if name in taken]
    floor = max(floors, key=lambda run: run.seconds, default=None)
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    rate = (
        ("files/s", world.files.count) if world.files.name == "small" else ("MB/s", world.files.bytes_total / 1e6)
    )
    heads = ["seconds", rate[0], "x rclone", "x obstore", "x floor", "CPU", "server CPU", "above"]
    for head in (*heads, "whole: s", "CPU", "MiB"):
        table.add_column(head, justify="right")
    for name, run in taken.items():
        table.add_row(
            name,
            f"{run.seconds:.2f}",
            f"{rate[1] / run.seconds:,.0f}",
            *("" if peer is None else f"{peer.seconds / run.seconds:.2f}" for peer in (rclone, bare, floor)),
            f"{run.cpu:.2f}",
            f"{run.server_cpu:.2f}",
            f"{run.above:.0f}",
            f"{run.whole_seconds:.2f}",
            f"{run.whole_cpu:.2f}",
            f"{run.whole_memory:.0f}",
        )
    console.print(table)
    for name in OURS:
        if name in taken:
            for line in _goals(taken[name], rclone, bare, floor):
                console.print(f"  {name}: {line}", highlight=False)


def _goals(ours: Run, rclone: Run | None, bare: Run | None, floor: Run | None) -> Iterator[str]:
    """Tell of each goal whether it is met."""
    # In the folder a bare copy takes less time than any hash.
    other = (bare, 0.9, "bare obstore") if floor is None else (floor, 0.8, "the slower of cp and md5sum")
    peers = ((rclone, 1.0, "rclone"), other)
    for peer, wanted, name in peers:
        if peer is not None:
            ratio = peer.seconds / ours.seconds
            yield f"{_told(met=ratio >= wanted)}  {ratio:.2f} x {name}, at least {wanted} wanted"
    if rclone is not None:
        met = _told(met=ours.cpu <= rclone.cpu)
        yield f"{met}  CPU {ours.cpu:.2f} s, at most rclone's {rclone.cpu:.2f} wanted"
    yield f"{_told(met=ours.above <= 256)}  {ours.above:.0f} MiB above, at most 256 wanted"


def _told(*, met: bool) -> str:
    return "met   " if met else "MISSED"


def _profile(store: str, world: World) -> None:
    """Print where Drivepost's time goes; as it is set, so that `DRIVEPOST_COPY_READS_BACK` counts."""
    _forget_copy(world)
    with _serving(store, world) as server:
        stores = {"DRIVEPOST_STORES": json.dumps({"account1": server.address})}
        command = [*_python("drivepost")(world, store, server.address), "--profile"]
        subprocess.run(command, env={**os.environ, **stores}, cwd=world.data, check=True)


def main() -> None:
    """Compare, set by set and store by store."""
    names = [each.name for each in CONTESTANTS]
    parser = argparse.ArgumentParser(description="The import of a drive beside rclone and others.")
    parser.add_argument("--runs", type=int, default=5, help="copies of each contestant, set and store")
    parser.add_argument("--files", nargs="+", choices=[each.name for each in SETS], help="by default both sets")
    parser.add_argument("--stores", nargs="+", choices=["folder", "azurite", "s3"], help="by default all")
    parser.add_argument("--only", nargs="+", choices=names, help="these contestants; by default all")
    parser.add_argument("--divide", type=int, default=1, help="so many times fewer small, or smaller large files")
    parser.add_argument("--profile", action="store_true", help="a profile of Drivepost in place of the figures")
    asked = parser.parse_args()
    console = Console(width=150)
    for files in SETS:
        if asked.files and files.name not in asked.files:
            continue
        with _world(_divided(files, asked.divide)) as world:
            for store in asked.stores or ("folder", "azurite", "s3"):
                title = f"{world.files.count} files of {world.files.length / 2**10:,.0f} KiB, {store}"
                if asked.profile:
                    console.rule(title)
                    _profile(store, world)
                    continue
                chosen = [
                    each for each in CONTESTANTS if store in each.stores and each.name in (asked.only or names)
                ]
                taken = _measure(chosen, store, world, asked.runs)
                _show(console, f"{title}: medians of {asked.runs}", world, taken)


def _divided(files: Files, by: int) -> Files:
    if files.name == "small":
        return Files(files.name, files.count // by, files.length)
    return Files(files.name, files.count, files.length // by)


if __name__ == "__main__":
    main()
