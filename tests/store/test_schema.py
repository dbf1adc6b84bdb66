"""The schema: databases of every earlier version, new ones, and many processes that migrate one file at once."""

import contextlib
import itertools
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import sqlite_utils

from edge_agent.core.errors import StorageError
from edge_agent.core.records import CloudKey
from edge_agent.store.schema import DIGEST, MIGRATION_SET, MIGRATIONS, VERSION, digest, migrate, schema_of, texts, version
from edge_agent.store.store import Store
from tests.support import old_databases
from tests.support.mutation import catches
from tests.support.paths import ROOT

RACES = int(os.environ.get("EDGE_AGENT_TEST_RACES", "3"))
PROCESSES = 8
# The columns that each migration adds to older tables, and the tables that it adds.
ADDED_COLUMNS = {
    3: {"outbox": {"put_s", "due_s", "suspicions", "answers_before", "payload", "size_bytes"}},
    4: {"questions": {"asked_s"}, "cloud_answers": {"used_s", "size_bytes"}},
    5: {"decisions": {"end_number"}},
    7: {"cloud_answers": {"api"}},
}
ADDED_TABLES = {3: {"clock", "clouds", "spending"}, 4: {"marks"}, 8: {"calibrations", "audits", "agreements"}}
# The key column of each table, if it is not `id`.
KEYS = {
    "model_files": "path", "questions": "fingerprint", "decisions": "decision_id", "clouds": "endpoint", "marks": "name",
    "calibrations": "sha256",
}  # fmt: skip
Tables = dict[str, dict[object, dict[str, object]]]


def fixture(number: int) -> pathlib.Path:
    return ROOT / "tests" / "data" / f"schema-{number}.db"


def connect(path: pathlib.Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(path, isolation_level=None))


def tables(path: pathlib.Path) -> Tables:
    """Every row of every table of ours."""
    with connect(path) as db:
        db.row_factory = sqlite3.Row
        return {
            table: {row[KEYS.get(table, "id")]: dict(row) for row in db.execute(f"SELECT * FROM {table}")}
            for table in schema_of(version(db)).columns
        }


def marks(db: sqlite3.Connection) -> list[str]:
    """The names in sqlite-utils' table; none if there is no table."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone():
        return []
    return [row[0] for row in db.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = ? ORDER BY id", (MIGRATION_SET,))]


@pytest.fixture(params=[*old_databases.VERSIONS, "made-2"])
def old(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> pathlib.Path:
    """A database of an earlier version; version 2 both as it wrote it and with rows in every table."""
    path = tmp_path / "edge-agent.db"
    if request.param == "made-2":
        old_databases.write(path, 2)
    else:
        shutil.copy(fixture(request.param), path)
    return path


@pytest.mark.parametrize("number", old_databases.VERSIONS)
def test_fixture_has_the_schema_of_its_version(number: int) -> None:
    with connect(fixture(number)) as db:
        assert version(db) == number and texts(db) == schema_of(number).texts and marks(db) == []


@pytest.mark.parametrize("number", old_databases.MADE)
def test_fixture_has_the_rows_of_its_version(number: int) -> None:
    expected = old_databases.rows(number)
    for table, rows in tables(fixture(number)).items():
        assert len(rows) == len(expected[table]) > 0
        for row in expected[table]:
            assert rows[row[KEYS.get(table, "id")]].items() >= row.items()


def renamed(row: dict[str, object]) -> dict[str, object]:
    """A cloud answer of version 1 as version 2 keeps it: the letter is called answer and comes last."""
    kept = json.loads(str(row["answer"]))
    return row | {
        "answer": json.dumps({**{k: v for k, v in kept.items() if k != "letter"}, "answer": kept["letter"]}, separators=(",", ":"))
    }


def test_old_database_keeps_every_row(old: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with connect(old) as db:
        number = version(db)
    before = tables(old)
    with Store(old) as store:
        assert store.database.rows("PRAGMA foreign_key_check") == [] and store.database.rows("PRAGMA integrity_check") == [
            {"integrity_check": "ok"}
        ]
    after = tables(old)
    later = range(number + 1, VERSION + 1)
    assert after.keys() - before.keys() == set().union(*(ADDED_TABLES.get(step, set()) for step in later))
    for table, rows in before.items():
        added = set().union(*(ADDED_COLUMNS.get(step, {}).get(table, set()) for step in later))
        expected = {key: renamed(row) for key, row in rows.items()} if (number, table) == (1, "cloud_answers") else rows
        assert {key: {name: value for name, value in row.items() if name not in added} for key, row in after[table].items()} == expected
    Store(tmp_path / "new.db").close()
    with connect(old) as db, connect(tmp_path / "new.db") as new:
        assert texts(db) == texts(new) and marks(db) == marks(new) == list(MIGRATIONS) and version(db) == version(new) == VERSION


def test_copy_is_kept_before_each_migration(old: pathlib.Path) -> None:
    with connect(old) as db:
        number = version(db)
    before = tables(old)
    Store(old).close()
    copies = {copy.name: copy for copy in old.parent.glob("*.before-schema-*")}
    assert set(copies) == {f"edge-agent.db.before-schema-{step}" for step in range(number + 1, VERSION + 1)}
    for step, copy in zip(range(number + 1, VERSION + 1), sorted(copies.values()), strict=True):
        assert copy.stat().st_mode & 0o777 == 0o600
        with connect(copy) as db:
            assert version(db) == step - 1 and texts(db) == schema_of(step - 1).texts
    assert tables(copies[f"edge-agent.db.before-schema-{number + 1}"]) == before


@pytest.mark.parametrize("number", old_databases.MADE)
def test_old_question_and_its_cloud_answer_are_read_as_they_were_written(tmp_path: pathlib.Path, number: int) -> None:
    shutil.copy(fixture(number), tmp_path / "edge-agent.db")
    question = old_databases.QUESTIONS["sent and upheld"]
    with Store(tmp_path / "edge-agent.db") as store:
        found = store.cloud_answer(CloudKey(question.fingerprint, "big", old_databases.ENDPOINT, 1))
        assert found and found[1].answer == "A" and store.question(question.fingerprint) == question


@pytest.mark.parametrize(("number", "n_endings", "last"), [(1, 2, 2), (2, 2, 2), (3, 5, 5), (4, 5, 5), (5, 5, 9), (6, 5, 9)])
def test_old_endings_are_read_as_they_were_written(tmp_path: pathlib.Path, number: int, n_endings: int, last: int) -> None:
    shutil.copy(fixture(number), tmp_path / "edge-agent.db")
    with Store(tmp_path / "edge-agent.db") as store:
        endings = [ending.ending for ending in store.endings(0)]
        assert endings[:2] == ["upheld", "overturned"] and (len(endings), store.last_end()) == (n_endings, last)


def test_new_file_lists_its_migrations_like_sqlite_utils(tmp_path: pathlib.Path) -> None:
    Store(tmp_path / "edge-agent.db").close()
    db, theirs = sqlite_utils.Database(tmp_path / "edge-agent.db"), sqlite_utils.Database(memory=True)
    ours = sqlite_utils.Migrations(MIGRATION_SET)
    for name in MIGRATIONS:
        ours(name=name)(lambda db: None)
    assert ours.pending(db) == [] and [migration.name for migration in ours.applied(db)] == list(MIGRATIONS)
    ours.ensure_migrations_table(theirs)
    query = "SELECT name, sql FROM sqlite_master WHERE tbl_name = '_sqlite_migrations' AND sql IS NOT NULL"
    assert list(db.query(query)) == list(theirs.query(query))
    db.close()
    theirs.close()


def test_digest_matches_the_schema(tmp_path: pathlib.Path) -> None:
    assert digest(schema_of(VERSION).texts) == DIGEST
    Store(tmp_path / "edge-agent.db").close()
    with connect(tmp_path / "edge-agent.db") as db:
        assert digest(texts(db)) == DIGEST


OPEN = """
import os, pathlib, sys
from edge_agent.store.store import Store
store = Store(pathlib.Path(sys.argv[1]))
print("sqlite_utils" in sys.modules)
sys.stdout.flush()
if sys.argv[2:]:
    os.kill(os.getpid(), 9)
store.close()
"""


def opened(path: pathlib.Path, *more: str) -> str:
    done = subprocess.run([sys.executable, "-c", OPEN, str(path), *more], capture_output=True, text=True, check=False)
    assert done.returncode == (-signal.SIGKILL if more else 0), done.stderr
    return done.stdout.strip()


def test_only_an_older_file_needs_sqlite_utils(tmp_path: pathlib.Path) -> None:
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    shutil.copy(fixture(5), old)
    assert opened(new) == "False" and opened(new, "killed") == "False" and opened(new) == "False"
    assert opened(old) == "True" and opened(old) == "False"


def by_migrate(path: pathlib.Path) -> None:
    """Without the marker, which would let one process finish before the others."""
    with connect(path) as db:
        db.execute("PRAGMA busy_timeout = 30000")
        migrate(db, path)


def by_store(path: pathlib.Path) -> None:
    Store(path).close()


def together(path: pathlib.Path, operation: Callable[[pathlib.Path], None]) -> int:
    """Run the operation in several processes at once; returns how many fail."""
    start, children = time.monotonic() + 0.05, []
    for _ in range(PROCESSES):
        child = os.fork()
        if child == 0:
            failed = 1
            with contextlib.suppress(BaseException):
                time.sleep(max(0.0, start - time.monotonic()))
                operation(path)
                failed = 0
            os._exit(failed)
        children.append(child)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


@pytest.mark.parametrize("operation", [by_migrate, by_store])
@pytest.mark.parametrize("number", [0, *old_databases.VERSIONS])
def test_many_processes_can_open_one_file_at_once(tmp_path: pathlib.Path, number: int, operation: Callable[[pathlib.Path], None]) -> None:
    for race in range(RACES):
        path = tmp_path / f"{race}" / "edge-agent.db"
        path.parent.mkdir()
        if number:
            shutil.copy(fixture(number), path)
        before = tables(path) if number else {}
        assert together(path, operation) == 0
        with connect(path) as db:
            assert marks(db) == list(MIGRATIONS) and digest(texts(db)) == DIGEST
        after = tables(path)
        assert all(after[table].keys() == rows.keys() for table, rows in before.items())


class TwoAtOnce(sqlite3.Connection):
    """Before the first BEGIN, another process brings the file up to date."""

    path: pathlib.Path
    done = False

    def execute(self, sql: str, *more: object) -> sqlite3.Cursor:
        if sql.startswith("BEGIN") and not self.done:
            self.done = True
            by_migrate(self.path)
        return super().execute(sql, *more)


class AsksBefore(TwoAtOnce):
    """Mutant: inside the transaction, trusts what it read before it."""

    first_read: tuple[int] | None = None

    def execute(self, sql: str, *more: object) -> sqlite3.Cursor:
        if sql == "PRAGMA user_version":
            self.first_read = self.first_read or super().execute(sql, *more).fetchone()
            return super().execute(f"SELECT {self.first_read[0]}")
        return super().execute(sql, *more)


@catches(TwoAtOnce, AsksBefore, fails_with=sqlite3.Error)
def test_pending_migrations_are_checked_again_inside_the_transaction(part, tmp_path: pathlib.Path) -> None:
    for number in (0, 1, 5):
        path = tmp_path / f"{number}.db"
        if number:
            shutil.copy(fixture(number), path)
        db = sqlite3.connect(path, isolation_level=None, factory=part)
        db.path = path
        try:
            migrate(db, path)
            assert version(db) == VERSION and marks(db) == list(MIGRATIONS)
        finally:
            db.close()


def test_newer_schema_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    Store(path).close()
    with connect(path) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(StorageError, match=f"has schema {VERSION + 1}, but this edge-agent knows only up to {VERSION}; update edge-agent"):
        Store(path)


def test_sqlite_that_is_too_old_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    with connect(path) as db:
        with pytest.raises(StorageError, match=r"needs SQLite 3\.37 or newer, but this Python has 3\.36\.0; use a newer Python"):
            migrate(db, path, sqlite_version=(3, 36, 0))
        assert version(db) == 0
        migrate(db, path, sqlite_version=(3, 37, 0))
        migrate(db, path, sqlite_version=(3, 36, 0))  # nothing to do


def test_dangling_reference_stops_the_migration(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    shutil.copy(fixture(4), path)
    with connect(path) as db:
        db.execute("DELETE FROM questions WHERE stem = 'waiting'")
    with pytest.raises(StorageError, match="refers to a missing row; restore a backup"):
        Store(path)
    with connect(path) as db:
        assert version(db) == 4 and marks(db) == []


@pytest.mark.parametrize("start", old_databases.VERSIONS)
def test_failed_statement_leaves_the_file_as_it_was(tmp_path: pathlib.Path, start: int) -> None:
    """An error at any statement is rolled back, with the migration's name and number."""
    for at in itertools.count():
        path = tmp_path / "edge-agent.db"
        shutil.copy(fixture(start), path)

        class Fails(sqlite3.Connection):
            count, at = 0, 0

            def execute(self, sql: str, *more: object) -> sqlite3.Cursor:
                self.count += 1
                if self.count == self.at:
                    error = sqlite3.OperationalError("disk I/O error")
                    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                    raise error
                return super().execute(sql, *more)

        db = sqlite3.connect(path, isolation_level=None, factory=Fails)
        db.at = at + 1
        try:
            migrate(db, path)
            break
        except sqlite3.OperationalError:
            pass
        finally:
            db.close()
        with connect(path) as db:
            number = version(db)
            assert start <= number <= VERSION and texts(db) == schema_of(number).texts
            assert marks(db) == ([] if number == start else list(MIGRATIONS)[:number])
    assert at > 20 * (VERSION - start)


def test_copy_before_a_migration_is_kept_for_each_file_and_once(tmp_path: pathlib.Path) -> None:
    """A person restores another old file later: its copy does not replace the first, and is not left out either."""
    path = tmp_path / "edge-agent.db"
    first = f"{path.name}.before-schema-{VERSION}"
    for number, change in enumerate((None, None, "UPDATE questions SET stem = stem || '!'")):
        shutil.copy(fixture(VERSION - 1), path)
        if change:
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
                db.execute(change)
        Store(path).close()
        assert len(list(tmp_path.glob("*.before-schema-*"))) == (2 if number == 2 else 1)
    stems = []
    for name in (first, f"{first}-2"):
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as db:
            stems.append(db.execute("SELECT stem FROM questions ORDER BY rowid LIMIT 1").fetchone()[0])
    assert stems[1] == stems[0] + "!"
