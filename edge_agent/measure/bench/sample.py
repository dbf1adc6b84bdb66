"""Measures one model file in a separate process: cold start, decisions, speeds, memory.

Owns the timing. Run as `python -m edge_agent.measure.bench.sample` with a JSON request on stdin; prints the result as JSON.
Invariant: when the clock starts, only Python and this module are loaded; the warm-up questions are not measured.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from edge_agent.core.question import Question
from edge_agent.model.profile import Profile

PREFILL_TOKENS = 256
DECODE_TOKENS = 32
WARM_UP = 2


@dataclass(slots=True)
class Sample:
    """The results of one process. Times are in ms, `prefill` and `decode` in tokens a second, memory in bytes.

    `load` is the time to open the file. `cold` is the time from the start of the imports to the first answer with nothing
    cached; `restored` is the same with the system message on disk. `bare` times evaluate just the tokens that a decision
    needs, in one batch if they fit.
    """

    load_ms: float = 0.0
    cold_ms: float = 0.0
    restored_ms: float | None = None
    decision_ms: list[float] = field(default_factory=list)
    bare_ms: list[float] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    n_forward: list[int] = field(default_factory=list)
    n_tokens: list[int] = field(default_factory=list)
    prefill_per_s: float = 0.0
    decode_per_s: float = 0.0
    anonymous_bytes: int | None = None
    mapped_bytes: int | None = None
    n_parameters: int = 0
    n_embedding: int = 0


def measure(
    path: pathlib.Path,
    adapter: pathlib.Path | None,
    questions: list[Question],
    options: dict[str, Any],
    cache: pathlib.Path,
    profile: Profile,
) -> Sample:
    """Measure one file, with or without an adapter. `cache` is a folder for the system message, empty in the first run."""
    started = time.perf_counter()
    from edge_agent.engine.llama import Options
    from edge_agent.engine.local_model import LocalModel

    sample, imported = Sample(), time.perf_counter()
    with LocalModel(path, profile, Options(**options), prefix_folder=cache, sha256="bench", adapter=adapter) as model:
        opened = time.perf_counter()
        restored = model.is_restored
        model.read(questions[0])
        first_ms = (time.perf_counter() - started) * 1000
        sample.load_ms = (opened - imported) * 1000
        if restored:
            sample.restored_ms = first_ms
        else:
            sample.cold_ms = first_ms
        for question in questions[:WARM_UP]:
            model.read(question)
        for question in questions[WARM_UP:]:
            _decide(model, question, sample)
        sample.anonymous_bytes, sample.mapped_bytes = memory()  # before the larger batches below
        _speeds(model, questions[0], sample)
        sample.n_parameters, sample.n_embedding = model.n_parameters, model.n_embedding
    return sample


def _decide(model: Any, question: Question, sample: Sample) -> None:
    began = time.perf_counter()
    reading = model.read(question)
    sample.decision_ms.append((time.perf_counter() - began) * 1000)
    sample.decisions.append(f"{reading.level} {reading.letter}")
    sample.n_forward.append(reading.timings.n_forward)
    tokens = [*model.prompt_tokens(question), *model.answer_tokens(reading)[:-1]]
    sample.n_tokens.append(len(tokens) - reading.timings.n_cached_tokens)
    sample.bare_ms.append(model.time_evaluation(tokens, reading.timings.n_cached_tokens))


def _speeds(model: Any, question: Question, sample: Sample) -> None:
    """Measure tokens a second in one batch and one at a time."""
    text = model.prompt_tokens(question)
    filler = (text * (PREFILL_TOKENS // len(text) + 1))[:PREFILL_TOKENS]
    sample.prefill_per_s = PREFILL_TOKENS * 1000 / min(model.time_evaluation(filler, 0) for _ in range(2))
    alone_ms = sum(model.time_evaluation(filler[: n + 1], n) for n in range(len(filler) - DECODE_TOKENS, len(filler)))
    sample.decode_per_s = DECODE_TOKENS * 1000 / alone_ms


def memory() -> tuple[int | None, int | None]:
    """The anonymous and the file-backed resident memory of this process, in bytes; None if unknown."""
    try:
        status = pathlib.Path("/proc/self/status").read_text()
    except OSError:
        return None, None
    fields = dict(line.split(":", 1) for line in status.splitlines() if line.startswith("Rss"))
    anonymous, mapped = (int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile"))
    return anonymous, mapped


def main() -> None:
    """Read the request from stdin and print the result."""
    request = json.load(sys.stdin)
    questions = [Question.from_json(question) for question in request["questions"]]
    adapter = pathlib.Path(request["adapter"]) if request["adapter"] else None
    profile = Profile.from_json(request["profile"])
    sample = measure(pathlib.Path(request["path"]), adapter, questions, request["options"], pathlib.Path(request["cache"]), profile)
    json.dump(asdict(sample), sys.stdout)


if __name__ == "__main__":
    main()
