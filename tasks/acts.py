"""What every act has in common: it may be done again, tries again where that helps, and tells no data."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import PrefectException
from prefect.tasks import exponential_backoff

from models.errors import DatabaseError, PrefectAwayError, StoreError
from models.faults import without_data

_P = ParamSpec("_P")
_R = TypeVar("_R")

_MAY_PASS: Final = (DatabaseError, StoreError, PrefectAwayError)


def act(function: Callable[_P, _R]) -> Task[_P, _R]:
    """Make a function one act of a flow: a Prefect task that is never cached and safe to repeat.

    What may pass (a database, a store, a server that does not answer) is tried three times more, after about
    2, 4 and 8 seconds; what is refused is refused at once. An error of a library is told by its type and
    place alone, because its text may hold a person's data.
    """

    @wraps(function)
    def told_without_data(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except PrefectException:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, it is told without its text
            raise without_data(error) from None

    made: Task[_P, _R] = task(
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=3,
        retry_delay_seconds=exponential_backoff(2),
        retry_jitter_factor=0.5,
        retry_condition_fn=_may_pass,
    )(told_without_data)
    return made


def _may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, _MAY_PASS)
