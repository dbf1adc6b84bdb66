"""The profile of a model: how to prompt it, which confidence levels it prints, and when it is sure enough.

Owns the system messages, the prompt shapes and the `foggen.*` keys of a GGUF. Does not know tokens. Invariant: the
values that a file states about itself are checked here before anyone uses them, and user text enters a prompt only as
a plain segment, never as a special token.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import NamedTuple

from edge_agent.core.errors import ModelRefused
from edge_agent.core.question import CHOICE, OPEN

LEVELS = ("0.0", "0.25", "0.5", "0.75", "1.0")

SYSTEM_MESSAGE = """\
You are a self-aware multiple-choice assistant.
Rules:
- Do not output <think> tags.
- First, assess your confidence in solving this question.
- Then give your answer.
- Output format:
Confidence: <0.0|0.25|0.5|0.75|1.0>
Final answer: <OPTION_LETTER>"""


def _in_own_words(message: str) -> str:
    return message.replace("multiple-choice ", "").replace("<OPTION_LETTER>", "<ANSWER>")


OPEN_SYSTEM_MESSAGE = _in_own_words(SYSTEM_MESSAGE)
"""For answers in the model's own words. FogGen's own open-ended prompt is not published, so this one is ours."""

_SYSTEM_MESSAGE_GEMMA = SYSTEM_MESSAGE.replace("- Do not output <think> tags.\n", "")

MAX_SYSTEM_MESSAGE_CHARS = 8192
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
_LEVEL = re.compile(r"[0-9](\.[0-9]{1,4})?")

LETTER, OPTION, TEXT = "letter", "option", "text"
QUESTION_KINDS = {LETTER: CHOICE, OPTION: CHOICE, TEXT: OPEN}
"""Each answer kind, by its published word (in `foggen.answer_kind`, catalog.toml and `convert --answer-kind`), and what it answers."""

ADAPTERS_KEY = "foggen.adapters"
"""The key that says which adapters a file holds: a JSON list with the sha256 of each one's safetensors."""


class SegmentKind(Enum):
    """Where the text of a segment comes from. It decides which tokens the text may become."""

    SPECIAL = "special"  # one special token of the template
    MODEL = "model"  # plain text of the template: may become added tokens such as `<think>`, but no control token
    PERSON = "person"  # user text: must not become any added or control token


class Segment(NamedTuple):
    """A part of a prompt that is tokenized as a whole: one special token, or the text between two of them."""

    text: str
    kind: SegmentKind


@dataclass(frozen=True, slots=True)
class Profile:
    """How to prompt a model and how to read its answer.

    `prompt` names the prompt shape, such as `chatml`. `levels` are the confidences that the model prints, as strings in
    rising order; a plain model prints none. `answer_kind` is `letter`, `option` (the text of an option) or `text` (the
    model's own words). An answer is kept if its confidence is at least `tau`. A reading with a format mass below
    `format_mass_min` counts as "no confidence found"; at 0.5, the model would more likely have printed something else. The
    answer after `likely_level` is evaluated in the first pass; None means the highest level, because unsure answers go to the cloud.
    """

    prompt: str
    system_message: str
    levels: tuple[str, ...] = LEVELS
    answer_kind: str = LETTER
    tau: float = 0.5
    format_mass_min: float = 0.5
    likely_level: str | None = None

    @property
    def question_kind(self) -> str:
        """The questions that the model answers: `choice` or `open`."""
        return QUESTION_KINDS[self.answer_kind]

    @property
    def is_plain(self) -> bool:
        """Whether the model prints no confidence."""
        return not self.levels

    @property
    def sha256(self) -> str:
        """A hash of everything that changes what the model reads: all fields except tau and the defaults.

        Databases store readings under this hash, so it must stay the same for the same profile in every version.
        """
        facts = [self.prompt, self.system_message, self.levels, self.answer_kind]
        return hashlib.sha256(json.dumps(["profile-1", *facts]).encode()).hexdigest()

    def to_json(self) -> str:
        """One line of JSON for `from_json`."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """The profile that `to_json` wrote, in this version or an older one."""
        fields = json.loads(text)
        return cls(**{**fields, "levels": tuple(fields["levels"])})

    def segments(self, user_message: str) -> list[Segment]:
        """The prompt for `user_message`, split at the special tokens, with thinking turned off.

        The same text as the chat templates of Qwen3 (`enable_thinking=False`) and Gemma 3 produce with the generation
        prompt, except that user text cannot become a special token.
        """
        return list(_SHAPES[self.prompt](self.system_message, user_message))


def _chatml(system: str, user: str) -> list[Segment]:
    start, end, line = _special("<|im_start|>"), _special("<|im_end|>"), _model("\n")
    turns = [start, _model(f"system\n{system}"), end, line]
    turns += [start, Segment(f"user\n{user}", SegmentKind.PERSON), end, line]
    think = [_special("<think>"), _model("\n\n"), _special("</think>"), _model("\n\n")]
    return [*turns, start, _model("assistant\n"), *think]


def _gemma(system: str, user: str) -> list[Segment]:
    start, end = _special("<start_of_turn>"), _special("<end_of_turn>")
    turn = [_special("<bos>"), start, Segment(f"user\n{system}\n\n{user}", SegmentKind.PERSON), end, _model("\n")]
    return [*turn, start, _model("model\n")]


def _special(text: str) -> Segment:
    return Segment(text, SegmentKind.SPECIAL)


def _model(text: str) -> Segment:
    return Segment(text, SegmentKind.MODEL)


_SHAPES = {"chatml": _chatml, "gemma": _gemma}

_BY_ARCHITECTURE = {
    "qwen3": Profile(prompt="chatml", system_message=SYSTEM_MESSAGE),
    "gemma3": Profile(prompt="gemma", system_message=_SYSTEM_MESSAGE_GEMMA),
}

ARCHITECTURES = tuple(_BY_ARCHITECTURE)
"""llama.cpp's names for the architectures that edge-agent runs."""


def default_profile(architecture: str, answer_kind: str = LETTER) -> Profile:
    """The profile of a FogGen model of this architecture. Raises `ModelRefused` for an unknown architecture."""
    try:
        profile = _BY_ARCHITECTURE[architecture]
    except KeyError:
        known = ", ".join(_BY_ARCHITECTURE)
        raise ModelRefused(f"The architecture {architecture!r:.60} is not supported; use a model of one of these: {known}.") from None
    message = profile.system_message if QUESTION_KINDS[answer_kind] == CHOICE else _in_own_words(profile.system_message)
    return replace(profile, answer_kind=answer_kind, system_message=message)


def gguf_keys(profile: Profile) -> dict[str, str | int | float]:
    """The `foggen.*` metadata that `convert` writes: scalars, and the levels as JSON."""
    return {
        "foggen.version": 1,
        "foggen.system_message": profile.system_message,
        "foggen.levels": json.dumps(profile.levels),
        "foggen.answer_kind": profile.answer_kind,
        "foggen.tau": profile.tau,
    }


def from_metadata(metadata: Mapping[str, object]) -> Profile:
    """The profile of a GGUF: the `foggen.*` keys in its metadata, on top of the defaults of its architecture.

    The file may come from anyone, so every value is checked. Raises `ModelRefused` with the name of a wrong key.
    """
    profile = default_profile(str(metadata.get("general.architecture")))
    if "foggen.version" not in metadata:
        return profile
    if metadata["foggen.version"] != 1:
        raise ModelRefused(
            f"The model file has foggen.version = {metadata['foggen.version']!r:.40}, but this edge-agent supports only "
            "version 1; update edge-agent."
        )
    message = metadata.get("foggen.system_message", profile.system_message)
    if not isinstance(message, str) or len(message) > MAX_SYSTEM_MESSAGE_CHARS:
        raise _refused("foggen.system_message", f"a string of at most {MAX_SYSTEM_MESSAGE_CHARS} characters")
    tau = metadata.get("foggen.tau", profile.tau)
    if not isinstance(tau, int | float) or not 0 <= tau <= 1:
        raise _refused("foggen.tau", "a number from 0 to 1")
    kind = str(metadata.get("foggen.answer_kind", LETTER))
    if kind not in QUESTION_KINDS:
        raise _refused("foggen.answer_kind", "'letter', 'option' or 'text', the kinds that this version supports")
    levels = _checked_levels(metadata.get("foggen.levels", json.dumps(profile.levels)))
    return replace(profile, system_message=message, answer_kind=kind, tau=round(float(tau), 6), levels=levels)


def held_adapters(metadata: Mapping[str, object]) -> set[str]:
    """The sha256 of each adapter that a model file or an adapter file says it holds, as far as it says it properly."""
    return set(_SHA256.findall(str(metadata.get(ADAPTERS_KEY, ""))))


def _checked_levels(value: object) -> tuple[str, ...]:
    try:
        levels = json.loads(value) if isinstance(value, str) and len(value) <= 1024 else None
    except (ValueError, RecursionError):
        levels = None
    texts = [level for level in levels if isinstance(level, str)] if isinstance(levels, list) else []
    if texts and texts == levels and all(_LEVEL.fullmatch(text) for text in texts):
        numbers = [float(text) for text in texts]
        if 2 <= len(numbers) <= 21 and numbers == sorted(set(numbers)) and numbers[-1] <= 1:
            return tuple(texts)
    raise _refused("foggen.levels", "a JSON list of 2 to 21 strings with rising numbers from 0 to 1")


def _refused(key: str, wanted: str) -> ModelRefused:
    return ModelRefused(f"The model file's {key} is not {wanted}; convert the model again.")
