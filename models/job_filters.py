"""`$filter` of a list of jobs: a small part of OData.

    filter     = comparison | "(" filter ")" | filter "and" filter | filter "or" filter
    comparison = name "eq" text | text "eq" name
    name       = "state" | "jobType" | "name"
    text       = in single quotes; a quote in it is written twice

`and` binds more closely than `or`; words, names and texts compare without regard to case, and brackets may stand
around each of them.

Source: `$filter` of Jobs_ListBySubscription, "can be used to restrict the results to certain conditions"; which
ones is ours to choose.
"""

from collections.abc import Callable, Mapping
from typing import Final

from odata_query import ast
from odata_query.exceptions import ODataException
from odata_query.grammar import ODataLexer, ODataParser
from sqlalchemy import ColumnElement, and_, false, func, or_
from sqlmodel import col

from models.errors import RequestError
from models.jobs import Job
from models.lifecycle import JobState, JobType

FILTER_LETTERS_MAX: Final = 2_000

_TARGET: Final = "$filter"
_WAY_OUT: Final = "write it as state eq 'Creating' and (jobType eq 'Import' or name eq 'my-job')"


def _state(text: str) -> ColumnElement[bool]:
    named = {state.lower(): state for state in JobState}.get(_lower(text))
    return false() if named is None else col(Job.state) == named


def _job_type(text: str) -> ColumnElement[bool]:
    named = {job_type.lower(): job_type for job_type in JobType}.get(_lower(text))
    return false() if named is None else col(Job.job_type) == named


def _name(text: str) -> ColumnElement[bool]:
    return func.lower(col(Job.name)) == _lower(text) if _lower(text) else false()


def _lower(text: str) -> str:
    """Lower a text; empty where it can be no word of ours: some letters become ASCII by being lowered."""
    return text.lower() if text.isascii() and text.isprintable() else ""


_COMPARED: Final[Mapping[str, Callable[[str], ColumnElement[bool]]]] = {
    "state": _state,
    "jobtype": _job_type,
    "name": _name,
}


def parse_filter(text: str) -> ColumnElement[bool]:
    """Read a filter as a condition on jobs.

    Raises:
        RequestError: it is none, or asks for what cannot be asked for.
    """
    if len(text) > FILTER_LETTERS_MAX:
        raise RequestError([(_TARGET, f"is over {FILTER_LETTERS_MAX:,} letters; ask for less, several times")])
    try:
        read = ODataParser().parse(ODataLexer().tokenize(text.strip()))
    except (ODataException, ValueError, RecursionError):
        raise RequestError([(_TARGET, f"cannot be read; {_WAY_OUT}")]) from None
    return _condition(read)


def _condition(node: object) -> ColumnElement[bool]:
    match node:
        case ast.BoolOp(op=ast.And(), left=left, right=right):
            return and_(_condition(left), _condition(right))
        case ast.BoolOp(op=ast.Or(), left=left, right=right):
            return or_(_condition(left), _condition(right))
        case ast.Compare(comparator=ast.Eq(), left=ast.Identifier() as name, right=ast.String() as value):
            return _comparison(name, value)
        case ast.Compare(comparator=ast.Eq(), left=ast.String() as value, right=ast.Identifier() as name):
            return _comparison(name, value)
    raise RequestError([(_TARGET, f"can hold eq, and, or and texts in single quotes alone; {_WAY_OUT}")])


def _comparison(name: ast.Identifier, value: ast.String) -> ColumnElement[bool]:
    compare = None if name.namespace else _COMPARED.get(name.name.lower())
    if compare is None:
        raise RequestError([(_TARGET, "can ask for state, jobType and name alone")])
    return compare(str(value.val))
