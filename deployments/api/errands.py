"""Asks Prefect to carry out what was written down; the answer to the caller does not wait for it, nor need it.

What cannot be asked for (Prefect is away, or too much is to be asked) is found and carried out by advance-jobs.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from queue import Full, Queue
from threading import Event, Thread
from typing import Final
from uuid import UUID

import httpx

from models.database import return_free_pages
from models.errors import PrefectAwayError
from models.faults import without_data

log: Final = logging.getLogger("drivepost.api")

_WAITING_MAX: Final = 1_000
_STOP_SECONDS_MAX: Final = 3.0
_ANSWER_SECONDS_MAX: Final = 5.0


class Errands:
    """A thread that asks for runs, one after the other."""

    def __init__(self) -> None:
        self._waiting: Queue[Callable[[], object] | None] = Queue(_WAITING_MAX)
        self._deployments: dict[str, UUID] = {}
        self._is_ending = False
        self._pages_wait = Event()
        self._pages = Thread(target=self._give_pages_back, name="pages", daemon=True)
        self._thread = Thread(target=self._work, name="errands", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        self._pages.start()

    def stop(self) -> None:
        """End, and leave what is not asked for yet to advance-jobs."""
        self._is_ending = True
        with suppress(Full):  # full, it has something to wake up for
            self._waiting.put_nowait(None)
        self._pages_wait.set()
        self._thread.join(_STOP_SECONDS_MAX)
        self._pages.join(_STOP_SECONDS_MAX)

    def ask(self, flow: str, job_id: UUID) -> None:
        """Ask for a run of a flow for a job, soon."""
        self._put(lambda: self._run(flow, job_id))

    def return_free_pages(self) -> None:
        """After a deletion, give back what it left free in the database, soon; asked many times, once."""
        self._pages_wait.set()

    def _give_pages_back(self) -> None:
        """Apart from what asks Prefect: what was deleted leaves the disk whether Prefect answers or not."""
        while self._pages_wait.wait() and not self._is_ending:
            self._pages_wait.clear()
            try:
                return_free_pages()
            except Exception as error:  # noqa: BLE001  advance-jobs does it, too
                log.warning("left to advance-jobs: %s", without_data(error).line)

    def _put(self, errand: Callable[[], object]) -> None:
        with suppress(Full):
            self._waiting.put_nowait(errand)

    def _work(self) -> None:
        while (errand := self._waiting.get()) is not None and not self._is_ending:
            try:
                errand()
            except httpx.HTTPError as error:
                self._deployments.clear()
                log.warning("left to advance-jobs: %s: %s", PrefectAwayError.code, type(error).__name__)
            except Exception as error:  # noqa: BLE001  the wish is a row, and is carried out later
                self._deployments.clear()
                log.warning("left to advance-jobs: %s", without_data(error).line)

    def _run(self, flow: str, job_id: UUID) -> None:
        if not os.environ.get("PREFECT_API_URL"):
            return  # Prefect would else start a server of its own
        from prefect.client.orchestration import get_client  # noqa: PLC0415  slow to import, and not needed to answer
        from prefect.settings import (  # noqa: PLC0415  as above
            PREFECT_API_REQUEST_TIMEOUT,
            PREFECT_CLIENT_MAX_RETRIES,
            temporary_settings,
        )

        hasty = {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: _ANSWER_SECONDS_MAX}
        with temporary_settings(hasty), get_client(sync_client=True) as client:
            if flow not in self._deployments:
                self._deployments[flow] = client.read_deployment_by_name(f"{flow}/{flow}").id
            client.create_flow_run_from_deployment(
                self._deployments[flow],
                parameters={"job": str(job_id)},
                # Asked twice, it runs once.
                idempotency_key=f"{flow} {job_id}",
            )
