"""Servers of the REST API as tests need them: a real process, a real port, a token or an issuer."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import jwt
import psutil  # type: ignore[import-untyped]
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from deployments.api.tokens import read_local_token
from models.settings import Settings

VERSION: Final = "2021-01-01"
START_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """An API that runs: its address, the token of the embedded default (empty with an issuer), and its log."""

    address: str
    token: str
    log: Path

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        """Make a client of it; by default with the one token there is."""
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=60, **options)

    def job_url(self, name: str = "job1", subscription: str = "s1", group: str = "g1", part: str = "") -> str:
        """Tell the path and query of a job of Microsoft.ImportExport."""
        return (
            f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.ImportExport"
            f"/jobs/{name}{part}?api-version={VERSION}"
        )


@contextmanager
def serving(folder: Path, **environment: str) -> Iterator[Server]:
    """Serve the database and settings now in force, with these variables set beside them."""
    ready, log = folder / f"{uuid4().hex}.ready", folder / f"{uuid4().hex}.log"
    env = {**os.environ, "DRIVEPOST_API_PORT": "0", **environment}
    log.touch()
    child = _begun(ready, log, env)
    try:
        give_up = time.monotonic() + START_SECONDS_MAX
        while not (ready.exists() and ready.read_text()):
            assert child.is_running(), log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.02)
        token = "" if "DRIVEPOST_API_ISSUER" in env else read_local_token(Settings().token_file)
        yield Server(ready.read_text(), token, log)
    finally:
        with suppress(psutil.NoSuchProcess):
            child.terminate()
            try:
                child.wait(15)
            finally:
                child.kill()


_FORKER: Final = """
import gc, json, os, runpy, signal, sys, traceback
gc.disable()
import deployments.api.application
gc.collect()
gc.freeze()
gc.enable()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    told = json.loads(line)
    if child := os.fork():
        print(child, flush=True)
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(told["log"], os.O_WRONLY)
    for output in (1, 2):
        os.dup2(log, output)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(told["environment"])
    sys.argv = ["server", told["ready"]]
    try:
        runpy.run_module("deployments.api.server", run_name="__main__")
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
"""
"""A process that has imported all: importing takes longer than most tests do with their server."""


@cache
def _forker() -> "subprocess.Popen[str]":
    # It ends with the tests, whose end closes its input.
    return subprocess.Popen(
        [sys.executable, "-c", _FORKER],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _begun(ready: Path, log: Path, environment: Mapping[str, str]) -> psutil.Process:
    forker = _forker()
    assert forker.stdin
    assert forker.stdout
    told = {"ready": str(ready), "log": str(log), "environment": dict(environment)}
    print(json.dumps(told), file=forker.stdin, flush=True)
    return psutil.Process(int(forker.stdout.readline()))


@pytest.fixture
def server(any_database: str, tmp_path: Path) -> Iterator[Server]:
    """Serve an empty database of the test's own, SQLite and PostgreSQL in turn."""
    with serving(tmp_path, DRIVEPOST_API_REQUESTS_PER_MINUTE="1000000") as served:
        yield served


@pytest.fixture
def sqlite_server(sqlite: str, tmp_path: Path) -> Iterator[Server]:
    """Serve an empty embedded database of the test's own."""
    with serving(tmp_path, DRIVEPOST_API_REQUESTS_PER_MINUTE="1000000") as served:
        yield served


@cache
def _first_key() -> rsa.RSAPrivateKey:
    # Making one takes longer than most tests of what it signs; who wants another makes it.
    return rsa.generate_private_key(65537, 2048)


@dataclass(slots=True)
class Issuer:
    """An OIDC issuer of the test's own: signs tokens, and shows its keys at an address on the loopback."""

    url: str = ""
    key: rsa.RSAPrivateKey = field(default_factory=_first_key)
    key_id: str = "key-1"
    asked: int = 0
    is_away: bool = False

    AUDIENCE = "drivepost-tests"
    USER = UUID(int=0xABC)

    @property
    def settings(self) -> Mapping[str, str]:
        """What a server is told of it."""
        return {
            "DRIVEPOST_API_ISSUER": self.url,
            "DRIVEPOST_API_AUDIENCE": self.AUDIENCE,
            "DRIVEPOST_API_JWKS_URL": f"{self.url}/keys",
        }

    def keys(self) -> dict[str, Any]:
        """Tell the public keys."""
        made = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**made, "kid": self.key_id, "use": "sig", "alg": "RS256"}]}

    def token(
        self,
        *roles: str,
        subscriptions: list[str] | None = None,
        key: Any = None,
        algorithm: str = "RS256",
        headers: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Sign a token; claims given override what it has, and None leaves one out."""
        now = int(time.time())
        told = {
            "iss": self.url,
            "aud": self.AUDIENCE,
            "sub": str(self.USER),
            "iat": now,
            "exp": now + 600,
            "roles": list(roles),
            "subscriptions": subscriptions or [],
            **claims,
        }
        told = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(told, key or self.key, algorithm, headers=headers or {"kid": self.key_id})


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """Start an issuer."""
    made = Issuer()

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked += 1
            if made.is_away:
                self.send_error(503)
                return
            content = json.dumps(made.keys()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Keys) as listening:
        thread = Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        made.url = f"http://127.0.0.1:{listening.server_port}"
        yield made
        listening.shutdown()
