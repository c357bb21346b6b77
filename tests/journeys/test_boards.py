"""The board and the timelines as a real Prefect server keeps them: there to be looked at, gone with the job."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled
from sqlmodel import select

from deployments.processes import PrefectServer, _free_port
from deployments.serving import deployments
from flows.advance_jobs import advance_jobs
from flows.cancel_job import cancel_job
from flows.delete_job import delete_job
from flows.promises import Ended, JobReference, done, promise
from flows.show_board import show_board
from flows.show_job import show_job
from models.database import database_time, reading, writing
from models.lifecycle import JobState
from models.runs import JobRun
from models.settings import Settings
from tasks import artifacts, run_history
from tasks.timeline import key_of, leave_timeline
from tests.builders import ADDRESS, DRIVE, PACKAGE, RETURN_SHIPPING, age, job_in
from tests.journeys.books import kept_by
from tests.journeys.one_machine import awaited

pytestmark = pytest.mark.usefixtures("sqlite")


@pytest.fixture(autouse=True)
def _no_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what ended be forgotten at once."""
    monkeypatch.setattr(run_history, "_LAST_WORDS", timedelta(0))


def made(state: JobState, name: str = "job1", days: int = 0) -> UUID:
    """Make a job that has been in a state for some days."""
    with writing() as session:
        job_id = job_in(session, state, name, database_time(session))
    age(job_id, timedelta(days=days))
    return job_id


def run(client: SyncPrefectClient, flow: Flow[..., Any], **parameters: object) -> FlowRun:
    """Run a flow to its end; gives its run as Prefect keeps it."""
    ended: Any = flow(**parameters, return_state=True)
    return client.read_flow_run(ended.state_details.flow_run_id)


def left_by(client: SyncPrefectClient, ran: FlowRun) -> list[Artifact]:
    """Read the artifacts of a run."""
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[ran.id]))
    return client.read_artifacts(artifact_filter=of_run)


def texts(client: SyncPrefectClient) -> str:
    """Read all there is in artifacts, and under which keys."""
    return "\n".join(f"{each.key} {each.description} {each.data}" for each in client.read_artifacts(limit=200))


def boards(client: SyncPrefectClient) -> list[FlowRun]:
    """Find the runs of show-board, those that wait too; not those of the clock, which come by themselves."""
    found = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["show-board"])), limit=200)
    return [each for each in found if not each.auto_scheduled]


def test_every_run_of_a_job_leaves_its_timeline_refused_or_not(prefect: SyncPrefectClient) -> None:
    """Under the job's key; it tells what may be done, and nothing personal."""
    job_id = made(JobState.SHIPPING)
    runs = [
        run(prefect, delete_job, job=str(job_id)),
        run(prefect, show_job, job="s1/g1/job1"),
        run(prefect, cancel_job, job=str(job_id)),
    ]
    every = [left_by(prefect, each) for each in runs]
    assert [[each.key for each in left] for left in every] == [[key_of(job_id)]] * 3
    before, shown, after = [str(left[0].data) for left in every]
    assert runs[1].state is not None
    assert runs[1].state.message == f"job {job_id} is Shipping; see the artifact job-{job_id}"
    for text in (before, shown):
        assert text.startswith(f"# Job `{job_id}`\n\n**Shipping** since ")
        assert "**What may be done now:** *check-in-drives*, *cancel-job*, *erase-personal-data*\n" in text
    assert "| cancel accepted |" in after
    assert "| Shipping | Completed |" in after
    assert "**Deleted by the service** at " in after
    told = texts(prefect)
    for source in (ADDRESS, PACKAGE, RETURN_SHIPPING, DRIVE):
        assert [value for value in map(str, source.values()) if len(value) > 4 and value in told] == []


def test_a_timeline_goes_with_its_job(prefect_server: PrefectServer, prefect: SyncPrefectClient) -> None:
    """Nothing is left under its key, and not a word in Prefect's events, which stay; another's timeline stays."""
    job_id, other = made(JobState.COMPLETED), made(JobState.COMPLETED, "other")
    for each in (other, job_id):
        run(prefect, show_job, job=str(each))
        run(prefect, delete_job, job=str(each), dry_run=True)
    assert str(job_id) in texts(prefect)
    run(prefect, delete_job, job=str(job_id), confirm="s1/g1/job1")
    run(prefect, advance_jobs)
    assert str(job_id) not in texts(prefect)
    assert f"# Job `{other}`" in texts(prefect)
    assert f"What goes when job {other} is deleted" in texts(prefect)
    keys = {each.key for each in prefect.read_latest_artifacts(limit=200)}
    assert key_of(job_id) not in keys
    assert key_of(other) in keys

    def last_word() -> bool:
        return any(key_of(job_id) in row and "collection.deleted" in row for _, row in kept_by(prefect_server))

    awaited(last_word)
    told = [
        (table, each)
        for table, row in kept_by(prefect_server)
        for each in (job_id, other)
        if any(words in row for words in (f"# Job `{each}`", f"What happened to job {each}", f"when job {each}"))
    ]
    assert {table for table, _ in told} == {"artifact", "artifact_collection"}
    assert {each for _, each in told} == {other}


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[UUID, bool]]:
    """Note which artifacts are filled, in order, and whether with anything."""
    noted: list[tuple[UUID, bool]] = []
    plain = artifacts.fill

    def fill(client: SyncPrefectClient, artifact_id: UUID, data: object, description: str | None) -> None:
        noted.append((artifact_id, data is not None))
        plain(client, artifact_id, data, description)

    monkeypatch.setattr(artifacts, "fill", fill)
    return noted


def test_what_goes_with_a_job_is_not_shown_again_on_the_way(
    prefect: SyncPrefectClient, filled: list[tuple[UUID, bool]]
) -> None:
    """Somebody else may remove it at the same moment, and Prefect's events would tell what it shows."""
    job_id = made(JobState.COMPLETED)
    for _ in range(3):
        run(prefect, show_job, job=str(job_id))
    filled.clear()
    run(prefect, delete_job, job=str(job_id), confirm=str(job_id))
    assert len({artifact for artifact, _ in filled}) == 3
    assert not any(shows for _, shows in filled)
    artifacts.fill(prefect, filled[0][0], "is gone", None)


def test_the_newest_is_not_touched_when_an_older_one_goes(
    prefect: SyncPrefectClient, filled: list[tuple[UUID, bool]]
) -> None:
    """It is looked at just now."""
    for _ in range(2):
        newest = run(prefect, show_board)
    (board,) = left_by(prefect, newest)
    assert [each for each in filled if each[0] == board.id] == [(board.id, True)]


def test_a_run_that_would_not_go_with_the_job_leaves_no_timeline(prefect: SyncPrefectClient) -> None:
    """Such as one that was refused before the job was opened."""
    job_id = made(JobState.SHIPPING)

    @promise("looks-away", "Opens no job.")
    def looks_away(job: JobReference) -> Ended:
        return done(f"did not look at {len(job)} characters")

    assert left_by(prefect, run(prefect, looks_away, job=str(job_id))) == []


def test_a_prefect_that_is_away_does_not_keep_a_run_from_its_end(prefect: SyncPrefectClient) -> None:
    """Nothing is shown, nothing is raised."""
    job_id = made(JobState.SHIPPING)
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{_free_port()}/api"}):
        leave_timeline(str(job_id), uuid4())


def test_the_newest_board_stays_and_names_what_is_stuck(prefect: SyncPrefectClient) -> None:
    """Run three times, one run, one artifact and the rows of one run are left."""
    late = made(JobState.SHIPPING, days=15)
    made(JobState.SHIPPING, "young")
    for _ in range(2):
        run(prefect, show_board)
    newest = run(prefect, show_board)
    assert [each.id for each in boards(prefect)] == [newest.id]
    (board,) = left_by(prefect, newest)
    assert board.key == "board"
    assert "| Shipping | 2 |" in str(board.data)
    assert f"**1**: packages that did not come in 14 days of Shipping\n\n- `{late}`, Shipping since " in str(
        board.data
    )
    assert newest.state is not None
    assert newest.state.message == "2 jobs; 1 to be looked at; 0 due for deletion in the next 7 days"
    with reading() as session:
        assert set(session.exec(select(JobRun.flow_run_id)).all()) == {newest.id}


def test_a_deleted_job_disappears_from_the_board_which_is_asked_for_anew(prefect: SyncPrefectClient) -> None:
    """The board that names it goes with it, at once."""
    (described,) = [each for each in deployments(Settings()) if each.name == "show-board"]
    described.apply()
    job_id = made(JobState.COMPLETED)
    shown = run(prefect, show_board)
    assert str(job_id) in texts(prefect)
    run(prefect, delete_job, job=str(job_id), confirm=str(job_id))
    assert str(job_id) not in texts(prefect)
    found = boards(prefect)
    assert shown.id not in [each.id for each in found]
    waiting = [each for each in found if each.state and each.state.is_scheduled()]
    assert len(waiting) == 1
    for each in found:
        prefect.delete_flow_run(each.id)


def test_a_deleted_job_that_no_board_names_asks_for_none(prefect: SyncPrefectClient) -> None:
    """The clock does."""
    job_id = made(JobState.COMPLETED)
    run(prefect, show_job, job=str(job_id))
    run(prefect, delete_job, job=str(job_id), confirm=str(job_id))
    assert boards(prefect) == []


def test_a_second_name_that_was_typed_for_a_run_that_never_began_is_taken_out(prefect: SyncPrefectClient) -> None:
    """The job may be deleted by another, and its names would stay; an id tells nothing."""
    (described,) = [each for each in deployments(Settings()) if each.name == "delete-job"]
    deployment_id = described.apply()
    assert isinstance(deployment_id, UUID)
    runs = [
        prefect.create_flow_run_from_deployment(deployment_id, parameters={"job": str(uuid4()), "confirm": second})
        for second in ("s1/g1/never-begun", str(uuid4()))
    ]
    for each in runs:
        prefect.set_flow_run_state(each.id, Cancelled(), force=True)
    run(prefect, advance_jobs)
    found = prefect.read_flow_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[each.id for each in runs]))
    )
    assert {each.id: bool(each.parameters) for each in found} == {runs[0].id: False, runs[1].id: True}
