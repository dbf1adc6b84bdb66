"""Another program locks the database while many clients wait: each waits no longer than one would."""

import asyncio
import pathlib
import sqlite3
import time

import pytest

from edge_agent.core.errors import StorageBusy
from edge_agent.core.question import Question
from edge_agent.server.service import Service
from edge_agent.store.file import opening
from tests.support.spoken_model import UNSURE, SpokenModel, agent


def test_looks_at_the_store_and_requests_of_several_steps_wait_once(home: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "BUSY_TIMEOUT_MS", 1000)
    one = agent(home, SpokenModel(UNSURE))
    service = Service(one)
    decision = one.ask(Question("Which?", ("x", "y")))
    other = sqlite3.connect(home / "edge-agent.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    async def timed(work) -> float:
        began = time.monotonic()
        try:
            await work
        except StorageBusy:
            return time.monotonic() - began
        return time.monotonic() - began

    async def all_at_once() -> list[float]:
        looks = [service.aside(lambda: one.ending(decision.decision_id)) for _ in range(12)]  # more than there are threads
        rounds = [service.run(lambda: [one.ask(Question(stem, ("x", "y"))) for stem in "abc"]) for _ in range(3)]
        return await asyncio.gather(*map(timed, looks + rounds))

    try:
        assert max(asyncio.run(all_at_once())) < 1.9
    finally:
        other.close()
        service.close()
