"""Reads a file of questions to rows: JSON lines, a JSON array or object, or CSV with or without a header.

Owns encodings, separators, line numbers and size limits. Knows no form of a question. Invariants: bytes that are not one of these
are refused with their line; memory stays within a small multiple of `MAX_FILE_BYTES`, whatever a stranger writes.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

from edge_agent.core.errors import BadData

MAX_FILE_BYTES = 64 << 20  # the largest set, SQuAD's training part, has 30 MB
MAX_LINE_CHARS = 1 << 20
MAX_ROWS = 250_000  # the largest set, MedMCQA's training part, has 183 thousand
_MAX_NESTED = 2_000_000  # lists and objects in one JSON text: a short text can hold very many

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NOT_TEXT = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "7-Zip",
}
_SEPARATORS = ",;\t|"
_LISTS = ("data", "rows", "questions", "examples", "instances")  # what a JSON object calls its rows
QUESTION_KEYS = ("question", "question_stem", "stem", "prompt", "query", "question_text", "q", "sent1")
ANSWER_KEYS = (
    "answer", "answer_label", "answer_key", "answerkey", "answerKey", "correct_answer", "correct_option", "correct_label", "correct",
    "right_answer", "gold", "label", "target", "key", "cop", "answer_idx", "answer_index",
)  # fmt: skip


class RawRow(NamedTuple):
    """One row: its fields by name, and where it stands ("line 3"). `number` is the line, or the place among the entries from 1."""

    fields: Any
    place: str
    number: int


class RawFile(NamedTuple):
    """The rows of a file. Without a header, `fields` has question, options and answer, and `headless` is true."""

    rows: list[RawRow]
    headless: bool = False


def text_of(file: BinaryIO, name: str) -> str:
    """The text of a file, with `\\n` as line ends. Raises `BadData` if it cannot be read, is too large, or is no text."""
    try:
        data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadData(f"Cannot read {name} ({error.strerror}); check the file.") from error
    if len(data) > MAX_FILE_BYTES:
        raise BadData(f"{name} is larger than {MAX_FILE_BYTES >> 20} MiB; split it.")
    for start, packed in _NOT_TEXT.items():
        if data.startswith(start):
            raise BadData(f"{name} is compressed ({packed}), which edge-agent does not read; unpack it first.")
    if data.startswith(b"PAR1"):
        raise BadData(f"{name} is a Parquet file, which edge-agent does not read; write it as JSON lines or CSV.")
    bom, encoding = next(((bom, encoding) for bom, encoding in _BOMS if data.startswith(bom)), (b"", "utf-8"))
    try:
        text = data[len(bom) :].decode(encoding)
    except UnicodeDecodeError as error:
        at = error.start + len(bom)
        if encoding != "utf-8":
            raise BadData(f"{name}: not {encoding[:6].upper()} (byte {at + 1}), as its first bytes say; save the file as UTF-8.") from error
        line = data.count(b"\n", 0, at) + 1
        byte = at - data.rfind(b"\n", 0, at)
        raise BadData(f"{name}, line {line}: not UTF-8 (byte {byte}); save the file as UTF-8.") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if (nul := text.find("\0")) >= 0:
        line = text.count("\n", 0, nul) + 1
        raise BadData(f"{name}, line {line}: has a zero character, so it is not a text in UTF-8; save the file as UTF-8.")
    return text


def read(text: str, name: str, words: Callable[[str], str] | None = None) -> RawFile:
    """The rows of a text. `words` makes the name of a field from a CSV header's cell. Raises `BadData` with the line."""
    stripped = text.lstrip()
    if not stripped:
        return RawFile([])
    try:
        if stripped[0] in "{[" and (rows := _json(text, name)) is not None:
            return RawFile(rows)
        return _csv(text, name, words or column_name)
    except RecursionError as error:
        raise BadData(f"{name}: the JSON is nested too deeply; write one question as one object.") from error


def _bounded(rows: Iterator[RawRow], name: str) -> list[RawRow]:
    found = list(itertools.islice(rows, MAX_ROWS + 1))
    if len(found) > MAX_ROWS:
        raise BadData(f"{name} has more than {MAX_ROWS:,} questions; split it.")
    return found


def _json(text: str, name: str) -> list[RawRow] | None:
    """The rows of a JSON text; None if it only begins like one, and is CSV."""
    start = len(text) - len(text.lstrip())
    end = text.find("\n", start)
    line, rest = (text[start:], "") if end < 0 else (text[start:end], text[end:])
    first = _loaded(line, name) if len(line) <= MAX_LINE_CHARS else None
    if isinstance(first, dict) and (rest.strip() or not _wraps(first)):
        return _bounded(_json_lines(text, name), name)
    if text[start] == "[":
        opening = text[start + 1 : start + 1000].lstrip()[:1]
        if not isinstance(first, list) and opening not in ("{", "]"):
            return None
        return _bounded(_array(text, start, name), name)
    whole = _loaded(text, name)
    if isinstance(whole, dict):
        return _bounded(_wrapped(whole), name) if _wraps(whole) else [RawRow(whole, "line 1", 1)]
    return _bounded(_json_lines(text, name), name)  # which says what is wrong in which line


def _loaded(text: str, name: str) -> Any:
    """What a JSON text holds; None if it is not JSON."""
    _check_size(text, name)
    try:
        return json.loads(text)
    except ValueError:
        return None


def _check_size(text: str, name: str) -> None:
    if text.count("[") + text.count("{") > _MAX_NESTED:
        raise BadData(f"{name}: the JSON has more than {_MAX_NESTED:,} lists and objects; split the file.")


def _wraps(value: dict[str, Any]) -> bool:
    return "question" not in value and any(isinstance(value.get(key), list) for key in _LISTS)


def _wrapped(value: dict[str, Any]) -> Iterator[RawRow]:
    """The rows in a JSON object: SQuAD's nested ones, or a plain list."""
    key = next(key for key in _LISTS if isinstance(value.get(key), list))
    number = 0
    for at, entry in enumerate(value[key]):
        if not isinstance(entry, dict) or not isinstance(entry.get("paragraphs"), list):
            number += 1
            inner = entry.get("row") if isinstance(entry, dict) and isinstance(entry.get("row"), dict) else entry
            yield RawRow(inner, f"{key}[{at}]", number)
            continue
        for n, paragraph in enumerate(entry["paragraphs"]):
            questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
            for q, question in enumerate(questions if isinstance(questions, list) else [None]):
                number += 1
                place = f"{key}[{at}].paragraphs[{n}].qas[{q}]"
                shared = {"context": paragraph.get("context") if isinstance(paragraph, dict) else None, "title": entry.get("title")}
                yield RawRow({**shared, **question} if isinstance(question, dict) else None, place, number)


def _lines(text: str, name: str) -> Iterator[str]:
    """The lines with their ends, one by one: a list of them could take many times the memory of the text."""
    at, number = 0, 0
    while at < len(text):
        number += 1
        end = text.find("\n", at) + 1 or len(text)
        if end - at > MAX_LINE_CHARS:
            raise BadData(f"{name}, line {number}: longer than {MAX_LINE_CHARS} characters; write one question a line.")
        yield text[at:end]
        at = end


def _json_lines(text: str, name: str) -> Iterator[RawRow]:
    for number, line in enumerate(_lines(text, name), 1):
        if line.isspace():
            continue
        try:
            yield RawRow(json.loads(line), f"line {number}", number)
        except RecursionError as error:
            raise BadData(f"{name}, line {number}: the JSON is nested too deeply; write one question as one object.") from error
        except ValueError as error:
            raise BadData(f"{name}, line {number}: not JSON ({error}); write one question a line, as one JSON object.") from error


def _array(text: str, start: int, name: str) -> Iterator[RawRow]:
    """The entries of a JSON array, read one by one."""
    _check_size(text, name)
    decoder, space = json.JSONDecoder(), re.compile(r"[ \t\n]*")
    at, number, line, counted = start + 1, 0, 1, 0

    def line_of(place: int) -> int:
        nonlocal line, counted
        line, counted = line + text.count("\n", counted, place), place
        return line

    at = _end(space, text, at)
    while text[at : at + 1] != "]":
        number += 1
        if number > 1:
            if text[at : at + 1] != ",":
                raise BadData(f"{name}, line {line_of(at)}: not JSON (a comma or the end of the list is missing); check the file.")
            at = _end(space, text, at + 1)
        begun = line_of(at)
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError as error:
            raise BadData(f"{name}, line {begun}: not JSON ({getattr(error, 'msg', error)}); check the file.") from error
        yield RawRow(value, f"line {begun}", number)
        at = _end(space, text, at)
    if text[at + 1 :].strip():
        raise BadData(f"{name}, line {line_of(at)}: there is more behind the end of the list; write one list, or one question a line.")


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _csv(text: str, name: str, words: Callable[[str], str]) -> RawFile:
    separator = _separator(text)
    if separator is None:
        raise BadData(
            f"{name}, line 1: not JSON, and not CSV either; write one JSON object a line, "
            "or a CSV file with a header: question, a, b, c, d, answer."
        )
    records = _records(text, separator, name)
    first = next(records, None)
    if first is None:
        return RawFile([])
    header = [words(cell) for cell in first.fields]
    if not _is_header(first.fields):
        return RawFile(_bounded(_headless(first, records, name), name), headless=True)
    twice = [column for column, n in Counter(header).items() if n > 1 and column]
    if twice:
        raise BadData(f"{name}, {first.place}: the column {twice[0]!r:.80} is there twice; name every column once.")
    return RawFile(_bounded(_under(header, records, name), name))


def _under(header: Sequence[str], records: Iterator[RawRow], name: str) -> Iterator[RawRow]:
    for record in records:
        _check_width(record, len(header), "the header has", name)
        fields = {column: _unpacked(column, cell) for column, cell in zip(header, record.fields, strict=True) if column}
        yield RawRow(fields, record.place, record.number)


def _is_header(cells: Sequence[str]) -> bool:
    """Whether these are names of columns: one is the question's, and it is the first or the answer's is there too."""
    names = [column_name(cell) for cell in cells]
    return names[0] in QUESTION_KEYS or (
        not {*QUESTION_KEYS}.isdisjoint(names) and not {*ANSWER_KEYS, "answers", "best_answer"}.isdisjoint(names)
    )


def column_name(cell: str) -> str:
    """The name of a column as a word: `Best Answer` is best_answer."""
    return re.sub(r"[\s_-]+", "_", cell.strip().removeprefix("\ufeff").lower())


def _unpacked(column: str, cell: str) -> Any:
    """A cell; a list or an object, if it is one in JSON and the column may have one."""
    if column in ("options", "choices", "answers", "distractors", "correct_answers", "incorrect_answers") and cell[:1] in ("[", "{"):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


def _headless(first: RawRow, records: Iterator[RawRow], name: str) -> Iterator[RawRow]:
    width = len(first.fields)
    if width < 4:
        raise BadData(
            f"{name}, {first.place}: there is no header, and {width} columns are not a question, its options and the answer; "
            "write a header: question, a, b, c, d, answer."
        )
    for record in (first, *records):
        _check_width(record, width, f"{first.place} has", name)
        question, *options, answer = record.fields
        yield RawRow({"question": question, "options": options, "answer": answer}, record.place, record.number)


def _check_width(record: RawRow, width: int, than: str, name: str) -> None:
    if len(record.fields) != width:
        raise BadData(
            f"{name}, {record.place}: {len(record.fields)} cells, but {than} {width}; "
            "put a text with a separator or a line break in quotes."
        )


def _records(text: str, separator: str, name: str) -> Iterator[RawRow]:
    """The records of a CSV text that are not blank. A record may have several lines."""
    reader = csv.reader(_lines(text, name), delimiter=separator, strict=True)
    begun, number = 1, 0
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                number += 1
                yield RawRow(cells, f"line {begun}", begun)
            begun = reader.line_num + 1
    except csv.Error as error:
        raise BadData(f"{name}, line {begun}: not CSV ({error}); check the quotes.") from error


def _separator(text: str) -> str | None:
    """The separator under which the text is a table; None if there is none."""
    begin = text[: 1 << 18]
    widths: dict[str, tuple[bool, int, int]] = {}
    for separator in _SEPARATORS:
        records = _some_records(begin, separator)
        if not records or len(records[0]) < 2:
            continue
        has_header = _is_header(records[0])
        even = sum(len(record) == len(records[0]) for record in records)
        if has_header or len(records[0]) >= 4 or even > 1:
            widths[separator] = (has_header, even, len(records[0]))
    return max(widths, key=lambda separator: widths[separator], default=None)


def _some_records(begin: str, separator: str) -> Sequence[list[str]]:
    found: list[list[str]] = []
    try:
        for cells in csv.reader(io.StringIO(begin, newline=""), delimiter=separator):
            if any(cells):
                found.append(cells)
            if len(found) == 50:
                break
    except csv.Error:
        pass
    return found[:-1] if len(found) > 2 and len(found) < 50 else found  # the last one may be cut
