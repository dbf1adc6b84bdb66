"""`/health` and `/metrics`: whether the server can answer, and what it has done."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from edge_agent import __version__
from edge_agent.core.errors import StorageError
from edge_agent.server.service import Service
from edge_agent.store import live, overview

router = APIRouter(tags=["edge"])


@router.get("/health", responses={503: {"description": "The model is still loading, or cannot be loaded, or the server stops."}})
async def health(request: Request) -> JSONResponse:
    """200 `{"status": "ok"}` once the model is open; 503 before. With the operator's token, more is told."""
    service: Service = request.app.state.service
    found: dict[str, Any] = {"status": "ok"}
    if service.failed is not None:
        found = {"status": "error", "message": str(service.failed)}
    elif service.is_stopping or not service.is_ready:
        found = {"status": "stopping" if service.is_stopping else "loading"}
    if request.app.state.access.is_operator(request.headers.get("authorization")):
        found |= await service.aside(lambda: _detail(service))
    if found["status"] == "ok":
        return JSONResponse(found)
    return JSONResponse(found, 503, {"Retry-After": "1"})


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """What the server counts, in Prometheus's text format; for the operator."""
    service: Service = request.app.state.service
    return Response(await service.aside(service.counts.text), media_type=CONTENT_TYPE_LATEST)


def _detail(service: Service) -> dict[str, Any]:
    """What the operator wants to know at a glance."""
    agent, model = service.agent, service.agent.model
    detail: dict[str, Any] = {
        "version": __version__,
        "uptime_s": round(time.monotonic() - service.started, 1),
        "model": {"name": model.name, "sha256": model.sha256, "quantization": model.quantization},
        "at_work": service.n_at_work,
        "refused_busy": service.n_refused,
        "streams": service.following.n_streams,
    }
    try:
        queue = overview.queue(agent.store)
        found = live.newest(agent.store)
        detail["audits"] = {"waiting": agent.audits.n_waiting(), "agreement": live.as_dict(found) if found else None}
        detail["queue"] = {"waiting": queue.waiting, "oldest_s": queue.oldest_s, "dead": queue.dead}
        if agent.gate is not None:
            breaker = agent.gate.breaker
            known = breaker.health
            detail["breaker"] = {
                "open": bool(known.open_s),
                "wait_s": round(breaker.wait_s(), 1),
                "error": known.error if known.open_s else None,
            }
    except StorageError as error:
        detail["storage_error"] = str(error)
    return detail
