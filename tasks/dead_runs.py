"""Acts on runs of which Prefect does not know: those whose machine died, and those that became needless."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter
from prefect.states import Cancelled, Crashed

from models.database import reading, writing
from models.errors import JobNotFoundError
from models.jobs import read_job
from models.receipts import was_job_deleted
from models.runs import TAG, record_run, record_run_of_deleted_job, recorded_runs
from tasks.acts import act
from tasks.prefect_api import prefect_client
from tasks.run_history import JOB_NAMES, runs_cut_short

_JOB: Final = JOB_NAMES[0]
_PAGE: Final = 200
_PAGES_MAX: Final = 50
_HEARTBEAT: Final = "prefect.flow-run.heartbeat"
_AT_WORK: Final = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


@act
def bury_dead_runs(dead_after_seconds: float, flow_run_id: UUID | None) -> int:
    """End as Crashed what gives no sign of life: its process was killed, and nobody was left to tell Prefect.

    Such a run stays Running for ever, and keeps the place that its deployment has. A run that was thought dead and
    is not goes on working; what it writes is guarded elsewhere.

    Args:
        dead_after_seconds: for how long a run has changed no state and sent no heartbeat.
        flow_run_id: the run that is asking; None outside of one.

    Returns:
        How many were ended.
    """
    since = datetime.now(UTC) - timedelta(seconds=dead_after_seconds)
    with prefect_client() as client:
        silent = [
            run
            for run in _runs_at_work(client)
            if run.id != flow_run_id and run.state is not None and run.state.timestamp <= since
        ]
        alive = _heard_of(client, [run.id for run in silent], since)
        dead = [run for run in silent if run.id not in alive]
        for run in dead:
            client.set_flow_run_state(run.id, Crashed(message="its process is gone without a word"), force=True)
    return len(dead)


def _runs_at_work(client: SyncPrefectClient) -> Sequence[FlowRun]:
    found: list[FlowRun] = []
    for page in range(_PAGES_MAX):
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_AT_WORK)),
                tags=FlowRunFilterTags(all_=[TAG]),
            ),
            limit=_PAGE,
            offset=page * _PAGE,
        )
        found += runs
        if len(runs) < _PAGE:
            break
    return found


def _heard_of(client: SyncPrefectClient, runs: Sequence[UUID], since: datetime) -> Collection[UUID]:
    """Find which of these runs sent a heartbeat since a moment."""
    heard = set()
    for run in runs:
        beats = EventFilter(
            event=EventNameFilter(name=[_HEARTBEAT]),
            occurred=EventOccurredFilter(since=since),
            resource=EventResourceFilter(id=[f"prefect.flow-run.{run}"]),
        )
        if client.read_events(beats, limit=1).events:
            heard.add(run)
    return heard


@act
def drop_late_runs(flow: str) -> int:
    """Cancel the runs of a flow whose time has come and that wait: a run that works now does what they would.

    After an hour without workers there are as many of them as the clock has ticked, each a process of its own.

    Args:
        flow: the flow's name.

    Returns:
        How many were cancelled, 0 to 200; the next run cancels the rest.
    """
    late = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        tags=FlowRunFilterTags(all_=[TAG]),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
    )
    with prefect_client() as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])), flow_run_filter=late, limit=_PAGE
        )
        for run in runs:
            client.set_flow_run_state(
                run.id, Cancelled(message="a later run has done what this one would"), force=True
            )
    return len(runs)


@act
def record_unbegun_runs() -> int:
    """Write down of runs that ended before they opened a job which one they were for, so that they go with it.

    They are on no list of a job's runs and would outlive it. Safe to repeat. Looked at are the 200 that ended
    last.

    Returns:
        How many were written down.
    """
    with prefect_client() as client:
        runs = runs_cut_short(client)
    meant = {run.id: str(run.parameters[_JOB]) for run in runs if run.parameters.get(_JOB)}
    with reading() as session:
        known = recorded_runs(session, list(meant))
    return sum(_record(run, job) for run, job in meant.items() if run not in known)


def _record(flow_run_id: UUID, reference: str) -> bool:
    try:
        job_id = UUID(reference)
    except ValueError:
        return False
    with writing() as session:
        try:
            read_job(session, job_id, lock=True)
        except JobNotFoundError:
            if not was_job_deleted(session, job_id):
                return False
            record_run_of_deleted_job(session, job_id, flow_run_id)
            return True
        record_run(session, job_id, flow_run_id)
        return True
