"""Copies at once, by the limits of a real Prefect server: on one machine, and of one site."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.import_drives import import_drives
from models.copies import due_copies
from models.database import database_time, reading, writing
from models.errors import PrefectAwayError
from models.jobs import read_job
from models.lifecycle import JobState, JobType
from tasks.copy_slots import copy_places, limit_name
from tests.builders import job_in, set_columns

MACHINE: Final = limit_name("machine", "node-1.example")
SITE: Final = limit_name("site", "westus")


@pytest.fixture(autouse=True)
def clean(prefect: SyncPrefectClient) -> Iterator[None]:
    """Find no limit on the server, which others used before, and leave none."""
    _remove_limits(prefect)
    yield
    _remove_limits(prefect)


def _remove_limits(client: SyncPrefectClient) -> None:
    for name in _taken(client):
        client.delete_global_concurrency_limit_by_name(name)


def _taken(client: SyncPrefectClient) -> dict[str, int]:
    limits = client.read_global_concurrency_limits()
    return {each.name: each.active_slots for each in limits if each.name.startswith("drivepost-copies")}


def test_as_many_copies_run_at_once_as_each_limit_allows(prefect: SyncPrefectClient) -> None:
    """One more is told which limit is full, at once, and takes nothing; a place given back is free."""
    other = limit_name("site", "eastus")
    with copy_places(uuid4(), {MACHINE: 2, SITE: 1}) as first:
        assert first == ""
        assert _taken(prefect) == {MACHINE: 1, SITE: 1}
        with copy_places(uuid4(), {MACHINE: 2, SITE: 1}) as second:
            assert second == f"{SITE} has 1 of 1"
            assert _taken(prefect) == {MACHINE: 1, SITE: 1}
        with copy_places(uuid4(), {MACHINE: 2, other: 1}) as third, copy_places(uuid4(), {MACHINE: 2}) as fourth:
            assert (third, fourth) == ("", f"{MACHINE} has 2 of 2")
    assert _taken(prefect) == {MACHINE: 0, SITE: 0, other: 0}


@pytest.mark.parametrize(
    "error",
    [ValueError(), TerminationSignal(signal=15), KeyboardInterrupt()],
    ids=["an error", "a signal", "Ctrl-C"],
)
def test_a_copy_that_ends_badly_gives_its_places_back(prefect: SyncPrefectClient, error: BaseException) -> None:
    """An error, a signal to end, Ctrl-C; of a process that was killed they come back with the lease."""
    with pytest.raises(type(error)), copy_places(uuid4(), {MACHINE: 1}):
        raise error
    assert _taken(prefect) == {MACHINE: 0}


def test_a_changed_limit_counts_with_the_next_copy(prefect: SyncPrefectClient) -> None:
    """More, or fewer than there are at the moment."""
    with copy_places(uuid4(), {MACHINE: 1}), copy_places(uuid4(), {MACHINE: 2}) as more:
        assert more == ""
        with copy_places(uuid4(), {MACHINE: 1}) as fewer:
            assert fewer == f"{MACHINE} has 2 of 1"
    assert _taken(prefect) == {MACHINE: 0}


def test_without_prefect_no_place_is_given() -> None:
    """And the copy fails, to be tried again; outside of a run nobody is asked."""
    away = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(away):
        with pytest.raises(PrefectAwayError), copy_places(uuid4(), {MACHINE: 1}):
            pass
        with copy_places(None, {MACHINE: 1}) as asked:
            assert asked == ""


def _received(name: str, site: str) -> UUID:
    with writing() as session:
        job_id = job_in(session, JobState.RECEIVED, name, database_time(session))
        set_columns(session, job_id, shipping_location=site)
        return job_id


def test_a_copy_without_a_place_ends_at_once_and_leaves_its_job_as_it_was(
    prefect: SyncPrefectClient, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lease, no token, no state; where it is to be tried again is told."""
    monkeypatch.setenv("DRIVEPOST_MACHINE_NAME", "node-1.example")
    monkeypatch.setenv("DRIVEPOST_COPIES_PER_MACHINE_MAX", "1")
    job_id = _received("job1", "westus")
    with copy_places(uuid4(), {MACHINE: 1}):
        ended: Any = import_drives(job=str(job_id), return_state=True)
    assert ended.name == "Cancelled"
    assert ended.message == (
        f"job {job_id} is not copied yet: {MACHINE} has 1 of 1; advance-jobs starts its copy later"
    )
    with reading() as session:
        job = read_job(session, job_id)
        assert (job.state, job.copy_token, job.copy_lease_until) == (JobState.RECEIVED, 0, None)
    assert _taken(prefect) == {MACHINE: 0, SITE: 0}


def test_a_site_without_room_keeps_no_other_waiting(any_database: str) -> None:
    """As many are due of each site as have room there, beside those that are copied now."""
    west = [_received(f"west{number}", "westus") for number in range(4)]
    east = _received("east", "eastus")
    with writing() as session:
        now = database_time(session)
        set_columns(session, west[0], copy_token=1, copy_lease_until=now + timedelta(minutes=1))
    with reading() as session:
        assert due_copies(session, now, 10, 1) == [(east, JobType.IMPORT)]
        assert due_copies(session, now, 10, 2) == [(west[1], JobType.IMPORT), (east, JobType.IMPORT)]
        assert len(due_copies(session, now, 10, 9)) == 4
        assert due_copies(session, now, 1, 2) == [(west[1], JobType.IMPORT)]
