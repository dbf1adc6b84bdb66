"""`/health`: whether the server can answer."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from edge_agent.server.service import Service

router = APIRouter(tags=["edge"])


@router.get("/health", responses={503: {"description": "The model is still loading, or cannot be loaded."}})
async def health(request: Request) -> JSONResponse:
    """200 `{"status": "ok"}` once the model is open; 503 before."""
    service: Service = request.app.state.service
    if service.failed is not None:
        return JSONResponse({"status": "error", "message": str(service.failed)}, 503)
    if service.is_stopping or not service.is_ready:
        return JSONResponse({"status": "stopping" if service.is_stopping else "loading"}, 503, {"Retry-After": "1"})
    return JSONResponse({"status": "ok"})
