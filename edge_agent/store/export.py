"""Backup and export: a copy of the database file, or its decisions as rows.

Changes nothing. Invariant: a backup is a complete database, as of one moment.
"""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

from edge_agent.core.errors import StorageError
from edge_agent.core.records import CloudAnswer, option_text
from edge_agent.core.times import iso
from edge_agent.store.store import Store


def backup(store: Store, path: pathlib.Path) -> None:
    """Copy the database as of one moment; the copy is a complete database. Raises `StorageError`."""
    if path.exists():
        raise StorageError(f"'{path}' already exists; choose another name for the backup.")
    try:
        store.database.copy_to(path)
    except OSError as error:
        raise StorageError(f"The backup '{path}' cannot be written ({error.strerror}); check the folder and its free space.") from error


def export(store: Store) -> Iterator[dict[str, Any]]:
    """Every decision with its question, facts and ending, oldest first; only a few are in memory at a time.

    Times are ISO 8601 in local time, with the offset of the zone.
    """
    for row in store.decisions():
        yield {
            "decision_id": row["decision_id"],
            "created_at": iso(row["created_at"]),
            "question": row["stem"],
            "options": parsed(row["options"]),
            "answer": row["answer"],
            "route": row["route"],
            "reason": row["reason"],
            "cause": row["cause"],
            "score": row["score"],
            "deferred": bool(row["deferred"]),
            "recalled": bool(row["recalled"]),
            "provisional": bool(row["provisional"]),
            "ending": row["ending"],
            "ended_at": iso(row["ended_at"]),
            "final_answer": row["final_answer"],
            "rule_version": row["rule_version"],
            "calibration": calibration(row),
            "policy": parsed(row["policy"]),
            "circumstances": parsed(row["circumstances"]),
            "cloud_kind": row["cloud_kind"],
            "cloud_confidence": cloud_confidence(row),
            "reading": parsed(row["reading"]),
            "cloud_answer": parsed(row["cloud_answer"]),
            "audit": {"answer": row["audit_answer"], "agrees": bool(row["audit_agrees"])} if row["audit_agrees"] is not None else None,
        }


def cloud_confidence(row: dict[str, Any]) -> float | None:
    """The probability that the cloud gave to its own letter, from a row with its `cloud_answer`; None without a distribution."""
    with contextlib.suppress(ValueError, TypeError):  # removed to make room, or damaged
        return CloudAnswer.from_json(row["cloud_answer"]).confidence if row["cloud_answer"] else None
    return None


def calibration(row: dict[str, Any]) -> str | None:
    """The sha256 of the calibration that decided; None if none did."""
    policy = parsed(row["policy"])
    return policy.get("calibration") or None if isinstance(policy, dict) else None


def parsed(text: str | None) -> Any:
    """A stored JSON text as data; as it is if it is damaged."""
    with contextlib.suppress(ValueError):
        return json.loads(text) if text else None
    return text


def plain(value: Any) -> Any:
    """Stored data as JSON in UTF-8 can hold it, whatever a damaged row has: no bytes, no half characters, no infinite numbers."""
    if isinstance(value, dict):
        return {plain(str(key)): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_logged(row: dict[str, Any]) -> dict[str, Any]:
    """A decision of `Store.log` as programs read it; `row["options"]` is a list."""
    row = {**row, "question": row["stem"], **answer_texts(row), "cloud_confidence": cloud_confidence(row), "calibration": calibration(row)}
    del row["stem"], row["cloud_answer"]
    for key in ("policy", "circumstances"):
        row[key] = parsed(row[key])
    for key in ("created_at", "ended_at"):
        row[key] = iso(row[key])
    for key in ("deferred", "recalled", "provisional"):
        row[key] = bool(row[key])
    return row


def answer_texts(row: dict[str, Any]) -> dict[str, str | None]:
    """What the letters of a decision stand for."""
    return {f"{key}_text": option_text(row, row[key]) or None for key in ("answer", "final_answer")}
