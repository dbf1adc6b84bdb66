"""Questions from other programs: one JSON object, or one a line.

Owns the reading of lines and what is printed for a line that cannot be asked; `core/asked.py` knows the objects. Invariants: one
object in, one out, in the same order; a line that cannot be asked is answered with an error object, and the next one is read; no
more than one line is in memory.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from edge_agent.core.asked import Asked, caller_id, from_json
from edge_agent.core.errors import BadData, BadQuestion, EdgeAgentError, ModelBusy, ModelError
from edge_agent.core.question import CHOICE, Question

if TYPE_CHECKING:
    from edge_agent.agent.agent import Agent

MAX_LINE_BYTES = 1 << 20  # a file without line breaks must not fill the memory
_FORM = '{"question": "...", "options": ["...", "..."]}'


def from_text(text: str, options: tuple[str, ...] = (), kind: str = CHOICE, never_send: bool = False) -> Asked:
    """The question on the command line or on stdin: a text, or an object of JSON. Raises `BadQuestion`."""
    start = text.removeprefix("\ufeff").lstrip()
    if not start.startswith(("{", "[")):
        return Asked(Question.typed(text, options, kind, never_send))
    try:
        data = json.loads(start)
    except (ValueError, RecursionError) as error:
        if "Extra data" in str(error) and start.startswith("{"):
            raise BadQuestion(
                "There is more than one JSON object; ask many questions, one a line, with `edge-agent ask --batch -`."
            ) from error
        if start.startswith(('{"', "[{")):
            raise BadQuestion(f"The question looks like JSON, but it cannot be read ({error}); write it as {_FORM}.") from error
        return Asked(Question.typed(text, options, kind, never_send))
    if isinstance(data, list) and any(isinstance(each, dict) for each in data):
        raise BadQuestion("A list of questions cannot be asked at once; write one object a line and ask with `edge-agent ask --batch -`.")
    if not isinstance(data, dict):
        return Asked(Question.typed(text, options, kind, never_send))  # a text such as "[1, 2] has which mean?" would not be JSON
    if options:
        raise BadQuestion("The question is JSON, so its options must be in it, too; leave out --option.")
    return from_json(data, kind, never_send)


class LineByLine:
    """Answers the questions of a file, one after the other. `exit_code` is that of the first line that failed, or 0."""

    def __init__(self, agent: Agent, never_send: bool = False, refresh: bool = False) -> None:
        self._agent, self._never_send, self._refresh = agent, never_send, refresh
        self.answered = self.failed = self.exit_code = 0

    def answers(self, file: BinaryIO) -> Iterator[dict[str, Any]]:
        """One object for each line that is not blank, as soon as it is answered. Raises `ModelError` if no line can be answered."""
        for number, line in _lines(file):
            found: dict[str, Any] = {"line": number, "id": None}
            try:
                data = _parsed(line)
                found["id"] = caller_id(data)
                found |= self._answer(data)
                self.answered += 1
            except EdgeAgentError as error:
                if isinstance(error, ModelError) and not isinstance(error, ModelBusy):
                    raise  # the next lines would fail as well
                self._fail(error.exit_code)
                found["error"] = {"type": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
            yield found

    def _answer(self, data: Any) -> dict[str, Any]:
        asked = from_json(data, self._agent.profile.question_kind, self._never_send)
        decision = self._agent.ask(asked.question, asked.refresh or self._refresh, tau=asked.tau, policy=asked.policy)
        if decision.is_lost:
            self._fail(74)  # answered, but not queued
        return decision.to_dict()

    def _fail(self, exit_code: int) -> None:
        self.failed += 1
        self.exit_code = self.exit_code or exit_code


@contextlib.contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """The file with the questions; "-" is stdin. Raises `BadData`."""
    if name == "-":
        if sys.stdin is None:
            raise BadData("There is no stdin to read from; give a file.")
        yield sys.stdin.buffer
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(pathlib.Path(name).open("rb"))
        except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
            reason = getattr(error, "strerror", None) or error
            raise BadData(f"Cannot read the file '{name:.200}' ({reason}); check the path.") from error
        yield file


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """The lines that are not blank, with their numbers, from 1; None for one that is too long, which is skipped."""
    number = 0
    while data := _read(file):
        number += 1
        whole = data.endswith(b"\n") or len(data) <= MAX_LINE_BYTES
        line = data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data
        while not data.endswith(b"\n") and len(data) > MAX_LINE_BYTES:
            data = _read(file)
        if line.strip():
            yield number, line if whole else None


def _read(file: BinaryIO) -> bytes:
    try:
        return file.readline(MAX_LINE_BYTES + 1)
    except OSError as error:
        raise BadData(f"The questions cannot be read ({error.strerror}); check the file.") from error


def _parsed(line: bytes | None) -> Any:
    if line is None:
        raise BadData(f"The line is longer than {MAX_LINE_BYTES} bytes; write one question a line.")
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise BadData(f"The line is not UTF-8 (byte {error.start + 1}); check its encoding.") from error
    except (ValueError, RecursionError) as error:
        raise BadData(f"The line is not JSON ({error}); write one question a line: {_FORM}.") from error
