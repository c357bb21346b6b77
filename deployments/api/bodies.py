"""Bodies of requests: read to a limit, parsed in our own words, and described in the OpenAPI page."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from fastapi import Request

from deployments.api.envelope import read_body
from models.requests import Shape, parse

SHAPES: Final[dict[str, type[Shape]]] = {}
"""Every shape that a body has, by its name: what the OpenAPI page describes."""

_ShapeT = TypeVar("_ShapeT", bound=Shape)


def described(shape: type[Shape]) -> dict[str, Any]:
    """Say in the OpenAPI page which shape an operation's body has."""
    SHAPES[shape.__name__] = shape
    reference = {"$ref": f"#/components/schemas/{shape.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}}


def body_of(shape: type[_ShapeT]) -> Callable[[Request], Awaitable[_ShapeT]]:
    """Make what reads a body of a shape; it comes after who asks was looked at."""

    async def read(request: Request) -> _ShapeT:
        return parse(shape, await read_body(request))

    return read
