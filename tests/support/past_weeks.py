"""A history of weeks, written into a store at once: questions, readings, cloud answers, endings, a queue and audits."""

import json
import random
import time
import uuid
from dataclasses import asdict, replace
from typing import Any

from edge_agent.core import routing
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer, CloudKey, Reading, ReadingKey, Timings
from edge_agent.core.routing import Circumstances, Policy, PolicyName
from edge_agent.model.profile import LEVELS
from edge_agent.store.store import Store
from tests.support.calibrations import bound_to
from tests.support.spoken_model import SURE

STEMS = (
    "Which planet is closest to the sun?",
    "How many days has February in a leap year?",
    "Қазақстанның астанасы қай қала?",
    "Какая река самая длинная в мире?",
    "Which gas do plants take in from the air?",
)
OPTIONS = ("The first of them", "The second one", "Neither of these")


def live_through(store: Store, n: int, days: float = 30.0, seed: int = 7, calibration: str = "", now: float | None = None) -> None:
    """Put `n` decisions of the last days into a store, about 40 % of them deferred, with the endings that come of them."""
    rng, now = random.Random(seed), time.time() if now is None else now
    with store.transaction():
        for place in range(n):
            _put(store, rng, now - days * 86_400 * (1 - (place + 1) / n) - 1, place, calibration)


def _put(store: Store, rng: random.Random, at: float, place: int, calibration: str) -> None:
    question = Question(f"{STEMS[place % len(STEMS)]} ({place})", OPTIONS)
    store.put_question(question)
    reading = _reading(rng)
    policy = Policy(tau=0.6, calibration=calibration)
    draws = rng.random(), rng.random()
    bound = bound_to()
    key = ReadingKey(question.fingerprint, bound["model_sha256"], "", bound["profile_sha256"])
    row: dict[str, Any] = {
        "decision_id": str(uuid.UUID(int=rng.getrandbits(128))),
        "created_at": at,
        "fingerprint": question.fingerprint,
        "rule_version": routing.RULE_VERSION,
        "policy": json.dumps({**asdict(policy), "name": PolicyName.PREFER_LOCAL.value}),
        "circumstances": json.dumps(asdict(Circumstances(cloud_configured=True))),
        "reading_id": store.put_reading(key, reading),
        "answer": reading.letter,
        "score": reading.confidence,
        "recalled": 0,
    }
    deferred = reading.confidence < policy.tau
    agrees = draws[0] < 0.2 + 0.7 * reading.confidence
    said = reading.letter if agrees else next(letter for letter in "ABC" if letter != reading.letter)
    row |= {"deferred": int(deferred), "provisional": 0, "route": "local", "reason": "confident", "cause": "unsure" if deferred else None}
    answered = deferred and draws[1] < 0.9
    answer_id = queue_id = None
    if answered:
        cloud = CloudAnswer(said, said, "big", 200 + 600 * rng.random(), 60, 2)
        answer_id = store.put_cloud_answer(CloudKey(question.fingerprint, "big", "http://cloud.test/v1", 1), cloud)
    if deferred and answered and draws[1] < 0.6:
        row |= {"route": "cloud", "reason": "unsure", "answer": said, "cloud_kind": "answered", "cloud_answer_id": answer_id}
    elif deferred:
        state = "done" if answered else "dead" if draws[1] > 0.97 else "ready"
        queue_id = _queue(store, question, state, at, place)
        row |= {"provisional": 1, "reason": "offline", "cloud_kind": "offline", "queue_id": queue_id}
        if answered:
            ending = "upheld" if agrees else "overturned"
            row |= {"cloud_answer_id": answer_id, "final_answer": said, "ending": ending, "ended_at": at + 60}
        elif state == "dead":
            row |= {"ending": "abandoned", "ended_at": at + 900}
        if "ending" in row:
            row["end_number"] = place + 1
    store.put_decision(row)
    if not deferred and draws[1] < 0.2:
        store.database.write(
            "INSERT INTO audits (created_at, put_s, due_s, decision_id, fingerprint, calibration, cloud_model, answer, state, "
            "cloud_answer, agrees) VALUES (?, 0, 0, ?, ?, ?, 'big', ?, 'done', ?, ?)",
            (at, row["decision_id"], question.fingerprint, calibration, reading.letter, said, int(agrees)),
        )
        sql = "INSERT INTO agreements (calibration, cloud_model, agrees) VALUES (?, 'big', ?)"
        store.database.write(sql, (calibration, int(agrees)))


def _reading(rng: random.Random) -> Reading:
    level = rng.choices(LEVELS, (1, 2, 3, 5, 4))[0]
    others = [rng.random() * 0.1 for _ in LEVELS]
    others[LEVELS.index(level)] += 1
    best = 0.4 + 0.5 * rng.random()
    letter = rng.choice("ABC")
    return replace(
        SURE, level=level, level_probs=tuple(p / sum(others) for p in others), letter=letter,
        answer_probs=tuple(best if one == letter else (1 - best) / 2 for one in "ABC"),
        timings=Timings(20 + 40 * rng.random(), 5.0, 60.0, 80, 40, 2),
    )  # fmt: skip


def _queue(store: Store, question: Question, state: str, at: float, place: int) -> int:
    error = "The cloud could not be reached." if state != "done" else None
    cursor = store.database.write(
        "INSERT INTO outbox (created_at, updated_at, put_s, due_s, job_key, dedupe_key, fingerprint, state, attempts, last_error, "
        "answers_before, payload, size_bytes) VALUES (?, ?, ?, 0, ?, ?, ?, ?, 2, ?, 0, ?, 100)",
        (at, at, store.clock.now_s(), f"job {place}", f"same {place}", question.fingerprint, state, error,
         json.dumps([question.stem, question.options], ensure_ascii=False)),
    )  # fmt: skip
    assert cursor.lastrowid is not None
    return cursor.lastrowid
