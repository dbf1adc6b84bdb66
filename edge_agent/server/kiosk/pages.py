"""`/`, `/operator` and `/kiosk/...`: the pages and their files.

Owns their routes and their caching. Invariants: they hold no data, so anyone may load them, also by a link from another page; what the
pages show comes from the routes for clients and for the operator, with their own tokens.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from edge_agent.server.faults import Refusal
from edge_agent.server.kiosk import assets
from edge_agent.server.service import Service

router = APIRouter(tags=["kiosk"], include_in_schema=False)


@router.get("/")
async def visitor(request: Request) -> Response:
    """The visitor's page."""
    return _reply(request, "visitor.html")


@router.get("/operator")
async def operator(request: Request) -> Response:
    """The operator's page; it asks for the operator's token itself."""
    return _reply(request, "operator.html")


@router.get("/kiosk-worker.js")
async def worker(request: Request) -> Response:
    """The service worker, at the top so that it may serve `/` while the server is gone."""
    return _reply(request, "worker.js")


@router.get("/kiosk/deck")
async def deck(request: Request) -> JSONResponse:
    """The questions that a visitor can pick, and what the page must know of the settings."""
    service: Service = request.app.state.service
    return JSONResponse(service.kiosk.to_dict())


@router.get("/kiosk/{name:path}")
async def file(request: Request, name: str) -> Response:
    """A file of the pages."""
    return _reply(request, name)


def _reply(request: Request, name: str) -> Response:
    """A file, or 304 if the browser has it. A browser asks each time whether it changed: a page must never run with old scripts."""
    asset = assets.all_assets().get(name)
    if asset is None:
        raise Refusal(404, "not_found", "There is no such page.")
    headers = {"ETag": asset.etag, "Cache-Control": "no-cache", "Content-Security-Policy": asset.policy}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)
