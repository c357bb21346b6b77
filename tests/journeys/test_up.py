"""`drivepost up`: a scheduled run really appears, an operator's run works, Ctrl-C ends it, and it starts again."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.database import reading
from models.jobs import find_job
from tests.builders import job_request
from tests.journeys.one_machine import PrefectApi, awaited, environment_of, processes_in, started


@pytest.fixture
def environment(data_directory: Path, prefect_tables: Path) -> dict[str, str]:
    """Give the settings of a start of its own."""
    return environment_of(data_directory, prefect_tables)


def test_everything_runs_on_one_machine_and_goes_on_after_a_restart(
    sqlite: str, environment: dict[str, str], data_directory: Path
) -> None:
    """By the clock and by hand; killed, started over in the background, and ended by SIGINT within ten seconds."""
    api = PrefectApi(environment)
    (data_directory / "intake" / "one.json").write_text(json.dumps(job_request("one")), "utf-8")
    with started(environment) as process:
        created = api.state_after("create-job")
        assert created["message"].startswith("created 1: ")
        with reading() as session:
            job_id = find_job(session, "s1/g1/one")
        refused = api.state_after("return-drives", job=str(job_id))
        assert refused["type"] == "FAILED"
        assert refused["message"].startswith("JobStateConflict: a Creating job cannot take")

        second = subprocess.run(
            [sys.executable, "-m", "deployments.cli", "up"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 1
        assert "SettingsInvalid: DRIVEPOST_DATA_DIRECTORY: 'drivepost up' runs there already" in second.stderr

        scheduled = awaited(lambda: api.ended_runs("advance-jobs"))
        assert {run["state"]["type"] for run in scheduled} == {"COMPLETED"}

        # Killed without a word, it leaves its processes behind; the next start ends them and takes their place.
        process.kill()
        process.wait()
        assert processes_in(str(data_directory))
        # A sweep that was killed has taken the one place that its deployment has.
        for flow in ("advance-jobs", "enforce-retention"):
            api.take_place(flow)

    with started(environment, in_background=True) as process:
        known = {run["id"] for run in api.ended_runs("advance-jobs")}
        assert api.state_after("enforce-retention")["type"] == "COMPLETED"
        assert api.state_after("delete-job", job=str(job_id), confirm=str(job_id))["type"] == "COMPLETED"
        sweeps = awaited(lambda: [run for run in api.ended_runs("advance-jobs") if run["id"] not in known])
        assert "COMPLETED" in {run["state"]["type"] for run in sweeps}
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.wait(10) == 0
        print(f"Ctrl-C ended it in {time.monotonic() - began:.1f} s")  # noqa: T201  a figure for the reader
    assert not processes_in(str(data_directory))


def test_an_impossible_setting_stops_the_start_with_one_line(environment: dict[str, str]) -> None:
    """The text names the variable, not the traceback."""
    refused = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "up"],
        env={**environment, "DRIVEPOST_COPY_LEASE_SECONDS": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith("SettingsInvalid: DRIVEPOST_COPY_LEASE_SECONDS: ")
    assert "Traceback" not in refused.stderr
