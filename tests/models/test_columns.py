"""Column types keep what they promise on both databases."""

from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Final
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, StatementError
from sqlmodel import col, select, update

from models.database import reading, writing
from models.jobs import Job, read_job
from models.lifecycle import JobState, JobType
from tests.builders import NOON, job_in, set_columns

MOMENTS: Final = [
    NOON,
    NOON + timedelta(microseconds=1),
    NOON - timedelta(microseconds=1),
    datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=-11, minutes=-30))),
    datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=14))),
    datetime(9999, 12, 30, tzinfo=UTC),
]


@pytest.fixture
def job_id(any_database: str) -> UUID:
    """A job to write moments and words into."""
    with writing() as session:
        return job_in(session, JobState.CREATING)


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_a_moment_comes_back_the_same_and_in_utc(job_id: UUID, moment: datetime) -> None:
    """To the microsecond, from whatever zone it was told in."""
    with writing() as session:
        set_columns(session, job_id, state_since=moment)
    with reading() as session:
        found = read_job(session, job_id).state_since
        assert found == moment
        assert found.utcoffset() == timedelta(0)
        for border, is_found in ((timedelta(0), True), (timedelta(microseconds=-1), False)):
            due = select(Job.id).where(col(Job.state_since) <= moment + border)
            assert (session.exec(due).first() is not None) is is_found


def test_a_moment_without_a_zone_is_refused(job_id: UUID) -> None:
    """Nobody knows when it was; what is there stays."""
    with pytest.raises(StatementError, match="a moment needs a time zone"), writing() as session:
        set_columns(session, job_id, state_since=NOON.replace(tzinfo=None))
    with reading() as session:
        assert read_job(session, job_id).state_since == NOON


def test_no_moment_stays_none(job_id: UUID) -> None:
    """Both ways."""
    with writing() as session:
        set_columns(session, job_id, expires_at=None)
    with reading() as session:
        assert read_job(session, job_id).expires_at is None


def test_an_enum_is_kept_by_its_word(job_id: UUID) -> None:
    """As the API says it, not as Python names it, and given back as what it is."""
    with reading() as session:
        row = session.connection().execute(text("SELECT state, job_type FROM job")).one()
        assert tuple(row) == ("Creating", "Import")
        job = read_job(session, job_id)
        assert job.state is JobState.CREATING
        assert job.job_type is JobType.IMPORT


def test_a_word_that_is_none_is_refused_by_us_and_by_the_database(job_id: UUID) -> None:
    """Even past our own code."""

    class Other(StrEnum):
        CREATING = "CREATING"

    for wrong in ("CREATING", "Shipped", Other.CREATING):
        with pytest.raises(StatementError), writing() as session:
            session.connection().execute(update(Job).where(col(Job.id) == job_id).values(state=wrong))
    with pytest.raises(IntegrityError), writing() as session:
        session.connection().execute(text("UPDATE job SET state = 'CREATING'"))
    with reading() as session:
        assert read_job(session, job_id).state is JobState.CREATING
