"""Acts on Prefect's own records: runs started, and runs of deleted jobs forgotten."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from models.database import reading, writing
from models.errors import PrefectAwayError
from models.lifecycle import JobType
from models.runs import OPERATOR, TAG, recorded_runs, runs_to_forget, strike_run
from models.turns import turn_to_forget
from tasks.acts import act
from tasks.artifacts import empty_artifacts, remove_artifacts
from tasks.prefect_api import prefect_client

_COPIES: Final = {JobType.IMPORT: "import-drives", JobType.EXPORT: "export-blobs"}
"""Which flow copies the jobs of a type."""

USER: Final = "user"
"""The parameter by which a flow is told of a user."""

JOB_NAMES: Final = ("job", "confirm")
"""The parameters by which a flow is told of a job."""

BOARD: Final = "show-board"
"""The flow whose newest run speaks of many jobs, and is asked for again when it has to go with one of them."""

_PAGE: Final = 200
_PAGES_MAX: Final = 50
_LONGEST_ACT: Final = timedelta(hours=1)
_LAST_WORDS: Final = timedelta(seconds=5)
_UNDER_WAY: Final = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]
_CUT_SHORT: Final = [StateType.CANCELLED, StateType.CRASHED, StateType.FAILED]


@act
def start_copies(
    due: Sequence[tuple[UUID, JobType]], under_way: Collection[UUID], copies_max: int, dead_after_seconds: float
) -> list[UUID]:
    """Ask Prefect to copy jobs, each in a run of its own, while fewer than `copies_max` are under way.

    Safe to repeat: a job whose run waits or works is passed over, and two runs of one job do not copy it
    twice, because one of them holds the lease.

    Args:
        due: jobs whose copy is due, each with its type, which tells the flow.
        under_way: jobs that are copied now: somebody holds their lease.
        copies_max: copies under way at once, at most.
        dead_after_seconds: a run that has been working for so long without holding its job's lease is dead; one
            whose process is still being started, after twice as long.

    Returns:
        The jobs whose run was asked for.
    """
    if not due:
        return []
    with prefect_client() as client:
        deployments = {job_type: _deployment_of(client, flow) for job_type, flow in _COPIES.items()}
        now, dead_after = datetime.now(UTC), timedelta(seconds=dead_after_seconds)
        alive_since = {StateType.PENDING: now - 2 * dead_after, StateType.RUNNING: now - dead_after}
        busy = set(map(str, under_way)) | {
            str(run.parameters.get("job"))
            for run in _runs_under_way(client, list(deployments.values()))
            if run.state
            and (run.state.type is StateType.SCHEDULED or run.state.timestamp > alive_since[run.state.type])
        }
        started = [each for each in due if str(each[0]) not in busy][: max(0, copies_max - len(busy))]
        for job_id, job_type in started:
            client.create_flow_run_from_deployment(deployments[job_type], parameters={"job": str(job_id)})
    return [job_id for job_id, _ in started]


def _deployment_of(client: SyncPrefectClient, flow: str) -> UUID:
    try:
        return client.read_deployment_by_name(f"{flow}/{flow}").id
    except ObjectNotFound:
        raise PrefectAwayError(f"no {flow} is deployed; start 'drivepost up'") from None


def _runs_under_way(client: SyncPrefectClient, deployment_ids: list[UUID]) -> Iterator[FlowRun]:
    for page in range(_PAGES_MAX):
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNDER_WAY))),
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=deployment_ids)),
            limit=_PAGE,
            offset=page * _PAGE,
        )
        yield from runs
        if len(runs) < _PAGE:
            return


@act
def hide_parameters(flow_run_id: UUID | None) -> None:
    """Empty a run's parameters, which may name a user, or a job that is gone."""
    if flow_run_id is None:
        return
    with prefect_client() as client:
        client.update_flow_run(flow_run_id, parameters={})


@act
def hide_names() -> int:
    """Empty the parameters of runs that ended before they opened a job and name it by its names, or name a user.

    They are on no list of a job's runs and would outlive it. A run that names a user empties its parameters
    itself, unless it never came to that. Looked at are the 200 that ended last.
    """
    with prefect_client() as client:
        runs = runs_cut_short(client)
        with reading() as session:
            recorded = recorded_runs(session, [run.id for run in runs])
        named = [run for run in runs if _names_somebody(run, is_recorded=run.id in recorded)]
        for run in named:
            client.update_flow_run(run.id, parameters={})
    return len(named)


def runs_cut_short(client: SyncPrefectClient) -> list[FlowRun]:
    """Find the 200 runs that ended last and not well, of those that may name somebody."""
    ended = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_CUT_SHORT)),
        # Not those of the clock: after a night without workers, hundreds of them are dropped at once.
        tags=FlowRunFilterTags(all_=[TAG, OPERATOR]),
    )
    return client.read_flow_runs(flow_run_filter=ended, limit=_PAGE, sort=FlowRunSort.END_TIME_DESC)


def _names_somebody(run: FlowRun, *, is_recorded: bool) -> bool:
    if USER in run.parameters:
        return True
    # What was refused goes with its job, and tells until then which one was meant.
    goes_with_job = is_recorded and run.state is not None and run.state.type is StateType.FAILED
    return not goes_with_job and any("/" in str(run.parameters.get(name)) for name in JOB_NAMES)


@act
def forget_runs(runs_max: int, job_id: UUID | None = None, spared: UUID | None = None) -> int:
    """Delete runs of deleted jobs from Prefect, with their logs and artifacts.

    Safe to repeat: a run is struck off our list only when Prefect has forgotten it.

    Args:
        runs_max: how many at most.
        job_id: of this job alone.
        spared: the run that is asking; a run cannot delete itself, and is forgotten by advance-jobs.

    Returns:
        How many were forgotten; a run that works, or has only just ended, is left for later. Where another
        process forgets runs just now, it is 0, and advance-jobs comes to the rest.
    """
    with turn_to_forget() as is_ours:
        if not is_ours:
            return 0
        with reading() as session:
            listed = [run for run in runs_to_forget(session, runs_max, job_id) if run != spared]
        return _forget_all(listed) if listed else 0


def _forget_all(listed: Sequence[UUID]) -> int:
    forgotten = 0
    with prefect_client() as client:
        boards = _of_flow(client, BOARD, listed)
        empty_artifacts(client, listed)
        for flow_run_id in listed:
            forgotten += _forget_and_strike(client, flow_run_id)
        if boards:
            # Who is on it disappears at once, and those who stay come back.
            with suppress(ObjectNotFound):
                client.create_flow_run_from_deployment(_deployment_of(client, BOARD))
    return forgotten


@act
def forget_earlier_runs(flow: str, flow_run_id: UUID | None) -> int:
    """Forget the runs of a flow that ended, but for this one, which shows anew what they showed.

    Safe to repeat. At most the 200 that ended last are looked at; what is left, the next run finds.

    Args:
        flow: the flow's name.
        flow_run_id: the run that is asking; None outside of one, where nothing is forgotten.
    """
    if flow_run_id is None:
        return 0
    with turn_to_forget() as is_ours:
        if not is_ours:
            return 0
        with prefect_client() as client:
            earlier = [run for run in _of_flow(client, flow) if run != flow_run_id]
            return sum(_forget_and_strike(client, run) for run in earlier)


def _of_flow(client: SyncPrefectClient, flow: str, of: Sequence[UUID] | None = None) -> list[UUID]:
    """Find runs of a flow that ended: the last 200, or those of the ones that are named."""
    ended = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(TERMINAL_STATES))),
        id=None if of is None else FlowRunFilterId(any_=list(of)),
    )
    runs = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
        flow_run_filter=ended,
        sort=FlowRunSort.END_TIME_DESC,
        limit=_PAGE,
    )
    return [run.id for run in runs]


def _forget_and_strike(client: SyncPrefectClient, flow_run_id: UUID) -> bool:
    if not _forget(client, flow_run_id):
        return False
    with writing() as session:
        strike_run(session, flow_run_id)
    return True


def _forget(client: SyncPrefectClient, flow_run_id: UUID) -> bool:
    try:
        run = client.read_flow_run(flow_run_id)
    except ObjectNotFound:
        return True
    if _is_telling(run):
        return False
    for child in client.read_flow_runs(flow_run_filter=_children_of(flow_run_id), limit=_PAGE):
        if not _forget(client, child.id):
            return False
    remove_artifacts(client, flow_run_id)
    with suppress(ObjectNotFound):
        client.delete_flow_run(flow_run_id)
    return True


def _children_of(flow_run_id: UUID) -> FlowRunFilter:
    """Find the runs that a run started within itself: Prefect keeps them when their parent is deleted."""
    return FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[flow_run_id]))


def _is_telling(run: FlowRun) -> bool:
    """Whether a run works, or ended so lately that its last log lines may still be on their way."""
    if run.state is None:
        return False
    age = datetime.now(UTC) - run.state.timestamp
    if run.state.is_final():
        return age < _LAST_WORDS
    # A run that died without a word keeps its state for ever.
    return run.state.type is not StateType.SCHEDULED and age < _LONGEST_ACT
