"""A copy killed by SIGKILL at any moment, and run again until it ends."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest
from sqlmodel import col, select

from models.copy_logs import DriveStatus
from models.database import reading
from models.drives import Drive
from models.events import JobEvent
from models.jobs import read_job
from models.lifecycle import JobState
from tests.builders import logs_of, random_bytes, received_job, stored

KILLS: Final = 5
KILLS_THOROUGH: Final = 100
SMALL_FILES: Final = 300
ROOT: Final = Path(__file__).resolve().parents[2]

COPY: Final = """
import importlib, os, pkgutil, signal, sys, time
import flows
from prefect import Task
for found in pkgutil.iter_modules(flows.__path__):
    module = importlib.import_module(f"flows.{found.name}")
    for name, value in list(vars(module).items()):
        if isinstance(value, Task):
            setattr(module, name, value.fn)
from flows.import_drives import import_drives
def copy(job):
    while True:
        ended = import_drives.fn(job)
        if "CopyHeldElsewhere" not in (ended.message or ""):
            return 0 if ended.is_completed() else 1
        time.sleep(0.05)
print("ready", flush=True)
for line in sys.stdin:
    job, delay = line.split()
    child = os.fork()
    if not child:
        os._exit(copy(job))
    if float(delay):
        time.sleep(float(delay))
        os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Copies each job whose id it reads in a process of its own, killed after some seconds; tells how it ended."""


def begin() -> subprocess.Popen[str]:
    """Start a process that is ready to copy."""
    process = subprocess.Popen(
        [sys.executable, "-c", COPY], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def copy(process: subprocess.Popen[str], job_id: UUID, killed_after_seconds: float = 0) -> int:
    """Let it copy a job; gives the exit code, -9 if it was killed before its end."""
    assert process.stdin
    assert process.stdout
    print(job_id, killed_after_seconds, file=process.stdin, flush=True)
    return int(process.stdout.readline())


def kill_and_finish(process: subprocess.Popen[str], job_id: UUID, kills_max: int) -> int:
    """Copy a job to its end, killing it up to four times on the way; gives how many times it was."""
    for kills in range(min(4, kills_max)):
        if copy(process, job_id, random.uniform(0.01, 0.16)) == 0:  # noqa: S311  no secret
            return kills
    assert copy(process, job_id) == 0
    return min(4, kills_max)


def files(seed: int) -> dict[str, bytes]:
    """Make the files of a drive: hundreds of small ones, and two of several blocks."""
    small = {f"folder{n % 7}/{n:03}.txt": random_bytes(n * 37 % 9000, seed + n) for n in range(SMALL_FILES)}
    big = {"big one": random_bytes(5 << 20, seed), "folder3/big two": random_bytes(9 << 20, seed + 1)}
    return small | big


def folder_of(data_directory: Path) -> dict[str, bytes]:
    """Read every file of the container, those that the store itself would not list too."""
    return {name: data for name, data in stored(data_directory).items() if name.startswith("data/")}


def test_a_copy_killed_again_and_again_ends_as_if_it_never_was(
    data_directory: Path, sqlite: str, monkeypatch: pytest.MonkeyPatch, thorough: bool
) -> None:
    """The store equals the source: no doubles, nothing half written, every byte counted once."""
    monkeypatch.setenv("DRIVEPOST_COPY_LEASE_SECONDS", "1")
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "ERROR")
    random.seed(os.environ.get("PYTEST_SEED", "drivepost"))
    kills_wanted = KILLS_THOROUGH if thorough else KILLS
    kills = jobs = 0
    process = begin()
    try:
        while kills < kills_wanted:
            jobs += 1
            source = files(jobs * 1000)
            expected = {f"data/{jobs}/{name}": data for name, data in source.items()}
            job_id = received_job(
                data_directory, {f"SERIAL{jobs}": {f"{jobs}/{k}": v for k, v in source.items()}}, f"job{jobs}"
            )
            kills += kill_and_finish(process, job_id, kills_wanted - kills)
            found = folder_of(data_directory)
            mine = {name: data for name, data in found.items() if name.startswith(f"data/{jobs}/")}
            assert sorted(mine) == sorted(expected)
            assert mine == expected
            assert [name for name in found if ".drivepost" in name or "#" in name] == []
            assert_told_once(job_id, sum(map(len, source.values())))
    finally:
        process.kill()
        process.wait()
    assert len(logs_of(data_directory)) == jobs
    print(f"\n{kills} kills over {jobs} jobs")  # noqa: T201  a figure to be read


def assert_told_once(job_id: UUID, total: int) -> None:
    """One way to Packaging, and progress that is right to the byte."""
    with reading() as session:
        drive = session.get_one(Drive, (job_id, 1))
        events = session.exec(select(JobEvent).where(col(JobEvent.job_id) == job_id)).all()
        assert read_job(session, job_id).state is JobState.PACKAGING
    assert (drive.bytes_succeeded, drive.bytes_total, drive.copy_status) == (total, total, DriveStatus.COMPLETED)
    for state in ("Transferring", "Packaging"):
        assert sum(event.target == state and event.drive_number is None for event in events) == 1
    assert sum(event.drive_number == 1 and event.target == "Completed" for event in events) == 1
