"""A damaged database: flipped bytes, cut files, lost and foreign journals. Never a crash, and a usable agent afterwards."""

import contextlib
import os
import pathlib
import random
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
    """A database that has seen some questions."""
    with agent(home, SpokenModel(UNSURE)) as one:
        for n in range(30):
            one.ask(question(f"question number {n}"))
    yield (home / "edge-agent.db").read_bytes()


def opening(kind: type[Database]) -> Callable[[pathlib.Path], Store]:
    """Opens a store whose database is of this kind."""

    def open_store(path: pathlib.Path) -> Store:
        store = Store(path)
        store.database.__class__ = kind
        return store

    return open_store


def is_usable(home: pathlib.Path, kind: type[Database] = Database) -> None:
    """It answers what it is asked, damaged or not; and it remembers and lists, at the latest from the second start on."""
    known = question("question number 7")
    with agent(home, SpokenModel(UNSURE), store=opening(kind)) as one:
        assert one.ask(known).answer == "A"
        try:
            list(one.outbox.list())
        except StorageError as error:
            assert "is damaged" in str(error) and "try again" in str(error), error
    with agent(home, SpokenModel(UNSURE), store=opening(kind)) as two:
        decision = two.ask(question("something new"))
        assert decision.answer == "A" and decision.persisted and decision.queue_id
        list(two.outbox.list())


def lay(home: pathlib.Path, data: bytes) -> None:
    for file in home.glob("edge-agent.db.damaged*"):
        file.unlink()
    for end in ("-journal", "-wal", "-shm"):
        (home / f"edge-agent.db{end}").unlink(missing_ok=True)
    (home / "edge-agent.db").write_bytes(data)


class Trusting(Database):
    """Mutant: does not care what SQLite says of the file."""

    def renew(self) -> bool:
        return False

    def _refused(self, error):
        return StorageError(str(error))


@catches(Database, Trusting)
def test_table_that_is_gone_is_noticed_and_begun_anew(part, home: pathlib.Path, life: bytes) -> None:
    damage(home / "edge-agent.db", "decisions")
    is_usable(home, part)


def test_schema_that_is_ours_no_more_is_begun_anew(home: pathlib.Path, life: bytes) -> None:
    """A key that was lost from a table's text: every page is sound, and no decision can be stored."""
    with contextlib.closing(sqlite3.connect(home / "edge-agent.db", isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        changed = db.execute("UPDATE sqlite_master SET sql = replace(sql, 'PRIMARY KEY', '') WHERE name = 'cloud_answers'").rowcount
    assert changed == 1
    is_usable(home)
    assert list(home.glob("edge-agent.db.damaged-*"))


def schema_bytes(data: bytes) -> list[int]:
    """Where the text of the schema is: few bytes of a file, and all rows depend on them."""
    found = [at for at in range(len(data)) if data.startswith(b"CREATE ", at)]
    return sorted({at for begin in found for at in range(begin - 40, min(begin + 900, len(data)))})


@pytest.mark.parametrize("where", [lambda data: range(len(data)), schema_bytes], ids=["anywhere", "schema"])
def test_flipped_bits_never_stop_the_agent(home: pathlib.Path, life: bytes, where: Callable[[bytes], Sequence[int]]) -> None:
    chance, places = random.Random(4), where(life)
    for _ in range(FLIPS):
        data = bytearray(life)
        at = chance.choice(places)
        data[at] ^= 1 << chance.randrange(8)
        lay(home, bytes(data))
        try:
            is_usable(home)
        except StorageError as error:
            assert 60 <= at < 64 and "update edge-agent" in str(error), (at, error)  # the schema's number: a newer version's, perhaps
        except AssertionError as error:
            raise AssertionError(f"flipped byte {at}") from error


def test_cut_files_never_stop_the_agent(home: pathlib.Path, life: bytes) -> None:
    """The mutant is caught above."""
    for number in range(CUTS):
        lay(home, life[: len(life) * number // CUTS])
        is_usable(home)


@pytest.mark.parametrize("journal", [b"", b"garbage" * 1000, b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"\0" * 4096])
def test_foreign_journal_does_not_stop_the_agent(home: pathlib.Path, life: bytes, journal: bytes) -> None:
    (home / "edge-agent.db-journal").write_bytes(journal)
    is_usable(home)


def test_lost_journal_does_not_stop_the_agent(home: pathlib.Path) -> None:
    """Killed in the middle of a write, and then the journal is gone: what is left may be torn."""
    with agent(home, SpokenModel(UNSURE)) as one:
        one.ask(question("question number 7"))
    child = os.fork()
    if child == 0:
        store = Store(home / "edge-agent.db")
        store.database._db.execute("PRAGMA cache_spill = 1")
        store.database._db.execute("PRAGMA cache_size = 1")
        store.database._db.execute("BEGIN IMMEDIATE")
        for n in range(300):
            store.database._db.execute("INSERT INTO questions (fingerprint, stem, options) VALUES (?, ?, '[]')", (f"f{n}", "x" * 2000))
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    (home / "edge-agent.db-journal").unlink()
    is_usable(home)
