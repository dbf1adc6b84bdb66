"""Changes one setting in `config.toml` and leaves every other line as its owner wrote it.

Owns where a `name = value` stands in the text, and how a value is written in TOML. Knows no settings: the caller checks names
and values. Invariant: after a change the file holds exactly the values it held before, plus the change; a change that would do
anything else is refused. A crash leaves the old file or the new one.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from edge_agent.core.config.limits import MAX_CONFIG_BYTES, check_config_size
from edge_agent.core.errors import BadSetting
from edge_agent.core.files import lock, not_written, replacing

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_LINES = re.compile(r"[^\n]*\n|[^\n]+")  # not str.splitlines(), which also splits at U+2028, and a TOML text may contain that
_TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)  # may also be a line of a list or of a text
_TOKENS = re.compile(  # what may hide the end of a value: texts of four kinds, comments, brackets
    r'''"""(?:\\.|[^\\])*?"""(?:"{0,2})|'{3}.*?'{3}'{0,2}|"(?:\\[^\n]|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*|[\[\]{}\n]''', re.DOTALL
)
_TRIES = 8  # places in the text to try; each one is checked by reading the whole file


def set_value(path: pathlib.Path, name: str, value: Any) -> None:
    """Set one top-level value in the TOML file, which is created if it is missing; only its owner can read it afterwards.

    `value` is a text, a number, a bool, or a list or table of these. A comment at the end of the old line is kept. Raises `BadSetting`
    if the file is not TOML or the value cannot stand in it, and `StorageError` if the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise BadSetting(f"'{name:.80}' cannot be the name of a setting; use letters, digits and '_'.")
    written = _toml(name, value)
    with _alone(path) as target:
        text = _read(path, target)
        before = _parsed(path, text)
        values = {**before, name: tomllib.loads(f"x = {written}")["x"]}
        _replace(path, target, _with_value(text, name, written, values, name in before), values)


def unset(path: pathlib.Path, name: str) -> None:
    """Remove one top-level value from the TOML file, so that its default applies; without the value nothing happens.

    Raises `BadSetting` if the file is not TOML, and `StorageError` if it cannot be written.
    """
    if not path.exists():
        return
    with _alone(path) as target:
        text = _read(path, target)
        values = _parsed(path, text)
        if name in values:
            del values[name]
            _replace(path, target, _without_value(text, name, values), values)


def _with_value(text: str, name: str, written: str, values: dict[str, Any], is_there: bool) -> str | None:
    """The text with the value in its old place, or else after the last top-level line; None if there is no such place."""
    newline = "\r\n" if text.partition("\n")[0].endswith("\r") else "\n"
    for start, end, head, comment in _statements(text, name) if is_there else ():
        changed = f"{text[:start]}{head}{written}{comment}{newline}{text[end:]}"
        if _means(changed, values):
            return changed
    if text and not text.endswith("\n"):
        text += newline
    line = f"{name} = {written}{newline}"
    if _means(text + line, values):  # there is no table
        return text + line
    for table in islice(_TABLE.finditer(text), _TRIES):
        at = table.start()
        if _means(changed := text[:at] + line + text[at:], values):
            above = _above(text, at)  # before the comments that belong to the table, unless they belong to a long text
            moved = text[:above] + line + text[above:]
            return moved if _means(moved, values) else changed
    return None


def _above(text: str, at: int) -> int:
    """Where the comments that end at `at` begin, and the blank lines above them."""
    lines = _LINES.findall(text[:at])
    for belongs in (lambda line: line.lstrip().startswith("#"), lambda line: not line.strip()):
        while lines and belongs(lines[-1]):
            at -= len(lines.pop())
    return at


def _without_value(text: str, name: str, values: dict[str, Any]) -> str | None:
    """The text without the lines of the value; None if they are not found."""
    changes = (text[:start] + text[end:] for start, end, _, _ in _statements(text, name))
    return next((changed for changed in changes if _means(changed, values)), None)


def _statements(text: str, name: str) -> Iterator[tuple[int, int, str, str]]:
    """Where `name = ...` may stand: its start and end in the text, the text up to the value, and a comment after it.

    Such a line may also be part of a text or belong to a table: the caller compares what the changed file means.
    """
    begins = re.compile(rf"""^[ \t]*(?:{re.escape(name)}|"{re.escape(name)}"|'{re.escape(name)}')[ \t]*=[ \t]*""", re.MULTILINE)
    for begun in islice(begins.finditer(text), _TRIES):
        end, comment = _value_end(text, begun.end())
        yield begun.start(), end, begun[0], comment


def _value_end(text: str, at: int) -> tuple[int, str]:
    """Where the line after a value begins, and the comment behind the value, with the spaces before it."""
    depth, comment, end = 0, "", len(text)
    for token in _TOKENS.finditer(text, at):
        if token[0] == "\n" and depth <= 0:
            end = token.end()
            break
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
        elif depth <= 0 and token[0].startswith("#"):
            before = text[at : token.start()]
            comment = before[len(before.rstrip(" \t")) :] + token[0].rstrip("\r")
    return end, comment


def _toml(name: str, value: Any) -> str:
    """The value as TOML, on one line. Raises `BadSetting`, which does not show the value: it may be a secret."""
    try:
        text = _written(value)
        text.encode()
        tomllib.loads(f"x = {text}")
    except (TypeError, ValueError, RecursionError) as error:
        raise BadSetting(
            f"The value of {name} cannot be in config.toml; give a text, a number, true or false, or a list or table of these."
        ) from error
    return text


def _written(value: Any) -> str:
    """What JSON writes is TOML too, except for tables and one control character."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_written(str(name))} = {_written(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _loads(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None


def _means(text: str, values: dict[str, Any]) -> bool:
    """Whether the text holds exactly these values; as JSON, since NaN differs from itself and True equals 1."""
    found = _loads(text)
    return found is not None and _as_json(found) == _as_json(values)


def _as_json(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, default=repr)  # `default`: dates and times


def _parsed(path: pathlib.Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadSetting(f"The config file '{path}' is not valid TOML ({error}); correct it or remove it.") from error


def _read(path: pathlib.Path, target: pathlib.Path) -> str:
    try:
        with target.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        check_config_size(path, len(data))
        return data.decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise BadSetting(f"The config file '{path}' is not valid TOML ({error}); correct it or remove it.") from error
    except OSError as error:
        raise BadSetting(f"The config file '{path}' cannot be read ({error.strerror}); check its permissions.") from error


def _replace(path: pathlib.Path, target: pathlib.Path, text: str | None, values: dict[str, Any]) -> None:
    if text is None or not _means(text, values):
        raise BadSetting(f"The config file '{path}' is too unusual to be changed safely; change it in an editor.")
    check_config_size(path, len(text.encode()))
    try:
        with replacing(target, "wb") as file:
            file.write(text.encode())
    except OSError as error:
        raise not_written(path, error) from error


@contextlib.contextmanager
def _alone(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The file to replace, behind any links, while no other process changes it. Without locks two writers may lose one change."""
    try:
        target = path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        held = os.open(target.parent, os.O_RDONLY)
    except (OSError, RuntimeError) as error:
        raise not_written(path, error if isinstance(error, OSError) else OSError(str(error))) from error
    try:
        with contextlib.suppress(OSError):
            lock(held)
        yield target
    finally:
        os.close(held)
