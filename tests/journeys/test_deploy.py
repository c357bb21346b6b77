"""`drivepost deploy` on a real Prefect server: what it makes, what it leaves as it was, and a real worker."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from deployments.api.errands import Errands
from deployments.cli import main
from deployments.deploy import CLOCKS, QUEUES, deploy
from deployments.serving import deployments
from flows.show_dashboard import show_dashboard
from models.database import engine
from models.errors import DatabaseError, PrefectAwayError, RequestError, SettingsError
from models.settings import Settings

POOL: Final = "machines of a test"
CLOCK: Final = "enforce-retention"
FEW: Final = {CLOCK, "rotate-keys", "advance-jobs", "find-traces", "import-drives", "create-job", "cancel-job"}

pytestmark = pytest.mark.usefixtures("sqlite")


@pytest.fixture
def client(prefect: SyncPrefectClient) -> Iterator[SyncPrefectClient]:
    """Give a client of a server on which nothing is deployed, and leave it so."""
    _clear(prefect)
    yield prefect
    _clear(prefect)


def _clear(client: SyncPrefectClient) -> None:
    for each in client.read_deployments(limit=200):
        client.delete_deployment(each.id)
    for pool in client.read_work_pools():
        client.delete_work_pool(pool.name)
    if client.read_variable_by_name(CLOCKS):
        client.delete_variable_by_name(CLOCKS)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only a few of each kind be deployed: a request each, and what is looked at is the same."""
    monkeypatch.setattr("deployments.deploy.deployments", _few)


def _few(settings: Settings) -> list[RunnerDeployment]:
    return [each for each in deployments(settings) if each.name in FEW]


def _deploy() -> str:
    """Deploy; gives what was told."""
    told = StringIO()
    deploy(Console(file=told, width=500), POOL)
    return told.getvalue()


def _there(client: SyncPrefectClient) -> dict[str, DeploymentResponse]:
    return {each.name: each for each in client.read_deployments(limit=200)}


def _facts(deployment: DeploymentResponse) -> dict[str, Any]:
    """Tell all of a deployment but what tells when it was touched, or by whom."""
    told = deployment.model_dump(mode="json", exclude={"updated", "updated_by", "status", "last_polled", "labels"})
    told["schedules"] = [{**each, "updated": None} for each in told["schedules"]]
    return told


def _cron(client: SyncPrefectClient, name: str = CLOCK) -> str:
    (schedule,) = _there(client)[name].schedules
    assert isinstance(schedule.schedule, CronSchedule)
    return schedule.schedule.cron


def _edit(client: SyncPrefectClient, cron: str, name: str = CLOCK) -> None:
    """Edit a schedule as the UI does."""
    there = _there(client)[name]
    client.update_deployment_schedule(
        there.id, there.schedules[0].id, schedule=CronSchedule(cron=cron, timezone="UTC")
    )


def _patch(client: SyncPrefectClient, deployment: DeploymentResponse, **fields: Any) -> None:
    client.request("PATCH", "/deployments/{id}", path_params={"id": deployment.id}, json=fields)


def test_every_deployment_is_in_the_pool_and_a_second_time_changes_nothing(client: SyncPrefectClient) -> None:
    """Ids, schedules and all; the pool runs processes, its queues come in their order, the default one last."""
    assert f"made work pool {POOL}" in _deploy()
    first = _there(client)
    assert sorted(first) == sorted(each.name for each in deployments(Settings()))
    assert {each.work_pool_name for each in first.values()} == {POOL}
    assert client.read_work_pool(POOL).type == "process"
    limits = {each.name: each.concurrency_limit for each in deployments(Settings())}
    limits["advance-jobs"] = None  # it takes its turn itself
    for each in first.values():
        queue = "clock" if each.schedules else "operators"
        assert each.work_queue_name == ("copies" if each.name in {"import-drives", "export-blobs"} else queue)
        assert str(each.entrypoint).startswith("flows.")
        assert (each.pull_steps, each.description, each.version) != ([], None, None)
        limit = each.global_concurrency_limit
        assert (limit.limit if limit else None) == limits[each.name]
    form = first["show-dashboard"].parameter_openapi_schema or {}
    assert set(form["properties"]) == set(show_dashboard.parameters.properties)
    queues = sorted((each.priority, each.name) for each in client.read_work_queues(work_pool_name=POOL))
    assert [name for _, name in queues] == [*QUEUES, "default"]
    assert "made work pool" not in _deploy()
    assert {name: _facts(each) for name, each in _there(client).items()} == {
        name: _facts(each) for name, each in first.items()
    }


@pytest.mark.usefixtures("few")
def test_what_an_operator_did_stays(client: SyncPrefectClient) -> None:
    """What was paused, edited, added or moved, in the UI or otherwise."""
    _deploy()
    there = _there(client)
    client.pause_deployment(there["advance-jobs"].id)
    client.update_deployment_schedule(there["rotate-keys"].id, there["rotate-keys"].schedules[0].id, active=False)
    _edit(client, "30 1 * * *")
    client.create_deployment_schedules(
        there["find-traces"].id,
        [DeploymentScheduleCreate(schedule=CronSchedule(cron="1 1 1 1 *", timezone="Europe/Paris"))],
    )
    _patch(client, there[CLOCK], parameters={"dry_run": True, "gone": 1}, enforce_parameter_schema=False)
    _patch(client, there["create-job"], work_pool_name=POOL, work_queue_name="copies")
    (queue,) = [each for each in client.read_work_queues(work_pool_name=POOL) if each.name == "operators"]
    client.update_work_queue(queue.id, priority=7)
    _deploy()
    after = _there(client)
    assert after["advance-jobs"].paused
    assert [each.active for each in after["rotate-keys"].schedules] == [False]
    assert _cron(client) == "30 1 * * *"
    assert len(after["find-traces"].schedules) == 2
    # What the form no longer has would make every run be refused.
    assert after[CLOCK].parameters == {"dry_run": True}
    assert after["create-job"].work_queue_name == "copies"
    assert [
        each.priority for each in client.read_work_queues(work_pool_name=POOL) if each.name == "operators"
    ] == [7]
    assert {name: each.id for name, each in after.items()} == {name: each.id for name, each in there.items()}


@pytest.mark.usefixtures("few")
def test_a_changed_setting_takes_effect_where_nobody_edited_the_schedule(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paused it stays; an edited one stays as it is and is told of, each time the setting changes."""
    _deploy()
    there = _there(client)[CLOCK]
    client.update_deployment_schedule(there.id, there.schedules[0].id, active=False)
    _edit(client, "2 2 2 2 *", "rotate-keys")
    monkeypatch.setenv("DRIVEPOST_RETENTION_CRON", "15 2 * * *")
    monkeypatch.setenv("DRIVEPOST_ADVANCE_INTERVAL_SECONDS", "30")
    assert "its schedule is not as" not in _deploy()
    assert _cron(client) == "15 2 * * *"
    assert [each.active for each in _there(client)[CLOCK].schedules] == [False]
    (every,) = _there(client)["advance-jobs"].schedules
    assert getattr(every.schedule, "interval", None) == timedelta(seconds=30)
    monkeypatch.setenv("DRIVEPOST_ROTATION_CRON", "7 7 * * 0")
    told = _deploy()
    assert "rotate-keys: its schedule is not as a setting made it, and stays; the setting says 7 7 * * 0" in told
    assert _cron(client, "rotate-keys") == "2 2 2 2 *"
    assert "its schedule" not in _deploy()


@pytest.mark.usefixtures("few")
def test_a_schedule_that_an_operator_deleted_does_not_come_back(client: SyncPrefectClient) -> None:
    """Deleting it is how it is switched off for good."""
    _deploy()
    there = _there(client)[CLOCK]
    client.delete_deployment_schedule(there.id, there.schedules[0].id)
    _deploy()
    assert _there(client)[CLOCK].schedules == []


@pytest.mark.usefixtures("few")
def test_what_drivepost_up_deployed_moves_into_the_pool(client: SyncPrefectClient) -> None:
    """Under the same id, with the one schedule it has, and advance-jobs without its limit."""
    served = {each.name: each.apply() for each in deployments(Settings()) if each.name in {CLOCK, "advance-jobs"}}
    _deploy()
    for name, deployment_id in served.items():
        moved = _there(client)[name]
        assert (moved.id, moved.work_pool_name, moved.work_queue_name) == (deployment_id, POOL, "clock")
        assert len(moved.schedules) == 1
        assert (moved.global_concurrency_limit is None) == (name == "advance-jobs")


@pytest.mark.usefixtures("few")
def test_what_this_version_does_not_have_is_removed_and_what_operators_made_stays(
    client: SyncPrefectClient,
) -> None:
    """Ours go by their flow's name; an operator's copy of ours has a name of its own, or no tag of ours."""
    former = client.create_deployment(client.create_flow_from_name("old-flow"), "old-flow", tags=["drivepost"])
    copied = client.create_deployment(client.create_flow_from_name(CLOCK), "nightly", tags=["drivepost"])
    foreign = client.create_deployment(client.create_flow_from_name("theirs"), "theirs", tags=["other"])
    assert "removed old-flow, which this version does not have" in _deploy()
    with pytest.raises(ObjectNotFound):
        client.read_deployment(former)
    assert client.read_deployment(copied).name == "nightly"
    assert client.read_deployment(foreign).name == "theirs"


@pytest.mark.parametrize("name", ["", " a", "a ", "prefect-pool", "Prefect", "a/b", "a%b", "a\nb", "a" * 101])
def test_a_pool_that_cannot_be_called_so_is_refused(name: str) -> None:
    """Before anything is asked of Prefect."""
    with pytest.raises(RequestError, match=r"^pool: is no name of a work pool"):
        deploy(Console(file=StringIO()), name)


def test_without_a_server_nothing_is_deployed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is named, the one that is named does not answer, or the tables are of another version."""
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(SettingsError, match="PREFECT_API_URL"),
    ):
        deploy(Console(file=StringIO()), POOL)
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(PrefectAwayError, match="does not answer"),
    ):
        deploy(Console(file=StringIO()), POOL)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), pytest.raises(SystemExit) as ended:
        main(["deploy", "--pool", POOL])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("PrefectAway: ")
    monkeypatch.setenv("DRIVEPOST_DATA_DIRECTORY", str(tmp_path / "fresh"))
    engine.cache_clear()
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), pytest.raises(DatabaseError):
        deploy(Console(file=StringIO()), POOL)
    engine.cache_clear()


def _asked(client: SyncPrefectClient, name: str, **parameters: str) -> UUID:
    """Ask for a run; gives its id."""
    deployment = client.read_deployment_by_name(f"{name}/{name}")
    return client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id


@pytest.mark.usefixtures("few")
def test_workers_are_given_the_clock_first_then_copies_then_operators(client: SyncPrefectClient) -> None:
    """However many operators' runs wait, and for however long."""
    _deploy()
    flood = [_asked(client, "create-job") for _ in range(20)]
    copy, clock = _asked(client, "import-drives", job=str(uuid4())), _asked(client, CLOCK)
    due = datetime.now(UTC) + timedelta(seconds=1)
    offered = client.request(
        "POST",
        "/work_pools/{name}/get_scheduled_flow_runs",
        path_params={"name": POOL},
        json={"scheduled_before": due.isoformat(), "limit": 5},
    ).json()
    ids = [UUID(each["flow_run"]["id"]) for each in offered if each["flow_run"]["auto_scheduled"] is False]
    assert ids[:2] == [clock, copy]
    assert set(ids[2:]) < set(flood)


@pytest.mark.usefixtures("few")
def test_a_worker_runs_what_the_rest_api_asked_for(
    client: SyncPrefectClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API finds the deployment by its name, and a real worker in an empty folder the flow by its module."""
    _deploy()
    for each in _there(client).values():
        if each.schedules:
            client.pause_deployment(each.id)
    monkeypatch.setenv("PREFECT_API_URL", str(client.api_url).rstrip("/"))
    job_id, errands = uuid4(), Errands()
    errands._run("cancel-job", job_id)
    deployed = _there(client)["cancel-job"].id
    (asked,) = [each for each in client.read_flow_runs(limit=200) if each.deployment_id == deployed]
    assert asked.work_queue_name == "operators"
    worker = subprocess.run(
        [
            *[sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"],
            *["--work-queue", "operators", "--limit", "2", "--run-once", "--no-create-pool-if-not-found"],
        ],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    ended = client.read_flow_run(asked.id)
    assert ended.state is not None
    assert str(ended.state.message).startswith("ResourceNotFound: "), worker.stdout + worker.stderr
    assert ended.parameters == {}
