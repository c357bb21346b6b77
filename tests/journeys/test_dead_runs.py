"""Runs that Prefect's books have wrong: those of processes that died, and those that became needless."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.states import Completed, Pending, Running, Scheduled, State

from flows.advance_jobs import advance_jobs
from models.runs import TAG
from tasks.dead_runs import bury_dead_runs, drop_late_runs

LONG_AGO = timedelta(hours=1)
Made = Callable[..., UUID]


@pytest.fixture
def made(prefect: SyncPrefectClient) -> Made:
    """Make runs in a state, as they stand in Prefect's books."""

    def make(state: State, *, tags: tuple[str, ...] = (TAG,), name: str = advance_jobs.name) -> UUID:
        return prefect.create_flow_run(flow(name=name)(lambda: None), tags=list(tags), state=state).id

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
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        "id": str(run),
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
    beat(prefect, alive)
    for _ in range(100):  # the server writes events down a moment later
        assert state_of(prefect, alive) == "Running"
        if bury_dead_runs.fn(0, None) == 0:
            break
    assert state_of(prefect, dead) == "Crashed"


def test_runs_that_wait_since_before_now_are_dropped(prefect: SyncPrefectClient, made: Made) -> None:
    """Of this flow alone; what is to come, comes."""
    now = datetime.now(UTC)
    late = [made(Scheduled(scheduled_time=now - LONG_AGO)) for _ in range(2)]
    to_come = made(Scheduled(scheduled_time=now + LONG_AGO))
    other = made(Scheduled(scheduled_time=now - LONG_AGO), name="cancel-job")
    assert drop_late_runs.fn(advance_jobs.name) >= len(late)
    assert {state_of(prefect, run) for run in late} == {"Cancelled"}
    assert [state_of(prefect, run) for run in (to_come, other)] == ["Scheduled", "Late"] or [
        state_of(prefect, run) for run in (to_come, other)
    ] == ["Scheduled", "Scheduled"]
