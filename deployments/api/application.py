"""The application: every route, who is let in, and what stands around them."""

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from threading import Thread
from typing import Any, Final

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import Response

from deployments.api import arm, operators, portal, portal_settings
from deployments.api.callers import Door
from deployments.api.docs import describe_on_demand
from deployments.api.envelope import Envelope, log_to_stderr
from deployments.api.errands import Errands
from deployments.api.paths import AnyCase
from deployments.api.proxies import BehindProxy
from deployments.api.refusals import answer, of_query, of_routing
from deployments.api.tokens import tokens_of
from models.locations import load_locations
from models.log_guard import guard_logs
from models.settings import Settings
from models.tables import require_current_tables

_LOOK_SECONDS: Final = 2.0
_THREADS: Final = 15
"""Requests at work at once: as many as the database's pool has connections, so that none waits for one in vain."""


def make_application() -> FastAPI:
    """Make the application, by the settings in force.

    Raises:
        SettingsError: a setting is impossible.
        DatabaseError: the tables are not those of this version.
        SealingKeyError: a key is missing or wrong.
    """
    guard_logs()
    log_to_stderr()
    settings = Settings()
    require_current_tables()
    application = FastAPIOffline(
        title="Drivepost",
        version=version("drivepost"),
        lifespan=_while_it_runs,
        docs_url="/docs",
        redoc_url=None,
        static_url="/docs/assets",
        redirect_slashes=False,
    )
    application.state.door = Door(tokens_of(settings), settings.api_requests_per_minute)
    application.state.locations = load_locations(settings.locations_file)
    application.state.errands = Errands()
    for router in (arm.router, portal.router, portal_settings.router, operators.router):
        application.include_router(router)
    application.get("/health", include_in_schema=False)(health)
    describe_on_demand(application)
    application.add_exception_handler(RequestValidationError, _wrong_query)
    application.add_exception_handler(HTTPException, _not_routed)
    application.add_middleware(AnyCase)
    application.add_middleware(Envelope)
    if settings.api_behind_proxy:
        application.add_middleware(BehindProxy)
    return application


async def health() -> Response:
    """Tell that requests are answered; open to all, and asks nobody."""
    return Response("ok", media_type="text/plain")


@asynccontextmanager
async def _while_it_runs(application: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
    if multiprocessing.parent_process() is not None:
        Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    errands: Errands = application.state.errands
    errands.start()
    gc.freeze()  # each garbage collection that looked at all that is imported would stop this process for 80 ms
    yield
    errands.stop()


def _end_with_parent(parent: int) -> None:
    """End this process when the one that started it is gone: its port would be kept from the next start."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


async def _wrong_query(_request: Request, error: Any) -> Response:
    return answer(of_query(error))


async def _not_routed(_request: Request, error: Any) -> Response:
    return of_routing(error)
