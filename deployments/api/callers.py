"""Who asks: looked at before anything else of a request, and counted."""

import time
from typing import Final

from fastapi import Request
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.concurrency import run_in_threadpool

from deployments.api.tokens import Caller, Tokens
from models.errors import AccessError, TokenError, TooManyRequestsError

_SCHEME: Final = "bearer"


class Door:
    """Lets callers in: those whose token counts, each so many times in a minute."""

    def __init__(self, tokens: Tokens, requests_per_minute: int) -> None:
        self._tokens = tokens
        self._limit = RateLimitItemPerMinute(requests_per_minute)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def admit(self, request: Request) -> Caller:
        """Tell who asks.

        Raises:
            TokenError: there is no token, or it does not count.
            IssuerAwayError: the token cannot be looked at now.
            TooManyRequestsError: the caller has asked too often.
            AccessError: the token gives no role.
        """
        try:
            caller = await self._caller_of(_token(request))
        except TokenError:
            await self._count(f"address {request.client.host if request.client else ''}")
            raise
        await self._count(f"user {caller.user_id}")
        if not caller.roles:
            raise AccessError("the role customer or operator")
        return caller

    async def _caller_of(self, token: str) -> Caller:
        if self._tokens.must_ask(token):
            await run_in_threadpool(self._tokens.ask, token)
        return self._tokens.caller_of(token)

    async def _count(self, key: str) -> None:
        if not await self._limiter.hit(self._limit, key):
            window = await self._limiter.get_window_stats(self._limit, key)
            raise TooManyRequestsError(_seconds_until(window.reset_time))


def _seconds_until(moment: float) -> int:
    return max(1, int(moment - time.time()) + 1)


def _token(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != _SCHEME or not token.strip():
        raise TokenError("there is no bearer token")
    return token.strip()


async def admitted(request: Request) -> Caller:
    """Tell who asks; every route that gives or takes data depends on it."""
    door: Door = request.app.state.door
    return await door.admit(request)
