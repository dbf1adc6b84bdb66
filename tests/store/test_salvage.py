"""A damaged file is noticed and set aside, and its rows are saved."""

import contextlib
import os
import pathlib
import shutil
import signal
import sqlite3

import pytest

from edge_agent.cloud.queue import Outbox
from edge_agent.core.errors import StorageError
from edge_agent.core.question import Question
from edge_agent.core.records import CloudAnswer, CloudKey, Reading, ReadingKey, Timings
from edge_agent.store.file import salvage
from edge_agent.store.forget import purge
from edge_agent.store.schema import VERSION, schema_of
from edge_agent.store.store import Store
from tests.support import old_databases
from tests.support.damage import damage
from tests.support.paths import ROOT

QUESTION = Question("Q", ("a", "b"))
READING = Reading(
    levels=("0.0", "1.0"), level_probs=(0.1, 0.9), level="1.0", format_mass=0.5, letters="AB", answer_probs=(0.25, 0.75), letter="B",
    timings=Timings(),
)  # fmt: skip
ANSWER = CloudAnswer("B", "B!", "big", 12.5, 9, 1)


def change(path: pathlib.Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        for sql in statements:
            db.execute(sql)


def place(path: pathlib.Path, number: int) -> None:
    """Put a sound database of a schema version at `path`."""
    shutil.copy(ROOT / "tests" / "data" / f"schema-{min(number, VERSION - 1)}.db", path)
    if number == VERSION:
        Store(path).close()
        for copy in path.parent.glob("*.before-schema-*"):
            copy.unlink()


def is_replaced(path: pathlib.Path) -> bool:
    """Whether opening the file sets it aside; either way the questions are still there afterwards."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        stems = {stem for (stem,) in db.execute("SELECT stem FROM questions")}
    with Store(path) as store:
        assert {row["stem"] for row in store.database.rows("SELECT stem FROM questions")} == stems
        assert (
            store.database.rows("PRAGMA user_version") == [{"user_version": VERSION}]
            and store.database.rows("PRAGMA foreign_key_check") == []
        )
    return bool(list(path.parent.glob("edge-agent.db.damaged-*")))


def test_every_table_is_saved_or_named_as_not_saved() -> None:
    assert sorted((*salvage.SAVED, *salvage.NOT_SAVED)) == sorted(schema_of(VERSION).columns)


@pytest.mark.parametrize(
    ("number", "claimed"), [(VERSION, n) for n in range(VERSION)] + [(n, n - 1) for n in old_databases.VERSIONS if n > 2]
)  # fmt: skip
def test_schema_number_that_is_too_low_is_damage(tmp_path: pathlib.Path, number: int, claimed: int) -> None:
    """A flipped bit in it: SQLite then says "already exists" or "duplicate column name", or nothing at all."""
    path = tmp_path / "edge-agent.db"
    place(path, number)
    change(path, f"PRAGMA user_version = {claimed}")
    assert is_replaced(path)


@pytest.mark.parametrize(("number", "claimed"), [(4, 5), (4, VERSION), (5, VERSION)])
def test_schema_number_that_is_too_high_is_damage(tmp_path: pathlib.Path, number: int, claimed: int) -> None:
    path = tmp_path / "edge-agent.db"
    place(path, number)
    change(path, f"PRAGMA user_version = {claimed}")
    assert is_replaced(path)


def rows(path: pathlib.Path) -> dict[str, list[dict[str, object]]]:
    """All saved rows of a file, without the times that forgetting uses, and without the mark of what was set aside."""
    with Store(path) as store:
        found = {table: store.database.rows(f"SELECT * FROM {table} ORDER BY 1") for table in salvage.SAVED}
    found["marks"] = [row for row in found["marks"] if not row["name"].startswith(salvage.READ)]
    return {table: [{k: v for k, v in row.items() if k not in ("asked_s", "used_s")} for row in rows] for table, rows in found.items()}


@pytest.mark.parametrize("number", [*old_databases.VERSIONS, VERSION])
def test_damaged_file_of_an_older_version_keeps_its_sound_rows(tmp_path: pathlib.Path, number: int) -> None:
    """Above all its queue: a damaged page elsewhere does not lose a queued question."""
    path, sound = tmp_path / "edge-agent.db", tmp_path / "sound" / "edge-agent.db"
    sound.parent.mkdir()
    for copy in (path, sound):
        place(copy, number)
    damage(path, "model_files")
    (tmp_path / "edge-agent.db.open").write_text("damaged 0 0")
    assert rows(path) == rows(sound) and rows(sound)["outbox"]
    assert list(tmp_path.glob("edge-agent.db.damaged-*")) and not list(sound.parent.glob("*.damaged-*"))


def test_damaged_page_of_an_older_version_loses_its_rows_and_those_that_refer_to_them(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    place(path, 3)
    damage(path, "cloud_answers")
    (tmp_path / "edge-agent.db.open").write_text("damaged 0 0")
    found = rows(path)
    assert found["cloud_answers"] == [] and len(found["outbox"]) == 7 and len(found["questions"]) == 10
    assert found["decisions"] and all(row["cloud_answer_id"] is None for row in found["decisions"])


@pytest.mark.parametrize(
    "statement", ["DROP TABLE clouds", "DROP INDEX outbox_waiting", "DROP VIEW queue_readable", "ALTER TABLE outbox RENAME put_s TO pUt_s"]
)
def test_incomplete_schema_is_damage(tmp_path: pathlib.Path, statement: str) -> None:
    path = tmp_path / "edge-agent.db"
    place(path, VERSION)
    change(path, statement)
    assert is_replaced(path)


@pytest.mark.parametrize(("table", "was", "now"), [("marks", "name TEXT", "oame TEXT"), ("outbox", " put_s", " p5t_s")])
def test_rows_under_a_damaged_column_name_are_saved(tmp_path: pathlib.Path, table: str, was: str, now: str) -> None:
    path, sound = tmp_path / "edge-agent.db", tmp_path / "sound" / "edge-agent.db"
    sound.parent.mkdir()
    for copy in (path, sound):
        place(copy, VERSION)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        assert db.execute("UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = ?", (was, now, table)).rowcount == 1
    assert rows(path) == rows(sound) and rows(sound)[table]
    assert list(tmp_path.glob("edge-agent.db.damaged-*"))


def test_rows_without_their_key_are_not_saved(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    place(path, VERSION)
    change(path, "CREATE TABLE x AS SELECT value FROM marks", "DROP TABLE marks", "ALTER TABLE x RENAME TO marks")
    assert rows(path)["marks"] == []


def test_what_a_person_adds_is_not_damage(tmp_path: pathlib.Path) -> None:
    """Not even when the whole file is checked after a power cut."""
    path = tmp_path / "edge-agent.db"
    place(path, VERSION)
    change(path, "CREATE VIEW mine AS SELECT question FROM decisions_readable", "CREATE INDEX by_reason ON decisions (reason)",
           "CREATE TABLE notes (text)", "INSERT INTO notes VALUES ('kept')")  # fmt: skip
    child = os.fork()
    if child == 0:
        Store(path)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert not is_replaced(path)
    with Store(path) as store:
        assert (
            store.database.rows("SELECT text FROM notes") == [{"text": "kept"}]
            and len(store.database.rows("SELECT question FROM mine")) > 0
        )


def test_json_that_a_migration_cannot_read_is_damage(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    place(path, 1)
    change(path, "UPDATE cloud_answers SET answer = replace(answer, '{', '<') WHERE id = 2")
    assert is_replaced(path)


def test_error_outside_the_file_sets_nothing_aside(tmp_path: pathlib.Path) -> None:
    """No space, no permission, a lock: the file stays where it is."""
    path = tmp_path / "edge-agent.db"
    place(path, 5)
    whole = path.read_bytes()
    for code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CONSTRAINT):

        class Fails(salvage.Connection):
            number = code

            def execute(self, sql: str, *more: object) -> sqlite3.Cursor:
                if sql.startswith("\n    CREATE VIEW"):
                    error = sqlite3.OperationalError("no such luck: it already exists, locked")
                    error.sqlite_errorcode = self.number
                    raise error
                return super().execute(sql, *more)

        with pytest.raises(StorageError, match=r"no such luck|in use by another program"):
            Store(path, connection=Fails)
        assert path.read_bytes() == whole and not list(tmp_path.glob("*damaged*"))


def test_sqlite_errors_are_classified(tmp_path: pathlib.Path) -> None:
    """Using errors that SQLite really raises."""

    def error(*statements: str) -> sqlite3.Error:
        with contextlib.closing(salvage.Connection(tmp_path / "x.db", isolation_level=None, timeout=0)) as db:
            try:
                for sql in statements:
                    db.execute(sql)
            except sqlite3.Error as raised:
                return raised
        raise AssertionError(statements)

    def kind(raised: sqlite3.Error) -> tuple[bool, bool]:
        return salvage.is_damage(raised), salvage.is_wrong_schema(raised)

    change(tmp_path / "x.db", "CREATE TABLE t (x UNIQUE)", "INSERT INTO t VALUES (1)")
    for sql in (
        "SELECT * FROM u",
        "SELECT y FROM t",
        "CREATE TABLE t (x)",
        "ALTER TABLE t ADD COLUMN x",
        "SELECT json_extract('{', '$.a')",
    ):
        assert kind(error(sql)) == (False, True)
    assert kind(error("INSERT INTO t VALUES (1)")) == (False, False)
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert kind(error("SELECT * FROM t")) == (False, False)
    assert kind(sqlite3.ProgrammingError("Cannot operate on a closed database.")) == (False, False)  # raised by Python, without a code
    damage(tmp_path / "x.db", "t")
    assert kind(error("SELECT * FROM t")) == (True, False)
    (tmp_path / "x.db").write_bytes(b"not a database" * 100)
    assert kind(error("SELECT * FROM t")) == (True, False)


def test_damaged_file_is_set_aside_unchanged_and_its_sound_rows_are_saved(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "edge-agent.db"
    with Store(path) as store, store.transaction():
        store.put_question(QUESTION)
        store.put_reading(ReadingKey(QUESTION.fingerprint, "m", "", "p"), READING)
        store.put_cloud_answer(CloudKey(QUESTION.fingerprint, "big", "https://x", 1), ANSWER)
        Outbox(store).put(QUESTION)
    damage(path, "readings")
    whole = path.read_bytes()
    with Store(path) as store:
        with pytest.raises(StorageError):
            store.reading(ReadingKey(QUESTION.fingerprint, "m", "", "p"))
        assert store.database.renew() and not store.database.renew()
        assert store.question(QUESTION.fingerprint) == QUESTION
        assert store.cloud_answer(CloudKey(QUESTION.fingerprint, "big", "https://x", 1)) == (1, ANSWER)
        assert [row.state for row in Outbox(store).list()] == ["ready"]
        assert store.reading(ReadingKey(QUESTION.fingerprint, "m", "", "p")) is None
    (aside,) = tmp_path.glob("edge-agent.db.damaged-*")
    assert aside.read_bytes() == whole
    assert (
        "was damaged" in caplog.text and str(aside) in caplog.text and "1 questions, 0 readings, 1 cloud answers, 1 outbox" in caplog.text
    )


def test_file_is_checked_only_after_an_unclean_end(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    Store(path).close()
    marker = tmp_path / "edge-agent.db.open"
    assert marker.read_text().startswith("closed") and marker.stat().st_mode & 0o777 == 0o600
    seen: list[str] = []

    class Recording(sqlite3.Connection):
        def execute(self, sql: str, *more: object) -> sqlite3.Cursor:
            seen.append(sql)
            return super().execute(sql, *more)

    Store(path, connection=Recording).close()
    assert not any("quick_check" in sql for sql in seen)
    child = os.fork()
    if child == 0:
        Store(path)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with Store(path, connection=Recording):
        assert any("quick_check" in sql for sql in seen)
        seen.clear()
        Store(path, connection=Recording).close()
        assert not any("quick_check" in sql for sql in seen)  # another process has it open, so there was no unclean end
        assert marker.read_text().startswith("open")


def test_damaged_file_that_others_have_open_is_not_moved(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    with Store(path) as other:
        path.write_bytes(b"x" * 100 + path.read_bytes()[100:])
        with pytest.raises(StorageError, match="close the other programs"):
            Store(path)
        assert [p.name for p in tmp_path.glob("*damaged*")] == [] and other.path.exists()


@pytest.mark.parametrize("cut", [0, 10, 50, 80, 4096, 5000])
def test_marker_recognises_our_file_without_its_header(tmp_path: pathlib.Path, cut: int) -> None:
    path = tmp_path / "edge-agent.db"
    Store(path).close()
    os.truncate(path, cut)
    with Store(path) as store:
        store.database.check_writable()
    assert len(list(tmp_path.glob("edge-agent.db.damaged-*"))) == 1


def test_salvaged_decisions_keep_their_order(tmp_path: pathlib.Path) -> None:
    """Those after a damaged page are read from the end, and still come after those before it."""
    path = tmp_path / "edge-agent.db"
    with Store(path) as store, store.transaction():
        store.put_question(QUESTION)
        for number in range(200):
            store.put_decision(
                {"decision_id": f"D{number}", "created_at": 1.0, "fingerprint": QUESTION.fingerprint, "rule_version": 2, "policy": "{}",
                 "circumstances": "{}", "answer": "A", "route": "local", "reason": "confident", "deferred": 0, "recalled": 0,
                 "provisional": 0}
            )  # fmt: skip
    data = path.read_bytes()
    (page,) = [at for at in range(0, len(data), 4096) if data[at] == 0x0D and b"D100" in data[at : at + 4096]]  # 0x0D: a table's leaf
    path.write_bytes(data[:page] + b"\xee" * 4096 + data[page + 4096 :])
    (tmp_path / "edge-agent.db.open").write_text("damaged")
    with Store(path) as store:
        numbers = [int(row["decision_id"][1:]) for row in store.log(200)]
    assert len(numbers) > 100 and numbers == sorted(numbers, reverse=True) and numbers[0] == 199 and numbers[-1] == 0


def queue_of_60(path: pathlib.Path) -> None:
    with Store(path) as store:
        for number in range(60):
            question = Question(f"question {number} {'x' * 300}", ("a", "b"))
            with store.transaction():
                store.put_question(question)
                Outbox(store).put(question)
    data = bytearray(path.read_bytes())
    data[39 * 4096 : 43 * 4096] = b"\xee" * 4 * 4096  # pages 40 to 43
    path.write_bytes(data)


def n_waiting(path: pathlib.Path) -> int:
    with Store(path) as store:
        return Outbox(store).count("ready")


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_salvage_is_done_again(tmp_path: pathlib.Path, signal_number: int, caplog: pytest.LogCaptureFixture) -> None:
    """Stopped while the copy is being read: the next start has the queue, and says that the database was damaged."""
    path, other = tmp_path / "edge-agent.db", tmp_path / "other" / "edge-agent.db"
    other.parent.mkdir()
    queue_of_60(path)
    shutil.copy(path, other)
    for file in (path, other):
        file.with_name("edge-agent.db.open").write_text("damaged 0 0")
    expected = n_waiting(other)
    assert expected > 30
    caplog.clear()

    class Stopped(salvage.Connection):
        def execute(self, sql: str, *more: object) -> sqlite3.Cursor:
            if sql.startswith("INSERT OR IGNORE INTO outbox"):
                os.kill(os.getpid(), signal_number)
            return super().execute(sql, *more)

    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        Store(path, connection=Stopped)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]) and list(tmp_path.glob(".edge-agent-*.part"))
    assert n_waiting(path) == expected and "was damaged" in caplog.text
    assert not list(tmp_path.glob(".edge-agent-*.part")) and len(list(tmp_path.glob("*.damaged-*"))) == 1


def test_file_that_an_older_version_set_aside_unread_is_picked_up(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """It moved the file first and copied its rows afterwards."""
    path = tmp_path / "edge-agent.db"
    queue_of_60(path)
    aside = path.rename(tmp_path / "edge-agent.db.damaged-20260101-000000")
    assert n_waiting(path) > 30 and "was interrupted" in caplog.text and str(aside) in caplog.text
    with Store(path) as store:  # read once, even when everything is forgotten since
        for row in Outbox(store).list("ready"):
            Outbox(store).drop(row.queue_id)
        purge(store, older_than_s=0)
    assert not aside.exists() and n_waiting(path) == 0


def test_purge_keeps_what_was_set_aside_while_it_is_the_only_copy(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    queue_of_60(path)
    aside = path.rename(tmp_path / "edge-agent.db.damaged-20260101-000000")
    moved = aside.rename(tmp_path / "elsewhere")
    with Store(path) as store, store.transaction():
        store.put_question(QUESTION)
        Outbox(store).put(QUESTION)
    moved.rename(aside)
    with Store(path) as store:
        purged = purge(store, older_than_s=0)
    assert purged.kept == (aside.name,) and aside.exists()


def test_full_disk_leaves_the_damaged_file_for_the_next_start(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "edge-agent.db"
    queue_of_60(path)
    (tmp_path / "edge-agent.db.open").write_text("damaged 0 0")
    whole = path.read_bytes()
    child = os.fork()
    if child == 0:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        try:
            Store(path)
        except StorageError as error:
            os._exit(7 if "cannot be saved now" in str(error) and "free some space" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert path.read_bytes() == whole and not list(tmp_path.glob("*.damaged-*"))
    assert n_waiting(path) > 30
