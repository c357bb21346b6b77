"""What runs leave in Prefect for people to look at, without a word of it in Prefect's events.

Prefect's server writes an event with all that an artifact shows when one is made, and when the newest of a key is
removed; events have no delete call. Of a change it writes none: so an artifact is empty when it comes and goes.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact
from prefect.client.schemas.sorting import ArtifactSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from tasks.acts import act
from tasks.prefect_api import prefect_client

_PAGE: Final = 200
_PAGES_MAX: Final = 50


@act
def show_table(flow_run_id: UUID | None, key: str, rows: list[dict[str, Any]], description: str) -> None:
    """Leave a table with a run, as the newest artifact under its key; outside of a run there is none.

    Raises:
        PrefectAwayError: Prefect does not answer.
    """
    if flow_run_id is not None:
        with prefect_client() as client:
            fill(client, make_empty(client, flow_run_id, key, "table"), json.dumps(rows), description)


def leave_markdown(client: SyncPrefectClient, flow_run_id: UUID, key: str, text: str, description: str) -> None:
    """Leave a text with a run, as the newest artifact under its key; it goes with the run."""
    fill(client, make_empty(client, flow_run_id, key, "markdown"), text, description)


def make_empty(client: SyncPrefectClient, flow_run_id: UUID, key: str, kind: str) -> UUID:
    """Make an artifact that tells nothing yet; gives its id.

    Args:
        client: of Prefect.
        flow_run_id: the run that it goes with.
        key: its key, which stays in Prefect's events.
        kind: markdown, table or progress.
    """
    # By bare requests here and below: Prefect's own functions would add an event of the client's.
    made = {"key": key, "type": kind, "data": None, "description": None, "flow_run_id": str(flow_run_id)}
    return UUID(client.request("POST", "/artifacts/", json=made).json()["id"])


def fill(client: SyncPrefectClient, artifact_id: UUID, data: object, description: str | None) -> None:
    """Let an artifact show this; harmless when it is gone."""
    told = {"data": data, "description": description}
    try:
        client.request("PATCH", "/artifacts/{id}", path_params={"id": artifact_id}, json=told)
    except PrefectHTTPStatusError as error:
        if error.response.status_code != httpx.codes.NOT_FOUND:
            raise


def empty_artifacts(client: SyncPrefectClient, flow_run_ids: Sequence[UUID]) -> None:
    """Empty what runs left, before any of it is removed: who removes it shows none of the rest again.

    Several may remove the same at once. Safe to repeat.
    """
    of_runs = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=list(flow_run_ids)))
    for page in range(_PAGES_MAX):
        artifacts = client.read_artifacts(artifact_filter=of_runs, limit=_PAGE, offset=page * _PAGE)
        for artifact in artifacts:
            fill(client, artifact.id, None, None)
        if len(artifacts) < _PAGE:
            return


def remove_artifacts(client: SyncPrefectClient, flow_run_id: UUID) -> None:
    """Remove what a run left. Safe to repeat."""
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    for _ in range(_PAGES_MAX):
        artifacts = client.read_artifacts(artifact_filter=of_run, limit=_PAGE)
        for artifact in artifacts:
            _remove(client, artifact)
        if len(artifacts) < _PAGE:
            return


def _remove(client: SyncPrefectClient, artifact: Artifact) -> None:
    # What becomes the newest of the key is told in an event, too: it shows itself again afterwards.
    next_newest = _next_newest(client, artifact)
    for each in (artifact, *next_newest):
        fill(client, each.id, None, None)
    with suppress(ObjectNotFound):
        client.delete_artifact(artifact.id)
    for each in next_newest:
        fill(client, each.id, each.data, each.description)


def _next_newest(client: SyncPrefectClient, artifact: Artifact) -> list[Artifact]:
    """Find what becomes the newest of a key when its newest is removed, if there is one that shows anything."""
    if artifact.key is None:
        return []
    of_key = ArtifactFilter(key=ArtifactFilterKey(any_=[artifact.key]))
    found = client.read_artifacts(artifact_filter=of_key, sort=ArtifactSort.CREATED_DESC, limit=2)
    is_newest = [each.id for each in found[:1]] == [artifact.id]
    return [each for each in found[1:] if is_newest and each.data is not None]


def moment(at: datetime) -> str:
    """Tell a moment to the second, in UTC without saying so."""
    return f"{at:%Y-%m-%d %H:%M:%S}"
