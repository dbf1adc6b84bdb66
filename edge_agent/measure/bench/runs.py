"""Latency, memory and size of model files on this device, from many short runs in random order.

Owns the order of the runs and the figures from their samples. `sample.py` does the timing, in one process for each run.
Invariant: every file gets the same questions and the same options, and no two files run at the same time.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge_agent.core.errors import ModelError, ModelRefused
from edge_agent.core.question import Question
from edge_agent.engine import child
from edge_agent.measure.bench import machine
from edge_agent.measure.bench.sample import Sample
from edge_agent.model import catalog
from edge_agent.model.catalog import ModelFiles
from edge_agent.model.profile import Profile

CHILD_TIMEOUT_S = 900
READS = 4  # logits that a decision reads: at the start of the answer, twice for the level, once for the letter


@dataclass(frozen=True, slots=True)
class BenchRun:
    """One measurement of one model in a separate process. `number` counts all runs of a benchmark, from 1.

    If `is_beside_busy`, another program kept one core busy meanwhile.
    """

    number: int
    total: int
    model: ModelFiles
    sample: Sample
    is_beside_busy: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of one file from all its runs. Times are in ms, with 95 % bootstrap intervals.

    `floor_ms` is the least that a decision can cost on this machine: its multiplications at the highest measured rate (of a
    float32 product, or of any file in its largest batch) or, if that takes longer, the bytes of the file at the measured
    bandwidth for each forward pass. The bytes of an adapter count, its multiplications do not. `prefill_ratio` is the time
    of a decision divided by that of an evaluation of the same tokens in as few batches as possible. `busy_p50_ms` is the median
    beside a program that keeps one core busy. `differing` is the share of answers that differ from the reference (None for the
    reference itself). `size_bytes` includes the `adapter`.
    """

    name: str
    quantization: str
    path: str
    adapter: str | None
    size_bytes: int
    bits_per_weight: float
    load_ms: float
    cold_ms: float
    restored_ms: float | None
    decision_p50_ms: float
    decision_p50_interval_ms: tuple[float, float]
    decision_p95_ms: float
    decision_p95_interval_ms: tuple[float, float]
    busy_p50_ms: float | None
    prefill_ratio: float
    prefill_per_s: float
    decode_per_s: float
    n_forward: float
    n_tokens: float
    n_decisions: int
    anonymous_bytes: int | None
    mapped_bytes: int | None
    floor_ms: float
    differing: float | None

    @property
    def label(self) -> str:
        """A short name that is different for each file of a ladder."""
        return f"{self.quantization} + adapter" if self.adapter else self.quantization


def run(
    models: Sequence[ModelFiles],
    questions: Sequence[Question],
    repeats: int,
    seed: int = 0,
    options: dict[str, Any] | None = None,
    busy_repeats: int = 0,
) -> Iterator[BenchRun]:
    """Measure every model `repeats` times, in a new random order for each repeat. Yields each run when it ends.

    Then measure every model `busy_repeats` times beside a program that keeps one core busy. Raises `ModelError` if a file cannot
    be run.
    """
    profiles = [Profile.from_json(catalog.identified(model).profile) for model in models]
    rng, total = random.Random(seed), len(models) * (repeats + busy_repeats)
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats + busy_repeats):
            for at in rng.sample(range(len(models)), len(models)):
                number += 1
                cache, busy = pathlib.Path(folder) / str(at), repeat >= repeats
                with _one_busy_core() if busy else contextlib.nullcontext():
                    sample = _child(models[at], profiles[at], questions, options or {}, cache)
                yield BenchRun(number, total, models[at], sample, busy)


@contextlib.contextmanager
def _one_busy_core() -> Iterator[None]:
    """Keep one core busy, as a browser on a kiosk may."""
    with subprocess.Popen([sys.executable, "-I", "-c", "while True: pass"]) as program:
        try:
            yield
        finally:
            program.kill()


def results(runs: Sequence[BenchRun], models: Sequence[ModelFiles], n_threads: int, reference: ModelFiles | None = None) -> list[Result]:
    """One result for each model, in the order of `models`. The default reference for `differing` is the largest one."""
    bandwidth = machine.read_bandwidth(n_threads)
    rate = max(machine.multiply_rate(), *(run.sample.prefill_per_s * (run.sample.n_parameters - run.sample.n_embedding) for run in runs))
    samples = {model: [run.sample for run in runs if run.model == model and not run.is_beside_busy] for model in models}
    busy = {model: [run.sample for run in runs if run.model == model and run.is_beside_busy] for model in models}
    of = reference or max(models, key=lambda model: model.size_bytes)
    return [_result(model, samples[model], busy[model], samples[of] if model != of else None, bandwidth, rate) for model in models]


def _result(
    model: ModelFiles, samples: list[Sample], busy: list[Sample], reference: list[Sample] | None, bandwidth: float, rate: float
) -> Result:
    facts, size = catalog.identify(model.path), model.size_bytes
    times = np.concatenate([s.decision_ms for s in samples])
    bare = np.concatenate([s.bare_ms for s in samples])
    n_forward = float(np.mean(np.concatenate([s.n_forward for s in samples])))
    n_tokens = float(np.mean(np.concatenate([s.n_tokens for s in samples])))
    n_parameters, n_embedding = samples[0].n_parameters, samples[0].n_embedding
    n_operations = (n_parameters - n_embedding) * n_tokens + n_embedding * READS
    p50, p95 = (_interval(times, q) for q in (50, 95))
    restored = [s.restored_ms for s in samples if s.restored_ms is not None]
    cold = [s.cold_ms for s in samples if s.restored_ms is None]
    return Result(
        name=facts.name,
        quantization=facts.quantization,
        path=str(model.path),
        adapter=str(model.adapter) if model.adapter else None,
        size_bytes=size,
        bits_per_weight=round(8 * size / n_parameters, 2),
        load_ms=_middle([s.load_ms for s in samples]),
        cold_ms=_middle(cold),
        restored_ms=_middle(restored) if restored else None,
        decision_p50_ms=_middle(times),
        decision_p50_interval_ms=p50,
        decision_p95_ms=round(float(np.percentile(times, 95)), 2),
        decision_p95_interval_ms=p95,
        busy_p50_ms=_middle(np.concatenate([s.decision_ms for s in busy])) if busy else None,
        prefill_ratio=round(float(np.median(times / bare)), 3),
        prefill_per_s=_middle([s.prefill_per_s for s in samples]),
        decode_per_s=_middle([s.decode_per_s for s in samples]),
        n_forward=round(n_forward, 2),
        n_tokens=round(n_tokens, 1),
        n_decisions=len(times),
        anonymous_bytes=max((s.anonymous_bytes for s in samples if s.anonymous_bytes is not None), default=None),
        mapped_bytes=max((s.mapped_bytes for s in samples if s.mapped_bytes is not None), default=None),
        floor_ms=round(1000 * max(n_operations / rate, n_forward * size / bandwidth), 2),
        differing=_differing(samples, reference) if reference else None,
    )


def _differing(samples: list[Sample], reference: list[Sample]) -> float:
    """The share of questions where the level or the letter differs from the reference."""
    pairs = list(zip(samples[0].decisions, reference[0].decisions, strict=True))
    return round(sum(a != b for a, b in pairs) / len(pairs), 4)


def _interval(times: np.ndarray[Any, np.dtype[np.float64]], percentile: int) -> tuple[float, float]:
    """A 95 % bootstrap interval of a percentile."""
    rng = np.random.default_rng(0)
    draws = np.percentile(rng.choice(times, (1000, len(times))), percentile, axis=1)
    low, high = np.percentile(draws, (2.5, 97.5))
    return round(float(low), 2), round(float(high), 2)


def _middle(values: Sequence[float] | np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return round(float(np.median(values)), 2)


def _child(model: ModelFiles, profile: Profile, questions: Sequence[Question], options: dict[str, Any], cache: pathlib.Path) -> Sample:
    """Run one process to its end. It is killed if this process is interrupted."""
    request = {
        "path": str(model.path),
        "profile": profile.to_json(),
        "adapter": str(model.adapter) if model.adapter else None,
        "questions": [{"question": q.stem, "options": list(q.options)} for q in questions],
        "options": options,
        "cache": str(cache),
    }
    command, environment = child.command("edge_agent.measure.bench.sample"), child.environment()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        try:
            out, error = process.communicate(json.dumps(request).encode(), CHILD_TIMEOUT_S)
        except subprocess.TimeoutExpired as late:
            raise ModelError(f"Measuring '{model}' took longer than {CHILD_TIMEOUT_S} s; give fewer questions.") from late
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    if process.returncode != 0:
        last = error.decode(errors="replace").strip().splitlines()[-1:] or ["it printed no reason"]
        raise ModelRefused(f"Cannot measure '{model}': {last[0]}")
    return Sample(**json.loads(out))


def to_dict(results: Sequence[Result], about: machine.Machine, n_threads: int) -> dict[str, Any]:
    """The object that `edge-agent bench --json` prints."""
    return {"machine": asdict(about), "n_threads": n_threads, "files": [asdict(result) for result in results]}
