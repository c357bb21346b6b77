"""The OpenAPI description of the API; it tells nothing of anybody, and is open to all, as its page at /docs is."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from deployments.api.bodies import SHAPES
from deployments.api.refusals import ErrorAnswer

_REFERENCE: Final = "#/components/schemas/{model}"
_DESCRIPTION: Final = (
    "Microsoft.ImportExport as its published clients speak it, and what a portal and operators need beside it. "
    "Times are UTC. Errors are `{error: {code, message, target, details}}`; codes are stable."
)


def describe_on_demand(application: FastAPI) -> None:
    """Let an application describe itself at /openapi.json; done once, when first asked."""

    def describe() -> dict[str, Any]:
        if not application.openapi_schema:
            application.openapi_schema = _description(application)
        return application.openapi_schema

    setattr(application, "openapi", describe)  # noqa: B010  FastAPI's own way, which its types do not know


def _description(application: FastAPI) -> dict[str, Any]:
    described = get_openapi(
        title=application.title,
        version=application.version,
        description=_DESCRIPTION,
        routes=application.routes,
    )
    schemas = described["components"]["schemas"]
    shapes: list[type[Any]] = [*SHAPES.values(), ErrorAnswer]
    _, made = TypeAdapter.json_schemas(
        [(shape.__name__, "validation", TypeAdapter[Any](shape)) for shape in shapes], ref_template=_REFERENCE
    )
    schemas.update(made["$defs"])
    described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    refused = {
        "description": "Refused.",
        "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model="ErrorAnswer")}}},
    }
    for operations in described["paths"].values():
        for operation in operations.values():
            operation["security"] = [{"token": []}]
            operation["summary"] = operation["description"].partition(".")[0]
            operation["responses"].pop("422", None)  # ours are 400, with every fault named
            operation["responses"]["default"] = refused
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return described
