"""One row of the queue, as it was read.

Owns its fields and how its question is read back; `queue` owns what happens to it. Invariant: a damaged payload is an error, never
another question.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from edge_agent.core.question import Question

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
        if self.payload is None:
            return None
        try:
            stem, options = json.loads(self.payload)
            return Question.of(stem, options)
        except (TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"what was to be sent is damaged ({error})") from error
