"""The progress artifact of a copy, on a real Prefect server: it appears, ends at 100, and goes with its job."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from sqlalchemy import update
from sqlmodel import col

from deployments.processes import _free_port
from flows.advance_jobs import advance_jobs
from flows.delete_job import delete_job
from flows.enforce_retention import enforce_retention
from flows.export_blobs import export_blobs
from flows.import_drives import import_drives
from models.bay import check_in
from models.database import database_time, writing
from models.drives import Drive
from models.jobs import read_job
from models.lifecycle import Actor, DriveState, JobState
from models.runs import record_run
from tasks import progress, run_history
from tasks.acts import act
from tasks.progress import Progress
from tests.builders import DRIVE, job_in, received_job

pytestmark = pytest.mark.usefixtures("sqlite")

_DRIVES = [{**DRIVE, "driveId": f"SERIAL-NUMBER-{number}"} for number in (1, 2)]


def _made(state: JobState = JobState.COMPLETED) -> UUID:
    with writing() as session:
        job_id = job_in(session, state, at=database_time(session), driveList=_DRIVES)
    with writing() as session:
        session.connection().execute(
            update(Drive).where(col(Drive.job_id) == job_id).values(state=DriveState.RECEIVED)
        )
    return job_id


def _copied(job_id: UUID, number: int) -> None:
    """Write down what a copy does when a drive is over."""
    of_drive = update(Drive).where(col(Drive.job_id) == job_id, col(Drive.number) == number)
    with writing() as session:
        session.connection().execute(
            of_drive.values(state=DriveState.COMPLETED, bytes_total=1000, bytes_succeeded=1000)
        )


def _read(client: SyncPrefectClient, run_id: UUID) -> list[Artifact]:
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
    return client.read_artifacts(artifact_filter=of_run)


def _awaited(look: Callable[[], Any]) -> Any:
    give_up = time.monotonic() + 15
    while time.monotonic() < give_up:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("it never came")


def _recorded(job_id: UUID) -> UUID:
    """Write down, as `open_job` does, that this run works on the job."""
    run_id = UUID(str(flow_run.id))
    with writing() as session:
        read_job(session, job_id, lock=True)
        record_run(session, job_id, run_id)
    return run_id


def test_it_appears_while_copying_and_ends_at_100(
    prefect: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One artifact for two drives, each an act of its own; what it names is opaque."""
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0.05)
    job_id = _made()
    seen: list[Artifact] = []

    def shows(run_id: UUID, percent: float) -> bool:
        found = [artifact for artifact in _read(prefect, run_id) if artifact.data == percent]
        seen.extend(found)
        return bool(found)

    @act
    def copy(number: int, run_id: UUID) -> None:
        with Progress(job_id) as told:
            told.tell(0, 1000, number)
            told.tell(500, 1000, number)
            _awaited(lambda: shows(run_id, 25.0 if number == 1 else 75.0))
            told.tell(1000, 1000, number)
        assert shows(run_id, 50.0 if number == 1 else 100.0)
        _copied(job_id, number)

    @flow(name="copies")
    def copies() -> UUID:
        run_id = _recorded(job_id)
        copy(1, run_id)
        copy(2, run_id)
        return run_id

    run_id = copies()
    (artifact,) = _read(prefect, run_id)
    assert {each.id for each in seen} == {artifact.id}
    assert (artifact.key, artifact.type, artifact.data) == (f"copy-{job_id.hex}", "progress", 100.0)
    assert artifact.description == (f"Job {job_id}: drive 1: 1,000 of 1,000 bytes, drive 2: 1,000 of 1,000 bytes")


def test_an_import_shows_it(prefect: SyncPrefectClient, data_directory: Path) -> None:
    """Of all its drives, in one artifact that names none of them by its serial number."""
    drives = {f"SERIAL-NUMBER-{number}": {"a.bin": b"a" * 5000, "b.bin": b"b" * 700} for number in (1, 2)}
    job_id = received_job(data_directory, drives)
    ended: Any = import_drives(job=str(job_id), return_state=True)
    assert ended.is_completed(), ended.message
    left = _read(prefect, ended.state_details.flow_run_id)
    (artifact,) = [each for each in left if each.type == "progress"]
    assert (artifact.key, artifact.data) == (f"copy-{job_id.hex}", 100.0)
    assert artifact.description == (f"Job {job_id}: drive 1: 5,700 of 5,700 bytes, drive 2: 5,700 of 5,700 bytes")


def test_an_export_shows_it(prefect: SyncPrefectClient, data_directory: Path) -> None:
    """As an import does: bytes on the drive, of those that are to come there."""
    folder = data_directory / "store" / "account1" / "data"
    folder.mkdir(parents=True)
    for name, length in {"a": 5000, "b": 700}.items():
        (folder / name).write_bytes(bytes(length))
    (data_directory / "bay" / "SERIAL-NUMBER-1").mkdir(parents=True)
    with writing() as session:
        now = database_time(session)
        export = {"blobList": {"blobPathPrefix": ["/"]}}
        job_id = job_in(session, JobState.SHIPPING, at=now, jobType="Export", driveList=None, export=export)
        check_in(session, job_id, ["SERIAL-NUMBER-1"], at=now, by=Actor.OPERATOR)
    ended: Any = export_blobs(job=str(job_id), return_state=True)
    assert ended.is_completed(), ended.message
    left = _read(prefect, ended.state_details.flow_run_id)
    (artifact,) = [each for each in left if each.type == "progress"]
    assert (artifact.key, artifact.data) == (f"copy-{job_id.hex}", 100.0)
    assert artifact.description == f"Job {job_id}: drive 1: 5,700 of 5,700 bytes"


@pytest.mark.parametrize("by", ["hand", "the service"])
def test_a_deleted_job_leaves_no_progress_behind(
    by: str, prefect: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of one run nor of another that went on with it; nor under its key."""
    monkeypatch.setattr(run_history, "_LAST_WORDS", timedelta(0))
    job_id = _made()

    @flow(name="copies")
    def copies() -> UUID:
        run_id = _recorded(job_id)
        with Progress(job_id) as told:
            told.tell(1000, 1000, 1)
        return run_id

    runs = [copies(), copies()]
    key = f"copy-{job_id.hex}"
    assert [len(_read(prefect, run_id)) for run_id in runs] == [1, 1]
    assert _latest(prefect, key) == 200
    if by == "hand":
        delete_job(job=str(job_id), confirm=str(job_id))
    else:
        with writing() as session:
            read_job(session, job_id).expires_at = database_time(session)
        enforce_retention()
    advance_jobs()
    assert [_read(prefect, run_id) for run_id in runs] == [[], []]
    assert _latest(prefect, key) == 404
    assert not [each for each in prefect.read_latest_artifacts(limit=200) if each.key == key]


def _latest(client: SyncPrefectClient, key: str) -> int:
    """Ask for the newest artifact of a key, as the UI does; gives the answer's status."""
    return httpx.get(f"{client.api_url}artifacts/{key}/latest").status_code


def test_a_prefect_that_is_away_neither_fails_nor_holds_up_a_copy(
    prefect: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is shown, and the act goes on."""
    monkeypatch.setattr(progress, "_LAST_SECONDS_MAX", 0.2)
    job_id = _made()

    @flow(name="copies")
    def copies() -> UUID:
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{_free_port()}/api"}):
            told = Progress(job_id)
            for done in range(1000):
                told.tell(done, 1000, 1)
            told.close()
        return _recorded(job_id)

    assert _read(prefect, copies()) == []
