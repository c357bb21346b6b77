"""Work follows what is due, not what is there: no query of a sweep or of advance-jobs reads a big table in full.

Among 20,000 jobs each act is told twice: by the database's own plan of each of its statements, and by what it
really read.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import event, inspect, text
from sqlmodel import Session, col, select

from models import database
from models.alerts import alerts_to_send, jobs_to_tell_of
from models.bay import tell_overdue_packages
from models.copies import copies_under_way, due_copies, lost_cancels
from models.database import engine
from models.deletion import count_expired_jobs, delete_expired_jobs, delete_job, expired_jobs
from models.erasure import due_erasures
from models.jobs import Job
from models.key_files import use_ring
from models.lifecycle import Actor, JobState
from models.receipts import close_receipts, finished_receipts
from models.runs import runs_to_forget, strike_run
from models.sealing_keys import follow
from models.settings import Settings
from models.tables import upgrade
from tests.benchmarks.many_jobs import Cohort, make_jobs, real_job
from tests.builders import NOON

DAY: Final = timedelta(days=1)
JOBS: Final = 20_000
ROWS: Final = 20
# Of each table that is large, at most so many rows may be read by one act: far fewer than it has.
ROWS_READ_MAX: Final = 2_000
# Steps of SQLite's machine; one that looks at every job takes more than two for each.
STEPS_MAX: Final = 40_000

TO_FORGET: Final = "INDEX ix_job_run_to_forget"
"""Has those alone that it is read for."""
LARGE: Final = frozenset({"job", "drive", "job_event", "package", "return_address", "return_shipping", "job_run"})


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def many_jobs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """20,000 jobs: most of them kept for a while yet, 200 due, a few of each kind that advance-jobs takes up."""
    folder = tmp_path_factory.mktemp("many-jobs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIVEPOST_DATA_DIRECTORY", str(folder))
        if request.param == "postgresql":
            patch.setenv("DRIVEPOST_DATABASE_URL", _new_database(request.getfixturevalue("postgresql_server")))
        _forget_database()
        upgrade(Settings().database)
        _fill()
        yield
        _forget_database()


def _new_database(server: str) -> str:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE plans")
    return server.replace("postgresql://", "postgresql+psycopg://").replace("/postgres?", "/plans?")


def _forget_database() -> None:
    database.engine().dispose()
    database.engine.cache_clear()
    use_ring(None)


def _fill() -> None:
    lease = {"copy_lease_until": NOON + timedelta(minutes=1), "copy_token": 1}
    lost = {"copy_lease_until": NOON - timedelta(hours=1), "copy_token": 1}
    cancelled = {"cancel_requested_at": NOON - DAY}
    erased = {"erasure_wished_at": NOON - 9 * DAY, "erased_at": NOON - 9 * DAY}
    wished = {"erasure_wished_at": NOON - DAY}
    made: Sequence[tuple[int, JobState, dict[str, Any]]] = (
        (JOBS, JobState.COMPLETED, {}),
        (JOBS // 10, JobState.COMPLETED, cancelled),
        (JOBS // 10, JobState.SHIPPING, {}),
        (JOBS // 50, JobState.CREATING, {}),
        (JOBS // 100, JobState.COMPLETED, erased),
        (ROWS, JobState.COMPLETED, wished),
        (ROWS, JobState.SHIPPING, cancelled),
        (ROWS, JobState.RECEIVED, {}),
        (ROWS, JobState.TRANSFERRING, lease),
        (ROWS, JobState.TRANSFERRING, lost),
        (ROWS, JobState.PACKAGING, {}),
    )
    cohorts = [
        Cohort(real_job(state, f"like{number}", NOON, **columns), count, NOON + DAY, NOON + 80 * DAY)
        for number, (count, state, columns) in enumerate(made)
    ]
    late = (JobState.COMPLETED, JobState.CLOSED, JobState.CREATING, JobState.SHIPPING)
    cohorts += [
        Cohort(real_job(state, f"late{state}", NOON - 99 * DAY), 3 * ROWS, NOON - 40 * DAY, NOON - 30 * DAY)
        for state in late
    ]
    make_jobs(cohorts)


def _close_all(session: Session) -> None:
    close_receipts(session, finished_receipts(session, ROWS), at=NOON)


def _delete_by_hand(session: Session) -> None:
    like = select(Job.id).where(col(Job.resource_group) == "g1", col(Job.state) == JobState.CREATING)
    delete_job(session, session.exec(like.limit(1)).one(), at=NOON, by=Actor.CUSTOMER)


ACTS: Final[dict[str, Callable[[Session], object]]] = {
    "choosing what is due": lambda session: expired_jobs(session, NOON, ROWS, lock=True),
    "counting what is due": lambda session: count_expired_jobs(session, NOON),
    "a batch of a sweep": lambda session: delete_expired_jobs(session, NOON, ROWS),
    "deletion by hand": _delete_by_hand,
    "runs to forget": lambda session: runs_to_forget(session, ROWS),
    "runs of one job to forget": lambda session: runs_to_forget(session, ROWS, uuid4()),
    "striking a run": lambda session: strike_run(session, uuid4()),
    "closing receipts": _close_all,
    "lost cancels": lambda session: lost_cancels(session, NOON, ROWS),
    "due copies": lambda session: due_copies(session, NOON, ROWS, 1_000),
    "copies under way": lambda session: copies_under_way(session, NOON),
    "overdue packages": lambda session: tell_overdue_packages(session, NOON, 3),
    "due erasures": lambda session: due_erasures(session, NOON, ROWS),
    "alerts to raise": lambda session: jobs_to_tell_of(session, NOON, 60, ROWS),
    "alerts to send": lambda session: alerts_to_send(session, NOON, ROWS),
}
"""Each act of a sweep and of advance-jobs that asks for jobs, and what goes with it."""


@contextmanager
def watched(act: Callable[[Session], object]) -> Iterator[tuple[Session, list[tuple[str, Any]]]]:
    """Do an act in a transaction that is undone; gives its session, and the statements with their values."""
    told: list[tuple[str, Any]] = []

    def note(*given: Any) -> None:
        statement, values = given[2:4]
        told.append((statement, values[0] if isinstance(values, list) else values))

    with Session(engine().execution_options(writes=True)) as session:
        follow(session)
        event.listen(engine(), "before_cursor_execute", note)
        try:
            act(session)
            session.flush()
        finally:
            event.remove(engine(), "before_cursor_execute", note)
        yield session, told
        session.rollback()


def full_scans(session: Session, statement: str, values: Any) -> list[str]:
    """Tell which large tables a statement would read in full, by the database's own plan."""
    if session.get_bind().dialect.name == "sqlite":
        rows = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        scans = [str(row[3]) for row in rows if row[3].startswith("SCAN") and row[3].split()[1] in LARGE]
        return [scan for scan in scans if not scan.endswith(TO_FORGET)]
    (plan,) = session.connection().exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values).one()
    return [
        str(node["Relation Name"])
        for node in nodes(plan[0]["Plan"])
        if node.get("Relation Name") in LARGE and node["Node Type"] == "Seq Scan"
    ]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Go through a plan of PostgreSQL, node by node."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


@pytest.mark.parametrize("name", ACTS)
def test_no_plan_reads_a_large_table_in_full(many_jobs: None, name: str) -> None:
    """Of every statement of each act, as the database explains it with its own statistics."""
    with watched(ACTS[name]) as (session, told):
        explained = [each for each in told if each[0].startswith(("SELECT", "UPDATE", "DELETE", "INSERT", "WITH"))]
        assert explained
        assert [full_scans(session, *each) for each in explained if full_scans(session, *each)] == []


def test_a_receipt_that_waits_for_its_runs_does_not_look_at_those_of_all_others(many_jobs: None) -> None:
    """After a large sweep a hundred thousand wait, and as many runs are to be forgotten."""
    with watched(lambda session: finished_receipts(session, ROWS)) as (session, told):
        ((statement, values),) = [each for each in told if "job_run" in each[0]]
        is_sqlite = session.get_bind().dialect.name == "sqlite"
        explain = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
        plan = str(session.connection().exec_driver_sql(f"{explain} {statement}", values).all())
        # PostgreSQL reads them once, and compares them with all receipts at once.
        assert "SEARCH job_run USING PRIMARY KEY (job_id=?)" in plan if is_sqlite else "Anti Join" in plan


@contextmanager
def steps_counted(session: Session) -> Iterator[list[int]]:
    """Count how many steps SQLite takes, by hundreds; those of its cascades are among them."""
    steps = [0]

    def count() -> int:
        steps[0] += 100
        return 0

    connection: Any = session.connection().connection.driver_connection
    connection.set_progress_handler(count, 100)
    yield steps
    connection.set_progress_handler(None, 0)


def rows_read(session: Session) -> int:
    """Tell how many rows PostgreSQL has read in this transaction; those that its cascades read are among them."""
    read = text("SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables")
    return int(session.connection().scalar(read) or 0)


def work_of(session: Session, act: Callable[[Session], object]) -> int:
    """Do an act; tells how many steps SQLite took for it, or how many rows PostgreSQL read."""
    if session.get_bind().dialect.name == "sqlite":
        with steps_counted(session) as steps:
            act(session)
            session.flush()
        return steps[0]
    before = rows_read(session)
    act(session)
    session.flush()
    return rows_read(session) - before


@contextmanager
def undone() -> Iterator[Session]:
    """Give a session all of which is undone."""
    with Session(engine().execution_options(writes=True)) as session:
        follow(session)
        yield session
        session.rollback()


@pytest.mark.parametrize("name", ACTS)
def test_no_act_does_more_than_follows_from_what_it_takes_up(many_jobs: None, name: str) -> None:
    """What it really reads is far less than one look at every job; a plan that looks good may do more."""
    with undone() as session:
        work = work_of(session, ACTS[name])
        assert work <= (STEPS_MAX if session.get_bind().dialect.name == "sqlite" else ROWS_READ_MAX)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("lost cancels", "UPDATE job SET state = 'Shipping', expires_at = NULL WHERE state = 'Completed'"),
        (
            "alerts to raise",
            "UPDATE job SET state_since = '2026-01-01 00:00:00.000000' WHERE state = 'Completed'",
        ),
    ],
)
def test_an_act_does_no_more_where_many_more_are_like_those_it_looks_for(
    many_jobs: None, name: str, change: str
) -> None:
    """Twenty thousand more on their way without a cancel; as many that ended long ago, and have no drive here."""
    with undone() as session:
        few = work_of(session, ACTS[name])
        no_cancel = f"{change} AND cancel_requested_at IS NULL"
        assert session.connection().exec_driver_sql(no_cancel).rowcount >= JOBS
        assert work_of(session, ACTS[name]) <= 1.2 * few + 200


def test_every_row_that_hangs_on_another_is_found_by_an_index(many_jobs: None) -> None:
    """Else a cascade would read its table in full for each row that goes."""
    with engine().connect() as connection:
        known = inspect(connection)
        for table in known.get_table_names():
            indexed = [known.get_pk_constraint(table)["constrained_columns"]]
            # An index of some rows alone is none that a cascade could use.
            indexed += [
                [str(name) for name in index["column_names"]]
                for index in known.get_indexes(table)
                if not any(name.endswith("_where") for name in index.get("dialect_options", {}))
            ]
            for key in known.get_foreign_keys(table):
                columns = key["constrained_columns"]
                assert any(set(index[: len(columns)]) == set(columns) for index in indexed), (table, columns)
