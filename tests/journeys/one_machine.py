"""`drivepost up` as a test drives it: started, asked through Prefect's API, ended."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from deployments.processes import _free_port
from models import database
from models.key_files import use_ring

_ANSWER_SECONDS_MAX: Final = 60.0


def environment_of(data_directory: Path, prefect_tables: Path) -> dict[str, str]:
    """Give the settings of a start of its own, with Prefect's tables: a free port, and a clock that ticks fast."""
    (data_directory / "prefect").mkdir()
    shutil.copy(prefect_tables, data_directory / "prefect")
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {
        **own,
        "DRIVEPOST_DATA_DIRECTORY": str(data_directory),
        "DRIVEPOST_PREFECT_PORT": str(_free_port()),
        "DRIVEPOST_API_PORT": "0",
        "DRIVEPOST_ADVANCE_INTERVAL_SECONDS": "8",
    }


@contextmanager
def started(environment: Mapping[str, str], *, in_background: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Start it, and wait until it says that all runs; where a test fails, none of its processes is left behind.

    With `in_background` SIGINT is ignored by inheritance, as it is for what a shell starts in the background.
    """
    shell = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"] if in_background else []
    process = subprocess.Popen(
        [*shell, sys.executable, "-m", "deployments.cli", "up"],
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
        process.send_signal(signal.SIGINT)
        process.wait(30)
    except BaseException:
        process.kill()
        process.wait()
        _kill_all_in(environment["DRIVEPOST_DATA_DIRECTORY"])
        raise


Machine = tuple[subprocess.Popen[str], dict[str, str]]


@contextmanager
def machine_in(folder: Path, prefect_tables: Path, **settings: str) -> Iterator[Machine]:
    """Start it in an empty folder, for tests that see its database; gives the process and its settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIVEPOST_DATA_DIRECTORY", str(folder))
        environment = {**environment_of(folder, prefect_tables), **settings}
        try:
            with started(environment) as process:
                database.engine.cache_clear()
                use_ring(None)
                yield process, environment
                database.engine().dispose()
        finally:
            # Of a test that killed it, or started it again, and failed.
            _kill_all_in(str(folder))
        database.engine.cache_clear()
        use_ring(None)


def processes_in(data_directory: str) -> list[int]:
    """Find processes, other than this one, that work in a data directory."""
    setting = f"DRIVEPOST_DATA_DIRECTORY={data_directory}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(process.name) != os.getpid() and setting in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


def _kill_all_in(data_directory: str) -> None:
    for found in processes_in(data_directory):
        with suppress(ProcessLookupError):
            os.kill(found, signal.SIGKILL)


def awaited(look: Callable[[], Any], seconds: float = 60) -> Any:
    """Look again and again until something is there."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        found = look()
        if found:
            return found
        time.sleep(0.3)
    raise AssertionError("it never came")


class PrefectApi:
    """Prefect's API as any client sees it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{environment['DRIVEPOST_PREFECT_PORT']}/api", timeout=_ANSWER_SECONDS_MAX
        )

    def ended_runs(self, flow: str) -> list[dict[str, Any]]:
        """Find the runs of a flow that ended."""
        found = self._http.post(
            "/flow_runs/filter",
            json={
                "flows": {"name": {"any_": [flow]}},
                "flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}},
            },
        )
        return list(found.raise_for_status().json())

    def take_place(self, flow: str) -> None:
        """Take the one place that a flow's deployment has, as a killed run does."""
        deployment = self._http.get(f"/deployments/name/{flow}/{flow}").raise_for_status().json()
        limit = f"/v2/concurrency_limits/deployment:{deployment['id']}"
        self._http.patch(limit, json={"active_slots": 1}).raise_for_status()
        assert self._http.get(limit).json()["active_slots"] == 1

    def trigger(self, flow: str, **parameters: object) -> str:
        """Trigger a flow as an operator does; gives the run's id."""
        deployment = self._http.get(f"/deployments/name/{flow}/{flow}").raise_for_status().json()
        made = self._http.post(f"/deployments/{deployment['id']}/create_flow_run", json={"parameters": parameters})
        return str(made.raise_for_status().json()["id"])

    def state_after(self, flow: str, **parameters: object) -> dict[str, Any]:
        """Trigger a flow as an operator does, and wait for its end."""
        run_id = self.trigger(flow, **parameters)

        def ended() -> dict[str, Any] | None:
            run: dict[str, Any] = self._http.get(f"/flow_runs/{run_id}").raise_for_status().json()
            state: dict[str, Any] = run["state"]
            return state if state["type"] in {"COMPLETED", "FAILED", "CRASHED"} else None

        return dict(awaited(ended))

    def tells_of(self, job_id: object) -> bool:
        """Tell whether a run still names a job in its parameters, or is on our list of its runs."""
        found = self._http.post("/flow_runs/filter", json={"limit": 200})
        return str(job_id) in found.raise_for_status().text
