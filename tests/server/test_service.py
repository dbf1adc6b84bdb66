"""The service in this process: what it does when the device has no memory and no thread left."""

import asyncio
import pathlib
import threading

import pytest

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
