"""What a cloud is asked, in which form, and how a refusal of the form mends it.

Owns the prompt, the body of a request, and what a reply teaches about that form. Does no I/O. Invariants: a request always has a
limit on its tokens, and no extra field replaces the model, the messages or that limit; every change to the prompt, or to how an
answer is found in a reply, needs a new `PROMPT_VERSION`, because stored answers are kept under it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edge_agent.core.question import OPEN, Question

PROMPT_VERSION = 2
_REQUEST = "\n\nAnswer with the Latin letter of the right option alone, one of: "
_LETTERS = re.compile(r"[A-Z](?:, [A-Z])*\.\s*")
MAX_COMPLETION_TOKENS = 256  # the limit that a request sets first; a letter needs one or two
RAISED_TOKENS = 4096  # the limit for a model whose reply was cut: most think for fewer tokens, and it bounds what one call costs
MOST_SENDS = 5  # of one question in one call: another limit name, no temperature, a higher limit, a lower one
_TYPED_FRAME_TOKENS = 128  # what a server of typed decisions writes around a question; vLLM's words for it have about 80
LIMIT_NAMES = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class Shape:
    """The form of a request to one model.

    `max_tokens` limits the reply and is sent under `limit_name`. A reply that was cut raises it to `raised_tokens`, or to `at_most`,
    the highest limit that the cloud named. `fits_tokens` is a lower limit for one question alone, which would not fit into the
    model's context otherwise. `temperature` None is not sent. `extra` are more fields. All of this is for chat; a typed decision
    (`typed/request.py`) has only an `api`.
    """

    max_tokens: int = MAX_COMPLETION_TOKENS
    limit_name: str = LIMIT_NAMES[0]
    temperature: float | None = 0.0
    raised_tokens: int = RAISED_TOKENS
    at_most: int | None = None
    fits_tokens: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    api: str = field(default="chat", repr=False)  # a settings' mark is made from the `repr`, and older versions had no such field

    @property
    def limit(self) -> int:
        """The limit that is sent."""
        return min(self.max_tokens, self.fits_tokens or self.max_tokens)

    @property
    def n_extra_bytes(self) -> int:
        """The size of what is sent beside the question: a text never has more tokens than bytes."""
        if self.api != "chat":
            return _TYPED_FRAME_TOKENS
        return len(json.dumps(self.extra)) if self.extra else 0


def prompt(question: Question) -> str:
    """The text that is sent, version 2: the question, its options and the request for one letter; for an open question only its text.

    The request lists the letters, and says that they are Latin: asked in Kazakh or Russian, models also answer with the Cyrillic
    "В", which may be B (its look) or the third option (its place in the alphabet), or with the option's text in other words.
    """
    if question.kind == OPEN:
        return question.stem
    letters = ", ".join(question.letters)
    return f"{question.user_message}{_REQUEST}{letters}."


def without_request(text: str) -> str:
    """A text that another edge sent (`prompt`) without its request for one letter: the question and its options. Others as they are."""
    question, found, letters = text.rpartition(_REQUEST)
    return question if found and _LETTERS.fullmatch(letters) else text


def body(question: Question, model: str, shape: Shape | None = None) -> dict[str, Any]:
    """The JSON body of a request for a chat completion."""
    shape = shape or Shape()
    fields = {**shape.extra, "model": model, "messages": [{"role": "user", "content": prompt(question)}]}
    if shape.temperature is not None:
        fields["temperature"] = shape.temperature
    return {**fields, shape.limit_name: shape.limit}


def learn(shape: Shape, status: int, data: bytes | None) -> Shape | None:
    """The form that this reply asks for instead of `shape`; None if it asks for no other.

    A reply that its length limit cut asks for a higher limit; if it was cut at the highest that the cloud had named, that is
    forgotten, because it may be wrong or old. A 400 or 422 may refuse the limit's name, the temperature, or the
    limit itself. Each server words that in its own way (OpenAI and Azure name the parameter, pydantic lists the forbidden fields,
    gateways wrap either in a text), so the whole error is searched for our own two parameters beside a refusal.
    """
    try:
        reply = json.loads(data or b"")
    except (ValueError, RecursionError):
        return None
    if status == 200:
        return _raised(_beyond(shape)) if _was_cut(reply) else None
    if status not in (400, 422):
        return None
    text = "\n".join(_texts(reply))[:_MOST_CHARS].lower()
    named = {name for name in (*LIMIT_NAMES, "temperature") if re.search(_PARAM.format(name), text)}
    if _is_about_limit(text, named):
        if re.search(_TOO_LOW, text):
            return _raised(shape)
        if re.search(_TOO_HIGH, text):
            return _lowered(shape, text)
    if not named and re.search(_ANOTHER_PARAM, text):
        return None
    mended = shape
    if _is_refused(shape.limit_name, text, named):
        mended = replace(mended, limit_name=LIMIT_NAMES[1 - LIMIT_NAMES.index(shape.limit_name)])
    if shape.temperature is not None and _is_refused("temperature", text, named):
        mended = replace(mended, temperature=None)
    return mended if mended != shape else None


def known_after(known: Shape, last: Shape, is_answered: bool) -> Shape:
    """The form of the next question, after a call that had to change its own form, and ended with `last`.

    A refused name or temperature counts at once. A limit counts only once it was answered. What one question did not fit into never
    lowers the limit for others: of a limit that was raised and had to be lowered again, only a step that is sure to fit is kept.
    """
    form = replace(known, limit_name=last.limit_name, temperature=last.temperature)
    if not is_answered:
        return form
    raised = last.max_tokens
    while raised > last.limit:
        raised //= 2
    limit = max(known.max_tokens, raised)
    return replace(form, max_tokens=min(limit, last.at_most or limit), at_most=last.at_most)


def remembered(wanted: Shape, learned: Shape) -> str:
    """What the cloud taught us beyond the form that the settings want, as JSON for `recalled`."""
    facts = {
        "limit_name": learned.limit_name,
        "raised_to": learned.max_tokens if learned.max_tokens > wanted.max_tokens else None,
        "at_most": learned.at_most,
        "refused_temperature": wanted.temperature if learned.temperature is None else None,
    }
    return json.dumps(facts)


def recalled(wanted: Shape, text: str | None) -> Shape:
    """The form that the settings want, with what was learned before. A damaged text counts as nothing learned."""
    try:
        facts = json.loads(text or "{}")
        name, refused = facts.get("limit_name", wanted.limit_name), facts.get("refused_temperature")
        raised_to, at_most = (_sound_limit(facts.get(key)) for key in ("raised_to", "at_most"))
    except (ValueError, RecursionError, AttributeError):
        return wanted
    if name not in LIMIT_NAMES:
        return wanted
    limit = max(wanted.max_tokens, min(raised_to or 0, wanted.raised_tokens))
    is_refused = type(refused) in (int, float) and refused == wanted.temperature
    return replace(
        wanted, limit_name=name, max_tokens=min(limit, at_most or limit), at_most=at_most,
        temperature=None if is_refused else wanted.temperature,
    )  # fmt: skip


# Patterns are compiled on first use (`re` keeps them): an answer from memory needs none.
_MOST_CHARS = 8_000
_OURS = ("input", "ctx", "url", "flagged_input")  # what an error repeats of the request, or the address of a help page
_PARAM = r"(?m)^(?:param|loc): ?{}$"
_ANOTHER_PARAM = r"(?m)^param: (?!none$)"  # LiteLLM writes "None"
_REFUSED = (
    r"unsupported|not (?:be )?(?:supported|permitted|allowed|accepted|available)|(?:n.t|not) (?:support|allow|accept)|deprecated|"
    r"forbidden|only .{1,30}(?:allowed|supported)|invalid|unknown|unrecogni[sz]ed|unexpected|cannot be (?:set|used|specified)|"
    r"no longer|use 'max_completion_tokens'"
)
_TOO_LOW = r"below (?:the )?minimum|must be greater|must be at least|higher max_tokens|output limit was reached|expected a value >="
_TOO_HIGH = (
    r"too (?:large|high|big)|at most \d|less than or equal to|exceeds?\b|above (?:the )?maximum|valid range|maximum context length|"
    r"maximum value"
)
_CONTEXT = r"context.?(?:length|size)|(?:in|of) (?:the|your) (?:messages|prompt)|(?:input|prompt|messages|request) (?:tokens|has \d)"
_CONTEXT_TOKENS = r"context.?(?:length|size)\D{1,20}(\d{1,9})"
_INPUT_TOKENS = r"(\d{1,9}) (?:tokens )?(?:in the (?:messages|prompt|input)|(?:input|prompt) tokens|of text input)|resulted in (\d{1,9})"
_HIGHEST = r"(?:at most|less than or equal to|maximum output tokens|valid range of \w+ is \[\d+,|<=)\W{0,4}(\d{1,9})"
_CUT = ("length", "max_tokens", "max_output_tokens")


def _was_cut(reply: Any) -> bool:
    """Whether a completion ended because it reached its limit."""
    choices = reply.get("choices") if isinstance(reply, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    return str(choice.get("finish_reason")).lower() in _CUT


def _beyond(shape: Shape) -> Shape:
    """The form without the highest limit that the cloud named, if that is what cut a reply."""
    return replace(shape, at_most=None) if shape.at_most and shape.limit >= shape.at_most else shape


def _raised(shape: Shape) -> Shape | None:
    limit = min(shape.raised_tokens, shape.at_most or shape.raised_tokens)
    return replace(shape, max_tokens=limit) if limit > shape.max_tokens and shape.fits_tokens is None else None


def _lowered(shape: Shape, text: str) -> Shape | None:
    """The limit that the text names for every request; otherwise one for this question alone. None if that is too low to be of use.

    Most refusals name the model's context, which the prompt and the reply share: the next question may be shorter. Where
    the text does not say how much is left for the reply, half of the limit is tried.
    """
    is_context = re.search(_CONTEXT, text) is not None
    named = [int(number) for number in re.findall(_HIGHEST, text) if MAX_COMPLETION_TOKENS <= int(number) < shape.limit]
    if named and not is_context:
        return replace(shape, max_tokens=max(named), at_most=max(named), fits_tokens=None)
    fits = _left_tokens(text) if is_context else None
    fits = fits if fits is not None and fits < shape.limit else shape.limit // 2
    return replace(shape, fits_tokens=fits) if fits >= MAX_COMPLETION_TOKENS else None


def _left_tokens(text: str) -> int | None:
    """How many tokens of the context the prompt leaves for the reply, if an error says so."""
    context, asked = re.search(_CONTEXT_TOKENS, text), re.search(_INPUT_TOKENS, text)
    return int(context[1]) - int(asked[1] or asked[2]) if context and asked else None


def _is_about_limit(text: str, named: set[str]) -> bool:
    """Whether an error is about the limit, as far as it says: not if it names another parameter of ours."""
    return bool(named & set(LIMIT_NAMES)) or (not named and re.search(r"max_tokens|max_\w+_tokens|\btokens\b", text) is not None)


def _is_refused(name: str, text: str, named: set[str]) -> bool:
    """Whether an error refuses this parameter: it names it as its own subject, or has it beside a refusal in one sentence."""
    if named:
        return name in named
    sentences = re.split(r"[.;]\s|\n", text)
    return any(re.search(rf"\b{name}\b", sentence) and re.search(_REFUSED, sentence) for sentence in sentences)


def _texts(value: Any, key: str = "", depth: int = 0) -> Iterator[str]:
    """The texts in an error, each on its own line; a parameter's name is marked, and what the error repeats of ours is left out."""
    if depth > 8 or key in _OURS:
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, name, depth + 1)
    elif isinstance(value, list):
        if key == "loc":  # pydantic: ["body", "temperature"]
            yield from (f"loc: {part}" for part in value[-1:])
            return
        for inner in value:
            yield from _texts(inner, key, depth + 1)
    elif isinstance(value, str):
        yield f"param: {value}" if key == "param" else value


def _sound_limit(value: Any) -> int | None:
    return value if type(value) is int and MAX_COMPLETION_TOKENS <= value <= 1_000_000 else None
