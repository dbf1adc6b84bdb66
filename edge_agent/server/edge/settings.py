"""`/edge/settings`: the settings in force in this process, for the operator."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from edge_agent.core.config import settings as declared
from edge_agent.core.config.settings import Settings

router = APIRouter(tags=["operator"])


@router.get("/edge/settings")
async def settings(request: Request) -> JSONResponse:
    """The settings with which the server was started, by name; of a secret only whether it is set."""
    found: Settings = request.app.state.settings
    rows = [{"name": one.name, **declared.public(found, one.name)} for one in declared.DECLARED]
    return JSONResponse({"config_file": str(found.config_file), "settings": rows})
