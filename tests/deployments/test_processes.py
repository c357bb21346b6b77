"""What a start finds of a start that was killed."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
import pytest

from deployments import processes
from deployments.processes import PrefectServer

SERVER: Final = ["server", "start", "--host", "127.0.0.1", "--port", "4200"]


@pytest.fixture
def left_behind(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Leave a process behind, with its id where a server's is; gives what does so with a command line."""
    begun: list[subprocess.Popen[bytes]] = []

    def leave(*arguments: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)", *arguments],
            start_new_session=True,
            stdout=subprocess.PIPE,
        )
        begun.append(process)
        assert process.stdout
        process.stdout.readline()  # its command line is its own by now
        (tmp_path / "server.pid").write_text(str(process.pid), "ascii")
        return process

    yield leave
    for process in begun:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("module", ["prefect", "deployments.prefect_server"])
def test_a_server_left_by_any_version_is_ended(
    tmp_path: Path,
    left_behind: Callable[..., "subprocess.Popen[bytes]"],
    monkeypatch: pytest.MonkeyPatch,
    module: str,
) -> None:
    """It would be the second on one database; and at another port nobody would notice."""
    started: list[Any] = []
    monkeypatch.setattr(processes, "Process", lambda *arguments: started.append(arguments))
    orphan = left_behind("-m", module, *SERVER)
    PrefectServer(tmp_path, 0, tmp_path / "prefect.log")
    assert started
    assert not psutil.pid_exists(orphan.pid)


def test_a_program_that_has_the_number_of_a_dead_server_goes_on(
    tmp_path: Path,
    left_behind: Callable[..., "subprocess.Popen[bytes]"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Numbers of processes come again."""
    monkeypatch.setattr(processes, "Process", lambda *_: None)
    other = left_behind("starter", "--port=4200", "deployments.prefect_server")
    PrefectServer(tmp_path, 0, tmp_path / "prefect.log")
    with pytest.raises(subprocess.TimeoutExpired):
        other.wait(0.5)
