"""Our own Prefect server on SQLite, asked by several at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient

from deployments.processes import PrefectServer
from flows.show_dashboard import show_dashboard

OPERATORS: Final = 6
FORMS: Final = 8


@pytest.fixture
def deployment_id(prefect: SyncPrefectClient) -> Iterator[UUID]:
    """Deploy a flow that nobody serves."""
    made = prefect.create_deployment(prefect.create_flow(show_dashboard), "asked for by many")
    yield made
    prefect.delete_deployment(made)


def test_forms_sent_at_once_all_make_their_runs(prefect_server: PrefectServer, deployment_id: UUID) -> None:
    """Each form reads before it writes: Prefect's own SQLite refuses four in ten of them."""

    def send_forms(_: int) -> list[int]:
        with httpx.Client(base_url=prefect_server.api, timeout=60) as browser:
            form = f"/deployments/{deployment_id}/create_flow_run"
            return [browser.post(form, json={"parameters": {}}).status_code for _ in range(FORMS)]

    with ThreadPoolExecutor(OPERATORS) as operators:
        answers = [code for codes in operators.map(send_forms, range(OPERATORS)) for code in codes]
    assert answers == [httpx.codes.CREATED] * (OPERATORS * FORMS)
