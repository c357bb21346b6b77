"""enforce-retention deletes what is over, and its dry run lists just that."""

import re
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import pytest
from sqlmodel import select

from flows.enforce_retention import enforce_retention
from models.database import database_time, reading, writing
from models.jobs import Job
from models.lifecycle import JobState
from tests.builders import age, job_in

pytestmark = pytest.mark.usefixtures("plain_acts")

DUE: Final = {JobState.CREATING: 14, JobState.COMPLETED: 90, JobState.CLOSED: 90}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, str]]]:
    """Collect the tables that the flow shows in Prefect's UI."""
    tables: dict[str, list[dict[str, str]]] = {}

    def show(key: str, rows: list[dict[str, str]], _description: str) -> None:
        tables[key] = rows

    monkeypatch.setattr("flows.enforce_retention._show", show)
    return tables


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch, any_database: str) -> datetime:
    """Let both runs look from one moment."""
    with reading() as session:
        at = database_time(session)
    monkeypatch.setattr("flows.enforce_retention.tell_time", lambda: at)
    return at


def make_jobs(now: datetime) -> tuple[set[UUID], set[UUID]]:
    """Make jobs in every state, a microsecond before, at and after their time, and long after: due, and not."""
    due, kept = set[UUID](), set[UUID]()
    for state in JobState:
        for place, past in enumerate([timedelta(microseconds=-1), timedelta(), timedelta(days=400)]):
            with writing() as session:
                job_id = job_in(session, state, f"{state}-{place}", now)
            age(job_id, timedelta(days=DUE.get(state, 90)) + past)
            (due if state in DUE and place else kept).add(job_id)
    return due, kept


def there() -> set[UUID]:
    """Read the ids of all jobs."""
    with reading() as session:
        return set(session.exec(select(Job.id)).all())


def count(message: str | None) -> int:
    """Read the first figure of a message."""
    found = re.search(r"[\d,]+", message or "")
    assert found
    return int(found[0].replace(",", ""))


def test_a_dry_run_lists_exactly_what_a_real_run_deletes(now: datetime, shown: dict[str, Any]) -> None:
    """By opaque ids, and deletes nothing; the real run deletes just these; a second one deletes nothing."""
    due, kept = make_jobs(now)
    listed = enforce_retention.fn(dry_run=True)
    assert listed.is_completed()
    assert count(listed.message) == len(due)
    rows = shown["retention-dry-run"]
    assert {UUID(row["job"]) for row in rows} == due
    assert len(rows) == len(due)
    assert all(row.keys() == {"job", "state", "reason", "late"} for row in rows)
    assert there() == due | kept, "a dry run deletes nothing"
    assert count(enforce_retention.fn().message) == len(due)
    assert there() == kept
    assert count(enforce_retention.fn().message) == 0
    assert enforce_retention.fn(dry_run=True).message == "would delete 0 jobs; nothing was deleted"
    assert there() == kept


@pytest.mark.parametrize(("batch_rows", "task_rows"), [(1, 1), (2, 3), (3, 2), (100, 2), (1, 100)])
def test_it_deletes_all_in_whatever_batches(
    now: datetime,
    shown: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    batch_rows: int,
    task_rows: int,
) -> None:
    """More than one transaction, more than one task."""
    monkeypatch.setenv("DRIVEPOST_RETENTION_BATCH_ROWS", str(batch_rows))
    monkeypatch.setattr("flows.enforce_retention._ROWS_PER_TASK", task_rows)
    due, kept = make_jobs(now)
    assert count(enforce_retention.fn().message) == len(due)
    assert there() == kept
    report = {row["what"]: row["figure"] for row in shown["retention-report"]}
    assert report["deleted in all"] == str(len(due))
    assert report["deleted, 14 days without an update"] == "2"
    assert report["deleted, 90 days Completed"] == report["deleted, 90 days Closed"] == "2"
    assert report["late, at most"] == f"{400 * 24} h 00 min 00 s"


def test_a_dry_run_says_when_it_does_not_list_all(
    now: datetime, shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list has an end, and the line says so."""
    monkeypatch.setattr("flows.enforce_retention._LISTED_MAX", 2)
    make_jobs(now)
    message = enforce_retention.fn(dry_run=True).message or ""
    assert message.startswith("would delete 6 jobs; the 2 longest overdue are listed")
    assert len(shown["retention-dry-run"]) == 2
