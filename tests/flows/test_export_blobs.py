"""export-blobs and import-drives keep to the jobs that are theirs, and a cancel comes before the first byte."""

from uuid import UUID

import pytest

from flows.export_blobs import export_blobs
from flows.import_drives import import_drives
from models.bay import check_in
from models.database import database_time, reading, writing
from models.drives import drives_of
from models.jobs import read_job, request_cancel
from models.lifecycle import Actor, DriveState, JobState
from models.settings import Settings
from tests.builders import job_in, received_job


@pytest.fixture(autouse=True)
def _world(sqlite: str, plain_acts: None) -> None:
    """Every test has a database of its own, and flows without Prefect."""


def export_job() -> UUID:
    """Make a Received Export job of a whole account that is empty, with a drive of a serial number of its own."""
    (Settings().bay / "QUACKSERIAL").mkdir()
    with writing() as session:
        now = database_time(session)
        export = {"blobList": {"blobPathPrefix": ["/"]}}
        job_id = job_in(session, JobState.SHIPPING, at=now, jobType="Export", driveList=None, export=export)
        check_in(session, job_id, ["QUACKSERIAL"], at=now, by=Actor.OPERATOR)
    return job_id


def test_an_export_job_is_not_imported_and_an_import_job_not_exported() -> None:
    """Each flow names the other, and nothing has begun."""
    job_id = export_job()
    told = import_drives.fn(str(job_id)).message
    assert told == "WrongJobType: this is an Export job, whose drives export-blobs copies"
    imported = received_job(Settings().data_directory, {"S1": {"a": b"1"}}, "job2")
    told = export_blobs.fn(str(imported)).message
    assert told == "WrongJobType: this is an Import job, whose drives import-drives copies"
    with reading() as session:
        assert {read_job(session, each).state for each in (job_id, imported)} == {JobState.RECEIVED}


def test_nothing_is_exported_after_a_cancel() -> None:
    """The run says so, and cancel-job carries it out; the drive is as it came."""
    job_id = export_job()
    with writing() as session:
        request_cancel(session, job_id, at=database_time(session), by=Actor.CUSTOMER)
    ended = export_blobs.fn(str(job_id))
    assert ended.is_cancelled()
    with reading() as session:
        assert [drive.state for drive in drives_of(session, job_id)] == [DriveState.RECEIVED]
    assert list((Settings().bay / "QUACKSERIAL").iterdir()) == []


def test_a_drive_that_is_not_in_the_bay_ends_without_its_serial_number_in_any_line() -> None:
    """The job goes on to Packaging, and its log tells the customer."""
    job_id = export_job()
    (Settings().bay / "QUACKSERIAL").rmdir()
    ended = export_blobs.fn(str(job_id))
    assert "QUACK" not in str(ended.message)
    with reading() as session:
        assert read_job(session, job_id).state is JobState.PACKAGING
        (drive,) = drives_of(session, job_id)
        assert drive.copy_status == "DiskNotFound"
