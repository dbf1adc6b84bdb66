"""The profile of a model: how to prompt it, which confidence levels it prints, and when it is sure enough.

Owns the system messages, the `foggen.*` keys of a GGUF and the choice between FogGen and plain. Does not know tokens; the texts around
a question are those of `shapes`. Invariant: the values that a file states about itself are checked here before anyone uses them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from edge_agent.core.config.checks import PROFILES, WAYS_OF_ANSWERING
from edge_agent.core.errors import ModelRefused
from edge_agent.core.question import CHOICE, OPEN, Question
from edge_agent.model.shapes import COMPLETION, SHAPES, ChatShape, Segment, shape_of

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


def _as_text(message: str) -> str:
    return message.replace("<OPTION_LETTER>", "<OPTION_TEXT>")


def _in_own_words(message: str) -> str:
    return message.replace("multiple-choice ", "").replace("<OPTION_LETTER>", "<ANSWER>")


OPEN_SYSTEM_MESSAGE = _in_own_words(SYSTEM_MESSAGE)
"""For answers in the model's own words. FogGen's own open-ended prompt is not published, so this one is ours."""

_SYSTEM_MESSAGE_GEMMA = SYSTEM_MESSAGE.replace("- Do not output <think> tags.\n", "")

LETTER_INSTRUCTION = "Answer with the letter of the right option only."
MAX_SYSTEM_MESSAGE_CHARS = 8192
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
_LEVEL = re.compile(r"[0-9](\.[0-9]{1,4})?")

LETTER, OPTION, TEXT = "letter", "option", "text"
PLAIN, FOGGEN = PROFILES
_ONLY_PLAIN = ("instruction", "lists_options", "normalise")
_KINDS = {LETTER: "a letter", OPTION: "the text of an option", TEXT: "its own words"}
PLAIN_MEANS = "it prints no confidence, so without a calibration (`edge-agent calibrate`) its answers count as unsure"
"""What it means for a person that a model is plain."""
IF_PLAIN = "if it is no FogGen model, say `--profile plain`"
TAU_IS_USELESS = (
    "A tau of {:g} alone keeps no answer: it compares with a printed confidence, and this is a plain model, which prints none. "
    "Leave the tau out; what counts then is a calibration, which `edge-agent calibrate` makes."
)
NONE, TOKENS, BYTES, PRIOR = "none", "tokens", "bytes", "prior"
NORMALISE = (NONE, TOKENS, BYTES, PRIOR)
"""How the log-probability of an option's text becomes comparable with another's: not at all, by its number of tokens or of bytes, or
by its log-probability without the question."""
_NORMALISED = dict(zip(WAYS_OF_ANSWERING[1:], (TOKENS, PRIOR), strict=True))
QUESTION_KINDS = {LETTER: CHOICE, OPTION: CHOICE, TEXT: OPEN}
"""Each answer kind, by its published word (in `foggen.answer_kind`, catalog.toml and `convert --answer-kind`), and what it answers."""

ADAPTERS_KEY = "foggen.adapters"
"""The key that says which adapters a file holds: a JSON list with the sha256 of each one's safetensors."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How to prompt a model and how to read its answer.

    `prompt` names the prompt shape, such as `chatml`. `levels` are the confidences that the model prints, as strings in
    rising order; a plain model prints none. `answer_kind` is `letter`, `option` (the text of an option) or `text` (the
    model's own words). An answer is kept if its confidence is at least `tau`. A reading with a format mass below
    `format_mass_min` counts as "no confidence found"; at 0.5, the model would more likely have printed something else. The
    answer after `likely_level` is evaluated in the first pass; None means the highest level, because unsure answers go to the cloud.

    A plain model's question ends with the line `instruction`; with `lists_options` it sees the options. `normalise` says what the
    log-probability of an option's text is divided by, or compared with (`NORMALISE`).
    """

    prompt: str
    system_message: str
    levels: tuple[str, ...] = LEVELS
    answer_kind: str = LETTER
    tau: float = 0.5
    format_mass_min: float = 0.5
    likely_level: str | None = None
    instruction: str = ""
    lists_options: bool = True
    normalise: str = TOKENS

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
        facts: list[object] = [self.prompt, self.system_message, self.levels, self.answer_kind]
        if self.is_plain:
            facts += [self.instruction, self.lists_options, *([self.normalise] if self.answer_kind == OPTION else [])]
        return hashlib.sha256(json.dumps(["profile-1", *facts]).encode()).hexdigest()

    def to_json(self) -> str:
        """One line of JSON for `from_json`. What only a plain model has is left out for others, so that older programs read theirs."""
        fields = asdict(self)
        for name in () if self.is_plain else _ONLY_PLAIN:
            del fields[name]
        return json.dumps(fields, ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """The profile that `to_json` wrote, in this version or an older one."""
        fields = json.loads(text)
        return cls(**{**fields, "levels": tuple(fields["levels"])})

    @property
    def in_words(self) -> str:
        """Which kind of model it is, and what that means, on one line."""
        answers = f"answers with {_KINDS[self.answer_kind]}"
        if self.is_plain:
            against = ", compared with its probability without the question" if self.normalise == PRIOR else ""
            return f"plain: {PLAIN_MEANS}; chat shape {self.prompt}, {answers}{against}"
        return f"FogGen: prints its confidence (levels {', '.join(self.levels)}), {answers}, tau {self.tau:g}"

    @property
    def shape(self) -> ChatShape:
        """How its prompt is written."""
        return SHAPES[self.prompt]

    def user_message(self, question: Question) -> str:
        """What the model is asked: the stem, one option a line as `A. text` unless it is not to see them, and the instruction."""
        return self._instructed(question.user_message if self.lists_options else question.stem)

    def segments(self, user_message: str) -> list[Segment]:
        """The prompt for `user_message`, split at the special tokens, with thinking turned off.

        The same text as the chat template of the model produces with the generation prompt, except that user text cannot become a
        special token.
        """
        return self.shape.segments(self.system_message, user_message)

    def begun(self, text: str, complete: bool) -> list[Segment]:
        """The prompt of a question that is being typed, as far as it will not change; of a `complete` one, all of it."""
        if not self.lists_options:  # whatever stands after the first line may be an option, which the model does not see
            return self.shape.begun(self.system_message, text.split("\n", 1)[0])
        return self.segments(self._instructed(text)) if complete else self.shape.begun(self.system_message, text)

    def _instructed(self, text: str) -> str:
        return f"{text}\n{self.instruction}" if self.instruction else text


_BY_ARCHITECTURE = {
    "qwen3": Profile(prompt="chatml", system_message=SYSTEM_MESSAGE),
    "gemma3": Profile(prompt="gemma", system_message=_SYSTEM_MESSAGE_GEMMA),
    "llama": Profile(prompt="chatml-direct", system_message=_SYSTEM_MESSAGE_GEMMA),
    "qwen2": Profile(prompt="chatml-direct", system_message=_SYSTEM_MESSAGE_GEMMA),
}

_PLAIN = ("llama", "qwen2")
ARCHITECTURES = tuple(_BY_ARCHITECTURE)
"""llama.cpp's names for the architectures that edge-agent runs. A file of the last two without `foggen.*` keys is a plain model."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a person wants a model file to be read; "" leaves each to the file.

    `profile` is `plain` or `foggen`, `answers` is `letter`, `option` or `option-prior` for a plain model (the last two differ in
    `Profile.normalise`), and `chat_shape` the name of its shape.
    `measured` is the sha256 of the questions by which `answers` was chosen, "" if a person chose it.
    Raises `ModelRefused` for another word.
    """

    profile: str = ""
    answers: str = ""
    chat_shape: str = ""
    measured: str = ""

    def __post_init__(self) -> None:
        """Check the words, because they may come from a file that anyone can change."""
        for name, known in (("profile", PROFILES), ("answers", WAYS_OF_ANSWERING), ("chat_shape", tuple(SHAPES))):
            if (value := getattr(self, name)) not in ("", *known):
                raise ModelRefused(f"The {name.replace('_', ' ')} {value!r:.40} is not known; give one of: {', '.join(known)}.")
        if self.measured and not _SHA256.fullmatch(self.measured):
            raise ModelRefused(f"The sha256 {self.measured!r:.40} is not one.")

    def over(self, other: Way) -> Way:
        """This way, and where it leaves something to the file, the `other`. A foggen model has neither of the other two."""
        profile = self.profile or other.profile
        if self.profile == FOGGEN:
            return Way(profile, self.answers, self.chat_shape)
        measured = self.measured if self.answers else other.measured
        return Way(profile, self.answers or other.answers, self.chat_shape or other.chat_shape, measured)


AS_IT_SAYS = Way()
"""What a file says of itself counts."""


def is_plain(metadata: Mapping[str, object], way: Way = AS_IT_SAYS) -> bool:
    """Whether a file with this metadata is read as a plain model."""
    if way.profile:
        return way.profile == PLAIN
    return metadata.get("general.architecture") in _PLAIN and "foggen.version" not in metadata


def plain_profile(metadata: Mapping[str, object], way: Way = AS_IT_SAYS) -> Profile:
    """The profile of a plain model. Raises `ModelRefused` if nobody knows its chat shape."""
    shape, message = shape_of(metadata, way.chat_shape)
    if way.answers in _NORMALISED:
        return Profile(shape, message, (), OPTION, lists_options=False, normalise=_NORMALISED[way.answers])
    return Profile(shape, message, (), LETTER, instruction="" if shape == COMPLETION else LETTER_INSTRUCTION)


def is_known(metadata: Mapping[str, object]) -> bool:
    """Whether a file says enough of itself to be read; a plain one with an unknown chat template does not."""
    try:
        return not is_plain(metadata) or bool(plain_profile(metadata))
    except ModelRefused:
        return False


def check_architecture(architecture: str) -> None:
    """Raises `ModelRefused` for an architecture that edge-agent does not run."""
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelRefused(f"The architecture {architecture!r:.60} is not supported; use a model of one of these: {known}.")


def default_profile(architecture: str, answer_kind: str = LETTER) -> Profile:
    """The profile of a FogGen model of this architecture. Raises `ModelRefused` for an unknown architecture."""
    check_architecture(architecture)
    profile = _BY_ARCHITECTURE[architecture]
    message = profile.system_message
    if answer_kind != LETTER:
        message = _in_own_words(message) if answer_kind == TEXT else _as_text(message)
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


def described(profile: Profile, metadata: Mapping[str, object]) -> str:
    """Which kind of model the file with this metadata is, in words, and whether only the default for its architecture says so."""
    if profile.is_plain or "foggen.version" in metadata or is_plain(metadata):
        return profile.in_words
    return f"{profile.in_words} (the default for {metadata.get('general.architecture')}: the file does not say; {IF_PLAIN})"


def from_metadata(metadata: Mapping[str, object], way: Way = AS_IT_SAYS) -> Profile:
    """The profile of a GGUF: the `foggen.*` keys in its metadata, on top of the defaults of its architecture, or that of a plain model.

    The file may come from anyone, so every value is checked. Raises `ModelRefused` with the name of a wrong key.
    """
    check_architecture(str(metadata.get("general.architecture")))
    if is_plain(metadata, way):
        return plain_profile(metadata, way)
    if way.answers or way.chat_shape:
        raise ModelRefused("A FogGen model says itself how it answers; leave --answers and --chat-shape out, or add --profile plain.")
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
    if not isinstance(tau, int | float) or isinstance(tau, bool) or not 0 <= tau <= 1:
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
