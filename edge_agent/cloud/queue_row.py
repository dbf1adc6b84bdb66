"""One row of the queue, as it was read.

Owns its fields, how its question is read back, and how it is shown; `queue` owns what happens to it. Invariant: a damaged payload is
an error, never another question.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edge_agent.core.errors import StorageError
from edge_agent.core.question import Question
from edge_agent.core.times import iso
from edge_agent.store.store import Store

COLUMNS = (
    "id AS queue_id, state, attempts, last_error, created_at, put_s, due_s, fingerprint, dedupe_key, job_key, payload, answers_before, "
    "suspicions"
)


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One row of the queue at the time it was read; `put_s` and `due_s` are device time, `created_at` is Unix time.

    `payload` (JSON) is what will be sent. `answers_before` is the id of the newest cloud answer when the question was queued.
    `suspicions` counts replies without an answer to this question, while the cloud answered others (see `retry.PORTAL_PAGE`).
    """

    queue_id: int
    state: str
    attempts: int
    last_error: str | None
    created_at: float
    put_s: float
    due_s: float
    fingerprint: str
    dedupe_key: str
    job_key: str
    payload: str | None
    answers_before: int
    suspicions: int = 0

    @property
    def question(self) -> Question | None:
        """The question as it will be sent; None for rows of older versions, which stored it elsewhere.

        Raises `ValueError` or `BadQuestion` if it is damaged.
        """
        return None if self.payload is None else sent_question(self.payload)


def payload(question: Question) -> str:
    """A question as it will be sent, as a row keeps it (JSON)."""
    return json.dumps([question.stem, question.options], ensure_ascii=False)


def sent_question(text: str) -> Question:
    """The question in a `payload`. Raises `ValueError` or `BadQuestion` if it is damaged."""
    try:
        stem, options = json.loads(text)
        return Question.of(stem, options)
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"what was to be sent is damaged ({error})") from error


def shown(row: QueueRow, store: Store, now_s: float) -> dict[str, Any]:
    """A row as it is shown; `now_s` is device time."""
    try:
        stem = store.question(row.fingerprint).stem
    except StorageError:
        stem = None  # damaged: the other rows must still be shown
    return {
        "queue_id": row.queue_id,
        "state": row.state,
        "attempts": row.attempts,
        "last_error": row.last_error,
        "created_at": iso(row.created_at),
        "age_s": round(max(0.0, now_s - row.put_s), 3),
        "due_in_s": round(max(0.0, row.due_s - now_s), 3) if row.state == "ready" else None,
        "question": stem,
        "fingerprint": row.fingerprint,
        "job_key": row.job_key,
    }
