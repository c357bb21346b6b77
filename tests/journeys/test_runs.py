"""Flows as runs of a real Prefect server: how they end, what they tell, and how they are forgotten."""

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.logging.handlers import APILogWorker
from prefect.states import Cancelled
from sqlmodel import col, select

from deployments.serving import deployments
from flows.advance_jobs import advance_jobs
from flows.cancel_job import cancel_job
from flows.check_in_drives import check_in_drives
from flows.create_job import create_job
from flows.delete_job import delete_job
from flows.enforce_retention import enforce_retention
from models.database import database_time, reading, writing
from models.jobs import Job, find_job, read_job
from models.lifecycle import JobState, JobType
from models.runs import JobRun
from models.settings import Settings
from tasks import run_history
from tests.builders import age, job_in, job_request

pytestmark = pytest.mark.usefixtures("sqlite")


def _made(state: JobState, name: str = "job1") -> UUID:
    with writing() as session:
        return job_in(session, state, name, database_time(session))


def _run(client: SyncPrefectClient, flow: Flow[..., Any], **parameters: object) -> FlowRun:
    """Run a flow to its end; gives its run as Prefect keeps it."""
    ended: Any = flow(**parameters, return_state=True)
    return client.read_flow_run(ended.state_details.flow_run_id)


def _deployed(name: str) -> UUID:
    (described,) = [each for each in deployments(Settings()) if each.name == name]
    deployment_id = described.apply()
    assert isinstance(deployment_id, UUID)
    return deployment_id


def _log_of(client: SyncPrefectClient, run: FlowRun) -> list[str]:
    """Read a run's log once its last lines have come."""
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
    give_up = time.monotonic() + 15
    told = run.state.message if run.state else None
    while time.monotonic() < give_up:
        lines = [log.message for log in client.read_logs(log_filter=wanted)]
        if told in lines:
            return lines
        time.sleep(0.2)
    raise AssertionError("the outcome never came into the log")


def test_a_refusal_ends_the_run_as_failed_with_one_line_and_no_traceback(prefect: SyncPrefectClient) -> None:
    """An operator reads code, fact and way out."""
    job_id = _made(JobState.PACKAGING)
    run = _run(prefect, cancel_job, job=str(job_id))
    assert run.state is not None
    assert run.state.is_failed()
    assert run.state.message == (
        "JobStateConflict: a Packaging job cannot take 'cancel'; "
        "its copy is over: wait until the drives are sent back"
    )
    lines = _log_of(prefect, run)
    assert not [line for line in lines if "Traceback" in line]
    assert all("\n" not in line for line in lines)


def test_a_run_is_named_by_the_opaque_id_alone(prefect: SyncPrefectClient) -> None:
    """A job named by subscription, group and name does not give the run its name."""
    job_id = _made(JobState.COMPLETED, "secret-plans")
    run = _run(prefect, check_in_drives, job="s1/g1/SECRET-plans")
    assert run.name == f"check-in-drives {job_id.hex[:8]}"
    assert not [tag for tag in run.tags if "secret" in tag]


def test_a_run_for_no_job_does_not_keep_the_name_it_was_given(prefect: SyncPrefectClient) -> None:
    """The name may be that of a job that is gone."""
    run = _run(prefect, cancel_job, job="s1/g1/gone-long-ago")
    assert run.state is not None
    assert str(run.state.message).startswith("ResourceNotFound: there is no such job")
    assert run.parameters == {}
    assert "gone-long-ago" not in run.name


def test_a_deleted_job_leaves_no_run_log_or_artifact(
    prefect: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of the flows that worked on it, nor of the dry run that listed it, nor of the delete itself."""
    monkeypatch.setattr(run_history, "_LAST_WORDS", timedelta(0))
    job_id, other_id = _made(JobState.COMPLETED), _made(JobState.COMPLETED, "other")
    age(job_id, timedelta(days=90))
    runs = [
        _run(prefect, check_in_drives, job=str(job_id)),
        _run(prefect, cancel_job, job="s1/g1/job1"),
        _run(prefect, enforce_retention, dry_run=True),
    ]
    kept = _run(prefect, check_in_drives, job=str(other_id))
    for run in runs:
        _log_of(prefect, run)
    artifacts = prefect.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[runs[2].id]))
    )
    assert str(job_id) in str([artifact.data for artifact in artifacts])

    # Nobody's last words are to come after they have gone.
    APILogWorker.drain_all(timeout=10)
    deletion = _run(prefect, delete_job, job="s1/g1/job1", confirm="s1/g1/job1")
    assert deletion.parameters == {}
    assert deletion.state is not None
    assert str(job_id) not in str(deletion.state.message)
    APILogWorker.drain_all(timeout=10)
    _run(prefect, advance_jobs)

    of_run = [run.id for run in (*runs, deletion)]
    with pytest.raises(ObjectNotFound):
        prefect.read_flow_run(deletion.id)
    left = {run.id for run in prefect.read_flow_runs(limit=200)}
    assert not left & set(of_run)
    assert kept.id in left
    assert not prefect.read_logs(log_filter=LogFilter(flow_run_id=LogFilterFlowRunId(any_=of_run)))
    of_runs = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=of_run))
    assert not prefect.read_artifacts(artifact_filter=of_runs)
    with reading() as session:
        assert not session.exec(select(JobRun).where(col(JobRun.job_id) == job_id)).all()


def test_a_run_that_never_began_does_not_keep_a_jobs_names(prefect: SyncPrefectClient) -> None:
    """It is on no list of the job's runs, and would outlive it."""
    deployment_id = _deployed("cancel-job")
    runs = [
        prefect.create_flow_run_from_deployment(deployment_id, parameters={"job": named})
        for named in ("s1/g1/never-begun", str(uuid4()))
    ]
    for run in runs:
        prefect.set_flow_run_state(run.id, Cancelled(), force=True)
    _run(prefect, advance_jobs)
    assert prefect.read_flow_run(runs[0].id).parameters == {}
    assert prefect.read_flow_run(runs[1].id).parameters == runs[1].parameters


def test_a_run_that_is_still_telling_is_forgotten_later(prefect: SyncPrefectClient) -> None:
    """The last lines of its log may be on their way; they would outlive it."""
    job_id = _made(JobState.COMPLETED)
    run = _run(prefect, check_in_drives, job=str(job_id))
    _run(prefect, delete_job, job=str(job_id), confirm=str(job_id))
    assert prefect.read_flow_run(run.id).id == run.id


def test_retention_reports_what_it_deleted_without_an_id(prefect: SyncPrefectClient) -> None:
    """By state and reason, how late, how long."""
    due, young = _made(JobState.COMPLETED), _made(JobState.CLOSED, "young")
    age(due, timedelta(days=91))
    run = _run(prefect, enforce_retention)
    assert run.state is not None
    assert str(run.state.message).startswith("deleted 1 jobs")
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    (report,) = prefect.read_artifacts(artifact_filter=wanted)
    assert report.key == "retention-report"
    assert "deleted, 90 days Completed" in str(report.data)
    assert "24 h 00 min" in str(report.data)
    assert str(due) not in str(report.data)
    with reading() as session:
        assert session.get(Job, due) is None
        assert session.get(Job, young) is not None


def test_create_job_tells_the_new_id_and_its_run_goes_with_the_job(
    prefect: SyncPrefectClient, data_directory: Path
) -> None:
    """An operator needs the id; a deletion needs the run."""
    (data_directory / "intake" / "request-1.json").write_text(json.dumps(job_request()), "utf-8")
    run = _run(prefect, create_job, request_file="request-1.json")
    with reading() as session:
        job_id = find_job(session, "s1/g1/job1")
        assert session.exec(select(JobRun.flow_run_id).where(col(JobRun.job_id) == job_id)).all() == [run.id]
    assert run.state is not None
    assert run.state.message == f"created 1: {job_id}"


@pytest.mark.parametrize("wrong", ["", "job1", "s1/g1", "s1/g1/1job", "DROP TABLE job", str(UUID(int=0xABC))[:-1]])
def test_the_form_refuses_what_names_no_job(prefect: SyncPrefectClient, wrong: str) -> None:
    """The deployment's schema is the first to look."""
    deployment_id = _deployed("delete-job")
    with pytest.raises(PrefectHTTPStatusError, match=r"409|422"):
        prefect.create_flow_run_from_deployment(deployment_id, parameters={"job": wrong})


@pytest.mark.parametrize(
    ("flow", "parameters"),
    [
        (cancel_job, {"job": "Ada Example, 1 Road"}),
        (create_job, {"request_file": "../ada.json"}),
        (enforce_retention, {"dry_run": "Ada Example"}),
    ],
)
def test_a_wrong_value_past_the_form_ends_in_one_line_that_does_not_repeat_it(
    prefect: SyncPrefectClient, flow: Flow[..., Any], parameters: dict[str, str]
) -> None:
    """Prefect would keep the value in parameters, state and log."""
    run = _run(prefect, flow, **parameters)
    assert run.state is not None
    assert run.state.is_failed()
    assert str(run.state.message).startswith(f"InvalidRequestContent: {next(iter(parameters))}: ")
    assert run.parameters == {}
    told = [str(run.state.message), run.name, *_log_of(prefect, run)]
    assert not [line for line in told if "\n" in line or "ada" in line.lower()]


def test_a_copy_is_started_once_while_its_run_waits(prefect: SyncPrefectClient) -> None:
    """advance-jobs finds a due copy every minute; one run of it is enough, of the flow for the job's type."""
    imports, exports = _deployed("import-drives"), _deployed("export-blobs")
    job_ids = [_made(JobState.RECEIVED), _made(JobState.RECEIVED, "second"), _made(JobState.RECEIVED, "third")]
    elsewhere = uuid4()
    due = list(zip(job_ids, (JobType.IMPORT, JobType.EXPORT, JobType.IMPORT), strict=True))
    assert run_history.start_copies.fn(due, [elsewhere], 3, 60) == job_ids[:2]
    assert run_history.start_copies.fn(due, [elsewhere], 3, 60) == []
    assert run_history.start_copies.fn(due, [], 2, 60) == []
    assert run_history.start_copies.fn(due, [], 3, 60) == job_ids[2:]
    started = prefect.read_flow_runs(limit=200)
    for deployment_id, jobs in ((imports, [job_ids[0], job_ids[2]]), (exports, job_ids[1:2])):
        runs = [run for run in started if run.deployment_id == deployment_id]
        assert sorted(run.parameters["job"] for run in runs) == sorted(map(str, jobs))
    with reading() as session:
        assert read_job(session, job_ids[0]).state is JobState.RECEIVED
