"""A real Prefect server, once for all journeys."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from deployments.processes import PrefectServer
from models.sealing import recent


@pytest.fixture(scope="session")
def prefect_server(prefect_tables: Path) -> Iterator[PrefectServer]:
    """Start a real Prefect server with files of its own."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="drivepost-prefect-") as folder:
        # Who looks for an event does not wait five seconds for it.
        patch.setenv("PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL", "0.3")
        home = Path(folder)
        (home / "prefect").mkdir()
        shutil.copy(prefect_tables, home / "prefect")
        with PrefectServer(home / "prefect", 0, home / "prefect.log") as server:
            server.wait()
            yield server
            # What is still to be sent goes out while somebody listens; else the process waits for it at its end.
            APILogWorker.drain_all(timeout=10)
            EventsWorker.drain_all(timeout=10)


@pytest.fixture
def prefect(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    """Let flows of this process run on the real server; gives a client of it."""
    # What tests before had in hand of made-up persons, "Completed" for one, is to be read in logs here.
    recent.clear()
    # Heartbeats cost a second a run.
    settings = {PREFECT_API_URL: prefect_server.api, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with temporary_settings(settings), get_client(sync_client=True) as client:
        yield client
