"""Drivepost's own processes on one machine: Prefect's server, and the flows it serves."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, Self

import httpx

from models.errors import PrefectAwayError

_LOG_BYTES_MAX: Final = 10 * 2**20
_START_SECONDS_MAX: Final = 120.0
_END_SECONDS_MAX: Final = 5.0
_LOOK_SECONDS: Final = 0.2
_LOOPBACK: Final = "127.0.0.1"


class Process:
    """A child that ends when it is told to, and takes its own children with it.

    Args:
        arguments: the command.
        environment: what is set for it beside our own environment.
        log: the file that takes what it prints; one over 10 MiB is set aside first.
        pid_file: holds its process id while it runs; a child that a start before left there, because it was
            killed, is ended first.
    """

    def __init__(self, arguments: list[str], environment: Mapping[str, str], log: Path, pid_file: Path) -> None:
        for file in (log, pid_file):
            file.parent.mkdir(parents=True, exist_ok=True)
        _end_orphan(pid_file, arguments[1:3])
        if log.exists() and log.stat().st_size > _LOG_BYTES_MAX:
            log.replace(log.with_suffix(".old.log"))
        self._log: IO[bytes] = log.open("ab")
        self._pid_file = pid_file
        # A session of its own: Ctrl-C reaches us alone, and we end children in their order.
        self._child = subprocess.Popen(  # noqa: S603  our own command
            arguments,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        pid_file.write_text(str(self._child.pid), "ascii")

    def is_running(self) -> bool:
        """Tell whether the child runs."""
        return self._child.poll() is None

    def stop(self, seconds_max: float) -> None:
        """End the child and what it started: asked first, killed after `seconds_max`."""
        if self.is_running():
            self._child.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(seconds_max)
        _end_group(self._child.pid)
        self._child.wait()
        self._log.close()
        self._pid_file.unlink(missing_ok=True)


def _end_orphan(pid_file: Path, words: Sequence[str]) -> None:
    try:
        pid = int(pid_file.read_text("ascii"))
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return
    # The id may be another program's by now.
    if all(word.encode() in command for word in words):
        _end_group(pid)


def _end_group(group: int) -> None:
    """Kill what is left of a group of processes, and wait until it is gone."""
    give_up = time.monotonic() + _END_SECONDS_MAX
    with suppress(ProcessLookupError):
        while time.monotonic() < give_up:
            os.killpg(group, signal.SIGKILL)
            # A child of ours stays until it is waited for; somebody else's does not.
            with suppress(ChildProcessError):
                os.waitpid(-group, os.WNOHANG)
            time.sleep(_LOOK_SECONDS / 4)


class PrefectServer:
    """A Prefect server of our own on the loopback address, with its files in a folder of ours.

    Args:
        home: the folder; Prefect's database, logs and results are there.
        port: its port; 0 takes a free one.
        log: the file that takes what it prints.

    Raises:
        PrefectAwayError: the port is taken, or the server does not come up.
    """

    def __init__(self, home: Path, port: int, log: Path) -> None:
        self.port = port or _free_port()
        self.environment = client_environment(home, self.port)
        arguments = [
            sys.executable,
            "-m",
            "deployments.prefect_server",
            "server",
            "start",
            "--host",
            _LOOPBACK,
            "--port",
            str(self.port),
        ]
        pid_file = home / "server.pid"
        # By what each version of ours starts it with: two servers on one database do everything twice.
        _end_orphan(pid_file, ["server", "start", "--port"])
        _require_free(self.port)
        self._process = Process(arguments, {**self.environment, **_SERVER_ENVIRONMENT}, log, pid_file)
        self._log = log

    @property
    def api(self) -> str:
        """The address of its API."""
        return f"http://{_LOOPBACK}:{self.port}/api"

    @property
    def ui(self) -> str:
        """The address of its UI."""
        return f"http://{_LOOPBACK}:{self.port}"

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            PrefectAwayError: it ended, or did not answer in two minutes; the text names its log.
        """
        if not comes_up(self.api, self.is_running):
            self.stop(1)
            raise PrefectAwayError(f"Prefect's server did not come up; {self._log} tells why")

    def is_running(self) -> bool:
        """Tell whether it runs."""
        return self._process.is_running()

    def stop(self, seconds_max: float) -> None:
        """End it within `seconds_max`."""
        self._process.stop(seconds_max)

    def __enter__(self) -> Self:
        """Keep it while a block runs."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it with the block."""
        self.stop(5)


_SERVER_ENVIRONMENT: Final = {
    # In memory, the default, a place taken by a run is never given back if the server was restarted meanwhile.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # The UI asks whom it came from: by a tunnel or a proxy the browser knows this server under another address.
    "PREFECT_SERVER_UI_API_URL": "/api",
    # What Prefect keeps of runs that nobody forgets by name is gone after 90 days too.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(90 * 24 * 3600),
}


def client_environment(home: Path, port: int) -> dict[str, str]:
    """Tell Prefect's clients where its server and files are, and that nobody else is told of either."""
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://{_LOOPBACK}:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def comes_up(api: str, goes_on: Callable[[], bool] = lambda: True) -> bool:
    """Wait until a Prefect server answers, two minutes at most; gives whether it does.

    Args:
        api: the address of its API.
        goes_on: whether it is still worth waiting.
    """
    give_up = time.monotonic() + _START_SECONDS_MAX
    # One client for all looks: each would read the certificates again, as a start has no time for.
    with httpx.Client(timeout=2) as client:
        while time.monotonic() < give_up and goes_on():
            if _answers(client, api):
                return True
            time.sleep(_LOOK_SECONDS)
    return False


def _answers(client: httpx.Client, api: str) -> bool:
    """Tell whether a Prefect server answers at an address."""
    try:
        return client.get(f"{api}/health").is_success
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            raise PrefectAwayError(
                f"port {port} is taken; end what listens there, or set DRIVEPOST_PREFECT_PORT"
            ) from None
