"""Ten thousand wishes at once: they are worked off run by run, and nothing else waits until they are."""

import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlmodel import Session, col, func, select

from flows import advance_jobs as advancing
from flows.advance_jobs import advance_jobs
from flows.enforce_retention import enforce_retention
from models.database import database_time, reading, writing
from models.jobs import Job
from models.lifecycle import JobState, JobType
from tests.benchmarks.many_jobs import Cohort, make_jobs, real_job
from tests.builders import job_in, job_request

CANCELS: Final = 6_000
ERASURES: Final = 3_750
REQUESTS: Final = 250
COPIES: Final = 5
OVER: Final = 50
AT_ONCE: Final = 2
ROWS: Final = 50
ROWS_THOROUGH: Final = 1_000
RUNS: Final = 2
RUNS_MAX: Final = 100
REQUESTS_A_RUN: Final = 100

pytestmark = pytest.mark.usefixtures("plain_acts")


class Asked:
    """Stands in for Prefect: which copies were asked for, in each run."""

    def __init__(self) -> None:
        self.copies: list[list[UUID]] = []

    def start_copies(
        self, due: Sequence[tuple[UUID, JobType]], under_way: Sequence[UUID], copies_max: int, _seconds: float
    ) -> list[UUID]:
        """Start as many as there is room for."""
        self.copies.append([job_id for job_id, _ in due])
        return self.copies[-1][: copies_max - len(under_way)]


@pytest.fixture
def asked(plain_acts: None, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Let the flows do without Prefect."""
    asked = Asked()
    monkeypatch.setattr(advancing, "start_copies", asked.start_copies)
    for name in (
        "bury_dead_runs",
        "drop_late_runs",
        "record_unbegun_runs",
        "hide_names",
        "forget_runs",
        "send_alerts",
    ):
        monkeypatch.setattr(advancing, name, lambda *_: 0)
    monkeypatch.setattr("flows.enforce_retention.forget_runs", lambda *_: 0)
    return asked


@pytest.fixture
def flood(any_database: str, data_directory: Path) -> set[UUID]:
    """Make the wishes, and what is due beside them; gives the jobs whose copy is due."""
    with reading() as session:
        now = database_time(session)
    long_ago, wished = now - timedelta(days=60), now - timedelta(hours=1)
    cancelled = real_job(JobState.SHIPPING, "cancelled", long_ago, cancel_requested_at=wished)
    erased = real_job(JobState.COMPLETED, "erased", long_ago, erasure_wished_at=wished)
    over = real_job(JobState.COMPLETED, "over", long_ago)
    make_jobs(
        [
            Cohort(cancelled, CANCELS - 1, long_ago, now),
            Cohort(erased, ERASURES - 1, now + timedelta(days=1), now + timedelta(days=29)),
            Cohort(over, OVER, now - timedelta(days=2), now - timedelta(hours=1)),
        ]
    )
    aside = data_directory / "intake" / ".taken"
    aside.mkdir()
    for number in range(REQUESTS):
        (aside / f"{uuid4()}.lost{number}.json").write_text(json.dumps(job_request(f"lost{number}")), "utf-8")
    with writing() as session:
        drives = [
            [{"driveId": f"DUE{n}", "manifestFile": "\\m.xml", "manifestHash": "A" * 32}] for n in range(COPIES)
        ]
        return {job_in(session, JobState.RECEIVED, f"due{n}", now, driveList=drives[n]) for n in range(COPIES)}


def count(session: Session, *conditions: Any) -> int:
    """Count jobs."""
    return session.exec(select(func.count()).select_from(Job).where(*conditions)).one()


def left(data_directory: Path) -> tuple[int, int, int]:
    """Tell how many cancels, erasures and requests wait."""
    with reading() as session:
        return (
            count(session, col(Job.cancel_requested_at).is_not(None), Job.state == JobState.SHIPPING),
            count(session, col(Job.erasure_wished_at).is_not(None), col(Job.erased_at).is_(None)),
            len(list((data_directory / "intake" / ".taken").iterdir())),
        )


def due_for_deletion(at: datetime) -> int:
    """Count the jobs whose time is over."""
    with reading() as session:
        return count(session, col(Job.expires_at) <= at)


def test_a_flood_of_wishes_starves_neither_the_copy_nor_retention(
    flood: set[UUID],
    asked: Asked,
    data_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    thorough: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each run takes up as many of a kind as it may, and starts copies; a sweep between them deletes all due."""
    rows = ROWS_THOROUGH if thorough else ROWS
    monkeypatch.setenv("DRIVEPOST_ADVANCE_ROWS", str(rows))
    monkeypatch.setenv("DRIVEPOST_COPIES_AT_ONCE_MAX", str(AT_ONCE))
    waiting = left(data_directory)
    assert waiting == (CANCELS, ERASURES, REQUESTS)
    with reading() as session:
        now = database_time(session)
    runs = 0
    while any(waiting) and runs < (RUNS_MAX if thorough else RUNS):
        ended = advance_jobs.fn()
        assert ended.is_completed(), ended.message
        runs += 1
        before, waiting = waiting, left(data_directory)
        taken = [one - other for one, other in zip(before, waiting, strict=True)]
        assert taken == [min(rows, before[0]), min(rows, before[1]), min(REQUESTS_A_RUN, before[2])]
        assert set(asked.copies[-1]) == flood
        assert f"{AT_ONCE} copies started" in str(ended.message)
        if runs == 1:
            assert due_for_deletion(now) == OVER
            swept = enforce_retention.fn()
            assert re.search(rf"deleted {OVER} jobs", str(swept.message))
            assert due_for_deletion(now) == 0
            waiting = left(data_directory)
            assert waiting[:2] == (before[0] - rows, before[1] - rows)
    assert not thorough or waiting == (0, 0, 0)
    with capsys.disabled():
        print(f"\nof {CANCELS + ERASURES + REQUESTS:,} wishes {sum(waiting):,} wait after {runs} runs")  # noqa: T201
