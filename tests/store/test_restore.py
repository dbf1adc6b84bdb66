"""A backup takes the place of the database, whatever lies beside it."""

import json
import os
import pathlib
import shutil
import signal
import sqlite3
from contextlib import closing

import pytest

from edge_agent.cloud.queue import Outbox
from edge_agent.core.errors import StorageBusy, StorageError
from edge_agent.core.question import Question
from edge_agent.store.export import backup
from edge_agent.store.file.restore import Restored, restore
from edge_agent.store.forget import purge
from edge_agent.store.schema import VERSION
from edge_agent.store.store import Store
from tests.support.command_line import ASK, run
from tests.support.damage import damage
from tests.support.paths import ROOT


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "data" / "edge-agent.db"


def put(path: pathlib.Path, *stems: str) -> None:
    with Store(path) as store, store.transaction():
        for stem in stems:
            store.put_question(Question(stem, ("a", "b")))
            Outbox(store).put(Question(stem, ("a", "b")))


def stems(path: pathlib.Path) -> list[str]:
    with Store(path) as store:
        assert store.database.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
        return [row["stem"] for row in store.database.rows("SELECT stem FROM questions ORDER BY rowid")]


def saved(path: pathlib.Path) -> pathlib.Path:
    """A backup of one question; the database then has another one."""
    put(path, "old")
    copy = path.with_name("copy.db")
    with Store(path) as store:
        backup(store, copy)
    put(path, "new")
    return copy


def killed_in_a_write(path: pathlib.Path) -> None:
    """A process dies in the middle of a transaction that has reached the file: its journal must be applied."""
    child = os.fork()
    if child == 0:
        store = Store(path)
        store.database.rows("PRAGMA cache_spill = 1")
        store.database.rows("PRAGMA cache_size = 1")
        with store.transaction() as db:
            for n in range(300):
                db.execute("INSERT INTO questions (fingerprint, stem, options) VALUES (?, ?, '[]')", (f"f{n}", "x" * 2000))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def test_restored_backup_replaces_the_database_which_is_kept(path: pathlib.Path) -> None:
    copy = saved(path)
    before = copy.read_bytes()
    found = restore(path, copy)
    assert found == Restored(1, 0, 1, VERSION, found.kept) and stems(path) == ["old"] and copy.read_bytes() == before
    assert found.kept and stems(path.with_name(found.kept)) == ["old", "new"] and path.stat().st_mode & 0o777 == 0o600


def test_stale_journal_does_not_undo_a_restore(path: pathlib.Path) -> None:
    copy = saved(path)
    killed_in_a_write(path)
    journal = path.with_name("edge-agent.db-journal")
    assert journal.stat().st_size > 512
    kept = restore(path, copy).kept
    assert stems(path) == ["old"]
    assert kept and stems(path.with_name(kept)) == ["old", "new"]  # what was kept is complete: its journal was applied


def test_backup_copied_over_the_database_by_hand_is_not_undone(path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    copy = saved(path)
    killed_in_a_write(path)
    shutil.copyfile(copy, path)  # as cp does: the journal of the old file stays beside the new one
    assert stems(path) == ["old"] and "was copied over the database" in caplog.text
    assert not list(path.parent.glob("*.damaged-*")) and len(list(path.parent.glob("*.replaced-*-journal"))) == 1
    caplog.clear()
    killed_in_a_write(path)
    assert stems(path) == ["old"] and not caplog.text  # the file's own journal is applied


def test_restore_without_a_database_and_over_a_damaged_one(path: pathlib.Path) -> None:
    copy = saved(path)
    path.unlink()
    assert restore(path, copy).kept is None and stems(path) == ["old"]
    damage(path, "questions")
    assert restore(path, copy).kept and stems(path) == ["old"]


def test_older_backup_is_migrated_by_the_next_start(path: pathlib.Path) -> None:
    put(path, "new")
    assert restore(path, ROOT / "tests" / "data" / "schema-3.db").schema == 3
    assert len(stems(path)) == 10


def test_backup_with_its_own_journal_is_restored_complete(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A person copied the files of a running database by hand."""
    put(path, "old")
    killed_in_a_write(path)
    shutil.copytree(path.parent, tmp_path / "stick")
    other = tmp_path / "other" / "edge-agent.db"
    put(other, "new")
    restore(other, tmp_path / "stick" / "edge-agent.db")
    assert stems(other) == ["old"]


def refusals(path: pathlib.Path, tmp_path: pathlib.Path) -> dict[str, pathlib.Path]:
    copy = saved(path)
    made = {name: tmp_path / name for name in ("broken", "text", "stranger", "newer", "empty")}
    shutil.copy(copy, made["broken"])
    damage(made["broken"], "questions")
    made["text"].write_text("somebody's notes")
    made["empty"].touch()
    with closing(sqlite3.connect(made["stranger"])) as db:
        db.execute("CREATE TABLE t (x)")
    shutil.copy(copy, made["newer"])
    with closing(sqlite3.connect(made["newer"], isolation_level=None)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    return {**made, "missing": tmp_path / "missing", "folder": tmp_path, "itself": path}


def test_what_is_no_sound_backup_is_refused_and_nothing_changes(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    words = {
        "broken": "is damaged", "text": "is not a database of edge-agent", "stranger": "is not a database of edge-agent",
        "empty": "is not a database of edge-agent", "newer": "update edge-agent", "missing": "There is no backup",
        "folder": "There is no backup", "itself": "is the database itself",
    }  # fmt: skip
    for name, file in refusals(path, tmp_path).items():
        before = path.read_bytes()
        with pytest.raises(StorageError, match=words[name]):
            restore(path, file)
        assert path.read_bytes() == before and stems(path) == ["old", "new"], name
    assert not list(path.parent.glob("*.replaced-*")) and not list(path.parent.glob(".edge-agent-*"))


def test_restore_over_a_strangers_file_is_refused(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = saved(path)
    stranger = tmp_path / "stranger.db"
    stranger.write_text("somebody's notes, and no database")
    with pytest.raises(StorageError, match="not a database of edge-agent and was not changed"):
        restore(stranger, copy)
    assert stranger.read_text().startswith("somebody")


def test_restore_is_refused_while_the_database_is_in_use(path: pathlib.Path) -> None:
    copy = saved(path)
    with Store(path), pytest.raises(StorageBusy, match="in use by another process"):
        restore(path, copy)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:  # a program without a marker
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageBusy):
            restore(path, copy)
    assert stems(path) == ["old", "new"]
    restore(path, copy)
    assert stems(path) == ["old"]


def test_purge_removes_the_replaced_database_unless_a_question_waits_only_there(path: pathlib.Path) -> None:
    copy = saved(path)
    kept = str(restore(path, copy).kept)
    with Store(path) as store:
        purged = purge(store, older_than_s=1e9)
    assert purged.kept == (kept,) and purged.copies == () and stems(path.with_name(kept)) == ["old", "new"]
    with Store(path.with_name(kept)) as store:
        Outbox(store).drop(2)
    with Store(path) as store:
        purged = purge(store, older_than_s=1e9)
    assert kept in purged.copies and purged.kept == () and not path.with_name(kept).exists()


def test_command_restores_and_says_what_it_kept(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert run(*ASK).returncode == 0
    assert run("backup", str(tmp_path / "copy.db")).returncode == 0
    assert run("ask", "What is 2 + 2?", "--option", "3", "--option", "4").returncode == 0
    done = run("restore", str(tmp_path / "copy.db"), "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["decisions"] == 1 and (home / found["kept"]).exists()
    assert len(json.loads(run("log", "--json").stdout)) == 1
    done = run("restore", str(tmp_path / "nothing"))
    assert done.returncode == 74 and len(done.stderr.splitlines()) == 1
