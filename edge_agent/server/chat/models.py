"""`/v1/models`: the names that say who may answer, in OpenAI's shape and in System One's at once.

Owns these two shapes; `model_names.py` owns the names.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from edge_agent.server.model_names import ALIAS, NAMES, SINCE, describe, pick

router = APIRouter(tags=["chat"])
_CREATED = int(datetime.fromisoformat(SINCE).replace(tzinfo=UTC).timestamp())


async def models() -> JSONResponse:
    """The names, as `data` for OpenAI's clients and as `models` for those of System One."""
    known = [{"name": name, "description": describe(name), "release_date": SINCE} for name in (*NAMES, ALIAS)]
    return JSONResponse({"object": "list", "data": [_model(name) for name in NAMES], "models": known})


async def one(model: str) -> JSONResponse:
    """One name; `edge-auto-0.75` and every other tau exist, too."""
    pick(model)
    return JSONResponse(_model(model))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "edge-agent", "description": describe(name)}


for _path, _handler in (("/models", models), ("/models/{model}", one)):
    router.add_api_route(f"/v1{_path}", _handler, methods=["GET"])
    router.add_api_route(_path, _handler, methods=["GET"], include_in_schema=False)
