"""Requests whose job was deleted: those of operators are remembered for a while, and nobody waits for it."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlmodel import select

from models.database import reading, writing
from models.events import EventKind, JobEvent
from models.lifecycle import Actor, JobState
from models.spent_requests import SpentRequest, remember_spent_requests, was_spent
from tests.builders import NOON, job_in


def test_what_the_intake_made_is_remembered_and_nothing_else(any_database: str) -> None:
    """A job made, or made anew, by a request file; not by REST, nor anything else that happened to it."""
    with writing() as session:
        job_id, other = (job_in(session, JobState.CREATING, name) for name in ("job1", "job2"))
        made = {(of, kind): uuid4() for of in (job_id, other) for kind in (EventKind.CREATED, EventKind.REPLACED)}
        session.add_all(
            JobEvent(intake_id=made.get((of, kind)), job_id=of, kind=kind, by=Actor.OPERATOR, at=NOON)
            for of in (job_id, other)
            for kind in (EventKind.CREATED, EventKind.REPLACED, EventKind.UPDATED)
        )
    with writing() as session:
        remember_spent_requests(session, [job_id], at=NOON)
        spent = {key for key, intake_id in made.items() if was_spent(session, intake_id)}
        assert len(session.exec(select(SpentRequest.id)).all()) == 2
    assert spent == {(job_id, EventKind.CREATED), (job_id, EventKind.REPLACED)}


def test_two_deletions_at_once_do_not_wait_for_each_other_over_what_is_old(
    postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both would remove it; one does."""
    monkeypatch.setenv("DRIVEPOST_DATABASE_WAIT_SECONDS_MAX", "1")
    old, later = uuid4(), NOON + timedelta(days=90)
    with writing() as session:
        session.add(SpentRequest(id=old, at=NOON))
    with writing() as first, writing() as second:
        remember_spent_requests(first, [uuid4()], at=later)
        remember_spent_requests(second, [uuid4()], at=later)
    with reading() as session:
        assert session.exec(select(SpentRequest.id)).all() == []
