"""Which verdicts of a reply are not meant: a question, a denial, a supposition, a report of others, a part of a formula.

Owns these checks and their words; `verdict.py` finds the verdicts, `wording.py` has the words by which a reply names its answer.
Invariant: every check looks at a bounded piece of the text around one verdict.
"""

from __future__ import annotations

import re

from edge_agent.cloud.wire import wording as words

_MAX_BETWEEN = 6  # words between a verdict and a letter that replaces it

_HEDGE = (
    r"(?i)(?:\b(?:if|suppose|assum\w{1,4}|maybe|perhaps|whether|might|could|unless|can'?t say|cannot say|doubt"
    r"|(?:don't|not|never) (?:think|believe)"
    r"|(?:not|isn't|never|hardly) true|(?:is|it's|was) (?:false|wrong)(?!,? (?:so|but|hence|thus|therefore))|wrong to|nobody"
    r"|no one|claim(?:s|ed)? that|you'd|i was"
    r"|almost|i'd have|says?|said|(?:widely |often |commonly )?(?:believed|assumed|reported|rumou?red|considered)"
    r"|tempt\w{1,4} to|glance|first (?:sight|look)"
    r"|in (?:that|which) case|otherwise|(?:говорят|считается|принято считать)(?:,? что)?|напрашива\w{1,4}|казалось"
    r"|на первый взгляд|было бы|если бы"
    r"|(?:some|others|many|most|people|students?|user|they|one|you)(?: would| might| people| students)? (?:expect|guess|say"
    r"|said|think|thought"
    r"|chose|choose|pick)s?"
    r"|вы|многие|некоторые|часто|студент\w{0,3}"
    r"|unlikely|not sure (?:that|if)|thought|at first|initially|егер|мүмкін|бәлкім|ойламаймын|алдымен|если|возможно|может быть|допустим"
    r"|вряд ли|сомнева\w{1,4}|не думаю|не считаю|не полагаю|сначала)\b"
    r"|也许|可能|如果|假设|看起来|似乎|乍一看|否则|例如|据说),?[^.!?\n:：;,。，]{0,30}$"
)
_NEGATED = (  # before a cue: not going with B, the second best answer, your answer
    r"(?i)(?:\b(?:not|never|cannot|instead of|rather than|without|avoid|against|не|нельзя|вместо|не стоит)|n't)(?: бы| to| be| the| is)?\s$"
    r"|\b(?:initial|first|original|your|his|her|their|user's|student's|trap|decoy|second|next|previous|earlier|old|opposite|другой|ваш|твой"
    r"|прежний|сіздің|сенің|жалған|алдамшы|асығыс)[ -]$"
    r"|\b(?:seeming|so-called|suppos|alleg|near|almost|part|superficial|apparent|intuitive|deceptive|якобы|почти)\w{0,6} $"
    r"|\bnot (?:\w{1,12} )?(?:obvious|clear|certain|sure|true|the case|proven) (?:that|if|whether)\s$"
    r"|\b(?:least|worst)(?: \w{1,15})?\s$|\bfrom (?:the )?$"
    r"|\b(?:wrong|incorrect|false|неверн|неправильн|ошибочн|қате|бұрыс)\w{0,3} \w{1,15}(?:\s?[:–—-]|\sis)?\s$"
    r"|(?:[不没未别][能应该会有可要得]{0,3}|错误的?|人[^，。,\n]{0,6}|(?:直觉|学生|常见|表面|他|她|书上)的?)$"
)
_ASKED = (
    r"(?i)[^.!?？…\n:;,(。，；]{0,40}[?？]|[^\S\n]{0,2}[)\]]?[^\S\n]{0,2}(?:[?？吗么]|的人|(?:[мбп][ае]|ли)\b|"
    r",\s(?:isn't it|right|correct|yes|не так ли|верно|солай ма|емес пе)\s?\?)"
    r"|,?\s(?:if|unless|only|than|were it|had it|егер|если|бол(?:са|май\w{0,5}|уы)|сияқты|шығар|деп айту|деген\w{0,4}|был[аи]? бы"
    r"|once|until|но это не|but (?:it|this|that)(?: is|'s|s)? ?(?:not|n't|wrong|a trap)|бірақ (?:ол |бұл )?\w{1,6} емес"
    r"|не всегда|лишь|частично|хуже|меньше)\b"
)
_TURNED = rf"(?i)(?:\b(?:{words.TURN})\b\W|不[，,。对])"  # "A because it is small, no, "
_TURNED_HERE = rf"(?i)\b(?:{words.TURN})\b\s?[,.:;…–—!]\W{{0,4}}$"
_EXCUSED = (  # the end of what stands before another letter: "not ", "because it is more than ", "Eliminated: "
    rf"(?i)(?:\b(?:not|neither|nor|than|unlike|instead of|except|excluding|eliminat\w{{1,3}}|rul\w{{1,3}} out|reject\w{{0,3}}|without|from"
    r"|because|since|as|between|which|whereas|while|against|excluded|wrong|incorrect|rest|others?|remaining|you thought"
    r"|tempting|mistak\w{1,5}|қате\w{0,2}|бұрыс|қалған\w{0,6}|остальн\w{1,3}"
    r"|исключен\w|divisible|equal\w?|gives?|не|чем|кроме|потому|так как"
    r"|в отличие от|өйткені|себебі|қарағанда|между|неверн\w+)\b|n't\b|[=+×÷*/]|[不非比除][^，。,;]*|因为)"
    rf"(?:[^,;.!?…，。；]|(?<=\d)[.,]|(?-i:(?<=[{words.UPPER}{words.OWN}{words.OTHER}\d])[,;]"
    rf"|(?<=[{words.UPPER}{words.OWN}{words.OTHER}\d]\))[,;]))*$"
)
_SENTENCE_ENDS = r"[!?。！？\n;]|\.(?!\d)"
_DENIED = (  # a denial or "maybe" that begins a sentence, however far before the verdict
    r"(?i)(?:\b(?:(?:(?:not|hardly|never)|\w+n't) (?:\w+ )?(?:true|correct|right|the case|clear|certain|obvious|proven|sure|believe|think)"
    r"|false|wrong|untrue|incorrect|doubt\w{0,4}|deny|unlikely|unclear|(?:can't|cannot|couldn't|not) (?:say|prove|tell|show"
    r"|conclude|confirm)|no (?:proof|evidence|reason|sign)"
    r"|nothing (?:shows|proves|suggests|says))(?:,[^,.]{0,30},)? (?:that|if|whether)\b"
    r"|\b(?:если бы|had it been|were it|suppos\w{1,4}|assuming|unless|only if|for (?:example|instance)|example|e\.g|format"
    r"|previous question"
    r"|in another|last year|legend|myth|claims|says|thinks|believes|argues?|insists|утвержда\w{1,4}|по мнению|ошибочно думать"
    r"|написал\w?|otherwise|в другом|иначе|например|пример|миф|әйтпесе|мысалы|бірінші қарағанда)\b"
    r"|乍一看|否则|例如|据说|^\W{0,4}should\b"
    r"|^\W{0,4}(?:maybe|perhaps|possibly|возможно|может быть|мүмкін|бәлкім|наверное)\b|\b(?:неверно|неправда|не факт|сомнительно), что\b"
    r"|^\W{0,4}(?:也许|可能|如果|假如|要是))"
    r"(?!.*(?:\b(?:but|so|therefore|hence|thus|however|бірақ|сондықтан|демек|но|однако|поэтому|значит)\b|所以|但|因此))"
)
_WOULD = r"(?i)\b(?:would|болар еді|бы|было бы|был бы)\b"
_IMAGINED = r"(?i)\b(?:if|had|were|suppos\w{1,4}|in (?:that|which|this) case|otherwise|without|если)\b"
_ENDS_ASKING = r"(?:[^.!?\n;:。！？；]|\.\d){0,160}[?？]"
_ASKS_ELSE = r"(?i)\b(?:why|how|what|which|who|when|where|почему|как|что|неге|қалай|не үшін)\b|为什么|怎么"
_DESCRIPTION = r"(?:,?[^\S\n](?!(?:the|an?|another|some|one)\b)[\w'-]+){1,4}"
_ARTICLE = r"another|some|one|(?-i:an?|An|A(?=\s(?!is|as|was|and|or|seems|looks)[a-z]+(?:\s[a-z]+){0,2}\s$))"
_DESCRIBED = rf"(?i)\b(?:the({_DESCRIPTION})|(?:{_ARTICLE}){_DESCRIPTION})[^\S\n]$"  # the naive, one possible; group 1: behind "the"
_DESCRIBED_AS_RIGHT = (  # "the only possible answer": a word that is not here speaks of another answer
    r"(?i)(?:\s(?:only|single|sole|most|more|likely|probable|possible|plausible|one|and|final|correct|right|best|true|exact|precise|proper"
    r"|valid|logical|reasonable|sensible|intended|fitting|safest|strongest|choice|given|listed|question's|problem's|short"
    r"|multiple-choice|multiple|unique|overall|actual|real|appropriate|accurate"
    r"|suitable|required|desired|remaining|simplest|smallest|largest|complete|direct|letter|number|suggested|above|odd|ai's|model's))+"
)
_OF_SOMEBODY = (  # Tom's answer, наивный ответ
    r"(?i)(?<!question's)(?<!problem's)(?<!ai's)(?<!model's)(?<!here's)(?<!let's)(?<!it's)(?<!that's)(?<!what's)(?<=\w's)[^\S\n]$"
    r"|\b(?!мой|данный|как(?:ой|ий)|так(?:ой|ий)|единственный|краткий|точный|полный|последний|следующий|второй)\w{2,15}(?:ый|ий|ой)[^\S\n]$"
)
_FOREIGN_ARTICLE = r"(?i)(?:^|\W)(?:die|meine|la|ma|le|mi|a|o|minha|il|mia|de|het|mijn|to|moja|моя|benim|менің|мой|и|а)\s$"
_COMPARES = r"\b(?:above|under|over|below)\s$|(?:(?<![=-])[<>]|[≤≥≠±])\s?$|(?<!\w)[-−]$"
_NUMBER_GOES_ON = r"\s?\+|\s?(?:[-–—+*/×÷^]|\.{2,3}|…)\s?\d|-\w|\s?[<>≤≥^]"
_FORMULA = (
    rf"\.[{words.UPPER}](?!\w)|\s{{2}}\d|\s(?:plus|minus|times|плюс|минус)\s|\s?(?:[+*/×÷^]\s?[\w(]|[-–—]\s?\d{{1,9}}\W{{0,3}}{words.END})"
)


def is_doubted(text: str, start: int, end: int) -> bool:
    """Whether the verdict at this place is asked, denied, supposed or reported: "Is it A?", "if the answer is A"."""
    before = text[max(0, start - 60) : start]
    if re.compile(_ASKED).match(text, end) or re.search(_HEDGE, before) or re.search(_NEGATED, before):
        return True
    asked = re.compile(_ENDS_ASKING).match(text, end)
    if asked and not re.search(_ASKS_ELSE, asked[0]):
        return True
    sentence = re.split(_SENTENCE_ENDS, text[max(0, start - 200) : start])[-1]
    is_imagined = re.search(_WOULD, text[start : end + 30]) and re.search(_IMAGINED, sentence)
    return bool(is_imagined or re.search(_DENIED, sentence))


def is_another(text: str, cue: re.Match[str]) -> bool:
    """Whether the words before a cue describe another answer than the right one: "the naive answer", "yanlış cevap"."""
    before = text[max(0, cue.start() - 60) : cue.start()]
    described = re.search(_DESCRIBED, before) if re.match(words.ANSWER_OR_OPTION, cue[0]) else None
    if re.search(_OF_SOMEBODY, before) and re.match(words.ANSWER_OR_OPTION, cue[0]):
        return True
    if described and not (described[1] and re.fullmatch(_DESCRIBED_AS_RIGHT, described[1])):
        return True
    is_foreign = re.match(words.FOREIGN_ANSWER, cue[0]) and re.search(r"\w\s$", before)
    return bool(is_foreign and not re.search(_FOREIGN_ARTICLE, before))


def is_calculated(text: str, start: int, end: int) -> bool:
    """Whether the letter or number at this place is a part of a formula, a range or a comparison: "A + 1", "18-24", ">18"."""
    if text[end - 1] == words.OWN:
        return False
    is_number = text[start].isdigit()
    if is_number and re.search(_COMPARES, text[max(0, start - 8) : start]):
        return True
    return re.compile(_NUMBER_GOES_ON if is_number else _FORMULA).match(text, end) is not None


def replaces(between: str, is_clause: bool) -> bool:
    """Whether the words between a verdict and another letter do not say why that letter stands there: "A, no, B".

    `is_clause` is whether the other letter ends its clause, or is called the better one.
    """
    if re.search(_TURNED_HERE, between):
        return True
    is_near = len(re.findall(r"\w+", between)) <= _MAX_BETWEEN
    return is_clause and (is_near or re.search(_TURNED, between) is not None) and re.search(_EXCUSED, between) is None
