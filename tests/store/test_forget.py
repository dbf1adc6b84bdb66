"""What the sweep forgets, when, and how little at a time."""

import functools
import itertools
import json
import os
import pathlib
import random
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.cloud.wire.client import CloudModel
from edge_agent.core.config.limits import DAY_S, Retention
from edge_agent.core.config.settings import DEFAULT_LIMITS
from edge_agent.core.errors import StorageError
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer, CloudKey
from edge_agent.measure.replay import compare, replay
from edge_agent.model.catalog import ModelFiles
from edge_agent.store import forget
from edge_agent.store.device_time import Moment
from edge_agent.store.file.salvage import Connection
from edge_agent.store.forget import EVERY_S, Swept, sweep
from edge_agent.store.store import Store
from tests.support.cloud_server import LoopbackCloud
from tests.support.command_line import ask, run
from tests.support.damage import damage
from tests.support.mutation import catches
from tests.support.paths import DEMO, ROOT
from tests.support.spoken_model import SURE, UNSURE, SpokenModel

KEEP = DEFAULT_LIMITS.retention._replace(keep_s=30 * DAY_S)


def question(stem: str) -> Question:
    return Question(stem, ("x", "y", "z"))


class Life:
    """Agents on one file, and the clocks of their device."""

    def __init__(self, home: pathlib.Path, store: Callable[..., Store] = Store) -> None:
        self.home = home
        self.moment = Moment("boot", 100.0, 1_800_000_000.0, True)
        self.store = store(home / "edge-agent.db", moment=lambda: self.moment)

    def wait(self, seconds: float) -> None:
        self.moment = replace(self.moment, uptime_s=self.moment.uptime_s + seconds, wall=self.moment.wall + seconds)

    def agent(self, reading: Any = SURE, cloud: str | None = None) -> Agent:
        """An agent on the file; it is never closed, so it forgets nothing."""
        client = CloudModel(cloud, "big", deadline_s=30) if cloud else None
        return Agent(ModelFiles(DEMO), self.store, tau=0.5, cloud=client, open_model=SpokenModel(reading).open)

    def ask(self, *stems: str, reading: Any = SURE, cloud: str | None = None) -> None:
        one = self.agent(reading, cloud)
        for stem in stems:
            one.ask(question(stem))

    def stems(self) -> list[str]:
        return [row["stem"] for row in self.store.database.rows("SELECT stem FROM questions ORDER BY rowid")]

    def sweep(self, part: Any = sweep, keep: Retention = KEEP, **more: int) -> Swept | None:
        """Sweep, an hour after the last time."""
        self.wait(EVERY_S)
        swept = part(self.store, keep, **more)
        assert self.store.database.rows("PRAGMA foreign_key_check") == []
        return swept


@pytest.fixture
def life(home: pathlib.Path) -> Iterator[Life]:
    made = Life(home)
    yield made
    made.store.close()


class FirstAsked(Store):
    """Mutant: a question ages from when it was first asked."""

    def put_question(self, asked: Question) -> None:
        if not self.database.rows("SELECT 1 FROM questions WHERE fingerprint = ?", (asked.fingerprint,)):
            super().put_question(asked)


class Ageless(Store):
    """Mutant: does not record when a question was asked."""

    def put_question(self, asked: Question) -> None:
        row = (asked.fingerprint, asked.stem, json.dumps(asked.options))
        self.database.write("INSERT OR IGNORE INTO questions (fingerprint, stem, options, asked_s) VALUES (?, ?, ?, 1e12)", row)


@catches(Store, FirstAsked, Ageless)
def test_age_of_a_question_counts_from_when_it_was_last_asked(part, home: pathlib.Path) -> None:
    life = Life(home, part)
    life.ask("old", "asked again")
    life.wait(20 * DAY_S)
    life.ask("asked again", "young")
    life.wait(9 * DAY_S)
    assert life.sweep() == Swept(0, 0, 0, (), True)
    life.wait(2 * DAY_S)
    assert life.sweep() == Swept(1, 1, 0, (), True)
    assert life.stems() == ["asked again", "young"] and len(list(life.store.decisions())) == 3
    life.wait(30 * DAY_S)
    assert life.sweep() == Swept(2, 3, 0, (), True)
    left = {
        table: life.store.database.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in ("readings", "outbox", "cloud_answers")
    }
    assert set(left.values()) == {0}
    life.store.close()


def drops_what_waits(store: Store, retention: Retention, at_once: int = 200) -> Swept | None:
    """Mutant: forgets by age even what waits for the cloud."""
    with store.database.forgetting():
        for table in ("decisions", "outbox", "readings", "questions"):
            store.database.write(f"DELETE FROM {table}")
    return None


@catches(sweep, drops_what_waits)
def test_question_that_waits_for_the_cloud_is_kept_at_any_age(part, life: Life) -> None:
    life.ask("waiting", reading=UNSURE)
    life.ask("old")
    life.wait(300 * DAY_S)
    life.sweep(part)
    assert life.stems() == ["waiting"] and [row["provisional"] for row in life.store.decisions()] == [1]


def test_jump_of_the_wall_clock_forgets_nothing(life: Life) -> None:
    """tests/store/test_device_time.py catches the mutant that trusts the wall clock."""
    life.ask("kept")
    for years in (50, -50):
        life.moment = replace(life.moment, wall=life.moment.wall + years * 365 * DAY_S)
        assert life.sweep().questions == 0
    life.moment = Moment("next boot", 5.0, 0.0, False)
    life.store.close()
    life.store = Store(life.store.path, moment=lambda: life.moment)
    assert life.sweep().questions == 0 and life.stems() == ["kept"]


def test_nothing_is_forgotten_if_questions_are_kept_forever(life: Life) -> None:
    life.ask("kept")
    life.wait(10_000 * DAY_S)
    assert life.sweep(keep=KEEP._replace(keep_s=None)) == Swept(0, 0, 0, (), True)


def everything_in(folder: pathlib.Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def leaves_scraps(store: Store, retention: Retention, at_once: int = 200) -> Swept | None:
    """Mutant: relies only on SQLite's secure_delete."""
    return sweep(store, retention, at_once, pack_bytes=0)


@catches(sweep, leaves_scraps)
def test_forgotten_text_is_in_no_file_and_its_space_is_free(part, life: Life) -> None:
    """Texts of all sizes make pages split, overflow and move; the file is used between the steps."""
    chance = random.Random(3)
    for n in range(150):
        life.ask(f"canary{n:03} " + "x" * int(2 ** (chance.random() * 14)))
    life.wait(20 * DAY_S)
    for n in range(60):
        life.ask(f"young{n} " + "y" * int(2 ** (chance.random() * 14)))
    life.wait(15 * DAY_S)
    before = life.store.path.stat().st_size
    steps = 1
    while not life.sweep(part, at_once=20).finished:
        steps += 1
        life.ask(f"between{steps}")
    assert steps > 7
    life.store.close()
    assert b"canary" not in everything_in(life.home)
    with Store(life.store.path) as again:
        assert len(again.database.rows("SELECT 1 FROM questions")) == 60 + steps - 1
        assert again.database.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    assert life.store.path.stat().st_size < before * 0.7


def pages(store: Store) -> int:
    return store.database.rows("PRAGMA page_count")[0]["page_count"]


class KeepsTheSpace(Connection):
    """Mutant: returns no page to the disk."""

    def executescript(self, sql: str, /) -> sqlite3.Cursor:
        return super().executescript(sql.replace("incremental_vacuum", "no_vacuum"))


@catches(Connection, KeepsTheSpace)
def test_large_file_shrinks_a_little_at_a_time(part, home: pathlib.Path) -> None:
    life = Life(home, functools.partial(Store, connection=part))
    for n in range(4):
        life.ask(f"{n} " + "x" * 600_000)
    life.wait(40 * DAY_S)
    sizes = [pages(life.store)]
    for _ in range(4):
        life.sweep(pack_bytes=0)
        sizes.append(pages(life.store))
    assert all(0 <= a - b <= forget.PAGES_AT_ONCE for a, b in itertools.pairwise(sizes))
    assert sizes[0] - sizes[-1] > 500
    life.store.close()


def all_at_once(store: Store, retention: Retention, at_once: int = 200) -> Swept | None:
    """Mutant: everything in one transaction."""
    return sweep(store, retention, 1_000_000)


@catches(sweep, all_at_once)
def test_steps_are_small_and_sweeps_are_an_hour_apart(part, life: Life) -> None:
    life.ask("often", *["often"] * 24, *(f"Q{n}" for n in range(10)))
    life.wait(40 * DAY_S)
    steps = []
    while swept := part(life.store, KEEP, at_once=10):
        steps.append((swept.questions, swept.decisions))
        assert swept.questions <= 10 and swept.decisions <= 10
    assert len(steps) == 4 and sum(n for n, _ in steps) == 11 and sum(n for _, n in steps) == 35
    life.wait(EVERY_S - 1)
    assert part(life.store, KEEP) is None
    life.wait(2)
    assert part(life.store, KEEP) is not None


def put_answers(life: Life, *stems: str, reply: str = "B") -> None:
    with life.store.transaction():
        life.store.clock.keep()
        for stem in stems:
            life.store.put_question(question(stem))
            key = CloudKey(question(stem).fingerprint, "big", "https://cloud", 1)
            life.store.put_cloud_answer(key, CloudAnswer("B", reply, "big", 1.0))


def kept(life: Life) -> list[str]:
    return [
        row["stem"]
        for row in life.store.database.rows(
            "SELECT stem FROM questions JOIN cloud_answers USING (fingerprint) WHERE answer <> '' ORDER BY id"
        )
    ]


class OldestFirst(Store):
    """Mutant: does not record which answers are used."""

    def use_cloud_answer(self, answer_id: int) -> None:
        pass


@catches(Store, OldestFirst)
def test_least_recently_used_answers_are_removed_first(part, home: pathlib.Path) -> None:
    life = Life(home, part)
    put_answers(life, "first", "second")
    life.wait(DAY_S)
    put_answers(life, "third", "fourth")
    life.wait(DAY_S)
    with life.store.transaction():
        life.store.clock.keep()
        life.store.use_cloud_answer(1)
    assert life.sweep(keep=KEEP._replace(answers_max_rows=3)).answers == 1 and kept(life) == ["first", "third", "fourth"]
    assert life.sweep(keep=KEEP._replace(answers_max_rows=1)).answers == 2 and kept(life) == ["first"]
    put_answers(life, "large", reply="B" * 5000)
    assert life.sweep(keep=KEEP._replace(answers_max_bytes=5200)).answers == 1 and kept(life) == ["large"]
    assert life.sweep(keep=KEEP._replace(answers_max_bytes=5200)).answers == 0
    life.store.close()


def forgetful(row: dict[str, Any]) -> Any:
    """Mutant: a removed answer looks like one that was never there."""
    return replay({**row, "cloud_answer": row["cloud_answer"] or None})


@catches(replay, forgetful)
def test_decision_with_a_removed_answer_is_unknown_only_in_that_answer(part, life: Life, cloud: LoopbackCloud) -> None:
    life.ask("settled later", reading=UNSURE)
    list(life.agent(UNSURE, cloud.url).drain())
    life.ask("asked at once", reading=UNSURE, cloud=cloud.url)
    assert life.sweep(keep=KEEP._replace(keep_s=None, answers_max_rows=0)).answers == 2
    rows = list(life.store.decisions())
    later, at_once = (part(row) for row in rows)
    assert (later.answer, later.unknown, later.differences) == ("A", True, ())
    assert (at_once.answer, at_once.route, at_once.reason, at_once.unknown, at_once.differences) == (None, "cloud", "unsure", True, ())
    assert part({**rows[1], "reason": "confident"}).differences and part({**rows[0], "ending": "upheld"}).differences
    ours, theirs = compare(rows, 0.0)
    assert (ours.unknown, theirs.unknown) == (2, 0)
    proof = json.loads(run("replay", "--assert", "--json").stdout)
    assert proof == {"decisions": 2, "proved": 0, "unknown": 2, "wrong": []}
    assert "2 cannot be checked" in run("replay", "--assert").stdout and "unknown" in run("replay").stdout
    asked = len(cloud.requests)
    assert life.agent(UNSURE, cloud.url).ask(question("asked at once")).answer == "B" and len(cloud.requests) == asked + 1


def test_sweep_never_waits_for_another_process(life: Life) -> None:
    """While another process writes, a step fails at once, and closing an agent still succeeds."""
    ran: list[str] = []

    class Recording(sqlite3.Connection):
        def execute(self, sql: str, *more: object) -> sqlite3.Cursor:
            ran.append(sql)
            return super().execute(sql, *more)

    life.store.close()
    life.store = Store(life.store.path, connection=Recording, moment=lambda: life.moment)
    life.ask("old")
    life.wait(40 * DAY_S)
    with sqlite3.connect(life.store.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        ran.clear()
        with pytest.raises(StorageError, match="another program"):
            life.sweep()
        assert ran.count("BEGIN EXCLUSIVE") == 1 and not any("busy_timeout" in sql for sql in ran)
        life.agent().forget_old()
        other.execute("ROLLBACK")
    other.close()
    assert life.sweep().questions == 1
    assert life.store.database.rows("PRAGMA busy_timeout")[0]["timeout"] == 0 and life.store.database.rows("PRAGMA foreign_keys") == [
        {"foreign_keys": 1}
    ]


def test_questions_of_an_older_version_age_from_the_migration(home: pathlib.Path) -> None:
    home.mkdir()
    (home / "edge-agent.db").write_bytes((ROOT / "tests" / "data" / "schema-2.db").read_bytes())
    life = Life(home)
    with life.store.transaction():
        life.store.clock.keep()
    questions, waiting = len(life.stems()), len(life.store.database.rows("SELECT 1 FROM outbox WHERE state <> 'done'"))
    life.wait(29 * DAY_S)
    assert life.sweep().questions == 0
    life.wait(2 * DAY_S)
    assert life.sweep().questions == questions - waiting
    life.store.close()


def test_copies_beside_the_database_are_removed_when_they_are_old(life: Life) -> None:
    copy = life.home / "edge-agent.db.damaged-20260101-000000"
    copy.write_text("what visitors typed")
    os.utime(copy, (0, 0))  # a file's own date is wall time, so it does not count
    assert life.sweep().copies == ()
    life.wait(29 * DAY_S)
    assert life.sweep().copies == () and copy.exists()
    life.wait(2 * DAY_S)
    assert life.sweep().copies == (copy.name,) and not copy.exists()
    life.sweep()
    assert [row["name"] for row in life.store.database.rows("SELECT name FROM marks")] == ["swept"]


def test_salvaged_questions_are_not_forgotten_too_early(life: Life) -> None:
    life.ask("salvaged")
    life.wait(40 * DAY_S)
    life.ask("other")
    life.store.close()
    damage(life.store.path, "readings")
    again = Life(life.home)
    with pytest.raises(StorageError):
        again.store.database.rows("SELECT * FROM readings")
    assert again.store.database.renew()
    again.moment = life.moment
    again.wait(DAY_S)
    again.sweep()
    assert "salvaged" in again.stems()
    again.store.close()


def test_flipped_bits_do_not_stop_a_sweep(life: Life) -> None:
    put_answers(life, "first", "second")
    life.sweep()
    with life.store.transaction() as db:
        db.execute("UPDATE marks SET value = 'x'")
        db.execute("INSERT INTO marks VALUES ('endings', 'y')")
        db.execute("UPDATE cloud_answers SET size_bytes = 'z' WHERE id = 1")
        db.execute("UPDATE questions SET asked_s = 'w' WHERE rowid = 1")
    assert life.sweep(keep=KEEP._replace(answers_max_rows=0)) is not None and life.store.last_end() == 0
    life.agent().close()


def test_command_sweeps_when_it_ends(home: pathlib.Path) -> None:
    assert ask("--policy", "only_local", EDGE_AGENT_KEEP_DAYS="0.000000001")["answer"]
    assert json.loads(run("log", "--json").stdout) == []
    assert "kept 90 days" in run("doctor").stdout and run("doctor", EDGE_AGENT_KEEP_DAYS="x").returncode == 78
    assert "kept forever" in run("doctor", EDGE_AGENT_KEEP_DAYS="forever").stdout
