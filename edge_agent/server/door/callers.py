"""Which route is for whom: for everyone, for clients, or for the operator.

Owns this list, and which routes the visitor's page asks; a test compares it with the routes. Invariants: a route that is not listed is
the operator's; a path that is no route still asks for the client's token, so that a stranger learns nothing from a 404.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable

from starlette.routing import compile_path


class Caller(enum.IntEnum):
    """Who a route is for; a larger number may call less."""

    ANYONE = 0
    CLIENT = 1
    OPERATOR = 2


CALLERS = {
    "/health": Caller.ANYONE,  # a balancer or a container asks it
    "/": Caller.ANYONE,  # the pages hold no data
    "/operator": Caller.ANYONE,
    "/kiosk-worker.js": Caller.ANYONE,
    "/kiosk/{name:path}": Caller.ANYONE,
    "/kiosk/deck": Caller.CLIENT,
    "/openapi.json": Caller.CLIENT,
    "/v1/chat/completions": Caller.CLIENT,
    "/chat/completions": Caller.CLIENT,
    "/v1/responses": Caller.CLIENT,
    "/responses": Caller.CLIENT,
    "/v1/models": Caller.CLIENT,
    "/models": Caller.CLIENT,
    "/v1/models/{model}": Caller.CLIENT,
    "/models/{model}": Caller.CLIENT,
    "/v1/systemone": Caller.CLIENT,
    "/systemone": Caller.CLIENT,
    "/v1/decisions": Caller.CLIENT,
    "/decisions": Caller.CLIENT,
    "/edge/ask": Caller.CLIENT,
    "/edge/draft": Caller.CLIENT,
    "/edge/draft/{draft_id}": Caller.CLIENT,
    "/edge/decisions/{decision_id}": Caller.CLIENT,  # whoever knows the id got it from us
    "/edge/events": Caller.CLIENT,  # what it says depends on the token
    "/edge/decisions": Caller.OPERATOR,
    "/edge/decisions/{decision_id}/facts": Caller.OPERATOR,
    "/edge/overview": Caller.OPERATOR,
    "/edge/history": Caller.OPERATOR,
    "/edge/calibration": Caller.OPERATOR,
    "/edge/preview": Caller.OPERATOR,
    "/edge/queue": Caller.OPERATOR,
    "/edge/queue/{queue_id}/retry": Caller.OPERATOR,
    "/edge/queue/{queue_id}/drop": Caller.OPERATOR,
    "/edge/settings": Caller.OPERATOR,
    "/metrics": Caller.OPERATOR,
}


OF_THE_PAGE = ("/kiosk/deck", "/edge/ask", "/edge/draft", "/edge/draft/{draft_id}", "/edge/decisions/{decision_id}", "/edge/events")
"""What the visitor's page asks: a kiosk's own screen may do so without a token."""


class Callers:
    """Who may ask for which path, given the templates of all routes."""

    def __init__(self, templates: Iterable[str]) -> None:
        known = {**dict.fromkeys(templates, Caller.OPERATOR), **CALLERS}
        self._known = [(compile_path(template)[0], caller) for template, caller in known.items()]

        self._of_the_page = [compile_path(template)[0] for template in OF_THE_PAGE]

    def is_of_the_page(self, path: str) -> bool:
        """Whether the visitor's page asks for a path."""
        return any(re.match(pattern, path) for pattern in self._of_the_page)

    def of(self, path: str) -> Caller:
        """Who may ask for a path. If it fits several routes, the strictest counts."""
        return max((caller for pattern, caller in self._known if re.match(pattern, path)), default=Caller.CLIENT)
