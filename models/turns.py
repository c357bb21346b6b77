"""Turns: what one process at a time does, whichever machine it is on."""

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from models.database import engine

_NUMBERS: Final = {"advance": 7_467_639, "forget": 7_467_640}  # any that no other user of the database takes
_SILENT_SECONDS: Final = 10
_PROBES: Final = 3
_PROBE_SECONDS: Final = 5


def turn_to_advance() -> AbstractContextManager[bool]:
    """Hold the turn to advance jobs while a block runs; False where another process has it."""
    return _turn("advance")


def turn_to_forget() -> AbstractContextManager[bool]:
    """Hold the turn to forget runs in Prefect while a block runs; False where another process has it.

    Prefect's database knows deadlocks of two that remove the same artifact.
    """
    return _turn("forget")


@contextmanager
def _turn(name: str) -> Iterator[bool]:
    """Hold a turn while a block runs; False where another process has it.

    The database gives it back when the process that holds it is gone: at once where it was killed, and after
    25 seconds where its whole machine was. Nobody waits for it, and nobody has to renew it.
    """
    if engine().dialect.name == "sqlite":
        with Path(f"{engine().url.database}.{name}.turn").open("w") as lock:
            yield _is_taken(lock.fileno())
        return
    connection = engine().connect()
    try:
        # A transaction that has read nothing keeps nobody from anything, and may stay open.
        for part, value in (("idle", _SILENT_SECONDS), ("interval", _PROBE_SECONDS), ("count", _PROBES)):
            connection.execute(text(f"SET LOCAL tcp_keepalives_{part} = {value}"))
        yield bool(connection.scalar(text("SELECT pg_try_advisory_xact_lock(:turn)"), {"turn": _NUMBERS[name]}))
    finally:
        # One that broke has given the turn back already.
        with suppress(SQLAlchemyError):
            connection.close()


def _is_taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
