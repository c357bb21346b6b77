"""A cancel through HTTP while Prefect is down; test_up.py takes whole lives through HTTP."""

from pathlib import Path

import pytest

from flows.advance_jobs import advance_jobs
from models.database import writing
from models.lifecycle import JobState
from tests.builders import job_in
from tests.deployments.api.conftest import serving


@pytest.mark.usefixtures("plain_acts", "prefect")
def test_a_cancel_while_prefect_is_down_is_answered_and_carried_out_later(
    any_database: str, tmp_path: Path
) -> None:
    """The answer is the same; the next advance-jobs, which finds it again, makes the job Completed."""
    with writing() as session:
        job_id = job_in(session, JobState.SHIPPING)
    with serving(tmp_path, PREFECT_API_URL="http://127.0.0.1:9/api") as server, server.client() as client:
        body = {"properties": {"cancelRequested": True}}
        answers = [client.patch(server.job_url("job1"), json=body) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert [answer.json()["properties"]["cancelRequested"] for answer in answers] == [True, True]
        assert advance_jobs.fn().is_completed()
        assert client.get(server.job_url("job1")).json()["properties"]["state"] == "Completed"
    assert str(job_id) not in server.log.read_text("utf-8")
