"""Prefect's server, as acts ask it."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError

from models.errors import PrefectAwayError


@contextmanager
def prefect_client() -> Iterator[SyncPrefectClient]:
    """Ask Prefect.

    Raises:
        PrefectAwayError: it does not answer, or refuses.
    """
    try:
        with get_client(sync_client=True) as client:
            yield client
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        raise PrefectAwayError(f"Prefect's server does not answer: {type(error).__name__}") from None
