"""The routes put together, behind the guard, and each request counted.

Owns the list of routers. Each file in the folders beside this one owns its own. Who may call which route is `door/callers.py`.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from edge_agent import __version__
from edge_agent.core.config.settings import Settings
from edge_agent.server import described, faults
from edge_agent.server.access import Access
from edge_agent.server.chat import completions, models, responses
from edge_agent.server.door.callers import Callers
from edge_agent.server.edge import asking, drafting, events, health, lists
from edge_agent.server.edge import settings as settings_route
from edge_agent.server.guard import REFUSED, Guard
from edge_agent.server.kiosk import operator, pages
from edge_agent.server.service import Service
from edge_agent.server.typed import decisions, systemone

ROUTERS = (
    completions.router, responses.router, models.router, systemone.router, decisions.router, asking.router, lists.router,
    events.router, drafting.router, health.router, settings_route.router, operator.router, pages.router,
)  # fmt: skip


class Counted:
    """Counts each request by its status and the template of its route, which only the app knows, and lets no client keep its connection
    while the server stops. What the guard refuses has `guard` as its route, and what the connection itself answers `connection`.
    """

    def __init__(self, app: Guard, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        service = self._service

        async def sending(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                route = "guard" if scope.get(REFUSED) else getattr(scope.get("route"), "path", "none")
                service.counts.replied(route, message["status"])
                if service.is_stopping:
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, sending)

    def replied_before_app(self, route: str, status: int) -> None:
        """Count a reply that was given before the request came here."""
        self._service.counts.replied(route, status)


def build(service: Service, access: Access, settings: Settings) -> Counted:
    """The whole application. Handlers find these three in `request.app.state`."""
    app = FastAPI(title="edge-agent", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.service, app.state.access, app.state.settings = service, access, settings
    faults.install(app, methods())
    described.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.router.default = _nothing_there
    return Counted(Guard(app, access, Callers(methods())), service)


async def _nothing_there(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a path that no route has. Starlette's own refusal of a WebSocket is an empty 403, which reads like a wrong origin."""
    if scope["type"] != "websocket":
        raise HTTPException(404)
    message = f"There is no WebSocket at {scope['path']:.200}; the one for drafts is at /edge/draft."
    await faults.reply(scope["path"], 404, "not_found", message)(scope, receive, send)


def methods() -> dict[str, set[str]]:
    """The methods of each path, by its template; a WebSocket has none."""
    found: dict[str, set[str]] = {"/openapi.json": {"GET"}}
    for router in ROUTERS:
        for route in router.routes:
            found.setdefault(route.path, set()).update(getattr(route, "methods", None) or ())  # type: ignore[attr-defined]
    return found
