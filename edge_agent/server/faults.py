"""What goes wrong, as HTTP: a status, a short code and a sentence, in the shape of the API that was called.

Owns the table of our errors and the three shapes. Invariants: a person's mistake is a 4xx and never a 5xx; every error is JSON; a bug
is a 500 without its traceback in the reply.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from edge_agent.core.errors import (
    AgentClosed,
    BadData,
    BadQuestion,
    BadSetting,
    CloudUnavailable,
    EdgeAgentError,
    ModelBusy,
    ModelError,
    StorageError,
)
from edge_agent.server.door.misfit import misfits

SYSTEMONE = "/v1/systemone"
RETRY_AFTER_S = 1
_UNPROCESSABLE = 422

# The most special first.
_STATUS: list[tuple[type[EdgeAgentError], int, str]] = [
    (BadQuestion, 400, "invalid_question"),
    (BadData, 400, "invalid_request"),
    (BadSetting, 400, "invalid_request"),
    (ModelBusy, 503, "server_busy"),
    (ModelError, 503, "model_unavailable"),
    (CloudUnavailable, 502, "cloud_unavailable"),
    (AgentClosed, 503, "server_stopping"),
    (StorageError, 503, "storage_unavailable"),
]
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
          422: "invalid_request_error", 429: "rate_limit_error", 503: "overloaded_error"}  # fmt: skip

ON_EVERY_REPLY = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_TEXT, _MAYBE_TEXT = {"type": "string"}, {"type": ["string", "null"]}
# The three shapes, for the OpenAPI document.
SCHEMAS: dict[str, Any] = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "code", "param"],
                "properties": {"message": _TEXT, "type": _TEXT, "code": _TEXT, "param": _MAYBE_TEXT},
            }
        },
    },
    "SystemOneError": {
        "type": "object",
        "required": ["detail"],
        "properties": {
            "detail": {"type": "object", "required": ["error_type", "message"], "properties": {"error_type": _TEXT, "message": _TEXT}}
        },
    },
    "SystemOneInvalid": {
        "type": "object",
        "required": ["detail"],
        "properties": {
            "detail": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["loc", "msg", "type"],
                    "properties": {"loc": {"type": "array"}, "msg": _TEXT, "type": _TEXT},
                },
            }
        },
    },
}


Param = str | tuple[str | int, ...] | None
"""The field that is wrong, by its path in the body: with dots, or as its parts where a name may have dots itself."""


class Refusal(EdgeAgentError):
    """A request that is refused before it is a question: `status` and `code` say how. `param` names the field that is wrong."""

    def __init__(self, status: int, code: str, message: str, param: Param = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, dict(headers or {})


def reply(path: str, status: int, code: str, message: str, param: Param = None, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error in the shape of the API that `path` belongs to. System One says 422 for every request that does not fit."""
    own = dict(headers or {})
    if status == 400 and is_systemone(path):
        status = _UNPROCESSABLE
    if status == 503:
        own.setdefault("Retry-After", str(RETRY_AFTER_S))
    return JSONResponse(body(path, status, code, message, param), status, own)


def body(path: str, status: int, code: str, message: str, param: Param = None) -> dict[str, Any]:
    """The body of an error."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    parts = tuple(param.split(".")) if isinstance(param, str) and param else param or ()
    if is_systemone(path):
        if status == _UNPROCESSABLE:
            return {"detail": [{"loc": ["body", *parts], "msg": message, "type": code}]}
        return {"detail": {"error_type": kind, "message": message}}
    return {"error": {"message": message, "type": kind, "code": code, "param": ".".join(map(str, parts)) or None}}


def schema_name(path: str, status: int) -> str:
    """Which of `SCHEMAS` an error on this path has."""
    return "Error" if not is_systemone(path) else "SystemOneInvalid" if status == _UNPROCESSABLE else "SystemOneError"


def is_systemone(path: str) -> bool:
    """Whether errors on this path have the shape of the System One API."""
    return path.rstrip("/") in (SYSTEMONE, SYSTEMONE.removeprefix("/v1"))


def install(app: FastAPI, methods: Mapping[str, Iterable[str]]) -> None:
    """Answer every exception of the app in the right shape. `methods` are those of each path, by its template."""
    allowed = [(compile_path(template)[0], set(found)) for template, found in methods.items()]

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> JSONResponse:
        return reply(request.scope["path"], error.status, error.code, str(error), error.param, error.headers)

    @app.exception_handler(EdgeAgentError)
    async def failed(request: Request, error: EdgeAgentError) -> JSONResponse:
        status, code = next(((status, code) for kind, status, code in _STATUS if isinstance(error, kind)), (500, "internal_error"))
        return reply(request.scope["path"], status, code, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _invalid(request.scope["path"], error)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        path, code = request.scope["path"], {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
        headers = dict(error.headers or {})
        if error.status_code == 405:
            found = {method for pattern, some in allowed if re.match(pattern, path) for method in some}
            headers["Allow"] = ", ".join(sorted(found | ({"HEAD"} if "GET" in found else set())))
        if error.status_code == 404:
            message = f"There is nothing at {path:.200}; /openapi.json lists the routes."
        elif error.status_code == 405:
            message = f"{request.method:.20} is not possible at {path:.200}; use {headers['Allow']}."
        else:
            message = f"{error.detail}: {request.method} {path:.200}"
        return reply(path, error.status_code, code, message, None, headers)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        return reply(request.scope["path"], 500, "internal_error", "The server has a bug; its log says more.")


def _invalid(path: str, error: RequestValidationError) -> JSONResponse:
    """A request that does not fit."""
    found = misfits(error.errors(), error.body)
    if is_systemone(path):
        detail = [{"loc": ["body", *one.path], "msg": one.sentence, "type": one.type} for one in found]
        return JSONResponse({"detail": detail}, _UNPROCESSABLE)
    return reply(path, 400, "invalid_request", found[0].sentence, found[0].param)
