"""Pages of lists: `$top`, `$filter`, and the cursor in `nextLink`.

The cursor is sealed as personal data is: nobody else can make one, or read it, and it counts only for the list
it was made for.
"""

import base64
import binascii
import json
from typing import Annotated, Final

from fastapi import Query, Request
from sqlalchemy import ColumnElement, and_
from sqlmodel import Session

from models.errors import RequestError, SealedValueError, SealingKeyError
from models.job_filters import FILTER_LETTERS_MAX, parse_filter
from models.job_lists import PAGE_MAX, Page, list_jobs
from models.key_files import open_sealed, ring

_PLACE: Final = "api.nextLink"
_CURSOR: Final = "$skiptoken"
_FROM_THE_START: Final = "is no cursor of this list; begin the list anew, without it"


class Paging:
    """What a request asks of a list: how many, which, and after which."""

    def __init__(
        self,
        request: Request,
        top: Annotated[
            int | None, Query(alias="$top", ge=1, le=PAGE_MAX, description="Jobs on a page, at most.")
        ] = None,
        filter_: Annotated[
            str | None,
            Query(
                alias="$filter",
                max_length=FILTER_LETTERS_MAX,
                description="Of state, jobType and name: `state eq 'Creating' and (jobType eq 'Import' or …)`.",
            ),
        ] = None,
        cursor: Annotated[str | None, Query(alias=_CURSOR, description="Set by `nextLink`.")] = None,
    ) -> None:
        self._request = request
        self._top = top or PAGE_MAX
        self._filter = filter_ or ""
        self._cursor = cursor

    def read(
        self, session: Session, scopes: list[str] | None, found_by: ColumnElement[bool] | None = None
    ) -> tuple[Page, str | None]:
        """Read the page that is asked for, and where the next one is; None after the last.

        Args:
            session: an open session.
            scopes: whose jobs, as `list_jobs` takes them.
            found_by: a condition beside the filter.

        Raises:
            RequestError: the filter or the cursor is none.
        """
        if self._filter.strip():
            asked = parse_filter(self._filter)
            found_by = asked if found_by is None else and_(found_by, asked)
        page = list_jobs(session, scopes, found_by=found_by, after=self._after(), rows_max=self._top)
        return page, None if page.is_last else self._link(page.last_key)

    def _list(self) -> str:
        return json.dumps([self._request.url.path.lower(), self._filter])

    def _after(self) -> str:
        if self._cursor is None:
            return ""
        try:
            sealed = base64.urlsafe_b64decode(self._cursor.encode("ascii"))
            made_for, after = json.loads(open_sealed(_PLACE, sealed))
        except (ValueError, binascii.Error, SealedValueError, SealingKeyError):
            raise RequestError([(_CURSOR, _FROM_THE_START)]) from None
        if made_for != self._list():
            raise RequestError([(_CURSOR, _FROM_THE_START)])
        return str(after)

    def _link(self, after: str) -> str:
        sealed = ring().seal(_PLACE, json.dumps([self._list(), after]))
        cursor = base64.urlsafe_b64encode(sealed).decode("ascii")
        return str(self._request.url.include_query_params(**{_CURSOR: cursor}))
