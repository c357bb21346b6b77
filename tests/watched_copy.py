"""Copies jobs, and writes down every request that brings bytes into the store.

Run by `tests.copy_process`, so that it can be killed and stopped. All is imported once, and every process that
copies is forked from that: importing takes longer than most copies. Each line of its input is a job, a log, after
how many lines of the log the copy kills itself (0 is never), and after how many seconds more. The log has one line
for each request, `+ blob part time` when it begins and `- blob part time` when it is answered, in nanoseconds of
the machine's monotonic clock; `=` says that the store had it already.
"""

import gc
import importlib
import json
import os
import pkgutil
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from prefect import Task

import flows
from flows.import_drives import import_drives
from tasks import azure_store, containers, s3_store  # noqa: F401  slow to import, and most copies here need one
from tasks.containers import open_container
from tasks.stores import Container, Part


def watch(log: int, written: Callable[[], None]) -> None:
    """Let every container of the copy tell of what is written."""

    def tell(sign: str, path: str, part: int) -> None:
        os.write(log, f"{sign} {path} {part} {time.monotonic_ns()}\n".encode())
        written()

    def open_watched(address: str, name: str) -> Container:
        container: Any = open_container(address, name)
        put, upload = container.put, container.upload

        def watched_put(path: str, *args: Any, **kwargs: Any) -> Any:
            tell("+", path, 0)
            e_tag = put(path, *args, **kwargs)
            tell("-", path, 0)
            return e_tag

        def watched_upload(path: str, *args: Any, **kwargs: Any) -> Any:
            begun = upload(path, *args, **kwargs)
            write = begun.write

            def watched_write(part: Part, data: bytes) -> bool:
                tell("+", path, part.index)
                is_sent: bool = write(part, data)
                tell("-" if is_sent else "=", path, part.index)
                return is_sent

            begun.write = watched_write
            return begun

        container.put, container.upload = watched_put, watched_upload
        return container  # type: ignore[no-any-return]

    containers.open_container = open_watched


def plain_acts() -> None:
    """Let flows call their acts without Prefect."""
    for found in pkgutil.iter_modules(flows.__path__):
        module = importlib.import_module(f"flows.{found.name}")
        for name, value in list(vars(module).items()):
            if isinstance(value, Task):
                setattr(module, name, value.fn)


def copy(job: str, log: str, kill_at: int = 0, delay: float = 0) -> int:
    """Copy a job, and die on the way where it says so; gives the exit code."""
    lines, lock = 0, threading.Lock()

    def count() -> None:
        nonlocal lines
        with lock:
            lines += 1
            is_due = lines == kill_at
        if is_due:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    watch(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ended = import_drives.fn(job)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{grown} {ended.message}", flush=True)  # noqa: T201  to whoever started it
    while kill_at and lines >= kill_at:
        time.sleep(0.01)
    return 0 if ended.is_completed() else 1


def serve(end: str, environment: Mapping[str, str]) -> None:
    """Copy as many jobs as lines come in at a socket, each in a process of its own; tell there how they ended."""
    os.environ.clear()
    os.environ.update(environment)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(end)
        os.dup2(connection.fileno(), 0)
        os.dup2(connection.fileno(), 1)
    for line in sys.stdin:
        job, log, kill_at, delay = line.split()
        child = os.fork()
        if not child:
            os._exit(copy(job, log, int(kill_at), float(delay)))
        print(child, flush=True)  # noqa: T201
        print(f"ended {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}", flush=True)  # noqa: T201


def main() -> None:
    """For each line that comes in, which tells its ends and its environment, fork a process that copies."""
    plain_acts()
    # What is imported stays: no child is to look for garbage among it.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # Unbuffered, so that no child takes along what is meant for the next.
    told = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  as long as the process
    while line := told.readline():
        if child := os.fork():
            print(child, flush=True)  # noqa: T201  to whoever started it
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with suppress(KeyboardInterrupt):
            serve(**json.loads(line))
        os._exit(0)


if __name__ == "__main__":
    main()
