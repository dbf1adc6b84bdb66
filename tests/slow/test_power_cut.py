"""Power cuts: records every write and sync of a busy queue, and computes what a power cut at any place may leave.

An LD_PRELOAD library (recorder.c, built here) records the calls of SQLite. After a cut, each file has everything that was
synced and any subset of the later writes, some of them torn at a sector of 512 bytes: what a disk that honours fsync may
leave. A rename is on the disk for certain once the folder is synced. Assumption: the name of a new file is on the disk, because
SQLite syncs the folder with the first journal.
The cuts are simulated: this says nothing about hardware that ignores fsync.
"""

import os
import pathlib
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from tests.support.paths import ROOT

STATES = int(os.environ.get("EDGE_AGENT_TEST_STATES", "200"))
SECTOR = 512
WORKER = """
import os, pathlib, sys
from edge_agent.cloud.queue import Outbox
from edge_agent.core.question import Question
from edge_agent.core.outcome import CloudKind, CloudOutcome
from edge_agent.core.records import CloudKey
from edge_agent.store.store import Store
folder = pathlib.Path(sys.argv[1])
store = Store(folder / "edge-agent.db")
store.database.rows(f"PRAGMA synchronous = {sys.argv[2]}")
outbox = Outbox(store)
said = os.open(folder / "acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for number in range(12):
    question = Question(f"Q{number} " + "x" * 500 * (number % 4), ("a", "b"))
    with store.transaction():
        store.put_question(question)
        queue_id = outbox.put(question)
    os.write(said, f"{queue_id}\\n".encode())
    if number % 3 == 2:
        row = outbox.claim()
        outbox.finish(row, CloudOutcome(CloudKind.FAILED, error="HTTP 500"), CloudKey(row.fingerprint, "big", "https://cloud", 1))
os._exit(0)
"""


@dataclass(frozen=True)
class Operation:
    """One record: a write of `data` at `where`, a truncation to `where`, a sync (kinds w, t, s), or a rename to `data` (r)."""

    kind: str
    name: str
    where: int
    data: bytes


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the recorder needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("recorder") / "recorder.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, ROOT / "tests" / "slow" / "recorder.c", "-ldl"], check=True)
    return library


def record(recorder: pathlib.Path, folder: pathlib.Path, synchronous: str) -> list[Operation]:
    """What a busy queue writes and syncs."""
    home, log = folder / "home", folder / "log"
    home.mkdir(parents=True)
    environment = {**os.environ, "LD_PRELOAD": str(recorder), "RECORD_FOLDER": str(home), "RECORD_LOG": str(log), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", WORKER, home, synchronous], env=environment, check=True)
    data, at, found = log.read_bytes(), 0, []
    while at < len(data):
        kind, size = chr(data[at]), data[at + 1]
        name = data[at + 2 : at + 2 + size].decode()
        at += 2 + size
        where, length = struct.unpack_from("=qq", data, at)
        found.append(Operation(kind, name, where, data[at + 16 : at + 16 + length]))
        at += 16 + length
    return found


def apply(content: bytearray, operation: Operation, keep: int | None = None) -> None:
    """Apply a write (only its first `keep` bytes) or a truncation to the content of a file."""
    data = operation.data[:keep]
    if operation.kind == "t":
        del content[operation.where :]
        content.extend(b"\0" * (operation.where - len(content)))
    else:
        content.extend(b"\0" * (operation.where - len(content)))
        content[operation.where : operation.where + len(data)] = data


class Disk:
    """Files by number, with their synced content and the writes that wait; and the names of files, as they are and as they are synced."""

    def __init__(self) -> None:
        self.synced: dict[int, bytearray] = {}
        self.pending: dict[int, list[Operation]] = {}
        self.names: dict[str, int] = {}
        self.synced_names: dict[str, int] = {}
        self._n_files = 0

    def do(self, operation: Operation) -> None:
        if operation.name == ".":
            self.synced_names = dict(self.names)
        elif operation.kind == "r":
            self.names[operation.data.decode()] = self.names.pop(operation.name)
        else:
            if operation.name not in self.names:
                self._n_files += 1
                self.names[operation.name] = self.synced_names[operation.name] = self._n_files
            file = self.names[operation.name]
            if operation.kind == "s":
                content = self.synced.setdefault(file, bytearray())
                for each in self.pending.pop(file, []):
                    apply(content, each)
            else:
                self.pending.setdefault(file, []).append(operation)


def states(operations: list[Operation], count: int, seed: int) -> Iterator[tuple[dict[str, bytes], set[int]]]:
    """The files that cuts at random places may leave, and the rows that were acknowledged before each cut."""
    chance = random.Random(seed)
    for _ in range(count):
        cut = chance.randrange(1, len(operations) + 1)
        disk = Disk()
        acknowledged: set[int] = set()
        for operation in operations[:cut]:
            if operation.name == "acknowledged":
                acknowledged |= {int(operation.data)} if operation.kind == "w" else set()
            else:
                disk.do(operation)
        survives = chance.choice([0.0, 0.2, 0.5, 0.8, 1.0])  # the share of unsynced writes that reach the disk
        for file, late in disk.pending.items():
            content = disk.synced.setdefault(file, bytearray())
            for each in late:
                if chance.random() < survives:
                    torn = chance.random() < 0.3 and each.kind == "w"
                    apply(content, each, SECTOR * chance.randrange(len(each.data) // SECTOR + 1) if torn else None)
        names = disk.names if chance.random() < survives else disk.synced_names
        yield {name: bytes(disk.synced.get(file, b"")) for name, file in names.items()}, acknowledged


def lost(folder: pathlib.Path, files: dict[str, bytes], acknowledged: set[int]) -> set[int]:
    """The acknowledged rows that are lost: all of them if the file is damaged."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        if name.startswith("edge-agent.db") and not name.endswith((".open", ".drain-lock")):
            (folder / name).write_bytes(content)
    if not acknowledged:
        return set()
    try:
        with closing(sqlite3.connect(folder / "edge-agent.db")) as db:
            if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                return acknowledged
            return acknowledged - {row[0] for row in db.execute("SELECT id FROM outbox WHERE state IN ('ready', 'sending')")}
    except sqlite3.DatabaseError:
        return acknowledged


def cuts_that_lose(recorder: pathlib.Path, folder: pathlib.Path, synchronous: str, count: int) -> int:
    operations = record(recorder, folder, synchronous)
    assert any(operation.kind == "w" for operation in operations) and sum(op.name == "acknowledged" for op in operations) == 12
    return sum(bool(lost(folder / "after", *state)) for state in states(operations, count, seed=1))


def test_power_cut_loses_nothing_acknowledged(recorder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert cuts_that_lose(recorder, tmp_path, "FULL", STATES) == 0


def test_recorder_catches_the_mutant_without_syncs(recorder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Mutant: `PRAGMA synchronous = OFF`."""
    assert cuts_that_lose(recorder, tmp_path, "OFF", 60) > 0
