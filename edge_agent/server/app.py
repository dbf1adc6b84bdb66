"""The routes put together, behind the guard.

Owns the list of routes. Each file in the folders beside this one owns its own.
"""

from __future__ import annotations

from fastapi import FastAPI

from edge_agent import __version__
from edge_agent.server import faults
from edge_agent.server.access import Access
from edge_agent.server.edge import asking, health
from edge_agent.server.guard import Guard
from edge_agent.server.service import Service


def build(service: Service, access: Access) -> Guard:
    """The whole application. Handlers find the service as `request.app.state.service`."""
    app = FastAPI(title="edge-agent", version=__version__, docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    app.state.service, app.state.access = service, access
    faults.install(app)
    for router in (asking.router, health.router):
        app.include_router(router)
    return Guard(app, access)
