"""Databases as each earlier schema version wrote them, with rows in every table and in every state of that version.

`python -m tests.support.old_databases` writes `tests/data/schema-N.db` again, except for version 2: that version itself
wrote its file. Every id, time and text is fixed, so the rows are the same each time.
"""

import contextlib
import json
import pathlib
import sqlite3
from typing import Any

from edge_agent.core.question import CHOICE, OPEN, Question
from edge_agent.core.records import OpenReading, Reading, Timings
from edge_agent.store.schema import APPLICATION_ID, MIGRATIONS
from tests.support.paths import ROOT

VERSIONS = (1, 2, 3, 4, 5, 6, 7)
MADE = (1, 3, 4, 5, 6, 7)
NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z
ENDPOINT = "https://cloud.test/v1/chat/completions"
LEVELS = ("0.0", "0.25", "0.5", "0.75", "1.0")
Row = dict[str, Any]

QUESTIONS = {
    stem: Question(stem, options, CHOICE if options else OPEN)
    for stem, options in {
        "Which gas do plants take in?": ("oxygen", "carbon dioxide", "neon"),
        "Қазақстанның астанасы қай қала?": ("Алматы", "Астана"),
        "What is the capital of France?": (),
        "sent and upheld": ("x", "y"),
        "sent and overturned": ("x", "y"),
        "waiting": ("x", "y"),
        "half-sent": ("x", "y"),
        "refused for good": ("x", "y"),
        "waited too long": ("x", "y"),
        "dropped by a person": ("x", "y"),
    }.items()
}
# The queue: question, state, attempts, last error, and the ending of the decision that waits for it.
QUEUE = [
    ("sent and upheld", "done", 1, None, "upheld"),
    ("sent and overturned", "done", 2, None, "overturned"),
    ("waiting", "ready", 2, "the cloud answered HTTP 500", None),
    ("half-sent", "sending", 0, None, None),
    ("refused for good", "dead", 8, "the cloud answered HTTP 400", "abandoned"),
    ("waited too long", "expired", 3, "timeout", "abandoned"),
    ("dropped by a person", "cancelled", 0, None, "abandoned"),
]


def write(path: pathlib.Path, version: int) -> None:
    """A new database of an earlier version at `path`."""
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN")
        for sql in tuple(MIGRATIONS.values())[:version]:
            for statement in sql.split(";"):
                db.execute(statement)
        for table, found in rows(version).items():
            for row in found:
                db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
        assert db.execute("PRAGMA foreign_key_check").fetchone() is None
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {version}")
        db.execute("COMMIT")


def rows(version: int) -> dict[str, list[Row]]:
    """The rows of each table of a version; a table follows those that it refers to."""
    queue = [entry for entry in QUEUE if version >= 3 or entry[1] in ("ready", "sending", "done")]
    stems = [*list(QUESTIONS)[:3], *(entry[0] for entry in queue)]
    found = {
        "model_files": [
            {"path": "/models/FogGen-0.6B-Q4_K_M.gguf", "size_bytes": 396_705_472, "mtime_ns": 1_767_000_000_000_000_000, "inode": 42,
             "facts": json.dumps({"name": "FogGen-0.6B", "sha256": "a" * 64, "quantization": "Q4_K_M", "architecture": "qwen3",
                                  "profile": "{}"})}
        ],
        "questions": [_question(stem, version) for stem in stems],
        "readings": [_reading(number, stem) for number, stem in enumerate(stems, 1)],
        "cloud_answers": _cloud_answers(version),
        "outbox": [_queue_row(number, *entry[:4], version) for number, entry in enumerate(queue, 1)],
        "decisions": _decisions(queue, version),
    }  # fmt: skip
    if version >= 3:
        found["clock"] = [{"id": 1, "boot": "b" * 36, "uptime_s": 5000.0, "device_s": 90_000.0, "wall": NOON + 5000, "trusted": 1}]
        found["clouds"] = [{"endpoint": ENDPOINT, "health": json.dumps({"recent": "++-"})}]
        found["spending"] = [{"id": 7, "endpoint": ENDPOINT, "at_s": 86_400.0, "micros": 1_250}]
    if version >= 4:
        found["marks"] = [{"name": "swept", "value": 86_400.0}]
    if version >= 5:
        found["marks"].append({"name": "endings", "value": 9})
    return found


def _question(stem: str, version: int) -> Row:
    question = QUESTIONS[stem]
    row: Row = {"fingerprint": question.fingerprint, "stem": stem, "options": json.dumps(question.options, ensure_ascii=False)}
    return row | ({"asked_s": 80_000.0} if version >= 4 else {})


def _reading(number: int, stem: str) -> Row:
    sure = number == 2
    probs = (0.0, 0.1, 0.2, 0.6, 0.1) if sure else (0.0, 0.6, 0.2, 0.1, 0.1)
    common: dict[str, Any] = {"levels": LEVELS, "level_probs": probs, "level": "0.75" if sure else "0.25", "format_mass": 0.99}
    reading = (
        Reading(**common, letters="ABC"[: len(QUESTIONS[stem].options)], answer_probs=(0.8, 0.1, 0.1)[: len(QUESTIONS[stem].options)],
                letter="A", timings=Timings(total_ms=300.0))
        if QUESTIONS[stem].options
        else OpenReading(**common, text="Lyon", ended=True, timings=Timings(total_ms=900.0))
    )  # fmt: skip
    return {"id": number, "created_at": NOON + number, "fingerprint": QUESTIONS[stem].fingerprint, "model_sha256": "a" * 64,
            "adapter_sha256": "", "profile_sha256": "c" * 64, "reading": reading.to_json()}  # fmt: skip


def _cloud_answers(version: int) -> list[Row]:
    name = "letter" if version == 1 else "answer"
    found = [("Which gas do plants take in?", "B", "B."), ("sent and upheld", "A", "A"), ("sent and overturned", "B", "The answer is B.")]
    if version >= 2:
        found.append(("What is the capital of France?", "Paris", "Paris"))
    answers = []
    for number, (stem, answer, reply) in enumerate(found, 1):
        text = json.dumps(
            {name: answer, "reply": reply, "model": "big", "latency_ms": 812.5, "n_prompt_tokens": 61, "n_completion_tokens": 2}
        )
        row: Row = {"id": number, "created_at": NOON + 100 + number, "fingerprint": QUESTIONS[stem].fingerprint, "cloud_model": "big",
                    "endpoint": ENDPOINT, "prompt_version": 1, "answer": text}  # fmt: skip
        row |= {"used_s": 81_000.0, "size_bytes": len(text)} if version >= 4 else {}
        answers.append(row | ({"api": "systemone" if stem == "sent and overturned" else "chat"} if version >= 7 else {}))
    if version >= 4:  # removed to make room: decisions still refer to it
        answers.append({**answers[0], "id": 9, "answer": "", "size_bytes": 0})
    return answers


def _queue_row(number: int, stem: str, state: str, attempts: int, error: str | None, version: int) -> Row:
    question = QUESTIONS[stem]
    row: Row = {"id": number, "created_at": NOON + number, "updated_at": NOON + 60 + number, "job_key": f"job-{number}",
                "dedupe_key": f"{question.fingerprint}/choice", "fingerprint": question.fingerprint, "state": state, "attempts": attempts,
                "last_error": error}  # fmt: skip
    if version < 3:
        return row
    payload = json.dumps([stem, question.options])
    return row | {"put_s": 85_000.0 + number, "due_s": 85_100.0 + number, "suspicions": number % 3, "answers_before": 1,
                  "payload": None if state == "cancelled" else payload, "size_bytes": len(payload)}  # fmt: skip


def _decisions(queue: list[tuple[str, str, int, str | None, str | None]], version: int) -> list[Row]:
    stems = list(QUESTIONS)
    policy = {"name": "prefer_local", "tau": 0.5, "format_mass_min": 0.5, "readout": "confidence"}

    def decision(stem: str, **more: Any) -> Row:
        number = len(found) + 1
        base: Row = {"decision_id": f"decision-{number}", "created_at": NOON + number, "fingerprint": QUESTIONS[stem].fingerprint,
                     "rule_version": 1 if version < 3 else 2, "policy": json.dumps(policy),
                     "circumstances": json.dumps({"cloud_configured": True}), "reading_id": None, "answer": "A", "route": "local",
                     "reason": "confident", "cause": None, "score": 0.25, "deferred": 0, "recalled": 0, "provisional": 0}  # fmt: skip
        return base | more

    found: list[Row] = []
    found.append(decision(stems[1], reading_id=2, score=0.75))
    found.append(decision(stems[1], reading_id=2, score=0.75, recalled=1))
    by_cloud: Row = {"route": "cloud", "reason": "unsure", "cause": "unsure", "deferred": 1}
    found.append(decision(stems[0], reading_id=1, answer="B", cloud_answer_id=1, cloud_kind="answered", **by_cloud))
    if version >= 2:
        found.append(decision(stems[2], reading_id=3, answer="Paris", cloud_answer_id=4, cloud_kind="answered", **by_cloud))
    if version >= 4:
        found.append(decision(stems[0], reading_id=1, answer="B", cloud_answer_id=9, cloud_kind="answered", **by_cloud))
    found.append(decision(stems[0], reading_id=1, reason="only_local", policy=json.dumps({**policy, "name": "only_local"})))
    number = 0
    for queue_id, (stem, _, _, _, ending) in enumerate(queue, 1):
        more: Row = {"reading_id": queue_id + 3, "queue_id": queue_id, "reason": "offline", "cause": "unsure", "deferred": 1,
                     "provisional": 1, "cloud_kind": "offline", "ending": ending}  # fmt: skip
        if ending:
            number += 1
            more["ended_at"] = NOON + 3600 + number
        if ending in ("upheld", "overturned"):
            more |= {"final_answer": "A" if ending == "upheld" else "B", "cloud_answer_id": 2 if ending == "upheld" else 3}
        if version >= 5:
            more["end_number"] = number + 4 if ending else None  # four earlier ends were purged
        found.append(decision(stem, **more))
    return found


if __name__ == "__main__":
    for made in MADE:
        write(ROOT / "tests" / "data" / f"schema-{made}.db", made)
