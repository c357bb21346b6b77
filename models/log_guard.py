"""The second line: no log record leaves this process with personal data that the process has in hand.

The first line is that nobody writes such a record: errors carry ids alone. Every personal value passes through
sealing, so that the process knows which texts may not be said; they are replaced before any handler sees them.
"""

import logging
import traceback
from collections.abc import Callable, Collection
from typing import Any, Final

from models.sealing import recent

_INSTEAD: Final = "[personal data]"
_SHORTEST: Final = 5
"""Shorter texts, such as a state's two letters, stand in half of all lines by chance."""


class _Guard:
    """Makes log records as the factory before it did, and takes personal data out of them."""

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._make(*args, **kwargs)
        # Copied in one step: other threads seal and open meanwhile.
        if told := {text for text in recent.copy() if len(text) >= _SHORTEST}:
            _clean(record, told)
        return record


def _clean(record: logging.LogRecord, told: Collection[str]) -> None:
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001  its arguments do not fit; the handler would say so, and repeat them
        message = _text(record.msg)
        record.msg, record.args = message, ()
    cleaned = _without(message, told)
    if cleaned != message:
        record.msg, record.args = cleaned, ()
    if record.exc_info:
        trace = "".join(traceback.format_exception(*record.exc_info))
        if _without(trace, told) != trace:
            record.exc_info = None
            record.exc_text = _without(trace, told)


def _text(message: object) -> str:
    try:
        return str(message)
    except Exception:  # noqa: BLE001  a fault of whoever logs must not become one of what is logged
        return f"a {type(message).__name__} that has no text"


def _without(text: str, told: Collection[str]) -> str:
    said = {each for each in told if each in text}
    for each in sorted(said, key=len, reverse=True):
        text = text.replace(each, _INSTEAD)
    return text


def guard_logs() -> None:
    """Guard every log record of this process from now on; safe to repeat."""
    if not isinstance(logging.getLogRecordFactory(), _Guard):
        logging.setLogRecordFactory(_Guard(logging.getLogRecordFactory()))
