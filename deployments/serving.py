"""What is deployed: every flow, by the name its user gives it, with its clock and its limits."""

import asyncio
import logging
import sys
from contextlib import suppress
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound, TerminationSignal
from prefect.runner import Runner
from prefect.schedules import Cron, Interval, Schedule
from prefect.settings import PREFECT_API_URL
from prefect.states import Crashed
from prefect.types.entrypoint import EntrypointType

from deployments.processes import comes_up
from flows.advance_jobs import advance_jobs
from flows.cancel_job import cancel_job
from flows.check_in_drives import check_in_drives
from flows.close_job import close_job
from flows.create_job import create_job
from flows.delete_job import delete_job
from flows.delete_portal_settings import delete_portal_settings
from flows.enforce_retention import enforce_retention
from flows.erase_personal_data import erase_personal_data
from flows.export_blobs import export_blobs
from flows.export_portal_settings import export_portal_settings
from flows.find_traces import find_traces
from flows.import_drives import import_drives
from flows.import_portal_settings import import_portal_settings
from flows.place_hold import place_hold
from flows.release_hold import release_hold
from flows.return_drives import return_drives
from flows.rotate_keys import rotate_keys
from flows.ship_job import ship_job
from flows.show_board import show_board
from flows.show_dashboard import show_dashboard
from flows.show_job import show_job
from models.errors import PrefectAwayError
from models.runs import OPERATOR, TAG
from models.settings import Settings
from models.tables import require_current_tables

POLL_SECONDS: Final = 2.0
"""How often the served flows ask Prefect for work; 2 s make a trigger start within about 3 s."""

_BOARD_EVERY: Final = timedelta(minutes=5)

_PAGE: Final = 200
_PAGES_MAX: Final = 50

_BY_OPERATORS: Final[tuple[Flow[..., Any], ...]] = (
    create_job,
    ship_job,
    check_in_drives,
    import_drives,
    export_blobs,
    return_drives,
    close_job,
    cancel_job,
    delete_job,
    place_hold,
    release_hold,
    export_portal_settings,
    import_portal_settings,
    delete_portal_settings,
    show_dashboard,
    show_job,
    erase_personal_data,
)


def deployments(settings: Settings) -> list[RunnerDeployment]:
    """Describe every deployment: what operators trigger, and what runs by the clock in UTC."""
    interval = Interval(timedelta(seconds=settings.advance_interval_seconds), timezone="UTC")
    return [
        *[_deployment(flow, OPERATOR) for flow in _BY_OPERATORS],
        _deployment(enforce_retention, "clock", Cron(settings.retention_cron, timezone="UTC")),
        _deployment(rotate_keys, "clock", Cron(settings.rotation_cron, timezone="UTC")),
        _deployment(find_traces, "clock", Cron(settings.traces_cron, timezone="UTC")),
        _deployment(advance_jobs, "clock", interval),
        _deployment(show_board, "clock", Interval(_BOARD_EVERY, timezone="UTC")),
    ]


def _deployment(flow: Flow[..., Any], by: str, schedule: Schedule | None = None) -> RunnerDeployment:
    # A sweep that comes while one is at work is one too many: what it would do, the next one does.
    alone = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    made = flow.to_deployment(
        name=flow.name,
        schedules=[schedule] if schedule else None,
        concurrency_limit=alone if schedule else None,
        description=flow.description,
        version=version("drivepost"),
        tags=[TAG, by],
        enforce_parameter_schema=True,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    if not isinstance(made, RunnerDeployment):
        raise TypeError("a deployment is described outside of an event loop")
    return made


def bury_the_dead() -> None:
    """End in Prefect's books what cannot be alive: for a start that has the server to itself.

    A run whose process was killed stays Running for ever, and keeps the one place that its deployment has, so
    that no sweep would ever run again.
    """
    alive = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    working = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=alive)))
    with get_client(sync_client=True) as client:
        for _ in range(_PAGES_MAX):
            dead = client.read_flow_runs(flow_run_filter=working, limit=_PAGE)
            for run in dead:
                client.set_flow_run_state(
                    run.id, Crashed(message="its process ended with an earlier start"), force=True
                )
            if len(dead) < _PAGE:
                break
        for deployment in client.read_deployments(limit=_PAGE):
            with suppress(ObjectNotFound):
                free = GlobalConcurrencyLimitUpdate(active_slots=0)
                client.update_global_concurrency_limit(f"deployment:{deployment.id}", free)


def serve_all(ready: Path, *, alone: bool) -> None:
    """Serve every deployment until told to stop; schedules are left as they are.

    Args:
        ready: a file that is made once everything is deployed.
        alone: nobody else serves flows on this Prefect server, so that what seems to work is dead; the server may
            still be starting.

    Raises:
        PrefectAwayError: the server does not come up.
        DatabaseError: the tables are not those of this version.
    """
    require_current_tables()
    logging.getLogger("prefect.runner").setLevel(logging.WARNING)
    with suppress(KeyboardInterrupt, TerminationSignal):
        if alone:
            if not comes_up(PREFECT_API_URL.value()):
                raise PrefectAwayError("Prefect's server did not come up")
            bury_the_dead()
        runner = Runner(query_seconds=POLL_SECONDS, pause_on_shutdown=False, limit=None)
        for deployment in deployments(Settings()):
            runner.add_deployment(deployment)
        ready.touch()
        asyncio.run(runner.start())


if __name__ == "__main__":
    serve_all(Path(sys.argv[1]), alone="--alone" in sys.argv[2:])
