"""What a person may do with all that is remembered: copy it, hand it out as lines, forget it.

Owns backup, export and purge; what is forgotten by itself is `retention`'s. Knows nothing of models or clouds. Invariant: what
was purged is in no file of ours any more: freed pages are overwritten (PRAGMA secure_delete), the file is packed, and the
copies beside it go, too. An SD card may keep old blocks of its own accord; only an encrypted disk helps against that.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge_agent.core.errors import BadQuestion, StorageError
from edge_agent.store.forget import WAITS, copies_beside, forget, remove_copy
from edge_agent.store.store import Store


@dataclass(frozen=True, slots=True)
class Purged:
    """What was forgotten: questions with all that rests on them, and the names of copies that were removed."""

    questions: int
    decisions: int
    copies: tuple[str, ...]


def backup(store: Store, path: pathlib.Path) -> None:
    """A copy of the database as of one moment, usable as a database of its own. Raises `StorageError`."""
    if path.exists():
        raise StorageError(f"There is a file '{path}' already; choose another name for the backup.")
    try:
        store.copy_to(path)
    except OSError as error:
        raise StorageError(f"The backup '{path}' cannot be written ({error.strerror}); check the folder and its space.") from error


def export(store: Store) -> Iterator[dict[str, Any]]:
    """Every decision with its question, facts and end, oldest first; few of them are ever in memory."""
    for row in store.decisions():
        yield {
            "decision_id": row["decision_id"],
            "created_at": row["created_at"],
            "question": row["stem"],
            "options": _json(row["options"]),
            "answer": row["answer"],
            "route": row["route"],
            "reason": row["reason"],
            "cause": row["cause"],
            "score": row["score"],
            "deferred": bool(row["deferred"]),
            "recalled": bool(row["recalled"]),
            "provisional": bool(row["provisional"]),
            "ending": row["ending"],
            "ended_at": row["ended_at"],
            "final_answer": row["final_answer"],
            "rule_version": row["rule_version"],
            "policy": _json(row["policy"]),
            "circumstances": _json(row["circumstances"]),
            "cloud_kind": row["cloud_kind"],
            "reading": _json(row["reading"]),
            "cloud_answer": _json(row["cloud_answer"]),
        }


def purge(store: Store, older_than_s: float | None = None, stem: str | None = None) -> Purged:
    """Forget questions and all that rests on them: those last asked longer ago than that, or with exactly this text.

    By age, what still waits for the cloud is kept; by text, it is forgotten, too. One transaction, then the file is packed
    and copies of it are removed. A crash before COMMIT leaves everything, behind it freed pages that are zeros already.
    Raises `BadQuestion` if there is no such question or it is being sent, `StorageError`.
    """
    with store.forgetting():
        if stem is not None:
            found = store.rows("SELECT fingerprint FROM questions WHERE stem = ?", (stem.strip(),))
            if not found:
                raise BadQuestion("There is no question with exactly this text; `edge-agent export` shows what is remembered.")
            marks = [row["fingerprint"] for row in found]
            if store.rows(f"SELECT 1 FROM outbox WHERE state = 'sending' AND fingerprint IN ({_places(marks)})", tuple(marks)):
                raise BadQuestion("The question is being sent to the cloud; purge it when that is done.")
        else:
            assert older_than_s is not None
            marks = [
                row["fingerprint"]
                for row in store.rows(
                    f"SELECT q.fingerprint FROM questions q WHERE NOT {WAITS} AND NOT EXISTS "
                    "(SELECT 1 FROM decisions d WHERE d.fingerprint = q.fingerprint AND d.created_at >= ?)",
                    (time.time() - older_than_s,),
                )
            ]
        n_decisions = sum(forget(store, mark) for mark in marks)
    store.pack()
    copies = list(copies_beside(store.path))
    for copy in copies:
        remove_copy(copy)
    return Purged(len(marks), n_decisions, tuple(copy.name for copy in copies))


def _places(values: list[str]) -> str:
    return ", ".join("?" * len(values))


def _json(text: str | None) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(text) if text else None
    return text
