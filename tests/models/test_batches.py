"""Many ids and many rows in one statement, on both databases alike."""

from typing import Final
from uuid import UUID, uuid4

import pytest
from sqlmodel import SQLModel, col, select

from models.batches import among, delete_and_count, insert_rows
from models.database import writing
from models.runs import JobRun
from models.spent_requests import SpentRequest
from tests.builders import NOON

RUNS: Final = SQLModel.metadata.tables["job_run"]


def some_runs(counts: list[int]) -> list[UUID]:
    """Write down so many runs of each of some jobs; gives the jobs."""
    jobs = [uuid4() for _ in counts]
    rows = [
        {"job_id": job_id, "flow_run_id": uuid4(), "is_job_deleted": bool(run % 2)}
        for job_id, count in zip(jobs, counts, strict=True)
        for run in range(count)
    ]
    with writing() as session:
        insert_rows(session.connection(), JobRun, rows)
    return jobs


@pytest.mark.parametrize("count", [0, 1, 3, 2_000])
def test_rows_of_some_ids_are_found_and_no_others(any_database: str, count: int) -> None:
    """As many as are asked for; of none, none."""
    jobs = some_runs([1] * (count + 1))
    with writing() as session:
        found = session.exec(
            select(JobRun.job_id).where(among(session.connection(), col(JobRun.job_id), jobs[:count]))
        ).all()
    assert sorted(found) == sorted(jobs[:count])


def test_rows_that_go_are_counted_by_id(any_database: str) -> None:
    """Ids without rows are left out, and rows of other ids stay."""
    jobs = some_runs([3, 1, 0, 2])
    with writing() as session:
        gone = delete_and_count(session.connection(), RUNS, RUNS.columns["job_id"], jobs[:3])
        assert dict(gone) == {jobs[0]: 3, jobs[1]: 1}
        assert session.exec(select(JobRun.job_id)).all() == [jobs[3]] * 2


def test_rows_come_back_as_they_were_given(any_database: str) -> None:
    """Ids, moments and truths; of no rows, none."""
    some_runs([2])
    row = {"id": uuid4(), "at": NOON}
    with writing() as session:
        insert_rows(session.connection(), SpentRequest, [row])
        insert_rows(session.connection(), SpentRequest, [])
    with writing() as session:
        assert session.exec(select(SpentRequest.id, SpentRequest.at)).all() == [(row["id"], NOON)]
        assert sorted(session.exec(select(JobRun.is_job_deleted)).all()) == [False, True]
