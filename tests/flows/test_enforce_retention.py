"""enforce-retention deletes what is over, and its dry run lists just that."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import pytest
from sqlmodel import col, select

from flows.enforce_retention import enforce_retention
from models.alerts import Alert
from models.clocks import Clock
from models.database import database_time, engine, reading, writing
from models.deletion import Expired, delete_expired_jobs
from models.errors import DatabaseError, IntakeError
from models.holds import place_hold
from models.jobs import HoldReason, Job
from models.lifecycle import Actor, JobState
from tests.builders import age, job_in

pytestmark = pytest.mark.usefixtures("plain_acts")

DUE: Final = {JobState.CREATING: 14, JobState.COMPLETED: 90, JobState.CLOSED: 90}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, str]]]:
    """Collect the tables that the flow shows in Prefect's UI."""
    tables: dict[str, list[dict[str, str]]] = {}

    def show(key: str, rows: list[dict[str, str]], _description: str) -> None:
        tables[key] = rows

    monkeypatch.setattr("flows.enforce_retention._show", show)
    return tables


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch, any_database: str) -> datetime:
    """Let both runs look from one moment."""
    with reading() as session:
        at = database_time(session)
    monkeypatch.setattr("flows.enforce_retention.tell_time", lambda: at)
    monkeypatch.setattr("flows.enforce_retention.look_at_time", lambda _step, **_: at)
    return at


def make_jobs(now: datetime) -> tuple[set[UUID], set[UUID]]:
    """Make jobs in every state, a microsecond before, at and after their time, and long after: due, and not."""
    due, kept = set[UUID](), set[UUID]()
    for state in JobState:
        for place, past in enumerate([timedelta(microseconds=-1), timedelta(), timedelta(days=400)]):
            with writing() as session:
                job_id = job_in(session, state, f"{state}-{place}", now)
            age(job_id, timedelta(days=DUE.get(state, 90)) + past)
            (due if state in DUE and place else kept).add(job_id)
    return due, kept


def there() -> set[UUID]:
    """Read the ids of all jobs."""
    with reading() as session:
        return set(session.exec(select(Job.id)).all())


def count(message: str | None) -> int:
    """Read the first figure of a message."""
    found = re.search(r"[\d,]+", message or "")
    assert found
    return int(found[0].replace(",", ""))


def test_a_dry_run_lists_exactly_what_a_real_run_deletes(now: datetime, shown: dict[str, Any]) -> None:
    """By opaque ids, and deletes nothing; the real run deletes just these; a second one deletes nothing."""
    due, kept = make_jobs(now)
    listed = enforce_retention.fn(dry_run=True)
    assert listed.is_completed()
    assert count(listed.message) == len(due)
    rows = shown["retention-dry-run"]
    assert {UUID(row["job"]) for row in rows} == due
    assert len(rows) == len(due)
    assert all(row.keys() == {"job", "state", "reason", "late"} for row in rows)
    assert there() == due | kept, "a dry run deletes nothing"
    assert count(enforce_retention.fn().message) == len(due)
    assert there() == kept
    assert count(enforce_retention.fn().message) == 0
    assert enforce_retention.fn(dry_run=True).message.startswith("would delete 0 jobs; ")  # type: ignore[union-attr]
    assert there() == kept


@pytest.mark.parametrize(("batch_rows", "task_rows"), [(1, 1), (2, 3), (3, 2), (100, 2), (1, 100)])
def test_it_deletes_all_in_whatever_batches(
    now: datetime,
    shown: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    batch_rows: int,
    task_rows: int,
) -> None:
    """More than one transaction, more than one task."""
    monkeypatch.setenv("DRIVEPOST_RETENTION_BATCH_ROWS", str(batch_rows))
    monkeypatch.setattr("flows.enforce_retention._ROWS_PER_TASK", task_rows)
    due, kept = make_jobs(now)
    assert count(enforce_retention.fn().message) == len(due)
    assert there() == kept
    report = {row["what"]: row["figure"] for row in shown["retention-report"]}
    assert report["deleted in all"] == str(len(due))
    assert report["deleted, 14 days without an update"] == "2"
    assert report["deleted, 90 days Completed"] == report["deleted, 90 days Closed"] == "2"
    assert report["late, at most"] == f"{400 * 24} h 00 min 00 s"


def test_a_dry_run_says_when_it_does_not_list_all(
    now: datetime, shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list has an end, and the line says so."""
    monkeypatch.setattr("flows.enforce_retention._LISTED_MAX", 2)
    make_jobs(now)
    message = enforce_retention.fn(dry_run=True).message or ""
    assert message.startswith("would delete 6 jobs; the 2 longest overdue are listed")
    assert len(shown["retention-dry-run"]) == 2


def test_a_dry_run_tells_what_comes_due_in_the_next_days(now: datetime, shown: dict[str, Any]) -> None:
    """By day and state, without ids; what is due now, held or later than seven days is not in it."""
    with writing() as session:
        for number, ahead in enumerate(
            [timedelta(hours=1), timedelta(days=6, hours=23), timedelta(days=7, hours=1)]
        ):
            since = now - timedelta(days=90) + ahead
            job_in(session, JobState.COMPLETED, f"soon{number}", since)
        held = job_in(session, JobState.CLOSED, "held", now - timedelta(days=89, hours=23))
        place_hold(session, held, HoldReason.AUDIT, at=now, by=Actor.OPERATOR)
    message = enforce_retention.fn(dry_run=True).message or ""
    assert message == "would delete 0 jobs; 2 more come due in 7 days; nothing was deleted"
    outlook = {row["what"]: row["figure"] for row in shown["retention-outlook"]}
    assert outlook.pop("due in the next 7 days") == "2 (2 Completed)"
    assert outlook.pop("due, and kept by a legal hold") == "0"
    assert outlook.pop("under legal hold, audit") == "1"
    days = {f"due on {now + ahead:%Y-%m-%d}" for ahead in (timedelta(hours=1), timedelta(days=6, hours=23))}
    assert outlook == dict.fromkeys(days, "1 (1 Completed)")


@pytest.mark.parametrize("silently", [False, True])
def test_a_job_that_cannot_be_deleted_keeps_no_other_and_the_sweep_fails(
    now: datetime, any_database: str, silently: bool, shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every time, until it can be; all others go, the report tells how late it is, and operators are told."""
    monkeypatch.setenv("DRIVEPOST_RETENTION_BATCH_ROWS", "4")
    due, kept = make_jobs(now)
    stuck = sorted(due)[0]
    forbid_deletion(stuck, any_database, silently=silently)
    for left in (due - {stuck}, set[UUID]()):
        ended = enforce_retention.fn()
        assert ended.is_failed()
        assert (ended.message or "").startswith("1 jobs could not be deleted: ")
        assert (ended.message or "").endswith(f"deleted {len(left)} jobs")
        assert there() == kept | {stuck}
        report = {row["what"]: row["figure"] for row in shown["retention-report"]}
        assert report["could not be deleted"] == "1"
        with reading() as session:
            late = now - (session.get_one(Job, stuck).expires_at or now)
        assert report["oldest_overdue_seconds"] == f"{late.total_seconds():.0f}"
    assert kinds_of_alerts() == ["retention-failed"]
    allow_deletion(any_database)
    assert enforce_retention.fn().is_completed()
    assert there() == kept


def forbid_deletion(job_id: UUID, url: str, *, silently: bool = False) -> None:
    """Let the database refuse to delete a job, for whatever reason of its own, or keep it without a word."""
    with engine().execution_options(writes=True).begin() as connection:
        if url.startswith("sqlite"):
            act = "IGNORE" if silently else "ABORT, 'odd'"
            connection.exec_driver_sql(
                f"CREATE TRIGGER odd BEFORE DELETE ON job WHEN old.id = '{job_id.hex}' "
                f"BEGIN SELECT RAISE({act}); END"
            )
            return
        act = "RETURN NULL" if silently else "RAISE EXCEPTION 'odd'"
        connection.exec_driver_sql(
            f"CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {act}; END $$"
        )
        connection.exec_driver_sql(
            f"CREATE TRIGGER odd BEFORE DELETE ON job FOR EACH ROW WHEN (old.id = '{job_id}') "
            "EXECUTE FUNCTION odd()"
        )


def allow_deletion(url: str) -> None:
    """Let the database delete it again."""
    with engine().execution_options(writes=True).begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER odd" if url.startswith("sqlite") else "DROP FUNCTION odd CASCADE")


def kinds_of_alerts() -> list[str]:
    """Read which kinds of alerts were raised."""
    with reading() as session:
        return sorted({alert.kind for alert in session.exec(select(Alert)).all()})


def set_clock_seen(ahead: timedelta) -> None:
    """Let somebody have looked at the clock when it was so far ahead of now."""
    with writing() as session:
        session.merge(Clock(id=1, seen_at=database_time(session) + ahead))


@pytest.mark.parametrize("ahead", [timedelta(days=-3), timedelta(days=3)], ids=["jumped ahead", "went back"])
def test_by_a_clock_that_jumped_nothing_is_deleted(
    any_database: str, shown: dict[str, Any], ahead: timedelta
) -> None:
    """Twice; what is due stays due, and operators are told once."""
    with reading() as session:
        due, kept = make_jobs(database_time(session))
    set_clock_seen(ahead)
    for _ in range(2):
        ended = enforce_retention.fn()
        assert ended.is_failed()
        assert (ended.message or "").startswith("ClockJumped: ")
        assert there() == due | kept
    assert kinds_of_alerts() == ["clock-jumped"]
    assert enforce_retention.fn(dry_run=True).is_completed()
    assert there() == due | kept


def test_an_operator_may_say_that_the_clock_is_right(any_database: str, shown: dict[str, Any]) -> None:
    """Once is enough: the next sweep asks nobody."""
    with reading() as session:
        due, kept = make_jobs(database_time(session))
    set_clock_seen(timedelta(days=-3))
    assert count(enforce_retention.fn(clock_is_right=True).message) >= len(due)
    assert there() < kept | {UUID(int=0)}
    assert enforce_retention.fn().is_completed()


def test_an_operator_may_say_that_a_clock_is_right_that_went_back(
    any_database: str, shown: dict[str, Any]
) -> None:
    """Only what is due by it goes."""
    with reading() as session:
        due, kept = make_jobs(database_time(session))
    set_clock_seen(timedelta(days=3))
    assert count(enforce_retention.fn(clock_is_right=True).message) >= len(due)
    assert there() < kept | {UUID(int=0)}
    assert enforce_retention.fn().is_completed()


def test_a_job_that_cannot_be_deleted_is_counted_once_however_many_acts_a_sweep_has(
    now: datetime, any_database: str, shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each act passes over what the one before it could not delete."""
    monkeypatch.setattr("flows.enforce_retention._ROWS_PER_TASK", 2)
    due, kept = make_jobs(now)
    stuck = sorted(due)[0]
    forbid_deletion(stuck, any_database)
    ended = enforce_retention.fn()
    assert (ended.message or "").startswith("1 jobs could not be deleted: ")
    assert there() == kept | {stuck}
    allow_deletion(any_database)


def test_a_sweep_that_gives_up_tells_what_it_deleted(
    now: datetime, any_database: str, shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the database refuses too many jobs, something else is wrong than these jobs."""
    monkeypatch.setattr("tasks.retention._STUCK_MAX", 1)
    monkeypatch.setenv("DRIVEPOST_RETENTION_BATCH_ROWS", "1")
    due, kept = make_jobs(now)
    stuck = sorted(due)[0]
    forbid_deletion(stuck, any_database)
    ended = enforce_retention.fn()
    gone = due - there()
    assert stuck not in gone
    assert (ended.message or "").endswith(f"; too many to go on; deleted {len(gone)} jobs")
    assert there() > kept
    allow_deletion(any_database)


def test_beside_another_sweep_only_the_job_that_cannot_be_deleted_is_called_so(
    now: datetime, postgresql: str, shown: dict[str, Any]
) -> None:
    """What the other has taken is passed over, and blamed for nothing."""
    due, kept = make_jobs(now)
    with reading() as session:
        ordered = session.exec(select(Job.id).where(col(Job.id).in_(due)).order_by(col(Job.expires_at))).all()
    taken, stuck = ordered[:1], ordered[1]
    forbid_deletion(stuck, postgresql)
    with writing() as other:
        other.exec(select(Job.id).where(col(Job.id).in_(taken)).with_for_update()).all()
        ended = enforce_retention.fn()
    assert (ended.message or "").startswith("1 jobs could not be deleted: ")
    assert there() == kept | {stuck, *taken}
    allow_deletion(postgresql)


def test_an_intake_that_is_away_stops_no_deletion_and_is_told(
    now: datetime, shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run fails and operators hear of it, and all that is due is gone."""

    def away(*_: object) -> None:
        raise IntakeError("the intake folder cannot be read: stale")

    monkeypatch.setattr("flows.enforce_retention.finish_taken_requests", away)
    due, kept = make_jobs(now)
    ended = enforce_retention.fn()
    assert ended.is_failed()
    assert ended.message == f"IntakeFileInvalid: the intake folder cannot be read: stale; deleted {len(due)} jobs"
    assert there() == kept
    assert kinds_of_alerts() == ["retention-failed"]


@pytest.mark.parametrize("act", ["look_at_time", "look_ahead", "forget_runs", "close_finished_receipts"])
def test_however_retention_fails_operators_hear_of_it(
    now: datetime, shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """A fault of any act ends the run Failed."""

    def broken(*_: object, **__: object) -> None:
        raise DatabaseError("the database refused: it")

    monkeypatch.setattr(f"flows.enforce_retention.{act}", broken)
    assert enforce_retention.fn().is_failed()
    assert kinds_of_alerts() == ["retention-failed"]


def test_a_run_that_can_write_down_no_alert_ends_with_its_own_fault(
    now: datetime, shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the database is away."""

    def broken(name: str) -> None:
        raise DatabaseError(name)

    monkeypatch.setattr("flows.enforce_retention.look_ahead", lambda *_: broken("first"))
    monkeypatch.setattr("flows.enforce_retention.raise_alert", lambda *_: broken("second"))
    assert (enforce_retention.fn().message or "").endswith("first")


@pytest.mark.parametrize("is_passing", [True, False])
def test_a_sweep_that_is_cut_tells_all_that_it_deleted(
    now: datetime, shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch, is_passing: bool
) -> None:
    """The batches before the fault count; what passes is tried again by the next act."""
    batches = iter(range(100))

    def third_fails(*args: Any, **options: Any) -> Sequence[Expired]:
        number = next(batches)
        if number == 2 or (number > 2 and not is_passing):
            raise DatabaseError("the database refused: it")
        return delete_expired_jobs(*args, **options)

    monkeypatch.setenv("DRIVEPOST_RETENTION_BATCH_ROWS", "2")
    monkeypatch.setattr("tasks.retention.delete_expired_jobs", third_fails)
    due, _ = make_jobs(now)
    ended = enforce_retention.fn()
    gone = len(due - there())
    assert gone == (6 if is_passing else 4)
    assert ended.is_completed() is is_passing
    assert f"deleted {gone} jobs" in (ended.message or "")
    assert {row["what"]: row["figure"] for row in shown["retention-report"]}["deleted in all"] == str(gone)
