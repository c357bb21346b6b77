"""Many ids in one statement, on both databases alike."""

from uuid import uuid4

import pytest
from sqlmodel import col, select

from models.batches import among
from models.database import writing
from models.runs import JobRun


@pytest.mark.parametrize("count", [0, 1, 3, 2_000])
def test_rows_of_some_ids_are_found_and_no_others(any_database: str, count: int) -> None:
    """As many as are asked for; of none, none."""
    jobs = [uuid4() for _ in range(count + 1)]
    with writing() as session:
        session.add_all(JobRun(job_id=job_id, flow_run_id=uuid4()) for job_id in jobs)
    with writing() as session:
        found = session.exec(
            select(JobRun.job_id).where(among(session.connection(), col(JobRun.job_id), jobs[:count]))
        ).all()
    assert sorted(found) == sorted(jobs[:count])
