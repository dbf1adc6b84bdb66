"""A damaged database: flipped bits, truncated files, lost and foreign journals. The agent never crashes, and works afterwards."""

import contextlib
import os
import pathlib
import random
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence

import pytest

from edge_agent.core.errors import StorageError
from edge_agent.core.question import Question
from edge_agent.store.database import Database
from edge_agent.store.store import Store
from tests.support.damage import damage
from tests.support.mutation import catches
from tests.support.spoken_model import UNSURE, SpokenModel, agent

FLIPS = int(os.environ.get("EDGE_AGENT_TEST_FLIPS", "60"))
CUTS = int(os.environ.get("EDGE_AGENT_TEST_CUTS", "16"))


def question(stem: str) -> Question:
    return Question(stem, ("x", "y", "z"))


@pytest.fixture
def life(home: pathlib.Path) -> Iterator[bytes]:
    """The bytes of a database with some questions in it."""
    with agent(home, SpokenModel(UNSURE)) as one:
        for n in range(30):
            one.ask(question(f"question number {n}"))
    yield (home / "edge-agent.db").read_bytes()


def opening(kind: type[Database]) -> Callable[[pathlib.Path], Store]:
    """A function that opens a store whose database is of this kind."""

    def open_store(path: pathlib.Path) -> Store:
        store = Store(path)
        store.database.__class__ = kind
        return store

    return open_store


def check_usable(home: pathlib.Path, kind: type[Database] = Database) -> None:
    """Check that the agent always answers, and that it stores and lists questions from the second start at the latest."""
    known = question("question number 7")
    with agent(home, SpokenModel(UNSURE), store=opening(kind)) as one:
        assert one.ask(known).answer == "A"
        errors = []
        try:
            one.outbox.list()
        except StorageError as error:
            errors.append(str(error))
        assert all("is damaged" in error and "try again" in error for error in errors), errors
    with agent(home, SpokenModel(UNSURE), store=opening(kind)) as two:
        decision = two.ask(question("something new"))
        assert decision.answer == "A" and decision.persisted and decision.queue_id
        two.outbox.list()


def write_database(home: pathlib.Path, data: bytes) -> None:
    """Write a database file, and remove the files around it."""
    for file in home.glob("edge-agent.db.damaged*"):
        file.unlink()
    for end in ("-journal", "-wal", "-shm"):
        (home / f"edge-agent.db{end}").unlink(missing_ok=True)
    (home / "edge-agent.db").write_bytes(data)


class Trusting(Database):
    """Mutant: ignores what SQLite reports about the file."""

    def renew(self) -> bool:
        return False

    def _refused(self, error):
        return StorageError(str(error))


@catches(Database, Trusting)
def test_missing_table_is_noticed_and_the_database_replaced(part, home: pathlib.Path, life: bytes) -> None:
    damage(home / "edge-agent.db", "decisions")
    check_usable(home, part)


def test_changed_schema_is_noticed_and_the_database_replaced(home: pathlib.Path, life: bytes) -> None:
    """A primary key is missing in the schema: every page is intact, but no decision can be stored."""
    with contextlib.closing(sqlite3.connect(home / "edge-agent.db", isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        changed = db.execute("UPDATE sqlite_master SET sql = replace(sql, 'PRIMARY KEY', '') WHERE name = 'cloud_answers'").rowcount
    assert changed == 1
    check_usable(home)
    assert list(home.glob("edge-agent.db.damaged-*"))


def schema_bytes(data: bytes) -> list[int]:
    """Where the text of the schema is: only a few bytes, but all rows depend on them."""
    found = [at for at in range(len(data)) if data.startswith(b"CREATE ", at)]
    return sorted({at for begin in found for at in range(begin - 40, min(begin + 900, len(data)))})


@pytest.mark.parametrize("where", [lambda data: range(len(data)), schema_bytes], ids=["anywhere", "schema"])
def test_flipped_bits_never_stop_the_agent(home: pathlib.Path, life: bytes, where: Callable[[bytes], Sequence[int]]) -> None:
    chance, places, refused = random.Random(4), where(life), []
    for _ in range(FLIPS):
        data = bytearray(life)
        at = chance.choice(places)
        data[at] ^= 1 << chance.randrange(8)
        write_database(home, bytes(data))
        try:
            check_usable(home)
        except StorageError as error:
            refused.append((at, str(error)))
        except AssertionError as error:
            raise AssertionError(f"flipped byte {at}") from error
    version_number = range(60, 64)  # with another number, the file looks like one of a newer version
    assert all(at in version_number and "update edge-agent" in words for at, words in refused), refused


def test_truncated_files_never_stop_the_agent(home: pathlib.Path, life: bytes) -> None:
    """The test above catches the mutant."""
    for number in range(CUTS):
        write_database(home, life[: len(life) * number // CUTS])
        check_usable(home)


@pytest.mark.parametrize("journal", [b"", b"garbage" * 1000, b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"\0" * 4096])
def test_foreign_journal_does_not_stop_the_agent(home: pathlib.Path, life: bytes, journal: bytes) -> None:
    (home / "edge-agent.db-journal").write_bytes(journal)
    check_usable(home)


def test_lost_journal_does_not_stop_the_agent(home: pathlib.Path) -> None:
    """The process is killed in the middle of a write and the journal is lost: only a part of the write is in the file."""
    with agent(home, SpokenModel(UNSURE)) as one:
        one.ask(question("question number 7"))
    child = os.fork()
    if child == 0:
        store = Store(home / "edge-agent.db")
        store.database.rows("PRAGMA cache_spill = 1")
        store.database.rows("PRAGMA cache_size = 1")
        with store.transaction() as db:
            for n in range(300):
                db.execute("INSERT INTO questions (fingerprint, stem, options) VALUES (?, ?, '[]')", (f"f{n}", "x" * 2000))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (home / "edge-agent.db-journal").unlink()
    check_usable(home)
