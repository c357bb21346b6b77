"""The pulse of a copy: what takes long hears of a cancel and keeps its lease."""

import time
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import pytest

from flows.import_drives import import_drives
from models.copies import take_copy_lease
from models.database import database_time, reading, writing
from models.drives import drives_of
from models.errors import LeaseLostError
from models.jobs import read_job, request_cancel
from models.lifecycle import Actor, DriveState, JobState, JobType
from models.manifest_reader import ManifestSummary, check_manifest
from tasks.pulse import CopyCancelledError, CopyLimits, Pulse, open_pulsing
from tests.builders import job_in, received_job, set_columns, stored


def test_each_read_of_a_long_file_beats(tmp_path: Path) -> None:
    """64 KiB at a time, and at its end."""
    file = tmp_path / "long"
    file.write_bytes(b"x" * (10 * 64 * 2**10))
    beats: list[int] = []
    with open_pulsing(file, lambda: beats.append(1)) as stream:
        while stream.read(1000):
            pass
    assert 10 <= len(beats) <= 12


def test_a_pulse_holds_on_to_the_lease_and_hears_of_a_cancel(sqlite: str) -> None:
    """Then it is lost to another run, and says so."""
    with writing() as session:
        now = database_time(session)
        job_id = job_in(session, JobState.RECEIVED, at=now)
        token = take_copy_lease(session, job_id, seconds=1, at=now, by=Actor.SERVICE, job_type=JobType.IMPORT)
    assert token == 1
    pulse = Pulse(job_id, token, CopyLimits(0.0, 0.0, 1, 1, 2**20, reads_back=True))
    with writing() as session:
        set_columns(session, job_id, copy_lease_until=now - timedelta(hours=1))
    pulse.beat()
    with reading() as session:
        held = read_job(session, job_id).copy_lease_until
    assert held is not None
    assert held >= now

    with writing() as session:
        request_cancel(session, job_id, at=now, by=Actor.CUSTOMER)
    with pytest.raises(CopyCancelledError):
        pulse.beat()

    with writing() as session:
        set_columns(session, job_id, copy_token=token + 1)
    with pytest.raises(LeaseLostError):
        pulse.beat()


def test_a_lease_runs_out_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock that stands still meanwhile is not asked."""
    slept = [0.0]

    def now(clock: int) -> float:
        return 1000 + (slept[0] if clock == time.CLOCK_BOOTTIME else 0)

    monkeypatch.setattr("time.clock_gettime", now)
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    pulse = Pulse(uuid4(), 1, CopyLimits(60, 0.2, 1, 1, 2**20, reads_back=True))
    assert pulse.is_fresh()
    slept[0] = 31
    assert not pulse.is_fresh()


@pytest.mark.usefixtures("plain_acts")
def test_a_cancel_is_heard_while_a_manifest_is_checked(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest may list millions of blobs; the drive is not begun then, and nothing is copied."""
    monkeypatch.setenv("DRIVEPOST_COPY_POLL_SECONDS", "0.01")
    job_id = received_job(data_directory, {"SERIAL1": {"a": b"a"}})

    def check_slowly(stream: BinaryIO) -> ManifestSummary:
        with writing() as session:
            request_cancel(session, job_id, at=database_time(session), by=Actor.CUSTOMER)
        # Stands for the time that millions of blobs take.
        monkeypatch.setattr("tasks.pulse._now", lambda: 10.0**9)
        return check_manifest(stream)

    monkeypatch.setattr("tasks.copying.check_manifest", check_slowly)
    assert import_drives.fn(str(job_id)).is_cancelled()
    with reading() as session:
        assert read_job(session, job_id).state is JobState.COMPLETED
        assert [drive.state for drive in drives_of(session, job_id)] == [DriveState.RECEIVED]
    assert stored(data_directory) == {}
