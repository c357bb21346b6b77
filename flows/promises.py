"""What every flow has in common: its name, the form an operator fills in, and how it ends."""

import gc
import re
from collections.abc import Callable
from functools import cache, wraps
from inspect import cleandoc, signature
from typing import Annotated, Any, Final, ParamSpec
from uuid import UUID

from prefect import Flow, flow
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field, ValidationError, validate_call
from sqlalchemy.exc import SQLAlchemyError

from models.database import reading
from models.errors import DrivepostError, JobNotFoundError, RequestError
from models.faults import without_data
from models.jobs import find_job
from models.log_guard import guard_logs
from models.request_faults import refusal
from models.requests import (
    NAME_PATTERN,
    RESOURCE_GROUP_PATTERN,
    SUBSCRIPTION_PATTERN,
    UUID_PATTERN,
)
from tasks.intake import REQUEST_FILE_PATTERN
from tasks.run_history import USER, hide_parameters
from tasks.timeline import leave_timeline

guard_logs()

_P = ParamSpec("_P")

_JOB: Final = "job"
_WRAPPED: Final = re.compile(r"(?<!\n)\n(?!\n|- )\s*")

_NAMES: Final = "/".join(
    pattern.strip("^$") for pattern in (SUBSCRIPTION_PATTERN, RESOURCE_GROUP_PATTERN, NAME_PATTERN)
)

JobReference = Annotated[
    str,
    Field(
        title="Job",
        pattern=rf"^({UUID_PATTERN}|{_NAMES})$",
        description="The job: its id, or subscription/resourceGroup/name.",
        examples=["3f2b8c1e-5d47-4a0b-9a54-0c8de2b7f611", "my-subscription/my-group/my-job"],
    ),
]
"""How an operator names a job."""

AnyJobReference = Annotated[
    str,
    Field(
        title="Job",
        pattern=rf"^({UUID_PATTERN}|{_NAMES})?$",
        description="The job: its id, or subscription/resourceGroup/name.",
        examples=["3f2b8c1e-5d47-4a0b-9a54-0c8de2b7f611", "my-subscription/my-group/my-job"],
    ),
]
"""How an operator names a job, or none by leaving it empty."""

UserReference = Annotated[
    str,
    Field(
        title="User",
        pattern=f"^{UUID_PATTERN}$",
        description="The user: the id that their directory gave, such as the object id in Entra, never a name. It "
        "is taken out of the run when that ends.",
        examples=["3f2b8c1e-5d47-4a0b-9a54-0c8de2b7f611"],
    ),
]
"""How an operator names a user."""

AnyUserReference = Annotated[
    str,
    Field(
        title="User",
        pattern=f"^({UUID_PATTERN})?$",
        description="The user: the id that their directory gave.",
        examples=["3f2b8c1e-5d47-4a0b-9a54-0c8de2b7f611"],
    ),
]
"""How an operator names a user, or none by leaving it empty."""

DashboardReference = Annotated[
    str,
    Field(
        title="Dashboard",
        pattern=f"^{UUID_PATTERN}$",
        description="The dashboard: its id, never its name.",
        examples=["9d0c5a1e-7b3f-4c52-8f6e-2a4b6c8d0e1f"],
    ),
]
"""How an operator names a dashboard."""

RequestFile = Annotated[
    str, Field(title="Request file", pattern=rf"^({REQUEST_FILE_PATTERN})?$", examples=["request-17.json"])
]
"""How an operator names a file of the intake folder; empty names none."""

NamedRequestFile = Annotated[
    str, Field(title="Request file", pattern=rf"^{REQUEST_FILE_PATTERN}$", examples=["request-17.json"])
]
"""How an operator names a file of the intake folder that there has to be."""

Ended = State[Any]
"""How a flow ends: a state whose message says the outcome in one line."""


@cache
def _set_imports_aside() -> None:
    """Leave what was imported since out of garbage collections too: they stop a process while they look."""
    gc.freeze()


def promise(
    name: str, description: str, *, leaves_timeline: bool = True
) -> Callable[[Callable[_P, Ended]], Flow[_P, Ended]]:
    """Make a function a flow: one promise, by the name its user gives it.

    A refusal ends the run as Failed with one line, code first, and no traceback. A run of a job is named by
    the first eight digits of the job's opaque id. A run that names a user does not name them any more when it
    ends, however it ends.

    Args:
        name: what its user calls it.
        description: Markdown for an operator who has never seen the code: what it does, when to use it, what it
            takes, how it ends, what it never does.
        leaves_timeline: whether a run of a job leaves the job's timeline as an artifact.
    """

    def decorate(function: Callable[_P, Ended]) -> Flow[_P, Ended]:
        checked: Callable[..., Ended] = validate_call(function)
        named = signature(function).bind
        names_user = USER in signature(function).parameters
        tells_of_job = leaves_timeline and _JOB in signature(function).parameters

        @wraps(function)
        def told(*args: _P.args, **kwargs: _P.kwargs) -> Ended:
            _set_imports_aside()
            try:
                # By name, so that a refusal names the parameter.
                ended = checked(**named(*args, **kwargs).arguments)
            except ValidationError as error:
                # What was typed may be anything; the form's own check was passed by.
                hide_parameters(run_id())
                ended = Failed(message=_refused(error).line)
            except JobNotFoundError as error:
                # The run may name a job that is gone by its name.
                hide_parameters(run_id())
                ended = Failed(message=error.line)
            except DrivepostError as error:
                ended = Failed(message=error.line)
            except PrefectException:
                raise
            except Exception as error:  # noqa: BLE001  Prefect would keep its text, its trace and a pickle of it
                ended = Failed(message=without_data(error).line)
            finally:
                if names_user:
                    hide_parameters(run_id())
            if tells_of_job:
                _leave_timeline()
            say(ended.message or ended.name or "")
            return ended

        made: Flow[_P, Ended] = flow(
            name=name,
            # Prefect's UI makes a new paragraph of every line.
            description=_WRAPPED.sub(" ", cleandoc(description)),
            flow_run_name=_run_name,
            persist_result=False,
            # Prefect's own check would repeat the wrong value in log and state, over many lines.
            validate_parameters=False,
        )(told)
        return made

    return decorate


_MEANT: Final = {
    "job": "is neither a job's id nor subscription/resourceGroup/name",
    "confirm": "is neither a job's id nor subscription/resourceGroup/name",
    "user": "is no user's id, such as 3f2b8c1e-5d47-4a0b-9a54-0c8de2b7f611",
    "dashboard": "is no dashboard's id, such as 9d0c5a1e-7b3f-4c52-8f6e-2a4b6c8d0e1f",
    "request_file": "is no name of a request file, such as request-17.json",
}


def _refused(error: ValidationError) -> RequestError:
    faults = refusal(error).faults
    return RequestError([(place, _MEANT.get(place, text)) for place, text in faults])


def _leave_timeline() -> None:
    if flow_run.id and (reference := flow_run.parameters.get(_JOB)):
        leave_timeline(str(reference), UUID(flow_run.id))


def run_id() -> UUID | None:
    """Tell which run this is; None outside of one."""
    return UUID(flow_run.id) if flow_run.id else None


def say(line: str) -> None:
    """Write a line into the run's log; outside of a run there is none."""
    if flow_run.id:
        get_run_logger().info(line)


def done(message: str) -> Ended:
    """End well."""
    return Completed(message=message)


def stopped(message: str) -> Ended:
    """End as asked to stop."""
    return Cancelled(message=message)


def failed(message: str) -> Ended:
    """End badly."""
    return Failed(message=message)


def _run_name() -> str:
    """Name a run: the flow, and the job by its opaque id, never by its names."""
    reference = flow_run.parameters.get(_JOB)
    if not reference:
        return flow_run.flow_name or "run"
    try:
        with reading() as session:
            return f"{flow_run.flow_name} {find_job(session, str(reference)).hex[:8]}"
    except (DrivepostError, SQLAlchemyError):
        # A name is no reason to fail: if the database is away, the acts will tell, and try again.
        return f"{flow_run.flow_name} of no job"
