"""How many copies there are at once, on one machine and of one site, by Prefect's global concurrency limits."""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Final
from uuid import UUID

import httpx
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists

from models.database import reading
from models.errors import PrefectAwayError
from models.jobs import read_job
from tasks.acts import act
from tasks.prefect_api import prefect_client

LEASE_SECONDS: Final = 60
"""The shortest lease that Prefect gives: what a killed copy held is free so long after its last sign of life."""

_LOCKED: Final = 423
_UNNAMEABLE: Final = re.compile(r"[^A-Za-z0-9.-]")


@act
def site_of(job_id: UUID) -> str:
    """Read which location a job's drives ship to, such as `eastus`."""
    with reading() as session:
        return read_job(session, job_id).shipping_location


def limit_name(kind: str, name: str) -> str:
    """Name a limit on copies in Prefect: `drivepost-copies-site-eastus`."""
    return f"drivepost-copies-{kind}-{_UNNAMEABLE.sub('-', name)}"


@contextmanager
def copy_places(flow_run_id: UUID | None, limits: Mapping[str, int]) -> Iterator[str]:
    """Take a place among the copies of each limit while a block runs; nobody waits for one.

    Places are given back with the block, and by Prefect's server within about 75 seconds where the process was
    killed. A copy whose hold on its places cannot be renewed, because Prefect is away, goes on.

    Args:
        flow_run_id: the run that copies; outside of one there are no limits.
        limits: name of a limit (of `limit_name`) -> copies at once, which is what Prefect is told, too.

    Yields:
        Empty, or why there is no place, in one line.

    Raises:
        PrefectAwayError: Prefect's server does not answer.
    """
    with ExitStack() as taken:
        if flow_run_id is None:
            yield ""
            return
        _tell_prefect(limits)
        try:
            taken.enter_context(
                concurrency(
                    sorted(limits),
                    max_retries=0,
                    lease_duration=LEASE_SECONDS,
                    strict=True,
                    raise_on_lease_renewal_failure=False,
                )
            )
        except ConcurrencySlotAcquisitionError as error:
            cause = error.__cause__
            if not isinstance(cause, httpx.HTTPStatusError) or cause.response.status_code != _LOCKED:
                raise PrefectAwayError("Prefect's server gives no place among the copies at once") from None
            why = _why_none(limits)
        else:
            why = ""
        yield why


def _tell_prefect(limits: Mapping[str, int]) -> None:
    with prefect_client() as client:
        for name, limit in limits.items():
            with suppress(ObjectAlreadyExists):  # by another copy, at the same moment
                client.upsert_global_concurrency_limit_by_name(name, limit)


def _why_none(limits: Mapping[str, int]) -> str:
    with prefect_client() as client:
        found = [client.read_global_concurrency_limit_by_name(name) for name in limits]
    full = [f"{each.name} has {each.active_slots} of {each.limit}" for each in found if _is_full(each)]
    return "; ".join(full) or "another copy was faster"


def _is_full(limit: GlobalConcurrencyLimitResponse) -> bool:
    return limit.active_slots >= limit.limit
