"""Kills a start, or fills its disk, at every call that changes a file: no home is bricked, and nothing acknowledged is lost.

    LD_PRELOAD=faults.so FAULT_FOLDER=/tmp/x/home python -m tests.slow.fault_runs SCENARIO

Each scenario prepares a home and names the work of one process. The work runs in a child that is killed before the first, second,
... call that writes, syncs, renames or creates a file in the home, and again with a disk that is full from that call on. Then a
start without a fault must find everything. The scenarios together-8 and together-32 have no fault: so many processes open one new
home at once, EDGE_AGENT_TEST_TRIALS times. `tests/slow/test_faults.py` builds the library and runs the scenarios.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pathlib
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edge_agent.cloud.queue import Outbox
from edge_agent.core.errors import EdgeAgentError
from edge_agent.core.question import Question
from edge_agent.store.export import backup
from edge_agent.store.file.restore import restore
from edge_agent.store.forget import purge
from edge_agent.store.store import Store
from tests.support.paths import ROOT

HOME = pathlib.Path(os.environ.get("FAULT_FOLDER", ""))
DATABASE = HOME / "edge-agent.db"
FAULTS = ctypes.CDLL(None)
PAGE_BYTES = 4096


@dataclass
class Child:
    """What a child said before it ended: the questions that it acknowledged, and its log; `calls` is None if it was killed."""

    acknowledged: set[str]
    said: str
    calls: int | None


def put(store: Store, stem: str) -> None:
    """Queue a question with the decision that waits for it."""
    question = Question(stem, ("a", "b"))
    with store.transaction():
        store.put_question(question)
        queue_id = Outbox(store).put(question)
        store.put_decision(
            {"decision_id": stem, "created_at": 1.0, "fingerprint": question.fingerprint, "rule_version": 2, "policy": "{}",
             "circumstances": "{}", "answer": "A", "route": "local", "reason": "offline", "deferred": 1, "recalled": 0,
             "provisional": 1, "queue_id": queue_id}
        )  # fmt: skip


def waiting(with_decisions: bool = True) -> set[str]:
    """The questions that wait, after a start without a fault; `with_decisions`, the decisions that wait for them are there too."""
    with Store(DATABASE) as store:
        assert store.database.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
        assert store.database.rows("PRAGMA foreign_key_check") == []
        stems = {store.question(row.fingerprint).stem for row in Outbox(store).list("ready")}
        assert not with_decisions or {row["decision_id"] for row in store.decisions()} >= stems
        assert DATABASE.stat().st_mode & 0o777 == 0o600
    return stems


def run(work: Callable[[Callable[[str], None]], None], mode: str, at: int, notes: pathlib.Path) -> Child:
    """Run the work in a child with a fault; `work` gets a function that acknowledges a question."""
    for name in ("acknowledged", "said", "calls"):
        (notes / name).write_text("")
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            logging.basicConfig(filename=notes / "said", force=True)
            acknowledged = os.open(notes / "acknowledged", os.O_WRONLY | os.O_APPEND)
            FAULTS.fault_arm(ord(mode), ctypes.c_long(at))
            with contextlib.suppress(EdgeAgentError):
                work(lambda stem: os.write(acknowledged, f"{stem}\n".encode()) and None)
            (notes / "calls").write_text(str(FAULTS.fault_count()))
        os._exit(0)
    os.waitpid(child, 0)
    calls = (notes / "calls").read_text()
    return Child(set((notes / "acknowledged").read_text().split("\n")) - {""}, (notes / "said").read_text(), int(calls) if calls else None)


def every_fault(work: Callable[[Callable[[str], None]], None], folder: pathlib.Path) -> Iterator[tuple[str, Child]]:
    """Run the work with each fault, each time in the home as it is now; yields what the fault was, and the child."""
    kept, notes = folder / "kept", folder / "notes"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(HOME, kept)
    notes.mkdir(exist_ok=True)

    def home_again() -> None:
        shutil.rmtree(HOME)
        shutil.copytree(kept, HOME)

    home_again()
    total = run(work, "c", 0, notes).calls
    assert total and total > 3
    for mode in ("k", "f"):
        for at in range(1, total + 1):
            home_again()
            yield f"{'killed at' if mode == 'k' else 'disk full from'} call {at} of {total}", run(work, mode, at, notes)
    home_again()
    work(lambda stem: None)


def check_no_leftovers() -> None:
    """No temporary is left after a start that found the database not closed, or after a purge."""
    with Store(DATABASE) as store:
        purge(store, older_than_s=1e9)
    names = {path.name for path in HOME.iterdir()}
    assert not [name for name in names if name.startswith(".") or ".next-" in name], names


def first_starts(folder: pathlib.Path) -> int:
    """The first, second and third start in a new home; each queues a question."""
    count = 0
    for number in range(3):
        before = waiting() if number else set()

        def start(acknowledge: Callable[[str], None], stem: str = f"question {number}") -> None:
            with Store(DATABASE) as store:
                put(store, stem)
                acknowledge(stem)

        for fault, child in every_fault(start, folder):
            count += 1
            found = waiting()
            assert before | child.acknowledged <= found <= before | {f"question {number}"}, (number, fault, found)
            assert not list(HOME.glob("*.damaged-*")), (number, fault)
            check_no_leftovers()
    return count


def damaged(n_rows: int = 60, first: int = 40, last: int = 43) -> set[str]:
    """A home with queued questions, some pages of whose database are damaged; returns the questions."""
    stems = {f"question {number} {'x' * 300}" for number in range(n_rows)}
    with Store(DATABASE) as store:
        for stem in sorted(stems):
            put(store, stem)
    data = bytearray(DATABASE.read_bytes())
    data[(first - 1) * PAGE_BYTES : last * PAGE_BYTES] = b"\xee" * PAGE_BYTES * (last - first + 1)
    DATABASE.write_bytes(data)
    DATABASE.with_name("edge-agent.db.open").write_text("damaged 0 0\n")
    return stems


def salvage(folder: pathlib.Path) -> int:
    """The start that saves the rows of a damaged database."""
    count, stems = 0, damaged()
    shutil.copytree(HOME, folder / "sound run")
    expected = waiting(with_decisions=False)
    assert len(expected) > 30, len(expected)
    shutil.rmtree(HOME)
    (folder / "sound run").rename(HOME)
    whole = DATABASE.read_bytes()

    def start(_: Callable[[str], None]) -> None:
        Store(DATABASE).close()

    heard = logging.getLogger("edge_agent")
    heard.addHandler(handler := Heard())
    for fault, child in every_fault(start, folder):
        count += 1
        handler.text = ""
        found = waiting(with_decisions=False)
        assert found == expected <= stems, (fault, len(found), len(expected))
        (aside,) = HOME.glob("*.damaged-*")
        assert aside.read_bytes() == whole, fault
        assert "damaged" in child.said + handler.text, fault
        check_no_leftovers()
        assert waiting(with_decisions=False) == expected, fault
    return count


class Heard(logging.Handler):
    """Keeps what was logged."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage() + "\n"


def migration(folder: pathlib.Path) -> int:
    """The start that brings an old database up to date."""
    HOME.mkdir(exist_ok=True)
    shutil.copy(ROOT / "tests" / "data" / "schema-3.db", DATABASE)
    count = 0

    def start(_: Callable[[str], None]) -> None:
        Store(DATABASE).close()

    for fault, _ in every_fault(start, folder):
        count += 1
        with Store(DATABASE) as store:
            assert len(Outbox(store).list()) == 7 and len(list(store.decisions())) > 0, fault
        assert not list(HOME.glob("*.damaged-*")), fault
    return count


def restoring(folder: pathlib.Path) -> int:
    """A restore over a database whose last writer was killed in a transaction: its journal lies beside it."""
    with Store(DATABASE) as store:
        put(store, "old")
        backup(store, folder / "copy.db")
        put(store, "new")
    if not (child := os.fork()):
        store = Store(DATABASE)
        store.database.rows("PRAGMA cache_spill = 1")
        store.database.rows("PRAGMA cache_size = 1")
        with store.transaction() as db:
            for number in range(200):
                db.execute("INSERT INTO questions (fingerprint, stem, options) VALUES (?, ?, '[]')", (f"f{number}", "x" * 2000))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert DATABASE.with_name("edge-agent.db-journal").stat().st_size
    count = 0

    def start(acknowledge: Callable[[str], None]) -> None:
        kept = restore(DATABASE, folder / "copy.db").kept
        acknowledge(kept or "")

    for fault, child in every_fault(start, folder):
        count += 1
        found = waiting()
        assert found in ({"old"}, {"old", "new"}), (fault, found)
        assert not child.acknowledged or found == {"old"}, fault
        kept = [path for path in HOME.glob("*.replaced-*") if not path.name.endswith("-journal")]  # it goes with its database
        assert len(kept) == (found == {"old"}), (fault, kept)
        for path in kept:
            with Store(path) as store:
                assert len(Outbox(store).list("ready")) == 2, fault
        check_no_leftovers()
    return count


def together(folder: pathlib.Path, n_processes: int) -> int:
    """Many processes open one new home at the same moment, and each queues a question."""
    trials = int(os.environ.get("EDGE_AGENT_TEST_TRIALS", "20"))
    for trial in range(trials):
        shutil.rmtree(HOME, ignore_errors=True)
        starting, start = os.pipe()
        children = []
        for number in range(n_processes):
            if child := os.fork():
                children.append(child)
                continue
            code = 1
            try:
                os.close(start)
                os.read(starting, 1)  # until all are there
                with Store(DATABASE) as store:
                    put(store, f"question {number}")
                code = 0
            except EdgeAgentError as error:
                (folder / "failed").write_text(f"{error}\n")
            finally:
                os._exit(code)
        os.close(starting)
        os.close(start)
        failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
        assert not failed, (trial, failed, (folder / "failed").read_text())
        assert waiting() == {f"question {number}" for number in range(n_processes)}, trial
        assert {path.name for path in HOME.iterdir()} <= {"edge-agent.db", "edge-agent.db.open", "edge-agent.db-journal"}, trial
    return trials


SCENARIOS = {
    "first-starts": first_starts, "salvage": salvage, "migration": migration,
    "restore": restoring,
    "together-8": lambda folder: together(folder, 8), "together-32": lambda folder: together(folder, 32),
}  # fmt: skip


def main() -> None:
    """Run one scenario and print how many faults it survived."""
    folder = HOME.parent
    HOME.mkdir()
    sys.stdout.write(f"{SCENARIOS[sys.argv[1]](folder)} trials\n")


if __name__ == "__main__":
    main()
