"""Whether the items of a list may be the options of a question, or are a part of it.

Owns the rules that refuse a guess; `parsing` finds the items. Pure. Invariant: FogGen's own form is refused only if one line holds
several options, because everything else in it has always been read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from edge_agent.core import labels
from edge_agent.core.errors import BadQuestion
from edge_agent.core.labels import ListItem

EXAMPLE = "write the question, then one option a line: 'A. text', 'B. text'"
_ROW_A, _ROW_B = re.compile(r"(?<!\S)\(?[AaАа][.)]\s*(?=\S)"), re.compile(r"\s\(?[BbБбВ][.)]\s*(?=\S)")
_LINKS = "and|or|nor|и|или|либо|да|және|немесе|әлде|мен"
_BOX = re.compile(r"\[[ xXхХ✓✔]?\]\s")  # a box to tick, perhaps ticked
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+|\n")
_BLANK = re.compile(r"_|…|\.\.\.")
_CHOICE = re.compile(  # words that ask for a choice, in English, Russian and Kazakh
    r"[?？]|\b(?:which|choose|select|pick|tick|circle|options|choices|one of|correct|except"
    r"|как(?:ой|ая|ое|ие|им|ими|их|ом|ого|ому|ую)|котор\w+|выб[еи]р\w+|выбрать|отметь\w*|укажите|верн\w+|правильн\w+|вариант\w*"
    r"|қай\w*|таңда\w*|белгіле\w*|дұрыс\w*|нұсқа\w*)\b"
)
_COMPLETED = re.compile(
    r"(?:\b(?:is|was|be|the|an?|as|that|by|if|when|should|equals|means|called|because|это|является|называется|равно|равна|равен)|аталады|табылады|тең)\s*[:：]$"
)
_SECOND_SENTENCE = re.compile(
    r"(?:(?<![^\W_])(?!(?:Dr|Mr|Mrs|Ms|St|Mt|Ft|Jr|Sr|Prof|vs)\b)[^\W\d_]{2,}|\d)[.!?]\s+[A-ZА-ЯЁӘҒҚҢӨҰҮҺІ][^\W\d_]+"
)
_NAMED_BY_LETTER = re.compile(
    r"\b(?:vitamins?|hepatitis|influenza|type|group|class|plan|part|section|stage|grade|витамин\w*|гепатит\w*|тип\w*|групп\w*)$"
)
_NAME_BEHIND = re.compile(
    r"[A-ZА-ЯЁ]\.|(?:coli|difficile|botulinum|perfringens|tetani|diphtheriae|albicans|elegans|faecalis|histolytica)\b"
)


class Found(NamedTuple):
    """The stem and the options of a text; `lettered` if the options have letters in it, not numbers or bullets."""

    stem: str
    options: list[str]
    lettered: bool = True


def checked(text: str, start: int, items: Sequence[ListItem]) -> Found:
    """The options that these items are, if they can be nothing else; the first one starts at `start`. Raises `BadQuestion` otherwise.

    Refused are texts that still hold a label, boxes to tick, options that are questions, a list right behind another one, and a list
    behind a text that asks for no choice ("Solve: a) 2 + 2 b) 3 + 3").
    """
    stem, texts = text[:start].rstrip(), _without_separators([item.text for item in items])
    bullets = items[0].label in labels.BULLETS
    lettered = not bullets and not items[0].label.isdecimal()
    if any(c in labels.LINE_BREAKS for c in text[len(stem) : start]):
        _refuse_two_lists(labels.lines_of(stem), items, lettered)
    if not bullets:
        inside = _inside(items)
        _refuse_columns(items, inside)
        if any(labels.is_wide(match["space"]) for match in inside):
            raise BadQuestion(f"The options seem to be in columns, but not all can be told apart; {EXAMPLE}.")
    if any(_BOX.match(option) for option in texts):
        raise BadQuestion(f"The options have boxes to tick, and a ticked one may be the answer; leave the boxes out, and {EXAMPLE}.")
    if any(option.endswith(("?", "？")) for option in texts) or (stem and not _asks(stem, lettered, bullets)):
        raise BadQuestion(f"The list at the end seems to be a part of the question, not its options; {EXAMPLE}.")
    return Found(stem, texts, lettered)


def _asks(stem: str, lettered: bool, bullets: bool) -> bool:
    """Whether a stem asks for one of the options that follow: its last sentence is a question or has a word of choice, or it has a
    blank to fill. Without a colon, letters and numbers may complete its last sentence, and with one, letters may ("is:").
    """
    last = [sentence for sentence in _SENTENCE_END.split(stem) if sentence.strip()][-1].casefold().strip()
    if _CHOICE.search(last) or _BLANK.search(stem):
        return True
    if last.endswith((":", "：")):
        return lettered and bool(_COMPLETED.search(last))
    return not bullets


def _without_separators(options: list[str]) -> list[str]:
    """The options without the `;` or `,` between them, and without the last one's mark: `18;`, `19;`, `24.`; but not of code."""
    if not all(option.endswith((",", ";")) for option in options[:-1]):
        return options
    last = options[-1]
    if last.endswith(";") and re.search(r"[(){}=]", "".join(options)):
        return options
    ends = last.endswith((",", ";")) or (last.endswith(".") and "." not in last[:-1])
    cut = [option.rstrip(",; ") for option in options[:-1]] + [last[:-1].rstrip() if ends else last]
    return cut if all(cut) else options


def _refuse_two_lists(above: list[labels.Line], items: Sequence[ListItem], lettered: bool) -> None:
    """Raise `BadQuestion` if another list stands right above. Letters may refer to a list with numbers or bullets; a first line with
    a label may be the question itself.
    """
    others = [labels.lettered] if lettered else [labels.lettered, labels.numbered, labels.bulleted]
    directly = len(above) > 1 and any(other(above[-1].text) for other in others)
    if directly or (not lettered and any(has_row(item.text) for item in items)):
        raise BadQuestion(f"The text ends with two lists, so it is not clear which one has the options; {EXAMPLE}.")


def refuse_labels_in_own_form(own: list[ListItem]) -> None:
    """Raise `BadQuestion` if the options hold exactly the letters that follow: `A. 18 C. 24`, `B. 19 D. 30` are columns.

    A letter with a dot may be a part of a name: "Arthur C. Clarke", "Vitamin C. Good", "E. coli".
    """
    _refuse_columns(own, [match for match in _inside(own) if match["mark"] == ")" or not _word_before(match)[:1].isupper()])


def _inside(items: Sequence[ListItem]) -> list[re.Match[str]]:
    """The labels inside the texts of the items that may label options of the same list."""
    label = items[0].label
    matches = [match for item in items for match in labels.inside(item.text, number=label.isdecimal())]
    same = [match for match in matches if match["label"].isupper() == label.isupper()]
    return [match for match in same if match["mark"] != "." or not _is_name(match)]


def _is_name(match: re.Match[str]) -> bool:
    """Whether a letter with a dot is surely a part of a name: "vitamin C. Good", "E. coli", "E. O. Wilson"."""
    return bool(_NAMED_BY_LETTER.search(_word_before(match).casefold()) or _NAME_BEHIND.match(match.string, match.end()))


def _word_before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - 40) : match.start()].split()[-1]


def _refuse_columns(items: Sequence[ListItem], inside: list[re.Match[str]]) -> None:
    if inside and (order := labels.ordered([*items, *(ListItem(match["label"], "", "") for match in inside)])):
        raise BadQuestion(f"The options are in columns, labelled {labels.named(order)}; {EXAMPLE}.")


def may_be_row(items: list[ListItem]) -> bool:
    """Whether these can be all options of a row: nothing follows the last one, and none introduces another text."""
    texts = [item.text for item in items]
    if not all(may_be_option(text) for text in texts) or any(text.endswith((":", "：")) for text in texts):
        return False
    if _SECOND_SENTENCE.search(texts[-1]) and not all(_SECOND_SENTENCE.search(text) for text in texts):
        return False
    return not (items[0].label.isdecimal() and has_row(texts[-1]))


def may_be_option(text: str) -> bool:
    """Whether a text between two labels can be an option: `18`, but not `or`, as in "plan A) or plan B)", and not a question."""
    words = re.findall(r"\w+", text[-40:].casefold())
    return "\n" not in text and not text.endswith(("?", "？")) and not (words and re.fullmatch(_LINKS, words[-1]))


def has_row(text: str) -> bool:
    """Whether a line of the text has the label A and, behind it, the label B."""
    return any((first := _ROW_A.search(line)) and _ROW_B.search(line, first.end()) for line in text.split("\n"))
