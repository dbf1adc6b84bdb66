"""The frozen records that pass between the wings: what was read, what was decided, and on which model.

Owns shapes, their JSON and the text of an answer; no record does I/O or decides anything. Invariant: a record never changes, and
`Reading.from_json(reading.to_json()) == reading`, so storage loses nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


class ReadingKey(NamedTuple):
    """What a stored reading depends on; `adapter_sha256` is "" without an adapter."""

    fingerprint: str
    model_sha256: str
    adapter_sha256: str
    profile_sha256: str


class CloudKey(NamedTuple):
    """What a stored cloud answer depends on."""

    fingerprint: str
    cloud_model: str
    endpoint: str
    prompt_version: int
    api: str = "chat"


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one reading went; zeros when it came from the store.

    `waited_ms` is the wait for other questions, not part of prefill or decode; `total_ms` is the caller's whole wait.
    """

    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    total_ms: float = 0.0
    n_prompt_tokens: int = 0
    n_cached_tokens: int = 0
    n_forward: int = 0
    waited_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelReading:
    """How sure the model is, known before its answer.

    `level` is the greedy choice, token by token; `level_probs` are renormalised over the legal levels, in the order of
    `levels`. `format_mass` (0 to 1) is the full-vocabulary probability of the legal tokens at the first token and at
    each branch taken: how likely the model is to keep the format on its own, measured at these tokens. A plain model has no
    levels; then `level` and `format_mass` are None.
    """

    levels: tuple[str, ...]
    level_probs: tuple[float, ...]
    level: str | None
    format_mass: float | None

    @property
    def confidence(self) -> float | None:
        """The level chosen, as a number; None for a plain model."""
        return None if self.level is None else float(self.level)

    @property
    def expected_confidence(self) -> float | None:
        """The mean level under `level_probs`; None for a plain model."""
        if not self.levels:
            return None
        return sum(float(level) * p for level, p in zip(self.levels, self.level_probs, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading(LevelReading):
    """Everything the model said about one question.

    `answer_probs` are conditional on `level`, in the order of `letters`; `letter` is the model's choice. `format_mass` also
    covers the branches of the answer.
    """

    letters: str
    answer_probs: tuple[float, ...]
    letter: str
    timings: Timings

    @property
    def answer(self) -> str:
        """The letter."""
        return self.letter

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back exactly."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Reading | OpenReading:
        """The reading that `to_json` wrote, of either kind."""
        data = json.loads(text)
        for key in {"levels", "level_probs", "answer_probs"} & data.keys():
            data[key] = tuple(data[key])
        kind = Reading if "letters" in data else OpenReading
        return kind(**{**data, "timings": Timings(**data["timings"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenReading(LevelReading):
    """Everything the model said about a question without options: `text`, and whether it `ended` within its limit."""

    text: str
    ended: bool
    timings: Timings

    @property
    def answer(self) -> str:
        """The text."""
        return self.text

    def to_json(self) -> str:
        """One line of JSON that `Reading.from_json` reads back exactly."""
        return json.dumps(asdict(self), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known about one model file without opening it again; `profile` is `Profile.to_json()`, `adapter_sha256`
    belongs to the GGUF adapter on it, "" without one.
    """

    name: str
    sha256: str
    quantization: str
    architecture: str
    profile: str
    adapter_sha256: str = ""


@dataclass(frozen=True, slots=True)
class CloudAnswer:
    """A usable answer of the cloud: the letter found in its reply (for an open question, the text), and what it cost.

    `api` is how it was asked: chat, systemone or decisions. `probs` is the cloud's own probability of every letter; None where its
    API brings none (chat). They are never made up: a letter without a distribution has no probability.
    """

    answer: str
    reply: str
    model: str
    latency_ms: float
    n_prompt_tokens: int | None = None
    n_completion_tokens: int | None = None
    probs: dict[str, float] | None = None
    api: str = "chat"

    @property
    def confidence(self) -> float | None:
        """The probability that the cloud gave to its own letter; None without a distribution."""
        return self.probs[self.answer] if self.probs else None

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back exactly."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> CloudAnswer:
        """The answer that `to_json` wrote, in this version or an older one. Raises `ValueError` or `TypeError` if it is damaged."""
        answer = CloudAnswer(**json.loads(text))
        if (probs := answer.probs) is not None:
            is_sound = isinstance(probs, dict) and answer.answer in probs
            if not is_sound or not all(type(p) in (int, float) and 0 <= p <= 1 for p in probs.values()):
                raise ValueError(f"the probabilities are {probs!r:.80}")
        return answer


@dataclass(frozen=True, slots=True)
class Ending:
    """The state of a decision: `ending` is upheld, overturned or abandoned, None while it waits or if it was final at once.

    Both answers and both times (Unix) stay in the record. `number` counts all endings in the order they happened.
    """

    decision_id: str
    provisional: bool
    ending: str | None
    answer: str
    final_answer: str | None
    created_at: float
    ended_at: float | None
    number: int | None = None

    @property
    def waits(self) -> bool:
        """Whether the decision still waits for the cloud."""
        return self.provisional and self.ending is None


_WAITS = frozenset({"no_cloud", "offline", "cloud_error", "over_budget"})  # reasons to ask the cloud later


@dataclass(frozen=True, slots=True)
class Decision:
    """One answered question: the answer, its confidence, its route and why.

    `route` is `local` or `cloud`; `reason` decided it; `cause` says why the cloud was wanted, if it was. A
    `tau` compares with `score`, which `readout` names; `calibration` is the sha256 of what chose them, None if none did. A
    `provisional` answer is the device's own, kept until the cloud has been asked (`queue_id`); `cloud_error` says why
    it has not answered yet; `storage_error` why the decision is not `persisted`. Probabilities and confidences are None when
    only the cloud was asked. `cloud_confidence` is the probability that the cloud gave to its own letter; None without the cloud's
    distribution.
    """

    decision_id: str
    answer: str
    answer_text: str
    confidence: float | None
    expected_confidence: float | None
    level_probs: dict[str, float] | None
    answer_probs: dict[str, float] | None
    format_mass: float | None
    route: str
    deferred: bool
    recalled: bool
    provisional: bool
    reason: str
    cause: str | None
    readout: str
    score: float | None
    tau: float
    calibration: str | None
    policy: str
    queue_id: int | None
    model: ModelFacts
    cloud: CloudAnswer | None
    cloud_error: str | None
    timings: Timings
    persisted: bool
    storage_error: str | None = None
    cloud_confidence: float | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the question should wait for the cloud, and does not, because it could not be stored."""
        return not self.persisted and self.route == "local" and self.reason in _WAITS

    def to_dict(self) -> dict[str, Any]:
        """The object that `edge-agent ask --json` prints."""
        data = asdict(self)
        data["model"] = {key: data["model"][key] for key in ("name", "sha256", "quantization")}
        if self.model.adapter_sha256:
            data["model"]["adapter_sha256"] = self.model.adapter_sha256
        if self.cloud:
            tokens = {"prompt": self.cloud.n_prompt_tokens, "completion": self.cloud.n_completion_tokens}
            cloud = self.cloud
            data["cloud"] = {
                "model": cloud.model, "latency_ms": cloud.latency_ms, "tokens": tokens, "api": cloud.api, "probs": cloud.probs
            }  # fmt: skip
        return data


def option_text(row: dict[str, Any], answer: str | None) -> str:
    """The text of an answer of a decision; `row` has its `options`, none for an open question."""
    options, place = row["options"], ord(answer) - ord("A") if answer and len(answer) == 1 else -1
    return str(options[place]) if isinstance(options, list) and 0 <= place < len(options) else answer or ""
