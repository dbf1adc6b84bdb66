"""A nearly full disk: questions are answered, the queue is kept, and the remaining space is reserved for it."""

import json
import pathlib
import sys
from typing import Any

from edge_agent.agent import doctor
from edge_agent.agent.agent import Agent
from edge_agent.agent.inquiry import Inquiry
from edge_agent.agent.recording import Recorder
from edge_agent.cloud.gate import Gate
from edge_agent.cloud.privacy import Rules
from edge_agent.cloud.queue import Outbox
from edge_agent.core.config import settings
from edge_agent.core.config.limits import BudgetLimits, DiskLimits
from edge_agent.core.question import Question
from edge_agent.core.records import Decision
from edge_agent.core.routing import Cause, Circumstances, Plan, Reason, Settlement, Step, settle
from edge_agent.store.disk import free_bytes
from edge_agent.store.store import Store
from tests.support.cloud_server import LoopbackCloud
from tests.support.command_line import ASK, run
from tests.support.mutation import catches
from tests.support.spoken_model import SURE, UNSURE, SpokenModel, agent

MIB = 1 << 20


def question(stem: str) -> Question:
    return Question(stem, ("x", "y", "z"))


class Disk:
    """A disk whose free space the test sets."""

    def __init__(self, mib: int) -> None:
        self.mib, self.asked = mib, 0

    def free_bytes(self, path: pathlib.Path) -> int:
        assert path.is_dir()
        self.asked += 1
        return self.mib * MIB


def agent_of(recorder: type[Recorder], home: pathlib.Path, disk: Disk, *arguments: Any, **more: Any) -> Agent:
    return agent(home, *arguments, store=lambda path: Store(path, free_bytes=disk.free_bytes), recorder=recorder, **more)


class Greedy(Recorder):
    """Mutant: stores everything while the disk has any space."""

    def __init__(self, store: Store, outbox: Outbox, gate: Gate | None, rules: Rules, disk: DiskLimits, **more: Any) -> None:
        super().__init__(store, outbox, gate, rules, DiskLimits(0, 0), **more)


@catches(Recorder, Greedy)
def test_below_the_first_threshold_answers_are_returned_but_not_remembered(part, home: pathlib.Path) -> None:
    disk, model = Disk(64), SpokenModel(SURE)
    with agent_of(part, home, disk, model) as one:
        assert one.ask(question("kept")).persisted
        disk.mib = 63
        for stem in ("new", "kept"):
            decision = one.ask(question(stem))
            assert (decision.answer, decision.reason, decision.persisted) == ("A", "confident", False)
            assert "63 MiB" in (decision.storage_error or "")
        assert one.ask(question("kept")).recalled and not one.ask(question("new")).recalled
        assert len(one.store.log(9)) == 1 and len(one.store.database.rows("SELECT 1 FROM questions")) == 1
        disk.mib = 64
        assert one.ask(question("new")).storage_error is None and len(one.store.log(9)) == 2


class QueuesAll(Recorder):
    """Mutant: queues while the disk has any space."""

    def __init__(self, store: Store, outbox: Outbox, gate: Gate | None, rules: Rules, disk: DiskLimits, **more: Any) -> None:
        super().__init__(store, outbox, gate, rules, DiskLimits(disk.cache_bytes, 0), **more)


@catches(Recorder, QueuesAll)
def test_below_the_second_threshold_nothing_is_queued_and_the_answer_says_so(part, home: pathlib.Path) -> None:
    disk = Disk(40)
    with agent_of(part, home, disk, SpokenModel(UNSURE)) as one:
        queued = one.ask(question("queued"))
        assert (queued.provisional, queued.queue_id, queued.persisted, queued.storage_error) == (True, 1, True, None)
        disk.mib = 31
        refused = one.ask(question("refused"))
        assert (refused.answer, refused.reason, refused.cause) == ("A", "disk_low", "unsure")
        assert (refused.provisional, refused.queue_id, refused.persisted) == (False, None, False)
        assert [row["stem"] for row in one.store.log(9)] == ["queued"] and one.outbox.count("ready") == 1


class LeavesThemWaiting(Recorder):
    """Mutant: below the first threshold nothing at all is written."""

    def __init__(self, store: Store, outbox: Outbox, gate: Gate | None, rules: Rules, disk: DiskLimits, **more: Any) -> None:
        super().__init__(store, outbox, gate, rules, disk, **more)
        self.store, self.cache_bytes = store, disk.cache_bytes

    def record(self, inquiry: Inquiry) -> Decision:
        if self.store.free_bytes() < self.cache_bytes:
            return inquiry.decision("not stored", None, "the disk is nearly full")
        return super().record(inquiry)


@catches(Recorder, LeavesThemWaiting)
def test_full_disk_still_settles_and_charges_what_waits(part, home: pathlib.Path, cloud: LoopbackCloud) -> None:
    disk = Disk(100)
    with agent_of(part, home, disk, SpokenModel(UNSURE)) as one:
        for stem in ("drained", "asked again", "forbidden"):
            one.ask(question(stem))
    disk.mib = 1
    with agent_of(part, home, disk, SpokenModel(UNSURE), cloud.url, budget=BudgetLimits(calls_per_day=9)) as two:
        asked = two.ask(question("asked again"), refresh=True)
        assert (asked.answer, asked.route, asked.persisted) == ("B", "cloud", False)
        two.ask(Question("forbidden", ("x", "y", "z"), never_send=True))
        assert [row.state for row in two.outbox.list()] == ["ready", "done", "cancelled"]
        *_, done = two.drain()
        assert done.answered == 1
        assert [row["ending"] for row in two.store.log(9)] == ["abandoned", "overturned", "overturned"]
        two.ask(question("not queued"))
        assert (
            len(two.store.database.rows("SELECT 1 FROM cloud_answers")) == 2 and len(two.store.database.rows("SELECT 1 FROM spending")) == 3
        )
        assert two.store.database.rows("PRAGMA foreign_key_check") == []


def test_free_space_is_measured_once_per_decision(home: pathlib.Path) -> None:
    disk = Disk(100)
    with agent_of(Recorder, home, disk, SpokenModel(UNSURE)) as one:
        for n in range(5):
            one.ask(question(f"Q{n}"))
    assert disk.asked == 5


def test_free_space_is_that_of_the_nearest_existing_folder(tmp_path: pathlib.Path) -> None:
    free = free_bytes(tmp_path)
    assert 0 < free < sys.maxsize and abs(free_bytes(tmp_path / "not" / "yet") - free) < 1 << 30
    (tmp_path / "file").write_text("")
    assert free_bytes(tmp_path / "file" / "below") == sys.maxsize  # unknown counts as free


def test_doctor_explains_low_disk_space() -> None:
    config = settings.load()
    for mib, code, words in ((64, 0, "64 MiB free"), (63, 74, "only what waits"), (31, 74, "nothing new")):
        (check,) = [check for check in doctor.examine(config, free_bytes=lambda _, mib=mib: mib * MIB) if check.name == "disk"]
        assert check.exit_code == code and words in check.detail


def test_thresholds_are_settings(home: pathlib.Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text("cache_min_free_mib = 100000000\nqueue_min_free_mib = 100000000\n")
    done = run(*ASK, "--policy", "prefer_cloud")
    assert done.returncode == 0 and "nearly full" in done.stdout and "not stored" in done.stdout
    decision = json.loads(run(*ASK, "--policy", "prefer_cloud", "--json").stdout)
    assert decision["reason"] == "disk_low" and "MiB" in decision["storage_error"] and not decision["recalled"]
    assert run("doctor").returncode == 74
    (home / "config.toml").write_text("cache_min_free_mib = -1\n")
    assert run("doctor").returncode == 78


def test_disk_low_comes_before_other_reasons_not_to_queue() -> None:
    planned = Plan(Step.ASK_CLOUD, cause=Cause.UNSURE)
    for more in ({}, {"queue_full": True}, {"over_budget": True}):
        assert settle(planned, None, Circumstances(True, disk_low=True, **more)) == Settlement("local", Reason.DISK_LOW)
