"""Every error has a code and stands in the tree drawn above them."""

import re
from collections import defaultdict
from typing import Final

import pytest

from models import errors
from models.errors import (
    BayError,
    DrivepostError,
    JobStateConflictError,
    MoveNotAllowedError,
    PropertyNotUpdatableError,
    RequestError,
    UnexpectedError,
)

ALL: Final = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, DrivepostError)
]
# Error -> depth, parent and code, as drawn.
DRAWN: Final = re.compile(r"^    (?P<lines>[│├└─ ]*)(?P<name>\w+Error)\b *(?P<code>[A-Z]\w+)?", re.MULTILINE)
# One code for several errors, on purpose: a move is an operation too, and ARM has one word for what is not there.
SHARED: Final = {
    "JobStateConflict": {"JobStateConflictError", "MoveNotAllowedError", "DriveMoveNotAllowedError"},
    "ResourceNotFound": {"JobNotFoundError", "LocationNotFoundError"},
}


def drawn() -> dict[str, tuple[str, str | None]]:
    """Read the drawing: name -> parent's name, code."""
    found: dict[str, tuple[str, str | None]] = {}
    above: list[str] = []
    for match in DRAWN.finditer(errors.__doc__ or ""):
        depth = len(match["lines"]) // 4
        above = [*above[:depth], match["name"]]
        found[match["name"]] = (above[depth - 1] if depth else "", match["code"])
    return found


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_an_error_stands_in_the_tree_under_its_parent_with_its_code(error: type[DrivepostError]) -> None:
    """Root and branch that nobody raises have no code in the drawing."""
    parent, code = drawn()[error.__name__]
    assert parent == (error.__mro__[1].__name__ if error is not DrivepostError else "")
    assert code in {error.code, None}
    is_raised = error.__name__ not in {"DrivepostError", "JobError"}
    assert (code is not None) is is_raised
    assert error.__doc__
    assert error.__name__.endswith("Error")


def test_the_tree_draws_nothing_that_is_not_there() -> None:
    """And everything that is."""
    assert set(drawn()) == {error.__name__ for error in ALL}


def test_no_two_errors_share_a_code_unless_it_is_meant() -> None:
    """Whoever reads a code knows what happened."""
    by_code: dict[str, set[str]] = defaultdict(set)
    for error in ALL:
        if error.__name__ not in {"DrivepostError", "JobError"}:
            by_code[error.code].add(error.__name__)
    assert {code: names for code, names in by_code.items() if len(names) > 1} == SHARED
    assert all(re.fullmatch(r"[A-Z][A-Za-z]+", code) for code in by_code)


def test_an_error_is_told_in_one_line() -> None:
    """Code first."""
    assert BayError("nothing in it").line == "BayUnusable: nothing in it"


def test_a_refusal_says_what_would_have_worked() -> None:
    """And at an end, that there is nothing."""
    assert str(JobStateConflictError("delete", "Shipping", "cancel it first")) == (
        "a Shipping job cannot take 'delete'; cancel it first"
    )
    assert str(MoveNotAllowedError("Creating", "Closed", ["Shipping", "Completed"])) == (
        "a Creating job cannot become Closed; it can become Completed, Shipping"
    )
    assert "nothing: it is at its end" in str(MoveNotAllowedError("Closed", "Creating", []))
    assert str(PropertyNotUpdatableError("Packaging", ["logLevel"], ["tags"])) == (
        "logLevel cannot be changed in a Packaging job; what can be is tags"
    )


def test_a_request_tells_all_its_faults() -> None:
    """A fault of the whole has no place."""
    assert str(RequestError([("a.b", "is wrong"), ("", "is no object")])) == "a.b: is wrong; is no object"


def test_a_fault_of_ours_is_told_without_its_text() -> None:
    """By type and place alone."""
    assert UnexpectedError("KeyError", "models/jobs.py:7").line == (
        "InternalError: KeyError at models/jobs.py:7; this is a fault of Drivepost's, please report it"
    )
