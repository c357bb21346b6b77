"""`drivepost deploy`: every deployment in a work pool, for workers on as many machines as there are."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentUpdate,
    VariableCreate,
    VariableUpdate,
    WorkPoolCreate,
)
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker
from rich.console import Console

from deployments.serving import deployments
from flows.advance_jobs import advance_jobs
from models.errors import PrefectAwayError, RequestError, SettingsError
from models.runs import TAG
from models.settings import Settings
from models.tables import require_current_tables

CLOCK: Final = "clock"
COPIES: Final = "copies"
OPERATORS: Final = "operators"

QUEUES: Final = {
    CLOCK: "What runs by the clock: retention, lost wishes, due copies. Goes before all else.",
    COPIES: "Copies onto drives and off them, for hours each.",
    OPERATORS: "What operators trigger and callers of the REST API ask for.",
}
"""The work queues of the pool, the first served first; what is in each."""

CLOCK_PLACES: Final = 5
"""Runs by the clock at once, at most: one of each deployment that has a clock."""

CLOCKS: Final = "drivepost_clocks"
"""The Prefect variable that holds which schedule was last set, by deployment: what differs, an operator edited."""

_COPYING: Final = frozenset({"import-drives", "export-blobs"})
_POOL: Final = re.compile(r"(?!prefect)[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,98}[A-Za-z0-9])?", re.IGNORECASE)
_NO_POOL: Final = (
    "is no name of a work pool: 1 to 100 letters, digits, spaces, dots, dashes and underscores, with a letter or "
    'digit at each end, and not beginning with "prefect"'
)
_PAGE: Final = 200


def deploy(console: Console, pool: str) -> None:
    """Register every deployment in a work pool of Prefect's server, and make the pool where there is none.

    Safe to repeat, and to be repeated with each new version: ids, paused deployments, schedules that an operator
    paused or edited, default parameters and work queues stay as they were left. A schedule that was made of a
    setting follows the setting, for as long as nobody edited it. What an earlier version deployed and this one no
    longer has is removed.

    Args:
        console: where it is told what was done.
        pool: the work pool's name, 1 to 100 letters, digits, spaces, dots, dashes and underscores; not
            beginning with "prefect", which Prefect keeps for its own.

    Raises:
        RequestError: the name is impossible.
        SettingsError: a setting is impossible, or no server is named by PREFECT_API_URL.
        DatabaseError: the tables are not those of this version.
        PrefectAwayError: Prefect's server does not answer, or refuses.
    """
    if not _POOL.fullmatch(pool):
        raise RequestError([("pool", _NO_POOL)])
    settings = Settings()
    if not PREFECT_API_URL.value():
        raise SettingsError(
            "PREFECT_API_URL: is not set; name the Prefect server of the pool, as http://127.0.0.1:4200/api"
        )
    require_current_tables()
    ours = deployments(settings)
    with _prefect() as client:
        _make_pool(client, console, pool)
        before = _clocks_before(client)
        for deployment in ours:
            _register(client, console, pool, deployment, before.get(deployment.name))
        _remember_clocks(client, {each.name: _clock(_schedules(each)[0]) for each in ours if each.schedules})
        _remove_former(client, console, {each.name for each in ours})
    console.print(
        f"{len(ours)} deployments in work pool {pool}; on each machine start "
        f"'prefect worker start --pool \"{pool}\" --work-queue {CLOCK} --limit {CLOCK_PLACES}' and "
        f"'prefect worker start --pool \"{pool}\" --work-queue {COPIES} --work-queue {OPERATORS} --limit 8'",
        markup=False,
        soft_wrap=True,
    )


@contextmanager
def _prefect() -> Iterator[SyncPrefectClient]:
    try:
        with get_client(sync_client=True) as client:
            yield client
    except ObjectAlreadyExists:
        raise PrefectAwayError("somebody else deploys there at the moment; do it again") from None
    except PrefectHTTPStatusError as error:
        status = error.response.status_code
        way_out = (
            "; PREFECT_API_AUTH_STRING must be what the server asks for"
            if status == httpx.codes.UNAUTHORIZED
            else ""
        )
        raise PrefectAwayError(f"Prefect's server refuses: status {status}{way_out}") from None
    except httpx.HTTPError as error:
        raise PrefectAwayError(f"Prefect's server does not answer: {type(error).__name__}") from None


def _make_pool(client: SyncPrefectClient, console: Console, pool: str) -> None:
    try:
        kind = client.read_work_pool(pool).type
    except ObjectNotFound:
        kind = ProcessWorker.type
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=pool, type=kind, base_job_template=template))
        console.print(f"made work pool {pool}", markup=False)
    if kind != ProcessWorker.type:
        console.print(f"work pool {pool} is of type {kind}: its image must hold Drivepost", markup=False)
    there = {queue.name for queue in client.read_work_queues(work_pool_name=pool)}
    for priority, (name, description) in enumerate(QUEUES.items(), start=1):
        if name not in there:
            # As each goes in, Prefect moves back what had its priority: in the end "default" comes last.
            client.create_work_queue(name, description=description, priority=priority, work_pool_name=pool)


def _queue_of(deployment: RunnerDeployment) -> str:
    if deployment.schedules:
        return CLOCK
    return COPIES if deployment.name in _COPYING else OPERATORS


def _schedules(deployment: RunnerDeployment) -> list[DeploymentScheduleCreate]:
    return [each for each in deployment.schedules or [] if isinstance(each, DeploymentScheduleCreate)]


def _register(
    client: SyncPrefectClient,
    console: Console,
    pool: str,
    deployment: RunnerDeployment,
    clock_before: dict[str, Any] | None,
) -> None:
    # That the flow is found by its module here is what a worker relies on.
    schema = parameter_schema(load_flow_from_entrypoint(str(deployment.entrypoint)))
    described: dict[str, Any] = {
        "version": deployment.version,
        "description": deployment.description,
        "tags": deployment.tags,
        "entrypoint": deployment.entrypoint,
        # No code to fetch: it is installed where the worker is.
        "path": None,
        "pull_steps": [],
        "enforce_parameter_schema": True,
        "parameter_openapi_schema": schema.model_dump(exclude_unset=True),
    }
    if deployment.name == advance_jobs.name:
        # It takes its turn itself: of a machine that died, Prefect keeps the place for five minutes.
        described["concurrency_limit"] = None
    elif deployment.concurrency_limit is not None:
        described["concurrency_limit"] = deployment.concurrency_limit
        described["concurrency_options"] = ConcurrencyOptions.model_validate(deployment.concurrency_options)
    placed: dict[str, Any] = {"work_pool_name": pool, "work_queue_name": _queue_of(deployment)}
    try:
        there = client.read_deployment_by_name(f"{deployment.flow_name}/{deployment.name}")
    except ObjectNotFound:
        client.create_deployment(
            flow_id=client.create_flow_from_name(str(deployment.flow_name)),
            name=deployment.name,
            schedules=_schedules(deployment),
            **described,
            **placed,
        )
        return
    known = schema.properties
    kept = {name: value for name, value in there.parameters.items() if name in known}
    moved = placed if there.work_pool_name != pool else {}
    client.update_deployment(there.id, DeploymentUpdate(parameters=kept, **described, **moved))
    if deployment.schedules:
        _keep_time(client, console, there, _schedules(deployment)[0], clock_before)


def _keep_time(
    client: SyncPrefectClient,
    console: Console,
    there: DeploymentResponse,
    wanted: DeploymentScheduleCreate,
    before: dict[str, Any] | None,
) -> None:
    """Let a schedule follow its setting, unless an operator edited it."""
    clock = _clock(wanted)
    if before == clock or any(_clock(each) == clock for each in there.schedules):
        return
    if before is None and not there.schedules:
        client.create_deployment_schedules(there.id, [wanted])
        return
    ours = next((each for each in there.schedules if _clock(each) == before), None)
    if ours is None:
        console.print(
            f"{there.name}: its schedule is not as a setting made it, and stays; the setting says "
            f"{clock.get('cron') or clock.get('interval')}",
            markup=False,
        )
        return
    client.update_deployment_schedule(there.id, ours.id, schedule=wanted.schedule)


def _clock(each: Any) -> dict[str, Any]:
    """Tell what a schedule says, without what differs each time it is made."""
    schedule = each.schedule
    if isinstance(schedule, CronSchedule):
        return {"cron": schedule.cron, "timezone": schedule.timezone}
    if isinstance(schedule, IntervalSchedule):
        return {"interval": schedule.interval.total_seconds(), "timezone": schedule.timezone}
    return {"other": str(schedule)}


def _clocks_before(client: SyncPrefectClient) -> dict[str, dict[str, Any]]:
    found = client.read_variable_by_name(CLOCKS)
    return found.value if found and isinstance(found.value, dict) else {}


def _remember_clocks(client: SyncPrefectClient, clocks: dict[str, dict[str, Any]]) -> None:
    found = client.read_variable_by_name(CLOCKS)
    if found is None:
        client.create_variable(VariableCreate(name=CLOCKS, value=clocks, tags=[TAG]))
    elif found.value != clocks:
        client.update_variable(VariableUpdate(name=CLOCKS, value=clocks))


def _remove_former(client: SyncPrefectClient, console: Console, names: set[str]) -> None:
    """Remove what an earlier version deployed; what operators made of ours has a name of its own, and stays."""
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    for each in client.read_deployments(deployment_filter=tagged, limit=_PAGE):
        if each.name not in names and each.name == client.read_flow(each.flow_id).name:
            client.delete_deployment(each.id)
            console.print(f"removed {each.name}, which this version does not have", markup=False)
