"""Drives the client 1.0.0b2 of Microsoft.ImportExport, in a process where it takes the place of 0.1.0.

Reads from standard input `{"address", "token", "ca", "steps": [{"call", "arguments", "body"?}]}`; a step calls an
operation, such as `jobs.get`, with a body that is a model's members, or a whole document as a text. Writes
`{"version", "told": [...]}`: of each step what was sent, and what the client gave back (a list whole, with all its
pages) or raised.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from types import ModuleType
from typing import Any

import azure.mgmt.storageimportexport as package
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError
from azure.mgmt.storageimportexport import StorageImportExport, models

BODIES = {"jobs.create": "PutJobParameters", "jobs.update": "UpdateJobParameters"}


class Credential:
    """A token that we have already."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *_scopes: str, **_options: object) -> AccessToken:
        """Give it."""
        return AccessToken(self._token, int(time.time()) + 3600)


def built(shapes: ModuleType, kind: str, members: Any) -> Any:
    """Make a model of a client, and those below it, by its constructor, so that it has its own defaults.

    Args:
        shapes: the client's models.
        kind: what it is, as the client's own tables write it, such as `JobDetails` or `[DriveStatus]`.
        members: the arguments of its constructor.
    """
    if kind.startswith("["):
        return [built(shapes, kind[1:-1], each) for each in members]
    shape = getattr(shapes, kind, None)
    if shape is None:
        return members
    kinds = {name: told["type"] for name, told in shape._attribute_map.items()}
    return shape(**{name: built(shapes, kinds[name], member) for name, member in members.items()})


def told_of(client: Any, step: dict[str, Any], sent: list[str | None]) -> dict[str, Any]:
    """Do one step, and tell what came of it."""
    sent.clear()
    group, _, name = step["call"].partition(".")
    arguments = dict(step["arguments"])
    if isinstance(step.get("body"), str):
        arguments["body"] = step["body"].encode()
    elif "body" in step:
        arguments["body"] = built(models, BODIES[step["call"]], step["body"])
    try:
        answer = getattr(getattr(client, group), name)(**arguments)
        if isinstance(answer, Iterator):
            told: Any = [each.as_dict() for each in answer]
        else:
            told = answer and answer.as_dict()
    except HttpResponseError as error:
        code = error.error and error.error.code
        return {"raised": type(error).__name__, "status": error.status_code, "code": code, "text": str(error)}
    return {"answer": told, "requests": len(sent), "sent": json.loads(sent[-1]) if sent[-1] else None}


def main() -> None:
    """Do every step, in their order."""
    asked = json.load(sys.stdin)
    sent: list[str | None] = []

    def keep(request: Any) -> None:
        body = request.http_request.body
        sent.append(body if isinstance(body, str) else None)

    client = StorageImportExport(
        Credential(asked["token"]),
        "s1",
        base_url=asked["address"],
        connection_verify=asked["ca"],
        retry_total=0,
        raw_request_hook=keep,
    )
    with closing(client):
        told = [told_of(client, step, sent) for step in asked["steps"]]
    json.dump({"version": package.__version__, "told": told}, sys.stdout)


if __name__ == "__main__":
    main()
