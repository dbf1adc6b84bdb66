"""A chain of FogGen's rounds for real weights that answer with the text of an option, within a time budget.

R0 teaches the format: the answers of the buffer, with levels from the options' scores of the untouched base (or of a sibling), which a
model this small cannot print yet. Each later round labels new questions by the current model and trains on them and on some of the
buffer. One adapter goes through all rounds. Owns the steps of a round, their files and the budget. Invariants: the folder of a round
with `measured.json` is done; a killed run loses at most a minute of training or one line of labels; the clock counts only what is
kept.
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from edge_agent.core.errors import BadData
from edge_agent.measure import metrics
from edge_agent.model.profile import LEVELS, OPTION, Profile, default_profile
from models.recipe import label, option_rows, sft
from models.recipe.answers import NORMALISED, OptionAnswers, OptionReading, PlainScores, is_askable, read, score_plain
from models.recipe.bank import Item
from models.recipe.chain import write
from models.recipe.config import Recipe
from models.recipe.measured import routing
from models.recipe.progress import say
from models.recipe.source import Files

_ARCHITECTURES = {"gemma3_text": "gemma3"}
_SAID_EVERY_S = 20.0
_READ_TOKENS = 1024  # a line without a gradient may be long
_LABELS_SHARE = 0.2  # of the time of a round, at most, goes into labels

Labelled = list[tuple[Item, str]]


@dataclass(slots=True)
class RunClock:
    """The seconds that a run has used, over all its starts; `limit_s` is the budget of the whole run, if there is one."""

    path: pathlib.Path
    limit_s: float | None
    _before: float = field(init=False)
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._before = float(self.path.read_text()) if self.path.exists() else 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def keep(self) -> None:
        """Note the seconds so far."""
        write(self.path, f"{self.seconds:.1f}\n")


@dataclass(slots=True)
class OptionChain:
    """A chain in progress. `base` is the folder or the name of a checkpoint, `sibling` that of another one, or none."""

    recipe: Recipe
    base: str
    out: pathlib.Path
    source: Files
    sibling: str | None = None
    limit_s: float | None = None
    clock: RunClock = field(init=False)
    tok: PreTrainedTokenizerBase = field(init=False)
    model: PreTrainedModel | PeftModel = field(init=False)
    answers: OptionAnswers = field(init=False)
    domains: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.clock = RunClock(self.out / "seconds.txt", self.limit_s)
        self.tok, self.model = AutoTokenizer.from_pretrained(self.base), opened(self.base)
        self.answers = OptionAnswers(self.tok, profile_of(self.model))
        self.domains = self.recipe.chain.domains or self.source.domains
        torch.set_float32_matmul_precision("high")

    def run(self, rounds: int) -> list[dict[str, Any]]:
        """Measure the untouched base, then make the missing rounds from R0 to R`rounds`. Returns the figures of each."""
        self._measure_base()
        for number in range(rounds + 1):
            if not (self.folder(number) / "measured.json").exists():
                self._round(number, self._deadline(number, rounds))
            self.clock.keep()
        figures = [self._read("base.json"), *(self._read(f"rounds/R{n:02d}/measured.json") for n in range(rounds + 1))]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        write(
            self.out / "curve.json",
            json.dumps({"minutes": round(self.clock.seconds / 60, 3), "peak_mib": round(memory), "rounds": figures}, indent=1),
        )
        say(table(figures))
        say(f"{self.clock.seconds / 60:.1f} minutes in all, {memory:,.0f} MiB at the peak of this start")
        return figures

    def folder(self, number: int) -> pathlib.Path:
        """The folder of a round."""
        return self.out / "rounds" / f"R{number:02d}"

    def _read(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / name).read_text(encoding="utf-8"))
        return found

    def _deadline(self, number: int, rounds: int) -> float | None:
        """When round `number` must end, on the clock: what is left is shared equally by the rounds that are not done."""
        if self.limit_s is None:
            return None
        kept = self.folder(number) / "deadline.txt"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            left = max(0.0, self.limit_s - self.clock.seconds)
            write(kept, f"{self.clock.seconds + left / (rounds + 1 - number):.1f}\n")
        return float(kept.read_text())

    def _questions(self, seed: str, n: int, split: str) -> list[Item]:
        each = -(-n // len(self.domains))
        found = [item for domain in self.domains for item in self.source.draw(seed, each, split, domain) if is_askable(item)]
        Random(seed).shuffle(found)
        return found

    def _round(self, number: int, deadline: float | None) -> None:
        chain, folder = self.recipe.chain, self.folder(number)
        folder.mkdir(parents=True, exist_ok=True)
        self._load(number)
        start = self.clock.seconds
        end = None if deadline is None else max(start, deadline - self._measure_seconds(number))
        wanted = chain.new_questions if number else chain.buffer_questions
        items = self._questions(f"round/{self.recipe.seed}/{number}", wanted, "train")
        labels_end = None if end is None else start + (end - start) * _LABELS_SHARE
        new = self._labelled(number, items, folder / "labels.jsonl", labels_end)
        rows = list(new)
        if number:
            buffer = _read_labels(
                self.folder(0) / "labels.jsonl", self._questions(f"round/{self.recipe.seed}/0", chain.buffer_questions, "train")
            )
            rows += Random(f"replay/{self.recipe.seed}/{number}").sample(buffer, min(chain.replayed_questions, len(new), len(buffer)))
        trained = self._train(number, rows, end)
        began = time.monotonic()
        figures = {
            "round": number,
            "questions_labelled": len(new),
            "rows": len(rows),
            "steps": trained.steps,
            "loss": round(float(np.mean(trained.losses[-50:])), 4) if trained.losses else None,
        }
        figures["labels"] = {level: sum(said == level for _, said in new) for level in LEVELS}
        figures |= self._measured()
        figures["measure_seconds"] = round(time.monotonic() - began, 1)
        figures["seconds"] = round(self.clock.seconds, 1)
        write(folder / "measured.json", json.dumps(figures, indent=1))
        (folder / "training.pt").unlink(missing_ok=True)
        say(table([figures], head=False))

    def _measure_seconds(self, number: int) -> float:
        """How long measuring will take: as long as after the round before, or as long as the base's plain scores of twice as many questions."""
        if number:
            return float(self._read(f"rounds/R{number - 1:02d}/measured.json")["measure_seconds"])
        return float(self._read("base.json")["seconds"])

    def _load(self, number: int) -> None:
        """The model as it was after the round before, with an adapter to train."""
        if isinstance(self.model, PeftModel):
            return
        earlier = self.folder(number - 1) / "adapter"
        torch.manual_seed(self.recipe.seed)  # for the initial weights of the adapter
        self.model = sft.adapted(self.model, self.recipe.lora, earlier if number else None)

    def _train(self, number: int, rows: Labelled, end: float | None) -> option_rows.Training:
        assert isinstance(self.model, PeftModel)
        said = time.monotonic()

        def report(state: option_rows.Training, done: float) -> None:
            nonlocal said
            if time.monotonic() - said > _SAID_EVERY_S:
                said = time.monotonic()
                self.clock.keep()
                say(
                    f"R{number}: step {state.steps}, loss {np.mean(state.losses[-50:]):.3f}, {100 * done:.0f} % of {state.seconds / max(done, 1e-9) / 60:.1f} minutes"
                )

        limit = None if end is None else max(0.0, end - self.clock.seconds)
        saved = self.folder(number) / "training.pt"
        self.model.train()
        trained = option_rows.train(self.model, self.answers, rows, self.recipe.lora, f"{self.recipe.seed}/{number}", saved, limit, report)
        self.model.eval()
        sft.save(self.model, self.folder(number) / "adapter", "../../../base")
        return trained

    def _labelled(self, number: int, items: Sequence[Item], path: pathlib.Path, end: float | None) -> Labelled:
        """The items with their levels, as far as the time reaches. Levels that are in the file `path` are kept."""
        done = len(_read_levels(path))
        say(f"R{number}: labels {len(items)} questions, {done} are done")
        if done < len(items) and (path.with_suffix(".done").exists() is False):
            rng = [np.random.default_rng([self.recipe.seed, number, i]) for i in range(len(items))]
            shares = self._right(number, items[done:])
            with path.open("a", encoding="utf-8") as file:
                for i, share in enumerate(shares, done):
                    drawn = (
                        share
                        if self.recipe.labels.exact
                        else rng[i].binomial(self.recipe.labels.samples, min(1.0, share)) / self.recipe.labels.samples
                    )
                    file.write(json.dumps([i, label.level(float(drawn), self.recipe.labels.rounding)]) + "\n")
                    file.flush()
                    if end is not None and self.clock.seconds > end and i + 1 >= 8:
                        break
                os.fsync(file.fileno())
            write(path.with_suffix(".done"), "")
            self.clock.keep()
        return _read_labels(path, items)

    def _right(self, number: int, items: Sequence[Item]) -> Iterable[float]:
        """For each item, how probable the right option is."""
        labels = self.recipe.labels
        if number == 0:
            normalised = self._read("base.json")["best"]
            model, tok = (opened(self.sibling), AutoTokenizer.from_pretrained(self.sibling)) if self.sibling else (self.model, self.tok)
            for item in items:
                yield float(score_plain(model, tok, [item])[0].probs(normalised)[item.gold])
        else:
            for reading, item in zip(read(self.model, self.answers, items, labels.temperature, _READ_TOKENS), items, strict=True):
                yield float(reading.option_probs[item.gold])

    def _held_out(self, split: str = "test") -> list[Item]:
        return self._questions("measure", self.recipe.chain.measured_questions, split)

    def _measure_base(self) -> None:
        """What the untouched base knows: its options' scores after a plain question, normalised as suits as many training questions."""
        path = self.out / "base.json"
        if path.exists():
            return
        began = time.monotonic()
        items, tried = self._held_out(), self._held_out("train")
        say(f"base: scores the options of {len(tried)} training and {len(items)} held-out questions")
        of_tried = score_plain(self.model, self.tok, tried)
        best = max(NORMALISED, key=lambda way: plain_figures(of_tried, tried, way)["right"])
        scores = score_plain(self.model, self.tok, items)
        found = {way: plain_figures(scores, items, way) for way in NORMALISED}
        write(
            path,
            json.dumps(
                {"round": "base", "best": best, "ways": found, **found[best], "seconds": round(time.monotonic() - began, 1)}, indent=1
            ),
        )
        say(table([self._read("base.json")]))

    def _measured(self) -> dict[str, Any]:
        items = self._held_out()
        readings = list(read(self.model, self.answers, items, 1.0, _READ_TOKENS))
        return figures(readings, items)


def opened(path: str) -> PreTrainedModel:
    """Load a checkpoint in bfloat16: its weights do not change, and a processor with bfloat16 then casts nothing at each step."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).eval()
    return model.to("cuda") if torch.cuda.is_available() else model


def profile_of(model: PreTrainedModel) -> Profile:
    """FogGen's profile for a model that answers with the text of an option."""
    kind = model.config.model_type
    return default_profile(_ARCHITECTURES.get(kind, kind), OPTION)


def plain_figures(scores: Sequence[PlainScores], items: Sequence[Item], way: str) -> dict[str, Any]:
    """How often the most probable option is right, and how well its probability tells."""
    probs = [one.probs(way) for one in scores]
    right = np.array([one.argmax() == item.gold for one, item in zip(probs, items, strict=True)], dtype=float)
    best = np.array([one.max() for one in probs])
    return {"questions": len(items), "right": float(right.mean()), **_told("answer_prob", best, right, items)}


def figures(readings: Sequence[OptionReading], items: Sequence[Item]) -> dict[str, Any]:
    """The figures of a round: right, the levels, and how well each readout tells right from wrong, over all and within each set."""
    right = np.array([reading.option_probs.argmax() == item.gold for reading, item in zip(readings, items, strict=True)], dtype=float)
    printed = np.array([float(reading.level) for reading in readings])
    at = {level: np.array([reading.level == level for reading in readings]) for level in LEVELS}
    found: dict[str, Any] = {
        "questions": len(items),
        "right": float(right.mean()),
        "right_by_domain": {name: float(right[own].mean()) for name, own in _sets(items)},
        "levels": {level: int(said.sum()) for level, said in at.items()},
        "right_by_level": {level: float(right[said].mean()) for level, said in at.items() if said.any()},
        "format": float(np.mean([reading.format_mass >= 0.5 for reading in readings])),
        "routing": routing(printed, right),
    }
    for name, scores in (
        ("confidence", printed),
        ("expected_confidence", np.array([reading.expected for reading in readings])),
        ("answer_prob", np.array([reading.option_probs.max() for reading in readings])),
    ):
        found |= _told(name, scores, right, items)
    return found


def _told(name: str, scores: np.ndarray, right: np.ndarray, items: Sequence[Item]) -> dict[str, Any]:
    within = {domain: _auroc(scores[own], right[own]) for domain, own in _sets(items)}
    return {f"auroc_{name}": _auroc(scores, right), f"auroc_{name}_within": within}


def _auroc(scores: np.ndarray, right: np.ndarray) -> float | None:
    return float(metrics.auroc(scores, right)) if 0 < right.sum() < len(right) else None


def _sets(items: Sequence[Item]) -> list[tuple[str, np.ndarray]]:
    names = np.array([item.domain for item in items])
    return [(str(name), names == name) for name in sorted(set(names))]


def table(rows: Sequence[dict[str, Any]], head: bool = True) -> str:
    """The curve of a chain as lines of text: AUROC over all held-out questions, and within each set."""

    def cell(row: dict[str, Any], name: str) -> str:
        whole, within = row.get(f"auroc_{name}"), row.get(f"auroc_{name}_within", {})
        parts = " ".join("-" if value is None else f"{value:.2f}" for value in within.values())
        return "-" if whole is None else f"{whole:.3f} ({parts})"

    out = [f"{'':5}{'right':>7}  {'level':20}{'expected':20}{'answer prob':20}levels"] if head else []
    for row in rows:
        name = row["round"] if isinstance(row["round"], str) else f"R{row['round']}"
        levels = "/".join(str(n) for n in row.get("levels", {}).values())
        cells = "".join(f"{cell(row, one):20}" for one in ("confidence", "expected_confidence", "answer_prob"))
        out.append(f"{name:5}{row['right']:7.3f}  {cells}{levels}")
    return "\n".join(out)


def _read_levels(path: pathlib.Path) -> list[str]:
    """The levels in a file of labels, in the order of the questions; a torn last line does not count."""
    found: list[str] = []
    for text in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []:
        if not text.endswith("\n"):
            break
        i, level = json.loads(text)
        if i != len(found):
            raise BadData(f"the labels in {path} are not in order; remove the file to make them again")
        found.append(level)
    return found


def _read_labels(path: pathlib.Path, items: Sequence[Item]) -> Labelled:
    return list(zip(items, _read_levels(path), strict=False))
