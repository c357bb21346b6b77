"""`drivepost create-job`: a job of a request file that lies anywhere, written down at once."""

import sys
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from models.database import database_time, writing
from models.errors import DatabaseError, RequestError
from models.lifecycle import Actor
from models.locations import load_locations
from models.requests import REQUEST_BYTES_MAX, JobRequest, parse
from models.settings import Settings
from models.tables import require_current_tables
from models.updates import put_job

_STDIN: Final = Path("-")


def create_job(file: Path) -> UUID:
    """Create a job, or replace it while it is Creating; the file stays, it is the caller's.

    Args:
        file: a request file, as the intake takes them; "-" is the standard input.

    Returns:
        The job's opaque id.

    Raises:
        DatabaseError: the tables are not those of this version, or the database refuses.
        RequestError: the file cannot be read, or is no request.
        JobStateConflictError: a job of that name has left Creating.
        CancelAcceptedError: a job of that name is being cancelled.
    """
    require_current_tables()
    request = parse(JobRequest, _read(file))
    locations = load_locations(Settings().locations_file)
    try:
        with writing() as session:
            return put_job(session, request, locations, at=database_time(session), by=Actor.OPERATOR)
    except DBAPIError as error:
        raise DatabaseError(f"the database refused: {type(error.orig).__name__}") from None


def _read(file: Path) -> bytes:
    if file == _STDIN:
        document = sys.stdin.buffer.read(REQUEST_BYTES_MAX + 1)
    else:
        try:
            with file.open("rb") as opened:
                document = opened.read(REQUEST_BYTES_MAX + 1)
        except OSError as error:
            raise RequestError([("file", f"cannot be read: {error.strerror}")]) from None
    if len(document) > REQUEST_BYTES_MAX:
        raise RequestError([("file", "is over 1 MiB; give a blob list as a blob")])
    return document
