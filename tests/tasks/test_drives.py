"""Acts on drives, on real files."""

from pathlib import Path

import pytest

from flows.import_drives import import_drives
from models.database import reading
from models.jobs import read_job
from models.lifecycle import JobState
from tests.builders import received_job, stored


@pytest.mark.usefixtures("plain_acts")
def test_a_whole_drive_is_copied(data_directory: Path, any_database: str) -> None:
    """Every file, nothing else, and the job waits to be sent back."""
    files = {"a.txt": b"a", "folder/b.bin": b"b" * (5 << 20), "empty": b""}
    job_id = received_job(data_directory, {"SERIAL1": files})
    assert import_drives.fn(str(job_id)).is_completed()
    assert stored(data_directory) == {f"data/{name}": data for name, data in files.items()}
    with reading() as session:
        assert read_job(session, job_id).state is JobState.PACKAGING
