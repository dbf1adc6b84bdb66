"""Puts a finished file in the place of the database, and keeps the old one under a dated name.

Owns the renames, finishing them after a crash, and which journal belongs to which file. Knows nothing about what is in the tables.
Only for a process that holds the marker alone. Invariants: at every moment the old database is whole, at its path or under its dated
name; a journal of the old file never lies beside the new one, where SQLite would apply it.

    edge-agent.db.next-KIND-DATE     the finished file: from the moment that it has this name, it is the database
    edge-agent.db.KIND-DATE          the old file (and its -journal or -wal)
    KIND                             damaged: the new file has its rows; replaced: a person restored a backup
"""

from __future__ import annotations

import pathlib
import struct
import time

from edge_agent.core.files import put_in_place, sync_folder

BESIDE = ("-journal", "-wal", "-shm")
DAMAGED, REPLACED = "damaged", "replaced"
_NEXT = ".next-"
_HEADER_BYTES = 100
_MAGIC, _JOURNAL_MAGIC = b"SQLite format 3\0", b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"


def new_name(database: pathlib.Path, kind: str) -> pathlib.Path:
    """A dated name beside the database that nothing has yet."""
    stamp, number = time.strftime("%Y%m%d-%H%M%S", time.gmtime()), 0
    while (path := database.with_name(f"{database.name}.{kind}-{stamp}{f'-{number}' if number else ''}")).exists():
        number += 1
    return path


def begin(database: pathlib.Path, finished: pathlib.Path, aside: pathlib.Path) -> None:
    """Begin to put a closed file in the place of the database, whose files will get the name `aside` (from `new_name`).

    Call `finish` next. A crash before this returns leaves the old database; after it, the next start finishes. Raises OSError.
    """
    put_in_place(finished, _next(database, aside))


def finish(database: pathlib.Path) -> pathlib.Path | None:
    """Finish a replacement that has begun; returns the name that the old database has now. None if there is nothing to finish.

    Safe to repeat after a crash at any place. Raises OSError.
    """
    found = sorted(file.name for file in database.parent.iterdir() if file.name.startswith(database.name + _NEXT))
    for name in found:
        aside = database.with_name(f"{database.name}.{name.removeprefix(database.name + _NEXT)}")
        for end in (*BESIDE, ""):  # the database last: a crash before that leaves it at its path
            _move(database.with_name(database.name + end), aside.with_name(aside.name + end), is_database=not end)
        sync_folder(database.parent)
        database.with_name(name).replace(database)
        sync_folder(database.parent)
    return aside if found else None


def set_stale_journal_aside(database: pathlib.Path) -> pathlib.Path | None:
    """Move away a rollback journal that belongs to another file; returns its new name, or None if there is none. Raises OSError.

    It is left by a killed writer, and a person then copied a backup over the database: SQLite would undo the copy. The first page has a
    counter of commits: a journal holds the page as it was, so its own file has this counter or the next one. (Format:
    https://www.sqlite.org/fileformat2.html, 3 The Rollback Journal.)
    """
    journal = database.with_name(database.name + "-journal")
    if not (database.exists() and journal.exists()):
        return None
    with database.open("rb") as file:  # not open here, so closing it drops no lock
        now = file.read(_HEADER_BYTES)
    was = _first_page(journal)
    if was is None or now[:16] != _MAGIC or was[:16] != _MAGIC or _commits(now) - _commits(was) in (0, 1):
        return None
    aside = new_name(database, REPLACED)
    aside = aside.with_name(aside.name + "-journal")
    journal.rename(aside)
    sync_folder(database.parent)
    return aside


def _first_page(journal: pathlib.Path) -> bytes | None:
    """The header of the database as a journal has it; None if its first part does not hold it, or it is no journal."""
    with journal.open("rb") as file:
        head = file.read(28)
        if len(head) < 28 or head[:8] != _JOURNAL_MAGIC:
            return None
        n_records, _, _, sector_bytes, page_bytes = struct.unpack(">5I", head[8:28])
        if not 512 <= page_bytes <= 65536 or not 32 <= sector_bytes <= 65536:
            return None
        at, ends = sector_bytes, journal.stat().st_size
        for _ in range(min(n_records, ends // page_bytes)):
            file.seek(at)
            if file.read(4) == b"\0\0\0\1":
                return file.read(_HEADER_BYTES)
            at += 4 + page_bytes + 4
    return None


def _commits(header: bytes) -> int:
    return int.from_bytes(header[24:28], "big")


def _next(database: pathlib.Path, aside: pathlib.Path) -> pathlib.Path:
    return database.with_name(f"{database.name}{_NEXT}{aside.name.removeprefix(database.name + '.')}")


def _move(part: pathlib.Path, aside: pathlib.Path, is_database: bool) -> None:
    """Move one file of the old database, unless that is done. A start after a crash creates an empty database in its place."""
    if not part.exists():
        return
    is_empty, is_moved = not part.stat().st_size, aside.exists()
    if is_empty and (is_moved or not is_database):  # the journal of a finished transaction is empty, too
        part.unlink()
    else:
        part.rename(new_name(part, REPLACED) if is_moved else aside)  # moved already: somebody put another file here since
