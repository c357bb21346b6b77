"""A copy killed by SIGKILL at random points, with every kind of store: nothing sent twice, nothing left."""

import os
import random
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest
from sqlmodel import col, select

from models.copies import DriveCopy
from models.copy_logs import BlobStatus, BlockStatus, DispositionStatus, DriveStatus, read_copy_log
from models.database import reading
from models.events import JobEvent
from models.jobs import read_job
from models.lifecycle import JobState
from models.manifests import BLOCK_BYTES_MAX
from tests.builders import Listed, drive_of, random_bytes, received_by_hand, run_out, stored
from tests.copy_process import CopyProcess, requests_of
from tests.posted_stores import KINDS, PostedStore, posted_store

KILLS: Final = 8
KILLS_THOROUGH: Final = 100
KILLS_PER_JOB: Final = 4
SMALL: Final = 40
_B: Final = BLOCK_BYTES_MAX


@pytest.fixture(params=KINDS)
def store(
    request: pytest.FixtureRequest, sqlite: str, data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> PostedStore:
    """Give each kind of store in turn."""
    return posted_store(request.param, data_directory, request, monkeypatch)


@pytest.fixture
def copier(store: PostedStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[CopyProcess]:
    """Give a process that copies."""
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "ERROR")
    with CopyProcess() as process:
        yield process


def listed(job: int) -> list[Listed]:
    """List the blobs of a drive: small ones, two of several parts, a bad one, and one whose name is taken."""
    small = [Listed(f"data/{job}/{n:02}", random_bytes(n * 97 + 1, job * 1000 + n)) for n in range(SMALL)]
    big = [Listed(f"data/{job}/{name}", random_bytes(size, job + size)) for name, size in BIG.items()]
    bad = Listed(f"data/{job}/bad", b"in the manifest", on_drive=b"as on the drive")
    return [*small[:20], big[0], bad, *small[20:], Listed(f"data/{job}/00", b"renamed"), big[1]]


BIG: Final = {"big": 4 * _B + 9, "bigger": 5 * _B}


def test_a_copy_killed_anywhere_sends_again_only_what_was_under_way(
    store: PostedStore,
    copier: CopyProcess,
    data_directory: Path,
    tmp_path: Path,
    thorough: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It ends as if it never had been killed: whole, verified, counted once, and nothing lies aside."""
    rng = random.Random(os.environ.get("PYTEST_SEED", "drivepost"))  # noqa: S311  no secret
    wanted = KILLS_THOROUGH if thorough else KILLS
    kills = jobs = sent = 0
    while kills < wanted:
        jobs += 1
        blobs = listed(jobs)
        job_id = received_by_hand(data_directory, {f"S{jobs}": blobs}, f"job{jobs}", logLevel="Verbose")
        answered: set[str] = set()
        recorded: set[str] = set()
        for run in range(KILLS_PER_JOB + 1):
            log = tmp_path / f"{jobs}-{run}"
            is_last = run == KILLS_PER_JOB or kills == wanted
            at = 0 if is_last else rng.randint(1, 40)
            code = copier.copy(job_id, log, at, rng.uniform(0, 0.02))
            begun, ended = requests_of(log)
            # One that was begun again may have been under comparison with what the store has.
            assert not ended & answered, "what the store had was not sent again"
            sent += sum(begun.values())
            answered |= ended
            run_out(job_id)
            recorded |= uploads_recorded(job_id)
            if code == 0:
                break
            assert code == -9
            kills += 1
        assert_ended_well(store, data_directory, job_id, jobs, blobs)
        assert_nothing_lies_aside(store, recorded, kills)
    with capsys.disabled():
        print(  # noqa: T201  a figure to be read
            f"\n{kills} kills over {jobs} jobs: {sent} requests, none for what the store had already told it has"
        )


def uploads_recorded(job_id: UUID) -> set[str]:
    """Read the handles of the uploads that the record knows now."""
    with reading() as session:
        begun = session.get(DriveCopy, (job_id, 1))
        return {plan["upload"] for plan in begun.planned if plan["upload"]} if begun else set()


def assert_nothing_lies_aside(store: PostedStore, recorded: set[str], kills: int) -> None:
    """See that every upload that was ever recorded is gone."""
    left = store.aside()
    assert not [each for each in left if any(handle in each for handle in recorded)]
    # Of S3 the id of an upload comes with its beginning, and nothing tells whose one is that was not written down.
    assert len(left) <= (kills * len(BIG) if store.address.startswith("s3:") else 0)


def assert_ended_well(
    store: PostedStore, data_directory: Path, job_id: UUID, job: int, blobs: list[Listed]
) -> None:
    """See that the store equals the source, and that the logs add up."""
    whole = {each.path.removeprefix("data/"): each.data for each in reversed(blobs) if each.on_drive is None}
    whole[f"{job}/00 (2)"] = b"renamed"
    found = {name: data for name, data in store.blobs().items() if name.startswith(f"{job}/")}
    assert found == whole
    if store.address.startswith("file:"):
        # Those too that the store itself would not list.
        assert {path for path in stored(data_directory) if path.startswith(f"data/{job}/")} == {
            f"data/{path}" for path in whole
        }
    with reading() as session:
        assert read_job(session, job_id).state is JobState.PACKAGING
    drive, total = drive_of(job_id), sum(map(len, whole.values()))
    assert (drive.bytes_succeeded, drive.bytes_total) == (total, total + len(b"in the manifest"))
    assert drive.copy_status is DriveStatus.COMPLETED_WITH_ERRORS
    assert_moved_once(job_id)
    assert len([name for name in store.logs("error") if f"/job{job}_" in f"/{name}"]) == 1
    (verbose,) = [data for name, data in store.logs("verbose").items() if f"/job{job}_" in f"/{name}"]
    told = Counter((blob.status, blob.disposition_status) for blob in read_copy_log(BytesIO(verbose)).blobs)
    assert told == {
        (BlobStatus.COMPLETED, DispositionStatus.CREATED): SMALL + len(BIG),
        (BlobStatus.COMPLETED, DispositionStatus.RENAMED): 1,
        (BlobStatus.COMPLETED_WITH_ERRORS, DispositionStatus.CANCELLED): 1,
    }


def assert_moved_once(job_id: UUID) -> None:
    """See that the job came one way to Packaging, and its drive once to its end."""
    with reading() as session:
        events = session.exec(select(JobEvent).where(col(JobEvent.job_id) == job_id)).all()
    moves = Counter(str(event.target) for event in events if event.drive_number is None)
    assert (moves["Transferring"], moves["Packaging"]) == (1, 1)
    ends = [
        event.target for event in events if event.drive_number == 1 and str(event.target).startswith("Completed")
    ]
    assert ends == ["CompletedMoreInfo"]


def test_a_file_that_changed_between_two_runs_is_told(
    store: PostedStore, data_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its blocks were right when they were sent; its blob is not there, and nothing lies aside."""
    data = random_bytes(6 * _B)
    drive = [Listed("data/big", data), Listed("data/small", b"small")]
    job_id = received_by_hand(data_directory, {"S1": drive})
    monkeypatch.setenv("DRIVEPOST_COPY_REQUESTS_AT_ONCE", "1")
    with CopyProcess() as copier:
        assert copier.copy(job_id, tmp_path / "first", 5, 0) == -9
    _, answered = requests_of(tmp_path / "first")
    assert any(each.startswith("big ") for each in answered), "a part of it is in the store"
    run_out(job_id)
    with (data_directory / "bay" / "S1" / "files" / "0").open("r+b") as file:
        file.seek(17)
        file.write(bytes([data[17] ^ 1]))
    with CopyProcess() as copier:
        assert copier.copy(job_id, tmp_path / "second") == 0
    assert store.blobs() == {"small": b"small"}
    (log,) = store.logs().values()
    (blob,) = read_copy_log(BytesIO(log)).blobs
    assert (blob.blob_path, blob.status) == ("data/big", BlobStatus.COMPLETED_WITH_ERRORS)
    assert [block.status for block in blob.blocks].index(BlockStatus.CORRUPTED) == 0
    assert store.aside() == []
