"""What a cloud says to the person, found in all that it writes.

Owns how thinking and the marks of chat templates are taken out of a reply; knows nothing of questions. Invariant: thinking is
never an answer, so a reply in which thinking has no end says nothing.
"""

from __future__ import annotations

import json
import re

MAX_ANSWER_CHARS = 20_000  # what a cloud says at more length is not an answer

# Patterns are compiled on first use (`re` keeps them): an answer from memory needs none.
# Thinking is marked in these ways; X is think, thinking, thought, reasoning and the like.
#   <X> </X>             DeepSeek, Qwen, GLM, EXAONE, MiniMax, and with a prefix Seed (<seed:think>) and LongCat
#   [THINK] [/THINK]     Mistral        ◁think▷ ◁/think▷   Kimi          <|X|> <|/X|>   others
#   <|START_THINKING|> <|END_THINKING|>  Cohere      <|begin_of_thought|> <|end_of_thought|>  OpenThinker
#   <|channel>thought <channel|>  Gemma 4      <unused94>thought <unused95>  MedGemma
#   <|inner_prefix|> <|inner_suffix|>  Apertus
_X = r"(?:[a-z]{1,20}[:_])?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|analysis)(?:_[a-z]{1,20})?"
_OPENED = (
    rf"(?i:<\|?{_X}\b[^<>\n]{{0,80}}(?<!/)>|\[think(?:ing)?\]|◁{_X}▷|<\|start_{_X}\|>|<\|begin_of_{_X}\|>|<\|inner_prefix\|>"
    r"|<\|channel>|<unused94>)"
)
_CLOSED = (
    rf"(?i:</\s{{0,3}}{_X}\b\s{{0,3}}>?|<\|/{_X}\|>|\[/think(?:ing)?\]|◁/{_X}▷|<\|end_{_X}\|>|<\|end_of_{_X}\|>|<\|inner_suffix\|>"
    r"|<channel\|>|<unused95>|\.\.\.done thinking\.|\bhere(?: is|'s) my response:)"
)
# gpt-oss writes <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...; a server that drops
# special tokens leaves "analysis...assistantfinal...".
_CHANNEL = "<|channel|>"
_FINAL = (
    r"<\|channel\|>\s{0,3}final\b[^<>|]{0,40}(?:<\|constrain\|>[^<>|]{0,40})?<\|message\|>|(?:^|(?<=[^\sA-Z]))assistantfinal(?=[^\sa-z])"
)
_STRIPPED_ANALYSIS = r"analysis[A-Z]"

_BOX = r"<\|(?:begin|end)_of_(?:box|solution)\|>"  # GLM and OpenThinker mark the answer itself
_ROLE = r"(?:assistant|model|bot|<\|message\|>)\b[\s:]{0,4}"
_MARK = (
    r"(?i:<\|[^<>|\s]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|</?s>|<(?:eos|bos|pad|eot|end_of_turn|start_of_turn|turn\||\|turn)>"
    r"|<unused\d{1,4}>|\[/?INST\]|\[EOS\])"
)
_WRAPPED = r"(?is:<(answer|response|output|final_answer)>(.*)</\1>)"


def spoken(reply: str) -> str:
    """A reply without its thinking and without the marks of a chat template; "" if nothing is left, or thinking never ends."""
    return _without_marks(_without_thinking(reply)).strip()


def _without_thinking(text: str) -> str:
    """What comes after the last end of thinking, whoever began it; "" if thinking has no end."""
    finals = [match.end() for match in re.finditer(_FINAL, text)]
    if finals:
        text = text[finals[-1] :]
    elif _CHANNEL in text or re.match(_STRIPPED_ANALYSIS, text.lstrip()):
        return ""
    ends = [match.end() for match in re.finditer(_CLOSED, text)]
    if ends:
        text = text[ends[-1] :]
    return "" if re.search(_OPENED, text) else text


def _without_marks(text: str) -> str:
    """A text up to the end of its turn: what follows there is a turn that the model made up."""
    text = re.sub(_BOX, "\n", text).strip()
    if start := re.match(rf"(?:{_MARK}\s*(?:{_ROLE})?)+", text):
        text = text[start.end() :]
    end = re.search(_MARK, text)
    text = text[: end.start()].rstrip() if end else text
    wrapped = re.fullmatch(_WRAPPED, text)
    return wrapped[2] if wrapped else text


_ANSWER_KEY = (
    r"(?i)(?:(?:final|correct|best|selected|chosen|right|my|the)[_ ]?)?(?:answer|choice|option|letter|response"
    r"|selection)(?:[_ ]?(?:letter|key|id))?"
    r"|(?:дұрыс[_ ])?жауап|(?:правильный[_ ])?ответ|выбор|(?:正确)?答案|选项"
)


def fields_of(said: str) -> tuple[list[str], list[str]] | None:
    """The texts that a JSON object calls its answer, and its other texts; None if `said` is no such object.

    An answer that is not a text is "".
    """
    fenced = re.fullmatch(r"(?s)```\w{0,10}\s(.*)```", said)
    text = (fenced[1] if fenced else said).strip()
    if not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        pairs = json.loads(text, object_pairs_hook=lambda pairs: pairs)
    except (ValueError, RecursionError):
        return None
    answers = [_only_text(value) for key, value in pairs if re.fullmatch(_ANSWER_KEY, key)]
    others = [value for key, value in pairs if isinstance(value, str) and not re.fullmatch(_ANSWER_KEY, key)]
    return (answers, others) if answers else None


def _only_text(value: object) -> str:
    """A text, alone or in a list of one; "" for everything else."""
    only = value[0] if isinstance(value, list) and len(value) == 1 else value
    return only if isinstance(only, str) else ""
