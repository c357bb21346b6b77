"""Which runs are still to be forgotten, once their job is gone."""

from uuid import UUID, uuid4

from models.database import reading, writing
from models.deletion import delete_job
from models.lifecycle import Actor, JobState
from models.runs import record_run, record_run_of_jobs, runs_to_forget, strike_run
from tests.builders import NOON, job_in, rows_of


def test_a_run_is_written_down_once_however_often_it_says_so(any_database: str) -> None:
    """Of one job or of many, and is nobody's to forget while its job lives."""
    run = uuid4()
    with writing() as session:
        jobs = [job_in(session, JobState.CREATING, f"job{number}") for number in range(3)]
    for _ in range(2):
        with writing() as session:
            record_run(session, jobs[0], run)
        with writing() as session:
            record_run_of_jobs(session, jobs, run)
    with reading() as session:
        assert [rows_of(session, job_id)["job_run"] for job_id in jobs] == [1, 1, 1]
        assert runs_to_forget(session, 10) == []


def test_the_runs_of_a_deleted_job_are_to_be_forgotten_until_they_are_struck_off(any_database: str) -> None:
    """Each once, though it spoke of two jobs; those of a living job stay out of it."""
    shared, own, of_another = uuid4(), uuid4(), uuid4()
    with writing() as session:
        gone, gone_too, living = (job_in(session, JobState.CREATING, f"job{number}") for number in range(3))
        for job_id, run in ((gone, shared), (gone_too, shared), (gone, own), (living, of_another)):
            record_run(session, job_id, run)
    for job_id in (gone, gone_too):
        with writing() as session:
            delete_job(session, job_id, at=NOON, by=Actor.CUSTOMER)

    def left(job_id: UUID | None = None, runs_max: int = 10) -> set[UUID]:
        with reading() as session:
            found = runs_to_forget(session, runs_max, job_id)
        assert len(found) == len(set(found))
        return set(found)

    assert left() == {shared, own}
    assert left(gone_too) == {shared}
    assert left(living) == set()
    assert len(left(runs_max=1)) == 1
    for _ in range(2):
        with writing() as session:
            strike_run(session, shared)
    assert left() == {own}
    with reading() as session:
        assert rows_of(session, living)["job_run"] == 1
