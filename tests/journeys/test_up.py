"""`drivepost up`: whole lives through HTTP, runs by the clock and by hand, Ctrl-C ends it, and it starts again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from azure.mgmt.storageimportexport import StorageImportExport
from azure.mgmt.storageimportexport.models import ErrorResponseException, PutJobParameters, UpdateJobParameters
from msrest.authentication import BasicTokenAuthentication

from deployments.api.tokens import read_local_token
from models.database import reading
from models.jobs import find_job, read_named_job
from models.settings import Settings
from tests.builders import job_request, mount_drive, rows_of, stored
from tests.journeys.one_machine import Machine, PrefectApi, awaited, machine_in, processes_in, started

GROUP = "g1"


def parameters(name: str, **properties: Any) -> PutJobParameters:
    """Give the published client a body of Create Job."""
    made: PutJobParameters = PutJobParameters.from_dict(job_request(name, **properties)["body"])
    return made


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, prefect_tables: Path) -> Iterator[Machine]:
    """Start all of Drivepost on one machine; the test that kills it comes last."""
    with machine_in(tmp_path_factory.mktemp("up"), prefect_tables) as started_machine:
        yield started_machine


def test_a_whole_life_goes_through_http(machine: Machine) -> None:
    """An import to its end, a cancel, and two deletions that leave nothing in Prefect, all on one machine."""
    _, environment = machine
    data_directory = Path(environment["DRIVEPOST_DATA_DIRECTORY"])
    prefect = PrefectApi(environment)
    entry = mount_drive(data_directory, "SERIAL1", {"a.txt": b"as it was posted"}).drive_list_entry()
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


def test_everything_runs_on_one_machine_and_goes_on_after_a_restart(machine: Machine) -> None:
    """By the clock and by hand; killed, started over in the background, and ended by SIGINT within ten seconds."""
    process, environment = machine
    data_directory = Path(environment["DRIVEPOST_DATA_DIRECTORY"])
    api = PrefectApi(environment)
    (data_directory / "intake" / "one.json").write_text(json.dumps(job_request("one")), "utf-8")
    created = api.state_after("create-job")
    assert created["message"].startswith("created 1: ")
    with reading() as session:
        job_id = find_job(session, "s1/g1/one")
    refused = api.state_after("return-drives", job=str(job_id))
    assert refused["type"] == "FAILED"
    assert refused["message"].startswith("JobStateConflict: a Creating job cannot take")

    second = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "up"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert "SettingsInvalid: DRIVEPOST_DATA_DIRECTORY: 'drivepost up' runs there already" in second.stderr

    scheduled = awaited(lambda: api.ended_runs("advance-jobs"))
    assert {run["state"]["type"] for run in scheduled} == {"COMPLETED"}

    # Killed without a word, it leaves its processes behind; the next start ends them and takes their place.
    process.kill()
    process.wait()
    assert processes_in(str(data_directory))
    # A sweep that was killed has taken the one place that its deployment has.
    for flow in ("advance-jobs", "enforce-retention"):
        api.take_place(flow)

    with started(environment, in_background=True) as process:
        known = {run["id"] for run in api.ended_runs("advance-jobs")}
        assert api.state_after("enforce-retention")["type"] == "COMPLETED"
        assert api.state_after("delete-job", job=str(job_id), confirm=str(job_id))["type"] == "COMPLETED"
        awaited(
            lambda: any(
                run["id"] not in known and run["state"]["type"] == "COMPLETED"
                for run in api.ended_runs("advance-jobs")
            )
        )
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.wait(10) == 0
        print(f"Ctrl-C ended it in {time.monotonic() - began:.1f} s")  # noqa: T201  a figure for the reader
    assert not processes_in(str(data_directory))


def test_an_impossible_setting_stops_the_start_with_one_line(data_directory: Path) -> None:
    """The text names the variable, not the traceback."""
    refused = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "up"],
        env={**os.environ, "DRIVEPOST_COPY_LEASE_SECONDS": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith("SettingsInvalid: DRIVEPOST_COPY_LEASE_SECONDS: ")
    assert "Traceback" not in refused.stderr
