"""The model before the one in force: what an update replaced is kept, so that there is a way back.

Owns the folder `previous` in the models folder: for each update a folder with the replaced files and their records, and a note of
the default that was chosen before. Does not own which model is in force, nor how an update gets here. Invariants: a name in the
models folder belongs to a whole file at every moment; one older version of a model is kept, and it is one that answered, if any did;
what a crash interrupts is finished or undone by the next call.

    previous/default.json             the last two values of the setting `model`
    previous/NAME/pulled.json         the records of the files kept there
    previous/NAME/NAME.gguf           a replaced file (perhaps an adapter and a waiting calibration beside it)
    previous/NAME/answered.json       when the new version first answered, in device time
    previous/NAME/exchange.json       an exchange that is under way, with `.out-...` files
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edge_agent.core.errors import ModelRefused, StorageError
from edge_agent.core.files import has_no_locks, lock, not_written, replacing, sync_folder, try_lock
from edge_agent.model import catalog, pulled
from edge_agent.model.calibration import waiting_beside
from edge_agent.model.pulled import Pulled, TakeLock

FOLDER = "previous"
KEPT_DAYS = 7  # after the first answer of the new version: bad answers show later than a file that does not open
COMMAND = "edge-agent models default --previous"

_EXCHANGE, _ANSWERED, _CHOICE, _LOCK, _OUT = "exchange.json", "answered.json", "default.json", ".lock", ".out-"

Link = Callable[[pathlib.Path, pathlib.Path], None]


@dataclass(frozen=True, slots=True)
class Kept:
    """The version before the one in force: its `records`, where the files are, and whether the new version has answered here."""

    folder: pathlib.Path
    records: tuple[Pulled, ...]
    has_answered: bool

    @property
    def bytes(self) -> int:
        """The size of its files."""
        return sum(record.bytes for record in self.records)

    def to_dict(self) -> dict[str, Any]:
        """The facts for JSON."""
        known = ("file", "sha256", "bytes", "source", "revision", "pulled_at")
        files = [{name: getattr(record, name) for name in known} for record in self.records]
        return {"files": files, "bytes": self.bytes, "new_has_answered": self.has_answered}


def keep(folder: pathlib.Path, name: str, coming: Mapping[str, str], take_lock: TakeLock = lock, link: Link = os.link) -> None:
    """Keep what an update is about to replace. `coming` has the sha256 of each of its files by name, `name` is its model's stem.

    A version that never answered does not take the place of the one before it. A file that is not what was pulled is not kept. The
    list of what is kept is written last, so a crash leaves the files in force as they were, and a kept version that is complete or
    does not count. Raises `StorageError`.
    """
    group = folder / FOLDER / name
    if not (folder / FOLDER).is_dir() and not _replaced(folder, coming):
        return
    try:
        with _alone(folder, take_lock):
            if not (replaced := [record for record in _replaced(folder, coming) if _is_whole(folder, record)]):
                return
            for other in _groups(folder):
                if other != group and any(record.file in coming for record in _records(other)):
                    _remove(other)  # without these files it cannot come back as it was
            kept = {record.file: record for record in _records(group)}
            returns = kept and all(coming.get(str(file)) == record.sha256 for file, record in kept.items())
            if returns or (group / _ANSWERED).exists():
                _remove(group)
                kept = {}
            new = [record for record in replaced if record.file not in kept]
            group.mkdir(parents=True, exist_ok=True)
            for record in new:
                for path in _files_of(folder, record):
                    (group / path.name).unlink(missing_ok=True)
                    _link(path, group / path.name, link)
            pulled.put(group, new, take_lock)
            sync_folder(group.parent)
    except OSError as error:
        raise not_written(group, error) from error


def _replaced(folder: pathlib.Path, coming: Mapping[str, str]) -> list[Pulled]:
    """The records of the files that others of these names are about to replace."""
    here = {record.file: record for record in pulled.load(folder)}
    return [here[file] for file, sha256 in coming.items() if file in here and here[file].sha256 != sha256]


def before(folder: pathlib.Path, file: str) -> Kept | None:
    """The version that is kept of a file in the models folder. Reads no whole file."""
    for group in _groups(folder):
        records = _records(group)
        if any(record.file == file for record in records):
            there = tuple(record for record in records if not _is_same(folder / str(record.file), group / str(record.file)))
            return Kept(group, there, (group / _ANSWERED).exists()) if there else None
    return None


def go_back(folder: pathlib.Path, file: str, take_lock: TakeLock = lock, link: Link = os.link) -> tuple[Pulled, ...]:
    """Exchange a file of the models folder for the version before it, with all files of that update; returns their records.

    Doing it twice changes nothing. A crash leaves the old version, or the exchange is finished by the next call of this module; the
    name belongs to one of the two at every moment. Returns nothing if no version is kept. Raises `ModelRefused` for a kept file that
    is damaged, and `StorageError`.
    """
    try:
        with _alone(folder, take_lock):
            kept = before(folder, file)
            if kept is None:
                return ()
            for record in kept.records:
                if catalog.sha256_of(kept.folder / str(record.file)) != record.sha256:
                    raise ModelRefused(f"The kept '{kept.folder / str(record.file)}' is damaged, so nothing was changed; pull it again.")
            here = {record.file: record for record in pulled.load(folder)}
            files = [path.name for record in kept.records for path in _files_of(folder, record, kept.folder)]
            moves = [{"file": one, "comes": (kept.folder / one).exists(), "goes": (folder / one).exists()} for one in dict.fromkeys(files)]
            for left in kept.folder.glob(f"{_OUT}*"):
                left.unlink()
            for move in moves:
                if move["goes"]:
                    _link(folder / str(move["file"]), kept.folder / f"{_OUT}{move['file']}", link)
            out = [asdict(here[record.file]) for record in kept.records if record.file in here and (folder / str(record.file)).exists()]
            with replacing(kept.folder / _EXCHANGE, "w", private=False) as note:
                json.dump({"moves": moves, "in": [asdict(record) for record in kept.records], "out": out}, note)
            _exchange(folder, kept.folder, take_lock)
            return kept.records
    except OSError as error:
        raise not_written(folder / file, error) from error


def finish(folder: pathlib.Path) -> None:
    """Finish an exchange that a crash interrupted. Costs a look into a folder where there is none. Raises `StorageError`."""
    if any((group / _EXCHANGE).exists() for group in _groups(folder)):
        try:
            with _alone(folder, lock):
                pass  # taking the lock finishes it
        except OSError as error:
            raise not_written(folder / FOLDER, error) from error


def note_answer(files: Mapping[pathlib.Path, str], now_s: float, kept_s: float = KEPT_DAYS * 86_400.0) -> list[str]:
    """Note that a model of these files, by path with their sha256, has answered; delete what was kept for it if that is `kept_s` ago.

    `now_s` is device time. Call it when nobody waits: deleting takes a moment. A file that was replaced since it was opened does not
    count. Returns the names of the updates whose kept version is deleted. What cannot be written stays; never raises.
    """
    gone = []
    with contextlib.suppress(OSError, StorageError, ValueError, TypeError, KeyError):
        for path, sha256 in files.items():
            folder = path.parent
            if not all((one / pulled.FILE).exists() for one in _groups(folder)):
                with _alone(folder, _only_if_free):
                    pass  # taking the lock deletes what an interrupted call left
            group = next((one for one in _groups(folder) if any(record.file == path.name for record in _records(one))), None)
            record = next((one for one in pulled.load(folder) if one.file == path.name), None)
            if group is None or record is None or record.sha256 != sha256:
                continue
            with _alone(folder, _only_if_free):
                mark = group / _ANSWERED
                at_s = json.loads(mark.read_text(encoding="utf-8"))["at_s"] if mark.exists() else now_s
                if not mark.exists() or at_s > now_s:  # with a new database, device time starts anew
                    with replacing(mark, "w", private=False) as file:
                        json.dump({"at_s": now_s}, file)
                elif now_s - at_s >= kept_s or before(folder, path.name) is None:
                    _remove(group)
                    gone.append(group.name)
    return gone


def drop(folder: pathlib.Path, file: str, take_lock: TakeLock = lock) -> int:
    """Delete what is kept of a file, and return how many bytes that were. Raises `StorageError`."""
    try:
        if not (folder / FOLDER).is_dir():
            return 0
        with _alone(folder, take_lock):
            kept = before(folder, file)
            if kept is not None:
                _remove(kept.folder)
            return kept.bytes if kept else 0
    except OSError as error:
        raise not_written(folder / FOLDER, error) from error


def way_back(path: pathlib.Path) -> str:
    """A sentence for a person whose new model cannot be used; empty if no version before it is kept."""
    with contextlib.suppress(OSError):
        if kept := before(path.parent, path.name):
            return f"The version before it is kept ({kept.bytes / 1e6:,.1f} MB); `{COMMAND}` goes back to it."
        if (path.parent / FOLDER / _CHOICE).exists() and any(path.stem == one or str(path) == one for one in _choice(path.parent)):
            return f"`{COMMAND}` goes back to the model that was the default before."
    return ""


def note_choice(folder: pathlib.Path, old: str, new: str) -> None:
    """Note the default model of before and the one from now on; written before the setting is. Raises `StorageError`.

    The one of the two that is not in force is the previous one, so going back needs no other note. A crash before the setting is
    written leaves the old model in force.
    """
    if old == new:
        return
    try:
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        with replacing(folder / FOLDER / _CHOICE, "w", private=False) as file:
            json.dump([old, new], file)
    except OSError as error:
        raise not_written(folder / FOLDER / _CHOICE, error) from error


def chosen_before(folder: pathlib.Path, model: str) -> str | None:
    """The value of the setting `model` before this one, if that was the last change."""
    pair = _choice(folder)
    return next((one for one in pair if one != model), None) if model in pair else None


def forget_choice(folder: pathlib.Path) -> None:
    """Forget the default of before: a later update of the model in force is what to go back from."""
    with contextlib.suppress(OSError):
        (folder / FOLDER / _CHOICE).unlink(missing_ok=True)


def _choice(folder: pathlib.Path) -> list[str]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        pair = json.loads((folder / FOLDER / _CHOICE).read_bytes())
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(one, str) for one in pair):
            return pair
    return []


def _groups(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        return sorted(path for path in (folder / FOLDER).iterdir() if path.is_dir())
    except OSError:
        return []


def _records(group: pathlib.Path) -> list[Pulled]:
    """The records of the whole files in a folder; none of a list that cannot be read."""
    with contextlib.suppress(StorageError):
        return [record for record in pulled.load(group) if record.file and _size(group / record.file) == record.bytes]
    return []


def _size(path: pathlib.Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _is_same(path: pathlib.Path, other: pathlib.Path) -> bool:
    """Whether an update was interrupted before its file came: what is kept is what is in force."""
    with contextlib.suppress(OSError):
        return path.samefile(other)
    return False


def _is_whole(folder: pathlib.Path, record: Pulled) -> bool:
    """Whether a file is the one that was pulled."""
    path = folder / str(record.file)
    return _size(path) == record.bytes and catalog.sha256_of(path) == record.sha256


def _files_of(folder: pathlib.Path, record: Pulled, other: pathlib.Path | None = None) -> list[pathlib.Path]:
    """The file of a record, and the calibration that waits beside it there or in the `other` folder."""
    path = folder / str(record.file)
    waiting = waiting_beside(path)
    return [path, waiting] if waiting.exists() or (other and (other / waiting.name).exists()) else [path]


def _link(path: pathlib.Path, target: pathlib.Path, link: Link) -> None:
    """Give a file a second name, or copy it where the file system has no such names. Raises OSError."""
    try:
        link(path, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV):
            raise
        with path.open("rb") as source, replacing(target, private=False) as copy:
            shutil.copyfileobj(source, copy, 1 << 20)


def _exchange(folder: pathlib.Path, group: pathlib.Path, take_lock: TakeLock) -> None:
    """Do what is noted, or the rest of it: first all new files in, then the records, then the old files to their place.

    Each step sees from the files whether it was done, so a crash at any point costs nothing. Raises OSError and `StorageError`.
    """
    note = group / _EXCHANGE
    try:
        noted = json.loads(note.read_bytes())
        moves = [(pathlib.PurePath(move["file"]).name, bool(move["comes"]), bool(move["goes"])) for move in noted["moves"]]
        comes, goes = ([Pulled(**row) for row in noted[way]] for way in ("in", "out"))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StorageError(f"The note '{note}' is damaged; remove the folder '{group}', and pull the model again.") from error
    for file, does_come, does_go in moves:
        new, out = group / file, group / f"{_OUT}{file}"
        if does_go and not out.exists():
            continue  # all is done for this one
        if not does_come:
            (folder / file).unlink(missing_ok=True)
        elif new.exists():
            new.replace(folder / file)
            new.unlink(missing_ok=True)  # two names of one file: the rename did nothing
    sync_folder(folder)
    pulled.put(folder, comes, take_lock)
    pulled.put(group, goes, take_lock)
    for file, _, _ in moves:
        if (out := group / f"{_OUT}{file}").exists():
            out.replace(group / file)
    sync_folder(group)
    (group / _ANSWERED).unlink(missing_ok=True)
    note.unlink()


def _remove(group: pathlib.Path) -> None:
    """Delete what one update left; without its list it does not count, so the list goes first. Raises OSError."""
    (group / pulled.FILE).unlink(missing_ok=True)
    shutil.rmtree(group)


def _only_if_free(file: Any) -> None:
    if not try_lock(file):
        raise BlockingIOError(errno.EAGAIN, "an update is under way")


@contextlib.contextmanager
def _alone(folder: pathlib.Path, take_lock: TakeLock) -> Iterator[None]:
    """Alone among processes, if the file system has locks, and with nothing half done. Raises OSError and `StorageError`."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    with (folder / FOLDER / _LOCK).open("w") as held:
        try:
            take_lock(held)
        except OSError as error:
            if not has_no_locks(error):
                raise
        for group in _groups(folder):
            if (group / _EXCHANGE).exists():
                _exchange(folder, group, lock)
            if not (group / pulled.FILE).exists():
                shutil.rmtree(group)
        yield
