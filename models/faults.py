"""Faults of libraries, told without what they know: their texts may hold a person's data."""

import traceback
from pathlib import Path
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from models.errors import DatabaseError, DrivepostError, UnexpectedError

_ROOT: Final = Path(__file__).resolve().parent.parent


def without_data(error: Exception) -> DrivepostError:
    """Turn an error of a library into one of ours, which tells its type and place and not its text."""
    if isinstance(error, DrivepostError):
        return error
    if isinstance(error, DBAPIError) and not isinstance(error, DataError):
        return DatabaseError(f"the database refused: {type(error.orig).__name__}")
    if isinstance(error, PoolTimeoutError):
        return DatabaseError("the database has no connection free; try again later")
    return UnexpectedError(type(error).__name__, _place(error))


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_ROOT)]
    frame = (ours or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"
