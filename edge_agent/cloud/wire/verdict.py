"""Which answer a cloud's reply gives, found in what it says.

Owns the rules by which a letter is found; `spoken.py` takes thinking and marks away before, `folded.py` typography and the texts of
options; `doubt.py` says which verdicts are not meant. Knows nothing of HTTP. Invariants: a
reply is only data, in which we find a letter of the question or not, whatever else it says; no answer is better than a wrong one;
every change to these rules needs a new `PROMPT_VERSION`.

How a letter is found (version 2). A letter with the text of its own option behind it ("B) 19") counts as the letter, a letter
with the text of another option as a contradiction. A verdict is a letter, or the text of an option, that the reply names as its
answer. A list of the options that only stands there again says nothing. In this order:

0. A JSON object with a field "answer" (or "choice" and the like) is read as that field; its other texts may only contradict it.
1. The reply is a letter, or the text of exactly one option.
2. Its first line is a letter: this is the answer, unless the reply later names another one (then there is none).
3. It names an answer: "The answer is B", "Жауап: B", "B is the right answer", a last line that is a letter. Two different ones
   are a contradiction, unless the last is said to correct or to conclude ("No, wait: the answer is B").
4. It calls one option right: "A is wrong, B is correct" (not if the question itself has a negation: "Which one is not ...?").
5. It begins with a letter and its reason ("B, because ...", "B. It is ..."), without doubt and without another letter or option; or
   with a letter and what sets all others apart from it ("B. A and C are even", "B, although A is close").
6. It is one sentence that ends with a letter and the text of its option ("The largest city is Almaty (B).").

None of these is a verdict: two letters ("A or B"), a letter outside the question, a letter that the reply takes back later or beside
which it allows another ("possibly B"), and what others say or do ("Many choose A", "your answer A").
"""

from __future__ import annotations

import re
from typing import NamedTuple

from edge_agent.cloud.wire import wording as words
from edge_agent.cloud.wire.doubt import is_another, is_calculated, is_doubted, replaces
from edge_agent.cloud.wire.folded import LATIN_FOR, bare, distinct_options, key_of, plain, texts_of, with_options_folded
from edge_agent.cloud.wire.spoken import MAX_ANSWER_CHARS, fields_of, spoken
from edge_agent.core.question import OPEN, Question

_MAX_LETTERS = 400  # a reply that names more letters than this, or more verdicts than the next, is not an answer
_MAX_VERDICTS = 100
_MAX_COMPARED = 400  # characters behind a letter that compare it with others
_MAX_JOINED = 30  # letters in one list
_MAX_BULLET = 6  # what may stand before the first word of a line


class _Verdict(NamedTuple):
    """One verdict: where it stands in the text, and its letter; None if it names several, none of the question's, or contradicts itself."""

    start: int
    end: int
    letter: str | None


def find_answer(reply: str, question: Question) -> str | None:
    """The letter in a reply; for an open question, what the reply says without its thinking. None if there is no answer."""
    if question.kind != OPEN:
        return find_letter(reply, question)
    said = spoken(reply)
    return said if 0 < len(said) <= MAX_ANSWER_CHARS else None


def find_letter(reply: str, question: Question) -> str | None:
    """The letter in a reply; None if there is none, or more than one. A reply of over 20,000 characters is not an answer."""
    said = spoken(reply)
    if not 0 < len(said) <= MAX_ANSWER_CHARS:
        return None
    if (fields := fields_of(said)) is not None:
        answers, others = fields
        found = {find_letter(answer, question) for answer in answers}
        letter = found.pop() if len(found) == 1 else None
        return find_letter("\n\n".join([letter, *others]), question) if letter and others else letter
    text = re.sub(words.OPENING, "", plain(said))
    options = distinct_options(question)
    if len(re.findall(words.LETTER, text)) + len(re.findall(words.SMALL_LABEL, text)) > _MAX_LETTERS:
        return None
    folded = with_options_folded(text, options, question.letters)
    if len(re.findall(words.LETTER, folded)) > _MAX_LETTERS:
        return None
    labels = re.search(words.CYRILLIC_LABEL, text) or re.search(words.CYRILLIC_LABEL, question.user_message)
    asks_for_not = re.search(words.NEGATED_STEM, question.stem) is not None
    return _Reading(folded, question, options, labels is not None, asks_for_not).letter()


class _Reading:
    """The reading of one reply, in which the text of an option behind its letter is folded to a mark."""

    def __init__(self, text: str, question: Question, options: dict[str, str], has_cyrillic_list: bool, asks_for_not: bool) -> None:
        """`has_cyrillic_list` is whether question or reply list А, Б, В, Г; `asks_for_not` whether it is "Which one is not ...?"."""
        self._text, self._letters, self._options = text, question.letters, options
        self._namesakes = dict(zip(question.options, question.letters, strict=True))  # A. B, B. A: which one is "A"?
        self._has_cyrillic_list, self._asks_for_not = has_cyrillic_list, asks_for_not
        self._any_option = re.compile(texts_of(options)) if options else None
        self._named: list[_Verdict] = []  # the answer is B
        self._judged: list[_Verdict] = []  # B is correct
        self._rejected: list[_Verdict] = []  # B is wrong; the answer is not B

    def letter(self) -> str | None:
        """The answer, by the rules at the top of this file."""
        lines = [line for raw in self._text.split("\n") if (line := bare(raw))]
        if not lines:
            return None
        lone = [self._of_line(line) for line in lines[:2] + lines[-2:]]
        if lone[0] and lone[0].letter and (invented := self._new_question()):
            self._text = self._text[: invented.start()]
            return self.letter()
        self._find_named()
        self._find_judged()
        if lone[-1] and (self._named or not (len(lines) > 1 and _continues(lone[-2], lone[-1]))):
            self._named.append(_Verdict(len(self._text), len(self._text), lone[-1].letter))
        self._named.sort(key=lambda verdict: verdict.start)
        if len(self._named) > _MAX_VERDICTS:
            return None
        if lone[0] and not (len(lines) > 1 and _continues(lone[0], lone[1])):
            rivals = self._named + ([] if self._asks_for_not else self._judged) + self._headings()
            found, end = _one([*rivals, lone[0]]), 0
        elif self._named:
            found, end = self._settled(), self._named[-1].end
            if any(opening.letter != found for opening in self._opening()):
                return None  # "A, although I think B"
        elif self._judged and not self._asks_for_not:
            last = lone[-1:] if len(lines) == 2 or not _continues(lone[-2], lone[-1]) else []
            found, end = _one([*self._judged, *self._opening(), *filter(None, last)]), self._judged[-1].end
        else:
            return self._with_reason()
        return None if self._is_taken_back(found, end) or self._is_followed_by_rival(found) else found

    def _find_named(self) -> None:
        """The verdicts that name the answer, and those that name what is not the answer."""
        first = self._at_start()
        if first and not first.letter and first.end > first.start + 2 and self._at(words.ENDS, first.end):
            self._named.append(first)  # "B or C, I cannot decide"
        for cue in re.finditer(words.CUE, self._text):
            if len(self._named) > _MAX_VERDICTS:
                return
            if cue["start"] and not self._starts_line(cue.start()):
                continue
            is_weak = bool(cue["it"] or cue["so"]) and not re.search(words.ANSWER, cue[0])
            found = (
                (not is_weak and self._option_in(cue))
                or self._letters_at(cue.end())
                or (cue.start() == 0 and self._option_at(cue.end(), ends=r"\W*$"))
            )
            if (
                not found
                or self._begins_list(found)
                or is_calculated(self._text, found.start, found.end)
                or is_another(self._text, cue)
                or (is_weak and not self._at(words.ENDS, found.end))
                or is_doubted(self._text, cue.start(), found.end)
            ):
                continue
            refused = self._at(words.REFUSED, found.end)
            is_negative = bool(cue["no"] or cue["low"] or refused or self._is_called_wrong(found.end)) and found.start >= cue.end()
            (self._rejected if is_negative else self._named).append(found)
            if is_negative and (contrast := self._at(words.CONTRAST, refused.end() if refused else found.end)):
                other = self._letters_at(contrast.end())
                if other and self._at(words.ENDS, other.end):
                    self._named.append(other)

    def _find_judged(self) -> None:
        """What the reply says of letters, and at the start of a line of the texts of options: is correct, is wrong, is the answer."""
        end = 0
        for match in re.finditer(words.LETTER, self._text):
            if match.start() < end or not (found := self._letters_at(match.start())):
                continue
            end = found.end
            before = self._text[max(0, found.start - 30) : found.start]
            if re.search(words.EXCLUDED, before):
                if self._at(words.JUDGED, found.end) and not self._is_called_wrong(found.end):
                    self._rejected.append(found)  # "Everything except B is correct"
            elif found.letter or match.end() < found.end:
                self._judge(
                    found,
                    is_negative=re.search(words.NOT_BEFORE, before) is not None,
                    is_ticked=re.search(words.TICKED, before) is not None,
                )
        for line in list(re.finditer(r"(?m)^", self._text))[:_MAX_VERDICTS]:
            if found := self._option_at(line.start(), ends=r"[)\]]?"):
                self._judge(found, only_chosen=True)

    def _judge(self, found: _Verdict, is_negative: bool = False, is_ticked: bool = False, only_chosen: bool = False) -> None:
        """Keep what is said of a letter, if it is a verdict."""
        said = self._at(words.JUDGED, found.end)
        if not said and is_ticked:
            self._judged.append(found)
        is_supposed = said and "would be" in said[0] and not self._at(words.CLAUSE_ENDS if said["high"] else words.NOT_SUPPOSED, said.end())
        if not said or is_supposed or is_doubted(self._text, found.start, said.end()):
            return
        if is_negative or self._is_called_wrong(found.end):
            self._rejected.append(found)
        elif said["chosen"]:
            self._named.append(found)
        elif not only_chosen:
            self._judged.append(found)

    def _is_called_wrong(self, end: int) -> bool:
        said = self._at(words.JUDGED, end)
        return bool(said and (said["no"] or said["after"] or said["low"] or said["low2"]))

    def _settled(self) -> str | None:
        """The letter that all verdicts name; that of the last one, if the reply says that it corrects or concludes."""
        last = self._named[-1]
        others = [verdict for verdict in self._named if verdict.letter != last.letter]
        if not others:
            return last.letter
        between = self._text[others[-1].end : last.start][-600:]
        if re.search(words.TURNED_AROUND, between) and re.search(words.RIGHT_ONE, between[-60:]):
            return last.letter
        began_with_it = "\n" not in self._text[: others[0].start]
        if re.search(words.CORRECTED, between) or (not began_with_it and re.search(words.CONCLUDED, between[-60:])):
            return last.letter
        return None

    def _is_taken_back(self, letter: str | None, end: int) -> bool:
        """Whether the reply calls its verdict wrong afterwards: "The answer is A. No, B." """
        if not self._asks_for_not and any(verdict.letter == letter and verdict.start >= end for verdict in self._rejected):
            return True
        if end and self._at(words.CUT_SHORT, end):
            return True
        if end and (other := self._at(words.OR_ELSE, end)) and self._read(*other.groups()) not in (None, letter):
            return True
        rivals = re.finditer(words.RIVAL, self._text[end : end + 400])
        if any(self._read(next(filter(None, rival.groups())), "") not in (None, letter) for rival in rivals):
            return True
        sorry = re.search(words.TAKEN_BACK, self._text[end : end + 600])
        others = re.finditer(words.LETTER, self._text[end + sorry.end() :]) if sorry else ()
        return any(self._read(*other.groups()) not in (None, letter) for other in others)

    def _is_followed_by_rival(self, letter: str | None) -> bool:
        """Whether another letter, or the text of another option, ends a clause soon behind the verdict, not as one that it excludes.

        "A, no, B", "18... scratch that, 19": whatever the words between them are, this is not one clear answer.
        """
        for verdict in [*self._named, *self._judged]:
            line = self._at(words.SAME_LINE, verdict.end)
            if verdict.letter != letter or not line:
                continue
            span = verdict.end, line.end()
            rivals = [other for other in re.compile(words.LETTER).finditer(self._text, *span) if self._names_another(other, letter)]
            if self._any_option:
                rivals += [other for other in self._any_option.finditer(self._text, *span) if self._options.get(key_of(other[1])) != letter]
            for rival in rivals:
                is_clause = self._at(words.ENDS, rival.end()) or self._at(words.PREFERRED, rival.end())
                if replaces(self._text[verdict.end : rival.start()], is_clause is not None):
                    return True
        return False

    def _names_another(self, found: re.Match[str], letter: str | None) -> bool:
        read = self._read(*found.groups())
        return read != letter and (read is not None or found[1] in "БГД") and not self._is_word(found)

    def _headings(self) -> list[_Verdict]:
        """The letters that are lines of their own: more than one are headings."""
        lines = re.finditer(words.HEADING, self._text)
        return [_Verdict(line.start(), line.end(), letter) for line in lines if (letter := self._read(line[1], ""))]

    def _opening(self) -> list[_Verdict]:
        """The letter with which the reply begins, if a comma or an objection follows: "B, although A is correct"."""
        found = self._at_start()
        return [found] if found and found.letter and self._at(words.OBJECTED, found.end) else []

    def _with_reason(self) -> str | None:
        """The letter with which the reply begins and gives its reason, without doubt and without praise for another letter."""
        found = self._at_start()
        if not found or not found.letter:
            return self._of_sentence()
        if self._at(words.RATHER, found.end):
            return found.letter
        rest = self._text[found.end :]
        others = [other for other in re.compile(words.LETTER).finditer(self._text, found.end) if not self._is_word(other)]
        if any(self._read(*other.groups()) != found.letter for other in others):
            return found.letter if self._only_excludes(found.letter, found.end, others) else None
        is_label = re.match(r"[.):]\s", rest) and not (self._any_option and self._any_option.search(rest[:1000]))
        is_text = self._text[found.end - 1] == words.OWN
        is_reason = is_label or is_text or re.match(words.REASON, rest)
        doubted = re.search(words.DOUBT, rest[:200]) or (is_text and re.search(words.TEXT_DOUBT, rest[:200]))
        return found.letter if is_reason and not doubted else None

    def _of_sentence(self) -> str | None:
        """The letter of a reply that is one sentence and ends with "is B) 19" or "is 19 (B)"."""
        last = re.fullmatch(words.IS_TEXT, self._text) if len(self._text) < _MAX_COMPARED else None
        if not last or re.search(words.DOUBT, self._text) or re.search(words.SENTENCE_DOUBT, self._text):
            return None
        return last[1] if len(re.findall(words.LETTER, self._text)) == 1 else None

    def _only_excludes(self, letter: str, start: int, others: list[re.Match[str]]) -> bool:
        """Whether what follows a letter says of all others how they differ, or concedes something to one of them."""
        rest = self._text[start:]
        if len(rest) > _MAX_COMPARED or re.search(words.PRAISED, rest):
            return False
        if any(self._at(words.IS_LABEL, other.end()) for other in others):
            return False  # A: even, B: odd
        named = {self._read(*other.groups()) for other in others}
        rejected = {verdict.letter for verdict in self._rejected}
        is_all = named | {letter} == set(self._letters) or named <= rejected - {None}
        return bool(re.match(words.CONCEDED, rest) or (is_all and re.match(words.COMPARED, rest)))

    def _of_line(self, line: str) -> _Verdict | None:
        """The verdict of a line that is a letter, an option's text or both; None if it is anything else."""
        by_text = self._options.get(key_of(line))
        if len(line) < 40 and (match := re.fullmatch(words.LONE, line)):
            letter = self._read(match[1].upper(), match[2])
            return _Verdict(0, 0, by_text if letter in (None, by_text) else letter if not by_text else None)
        if not by_text and (both := re.fullmatch(words.TEXT_AND_LETTER, line[:1000])) and (by_text := self._options.get(key_of(both[1]))):
            by_text = by_text if self._read(both[2], "") == by_text else ""
            return _Verdict(0, 0, by_text or None)
        return _Verdict(0, 0, by_text) if by_text else None

    def _at_start(self) -> _Verdict | None:
        """The letters with which the reply begins."""
        start = re.match(r"\W{0,6}?(?=\w)", self._text)
        return self._letters_at(start.end()) if start else None

    def _letters_at(self, start: int) -> _Verdict | None:
        """The letter, or the letters joined by "and", "or" or a comma, that stand here; None if these are words."""
        letters: list[str | None] = []
        end = start
        match = self._at(words.LETTER, start) or self._at(words.SMALL_LETTER, start)
        while match and len(letters) < _MAX_JOINED and not self._is_word(match):
            letters.append(self._read(match[1].upper(), match[2]))
            end = match.end()
            joint = self._at(words.AND, end)
            match = self._at(words.LETTER, joint.end()) if joint else None
            if (
                match
                and joint
                and re.fullmatch(r"\W+", joint[0])
                and self._at(words.NEW_CLAUSE if ";" in joint[0] else words.LETTER + words.CLAUSE_OR_REFUSED, match.start())
            ):
                break  # "B, A is too small": a clause of its own
        return _Verdict(start, end, letters[0] if len(set(letters)) == 1 else None) if letters else None

    def _option_at(self, start: int, ends: str = words.TEXT_ENDS) -> _Verdict | None:
        """The option whose text stands here, up to `ends`; no letter if the letter of another option stands in brackets behind it."""
        match = self._any_option and self._any_option.match(self._text, start)
        if not match or not self._at(ends, match.end()):
            return None
        letter = self._options.get(key_of(match[1]))
        bracket = self._at(rf"\s?[(\[]\s?(?:option\s)?{words.LETTER}", match.end())
        return _Verdict(start, match.end(), letter if not bracket or self._read(*bracket.groups()) == letter else None)

    def _option_in(self, cue: re.Match[str]) -> _Verdict | None:
        """The option whose text stands behind a cue, or begins with its last words: "the answer is none of these"."""
        starts = [cue.end(), *(cue.start() + word.start() for word in re.finditer(r"\b\w", cue[0]))] if self._options else []
        found = (option for start in starts if (option := self._option_at(start)) and option.end > cue.end())
        return next(found, None)

    def _at(self, pattern: str, position: int) -> re.Match[str] | None:
        return re.compile(pattern).match(self._text, position)

    def _new_question(self) -> re.Match[str] | None:
        """Where a reply that has answered goes on with a question of its own; None if that has the options of ours."""
        invented = re.search(words.NEW_QUESTION, self._text)
        rest = self._text[invented.start() :] if invented else ""
        return None if not rest or re.search(words.OWN_OR_LIST, rest) or (self._any_option and self._any_option.search(rest)) else invented

    def _starts_line(self, position: int) -> bool:
        line = self._text[self._text.rfind("\n", 0, position) + 1 : position]
        return len(line) <= _MAX_BULLET and not re.search(r"\w", line)

    def _is_word(self, match: re.Match[str]) -> bool:
        """Whether a letter is a word of the text, as the article "A" or the Russian preposition "В"."""
        return not match[2] and self._at(words.LATIN_WORD if match[1].isascii() else words.CYRILLIC_WORD, match.end()) is not None

    def _read(self, symbol: str, mark: str) -> str | None:
        """A letter of the question; None for another one, and for a Cyrillic one that may be B by its look and C by its place."""
        if mark == words.OTHER or (not symbol.isascii() and self._has_cyrillic_list and symbol != "А"):
            return None
        letter = LATIN_FOR.get(symbol, symbol)
        return letter if letter in self._letters and self._namesakes.get(letter, letter) == letter else None

    def _begins_list(self, found: _Verdict) -> bool:
        """Whether a letter is the first label of a list: the next line has the label of the letter behind it."""
        following = self._at(words.NEXT_LABEL, found.end)
        return bool(following and found.letter and following[1].upper() == chr(ord(found.letter) + 1))


def _one(verdicts: list[_Verdict]) -> str | None:
    """The letter, if all verdicts name the same one."""
    return verdicts[0].letter if len({verdict.letter for verdict in verdicts}) == 1 else None


def _continues(line: _Verdict | None, following: _Verdict | None) -> bool:
    """Whether two lines are a part of a list of options: A, B."""
    return bool(line and following and line.letter and following.letter and ord(following.letter) == ord(line.letter) + 1)
