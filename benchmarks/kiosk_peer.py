"""The cloud of the simulated week: a real server on loopback, with the troubles of a real network.

Owns what it answers and what it counts. Invariant: the same question always gets the same letter.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from typing import Any

from tests.support.visitor_page import Cut

TROUBLES = ("down", "slow", "limited", "broken", "portal", "swallows")
_SLOW_S, _SWALLOWED_S = 1.5, 60.0
_PORTAL = b"<!doctype html><title>Welcome</title><form action=/login>Please accept the terms of this network.</form>"


class Peer(Cut):
    """`weather` is `fine` or one of `TROUBLES`; `set_weather` changes it. `answered` counts the valid answers that it gave, by question."""

    def __init__(self) -> None:
        super().__init__()
        self.weather = "fine"
        self.respond = self._respond
        self.answered: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._changed = threading.Event()

    def set_weather(self, weather: str) -> None:
        """Change what the network is like, at once; calls that hang end."""
        if (weather == "down") != (self.weather == "down"):
            (self.cut if weather == "down" else self.restore)()
        self.weather = weather
        self._changed.set()
        self._changed = threading.Event()

    def _respond(self, body: dict[str, Any]) -> tuple[int, bytes | None]:
        weather, changed = self.weather, self._changed
        if weather == "limited":
            return 429, json.dumps({"error": {"code": "rate_limit_exceeded", "message": "slow down"}}).encode()
        if weather == "broken":
            return 500, b"upstream connect error"
        if weather == "portal":
            return 200, _PORTAL
        if weather == "swallows":
            changed.wait(_SWALLOWED_S)
            return 504, b""
        if weather == "slow":
            changed.wait(_SLOW_S)
        stem = str(body["messages"][0]["content"]).split("\n", 1)[0]
        with self._counting:
            self.answered[stem] += 1
        message = {"role": "assistant", "content": letter(stem)}
        return 200, json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()


def letter(stem: str) -> str:
    """The letter that this cloud gives to a question: A or B, since every question has these."""
    return "AB"[hashlib.sha256(stem.encode()).digest()[0] % 2]
