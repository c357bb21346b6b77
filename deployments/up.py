"""`drivepost up`: everything on one machine, until Ctrl-C."""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from rich.console import Console

from deployments.processes import PrefectServer, Process
from models.errors import PrefectAwayError, SettingsError
from models.locations import load_locations
from models.settings import Settings
from models.tables import upgrade

_STOP_SERVING_SECONDS: Final = 5.0
_STOP_SERVER_SECONDS: Final = 3.0
_DEPLOY_SECONDS_MAX: Final = 120.0
_LOOK_SECONDS: Final = 0.2


def up(console: Console) -> None:
    """Bring the tables up to date, start Prefect's server where none is configured, serve all flows and the API.

    Ctrl-C or SIGTERM ends it within ten seconds; the next start goes on where it was.

    Raises:
        SettingsError: a setting is impossible, or another start uses the data directory.
        DatabaseError: the database cannot be used.
        PrefectAwayError: Prefect's server does not come up, or a process of ours ended.
    """
    settings = Settings()
    load_locations(settings.locations_file)
    for variable, folder in (
        ("DATA_DIRECTORY", settings.data_directory),
        ("BAY_DIRECTORY", settings.bay),
        ("INTAKE_DIRECTORY", settings.intake),
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SettingsError(f"DRIVEPOST_{variable}: cannot be made: {error.strerror}") from None
    with _alone(settings), _ended_by_signals(), ExitStack() as stack:
        console.print(f"tables at revision {upgrade(settings.database)}")
        environment: dict[str, str] = {}
        ui = os.environ.get("PREFECT_API_URL", "").removesuffix("/").removesuffix("/api")
        server: PrefectServer | None = None
        logs = settings.data_directory / "logs"
        if not ui:
            server = PrefectServer(
                settings.data_directory / "prefect", settings.prefect_port, logs / "prefect.log"
            )
            stack.callback(server.stop, _STOP_SERVER_SECONDS)
            environment, ui = dict(server.environment), server.ui
        # What a run logs is to be read in the UI, and goes with its job; the file is for our own troubles.
        environment["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        ready = logs / "flows.ready"
        ready.unlink(missing_ok=True)
        serving = Process(
            # With a server of our own, and the lock on the data directory, nobody else serves flows there.
            [sys.executable, "-m", "deployments.serving", str(ready), *(["--alone"] if server else [])],
            environment,
            logs / "flows.log",
            logs / "flows.pid",
        )
        stack.callback(serving.stop, _STOP_SERVING_SECONDS)
        # Not before the flows' process is begun, which imports meanwhile, and not after the API is, whose errands
        # go to the server.
        if server:
            server.wait()
        answering, listens = _serve_api(environment, logs)
        stack.callback(answering.stop, _STOP_SERVING_SECONDS)
        _wait_for(ready, serving, "the flows could not be deployed", logs / "flows.log")
        _wait_for(listens, answering, "the REST API could not be served", logs / "api.log")
        console.print(f"Prefect's UI: [bold]{ui}[/bold]")
        console.print(f"REST API: [bold]{listens.read_text('utf-8')}[/bold], described at /docs{_token(settings)}")
        console.print(f"drives are looked for in {settings.bay}, request files in {settings.intake}")
        console.print("Ctrl-C ends it")
        while all(process.is_running() for process in (server, serving, answering) if process):
            time.sleep(_LOOK_SECONDS)
        raise PrefectAwayError(f"a process of ours ended by itself; the logs in {logs} tell why")


def _serve_api(environment: Mapping[str, str], logs: Path) -> tuple[Process, Path]:
    """Serve the REST API; gives the process, and the file that will tell where it listens."""
    listens = logs / "api.address"
    listens.unlink(missing_ok=True)
    arguments = [sys.executable, "-m", "deployments.api.server", str(listens)]
    return Process(arguments, environment, logs / "api.log", logs / "api.pid"), listens


def _token(settings: Settings) -> str:
    return "" if settings.api_issuer else "; 'drivepost token' shows the token for it"


def _wait_for(ready: Path, process: Process, fault: str, log: Path) -> None:
    give_up = time.monotonic() + _DEPLOY_SECONDS_MAX
    while not ready.exists():
        if not process.is_running() or time.monotonic() > give_up:
            raise PrefectAwayError(f"{fault}; {log} tells why")
        time.sleep(_LOOK_SECONDS)


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    with (settings.data_directory / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SettingsError(
                "DRIVEPOST_DATA_DIRECTORY: 'drivepost up' runs there already; end it, or name another directory"
            ) from None
        yield


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end us as Ctrl-C does, and SIGINT however we were started."""

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    # What a shell starts in the background inherits that SIGINT is ignored, and Python then leaves it at that. Our
    # children would inherit it too, and be ended by it no more.
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
