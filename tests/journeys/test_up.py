"""`drivepost up`: a scheduled run really appears, an operator's run works, Ctrl-C ends it, and it starts again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.processes import _free_port
from models.database import reading
from models.jobs import find_job
from tests.builders import job_request

_START_SECONDS = 120.0


@pytest.fixture
def environment(data_directory: Path) -> dict[str, str]:
    """Give the settings of a start of its own: a free port, and a clock that ticks fast."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {
        **own,
        "DRIVEPOST_DATA_DIRECTORY": str(data_directory),
        "DRIVEPOST_PREFECT_PORT": str(_free_port()),
        "DRIVEPOST_ADVANCE_INTERVAL_SECONDS": "5",
    }


@contextmanager
def _started(environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "deployments.cli", "up"],
        env=dict(environment),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        lines: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if "Ctrl-C ends it" in line:
                break
        assert process.poll() is None, "".join(lines)
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def _await(look: Callable[[], Any], seconds: float = 60) -> Any:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        found = look()
        if found:
            return found
        time.sleep(0.3)
    raise AssertionError("it never came")


class _Api:
    """Prefect's API as any client sees it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._url = f"http://127.0.0.1:{environment['DRIVEPOST_PREFECT_PORT']}/api"

    def ended_runs(self, flow: str) -> list[dict[str, Any]]:
        found = httpx.post(
            f"{self._url}/flow_runs/filter",
            json={
                "flows": {"name": {"any_": [flow]}},
                "flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}},
            },
        )
        return list(found.raise_for_status().json())

    def take_place(self, flow: str) -> None:
        deployment = httpx.get(f"{self._url}/deployments/name/{flow}/{flow}").raise_for_status().json()
        limit = f"{self._url}/v2/concurrency_limits/deployment:{deployment['id']}"
        httpx.patch(limit, json={"active_slots": 1}).raise_for_status()
        assert httpx.get(limit).json()["active_slots"] == 1

    def trigger(self, flow: str, **parameters: object) -> str:
        deployment = httpx.get(f"{self._url}/deployments/name/{flow}/{flow}").raise_for_status().json()
        url = f"{self._url}/deployments/{deployment['id']}/create_flow_run"

        def made() -> httpx.Response | None:
            # On SQLite the server is busy at times, and says so.
            answer = httpx.post(url, json={"parameters": parameters})
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

        answer: httpx.Response = _await(made)
        return str(answer.raise_for_status().json()["id"])

    def state_after(self, flow: str, **parameters: object) -> dict[str, Any]:
        """Trigger a flow as an operator does, and wait for its end."""
        run_id = self.trigger(flow, **parameters)

        def ended() -> dict[str, Any] | None:
            answer = httpx.get(f"{self._url}/flow_runs/{run_id}")
            if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                return None
            run: dict[str, Any] = answer.raise_for_status().json()
            state: dict[str, Any] = run["state"]
            return state if state["type"] in {"COMPLETED", "FAILED", "CRASHED"} else None

        return dict(_await(ended))


def test_everything_runs_on_one_machine_and_goes_on_after_a_restart(
    sqlite: str, environment: dict[str, str], data_directory: Path
) -> None:
    """By the clock and by hand; killed, started over, and ended by Ctrl-C within ten seconds."""
    api = _Api(environment)
    (data_directory / "intake" / "one.json").write_text(json.dumps(job_request("one")), "utf-8")
    with _started(environment) as process:
        scheduled = _await(lambda: api.ended_runs("advance-jobs"))
        assert {run["state"]["type"] for run in scheduled} == {"COMPLETED"}
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

        # Killed without a word, it leaves its processes behind; the next start ends them and takes their place.
        process.kill()
        process.wait()
        assert _left_behind(data_directory)
        # A sweep that was killed has taken the one place that its deployment has.
        for flow in ("advance-jobs", "enforce-retention"):
            api.take_place(flow)

    with _started(environment) as process:
        known = {run["id"] for run in api.ended_runs("advance-jobs")}
        sweeps = _await(lambda: [run for run in api.ended_runs("advance-jobs") if run["id"] not in known])
        assert "COMPLETED" in {run["state"]["type"] for run in sweeps}
        assert api.state_after("enforce-retention")["type"] == "COMPLETED"
        assert api.state_after("delete-job", job=str(job_id))["type"] == "COMPLETED"
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.wait(10) == 0
        print(f"Ctrl-C ended it in {time.monotonic() - began:.1f} s")  # noqa: T201  a figure for the reader
    assert not _left_behind(data_directory)


def _left_behind(data_directory: Path) -> list[str]:
    """Find processes that still work in a data directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if (
            process.name != str(os.getpid())
            and f"DRIVEPOST_DATA_DIRECTORY={data_directory}".encode() in environment
        ):
            found.append((process / "cmdline").read_text("utf-8"))
    return found


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
