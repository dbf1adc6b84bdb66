"""Endings of provisional answers, as they are reported."""

import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice

import pytest

from edge_agent.agent.endings import endings
from edge_agent.cloud.queue import Outbox
from edge_agent.core.errors import BadQuestion, BadSetting
from edge_agent.core.outcome import CloudKind
from edge_agent.core.question import Question
from edge_agent.core.records import Ending
from edge_agent.store.database import Database
from edge_agent.store.forget import purge
from edge_agent.store.store import Store
from tests.support import queue_world
from tests.support.cloud_server import LoopbackCloud
from tests.support.command_line import ask, run
from tests.support.mutation import catches
from tests.support.paths import ROOT
from tests.support.queue_world import World, fail
from tests.support.spoken_model import UNSURE, SpokenModel, agent


@pytest.fixture
def world(home: pathlib.Path) -> Iterator[World]:
    made = World(home / "edge-agent.db")
    yield made
    made.store.close()


def answer(world: World, letter: str = "A") -> None:
    """Answer the oldest row."""
    queue_world.answer(world.outbox(), world.outbox().claim(), letter)


def bury(world: World) -> None:
    fail(world.outbox(), world.outbox().claim(), CloudKind.REJECTED, "HTTP 400")


def ends(store: Store, after: int = 0) -> list[tuple[int | None, str, str | None]]:
    """The endings so far, without waiting for more."""
    return [(ending.number, ending.decision_id, ending.ending) for ending in store.endings(after)]


class ByTime(Store):
    """Mutant: endings come in the order of their decisions, not in the order in which they ended."""

    def endings(self, after: int, limit: int = 500) -> list[Ending]:
        rows = self.database.rows("SELECT decision_id FROM decisions WHERE ending IS NOT NULL ORDER BY rowid")
        return [self.ending(row["decision_id"]) for row in rows][after:]


class Reuses(Store):
    """Mutant: the next number is one more than the highest still stored. The rule that it replaces is private."""

    def _next_end(self) -> int:
        return int(self.database.rows("SELECT coalesce(max(end_number), 0) + 1 AS n FROM decisions")[0]["n"])

    def last_end(self) -> int:
        return self._next_end() - 1


@catches(Store, ByTime, Reuses)
def test_every_ending_comes_once_in_order(part, home: pathlib.Path) -> None:
    world = World(home / "edge-agent.db")
    world.store.__class__ = part
    outbox = world.outbox()
    for stem in ("one", "two", "three", "three", "four"):
        world.put(outbox, stem)
    bury(world)
    answer(world, "B")
    answer(world)
    assert ends(world.store) == [(1, "one0", "abandoned"), (2, "two1", "overturned"), (3, "three2", "upheld"), (4, "three3", "upheld")]
    assert [number for number, *_ in ends(world.store, after=2)] == [3, 4]
    outbox.retry(1)
    assert [number for number, *_ in ends(world.store)] == [2, 3, 4]
    purge(world.store, stem="three")
    bury(world)
    assert ends(world.store, after=4) == [(5, "one0", "abandoned")] and world.store.last_end() == 5
    world.store.close()


def test_number_of_another_file_starts_with_the_first_ending(world: World) -> None:
    world.put(world.outbox(), "one")
    answer(world)
    assert next(endings(world.store, after=77)).number == 1 and ends(world.store, after=1) == []


def test_without_a_number_only_new_endings_come(world: World) -> None:
    for stem in ("before", "after"):
        world.put(world.outbox(), stem)
    answer(world)
    received = endings(world.store)  # from now, not from the first `next`
    answer(world)
    assert next(received).decision_id == "after1"


class OnlyOthers(Database):
    """Mutant: sees only what other connections write."""

    def change_mark(self) -> tuple[int, int]:
        return super().change_mark()[0], 0


class OnlyOurs(Database):
    """Mutant: sees only what this connection writes."""

    def change_mark(self) -> tuple[int, int]:
        return 0, super().change_mark()[1]


@catches(Database, OnlyOthers, OnlyOurs)
def test_endings_from_this_connection_and_from_others_come(part, home: pathlib.Path) -> None:
    world = World(home / "edge-agent.db")
    world.store.database.__class__ = part
    for stem in ("here", "elsewhere"):
        world.put(world.outbox(), stem)
    stop, received = threading.Event(), []

    def receive() -> None:
        for ending in endings(world.store, 0, stop, poll_every_s=0.01):
            received.append(ending.decision_id)
            arrived.release()

    arrived = threading.Semaphore(0)
    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    try:
        threading.Event().wait(0.2)  # it has polled once, and waits
        answer(world)
        assert arrived.acquire(timeout=2 if part is not Database else 30)
        threading.Event().wait(0.2)  # it has looked for more endings, and polls again
        with Store(world.store.path) as other:
            row = Outbox(other).claim()
            fail(Outbox(other), row, CloudKind.REJECTED, "HTTP 400")
        assert arrived.acquire(timeout=2 if part is not Database else 30) and received == ["here0", "elsewhere1"]
    finally:
        stop.set()
        thread.join(30)
        world.store.close()
    assert not thread.is_alive()


def test_idle_poll_runs_no_query(home: pathlib.Path) -> None:
    seen: list[str] = []

    class Recording(sqlite3.Connection):
        def execute(self, sql: str, *more: object) -> sqlite3.Cursor:
            seen.append(sql)
            return super().execute(sql, *more)

    with Store(home / "edge-agent.db", connection=Recording) as store:
        stop = threading.Event()
        thread = threading.Thread(target=lambda: list(endings(store, 0, stop, poll_every_s=0.001)), daemon=True)
        thread.start()
        for _ in range(3000):
            if seen.count("PRAGMA data_version") > 3:
                break
            threading.Event().wait(0.01)
        stop.set()
        thread.join(30)
    queries = [sql for sql in seen if "end_number >" in sql]
    assert len(queries) == 1 and seen.count("PRAGMA data_version") > 3


def test_agent_reports_what_another_agent_drains_and_continues_after_a_number(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE)) as offline, agent(home, SpokenModel(UNSURE), cloud.url) as online:
        asked = [offline.ask(Question(f"Q{n}", ("x", "y", "z"))).decision_id for n in range(4)]
        received = offline.endings()
        assert list(online.drain())[-1].answered == 4
        first = list(islice(received, 2))
        assert [ending.decision_id for ending in first] == asked[:2] and {ending.final_answer for ending in first} == {"B"}
    with agent(home, SpokenModel(UNSURE)) as later:
        assert [ending.decision_id for ending in islice(later.endings(after=first[-1].number), 2)] == asked[2:]


def test_endings_of_an_older_version_are_numbered(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    path.write_bytes((ROOT / "tests" / "data" / "schema-2.db").read_bytes())
    with Store(path) as store:
        assert [(number, ending) for number, _, ending in ends(store)] == [(1, "upheld"), (2, "overturned")]


def test_command_line_follows_endings_until_interrupted(cloud: LoopbackCloud) -> None:
    first = ask("--policy", "prefer_cloud")
    run("queue", "drain", "--cloud-url", cloud.url)
    command = [sys.executable, "-m", "edge_agent", "log", "--follow", "--after", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    line = json.loads(process.stdout.readline())
    assert (line["number"], line["decision_id"], line["final_answer"]) == (1, first["decision_id"], "B") and "T" in line["ended_at"]
    second = json.loads(run("ask", "Another?", "--option", "a", "--option", "b", "--policy", "prefer_cloud", "--json").stdout)
    run("queue", "drain", "--cloud-url", cloud.url)
    assert json.loads(process.stdout.readline())["decision_id"] == second["decision_id"]
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=30)
    assert (process.returncode, rest, errors.strip()) == (130, "", "edge-agent: interrupted")
    for arguments in (["--after", "1"], ["--follow", "x"]):
        assert run("log", *arguments).returncode == 2


@pytest.mark.parametrize("wrong", [None, 4, b"x", "\udcff", "ə", ["x"]])
def test_wait_for_what_is_no_id_is_refused(home: pathlib.Path, wrong: object) -> None:
    with agent(home, SpokenModel(UNSURE)) as one, pytest.raises(BadQuestion, match="There is no decision"):
        one.wait(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["x", "1", 1.5, True, b"1"])
def test_endings_after_what_is_no_number_are_refused(home: pathlib.Path, wrong: object) -> None:
    with agent(home, SpokenModel(UNSURE)) as one, pytest.raises(BadSetting, match="The after is"):
        list(one.endings(wrong, timeout_s=0))  # type: ignore[arg-type]


def test_wait_returns_the_last_state_when_another_thread_closes_the_agent(home: pathlib.Path) -> None:
    found: list[Ending | BaseException] = []

    def wait() -> None:
        try:
            found.append(one.wait(asked.decision_id))
        except BaseException as error:  # the test shows it
            found.append(error)

    for seconds in (0.05, 0.1, 0.21):
        one = agent(home, SpokenModel(UNSURE), "http://127.0.0.1:9/v1")
        asked = one.ask(Question("Q", ("x", "y", "z")))
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(seconds)
        one.close()
        thread.join()
    assert [isinstance(one, Ending) and one.waits for one in found] == [True] * 3, found
