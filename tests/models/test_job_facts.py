"""What is known of jobs, read together: how far they have come, and in how many statements that is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event
from sqlmodel import Session, col, select

from models.database import engine, reading, writing
from models.drives import drives_of
from models.job_facts import DriveFacts, JobFacts, percent_of, read_facts
from models.jobs import Job, read_job
from models.lifecycle import DriveState, JobState, JobType
from models.shipping import Direction, Package
from tests.builders import ACCOUNT, ADDRESS, DRIVE, NOON, job_in, with_every_row

D: Final = DriveState

# How much of a drive is done: bytes done, bytes in all (None before its copy began) -> percent.
OF_A_DRIVE: Final[list[tuple[int, int | None, int | None]]] = [
    (0, None, None),
    (0, 1, 0),
    (1, 1, 100),
    (0, 0, 100),
    (1, 3, 33),
    (2, 3, 66),
    (999, 1000, 99),
    (2**41 - 1, 2**41, 99),
    (2**41, 2**41, 100),
    (1, 2**41, 0),
    (5, 4, 100),
]

# A job's drives, each as state, bytes done, bytes in all -> percent of the job.
OF_A_JOB: Final[list[tuple[list[tuple[DriveState, int, int | None]], int | None]]] = [
    ([], None),
    ([(D.SPECIFIED, 0, None)], None),
    ([(D.RECEIVED, 0, None), (D.SPECIFIED, 0, None)], None),
    ([(D.NEVER_RECEIVED, 0, None)], None),
    ([(D.TRANSFERRING, 0, 10)], 0),
    ([(D.TRANSFERRING, 5, 10)], 50),
    ([(D.COMPLETED, 10, 10)], 100),
    ([(D.COMPLETED, 0, 0)], 100),
    # Every drive counts alike, however much lies on it; one whose copy has not begun counts as nothing.
    ([(D.COMPLETED, 10, 10), (D.RECEIVED, 0, None)], 50),
    ([(D.COMPLETED, 1, 1), (D.TRANSFERRING, 0, 2**41)], 50),
    ([(D.COMPLETED, 1, 1), (D.RECEIVED, 0, None), (D.RECEIVED, 0, None)], 33),
    ([(D.COMPLETED, 1, 1), (D.COMPLETED, 1, 1), (D.TRANSFERRING, 99, 100)], 99),
    ([(D.COMPLETED, 1, 1)] * 10, 100),
    ([*[(D.COMPLETED, 1, 1)] * 9, (D.TRANSFERRING, 2**41 - 1, 2**41)], 99),
    # A drive that never came does not hold the job back; one that may still come does.
    ([(D.COMPLETED, 10, 10), (D.NEVER_RECEIVED, 0, None)], 100),
    ([(D.COMPLETED, 10, 10), (D.SPECIFIED, 0, None)], 50),
    ([(D.SHIPPED_BACK, 10, 10), (D.SHIPPED_BACK, 5, 10)], 75),
    # What was stopped stays where it stopped.
    ([(D.COMPLETED_MORE_INFO, 3, 10)], 30),
]


def drive(state: DriveState, done: int = 0, total: int | None = None) -> DriveFacts:
    """Make what is known of a drive of which so many bytes are copied."""
    return DriveFacts(job_id=uuid4(), state=state, bytes_total=total, bytes_succeeded=done)


def facts(drives: list[DriveFacts]) -> JobFacts:
    """Make a job's facts of its drives alone."""
    job = Job(
        subscription_id="s1",
        resource_group="g1",
        name="job1",
        resource_key="s1/g1/job1",
        job_type=JobType.IMPORT,
        location="West US",
        shipping_location="westus",
        storage_account_id=ACCOUNT,
        state_since=NOON,
        created_at=NOON,
        updated_at=NOON,
    )
    return JobFacts(job, None, None, None, None, drives)


@pytest.mark.parametrize(("done", "total", "percent"), OF_A_DRIVE)
def test_the_percentage_of_a_drive_is_rounded_down(done: int, total: int | None, percent: int | None) -> None:
    """100 means all of it, a drive with nothing to copy is done at once, and before its copy there is none."""
    assert percent_of(drive(D.TRANSFERRING, done, total)) == percent


@pytest.mark.parametrize(("drives", "percent"), OF_A_JOB)
def test_the_percentage_of_a_job_is_that_of_all_its_drives(
    drives: list[tuple[DriveState, int, int | None]], percent: int | None
) -> None:
    """In any order of the drives."""
    made = [drive(*each) for each in drives]
    assert facts(made).percent_complete == percent
    assert facts(made[::-1]).percent_complete == percent


_BYTES: Final = st.integers(0, 2**50)
_DRIVES: Final = st.lists(
    st.tuples(st.sampled_from([*DriveState]), _BYTES, st.none() | _BYTES).map(lambda each: drive(*each)),
    max_size=10,
)


@given(_DRIVES)
def test_a_percentage_is_a_whole_number_from_0_to_100(drives: list[DriveFacts]) -> None:
    """Whatever the drives say; 100 only where every drive that came is done, and None only where none began."""
    percent = facts(drives).percent_complete
    here = [each for each in drives if each.state is not D.NEVER_RECEIVED]
    assert (percent is None) is all(each.bytes_total is None for each in here)
    if percent is not None:
        assert isinstance(percent, int)
        assert 0 <= percent <= 100
        is_done = all(each.bytes_total is not None and each.bytes_succeeded >= each.bytes_total for each in here)
        assert (percent == 100) is is_done


@given(st.lists(st.tuples(_BYTES, _BYTES), min_size=1, max_size=10), st.data())
def test_a_percentage_never_falls_while_bytes_are_copied(
    drives: list[tuple[int, int]], data: st.DataObject
) -> None:
    """More bytes are never less of the job."""
    before = [drive(D.TRANSFERRING, min(pair), max(pair)) for pair in drives]
    after = [drive(D.TRANSFERRING, data.draw(st.integers(min(pair), max(pair))), max(pair)) for pair in drives]
    first, then = facts(before).percent_complete, facts(after).percent_complete
    assert first is not None
    assert then is not None
    assert first <= then


@contextmanager
def statements() -> Iterator[list[str]]:
    """Note what is asked of the database."""
    noted: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement != "BEGIN":
            noted.append(statement)

    event.listen(engine(), "before_cursor_execute", note)
    try:
        yield noted
    finally:
        event.remove(engine(), "before_cursor_execute", note)


def make_jobs(session: Session, first: int, count: int) -> None:
    """Make jobs with rows in every table."""
    for number in range(first, first + count):
        entries = [{**DRIVE, "driveId": f"SERIAL-{number}-{each}"} for each in range(3)]
        job_id = job_in(session, JobState.SHIPPING, f"job{number}", driveList=entries)
        with_every_row(session, job_id)


def jobs_of(session: Session) -> list[Job]:
    """Read all jobs, in the order of their names."""
    return list(session.exec(select(Job).order_by(col(Job.resource_key))).all())


@pytest.mark.parametrize("with_drives", [True, False])
def test_facts_take_a_statement_a_table_however_many_jobs(any_database: str, with_drives: bool) -> None:
    """Address, carrier, packages and drives: four for none, for one and for thirty; what is read is all there."""
    for made, more in ((0, 0), (0, 1), (1, 29)):
        with writing() as session:
            make_jobs(session, made, more)
        with reading() as session:
            jobs = jobs_of(session)
            with statements() as noted:
                read = read_facts(session, jobs, with_drives=with_drives)
                assert [each.job for each in read] == jobs
                for each in read:
                    assert each.return_address is not None
                    assert each.return_address.city == "Town"
                    assert each.return_shipping is not None
                    assert each.return_shipping.carrier_account_number == "ACCOUNT1"
                    assert each.delivery_package is not None
                    assert each.return_package is not None
                    assert each.percent_complete is None
                    assert len(each.drives) == 3
        assert len(noted) == 4, noted
    assert len(jobs) == 30


def test_every_job_gets_what_is_its_own(any_database: str) -> None:
    """In the order in which the jobs were given, and the drives in that of their numbers."""
    ids: list[UUID] = []
    with writing() as session:
        for number in range(4):
            serials = [f"SERIAL-{number}-{each}" for each in range(10 - number)]
            job_id = job_in(
                session,
                JobState.CREATING,
                f"job{number}",
                driveList=[{**DRIVE, "driveId": serial} for serial in serials],
                returnAddress={**ADDRESS, "city": f"Town {number}"},
            )
            ids.append(job_id)
        for found in drives_of(session, ids[1]):
            found.bytes_total, found.bytes_succeeded = 10, found.number
    for order in (ids, ids[::-1], ids[1:2], []):
        with reading() as session:
            read = read_facts(session, [read_job(session, job_id) for job_id in order])
            assert [each.job.id for each in read] == order
            for each in read:
                number = ids.index(each.job.id)
                assert each.return_address is not None
                assert each.return_address.city == f"Town {number}"
                assert [one.drive_id for one in each.drives] == [
                    f"SERIAL-{number}-{n}" for n in range(10 - number)
                ]
                assert each.percent_complete == (50 if number == 1 else None)


def test_what_is_not_there_is_none(any_database: str) -> None:
    """A job without address, carrier and packages; and a package back is not taken for one to us."""
    with writing() as session:
        missing: dict[str, Any] = dict.fromkeys(("returnAddress", "returnShipping", "deliveryPackage"))
        bare = job_in(session, JobState.CREATING, "bare", **missing)
        back = job_in(session, JobState.CREATING, "back", **missing)
        session.add(Package(job_id=back, direction=Direction.RETURN, carrier_name="UPS", tracking_number="BACK1"))
    with reading() as session:
        of_bare, of_back = read_facts(session, [read_job(session, job_id) for job_id in (bare, back)])
        assert (of_bare.return_address, of_bare.return_shipping) == (None, None)
        assert (of_bare.delivery_package, of_bare.return_package) == (None, None)
        assert of_back.delivery_package is None
        assert of_back.return_package is not None
        assert of_back.return_package.tracking_number == "BACK1"


def test_a_list_without_drives_opens_no_serial_number(any_database: str) -> None:
    """It reads how far they have come, and neither serial numbers nor where logs are."""
    with writing() as session:
        job_id = job_in(session, JobState.SHIPPING, driveList=[{**DRIVE, "bitLockerKey": "238810-662376"}])
        (one,) = drives_of(session, job_id)
        one.bytes_total, one.bytes_succeeded = 3, 2
    with reading() as session:
        job = read_job(session, job_id)
        with statements() as noted:
            (read,) = read_facts(session, [job], with_drives=False)
        assert read.percent_complete == 66
        for sealed in ("drive_id", "bit_locker_key", "error_log_uri", "manifest_uri"):
            assert not [statement for statement in noted if f"drive.{sealed}" in statement]
        assert read.drives[0].drive_id == ""
        assert not hasattr(read.drives[0], "bit_locker_key")


def test_a_job_that_is_gone_meanwhile_has_no_rows(any_database: str) -> None:
    """Nothing is raised."""
    gone = facts([]).job
    gone.id = uuid4()
    with reading() as session:
        (read,) = read_facts(session, [gone])
    assert (read.return_address, read.delivery_package, list(read.drives)) == (None, None, [])
