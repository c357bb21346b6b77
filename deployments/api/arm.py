"""The ten operations of Microsoft.ImportExport.

Source: `arm/<version>/storageimportexport.json`; the specification, sections 3 to 5 and 8.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Request
from sqlmodel import Session
from starlette.responses import Response

from deployments.api.answers import (
    BitLockerKeysAnswer,
    JobAnswer,
    JobListAnswer,
    LocationAnswer,
    LocationsAnswer,
    job_answer,
    keys_answer,
    location_answer,
)
from deployments.api.bodies import body_of, described
from deployments.api.callers import admitted
from deployments.api.envelope import read_body
from deployments.api.means import answer_about, ask_to_cancel, errands_of, locations_of
from deployments.api.operations import OPERATIONS, OperationsAnswer
from deployments.api.pages import Paging
from deployments.api.tokens import Caller
from deployments.api.versions import api_version
from models.database import database_time, reading, writing
from models.deletion import delete_job
from models.drives import give_out_keys
from models.errors import LocationNotFoundError, RequestError
from models.job_facts import read_facts
from models.job_requests import parse_create
from models.jobs import Job, read_named_job
from models.lifecycle import Actor
from models.requests import CreateJobBody, UpdateJobBody
from models.updates import put_new_or_replace, update_locked_job

router: Final = APIRouter(tags=["Microsoft.ImportExport"])

_PROVIDER: Final = "/providers/Microsoft.ImportExport"
_SUBSCRIPTION: Final = "/subscriptions/{subscriptionId}"
_GROUP: Final = f"{_SUBSCRIPTION}/resourceGroups/{{resourceGroupName}}"
_JOB: Final = f"{_GROUP}{_PROVIDER}/jobs/{{jobName}}"

_Caller = Annotated[Caller, Depends(admitted)]
_Version = Annotated[str, Depends(api_version)]
_Subscription = Annotated[str, Path(alias="subscriptionId")]
_Group = Annotated[str, Path(alias="resourceGroupName")]


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose jobs a request is about, and as what its caller acts there."""

    caller: Caller
    actor: Actor
    subscription_id: str


async def _scope(caller: _Caller, _version: _Version, subscription_id: _Subscription) -> Scope:
    # Before anything else is looked at: nobody learns what there is in another's subscription.
    return Scope(caller, caller.acts_in(subscription_id), subscription_id)


_Scope = Annotated[Scope, Depends(_scope)]


@dataclass(frozen=True, slots=True)
class Named:
    """One job, by its names."""

    scope: Scope
    resource_group: str
    name: str

    def read(self, session: Session, *, lock: bool = False) -> Job:
        """Read it; `lock` keeps others from changing it until the transaction ends.

        Raises:
            JobNotFoundError: there is none.
        """
        return read_named_job(session, self.scope.subscription_id, self.resource_group, self.name, lock=lock)


async def _named(scope: _Scope, resource_group: _Group, name: Annotated[str, Path(alias="jobName")]) -> Named:
    return Named(scope, resource_group, name)


_Named = Annotated[Named, Depends(_named)]


@router.get(
    f"{_PROVIDER}/operations",
    operation_id="Operations_List",
    response_model=OperationsAnswer,
    dependencies=[Depends(admitted), Depends(api_version)],
)
async def list_operations() -> Response:
    """List the operations there are."""
    return OPERATIONS.as_response()


@router.get(
    f"{_PROVIDER}/locations",
    operation_id="Locations_List",
    response_model=LocationsAnswer,
    dependencies=[Depends(admitted), Depends(api_version)],
)
async def list_locations(request: Request) -> Response:
    """List the sites that take drives."""
    sites = locations_of(request).by_key.values()
    return LocationsAnswer(value=[location_answer(site) for site in sites]).as_response()


@router.get(
    f"{_PROVIDER}/locations/{{locationName}}",
    operation_id="Locations_Get",
    response_model=LocationAnswer,
    dependencies=[Depends(admitted), Depends(api_version)],
)
async def get_location(request: Request, name: Annotated[str, Path(alias="locationName")]) -> Response:
    """Read one site, by its name or the last part of its id."""
    try:
        return location_answer(locations_of(request).find(name)).as_response()
    except RequestError:
        raise LocationNotFoundError from None


_LIST: Final[dict[str, Any]] = {"response_model": JobListAnswer}


@router.get(f"{_SUBSCRIPTION}{_PROVIDER}/jobs", operation_id="Jobs_ListBySubscription", **_LIST)
def list_in_subscription(request: Request, scope: _Scope, paging: Annotated[Paging, Depends()]) -> Response:
    """List the jobs of a subscription, by name."""
    return _list(request, paging, scope.subscription_id, with_drives=True)


@router.get(f"{_GROUP}{_PROVIDER}/jobs", operation_id="Jobs_ListByResourceGroup", **_LIST)
def list_in_resource_group(
    request: Request, scope: _Scope, resource_group: _Group, paging: Annotated[Paging, Depends()]
) -> Response:
    """List the jobs of a resource group, by name, without their drives."""
    return _list(request, paging, f"{scope.subscription_id}/{resource_group}", with_drives=False)


def _list(request: Request, paging: Paging, scope: str, *, with_drives: bool) -> Response:
    locations = locations_of(request)
    with reading(of_one_moment=True) as session:
        page, next_link = paging.read(session, [scope])
        facts = read_facts(session, page.jobs, with_drives=with_drives)
        jobs = [job_answer(each, locations, with_drives=with_drives) for each in facts]
    return JobListAnswer(value=jobs, next_link=next_link).as_response()


@router.get(_JOB, operation_id="Jobs_Get", response_model=JobAnswer)
def get_job(request: Request, named: _Named) -> Response:
    """Read a job."""
    with reading(of_one_moment=True) as session:
        return answer_about(session, named.read(session), locations_of(request)).as_response()


@router.put(
    _JOB,
    operation_id="Jobs_Create",
    response_model=JobAnswer,
    responses={201: {"model": JobAnswer, "description": "A new job."}},
    openapi_extra=described(CreateJobBody),
)
def create_job(request: Request, named: _Named, document: Annotated[bytes, Depends(read_body)]) -> Response:
    """Create a job, or replace it while it is Creating."""
    locations = locations_of(request)
    names = {
        "subscriptionId": named.scope.subscription_id,
        "resourceGroupName": named.resource_group,
        "jobName": named.name,
    }
    owner = named.scope.caller.owner_as(named.scope.actor)
    asked = parse_create(names, document, owner, locations.find)
    with writing() as session:
        at = database_time(session)
        job, is_new = put_new_or_replace(session, asked, locations, at=at, by=named.scope.actor)
        answer = answer_about(session, job, locations, location=asked.body.location)
    return answer.as_response(201 if is_new else 200)


@router.patch(_JOB, operation_id="Jobs_Update", response_model=JobAnswer, openapi_extra=described(UpdateJobBody))
def update(
    request: Request, named: _Named, body: Annotated[UpdateJobBody, Depends(body_of(UpdateJobBody))]
) -> Response:
    """Change a job's properties, all that are named or none; `cancelRequested: true` cancels it."""
    with writing() as session:
        job = named.read(session, lock=True)
        update_locked_job(session, job, body, at=database_time(session), by=named.scope.actor)
        session.flush()
        answer = answer_about(session, job, locations_of(request))
    ask_to_cancel(request, job)
    return answer.as_response()


@router.delete(_JOB, operation_id="Jobs_Delete", response_class=Response)
def delete(request: Request, named: _Named) -> Response:
    """Delete a job in Creating or Completed; afterwards nothing of it can be read any more."""
    with writing() as session:
        job_id = named.read(session).id
        delete_job(session, job_id, at=database_time(session), by=named.scope.actor)
    errands_of(request).return_free_pages()
    errands_of(request).ask("delete-job", job_id)
    return Response(status_code=200)


@router.post(f"{_JOB}/listBitLockerKeys", operation_id="BitLockerKeys_List", response_model=BitLockerKeysAnswer)
def list_keys(named: _Named) -> Response:
    """Give out the BitLocker keys of a job's drives; that it was done is written down."""
    with writing() as session:
        job = named.read(session, lock=True)
        drives = give_out_keys(session, job.id, at=database_time(session), by=named.scope.actor)
        return keys_answer(drives).as_response()
