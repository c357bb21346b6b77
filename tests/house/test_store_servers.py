"""The stores that tests start leave nothing running behind."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

_ROOT: Final = Path(__file__).parents[2]
_SECONDS_MAX: Final = 30.0
_WAITING: Final = """
import time
from tests.store_servers import {serve}
with {serve}() as server:
    print(server.environment["{endpoint}"], flush=True)
    time.sleep(600)
"""


def _answers(url: str) -> bool:
    try:
        socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize(
    ("serve", "endpoint"), [("serve_azurite", "AZURE_STORAGE_ENDPOINT"), ("serve_s3", "AWS_ENDPOINT")]
)
def test_a_store_ends_when_the_process_that_started_it_is_killed(
    serve: str, endpoint: str, tmp_path: Path
) -> None:
    """Even by SIGKILL, after which nobody can stop it any more."""
    code = _WAITING.format(serve=serve, endpoint=endpoint)
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=_ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        url = starter.stdout.readline().strip()
        assert _answers(url)
        starter.kill()
    give_up = time.monotonic() + _SECONDS_MAX
    while _answers(url):
        assert time.monotonic() < give_up
        time.sleep(0.05)
