"""The last step of a deletion: its receipt is closed when every trace is gone, and not before."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlmodel import Session, col, select

import tasks.receipts
from models.database import database_time, reading, writing
from models.deletion import delete_job
from models.erasure import wish_erasure
from models.lifecycle import Actor, JobState, Outcome
from models.receipts import OpenReceipt, ReceiptEntry, ReceiptStep, Verified, close_receipts, verify_receipts
from models.runs import record_run, strike_run
from models.settings import Settings
from tasks.receipts import close_finished_receipts
from tasks.retention import delete_expired
from tests.builders import NOON, at_once, job_in

NINETY: Final = NOON + timedelta(days=90)


def delete_jobs(count: int, first: int = 0, *, run: UUID | None = None) -> list[UUID]:
    """Make jobs and delete them by hand, in the order of the ids given; a run of theirs is not forgotten yet."""
    made = []
    for number in range(first, first + count):
        with writing() as session:
            made.append(job_in(session, JobState.COMPLETED, f"job{number}"))
            if run is not None:
                record_run(session, made[-1], run)
        with writing() as session:
            delete_job(session, made[-1], at=database_time(session), by=Actor.OPERATOR)
    return made


def close(batch_rows: int = 100, rows_max: int = 100) -> int:
    """Do the act as a flow does."""
    return close_finished_receipts.fn(batch_rows, rows_max)


def verify() -> Verified:
    """Look at every receipt."""
    with reading() as session:
        return verify_receipts(session)


def closed() -> list[UUID]:
    """Read of what the receipts are closed, in the order of their closing."""
    with reading() as session:
        done = select(ReceiptEntry.opaque_id).where(col(ReceiptEntry.step) == ReceiptStep.DONE)
        return list(session.exec(done.order_by(col(ReceiptEntry.number))))


def unclosed() -> list[UUID]:
    """Read of what the receipts are open, in the order of their beginning."""
    with reading() as session:
        return list(session.exec(select(OpenReceipt.opaque_id).order_by(col(OpenReceipt.begun))))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for another's lock gives up soon."""
    monkeypatch.setenv("DRIVEPOST_DATABASE_WAIT_SECONDS_MAX", "0.05")


def test_closes_what_is_gone_with_every_trace_once(any_database: str) -> None:
    """At the database's time; done again, there is nothing to do."""
    made = delete_jobs(3)
    with reading() as session:
        before = database_time(session)
    assert close() == 3
    assert [close(), close()] == [0, 0]
    assert (closed(), unclosed()) == (made, [])
    found = verify()
    assert (found.entries, found.unfinished, found.faults) == (6, 0, ())
    with reading() as session:
        done = session.exec(select(ReceiptEntry).where(col(ReceiptEntry.step) == ReceiptStep.DONE)).all()
        after = database_time(session)
    assert all(before <= entry.at <= after for entry in done)


def test_keeps_a_receipt_open_until_every_run_is_forgotten(any_database: str) -> None:
    """Those of other jobs are closed meanwhile."""
    run = uuid4()
    waiting, free = delete_jobs(2, run=run), delete_jobs(2, first=2)
    for _ in range(2):
        close()
        assert (closed(), unclosed()) == (free, waiting)
    with writing() as session:
        strike_run(session, run)
    assert close() == 2
    assert (closed(), unclosed()) == ([*free, *waiting], [])


def test_receipts_that_wait_do_not_stand_in_the_way_of_others(any_database: str) -> None:
    """Though they are older, and more than a batch."""
    delete_jobs(3, run=uuid4())
    free = delete_jobs(3, first=3)
    assert close(batch_rows=1, rows_max=2) == 2
    assert closed() == free[:2]
    assert close(batch_rows=2, rows_max=2) == 1
    assert closed() == free


@pytest.mark.parametrize(("batch_rows", "rows_max"), [(1, 1), (1, 3), (2, 3), (3, 2), (100, 5), (2, 100)])
def test_closes_in_batches_and_no_more_than_asked(
    any_database: str, batch_rows: int, rows_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest first; a batch is one transaction, and pages are given back before the first."""
    made = delete_jobs(5)
    acts: list[str] = []

    def give_back() -> bool:
        acts.append("pages")
        return True

    def note(session: Session, ids: Sequence[UUID], **told: Any) -> int:
        acts.append(f"close {len(ids)}")
        return close_receipts(session, ids, **told)

    monkeypatch.setattr(tasks.receipts, "write_anew", give_back)
    monkeypatch.setattr(tasks.receipts, "close_receipts", note)
    total = min(5, rows_max)
    assert close(batch_rows, rows_max) == total
    assert closed() == made[:total]
    sizes = [min(batch_rows, total - done) for done in range(0, total, batch_rows)]
    assert acts == ["pages", *(f"close {size}" for size in sizes)]
    while close(batch_rows, rows_max):
        pass
    assert closed() == made


def test_nothing_to_close_gives_no_pages_back(any_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log ahead is not cut every minute for nothing."""

    def fail() -> bool:
        raise AssertionError

    monkeypatch.setattr(tasks.receipts, "write_anew", fail)
    assert close() == 0
    delete_jobs(1, run=uuid4())
    assert close() == 0
    assert close(rows_max=0) == 0


def test_keeps_a_receipt_open_while_somebody_reads_what_was_before(sqlite: str, impatient: None) -> None:
    """The log ahead cannot be cut, and still holds the pages; it is closed when the reader is gone."""
    with writing() as session:
        job_in(session, JobState.CREATING, "somebody-else")
    with reading() as reader:
        assert reader.connection().execute(text("SELECT count(*) FROM job")).scalar() == 1
        made = delete_jobs(2)
        for _ in range(2):
            assert close() == 0
        assert (closed(), unclosed()) == ([], made)
        assert log_ahead().stat().st_size > 0
        assert verify().unfinished == 2
    assert close() == 2
    assert (closed(), unclosed()) == (made, [])


def log_ahead() -> Path:
    """Tell where SQLite's log ahead is."""
    return Settings().data_directory / "drivepost.db-wal"


def test_keeps_a_receipt_open_while_somebody_writes(sqlite: str, impatient: None) -> None:
    """The log ahead cannot be cut either; nothing is told as a fault."""
    made = delete_jobs(1)
    with writing() as session:
        job_in(session, JobState.CREATING, "somebody-else")
        assert close() == 0
    assert closed() == []
    assert close() == 1
    assert closed() == made


def test_on_postgresql_nobody_is_waited_for(postgresql: str, impatient: None) -> None:
    """It keeps no log ahead of ours."""
    with reading() as reader:
        reader.connection().execute(text("SELECT count(*) FROM job"))
        delete_jobs(2)
        assert close() == 2


def cut(monkeypatch: pytest.MonkeyPatch, name: str, *, after: bool) -> None:
    """Let the act be cut before, or after, what it calls by a name; once."""
    called: Callable[..., Any] = getattr(tasks.receipts, name)

    def cut_here(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.undo()
        if after:
            called(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(tasks.receipts, name, cut_here)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", ["finished_receipts", "write_anew", "close_receipts", "database_time"])
def test_cut_anywhere_it_is_done_by_the_next(
    any_database: str, name: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after each of its steps: nothing is closed by half, and each once in the end."""
    made = delete_jobs(3)
    with pytest.MonkeyPatch.context() as patch:
        cut(patch, name, after=after)
        with pytest.raises(KeyboardInterrupt):
            close(batch_rows=2)
    assert (closed(), unclosed()) == ([], made)
    assert close(batch_rows=2) == 3
    assert closed() == made
    assert verify().faults == ()


def test_cut_between_batches_the_rest_is_done_by_the_next(
    any_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was closed stays closed."""
    made = delete_jobs(5)
    calls: list[int] = []

    def close_twice(*args: Any, **told: Any) -> int:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return close_receipts(*args, **told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.receipts, "close_receipts", close_twice)
        with pytest.raises(KeyboardInterrupt):
            close(batch_rows=2)
    assert (closed(), unclosed()) == (made[:4], made[4:])
    assert close(batch_rows=2) == 1
    assert closed() == made


def test_several_that_close_at_once_close_each_once(any_database: str) -> None:
    """In small batches, three together."""
    made = delete_jobs(7)
    ends = at_once(*[lambda: close(batch_rows=2)] * 3)
    assert all(isinstance(end, int) for end in ends), ends
    # On SQLite each stands in the other's way for a while, so that some may be left.
    close()
    assert sorted(map(str, closed())) == sorted(map(str, made))
    found = verify()
    assert (found.entries, found.unfinished, found.faults) == (14, 0, ())


def test_an_erasures_receipt_is_closed_though_runs_of_its_job_are_remembered(any_database: str) -> None:
    """They never told anybody's data; the job that stays is not waited for."""
    with writing() as session:
        job_id = job_in(session, JobState.COMPLETED)
        record_run(session, job_id, uuid4())
        # Its package may come for 14 days.
        at = NOON + timedelta(days=14)
        assert wish_erasure(session, job_id, at=at, by=Actor.OPERATOR, at_once=True) is Outcome.DONE
    assert unclosed() == [job_id]
    assert close() == 1
    assert closed() == [job_id]


def test_what_retention_deletes_has_its_receipt_closed_when_its_runs_are_forgotten(any_database: str) -> None:
    """Begun by one act, closed by the other, due at 90 days."""
    run = uuid4()
    with writing() as session:
        made = [job_in(session, JobState.COMPLETED, f"job{number}") for number in range(5)]
        record_run(session, made[3], run)
    swept = delete_expired.fn(NINETY, batch_rows=2, rows_max=4)
    assert swept.deleted.total() == 4
    assert delete_expired.fn(NINETY, batch_rows=2, rows_max=4).deleted.total() == 1
    waiting = [job_id for job_id in unclosed() if job_id == made[3]]
    assert close(batch_rows=2) == 4
    assert unclosed() == waiting == [made[3]]
    with writing() as session:
        strike_run(session, run)
    assert close() == 1
    with reading() as session:
        told = session.exec(select(ReceiptEntry)).all()
    assert len(told) == 10
    assert {(entry.reason, entry.due_at) for entry in told} == {("retention", NINETY)}
    assert verify().faults == ()
