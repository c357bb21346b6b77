"""What a proxy in front says of the caller: its own word, which is the last one, and no other."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send


class BehindProxy:
    """Takes the caller's address and scheme as the nearest proxy saw them.

    Of `X-Forwarded-For` and `X-Forwarded-Proto` the last entry counts: those before it came with the request, and
    anybody may write them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request through."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if address := _last(headers, "x-forwarded-for"):
                scope["client"] = (address, 0)
            if (scheme := _last(headers, "x-forwarded-proto").lower()) in {"http", "https"}:
                scope["scheme"] = scheme
        await self._app(scope, receive, send)


def _last(headers: Headers, name: str) -> str:
    return ",".join(headers.getlist(name)).rpartition(",")[2].strip()
