"""Paths of Microsoft.ImportExport compare without regard to case: clients write resourcegroups and Jobs."""

import re
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

_PATH: Final = re.compile(
    r"(?:/subscriptions/(?P<subscription>[^/]+)(?:/resourceGroups/(?P<group>[^/]+))?)?"
    r"/providers/Microsoft\.ImportExport/(?P<kind>operations|locations|jobs)"
    r"(?:/(?P<name>[^/]+)(?P<keys>/listBitLockerKeys)?)?",
    re.IGNORECASE,
)


class AnyCase:
    """Writes the words of a path as the routes have them; names stay as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request through."""
        found = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if found:
            scope["path"] = _as_routed(found)
        await self._app(scope, receive, send)


def _as_routed(found: re.Match[str]) -> str:
    words = ("/subscriptions/", found["subscription"], "/resourceGroups/", found["group"])
    below = "".join(f"{word}{name}" for word, name in zip(words[::2], words[1::2], strict=True) if name)
    name = f"/{found['name']}" if found["name"] else ""
    keys = "/listBitLockerKeys" if found["keys"] else ""
    return f"{below}/providers/Microsoft.ImportExport/{found['kind'].lower()}{name}{keys}"
