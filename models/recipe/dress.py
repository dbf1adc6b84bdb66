"""Turns questions of the bank into training texts, with the weight of each part in the loss.

Forms: `answered` (a stem and its answer, no options), `stated` (facts as plain text), `bare` (options and a letter),
`wrapped` (FogGen's real prompt with one question or a conversation of several). Owns text and weights; does not know
tokens. Invariant: a wrapped text of one question is exactly the prompt that the runtime builds, followed by the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from edge_agent.core.question import LETTERS
from edge_agent.model.profile import OPEN_SYSTEM_MESSAGE, SYSTEM_MESSAGE, default_profile
from models.recipe.bank import Item

LETTER_WEIGHT = 4.0
OPTION_WEIGHT = 1.0
TEXT_WEIGHT = 0.4
FORMAT_WEIGHT = 0.15
FACT_WEIGHT = 0.5

_OTHER_SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "Answer with one letter.",
    "You answer multiple-choice questions.",
    "Choose the right option. Output format:\nFinal answer: <OPTION_LETTER>",
)
_END, _NEXT = "<|im_end|>", "\n<|im_start|>user\n"


@dataclass(slots=True)
class Dressed:
    """A training text. `spans` are (start, end, weight) in characters; `options` are (end, is_right)."""

    text: str
    spans: list[tuple[int, int, float]]
    options: list[tuple[int, bool]]


def joined(parts: Iterable[Dressed]) -> Dressed:
    """The texts, concatenated."""
    whole = Dressed("", [], [])
    for part in parts:
        at = len(whole.text)
        whole.text += part.text
        whole.spans += [(start + at, end + at, weight) for start, end, weight in part.spans]
        whole.options += [(end + at, right) for end, right in part.options]
    return whole


def user_message(item: Item) -> str:
    """The user message of FogGen's protocol."""
    return "\n".join([item.stem, *(f"{letter}. {o}" for letter, o in zip(LETTERS, item.options, strict=False))])


def prompt(item: Item) -> str:
    """The whole prompt as text."""
    return "".join(segment.text for segment in default_profile("qwen3").segments(user_message(item)))


def answered(pairs: Iterable[tuple[str, str]]) -> Dressed:
    """Stems with their answers, one on each line."""
    return joined(Dressed(f"{stem} {text}\n", [(len(stem) + 1, len(stem) + len(text) + 2, 1.0)], []) for stem, text in pairs)


def stated(text: str) -> Dressed:
    """Facts as plain text, with every token in the loss."""
    return Dressed(text + "\n", [(1, len(text) + 1, FACT_WEIGHT)], [])


def copying(rng: Random) -> Item:
    """An item that only asks for a copy: "Pick 19." It teaches what letters are for."""
    values = [str(v) for v in rng.sample(range(2, rng.choice((10, 99, 999))), rng.choice((2, 3, 4, 4, 5)))]
    gold = rng.randrange(len(values))
    return Item("copy", 1, "copy", "", f"Pick {values[gold]}.", tuple(values), gold)


def bare(item: Item) -> Dressed:
    """Question, options, `Answer: B. 24`."""
    dressed = _with_options("", item)
    dressed.text += "\nAnswer: "
    at = len(dressed.text)
    dressed.text += f"{item.letter}. {item.answer}<|endoftext|>"
    dressed.spans += [(at, at + 1, LETTER_WEIGHT), (at + 1, len(dressed.text), TEXT_WEIGHT)]
    return dressed


def wrapped(items: list[Item], rng: Random) -> Dressed:
    """The runtime's prompt and the answer without a confidence line, then more questions in the same conversation, so that
    the system message is needed only once. Three in ten have another system message.
    """
    system = rng.choice(_OTHER_SYSTEM_MESSAGES) if rng.random() < 0.3 else SYSTEM_MESSAGE
    return _conversation(system, [_with_options("", item) for item in items], [item.letter for item in items])


def wrapped_open(items: list[Item]) -> Dressed:
    """The same without options, answered in a few words."""
    return _conversation(OPEN_SYSTEM_MESSAGE, [Dressed(item.stem, [], []) for item in items], [item.answer for item in items])


def _conversation(system: str, questions: list[Dressed], answers: list[str]) -> Dressed:
    parts: list[Dressed] = []
    before, after = (
        "".join(segment.text for segment in default_profile("qwen3").segments("\0")).replace(SYSTEM_MESSAGE, system, 1).split("\0")
    )
    for question, text in zip(questions, answers, strict=True):
        at = len("Final answer: ")
        weights = [(0, at, FORMAT_WEIGHT), (at, at + len(text), LETTER_WEIGHT)]
        parts += [Dressed(before, [], []), question, Dressed(after, [], []), Dressed(f"Final answer: {text}", weights, [])]
        parts.append(Dressed(_END, [(0, len(_END), FORMAT_WEIGHT)], []))
        before = _NEXT
    return joined(parts)


def _with_options(before: str, item: Item) -> Dressed:
    """The stem and its options; the text of the right option counts in the loss.

    The model cannot know which option is right before it has read it, so it learns to expect the answer at each option. What
    it would answer without options then shows which option fits.
    """
    text, ends, spans = before + item.stem, [], []
    for i, option in enumerate(item.options):
        text += f"\n{LETTERS[i]}. {option}"
        ends.append((len(text), i == item.gold))
        if i == item.gold:
            spans.append((len(text) - len(option), len(text), OPTION_WEIGHT))
    return Dressed(text, spans, ends)
