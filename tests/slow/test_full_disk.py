"""A full disk: the agent still answers, and says that the answer is not stored; with free space again, it stores as before."""

import contextlib
import os
import pathlib
import resource
from collections.abc import Callable

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.agent.inquiry import Inquiry
from edge_agent.agent.recording import Recorder
from edge_agent.core.config.limits import DiskLimits
from edge_agent.core.errors import StorageError
from edge_agent.core.question import Question
from edge_agent.store.store import Store
from tests.support.mutation import catches
from tests.support.spoken_model import UNSURE, SpokenModel, agent


def ask(one: Agent, number: int) -> object:
    return one.ask(Question(f"{number} " + "x" * 3000, ("x", "y", "z")))


class Lying(Recorder):
    """Mutant: a write that fails counts as stored."""

    def _try(self, store: Callable[[], int | None], inquiry: Inquiry) -> tuple[int | None, str | None]:
        queue_id = None
        with contextlib.suppress(StorageError), self._store.transaction():
            queue_id = store()
        return queue_id, None


@catches(Recorder, Lying)
def test_agent_with_a_full_database_answers_and_recovers(part, home: pathlib.Path) -> None:
    """SQLite's own limit (max_page_count) raises SQLITE_FULL, like a full disk."""
    with agent(home, SpokenModel(UNSURE), recorder=part) as one:
        assert ask(one, 0).persisted
        pages = one.store.database.rows("PRAGMA page_count")[0]["page_count"]
        one.store.database.rows(f"PRAGMA max_page_count = {pages + 3}")
        decisions = [ask(one, number) for number in range(1, 8)]
        assert {decision.answer for decision in decisions} == {"A"}
        refused = [decision for decision in decisions if not decision.persisted]
        assert refused and all(decision.queue_id is None for decision in refused)
        one.store.database.rows("PRAGMA max_page_count = 1000000")
        again = ask(one, 8)
        assert again.persisted and again.queue_id
        stored = {row["decision_id"] for row in one.store.decisions()}
        assert stored == {d.decision_id for d in [*decisions, again] if d.persisted} | {row["decision_id"] for row in one.store.log(100)}
        assert not stored & {decision.decision_id for decision in refused}
        assert one.store.database.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def in_a_child(work) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_agent_whose_file_may_not_grow_answers_and_recovers(home: pathlib.Path) -> None:
    """RLIMIT_FSIZE: a write fails in the middle of a transaction."""

    def work() -> None:
        with agent(home, SpokenModel(UNSURE)) as one:
            assert ask(one, 0).persisted
            size = (home / "edge-agent.db").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 4096, resource.RLIM_INFINITY))
            decisions = [ask(one, number) for number in range(1, 8)]
            assert {decision.answer for decision in decisions} == {"A"} and not decisions[-1].persisted
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert ask(one, 8).persisted

    in_a_child(work)
    with Store(home / "edge-agent.db") as store:
        assert store.database.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small tmpfs")
def test_agent_on_a_full_disk_answers_and_recovers(tmp_path: pathlib.Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=512k tmpfs {small} 2>/dev/null"):
        pytest.skip("tmpfs cannot be mounted here")
    try:
        with agent(small / "home", SpokenModel(UNSURE), disk=DiskLimits(0, 0)) as one:
            first = ask(one, 0)
            ballast = small / "ballast"
            with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
                while True:
                    file.write(b"x" * 512)
            decision = ask(one, 1)
            assert (decision.answer, decision.persisted) == ("A", False) and first.persisted
            ballast.unlink()
            assert ask(one, 2).persisted
    finally:
        os.system(f"umount {small}")
