"""The service in this process: what it does when the device has no memory and no thread left."""

import asyncio
import pathlib
import threading
import time

import pytest

from edge_agent.core.config.limits import Retention
from edge_agent.core.errors import ModelBusy, ModelError
from edge_agent.server.service import Service
from tests.support.spoken_model import SURE, SpokenModel, agent


class NoThreadLeft(SpokenModel):
    def open(self, files, facts):  # type: ignore[no-untyped-def]
        raise RuntimeError("can't start new thread")


def test_model_that_fails_in_any_way_ends_the_loading(home: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    service = Service(agent(home, NoThreadLeft(SURE)))
    service.start()
    assert not service.wait_ready(10) and service.is_ready
    assert isinstance(service.failed, ModelError) and "RuntimeError" in str(service.failed)
    assert "opening the model failed" in caplog.text
    service.close()


def test_request_for_which_no_thread_can_be_started_takes_no_place(home: pathlib.Path) -> None:
    service = Service(agent(home, SpokenModel(SURE)))

    async def ask() -> int:
        before = threading.stack_size(1 << 46)  # more than there is: no thread can be started
        try:
            with pytest.raises(ModelBusy, match="another thread"):
                await service.run(lambda: 1)
        finally:
            threading.stack_size(before)
        assert service.n_at_work == 0
        return await service.run(lambda: 2)

    assert asyncio.run(ask()) == 2
    service.close()


def test_what_is_old_is_forgotten_while_the_server_runs_without_a_cloud(home: pathlib.Path) -> None:
    """Nothing is drained there, so the drainer, which also tidies, never runs; and a kiosk is not restarted for months."""
    one = agent(home, SpokenModel(SURE), retention=Retention(1e-6, 100, 1 << 20))
    one.ask("What is 2 + 2?\nA. 3\nB. 4")
    service = Service(one, tidy_every_s=0.01)
    service.start()
    ends = time.monotonic() + 20
    while one.store.database.rows("SELECT 1 FROM questions") and time.monotonic() < ends:
        time.sleep(0.01)
    assert not one.store.database.rows("SELECT 1 FROM questions")
    service.close()
