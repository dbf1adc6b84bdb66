"""Opens the one SQLite file: creates it, checks it, brings it up to date, and repairs it.

Owns the connection's settings, the order of a start, and what happens to a damaged file. Knows nothing about transactions or rows.
Invariants: a file that is not ours is never written to; a damaged file stays at its path until another has every row that can be
saved, so a start may be cut short anywhere.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
import sqlite3
from collections.abc import Callable

from edge_agent.core.errors import StorageError
from edge_agent.core.files import put_in_place, sweep_leftovers, temporary_folder
from edge_agent.store.file import replacement
from edge_agent.store.file.marker import Marker, identity_of, refuse_foreign
from edge_agent.store.file.salvage import Connection, is_damage, is_wrong_schema, refused, save_rows, unread, what_is_wrong
from edge_agent.store.schema import APPLICATION_ID, migrate, version

_log = logging.getLogger("edge_agent")
BUSY_TIMEOUT_MS = 5000  # how long a step waits for another program's lock


class Opening:
    """One start: `open` returns the connection, and then this process shares the marker. `factory` is `Database`'s `connection`."""

    def __init__(self, path: pathlib.Path, marker: Marker, factory: type[sqlite3.Connection] | None = None) -> None:
        self._path, self._marker, self._factory = path, marker, factory or Connection

    def open(self) -> sqlite3.Connection:
        """Open the file: create it if it is missing; replace it by what can be saved if it is damaged and no other process has it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            while True:
                suspect = refuse_foreign(self._path, self._marker)
                self._marker.take()
                try:
                    db = self._open_alone(suspect) if self._marker.alone else self._open_beside_others()
                    opened = identity_of(self._path)
                    self._marker.share()
                    if identity_of(self._path) == opened:
                        db.execute("PRAGMA busy_timeout = 0")  # from here on `Database` waits
                        return db
                except BaseException:
                    self._marker.forget()
                    raise
                db.close()  # replaced in the moment before the marker was shared
                self._marker.forget()
        except sqlite3.Error as error:
            raise refused(self._path, error) from error
        except OSError as error:
            raise StorageError(
                f"The database '{self._path}' cannot be used ({error.strerror or error}); check the folder and its free space."
            ) from error

    def _open_beside_others(self) -> sqlite3.Connection:
        self._create()  # only if a person has removed it under the others
        db, wrong = self._connect(suspect=False, check=None)
        if wrong is None:
            return db
        db.close()
        raise StorageError(
            f"The database '{self._path}' is damaged ({wrong}); close the other programs that use it, then start this one again."
        )

    def _open_alone(self, suspect: bool) -> sqlite3.Connection:
        """Open the file while no other process can: finish what a crash interrupted, check the file, and replace a damaged one."""
        sweep_leftovers(self._path.parent)
        if aside := replacement.finish(self._path):
            suspect = False
            why = "was damaged; repairing it" if f".{replacement.DAMAGED}-" in aside.name else "was to be replaced by a backup; that"
            _log.error("edge-agent: the database '%s' %s was interrupted and is finished now. The old file is '%s'.",
                       self._path, why, aside)  # fmt: skip
        if journal := replacement.set_stale_journal_aside(self._path):
            _log.error("edge-agent: another file was copied over the database '%s' after a crash. The journal of the old file was moved to "
                       "'%s', so that it undoes nothing; next time use `edge-agent restore`.", self._path, journal)  # fmt: skip
        if not suspect:
            self._create()
        db, wrong = self._connect(suspect, self._check(suspect))
        if wrong is not None:
            db.close()
            self._rebuild(wrong)
            db, _ = self._connect(suspect=False, check=None)
        try:
            self._read_what_was_set_aside(db)
        except BaseException:
            db.close()
            raise
        return db

    def _rebuild(self, wrong: str) -> None:
        """Save the rows of the damaged file in a new one, then replace it.

        A crash, a full disk or any other failure before that leaves the damaged file at its path, and the next start tries again.
        """
        aside = replacement.new_name(self._path, replacement.DAMAGED)
        try:
            with temporary_folder(beside=self._path) as folder:
                found: list[tuple[dict[str, int], str]] = []
                finished = folder / "new"
                self._new_file(finished, lambda db: found.append(save_rows(self._path, db, aside)))
                replacement.begin(self._path, finished, aside)
            saved, why = found[0]
            _log.error("edge-agent: the database '%s' was damaged (%s%s). It was moved to '%s'; a new one starts with %s.",
                       self._path, wrong, why and f"; nothing could be saved: {why}", aside, _counts(saved))  # fmt: skip
            replacement.finish(self._path)
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"The database '{self._path}' is damaged ({wrong}), and its rows cannot be saved now ({error}); it was not changed: "
                "free some space, and the next start tries again."
            ) from error

    def _read_what_was_set_aside(self, db: sqlite3.Connection) -> None:
        """Save the rows of a file that an interrupted start had set aside, if this database has no question yet."""
        for aside in unread(self._path, db):
            saved, _ = save_rows(aside, db, aside)
            if saved["questions"]:
                _log.error("edge-agent: saving the rows of the damaged database '%s' was interrupted; '%s' now has %s of it.",
                           aside, self._path, _counts(saved))  # fmt: skip
                return

    def _check(self, suspect: bool) -> str | None:
        """How to check the file: all of it if its last user did not close it, its indexes too if SQLite found it damaged."""
        if self._marker.marked_damaged:
            return "integrity_check"
        return "quick_check" if self._marker.alone and (suspect or self._marker.not_closed) else None

    def _new_connection(self, path: pathlib.Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=self._factory)
        db.row_factory = sqlite3.Row
        db.text_factory = lambda data: data.decode(errors="replace")  # a flipped bit in a text must not stop an answer
        return db

    def _connect(self, suspect: bool, check: str | None) -> tuple[sqlite3.Connection, str | None]:
        """A connection with all settings and the schema up to date, and what is wrong with the file, or None."""
        db = self._new_connection(self._path)
        try:
            _set(db)
            wrong = what_is_wrong(db, check)
            if wrong is None and suspect and self._marker.alone:
                wrong = "it is empty" if not version(db) else None
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")  # everything else in the file is sound
            if wrong is None:
                migrate(db, self._path)  # before WAL, so that a crash leaves our mark in the file itself, not in a log beside it
                db.execute("PRAGMA foreign_keys = ON")
                db.execute(f"PRAGMA journal_mode = {journal_mode(sqlite3.sqlite_version_info)}")
                db.execute("PRAGMA journal_size_limit = 4194304")
        except sqlite3.Error as error:
            if not is_damage(error) and not is_wrong_schema(error):
                db.close()
                raise
            return db, str(error)
        except BaseException:
            db.close()
            raise
        return db, wrong

    def _create(self) -> None:
        """Create the file if it is missing or empty; nobody but its owner may read it.

        It is complete before it gets its name: a crash leaves no file, or a whole one.
        """
        if not (self._path.exists() and self._path.stat().st_size):
            with temporary_folder(beside=self._path) as folder:
                finished = folder / "new"
                self._new_file(finished, lambda db: None)
                if self._marker.alone or not self._path.exists():
                    put_in_place(finished, self._path)
        with contextlib.suppress(OSError):  # some file systems have no modes
            if self._path.stat().st_mode & 0o077:  # a copy from elsewhere: what visitors typed is its owner's alone
                self._path.chmod(0o600)

    def _new_file(self, path: pathlib.Path, fill: Callable[[sqlite3.Connection], None]) -> None:
        """A complete, closed database at `path`, which has a temporary name and is synced when it gets its own."""
        path.touch(mode=0o600)
        with contextlib.closing(self._new_connection(path)) as db:
            _set(db)
            db.execute("PRAGMA journal_mode = MEMORY")
            db.execute("PRAGMA synchronous = OFF")
            migrate(db, path)
            db.execute("PRAGMA foreign_keys = ON")  # a row without the one that it refers to is not saved
            fill(db)


def _set(db: sqlite3.Connection) -> None:
    """The settings of every connection."""
    db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA cell_size_check = ON")
    db.execute("PRAGMA mmap_size = 0")
    db.execute("PRAGMA secure_delete = ON")  # overwrites what is deleted
    db.execute("PRAGMA synchronous = FULL")  # "queued" must survive a power cut


def journal_mode(version: tuple[int, ...]) -> str:
    """WAL, or TRUNCATE for a version of SQLite whose WAL can damage the file.

    3.7.0 to 3.51.2 can corrupt a WAL database that two connections write or checkpoint at once; 3.44.6 and 3.50.7 have the
    fix too (https://www.sqlite.org/wal.html).
    """
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    return "WAL" if fixed else "TRUNCATE"


def _counts(saved: dict[str, int]) -> str:
    """How many rows of each table were saved, in words."""
    return ", ".join(f"{n} {table.replace('_', ' ')}" for table, n in saved.items() if table not in ("clock", "spending", "marks"))
