"""The text of a reply without its typography, in which a letter with the text of an option behind it is folded to a mark.

Owns how "B) 19", "b) 19" and "19 (B)" become B and a mark, and how a list of options that is only repeated goes away; `verdict.py`
says what the letters mean. Invariant: only marks, typography and texts of options are taken away, never a word of the reply.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

from edge_agent.cloud.wire import wording as words
from edge_agent.core.question import Question

LATIN_FOR = dict(zip("АВСЕНІКМОРТХ", "ABCEHIKMOPTX", strict=True))  # Cyrillic letters that look Latin
_OTHER_CYRILLIC = {"Б": "B", "Г": "DG", "Д": "DE"}  # by place in the alphabet or by sound: only with the text of the option
_FORMS: dict[int, int | str | None] = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},  # full-width
    **{0x24B6 + i: ord("A") + i for i in range(26)},  # circled
    **dict.fromkeys(map(ord, '*`~$"“”„«»\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\ufe0f' + words.OWN + words.OTHER)),
    **{ord("’"): "'", 0x3000: " ", 0xA0: " "},
}
_LATEX = r"\\(?:text|mathrm|mathbf|textbf|mathsf|textrm|mbox|displaystyle|left|right)\b"
_BRACES = {ord("{"): " ", ord("}"): " ", ord("_"): " "}


def distinct_options(question: Question) -> dict[str, str]:
    """The letters of the options by their plain text; without texts that several options have, or that may be taken for a letter."""
    keys = [key_of(plain(option)) for option in question.options]
    return {
        key: letter
        for key, letter in zip(keys, question.letters, strict=True)
        if key and keys.count(key) == 1 and (len(key) > 1 or key.upper() not in question.letters)
    }


def texts_of(options: dict[str, str]) -> str:
    """A pattern for the texts of the options, the longest first."""
    texts = sorted(options, key=len, reverse=True)
    return (
        r"((?i:" + "|".join(r"\s{1,3}".join(map(re.escape, text.split())).replace("%", r"\s?%") for text in texts) + r"))(?!\w)(?![.,]\d)"
    )


def with_options_folded(text: str, options: dict[str, str], letters: str) -> str:
    """A text in which "B) 19", "b) 19" and "19 (B)" are B and a mark: the mark says whether 19 is the text of B or of another option.

    A list of options that is only repeated is taken out.
    """
    if not options:
        return text
    keys = {letter: key for key, letter in options.items()}

    def fold(match: re.Match[str]) -> str:
        symbol, between, letter = match[1].upper(), match[2], options.get(key_of(match[3]), "")
        if match[1] != symbol and not re.match(r"[).:\]]", between):
            return match[0]
        named = LATIN_FOR.get(symbol, symbol)
        if letter and letter in (named, *_OTHER_CYRILLIC.get(symbol, "")):
            return letter + words.OWN
        is_label = (named in letters or symbol in _OTHER_CYRILLIC) and "=" not in between
        ends = re.compile(r"[^\S\n]*(?:\n|$)" if "\n" in between else words.TEXT_ENDS).match(match.string, match.end())
        return symbol + words.OTHER if is_label and ends else match[0]

    text = re.sub(
        rf"(?<!{words.WORD})([A-Za-zА-Яа-яІі])((?:\s?{words.NOUN})?[\s.):,;(=\[\]>\-–—、．。]{{1,6}}?){texts_of(options)}", fold, text
    )
    pieces, end = [], 0
    for bracket in re.finditer(words.IN_BRACKETS, text):
        symbol = bracket[1] or bracket[2] or bracket[3]
        letter = LATIN_FOR.get(symbol, symbol)
        option = keys.get(letter) and re.search(
            rf"(?<!{words.WORD}){texts_of({keys[letter]: letter})}[\"']?$", text[end : bracket.start()][-len(keys[letter]) - 9 :]
        )
        if option:
            before = text[end : bracket.start()]
            pieces.append(before[: len(before) - len(option[0])] + letter + words.OWN)
            end = bracket.end()
    text = "".join(pieces) + text[end:]
    return re.sub(words.LIST, lambda found: "\n…\n" if _is_list(found) else found[0], text)


def _is_list(found: re.Match[str]) -> bool:
    """Whether these are labels in their order, at least two of them or under a heading."""
    labels = re.findall(f"([A-Z]){words.OWN}", found[0])
    if re.search("[✅✓✔☑❌✗✘]", found[0]):
        return False
    return (len(labels) > 1 or bool(found["heading"])) and all(ord(after) == ord(before) + 1 for before, after in pairwise(labels))


def plain(text: str) -> str:
    """A text without Markdown, LaTeX and full-width forms; a box or a tag that marks the answer becomes "answer:"."""
    text = re.sub(r"[A-Za-zА-Яа-яІіЁё][\u0300-\u036f]{1,3}", lambda match: unicodedata.normalize("NFC", match[0]), text)
    text = text.translate(_FORMS)
    text = re.sub(r"\\f?boxed\s?\{|<(?:final[_ ]?)?(?:answer|choice|option|result)>", " answer: ", text)
    text = re.sub(r"<br\s?/?>|</(?:final[_ ]?)?(?:answer|choice|option|result)>", "\n", text)
    text = re.sub(rf"{_LATEX}|</?(?:b|i|strong|em|p|u)>|\\(?=[%$#&_ ,;!(\[)\]])", "", text)
    return text.translate(_BRACES)


def key_of(text: str) -> str:
    """What two spellings of one option's text have in common."""
    return re.sub(r"\s%", "%", " ".join(text.strip(" \t\n'()[].,:;!。，；").split())).lower()


def bare(line: str) -> str:
    """A line without bullets, quotes and marks around it; ">18" keeps its sign."""
    stripped = re.sub(r"^(?:[-–—]\s+|[-–=]+>)", "", line.lstrip(words.LEFT_EDGES)).lstrip(words.LEFT_EDGES)
    sign = stripped[:1].isdigit() and re.search(r"(?<![=-])[<>]\s?$", line[: -len(stripped)])
    return ((sign[0] if sign else "") + stripped).rstrip(words.RIGHT_EDGES)
