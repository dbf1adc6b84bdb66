"""The prompt shapes: where a model's own chat format puts the system message, the question and the answer.

Owns the texts of the shapes and the choice of one for a file that does not say how FogGen prompts it. Renders no template: what a
file's `tokenizer.chat_template` holds is a stranger's program, so it is only searched for a few words. Invariant: user text enters a
prompt only as part of a PERSON segment, never as a special token.

Another shape is one more entry in `SHAPES`; `docs/models.md` says how to write it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from edge_agent.core.errors import ModelRefused

TEMPLATE_KEY = "tokenizer.chat_template"
COMPLETION = "completion"


class SegmentKind(Enum):
    """Where the text of a segment comes from. It decides which tokens the text may become."""

    SPECIAL = "special"  # one special token of the template
    MODEL = "model"  # plain text of the template: may become added tokens such as `<think>`, but no control token
    PERSON = "person"  # user text: must not become any added or control token
    BOS = "bos"  # the token that the vocabulary puts before every text, if it does


class Segment(NamedTuple):
    """A part of a prompt that is tokenized as a whole: one special token, or the text between two of them."""

    text: str
    kind: SegmentKind


@dataclass(frozen=True, slots=True)
class ChatShape:
    """A chat format. `text` has the places `{system}` and `{user}`; `system` is what stands at the first if there is a system message.

    `special` are the special tokens in both. `end` ends an answer, and `answer_start` stands before its first word. A file has this
    shape if its chat template has all the `words` and none of the words in `without`.
    """

    text: str
    system: str = ""
    special: tuple[str, ...] = ()
    end: str = ""
    answer_start: str = ""
    words: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def segments(self, system: str, user: str) -> list[Segment]:
        """The prompt for a user message. An empty system message leaves its whole part out, as the templates do."""
        head, tail = self.text.replace("{system}", self.system if system else "").split("{user}")
        before, after = self._split(head), self._split(tail)
        start, end = _text_at(before, -1), _text_at(after, 0)
        before, after = before[: len(before) - bool(start)], after[bool(end) :]
        person = Segment(start.replace("{system}", system) + user + end, SegmentKind.PERSON)
        return [*(one._replace(text=one.text.replace("{system}", system)) for one in before), person, *after]

    def begun(self, system: str, user: str) -> list[Segment]:
        """The start of the prompt, up to and with a user message that may go on."""
        segments = self.segments(system, user)
        at = next(i for i, segment in enumerate(segments) if segment.kind is SegmentKind.PERSON)
        tail = _text_at(self._split(self.text.split("{user}")[1]), 0)
        return [*segments[:at], segments[at]._replace(text=segments[at].text.removesuffix(tail))]

    @property
    def end_segment(self) -> Segment:
        """What ends an answer: a special token, or the line break of a shape without any."""
        return Segment(self.end, SegmentKind.SPECIAL if self.end in self.special else SegmentKind.MODEL)

    def _split(self, text: str) -> list[Segment]:
        bos = [Segment("", SegmentKind.BOS)] if text.startswith("{bos}") else []
        text = text.removeprefix("{bos}")
        parts = re.split(f"({'|'.join(map(re.escape, self.special))})", text) if self.special else [text]
        kinds = {True: SegmentKind.SPECIAL, False: SegmentKind.MODEL}
        return bos + [Segment(part, kinds[part in self.special]) for part in parts if part]


def _text_at(segments: list[Segment], place: int) -> str:
    """The plain text at an end of a list of segments; "" if a special token stands there."""
    found = segments[place] if segments else Segment("", SegmentKind.MODEL)
    return found.text if found.kind is SegmentKind.MODEL else ""


_IM = ("<|im_start|>", "<|im_end|>")
_IM_SYSTEM, _IM_USER = "<|im_start|>system\n{system}<|im_end|>\n", "<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
_HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"

SHAPES = {
    "chatml": ChatShape(  # Qwen3, with an empty thought
        "{system}" + _IM_USER + "<think>\n\n</think>\n\n", _IM_SYSTEM, (*_IM, "<think>", "</think>"), "<|im_end|>",
        words=("<|im_start|>", "enable_thinking", "<think>\n\n</think>\n\n"), without=("bos_token", "reasoning_mode"),
    ),
    "chatml-direct": ChatShape(  # Qwen2, SmolLM2, and many fine-tuned models: the answer follows at once
        "{bos}{system}" + _IM_USER, _IM_SYSTEM, _IM, "<|im_end|>",
        words=("<|im_start|>",),
        without=("enable_thinking", "<|im_sep|>", "<end_of_utterance>", "<think>\n", "function calling AI model"),
    ),
    "gemma": ChatShape(
        "<bos><start_of_turn>user\n{system}{user}<end_of_turn>\n<start_of_turn>model\n", "{system}\n\n",
        ("<bos>", "<start_of_turn>", "<end_of_turn>"), "<end_of_turn>", words=("bos_token", "<start_of_turn>"),
    ),
    "llama-3": ChatShape(
        "<|begin_of_text|>{system}" + _HEADER.format("user") + "{user}<|eot_id|>" + _HEADER.format("assistant"),
        _HEADER.format("system") + "{system}<|eot_id|>",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<|eot_id|>",
        words=("<|start_header_id|>", "<|eot_id|>"), without=("recipient", "<function="),
    ),
    "llama-2": ChatShape(
        "<s>[INST] {system}{user} [/INST]", "<<SYS>>\n{system}\n<</SYS>>\n\n", ("<s>", "</s>"), "</s>", " ",
        words=("bos_token + '[INST] '", "<<SYS>>"), without=("system_message = '",),
    ),
    "mistral": ChatShape(  # with spaces inside, as written for the vocabularies of 32,000 tokens
        "<s>[INST] {system}{user} [/INST]", "{system}\n\n", ("<s>", "</s>"), "</s>", " ",
        words=("[INST] ", " [/INST]"), without=("<<SYS>>", "[AVAILABLE_TOOLS]", " [INST]"),
    ),
    "mistral-nemo": ChatShape(
        "<s>[INST]{system}{user}[/INST]", "{system}\n\n", ("<s>", "</s>", "[INST]", "[/INST]"), "</s>",
        words=('"[INST]"', '"[/INST]"', "[AVAILABLE_TOOLS]"), without=("[SYSTEM_PROMPT]",),
    ),
    "zephyr": ChatShape(  # TinyLlama: the marks of its turns are ordinary text
        "{bos}{system}<|user|>\n{user}</s>\n<|assistant|>\n", "<|system|>\n{system}</s>\n", ("</s>",), "</s>",
        words=("<|user|>", "<|assistant|>", "eos_token"), without=("<|end|>",),
    ),
    COMPLETION: ChatShape("{bos}{system}Question: {user}\nAnswer:", "{system}\n\n", (), "\n", " "),
}  # fmt: skip
"""Each shape by its name. A profile's hash holds the name, so a name always means the same text."""

_OWN_SYSTEM_MESSAGE = re.compile(r"<\|im_start\|>system\n([^<{}\\\"']{1,1000})<\|im_end\|>")
_LLAMA_3_DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
# Some templates of Llama 3 print today's date; theirs for lack of a clock is used always, so that tomorrow's prompt is the same.


def shape_of(metadata: Mapping[str, object], wanted: str = "") -> tuple[str, str]:
    """The name of the shape of a file, and the system message that its template brings. `wanted` is the shape that a person names.

    A file without a chat template is a base model, which completes a text. Raises `ModelRefused` for a template that is not known.
    """
    template = str(metadata.get(TEMPLATE_KEY, "")).replace("\\n", "\n")  # as its program writes a line break, or as it is
    if name := wanted or ("" if template.strip() else COMPLETION):
        return name, _own_system_message(name, template)
    for name, shape in SHAPES.items():
        if shape.words and all(word in template for word in shape.words) and not any(word in template for word in shape.without):
            return name, _own_system_message(name, template)
    raise ModelRefused(
        f"The chat template of the model file is none that edge-agent knows; name the shape that its makers use with --chat-shape, "
        f"one of: {', '.join(SHAPES)}."
    )


def _own_system_message(name: str, template: str) -> str:
    """What a template says of itself where nobody gives a system message; "" if nothing, or if it cannot be found without running it."""
    if name == "llama-3":
        return _LLAMA_3_DATES if "Cutting Knowledge Date: December 2023" in template else ""
    found = _OWN_SYSTEM_MESSAGE.search(template) if name.startswith("chatml") else None
    return found[1] if found else ""
