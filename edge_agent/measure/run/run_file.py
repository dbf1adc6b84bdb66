"""The file of a run: an SQLite file with one row for the run and one for each answered question, which `sqlite-utils` reads, too.

Owns the two tables and what makes a file another run's. Asks nothing and computes no metric. Invariants: a file holds one run; a row
is whole or absent. Rows are written in batches, each in one transaction of sqlite-utils: a crash loses at most the last batch. One
process writes a file at a time, by a lock on the file (`flock`, which SQLite itself does not use).

The table `run` says what was asked of which model; `answers` holds the readings as JSON, from which all scores follow. The score
columns beside it are for people and are not read back.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

import sqlite_utils

from edge_agent.core import readouts
from edge_agent.core.errors import BadData, StorageBusy, StorageError
from edge_agent.core.files import has_no_locks, try_lock
from edge_agent.core.records import ModelFacts, Reading
from edge_agent.measure.results import LIVE, NO_CLOUD, RECORDED, SIMULATED, CloudSource
from edge_agent.measure.run.answered import ALL_ORDERS, EXTRAS, AnsweredRow, CloudReply, ExtraReading, RunOptions
from edge_agent.measure.run.facts import RunFacts
from edge_agent.measure.sets.labelled import checked_difficulty, checked_name
from edge_agent.model.profile import Profile

FORMAT = 1
RUN, ANSWERS = "run", "answers"
_CLOUD = ("answer", "right", "agrees", "prompt_tokens", "completion_tokens", "ms", "error", "estimated_tokens", "failed_at")
_SCORES = (readouts.CONFIDENCE, readouts.EXPECTED, readouts.ANSWER_PROB, readouts.MARGIN)  # for a person; the reading itself has all
_EXTRA = ("score", "answer", "right", "passes", "ms", "agreed")
_COLUMNS: dict[str, Any] = {
    "number": int, "id": str, "fingerprint": str, "family": str, "domain": str, "difficulty": int, "gold": str, "answer": str,
    "right": float,
    **dict.fromkeys(_SCORES, float), "format_mass": float, "read_ms": float, "reading": str, "printed": str,
    **{f"cloud_{name}": str if name in ("answer", "error") else float for name in _CLOUD},
    **{f"{extra}_{name}": str if name == "answer" else float for extra in EXTRAS for name in _EXTRA},
}  # fmt: skip


class RunFile:
    """An open file of a run, new or to go on with. Use as a context manager. Raises `StorageError`.

    A file that exists must hold the run that `facts` describe; its rows are in `rows`, by the number of the question.
    """

    def __init__(self, path: pathlib.Path, facts: RunFacts) -> None:
        self.path, self._lock = path, _locked(path)
        try:
            is_new = not path.exists() or path.stat().st_size == 0
            self.rows: dict[int, AnsweredRow] = {}
            self.too_long: tuple[int, ...] = ()
            if is_new:
                self._db = _opened(path)
                self._create(facts)
            else:
                known, self.rows = _read(path)
                self._db = _opened(path)
                if not (differing := known.differing(facts)):
                    self.too_long = known.too_long
                    self._update(known, facts)
                elif self.rows:
                    raise StorageError(f"'{path}' holds another run ({differing}); give another file, or repeat that run's command.")
                else:  # a run that ended before its first answer: nothing is lost
                    self._change(_run_columns(facts))
        except BaseException:
            self._release()
            raise

    def _create(self, facts: RunFacts) -> None:
        try:
            self._db.table(ANSWERS).create(_COLUMNS, pk="number")
            self._db.table(RUN).insert(_run_columns(facts))
        except (sqlite3.Error, OSError) as error:
            raise _refused(self.path, error) from error

    def _update(self, known: RunFacts, facts: RunFacts) -> None:
        """Store what may change between the parts of a run: the prices."""
        prices = {f"cloud_{name}": getattr(facts.cloud, name) for name in ("prompt_price", "completion_price")}
        if any(prices[f"cloud_{name}"] != getattr(known.cloud, name) for name in ("prompt_price", "completion_price")):
            self._change(prices)

    def _change(self, columns: dict[str, Any]) -> None:
        """Change the only row of the table `run` in one statement: a crash leaves the old facts or the new ones."""
        try:
            self._db.table(RUN).update(1, columns, alter=True)  # the file of an older version may lack a column
        except (sqlite3.Error, OSError) as error:
            raise _refused(self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._db.close()
        self._release()

    def keep(self, rows: Mapping[int, AnsweredRow]) -> None:
        """Store rows under their numbers, in one transaction; a row that is there is replaced. Raises `StorageError`."""
        try:
            self._db.table(ANSWERS).insert_all(
                [_columns(number, row) for number, row in rows.items()], pk="number", replace=True, alter=True
            )
        except (sqlite3.Error, OSError) as error:
            raise _refused(self.path, error) from error

    def leave_out(self, facts: RunFacts) -> None:
        """Store which questions do not fit, and the note about them. Raises `StorageError`."""
        if facts.too_long != self.too_long:
            columns = _run_columns(facts)
            self._change({name: columns[name] for name in ("too_long", "data_notes")})
            self.too_long = facts.too_long

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def load(path: pathlib.Path) -> tuple[RunFacts, dict[int, AnsweredRow]]:
    """What a file holds: the facts of the run, and its rows by the number of the question, from 0.

    Raises `BadData` if there is no such file, or if it is damaged or not the file of a run.
    """
    if not path.is_file():
        raise BadData(f"There is no file '{path}'; make it with `edge-agent eval DATA --rows {path.name}`.")
    try:
        return _read(path)
    except StorageError as error:
        raise BadData(str(error)) from error


def save(path: pathlib.Path, facts: RunFacts, rows: Sequence[AnsweredRow]) -> None:
    """Write a whole run to a new file, or go on with one that holds the beginning of the same run. Raises `StorageError`."""
    with RunFile(path, facts) as file:
        file.keep({number: row for number, row in enumerate(rows) if number not in file.rows})


def _read(path: pathlib.Path) -> tuple[RunFacts, dict[int, AnsweredRow]]:
    try:
        db = sqlite_utils.Database(path)
        try:
            if not {RUN, ANSWERS} <= set(db.table_names()):
                raise StorageError(f"'{path}' is not the file of a run; give another file.")
            facts = [_facts(row, path) for row in db.table(RUN).rows]
            if len(facts) != 1:
                raise ValueError(f"it describes {len(facts)} runs")
            return facts[0], {row["number"]: _row(row, facts[0].n_questions) for row in db.table(ANSWERS).rows}
        finally:
            db.close()
    except (sqlite3.Error, OSError) as error:
        raise _refused(path, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, BadData) as error:
        raise StorageError(f"'{path}' is damaged ({error}); delete it and ask again, or give another file.") from error


def _opened(path: pathlib.Path) -> sqlite_utils.Database:
    try:
        return sqlite_utils.Database(path)
    except (sqlite3.Error, OSError) as error:
        raise _refused(path, error) from error


def _refused(path: pathlib.Path, error: Exception) -> StorageError:
    if "locked" in str(error):  # SQLite's own lock: another program has the file open
        return StorageBusy(f"Another process uses '{path}' now ({error}); close it, and give the same command again.")
    if "decode" in str(error):  # with the bytes of the text in it
        return StorageError(f"'{path}' is damaged (a text is not UTF-8); delete it and ask again, or give another file.")
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return StorageError(f"'{path}' is damaged or not the file of a run ({error}); give another file.")
    return StorageError(f"Cannot use the rows file '{path}' ({error}); check the folder and the free disk space, or choose another file.")


def _locked(path: pathlib.Path) -> int | None:
    """Hold the file's lock: SQLite's own lasts one transaction only. None where the file system has no locks."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    except (OSError, ValueError) as error:
        raise StorageError(
            f"Cannot write the rows to '{path}' ({getattr(error, 'strerror', None) or error}); choose another file."
        ) from error
    try:
        if try_lock(handle):
            return handle
    except OSError as error:
        os.close(handle)
        if has_no_locks(error):
            return None
        raise StorageError(f"Cannot lock the rows file '{path}' ({error.strerror}); choose another file.") from error
    os.close(handle)
    raise StorageBusy(f"Another process writes '{path}' now; wait for it, or give another file.")


def _run_columns(facts: RunFacts) -> dict[str, Any]:
    model = {f"model_{name}": value for name, value in asdict(facts.model).items() if name not in ("profile", "adapter_sha256")}
    cloud = {f"cloud_{name}": value for name, value in asdict(facts.cloud).items()}
    return {
        "format": FORMAT, **model, "adapter_sha256": facts.model.adapter_sha256, "profile": facts.model.profile,
        "profile_sha256": facts.profile_sha256, "data": facts.data, "data_form": facts.form, "data_sha256": facts.data_sha256,
        "data_notes": json.dumps(facts.notes, ensure_ascii=False),
        "questions": facts.n_questions, "too_long": json.dumps(facts.too_long), "model_size_bytes": facts.size_bytes,
        **cloud, "cloud_identity": facts.cloud_identity, "options": json.dumps(asdict(facts.options)), "edge_agent": facts.edge_agent,
        "llama_cpp": facts.llama_cpp, "machine": facts.machine,
    }  # fmt: skip


def _facts(row: dict[str, Any], path: pathlib.Path) -> RunFacts:
    if row["format"] != FORMAT:
        raise StorageError(f"'{path}' has form {row['format']}, and this edge-agent reads form {FORMAT}; use the other version.")
    Profile.from_json(row["profile"])
    model = {name: _text(row, f"model_{name}") for name in ("name", "sha256", "quantization", "architecture")}
    n_questions = _whole(row, "questions")
    notes, options = json.loads(row["data_notes"]), RunOptions(**json.loads(row["options"]))
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ValueError(f"the notes are {notes!r:.80}")
    if options.orders not in (0, 2, ALL_ORDERS) or not options.words:
        raise ValueError(f"the options are {options!r:.80}")
    accuracy = row["cloud_accuracy"]
    if isinstance(accuracy, str):  # SQLite makes it a text, where the file was begun for a cloud that has none
        accuracy = float(accuracy)
    cloud = CloudSource(
        _text(row, "cloud_kind"),
        _text(row, "cloud_name"),
        _known({"cloud_accuracy": accuracy}, "cloud_accuracy", 1.0),
        _real(row, "cloud_prompt_price"),
        _real(row, "cloud_completion_price"),
        bool(row["cloud_estimated_tokens"]),
    )
    if cloud.kind not in (LIVE, RECORDED, SIMULATED, NO_CLOUD) or (cloud.kind == SIMULATED and cloud.accuracy is None):
        raise ValueError(f"the cloud is {cloud.kind!r:.80} with accuracy {cloud.accuracy}")
    return RunFacts(
        model=ModelFacts(**model, profile=row["profile"], adapter_sha256=_text(row, "adapter_sha256")),
        data=_text(row, "data"), form=_text(row, "data_form"), data_sha256=_text(row, "data_sha256"), n_questions=n_questions,
        notes=tuple(notes), too_long=_numbers(row.get("too_long") or "[]", n_questions),
        size_bytes=_whole(row, "model_size_bytes"), cloud_identity=_text(row, "cloud_identity"), cloud=cloud, options=options,
        edge_agent=_text(row, "edge_agent"), llama_cpp=_text(row, "llama_cpp"), machine=_text(row, "machine"),
    )  # fmt: skip


def _numbers(text: str, n_questions: int) -> tuple[int, ...]:
    """The numbers of questions in a JSON list; a file of an older version has none."""
    found = tuple(json.loads(text))
    if not all(isinstance(number, int) and 0 <= number < n_questions for number in found):
        raise ValueError("it leaves out questions that the run does not have")
    return found


# SQLite columns hold any type, and people edit files: every value is checked. Each raises ValueError.


def _text(row: Mapping[str, Any], name: str) -> str:
    if not isinstance(value := row[name], str):
        raise ValueError(f"{name} is {value!r:.80}, not a text")
    return value


def _whole(row: Mapping[str, Any], name: str) -> int:
    if not isinstance(value := row[name], int) or value < 0:
        raise ValueError(f"{name} is {value!r:.80}, not a whole number of at least 0")
    return value


def _real(row: Mapping[str, Any], name: str, most: float = math.inf) -> float:
    if not isinstance(value := row[name], int | float) or not math.isfinite(value) or not 0 <= value <= most:
        raise ValueError(f"{name} is {value!r:.80}, not a number from 0" + ("" if math.isinf(most) else f" to {most:g}"))
    return float(value)


def _known(row: Mapping[str, Any], name: str, most: float = math.inf) -> float | None:
    return None if row[name] is None else _real(row, name, most)


def _columns(number: int, row: AnsweredRow) -> dict[str, Any]:
    values: dict[str, Any] = {
        "number": number, "id": row.id, "fingerprint": row.fingerprint, "family": row.family, "domain": row.domain,
        "difficulty": row.difficulty, "gold": row.gold, "answer": row.reading.answer, "right": row.right,
        "format_mass": row.reading.format_mass,
        "read_ms": row.read_ms, "reading": row.reading.to_json(), "printed": row.printed,
        **{name: row.score(name) for name in _SCORES},
    }  # fmt: skip
    if row.cloud:
        values |= {f"cloud_{name}": getattr(row.cloud, name) for name in _CLOUD}
    for extra, found in row.extra.items():
        values |= {f"{extra}_score": found.score, f"{extra}_answer": found.answer, f"{extra}_right": found.right}
        values |= {f"{extra}_passes": found.n_passes, f"{extra}_ms": found.ms, f"{extra}_agreed": found.agreed}
    return dict.fromkeys(_COLUMNS) | values


def _row(row: dict[str, Any], n_questions: int) -> AnsweredRow:
    reading = Reading.from_json(row["reading"])
    if reading.answer != row["answer"] or not math.isfinite(reading.format_mass or 0.0) or not 0 <= _whole(row, "number") < n_questions:
        raise ValueError(f"the row of question {row['id']!r:.40} contradicts itself")
    return AnsweredRow(
        id=checked_name("id", _text(row, "id"), ""), fingerprint=_text(row, "fingerprint"),
        domain=checked_name("domain", _text(row, "domain"), ""), difficulty=checked_difficulty(row["difficulty"]),
        gold=_text(row, "gold"), reading=reading, read_ms=_real(row, "read_ms"),
        right=math.nan if row["right"] is None else _real(row, "right", 1.0),
        printed=None if row["printed"] is None else _text(row, "printed"),
        extra={name: _extra(row, name) for name in EXTRAS if row[f"{name}_score"] is not None},
        cloud=_cloud_reply(row), family=_text(row, "family") if row.get("family") else "",  # the file of an older version has none
    )  # fmt: skip


def _cloud_reply(row: dict[str, Any]) -> CloudReply | None:
    found = CloudReply(
        right=_known(row, "cloud_right", 1.0),
        answer=None if row["cloud_answer"] is None else _text(row, "cloud_answer"),
        agrees=_known(row, "cloud_agrees", 1.0),
        prompt_tokens=_known(row, "cloud_prompt_tokens"),
        completion_tokens=_known(row, "cloud_completion_tokens"),
        ms=_known(row, "cloud_ms"),
        error=None if row["cloud_error"] is None else _text(row, "cloud_error"),
        estimated_tokens=bool(row["cloud_estimated_tokens"]),
        failed_at=_known({"failed_at": row.get("cloud_failed_at")}, "failed_at"),  # the file of an older version has no such column
    )
    return None if found == CloudReply() else found


def _extra(row: dict[str, Any], name: str) -> ExtraReading:
    agreed = _known(row, f"{name}_agreed", 1.0)
    return ExtraReading(
        _real(row, f"{name}_score", 1.0),
        _text(row, f"{name}_answer"),
        _real(row, f"{name}_right", 1.0),
        int(_real(row, f"{name}_passes")),
        _real(row, f"{name}_ms"),
        None if agreed is None else bool(agreed),
    )
