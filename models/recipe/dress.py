"""How a question of the bank is put into text for training, with the weight that each part has in the loss.

Three dresses: `open_text` (question and answer, no options), `bare` (options and a letter), `wrapped` (FogGen's real
prompt). Owns text and weights, knows no tokens. Invariant: a wrapped text is character for character the prompt that
the runtime builds, followed by the answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from edge_agent.profile import default_profile
from edge_agent.question import LETTERS
from models.recipe.bank import Item

LETTER_WEIGHT = 4.0
TEXT_WEIGHT = 0.4
FORMAT_WEIGHT = 0.15

_OTHER_SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "Answer with one letter.",
    "You answer multiple-choice questions.",
    "Choose the right option. Output format:\nFinal answer: <OPTION_LETTER>",
)


@dataclass(slots=True)
class Dressed:
    """A text for training. `spans` are (start, end, weight) in characters; `options` are (end, is_right)."""

    text: str
    spans: list[tuple[int, int, float]]
    options: list[tuple[int, bool]]


def user_message(item: Item) -> str:
    """The user message of FogGen's protocol."""
    return "\n".join([item.stem, *(f"{letter}. {o}" for letter, o in zip(LETTERS, item.options, strict=False))])


def prompt(item: Item, system: str | None = None) -> str:
    """The whole prompt as text; FogGen's system message unless another is given."""
    profile = default_profile("qwen3")
    text = "".join(segment.text for segment in profile.segments(user_message(item)))
    return text if system is None else text.replace(profile.system_message, system, 1)


def answer(item: Item, level: str | None = None) -> str:
    """What the model should print: the confidence line when a level is given, then the letter."""
    return (f"Confidence: {level}\n" if level else "") + f"Final answer: {item.letter}"


def open_text(items: list[Item]) -> Dressed:
    """Several questions with their answers in a row, without options."""
    text, spans = "", []
    for item in items:
        text += f"{item.stem} "
        spans.append((len(text), len(text) + len(item.answer) + 1, 1.0))
        text += f"{item.answer}\n"
    return Dressed(text, spans, [])


def copying(rng: random.Random) -> Item:
    """An item that asks for nothing but a copy: "Pick 19." It teaches what letters are for."""
    values = [str(v) for v in rng.sample(range(2, rng.choice((10, 99, 999))), rng.choice((2, 3, 4, 4, 5)))]
    gold = rng.randrange(len(values))
    return Item("copy", 1, "", f"Pick {values[gold]}.", tuple(values), gold)


def bare(item: Item) -> Dressed:
    """Question, options, `Answer: B. 24`."""
    dressed = _with_options("", item)
    dressed.text += "\nAnswer: "
    at = len(dressed.text)
    dressed.text += f"{item.letter}. {item.answer}<|endoftext|>"
    dressed.spans = [(at, at + 1, LETTER_WEIGHT), (at + 1, len(dressed.text), TEXT_WEIGHT)]
    return dressed


def wrapped(item: Item, rng: random.Random, level: str | None = None) -> Dressed:
    """The runtime's prompt and the answer; three in ten have another system message when there is no `level`."""
    other = level is None and rng.random() < 0.3
    text = prompt(item, rng.choice(_OTHER_SYSTEM_MESSAGES) if other else None)
    before = text[: text.index(user_message(item))]
    dressed = _with_options(before, item)
    dressed.text = text
    completion = answer(item, level) + "<|im_end|>"
    at = len(text)
    letter_at = at + completion.index("Final answer: ") + len("Final answer: ")
    level_end = at + completion.index("\n") if level else at
    dressed.spans = [(level_end, letter_at, FORMAT_WEIGHT), (letter_at, letter_at + 1, LETTER_WEIGHT)]
    if level:
        level_at = at + len("Confidence: ")
        dressed.spans += [(at, level_at, FORMAT_WEIGHT), (level_at, level_end, 1.0)]
    dressed.spans.append((letter_at + 1, at + len(completion), FORMAT_WEIGHT))
    dressed.text += completion
    return dressed


def _with_options(before: str, item: Item) -> Dressed:
    text, ends = before + item.stem, []
    for i, option in enumerate(item.options):
        text += f"\n{LETTERS[i]}. {option}"
        ends.append((len(text), i == item.gold))
    return Dressed(text, [], ends)
