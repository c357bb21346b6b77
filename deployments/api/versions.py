"""The api-versions of Microsoft.ImportExport that are spoken here.

Their descriptions differ in the formats of integers alone, int32 or int64: `driveCount`, `percentComplete`,
`$top`. Ours are far below either, so that every version gets the same members; one that had others would say so
here.
"""

from typing import Annotated, Final

from fastapi import Query

from models.errors import ApiVersionMissingError, ApiVersionUnknownError

VERSIONS: Final = ("2016-11-01", "2020-08-01", "2021-01-01")
"""The versions there are, the oldest first."""


def api_version(
    version: Annotated[
        str | None,
        Query(
            alias="api-version", description="The version of the API.", json_schema_extra={"enum": list(VERSIONS)}
        ),
    ] = None,
) -> str:
    """Read which version a request speaks.

    Raises:
        ApiVersionMissingError: it names none.
        ApiVersionUnknownError: it names another; the text names those there are.
    """
    if not version:
        raise ApiVersionMissingError(VERSIONS)
    if version not in VERSIONS:
        raise ApiVersionUnknownError(VERSIONS)
    return version
