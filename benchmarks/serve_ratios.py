"""Over HTTP: a recalled decision against a fresh one, and several questions over one state against as many requests.

Owns both ratios. The command is in serve.py. The ways take turns, and every state is new.
"""

from __future__ import annotations

import itertools
import pathlib
import statistics
import tempfile
import time

from benchmarks.serve_http import Connection, Reply, questions, request
from tests.support.serving import serving

SYSTEMONE = "/v1/systemone"
_WORDS = ("the", "order", "was", "paid", "but", "nobody", "sent", "a", "letter", "and", "my", "account", "shows", "two", "charges")
_TEAMS = {"Billing": "payments and refunds", "Technical": "bugs", "Sales": None, "Other": None}


def run(model: pathlib.Path, rounds: int, n_questions: int, n_tokens: int) -> None:
    """Print both ratios."""
    with tempfile.TemporaryDirectory() as home, serving(pathlib.Path(home), "--model", str(model), "--policy", "only_local") as server:
        connection, drawn = Connection(server.port), questions()
        _timed(connection, "/edge/ask", next(drawn))
        fresh, recalled = [], []
        for asked in itertools.islice(drawn, 4 * rounds):
            fresh.append(_timed(connection, "/edge/ask", asked)[0])
            recalled.append(statistics.median(_timed(connection, "/edge/ask", asked)[0] for _ in range(3)))
        ratios = [new / known for new, known in zip(fresh, recalled, strict=True)]
        print(f"fresh {statistics.median(fresh):.1f} ms, recalled {statistics.median(recalled):.2f} ms: {_spread(ratios)} times as fast")
        numbers = itertools.count()
        n_words = _words_for(connection, n_tokens, numbers)
        rows: dict[str, list[float]] = {"together": [], "alone, states of their own": [], "alone, the same state": []}
        for _ in range(rounds):
            one, other = _state(next(numbers), n_words), _state(next(numbers), n_words)
            rows["together"].append(_timed(connection, SYSTEMONE, _body(one, range(n_questions)))[0])
            own = [_body(_state(next(numbers), n_words), [n]) for n in range(n_questions)]
            rows["alone, states of their own"].append(sum(_timed(connection, SYSTEMONE, body)[0] for body in own))
            same = [_body(other, [n]) for n in range(n_questions)]
            rows["alone, the same state"].append(sum(_timed(connection, SYSTEMONE, body)[0] for body in same))
        connection.close()
    print(f"{n_questions} questions over a state of {n_tokens} tokens, {rounds} rounds:")
    for name, times in rows.items():
        ratios = [ms / alone for ms, alone in zip(rows["together"], times, strict=True)]
        print(f"{name:28}{statistics.median(times):9.0f} ms   together / this: {_spread(ratios)}")


def _timed(connection: Connection, path: str, body: object) -> tuple[float, Reply]:
    sent, began = request(connection.port, path, body), time.perf_counter()
    reply = connection.ask(sent)
    took_ms = (time.perf_counter() - began) * 1000
    if reply.status != 200:
        raise SystemExit(f"{path} answers {reply.status}: {reply.body[:300]!r}")
    return took_ms, reply


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3g} ({min(ratios):.3g} to {max(ratios):.3g})"


def _words_for(connection: Connection, n_tokens: int, numbers: itertools.count[int]) -> int:
    """How many words make a state of that many tokens, by what the server counts."""
    few, more = (_timed(connection, SYSTEMONE, _body(_state(next(numbers), n), [1]))[1].json()["usage"]["input_tokens"] for n in (50, 150))
    return round(n_tokens * 100 / (more - few))


def _state(number: int, n_words: int) -> str:
    """A text that differs from the others from its first word on."""
    return f"Case {number}: " + " ".join(_WORDS[(number + i * i) % len(_WORDS)] for i in range(n_words)) + "."


def _body(state: str, numbers: range | list[int]) -> dict[str, object]:
    return {"model": "edge-auto", "state": state, "questions": {f"q{n}": _question(n) for n in numbers}}


def _question(n: int) -> dict[str, object]:
    if n % 3 == 0:
        return {"type": "choice", "instructions": f"Which team takes letter {n}?", "criteria": _TEAMS}
    if n % 3 == 1:
        return {"type": "noul", "instructions": f"Does the customer ask for money back in letter {n}?"}
    return {"type": "score", "instructions": f"How angry is letter {n}?", "criteria": ["calm", "annoyed", "angry", "furious"]}
