"""Faults of a request: all told at once, each by its place, none with a value."""

from collections.abc import Callable, Sequence
from typing import LiteralString, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from models.errors import RequestError

_Read = TypeVar("_Read")


def with_faults(told: Sequence[str], read: Callable[[], _Read]) -> _Read:
    """Read something, and tell faults of the whole together with those of its parts."""
    parts: list[InitErrorDetails] = []
    try:
        found = read()
    except ValidationError as error:
        parts = [_fault_again(each) for each in error.errors(include_url=False)]
    whole = [
        InitErrorDetails(type=PydanticCustomError("whole", "{text}", {"text": text}), input=None) for text in told
    ]
    if parts or whole:
        raise ValidationError.from_exception_data("request", [*parts, *whole], hide_input=True)
    return found


def _fault_again(fault: ErrorDetails) -> InitErrorDetails:
    return InitErrorDetails(type=_fault("part", fault["msg"]), loc=fault["loc"], input=None)


def _fault(kind: LiteralString, text: str) -> PydanticCustomError:
    return PydanticCustomError(kind, "{text}", {"text": text})


def refusal(error: ValidationError) -> RequestError:
    """Tell what pydantic found, by places and without values."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return RequestError([(_place(fault["loc"]), plain_text(fault["msg"])) for fault in faults])


def _place(path: tuple[int | str, ...]) -> str:
    # Only indexes and the service's own property names: a tag's name is the customer's.
    shown = ""
    for step in path:
        if isinstance(step, int):
            shown += f"[{step}]"
        elif shown.endswith("tags"):
            return shown
        else:
            shown += f".{step}" if shown else step
    return shown


def plain_text(message: str) -> str:
    """Take off what pydantic puts before a text of ours."""
    return message.removeprefix("Value error, ")
