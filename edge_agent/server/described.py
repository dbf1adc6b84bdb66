"""The OpenAPI document: what the routes declare, and for each the errors and the token that all routes have in common.

Owns what is added. Knows no route by name. Invariant: each status that the guard, the router or the table of our errors can send on a
route is in the document, with the shape that it has there.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from edge_agent.server import faults
from edge_agent.server.door.callers import CALLERS, Caller

_TOKENS = {Caller.CLIENT: "client", Caller.OPERATOR: "operator"}
_METHODS = ("get", "put", "post", "delete", "patch", "head")
_ALWAYS = {
    400: "The request cannot be read, or a value in it is wrong.",
    401: "The token is missing or wrong.",
    403: "The host name, the page or the token may not do this.",
    404: "There is nothing here.",
    405: "Another method is needed; Allow names it.",
    408: "The request did not arrive in time.",
    414: "The query is too long.",
    431: "The headers are too large.",
    500: "A bug in the server.",
    503: "Busy, loading or stopping; Retry-After says when to come again.",
}
_WITH_BODY = {
    413: "The body is too large.",
    415: "The body is not JSON, by its content type.",
    422: "A value does not fit.",
    502: "The cloud had to answer and did not.",
}
_FASTAPIS_ERRORS = ("HTTPValidationError", "ValidationError")


def install(app: FastAPI) -> None:
    """Make `app.openapi` return the whole document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(
                get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # as FastAPI's documentation does it


def json_body(schema: dict[str, Any]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its JSON itself: what FastAPI cannot know of the body."""
    return {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": True}}


def _described(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    components.setdefault("schemas", {}).update(faults.SCHEMAS)
    components["securitySchemes"] = {name: {"type": "http", "scheme": "bearer"} for name in _TOKENS.values()}
    for path, operations in document.get("paths", {}).items():
        caller = CALLERS.get(path, Caller.OPERATOR)
        for method in operations.keys() & set(_METHODS):
            operation = operations[method]
            if "description" in operation:  # FastAPI's own summary is the name of a function
                operation["summary"] = operation["description"].partition("\n")[0].removesuffix(".")
            if caller in _TOKENS:
                # An empty requirement: on loopback a client needs no token.
                operation["security"] = [{_TOKENS[caller]: []}, *([{}, {"operator": []}] if caller is Caller.CLIENT else [])]
            responses = operation.setdefault("responses", {})
            if "HTTPValidationError" in str(responses.get("422")):
                del responses["422"]  # FastAPI's guess; ours has another shape
            for status, meaning in {**_ALWAYS, **(_WITH_BODY if "requestBody" in operation else {})}.items():
                responses.setdefault(str(status), _error(path, status, meaning))
    for name in _FASTAPIS_ERRORS:
        components["schemas"].pop(name, None)
    return document


def _error(path: str, status: int, meaning: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{faults.schema_name(path, status)}"}}}
    return {"description": meaning, "content": content}
