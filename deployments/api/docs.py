"""The OpenAPI description, and the page that shows it; both tell nothing of anybody, and are open to all."""

from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

from deployments.api.answers import Answer
from deployments.api.bodies import SHAPES

if TYPE_CHECKING:
    from models.requests import Shape

_ASSETS: Final = "/docs/assets"
_REFERENCE: Final = "#/components/schemas/{model}"
_DESCRIPTION: Final = (
    "Microsoft.ImportExport as its published clients speak it, and what a portal and operators need beside it. "
    "Times are UTC. Errors are `{error: {code, message, target, details}}`; codes are stable."
)


class FaultAnswer(Answer):
    """One fault of a request."""

    code: str
    message: str
    target: str


class ErrorDetailAnswer(Answer):
    """What was refused, and what would have worked."""

    code: str
    message: str
    target: str | None = None
    details: list[FaultAnswer] | None = None


class ErrorAnswer(Answer):
    """A refusal."""

    error: ErrorDetailAnswer


def add_docs(application: FastAPI) -> None:
    """Give an application its description at /openapi.json and the page at /docs."""
    application.mount(_ASSETS, StaticFiles(directory=swagger_ui_path))

    async def page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=application.title,
            swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{_ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{_ASSETS}/favicon-32x32.png",
        )

    application.get("/docs", include_in_schema=False)(page)

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
    shapes: list[type[Shape] | type[Answer]] = [*SHAPES.values(), ErrorAnswer]
    _, made = models_json_schema([(shape, "validation") for shape in shapes], ref_template=_REFERENCE)
    schemas.update(made["$defs"])
    described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    refused = {
        "description": "Refused.",
        "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model="ErrorAnswer")}}},
    }
    for operations in described["paths"].values():
        for operation in operations.values():
            operation["security"] = [{"token": []}]
            operation["responses"].pop("422", None)  # ours are 400, with every fault named
            operation["responses"]["default"] = refused
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return described
