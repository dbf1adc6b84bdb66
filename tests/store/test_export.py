"""Backup, export and purge."""

import pathlib
import sqlite3

import pytest

from edge_agent.core.errors import BadQuestion, StorageError
from edge_agent.core.question import Question
from edge_agent.store.device_time import Moment
from edge_agent.store.export import backup, export
from edge_agent.store.forget import Purged, purge
from edge_agent.store.store import Store
from tests.support.mutation import catches
from tests.support.spoken_model import SURE, UNSURE, SpokenModel, agent

CANARY = "The canary lives in 4711 Secret Street"


def question(stem: str) -> Question:
    return Question(stem, ("x", "y", "z"))


@pytest.fixture
def store(home: pathlib.Path) -> Store:
    """A canary among 51 other questions, one of which waits."""
    with agent(home, SpokenModel(SURE)) as one:
        for n in range(25):
            one.ask(question(f"Q{n}"))
        one.ask(question(CANARY))
        for n in range(25, 50):
            one.ask(question(f"Q{n}"))
    with agent(home, SpokenModel(UNSURE)) as one:
        one.ask(question("waiting"))
    opened = Store(home / "edge-agent.db")
    yield opened
    opened.close()


def everything_in(folder: pathlib.Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def only_deletes(store: Store, older_than_s: float | None = None, stem: str | None = None) -> Purged:
    """Mutant: only DELETE, on a connection that does not overwrite freed bytes."""
    with sqlite3.connect(store.path) as db:
        db.execute("PRAGMA secure_delete = OFF")
        n = db.execute("DELETE FROM decisions WHERE fingerprint IN (SELECT fingerprint FROM questions WHERE stem = ?)", (stem,)).rowcount
        db.execute("DELETE FROM readings WHERE fingerprint IN (SELECT fingerprint FROM questions WHERE stem = ?)", (stem,))
        db.execute("DELETE FROM questions WHERE stem = ?", (stem,))
    db.close()
    return Purged(1, n, ())


@catches(purge, only_deletes)
def test_purged_question_is_in_no_file(part, home: pathlib.Path, store: Store) -> None:
    (home / "edge-agent.db.damaged-20260101-000000").write_text(CANARY)
    assert CANARY.encode() in everything_in(home)
    assert part(store, stem=CANARY).questions == 1
    store.close()
    assert CANARY.encode() not in everything_in(home)
    with Store(home / "edge-agent.db") as again:
        assert len(list(again.decisions())) == 51 and again.database.rows("PRAGMA foreign_key_check") == []


def test_purge_by_age_keeps_young_and_waiting_questions(store: Store) -> None:
    assert purge(store, older_than_s=3600).questions == 0
    with store.transaction() as db:
        db.execute("UPDATE questions SET asked_s = asked_s - 7200 WHERE rowid <= 10 OR stem = 'waiting'")
    purged = purge(store, older_than_s=3600)
    assert (purged.questions, purged.decisions) == (10, 10)
    assert [row["stem"] for row in store.decisions()][-1] == "waiting"


def test_purge_counts_device_time_whatever_the_wall_clock_says(home: pathlib.Path) -> None:
    """A Raspberry Pi without a clock boots in 1970; its clock is corrected later."""
    moment = Moment("boot", 100.0, 0.0, False)
    with Store(home / "edge-agent.db", moment=lambda: moment) as store:
        for stem, uptime_s, wall in (("in 1970", 100.0, 0.0), ("in 2038", 4000.0, 2.1e9), ("now", 7700.0, 1.8e9)):
            moment = Moment("boot", uptime_s, wall, False)
            with store.transaction():
                store.clock.keep()
                store.put_question(question(stem))
        assert purge(store, older_than_s=5000).questions == 1  # only the first was asked that long ago
        assert [row["stem"] for row in store.database.rows("SELECT stem FROM questions")] == ["in 2038", "now"]
        assert purge(store, older_than_s=3600).questions == 1 and purge(store, older_than_s=0).questions == 1


def test_purge_frees_the_space(store: Store) -> None:
    with store.transaction():
        for n in range(100):
            store.put_question(question(f"{n} " + "x" * 4000))
    before = len(everything_in(store.path.parent))  # including the log of a WAL file
    purge(store, older_than_s=0)
    assert len(everything_in(store.path.parent)) < before - 300_000


def test_purge_of_an_unknown_question_is_refused(store: Store) -> None:
    with pytest.raises(BadQuestion, match="exactly this text"):
        purge(store, stem="nothing")


def test_backup_is_a_complete_database_and_overwrites_nothing(store: Store, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "copy.db"
    backup(store, path)
    assert path.stat().st_mode & 0o777 == 0o600
    with Store(path) as copy:
        assert [row["decision_id"] for row in copy.decisions()] == [row["decision_id"] for row in store.decisions()]
    with pytest.raises(StorageError, match="already"):
        backup(store, path)
    with pytest.raises(StorageError, match="cannot be written"):
        backup(store, tmp_path / "nowhere" / "copy.db")


def test_export_has_every_decision_with_its_facts(store: Store) -> None:
    rows = list(export(store))
    assert len(rows) == 52 and rows[25]["question"] == CANARY and rows[25]["options"] == ["x", "y", "z"]
    assert rows[0]["reading"]["level"] == "1.0" and rows[-1]["provisional"] and rows[-1]["policy"]["tau"] == 0.5
