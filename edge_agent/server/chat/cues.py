"""The last line that a program writes behind the options to call for the answer: `Answer:`, `Ответ:`, "Answer with the letter only."

Owns what such a line is. Pure. Invariants: only a line that says nothing about the question is left out, and only behind options that can
be read without it; "Choose the option that is wrong." is a part of the question.
"""

from __future__ import annotations

import re

from edge_agent.core import parsing
from edge_agent.core.errors import BadQuestion

_MOST_LINES = 3
_MOST_CHARS = 160
_NAME = (
    "answer|response|solution|choice|a|ответ|о|жауап|жауабы|жауабың|ж|відповідь|javob|cevap|antwort|réponse|respuesta|resposta"
    "|risposta|答案|回答|答え|正解|정답"
)
_WHICH = "the|your|my|final|correct|best|right|правильный|верный|твой|ваш|дұрыс"
_STEPS = r"let(?:'|’)?s think step[ -]by[ -]step"
_CUE = re.compile(rf"(?:(?:{_WHICH}) ){{0,3}}(?:{_NAME})(?: is| это)?\s?[:：](?:\s*\(|\s*{_STEPS}[.:]?)?|{_STEPS}[.:]?", re.IGNORECASE)
_REQUEST = re.compile(
    r"(?:please,? )?(?:only )?(?:answer|respond|reply)(?: the question| to the question)?(?: only)? (?:with|by|using)"
    r"|(?:пожалуйста,? )?(?:ответьте|ответь|отвечайте|отвечай)|(?:тек|өтінеміз,?)(?= )",
    re.IGNORECASE,
)
_WORDS = frozenset(
    re.findall(
        r"\S+",
        "a an the one only just single latin capital uppercase letter letters option options option's choice choices "
        "number correct right best your chosen selected of from for corresponding given provided following listed above "
        "these directly and or nothing else no explanation explanations alone without any other text words answer "
        "answers to question только лишь одной буквой буква букву буквы варианта вариант ответа ответ правильного "
        "верного латинской без пояснений объяснений бір ғана тек әріппен әріпті әрпімен жауап бер беріңіз жаз жазыңыз "
        "жауаптың дұрыс нұсқаның түсіндірмесіз",
    )
)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_ASKS_FOR = re.compile(r"letter|option|choice|букв|вариант|әріп|әрп|нұсқа|\b[A-Z]\b")


def without_cue(text: str) -> str:
    """The text without such lines at its end; as it is if there are none, or if what is left has no options."""
    left = text
    for _ in range(_MOST_LINES):
        above, _, last = left.rstrip().rpartition("\n")
        if not above.strip() or not _is_cue(last.strip()):
            return text
        left = above
        if _has_options(left):
            return left
    return text


def _is_cue(line: str) -> bool:
    if len(line) > _MOST_CHARS:
        return False
    return _CUE.fullmatch(line) is not None or _is_request(line)


def _is_request(line: str) -> bool:
    """Whether every word of the line asks for a letter: one word more may belong to the question."""
    begin = _REQUEST.match(line)
    if not begin:
        return False
    rest = line[begin.end() :]
    words = [word.casefold().replace("’", "'") for word in _WORD.findall(rest)]
    return _ASKS_FOR.search(rest) is not None and all(word in _WORDS or (len(word) == 1 and word.isascii()) for word in words)


def _has_options(text: str) -> bool:
    try:
        return len(parsing.split(text.replace("\r\n", "\n").replace("\r", "\n").strip()).options) > 1
    except BadQuestion:
        return False
