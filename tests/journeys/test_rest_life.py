"""Whole lives through HTTP: the published client creates, ships, cancels, deletes; flows do the rest."""

from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from azure.mgmt.storageimportexport import StorageImportExport
from azure.mgmt.storageimportexport.models import ErrorResponseException, PutJobParameters, UpdateJobParameters
from msrest.authentication import BasicTokenAuthentication

from deployments.api.tokens import read_local_token
from flows.advance_jobs import advance_jobs
from models.database import reading, writing
from models.jobs import read_named_job
from models.lifecycle import JobState
from models.settings import Settings
from tests.builders import job_in, job_request, mount_drive, rows_of, stored
from tests.deployments.api.conftest import serving
from tests.journeys.one_machine import PrefectApi, awaited, environment_of, started

GROUP = "g1"


def parameters(name: str, **properties: Any) -> PutJobParameters:
    """Give the published client a body of Create Job."""
    made: PutJobParameters = PutJobParameters.from_dict(job_request(name, **properties)["body"])
    return made


def test_a_whole_life_goes_through_http(sqlite: str, data_directory: Path, prefect_tables: Path) -> None:
    """An import to its end, a cancel, and two deletions that leave nothing in Prefect, all on one machine."""
    environment = environment_of(data_directory, prefect_tables)
    prefect = PrefectApi(environment)
    entry = mount_drive(data_directory, "SERIAL1", {"a.txt": b"as it was posted"}).drive_list_entry()
    with started(environment):
        address = (data_directory / "logs" / "api.address").read_text("utf-8")
        token = read_local_token(Settings().token_file)
        client = StorageImportExport(BasicTokenAuthentication({"access_token": token}), "s1", base_url=address)
        operator = httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=30)

        created = client.jobs.create("import1", GROUP, parameters("import1", driveList=[entry]))
        assert created.properties.state == "Creating"
        client.jobs.update("import1", GROUP, UpdateJobParameters(state="Shipping"))
        job_id = job_id_of("import1")
        assert prefect.state_after("check-in-drives", job=str(job_id))["type"] == "COMPLETED"
        awaited(lambda: client.jobs.get("import1", GROUP).properties.state == "Packaging")
        shown = client.jobs.get("import1", GROUP).properties
        assert (shown.percent_complete, shown.drive_list[0].copy_status) == (100, "Completed")
        assert b"as it was posted" in stored(data_directory).values()
        package = {"carrierName": "FedEx", "trackingNumber": "BACK1", "driveCount": 1, "shipDate": "2026-11-22"}
        sent = operator.post(f"/operator/jobs/{job_id}/returnPackage", json={"returnPackage": package})
        assert sent.status_code == 200, sent.text
        assert client.jobs.get("import1", GROUP).properties.state == "Completed"

        client.jobs.create("cancelled1", GROUP, parameters("cancelled1"))
        client.jobs.update("cancelled1", GROUP, UpdateJobParameters(state="Shipping"))
        answer = client.jobs.update("cancelled1", GROUP, UpdateJobParameters(cancel_requested=True))
        assert answer.properties.cancel_requested
        awaited(lambda: client.jobs.get("cancelled1", GROUP).properties.state == "Completed")

        ids = [job_id, job_id_of("cancelled1")]
        for name in ("import1", "cancelled1"):
            client.jobs.delete(name, GROUP)
            with pytest.raises(ErrorResponseException) as gone:
                client.jobs.get(name, GROUP)
            assert gone.value.error.code == "ResourceNotFound"
        with reading() as session:
            assert [rows_of(session, each)["job"] for each in ids] == [0, 0]
        awaited(lambda: not any(prefect.tells_of(each) for each in ids))


def job_id_of(name: str) -> UUID:
    """Find the opaque id of a job of subscription s1 and group g1."""
    with reading() as session:
        return read_named_job(session, "s1", GROUP, name).id


def test_a_cancel_while_prefect_is_down_is_answered_and_carried_out_later(
    any_database: str, tmp_path: Path, plain_acts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is the same; the next advance-jobs makes the job Completed."""
    with writing() as session:
        job_id = job_in(session, JobState.SHIPPING)
    with serving(tmp_path, PREFECT_API_URL="http://127.0.0.1:9/api") as server, server.client() as client:
        body = {"properties": {"cancelRequested": True}}
        answers = [client.patch(server.job_url("job1"), json=body) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert [answer.json()["properties"]["cancelRequested"] for answer in answers] == [True, True]
        # No act that speaks with Prefect finds anything to do.
        monkeypatch.setattr("flows.advance_jobs.hide_names", lambda: 0)
        monkeypatch.setattr("flows.advance_jobs.forget_runs", lambda *_: 0)
        assert advance_jobs.fn().is_completed()
        assert client.get(server.job_url("job1")).json()["properties"]["state"] == "Completed"
    assert str(job_id) not in server.log.read_text("utf-8")
