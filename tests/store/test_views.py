"""The readable views, as a person's tools see them. Their columns are a contract: added to, never renamed or removed."""

import csv
import io
import json
import pathlib
import shutil
import sqlite3
import subprocess
import sys

import pytest

from edge_agent.core.records import CloudAnswer, CloudKey
from edge_agent.store.store import Store
from tests.support import old_databases
from tests.support.paths import ROOT

COLUMNS = {
    "decisions_readable": [
        "number", "decision_id", "asked_at", "question", "options", "answer", "answer_text", "confidence", "score", "tau", "policy",
        "route", "reason", "cause", "deferred", "recalled", "provisional", "ending", "final_answer", "final_answer_text", "ended_at",
        "model", "cloud_model", "queue_number", "cloud_api", "cloud_confidence",
    ],
    "queue_readable": ["number", "state", "attempts", "last_error", "question", "queued_at", "changed_at", "waiting_decisions"],
    "cloud_answers_readable": [
        "number", "received_at", "question", "answer", "reply", "cloud_model", "endpoint", "latency_ms", "prompt_tokens",
        "completion_tokens", "removed", "api", "confidence",
    ],
    "audits_readable": [
        "number", "decision_id", "asked_at", "question", "answer", "answer_text", "cloud_answer", "cloud_answer_text", "agrees", "state",
        "attempts", "last_error", "cloud_model", "calibration", "ended_at",
    ],
    "spending_readable": ["number", "endpoint", "called_at", "cost"],
}  # fmt: skip


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    """A database with decisions and queue rows in every state."""
    found = tmp_path / "edge-agent.db"
    shutil.copy(ROOT / "tests" / "data" / "schema-5.db", found)
    with Store(found) as store, store.transaction() as db:
        db.execute(
            "INSERT INTO audits (created_at, put_s, due_s, decision_id, fingerprint, calibration, cloud_model, answer, state, attempts, "
            "cloud_answer, agrees, ended_at) SELECT created_at, 1, 1, decision_id, fingerprint, '', 'big', answer, 'done', 1, 'B', 0, "
            "created_at + 60 FROM decisions WHERE decision_id = 'decision-1'"
        )
    return found


def sqlite_utils(*arguments: str) -> str:
    command = pathlib.Path(sys.executable).with_name("sqlite-utils")
    return subprocess.run([command, *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("view", COLUMNS)
def test_columns_stay_and_are_documented(path: pathlib.Path, view: str) -> None:
    with Store(path) as store:
        assert list(store.database.rows(f"SELECT * FROM {view}")[0]) == COLUMNS[view]
    (section,) = (part for page in (ROOT / "docs").glob("*.md") for part in page.read_text().split("\n## ") if part.startswith(f"`{view}`"))
    assert [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")] == COLUMNS[view]


def test_person_reads_audits(path: pathlib.Path) -> None:
    assert json.loads(sqlite_utils("rows", str(path), "audits_readable")) == [
        {"number": 1, "decision_id": "decision-1", "asked_at": "2026-01-01T12:00:01Z", "question": "Қазақстанның астанасы қай қала?",
         "answer": "A", "answer_text": "Алматы", "cloud_answer": "B", "cloud_answer_text": "Астана", "agrees": "no", "state": "done",
         "attempts": 1, "last_error": None, "cloud_model": "big", "calibration": None, "ended_at": "2026-01-01T12:01:01Z"}
    ]  # fmt: skip


def test_person_reads_decisions(path: pathlib.Path) -> None:
    rows = json.loads(sqlite_utils("rows", str(path), "decisions_readable"))
    assert len(rows) == len(old_databases.rows(5)["decisions"]) and [row["number"] for row in rows] == list(range(1, len(rows) + 1))
    by_id = {row["decision_id"]: row for row in rows}
    assert by_id["decision-1"] == {
        "number": 1, "decision_id": "decision-1", "asked_at": "2026-01-01T12:00:01Z", "question": "Қазақстанның астанасы қай қала?",
        "options": "A. Алматы | B. Астана", "answer": "A", "answer_text": "Алматы", "confidence": 0.75, "score": 0.75, "tau": 0.5,
        "policy": "prefer_local", "route": "local", "reason": "confident", "cause": None, "deferred": "no", "recalled": "no",
        "provisional": "no", "ending": None, "final_answer": None, "final_answer_text": None, "ended_at": None, "model": "FogGen-0.6B",
        "cloud_model": None, "queue_number": None, "cloud_api": None, "cloud_confidence": None,
    }  # fmt: skip
    open_ended = by_id["decision-4"]
    assert (open_ended["options"], open_ended["answer"], open_ended["answer_text"], open_ended["cloud_model"]) == (
        None,
        "Paris",
        "Paris",
        "big",
    )
    assert by_id["decision-2"]["recalled"] == by_id["decision-3"]["deferred"] == by_id["decision-7"]["provisional"] == "yes"
    overturned = by_id["decision-8"]
    assert (overturned["answer_text"], overturned["ending"], overturned["final_answer"], overturned["final_answer_text"]) == (
        "x",
        "overturned",
        "B",
        "y",
    )
    assert overturned["ended_at"] == "2026-01-01T13:00:02Z" and overturned["queue_number"] == 2
    assert [row["ending"] for row in rows[6:]] == ["upheld", "overturned", "waiting", "waiting", "abandoned", "abandoned", "abandoned"]


def test_person_reads_the_queue_as_a_table(path: pathlib.Path) -> None:
    rows = list(csv.DictReader(io.StringIO(sqlite_utils("rows", str(path), "queue_readable", "--csv"))))
    assert [row["state"] for row in rows] == ["done", "done", "ready", "sending", "dead", "expired", "cancelled"]
    assert rows[2] == {"number": "3", "state": "ready", "attempts": "2", "last_error": "the cloud answered HTTP 500",
                       "question": "waiting", "queued_at": "2026-01-01T12:00:03Z", "changed_at": "2026-01-01T12:01:03Z",
                       "waiting_decisions": "1"}  # fmt: skip
    assert [row["waiting_decisions"] for row in rows] == ["0", "0", "1", "1", "0", "0", "0"]


def test_person_reads_cloud_answers_and_spending(path: pathlib.Path) -> None:
    answers = json.loads(sqlite_utils("rows", str(path), "cloud_answers_readable"))
    assert answers[2] == {
        "number": 3, "received_at": "2026-01-01T12:01:43Z", "question": "sent and overturned", "answer": "B", "reply": "The answer is B.",
        "cloud_model": "big", "endpoint": old_databases.ENDPOINT, "latency_ms": 812.5, "prompt_tokens": 61, "completion_tokens": 2,
        "removed": "no", "api": "chat", "confidence": None,
    }  # fmt: skip
    assert (answers[-1]["answer"], answers[-1]["reply"], answers[-1]["removed"]) == (None, None, "yes")
    spending = json.loads(sqlite_utils("rows", str(path), "spending_readable"))
    assert spending == [{"number": 7, "endpoint": old_databases.ENDPOINT, "called_at": "2026-01-01T12:23:20Z", "cost": 0.00125}]


def test_sqlite_utils_changes_nothing(path: pathlib.Path) -> None:
    """It reads the file, and lists the migrations."""
    before = path.read_bytes()
    assert "readable_views" in sqlite_utils("rows", str(path), "_sqlite_migrations")
    for view in COLUMNS:
        sqlite_utils("rows", str(path), view)
    assert path.read_bytes() == before


def test_person_reads_how_sure_the_cloud_was(path: pathlib.Path) -> None:
    question = old_databases.QUESTIONS["sent and overturned"]
    answer = CloudAnswer("B", "y", "big", 5.0, probs={"A": 0.49, "B": 0.51}, api="systemone")
    with Store(path) as store, store.transaction() as db:
        number = store.put_cloud_answer(CloudKey(question.fingerprint, "big", old_databases.ENDPOINT, 1, "systemone"), answer)
        db.execute("UPDATE decisions SET cloud_answer_id = ? WHERE decision_id = 'decision-8'", (number,))
    by_id = {row["decision_id"]: row for row in json.loads(sqlite_utils("rows", str(path), "decisions_readable"))}
    found = [(by_id[name]["cloud_api"], by_id[name]["cloud_confidence"]) for name in ("decision-1", "decision-3", "decision-8")]
    assert found == [(None, None), ("chat", None), ("systemone", 0.51)]
    last = json.loads(sqlite_utils("rows", str(path), "cloud_answers_readable"))[-1]
    assert (last["answer"], last["api"], last["confidence"]) == ("B", "systemone", 0.51)


@pytest.mark.parametrize("trusted", ["ON", "OFF"])
def test_views_work_with_and_without_trusted_schema(path: pathlib.Path, trusted: str) -> None:
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA trusted_schema = {trusted}")
    try:
        for view in COLUMNS:
            assert len(db.execute(f"SELECT * FROM {view}").fetchall()) > 0
    finally:
        db.close()


def test_views_of_a_new_file_are_empty(tmp_path: pathlib.Path) -> None:
    with Store(tmp_path / "new.db") as store:
        assert [store.database.rows(f"SELECT * FROM {view}") for view in COLUMNS] == [[]] * len(COLUMNS)


def test_one_decision_is_found_by_an_index(path: pathlib.Path) -> None:
    """A condition on a view uses the tables' indexes."""
    with Store(path) as store:
        for sql in ("SELECT * FROM decisions_readable WHERE decision_id = 'x'", "SELECT * FROM queue_readable WHERE number = 3"):
            plan = [row["detail"] for row in store.database.rows(f"EXPLAIN QUERY PLAN {sql}")]
            assert any(step.startswith(("SEARCH d USING INDEX", "SEARCH o USING INTEGER PRIMARY KEY")) for step in plan), plan
