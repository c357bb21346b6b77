"""What a proxy in front says of the caller: its own word, which is the last one, and no other."""

from contextlib import suppress
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send


class BehindProxy:
    """Takes the caller's address, and scheme and host of the request, as the nearest proxy saw them.

    Of `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host` the last entry counts: those before it came
    with the request, and anybody may write them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request through."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if address := _address(_last(headers, "x-forwarded-for")):
                scope["client"] = (address, 0)
            if host := _last(headers, "x-forwarded-host"):
                others = [header for header in scope["headers"] if header[0] != b"host"]
                scope["headers"] = [*others, (b"host", host.encode("latin-1"))]
            if (scheme := _last(headers, "x-forwarded-proto").lower()) in {"http", "https"}:
                scope["scheme"] = scheme
        await self._app(scope, receive, send)


def _last(headers: Headers, name: str) -> str:
    return ",".join(headers.getlist(name)).rpartition(",")[2].strip()


def _address(told: str) -> str:
    """Take the port off an address, where a proxy tells one; empty where it is none."""
    for candidate in (told.strip("[]"), told.rpartition(":")[0].strip("[]")):
        with suppress(ValueError):
            return str(ip_address(candidate))
    return ""
