"""Rows for fine-tuning: a prompt in the model's own chat template, and the text that it should print.

Owns the three kinds of row: a letter with its confidence, a short answer with its confidence, and a verification.
Invariant: the prompt of a letter row equals the prompt of the runtime for the same question.
"""

from __future__ import annotations

import re
from random import Random

from transformers import PreTrainedTokenizerBase

from edge_agent.model.profile import OPEN_SYSTEM_MESSAGE, Profile
from models.recipe import dress
from models.recipe.bank import Item
from models.recipe.config import Weights
from models.recipe.dress import Dressed

VERIFICATION_SYSTEM_MESSAGE = "You check answers to multiple-choice questions. Reply with Correct or Incorrect."


class Prompts:
    """The prompts of one tokenizer's chat template, for a model of this `profile`."""

    def __init__(self, tok: PreTrainedTokenizerBase, profile: Profile) -> None:
        self.tok, self.profile, self.end = tok, profile, profile.shape.end_segment.text

    def letter(self, item: Item) -> str:
        """FogGen's multiple-choice prompt."""
        return self._chat(self.profile.system_message, dress.user_message(item))

    def open(self, item: Item) -> str:
        """The same question without its options, for an answer in a few words."""
        message = OPEN_SYSTEM_MESSAGE
        return self._chat(message if "<think>" in self.profile.system_message else re.sub(r"- Do not output.*\n", "", message), item.stem)

    def verification(self, item: Item, letter: str) -> str:
        """The question whether a proposed answer is correct."""
        return self._chat(VERIFICATION_SYSTEM_MESSAGE, f"{dress.user_message(item)}\n\nProposed answer: {letter}\nIs it correct?")

    def _chat(self, system: str, user: str) -> str:
        if not self.tok.chat_template:  # a base model's GGUF has none
            return "".join(segment.text for segment in self.profile.shape.segments(system, user))
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        return str(self.tok.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False, tokenize=False))


def letter(prompts: Prompts, item: Item, level: str, weights: Weights) -> Dressed:
    """A row with the confidence and the right letter."""
    return _row(prompts.letter(item), level, item.letter, prompts.end, weights)


def short_answer(prompts: Prompts, item: Item, level: str, weights: Weights) -> Dressed:
    """A row with the confidence and the right answer as text."""
    return _row(prompts.open(item), level, item.answer, prompts.end, weights)


def verification(prompts: Prompts, item: Item, rng: Random, weights: Weights) -> Dressed:
    """A row that asks whether a proposed letter is right. Half of them are."""
    wrong = [c for c in "ABCDE"[: len(item.options)] if c != item.letter]
    proposed = item.letter if rng.random() < 0.5 else rng.choice(wrong)
    text, said = prompts.verification(item, proposed), "Correct" if proposed == item.letter else "Incorrect"
    whole = text + said + prompts.end
    at = len(text)
    return Dressed(whole, [(at, at + len(said), weights.letter), (at + len(said), len(whole), weights.rest)], [])


def _row(prompt: str, level: str, answer: str, end: str, weights: Weights) -> Dressed:
    parts = [
        ("Confidence: ", weights.rest),
        (level, weights.level),
        ("\nFinal answer: ", weights.rest),
        (answer, weights.letter),
        (end, weights.rest),
    ]
    spans, text = [], prompt
    for part, weight in parts:
        spans.append((len(text), len(text) + len(part), weight))
        text += part
    return Dressed(text, spans, [])
