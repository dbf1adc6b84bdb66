"""Whether an answer is right, by the rule of its benchmark.

Owns the rules: the letter of an option, a text, SQuAD's exact match and F1, GSM8K's final number, TruthfulQA's best match. Pure.
Invariant: every rule grades a gold answer of its own question as right.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from edge_agent.core.question import same
from edge_agent.measure.sets.labelled import CHOICE, NUMBER, SQUAD, TRUTHFUL, Labelled

NOTES = {TRUTHFUL: "an answer counts as right if it is nearer to a right than to a wrong reference answer (approximate)"}
MAX_COMPARED_TOKENS = 512
_MAX_NUMBER_CHARS = 64
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBER = re.compile(r"(?:(?<![\d.)])-)?\$?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)")
_MARKED = re.compile(r"####\s*(.*)")


def correct(labelled: Labelled, answer: str) -> float:
    """1 if the answer is right, 0 if it is wrong.

    A choice is answered by its letter in either case, with the text of its option behind it or without, or by that text.
    """
    if labelled.rule == CHOICE:
        letter = chosen_letter(labelled, answer)
        return float(bool(letter) and letter in labelled.question.same_as(labelled.answer))
    if labelled.rule == SQUAD:
        return exact_match(answer, labelled.golds)
    if labelled.rule == NUMBER:
        return float(any(_same_number(answer, gold) for gold in labelled.golds))
    if labelled.rule == TRUTHFUL:
        return best_match(answer, labelled.golds, labelled.wrong)
    return float(any(same(answer.strip(), gold) or normalised(answer) == normalised(gold) != "" for gold in labelled.golds))


def chosen_letter(labelled: Labelled, answer: str) -> str:
    """The letter that an answer to a question with options names; "" if it names none."""
    text = answer.strip()
    found = re.match(r"[(\[]?([A-Za-z])(?:[)\].:]|$)", text)
    if found and found[1].upper() in labelled.question.letters:
        return found[1].upper()
    plain = normalised(text)
    by_text = [
        letter
        for letter, option in zip(labelled.question.letters, labelled.question.options, strict=True)
        if option == text or normalised(option) == plain != ""
    ]
    exact = [letter for letter in by_text if labelled.question.options[labelled.question.letters.index(letter)] == text]
    return next(iter(exact or by_text), "")


def normalised(text: str) -> str:
    """SQuAD's published normalisation: lower case, no ASCII punctuation, no articles, one space between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """SQuAD's EM: 1 if the answer equals one of the golds after normalisation (Rajpurkar et al. 2016)."""
    return float(any(normalised(answer) == normalised(gold) for gold in golds))


def f1(answer: str, golds: Sequence[str]) -> float:
    """SQuAD's F1: the overlap in words with the nearest gold, after normalisation (Rajpurkar et al. 2016)."""
    return max((_f1(normalised(answer).split(), normalised(gold).split()) for gold in golds), default=0.0)


def _f1(answer: Sequence[str], gold: Sequence[str]) -> float:
    shared = sum((Counter(answer) & Counter(gold)).values())
    return 2 * shared / (len(answer) + len(gold)) if shared else 0.0


def final_number(text: str) -> Decimal | None:
    """The number after the last `####`, or else the last number of a text; None if there is none.

    GSM8K's own rule (Cobbe et al. 2021), with the field's second try for a model that does not write the mark. Thousands separators,
    a currency sign, and a dot at the end are left out.
    """
    text = text.replace("\u2212", "-")
    marked = _MARKED.findall(text)
    found = _NUMBER.findall(marked[-1])[:1] if marked else []
    found = found or _NUMBER.findall(text)[-1:]
    if not found or len(found[0]) > _MAX_NUMBER_CHARS:
        return None
    try:
        return Decimal(re.sub(r"[$,]", "", found[0]))
    except InvalidOperation:
        return None


def _same_number(answer: str, gold: str) -> bool:
    one, other = final_number(answer), final_number(gold)
    return one is not None and one == other


def best_match(answer: str, golds: Sequence[str], wrong: Sequence[str]) -> float:
    """TruthfulQA's comparison (Lin et al. 2022): 1 if the answer is nearer to a right than to every wrong reference, by ROUGE-L.

    The published judge is a model, so this is approximate.
    """
    right = max((rouge_l(answer, gold) for gold in golds), default=0.0)
    return float(right > max((rouge_l(answer, one) for one in wrong), default=0.0))


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L's F-measure (Lin 2004): the longest common subsequence of words, 0 to 1."""
    one, other = (re.findall(r"\w+", text.casefold())[:MAX_COMPARED_TOKENS] for text in (answer, reference))
    lengths = [0] * (len(other) + 1)
    for word in one:
        above = 0
        for at, against in enumerate(other, 1):
            above, lengths[at] = lengths[at], above + 1 if word == against else max(lengths[at], lengths[at - 1])
    return 2 * lengths[-1] / (len(one) + len(other)) if lengths[-1] else 0.0
