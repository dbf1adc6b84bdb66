"""What kind of model a file holds: how to ask it, which levels it prints, when it is sure enough.

Owns the system messages, the prompt's shape and the `foggen.*` keys of a GGUF; knows nothing of tokens. Invariant:
what a file says about itself is checked here before anybody uses it, and a person's text only ever enters a
prompt as a plain segment, never as a special one.
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
"""For answers in the model's own words. What FogGen's open-ended round was asked is not published: this is ours."""

_SYSTEM_MESSAGE_GEMMA = SYSTEM_MESSAGE.replace("- Do not output <think> tags.\n", "")

MAX_SYSTEM_MESSAGE_CHARS = 8192
_LEVEL = re.compile(r"[0-9](\.[0-9]{1,4})?")


class SegmentKind(Enum):
    """Whose text a segment is, which decides what its characters may become."""

    SPECIAL = "special"  # one token of the template's own
    MODEL = "model"  # the model's own plain text: added tokens such as `<think>` stay tokens, control tokens do not
    PERSON = "person"  # a stranger's plain text: no added token at all


class Segment(NamedTuple):
    """A stretch of a prompt between two special tokens (or one such token); tokenized as a whole."""

    text: str
    kind: SegmentKind


@dataclass(frozen=True, slots=True)
class Profile:
    """How a model is asked and read.

    `prompt` names the shape of the prompt (`chatml` or `gemma`); `levels` are the printed confidences, rising, as
    texts; `answer_kind` is `letter` or `text` (words of its own); `tau` is the confidence from which the answer is
    kept; below `format_mass_min` a reading counts as "no confidence found" (with 0.5, the model would more likely than
    not have printed something else). `likely_level` is the level whose answer is evaluated ahead (None: the highest, with
    which the answer is needed most: an unsure one is the cloud's).
    """

    prompt: str
    system_message: str
    levels: tuple[str, ...] = LEVELS
    answer_kind: str = "letter"
    tau: float = 0.5
    format_mass_min: float = 0.5
    likely_level: str | None = None

    @property
    def question_kind(self) -> str:
        """What it can be asked: questions with options ("choice"), or without ("open")."""
        return OPEN if self.answer_kind == "text" else CHOICE

    @property
    def sha256(self) -> str:
        """Identity of everything that changes what the model reads (tau, the threshold and defaults apart)."""
        facts = [self.prompt, self.system_message, self.levels, self.answer_kind]
        return hashlib.sha256(json.dumps(["profile-1", *facts]).encode()).hexdigest()

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """The profile that `to_json` wrote."""
        data = json.loads(text)
        return cls(**{**data, "levels": tuple(data["levels"])})

    def segments(self, user_message: str) -> list[Segment]:
        """The prompt for `user_message`, cut where the special tokens are; thinking is off.

        Equal to the chat templates of Qwen3 (`enable_thinking=False`) and Gemma 3 with the generation prompt
        added, except that no text of a person can become a special token.
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


def default_profile(architecture: str, answer_kind: str = "letter") -> Profile:
    """The profile of a FogGen model of this architecture; raises `ModelRefused` if it is unknown."""
    try:
        profile = _BY_ARCHITECTURE[architecture]
    except KeyError:
        known = ", ".join(_BY_ARCHITECTURE)
        raise ModelRefused(f"The architecture {architecture!r:.60} is unknown here; known are {known}.") from None
    if answer_kind == "letter":
        return profile
    return replace(profile, answer_kind=answer_kind, system_message=_in_own_words(profile.system_message))


def gguf_keys(profile: Profile) -> dict[str, str | int | float]:
    """The `foggen.*` metadata that `convert` writes: scalars, and JSON for the levels."""
    return {
        "foggen.version": 1,
        "foggen.system_message": profile.system_message,
        "foggen.levels": json.dumps(profile.levels),
        "foggen.answer_kind": profile.answer_kind,
        "foggen.tau": profile.tau,
    }


def from_metadata(metadata: Mapping[str, object]) -> Profile:
    """The profile of a GGUF, from its metadata: its own `foggen.*` keys over its architecture's defaults.

    The file is a stranger's: every value is checked, and a wrong one raises `ModelRefused` naming its key.
    """
    profile = default_profile(str(metadata.get("general.architecture")))
    if "foggen.version" not in metadata:
        return profile
    if metadata["foggen.version"] != 1:
        raise ModelRefused(
            f"The model file says foggen.version = {metadata['foggen.version']!r:.40}, and this edge-agent knows "
            "version 1; update edge-agent."
        )
    message = metadata.get("foggen.system_message", profile.system_message)
    if not isinstance(message, str) or len(message) > MAX_SYSTEM_MESSAGE_CHARS:
        raise _refused("foggen.system_message", f"a text of at most {MAX_SYSTEM_MESSAGE_CHARS} characters")
    tau = metadata.get("foggen.tau", profile.tau)
    if not isinstance(tau, int | float) or not 0 <= tau <= 1:
        raise _refused("foggen.tau", "a number from 0 to 1")
    kind = metadata.get("foggen.answer_kind", "letter")
    if kind not in ("letter", "text"):
        raise _refused("foggen.answer_kind", "'letter' or 'text', the kinds this version can ask for")
    levels = _checked_levels(metadata.get("foggen.levels", json.dumps(profile.levels)))
    return replace(profile, system_message=message, answer_kind=str(kind), tau=round(float(tau), 6), levels=levels)


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
    raise _refused("foggen.levels", "a JSON list of 2 to 21 rising numbers from 0 to 1, written as texts")


def _refused(key: str, wanted: str) -> ModelRefused:
    return ModelRefused(f"The model file's {key} is not {wanted}; convert the model again.")
