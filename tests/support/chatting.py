"""Requests of chat clients, and their replies."""

import json
from typing import Any

import httpx

SURE = "What is 12 + 7?\nA. 18\nB. 19\nC. 24"
UNSURE = "A claim of 1994 is barred after 15 years. In which year?\nA. 2007\nB. 2009\nC. 2011"  # for the demo model at tau 0.5
COMPLETIONS = "/v1/chat/completions"


def chat(client: httpx.Client, text: Any, **fields: Any) -> httpx.Response:
    """The reply to one message of a user."""
    return client.post(COMPLETIONS, json={"model": "edge-auto", "messages": [{"role": "user", "content": text}], **fields})


def events(reply: httpx.Response) -> list[dict[str, Any]]:
    """The data of all events of a stream, without the last `[DONE]`."""
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/event-stream"), reply.text
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]
