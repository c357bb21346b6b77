"""Very many jobs: like a few real ones, copied by the database itself, so that a million take minutes.

Every value but ids, names and moments is that of the job they are like, sealed ones too: those are opened as
any other, and are as long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    Uuid,
    case,
    cast,
    func,
    insert,
    literal,
    select,
)
from sqlmodel import SQLModel

from models.columns import UtcDateTime
from models.database import engine, writing
from models.lifecycle import JobState
from models.runs import record_run
from tests.builders import DRIVE, job_in, set_columns

_MADE: Final = Table(
    "many_jobs",
    MetaData(),
    Column("n", Integer, primary_key=True),
    Column("id", Uuid, nullable=False),
    Column("like", Uuid, nullable=False),
    Column("moment", UtcDateTime, nullable=False),
)
_ROWS: Final = 20_000
_FAST: Final = {
    "sqlite": ("PRAGMA foreign_keys = OFF", "PRAGMA synchronous = OFF", "PRAGMA cache_size = -2000000"),
    "postgresql": ("SET session_replication_role = replica", "SET synchronous_commit = off"),
}
"""Nothing checks that the rows fit together, and nothing waits for the disk; on this one connection."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Jobs that are alike: how many, and between which moments each is due, or came so far where none is kept."""

    like: UUID
    count: int
    first: datetime
    last: datetime


def real_job(state: JobState, name: str, at: datetime, **columns: Any) -> UUID:
    """Make a job by its ordinary moves: 3 drives, an address, a carrier, a package, up to 6 events, a run.

    Args:
        state: where it comes to.
        name: of the job.
        at: when all that happened.
        columns: of the job, written past every rule.
    """
    drives = [{**DRIVE, "driveId": f"SERIAL-{n:08}", "bitLockerKey": "238810-" * 7 + "238810"} for n in range(3)]
    with writing() as session:
        job_id = job_in(session, state, name, at, driveList=drives)
        record_run(session, job_id, uuid4())
        if columns:
            set_columns(session, job_id, **columns)
        return job_id


def make_jobs(cohorts: Sequence[Cohort], seed: int = 0) -> None:
    """Make the jobs of all cohorts, mixed; a seed tells names, ids, moments and order, and is used once."""
    rows = _rows(cohorts, Random(seed))  # noqa: S311  the same each time is what is wanted
    with engine().connect() as connection:
        for statement in _FAST[connection.dialect.name]:
            connection.connection.cursor().execute(statement)  # SQLite takes it outside of transactions alone
        _MADE.create(connection)
        for start in range(0, len(rows), _ROWS):
            connection.execute(insert(_MADE), rows[start : start + _ROWS])
        for table in SQLModel.metadata.sorted_tables:
            if table.name == "job" or "job_id" in table.columns:
                _copy(connection, table, seed)
        _MADE.drop(connection)
        connection.commit()
        if connection.dialect.name == "postgresql":
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM (ANALYZE, FREEZE)")
    engine().dispose()


def _rows(cohorts: Sequence[Cohort], random: Random) -> list[dict[str, Any]]:
    order = [cohort for cohort in cohorts for _ in range(cohort.count)]
    random.shuffle(order)
    return [
        {
            "n": number,
            "id": UUID(int=random.getrandbits(128), version=4),
            "like": cohort.like,
            "moment": cohort.first + (cohort.last - cohort.first) * random.random(),
        }
        for number, cohort in enumerate(order)
    ]


def _copy(connection: Connection, table: Table, seed: int) -> None:
    """Give every job a copy of the rows that the job it is like has in a table."""
    of_job = table.c["id" if table.name == "job" else "job_id"]
    columns = [column for column in table.columns if column is not table.autoincrement_column]
    random_uuid: ColumnElement[Any] = func.gen_random_uuid()
    if connection.dialect.name == "sqlite":
        random_uuid = func.lower(func.hex(func.randomblob(16)))
    own = {of_job.name: _MADE.c.id, **(_columns_of_job(table, seed) if table.name == "job" else {})}

    def value(column: Column[Any]) -> ColumnElement[Any]:
        is_random = isinstance(column.type, Uuid) and (column.primary_key or column.unique)
        return own.get(column.name, random_uuid if is_random else column)

    copied = select(*map(value, columns)).join_from(_MADE, table, of_job == _MADE.c.like).order_by(_MADE.c.n)
    connection.execute(insert(table).from_select(columns, copied, include_defaults=False))


def _columns_of_job(job: Table, seed: int) -> dict[str, ColumnElement[Any]]:
    name = literal(f"job{seed}-") + cast(_MADE.c.n, String)
    ends = job.c.expires_at.is_not(None)
    return {
        "resource_group": literal("many"),
        "name": name,
        "resource_key": func.lower(job.c.subscription_id + literal("/many/") + name),
        "expires_at": case((ends, _MADE.c.moment)),
        "state_since": case((ends, job.c.state_since), else_=_MADE.c.moment),
    }
