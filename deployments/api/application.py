"""The application: every route, who is let in, and what stands around them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
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
from deployments.api.envelope import Envelope, log, log_to_stderr
from deployments.api.errands import Errands
from deployments.api.paths import AnyCase
from deployments.api.proxies import BehindProxy
from deployments.api.refusals import answer, of_query, of_routing, status_of
from deployments.api.tokens import tokens_of
from models.database import database_time, reading, require_current_tables
from models.errors import DrivepostError
from models.locations import load_locations
from models.log_guard import guard_logs
from models.settings import Settings

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
    application.add_exception_handler(DrivepostError, _refused)
    application.add_exception_handler(RequestValidationError, _wrong_query)
    application.add_exception_handler(HTTPException, _not_routed)
    application.add_middleware(AnyCase)
    application.add_middleware(Envelope)
    if settings.api_behind_proxy:
        application.add_middleware(BehindProxy)
    return application


def health() -> Response:
    """Tell that requests are answered, and that the database answers; open to all."""
    with reading() as session:
        database_time(session)
    return Response("ok", media_type="text/plain")


@asynccontextmanager
async def _while_it_runs(application: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
    errands: Errands = application.state.errands
    errands.start()
    yield
    errands.stop()


async def _refused(_request: Request, error: Any) -> Response:
    if status_of(error) >= 500:
        log.error("%s", error.line)
    return answer(error)


async def _wrong_query(_request: Request, error: Any) -> Response:
    return answer(of_query(error))


async def _not_routed(_request: Request, error: Any) -> Response:
    return of_routing(error)
