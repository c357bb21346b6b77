"""Whatever goes wrong inside an act surfaces without its text, which may hold a person's data."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import pytest
from prefect import Task
from prefect.exceptions import PrefectException
from prefect.states import Failed
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from models.database import reading, writing
from models.errors import (
    BayError,
    CopyHeldElsewhereError,
    DatabaseError,
    DrivepostError,
    IntakeError,
    JobNotFoundError,
    JobStateConflictError,
    ManifestError,
    PrefectAwayError,
    RequestError,
    StoreError,
    UnexpectedError,
)
from models.jobs import Job, read_job
from models.lifecycle import JobState
from tasks.acts import _may_pass, act
from tests.builders import NOON, job_in

PERSONAL: Final = "ada@example.com"

TEXTS: Final = (
    OSError(2, PERSONAL, f"/home/{PERSONAL}/drive"),
    ValueError(f"bad value {PERSONAL!r}"),
    KeyError(PERSONAL),
    UnicodeDecodeError("utf-8", PERSONAL.encode(), 0, 1, "no"),
    RuntimeError(PERSONAL),
    ExceptionGroup(PERSONAL, [ValueError(PERSONAL)]),
    MemoryError(PERSONAL),
)


def raising(error: BaseException) -> Callable[[], None]:
    """Make an act that fails, and call it as a flow does."""

    @act
    def fails() -> None:
        raise error

    return fails.fn


def everything_told(error: BaseException) -> str:
    """Collect what a traceback of an error would print: its text, and that of whatever it shows as its cause."""
    told = [repr(error), str(error), repr(error.__dict__)]
    if error.__cause__ is not None:
        told.append(everything_told(error.__cause__))
    if error.__context__ is not None and not error.__suppress_context__:
        told.append(everything_told(error.__context__))
    return " ".join(told)


@pytest.mark.parametrize("error", TEXTS, ids=lambda error: type(error).__name__)
def test_a_foreign_error_is_told_by_its_type_and_place_alone(error: Exception) -> None:
    """An operator can report it, and reads nobody's data."""
    with pytest.raises(UnexpectedError) as told:
        raising(error)()
    assert PERSONAL not in everything_told(told.value)
    assert type(error).__name__ in str(told.value)
    assert "test_acts_tell_no_data.py:" in str(told.value)
    assert told.value.line.startswith("InternalError: ")


@pytest.mark.parametrize("kind", [IntegrityError, OperationalError, InterfaceError, DBAPIError])
def test_an_error_of_the_database_is_told_by_its_type(kind: type[DBAPIError]) -> None:
    """Its statement and its parameters are a person's data."""
    error = kind(f"a statement about {PERSONAL}", {"email": PERSONAL}, ValueError(PERSONAL))
    with pytest.raises(DatabaseError, match="the database refused: ValueError") as told:
        raising(error)()
    assert PERSONAL not in everything_told(told.value)


def test_a_real_violation_is_told_without_the_row(any_database: str) -> None:
    """PostgreSQL writes the whole row into its error's detail."""
    with writing() as session:
        job_id = job_in(session, JobState.CREATING, "job1", tags={"owner": PERSONAL})

    @act
    def inserts_twice() -> None:
        with reading() as session:
            row = read_job(session, job_id).model_dump()
        with writing() as session:
            session.add(Job(**row))

    with pytest.raises(DatabaseError) as told:
        inserts_twice.fn()
    assert PERSONAL not in everything_told(told.value)


def may_pass(error: BaseException) -> bool:
    """Ask whether an act that failed so is tried again."""
    nothing: Any = SimpleNamespace()
    return _may_pass(nothing, nothing, Failed(message="x", data=error))


@pytest.mark.parametrize(
    "error", [DatabaseError("x"), StoreError("x"), PrefectAwayError("x")], ids=lambda error: error.code
)
def test_what_may_pass_is_tried_again(error: DrivepostError) -> None:
    """A database, a store, a server that does not answer."""
    assert may_pass(error)


@pytest.mark.parametrize(
    "error",
    [
        JobNotFoundError(),
        JobStateConflictError("delete", "Shipping", "cancel it first"),
        CopyHeldElsewhereError(NOON, NOON),  # type: ignore[arg-type]
        RequestError([("a", "b")]),
        IntakeError("x"),
        BayError("x"),
        ManifestError("ManifestCorrupted", "x"),
        UnexpectedError("KeyError", "here:1"),
        ValueError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_refused_is_refused_at_once(error: Exception) -> None:
    """Asking again would be answered the same."""
    assert not may_pass(error)


@pytest.mark.parametrize("error", [JobNotFoundError(), StoreError("x"), PrefectException("x")])
def test_errors_of_ours_and_of_prefect_pass_as_they_are(error: Exception) -> None:
    """They tell no data, and a flow knows them by their class."""
    with pytest.raises(type(error)) as told:
        raising(error)()
    assert told.value is error


def test_a_signal_passes_through_every_act() -> None:
    """It is no fault, and must end the run."""
    with pytest.raises(KeyboardInterrupt):
        raising(KeyboardInterrupt())()


def every_act() -> list[Task[..., Any]]:
    """Find all acts that flows use."""
    import importlib  # noqa: PLC0415
    import pkgutil  # noqa: PLC0415

    import flows  # noqa: PLC0415

    modules = [importlib.import_module(f"flows.{found.name}") for found in pkgutil.iter_modules(flows.__path__)]
    return [value for module in modules for value in vars(module).values() if isinstance(value, Task)]


def test_every_act_is_tried_three_times_more_and_never_cached() -> None:
    """As the docstring of `act` promises, of each that a flow uses."""
    acts = every_act()
    assert len(acts) > 20
    for each in acts:
        assert each.retries == 3, each.name
        assert each.retry_condition_fn is _may_pass, each.name
        assert each.persist_result is False, each.name
        assert each.cache_policy is not None, each.name
        assert type(each.cache_policy).__name__ == "_None", each.name
