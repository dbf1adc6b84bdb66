"""Checks a model file: is it complete, is it what it claims to be, and does it answer like another file?

Owns the checks and the comparison. Prints nothing. Invariants: llama.cpp opens the file only in another process, so nothing
in the file can end this program; a file that cannot be run is not checked further; only agreement is measured, never
whether an answer is right.

KL divergences compare the distribution of the reference with that of the file, in nats: over the levels, and over the
letters after the level that each file chose itself.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.core import routing
from edge_agent.core.errors import BadData, ModelMissing, ModelRefused
from edge_agent.core.question import Question, same
from edge_agent.core.records import OpenReading, Reading
from edge_agent.core.routing import Circumstances, Policy, PolicyName, Step, has_no_confidence
from edge_agent.engine import trial
from edge_agent.engine.trial import Trial
from edge_agent.measure import metrics
from edge_agent.measure.metrics import Interval
from edge_agent.model import catalog, gguf, pulled
from edge_agent.model.catalog import ModelFiles
from edge_agent.model.profile import TAU_IS_USELESS, Profile, described, from_metadata

AnyReading = Reading | OpenReading
Asked = Callable[[ModelFiles, int, int], None]  # the model, the number of questions asked so far, and their total


@dataclass(frozen=True, slots=True)
class FileCheck:
    """The result of one check."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over questions with its 95 % bootstrap interval, and the largest value."""

    mean: float
    low: float
    high: float
    largest: float


@dataclass(frozen=True, slots=True)
class ChangedShare:
    """How many answers changed (`count`), and their share of all questions with its 95 % Wilson interval."""

    count: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A file compared with a reference on the same questions. `letter_kl` is None for answers in words.

    `changed_routes` counts the questions that one file keeps at `tau` and the other defers. Plain models have neither levels nor a tau:
    their `level_kl`, `changed_levels` and `changed_routes` are None. A question that does not fit
    counts in `n_skipped`, not in `n_questions`. Sizes and bits per weight include the adapter.
    """

    reference: str
    reference_adapter: str | None
    n_questions: int
    n_skipped: int
    tau: float
    level_kl: Mean | None
    letter_kl: Mean | None
    changed_levels: ChangedShare | None
    changed_answers: ChangedShare
    changed_routes: ChangedShare | None
    size_bytes: int
    reference_size_bytes: int
    bits_per_weight: float
    reference_bits_per_weight: float


@dataclass(frozen=True, slots=True)
class Verified:
    """The results of all checks. `ok` if none failed."""

    model: ModelFiles
    sha256: str | None
    checks: tuple[FileCheck, ...]
    comparison: Comparison | None = None

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(check.ok for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The object that `edge-agent verify --json` prints."""
        facts = {name: value for name, value in asdict(self).items() if name != "model"}
        adapter = str(self.model.adapter) if self.model.adapter else None
        return {"path": str(self.model.path), "adapter": adapter, **facts, "ok": self.ok}


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest mean KL over levels and share of changed routes that a comparison may have. None: no limit."""

    level_kl: float | None = None
    changed_routes: float | None = None


def verify_model(
    model: ModelFiles,
    folder: pathlib.Path,
    questions: Sequence[Question],
    reference: ModelFiles | None = None,
    tau: float | None = None,
    tolerance: Tolerance | None = None,
    asked: Asked = lambda model, n, total: None,
) -> Verified:
    """Check the files of `model`, and compare it with `reference`. `folder` is the models folder, which may hold a record.

    A problem with the file is a failed check. Raises `ModelMissing` if the file does not exist, `ModelRefused` if the
    reference cannot be run, and `BadData` if the two cannot be compared. `tau` is the file's own by default.
    """
    checks: list[FileCheck] = []
    path = model.path
    try:
        header = gguf.read_header(path)
        checks.append(
            FileCheck("bounds", True, f"{header.architecture}, {header.quantization}, {header.n_tensors} tensors, all within the file")
        )
        sha256 = catalog.sha256_of(path)
        profile = _profile(model, sha256, header)
        checks.append(FileCheck("profile", True, described(profile, header.metadata)))
    except ModelMissing:
        raise
    except ModelRefused as error:
        return Verified(model, None, (*checks, FileCheck("profile" if checks else "bounds", False, str(error))))
    checks.append(_recorded(path, sha256, folder))
    if not checks[-1].ok:
        return Verified(model, sha256, tuple(checks))
    try:
        if model.adapter:
            checks.append(_adapter(model.adapter, gguf.read_adapter(model.adapter, header, catalog.adapters_in(path, header.metadata))))
        tried = trial.run(model, questions, lambda n: asked(model, n, len(questions)), profile=profile)
    except ModelRefused as error:
        failed = "adapter" if model.adapter and checks[-1].name != "adapter" else "load"
        return Verified(model, sha256, (*checks, FileCheck(failed, False, str(error))))
    checks += [_loaded(model, tried), _answers(tried, profile)]
    if tau is not None and profile.is_plain:
        checks.append(FileCheck("tau", True, TAU_IS_USELESS.format(tau)))
    if reference is None:
        return Verified(model, sha256, tuple(checks))
    comparison = _against(model, tried, profile, reference, questions, profile.tau if tau is None else tau, asked)
    return Verified(model, sha256, (*checks, *_within(comparison, tolerance or Tolerance())), comparison)


def compare(readings: Sequence[AnyReading | None], references: Sequence[AnyReading | None], profile: Profile, tau: float) -> dict[str, Any]:
    """The part of a `Comparison` that follows from the readings of both files, for the same questions in the same order."""
    pairs = [(a, b) for a, b in zip(readings, references, strict=True) if a and b]
    if not pairs:
        raise BadData("No question fits both models, so there is nothing to compare; give other questions.")
    levels = None if profile.is_plain else metrics.kl_divergence([b.level_probs for _, b in pairs], [a.level_probs for a, _ in pairs])
    letters = [
        float(metrics.kl_divergence([b.answer_probs], [a.answer_probs])[0])
        for a, b in pairs
        if isinstance(a, Reading) and isinstance(b, Reading)
    ]
    policy = Policy(PolicyName.PREFER_LOCAL, tau, profile.format_mass_min)
    return {
        "n_questions": len(pairs),
        "n_skipped": len(readings) - len(pairs),
        "tau": tau,
        "level_kl": None if levels is None else _mean(levels),
        "letter_kl": _mean(np.array(letters)) if letters else None,
        "changed_levels": None if profile.is_plain else _share([a.level != b.level for a, b in pairs]),
        "changed_answers": _share([not _same(a, b) for a, b in pairs]),
        "changed_routes": None if profile.is_plain else _share([_is_deferred(a, policy) != _is_deferred(b, policy) for a, b in pairs]),
    }


def _against(
    model: ModelFiles, tried: Trial, profile: Profile, reference: ModelFiles, questions: Sequence[Question], tau: float, asked: Asked
) -> Comparison:
    """Read the questions with the reference too, and compare."""
    theirs = _profile(reference, catalog.sha256_of(reference.path), gguf.read_header(reference.path))
    if (theirs.levels, theirs.answer_kind) != (profile.levels, profile.answer_kind):
        raise BadData(f"'{reference.path}' has other levels or another kind of answer than '{model.path}'; compare two files of one model.")
    other = trial.run(reference, questions, lambda n: asked(reference, n, len(questions)), profile=theirs)
    return Comparison(
        reference=str(reference.path),
        reference_adapter=str(reference.adapter) if reference.adapter else None,
        size_bytes=model.size_bytes,
        reference_size_bytes=reference.size_bytes,
        bits_per_weight=_bits(model.size_bytes, tried),
        reference_bits_per_weight=_bits(reference.size_bytes, other),
        **compare(tried.readings, other.readings, profile, tau),
    )


def _within(comparison: Comparison, tolerance: Tolerance) -> list[FileCheck]:
    """One check for each limit that is set."""
    checks = []
    if tolerance.level_kl is not None and comparison.level_kl is None:
        checks.append(FileCheck("levels", False, "a plain model has no levels to compare; leave --max-kl out"))
    elif tolerance.level_kl is not None and comparison.level_kl is not None:
        found = comparison.level_kl.mean
        checks.append(FileCheck("levels", found <= tolerance.level_kl, f"mean KL {found:.4f} nats; the limit is {tolerance.level_kl:g}"))
    if tolerance.changed_routes is not None and comparison.changed_routes is None:
        checks.append(FileCheck("routes", False, "a plain model keeps nothing at a tau, so no route can change; leave --max-changed out"))
    elif tolerance.changed_routes is not None and comparison.changed_routes is not None:
        found = comparison.changed_routes.share
        checks.append(
            FileCheck(
                "routes",
                found <= tolerance.changed_routes,
                f"{found:.1%} of the routes changed; the limit is {tolerance.changed_routes:.1%}",
            )
        )
    return checks


def _profile(model: ModelFiles, sha256: str, header: gguf.Header) -> Profile:
    return model.ways.profile(sha256, model.path, header) if model.ways else from_metadata(header.metadata)


def _recorded(path: pathlib.Path, sha256: str, folder: pathlib.Path) -> FileCheck:
    """Compare the hash of the file with its record, on this device or in the catalogue."""
    record = catalog.recorded(path, folder)
    if record and record.sha256 != sha256:
        when = f" on {record.pulled_at}" if record.pulled_at else ""
        return FileCheck("sha256", False, f"{sha256}, but the file pulled{when} had {record.sha256}: it has changed, so pull it again")
    published = {digest: f"{name}, {file}" for name, entry in catalog.entries().items() for file, digest in entry.sha256.items()}
    published |= {one.sha256: f"{one.source} {one.path}".strip() for one in pulled.load(folder)}
    origin = f"the same as in {published[sha256]}" if sha256 in published else "which is not recorded anywhere"
    return FileCheck("sha256", True, f"{sha256}, {origin}")


def _adapter(path: pathlib.Path, header: gguf.Header) -> FileCheck:
    detail = f"a LoRA for {header.architecture}, {path.stat().st_size:,} bytes, sha256 {catalog.sha256_of(path)}"
    return FileCheck("adapter", True, detail)


def _loaded(model: ModelFiles, tried: Trial) -> FileCheck:
    size = model.size_bytes
    weights = f"{tried.n_parameters:,} weights, {_bits(size, tried):.2f} bits each"
    return FileCheck("load", True, f"opened in a separate process: {size:,} bytes, {weights}")


def _answers(tried: Trial, profile: Profile) -> FileCheck:
    """Check that the model answers most questions in the format."""
    readings = [reading for reading in tried.readings if reading]
    if profile.is_plain:
        return FileCheck("answers", bool(readings), f"{len(readings)} of {len(tried.readings)} questions answered")
    n_in_format = sum(not has_no_confidence(reading, profile.format_mass_min) for reading in readings)
    ok = bool(readings) and 2 * n_in_format > len(readings)
    end = "" if ok else "; a FogGen model does so by itself, so this is another model (try --profile plain) or a damaged one"
    return FileCheck("format", ok, f"{n_in_format} of {len(readings)} questions answered in the format{end}")


def _bits(size_bytes: int, tried: Trial) -> float:
    return round(8 * size_bytes / tried.n_parameters, 3) if tried.n_parameters else float("nan")


def _same(a: AnyReading, b: AnyReading) -> bool:
    return a.answer == b.answer if isinstance(a, Reading) else same(a.answer, b.answer)


def _is_deferred(reading: AnyReading, policy: Policy) -> bool:
    return routing.plan(reading, policy, Circumstances(cloud_configured=True)).step is Step.ASK_CLOUD


def _mean(values: npt.NDArray[np.float64]) -> Mean:
    interval: Interval = metrics.bootstrap_mean(values)
    return Mean(float(values.mean()), interval.low, interval.high, float(values.max()))


def _share(changed: Sequence[bool]) -> ChangedShare:
    interval = metrics.wilson(sum(changed), len(changed))
    return ChangedShare(sum(changed), sum(changed) / len(changed), interval.low, interval.high)
