"""Flows of portal settings as runs of a real Prefect server: it keeps nothing of whose they are."""

import json
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Crashed, Failed
from sqlmodel import col, select

from deployments.processes import PrefectServer
from deployments.serving import deployments
from flows.advance_jobs import advance_jobs
from flows.delete_job import delete_job
from flows.delete_portal_settings import delete_portal_settings
from flows.export_portal_settings import export_portal_settings
from flows.import_portal_settings import import_portal_settings
from flows.show_dashboard import show_dashboard
from models.database import reading, writing
from models.lifecycle import JobState
from models.portal import Dashboard
from models.settings import Settings
from tasks import run_history
from tests.builders import ADDRESS, NOON, RETURN_SHIPPING, job_in
from tests.journeys.books import kept_by

pytestmark = pytest.mark.usefixtures("sqlite")

SAVED: Final = {
    "returnAddress": {**ADDRESS, "recipientName": "Zebulon Quince", "email": "zeb@quince.example"},
    "returnShipping": {**RETURN_SHIPPING, "carrierAccountNumber": "QUINCE-77"},
}
WORDS: Final = ["Zebulon", "quince.example", "QUINCE-77", "Zeb's dashboard"]


@pytest.fixture
def user() -> UUID:
    """A user with an address and a dashboard, taken in by a flow."""
    made = uuid4()
    dashboards = [{"name": "Zeb's dashboard", "filter": {"states": ["Completed"]}}]
    document = {"userId": str(made), "savedCarrierAndReturnAddress": SAVED, "dashboards": dashboards}
    (Settings().intake / "settings.json").write_text(json.dumps(document))
    return made


def run(client: SyncPrefectClient, flow: Flow[..., Any], **parameters: object) -> FlowRun:
    """Run a flow to its end; gives its run as Prefect keeps it."""
    ended: Any = flow(**parameters, return_state=True)
    return client.read_flow_run(ended.state_details.flow_run_id)


def test_prefect_keeps_neither_the_user_nor_anything_of_theirs(
    prefect_server: PrefectServer, prefect: SyncPrefectClient, user: UUID
) -> None:
    """Done or refused: no parameter, name, log, message, event or artifact."""
    runs = [run(prefect, import_portal_settings, request_file="settings.json")]
    with reading() as session:
        dashboard_id = session.exec(select(Dashboard.id).where(col(Dashboard.user_id) == user)).one()
    runs += [
        run(prefect, export_portal_settings, user=str(user)),
        run(prefect, show_dashboard, dashboard=str(dashboard_id)),
        run(prefect, delete_portal_settings, user=str(user), what="saved address"),
        run(prefect, delete_portal_settings, user=str(user), what="everything"),
        run(prefect, delete_portal_settings, user=str(user)),
        run(prefect, export_portal_settings, user="zeb@quince.example"),
    ]
    states = [each.state and each.state.name for each in runs]
    assert states == ["Completed"] * 5 + ["Failed"] * 2
    assert [each.name for each in runs[1:]] == [each.name for each in _flows_of(prefect, runs[1:])]
    assert [each.parameters for each in runs[1:2] + runs[3:]] == [{}] * 5
    words = [*WORDS, str(user), user.hex]
    found = [(table, word) for table, row in kept_by(prefect_server) for word in words if word in row]
    assert found == []


def _flows_of(client: SyncPrefectClient, runs: list[FlowRun]) -> list[Any]:
    return [client.read_flow(each.flow_id) for each in runs]


def _deployed(name: str) -> UUID:
    (described,) = [each for each in deployments(Settings()) if each.name == name]
    deployment_id = described.apply()
    assert isinstance(deployment_id, UUID)
    return deployment_id


def test_a_run_that_never_came_to_its_end_does_not_keep_the_user(prefect: SyncPrefectClient) -> None:
    """Cancelled, crashed or failed before it could; what waits keeps it, because it needs it."""
    deployment_id = _deployed("export-portal-settings")
    user = str(uuid4())
    runs = [prefect.create_flow_run_from_deployment(deployment_id, parameters={"user": user}).id for _ in range(4)]
    ends: list[State[Any]] = [Cancelled(), Crashed(), Failed()]
    for run_id, state in zip(runs, ends, strict=False):
        prefect.set_flow_run_state(run_id, state, force=True)
    for _ in range(2):
        run(prefect, advance_jobs)
        kept = [prefect.read_flow_run(run_id).parameters for run_id in runs]
        assert kept == [{}, {}, {}, {"user": user}]
    prefect.delete_flow_run(runs[3])


@pytest.mark.parametrize("wrong", ["", "zeb@quince.example", "Zebulon", str(UUID(int=0xABCDEF))[:-1]])
@pytest.mark.parametrize(
    ("name", "parameter"),
    [("export-portal-settings", "user"), ("delete-portal-settings", "user"), ("show-dashboard", "dashboard")],
)
def test_the_form_refuses_what_is_no_id(prefect: SyncPrefectClient, name: str, parameter: str, wrong: str) -> None:
    """The deployment's schema is the first to look, so that a name is not even typed into a run."""
    deployment_id = _deployed(name)
    with pytest.raises(PrefectHTTPStatusError, match=r"409|422"):
        prefect.create_flow_run_from_deployment(deployment_id, parameters={parameter: wrong})


def test_a_dashboards_table_goes_with_a_job_that_it_showed(
    prefect: SyncPrefectClient, user: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its run, as soon as one of the jobs is deleted."""
    monkeypatch.setattr(run_history, "_LAST_WORDS", timedelta(0))
    with writing() as session:
        gone, kept = (job_in(session, JobState.COMPLETED, name, NOON) for name in ("gone", "kept"))
    run(prefect, import_portal_settings, request_file="settings.json")
    with reading() as session:
        dashboard_id = session.exec(select(Dashboard.id).where(col(Dashboard.user_id) == user)).one()
    shown = run(prefect, show_dashboard, dashboard=str(dashboard_id))
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[shown.id]))
    (artifact,) = prefect.read_artifacts(artifact_filter=of_run)
    assert artifact.key == "dashboard"
    assert {row["job"] for row in json.loads(str(artifact.data))} == {str(gone), str(kept)}
    assert "s1" not in str(artifact.data)
    run(prefect, delete_job, job=str(gone), confirm=str(gone))
    run(prefect, advance_jobs)
    with pytest.raises(ObjectNotFound):
        prefect.read_flow_run(shown.id)
    assert prefect.read_artifacts(artifact_filter=of_run) == []
