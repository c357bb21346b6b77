"""What every request has in common: its ids, its headers, a limit to its body, one line in the log."""

import asyncio
import logging
import re
import time
from http import HTTPMethod
from typing import Final
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.refusals import FAULT_OF_OURS, answer, status_of
from models.errors import DatabaseError, DrivepostError, RequestError
from models.faults import without_data
from models.requests import REQUEST_BYTES_MAX

log: Final = logging.getLogger("drivepost.api")

_REQUEST_ID: Final = "x-ms-request-id"
_CORRELATION_ID: Final = "x-ms-correlation-request-id"
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_METHODS: Final = frozenset(HTTPMethod)

_HEADERS: Final = {
    "cache-control": "no-cache",
    "pragma": "no-cache",
    "x-content-type-options": "nosniff",
    "strict-transport-security": "max-age=31536000; includeSubDomains",
}


class Envelope:
    """The outermost layer: gives each answer its headers, and turns what nobody caught into an answer.

    The log line names the route, never the path, the query or the body: names of jobs stand in those, and nothing
    is to tell of a job that was deleted.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = str(uuid4())
        given = Headers(scope=scope).get(_CORRELATION_ID, "")
        ids = {_REQUEST_ID: request_id, _CORRELATION_ID: given if _ID.fullmatch(given) else request_id}
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in {**_HEADERS, **ids}.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            pass  # nobody is there to be answered
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  nobody above may print its text
            told = _told(error, request_id)
            if not status:
                await answer(told)(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "-")
            milliseconds = (time.perf_counter() - began) * 1000
            method = scope["method"] if scope["method"] in _METHODS else "-"
            _tell(request_id, method, route, status, milliseconds)


def _told(error: BaseException, request_id: str) -> DrivepostError:
    """Turn whatever came of a request into an error of ours, and note it where it is none of the caller's."""
    if not isinstance(error, Exception):
        return DatabaseError("the server is ending; try again later")
    told = without_data(error)
    if status_of(told) >= FAULT_OF_OURS:
        log.error("%s %s", request_id, told.line)
    return told


def _tell(*facts: object) -> None:
    """Write a request's line. No text of a person's is in it, so that it need not be searched for one."""
    if log.isEnabledFor(logging.INFO):
        line = "%s %s %s %d %.0f ms"
        log.handle(logging.LogRecord(log.name, logging.INFO, __file__, 0, line, facts, None))


def log_to_stderr() -> None:
    """Write the log to the error stream, a line each; safe to repeat."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)


async def read_body(request: Request) -> bytes:
    """Read a request's body.

    Raises:
        RequestError: it is over 1 MiB.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > REQUEST_BYTES_MAX:
            raise RequestError([("", "the body is over 1 MiB; give a blob list as a blob")])
    return bytes(body)
