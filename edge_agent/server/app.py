"""The routes put together, behind the guard, and each request counted.

Owns the list of routes. Each file in the folders beside this one owns its own.
"""

from __future__ import annotations

from fastapi import FastAPI

from edge_agent import __version__
from edge_agent.server import faults
from edge_agent.server.access import Access
from edge_agent.server.edge import asking, drafting, events, health, lists
from edge_agent.server.guard import Guard, Message, Receive, Scope, Send
from edge_agent.server.service import Service


class Counted:
    """Counts each request by the template of its route, which only the app knows, and its status, whoever replied; and lets no client
    keep its connection while the server stops.
    """

    def __init__(self, app: Guard, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        service = self._service

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                service.counts.replied(getattr(scope.get("route"), "path", "none"), message["status"])
                if service.is_stopping:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, sending)


def build(service: Service, access: Access) -> Counted:
    """The whole application. Handlers find the service as `request.app.state.service`."""
    app = FastAPI(title="edge-agent", version=__version__, docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    app.state.service, app.state.access = service, access
    faults.install(app)
    for router in (asking.router, lists.router, events.router, drafting.router, health.router):
        app.include_router(router)
    return Counted(Guard(app, access), service)
