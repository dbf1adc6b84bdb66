"""A client of Server-Sent Events, and endings to hear of: decisions that wait because no cloud can be reached."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx

from edge_agent.cloud.queue import Outbox
from edge_agent.core.records import CloudAnswer, CloudKey
from edge_agent.store.forget import purge
from edge_agent.store.store import Store
from tests.support.serving import Serving

NO_CLOUD = {"EDGE_AGENT_CLOUD_URL": "http://127.0.0.1:9/v1", "EDGE_AGENT_CLOUD_MODEL": "big"}  # nothing listens there


class Event(NamedTuple):
    """One event; `id` is None where it has none."""

    name: str
    id: int | None
    data: dict[str, Any]


class Stream:
    """An open stream: `next` returns the next event, or the next one with a name."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.comments = 0
        self._lines = response.iter_lines()

    def next(self, name: str | None = None) -> Event:
        fields: dict[str, str] = {}
        for line in self._lines:
            if line.startswith(":"):
                self.comments += 1
            elif line:
                key, _, value = line.partition(": ")
                fields[key] = value
            elif "data" in fields:
                event = Event(fields["event"], int(fields["id"]) if "id" in fields else None, json.loads(fields["data"]))
                if name in (None, event.name):
                    return event
                fields = {}
        raise EOFError("the stream ended")


@contextlib.contextmanager
def stream(server: Serving, ids: str | None = None, after: int | None = None, token: str | None = None) -> Iterator[Stream]:
    """Open a stream of a server; the end of the block drops it in the middle."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with server.client(token) as client, client.stream("GET", "/edge/events", params={"ids": ids} if ids else {}, headers=headers) as found:
        assert found.status_code == 200, found.read()
        yield Stream(found)


def put_waiting(client: httpx.Client, n: int, start: int = 0) -> list[dict[str, Any]]:
    """Ask questions that wait for a cloud; returns their decisions."""
    found = []
    for number in range(start, start + n):
        body = {"question": f"What is {number} + 7?", "options": ["18", "19", "24"], "policy": "prefer_cloud"}
        decision = client.post("/edge/ask", json=body).json()
        assert decision["provisional"], decision
        found.append(decision)
    return found


def end(home: pathlib.Path, *decisions: dict[str, Any]) -> None:
    """End decisions from another process's side: an even row is answered with B, an odd one is given up."""
    with Store(home / "edge-agent.db") as store:
        for decision in decisions:
            queue_id = decision["queue_id"]
            row = Outbox(store).row(queue_id)
            with store.transaction():
                if queue_id % 2:
                    store.abandon_provisional(queue_id)
                else:
                    answer = CloudAnswer("B", "B", "big", 1.0)
                    answer_id = store.put_cloud_answer(CloudKey(row.fingerprint, "big", "http://test", 1), answer)
                    store.end_provisional(queue_id, "B", answer_id)


def forget(home: pathlib.Path, decision: dict[str, Any]) -> None:
    """Delete a decision from another process's side, as `edge-agent purge` does."""
    with Store(home / "edge-agent.db") as store:
        sql = "SELECT fingerprint FROM decisions WHERE decision_id = ?"
        purge(store, fingerprint=store.database.rows(sql, (decision["decision_id"],))[0]["fingerprint"])
