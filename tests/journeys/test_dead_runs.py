"""Runs that Prefect's books have wrong: those of processes that died, and those that became needless."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending, Running, Scheduled

from flows.advance_jobs import advance_jobs
from models.database import database_time, reading, writing
from models.deletion import delete_job
from models.lifecycle import Actor, JobState
from models.runs import OPERATOR, TAG, record_run, recorded_runs, runs_to_forget
from tasks import run_history
from tasks.dead_runs import bury_dead_runs, drop_late_runs, record_unbegun_runs
from tasks.run_history import hide_names
from tests.builders import job_in
from tests.journeys.one_machine import awaited

HOUR: Final = timedelta(hours=1)
BEAT: Final = "prefect.flow-run.heartbeat"
Made = Callable[..., UUID]


@pytest.fixture
def made(prefect: SyncPrefectClient) -> Made:
    """Make runs in a state, as they stand in Prefect's books."""

    def make(
        state: State[Any], *, tags: tuple[str, ...] = (TAG,), name: str = advance_jobs.name, job: str = ""
    ) -> UUID:
        run = prefect.create_flow_run(
            flow(name=name)(lambda job: job), parameters={"job": job}, tags=list(tags), state=state
        )
        return run.id

    return make


def state_of(prefect: SyncPrefectClient, run: UUID) -> str:
    """Read the name of a run's state."""
    state = prefect.read_flow_run(run).state
    assert state is not None
    return str(state.name)


def beat(prefect: SyncPrefectClient, run: UUID) -> None:
    """Send the heartbeat of a run."""
    event = {
        "occurred": datetime.now(UTC).isoformat(),
        "event": BEAT,
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        "id": str(uuid4()),
    }
    prefect.request("POST", "/events", json=[event]).raise_for_status()


def test_a_run_that_gives_no_sign_of_life_is_ended(prefect: SyncPrefectClient, made: Made) -> None:
    """Whether it had begun or not; one that has just changed its state, that asks, or is not ours is kept."""
    dead = [made(Running()), made(Pending())]
    asking, others, ended = made(Running()), made(Running(), tags=()), made(Completed())
    assert bury_dead_runs.fn(600, asking) == 0
    assert [state_of(prefect, run) for run in dead] == ["Running", "Pending"]
    assert bury_dead_runs.fn(0, asking) >= len(dead)
    assert [state_of(prefect, run) for run in dead] == ["Crashed", "Crashed"]
    assert [state_of(prefect, run) for run in (asking, others, ended)] == ["Running", "Running", "Completed"]
    assert bury_dead_runs.fn(0, asking) == 0


def test_a_run_whose_heart_beats_is_kept(prefect: SyncPrefectClient, made: Made) -> None:
    """However long it has been at work."""
    alive, dead = made(Running()), made(Running())
    time.sleep(1)
    began = time.monotonic()
    beat(prefect, alive)
    beats = EventFilter(
        resource=EventResourceFilter(id=[f"prefect.flow-run.{alive}"]), event=EventNameFilter(name=[BEAT])
    )
    awaited(lambda: prefect.read_events(beats, limit=1).events)
    assert bury_dead_runs.fn(time.monotonic() - began + 0.5, None) >= 1
    assert (state_of(prefect, alive), state_of(prefect, dead)) == ("Running", "Crashed")


def test_runs_that_wait_since_before_now_are_dropped(prefect: SyncPrefectClient, made: Made) -> None:
    """Of this flow alone; what is to come, comes."""
    now = datetime.now(UTC)
    late = [made(Scheduled(scheduled_time=now - HOUR)) for _ in range(2)]
    to_come = made(Scheduled(scheduled_time=now + HOUR))
    other = made(Scheduled(scheduled_time=now - HOUR), name="cancel-job")
    assert drop_late_runs.fn(advance_jobs.name) >= len(late)
    assert {state_of(prefect, run) for run in late} == {"Cancelled"}
    assert state_of(prefect, to_come) == "Scheduled"
    assert state_of(prefect, other) in {"Scheduled", "Late"}


def test_a_run_that_ended_before_it_began_goes_with_its_job(
    made: Made, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the job is still there or not, and however many runs of the clock ended since; no other job's."""
    monkeypatch.setattr(run_history, "_PAGE", 3)
    with writing() as session:
        now = database_time(session)
        kept, deleted = (job_in(session, JobState.COMPLETED, name, now) for name in ("kept", "deleted"))
        delete_job(session, deleted, at=now, by=Actor.OPERATOR)
    tags = (TAG, OPERATOR)
    # Failed: the database was away when it was to open its job.
    states: list[State[Any]] = [Crashed(), Failed(), Crashed()]
    of_kept, of_deleted, of_none = (
        made(state, job=str(job), tags=tags, name="cancel-job")
        for state, job in zip(states, (kept, deleted, uuid4()), strict=True)
    )
    of_clock = [made(Cancelled()) for _ in range(3)]
    assert record_unbegun_runs.fn() == 2
    assert record_unbegun_runs.fn() == 0
    with reading() as session:
        assert recorded_runs(session, [of_kept, of_deleted, of_none, *of_clock]) == {of_kept, of_deleted}
        assert runs_to_forget(session, 10) == [of_deleted]


def test_a_run_that_failed_before_it_opened_its_job_keeps_no_name(
    prefect: SyncPrefectClient, made: Made, sqlite: str
) -> None:
    """One that is on the job's list goes with it, and keeps what it was asked."""
    with writing() as session:
        job_id = job_in(session, JobState.COMPLETED, "named", database_time(session))
    runs = [made(Failed(), job="s1/g1/named", tags=(TAG, OPERATOR), name="cancel-job") for _ in range(2)]
    with writing() as session:
        record_run(session, job_id, runs[0])
    assert hide_names.fn() >= 1
    assert hide_names.fn() == 0
    assert [bool(prefect.read_flow_run(run).parameters) for run in runs] == [True, False]
