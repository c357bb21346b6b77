"""A user's portal settings and dashboards: what they saved by their own wish, and how they are rid of it."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from deployments.api.answers import Answer
from deployments.api.bodies import body_of, described
from deployments.api.callers import admitted
from deployments.api.means import errands_of
from deployments.api.portal import DashboardId
from deployments.api.tokens import Caller
from models.dashboards import (
    DASHBOARDS_MAX,
    DashboardShape,
    create_dashboard,
    dashboards_for,
    delete_dashboard,
    read_dashboard,
    shape_of,
    update_dashboard,
)
from models.database import database_time, reading, writing
from models.erasure import erase_job_of_person, jobs_to_erase
from models.errors import JobError, PortalSettingsNotFoundError, RequestError
from models.lifecycle import Actor, Outcome
from models.portal import SavedShape, SettingsPart, delete_settings, save_address
from models.portal_documents import PortalSettingsDocument, export_settings, import_settings
from models.receipts import Reason
from models.requests import Shape

router: Final = APIRouter(prefix="/portal", tags=["portal"])

_Caller = Annotated[Caller, Depends(admitted)]

_ERASED_MAX: Final = 1_000
_SHOWN_MAX: Final = 10 * DASHBOARDS_MAX


class PortalSettingsBody(Shape):
    """What a user saves as default."""

    saved_carrier_and_return_address: SavedShape


@dataclass(slots=True, kw_only=True)
class DashboardListAnswer(Answer):
    """The dashboards that a user sees: their own and the shared ones."""

    value: list[DashboardShape]


@dataclass(slots=True, kw_only=True)
class ErasedAnswer(Answer):
    """What became of everything of a person's; `is_all` is false where there was more than one request does."""

    jobs_deleted: int
    jobs_erased: int
    jobs_to_be_erased: int
    is_all: bool


@dataclass(slots=True, kw_only=True)
class ImportedAnswer(Answer):
    """What came of an import."""

    address_saved: bool
    dashboards_created: int
    dashboards_updated: int


def _document(caller: Caller) -> PortalSettingsDocument:
    with reading(of_one_moment=True) as session:
        return export_settings(session, caller.user_id, at=database_time(session)).document


def _json(content: str, **headers: str) -> Response:
    return Response(content, headers=headers, media_type="application/json")


@router.get("/settings", operation_id="PortalSettings_Get", response_model=PortalSettingsDocument)
def get_settings(caller: _Caller) -> Response:
    """Read everything that is kept in the caller's portal settings."""
    return _json(_document(caller).to_json())


@router.get("/settings/export", operation_id="PortalSettings_Export", response_model=PortalSettingsDocument)
def export(caller: _Caller) -> Response:
    """Export all settings: one JSON file with everything that is kept, to be saved."""
    name = 'attachment; filename="portal-settings.json"'
    return _json(_document(caller).to_json(), **{"Content-Disposition": name})


@router.put(
    "/settings",
    operation_id="PortalSettings_Put",
    response_model=PortalSettingsDocument,
    openapi_extra=described(PortalSettingsBody),
)
def put_settings(
    caller: _Caller, body: Annotated[PortalSettingsBody, Depends(body_of(PortalSettingsBody))]
) -> Response:
    """Save carrier and return address as the caller's default, in place of what was saved."""
    saved = body.saved_carrier_and_return_address
    with writing() as session:
        at = database_time(session)
        save_address(session, caller.user_id, saved.return_address, saved.return_shipping, at=at)
        return _json(export_settings(session, caller.user_id, at=at).document.to_json())


@router.post(
    "/settings/import",
    operation_id="PortalSettings_Import",
    response_model=ImportedAnswer,
    openapi_extra=described(PortalSettingsDocument),
)
def take_in(
    caller: _Caller, body: Annotated[PortalSettingsDocument, Depends(body_of(PortalSettingsDocument))]
) -> Response:
    """Take in what the caller exported; nothing is deleted by it."""
    if body.user_id != caller.user_id:
        raise RequestError([("userId", "is another's; take in what you exported yourself")])
    with writing() as session:
        came = import_settings(session, body, at=database_time(session))
    return ImportedAnswer(
        address_saved=came.address, dashboards_created=came.created, dashboards_updated=came.updated
    ).as_response()


@router.delete("/settings", operation_id="PortalSettings_Delete", response_class=Response)
def delete_all(request: Request, caller: _Caller) -> Response:
    """Delete all settings and private dashboards, saved contact information included; shared dashboards stay."""
    return _delete(request, caller, SettingsPart.EVERYTHING)


@router.delete(
    "/settings/savedCarrierAndReturnAddress",
    operation_id="PortalSettings_DeleteSavedAddress",
    response_class=Response,
)
def delete_saved_address(request: Request, caller: _Caller) -> Response:
    """Delete the saved carrier and return address alone."""
    return _delete(request, caller, SettingsPart.SAVED_ADDRESS)


def _delete(request: Request, caller: Caller, what: SettingsPart) -> Response:
    with writing() as session:
        delete_settings(session, caller.user_id, what, at=database_time(session))
    # Files that an operator exported go with the next advance-jobs.
    errands_of(request).return_free_pages()
    return Response(status_code=200)


@router.post("/erasePersonalData", operation_id="Portal_ErasePersonalData", response_model=ErasedAnswer)
def erase_everything(request: Request, caller: _Caller) -> Response:
    """Erase all of the caller's; jobs not sent yet are deleted, others erased as soon as their drives are back.

    Portal settings and private dashboards are deleted. Jobs in subscriptions that the caller may not act in any
    more stay, and are an operator's to erase. At most 1,000 jobs at once; ask again until `isAll`.
    """
    with reading() as session:
        found = jobs_to_erase(session, caller.user_id, _ERASED_MAX, caller.scopes)
    outcomes: list[Outcome | None] = []
    for job_id, state in found:
        with suppress(JobError), writing() as session:
            at = database_time(session)
            outcomes.append(erase_job_of_person(session, job_id, state, at=at, by=Actor.CUSTOMER))
    with suppress(PortalSettingsNotFoundError), writing() as session:
        at = database_time(session)
        delete_settings(session, caller.user_id, SettingsPart.EVERYTHING, at=at, reason=Reason.WISH)
    errands_of(request).return_free_pages()
    return ErasedAnswer(
        jobs_deleted=outcomes.count(None),
        jobs_erased=outcomes.count(Outcome.DONE),
        jobs_to_be_erased=outcomes.count(Outcome.WISHED),
        is_all=len(outcomes) < _ERASED_MAX and len(outcomes) == len(found),
    ).as_response()


@router.get("/dashboards", operation_id="Dashboards_List", response_model=DashboardListAnswer)
def list_dashboards(caller: _Caller) -> Response:
    """List the caller's dashboards and the shared ones, by name, at most 1,000."""
    with reading(of_one_moment=True) as session:
        shown = [shape_of(each) for each in dashboards_for(session, caller.user_id, _SHOWN_MAX)]
    return DashboardListAnswer(value=shown).as_response()


@router.post(
    "/dashboards",
    operation_id="Dashboards_Create",
    status_code=201,
    response_model=DashboardShape,
    openapi_extra=described(DashboardShape),
)
def create(caller: _Caller, body: Annotated[DashboardShape, Depends(body_of(DashboardShape))]) -> Response:
    """Create a dashboard: a named filter over jobs, private or shared; its id is ours to give."""
    with writing() as session:
        made = create_dashboard(session, caller.user_id, body, at=database_time(session))
        return _dashboard(shape_of(made), 201)


def _dashboard(shape: DashboardShape, status: int = 200) -> Response:
    content = shape.model_dump_json(by_alias=True, exclude_none=True)
    return Response(content, status, media_type="application/json")


@router.get("/dashboards/{dashboardId}", operation_id="Dashboards_Get", response_model=DashboardShape)
def get(caller: _Caller, dashboard_id: DashboardId) -> Response:
    """Read a dashboard of the caller's, or a shared one."""
    with reading() as session:
        return _dashboard(shape_of(read_dashboard(session, dashboard_id, caller.user_id)))


@router.put(
    "/dashboards/{dashboardId}",
    operation_id="Dashboards_Update",
    response_model=DashboardShape,
    openapi_extra=described(DashboardShape),
)
def put(
    caller: _Caller,
    dashboard_id: DashboardId,
    body: Annotated[DashboardShape, Depends(body_of(DashboardShape))],
) -> Response:
    """Change a dashboard of the caller's."""
    with writing() as session:
        changed = update_dashboard(session, dashboard_id, caller.user_id, body, at=database_time(session))
        return _dashboard(shape_of(changed))


@router.delete("/dashboards/{dashboardId}", operation_id="Dashboards_Delete", response_class=Response)
def delete(caller: _Caller, dashboard_id: DashboardId) -> Response:
    """Delete a dashboard of the caller's."""
    with writing() as session:
        delete_dashboard(session, dashboard_id, caller.user_id)
    return Response(status_code=200)
