"""The rounds of FogGen: the current checkpoint answers new questions and then learns to say how often it was right.

Owns the steps of a round and its files. The folder of a round holds its adapter, its labels and, written last,
`measured.json`. A round with that file is done; any other is made again from the start. Invariant: a round depends only on
the recipe, its number and the checkpoint before it.
"""

from __future__ import annotations

import json
import pathlib
import shutil
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from edge_agent.core.errors import BadData
from edge_agent.model.answers import parse
from edge_agent.model.profile import Profile, default_profile
from models.recipe import generate, gguf_base, label, legal, measured, rows, sft
from models.recipe.bank import Item
from models.recipe.bank.unknown import unknown
from models.recipe.config import Recipe
from models.recipe.dress import Dressed
from models.recipe.progress import say
from models.recipe.source import Source

_PROFILES = {"qwen3": "qwen3", "gemma3_text": "gemma3", "gemma3": "gemma3"}
Labelled = list[tuple[Item, str]]


@dataclass(slots=True)
class Chain:
    """A chain of rounds in progress: its recipe, its folder, and the current model."""

    recipe: Recipe
    base: str
    out: pathlib.Path
    source: Source
    tok: PreTrainedTokenizerBase = field(init=False)
    prompts: rows.Prompts = field(init=False)
    model: PreTrainedModel = field(init=False)

    def __post_init__(self) -> None:
        self.tok = AutoTokenizer.from_pretrained(self.base)
        self.model = opened(self.base)
        self.prompts = rows.Prompts(self.tok, _profile(self.model))

    def run(self, rounds: int) -> list[dict[str, Any]]:
        """Make the missing rounds from R0 to R`rounds`. Returns the measurements of each round."""
        figures = []
        for number in range(rounds + 1):
            done = self.folder(number) / "measured.json"
            if not done.exists():
                shutil.rmtree(self.folder(number), ignore_errors=True)
                self.folder(number).mkdir(parents=True)
                self._start() if number == 0 else self._round(number)
            figures.append(json.loads(done.read_text(encoding="utf-8")))
        return figures

    def folder(self, number: int) -> pathlib.Path:
        """The folder of a round."""
        return self.out / "rounds" / f"R{number:02d}"

    def _start(self) -> None:
        """R0: the raw base, and the buffer with its labels. A small model first learns from its sibling."""
        chain = self.recipe.chain
        per_domain = -(-chain.buffer_questions // len(chain.domains))
        items = [item for domain in chain.domains for item in self.source.draw(f"buffer/{self.recipe.seed}", per_domain, "train", domain)]
        items += self._unknown(len(items), "buffer")
        if self.recipe.sibling:
            with_labels = self._labelled_by_sibling(items)
            self._train(0, with_labels, [])
        else:
            with_labels = self.labelled(items, 0)
        _write_labels(self.out / "buffer.jsonl", with_labels)
        self._measure(0, with_labels)

    def _round(self, number: int) -> None:
        """Train on new questions of the round's domain, labelled by the current model, and on some of the buffer."""
        chain, seed = self.recipe.chain, f"{self.recipe.seed}/{number}"
        self.load(number - 1)
        domain = chain.domains[(number - 1) % len(chain.domains)]
        items = self.source.draw(f"round/{seed}", chain.new_questions, "train", domain)
        items += self._unknown(len(items), seed)
        new = self.labelled(items, number)
        buffer = _read_labels(self.out / "buffer.jsonl")
        replayed = Random(f"replay/{seed}").sample(buffer, min(chain.replayed_questions, len(buffer)))
        _write_labels(self.folder(number) / "labels.jsonl", new)
        self._train(number, new + replayed, self._verifications([item for item, _ in new + replayed], seed))
        self._measure(number, new)

    def _unknown(self, n: int, seed: str) -> list[Item]:
        rng = Random(f"unknown/{self.recipe.seed}/{seed}")
        return [unknown(rng) for _ in range(round(n * self.recipe.chain.unknown_share))]

    def _verifications(self, items: list[Item], seed: str) -> list[Dressed]:
        rng = Random(f"verification/{seed}")
        chosen = rng.sample(items, round(len(items) * self.recipe.chain.verification_share))
        return [rows.verification(self.prompts, item, rng, self.recipe.lora.weights) for item in chosen]

    def labelled(self, items: list[Item], number: int) -> Labelled:
        """The items, each with the level that fits the current model's answers."""
        settings, seed = self.recipe.labels, self.recipe.seed * 1000 + number
        say(f"R{number}: {len(items)} questions, {settings.samples} answers each")
        prompts = [self.prompts.letter(item) for item in items]
        if settings.by == "scored":
            scores = legal.score(self.model, self.tok, prompts, [settings.temperature])[0]
            levels = label.from_scores(scores, items, settings, np.random.default_rng(seed))
        else:
            if generate.has_vllm() and torch.cuda.is_available():
                texts = generate.by_vllm(self._merged(number - 1), self.tok, prompts, settings.samples, settings.temperature, seed)
            else:
                texts = generate.by_transformers(self.model, self.tok, prompts, settings.samples, settings.temperature, seed)
            levels = label.from_letters([[parse(text)[1] for text in row] for row in texts], items, settings)
        return list(zip(items, levels, strict=True))

    def _labelled_by_sibling(self, items: list[Item]) -> Labelled:
        assert self.recipe.sibling
        path = gguf_base.opened(self.recipe.sibling.path, self.out / "sibling")
        say(f"R0: {len(items)} questions labelled by {path}")
        sibling, tok = opened(path), AutoTokenizer.from_pretrained(path)
        prompts = rows.Prompts(tok, _profile(sibling))
        scores = legal.score(sibling, tok, [prompts.letter(item) for item in items], [self.recipe.labels.temperature])[0]
        levels = label.from_scores(scores, items, self.recipe.labels, np.random.default_rng(self.recipe.seed))
        return list(zip(items, levels, strict=True))

    def _train(self, number: int, with_labels: Labelled, more: list[Dressed]) -> None:
        self.fine_tune(number, [rows.letter(self.prompts, item, level, self.recipe.lora.weights) for item, level in with_labels] + more)

    def fine_tune(self, number: int, texts: list[Dressed]) -> None:
        """Train the adapter on `texts` and save it in the round's folder. Merge it if the recipe says so."""
        lora = self.recipe.lora
        if not isinstance(self.model, PeftModel):
            torch.manual_seed(self.recipe.seed)  # for the initial weights of the adapter
            self.model = sft.adapted(self.model, lora, None)
        sft.train(self.model, self.tok, texts, lora, self.recipe.seed, f"R{number}")
        sft.save(self.model, self.folder(number) / "adapter", self.recipe.base or "../base")
        if self.recipe.chain.merge_each_round:
            self.model = self.model.merge_and_unload()
            self.model.save_pretrained(self._merged_folder(number))
            self.tok.save_pretrained(self._merged_folder(number))

    def _measure(self, number: int, with_labels: Labelled) -> None:
        chain = self.recipe.chain
        items = [
            i
            for domain in chain.domains
            for i in self.source.draw("measure", chain.measured_questions // len(chain.domains), "test", domain)
        ]
        scores = legal.score(self.model, self.tok, [self.prompts.letter(item) for item in items], [1.0])[0]
        found = {"round": number, "labels": {level: sum(said == level for _, said in with_labels) for level in label.LEVELS}}
        found |= measured.figures(scores, items)
        write(self.folder(number) / "measured.json", json.dumps(found, indent=1))
        printed, expected = found["confidence"], found["expected_confidence"]
        say(f"R{number}: right {found['right']:.3f}, AUROC {printed['auroc']:.3f} / {expected['auroc']:.3f} (level / expected), "
            f"lift {printed['lift']:+.3f} / {expected['lift']:+.3f}, routed {printed['routed']:.3f}")  # fmt: skip
        shutil.rmtree(self._merged_folder(number - 2), ignore_errors=True)  # the next round needs only the last one

    def _merged_folder(self, number: int) -> pathlib.Path:
        """The folder of a merged checkpoint of this chain. It never holds the base."""
        return self.out / "merged" / f"R{number:02d}"

    def _merged(self, number: int) -> pathlib.Path | str:
        """The checkpoint after a round, if each round is merged into the next base."""
        folder = self._merged_folder(number)
        if folder.exists():
            return folder
        if number > 0:
            raise BadData(
                f"the checkpoint of round {number} is missing ({folder}); remove the folders from R{number:02d} on to make them again"
            )
        return self.base

    def load(self, number: int) -> None:
        """Load the model as it was after round `number`, unless it is loaded already."""
        adapter = self.folder(number) / "adapter"
        if self.recipe.chain.merge_each_round:
            self.model = opened(str(self._merged(number)))
        elif adapter.exists() and not isinstance(self.model, PeftModel):
            self.model = sft.adapted(self.model, self.recipe.lora, adapter)


def opened(path: str) -> PreTrainedModel:
    """Load a checkpoint, in float32 on a CPU and in bfloat16 on a GPU."""
    gpu = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16 if gpu else torch.float32)
    return model.to("cuda") if gpu else model


def _profile(model: PreTrainedModel) -> Profile:
    return default_profile(_PROFILES.get(model.config.model_type, model.config.model_type))


def write(path: pathlib.Path, text: str) -> None:
    """Write a file, completely or not at all."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _write_labels(path: pathlib.Path, with_labels: Labelled) -> None:
    lines = (json.dumps({"item": _as_row(item), "level": level}, ensure_ascii=False) for item, level in with_labels)
    write(path, "\n".join(lines) + "\n")


def _as_row(item: Item) -> list[Any]:
    return [item.domain, item.difficulty, item.rule, item.content, item.stem, list(item.options), item.gold]


def _read_labels(path: pathlib.Path) -> Labelled:
    read = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(Item(*row["item"][:5], tuple(row["item"][5]), row["item"][6]), row["level"]) for row in read]
