"""Keeps the one window at one of two pages: the visitor's, or the one that stands in while the server is not there.

Owns which of the two is shown. Invariant: whatever else comes up (the browser's error page, a crashed page, another address, another
window) is replaced or closed as soon as the browser tells of it, so a visitor sees it for a moment at most.
"""

from __future__ import annotations

import http.client
import time
from typing import Any
from urllib.parse import urlsplit

from .chromium import STANDS_IN, Browser

LOOK_EVERY_S = 0.5  # whether the server answers, while our page stands in
ASK_EVERY_S = 5.0  # whether the visitor's page lives
DRAWN_WITHIN_S = 20.0  # from the start of a page to its first content
_OVERTAKEN = "net::ERR_ABORTED"  # by another address, which is heard of, too
_ANSWERS_WITHIN_S = 60.0  # a page that is slower than this hangs
_STARTS_WITHIN_S = 90.0  # from the start of Chromium to its first message; a cold SD card is slow
_AGAIN_WITHIN_S = 30.0  # at most, from one try to show the visitor's page to the next
# The visitor's page has drawn something, or says that it waits for its server: its script lives.
_HAS_DRAWN = "Boolean(document.querySelector('main')?.childElementCount)"
_NO_POINTER = """
addEventListener('DOMContentLoaded', () => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync('* { cursor: none !important; }');
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
});
"""
_NO_MENU = "addEventListener('contextmenu', (event) => event.preventDefault(), true);"


class ScreenWatch:
    """Watches one browser until it ends or hangs."""

    def __init__(self, browser: Browser, address: str, hides_pointer: bool = True) -> None:
        self._browser, self._address = browser, address
        self._in_every_page = _NO_MENU + (_NO_POINTER if hides_pointer else "")
        self._session = ""  # of our window; empty until it is there
        self._window = ""
        self._number = 0
        self._waiting: dict[int, tuple[str, float]] = {}  # what was asked of the page, and when
        self._is_visitors = False  # which page is shown, or on its way
        self._since = time.monotonic()
        self._asked_at = 0.0
        self._n_failed = 0  # visits to the visitor's page that came to nothing, one after the other
        self._is_broken = False  # our own page cannot be shown

    def run(self) -> str:
        """Watch; returns why it cannot go on."""
        try:
            self._call("Target.setDiscoverTargets", {"discover": True}, everywhere=True)
            while True:
                message = self._browser.receive(LOOK_EVERY_S)
                if message is not None:
                    self._hear(message)
                if why := self._look():
                    return why
        except EOFError as error:
            return str(error)

    def _hear(self, message: dict[str, Any]) -> None:
        """One message of the browser."""
        about = message.get("params", {})
        match message.get("method"):
            case "Target.targetCreated":
                self._new_target(about["targetInfo"])
            case "Target.attachedToTarget" if about["targetInfo"]["targetId"] == self._window:
                self._begin(about["sessionId"])
            case "Target.targetCrashed" if about["targetId"] == self._window:
                self._waiting.clear()  # nobody answers any more
                self._go(STANDS_IN)
            case "Page.frameNavigated" if "parentId" not in about["frame"]:
                self._arrived(about["frame"])
            case None:
                self._answered(message)

    def _new_target(self, target: dict[str, Any]) -> None:
        """The first window is ours; every other one is closed."""
        if target["type"] not in ("page", "other", "webview"):
            return  # a worker of our page, the browser itself
        if target["type"] == "page" and not self._window:
            self._window = target["targetId"]
            self._call("Target.attachToTarget", {"targetId": self._window, "flatten": True}, everywhere=True)
        elif target["targetId"] != self._window:
            self._call("Target.closeTarget", {"targetId": target["targetId"]}, everywhere=True)

    def _begin(self, session: str) -> None:
        self._session = session
        self._call("Page.enable")
        self._call("Page.addScriptToEvaluateOnNewDocument", {"source": self._in_every_page})
        self._go(STANDS_IN)  # once more, so that the script is in it, too

    def _arrived(self, frame: dict[str, Any]) -> None:
        """The window shows another page."""
        url = frame.get("url", "")
        is_error = bool(frame.get("unreachableUrl"))
        if is_error and frame["unreachableUrl"] == STANDS_IN:
            self._is_broken = True  # to try it again and again would start a process each time
        elif is_error or not (url == STANDS_IN or _is_page(url, self._address)):
            self._go(STANDS_IN, has_failed=is_error and _is_page(frame["unreachableUrl"], self._address))

    def _answered(self, message: dict[str, Any]) -> None:
        what, _ = self._waiting.pop(message.get("id", 0), ("", 0.0))
        if what == "Page.navigate" and self._is_visitors and message.get("result", {}).get("errorText") not in (None, "", _OVERTAKEN):
            self._go(STANDS_IN)
        if what == "Runtime.evaluate":
            if message.get("result", {}).get("result", {}).get("value") is True:
                self._n_failed = 0
            elif self._is_visitors and time.monotonic() - self._since > DRAWN_WITHIN_S:
                self._go(STANDS_IN)

    def _look(self) -> str | None:
        """What is due now; returns a reason to end this browser."""
        now = time.monotonic()
        if not self._session:
            return "Chromium does not start" if now - self._since > _STARTS_WITHIN_S else None
        if any(now - at > _ANSWERS_WITHIN_S for what, at in self._waiting.values() if what != "Page.navigate"):  # that waits for a server
            return "Chromium hangs"
        if self._is_broken:
            return "the page that stands in cannot be shown"
        if not self._is_visitors:
            wait_s = min(LOOK_EVERY_S * 2**self._n_failed, _AGAIN_WITHIN_S)
            if now - self._since >= wait_s and answers(self._address):
                self._go(self._address)
        elif now - self._asked_at > ASK_EVERY_S:
            self._asked_at = now
            self._call("Runtime.evaluate", {"expression": _HAS_DRAWN, "returnByValue": True})
        return None

    def _go(self, url: str, has_failed: bool = True) -> None:
        """Show one of the two pages. A visitor's page that is left because it `has_failed` is tried again later each time."""
        if self._is_visitors and has_failed:
            self._n_failed = min(self._n_failed + 1, 10)
        self._is_visitors, self._since, self._asked_at = url == self._address, time.monotonic(), time.monotonic()
        self._call("Page.navigate", {"url": url})

    def _call(self, method: str, params: dict[str, Any] | None = None, everywhere: bool = False) -> None:
        self._number += 1
        self._waiting[self._number] = (method, time.monotonic())
        message = {"id": self._number, "method": method, "params": params or {}}
        self._browser.send(message if everywhere else {**message, "sessionId": self._session})


def answers(address: str, timeout_s: float = 2.0) -> bool:
    """Whether a server at `address` serves its page."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _is_page(url: str, address: str) -> bool:
    """Whether a URL is the visitor's page, with whatever it adds behind a `#`."""
    return url.partition("#")[0] == address
